import io
import re
import sys
import tokenize
from pathlib import Path, PureWindowsPath

import pytest
from helpers import ROOT

from alilama.common.config import TYPES, USUAL, USUAL_SHAPE, Config, load_config, quoted, read_settings
from alilama.common.errors import UserError

TRAINCONFIG = ROOT / "TRAINCONFIG.py"


def load(*argv, path=TRAINCONFIG) -> Config:
    return load_config(path, list(argv), "A test.")


@pytest.fixture
def edited(tmp_path):
    """Writes a TRAINCONFIG.py with some lines replaced, and returns its path."""

    def edit(append: str = "", **lines: str):
        content = "\n".join(
            f"{name} = {lines[name]}" if (name := line.split(" = ")[0]) in lines else line
            for line in TRAINCONFIG.read_text().splitlines()
        )
        path = tmp_path / "TRAINCONFIG.py"
        path.write_text(content + "\n" + append)
        return path

    return edit


def test_every_setting_has_one_line_with_a_comment():
    commented = {}
    for token in tokenize.generate_tokens(io.StringIO(TRAINCONFIG.read_text()).readline):
        if token.type == tokenize.COMMENT and token.line.count(" = "):
            commented[token.line.split(" = ")[0]] = token.string.removeprefix("#").strip()
    assert commented.keys() == TYPES.keys()
    assert all(len(comment) > 5 for comment in commented.values())
    assert read_settings(TRAINCONFIG)[1] == commented


def test_the_settings_as_they_are_can_be_used():
    config = load()
    assert config.data_files == "data/raw" and config.val_files is None
    assert config.d_model == 64 and config.eval_tokens == 200_000
    assert config.hidden_dim == 4 * 64
    assert config.model_dir == Path("models/stories")


CHANGES = {
    "data_files": ("a.txt", "a.txt"),
    "text_column": ("story", "story"),
    "val_files": ("b.txt", "b.txt"),
    "val_fraction": ("0.1", 0.1),
    "vocab_size": ("300", 300),
    "pattern": ("gpt2", "gpt2"),
    "tokens_dir": ("t", "t"),
    "model_name": ("owl", "owl"),
    "minutes": ("2.5", 2.5),
    "d_model": ("128", 128),
    "blocks": ("3", 3),
    "num_heads": ("16", 16),
    "hidden_dim": ("100", 100),
    "max_seq_len": ("32", 32),
    "dropout": ("0.1", 0.1),
    "epochs": ("0.5", 0.5),
    "train_tokens": ("22e6", 22_000_000),
    "batch_size": ("7", 7),
    "micro_batch": ("3", 3),
    "recompute": ("True", True),
    "learning_rate": ("1e-3", 0.001),
    "warmup": ("0", 0.0),
    "weight_decay": ("0", 0.0),
    "beta1": ("0.7", 0.7),
    "beta2": ("0.9", 0.9),
    "grad_clip": ("2", 2.0),
    "optimizer": ("adamw", "adamw"),
    "precision": ("fp32", "fp32"),
    "compile_model": ("False", False),
    "seed": ("0", 0),
    "init_from": ("models/x", "models/x"),
    "teacher": ("models/y", "models/y"),
    "log_interval": ("1", 1),
    "eval_interval": ("10", 10),
    "eval_tokens": ("1000", 1000),
    "sample_prompt": ("An owl", "An owl"),
    "log_to": ("wandb", "wandb"),
    "models_dir": ("m", "m"),
}


@pytest.mark.parametrize("name", TYPES)
def test_every_setting_can_be_given_in_both_forms_and_changes_nothing_else(name):
    text, value = CHANGES[name]
    before = vars(load())
    for argv in ([f"--{name}={text}"], [f"--{name}", text]):
        config = vars(load(*argv))
        assert config[name] == value and type(config[name]) is type(value)
        shape = USUAL_SHAPE.keys() | {"hidden_dim", "num_heads"}
        derived = {
            "d_model": {"hidden_dim"},
            "train_tokens": {"epochs"},
            "init_from": {"learning_rate", *shape},
            "minutes": USUAL.keys() | shape,
        }
        assert {other for other in config if config[other] != before[other]} == {name} | derived.get(name, set())


def test_two_lengths_are_refused():
    with pytest.raises(UserError, match=r"epochs = 2\.0 and train_tokens = 1000000: expected one of them to be None"):
        load("--epochs=2", "--train_tokens=1e6")


def test_a_model_that_is_trained_on_gets_a_tenth_of_the_learning_rate():
    assert load().learning_rate == 0.045 and load("--init_from=models/a").learning_rate == 0.0045
    assert load("--init_from=models/a", "--learning_rate=0.02").learning_rate == 0.02


def test_hidden_dim_is_derived_after_the_command_line_and_none_can_be_given():
    assert load("--d_model=128").hidden_dim == 512
    assert load("--d_model=128", "--hidden_dim=100").hidden_dim == 100
    assert load("--hidden_dim=None").hidden_dim == 256
    assert load("--eval_tokens=None").eval_tokens is None


@pytest.mark.parametrize(("d_model", "num_heads"), [(64, 8), (7, 7), (100, 5), (1, 1), (513, 3), (768, 12), (1024, 16)])
def test_heads_divide_the_width_and_are_at_most_64_wide(d_model, num_heads):
    assert load(f"--d_model={d_model}").num_heads == num_heads


def test_what_is_none_beside_minutes_stays_open_until_it_is_chosen():
    config = load("--minutes=5", "--blocks=3")
    assert config.blocks == 3
    assert {getattr(config, name) for name in ("d_model", "num_heads", "hidden_dim", "batch_size", "epochs", "dropout")} == {
        None
    }
    chosen = config.with_choice({"d_model": 96, "blocks": 8, "dropout": 0.1})
    assert (
        (chosen.d_model, chosen.blocks, chosen.dropout) == (96, 3, 0.1) and chosen.hidden_dim == 384 and chosen.num_heads == 8
    )
    assert chosen.batch_size is None and config.d_model is None
    with pytest.raises(UserError, match=r"num_heads = 7: expected a divisor of d_model = 96"):
        load("--minutes=5", "--num_heads=7").with_choice({"d_model": 96})


@pytest.mark.parametrize("argument", ["--epochs=2", "--train_tokens=1e6"])
def test_minutes_and_another_length_are_refused_together(argument):
    with pytest.raises(UserError, match=r"expected None beside minutes = 5\.0, which fix it"):
        load("--minutes=5", argument)


def test_several_files_can_be_given():
    assert load("--data_files", "a.txt", "b.txt").data_files == ["a.txt", "b.txt"]
    assert load("--data_files", "a.txt", "--val_files", "b.txt", "c.txt", "--seed=3").val_files == ["b.txt", "c.txt"]


def test_lists_of_files_can_stand_in_the_file(edited):
    assert load(path=edited(data_files='["a.txt", "b.txt"]')).data_files == ["a.txt", "b.txt"]
    assert load(path=edited(data_files='("a.txt", "b.txt")')).data_files == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--compile_model=false", False),
        ("--compile_model=True", True),
        ("--compile_model=1", True),
        ("--compile_model=0", False),
        ("--vocab_size=1_000", 1000),
        ("--train_tokens=1.5e3", 1500),
        ("--epochs=3", 3.0),
        ("--model_name=None", "None"),
        ("--sample_prompt=", ""),
        ("--sample_prompt=5", "5"),
        ("--train_tokens=9007199254740993", 9007199254740993),
    ],
)
def test_text_is_read_as_the_type_of_the_setting(argument, value):
    found = getattr(load(argument), argument[2:].split("=")[0])
    assert found == value and type(found) is type(value)


REFUSED = {
    "d_model": ["0", "-64", "64.5", "wide", "True", "", "nan", "inf", "1e400"],
    "minutes": ["0", "-1", "long", "nan", "inf", "1e6"],
    "vocab_size": ["256", "0", "many"],
    "num_heads": ["7", "0", "128"],
    "val_fraction": ["0", "1", "-0.1", "nan", "half"],
    "dropout": ["1", "-0.1"],
    "warmup": ["1", "-0.1"],
    "beta1": ["1"],
    "beta2": ["1.5"],
    "epochs": ["0", "-1", "nan", "inf"],
    "train_tokens": ["0"],
    "learning_rate": ["0", "-1", "nan", "1e+308", "1e-308"],
    "weight_decay": ["-0.1", "nan", "1e+308"],
    "grad_clip": ["0"],
    "batch_size": ["0"],
    "micro_batch": ["0", "1.5"],
    "recompute": ["None", "2"],
    "max_seq_len": ["0", "12.5"],
    "blocks": ["0", "2000000"],
    "optimizer": ["sgd", "AdamW"],
    "precision": ["fp8"],
    "compile_model": ["maybe", "2"],
    "seed": ["-1", "0.5", "99999999999999999999"],
    "model_name": ["", "..", "a/b", "a\\b", ".", "a ", "a.."],
    "log_interval": ["0"],
    "eval_interval": ["0"],
    "eval_tokens": ["0"],
    "hidden_dim": ["0", "-1"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_cannot_be_is_refused_with_its_name_its_value_and_what_would_be_right(name, value):
    with pytest.raises(UserError) as refused:
        load(f"--{name}={value}")
    message = str(refused.value)
    assert message.startswith(f"{name} = ") and ": expected " in message and len(message.splitlines()) == 1
    assert value in message.replace("\\\\", "\\")


def test_no_validation_share_is_fine_with_validation_files():
    assert load("--val_fraction=0", "--val_files=b.txt").val_fraction == 0


@pytest.mark.parametrize("argument", ["--learning_rat=1", "--lr=1", "--hidden=3", "stray"])
def test_an_unknown_name_on_the_command_line_is_refused_and_named(argument):
    with pytest.raises(UserError, match=re.escape(argument)):
        load(argument)


@pytest.mark.parametrize("line", ["d_modle = 64", "_private = 1", "import os", "def double(x):\n    return 2 * x"])
def test_an_unknown_name_in_the_file_is_refused_and_named(line, edited):
    with pytest.raises(UserError, match=r"TRAINCONFIG\.py: (d_modle|_private|os|double) is not a setting"):
        load(path=edited(append=line))


def test_a_missing_setting_is_named_with_the_line_to_add(edited):
    path = edited()
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("warmup")))
    with pytest.raises(UserError, match=r"warmup is missing; add a line 'warmup = \.\.\.'"):
        load(path=path)


@pytest.mark.parametrize("line", ["d_model = ", "d_model = 6 4", "  d_model = 3", "d_model = 'wide", "d_model = (3", "a = \0"])
def test_a_syntax_error_in_the_file_is_one_line_with_its_place(line, edited):
    with pytest.raises(UserError, match=r"TRAINCONFIG\.py") as refused:
        load(path=edited(append=line))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "d_model = width",
        "d_model = 64 // 0",
        "d_model = int('wide')",
        "import no_such_package",
        "d_model = batch_size.size",
        "exit()",
        "seed = " + "-" * 100_000 + "1",
    ],
)
def test_an_error_while_the_file_runs_is_one_line_that_names_it(line, edited):
    with pytest.raises(UserError, match=r"TRAINCONFIG\.py") as refused:
        load(path=edited(append=line))
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_no_text_is_one_line_that_names_it(tmp_path):
    (tmp_path / "TRAINCONFIG.py").write_bytes(b"d_model = 64\n# \xff\xfe\n")
    with pytest.raises(UserError, match=r"TRAINCONFIG\.py"):
        load(path=tmp_path / "TRAINCONFIG.py")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("d_model", "'wide'"),
        ("d_model", "64.5"),
        ("d_model", "True"),
        ("d_model", "[64]"),
        ("d_model", "{}"),
        ("d_model", "id"),
        ("learning_rate", "{}"),
        ("learning_rate", "True"),
        ("learning_rate", "0.04,"),
        ("compile_model", "'maybe'"),
        ("compile_model", "[]"),
        ("model_name", "5"),
        ("data_files", "[1]"),
        ("data_files", "3"),
        ("tokens_dir", "None"),
        ("data_files", "{'a.txt'}"),
    ],
)
def test_a_wrong_type_in_the_file_is_refused_and_the_file_named(name, value, edited):
    with pytest.raises(UserError, match=rf"TRAINCONFIG\.py: {name} = .*: expected "):
        load(path=edited(**{name: value}))


def test_whole_numbers_may_be_written_as_floats_in_the_file(edited):
    config = load(path=edited(train_tokens="22e6"))
    assert config.train_tokens == 22_000_000 and type(config.train_tokens) is int
    config = load(path=edited(epochs="4"))
    assert config.epochs == 4 and type(config.epochs) is float


def test_help_lists_every_setting_with_its_comment_and_value(capsys):
    with pytest.raises(SystemExit) as stopped:
        load("--help")
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    values, comments = read_settings(TRAINCONFIG)
    for name in TYPES:
        assert f"--{name} X " in shown and f" {comments[name]} [{values[name]}]" in shown


def test_help_lists_only_the_settings_it_is_to_show_and_all_are_taken(capsys):
    with pytest.raises(SystemExit):
        load_config(TRAINCONFIG, ["--help"], "A test.", ("seed", "pattern"))
    assert re.findall(r"--(\w+)", capsys.readouterr().out) == ["name", "help", "pattern", "seed"]
    assert load_config(TRAINCONFIG, ["--d_model=128"], "A test.", ("seed", "pattern")).d_model == 128


def test_help_works_with_a_percent_sign_in_a_value_or_comment(edited, capsys):
    with pytest.raises(SystemExit) as stopped:
        load("--help", path=edited(sample_prompt='"100% of it"  # 50% of all prompts'))
    assert stopped.value.code == 0
    assert "50% of all prompts [100% of it]" in " ".join(capsys.readouterr().out.split())


def test_commands_that_are_shown_are_quoted_as_the_system_quotes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert [quoted(text) for text in ("models/owl", "Once upon", "it's")] == ["models/owl", "'Once upon'", "'it'\"'\"'s'"]
    monkeypatch.setattr(sys, "platform", "win32")  # where cmd takes single quotes for a part of the name
    shown = [quoted(text) for text in (PureWindowsPath(r"models\owl"), "Once upon", 'a "b"')]
    assert shown == [r"models\owl", '"Once upon"', r'"a \"b\""']

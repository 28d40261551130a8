"""The training state: what comes back, what is refused, and files that are replaced whole."""

import math
import pickle
import random
import zipfile

import pytest
import torch
from helpers import tiny_model, truncate

from alilama.common import files
from alilama.common.errors import UserError
from alilama.data.frames import FRAME_TOKENS
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenMeta
from alilama.model.folder import load_model, save_description, save_weights
from alilama.training import resume
from alilama.training.resume import Run, differences, load_state, load_teacher, rounding_of, save_state, start_from

STATE = {
    "step": 3,
    "num_steps": 9,
    "is_settled": True,
    "tokenizer_sha256": "0",
    "best_loss": 1.5,
    "config": {"a": 1, "b": None, "c": "text"},
    "model": {"w": torch.arange(4.0)},
    "optimizers": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95)}]}],
    "rng": {"cpu": torch.get_rng_state()},
    "counts": {"losses": torch.tensor(2.0)},
    "data": {name: {"train": 7, "val": 7} for name in ("documents", "tokens", "bytes")},
}


def test_a_training_state_comes_back_as_it_was(tmp_path):
    assert load_state(tmp_path) is None
    save_state(tmp_path, STATE)
    loaded = load_state(tmp_path)
    assert torch.equal(loaded["model"]["w"], STATE["model"]["w"]) and torch.equal(loaded["rng"]["cpu"], STATE["rng"]["cpu"])
    assert loaded["optimizers"] == STATE["optimizers"] and loaded["config"] == STATE["config"] and loaded["step"] == 3


class WritesAFile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["torch.save", "torch.save, legacy", "pickle"])
def test_a_training_state_with_code_in_it_is_refused_and_not_run(kind, tmp_path):
    path, mark = tmp_path / "training_state.pt", tmp_path / "was_run"
    state = {**STATE, "step": WritesAFile(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch.save")
    with pytest.raises(UserError) as refused:
        load_state(tmp_path)
    assert not mark.exists()
    assert len(str(refused.value).splitlines()) == 1 and str(path) in str(refused.value)


def replace_in_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        truncate,
        lambda path: path.write_text("Once upon a time"),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        replace_in_zip,
        lambda path: path.write_bytes(b"\x80\x02}q\x00."),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.write_bytes(path.read_bytes().replace(b"tokenizer_sha256", b"tokenizer_\xff\xff\xff\xff\xff\xff")),
        *(lambda path, name=name: torch.save(STATE | {name: None}, path) for name in STATE),
    ],
    ids=["empty", "truncated", "text", "cut short", "another zip", "bare pickle", "folder", "changed bytes", *STATE],
)
def test_a_damaged_training_state_is_refused_in_one_line(damage, tmp_path):
    save_state(tmp_path, STATE)
    damage(tmp_path / "training_state.pt")
    with pytest.raises(UserError) as refused:
        load_state(tmp_path)
    assert len(str(refused.value).splitlines()) == 1 and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 10},
        {"best_loss": -1.0},
        {"best_loss": math.nan},
        {"config": {1: 2}},
        {"data": {}},
        {"data": {**STATE["data"], "tokens": {"train": 7}}},
        {"data": {**STATE["data"], "tokens": {"train": 7.0, "val": 7}}},
        {"data": {**STATE["data"], "bytes": 7}},
        {"rounding": [1]},
        {"rounding": {"threads": torch.ones(2)}},
    ],
    ids=str,
)
def test_a_state_with_numbers_that_no_run_has_is_refused(change, tmp_path):
    save_state(tmp_path, STATE | change)
    with pytest.raises(UserError, match="is damaged"):
        load_state(tmp_path)


def test_every_flipped_bit_of_a_state_is_noticed_or_changes_nothing(tmp_path):
    save_state(tmp_path, STATE)
    path, rng = tmp_path / "training_state.pt", random.Random(1)
    content, harmless = path.read_bytes(), 0
    for _ in range(300):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            loaded = load_state(tmp_path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and "pickle" not in str(error) and "weights_only" not in str(error)
            continue
        harmless += 1  # padding, dates, permissions
        assert str(loaded) == str(STATE) and torch.equal(loaded["rng"]["cpu"], STATE["rng"]["cpu"])
    assert harmless < 100


def test_a_tensor_that_is_marked_as_a_folder_is_noticed(tmp_path):
    """zipfile reads it all the same, and torch returns what was in memory before."""
    save_state(tmp_path, STATE)
    path = tmp_path / "training_state.pt"
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))  # in the directory at the end
    path.write_bytes(content[: entry + 38] + b"\x10" + content[entry + 39 :])
    with pytest.raises(UserError, match=r"is damaged .*marked as a folder"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "save",
    [
        lambda folder: save_weights(folder, tiny_model(400, seed=9)),
        lambda folder: save_state(folder, STATE),
        lambda folder: save_description(folder, tiny_model(400, blocks=3).config, Tokenizer([])),
    ],
    ids=["weights", "state", "description"],
)
@pytest.mark.parametrize("fails", ["write", "replace"])
def test_saving_replaces_a_file_whole_or_not_at_all(save, fails, folder, monkeypatch):
    save_state(folder, STATE | {"step": 1})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def no_space(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync" if fails == "write" else "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    save(folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() == before.keys() and after != before


def test_weights_are_read_with_safetensors_and_states_with_weights_only(folder, monkeypatch):
    """Nothing that is loaded may run code: torch.load is called for the training state alone, and there with weights_only."""
    calls, load = [], torch.load
    monkeypatch.setattr(resume.torch, "load", lambda *args, **options: (calls.append(options), load(*args, **options))[1])
    load_model(folder)
    assert calls == []
    save_state(folder, STATE)
    load_state(folder)
    assert [options["weights_only"] for options in calls] == [True]


@pytest.mark.parametrize("step", [0, 3])
def test_every_process_goes_on_with_random_numbers_of_its_own(step, make_trainer, make_config, tmp_path):
    """Else each would drop out the same activations of its share of a batch."""
    trainer = make_trainer()
    counts = {"train": 7, "val": 2}
    run = Run(make_config(models_dir=str(tmp_path)), TokenMeta(50, "0", counts, counts, counts, counts, {}), 9)
    run.step = step
    save_description(run.folder, trainer.model.config, Tokenizer([]))
    run.save(trainer)
    comes_next, drawn = torch.rand(4).tolist(), []
    for rank in (0, 1, 2, 1):
        run.go_on(trainer.step, rank)
        drawn.append(torch.rand(4).tolist())
    assert drawn[1] == drawn[3] and len(set(map(tuple, drawn))) == 3
    assert step == 0 or drawn[0] == comes_next


def test_what_decided_how_sums_are_rounded_is_saved_as_it_is_then(make_trainer, make_config, tmp_path):
    trainer = make_trainer(compile_model=True)
    rounding = rounding_of(trainer)
    assert rounding["threads"] == torch.get_num_threads() and rounding["precision"] == "float32"
    assert rounding["compile_model"] is True and rounding["micro_batch"] == trainer.config.batch_size
    counts = {"train": 7, "val": 2}
    settings = make_config(models_dir=str(tmp_path)), TokenMeta(50, "0", counts, counts, counts, counts, {}), 9
    run = Run(*settings)
    run.step, trainer.is_compiled, trainer.micro_batch = 3, False, 4  # as where there is no compiler, and little memory
    save_description(run.folder, trainer.model.config, Tokenizer([]))
    run.save(trainer)
    going_on = Run(*settings)
    assert going_on.rounding == {}
    going_on.go_on(trainer.step)
    assert going_on.step == 3 and going_on.rounding == rounding | {"compile_model": False, "micro_batch": 4}
    state = load_state(run.folder)
    del state["rounding"]  # as it was saved once
    save_state(run.folder, state)
    going_on = Run(*settings)
    going_on.go_on(trainer.step)
    assert going_on.step == 3 and going_on.rounding == {}


def test_only_what_was_saved_and_is_another_now_is_a_difference():
    before, now = {"device": "mps", "processes": 4, "threads": 2}, {"device": "cpu", "processes": 1, "threads": 2, "torch": "3"}
    assert differences(before, now) == "device = cpu instead of mps, processes = 1 instead of 4"
    assert differences(now, now) == differences({}, now) == ""


def test_a_model_learns_the_tokens_of_a_frame_and_keeps_all_else(folder, tokenizer, make_config):
    config = make_config(max_seq_len=32, dropout=0.2)
    before, after = load_model(folder)[0], start_from(folder, tokenizer.with_frame(), config)
    assert after.config.vocab_size == tokenizer.vocab_size + 4 == len(after.wte.weight)
    assert (after.config.max_seq_len, after.config.dropout) == (32, 0.2)
    old, new = after.wte.weight.split([tokenizer.vocab_size, 4])
    assert torch.equal(old, before.wte.weight)
    torch.testing.assert_close(new, before.wte.weight.mean(0).expand(4, -1))
    ids = torch.arange(40)[None]
    torch.testing.assert_close(after.eval()(ids)[..., : tokenizer.vocab_size], before(ids))
    for name, weight in before.named_parameters():
        assert name == "wte.weight" or torch.equal(dict(after.named_parameters())[name], weight)


def test_without_new_tokens_a_model_starts_as_it_was(folder, tokenizer, make_config):
    before, after = load_model(folder)[0], start_from(folder, tokenizer, make_config())
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in before.state_dict().items())


def test_only_the_tokenizer_of_a_model_with_a_frame_or_without_is_taken(
    folder, tokenizer, other_tokenizer, make_config, tmp_path
):
    config = make_config(teacher=str(folder))
    more = Tokenizer(tokenizer.merges, special_tokens=("<|endoftext|>", "[PAD]", *FRAME_TOKENS))
    for tokens in (other_tokenizer, other_tokenizer.with_frame(), more):
        with pytest.raises(UserError, match="has another tokenizer than"):
            start_from(folder, tokens, config)
    with pytest.raises(UserError, match="has another tokenizer than"):  # it has nothing to say of the tokens of a frame
        load_teacher(config, tokenizer.with_frame(), "cpu")
    extended = start_from(folder, tokenizer.with_frame(), config)
    save_description(tmp_path / "framed", extended.config, tokenizer.with_frame())
    save_weights(tmp_path / "framed", extended)
    config.teacher = str(tmp_path / "framed")
    assert load_teacher(config, tokenizer.with_frame(), "cpu").models[0].config == extended.config
    config.teacher = f"{tmp_path / 'framed'}, {tmp_path / 'framed'}"
    assert len(load_teacher(config, tokenizer.with_frame(), "cpu").models) == 2
    for tokens in (tokenizer, other_tokenizer.with_frame()):
        with pytest.raises(UserError, match="has another tokenizer than"):
            start_from(tmp_path / "framed", tokens, config)

"""tokenize_data.py from end to end."""

import gzip
import json
import re
from pathlib import Path

import pytest
from helpers import ROOT, files_of, refused_by_windows, write_text

from alilama.common.config import TYPES
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files


def test_tokenize_data_makes_a_tokenizer_and_token_files_and_says_what_they_are(made, text_file, text):
    folder, result = made
    assert result.returncode == 0, result.stderr
    assert files_of(folder / "tokens").keys() == {
        "meta.json",
        "tokenizer.json",
        "train.npy",
        "train_documents.npy",
        "train_blocks.npy",
        "train_checksums.npy",
        "val.npy",
        "val_checksums.npy",
    }
    tokenizer = Tokenizer.load(folder / "tokens" / "tokenizer.json")
    assert tokenizer.sha256 == Tokenizer.train(str(text_file), 400).sha256
    tokens = load_token_files(folder / "tokens", tokenizer)
    assert tokens.meta.documents == {"train": 180, "val": 20}
    assert tokenizer.decode(tokens.train[:30]) in "<|endoftext|>" + text
    assert f"{len(tokens.train):,} tokens" in result.stdout and f"{len(tokens.val):,} tokens" in result.stdout
    assert "from 180 documents\n" in result.stdout and "from 20 documents\n" in result.stdout


def test_a_small_file_is_one_document_of_some_kilobytes_whose_end_is_held_out(run_here, tmp_path, capsys):
    write_text(tmp_path, "texts/book.txt", "A line of a book.\n" * 100)
    write_text(tmp_path, "texts/empty.txt", "")
    run_here("tokenize_data.py", "--data_files=texts", "--vocab_size=260", "--tokens_dir=tokens")
    summary, train, val = capsys.readouterr().out.splitlines()[-5:-2]
    assert summary.startswith("1.80kB of text in 1 file, in ")
    assert train.endswith(" from 1 document") and val.endswith(" from the end of 1 file")


def test_the_next_command_names_another_model_where_the_configured_one_exists(run_here, text_file, tmp_path, capsys):
    command = ["tokenize_data.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=t"]
    run_here(*command)
    assert capsys.readouterr().out.endswith("Next: python train.py --minutes=5 --tokens_dir=t\n")
    (tmp_path / "models" / "stories").mkdir(parents=True)
    run_here(*command)
    assert capsys.readouterr().out.endswith("Next: python train.py --minutes=5 --tokens_dir=t --model_name=NAME\n")


@pytest.mark.parametrize(
    ("megabytes", "options", "is_little"), [(0.9, [], True), (1.1, [], False), (0.9, ["--init_from=m"], False)]
)
def test_little_text_is_said_to_be_little(megabytes, options, is_little, run_here, tokenizer, text, tmp_path, capsys):
    write_text(tmp_path, "story.txt", text)
    write_text(tmp_path, "text.txt", (text * 20)[: round(megabytes * 1e6)])
    (tmp_path / "m").mkdir()
    tokenizer.save(tmp_path / "m" / "tokenizer.json")
    run_here(
        "tokenize_data.py", "--data_files=text.txt", "--val_files=story.txt", "--vocab_size=300", "--tokens_dir=t", *options
    )
    assert ("That is little text" in capsys.readouterr().out) == is_little


@pytest.mark.parametrize(
    ("line", "pattern", "is_told"),
    [
        ("नमस्ते दुनिया\n", "gpt4", True),
        ("สวัสดีชาวโลก\n", "gpt2", True),
        ("नमस्ते दुनिया\n", "qwen35", False),
        ("An é.\n", "gpt4", False),
    ],
)
def test_a_pattern_that_keeps_marks_in_words_is_named_where_letters_have_them(
    line, pattern, is_told, run_here, tmp_path, capsys
):
    write_text(tmp_path, "text.txt", line * 60)
    write_text(tmp_path, "rows.csv.gz", gzip.compress(f"text\n{line * 60}".encode()))
    for name in ("text.txt", "rows.csv.gz"):
        run_here("tokenize_data.py", f"--data_files={name}", "--vocab_size=258", f"--pattern={pattern}", "--tokens_dir=t")
        assert ("--pattern=qwen35 keeps them whole" in capsys.readouterr().out) == is_told


@pytest.mark.parametrize("setting", ["data_files", "val_files"])
def test_a_file_that_is_no_text_is_refused_and_not_learned(setting, refusal, tmp_path):
    write_text(tmp_path, "a.txt", "A line.\n" * 30)
    write_text(tmp_path, "more/b.txt", "A line.\n".encode("utf-16"))
    files = {"data_files": "a.txt", "val_files": "a.txt"} | {setting: "more"}
    message = refusal("tokenize_data.py", *(f"--{name}={value}" for name, value in files.items()), "--tokens_dir=tokens")
    assert f"{Path('more/b.txt')} is UTF-16 text" in message and "iconv -f UTF-16 -t UTF-8" in message
    assert not (tmp_path / "tokens").exists()


def test_text_in_an_older_encoding_is_kept_with_one_note(run_here, tmp_path, capsys):
    for name in ("b.txt", "c.txt", "d.txt"):
        write_text(tmp_path, f"texts/{name}", "A line in a café.\n".encode("latin-1") * 30)
    write_text(tmp_path, "texts/a.txt", "A line in a café.\n" * 30)
    run_here("tokenize_data.py", "--data_files=texts", "--vocab_size=258", "--tokens_dir=tokens", "--val_fraction=0.25")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 1 and notes[0].startswith(f"Note: {Path('texts/b.txt')} and 2 more files are not all UTF-8 (5.56%")
    tokenizer = Tokenizer.load(tmp_path / "tokens" / "tokenizer.json")
    tokens = load_token_files(tmp_path / "tokens", tokenizer)
    kept = tokenizer.decode_bytes(tokens.train) + tokenizer.decode_bytes(tokens.val)
    assert kept.count(b"caf\xe9.") == 90 and kept.count("café.".encode()) == 30


def test_every_kind_of_file_is_read_in_one_run(run_here, text, tmp_path, capsys):
    stories = text.removesuffix("\n").split("\n<|endoftext|>\n")
    write_text(tmp_path, "texts/a.txt", "\n<|endoftext|>\n".join(stories[:100]))
    rows = "".join(json.dumps({"story": story}) + "\n" for story in stories[100:150])
    write_text(tmp_path, "texts/b/rows.jsonl.gz", gzip.compress(rows.encode()))
    write_text(tmp_path, "texts/c.json", json.dumps([{"story": story} for story in stories[150:]]))
    write_text(tmp_path, "val.csv", 'story,name\n"Once, upon\na time",a\n')
    settings = ["--vocab_size=300", "--text_column=story", "--val_files", "val.csv"]
    run_here("tokenize_data.py", "--data_files", "texts/*.txt", "texts/b", "texts/c.json", "--tokens_dir=tokens", *settings)
    printed = capsys.readouterr().out
    assert "from 200 documents\n" in printed and "from 1 document\n" in printed and " of text in 4 files, in " in printed
    tokens = load_token_files(tmp_path / "tokens", tokenizer := Tokenizer.load(tmp_path / "tokens" / "tokenizer.json"))
    assert tokenizer.decode(tokens.train).split("<|endoftext|>")[1:] == stories
    assert tokenizer.decode(tokens.val) == "<|endoftext|>Once, upon\na time"


def test_a_broken_row_ends_in_one_line_and_writes_nothing(refusal, text, tmp_path):
    rows = [json.dumps({"text": story}) for story in text.split("\n<|endoftext|>\n")]
    write_text(tmp_path, "rows.jsonl", "\n".join([*rows[:150], rows[150][:-3], *rows[151:]]))
    message = refusal("tokenize_data.py", "--data_files=rows.jsonl", "--tokens_dir=tokens", progress=True)
    assert message.startswith("Error: rows.jsonl, line 151 is not JSON")
    assert not (tmp_path / "tokens").exists()


def test_a_dataset_of_the_hub_becomes_tokens_without_being_stored(run, text, tmp_path):
    stories = text.removesuffix("\n").split("\n<|endoftext|>\n")
    for split, rows in (("train", stories), ("validation", stories[:5])):
        content = "".join(json.dumps({"text": story}) + "\n" for story in rows)
        write_text(tmp_path, f"owner/set/{split}.jsonl", content)
    files = ["--data_files=hf://owner/set", "--val_files=hf://owner/set?split=validation"]
    done = run(ROOT / "tokenize_data.py", *files, "--vocab_size=300", "--tokens_dir=t", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "from 200 documents\n" in done.stdout and "from 5 documents\n" in done.stdout
    kept = [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")]
    assert not kept
    tokenizer = Tokenizer.load(tmp_path / "t" / "tokenizer.json")
    assert tokenizer.decode(load_token_files(tmp_path / "t", tokenizer).train).split("<|endoftext|>")[1:] == stories


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["--data_files=hf://owner/set", "--text_column=story"], "hf://owner/set: there is no column 'story', only text"),
        (["--data_files=hf://owner/set", "--val_files=hf://owner/set"], "hf://owner/set is in data_files and in val_files"),
        (["--data_files=hf://owner/none"], "hf://owner/none cannot be read"),
    ],
)
def test_a_mistake_with_a_dataset_of_the_hub_is_one_line_and_an_ordinary_end(files, message, run, text, tmp_path):
    rows = "".join(json.dumps({"text": story}) + "\n" for story in text.split("\n<|endoftext|>\n"))
    write_text(tmp_path, "owner/set/train.jsonl", rows)
    done = run(ROOT / "tokenize_data.py", *files, "--tokens_dir=t", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_help_lists_the_settings_of_each_script_and_both_take_all(run_here, text_file, capsys):
    shown = {}
    for script in ("tokenize_data.py", "train.py"):
        with pytest.raises(SystemExit):
            run_here(script, "--help")
        shown[script] = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE))
    assert shown["tokenize_data.py"] >= {"data_files", "text_column", "val_fraction", "vocab_size", "tokens_dir", "init_from"}
    assert shown["tokenize_data.py"] & shown["train.py"] == {"tokens_dir", "init_from"}
    assert shown["tokenize_data.py"] | shown["train.py"] == TYPES.keys()
    run_here("tokenize_data.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=t", "--d_model=128")


def test_token_files_that_windows_would_not_replace_are_refused_at_once(run_here, refusal, text_file, tmp_path, monkeypatch):
    """As it does while a training has them mapped."""
    command = ["tokenize_data.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=t"]
    run_here(*command)
    before = files_of(tmp_path / "t")

    def refuses(old, new):
        raise refused_by_windows(old, new)

    monkeypatch.setattr("alilama.common.files.os.rename", refuses)
    monkeypatch.setattr("alilama.common.files.PATIENCE_S", -1)
    monkeypatch.setattr("alilama.data.tokenizer.Tokenizer.train", lambda *_, **__: pytest.fail("it learns"))
    assert ".npy is in use by another program" in refusal(*command)
    assert files_of(tmp_path / "t") == before


def test_text_to_train_on_is_no_text_to_validate_on(refusal, text_file):
    files = [f"--data_files={text_file}", f"--val_files={text_file}"]
    assert "in val_files" in refusal("tokenize_data.py", *files, "--tokens_dir=t")


@pytest.mark.parametrize(
    ("content", "changed", "message", "progress"),
    [
        ("", {}, "is empty", False),
        ("Once upon a time", {"vocab_size": 5000}, "vocab_size 5000 is more than this text can give", True),
        ("Once upon a time", {"vocab_size": 256}, "vocab_size = 256: expected at least 257", False),
        ("Once upon a time", {"pattern": "(", "vocab_size": 257}, "pattern '('", True),
        ("Once upon a time", {"pattern": "GPT4", "vocab_size": 257}, "pattern = 'GPT4': expected one of gpt4", False),
        ("x", {"vocab_size": 257}, "leaves nothing for", True),
        ("Once upon a time", {"vocab_size": 257, "val_files": "nowhere"}, "val_files: 'nowhere' leads to no file", False),
        ("Once upon a time", {"vocab_size": 257, "tokens_dir": "text.txt"}, "text.txt is not a folder", False),
        ("Once upon a time", {"vocab_size": 257, "tokens_dir": "text.txt/t"}, "text.txt is not a folder", False),
    ],
)
def test_tokenize_data_says_mistakes_in_one_line_and_writes_nothing(content, changed, message, progress, refusal, tmp_path):
    (tmp_path / "text.txt").write_text(content)
    settings = {"data_files": "text.txt", "tokens_dir": "tokens"} | changed
    assert message in refusal("tokenize_data.py", *(f"--{name}={value}" for name, value in settings.items()), progress=progress)
    assert not (tmp_path / "tokens").exists() or not list((tmp_path / "tokens").iterdir())


def test_a_mistake_names_the_text_whose_tokens_are_still_there(refusal, run_here, text_file, tmp_path):
    usual = ["--tokens_dir=tokens", "--vocab_size=300"]
    assert refusal("tokenize_data.py", "--data_files=nowhere.txt", *usual).endswith("that exist")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(text_file.read_bytes())
    run_here("tokenize_data.py", "--data_files", "a.txt", "b.txt", *usual)
    message = refusal("tokenize_data.py", "--data_files=nowhere.txt", *usual)
    assert "'nowhere.txt' leads to no file" in message
    assert message.endswith("; tokens still holds the tokens of a.txt and 1 more")


INTERRUPTED = """
import signal, sys
import tokenize_data
from alilama.data.tokenizer import Tokenizer

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
encode = Tokenizer.encode_block

def interrupts(self, block):
    signal.raise_signal(signal.SIGINT)
    return encode(self, block)

Tokenizer.encode_block = interrupts
with tokenize_data.one_line_errors():
    tokenize_data.main(sys.argv[1:])
"""


def test_ctrl_c_while_tokens_are_written_leaves_no_file_and_no_traceback(run, tmp_path, text_file):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    result = run("interrupted.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=tokens")
    assert result.returncode != 0 and "Stopped." in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "tokens").exists()


def test_token_files_do_not_go_where_the_text_is(refusal, text_file):
    message = refusal("tokenize_data.py", f"--data_files={text_file}", f"--tokens_dir={text_file.parent}")
    assert "tokens_dir" in message and "choose another folder" in message


ROWS = "\n".join(json.dumps({"prompt": f"What is {i}?", "completion": f"It is {i}."}) for i in range(60))


@pytest.mark.parametrize("name", ["a.jsonl", "z.jsonl"])
def test_prompts_beside_other_text_have_a_frame_and_the_text_has_none(name, run_here, text, tmp_path, capsys):
    write_text(tmp_path, f"texts/{name}", ROWS)
    write_text(tmp_path, "texts/story.txt", text)
    run_here("tokenize_data.py", "--data_files=texts", "--vocab_size=300", "--tokens_dir=t")
    assert "There are prompts with answers" in capsys.readouterr().out
    tokenizer = Tokenizer.load(tmp_path / "t" / "tokenizer.json")
    tokens = load_token_files(tmp_path / "t", tokenizer)
    assert tokenizer.vocab_size == 300 and tokens.meta.documents == {"train": 247, "val": 13}
    decoded = tokenizer.decode(tokens.train)
    assert decoded.count("<|user|>") == decoded.count("<|assistant|>") == decoded.count("<|end|>") / 2 == 57
    assert "<|endoftext|><|user|>What is 7?<|end|><|assistant|>It is 7.<|end|><|endoftext|>" in decoded
    assert re.search(r"<\|endoftext\|>Once upon a time[^<]*The end…<\|endoftext\|>", decoded)


def test_the_tokenizer_of_a_model_gets_a_frame_only_where_there_are_prompts(run_here, tokenizer, text, tmp_path):
    (tmp_path / "m").mkdir()
    tokenizer.save(tmp_path / "m" / "tokenizer.json")
    for content, name, expected in ((ROWS, "rows.jsonl", tokenizer.with_frame()), (text, "story.txt", tokenizer)):
        write_text(tmp_path, name, content)
        run_here("tokenize_data.py", f"--data_files={name}", "--init_from=m", "--tokens_dir=t")
        assert Tokenizer.load(tmp_path / "t" / "tokenizer.json").sha256 == expected.sha256


def test_prompts_are_text_where_their_column_is_asked_for(run_here, tmp_path, capsys):
    write_text(tmp_path, "rows.jsonl", ROWS)
    run_here("tokenize_data.py", "--data_files=rows.jsonl", "--text_column=prompt", "--vocab_size=270", "--tokens_dir=t")
    tokenizer = Tokenizer.load(tmp_path / "t" / "tokenizer.json")
    assert tokenizer.frame is None and "There are prompts" not in capsys.readouterr().out
    assert tokenizer.decode(load_token_files(tmp_path / "t", tokenizer).val[:40]).startswith("<|endoftext|>What is 19?")

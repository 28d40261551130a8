"""tokenize_data.py from end to end."""

from pathlib import Path

import pytest
from helpers import files_of, write_text

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
        "val.npy",
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
    assert summary.startswith("1.80kB in 1 file, in ")
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
    run_here("tokenize_data.py", "--data_files=text.txt", "--vocab_size=258", f"--pattern={pattern}", "--tokens_dir=t")
    assert ("--pattern=qwen35 keeps them whole" in capsys.readouterr().out) == is_told


def test_files_that_hold_nul_bytes_are_named_and_kept(run_here, tmp_path, capsys):
    write_text(tmp_path, "texts/a.txt", "A line.\n" * 30)
    write_text(tmp_path, "texts/b.zip", b"PK\x03\x04\0\0" * 30)
    run_here("tokenize_data.py", "--data_files=texts", "--vocab_size=258", "--tokens_dir=tokens")
    printed = capsys.readouterr().out
    assert [line.partition(",")[0] for line in printed.splitlines() if line.startswith("Note: ")] == [
        f"Note: {Path('texts/b.zip')} looks like no text file"
    ]
    assert "420B in 2 files" in printed


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
import os, signal, sys
import tokenize_data
from alilama.data.tokenizer import Tokenizer

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
encode = Tokenizer.encode_block

def interrupts(self, block):
    os.kill(os.getpid(), signal.SIGINT)
    return encode(self, block)

Tokenizer.encode_block = interrupts
with tokenize_data.one_line_errors():
    tokenize_data.main(sys.argv[1:])
"""


def test_ctrl_c_while_tokens_are_written_leaves_no_file_and_no_traceback(run, tmp_path, text_file):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    result = run("interrupted.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=tokens")
    assert result.returncode != 0 and "Stopped." in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "tokens").iterdir())


def test_token_files_do_not_go_where_the_text_is(refusal, text_file):
    message = refusal("tokenize_data.py", f"--data_files={text_file}", f"--tokens_dir={text_file.parent}")
    assert "tokens_dir" in message and "choose another folder" in message

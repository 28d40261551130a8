"""tokenize_data.py from end to end."""

import pytest
from helpers import files_of

from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files


def test_tokenize_data_makes_a_tokenizer_and_token_files_and_says_what_they_are(made, text_file, text):
    folder, result = made
    assert result.returncode == 0, result.stderr
    assert files_of(folder / "tokens").keys() == {"meta.json", "tokenizer.json", "train.npy", "val.npy"}
    tokenizer = Tokenizer.load(folder / "tokens" / "tokenizer.json")
    assert tokenizer.sha256 == Tokenizer.train(str(text_file), 400).sha256
    tokens = load_token_files(folder / "tokens", tokenizer)
    assert tokens.meta.documents == {"train": 180, "val": 20}
    assert tokenizer.decode(tokens.train[:30]) in "<|endoftext|>" + text
    assert f"{len(tokens.train):,} tokens" in result.stdout and f"{len(tokens.val):,} tokens" in result.stdout
    assert "200 documents" in result.stdout


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


INTERRUPTED = """
import os, signal, sys
import tokenize_data
from alilama.data.tokenizer import Tokenizer

encode = Tokenizer.encode_block
blocks = []

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

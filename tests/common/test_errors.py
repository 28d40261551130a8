"""What ends a script ends it in one line, or without a word."""

import errno
import io
from types import SimpleNamespace

import pytest

from alilama.common import errors
from alilama.common.errors import one_line_errors

STORY = "Es war einmal 从前 \N{DRAGON}"


@pytest.fixture
def windows(monkeypatch):
    """Plays Windows, with an output into a file, and returns that file."""
    file = io.BytesIO()
    output = io.TextIOWrapper(file, encoding="cp1252")
    monkeypatch.setattr(errors, "sys", SimpleNamespace(platform="win32", stdout=output, stderr=output, exit=errors.sys.exit))
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    return file


def test_windows_writes_all_characters_into_a_file(windows):
    with one_line_errors():
        print(STORY, file=errors.sys.stdout, flush=True)
    assert windows.getvalue().decode().split() == STORY.split()


def test_an_encoding_that_was_asked_for_stays_and_says_what_it_lacks(windows, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    with one_line_errors():
        print(STORY, file=errors.sys.stdout, flush=True)
    assert windows.getvalue().decode("cp1252").split() == ["Es", "war", "einmal", "??", "?"]


@pytest.mark.parametrize("is_read", [False, True])
def test_windows_calls_an_output_that_nobody_reads_an_invalid_argument_as_much_else(is_read, windows, monkeypatch):
    def flush():
        if not is_read:
            raise OSError(errno.EINVAL, "Invalid argument")

    replaced = []
    monkeypatch.setattr(errors.os, "dup2", lambda new, old: replaced.append(old))
    monkeypatch.setattr(errors.sys.stdout, "fileno", lambda: 1, raising=False)
    with pytest.raises(SystemExit) as ended, one_line_errors():
        monkeypatch.setattr(errors.sys.stdout, "flush", flush, raising=False)
        raise OSError(errno.EINVAL, "Invalid argument")
    assert ended.value.code == ("Error: [Errno 22] Invalid argument" if is_read else 1) and bool(replaced) != is_read

"""Files are written whole or not at all."""

import os

import pytest
from helpers import files_of, write_text

from alilama.common import files
from alilama.common.errors import UserError
from alilama.common.files import replacing


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = write_text(tmp_path, "file", "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half of the new")
        file.flush()
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert files_of(tmp_path) == {"file": b"old"}
    with replacing(path) as file:
        file.write(b"new")
    assert files_of(tmp_path) == {"file": b"new"}


def test_replacing_has_the_file_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (happened.append("fsync"), fsync(file)))
    monkeypatch.setattr(files.os, "replace", lambda part, path: (happened.append("replace"), replace(part, path)))
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert happened == ["fsync", "replace"]


def test_a_full_disk_is_said_with_the_file_that_did_not_fit(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*file"), replacing(tmp_path / "file"):
        raise OSError(28, "No space left on device")


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not an ordinary file"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()

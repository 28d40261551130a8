"""One process at a time writes into a folder, and a killed one leaves nothing that blocks."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT, files_of, write_text

from alilama.common import locks
from alilama.common.errors import UserError
from alilama.common.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from alilama.common.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_holds_is_refused_with_its_name(tmp_path, holder):
    says = rf"another process is writing into .*run \({holder.pid}: -c .*run\)"
    with pytest.raises(UserError, match=says), locked(tmp_path / "run"):
        pytest.fail("both hold it")
    assert list(files_of(tmp_path / "run")) == [".lock"]  # which is still the other's


@pytest.mark.posix
def test_a_killed_process_blocks_nobody_and_its_unfinished_files_are_removed(tmp_path, holder):
    write_text(tmp_path / "run", f"train.npy.{holder.pid}.alilama.part", "half")
    others = {"film.part", "archive.7z.001.part", f"README.md.{os.getpid()}.alilama.part"}  # the last of a process that lives
    for name in others:
        write_text(tmp_path / "run", name, "somebody's")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run"):
        assert set(files_of(tmp_path / "run")) == {".lock", *others}
    assert set(files_of(tmp_path / "run")) == others


def test_the_lock_is_let_go_at_the_end_and_at_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in it"), locked(tmp_path / "run"):
            raise RuntimeError("in it")
        with locked(tmp_path / "run"):
            write_text(tmp_path / "run", "file", "")
    assert list(files_of(tmp_path / "run")) == ["file"]


def test_a_folder_that_was_made_and_not_used_is_removed_and_another_is_not(tmp_path):
    with locked(tmp_path / "new"):
        pass
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_two_in_one_process_are_two(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(UserError, match="another process"), locked(tmp_path / "run"):
        pytest.fail("both hold it")


@pytest.mark.posix
def test_a_lock_whose_file_was_removed_before_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    is_taken, removed = locks.is_taken, []

    def remove_first(file):
        if not removed:  # the one before lets go now
            removed.append(file.name)
            Path(file.name).unlink()
        return is_taken(file)

    monkeypatch.setattr(locks, "is_taken", remove_first)
    with locked(tmp_path), pytest.raises(UserError, match="another process"), locked(tmp_path):
        pytest.fail("both hold it")
    assert removed


@pytest.mark.posix
def test_windows_removes_the_lock_too_though_it_removes_nothing_that_is_open(tmp_path, monkeypatch):
    """Windows is played: one byte is locked, at the position in the file, and what is open is not removed."""
    opened, take, unlink = [], locks.take, Path.unlink

    def locking(number: int, mode: str, num_bytes: int):
        assert (os.lseek(number, 0, os.SEEK_CUR), mode, num_bytes) == (0, "at once", 1)
        try:
            locks.flock(number, locks.LOCK_EX | locks.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    def unlink_closed(path: Path, missing_ok: bool = False):
        if not all(file.closed for file in opened):
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, missing_ok)

    monkeypatch.setattr(locks, "sys", SimpleNamespace(platform="win32", argv=["train.py"]))
    monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK="at once"), raising=False)
    monkeypatch.setattr(locks, "take", lambda folder: opened.append(take(folder)) or opened[-1])
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match="another process"), locked(tmp_path / "run"):
            pytest.fail("both hold it")
        write_text(tmp_path / "run", "file", "")
    assert list(files_of(tmp_path / "run")) == ["file"]


def test_windows_removes_unfinished_files_but_new_ones_and_those_that_are_open(tmp_path, monkeypatch):
    unlink, (left, is_open, is_new) = Path.unlink, (f"{name}.{os.getpid()}.alilama.part" for name in "abc")

    def unlink_closed(path: Path, missing_ok: bool = False):
        if path.name == is_open:
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, missing_ok)

    monkeypatch.setattr(locks, "sys", SimpleNamespace(platform="win32", argv=["train.py"]))
    monkeypatch.setattr(locks, "is_taken", lambda file: True)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    for name in (left, is_open, is_new):
        os.utime(write_text(tmp_path, name, "half"), None if name == is_new else (0, 0))
    with locked(tmp_path):
        assert set(files_of(tmp_path)) == {".lock", is_open, is_new}


def test_a_folder_whose_name_the_system_changes_is_no_endless_loop(tmp_path, monkeypatch):
    """Windows makes a folder "x" where "x " is asked for, and finds nothing in "x "."""
    mkdir = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: mkdir(path.with_name(path.name.rstrip()), **options))
    with pytest.raises(FileNotFoundError, match="x "), locked(tmp_path / "x "):
        pytest.fail("it is held")


@pytest.mark.posix
def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(locks.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(locks, "flock", refuse)
    with locked(tmp_path / "run"):
        write_text(tmp_path / "run", "file", "")
    assert list(files_of(tmp_path / "run")) == ["file"]

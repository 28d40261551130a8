"""Files are written whole or not at all."""

import errno
import os
import stat
from contextlib import nullcontext

import pytest
from helpers import files_of, refused_by_windows, write_text

from alilama.common import files
from alilama.common.errors import UserError
from alilama.common.files import check_is_free, replacing


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


@pytest.fixture
def happened(monkeypatch) -> list[str]:
    """What was written to the disk or got its name, in that order."""
    found, fsync, replace = [], files.os.fsync, files.os.replace

    def recorded(file: int):
        found.append("folder synced" if stat.S_ISDIR(os.fstat(file).st_mode) else "file synced")
        fsync(file)

    monkeypatch.setattr(files.os, "fsync", recorded)
    monkeypatch.setattr(files.os, "replace", lambda part, path: (found.append("replaced"), replace(part, path)))
    return found


@pytest.mark.posix
def test_replacing_has_the_file_on_disk_before_it_takes_the_name_and_the_name_before_anything_else(tmp_path, happened):
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert happened == ["file synced", "replaced", "folder synced"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_that_syncs_no_folders_takes_files_all_the_same(number, tmp_path, happened, monkeypatch):
    def refuses(folder, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "open", refuses)
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert files_of(tmp_path) == {"file": b"new"} and happened == ["file synced", "replaced"]


@pytest.mark.posix
def test_a_disk_that_fails_when_the_folder_is_synced_is_said(tmp_path, monkeypatch):
    def fails(folder, flags):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, "open", fails)
    with pytest.raises(OSError, match="Input/output error"), replacing(tmp_path / "file"):
        pass


def test_macos_has_files_beyond_the_cache_of_the_drive_where_its_file_system_can(tmp_path, happened, monkeypatch):
    def full_sync(file: int, command: object):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        happened.append(command)

    monkeypatch.setattr(files, "F_FULLFSYNC", "full sync")
    monkeypatch.setattr(files, "fcntl", full_sync, raising=False)
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert happened == ["full sync", "replaced"] + ["folder synced"] * (os.name == "posix")


@pytest.fixture
def read_by_others(monkeypatch) -> list[int]:
    """Windows is played, where files that are read can neither be replaced nor renamed, as often as the list has an error."""
    errors = [5, 32, 1224]

    def unless_read(do):
        def refuses(old, new):
            if not errors:
                return do(old, new)
            raise refused_by_windows(old, new, errors.pop())

        return refuses

    for name in ("replace", "rename"):
        monkeypatch.setattr(files.os, name, unless_read(getattr(os, name)))
    return errors


def test_windows_replaces_a_file_once_nobody_reads_it(tmp_path, read_by_others):
    path = write_text(tmp_path, "file", "old")
    with replacing(path) as file:
        file.write(b"new")
    assert files_of(tmp_path) == {"file": b"new"} and not read_by_others


def test_a_file_that_goes_on_being_read_stays_and_is_named_once(tmp_path, read_by_others, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_S", -1)
    path = write_text(tmp_path, "file", "old")
    with pytest.raises(PermissionError, match=r"cannot access the file: '[^']*file'$"), replacing(path):
        pass
    assert files_of(tmp_path) == {"file": b"old"}


def test_a_file_that_windows_would_not_replace_is_known_before(tmp_path, read_by_others, monkeypatch):
    path = write_text(tmp_path, "file", "old")
    check_is_free(path)  # patiently
    check_is_free(tmp_path / "missing")
    assert not read_by_others
    monkeypatch.setattr(files, "PATIENCE_S", -1)
    for code, is_known in ((32, True), (1224, True), (5, False)):  # the last where somebody may not rename it at all
        read_by_others.append(code)
        with pytest.raises(UserError, match="in use by another program") if is_known else nullcontext():
            check_is_free(path)
    assert files_of(tmp_path) == {"file": b"old"}


def test_a_full_disk_is_said_with_the_file_that_did_not_fit(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*file"), replacing(tmp_path / "file"):
        raise OSError(28, "No space left on device")


def test_a_folder_that_is_not_there_is_said_with_the_name_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\W+file'$"), replacing(tmp_path / "missing" / "file"):
        pass


@pytest.mark.posix
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not an ordinary file"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()

"""Files that are written whole or not at all."""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from alilama.common.errors import UserError, expect

try:
    from fcntl import F_FULLFSYNC, fcntl  # macOS
except ImportError:
    F_FULLFSYNC = None

# Of file systems that sync no folders, and of folders not to be read.
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)
IN_USE = (32, 1224)  # what Windows says where somebody reads the file, has it mapped, or looks for viruses in it
REFUSED = (5, *IN_USE)  # and where that is so of what it replaces
PATIENCE_S = 5


def to_path(name: str, value: str | os.PathLike) -> Path:
    """Returns an argument as a path. Raises UserError where it is none."""
    expect(name, value, str, os.PathLike)
    return Path(value)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file beside `path` that takes its place when the `with` block ends, and is removed if that fails.

    Raises UserError where `path` is something other than a file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not an ordinary file, and a file is to be written there; choose another place")
    part = Path(f"{path}.{os.getpid()}.alilama.part")  # another process may be writing the same file
    part.unlink(missing_ok=True)
    try:
        with open(part, "xb") as file:  # which follows no link
            yield file
            file.flush()
            sync(file.fileno())
        patiently(os.replace, part, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)  # a full disk does not say where, and nobody knows the other name
            del error.filename2
        raise
    finally:
        with suppress(PermissionError):  # Windows removes nothing that is open, as to a program that looks for viruses
            part.unlink(missing_ok=True)


def sync(file: int):
    """Has what was written to an open file on the disk; on macOS fsync leaves it with the drive (fsync(2) there)."""
    try:
        if F_FULLFSYNC is not None:
            fcntl(file, F_FULLFSYNC)
            return
    except OSError:  # the file system has no such call
        pass
    os.fsync(file)


def patiently(rename: Callable[[Path, Path], None], old: Path, new: Path):
    """Renames a file, on Windows only once nobody reads it or what it replaces: for some seconds it is tried again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            rename(old, new)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in REFUSED or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def check_is_free(path: Path):
    """Raises UserError where `path` cannot be replaced, since another process has it open or mapped and this is Windows."""
    try:
        patiently(os.rename, path, path)  # changes nothing
    except OSError as error:
        if getattr(error, "winerror", None) in IN_USE:
            raise UserError(f"{path} is in use by another program, as by a training; wait until it has ended") from None


def check_picture_can_go(option: str, path: Path):
    """Raises UserError, which names the option, where no picture can be written: a folder is missing or has the name itself."""
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"{option} {path}: expected the name of a file in a folder that exists")


def check_is_file(path: str | os.PathLike, remedy: str = "put the file there, or remove it"):
    """Raises UserError, with what to do, where `path` is neither a file nor missing: a pipe would be waited for without end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not an ordinary file; {remedy}")


def sync_folder(folder: Path):
    """Has the names in a folder on the disk, where that can be, so that a power failure neither undoes nor reorders them."""
    if sys.platform == "win32":  # which opens no folders
        return
    try:
        file = os.open(folder, os.O_RDONLY)
        try:
            sync(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def write_json(path: Path, content: object):
    """Writes a JSON file, all of it or nothing."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())

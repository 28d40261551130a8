"""Files that are written whole or not at all."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from alilama.common.errors import UserError, expect

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # of file systems that sync no folders, and of folders not to be read


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
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)  # a full disk does not say where, and nobody knows the other name
        raise
    finally:
        part.unlink(missing_ok=True)


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
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def write_json(path: Path, content: object):
    """Writes a JSON file, all of it or nothing."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())

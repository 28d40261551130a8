"""One process at a time writes into a folder."""

import errno
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TextIO

from alilama.common.errors import UserError
from alilama.common.files import sync_folder

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    import msvcrt

NAME = ".lock"
UNFINISHED = re.compile(r".+\.(\d+)\.alilama\.part")  # of `replacing`, with the number of the process
# Of file systems that cannot hold one, as some in networks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
LONG_AGO_S = 60  # of an unfinished file: several times what `replacing` waits for
MOST_ATTEMPTS = 1000  # to open the lock in a folder that others remove
HOLDER_AT, MOST_HOLDER = 1, 200  # where its description begins, behind the byte that Windows locks; in characters


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder, which is made where there is none, until the block or the process ends, however it ends.

    The operating system holds the lock, so that a killed process leaves none; its unfinished files are removed. Raises
    UserError, naming the other process, where one holds the folder.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with take(folder) as file:
        for made in new:
            sync_folder(made.parent)
        file.truncate(0)
        file.write(" " * HOLDER_AT + f"{os.getpid()}: {shlex.join(sys.argv)}"[:MOST_HOLDER])
        file.flush()
        for part in folder.glob("*.part"):
            with suppress(FileNotFoundError, PermissionError):  # another took its place; Windows removes nothing that is open
                if (found := UNFINISHED.fullmatch(part.name)) and is_left(part, int(found[1])):
                    part.unlink()
        try:
            yield
        finally:
            if sys.platform == "win32":  # which does not remove what is open, here or in a process that holds it by now
                file.close()
            with suppress(PermissionError):
                (folder / NAME).unlink(missing_ok=True)
            for made in new:
                with suppress(OSError):  # it is not empty
                    made.rmdir()


def take(folder: Path) -> TextIO:
    """Returns the open and locked file that holds a folder."""
    path = folder / NAME
    for attempt in count(1):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115, open as long as the folder is held
        except FileNotFoundError:
            if attempt < MOST_ATTEMPTS:
                continue  # a process that had made the folder has removed it meanwhile
            raise  # Windows makes "x" of a folder "x ", and finds nothing in "x "
        if not is_taken(file):
            file.seek(HOLDER_AT)
            holder = " ".join(file.read(MOST_HOLDER).split()) or "which has not said its name"
            file.close()
            raise UserError(f"another process is writing into {folder} ({holder}); wait until it has ended, or stop it")
        if is_still_there(path, file):
            return file
        file.close()  # whoever held it before has removed it meanwhile


def is_left(part: Path, pid: int) -> bool:
    """Whether the process that wrote a file has ended; on Windows, where asking is not so easy, whether that is long ago."""
    if sys.platform == "win32":
        return time.time() - part.stat().st_mtime > LONG_AGO_S
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def is_taken(file: TextIO) -> bool:
    """Locks an open file unless another process has, and tells whether it did; the lock ends with the file."""
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, HOLDER_AT)
        else:
            flock(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return True
        if not isinstance(error, BlockingIOError | PermissionError):
            raise
        return False
    return True


def is_still_there(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

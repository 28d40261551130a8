"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from alilama.common.errors import UserError


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
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: object):
    """Writes a JSON file, all of it or nothing."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())

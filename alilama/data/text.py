"""Text files: which ones a setting names, and how a corpus of any size is read in blocks through bounded memory."""

import glob
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import regex

from alilama import _bpe
from alilama.common.errors import UserError

BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16  # of a source, to see what kind of text it is
MAX_UNCUT_BYTES = 64 << 20  # longer text without a place to cut is cut all the same, so that memory is bounded


class Source(NamedTuple):
    """The bytes from `start` to `stop` of a text file."""

    path: Path
    start: int
    stop: int


class Block(NamedTuple):
    """Some bytes of a source; `continues` says that they begin inside a document that an earlier block began."""

    text: bytes
    continues: bool


def find_sources(data_files: str | os.PathLike | Iterable[str | os.PathLike], setting: str = "data_files") -> list[Source]:
    """Returns the non-empty text files that `data_files` names: files, folders (all files below) and glob patterns.

    Hidden files and folders and unfinished downloads (*.part) in folders are skipped. Raises UserError, naming
    `setting`, where a name leads to no file or all files are empty.
    """
    names = [data_files] if isinstance(data_files, str | os.PathLike) else list(data_files)
    names = [os.fspath(name) for name in names]
    if not all(names) or not names:
        raise UserError(f"{setting} = {data_files!r} names no file; give text files, folders or patterns")
    paths = []
    for name in names:
        matches = [Path(name)] if Path(name).exists() else sorted(Path(match) for match in glob.glob(name, recursive=True))
        found = [path for match in matches for path in files_below(match)]
        if not found:
            raise UserError(f"{setting}: {name!r} leads to no file; give text files, folders or patterns that exist")
        paths += found
    sources = [Source(path, 0, path.stat().st_size) for path in dict.fromkeys(paths)]
    if not any(source.stop for source in sources):
        raise UserError(f"{setting}: {sources[0].path} is empty; give a file with text in it")
    return [source for source in sources if source.stop]


def files_below(path: Path) -> list[Path]:
    """Returns a file itself, or the files of a folder and of those in it, in order, less those that are skipped."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    return [file for file in sorted(path.rglob("*")) if file.is_file() and not is_skipped(file.relative_to(path))]


def is_skipped(path: Path) -> bool:
    """Whether a file of a folder is not a text of the user's: hidden, in a hidden folder, or half downloaded."""
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".part"


def looks_like_text(source: Source) -> bool:
    """Whether there are no NUL bytes in the first block of a source: archives, pictures and UTF-16 have them, text has not."""
    with open(source.path, "rb") as file:
        file.seek(source.start)
        return b"\0" not in file.read(min(BLOCK_BYTES, source.stop - source.start))


def share_of_marks(source: Source) -> float:
    """Returns which share of the letters where a source begins are marks (\\p{M}), such as the vowel signs of Hindi or Thai."""
    with open(source.path, "rb") as file:
        file.seek(source.start)
        text = file.read(min(SAMPLE_BYTES, source.stop - source.start)).decode("utf-8", errors="ignore")
    marks = len(regex.findall(r"\p{M}", text))
    return marks / (marks + len(regex.findall(r"\p{L}", text)) + 1)


def read_blocks(sources: Iterable[Source], native_pattern: str | None) -> Iterator[Block]:
    """Yields the sources in blocks of about BLOCK_BYTES, cut where no piece of a native pattern crosses.

    Without one (None) a block ends only where a document does. Text that has no such place for MAX_UNCUT_BYTES is cut
    there all the same, with a warning: a piece that crosses the cut becomes two.
    """
    find_cut = _bpe.find_document_cut if native_pattern is None else partial(_bpe.find_cut, pattern=native_pattern)
    for path, start, stop in sources:
        with open(path, "rb") as file:
            file.seek(start)
            text, continues, wanted = b"", False, BLOCK_BYTES
            while file.tell() < stop:
                more = file.read(min(wanted, stop - file.tell()))
                if not more:
                    raise UserError(f"{path} became shorter while it was read; run this again when nothing writes to it")
                text += more
                cut = len(text) if file.tell() >= stop else find_cut(text)
                if cut == 0 and len(text) >= MAX_UNCUT_BYTES:
                    cut = len(text)
                    warnings.warn(
                        f"{path} has {cut / 1e6:.0f} MB without a place to cut (native patterns: white space; "
                        "others: the end of a document), so they were cut somewhere",
                        stacklevel=2,
                    )
                wanted = BLOCK_BYTES if cut else 2 * wanted  # so that a document without a cut is not copied over and over
                if cut:
                    yield Block(text[:cut], continues)
                    text = text[cut:]
                    continues = native_pattern is not None and _bpe.cuts_documents(native_pattern)


def choose_num_threads(number: int | None) -> int:
    """Returns how many threads to use: the number asked for, or one for each core. Raises UserError for one below 1."""
    if number is not None and number < 1:
        raise UserError(f"num_threads = {number}: expected at least 1, or None for one on each core")
    return number or os.cpu_count() or 1


def map_blocks(function: Callable, blocks: Iterable, num_threads: int) -> Iterator:
    """Yields function(block) for each block, in order, computed by `num_threads` threads a few blocks ahead."""
    with ThreadPoolExecutor(num_threads) as pool:
        pending = deque()
        try:
            for block in blocks:
                pending.append(pool.submit(function, block))
                if len(pending) > num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

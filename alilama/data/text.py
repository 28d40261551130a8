"""Text: which files and datasets a setting names, and how a corpus of any size is read in blocks through bounded memory."""

import glob
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import BinaryIO, NamedTuple

import regex

from alilama import _bpe
from alilama.common.errors import UserError, expect, listed
from alilama.data.frames import Conversation
from alilama.data.hub import PREFIX, HubDataset
from alilama.data.opening import SAMPLE_BYTES, format_of, is_compressed, opened
from alilama.data.rows import Document, has_rows, read_file, read_hub

BLOCK_BYTES = 1 << 20
MAX_THREADS = 1024
MAX_UNCUT_BYTES = 64 << 20  # longer text without a place to cut is cut all the same, so that memory is bounded
SHRINKS = 4  # how much smaller compressed text is than text, about
MESSAGE_BYTES = 64  # what a message takes beside its text, so that those without any do not fill the memory
SEPARATOR = b"\n<|endoftext|>\n"


class Source(NamedTuple):
    """The text of a file or dataset from byte `start` to byte `stop`, as a rule all of it.

    `stop` is None where only reading shows how long the text is: that of compressed files and of rows, whose documents are in
    `column` (see rows.py).
    """

    path: Path | HubDataset
    start: int
    stop: int | None
    column: str | None = None

    @property
    def size(self) -> int:
        """How many bytes there are to read, 0 for a dataset that does not say so: what the sizes of blocks add up to."""
        if isinstance(self.path, HubDataset):
            return self.path.num_bytes
        return self.stop - self.start if self.stop is not None else self.path.stat().st_size

    @property
    def text_bytes(self) -> int:
        """About how much text this is; exactly where `stop` says so."""
        is_small = isinstance(self.path, Path) and (is_compressed(self.path) or format_of(self.path) == ".parquet")
        return self.size * SHRINKS if is_small else self.size


class Block(NamedTuple):
    """Some text of a source.

    continues: it begins inside a document that an earlier block began. size: how many bytes of the source were read for it.
    is_document: it is one document, whatever lines are in it. conversations: it is these, and `text` is what is said in them.
    """

    text: bytes
    continues: bool
    size: int = 0
    is_document: bool = False
    conversations: list[Conversation] | None = None

    def documents(self) -> list[bytes]:
        """Returns the text of each document."""
        if self.conversations is not None:
            return [b"".join(message.content for message in conversation) for conversation in self.conversations]
        return [self.text] if self.is_document else _bpe.split_documents(self.text)


def find_sources(
    data_files: str | os.PathLike | Iterable[str | os.PathLike], setting: str = "data_files", text_column: str | None = None
) -> list[Source]:
    """Returns what is not empty of the files that `data_files` names: files, folders (all files below), glob patterns, and
    datasets of the Hub (hf://OWNER/NAME).

    Hidden files and folders and unfinished downloads (*.part) in folders are skipped, and a file with several names is found
    once. Raises UserError, naming `setting`, where a name leads to no file or all files are empty.
    """
    names = [data_files] if isinstance(data_files, str | os.PathLike) else listed(setting, data_files)
    for name in names:
        expect(setting, name, str, os.PathLike)
    names = [os.fspath(name) for name in names]
    if not all(names) or not names:
        raise UserError(f"{setting} = {data_files!r} names no file; give text files, folders or patterns")
    paths = {}  # by what they are, so that each file is found once, also where links lead to it
    for name in names:
        found = [HubDataset.of(name)] if name.startswith(PREFIX) else files_of(name)
        if not found:
            raise UserError(f"{setting}: {name!r} leads to no file; give text files, folders or patterns that exist")
        for path in found:
            paths.setdefault(identity(path), path)
    filled = [path for path in paths.values() if isinstance(path, HubDataset) or path.stat().st_size]
    if not filled:
        raise UserError(f"{setting}: {next(iter(paths.values()))} is empty; give a file with text in it")
    return [Source(path, 0, size_of_text(path), text_column) for path in filled]


def identity(place: Path | HubDataset) -> object:
    """Returns what is the same for all names of one file or dataset."""
    if isinstance(place, HubDataset):
        return place
    status = place.stat()
    return status.st_dev, status.st_ino or os.path.realpath(place)  # some drives of Windows number no files


def files_of(name: str) -> list[Path]:
    """Returns the files that a name means: that file, those in that folder, or what the pattern matches."""
    matches = [Path(name)] if Path(name).exists() else sorted(Path(match) for match in glob.glob(name, recursive=True))
    return [path for match in matches for path in files_below(match)]


def files_below(path: Path) -> list[Path]:
    """Returns a file itself, or the files of a folder and of those in it, in order, less those that are skipped."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    return [file for file in sorted(path.rglob("*")) if file.is_file() and not is_skipped(file.relative_to(path))]


def is_skipped(path: Path) -> bool:
    """Whether a file of a folder is not a text of the user's: hidden, in a hidden folder, or half downloaded."""
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".part"


def size_of_text(path: Path | HubDataset) -> int | None:
    """Returns how many bytes of text there are where a file is that text itself, else None."""
    is_plain = isinstance(path, Path) and not is_compressed(path) and not has_rows(path)
    return path.stat().st_size if is_plain else None


def has_conversations(source: Source) -> bool:
    """Whether a source holds prompts with answers, by where it begins."""
    if isinstance(source.path, Path) and not has_rows(source.path):
        return False
    block = next(read_blocks([source], None), None)
    return block is not None and block.conversations is not None


def share_of_marks(source: Source, native_pattern: str) -> float:
    """Returns which share of the letters where a source begins are marks (\\p{M}), such as the vowel signs of Hindi or Thai."""
    block = next(read_blocks([source], native_pattern), None)
    text = block.text[:SAMPLE_BYTES].decode("utf-8", errors="ignore") if block else ""
    marks = len(regex.findall(r"\p{M}", text))
    return marks / (marks + len(regex.findall(r"\p{L}", text)) + 1)


def read_blocks(sources: Iterable[Source], native_pattern: str | None) -> Iterator[Block]:
    """Yields the sources in blocks of about BLOCK_BYTES.

    Text is cut where no piece of a native pattern crosses. Without one (None) a block ends only where a document does. Text
    that has no such place for MAX_UNCUT_BYTES is cut there all the same, with a warning: a piece that crosses the cut becomes
    two. Of rows each is a document, and none is cut. Raises UserError, with the place, for what cannot be read.
    """
    for source in sources:
        if isinstance(source.path, HubDataset):
            yield from clip(pack(read_hub(source.path, source.column)), source)
            continue
        with opened(source.path) as (file, position):
            if has_rows(source.path):
                yield from clip(tell_sizes(pack(read_file(source.path, file, source.column)), position), source)
            elif is_compressed(source.path):
                yield from tell_sizes(cut_text(file, source, native_pattern), position)
            else:
                yield from cut_text(file, source, native_pattern)


def cut_text(file: BinaryIO, source: Source, native_pattern: str | None) -> Iterator[Block]:
    """Yields the text of a source from its file."""
    find_cut = _bpe.find_document_cut if native_pattern is None else partial(_bpe.find_cut, pattern=native_pattern)
    path, at, stop, _ = source
    file.seek(at)
    text, continues, wanted, is_end = b"", False, BLOCK_BYTES, False
    while not is_end:
        asked = wanted if stop is None else min(wanted, stop - at)
        more = file.read(asked)
        at += len(more)
        if len(more) < asked and stop is not None:
            raise UserError(f"{path} became shorter while it was read; run this again when nothing writes to it")
        is_end = len(more) < asked or at == stop
        text += more
        cut = len(text) if is_end else find_cut(text)
        if cut == 0 and len(text) >= MAX_UNCUT_BYTES:
            cut = len(text)
            warnings.warn(
                f"{path} has {cut / 1e6:.0f} MB without a place to cut (native patterns: white space; "
                "others: the end of a document), so they were cut somewhere",
                stacklevel=2,
            )
        wanted = BLOCK_BYTES if cut else 2 * wanted  # so that a document without a cut is not copied over and over
        if cut:
            yield Block(text[:cut], continues, cut)
            text = text[cut:]
            continues = native_pattern is not None and _bpe.cuts_documents(native_pattern)


def pack(documents: Iterable[Document]) -> Iterator[Block]:
    """Yields documents in blocks of about BLOCK_BYTES, those of a block all texts or all conversations."""
    for is_text, group in groupby(documents, lambda document: isinstance(document, bytes)):
        waiting, num_bytes = [], 0
        for document in group:
            waiting.append(document)
            num_bytes += len(document) if is_text else sum(MESSAGE_BYTES + len(message.content) for message in document)
            if num_bytes >= BLOCK_BYTES:
                yield from join(waiting) if is_text else [of_conversations(waiting)]
                waiting, num_bytes = [], 0
        if waiting:
            yield from join(waiting) if is_text else [of_conversations(waiting)]


def of_conversations(conversations: list[Conversation]) -> Block:
    text = b"".join(message.content for conversation in conversations for message in conversation)
    return Block(text, False, len(text), conversations=conversations)


def join(texts: list[bytes]) -> Iterator[Block]:
    """Yields texts with separators between them, in as few blocks as keep each what it is.

    One that holds a line <|endoftext|>, or ends in half a line end, is a block of its own.
    """
    text = SEPARATOR.join(texts)
    if len(texts) == 1 or _bpe.split_documents(text) == texts:
        yield Block(text, False, len(text), is_document=len(texts) == 1)
    else:
        for half in (texts[: len(texts) // 2], texts[len(texts) // 2 :]):
            yield from join(half)


def tell_sizes(blocks: Iterable[Block], position: Callable[[], int]) -> Iterator[Block]:
    """Yields blocks with what was read for each of them, as `position` tells it."""
    told = position()
    for block in blocks:
        now = position()
        yield block._replace(size=now - told)
        told = now


def clip(blocks: Iterable[Block], source: Source) -> Iterator[Block]:
    """Yields what of the blocks of a whole file or dataset is the source's."""
    begin = 0
    for block in blocks:
        end = begin + len(block.text)
        stop = end if source.stop is None else min(end, source.stop)
        if block.conversations is not None:  # is not cut
            if source.start <= begin < stop:
                yield block
        elif stop > max(begin, source.start):
            yield block._replace(text=block.text[max(source.start - begin, 0) : stop - begin])
        begin = end
        if begin == source.stop:
            return


def choose_num_threads(number: int | None) -> int:
    """Returns how many threads to use: the number asked for, or one for each core. Raises UserError for one that cannot be."""
    expect("num_threads", number, Integral, NoneType)
    if number is not None and not 1 <= number <= MAX_THREADS:
        raise UserError(f"num_threads = {number}: expected at least 1 and at most {MAX_THREADS}, or None for one on each core")
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

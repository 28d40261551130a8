"""From text files to token files and from token files to batches.

Text files are read in blocks, so that a corpus of any size passes through bounded memory. Token files are
`train.npy` and `val.npy`, one-dimensional arrays read by memory map, with `tokenizer.json` and `meta.json` beside them.
"""

import glob
import json
import operator
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from alilama import _bpe
from alilama.errors import UserError

if TYPE_CHECKING:
    from alilama.tokenizer import Tokenizer

BLOCK_BYTES = 1 << 20
MAX_UNCUT_BYTES = 64 << 20  # longer text without a place to cut is cut all the same, so that memory is bounded
SPLITS = ("train", "val")
NEAR_BYTES = 1 << 16  # how far a line end is looked for
SEPARATORS_AT_END = re.compile(rb"(?:(?:\A|\r?\n)<\|endoftext\|>)+(?:\r?\n)?\Z")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file beside `path` that takes its place when the `with` block ends, and is removed if that fails.

    Raises UserError where `path` is something other than a file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no ordinary file, and a file is to be written there; choose another place")
    part = Path(f"{path}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: object):
    """Writes a JSON file, all of it or nothing."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


# ---- text files ----


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

    Hidden files and folders and unfinished downloads (*.part) in folders are passed over. Raises UserError, naming
    `setting`, where a name leads to no file or all files are empty.
    """
    names = [data_files] if isinstance(data_files, str | os.PathLike) else list(data_files)
    names = [os.fspath(name) for name in names]
    if not all(names) or not names:
        raise UserError(f"{setting} = {data_files!r} names no file; give text files, folders or patterns")
    paths = []
    for name in names:
        matches = [Path(name)] if Path(name).exists() else sorted(Path(match) for match in glob.glob(name, recursive=True))
        found = [
            file
            for match in matches
            for file in (sorted(match.rglob("*")) if match.is_dir() else [match])
            if file.is_file() and not is_passed_over(file.relative_to(match))
        ]
        if not found:
            raise UserError(f"{setting}: {name!r} leads to no file; give text files, folders or patterns that exist")
        paths += found
    sources = [Source(path, 0, path.stat().st_size) for path in dict.fromkeys(paths)]
    if not any(source.stop for source in sources):
        raise UserError(f"{setting}: {sources[0].path} is empty; give a file with text in it")
    return [source for source in sources if source.stop]


def is_passed_over(path: Path) -> bool:
    """Whether a file of a folder is no text of the user's: hidden, in a hidden folder, or half downloaded."""
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".part"


def read_blocks(sources: Iterable[Source], *, pattern: str | None = None) -> Iterator[Block]:
    """Yields the sources in blocks of about BLOCK_BYTES, cut where no piece of the native `pattern` can cross.

    With None, which is right for any pattern, a block ends only where a document does. Text that has no such place for
    MAX_UNCUT_BYTES is cut there all the same, with a warning: a piece that crosses the cut becomes two.
    """
    find_cut = _bpe.find_document_cut if pattern is None else partial(_bpe.find_cut, pattern=pattern)
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
                    text, continues = text[cut:], pattern is not None and _bpe.cuts_documents(pattern)


def threads(number: int | None) -> int:
    """Returns how many threads to use: the number asked for, or one for each core."""
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


# ---- token files ----


@dataclass
class TokenMeta:
    """What meta.json says of the token files beside it."""

    vocab_size: int
    tokenizer_sha256: str
    documents: dict[str, int]
    tokens: dict[str, int]
    bytes: dict[str, int]
    sources: dict[str, list[str]]


class TokenWriter:
    """Writes a one-dimensional .npy array piece by piece to a file open for writing."""

    def __init__(self, file: BinaryIO, dtype: np.dtype):
        self.file, self.dtype = file, dtype
        self.num_tokens = self.num_bytes = self.num_documents = 0
        self._write_header()

    def _write_header(self):
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.num_tokens,)}
        np.lib.format.write_array_header_1_0(self.file, header)  # 128 bytes for any number of tokens

    def write(self, ids: np.ndarray):
        self.file.write(ids.data)
        self.num_tokens += len(ids)

    def finish(self):
        """Writes the number of tokens into the header, and all of it to the disk."""
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())


def write_parts(
    writers: dict[str, TokenWriter],
    held_out: np.ndarray,
    ids: np.ndarray,
    part_tokens: np.ndarray,
    part_bytes: np.ndarray,
    continues: bool,
):
    """Writes the parts of an encoded block (see Tokenizer.encode_block), one or more, to the writers of their splits."""
    ends = np.cumsum(part_tokens)
    changes = [*(np.flatnonzero(np.diff(held_out)) + 1), len(ends)]  # parts of one split in a row are one write
    for first, last in zip([0, *changes], changes, strict=False):
        writer = writers["val" if held_out[first] else "train"]
        writer.write(ids[ends[first] - part_tokens[first] : ends[last - 1]])
        writer.num_bytes += int(part_bytes[first:last].sum())
        writer.num_documents += int(last - first) - int(continues and first == 0)


def hold_out_tails(sources: list[Source], val_fraction: float) -> tuple[list[Source], list[Source]]:
    """Cuts the last `val_fraction` off every source, at the end of a line where one is near."""
    train, val = [], []
    for path, start, stop in sources:
        with open(path, "rb") as file:
            file.seek(max(start, stop - NEAR_BYTES))
            separators = SEPARATORS_AT_END.search(file.read(stop - file.tell()))
            stop -= len(separators[0]) if separators else 0
            cut = start + int((stop - start) * (1 - val_fraction))
            near = max(start, cut - NEAR_BYTES)
            file.seek(near)
            text = file.read(min(stop, cut + NEAR_BYTES) - near)
        line_end = text.find(b"\n", cut - near, len(text) - 1)
        if line_end < 0:
            line_end = text.rfind(b"\n", 0, cut - near)
        cut = near + line_end + 1 if line_end >= 0 else cut
        train += [Source(path, start, cut)] if cut > start else []
        val += [Source(path, cut, stop)] if stop > cut else []
    return train, val


def has_documents(sources: Iterable[Source], number: int, *, pattern: str | None) -> bool:
    """Tells whether the sources hold at least `number` documents; reads no further than needed."""
    found = 0
    for block in read_blocks(sources, pattern=pattern):
        documents = _bpe.split_documents(block.text)
        found += sum(map(bool, documents[1:] if block.continues else documents))
        if found >= number:
            return True
    return False


def write_token_files(
    tokenizer: "Tokenizer",
    sources: list[Source],
    folder: Path,
    *,
    val_sources: list[Source] | None = None,
    val_fraction: float = 0.05,
    num_threads: int | None = None,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> TokenMeta:
    """Writes tokenizer.json, train.npy, val.npy and meta.json into `folder` and returns what meta.json says.

    Validation comes from `val_sources` if given. Otherwise every 1/val_fraction-th document is held out, or, where there
    are too few documents for that, the last part of every file. Nothing in the folder changes until all is written;
    then meta.json goes first and comes last, so that an interruption cannot leave files that do not belong together.
    """
    pattern = tokenizer.pattern if tokenizer.is_native else None
    by_document = False
    if val_sources is None:
        by_document = has_documents(sources, int(np.ceil(1 / val_fraction)), pattern=pattern)
        if not by_document:
            sources, val_sources = hold_out_tails(sources, val_fraction)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "train.npy") as train_file, replacing(folder / "val.npy") as val_file:
        writers = {"train": TokenWriter(train_file, tokenizer.dtype), "val": TokenWriter(val_file, tokenizer.dtype)}
        for split, split_sources in (("train", sources), ("val", val_sources or [])):
            index = -1  # of the document that the last block ended in
            blocks = read_blocks(split_sources, pattern=pattern)
            encoded = map_blocks(lambda block: (len(block.text), tokenizer.encode_block(block)), blocks, threads(num_threads))
            for block_bytes, (ids, part_tokens, part_bytes, continues) in encoded:
                on_bytes(block_bytes)
                if not len(part_tokens):
                    continue
                indices = np.arange(len(part_tokens)) + index + (not continues)
                index = int(indices[-1])
                if by_document:  # spread evenly: document i is held out where the running share reaches a whole number
                    held_out = np.floor((indices + 1) * val_fraction) > np.floor(indices * val_fraction)
                else:
                    held_out = np.full(len(part_tokens), split == "val")
                write_parts(writers, held_out, ids, part_tokens, part_bytes, continues)
        for name, writer in writers.items():
            writer.finish()
            if writer.num_tokens < 2:
                raise UserError(f"the text leaves nothing for {name}.npy; give more text, or another val_fraction or val_files")
        (folder / "meta.json").unlink(missing_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    meta = TokenMeta(
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        documents={name: writer.num_documents for name, writer in writers.items()},
        tokens={name: writer.num_tokens for name, writer in writers.items()},
        bytes={name: writer.num_bytes for name, writer in writers.items()},
        sources={"train": [str(source.path) for source in sources], "val": [str(source.path) for source in val_sources or []]},
    )
    write_json(folder / "meta.json", asdict(meta))
    return meta


@dataclass
class TokenFiles:
    """The token files of a folder: memory-mapped ids of each split, and what meta.json says of them."""

    meta: TokenMeta
    train: np.ndarray
    val: np.ndarray


def load_token_files(folder: Path, tokenizer: "Tokenizer") -> TokenFiles:
    """Opens the token files of a folder.

    Raises UserError where one is missing or damaged, does not fit meta.json, or was made by another tokenizer.
    """
    remedy = "run tokenize_data.py again"
    try:
        meta = TokenMeta(**json.loads((folder / "meta.json").read_text(encoding="utf-8")))
        sha256, num_tokens = str(meta.tokenizer_sha256), {split: operator.index(meta.tokens[split]) for split in SPLITS}
    except FileNotFoundError:
        raise UserError(f"{folder / 'meta.json'} is missing: there are no complete token files; {remedy}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # Unicode and JSON errors are ValueErrors
        raise UserError(f"{folder / 'meta.json'} is damaged ({error}); {remedy}") from None
    if sha256 != tokenizer.sha256:
        raise UserError(
            f"the token files in {folder} were made by another tokenizer (SHA-256 {sha256[:12]}, "
            f"this one is {tokenizer.sha256[:12]}); {remedy}"
        )
    arrays = {}
    for split in SPLITS:
        path = folder / f"{split}.npy"
        try:
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy raises what it comes across in a damaged header
            raise UserError(f"{path} is missing or damaged ({error}); {remedy}") from None
        if not isinstance(ids, np.ndarray):
            raise UserError(f"{path} is an archive of arrays, not one array; {remedy}")
        if ids.ndim != 1 or ids.dtype != tokenizer.dtype or len(ids) != num_tokens[split]:
            raise UserError(
                f"{path} holds {ids.dtype} of shape {ids.shape}, and meta.json says {num_tokens[split]} tokens of "
                f"{tokenizer.dtype}; {remedy}"
            )
        if (largest := int(ids.max(initial=0))) >= tokenizer.vocab_size:
            raise UserError(f"{path} is damaged: it holds id {largest}, and the tokenizer has {tokenizer.vocab_size}; {remedy}")
        arrays[split] = ids
    return TokenFiles(meta, **arrays)


# ---- batches ----


def find_documents(ids: np.ndarray, eot_id: int) -> np.ndarray:
    """Returns where each document in ids begins, at <|endoftext|>, and where the last ends: (documents + 1,) int64."""
    ids_at_once = 1 << 24
    found = [start + np.flatnonzero(ids[start : start + ids_at_once] == eot_id) for start in range(0, len(ids), ids_at_once)]
    return np.unique(np.concatenate([[0], *found, [len(ids)]]))


class TrainingWindows:
    """The training tokens as batches: a function of the seed and the step alone, so that a run can go on anywhere.

    Every epoch lays the documents behind one another in another order, cuts that into windows at another offset, and
    visits each window once, in another order. Step i takes windows i * batch_size and following of the endless sequence of
    epochs.
    """

    def __init__(self, ids: np.ndarray, eot_id: int, context: int, batch_size: int, seed: int):
        if len(ids) < context + 1:
            raise UserError(
                f"train.npy has {len(ids)} tokens, fewer than one window of max_seq_len + 1 = {context + 1}; give "
                "more text or a smaller max_seq_len"
            )
        self.ids, self.context, self.batch_size, self.seed = ids, context, batch_size, seed
        self.windows_per_epoch = max(1, (len(ids) - context) // context)
        self._documents = find_documents(ids, eot_id)
        self._epoch = -1

    def _begin_epoch(self, epoch: int):
        rng = np.random.default_rng((self.seed, epoch))
        spare = len(self.ids) - 1 - self.windows_per_epoch * self.context
        offset = rng.integers(spare + 1)
        self._epoch, self._starts = epoch, offset + rng.permutation(self.windows_per_epoch) * self.context
        order = rng.permutation(len(self._documents) - 1)
        lengths = np.diff(self._documents)[order]
        self._ends = np.cumsum(lengths)  # of the documents in their new order
        self._moves = self._documents[order] - (self._ends - lengths)  # from a place in that order to the one in ids

    def _windows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Returns windows of an epoch, (n, T + 1), by their places in its order, (n,)."""
        if epoch != self._epoch:
            self._begin_epoch(epoch)
        positions = self._starts[places, None] + np.arange(self.context + 1)  # (n, T + 1)
        return self.ids[positions + self._moves[np.searchsorted(self._ends, positions, side="right")]]

    def batch(self, step: int) -> np.ndarray:
        """Returns the windows of one step, (B, T + 1) int64: inputs are [:, :-1], targets [:, 1:]."""
        epochs, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.windows_per_epoch)
        windows = [self._windows(epoch, places[epochs == epoch]) for epoch in np.unique(epochs)]
        return np.concatenate(windows).astype(np.int64)

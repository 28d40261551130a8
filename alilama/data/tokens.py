"""Token files: `train.npy` and `val.npy`, one-dimensional arrays read by memory map, with `tokenizer.json` and `meta.json`.

`train_documents.npy` says where the documents of `train.npy` begin, and `train_blocks.npy` how many begin before each block of
BLOCK_TOKENS tokens and in all, so that no start of training has to look for them. `train_checksums.npy` and `val_checksums.npy`
have a checksum of each block, by which damage is noticed when the block is first read.
"""

import json
import mmap
import operator
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alilama.common.errors import UserError, first_line
from alilama.common.files import check_is_file, check_is_free, replacing, sync, write_json
from alilama.data.checksums import CHECKSUM, BlockChecksums, checksum_of
from alilama.data.text import Source, choose_num_threads, has_conversations, map_blocks, read_blocks
from alilama.data.tokenizer import Tokenizer

SPLITS = ("train", "val")
BLOCK_TOKENS = 1 << 20  # what stays together when the text is put into another order
REMEDY = "run tokenize_data.py again"
NEAR_BYTES = 1 << 16  # how far a line end, or separators at the end of a file, are looked for
BEGINNING_TOKENS, BEGINNING_IDS = 4, 4096  # of a text that shows how they begin, and where it is looked for
SEPARATORS_AT_END = re.compile(rb"(?:(?:\A|\r?\n)<\|endoftext\|>)+(?:\r?\n)?\Z")


@dataclass
class TokenMeta:
    """What meta.json says of the token files beside it."""

    vocab_size: int
    tokenizer_sha256: str
    documents: dict[str, int]
    tokens: dict[str, int]
    bytes: dict[str, int]
    checksums: dict[str, int]  # of what a start reads of each split, the checksums of its blocks among it
    sources: dict[str, list[str]]

    @property
    def text(self) -> str:
        """Names what is trained on: the first file, and how many more there are."""
        first, *more = self.sources["train"]
        return f"{first} and {len(more):,} more" if more else str(first)


def write_token_files(
    tokenizer: Tokenizer,
    sources: list[Source],
    folder: Path,
    *,
    val_sources: list[Source] | None = None,
    val_fraction: float = 0.05,
    num_threads: int | None = None,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> TokenMeta:
    """Writes tokenizer.json, meta.json and the arrays into `folder`, and returns what meta.json says.

    Validation comes from `val_sources` if given. Otherwise every 1/val_fraction-th document is held out, or, where there are
    too few documents for that, in all or in a large file, the last part of every file, unless they are conversations.
    Nothing in the folder changes until all is written; then the old meta.json is deleted first and the new one is written
    last, so that an interruption cannot leave files that do not belong together. Raises UserError where a split would have
    fewer than two tokens, or Windows would not replace a file.
    """
    pattern = tokenizer.native_pattern
    by_document, cuts_conversations = False, val_sources is None
    if val_sources is None:
        talking = [source for source in sources if tokenizer.frame is not None and has_conversations(source)]
        others = [source for source in sources if source not in talking]
        by_document = can_hold_out_documents(others, val_fraction, pattern)
        if not by_document:
            others, val_sources = hold_out_tails(others, val_fraction, pattern)
            sources = others + talking
    folder.mkdir(parents=True, exist_ok=True)
    with (
        replacing(folder / "train.npy") as train_file,
        replacing(folder / "train_documents.npy") as documents_file,
        replacing(folder / "train_blocks.npy") as blocks_file,
        replacing(folder / "train_checksums.npy") as train_checksums_file,
        replacing(folder / "val.npy") as val_file,
        replacing(folder / "val_checksums.npy") as val_checksums_file,
    ):
        writers = {
            "train": IndexedTokenWriter(train_file, train_checksums_file, tokenizer.dtype, documents_file, blocks_file),
            "val": TokenWriter(val_file, val_checksums_file, tokenizer.dtype),
        }
        for split, split_sources in (("train", sources), ("val", val_sources or [])):
            index = -1  # of the document that the last block ended in
            blocks = read_blocks(split_sources, pattern)
            encoded = map_blocks(lambda block: (block, tokenizer.encode_block(block)), blocks, choose_num_threads(num_threads))
            for block, (ids, part_tokens, part_bytes, continues) in encoded:
                on_bytes(block.size)
                if not len(part_tokens):
                    continue
                indices = np.arange(len(part_tokens)) + index + (not continues)
                index = int(indices[-1])
                if by_document or (
                    cuts_conversations and block.conversations is not None
                ):  # spread evenly: document i is held out where the running share reaches a whole number
                    held_out = np.floor((indices + 1) * val_fraction) > np.floor(indices * val_fraction)
                else:
                    held_out = np.full(len(part_tokens), split == "val")
                write_parts(writers, held_out, ids, part_tokens, part_bytes, continues)
        for name, writer in writers.items():
            writer.finish()
            if writer.tokens.length < 2:
                raise UserError(f"the text leaves nothing for {name}.npy; give more text, or another val_fraction or val_files")
        check_are_free(folder)
        (folder / "meta.json").unlink(missing_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    meta = TokenMeta(
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        documents={name: writer.num_documents for name, writer in writers.items()},
        tokens={name: writer.tokens.length for name, writer in writers.items()},
        bytes={name: writer.num_bytes for name, writer in writers.items()},
        checksums={name: writer.checksum for name, writer in writers.items()},
        sources={"train": [str(source.path) for source in sources], "val": [str(source.path) for source in val_sources or []]},
    )
    write_json(folder / "meta.json", asdict(meta))
    return meta


def check_are_free(folder: Path):
    """Raises UserError where the token files cannot be replaced: on Windows, where a training has them mapped."""
    for path in (*folder.glob("train*.npy"), *folder.glob("val*.npy")):
        check_is_free(path)


def can_hold_out_documents(sources: list[Source], val_fraction: float, native_pattern: str | None) -> bool:
    """Tells whether every 1/val_fraction-th document is about `val_fraction` of the text: there are that many documents, and
    as many in each file that is larger than the share, which else could be held out, or trained on, as a whole."""
    number = int(np.ceil(1 / val_fraction))
    share = val_fraction * sum(source.text_bytes for source in sources)
    large = [source for source in sources if source.text_bytes > share]
    return all(has_documents(part, number, native_pattern) for part in [sources, *([source] for source in large)])


def has_documents(sources: Iterable[Source], number: int, native_pattern: str | None) -> bool:
    """Tells whether the sources hold at least `number` documents; reads no further than needed."""
    found = 0
    for block in read_blocks(sources, native_pattern):
        documents = block.documents()
        found += sum(map(bool, documents[1:] if block.continues else documents))
        if found >= number:
            return True
    return False


def hold_out_tails(sources: list[Source], val_fraction: float, native_pattern: str | None) -> tuple[list[Source], list[Source]]:
    """Cuts the last `val_fraction` off every source, at the end of a line where one is near."""

    def read(source: Source, start: int, stop: int | None) -> Iterator[bytes]:
        return (block.text for block in read_blocks([source._replace(start=start, stop=stop)], native_pattern))

    train, val = [], []
    for source in sources:
        start, stop = source.start, source.stop
        if stop is None:
            stop = sum(map(len, read(source, start, None)))
        separators = SEPARATORS_AT_END.search(b"".join(read(source, max(start, stop - NEAR_BYTES), stop)))
        stop -= len(separators[0]) if separators else 0
        cut = start + int((stop - start) * (1 - val_fraction))
        near = max(start, cut - NEAR_BYTES)
        text = b"".join(read(source, near, min(stop, cut + NEAR_BYTES)))
        line_end = text.find(b"\n", cut - near, len(text) - 1)
        if line_end < 0:
            line_end = text.rfind(b"\n", 0, cut - near)
        cut = near + line_end + 1 if line_end >= 0 else cut
        train += [source._replace(stop=cut)] if cut > start else []
        val += [source._replace(start=cut, stop=stop)] if stop > cut else []
    return train, val


class TokenWriter:
    """Writes the tokens of a split and the checksums of its blocks, and counts."""

    def __init__(self, tokens_file: BinaryIO, checksums_file: BinaryIO, dtype: np.dtype):
        self.tokens, self.checksums = ArrayWriter(tokens_file, dtype), ArrayWriter(checksums_file, CHECKSUM)
        self.of_blocks = BlockChecksums(BLOCK_TOKENS)
        self.num_bytes = self.num_documents = 0
        self.checksum = 0  # of what a start reads

    def write(self, ids: np.ndarray, starts: np.ndarray, num_bytes: int):
        """Writes ids, (n,), in which documents begin at `starts`, (m,)."""
        self.of_blocks.add(ids, self._index(ids, self.tokens.length + starts))
        self.tokens.write(ids)
        self.num_documents += len(starts)
        self.num_bytes += num_bytes

    def _index(self, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Returns what is kept of where in the file documents begin."""
        return starts[:0]

    def finish(self):
        checksums = self.of_blocks.finish()
        self.checksum = zlib.crc32(checksums, self.checksum)
        self.checksums.write(checksums)
        self.checksums.finish()
        self.tokens.finish()


class IndexedTokenWriter(TokenWriter):
    """Also writes where documents begin, and how many of them before each block."""

    def __init__(
        self, tokens_file: BinaryIO, checksums_file: BinaryIO, dtype: np.dtype, documents_file: BinaryIO, blocks_file: BinaryIO
    ):
        super().__init__(tokens_file, checksums_file, dtype)
        self.documents, self.blocks = (ArrayWriter(file, np.dtype(np.int64)) for file in (documents_file, blocks_file))

    def _index(self, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
        end = -(-(self.tokens.length + len(ids)) // BLOCK_TOKENS)
        blocks = np.arange(self.blocks.length, end, dtype=np.int64)  # that begin here
        self._count_before(self.documents.length + np.searchsorted(starts, blocks * BLOCK_TOKENS))
        self.documents.write(starts)
        return starts

    def _count_before(self, counts: np.ndarray):
        self.checksum = zlib.crc32(counts, self.checksum)
        self.blocks.write(counts)

    def finish(self):
        self._count_before(np.array([self.documents.length], np.int64))
        super().finish()
        self.documents.finish()
        self.blocks.finish()


class ArrayWriter:
    """Writes a one-dimensional .npy array piece by piece to a file open for writing."""

    def __init__(self, file: BinaryIO, dtype: np.dtype):
        self.file, self.dtype, self.length = file, dtype, 0
        self._write_header()

    def _write_header(self):
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, header)  # 128 bytes for any length

    def write(self, values: np.ndarray):
        assert values.dtype == self.dtype, values.dtype
        self.file.write(values.data)
        self.length += len(values)

    def finish(self):
        """Writes the length into the header, and all of it to the disk."""
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        sync(self.file.fileno())


def write_parts(
    writers: dict[str, TokenWriter],
    held_out: np.ndarray,
    ids: np.ndarray,
    part_tokens: np.ndarray,
    part_bytes: np.ndarray,
    continues: bool,
):
    """Writes the parts of an encoded block (see Tokenizer.encode_block), one or more, to the writers of their splits."""
    for name, chosen in (("train", ~held_out), ("val", held_out)):
        if not chosen.any():
            continue
        tokens = part_tokens[chosen]
        starts = np.cumsum(tokens) - tokens
        writers[name].write(
            ids if chosen.all() else ids[np.repeat(chosen, part_tokens)],
            starts[1:] if continues and chosen[0] else starts,
            int(part_bytes[chosen].sum()),
        )


@dataclass
class TokenFiles:
    """The token files of a folder: memory-mapped ids of each split, where the documents of train begin, (documents,) int64,
    how many begin before each of its blocks and in all, (blocks + 1,) int64, the checksums of each split's blocks, and what
    meta.json says of them. A block's ids are checked when `check` is first called for it."""

    meta: TokenMeta
    train: np.ndarray
    val: np.ndarray
    documents: np.ndarray
    blocks: np.ndarray
    train_checksums: np.ndarray
    val_checksums: np.ndarray
    checked: set[tuple[str, int]] = field(default_factory=set)  # split and block

    def documents_of(self, block: int) -> np.ndarray:
        """Returns where documents begin in a block of train."""
        return self.documents[slice(*self.blocks[block : block + 2])]

    def check(self, split: str, block: int):
        """Raises UserError where a block of a split is not what was written."""
        if (split, block) in self.checked:
            return
        ids = getattr(self, split)[block * BLOCK_TOKENS : (block + 1) * BLOCK_TOKENS]
        starts = self.documents_of(block) if split == "train" else self.documents[:0]
        if checksum_of(ids, starts) != getattr(self, f"{split}_checksums")[block]:
            names = "val.npy" if split == "val" else "train.npy or train_documents.npy"
            raise UserError(f"{names} is damaged: it has another checksum; {REMEDY}")
        check_ids(ids, self.meta.vocab_size, f"{split}.npy")
        self.checked.add((split, block))

    def check_size(self):
        """Raises UserError where a file became shorter since it was opened: to read what is missing ends a process (SIGBUS)."""
        for split in SPLITS:
            mapped = getattr(self, split).base
            if isinstance(mapped, mmap.mmap) and mapped.size() < len(mapped):
                raise UserError(f"{split}.npy became shorter while it was in use; {REMEDY}, and go on by the same command")

    def val_ids(self, max_tokens: int | None) -> np.ndarray:
        """Returns the ids with which `max_tokens` tokens can be scored, None for all."""
        ids = self.val if max_tokens is None else self.val[: max_tokens + 1]
        for block in range(-(-len(ids) // BLOCK_TOKENS)):
            self.check("val", block)
        return ids


def load_token_files(folder: Path, tokenizer: Tokenizer) -> TokenFiles:
    """Opens the token files of a folder, without reading the ids: these are checked where they are used.

    Raises UserError where one is missing or damaged, does not fit meta.json, or was made by another tokenizer.
    """
    meta = load_meta(folder)
    if meta.tokenizer_sha256 != tokenizer.sha256 or meta.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"the token files in {folder} were made by another tokenizer (SHA-256 {meta.tokenizer_sha256[:12]}, "
            f"this one is {tokenizer.sha256[:12]}); {REMEDY}"
        )
    train, val = (open_array(folder / f"{split}.npy", meta.tokens[split], tokenizer.dtype) for split in SPLITS)
    documents = open_array(folder / "train_documents.npy", meta.documents["train"], np.dtype(np.int64))
    num_blocks = {split: -(-meta.tokens[split] // BLOCK_TOKENS) for split in SPLITS}
    blocks = open_array(folder / "train_blocks.npy", num_blocks["train"] + 1, np.dtype(np.int64))
    checksums = {split: open_array(folder / f"{split}_checksums.npy", num_blocks[split], CHECKSUM) for split in SPLITS}
    for split, read_before in (("train", zlib.crc32(blocks)), ("val", 0)):
        if zlib.crc32(checksums[split], read_before) != meta.checksums[split]:
            raise UserError(f"what lies beside {folder / split}.npy is damaged: it has another checksum; {REMEDY}")
    return TokenFiles(meta, train, val, documents, blocks, checksums["train"], checksums["val"])


def find_beginning(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Returns how the first text that begins in ids, (N,), does, or what a user says first where there are prompts."""
    ids, frame = ids[:BEGINNING_IDS], tokenizer.frame
    is_special = np.isin(ids, list(tokenizer.special_tokens.values()))
    prompts = [] if frame is None else np.flatnonzero(ids == frame.role_ids["user"])
    start = 1 + (prompts[0] if len(prompts) else next(iter(np.flatnonzero(ids == tokenizer.eot_id)), -1))
    size = next(iter(np.flatnonzero(is_special[start:])), len(ids) - start)  # of the text up to the next special token
    text = tokenizer.decode(ids[start : start + (size if len(prompts) else min(size, BEGINNING_TOKENS))], errors="ignore")
    return text if frame is not None or not any(token in text for token in tokenizer.special_tokens) else ""


def load_meta(folder: Path) -> TokenMeta:
    """Reads what meta.json says of the token files of a folder. Raises UserError where it is missing or damaged."""
    path = folder / "meta.json"
    check_is_file(path, REMEDY)
    try:
        meta = TokenMeta(**json.loads(path.read_text(encoding="utf-8")))
        meta.tokenizer_sha256 = str(meta.tokenizer_sha256)
        for counts in (meta.documents, meta.tokens, meta.bytes, meta.checksums):
            counts |= {split: operator.index(counts[split]) for split in SPLITS}
        if not meta.text:
            raise ValueError("it names no text")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: there are no complete token files; {REMEDY}") from None
    except TypeError:
        raise UserError(f"{path} is of another version of Alilama; {REMEDY}") from None
    except (ValueError, KeyError, RecursionError) as error:  # Unicode and JSON errors are ValueErrors
        raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None
    return meta


def open_array(path: Path, length: int, dtype: np.dtype) -> np.ndarray:
    """Opens a file of `ArrayWriter` by memory map. Raises UserError where it is another array than meta.json says."""
    check_is_file(path, REMEDY)
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises what it comes across in a damaged header
        raise UserError(f"{path} is missing or damaged ({first_line(error)}); {REMEDY}") from None
    if values.ndim != 1 or values.dtype != dtype or len(values) != length:
        raise UserError(
            f"{path} holds {values.dtype} of shape {values.shape}, and meta.json says {length} of {dtype}; {REMEDY}"
        )
    return values


def check_ids(ids: np.ndarray, vocab_size: int, name: str):
    """Raises UserError where the file of that name holds an id that the tokenizer does not have."""
    if (largest := int(ids.max(initial=0))) >= vocab_size:
        raise UserError(f"{name} is damaged: it holds id {largest}, and the tokenizer has {vocab_size}; {REMEDY}")

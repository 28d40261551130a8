"""Token files: `train.npy` and `val.npy`, one-dimensional arrays read by memory map, with `tokenizer.json` and `meta.json`."""

import json
import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alilama import _bpe
from alilama.common.errors import UserError, first_line
from alilama.common.files import replacing, write_json
from alilama.data.text import Source, map_blocks, read_blocks, threads
from alilama.data.tokenizer import Tokenizer

SPLITS = ("train", "val")
NEAR_BYTES = 1 << 16  # how far a line end is looked for
SEPARATORS_AT_END = re.compile(rb"(?:(?:\A|\r?\n)<\|endoftext\|>)+(?:\r?\n)?\Z")


@dataclass
class TokenMeta:
    """What meta.json says of the token files beside it."""

    vocab_size: int
    tokenizer_sha256: str
    documents: dict[str, int]
    tokens: dict[str, int]
    bytes: dict[str, int]
    sources: dict[str, list[str]]


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
    """Writes tokenizer.json, train.npy, val.npy and meta.json into `folder` and returns what meta.json says.

    Validation comes from `val_sources` if given. Otherwise every 1/val_fraction-th document is held out, or, where there
    are too few documents for that, the last part of every file. Nothing in the folder changes until all is written;
    then the old meta.json is deleted first and the new one is written last, so that an interruption cannot leave files that
    do not belong together.
    """
    pattern = tokenizer.native_pattern
    by_document = False
    if val_sources is None:
        by_document = has_documents(sources, int(np.ceil(1 / val_fraction)), pattern)
        if not by_document:
            sources, val_sources = hold_out_tails(sources, val_fraction)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "train.npy") as train_file, replacing(folder / "val.npy") as val_file:
        writers = {"train": TokenWriter(train_file, tokenizer.dtype), "val": TokenWriter(val_file, tokenizer.dtype)}
        for split, split_sources in (("train", sources), ("val", val_sources or [])):
            index = -1  # of the document that the last block ended in
            blocks = read_blocks(split_sources, pattern)
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


def has_documents(sources: Iterable[Source], number: int, native_pattern: str | None) -> bool:
    """Tells whether the sources hold at least `number` documents; reads no further than needed."""
    found = 0
    for block in read_blocks(sources, native_pattern):
        documents = _bpe.split_documents(block.text)
        found += sum(map(bool, documents[1:] if block.continues else documents))
        if found >= number:
            return True
    return False


@dataclass
class TokenFiles:
    """The token files of a folder: memory-mapped ids of each split, and what meta.json says of them."""

    meta: TokenMeta
    train: np.ndarray
    val: np.ndarray


def load_token_files(folder: Path, tokenizer: Tokenizer) -> TokenFiles:
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
            ids = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # NumPy raises what it comes across in a damaged header
            raise UserError(f"{path} is missing or damaged ({first_line(error)}); {remedy}") from None
        if ids.ndim != 1 or ids.dtype != tokenizer.dtype or len(ids) != num_tokens[split]:
            raise UserError(
                f"{path} holds {ids.dtype} of shape {ids.shape}, and meta.json says {num_tokens[split]} tokens of "
                f"{tokenizer.dtype}; {remedy}"
            )
        if (largest := int(ids.max(initial=0))) >= tokenizer.vocab_size:
            raise UserError(f"{path} is damaged: it holds id {largest}, and the tokenizer has {tokenizer.vocab_size}; {remedy}")
        arrays[split] = ids
    return TokenFiles(meta, **arrays)

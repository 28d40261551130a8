"""Token files that are not what was written are refused when they are read, and a start reads none of them."""

import random

import numpy as np
import pytest
from helpers import with_checksums, write_prose, write_text

from alilama.common.errors import UserError
from alilama.data import batches, tokens
from alilama.data.batches import TrainingWindows
from alilama.data.checksums import BlockChecksums, checksum_of
from alilama.data.text import find_sources
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files, write_token_files

HEADER_BYTES = 128  # of a .npy file; what it says is checked by itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Token files of some blocks."""
    folder = tmp_path_factory.mktemp("tokens")
    text = write_text(folder / "text", "stories.txt", write_prose(200, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "BLOCK_TOKENS", 1000)
        write_token_files(Tokenizer.train(text, 400), find_sources(text), folder, val_fraction=0.2)
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (tokens, batches):
        monkeypatch.setattr(module, "BLOCK_TOKENS", 1000)
    monkeypatch.setattr(batches, "SECTION_BLOCKS", 2)


def read_all(folder):
    files = load_token_files(folder, Tokenizer.load(folder / "tokenizer.json"))
    for block in range(len(files.blocks) - 1):
        files.check("train", block)
    files.val_ids(None)
    return files


@pytest.mark.parametrize("name", ["train", "train_documents", "train_blocks", "train_checksums", "val", "val_checksums"])
def test_every_flipped_bit_is_noticed(folder, tmp_path, name):
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    read_all(tmp_path)
    content, rng = (folder / f"{name}.npy").read_bytes(), random.Random(name)
    places = [HEADER_BYTES, len(content) - 1, *(rng.randrange(HEADER_BYTES, len(content)) for _ in range(30))]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        (tmp_path / f"{name}.npy").write_bytes(flipped)
        with pytest.raises(UserError, match=r"damaged.*run tokenize_data\.py again"):
            read_all(tmp_path)


def test_a_start_reads_no_block_and_training_reads_a_block_once(folder, monkeypatch):
    files, read = load_token_files(folder, Tokenizer.load(folder / "tokenizer.json")), []
    assert len(files.blocks) > 5
    monkeypatch.setattr(tokens, "checksum_of", lambda ids, starts: read.append(ids[:1]) or checksum_of(ids, starts))
    windows = TrainingWindows(files, 16, 4, seed=1)
    assert not read
    windows.batch(0)
    assert 0 < len(read) <= 4
    for step in range(1, 3 * windows.windows_per_epoch // 4):
        windows.batch(step)
    assert len(read) == len(files.blocks) - 1


def test_checksums_do_not_depend_on_how_the_tokens_came(folder):
    files = read_all(folder)
    for size in (1, 7, 999, 1000, 1001, 10**6):
        of_blocks = BlockChecksums(1000)
        for begin in range(0, len(files.train), size):
            part = files.train[begin : begin + size]
            starts = files.documents[np.isin(files.documents, np.arange(begin, begin + len(part)))]
            of_blocks.add(part, starts)
        assert np.array_equal(of_blocks.finish(), files.train_checksums)
    assert np.array_equal(with_checksums(read_all(folder)).train_checksums, files.train_checksums)


def test_text_in_another_order_has_another_checksum(folder, tmp_path):
    text = write_text(
        tmp_path / "text",
        "stories.txt",
        "\n<|endoftext|>\n".join(reversed(write_prose(200, seed=1).split("\n<|endoftext|>\n"))),
    )
    before = read_all(folder).meta
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    after = write_token_files(tokenizer, find_sources(text), tmp_path, val_sources=find_sources(text))
    again = write_token_files(tokenizer, find_sources(text), tmp_path / "again", val_sources=find_sources(text))
    assert after.checksums == again.checksums
    assert after.checksums["train"] != before.checksums["train"]

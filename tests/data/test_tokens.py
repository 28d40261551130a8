"""Token files: what is in them, what is held out, and what is refused."""

import hashlib
import json
import os
import random
import re

import numpy as np
import pytest
from helpers import files_of, refused_by_windows, write_prose, write_text

from alilama.common import files
from alilama.common.errors import UserError
from alilama.data.frames import FRAME_TOKENS
from alilama.data.text import Source, find_sources, map_blocks, read_blocks
from alilama.data.tokenizer import PATTERNS, Tokenizer
from alilama.data.tokens import find_beginning, load_token_files, write_token_files

EOT = "<|endoftext|>"


def split_documents(content: bytes) -> list[bytes]:
    """The rule, line by line: a separator is its line, its line end and the line end before it."""
    documents, document = [], b""
    *lines, rest = content.split(b"\n")
    for line in [*(line + b"\n" for line in lines), rest]:
        if line.removesuffix(b"\n").removesuffix(b"\r" if line.endswith(b"\r\n") else b"") == EOT.encode():
            documents.append(document.removesuffix(b"\n").removesuffix(b"\r" if document.endswith(b"\r\n") else b""))
            document = b""
        else:
            document += line
    return [document for document in [*documents, document] if document]


def expected_ids(tokenizer: Tokenizer, documents: list[bytes]) -> list[int]:
    return [id for document in documents for id in (tokenizer.eot_id, *tokenizer.encode_ordinary(document.decode()))]


ODD_TEXT = (
    write_prose(3, seed=5) + "x" * 300 + "  \n\n \t  a    b\r\n\r\n1234567 12345 'll don't…naïve — “quoted” "
    "日本語のテキスト \u3000\u00a0x\n\n\n<|endoftext|> in a line\n<|endoftext|>\n\nnew\n<|endoftext|>\nx<|endoftext|>\n"
    "🦙🦙 ١٢٣٤٥ e\u0301 end \n \n"
)


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\w+|\W"])
@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1000])
def test_tokens_do_not_depend_on_where_blocks_end_or_on_threads(pattern, block_bytes, tmp_path, tokenizer, monkeypatch):
    tokenizer = Tokenizer(tokenizer.merges, pattern=pattern)
    sources = [
        Source(write_text(tmp_path, name, text), 0, len(text.encode()))
        for name, text in (("a", ODD_TEXT), ("b", ODD_TEXT[::-1]))
    ]
    expected = [id for text in (ODD_TEXT, ODD_TEXT[::-1]) for id in expected_ids(tokenizer, split_documents(text.encode()))]
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    blocks = list(read_blocks(sources, tokenizer.native_pattern))
    assert b"".join(block.text for block in blocks) == (ODD_TEXT + ODD_TEXT[::-1]).encode()
    assert len(blocks) >= 3
    for num_threads in (1, 3):
        parts = list(map_blocks(tokenizer.encode_block, blocks, num_threads))
        assert [id for ids, *_ in parts for id in ids.tolist()] == expected


def test_random_texts_give_the_same_tokens_in_blocks_as_whole(tmp_path, tokenizer, monkeypatch):
    rng = random.Random(0)
    parts = [
        "a",
        "word",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1",
        "234",
        "'ll",
        "é",
        "日",
        "🦙",
        "\u0301",
        "\u3000",
        "!",
        "…",
        f"\n{EOT}\n",
        EOT,
    ]
    for _ in range(60):
        text = "".join(rng.choices(parts, k=rng.randint(1, 120)))
        path = write_text(tmp_path, "text", text)
        monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", rng.randint(1, 40))
        blocks = read_blocks([Source(path, 0, len(text.encode()))], "gpt4")
        found = [id for block in blocks for id in tokenizer.encode_block(block)[0].tolist()]
        assert found == expected_ids(tokenizer, split_documents(text.encode())), repr(text)


def test_every_document_is_preceded_by_end_of_text_and_separators_are_those_of_the_design(tokenizer, tmp_path):
    content = (
        f"{EOT}\nfirst\n{EOT}\n\nsecond, with an empty line before and behind it\n\n{EOT}\r\nthird ends in spaces  \r\n"
        f"{EOT}\n{EOT}\nfourth has {EOT} in a line\n{EOT} at its start\nand its end {EOT}\n {EOT}\n{EOT}"
    )
    documents = [
        "first",
        "\nsecond, with an empty line before and behind it\n",
        "third ends in spaces  ",
        f"fourth has {EOT} in a line\n{EOT} at its start\nand its end {EOT}\n {EOT}",
    ]
    train, val = write_text(tmp_path, "train.txt", content), write_text(tmp_path, "val.txt", "validate\r\nthis\n")
    meta = write_token_files(tokenizer, find_sources(str(train)), tmp_path / "out", val_sources=find_sources(str(val)))
    found, held_out = np.load(tmp_path / "out" / "train.npy"), np.load(tmp_path / "out" / "val.npy")
    assert found.tolist() == expected_ids(tokenizer, [document.encode() for document in documents])
    assert held_out.tolist() == [tokenizer.eot_id, *tokenizer.encode("validate\r\nthis\n")]
    assert meta.documents == {"train": 4, "val": 1}
    assert meta.bytes == {"train": sum(map(len, documents)), "val": 15}
    assert np.load(tmp_path / "out" / "train_documents.npy").tolist() == np.flatnonzero(found == tokenizer.eot_id).tolist()


@pytest.mark.parametrize("text_block", [16, 500, 1 << 20])
@pytest.mark.parametrize("token_block", [1, 10, 64, 1 << 20])
def test_documents_are_counted_before_each_block_of_tokens(
    text_block, token_block, tokenizer, text_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", text_block)
    monkeypatch.setattr("alilama.data.tokens.BLOCK_TOKENS", token_block)
    write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1)
    tokens = load_token_files(tmp_path, tokenizer)
    assert tokens.documents.tolist() == np.flatnonzero(tokens.train == tokenizer.eot_id).tolist()
    begins = tokens.train == tokenizer.eot_id
    before = [int(begins[:start].sum()) for start in range(0, len(begins), token_block)]
    assert tokens.blocks.tolist() == [*before, int(begins.sum())]


def test_token_files_that_windows_would_not_replace_stay(tokenizer, text_file, tmp_path, monkeypatch):
    """As where a training begins, and maps them, while new ones are written."""
    sources = find_sources(str(text_file))
    write_token_files(tokenizer, sources, tmp_path, val_fraction=0.1)
    before, rename, worked = files_of(tmp_path), os.rename, []

    def refuses(old, new):
        if worked:
            raise refused_by_windows(old, new)
        rename(old, new)

    monkeypatch.setattr("alilama.common.files.os.rename", refuses)
    monkeypatch.setattr("alilama.common.files.PATIENCE_S", -1)
    with pytest.raises(UserError, match=r"\.npy is in use by another program"):
        write_token_files(tokenizer, sources, tmp_path, val_fraction=0.2, on_bytes=worked.append)
    assert files_of(tmp_path) == before and worked


def test_meta_json_tells_the_truth(tokenizer, text, text_file, tmp_path):
    meta = write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1)
    documents = split_documents(text.encode())
    assert len(documents) == 200
    said = json.loads((tmp_path / "meta.json").read_text())
    train, val = np.load(tmp_path / "train.npy"), np.load(tmp_path / "val.npy")
    assert said["tokens"] == {"train": len(train), "val": len(val)}
    assert said["documents"] == {"train": 180, "val": 20}
    assert said["documents"] == {name: int((ids == tokenizer.eot_id).sum()) for name, ids in (("train", train), ("val", val))}
    assert said["bytes"] == {
        "train": len(tokenizer.decode_bytes(train)) - 180 * len(EOT),
        "val": len(tokenizer.decode_bytes(val)) - 20 * len(EOT),
    }
    assert sum(said["bytes"].values()) == sum(map(len, documents))
    assert said["vocab_size"] == 400
    assert said["tokenizer_sha256"] == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    assert said["sources"]["train"] == [str(text_file)]
    assert vars(meta) == said


@pytest.mark.parametrize("val_fraction", [0.05, 0.3])
@pytest.mark.parametrize("block_bytes", [100, 4 << 20])
def test_the_share_held_out_is_whole_documents_and_every_document_is_in_one_split(
    tokenizer, text, text_file, tmp_path, monkeypatch, val_fraction, block_bytes
):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    meta = write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=val_fraction, num_threads=2)
    written = {}
    for name in ("train", "val"):
        first, *documents = tokenizer.decode(np.load(tmp_path / f"{name}.npy")).split(EOT)
        assert first == ""
        written[name] = documents
    everything = [document.decode() for document in split_documents(text.encode())]
    assert sorted(written["train"] + written["val"]) == sorted(everything)
    assert meta.documents == {name: len(documents) for name, documents in written.items()}
    assert meta.bytes == {name: sum(len(document.encode()) for document in documents) for name, documents in written.items()}
    assert len(written["val"]) == round(200 * val_fraction)
    places = [everything.index(document) for document in written["val"]]
    assert places == sorted(places) and max(np.diff([0, *places, 200])) <= 2 / val_fraction  # spread over the text
    assert [document for document in everything if document not in written["val"]] == written["train"]


def test_one_document_is_cut_at_the_end_of_a_line(tokenizer, tmp_path):
    lines = [f"Line {i} of a book without separators.\n" for i in range(100)]
    write_text(tmp_path, "book.txt", "".join(lines))
    meta = write_token_files(tokenizer, find_sources(str(tmp_path / "book.txt")), tmp_path, val_fraction=0.1)
    train, val = (tokenizer.decode(np.load(tmp_path / f"{name}.npy")) for name in ("train", "val"))
    assert train.startswith(EOT) and val.startswith(EOT)
    train, val = train.removeprefix(EOT), val.removeprefix(EOT)
    assert train + val == "".join(lines)
    assert train.endswith("\n") and 0.07 < len(val) / len("".join(lines)) <= 0.1
    assert meta.documents == {"train": 1, "val": 1}


@pytest.mark.parametrize("documents, by_document", [(1, False), (19, False), (20, True)])
def test_a_large_file_of_few_documents_is_neither_held_out_nor_trained_on_as_a_whole(
    documents, by_document, tokenizer, tmp_path
):
    for i in range(19):
        write_text(tmp_path, f"{i:02}.txt", f"A note of one line, the {i}th.\n")
    book = f"\n{EOT}\n".join("A line of a long book.\n" * (2000 // documents) for _ in range(documents))
    write_text(tmp_path, "99.txt", book)  # the twentieth document where it is one
    meta = write_token_files(tokenizer, find_sources(str(tmp_path)), tmp_path / "tokens")
    assert 0.02 < meta.bytes["val"] / sum(meta.bytes.values()) < 0.06
    assert meta.sources["val"] == ([] if by_document else meta.sources["train"])


def test_one_document_of_one_line_loses_nothing(tokenizer, tmp_path):
    write_text(tmp_path, "line.txt", "word " * 200)
    write_token_files(tokenizer, find_sources(str(tmp_path / "line.txt")), tmp_path, val_fraction=0.1)
    parts = [tokenizer.decode(np.load(tmp_path / f"{name}.npy")).removeprefix(EOT) for name in ("train", "val")]
    assert "".join(parts) == "word " * 200
    assert len(parts[1]) == 100


def test_holding_out_a_tail_never_makes_text_of_a_separator(tokenizer, tmp_path):
    write_text(tmp_path, "small.txt", f"One short document of a few words, and nothing more than that.\n{EOT}\n")
    write_token_files(tokenizer, find_sources(str(tmp_path / "small.txt")), tmp_path, val_fraction=0.1)
    for name in ("train", "val"):
        text = tokenizer.decode(np.load(tmp_path / f"{name}.npy"))
        assert re.fullmatch(r"(<\|endoftext\|>[^<|>]+)+", text), (name, text)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, np.uint16), (65537, np.uint32)])
def test_ids_are_uint16_up_to_65536_tokens_and_uint32_above(vocab_size, dtype, tmp_path):
    merges = [(i % 256, i // 256) for i in range(vocab_size - 257)]
    tokenizer = Tokenizer(merges)
    write_text(tmp_path, "text.txt", "a few words here\n" * 20)
    meta = write_token_files(tokenizer, find_sources(str(tmp_path / "text.txt")), tmp_path, val_fraction=0.2)
    ids = np.load(tmp_path / "train.npy")
    assert ids.dtype == dtype and ids[0] == vocab_size - 1
    assert meta.vocab_size == vocab_size
    assert load_token_files(tmp_path, tokenizer).train.dtype == dtype
    assert tokenizer.decode(ids).startswith(f"{EOT}a few words")


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\w+|\W"])
def test_invalid_utf_8_is_kept_byte_for_byte(pattern, tokenizer, tmp_path, monkeypatch):
    rng = random.Random(2)
    content = bytes(rng.choices([*range(256), *b"    aaaeee\n\n"], k=3000))
    train = write_text(tmp_path, "odd.bin", content)
    val = write_text(tmp_path, "odd2.bin", b"\xff\xfe\x00\x80abc\xf0\x9f")
    for block_bytes in (50, 4 << 20):
        monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
        tokenizer = Tokenizer(tokenizer.merges, pattern=pattern)
        write_token_files(tokenizer, find_sources(str(train)), tmp_path / "out", val_sources=find_sources(str(val)))
        assert tokenizer.decode_bytes(np.load(tmp_path / "out" / "train.npy")[1:]) == content
        assert tokenizer.decode_bytes(np.load(tmp_path / "out" / "val.npy")[1:]) == b"\xff\xfe\x00\x80abc\xf0\x9f"


def test_progress_is_told_of_every_byte_of_the_files(tokenizer, text_file, text, tmp_path):
    told = []
    write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1, on_bytes=told.append)
    assert sum(told) == len(text.encode())


@pytest.mark.parametrize("exists", [True, False])
def test_an_error_in_the_middle_leaves_the_folder_as_it_was(
    exists, tokenizer, other_tokenizer, text_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", 10_000)
    before = {}
    if exists:
        write_token_files(other_tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1)
        before = files_of(tmp_path)
    calls = []

    def on_bytes(size):
        calls.append(size)
        if len(calls) == 3:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1, on_bytes=on_bytes)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "stopped_at", ["tokenizer.json", "train.npy", "train_documents.npy", "train_blocks.npy", "val.npy", "meta.json"]
)
def test_stopping_between_two_files_never_leaves_files_that_do_not_belong_together(
    stopped_at, tokenizer, other_tokenizer, text_file, tmp_path, monkeypatch
):
    """As after kill -9 while the files take their names: the folder loads as the old one, or says that it is incomplete."""
    write_token_files(other_tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.1)
    replace = files.os.replace

    def stops(part, path):
        if path.name == stopped_at:
            raise KeyboardInterrupt
        replace(part, path)

    monkeypatch.setattr(files.os, "replace", stops)
    with pytest.raises(KeyboardInterrupt):
        write_token_files(tokenizer, find_sources(str(text_file)), tmp_path, val_fraction=0.2)
    monkeypatch.undo()
    with pytest.raises(UserError, match="no complete token files"):
        load_token_files(tmp_path, Tokenizer.load(tmp_path / "tokenizer.json"))


def test_a_text_too_small_for_two_splits_is_refused_and_nothing_is_written(tokenizer, tmp_path):
    write_text(tmp_path, "text.txt", "x")
    with pytest.raises(UserError, match=r"leaves nothing for \w+\.npy"):
        write_token_files(tokenizer, find_sources(str(tmp_path / "text.txt")), tmp_path / "out", val_fraction=0.1)
    assert files_of(tmp_path / "out") == {}


@pytest.fixture
def tokens_dir(tokenizer, text_file, tmp_path):
    write_token_files(tokenizer, find_sources(str(text_file)), tmp_path / "tokens", val_fraction=0.1)
    return tmp_path / "tokens"


def test_token_files_are_read_by_memory_map(tokens_dir, tokenizer):
    tokens = load_token_files(tokens_dir, tokenizer)
    assert isinstance(tokens.train, np.memmap) and isinstance(tokens.val, np.memmap)
    assert tokens.meta.tokens == {"train": len(tokens.train), "val": len(tokens.val)}


def test_token_files_of_another_tokenizer_are_refused(tokens_dir, other_tokenizer):
    with pytest.raises(UserError, match="made by another tokenizer"):
        load_token_files(tokens_dir, other_tokenizer)


def rewrite_meta(change):
    def rewrite(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return rewrite


def save_npz(path):
    with open(path, "wb") as file:
        np.savez(file, ids=np.arange(10, dtype=np.uint16))


DAMAGE = {
    "missing array": ("train.npy", lambda path: path.unlink()),
    "missing documents": ("train_documents.npy", lambda path: path.unlink()),
    "fewer documents": ("train_documents.npy", lambda path: np.save(path, np.load(path)[1:])),
    "fewer blocks": ("train_blocks.npy", lambda path: np.save(path, np.load(path)[1:])),
    "empty array": ("val.npy", lambda path: path.write_bytes(b"")),
    "truncated array": ("train.npy", lambda path: path.write_bytes(path.read_bytes()[:-10])),
    "truncated header": ("train.npy", lambda path: path.write_bytes(path.read_bytes()[:50])),
    "text as array": ("train.npy", lambda path: path.write_text("Once upon a time")),
    "shorter array": ("train.npy", lambda path: np.save(path, np.load(path)[:-1])),
    "other dtype": ("val.npy", lambda path: np.save(path, np.load(path).astype(np.int64))),
    "two dimensions": ("val.npy", lambda path: np.save(path, np.load(path)[None])),
    "pickled objects": ("train.npy", lambda path: np.save(path, np.array([{"a": 1}]), allow_pickle=True)),
    "an npz archive": ("train.npy", save_npz),
    "long header": ("train.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b" " * 0xFFFF)),
    "folder as array": ("train.npy", lambda path: (path.unlink(), path.mkdir())),
    "missing meta": ("meta.json", lambda path: path.unlink()),
    "truncated meta": ("meta.json", lambda path: path.write_bytes(path.read_bytes()[:40])),
    "foreign meta": ("meta.json", lambda path: path.write_text('{"name": "something else"}')),
    "list as meta": ("meta.json", lambda path: path.write_text("[1, 2]")),
    "binary meta": ("meta.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "meta without a split": ("meta.json", rewrite_meta(lambda meta: meta["tokens"].pop("val"))),
    "meta without numbers": ("meta.json", rewrite_meta(lambda meta: meta.update(tokens=None))),
    "meta without sources": ("meta.json", rewrite_meta(lambda meta: meta.update(sources={"train": []}))),
    "meta without hash": ("meta.json", rewrite_meta(lambda meta: meta.update(tokenizer_sha256=None))),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_token_files_are_refused_in_one_line_that_names_the_file(damage, tokens_dir, tokenizer):
    name, do = DAMAGE[damage]
    do(tokens_dir / name)
    with pytest.raises(UserError, match=r"run tokenize_data\.py again") as refused:
        load_token_files(tokens_dir, tokenizer)
    assert len(str(refused.value).splitlines()) == 1
    assert str(tokens_dir) in str(refused.value)


def test_loading_runs_no_code(tokens_dir, tokenizer, tmp_path):
    class Opens:
        def __reduce__(self):
            return open, (str(tmp_path / "was_run"), "w")

    np.save(tokens_dir / "train.npy", np.array([Opens()]), allow_pickle=True)
    with pytest.raises(UserError):
        load_token_files(tokens_dir, tokenizer)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("pattern", ["gpt4", r"\w+|\W"])
@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_files_and_blocks_of_separators_alone_are_skipped(pattern, block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    tokenizer = Tokenizer([], pattern=pattern)
    write_text(tmp_path, "a.txt", f"{EOT}\n" * 9)  # less than a tenth of the text
    write_text(tmp_path, "b.txt", f"{EOT}\n{EOT}\n" + f"\n{EOT}\n".join(f"Text {i}." for i in range(40)) + f"\n{EOT}\n" * 30)
    meta = write_token_files(tokenizer, find_sources(str(tmp_path)), tmp_path / "tokens", val_fraction=0.1)
    assert meta.documents == {"train": 36, "val": 4}


def test_separators_alone_leave_nothing_to_hold_out(tokenizer, tmp_path):
    write_text(tmp_path, "a.txt", f"{EOT}\n{EOT}\n")
    with pytest.raises(UserError, match="leaves nothing for"):
        write_token_files(tokenizer, find_sources(str(tmp_path)), tmp_path / "tokens", val_fraction=0.3)


# ---- prompts and answers ----


@pytest.mark.parametrize("num_rows", [3, 50])
@pytest.mark.parametrize("block_bytes", [30, 1 << 20])
def test_conversations_are_held_out_whole_however_few_they_are(num_rows, block_bytes, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    framed = tokenizer.with_frame()
    pairs = [(f"Question {i}?\n" * 9, f"Answer {i}.\n" * (i % 4 + 1)) for i in range(num_rows)]
    rows = "\n".join(json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in pairs)
    sources = find_sources(str(write_text(tmp_path, "rows.jsonl", rows)))
    meta = write_token_files(framed, sources, tmp_path / "t", val_fraction=1 / 3, num_threads=2)
    documents = [f"{EOT}<|user|>{prompt}<|end|><|assistant|>{answer}<|end|>" for prompt, answer in pairs]
    for split, chosen in (("train", [i for i in range(num_rows) if i % 3 != 2]), ("val", [*range(2, num_rows, 3)])):
        assert framed.decode(np.load(tmp_path / "t" / f"{split}.npy")) == "".join(documents[i] for i in chosen)
        assert meta.documents[split] == len(chosen)
        assert meta.bytes[split] == sum(len("".join(pairs[i])) for i in chosen)
    tokens = load_token_files(tmp_path / "t", framed)
    assert tokens.documents.tolist() == np.flatnonzero(tokens.train == framed.eot_id).tolist()


def test_a_large_file_of_few_conversations_is_not_cut_within_one(tokenizer, tmp_path):
    framed, rows = tokenizer.with_frame(), {"a.jsonl": [("long " * 900, "answer")] * 3, "b.jsonl": [("ask", "say")] * 40}
    for name, pairs in rows.items():
        write_text(tmp_path, name, "\n".join(json.dumps({"prompt": prompt, "completion": said}) for prompt, said in pairs))
    meta = write_token_files(framed, find_sources(str(tmp_path)), tmp_path / "t")
    assert meta.documents == {"train": 41, "val": 2} and meta.sources["val"] == []
    said = [f"{EOT}<|user|>{prompt}<|end|><|assistant|>{said}<|end|>" for pairs in rows.values() for prompt, said in pairs]
    for split, documents in (("train", [*said[:19], *said[20:39], *said[40:]]), ("val", [said[19], said[39]])):
        assert framed.decode(np.load(tmp_path / "t" / f"{split}.npy")) == "".join(documents)


@pytest.mark.parametrize("num_prompts", [19, 20, 45])
def test_of_a_book_beside_conversations_the_end_is_held_out_and_of_these_every_twentieth(num_prompts, tokenizer, tmp_path):
    framed, book = tokenizer.with_frame(), "".join(f"Line {i} of the book.\n" for i in range(2000))
    rows = [json.dumps({"prompt": f"ask {i}", "completion": "say"}) for i in range(num_prompts)]
    write_text(tmp_path / "texts", "a.jsonl", "\n".join(rows))
    write_text(tmp_path / "texts", "b.txt", book)
    meta = write_token_files(framed, find_sources(tmp_path / "texts"), tmp_path / "t")
    train, val = (framed.decode(np.load(tmp_path / "t" / f"{split}.npy")) for split in ("train", "val"))
    assert meta.documents["val"] - 1 in (num_prompts // 20, num_prompts // 20 + 1)
    assert val.count("<|assistant|>") == meta.documents["val"] - 1 and train.count("<|assistant|>") + val.count("<|assistant|>")
    assert 0.9 < train.count("of the book") / 1900 < 1.1 and train.count("of the book") + val.count("of the book") == 2000


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("Once upon a time Zoë", "Once "),
        ("a", "a"),
        ("ab🦙", "ab"),  # without half a character
        ([("system", "s"), ("user", "Who? 🦙"), ("assistant", "I.")], "Who? 🦙"),
        ([("user", ""), ("user", "b"), ("assistant", "I.")], ""),
    ],
)
def test_a_text_begins_with_a_few_tokens_and_a_conversation_with_all_that_the_user_says(document, expected):
    framed = Tokenizer([(ord("O"), ord("n"))], special_tokens=(EOT, *FRAME_TOKENS))
    if isinstance(document, str):
        ids = framed.encode_document(document)
    else:
        ids = framed.encode_prompt([{"role": role, "content": text} for role, text in document])
    assert find_beginning(framed, np.array(ids + ids, np.uint16)) == expected
    assert find_beginning(framed, np.array([65, *ids], np.uint16)) == expected  # behind the rest of a document

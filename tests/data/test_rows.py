"""Files and datasets whose rows are documents: every kind gives the same tokens, and what is broken has a place."""

import base64
import csv
import gzip
import importlib
import io
import json
import lzma
import random
import sys
import tracemalloc
from contextlib import suppress

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers import write_prose, write_text
from tokenizer_cases import encoded, ids_of

from alilama.common.errors import UserError
from alilama.data import hub
from alilama.data.frames import FRAME_TOKENS
from alilama.data.hub import HubDataset
from alilama.data.opening import ZSTD
from alilama.data.text import find_sources, read_blocks
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import write_token_files

EOT = "<|endoftext|>"
zstd = importlib.import_module(ZSTD)
ODD = [
    "plain",
    f"a row\n{EOT}\nis one document",
    EOT,
    f"{EOT}\nat its start",
    f"at its end\n{EOT}",
    f"{EOT} in a line",
    "half a line end\r",
    "\r\nline ends\r\n",
    "\n",
    'quotes "and", commas; tabs\tand \\ slashes',
    "naïve 日本語 🦙\u2028\u0301",
    " ",
    "x" * 300,
]
STORIES = write_prose(60, seed=3).removesuffix("\n").split(f"\n{EOT}\n")
COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstd.compress}


def as_csv(texts, delimiter=",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["text", "id"], *([text, i] for i, text in enumerate(texts))])
    return file.getvalue().encode()


def as_parquet(texts, kind="string", **options) -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(texts))), "text": pyarrow.array(texts, kind)})
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def rows_of(texts) -> list[dict]:
    return [{"id": i, "text": text} for i, text in enumerate(texts)]


def with_impossible_numbers(content: bytes) -> bytes:
    """Returns a parquet file whose schema has whole numbers of 7 bits instead of 64."""
    schema = pyarrow.parquet.read_metadata(io.BytesIO(content)).metadata[b"ARROW:schema"]
    changed = base64.b64encode(base64.b64decode(schema).replace(b"\x40\0\0\0", b"\x07\0\0\0"))
    assert changed != schema
    return content.replace(schema, changed)


KINDS = {
    ".jsonl": lambda texts: "\n".join(map(json.dumps, rows_of(texts))).encode(),
    ".ndjson": lambda texts: b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, rows_of(texts))).encode(),
    ".json": lambda texts: json.dumps(rows_of(texts), indent=1).encode(),
    "mark.json": lambda texts: b"\xef\xbb\xbf" + json.dumps(rows_of(texts)).encode(),
    ".JSON": lambda texts: json.dumps({"text": texts}, ensure_ascii=False).encode(),  # columns
    "lines.json": lambda texts: "\n".join(map(json.dumps, rows_of(texts))).encode() + b"\n",
    ".csv": as_csv,
    "mark.csv": lambda texts: b"\xef\xbb\xbf" + as_csv(texts),
    ".tsv": lambda texts: as_csv(texts, "\t"),
    ".parquet": lambda texts: as_parquet(texts, row_group_size=3),
    "dictionary.parquet": lambda texts: as_parquet(texts, kind=pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
}


@pytest.mark.parametrize("pattern", ["gpt4", r"\w+|\W"])
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_a_document_whatever_is_in_it(kind, compression, pattern, tokenizer, tmp_path):
    tokenizer = Tokenizer(tokenizer.merges, pattern=pattern)
    path = write_text(tmp_path, f"rows{kind}{compression}", COMPRESS[compression](KINDS[kind]([*ODD, *STORIES[:5]])))
    assert encoded(tokenizer, str(path)) == ids_of(tokenizer, [*ODD, *STORIES[:5]])


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 18])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_documents_do_not_depend_on_how_much_is_read_at_a_time(kind, read_bytes, block_bytes, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("alilama.data.rows.READ_BYTES", read_bytes)
    rng = random.Random(read_bytes)
    parts = ["a", "word ", "\n", "\r", "\r\n", EOT, f"\n{EOT}\n", '"', "\\", ",", "[", "]", "{", "}", "é", "🦙", "\t"]
    texts = ["".join(rng.choices(parts, k=rng.randint(1, 9))) for _ in range(200)]
    path = write_text(tmp_path, f"rows{kind}", KINDS[kind](texts))
    assert encoded(tokenizer, str(path)) == ids_of(tokenizer, texts)


def test_rows_without_text_are_left_out(tokenizer, tmp_path):
    for kind in (".jsonl", ".json", ".JSON", ".parquet"):
        path = write_text(tmp_path, f"rows{kind}", KINDS[kind](["", "one", None, "two", ""]))
        assert encoded(tokenizer, str(path)) == ids_of(tokenizer, ["one", "two"]), kind
    path = write_text(tmp_path, "rows.csv", 'text\n"one"\n\n""\ntwo\n')
    assert encoded(tokenizer, str(path)) == ids_of(tokenizer, ["one", "two"])


def test_the_column_of_the_text_can_be_named(tokenizer, tmp_path):
    write_text(tmp_path, "a.jsonl", '{"story": "one", "text": "no"}\n')
    write_text(tmp_path, "b.csv", "text,story\nno,two\n")
    write_text(tmp_path, "c.txt", "three")
    assert encoded(tokenizer, str(tmp_path), text_column="story") == ids_of(tokenizer, ["one", "two", "three"])


def test_bytes_that_are_not_utf_8_are_kept_in_csv_and_json(tokenizer, tmp_path):
    write_text(tmp_path, "a.csv", b"text\ncaf\xe9\n")
    write_text(tmp_path, "b.json", b'[{"text": "caf\xe9"}]')
    ids = [id for id in encoded(tokenizer, str(tmp_path)) if id != tokenizer.eot_id]
    assert tokenizer.decode_bytes(ids) == b"caf\xe9caf\xe9"


BROKEN = {
    "half a line.jsonl": (b'{"text": "a"}\n{"text": "b', r"jsonl, line 2 is not JSON \(.* at its character \d+\)"),
    "words.jsonl": (b'{"text": "a"}\n\nOnce upon\n', r"jsonl, line 3 is not JSON"),
    "latin.jsonl": (b'{"text": "caf\xe9"}\n', r"jsonl, line 1 is not JSON"),
    "a list.jsonl": (b'["a"]\n', r'jsonl, line 1 is not a row such as {"text": "..."} but list'),
    "a number.jsonl": (b'{"text": "a"}\n{"text": 5}\n', r"jsonl, line 2: text is not text but int"),
    "nothing.jsonl": (b'{"text": "a"}\n{"text": 0}\n', r"jsonl, line 2: text is not text but int"),
    "other names.jsonl": (b'{"text": "a"}\n{"id": 1, "story": "b"}\n', r"line 2: there is no column 'text', only id, story;"),
    "cut off.json": (b'[{"text": "a"},\n{"text": "b"},\n', r"json ends in line 3, before its array does"),
    "cut in a row.json": (b'[{"text": "a"},\n{"text": "b', r"json, line 2 is not JSON \("),
    "deep.json": (b'{"text": ' + b"[" * 100_000, r"json, line 1 is not JSON"),
    "indented.json": (json.dumps([{"text": "a"}, {"id": 1}], indent=1).encode(), r"json, line 5: there is no column"),
    "lists.json": (b'[{"text": "a"},\n\n ["b"]]', r"json, line 3 is not a row such as"),
    "surrogate.json": (b'[{"text": "\\ud800"}]', r"json, line 1: text is not Unicode"),
    "nested.json": (b'{"data": [{"text": "a"}]}', r"json, line 1: there is no column 'text', only data; set text_column"),
    "numbers.json": (b'{"text": ["a", 5]}', r"json, line 1: text is not text but int"),
    "half a pair.jsonl": (
        b'{"prompt": "a", "completion": "b"}\n' * 6 + b'{"prompt": "a"}',
        r"line 7: there is no column 'completion'",
    ),
    "half a pair.csv": (b"id,prompt\n1,a\n", r"csv, line 1: there is no column 'completion' beside 'prompt'; add it"),
    "a number.json": (b'[{"prompt": "a",\n"completion": 5}]', r"json, line 1: completion is not text but int"),
    "a list.json": (b'{"prompt": ["a"], "completion": [["b"]]}', r"json, line 1: completion is not text but list"),
    "lengths.json": (b'{"prompt": ["a"], "completion": ["b", "c"]}', r"line 1: .*prompt, completion are not of one length"),
    "a role.jsonl": (b'\n{"messages": [{"role": ["user"], "content": "a"}]}', r"jsonl, line 2: message 1 is .*expected"),
    "half a character.json": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', r"line 1: message 1 is not Unicode"),
    "no list.jsonl": (b'{"messages": {"role": "user"}}', r"jsonl, line 1: messages is not a list but dict; mend the row, or"),
    "empty.jsonl": (b"{}", r"jsonl, line 1: there is no column 'text', only none"),
    "a name of two lines.json": (b'{"a\\nb": 1, "c": 2}', r"there is no column 'text', only a b, c; set"),
    "a long name.jsonl": (b'{"' + b"word " * 9999 + b'": 1}', r"there is no column 'text', only (word ){1,99}\.\.\.; set"),
    "fields.csv": (b'text,id\n"a\nb",1\nc, d,2\n', r"csv, line 4 has 3 fields, and the header 2"),
    "a long header.csv": (b'"a\nb",text\nc\n', r"csv, line 3 has 1 fields"),
    "quote.csv": (b'text,id\na,1\n"b" c,2\n', r"csv, line 3: .*quote"),
    "open quote.csv": (b'text,id\na,1\n"b,2\nc,3\n', r"csv, line 3: "),
    "other names.csv": (b"id;text\n1;a\n", r"csv, line 1: there is no column 'text', only id;text"),
    "nothing.csv": (b"\n", r"there is no column 'text', only none"),
    "damaged.parquet": (as_parquet(ODD)[:-20], r"parquet is damaged, or no parquet file \("),
    "damaged inside.parquet": (as_parquet(STORIES)[:2000] + b"\x55" * 500 + as_parquet(STORIES)[2500:], r"parquet is damaged"),
    "another letter.parquet": (
        as_parquet(["a bird"], write_page_checksum=True, compression="none").replace(b"a bird", b"a bard"),
        r"parquet is damaged",
    ),
    "numbers.parquet": (with_impossible_numbers(as_parquet(["a"])), r"parquet is damaged, or no parquet file \(Integers with"),
    "words.parquet": (b"Once upon a time", r"parquet is damaged, or no parquet file"),
    "cut off.txt.gz": (gzip.compress(STORIES[0].encode())[:-20], r"gz is damaged or not whole \("),
    "damaged.jsonl.gz": (b"\x1f\x8b\x08" + b"\x55" * 60, r"gz is damaged or not whole"),
    "words.jsonl.gz": (b"Once upon a time", r"gz is damaged or not whole"),
    "cut off.csv.xz": (lzma.compress(as_csv(STORIES))[:-20], r"xz is damaged or not whole"),
    "words.csv.xz": (b"Once upon a time", r"xz is damaged or not whole"),
    "cut off.json.zst": (zstd.compress(KINDS[".json"](STORIES))[:-20], r"zst is damaged or not whole"),
    "words.json.zst": (b"Once upon a time", r"zst is damaged or not whole"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_or_file_is_refused_in_one_line_with_its_place(name, tmp_path):
    content, message = BROKEN[name]
    path = write_text(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as refused:
        list(read_blocks(find_sources(str(path)), "gpt4"))
    assert str(path) in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_parquet_column_must_be_there_and_be_text(tmp_path):
    path = write_text(tmp_path, "rows.parquet", as_parquet(["a"]))
    for column, message in (("story", "no column 'story', only id, text"), ("id", "column 'id' is not text but int64")):
        with pytest.raises(UserError, match=message):
            list(read_blocks(find_sources(str(path), text_column=column), "gpt4"))


def test_rows_of_parquet_are_numbered_over_all_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.rows.MAX_BATCH_ROWS", 4)
    messages = [[{"role": "assistant" if i != 9 else "tool", "content": "a"}] for i in range(20)]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"messages": messages}), file)
    with pytest.raises(UserError, match=r"rows\.parquet, line 10: message 1 is .*tool"):
        list(read_blocks(find_sources(str(write_text(tmp_path, "rows.parquet", file.getvalue()))), "gpt4"))


def test_reading_csv_leaves_the_limit_of_others_as_it_was(tmp_path):
    before = csv.field_size_limit()
    for content in (as_csv(["x" * 200_000]), b"no,column\n"):
        sources = find_sources(str(write_text(tmp_path, "rows.csv", content)))
        with suppress(UserError):
            list(read_blocks(sources, "gpt4"))
        assert csv.field_size_limit() == before


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_a_row_of_any_length_is_refused_before_it_fills_the_memory(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.rows.MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("alilama.data.rows.READ_BYTES", 100)
    long = write_text(tmp_path, f"long{kind}", KINDS[kind](["short", "x" * 100_000]))
    with pytest.raises(UserError, match=r"line [1-6]: .*(longer than|larger than)"):
        list(read_blocks(find_sources(str(long)), "gpt4"))
    short = write_text(tmp_path, f"short{kind}", KINDS[kind](["x" * 900] * 3))
    assert len(next(read_blocks(find_sources(str(short)), "gpt4")).text) > 2700


def test_a_broken_row_of_json_is_not_taken_for_a_long_one(tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.rows.MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("alilama.data.rows.READ_BYTES", 100)
    path = write_text(tmp_path, "rows.json", '[{"text": "a"},\n{"text" "b"},' + '\n{"text": "c"},' * 1000)
    with pytest.raises(UserError, match=r"line 2 is not JSON \(Expecting"):
        list(read_blocks(find_sources(str(path)), "gpt4"))


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("orjson", "a.jsonl", "pip install orjson"),
        ("pyarrow.parquet", "a.parquet", "pip install pyarrow"),
        ("backports.zstd", "a.txt.zst", r"pip install backports\.zstd"),
        ("datasets", "hf://owner/set", "pip install datasets"),
    ],
)
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="has zstd of its own")
def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it(module, name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(write_text(tmp_path, name.rpartition("/")[2], "x").parent)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        list(read_blocks(find_sources(name), "gpt4"))


@pytest.mark.parametrize("kind", [*KINDS, ".txt"])
@pytest.mark.parametrize("compression", COMPRESS)
def test_every_kind_holds_out_the_same_documents_and_learns_the_same_vocabulary(
    kind, compression, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", 2000)
    content = KINDS[kind](STORIES) if kind in KINDS else f"\n{EOT}\n".join(STORIES).encode()
    path = write_text(tmp_path, f"rows{kind}{compression}", COMPRESS[compression](content))
    told = []
    meta = write_token_files(
        tokenizer, find_sources(str(path)), tmp_path / "tokens", val_fraction=0.1, num_threads=2, on_bytes=told.append
    )
    assert meta.documents == {"train": 54, "val": 6} and meta.sources["train"] == [str(path)]
    assert meta.bytes["train"] + meta.bytes["val"] == sum(len(story.encode()) for story in STORIES)
    assert np.load(tmp_path / "tokens" / "val.npy").tolist() == ids_of(tokenizer, STORIES[9::10])
    assert np.load(tmp_path / "tokens" / "train.npy").tolist() == ids_of(
        tokenizer, [story for i, story in enumerate(STORIES) if i % 10 != 9]
    )
    assert sum(told) <= len(path.read_bytes()) and (sum(told) > 0.4 * len(path.read_bytes())) and min(told) >= 0
    assert Tokenizer.train(str(path), 300).sha256 == Tokenizer.train_from_iterator(STORIES, 300).sha256


def test_a_line_in_a_row_that_looks_like_a_separator_is_learned_from_as_a_part_of_its_document(tmp_path):
    texts = [f"aa\r\n{EOT}\r\nbb"] * 9
    path = write_text(tmp_path, "rows.jsonl", KINDS[".jsonl"](texts))
    merges = Tokenizer.train(str(path), 259).merges
    assert merges == Tokenizer.train_from_iterator(texts, 259).merges and (13, 10) in merges


def test_the_vocabulary_that_suits_the_text_goes_by_the_text_and_not_by_the_size_of_the_file(tmp_path):
    texts = ["".join(random.Random(i).choices("abcdefghijklmnop ", k=1000)) for i in range(700)]  # so many bytes give 1,024
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        kind = "." + name.split(".")[1]
        path = write_text(tmp_path, name, COMPRESS[".gz" if name.endswith(".gz") else ""](KINDS[kind](texts)))
        assert Tokenizer.train(str(path), None).vocab_size == 1024


@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
@pytest.mark.parametrize("name", ["book.txt.gz", "book.jsonl", "books.parquet", "book.csv.zst"])
def test_too_few_documents_give_the_end_of_each_file(name, block_bytes, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", block_bytes)
    lines = [f"Line {i} of a book.\n" for i in range(200)]
    texts = ["".join(lines[:50]), "".join(lines[50:])] if name.startswith("books") else ["".join(lines)]
    kind = "." + name.split(".")[1]
    content = KINDS[kind](texts) if kind in KINDS else texts[0].encode()
    path = write_text(tmp_path, name, COMPRESS["." + name.split(".")[2] if name.count(".") > 1 else ""](content))
    meta = write_token_files(tokenizer, find_sources(str(path)), tmp_path / "tokens", val_fraction=0.1)
    train, val = (tokenizer.decode(np.load(tmp_path / "tokens" / f"{split}.npy")) for split in ("train", "val"))
    assert (train + val).replace(EOT, "") == "".join(lines)
    assert train.endswith("\n") and train.startswith(EOT) and val.startswith(EOT)
    assert 0.08 < meta.bytes["val"] / sum(meta.bytes.values()) <= 0.1
    assert meta.documents == {"train": len(texts), "val": 1} and meta.sources["val"] == [str(path)]


def test_a_compressed_book_beside_notes_is_cut_by_the_text_that_is_in_it(tokenizer, tmp_path):
    for i in range(40):
        write_text(tmp_path, f"{i:02}.txt", "A line of a note.\n" * 60)
    book = "".join(write_prose(1, seed=i) for i in range(20))  # one document, an eighth of the text
    path = write_text(tmp_path, "99.txt.gz", gzip.compress(book.encode()))
    assert path.stat().st_size < 0.05 * sum(path.stat().st_size for path in tmp_path.iterdir())
    meta = write_token_files(tokenizer, find_sources(str(tmp_path)), tmp_path / "tokens")
    assert meta.sources["val"] == meta.sources["train"] and 0.02 < meta.bytes["val"] / sum(meta.bytes.values()) < 0.06


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json", "rows.csv.zst", "rows.parquet"])
def test_memory_does_not_grow_with_the_file(name, tmp_path):
    texts = [f"{i} " + "word " * 200 for i in range(20_000)]  # 20 MB
    kind = "." + name.split(".")[1]
    content = KINDS[kind](texts) if kind != ".parquet" else as_parquet(texts)
    path = write_text(tmp_path, name, COMPRESS["." + name.split(".")[2] if name.count(".") > 1 else ""](content))
    for _ in read_blocks(find_sources(str(path)), "gpt4"):  # imports
        break
    tracemalloc.start()
    num_bytes = sum(len(block.text) for block in read_blocks(find_sources(str(path)), "gpt4"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_bytes > 20e6 and peak < 10e6


# ---- datasets of the Hub ----


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """A folder that `datasets` takes for owner/set on the Hub, with two configurations; the real streaming, no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub.load.cache_clear()
    for split, texts in (("train", [*ODD, *STORIES]), ("validation", STORIES[:3])):
        write_text(tmp_path, f"owner/set/data/{split}-00000-of-00001.parquet", as_parquet(texts))
    yield tmp_path / "owner" / "set"
    hub.load.cache_clear()


def test_a_dataset_of_the_hub_gives_a_document_for_each_row(local_hub, tokenizer):
    assert encoded(tokenizer, "hf://owner/set") == ids_of(tokenizer, [*ODD, *STORIES])
    assert encoded(tokenizer, "hf://datasets/owner/set?split=validation") == ids_of(tokenizer, STORIES[:3])
    write_text(local_hub, "own.txt", "own")
    names = ["hf://owner/set?split=validation", str(local_hub / "own.txt")]
    assert encoded(tokenizer, names) == ids_of(tokenizer, [*STORIES[:3], "own"])


def test_a_dataset_of_the_hub_may_hold_prompts_and_answers(local_hub):
    tokenizer, file = Tokenizer([], special_tokens=(EOT, *FRAME_TOKENS)), io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"completion": ["b", "", "d"], "prompt": ["a", "no", EOT]}), file)
    for split in ("train", "validation"):
        write_text(local_hub, f"data/{split}-00000-of-00001.parquet", file.getvalue())
    found = tokenizer.decode(encoded(tokenizer, "hf://owner/set"))
    expected = [f"{EOT}<|user|>{prompt}<|end|><|assistant|>{answer}<|end|>" for prompt, answer in (("a", "b"), (EOT, "d"))]
    assert found == "".join(expected)


def test_a_dataset_of_the_hub_is_held_out_from_like_a_file(local_hub, tokenizer, tmp_path):
    sources = find_sources("hf://owner/set?split=train")
    meta = write_token_files(tokenizer, sources, tmp_path / "tokens", val_fraction=0.1)
    assert meta.documents == {"train": 66, "val": 7} and meta.text == "hf://owner/set"
    assert np.load(tmp_path / "tokens" / "val.npy").tolist() == ids_of(tokenizer, [*ODD, *STORIES][9::10])


CARD = """---
configs:
- config_name: default
  data_files: [{split: train, path: data/train-*}, {split: validation, path: data/validation-*}]
dataset_info:
  features: [{name: id, dtype: int64}, {name: text, dtype: string}]
  splits:
  - {name: train, num_bytes: 12345, num_examples: 73}
  - {name: validation, num_bytes: 678, num_examples: 3}
---
A set.
"""


def test_a_dataset_is_as_large_as_its_card_says(local_hub, tokenizer):
    write_text(local_hub, "README.md", CARD)
    sources = find_sources(["hf://owner/set", "hf://owner/set?split=validation"])
    assert [source.size for source in sources] == [12345, 678]
    assert encoded(tokenizer, "hf://owner/set") == ids_of(tokenizer, [*ODD, *STORIES])


@pytest.mark.parametrize(
    ("query", "text_column", "message"),
    [
        ("?split=test", None, r"hf://owner/set\?split=test cannot be read \(ValueError: Bad split: test.*'train'"),
        ("?config=de", None, r"hf://owner/set\?config=de cannot be read \(.*BuilderConfig 'de' not found"),
        ("", "story", "hf://owner/set: there is no column 'story', only id, text"),
        ("", "id", "hf://owner/set, row 1: id is not text but int"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused_in_one_line(query, text_column, message, local_hub):
    with pytest.raises(UserError, match=message) as refused:
        list(read_blocks(find_sources(f"hf://owner/set{query}", text_column=text_column), "gpt4"))
    assert len(str(refused.value).splitlines()) == 1


def test_without_a_network_a_dataset_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"hf://no/such cannot be read \(.*check its name and the network"):
        list(read_blocks(find_sources("hf://no/such"), "gpt4"))


def test_a_dataset_is_asked_for_by_its_name_config_and_split_and_streamed(monkeypatch, tokenizer):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return datasets.IterableDataset.from_generator(lambda: iter(rows_of(["a", "", None, "b"])))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub.load.cache_clear()
    for address in ("hf://o.x/n-1_2", "hf://o.x/n-1_2?config=20231101.als&split=test"):
        assert encoded(tokenizer, address) == ids_of(tokenizer, ["a", "b"]) == encoded(tokenizer, address)
        assert find_sources(address)[0].size == 0
    hub.load.cache_clear()
    assert asked == [
        (("o.x/n-1_2", None), {"split": "train", "streaming": True}),
        (("o.x/n-1_2", "20231101.als"), {"split": "test", "streaming": True}),
    ]


@pytest.mark.parametrize("address", ["hf://owner/set", "hf://owner/set?config=de", "hf://owner/set?config=de&split=test"])
def test_an_address_is_written_as_it_was_read(address):
    assert str(HubDataset.of(address)) == address


@pytest.mark.parametrize("address", ["hf://", "hf://set", "hf://a/b/c", "hf://a/b?name=c", "hf://a/b?split=", "hf://a/b?x"])
def test_another_form_of_address_is_refused_with_the_right_one(address):
    with pytest.raises(UserError, match=r"expected hf://OWNER/NAME"):
        find_sources(address)

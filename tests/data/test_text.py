"""Text files: which ones a name means, what is in them, and their blocks."""

import bz2
import gzip
import importlib
import json
import lzma
import os
import random
import signal
from pathlib import Path

import pytest
from helpers import write_text

from alilama.common.errors import UserError
from alilama.data.opening import SAMPLE_BYTES, ZSTD, check_text
from alilama.data.text import Source, find_sources, map_blocks, read_blocks


@pytest.fixture
def texts(tmp_path):
    for name in ("b.txt", "a.txt", "deep/er/c.md", ".hidden", "half.txt.part", "empty.txt"):
        write_text(tmp_path / "texts", name, "" if name == "empty.txt" else "some text")
    return tmp_path / "texts"


def names_of(sources):
    return [source.path.name for source in sources]


def test_a_file_that_links_lead_to_is_found_once(tmp_path):
    path = write_text(tmp_path / "texts", "b.txt", "one")
    (tmp_path / "texts" / "a.txt").symlink_to(path)
    (tmp_path / "texts" / "c.txt").hardlink_to(path)
    write_text(tmp_path / "texts", "d.txt", "two")
    assert [source.path.name for source in find_sources(tmp_path / "texts")] == ["a.txt", "d.txt"]
    both = [tmp_path / "texts" / "d.txt", path, tmp_path / "texts" / "a.txt", tmp_path / "texts" / "d.txt"]
    assert [source.path.name for source in find_sources(both)] == ["d.txt", "b.txt"]


def test_files_that_a_drive_does_not_number_are_several(tmp_path, monkeypatch):
    """As on some of Windows, where a program is the drive."""
    for name in ("a.txt", "b.txt", "sub/.hidden"):
        write_text(tmp_path, name, name)
    stat = Path.stat

    def unnumbered(path: Path, **options) -> os.stat_result:
        mode, _, *others = stat(path, **options)
        return os.stat_result([mode, 0, *others])

    monkeypatch.setattr(Path, "stat", unnumbered)
    sources = find_sources([str(tmp_path), str(tmp_path / "b.txt"), str(tmp_path / "sub" / ".." / "a.txt")])
    assert [source.path.name for source in sources] == ["a.txt", "b.txt"]


def test_a_file_is_one_source_of_its_whole_size(texts):
    assert find_sources(str(texts / "a.txt")) == [Source(texts / "a.txt", 0, 9)]


def test_a_folder_gives_all_files_below_in_order_without_hidden_empty_and_unfinished_ones(texts):
    assert names_of(find_sources(str(texts))) == ["a.txt", "b.txt", "c.md"]


def test_files_in_hidden_folders_are_skipped(texts):
    write_text(texts, ".ipynb_checkpoints/copy.txt", "an old copy")
    write_text(texts, ".git/HEAD", "ref")
    assert names_of(find_sources(str(texts))) == ["a.txt", "b.txt", "c.md"]


def test_a_folder_of_texts_may_itself_lie_in_a_hidden_one(tmp_path):
    write_text(tmp_path, ".cache/texts/a.txt", "some text")
    assert names_of(find_sources(str(tmp_path / ".cache" / "texts"))) == ["a.txt"]


def test_a_pattern_gives_what_it_matches_in_order(texts):
    assert names_of(find_sources(str(texts / "*.txt"))) == ["a.txt", "b.txt"]
    assert names_of(find_sources(str(texts / "**" / "*.md"))) == ["c.md"]


def test_several_names_are_read_in_their_order_and_no_file_twice(texts):
    assert names_of(find_sources([str(texts / "b.txt"), str(texts)])) == ["b.txt", "a.txt", "c.md"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write_text(tmp_path, "[a].txt", "x")
    write_text(tmp_path, "a.txt", "x")
    assert names_of(find_sources(str(tmp_path / "[a].txt"))) == ["[a].txt"]


def test_a_hidden_file_that_is_named_is_read(texts):
    assert names_of(find_sources(str(texts / ".hidden"))) == [".hidden"]


@pytest.mark.parametrize("name", ["missing.txt", "*.nothing", "no/such/folder"])
def test_a_name_that_leads_nowhere_is_refused(texts, name):
    with pytest.raises(UserError, match=r"val_files: .*leads to no file"):
        find_sources([str(texts), str(texts / name)], "val_files")


def test_a_folder_without_text_is_refused(tmp_path):
    write_text(tmp_path, "empty/.gitkeep", "")
    with pytest.raises(UserError, match="leads to no file"):
        find_sources(str(tmp_path / "empty"))


def test_empty_files_alone_are_refused(texts):
    with pytest.raises(UserError, match="is empty"):
        find_sources(str(texts / "empty.txt"))


@pytest.mark.parametrize("nothing", [[], ""])
def test_no_name_at_all_is_refused(nothing, texts, monkeypatch):
    monkeypatch.chdir(texts)
    with pytest.raises(UserError, match="data_files"):
        find_sources(nothing)


def test_what_only_reading_shows_the_length_of_has_no_stop(tmp_path):
    for name in ("a.txt", "b.md", "c", "d.txt.gz", "e.JSONL", "f.csv.zst"):
        write_text(tmp_path, name, "some text")
    assert [(source.stop, source.size) for source in find_sources(str(tmp_path), text_column="story")] == [
        *[(9, 9)] * 3,
        *[(None, 9)] * 3,
    ]
    assert {source.column for source in find_sources(str(tmp_path), text_column="story")} == {"story"}


zstd = importlib.import_module(ZSTD)
PROSE = ("Once upon a time, naïve Zoë saw a llama. " * 99).encode()
RUSSIAN = "Жила-была лама, и была она очень добрая. " * 99
NO_TEXT = {
    "a.txt": (gzip.compress(PROSE), r"is a gzip file, not plain text: let its name end in \.gz"),
    "b.txt": (lzma.compress(PROSE), r"is an xz file, .*\.xz"),
    "c.txt": (zstd.compress(PROSE), r"is a zstd file, .*\.zst"),
    "d.txt": (bz2.compress(PROSE), r"is a bzip2 file, .*unpack"),
    "e.txt": (b"PAR1\x15\x04" + bytes(50), r"is a parquet file, .*\.parquet"),
    "f.docx": (b"PK\x03\x04\x14\0" + bytes(50), r"is a ZIP archive, .*unpack it, or save it as plain text"),
    "g.pdf": (b"%PDF-1.7\n" + PROSE, r"is a PDF, .*pdftotext"),
    "h.txt": (b"\x7fELF\x02\x01\x01" + bytes(500) + PROSE[:900], r"is a program, not plain text: take its source"),
    "i.png": (b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(9999), r"is not UTF-8 text.*leave it out"),
    "j.txt": (PROSE.decode().encode("utf-16"), r"is UTF-16 text, .*iconv -f UTF-16 -t UTF-8"),
    "k.txt": (PROSE.decode().encode("utf-16-le"), r"is UTF-16 text"),
    "l.txt": (PROSE.decode().encode("utf-16-be"), r"is UTF-16 text"),
    "m.txt": (PROSE.decode().encode("utf-32"), r"is UTF-32 text"),
    "n.txt": (RUSSIAN.encode("utf-16-le"), r"is UTF-16 text"),
    "n2.txt": (("从前有一只羊驼，它非常善良。" * 99).encode("utf-16-le"), r"is not UTF-8 text"),
    "o.txt": (RUSSIAN.encode("cp1251"), r"is not UTF-8 text.*iconv -f ENCODING"),
    "p.jsonl": (PROSE.decode().encode("utf-16"), r"is UTF-16 text"),
    "q.txt.gz": (gzip.compress(random.Random(2).randbytes(9999)), r"is not UTF-8 text"),
    "r.tar.gz": (gzip.compress(b"a.txt".ljust(257, b"\0") + b"ustar\x0000" + PROSE * 9), r"is a tar archive"),
    "s.npy": (b"\x93NUMPY\x01\0" + random.Random(3).randbytes(9999), r"is a NumPy array, as token files are, not plain text"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_a_file_that_is_no_text_is_refused_in_one_line_with_what_to_do(name, tmp_path):
    content, message = NO_TEXT[name]
    path = write_text(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as refused:
        check_text(path)
    assert str(refused.value).startswith(str(path)) and len(str(refused.value).splitlines()) == 1


TEXT = {
    "prose": (PROSE, 0),
    "a mark": (b"\xef\xbb\xbf" + PROSE, 0),
    "cut in a character": (b"a" + "é".encode() * SAMPLE_BYTES, 0),
    "a NUL": (PROSE + b"\0" + PROSE, 0),
    "NULs far inside": (PROSE * 20 + bytes(9999), 0),
    "emoji": ("🦙🦙".encode() * 99, 0),
    "colours": (b"\x1b[1mbold\x1b[0m\r\n" * 99, 0),
    "Latin-1": ("a naïve man in the café\n".encode("latin-1") * 9, 2 / 24),
    "one letter": (b"x", 0),
}


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("name", TEXT)
def test_text_is_text_with_an_odd_byte_too(name, compression, tmp_path):
    content, share = TEXT[name]
    path = write_text(tmp_path, f"text{compression}", gzip.compress(content) if compression else content)
    assert check_text(path) == pytest.approx(share)


def test_read_blocks_reads_no_more_than_a_source_says(tmp_path):
    path = write_text(tmp_path, "text", "0123456789")
    assert [block.text for block in read_blocks([Source(path, 2, 5), Source(path, 8, 10)], "gpt4")] == [b"234", b"89"]


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_endless_loop(tmp_path):
    path = write_text(tmp_path, "text", "0123456789")

    def too_long(number, frame):
        raise AssertionError("still reading after 2 s")

    handler = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(UserError):
            list(read_blocks([Source(path, 0, 20)], "gpt4"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_map_blocks_keeps_the_order_passes_on_errors_and_reads_only_a_few_blocks_ahead():
    read = []

    def blocks():
        for i in range(100):
            read.append(i)
            yield i

    squares = map_blocks(lambda i: i * i, blocks(), 3)
    assert [next(squares) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(read) <= 9
    assert list(squares) == [i * i for i in range(5, 100)]

    def fails(i):
        raise MemoryError

    with pytest.raises(MemoryError):
        list(map_blocks(fails, range(10), 2))


def test_text_without_a_place_to_cut_is_cut_with_a_warning_and_loses_nothing(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", 100)
    monkeypatch.setattr("alilama.data.text.MAX_UNCUT_BYTES", 1000)
    path = write_text(tmp_path, "line.txt", "ab" * 3000)
    with pytest.warns(UserWarning, match="without a place to cut"):
        blocks = list(read_blocks([Source(path, 0, 6000)], "gpt4"))
    assert b"".join(block.text for block in blocks) == b"ab" * 3000
    assert max(len(block.text) for block in blocks) < 4000 and [block.continues for block in blocks][:2] == [False, True]


@pytest.mark.parametrize("number", [0, -1])
def test_fewer_than_one_thread_is_refused(number, tokenizer):
    with pytest.raises(UserError, match=f"num_threads = {number}"):
        tokenizer.encode_batch(["a"], num_threads=number)


def test_blocks_of_rows_are_all_texts_or_all_conversations_and_none_holds_much_more_than_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr("alilama.data.text.BLOCK_BYTES", 2000)
    rng, rows, expected = random.Random(1), [], []
    for _ in range(300):
        said = [rng.choice(["", "a", "naïve 🦙 " * 40]) for _ in range(rng.randint(0, 4))]
        roles = [rng.choice(["system", "user"]) for _ in said]
        messages = [*zip(roles, said, strict=True), ("assistant", "b")]
        is_text = len(rows) % 50 < 20
        row = {"text": "c"} if is_text else {"messages": [{"role": role, "content": text} for role, text in messages]}
        rows.append(json.dumps(row))
        expected.append("c" if is_text else messages)
    path = write_text(tmp_path, "rows.jsonl", "\n".join(rows))
    blocks, found = list(read_blocks(find_sources(str(path)), "gpt4")), []
    for block in blocks:
        if block.conversations is None:
            found += [document.decode() for document in block.documents()]
            continue
        found += [[(role, content.decode()) for role, content in each] for each in block.conversations]
        texts = ["".join(text for _, text in messages).encode() for messages in found[-len(block.conversations) :]]
        assert block.documents() == texts and block.text == b"".join(texts) and not block.continues
        assert len(block.text) < 4000 and sum(map(len, block.conversations)) < 50  # those without text count too
    assert found == expected and len(blocks) > 30 and 0 < sum(block.size for block in blocks) <= path.stat().st_size

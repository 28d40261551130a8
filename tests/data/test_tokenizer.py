"""The tokenizer against a naive BPE, the `regex` package, rustbpe, tiktoken, tokenizers and transformers."""

import copy
import itertools
import json
import os
import pickle
import random
import re
import string
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import regex
import rustbpe
import tiktoken
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import (
    PATTERN_STRINGS,
    SEPARATOR,
    WHOLE,
    examples,
    mixed_bytes,
    mixed_text,
    naive_documents,
    naive_encode,
    naive_merges,
    naive_stretches,
)

import alilama.data.text
import alilama.data.tokenizer
from alilama.data.tokenizer import Tokenizer

EOT = "<|endoftext|>"
LETTERS_AND_REST = r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"  # a pattern that is not native and leaves no gaps
WITH_GAPS = r"[a-z]+(?= )|\d\d"
NATIVE = sorted(PATTERN_STRINGS)
PATTERNS = [*NATIVE, LETTERS_AND_REST, WITH_GAPS, WHOLE]
TEXT = mixed_text(seed=1, num_words=20_000)
SPECIAL_TOKENS = (EOT, "<|user|>", "<|user|>!", "[PAD]", "den grå ulv", "€")


def refused(call, *words) -> str:
    """Asserts that a call is refused in one line that holds the words, and returns the line."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message and len(message) < 1000
    for word in words:
        assert str(word) in message
    return message


def train_fully(train, special_tokens=(EOT,)) -> Tokenizer:
    """Learns every merge that there is: a vocab_size that is too large is refused with the largest possible one."""
    message = refused(lambda: train(vocab_size=10**6, special_tokens=special_tokens), 10**6)
    return train(vocab_size=int(re.findall(r"\d+", message)[-1]), special_tokens=special_tokens)


def train_texts(texts, pattern="gpt4", **more):
    return lambda **kwargs: Tokenizer.train_from_iterator(texts, pattern=pattern, **more, **kwargs)


def train_files(files, pattern="gpt4", **more):
    return lambda **kwargs: Tokenizer.train(files, pattern=pattern, **more, **kwargs)


def cut(pattern: str, text: bytes) -> list[bytes]:
    """The pieces of a text by the `regex` package, gaps included."""
    string, pieces, start = text.decode("utf-8", "surrogateescape"), [], 0
    for match in regex.finditer(PATTERN_STRINGS.get(pattern, pattern), string):
        pieces += [string[start : match.start()], match[0]]
        start = match.end()
    return [piece.encode("utf-8", "surrogateescape") for piece in [*pieces, string[start:]] if piece]


def tiktoken_of(tok: Tokenizer, pattern: str) -> tiktoken.Encoding:
    """A tiktoken.Encoding built from nothing but the tokenizer's bytes."""
    ranks = {tok.token_bytes(i): i for i in range(256 + len(tok.merges))}
    return tiktoken.Encoding(
        "test", pat_str=PATTERN_STRINGS.get(pattern, pattern), mergeable_ranks=ranks, special_tokens=tok.special_tokens
    )


@pytest.fixture(scope="module", params=[*NATIVE, LETTERS_AND_REST])
def tok(request) -> Tokenizer:
    return Tokenizer.train_from_iterator([TEXT], 1500, pattern=request.param)


@pytest.fixture(scope="module")
def special() -> Tokenizer:
    return Tokenizer.train_from_iterator([TEXT], 400, special_tokens=SPECIAL_TOKENS)


# ---- learning merges ----


def test_most_frequent_pair_is_merged_first_and_ties_go_to_the_smaller_pair():
    tok = Tokenizer.train_from_iterator(["ab ab cd cd ef ef gh"], 260, pattern=r"\S+| ")
    assert tok.merges == [(97, 98), (99, 100), (101, 102)]  # twice each, in the order of their bytes
    tok = Tokenizer.train_from_iterator(["ba zz zz zz ab"], 260, pattern=r"\S+| ")
    assert tok.merges == [(122, 122), (97, 98), (98, 97)]
    tok = Tokenizer.train_from_iterator(["xb yb xa za"], 260, pattern=r"\S+| ")
    assert tok.merges == [(120, 97), (120, 98), (121, 98)]


@pytest.mark.parametrize("text", [*("a" * size for size in range(2, 20)), "aaabaaab", "abababa" * 3, "aabaab", "abcabcbcabc"])
def test_overlapping_pairs_count_as_they_stand_as_in_rustbpe(text):
    other = rustbpe.Tokenizer()
    other.train_from_iterator([text], 300, pattern=WHOLE)
    expected = [bytes(token) for token, _ in other.get_mergeable_ranks()][256:]
    tok = train_fully(train_texts([text], WHOLE))
    assert tok.merges == naive_merges([text.encode()], 300)
    assert [tok.token_bytes(256 + i) for i in range(len(tok.merges))] == expected


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
@examples(120)
@given(texts=st.lists(st.text("abc ", max_size=24), min_size=1, max_size=8))
def test_all_merges_are_those_of_a_naive_bpe(pattern, texts):
    pieces = [piece for text in texts for piece in cut(pattern, text.encode())]
    assert train_fully(train_texts(texts, pattern)).merges == naive_merges(pieces, 1000)


@examples(100)
@given(texts=st.lists(st.text(max_size=30), max_size=6), number=st.integers(0, 30))
def test_merges_are_those_of_a_naive_bpe_on_any_text(texts, number):
    expected = naive_merges([piece for text in texts for piece in cut("gpt4", text.encode())], number)
    if len(expected) < number:
        refused(lambda: Tokenizer.train_from_iterator(texts, 257 + number), 257 + number, 257 + len(expected))
    else:
        assert Tokenizer.train_from_iterator(texts, 257 + number).merges == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_are_those_of_a_naive_bpe_on_prose(pattern):
    text = mixed_text(seed=5, num_words=600)
    tok = Tokenizer.train_from_iterator([text], 257 + 250, pattern=pattern)
    assert tok.merges == naive_merges(cut(pattern, text.encode()), 250)


@pytest.mark.parametrize("name", NATIVE)
def test_tokens_are_those_that_rustbpe_learns(name):
    texts = [mixed_text(seed, num_words=10_000) for seed in (6, 7, 8)]
    other = rustbpe.Tokenizer()
    other.train_from_iterator(texts, 256 + 1800, pattern=PATTERN_STRINGS[name])
    expected = [bytes(token) for token, _ in other.get_mergeable_ranks()]
    tok = Tokenizer.train_from_iterator(texts, 257 + 1800, pattern=name)
    assert [tok.token_bytes(i) for i in range(256 + 1800)] == expected


def test_many_distinct_pieces_of_every_length_are_all_counted():
    rng = random.Random(9)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(1, 40))) for _ in range(30_000)]
    other = rustbpe.Tokenizer()
    other.train_from_iterator([" ".join(words)], 256 + 500, pattern=PATTERN_STRINGS["gpt4"])
    tok = Tokenizer.train_from_iterator([" ".join(words)], 257 + 500)
    assert [tok.token_bytes(i) for i in range(756)] == [bytes(token) for token, _ in other.get_mergeable_ranks()]


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("pattern", ["gpt4", LETTERS_AND_REST])
def test_training_does_not_depend_on_the_number_of_threads(pattern, num_threads, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(f"\n{EOT}\n".join(mixed_text(seed, 300) for seed in range(40)).encode())
    whole = Tokenizer.train([str(path)], 900, pattern=pattern, num_threads=1)
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", 1500)
    assert Tokenizer.train([str(path)], 900, pattern=pattern, num_threads=num_threads).merges == whole.merges
    texts = [mixed_text(seed, 300) for seed in range(40)]
    assert Tokenizer.train_from_iterator(texts, 900, pattern=pattern, num_threads=num_threads).merges == whole.merges


TROUBLE = [
    "a",
    "b",
    "é",
    "日",
    "1",
    "٣",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\r",
    "\xa0",
    "\u2028",
    "!",
    "'s",
    "'",
    "—",
    "🙂",
    "\u0301",
    "ab a",
]
SEPARATING = ["\n<|endoftext|>\n", "<|endoftext|>", "<|endoftext|>\r\n", "<|end", "oftext|>"]


@pytest.mark.parametrize("pattern", [*NATIVE, LETTERS_AND_REST])
@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(TROUBLE + SEPARATING), min_size=1, max_size=60),
    block_bytes=st.integers(1, 64),
    broken=st.binary(max_size=3),
)
def test_training_does_not_depend_on_how_files_are_cut_into_blocks(pattern, parts, block_bytes, broken, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    data = "".join(parts).encode()
    path.write_bytes(data[: len(data) // 2] + broken + data[len(data) // 2 :])
    whole = train_fully(train_files(str(path), pattern))
    with monkeypatch.context() as patch:
        patch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
        assert train_fully(train_files(str(path), pattern)).merges == whole.merges


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
def test_a_block_may_end_inside_a_separator_or_what_looks_like_one(pattern, tmp_path, monkeypatch):
    data = (
        b"!!\n<|endoftext|>??\n\n<|endoftext|>\r\n::\r\n<|endoftext|>\r;;\n<|endoftext|> ,,\n<|endoftext|>\n\n--\n<|endoftext|>"
    )
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    documents = [stretch for document in naive_documents(data) for stretch in document.split(SEPARATOR)]
    expected = naive_merges([piece for document in documents for piece in cut(pattern, document)], 100)
    for block_bytes in range(1, len(data) + 1):
        monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
        assert Tokenizer.train(str(path), 257 + len(expected), pattern=pattern, num_threads=1).merges == expected


@pytest.mark.parametrize("block_bytes", [8, 16, 17, 33, 64, 100])
@pytest.mark.parametrize("token", ["<|user|>", "day and night", "été", "日本", "a b", "1 ", "x—y"])
def test_special_tokens_are_never_cut_by_a_block(token, block_bytes, tmp_path, monkeypatch):
    rng = random.Random(10)
    words = ["so", "it", "day", "and", "night", token, token, "ete", "x", "1", "a"]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(rng.choices(words, k=300)), encoding="utf-8")
    whole = train_fully(train_files(str(path)), (EOT, token))
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
    assert train_fully(train_files(str(path)), (EOT, token)).merges == whole.merges


def test_a_very_long_piece_or_line_can_be_learned_from(tmp_path):
    for text in ("a" * 1_000_000, "ab" * 500_000, " " * 1_000_000, "\n " * 500_000, "1" * 1_000_000, "é!" * 300_000):
        path = tmp_path / "text.txt"
        path.write_text(text, encoding="utf-8", newline="")
        assert Tokenizer.train(str(path), 257 + 2).merges == naive_merges(cut("gpt4", text[:1200].encode()), 2)
    whole = Tokenizer.train_from_iterator(["a" * 1_000_000], 257 + 6)
    assert [len(whole.token_bytes(256 + i)) for i in range(6)] == [2, 4, 8, 16, 32, 64]


# ---- documents and special tokens in the text that is learned from ----


@pytest.mark.parametrize(
    "data, documents",
    [
        (b"!\n<|endoftext|>\n?", [b"!", b"?"]),
        (b"!\r\n<|endoftext|>\r\n?", [b"!", b"?"]),
        (b"!!\n\n<|endoftext|>\n\n??", [b"!!\n", b"\n??"]),
        (b"!!\r\n\r\n<|endoftext|>\r\n\r\n??", [b"!!\r\n", b"\r\n??"]),
        (b"<|endoftext|>\n!!\n\n", [b"!!\n\n"]),
        (b"<|endoftext|>\r\n!!\n", [b"!!\n"]),
        (b"!!\n<|endoftext|>", [b"!!"]),
        (b"!!\r\n<|endoftext|>\r\n", [b"!!"]),
        (b"!!\n<|endoftext|>\n<|endoftext|>\n??\n", [b"!!", b"??\n"]),
        (b"!!\n<|endoftext|>\n\n<|endoftext|>\n??", [b"!!", b"??"]),
        (b"!!\n<|endoftext|>\n\n\n<|endoftext|>\n??", [b"!!", b"\n", b"??"]),
        (b"!! <|endoftext|>\n??", [b"!! ", b"\n??"]),  # not a line of its own: a special token, which cuts and no more
        (b"!!\n <|endoftext|>\n??", [b"!!\n ", b"\n??"]),
        (b"!!\n<|endoftext|> \n??", [b"!!\n", b" \n??"]),
        (b"!!\n<|endoftext|>\r??", [b"!!\n", b"\r??"]),
        (b"!!\r<|endoftext|>\n??", [b"!!\r", b"\n??"]),
        (b"!!\n<|endoftext|><|endoftext|>\n??", [b"!!\n", b"\n??"]),
        (b"!!\n<|endoftext|>\r\r\n??", [b"!!\n", b"\r\r\n??"]),
        (b"!!\n<|endoftext|", [b"!!\n<|endoftext|"]),
        (b"!!\n\xff<|endoftext|>\n??", [b"!!\n\xff", b"\n??"]),
    ],
)
@pytest.mark.parametrize("pattern", [*NATIVE, WHOLE])
def test_documents_are_cut_at_separator_lines_and_at_special_tokens(data, documents, pattern, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    pieces = [piece for document in documents for piece in cut(pattern, document)]
    assert train_fully(train_files(str(path), pattern)).merges == naive_merges(pieces, 100)


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
@settings(examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(["!", "!?", "\n", "\r\n", "\r", " ", "x", EOT, EOT, EOT + "\n", "\n" + EOT]), min_size=1, max_size=12
    )
)
def test_learning_from_a_file_is_learning_from_its_documents(pattern, parts, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("".join(parts).encode())
    documents = naive_documents(path.read_bytes())
    pieces = [piece for document in documents for stretch in document.split(SEPARATOR) for piece in cut(pattern, stretch)]
    tok = train_fully(train_files(str(path), pattern))
    assert tok.merges == naive_merges(pieces, 1000)
    assert tok.merges == train_fully(train_texts([document.decode() for document in documents], pattern)).merges


def test_files_are_documents_too(tmp_path):
    texts = [mixed_text(seed, 200) for seed in (11, 12, 13)] + ["!!", "??", "\n\n"]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_bytes(text.encode())
    (tmp_path / "empty.txt").touch()
    expected = train_fully(train_texts(texts)).merges
    files = [str(tmp_path / f"{i}.txt") for i in range(len(texts))]
    assert train_fully(train_files(files)).merges == expected
    assert train_fully(train_files(files[::-1])).merges == expected
    assert train_fully(train_files(str(tmp_path))).merges == expected
    assert train_fully(train_files([str(tmp_path / "*.txt")])).merges == expected
    joined = tmp_path / "joined"
    joined.write_bytes(f"\n{EOT}\n".join(texts).encode())
    assert train_fully(train_files(str(joined))).merges == expected


@pytest.mark.parametrize("pattern", [*NATIVE, LETTERS_AND_REST])
@examples(80)
@given(parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|user", "user", "|>", "!", " ", "den grå", "PAD"]), max_size=20))
def test_special_tokens_cut_the_text_and_are_never_counted(pattern, parts):
    text = "".join(parts)
    pieces = [piece for stretch in naive_stretches(text, SPECIAL_TOKENS) for piece in cut(pattern, stretch.encode())]
    tok = train_fully(train_texts([text], pattern), SPECIAL_TOKENS)
    assert tok.merges == naive_merges(pieces, 1000)


def test_nothing_is_learned_from_special_tokens_alone():
    text = (EOT + "\n" + EOT + "<|user|>" + "<|user|>!") * 1000
    refused(lambda: Tokenizer.train_from_iterator([text], 257 + 3, special_tokens=(EOT, "<|user|>", "<|user|>!")), 259)


@pytest.mark.parametrize("vocab_size", [-1, 0, 1, 255, 256, 257, 258])
def test_a_vocab_size_too_small_for_bytes_and_special_tokens_is_refused(vocab_size):
    refused(lambda: Tokenizer.train_from_iterator([TEXT], vocab_size, special_tokens=(EOT, "a", "b")), vocab_size, 259)


@pytest.mark.parametrize("vocab_size", [257 + 4, 1000, 10**9, 10**30])
def test_a_vocab_size_above_what_the_text_can_give_is_refused(vocab_size):
    refused(lambda: Tokenizer.train_from_iterator(["abcd"], vocab_size), vocab_size, 257 + 3)


def test_a_vocab_of_bytes_alone_needs_no_text():
    assert Tokenizer.train_from_iterator([], 257).merges == []
    assert Tokenizer.train_from_iterator(iter(["", "a"]), 257).merges == []
    refused(lambda: Tokenizer.train_from_iterator([], 258), 258, 257)


def test_files_that_are_missing_or_empty_are_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    refused(lambda: Tokenizer.train(str(tmp_path / "none.txt"), 300), "none.txt")
    refused(lambda: Tokenizer.train(str(tmp_path / "empty.txt"), 300), "empty.txt")


@pytest.mark.parametrize("tokens", [(), ("<|user|>",), (EOT, ""), (EOT, "a", "a"), (EOT, EOT)])
def test_special_tokens_that_are_empty_doubled_or_lack_the_end_of_text_are_refused(tokens):
    refused(lambda: Tokenizer.train_from_iterator(["abab"], 260, special_tokens=tokens), "special")
    refused(lambda: Tokenizer([], special_tokens=tokens), "special")


@pytest.mark.parametrize("pattern", ["(", "[a", r"\p{Nonsense}", "a{3,1}", "*", r"(?<x>a"])
def test_a_pattern_that_is_no_regular_expression_is_refused(pattern):
    refused(lambda: Tokenizer.train_from_iterator(["abab"], 258, pattern=pattern), pattern)
    refused(lambda: Tokenizer([], pattern=pattern), pattern)


@pytest.mark.parametrize("merges", [[(256, 97)], [(97, 256)], [(97, 98), (258, 97)], [(97, 98), (97, 98)]])
def test_merges_of_ids_not_yet_made_or_made_twice_are_refused(merges):
    refused(lambda: Tokenizer(merges))


# ---- what the ids are ----


def test_ids_are_the_bytes_then_the_merges_then_the_special_tokens(special):
    assert [special.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    for i, (left, right) in enumerate(special.merges):
        assert special.token_bytes(256 + i) == special.token_bytes(left) + special.token_bytes(right)
    first = 256 + len(special.merges)
    assert special.special_tokens == {token: first + i for i, token in enumerate(SPECIAL_TOKENS)}
    assert [special.token_bytes(first + i) for i in range(6)] == [token.encode() for token in SPECIAL_TOKENS]
    assert special.eot_id == special.special_tokens[EOT] == first
    assert special.vocab_size == first + 6 == 400


# ---- encoding ----


@examples(300)
@given(text=st.text("abc ", max_size=200), seen=st.text("abc ", min_size=30, max_size=60))
def test_encoding_is_that_of_a_naive_bpe(text, seen):
    number = len(naive_merges(cut("gpt4", seen.encode()), 20))
    tok = Tokenizer.train_from_iterator([seen], 257 + number)
    assert tok.encode(text) == [id for piece in cut("gpt4", text.encode()) for id in naive_encode(tok.merges, piece)]


@pytest.mark.parametrize("size", [*range(1, 40), 62, 63, 64, 65, 66, 67, 90, 127, 128, 129, 200, 255, 256, 257, 600, 1500])
def test_pieces_of_every_length_are_merged_lowest_rank_first_and_leftmost(size):
    rng = random.Random(size)
    for alphabet, number in (("a", 6), ("ab", 12), ("abc", 40)):
        tok = Tokenizer.train_from_iterator(["".join(random.Random(3).choices(alphabet, k=900))], 257 + number, pattern=WHOLE)
        for pattern in (*NATIVE, WHOLE):
            same = Tokenizer(tok.merges, pattern=pattern)
            for _ in range(1 if size > 100 else 3):
                text = "".join(rng.choices(alphabet, k=size))
                assert same.encode(text) == naive_encode(tok.merges, text.encode())


def test_encoding_is_that_of_tiktoken_and_of_tokenizers(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    hugging_face = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [
        TEXT,
        mixed_text(seed=14, num_words=5000),
        mixed_bytes(seed=15, size=50_000).decode("utf-8", "replace"),
        "",
        " ",
        "a",
        "".join(map(chr, range(0x20, 0x250))),
        "'S'ſ'LL'll'Ve'VE'rE'sx'",
        string.printable * 3,
        "\U0010ffff\ue000\x00\x7f",
    ]
    for text in texts:
        ids = tok.encode(text)
        assert ids == tiktoken_of(tok, tok.pattern).encode(text)
        assert ids == tok.to_tiktoken().encode(text)
        assert ids == hugging_face.encode(text).ids
        assert tok.decode(ids) == text == hugging_face.decode(ids)


@examples(300)
@given(parts=st.lists(st.sampled_from(TROUBLE) | st.text(st.characters(max_codepoint=0x24F), max_size=3), max_size=30))
def test_encoding_of_troublesome_text_is_that_of_tiktoken(parts):
    for tok, other in troubled():
        assert tok.encode("".join(parts)) == other.encode("".join(parts))


@cache
def troubled() -> list[tuple[Tokenizer, tiktoken.Encoding]]:
    trained = [Tokenizer.train_from_iterator([TEXT, "".join(TROUBLE * 5)], 800, pattern=name) for name in NATIVE]
    return [(tok, tiktoken_of(tok, tok.pattern)) for tok in trained]


def test_many_distinct_pieces_cannot_be_taken_for_one_another(tok):
    rng = random.Random(16)
    words = ["".join(rng.choices("etaoinsh", k=rng.randrange(1, 19))) for _ in range(40_000)]
    words += ["thathas" + "".join(rng.choices(string.ascii_lowercase, k=3)) for _ in range(20_000)]  # alike in 8 bytes
    text = " ".join(words + words[:20_000] + rng.sample(words, 20_000))
    expected = tiktoken_of(tok, tok.pattern).encode(text)
    assert tok.encode(text) == expected
    assert tok.encode(text) == expected  # again, now that what was met first is known


def test_encoding_does_not_read_past_the_end_of_the_text_nor_remember_it(tok):
    text = mixed_text(seed=17, num_words=30)
    other = tiktoken_of(tok, tok.pattern)
    for stop in range(len(text) + 1):
        assert tok.encode(text[:stop]) == other.encode(text[:stop])
        assert tok.encode(text[stop:]) == other.encode(text[stop:])
        assert tok.encode(text[stop : stop + 9]) == other.encode(text[stop : stop + 9])


def test_pieces_with_zero_bytes_are_not_taken_for_shorter_ones():
    tok = Tokenizer.train_from_iterator(["\0\0\0\0 a\0 a \0\0 ab\0"] * 3, 257 + 5, pattern="gpt2")
    other = tiktoken_of(tok, "gpt2")
    for chars in itertools.product("\0a ", repeat=6):
        text = "".join(chars)
        assert tok.encode(text) == other.encode(text)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "!", "é", "🙂", "'", "ab", " \n", "a ", "\0"])
def test_long_runs_are_encoded_in_bounded_time(unit, tok):
    text = unit * (1_000_000 // len(unit))
    assert tok.decode(ids := tok.encode(text)) == text
    assert len(ids) <= len(text.encode())


def test_a_million_letters_are_the_longest_token_again_and_again():
    tok = Tokenizer.train_from_iterator(["a" * 64], 257 + 6)
    for text in ("a" * 1_000_000, "a" * 1_000_000 + " " + "a" * 64):
        assert tok.encode(text)[:15_625] == [261] * 15_625
    assert tok.encode("a" * (64 * 9 + 63)) == [261] * 9 + [260, 259, 258, 257, 256, 97]


@examples(400)
@given(text=st.text(max_size=80))
def test_any_text_comes_back_as_it_was(text):
    for tok, _ in troubled():
        assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "\ud83d\ude42", "\udc80\udcff", "x\ud83d y", "\ufeff", "\ufeff\ud800"])
def test_surrogates_are_joined_or_replaced_as_in_tiktoken(text, tok):
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert tok.encode(text) == tiktoken_of(tok, tok.pattern).encode(text) == tok.encode(expected)
    assert tok.decode(tok.encode(text)) == expected
    assert tok.encode_to_numpy(text).tolist() == tok.encode(text)


def test_encode_batch_is_encode_one_by_one(tok):
    texts = [mixed_text(seed, num_words=seed * 7 % 90) for seed in range(200)] + ["", "a", TEXT]
    expected = [tok.encode(text) for text in texts]
    assert tok.encode_batch(texts) == expected
    for num_threads in (1, 2, 3, 8):
        assert tok.encode_batch(texts, num_threads=num_threads) == expected
        assert tok.encode_batch(iter(texts), num_threads=num_threads) == expected
    assert tok.encode_batch([]) == []
    refused(lambda: tok.encode_batch(["a", f"b{EOT}", "c"]), EOT)


def test_threads_can_share_a_tokenizer(tok):
    texts = [mixed_text(seed, num_words=2000) for seed in range(20, 28)]
    expected = [tok.encode(text) for text in texts]
    fresh = Tokenizer(tok.merges, pattern=tok.pattern)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(fresh.encode, texts)) == expected


def test_encode_to_numpy_is_encode_ordinary(tok):
    for text in (TEXT, "", "a", f"a{EOT}b", "🙂 'll"):
        ids = tok.encode_to_numpy(text)
        assert isinstance(ids, np.ndarray) and ids.dtype == np.uint16 and ids.ndim == 1
        assert ids.tolist() == tok.encode_ordinary(text) == tok.encode(text, disallowed_special=())


@pytest.mark.parametrize("vocab_size, dtype", [(65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (65_793, "uint32")])
@pytest.mark.parametrize("pattern", [*NATIVE, WHOLE])
def test_ids_are_16_bits_up_to_65536_tokens_and_32_above(vocab_size, dtype, pattern):
    merges = sorted(itertools.product(range(256), repeat=2), key=lambda pair: pair == (122, 122))  # "zz" last
    merges = [*merges[: vocab_size - 258], (122, 122)]
    tok = Tokenizer(merges, pattern=pattern)
    assert tok.vocab_size == vocab_size
    ids = tok.encode_to_numpy("zz zzzz")
    assert ids.dtype == dtype and ids.tolist() == tok.encode("zz zzzz") and ids[0] == vocab_size - 2
    assert tok.decode(ids) == "zz zzzz"


# ---- special tokens ----


# Without "<|user|>!": which of two tokens that begin together is taken is by chance in tiktoken.
APART = [token for token in SPECIAL_TOKENS if token != "<|user|>!"]


@pytest.mark.parametrize("pattern", ["gpt4", LETTERS_AND_REST])
@examples(300)
@given(
    parts=st.lists(st.sampled_from([*APART, "<|user", "|>", "a", " ", "den grå"]), max_size=8),
    allowed=st.sets(st.sampled_from(APART)) | st.sampled_from(["all", ("<|user|>",), {"a", EOT}]),
    disallowed=st.sets(st.sampled_from(APART)) | st.sampled_from(["all", (), {"a"}, ["|>"]]),
)
def test_allowed_and_disallowed_special_tokens_mean_what_they_mean_in_tiktoken(pattern, parts, allowed, disallowed):
    tok, other = set_apart(pattern)
    text = "".join(parts)
    try:
        allowed_set = allowed if allowed == "all" else set(allowed)  # tiktoken takes no tuple here
        expected = other.encode(text, allowed_special=allowed_set, disallowed_special=disallowed)
    except ValueError:
        refused(lambda: tok.encode(text, allowed_special=allowed, disallowed_special=disallowed))
        return
    assert tok.encode(text, allowed_special=allowed, disallowed_special=disallowed) == expected


@cache
def set_apart(pattern: str) -> tuple[Tokenizer, tiktoken.Encoding]:
    tok = Tokenizer([(97, 32), (60, 124)], special_tokens=APART, pattern=pattern)
    return tok, tiktoken_of(tok, pattern)


def test_a_special_token_in_the_text_is_an_error_that_offers_the_remedies(special):
    refused(lambda: special.encode(f"hello {EOT} there"), EOT, "allowed_special", "disallowed_special")
    refused(lambda: special.encode("a<|user|>", allowed_special={EOT}), "<|user|>")
    refused(lambda: special.encode("a<|user|>!b"), "<|user|>!")
    refused(lambda: special.encode("say please", disallowed_special={"please"}), "please")
    refused(lambda: special.encode(EOT, allowed_special="all", disallowed_special={EOT}), EOT)
    assert special.encode("a<|user|>", disallowed_special={EOT}) == special.encode_ordinary("a<|user|>")
    assert special.encode("<|other|>") == special.encode_ordinary("<|other|>")


def test_a_document_begins_with_end_of_text_and_holds_no_special_token(special):
    assert special.encode_document("a cat") == [special.eot_id, *special.encode_ordinary("a cat")]
    assert special.encode_document("") == [special.eot_id]
    refused(lambda: special.encode_document("a<|user|>"), "'<|user|>' at character 1", "leave it out")


def test_the_longest_special_token_is_taken_where_several_begin_together(special):
    ids = special.special_tokens
    assert special.encode("<|user|>!<|user|>?", allowed_special="all") == [ids["<|user|>!"], ids["<|user|>"], ord("?")]
    for order in itertools.permutations(["<", "<|", "<|a", "<|ab|>"]):
        tok = Tokenizer([], special_tokens=[EOT, *order])
        names = {id: token for token, id in tok.special_tokens.items()}
        found = tok.encode("<|ab|><|a<|<x<|ab", allowed_special="all")
        assert [names.get(id, id) for id in found] == ["<|ab|>", "<|a", "<|", "<", ord("x"), "<|a", ord("b")]
        assert tok.encode("<|ab|>", allowed_special={"<", "<|"}, disallowed_special=())[0] == tok.special_tokens["<|"]


def test_special_tokens_cut_the_text_around_them():
    tok = Tokenizer.train_from_iterator(["ab ab ab"], 260, pattern=WHOLE)
    whole = tok.encode("abab")
    assert tok.encode(f"abab{EOT}abab", allowed_special="all") == [*whole, tok.eot_id, *whole]
    assert tok.encode(EOT * 3, allowed_special={EOT}) == [tok.eot_id] * 3
    assert tok.encode(f" {EOT} ", allowed_special="all") == [32, tok.eot_id, 32]


def test_ordinary_text_never_becomes_a_special_token(special, tmp_path):
    special.save(tmp_path / "tokenizer.json")
    for tok in (special, Tokenizer.load(tmp_path / "tokenizer.json")):
        first = 256 + len(tok.merges)
        for text in (*SPECIAL_TOKENS, "".join(SPECIAL_TOKENS), f"a {EOT}", "<|<|endoftext|>|>"):
            for ids in (tok.encode_ordinary(text), tok.encode(text, disallowed_special=()), tok.encode_to_numpy(text).tolist()):
                assert max(ids) < first and tok.decode(ids) == text


def test_special_tokens_mean_the_same_to_tokenizers(special, tmp_path):
    special.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rng = random.Random(18)
    for _ in range(300):
        text = "".join(rng.choices([*SPECIAL_TOKENS, "a", " ", "user", "<|", "!", "😀", "\n"], k=8))
        ids = special.encode(text, allowed_special="all")
        assert other.encode(text).ids == ids
        assert other.decode(ids, skip_special_tokens=False) == text == special.decode(ids)


# ---- decoding ----


@examples(300)
@given(data=st.binary(max_size=100))
def test_any_bytes_can_be_written_as_ids_and_come_back(data):
    tok = troubled()[0][0]
    assert tok.decode_bytes(list(data)) == data
    assert tok.decode(list(data)) == data.decode("utf-8", "replace")
    ids = tok.encode(data.decode("utf-8", "replace"))
    assert tok.decode_bytes(ids) == data.decode("utf-8", "replace").encode()
    assert tok.decode_bytes(ids) == b"".join(map(tok.token_bytes, ids))


def test_every_id_decodes_to_its_bytes(special):
    ids = list(range(special.vocab_size))
    random.Random(19).shuffle(ids)
    assert special.decode_bytes(ids) == b"".join(map(special.token_bytes, ids))
    assert special.decode_bytes([]) == b"" and special.decode([]) == ""


def test_decode_takes_lists_tuples_and_arrays(tok):
    ids = tok.encode("Once upon a time, the naïve 🙂")
    for same in (ids, tuple(ids), *(np.array(ids, dtype) for dtype in (np.uint16, np.uint32, np.int32, np.int64, np.uint64))):
        assert tok.decode(same) == "Once upon a time, the naïve 🙂"
        assert tok.decode_bytes(same) == "Once upon a time, the naïve 🙂".encode()
    assert tok.decode(np.repeat(ids, 2).astype(np.uint16)[::2]) == "Once upon a time, the naïve 🙂"
    assert tok.decode(np.array([], dtype=np.uint16)) == ""


def test_errors_says_what_becomes_of_bytes_that_are_no_text():
    tok = Tokenizer([])
    ids = [*b"a", 0xFF, *"é".encode()[:1], *b"b", 0xE2, 0x82]
    assert tok.decode(ids) == tok.decode(ids, "replace") == tok.decode(ids, errors="replace") == "a\ufffd\ufffdb\ufffd"
    assert tok.decode(ids, errors="ignore") == "ab"
    assert tok.decode(ids, errors="backslashreplace") == r"a\xff\xc3b\xe2\x82"
    assert tok.decode(ids, errors="surrogateescape") == "a\udcff\udcc3b\udce2\udc82"
    with pytest.raises(UnicodeDecodeError):
        tok.decode(ids, errors="strict")


@pytest.mark.parametrize("id", [-1, 258, 2**16, 2**16 + 97, 2**32, 2**32 + 97, 2**63 - 1, -(2**63), 2**63, 2**64 + 97, 10**30])
def test_ids_out_of_range_are_refused(id):
    tok = Tokenizer([(97, 98)])
    for call in (lambda: tok.decode([97, 98, id]), lambda: tok.decode_bytes([id]), lambda: tok.token_bytes(id)):
        refused(call, id)
    refused(lambda: tok.decode_bytes([97, 258]), 258, 257)


@pytest.mark.parametrize("ids", [np.array([2**63 + 97], np.uint64), np.array([-1], np.int8), np.array([-1], np.int64)])
def test_ids_out_of_range_in_arrays_are_refused(ids):
    refused(lambda: Tokenizer([]).decode(ids), ids[0])


@pytest.mark.parametrize("ids", [[97.5], [97, 98.25], np.array([97.5]), [float("nan")], [float("inf")], [1e300]])
def test_numbers_that_are_no_ids_are_refused_not_rounded(ids):
    refused(lambda: Tokenizer([]).decode(ids))


# ---- other patterns ----


@pytest.mark.parametrize("name", NATIVE)
def test_a_pattern_string_cuts_as_the_native_pattern_of_its_name(name):
    native = Tokenizer.train_from_iterator([TEXT], 900, pattern=name)
    by_string = Tokenizer.train_from_iterator([TEXT], 900, pattern=PATTERN_STRINGS[name])
    by_regex = Tokenizer.train_from_iterator([TEXT], 900, pattern=f"(?:{PATTERN_STRINGS[name]})")  # no string that is native
    assert native.merges == by_string.merges == by_regex.merges
    assert native.sha256 == by_string.sha256 != by_regex.sha256
    for seed in range(30, 40):
        text = mixed_bytes(seed, size=3000).decode("utf-8", "replace")
        assert native.encode(text) == by_string.encode(text) == by_regex.encode(text)
        assert native.encode_to_numpy(text).tolist() == by_regex.encode_to_numpy(text).tolist() == native.encode(text)


@pytest.mark.parametrize("pattern", [WITH_GAPS, "x", r"\b", "q*", "(?=a)", r"(?<=e)[a-z]", r"\d+|(?P<word>[a-z]+)", "(a|b)c?"])
def test_what_a_pattern_does_not_match_is_kept(pattern):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 400, pattern=pattern)
    for text in (TEXT[:2000], "", "x", "xx", "a b", "qqq q", f"no{EOT}thing 12 3x", "\n\r\n \xa0"):
        ids = tok.encode(text, disallowed_special=())
        assert tok.decode(ids) == text
        assert ids == [id for piece in cut(pattern, text.encode()) for id in naive_encode(tok.merges, piece)]


@pytest.mark.parametrize("pattern", [WITH_GAPS, r"[a-z]+", "(a|b)c?"])
def test_gaps_in_a_pattern_are_kept_by_tokenizers_and_not_lost_in_silence_by_tiktoken(pattern, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 300, pattern=pattern)
    tok.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = TEXT[:2000]
    assert other.encode(text).ids == tok.encode(text)
    try:
        encoding = tok.to_tiktoken()
    except ValueError:
        refused(tok.to_tiktoken, "pattern")
    else:
        assert encoding.decode(encoding.encode(text)) == text


# ---- files ----


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_saved_tokenizer_comes_back_the_same(pattern, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT], 700, pattern=pattern, special_tokens=SPECIAL_TOKENS)
    path = tmp_path / "tokenizer.json"
    tok.save(path)
    for again in (Tokenizer.load(path), Tokenizer.load(str(path))):
        assert again.merges == tok.merges
        assert list(again.special_tokens.items()) == list(tok.special_tokens.items())
        assert (again.pattern, again.sha256, again.vocab_size, again.eot_id) == (pattern, tok.sha256, 700, tok.eot_id)
        for text in (TEXT[:20_000], "".join(SPECIAL_TOKENS), "I'LL 12345  x\r\n\n"):
            assert again.encode(text, allowed_special="all") == tok.encode(text, allowed_special="all")
            assert again.encode(text, disallowed_special=()) == tok.encode(text, disallowed_special=())
        refused(lambda: again.encode(f"a{EOT}"), EOT)  # noqa: B023
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.json", "tokenizer.json"]


def test_sha256_tells_apart_what_encodes_differently():
    base = [(97, 98), (99, 100)]
    different = [
        Tokenizer(base),
        Tokenizer(base[::-1]),
        Tokenizer(base[:1]),
        Tokenizer(base, pattern="gpt2"),
        Tokenizer(base, pattern=WHOLE),
        Tokenizer(base, special_tokens=(EOT, "<x>")),
        Tokenizer(base, special_tokens=("<x>", EOT)),
    ]
    assert len({tok.sha256 for tok in different}) == len(different)
    assert Tokenizer(base).sha256 == Tokenizer(tuple(base), special_tokens=[EOT], pattern="gpt4").sha256


def test_a_saved_tokenizer_can_be_read_by_transformers(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    text = TEXT[:20_000]
    for other in (
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        assert len(other) == tok.vocab_size
        assert other(text)["input_ids"] == tok.encode(text)
        assert other.decode(tok.encode(text), clean_up_tokenization_spaces=False) == text
        assert other.convert_tokens_to_ids(EOT) == tok.eot_id


def test_what_tokenizers_writes_again_can_be_loaded(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).save(str(tmp_path / "again.json"))
    assert Tokenizer.load(tmp_path / "again.json").sha256 == tok.sha256


def small_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train_from_iterator(["the cat and the hat and the bat"], 262, special_tokens=(EOT, "[X]")).save(path)
    return path


def assert_loaded_as_written_or_refused(path):
    try:
        tok = Tokenizer.load(path)
    except ValueError:
        refused(lambda: Tokenizer.load(path), path)
        return
    assert tok.decode(tok.encode_ordinary("the cat, Ünïcode 7")) == "the cat, Ünïcode 7"
    tok.save(path)
    assert Tokenizer.load(path).sha256 == tok.sha256


def test_a_truncated_tokenizer_file_is_refused(tmp_path):
    path = small_file(tmp_path)
    data = path.read_bytes().rstrip()
    for size in [*range(0, len(data), len(data) // 60), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:size])
        refused(lambda: Tokenizer.load(path), path)


def test_a_changed_tokenizer_file_is_refused_or_is_what_it_says(tmp_path):
    path = small_file(tmp_path)
    data, rng = path.read_bytes(), random.Random(40)
    for _ in range(250):
        changed = bytearray(data)
        if rng.random() < 0.5:
            changed[rng.randrange(len(data))] = rng.choice(b'0123456789"{}[],: abc\\\xff\x00-')
        else:
            start = rng.randrange(len(data))
            del changed[start : start + rng.choice([1, 2, 30, 500])]
        path.write_bytes(changed)
        assert_loaded_as_written_or_refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"\xff\xfe\x00",
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00v\x00",
        b"null",
        b"[]",
        b"{}",
        b"3",
        b'"tokenizer"',
        b"NaN",
        b"hello",
        b'{"model": null}',
        b'{"model": "\\ud800"}',
        b'{"model": {"type": "BPE"}}',
        b"9" * 10_000,
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    refused(lambda: Tokenizer.load(path), path)


def change(path, edit):
    """Edits the content of a tokenizer.json."""
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


REMOVED = object()
SPLIT, BYTE_LEVEL = "pre_tokenizer pretokenizers 0", "pre_tokenizer pretokenizers 1"


@pytest.mark.parametrize(
    "place, value",
    [
        *(
            (place, REMOVED)
            for place in (
                "model",
                "pre_tokenizer",
                "added_tokens",
                "model vocab",
                "model merges",
                "model vocab a",
                "model merges 0",
                "model merges 3",
                "added_tokens 1 id",
                "added_tokens 1 content",
                SPLIT,
                BYTE_LEVEL,
                SPLIT + " pattern",
            )
        ),
        *(
            (place, None)
            for place in ("model", "pre_tokenizer", "added_tokens", "model vocab", "model merges", "model merges 0")
        ),
        ("normalizer", {"type": "Lowercase"}),
        ("added_tokens", {}),
        ("model dropout", 0.1),
        ("model end_of_word_suffix", "</w>"),
        ("model type", "WordPiece"),
        (SPLIT + " behavior", "Removed"),
        (SPLIT + " pattern", {"String": " "}),
        (SPLIT + " pattern", {"Regex": "("}),
        (SPLIT + " pattern", {"Regex": 5}),
        (BYTE_LEVEL + " add_prefix_space", True),
        ("added_tokens 0 id", 97),
        ("added_tokens 1 id", -1),
        ("added_tokens 1 id", "261"),
        ("added_tokens 1 content", EOT),
        ("added_tokens 1 content", 7),
        ("added_tokens 1 lstrip", True),
        ("model byte_fallback", True),
        ("model vocab", []),
        ("model vocab", {}),
        ("model merges", {}),
        ("model merges", []),
        *(("model merges 0", merge) for merge in ("t", "t h e", "h e", "zz z", "", 5, ["t"], ["t", 5], ["a", "t", "e"])),
        *(("model vocab a", id) for id in (98, 1.5, -1, 2**70, "97", None, [97])),
        ("model vocab new", 300),
    ],
)
def test_a_tokenizer_file_with_wrong_content_is_refused(place, value, tmp_path):
    *parents, last = [int(key) if key.isdigit() else key for key in place.split()]

    def edit(content):
        for key in parents:
            content = content[key]
        if value is REMOVED:
            del content[last]
        else:
            content[last] = value

    change(path := small_file(tmp_path), edit)
    refused(lambda: Tokenizer.load(path), path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["model"]["merges"].append("a b"),
        lambda content: content["model"]["merges"].append(content["model"]["merges"][0]),
        lambda content: content["model"]["vocab"].update(a=98),
    ],
)
def test_a_tokenizer_file_whose_merges_and_ids_do_not_fit_is_refused(edit, tmp_path):
    change(path := small_file(tmp_path), edit)
    refused(lambda: Tokenizer.load(path), path)


@pytest.mark.parametrize(
    "model",
    [
        tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        tokenizers.models.Unigram([("a", 0.0)]),
        tokenizers.models.WordLevel({"a": 0}, unk_token="a"),
        tokenizers.models.BPE(),
        tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("byte_level", [False, True])
def test_tokenizers_of_another_kind_are_refused(model, byte_level, tmp_path):
    path = tmp_path / "tokenizer.json"
    other = tokenizers.Tokenizer(model)
    if byte_level:
        other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        other.decoder = tokenizers.decoders.ByteLevel()
    other.save(str(path))
    refused(lambda: Tokenizer.load(path), path)


# ---- Hugging Face's own files ----


def trained_by_tokenizers(**trainer) -> dict:
    """A tokenizer.json as the tokenizers library writes it: special tokens first, then the alphabet, then the merges."""
    other = tokenizers.Tokenizer(tokenizers.models.BPE())
    other.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN_STRINGS["gpt4"]), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    other.decoder = tokenizers.decoders.ByteLevel()
    options = {
        "vocab_size": 400,
        "initial_alphabet": tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        "special_tokens": [EOT],
        "show_progress": False,
    } | trainer
    other.train_from_iterator([TEXT], tokenizers.trainers.BpeTrainer(**options))
    return json.loads(other.to_str())


def like_gpt2() -> dict:
    """GPT-2's form: bytes in the order of their characters, ByteLevel alone, <|endoftext|> last and in the vocabulary."""
    content = trained_by_tokenizers(special_tokens=[])
    content["pre_tokenizer"] = content["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["model"]["vocab"][EOT] = 400
    content["added_tokens"] = [
        {"id": 400, "content": EOT, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    ]
    return content


def like_llama3() -> dict:
    """Llama 3's form: its pattern, pieces that are tokens before any merge, a token that merges alone do not reach."""
    content = trained_by_tokenizers(special_tokens=[])
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    content["model"]["ignore_merges"] = True
    content["model"]["vocab"]["Ġunreachable"] = 400
    content["added_tokens"] = [
        {
            "id": 401 + i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"])
    ]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [401], "tokens": ["<|begin_of_text|>"]}},
    }
    return content


def with_ids_in_another_order() -> dict:
    content = trained_by_tokenizers()
    ids = list(content["model"]["vocab"].values())
    random.Random(3).shuffle(ids)
    content["model"]["vocab"] = dict(zip(content["model"]["vocab"], ids, strict=True))
    content["added_tokens"][0]["id"] = content["model"]["vocab"][EOT]
    return content


FOREIGN = {"gpt2": like_gpt2, "llama3": like_llama3, "tokenizers": trained_by_tokenizers, "shuffled": with_ids_in_another_order}
FOREIGN_TEXTS = [
    TEXT,
    "an unreachable word",
    " unreachable unreachable",
    "'LL 'sup don't\r\n\n  x\t\ty 12345 ſ'ſ",
    "a" * 300,
    "🦙 नमस्ते",
]


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_files_of_tokenizers_are_read_with_their_ids_and_written_so_that_it_reads_them_again(kind, tmp_path):
    path, again = tmp_path / "tokenizer.json", tmp_path / "again.json"
    path.write_text(json.dumps(FOREIGN[kind](), ensure_ascii=False), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    assert ours.vocab_size == theirs.get_vocab_size() and ours.pattern == ("gpt2" if kind == "gpt2" else "gpt4")
    ours.save(again)
    reread = tokenizers.Tokenizer.from_file(str(again))
    for text in FOREIGN_TEXTS:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode_ordinary(text) == expected
        assert ours.encode_to_numpy(text).tolist() == expected
        assert Tokenizer.load(again).encode_ordinary(text) == expected
        assert reread.encode(text, add_special_tokens=False).ids == expected
        assert ours.decode(expected) == text
    for token, id in ours.special_tokens.items():
        assert theirs.token_to_id(token) == id and ours.encode(token, allowed_special="all") == [id]


@pytest.mark.parametrize("kind", ["gpt2", "tokenizers"])
def test_a_foreign_tokenizer_becomes_a_tiktoken_encoding_with_its_ids(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(FOREIGN[kind]()), encoding="utf-8")
    ours = Tokenizer.load(tmp_path / "tokenizer.json")
    theirs = ours.to_tiktoken()
    for text in FOREIGN_TEXTS:
        assert theirs.encode_ordinary(text) == ours.encode_ordinary(text)


def test_merges_that_are_not_in_the_order_of_ids_are_no_tiktoken_encoding(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(with_ids_in_another_order()), encoding="utf-8")
    refused(Tokenizer.load(tmp_path / "tokenizer.json").to_tiktoken, "another order")


def test_a_foreign_tokenizer_without_end_of_text_encodes_but_has_no_eot_id(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(like_llama3()), encoding="utf-8")
    foreign = Tokenizer.load(tmp_path / "tokenizer.json")
    refused(lambda: foreign.eot_id, "<|endoftext|>")
    refused(lambda: foreign.encode_document("a"), "<|endoftext|>")


def test_a_byte_level_bpe_without_all_bytes_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(trained_by_tokenizers(initial_alphabet=[])), encoding="utf-8")
    refused(lambda: Tokenizer.load(tmp_path / "tokenizer.json"), "initial_alphabet")


# ---- minbpe ----


def minbpe_model(merges, special_tokens=(), pattern=PATTERN_STRINGS["gpt4"]) -> str:
    special = [f"{token} {256 + len(merges) + i}" for i, token in enumerate(special_tokens)]
    return "\n".join(["minbpe v1", pattern, str(len(special)), *special, *(f"{left} {right}" for left, right in merges)]) + "\n"


@pytest.mark.parametrize("name", [*NATIVE, r"\w+|\W+"])
@pytest.mark.parametrize("special_tokens", [(), (EOT,), ("<|user|>", EOT), ("<|user|>",)])
def test_a_minbpe_model_encodes_as_it_did(name, special_tokens, tmp_path):
    pattern = PATTERN_STRINGS.get(name, name)
    merges = naive_merges(cut(pattern, TEXT[:3000].encode()), 60)
    path = tmp_path / "tok.model"
    path.write_text(minbpe_model(merges, special_tokens, pattern), encoding="utf-8")
    tok = Tokenizer.from_minbpe(path)
    assert tok.merges == merges and tok.pattern == name
    kept = special_tokens if EOT in special_tokens else (*special_tokens, EOT)
    assert tok.special_tokens == {token: 256 + 60 + i for i, token in enumerate(kept)}
    for text in (TEXT[:5000], "I'LL 12345", "  a\n\n b"):
        assert tok.encode(text) == [id for piece in cut(pattern, text.encode()) for id in naive_encode(merges, piece)]
    tok.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").sha256 == tok.sha256


def test_a_minbpe_model_without_a_pattern_leaves_the_text_in_one_piece(tmp_path):
    text = "the cat\nand the cat\n\nand the bat"
    merges = naive_merges([text.encode()], 20)
    path = tmp_path / "basic.model"
    path.write_text(minbpe_model(merges, pattern=""), encoding="utf-8")
    tok = Tokenizer.from_minbpe(str(path))
    assert tok.encode(text) == naive_encode(merges, text.encode())
    assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"minbpe v1",
        b"minbpe v1\n",
        b"minbpe v1\n\n",
        b"minbpe v2\n\n0\n97 98\n",
        b"minbpe v1\n(\n0\n97 98\n",
        b"\x80\x81\x82",
        b"\x00" * 50,
        b"minbpe v1\n\xff\n0\n97 98\n",
        *(
            b"minbpe v1\n\n" + special + b"\n97 98\n"
            for special in (
                b"zero",
                b"-1",
                b"2\n<|endoftext|> 257",
                b"1\n<|endoftext|>",
                b"1\n<|endoftext|> 300",
                b"2\na 257\na 258",
            )
        ),
        *(
            b"minbpe v1\n\n0\n" + merges + b"\n"
            for merges in (b"97", b"97 98 99", b"97 x", b"97 256", b"-1 98", b"99999999999 98", b"97 98\n97 98")
        ),
    ],
)
def test_a_damaged_minbpe_model_is_refused(content, tmp_path):
    path = tmp_path / "tok.model"
    path.write_bytes(content)
    refused(lambda: Tokenizer.from_minbpe(path), path)


# ---- bounded memory ----


def train_small(text, folder, monkeypatch, num_threads=2, pieces_bytes=1 << 30, vocab_size=300):
    """Trains with blocks of 2,000 bytes and little memory for pieces."""
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(alilama.data.tokenizer, "MAX_PIECES_BYTES", pieces_bytes)
    return Tokenizer.train(str(path), vocab_size, num_threads=num_threads)


def frequent_and_unique_words(number: int) -> str:
    rng = random.Random(1)
    words = ["once", "upon", "a", "time", "there", "was", "little", "girl"]
    return " ".join(word for _ in range(number) for word in (rng.choice(words), "".join(rng.choices("bcdfghjklm", k=9))))


def test_when_pieces_do_not_fit_the_rarest_are_dropped_with_a_warning(tmp_path, monkeypatch):
    text = frequent_and_unique_words(8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything = train_small(text, tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match=r"[\d,]+ of the rarest were dropped"):
        bounded = train_small(text, tmp_path, monkeypatch, pieces_bytes=300_000)
    assert everything.merges != bounded.merges  # the unique words are most of the text
    frequent = {bounded.encode_ordinary(f" {word}").__len__() for word in ("once", "upon", "time", "there", "little", "girl")}
    assert frequent == {1}


def test_what_is_dropped_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    text = frequent_and_unique_words(5000)
    merges = []
    for num_threads in (1, 2, 5):
        with pytest.warns(UserWarning, match="dropped"):
            merges.append(train_small(text, tmp_path, monkeypatch, num_threads, pieces_bytes=200_000).merges)
    assert merges[0] == merges[1] == merges[2]


def test_text_without_any_place_to_cut_is_learned_from_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(alilama.data.text, "MAX_UNCUT_BYTES", 5000)
    with pytest.warns(UserWarning, match="without a place to cut"):
        tok = train_small("ab" * 20_000, tmp_path, monkeypatch, vocab_size=260)
    assert [tok.token_bytes(id) for id in (256, 257, 258)] == [b"ab", b"abab", b"abababab"]


def test_the_rarest_pieces_are_dropped_first_and_their_number_is_told():
    counter = alilama._bpe.PieceCounter()
    for count in range(1, 101):
        counter.add_pieces([b"piece%03d" % count] * count)
    before = counter.num_bytes
    assert counter.drop_rarest(before) == 0
    assert counter.drop_rarest(before // 2) == 50 and counter.num_bytes <= before // 2
    merges = counter.learn_merges(2000)
    tokens = [Tokenizer(merges).token_bytes(256 + i) for i in range(len(merges))]
    assert {token for token in tokens if len(token) == 8} == {b"piece%03d" % count for count in range(51, 101)}


def test_an_error_while_counting_ends_the_training(monkeypatch):
    def fails(self, *arguments):
        raise MemoryError

    monkeypatch.setattr(Tokenizer, "_count_pieces", fails)
    with pytest.raises(MemoryError):
        Tokenizer.train_from_iterator(["some text"] * 10, 300, num_threads=1)


@pytest.mark.parametrize("expression, name", alilama.data.tokenizer.PATTERN_NAMES.items())
def test_other_ways_to_write_a_pattern_cut_the_same(expression, name):
    rng = random.Random(6)
    for _ in range(3000):
        parts = ["a", "S", "'s", "'LL", "'", " ", "  ", "\n", "\r\n", "\t", "12345", ".", "é", "ſ", "\u2028"]
        text = "".join(rng.choices(parts, k=8))
        pieces = [match[0].encode() for match in regex.finditer(expression, text)]
        assert alilama._bpe.split_pieces(name, text.encode()) == pieces, text


class ClearsItsList:
    """An id that changes the list it is in while it is read."""

    def __init__(self, ids):
        self.ids = ids

    def __index__(self):
        self.ids.clear()
        return 97


def test_ids_that_change_while_they_are_decoded_do_no_harm():
    ids = []
    ids += [ClearsItsList(ids), *range(97, 123)] * 1000
    assert Tokenizer([]).decode_bytes(ids) == (b"a" + bytes(range(97, 123))) * 1000


def test_an_error_of_an_id_itself_is_not_hidden():
    class Interrupted:
        def __index__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tokenizer([]).decode([97, Interrupted()])


def test_a_tokenizer_is_pickled_and_copied(tmp_path):
    for tok in (Tokenizer([(97, 98)], special_tokens=(EOT, "[X]"), pattern="gpt2"), Tokenizer([], pattern=r"\w+")):
        for again in (pickle.loads(pickle.dumps(tok)), copy.deepcopy(tok)):
            assert again.sha256 == tok.sha256 and again.encode_ordinary("ab abc") == tok.encode_ordinary("ab abc")


def test_a_forked_child_encodes_while_threads_of_its_parent_do():
    tok = Tokenizer([(97, 98)])
    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(lambda: [tok.encode_to_numpy("a b " * 5) for _ in range(20_000)]) for _ in range(3)]
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if tok.encode_ordinary("ab") == [256] else 1)
            assert os.waitpid(child, 0)[1] == 0
        for work in busy:
            work.result()


@pytest.mark.parametrize("pattern, words", [(r"(?r)\w+", "backwards"), ("(" * 5000, "regular expression"), ("(", "regular")])
def test_patterns_that_cannot_cut_are_refused(pattern, words):
    refused(lambda: Tokenizer([], pattern=pattern), words)


def test_merges_that_would_fill_the_memory_are_refused():
    doubling = [(97, 97), *((256 + i, 256 + i) for i in range(40))]
    refused(lambda: Tokenizer(doubling), "bytes; at most")


@pytest.mark.parametrize("special_tokens", [(EOT, 5), (EOT, "\ud800"), (EOT, ""), (EOT, EOT), ("[X]",)])
def test_special_tokens_that_are_no_text_are_refused(special_tokens):
    refused(lambda: Tokenizer([], special_tokens=special_tokens), "special_tokens")


def test_a_file_named_by_a_path_is_learned_from(tmp_path):
    (tmp_path / "a.txt").write_text("ab ab ab", encoding="utf-8")
    assert Tokenizer.train(tmp_path / "a.txt", 258).merges == [(97, 98)]

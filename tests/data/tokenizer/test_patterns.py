"""Patterns of one's own, and what other engines make of them."""

import random
import warnings

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import PATTERN_STRINGS, examples, mixed_bytes, naive_encode
from tokenizer_cases import EOT, LETTERS_AND_REST, NATIVE, TEXT, WITH_GAPS, cut, refused

import alilama.data.text
import alilama.data.tokenizer
from alilama.data.formats import unportable_part
from alilama.data.tokenizer import Tokenizer, without_gaps


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


@pytest.mark.parametrize(
    "pattern",
    ["^ab|.", r"\p{N}{1,3}+", r"\w", r"(?s:.+)", r"\b", "(?i)ss", "[a[b]]", "[a&&b]", "a{2}?", r"(?<=a)b", r"a$", "q*"],
)
def test_a_pattern_that_other_engines_may_read_otherwise_is_said_when_it_is_saved(pattern, tmp_path):
    tok = Tokenizer([(97, 98)], pattern=pattern)
    with pytest.warns(UserWarning, match="may cut text in another way") as warned:
        tok.save(tmp_path / "tokenizer.json")
    assert len(warned) == 1 and len(str(warned[0].message).splitlines()) == 1
    assert Tokenizer.load(tmp_path / "tokenizer.json").sha256 == tok.sha256


PLAIN_PATTERNS = [
    *NATIVE,
    *alilama.data.tokenizer.PATTERN_NAMES,
    r"[a-z]+",
    r"\d{1,3}| ?\p{L}+|[^\s\d]",
    LETTERS_AND_REST,
    r"[\s\S]+",
]


@pytest.mark.parametrize("pattern", PLAIN_PATTERNS)
def test_a_pattern_that_all_engines_read_alike_is_saved_in_silence_and_cut_alike(pattern, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 300, pattern=pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tok.save(tmp_path / "tokenizer.json")
        encoding = tok.to_tiktoken()
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (TEXT[:3000], "aaa 123 x", "", "\n\n a"):
        assert other.encode(text).ids == tok.encode(text) == encoding.encode(text)


ATOMS = [
    *"ab's 1.#&é-",
    r"\s",
    r"\S",
    r"\d",
    r"\D",
    r"\n",
    r"\.",
    r"\-",
    r"\p{L}",
    r"\p{N}",
    r"\P{L}",
    r"\p{Lu}",
    r"\p{M}",
    r"\p{Han}",
]
ATOMS += [
    "[^a]",
    "[a-z]",
    r"[^\r\n\p{L}\p{N}]",
    r"[^\S\n]",
    r"[\s\S]",
    r"[\-a]",
    r"[!-/:-@\[-`{-~]",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
]
ATOMS += [r"\s+(?!\S)", "^", "$", r"\w", r"\b", "(?=a)", "(?<=a)", "[a&&b]", "(?i:ss)", "{2}?", "{1,3}+"]  # not alike
REPEATS = ["", "", "", "?", "*", "+", "?+", "*+", "++", "+?", "{2}", "{1,3}", "{2,}"]
BRANCHES = st.lists(st.builds(str.__add__, st.sampled_from(ATOMS), st.sampled_from(REPEATS)), min_size=1, max_size=3).map(
    "".join
)
GROUPS = st.builds(
    "{}{})".format, st.sampled_from(["(", "(?:", "(?>"]), st.lists(BRANCHES, min_size=1, max_size=2).map("|".join)
)
EXPRESSIONS = st.lists(st.builds(str.__add__, BRANCHES, GROUPS | st.just("")), min_size=1, max_size=3).map("|".join)
MIXTURE = [
    "a",
    "ab",
    "s",
    "'s",
    "'RE",
    "A",
    " ",
    "  ",
    "\n",
    "\r\n",
    "1",
    "12345",
    "٣",
    "é",
    "e\u0301",
    "漢",
    ".",
    "-",
    "#",
    "ß",
    "²",
]


@examples(150)
@given(pattern=EXPRESSIONS, parts=st.lists(st.sampled_from(MIXTURE), min_size=1, max_size=30))
def test_no_pattern_that_is_taken_for_portable_is_cut_otherwise_by_tokenizers_or_tiktoken(pattern, parts):
    try:
        compiled = regex.compile(pattern)
    except regex.error:
        assume(False)
    assume(unportable_part(compiled) is None)
    text = "".join(parts)
    pieces = cut(pattern, text.encode())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    assert [piece.encode() for piece, _ in split.pre_tokenize_str(text)] == pieces
    ranks = {bytes([byte]): byte for byte in range(256)}
    for piece in pieces:
        ranks.setdefault(piece, len(ranks))
    other = tiktoken.Encoding("test", pat_str=without_gaps(compiled), mergeable_ranks=ranks, special_tokens={})
    assert other.decode_tokens_bytes(other.encode_ordinary(text)) == pieces


@pytest.mark.parametrize("pattern", [r"q*", r"\b", "(?=a)", "", "a?|b", "a??b?", "|[a-z]"])
def test_a_pattern_that_matches_empty_text_cuts_the_same_in_tiktoken(pattern):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 300, pattern=pattern)
    with pytest.warns(UserWarning, match="tiktoken may cut text in another way"):
        encoding = tok.to_tiktoken()
    for text in ("qqq q a", "baab abb", TEXT[:1000], ""):
        assert encoding.encode(text) == tok.encode(text)


def test_a_verbose_pattern_with_a_comment_works_in_tiktoken():
    pattern = "(?x) [a-z]+  # words\n | [^a-z]  # the rest"
    tok = Tokenizer.train_from_iterator(["the cat the cat 12"], 260, pattern=pattern)
    with pytest.warns(UserWarning, match="tiktoken"):
        assert tok.to_tiktoken().encode("the cat 12") == tok.encode("the cat 12")


@pytest.mark.filterwarnings("ignore:.*may cut text in another way")
@pytest.mark.parametrize("pattern", [WITH_GAPS, r"[a-z]+", "(a|b)c?"])
def test_gaps_in_a_pattern_are_pieces_in_tokenizers_and_in_tiktoken(pattern, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 300, pattern=pattern)
    tok.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = TEXT[:2000]
    assert other.encode(text).ids == tok.encode(text) == tok.to_tiktoken().encode(text)


@pytest.mark.filterwarnings("ignore:.*may cut text in another way")
def test_a_pattern_that_tiktoken_cannot_read_is_refused_in_one_line():
    refused(Tokenizer([], pattern="(?V1)a").to_tiktoken, "tiktoken cannot read the pattern '(?V1)a'")


@pytest.mark.parametrize("expression, name", alilama.data.tokenizer.PATTERN_NAMES.items())
def test_other_ways_to_write_a_pattern_cut_the_same(expression, name):
    rng = random.Random(6)
    for _ in range(3000):
        parts = ["a", "S", "'s", "'LL", "'", " ", "  ", "\n", "\r\n", "\t", "12345", ".", "é", "ſ", "\u2028"]
        text = "".join(rng.choices(parts, k=8))
        pieces = [match[0].encode() for match in regex.finditer(expression, text)]
        assert alilama._bpe.split_pieces(name, text.encode()) == pieces, text


NOT_REGULAR = ["(", "[a", r"\p{Nonsense}", "a{3,1}", "*", r"(?<x>a", "(" * 5000]


@pytest.mark.parametrize("pattern, words", [(r"(?r)\w+", "backwards"), *((each, "regular expression") for each in NOT_REGULAR)])
def test_patterns_that_cannot_cut_are_refused(pattern, words):
    refused(lambda: Tokenizer([], pattern=pattern), words, repr(pattern[:100]))
    refused(lambda: Tokenizer.train_from_iterator(["abab"], 258, pattern=pattern), words)

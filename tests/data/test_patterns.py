"""Patterns of one's own, and what other engines make of them."""

import random
import warnings

import pytest
import regex
import tokenizers
from oracles import PATTERN_STRINGS, mixed_bytes, naive_encode
from tokenizer_cases import EOT, LETTERS_AND_REST, NATIVE, TEXT, WITH_GAPS, cut, refused

import alilama.data.text
import alilama.data.tokenizer
from alilama.data.tokenizer import Tokenizer


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
    "pattern", ["^ab|.", r"\p{N}{1,3}+", r"\w", r"(?s:.+)", r"\b", "(?i)ss", r"[a[b]]", r"(?<=a)b", r"a$", "q*"]
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


@pytest.mark.parametrize("pattern", [r"q*", r"\b", "(?=a)", "", "a?|b"])
def test_a_pattern_that_matches_empty_text_works_in_tiktoken_or_is_refused(pattern):
    tok = Tokenizer.train_from_iterator([TEXT[:20_000]], 300, pattern=pattern)
    with pytest.warns(UserWarning, match="tiktoken may cut text in another way"):
        encoding = tok.to_tiktoken()
    for text in ("qqq q a", TEXT[:1000], ""):
        assert encoding.decode(encoding.encode(text)) == text


def test_a_verbose_pattern_with_a_comment_works_in_tiktoken():
    pattern = "(?x) [a-z]+  # words\n | [^a-z]  # the rest"
    tok = Tokenizer.train_from_iterator(["the cat the cat 12"], 260, pattern=pattern)
    with pytest.warns(UserWarning, match="tiktoken"):
        assert tok.to_tiktoken().encode("the cat 12") == tok.encode("the cat 12")


@pytest.mark.filterwarnings("ignore:.*may cut text in another way")
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

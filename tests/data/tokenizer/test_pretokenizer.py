"""The pieces of the native patterns are those that the `regex` package finds with the same pattern."""

import itertools
import random
from functools import partial

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from oracles import PATTERN_STRINGS, examples, mixed_bytes, mixed_text

from alilama import _bpe
from alilama.data.tokenizer import PATTERNS

NATIVE = sorted(PATTERNS)
COMPILED = {name: regex.compile(string) for name, string in PATTERN_STRINGS.items()}

# Where one character more or less changes the piece.
TROUBLE = [
    "'",
    "’",
    "s",
    "S",
    "ſ",
    "t",
    "T",
    "d",
    "m",
    "M",
    "l",
    "L",
    "v",
    "V",
    "e",
    "E",
    "r",
    "R",
    "K",
    "ß",
    "İ",
    "ı",
    "a",
    "Z",
    "é",
    "e\u0301",
    "\u0301",
    "日",
    "ω",
    "ʰ",
    "ª",
    "\U0001d400",
    "\U00020000",
    "1",
    "9",
    "٣",
    "१",
    "²",
    "½",
    "Ⅻ",
    "〇",
    "\U0001d7ce",
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\v",
    "\f",
    "\x1c",
    "\x1f",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u2029",
    "\u3000",
    "\u180e",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\x00",
    "\x7f",
    ".",
    "!",
    "-",
    "_",
    "<",
    "|",
    "€",
    "—",
    "🙂",
    "👩\u200d👧",
    "👍🏽",
    "\ue000",
    "\U0010ffff",
]
BROKEN = [
    b"\x80",
    b"\xbf",
    b"\xc0",
    b"\xc1",
    b"\xc2",
    b"\xc5",
    b"\xdf",
    b"\xe0",
    b"\xe0\x80",
    b"\xe2\x80",
    b"\xed\xa0\x80",
    b"\xef",
    b"\xf0\x80",
    b"\xf0\x9f\x99",
    b"\xf4\x90\x80\x80",
    b"\xf5",
    b"\xf8",
    b"\xff",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
]


def assert_pieces_are_those_of_regex(name: str, text: bytes):
    string = text.decode("utf-8", "surrogateescape")
    expected = COMPILED[name].findall(string)
    pieces = _bpe.split_pieces(name, text)
    # Compared as two strings, for speed; \xff is in no UTF-8, and it is the first difference that is shown.
    if b"\xff".join(pieces) != "\udcff".join(expected).encode("utf-8", "surrogateescape") or b"\xff" in text:
        assert [piece.decode("utf-8", "surrogateescape") for piece in pieces] == expected


def test_patterns_are_those_of_the_design():
    assert PATTERNS == PATTERN_STRINGS


def test_a_pattern_that_is_not_in_the_table_is_refused():
    said = f"the pattern is not native: expected one of {', '.join(PATTERN_STRINGS)}"
    for cut in (partial(_bpe.split_pieces, "gpt5"), partial(_bpe.find_cut, pattern="gpt5")):
        with pytest.raises(ValueError, match=said):
            cut(b"text")


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("plane", range(17))
def test_every_code_point_has_the_class_that_regex_gives_it(name, plane):
    chars = [chr(i) for i in range(plane << 16, (plane + 1) << 16) if not 0xD800 <= i < 0xE000]
    if plane in (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16):  # no character is assigned there, or only private ones
        text = "".join(f"a{c}1 {c}\n" for c in chars)
    else:
        text = "".join(f"a{c}b1{c}2 {c} \n{c}\r'{c}'{c}s {c}{c}{c}{c}\n" for c in chars)
    assert_pieces_are_those_of_regex(name, text.encode())


@pytest.mark.parametrize("name", NATIVE)
def test_every_code_point_is_one_piece_alone(name):
    for i in range(0x110000):
        if not 0xD800 <= i < 0xE000:
            alone = chr(i).encode()
            assert _bpe.split_pieces(name, alone) == [alone]


@pytest.mark.parametrize("name", NATIVE)
def test_every_code_point_can_end_a_text(name):
    for i in [*range(0x3100), *range(0xFE00, 0x10100), *range(0x1F600, 0x1F650)]:
        for before in ("  ", " a'", "\n", "12"):
            assert_pieces_are_those_of_regex(name, (before + chr(i)).encode())


@pytest.mark.parametrize("name", NATIVE)
def test_every_short_text_over_the_characters_that_matter(name):
    for size in range(6):
        for chars in itertools.product("'slſ1 \n\r\xa0!", repeat=size):
            assert_pieces_are_those_of_regex(name, "".join(chars).encode())


@pytest.mark.parametrize("name", NATIVE)
def test_every_contraction_in_every_case(name):
    letters = "sdmtlverSDMTLVERſK1 !'"
    for apostrophe, first, second, after in itertools.product("'’", letters, letters + "x", ["", "e", " ", "'s"]):
        for before in ("", "a", " ", "!", "\n"):
            assert_pieces_are_those_of_regex(name, f"{before}{apostrophe}{first}{second}{after}".encode())


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize(
    "run", ["1", "٣", "a", "é", " ", "\t", "\n", "\r\n", "\xa0", "\u2028", "!", "🙂", "'", "\u0301", " \n", "\n "]
)
def test_runs_of_every_length(name, run):
    for number in range(1, 40):
        for before, after in itertools.product(["", "a", "1", " ", "!", "\n"], repeat=2):
            assert_pieces_are_those_of_regex(name, (before + run * number + after).encode())


@pytest.mark.parametrize("name", NATIVE)
@examples(600)
@given(parts=st.lists(st.sampled_from(TROUBLE), max_size=30))
def test_troublesome_characters_in_any_order(name, parts):
    assert_pieces_are_those_of_regex(name, "".join(parts).encode())


@pytest.mark.parametrize("name", NATIVE)
@examples(300)
@given(text=st.text(max_size=60))
def test_any_text(name, text):
    assert_pieces_are_those_of_regex(name, text.encode())


@pytest.mark.parametrize("name", NATIVE)
@examples(500)
@given(parts=st.lists(st.sampled_from([*BROKEN, *(char.encode() for char in TROUBLE)]) | st.binary(max_size=5), max_size=30))
def test_any_bytes_where_each_invalid_one_is_a_character_of_its_own(name, parts):
    assert_pieces_are_those_of_regex(name, b"".join(parts))


@pytest.mark.parametrize("name", NATIVE)
def test_every_two_bytes_among_letters_and_every_lead_with_broken_followers(name):
    for first in range(256):
        assert_pieces_are_those_of_regex(name, b"".join(b"a%c%cb " % (first, second) for second in range(256)))
    edges = (0x00, 0x41, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    for lead in range(0xC0, 0x100):
        for size in (2, 3):
            texts = [b"a%c%b1" % (lead, bytes(rest)) for rest in itertools.product(edges, repeat=size)]
            assert_pieces_are_those_of_regex(name, b"".join(texts))
    for rest in itertools.product(edges, edges, repeat=1):
        for lead in (0xC3, 0xE3, 0xF0):  # cut short by the end of the text
            assert_pieces_are_those_of_regex(name, b"a" + bytes([lead, *rest]))
            assert_pieces_are_those_of_regex(name, b"a" + bytes([lead, rest[0]]))


@pytest.mark.parametrize("name", NATIVE)
def test_long_text_of_many_scripts_and_long_broken_text(name):
    assert_pieces_are_those_of_regex(name, mixed_text(seed=1, num_words=30_000).encode())
    assert_pieces_are_those_of_regex(name, mixed_bytes(seed=2, size=200_000))
    assert_pieces_are_those_of_regex(name, random.Random(3).randbytes(100_000))

import contextlib
import random

import pytest
from oracles import PATTERN_STRINGS, mixed_text
from pages import js

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.export.patterns import to_javascript


def python_cut(expression, text):
    tok = Tokenizer([], pattern=expression)
    return [piece.decode() for piece in tok._cut(text.encode())]


def cut_by_browser(browser, expression, texts):
    empty = {"sizes": [], "bytes": "", "byteIds": [], "merges": [], "wholePieces": [], "pattern": to_javascript(expression)}
    return browser.run(f"{js(texts)}.map((text) => new Tokenizer({js(empty)}).cut(text))")


CUT_ALIKE = [
    *PATTERN_STRINGS.values(),
    r"\w+|\s|[^\w\s]",
    r"(?i:straße|[k-m])++|.",
    r"[a-z]+?(?=[aeiou])|(?<=\d)\D|\p{Lu}\p{Ll}*",
    r"(ab|(c))+?|[\-\]^]{2,3}+",
    r"[]x]+|\.{1,}|[^]]",
    r"(?<!a)b{2}|(?!x)\S+?",
]


@pytest.mark.parametrize("expression", CUT_ALIKE)
def test_patterns_cut_in_javascript_as_here(expression, browser, made):
    texts = [mixed_text(seed, 100) for seed in range(12)] + ["abcab]]^--..KKſstraSSE ab\r\n\n  x\u0301y\u0085\ufeff\u180e", ""]
    assert cut_by_browser(browser, expression, texts) == [python_cut(expression, text) for text in texts]


@pytest.mark.parametrize("expression", PATTERN_STRINGS.values())
def test_every_character_is_of_the_class_that_it_has_here(expression, browser, made):
    chars = [chr(i) for i in [*range(0, 0xD800, 7), *range(0xE000, 0x30000, 11), *range(0xE0000, 0xE0200)]]
    text = "".join(f"a{char}1{char} {char}{char}'s\n" for char in chars)
    assert cut_by_browser(browser, expression, [text]) == [python_cut(expression, text)]


def test_a_pattern_that_matches_nothing_is_refused():
    for expression in (
        r"a*|b",
        r"(?=[A-Z])|[a-z]+|\W",
        r"a|(?!b)",
        r"(?:!*|\s)",
        r"\w(?:!*|\s)?",
        r"(?:a?)+b",
        r"(?!x)?a",
        r"a|",
        r"b{0,3}",
    ):
        with pytest.raises(UserError, match=r"match nothing|nothing may be repeated"):
            to_javascript(expression)


@pytest.mark.parametrize(
    "expression",
    [
        r"^a",
        r"a$",
        r"\bx",
        r"(a)\1",
        r"(?>a+)",
        r"(?i)a",
        r"[[a-z]--[b]]",
        r"\X",
        r"(?P<n>a)",
        r"(?|a|b)",
        r"\x41",
        r"(?s:.)",
        r"a(*FAIL)|b",
        r"(?<=a++)b",
        r"(?i:x)|[^ab]+",
        r"(?i:x)|\P{Lu}",
        r"a)",
        r"(a",
    ],
)
def test_a_pattern_that_cannot_be_said_is_refused_from_where_it_cannot(expression):
    with pytest.raises(UserError, match="cannot be said in JavaScript from") as refused:
        to_javascript(expression)
    assert "\n" not in str(refused.value)


ATOMS = ["a", "b", "B", "[ab]", "[^ab]", "[a-c ]", r"\s", r"\S", r"\w", r"\p{Lu}", r"\P{L}", ".", "!", "1"]
COUNTS = ["", "", "", "?", "*", "+", "{2}", "{1,2}", "{0,1}"]


def random_pattern(rng: random.Random, depth: int = 2) -> str:
    def one() -> str:
        if depth == 0 or rng.random() < 0.7:
            part = rng.choice(ATOMS)
        else:
            opening = rng.choice(["(?:", "(?:", "(", "(?i:", "(?=", "(?!", "(?<=", "(?<!"])
            part = f"{opening}{random_pattern(rng, depth - 1)})"
        count = rng.choice(COUNTS)
        return part + count + (rng.choice(["", "", "?", "+"]) if count else "")

    return "|".join("".join(one() for _ in range(rng.randrange(1, 4))) for _ in range(rng.randrange(1, 4)))


def test_any_pattern_is_refused_or_cuts_as_here(browser, made):
    rng = random.Random(1)
    texts = ["".join(rng.choices("aabBcCé1! \n", k=24)) for _ in range(4)]
    patterns = {random_pattern(rng) for _ in range(3000)}
    translated = {}
    for pattern in patterns:
        with contextlib.suppress(UserError):
            translated[pattern] = to_javascript(pattern)
    assert 500 < len(translated) < 2900
    found = browser.run(f"""{js(list(translated.values()))}.map((pattern) => {{
        const cutter = new Tokenizer({{ sizes: [], bytes: '', byteIds: [], merges: [], wholePieces: [], pattern }});
        return {js(texts)}.map((text) => cutter.cut(text));
    }})""")
    assert dict(zip(translated, found, strict=True)) == {
        pattern: [python_cut(pattern, text) for text in texts] for pattern in translated
    }

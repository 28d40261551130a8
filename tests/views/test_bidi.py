"""Right-to-left scripts as they are seen; what is expected was worked out by the rules of Unicode's Standard Annex #9."""

import unicodedata

import pytest

from alilama.views.bidi import in_visual_order, is_right_to_left, join_arabic, visual_order

ALL = range(0x110000)  # characters that a font might have


@pytest.mark.parametrize(
    ("line", "from_right", "expected"),
    [
        ("אבג", True, "גבא"),
        ("אב גד.", True, ".דג בא"),
        ("אב cd ef גד", True, "דג cd ef בא"),  # what is read from the left stays so
        ("אב 12.5 גד", True, "דג 12.5 בא"),
        ("אב 50% גד 3-4", True, "3-4 דג 50% בא"),
        ("אב 7 cd", True, "cd 7 בא"),  # a number is not one with the letters after it
        ("אב cd 7 גד", True, "דג cd 7 בא"),  # but with those before it
        ("אב 7th גד", True, "דג 7th בא"),
        ("אב cd 50% גד", True, "דג cd 50% בא"),
        ("אב cd% גד", True, "דג %cd בא"),
        ("ab אב 7 ef", False, "ab 7 בא ef"),
        ("ab אב 50% ef", False, "ab 50% בא ef"),
        ("ab אב% ef", False, "ab בא% ef"),
        ("(ab) אב", False, "(ab) בא"),
        ("אב $5 גד", True, "דג $5 בא"),
        ("אב (גד) 7", True, "7 (דג) בא"),
        ("ab גד הו, ef", False, "ab וה דג, ef"),
        ("ab אב", True, "בא ab"),
        ("(ab)", True, "(ab)"),
        ("שָׁב", True, "בשָׁ"),  # marks stay behind their letter
        ("سلام", False, "مالس"),
    ],
)
def test_a_line_is_in_the_order_in_which_it_is_seen(line, from_right, expected):
    found = in_visual_order(line, from_right)
    assert (found[0], found[-1]) == ("\N{LEFT-TO-RIGHT OVERRIDE}", "\N{POP DIRECTIONAL FORMATTING}")
    assert found[1:-1] == expected


@pytest.mark.parametrize("line", ["", "Zoë (7), «ab»!", "日本 नमस्ते", "12"])
def test_a_line_without_such_letters_stays_as_it_is(line):
    assert in_visual_order(line, from_right=False) == line


def test_words_are_ordered_as_their_characters_are():
    words = ["אב", " ", "cd", " ", "1", "2", " ", "גד"]
    assert "".join(words[i] for i, _ in visual_order(words, from_right=True)) == "גד cd 12 אב"
    turned = [words[i] for i, turned in visual_order(words, from_right=True) if turned]
    assert turned == ["גד", " ", " ", "אב"]
    assert visual_order(["אב", " ", "(12)"], from_right=True) == [(2, False), (1, True), (0, True)]
    assert visual_order([], from_right=True) == []


@pytest.mark.parametrize(
    ("text", "expected"), [("אב cd", True), ("cd אב", False), ("12: سلام", True), ("", False), ("... 12", False)]
)
def test_the_first_letter_says_from_where_a_text_is_read(text, expected):
    assert is_right_to_left(text) == expected


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("سلام", ["SEEN INITIAL", "LAM MEDIAL", "ALEF FINAL", "MEEM ISOLATED"]),
        ("دب", ["DAL ISOLATED", "BEH ISOLATED"]),  # dal joins nothing after it
        ("بب ب", ["BEH INITIAL", "BEH FINAL", None, "BEH ISOLATED"]),
        ("ب\u0651ب", ["BEH INITIAL", None, "BEH FINAL"]),  # over a mark
        ("ب\u200cب", ["BEH ISOLATED", None, "BEH ISOLATED"]),  # not over a non-joiner
        ("گچ", ["GAF INITIAL", "TCHEH FINAL"]),
        ("aب", [None, "BEH ISOLATED"]),
    ],
)
def test_arabic_letters_join(text, forms):
    expected = [
        character if form is None else unicodedata.lookup(f"ARABIC LETTER {form} FORM")
        for character, form in zip(text, forms, strict=True)
    ]
    assert join_arabic(text, ALL) == "".join(expected)


def test_a_form_that_the_font_lacks_is_the_letter_itself():
    assert join_arabic("سلام", {*map(ord, "سلام")}) == "سلام"

"""Lines of right-to-left scripts in the order in which they are seen, for matplotlib draws each character after the one before.

The bidirectional algorithm of Unicode (Standard Annex #9) without embeddings, with numbers after Arabic letters as after Hebrew
ones, and Arabic letters in the forms that join.
"""

import itertools
import unicodedata
from collections.abc import Collection, Sequence

import regex

LETTERS = {"L": "L", "R": "R", "AL": "R"}  # the directions of bidirectional classes
DIRECTIONS = LETTERS | {"EN": "N", "AN": "N"}  # numbers, read from the left within any script
MIRRORED = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")
OVERRIDE = "\N{LEFT-TO-RIGHT OVERRIDE}{}\N{POP DIRECTIONAL FORMATTING}"  # or matplotlib 3.11 would order it once more
JOINS = {(False, False): "<isolated>", (False, True): "<initial>", (True, True): "<medial>", (True, False): "<final>"}


def is_right_to_left(text: str) -> bool:
    """Whether the first letter of a text is of a script that is."""
    return next((LETTERS[kind] == "R" for kind in map(unicodedata.bidirectional, text) if kind in LETTERS), False)


def in_visual_order(line: str, from_right: bool) -> str:
    """Returns a line as it is drawn from left to right; `from_right` says whether its words begin there."""
    if not from_right and not any(map(is_right_to_left, line)):
        return line
    characters = regex.findall(r"\X", line)  # with their marks
    order = visual_order(characters, from_right)
    return OVERRIDE.format("".join(characters[i].translate(MIRRORED) if turned else characters[i] for i, turned in order))


def visual_order(texts: Sequence[str], from_right: bool) -> list[tuple[int, bool]]:
    """Returns the places of the parts of a line from left to right, and whether each is read from right to left itself."""
    base = "R" if from_right else "L"
    levels = [{"L": 2 * from_right, "R": 1, "N": 2}[direction] for direction in resolve(texts, base)]  # odd: from the right
    order = [*range(len(texts))]
    for level in (2, 1):  # rule L2
        runs = [[*run] for _, run in itertools.groupby(order, lambda i, level=level: levels[i] >= level)]
        order = [i for run in runs for i in (run[::-1] if levels[run[0]] >= level else run)]
    return [(i, levels[i] == 1) for i in order]


def resolve(texts: Sequence[str], base: str) -> list[str]:
    """Returns L, R or N for each part of a line: the direction of its first letter or number, or else of those around it."""
    kinds = [[unicodedata.bidirectional(character) for character in text] for text in texts]
    known = [next((DIRECTIONS[kind] for kind in each if kind in DIRECTIONS), None) for each in kinds]
    for i, each in enumerate(kinds):  # rules W4 and W5: 12.5 and 50%
        around = [known[j] for j in (i - 1, i + 1) if 0 <= j < len(known)]
        if (each in (["CS"], ["ES"]) and around == ["N", "N"]) or (each == ["ET"] and "N" in around):
            known[i] = "N"
    letter = base
    for i, direction in enumerate(known):  # W7: a number is one with the letters before it that are read from the left too
        letter = direction if direction in ("L", "R") else letter
        known[i] = letter if (direction, letter) == ("N", "L") else direction
    before, after = fill(known, base), fill(known[::-1], base)[::-1]  # N1 and N2, to which numbers are as R
    return [direction or (left if left == right else base) for direction, left, right in zip(known, before, after, strict=True)]


def fill(directions: Sequence[str | None], base: str) -> list[str]:
    """Returns for each place the last direction up to it, L or R."""
    nearest = itertools.accumulate(directions, lambda last, new: {None: last, "N": "R"}.get(new, new), initial=base)
    return [*nearest][1:]


def join_arabic(text: str, drawable: Collection[int]) -> str:
    """Returns a text with each Arabic letter in the form that joins its neighbours, where that is drawable."""
    joined, letters = [*text], [i for i, character in enumerate(text) if unicodedata.category(character) != "Mn"]
    known = [{}, *(ARABIC_FORMS.get(text[i], {}) for i in letters), {}]  # of each letter, and before and after all
    for i, before, forms, after in zip(letters, known, known[1:], known[2:], strict=False):
        follows = "<initial>" in before and "<final>" in forms
        leads = "<initial>" in forms and "<final>" in after
        form = forms.get(JOINS[follows, leads], text[i])
        joined[i] = form if ord(form) in drawable else text[i]
    return "".join(joined)


def arabic_forms() -> dict[str, dict[str, str]]:
    """Returns the presentation forms of each Arabic letter, by <isolated>, <initial>, <medial> and <final>."""
    forms = {}
    for form in map(chr, (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFF00))):
        kind, *letters = unicodedata.decomposition(form).split() or [""]
        if len(letters) == 1:
            forms.setdefault(chr(int(letters[0], 16)), {})[kind] = form
    return forms


ARABIC_FORMS = arabic_forms()

"""Lines of right-to-left scripts in the order in which they are seen, for matplotlib draws each character after the one before.

The bidirectional algorithm of Unicode (Standard Annex #9) without embeddings and pairs of brackets, with numbers after Arabic
letters as after Hebrew ones, and Arabic letters in the forms that join.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence

import regex

# By bidirectional class: letters read from the left and from the right, numbers, and what may stand within or beside a number.
KINDS = {"L": "L", "R": "R", "AL": "R", "EN": "N", "AN": "N", "CS": "S", "ES": "S", "ET": "T"}
# Runs of kinds: what is read from the right in a line that is not, what from the left within that, numbers too; or one part.
FROM_RIGHT = re.compile("R(?:[^L]*(?:R|NT*))?|.")
FROM_LEFT = re.compile("(?:L(?:[^R]*(?:L|NT*))?|T*N(?:S?N)*T*)+|.")
MIRRORED = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")
OVERRIDE = "\N{LEFT-TO-RIGHT OVERRIDE}{}\N{POP DIRECTIONAL FORMATTING}"  # or matplotlib 3.11 would order it once more
JOINS = {(False, False): "<isolated>", (False, True): "<initial>", (True, True): "<medial>", (True, False): "<final>"}


def is_right_to_left(text: str) -> bool:
    """Whether the first letter of a text is of a script that is."""
    return next((kind == "R" for kind in map(kind_of, text) if kind in "LR"), False)


def in_visual_order(line: str, from_right: bool) -> str:
    """Returns a line as it is drawn from left to right; `from_right` says whether its words begin there."""
    if not from_right and not any(map(is_right_to_left, line)):
        return line
    characters = regex.findall(r"\X", line)  # with their marks
    order = visual_order(characters, from_right)
    return OVERRIDE.format("".join(characters[i].translate(MIRRORED) if turned else characters[i] for i, turned in order))


def visual_order(texts: Sequence[str], from_right: bool) -> list[tuple[int, bool]]:
    """Returns the places of the parts of a line from left to right, and whether each is read from right to left itself."""
    kinds, order = "".join(map(kind_of, texts)), []
    for start, end in [(0, len(kinds))] if from_right else [run.span() for run in FROM_RIGHT.finditer(kinds)]:
        is_turned = from_right or kinds[start] == "R"
        for part in [*FROM_LEFT.finditer(kinds, start, end)][::-1]:
            order += [(i, is_turned and not {"L", "N"} & {*part[0]}) for i in range(*part.span())]
    return order


def kind_of(text: str) -> str:
    """Returns the kind of the first letter or number of a part of a line, or else of its first character."""
    kinds = [KINDS.get(unicodedata.bidirectional(character), " ") for character in text]
    return next((kind for kind in kinds if kind in "LRN"), kinds[0])


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

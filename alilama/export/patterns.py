"""A pattern that cuts text, of the regex package, as JavaScript has it with its flags gu.

Every character, set and escape becomes the list of code points that the regex package finds by it, so nothing depends on the
Unicode version of a browser. What the two take in different ways is refused.
"""

from functools import cache

import regex

from alilama.common.errors import UserError
from alilama.data.tokenizer import PATTERNS

ALL = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))  # characters, without halves of surrogate pairs
OPENINGS = {"(?=": "(?=", "(?!": "(?!", "(?<=": "(?<=", "(?<!": "(?<!", "(?:": "(?:", "(?i:": "(?:", "(": "(?:"}
LOOK_AROUNDS = ("(?=", "(?!", "(?<=", "(?<!")
OPENING = regex.compile(r"\(\?(?:[:=!]|<[=!]|i:)|\((?![?*])")
TIMES = regex.compile(r"(?P<times>[?*+]|\{(?P<least>\d+)(?:,\d*)?\})(?P<how>[?+]?)")
SET = regex.compile(  # a set of sets, such as [[a-z]--[aeiou]], is none
    r"\[\^?\]?(?:\\[pP]\{\w+\}|\\[^pP]|[^\\\[\]])*\]|\\[pP]\{\w+\}|\\[sSdDwWrntfv]|\\[^\w\s]|\.|[^\\\[\](){}?*+|^$.]"
)
NEGATED = ("[^", r"\P", r"\S", r"\D", r"\W")


def to_javascript(pattern: str) -> str:
    """Returns what JavaScript cuts text by as the regex package does by `pattern`.

    Raises UserError for a pattern with parts that JavaScript has no equal of, or that nobody has needed yet.
    """
    return Translation(pattern).written


class Translation:
    """A pattern that is read from left to right, and what is `written` of it."""

    def __init__(self, pattern: str):
        self.pattern, self.place, self.num_taken = pattern, 0, 0
        self.mixes_case = "(?i:" in pattern and pattern not in PATTERNS.values()  # which do not come to the regex package
        self.written, may_be_empty = self._alternatives(any_case=False, looks_behind=False)
        if self.place < len(pattern):
            self._refuse()
        if may_be_empty:
            self._refuse("where it may match nothing, after which the two go on in different ways", 0)

    def _refuse(self, reason: str = "", place: int | None = None):
        place = self.place if place is None else place
        raise UserError(
            f"the pattern cannot be said in JavaScript from {self.pattern[place : place + 20]!r} on, "
            + (reason or "expected characters, sets, groups, alternatives, look-arounds and numbers of times")
        )

    def _take(self, expression: regex.Pattern) -> regex.Match | None:
        found = expression.match(self.pattern, self.place)
        self.place = found.end() if found else self.place
        return found

    def _alternatives(self, any_case: bool, looks_behind: bool) -> tuple[str, bool]:
        """Reads up to the end of a group; returns what is written for it, and whether it may match nothing."""
        written, may_be_empty, is_empty_so_far = [], False, True
        while self.place < len(self.pattern) and self.pattern[self.place] != ")":
            if self.pattern[self.place] == "|":
                self.place += 1
                written.append("|")
                may_be_empty, is_empty_so_far = may_be_empty or is_empty_so_far, True
                continue
            part, part_may_be_empty = self._repeated(any_case, looks_behind)
            written.append(part)
            is_empty_so_far = is_empty_so_far and part_may_be_empty
        return "".join(written), may_be_empty or is_empty_so_far

    def _repeated(self, any_case: bool, looks_behind: bool) -> tuple[str, bool]:
        """Reads one thing and how many times it stands there."""
        begin = self.place
        part, may_be_empty = self._one(any_case, looks_behind)
        times = self._take(TIMES)
        if times is None:
            return part, may_be_empty
        if may_be_empty:
            self._refuse("where nothing may be repeated", begin)
        written = part + times["times"]
        if times["how"] == "?":
            written += "?"
        elif times["how"] == "+":  # gives nothing back: what a look ahead has found is not searched again
            if looks_behind:
                self._refuse("where a look behind keeps all that it took", begin)
            self.num_taken += 1
            written = f"(?=(?<taken{self.num_taken}>{written}))\\k<taken{self.num_taken}>"
        return written, times["times"] in ("?", "*") or times["least"] == "0"

    def _one(self, any_case: bool, looks_behind: bool) -> tuple[str, bool]:
        """Reads a group or a set."""
        begin = self.place
        if opening := self._take(OPENING):
            kind = opening[0]
            inner, may_be_empty = self._alternatives(any_case or kind == "(?i:", looks_behind or "<" in kind)
            if self.pattern[self.place : self.place + 1] != ")":
                self._refuse()
            self.place += 1
            return f"{OPENINGS[kind]}{inner})", may_be_empty or kind in LOOK_AROUNDS
        found = self._take(SET)
        if found is None:
            self._refuse()
        plain = set_of(found[0], any_case)
        if self.mixes_case and not any_case and found[0].startswith(NEGATED) and plain != set_of(found[0], True):
            self._refuse("where the regex package looks at no case, as elsewhere in (?i:", begin)
        return plain, False


@cache
def set_of(expression: str, any_case: bool) -> str:
    """Returns a set in JavaScript of all characters that an expression of one matches."""
    ranges: list[list[int]] = []
    for code_point in map(ord, regex.findall(expression, ALL, flags=regex.IGNORECASE if any_case else 0)):
        if ranges and ranges[-1][1] == code_point - 1:
            ranges[-1][1] = code_point
        else:
            ranges.append([code_point, code_point])
    written = (rf"\u{{{first:x}}}" + (rf"-\u{{{last:x}}}" if last > first else "") for first, last in ranges)
    return f"[{''.join(written)}]"

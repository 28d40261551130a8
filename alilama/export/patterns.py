"""A pattern that cuts text, of the regex package, as JavaScript has it with its flags gu.

Every character, class and escape becomes the list of code points that the regex package finds by it, so nothing depends on the
Unicode version of a browser.
"""

from functools import cache

import regex

from alilama.common.errors import UserError

ALL = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))  # characters, without halves of surrogate pairs
# What a pattern is made of, in this order. A set of sets, such as [[a-z]--[aeiou]], is none of it.
PARTS = regex.compile(
    r"""(?P<open> \(\?(?:[:=!]|<[=!]|i:) | \((?!\?) )
    |   (?P<close> \) )
    |   (?P<either> \| )
    |   (?P<times> (?:[?*+]|\{\d+(?:,\d*)?\}) (?P<how>[?+]?) )
    |   (?P<set> \[\^?\]?(?:\\[pP]\{\w+\}|\\[^pP]|[^\\\[\]])*\] | \\[pP]\{\w+\} | \\[sSdDwWrntfv] | \\[^\w\s] | \.
               | [^\\\[\](){}?*+|^$.] )
    """,
    regex.VERBOSE | regex.DOTALL,
)


def to_javascript(pattern: str) -> str:
    """Returns what JavaScript cuts text by as the regex package does by `pattern`.

    Raises UserError for a pattern with parts that JavaScript has no equal of, or that nobody has needed yet.
    """
    if regex.match(pattern, ""):  # after an empty match the regex package looks at the same place again
        raise UserError("the pattern matches where there is nothing, which JavaScript goes on from in another way")
    written, groups, number = [], [], 0  # of each group that is open: where it begins in `written`, and whether it ignores case
    last = 0  # where what a number of times stands for begins
    place = 0
    while place < len(pattern):
        part = PARTS.match(pattern, place)
        if part is None:
            raise UserError(
                f"the pattern cannot be said in JavaScript from {pattern[place : place + 20]!r} on: expected characters, sets, "
                "groups, alternatives, look-arounds and numbers of times"
            )
        place = part.end()
        if part["open"]:
            groups.append((len(written), part["open"] == "(?i:" or ignores_case(groups)))
            written.append("(?:" if part["open"] in ("(", "(?i:") else part["open"])
        elif part["close"]:
            last = groups.pop()[0]
            written.append(")")
        elif part["either"]:
            written.append("|")
        elif part["times"]:
            times = part["times"].removesuffix(part["how"]) if part["how"] else part["times"]
            repeated = "".join(written[last:]) + times
            if part["how"] == "+":  # gives nothing back: what a look ahead has found is not searched again
                number += 1
                repeated = f"(?=(?<taken{number}>{repeated}))\\k<taken{number}>"
            written[last:] = [repeated + "?" if part["how"] == "?" else repeated]
        else:
            last = len(written)
            written.append(set_of(part["set"], ignores_case(groups)))
    return "".join(written)


def ignores_case(groups: list[tuple[int, bool]]) -> bool:
    return bool(groups) and groups[-1][1]


@cache
def set_of(expression: str, any_case: bool) -> str:
    """Returns a set in JavaScript of all characters that an expression of one matches."""
    matched = regex.findall(expression, ALL, flags=regex.IGNORECASE if any_case else 0)
    ranges: list[list[int]] = []
    for code_point in map(ord, matched):
        if ranges and ranges[-1][1] == code_point - 1:
            ranges[-1][1] = code_point
        else:
            ranges.append([code_point, code_point])
    return (
        "["
        + "".join(rf"\u{{{first:x}}}" if first == last else rf"\u{{{first:x}}}-\u{{{last:x}}}" for first, last in ranges)
        + "]"
    )

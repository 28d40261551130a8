"""Writes unicode_ranges.inc: which code points are letters, numbers, white space and marks, as the regex package has it."""

from pathlib import Path

import regex

CLASSES = {"kLetter": r"\p{L}", "kNumber": r"\p{N}", "kSpace": r"\s", "kMark": r"\p{M}"}


def ranges(pattern: str) -> list[tuple[int, int]]:
    """Returns the inclusive ranges of code points that `pattern` matches, in order."""
    matches, found = regex.compile(pattern).match, []
    for code_point in range(0x110000):
        if matches(chr(code_point)):
            if found and found[-1][1] == code_point - 1:
                found[-1] = (found[-1][0], code_point)
            else:
                found.append((code_point, code_point))
    return found


def main():
    rows = [
        f"{{0x{first:04X}, 0x{last:04X}, CharClass::{name}}},"
        for name, pattern in CLASSES.items()
        for first, last in ranges(pattern)
    ]
    lines = [" ".join(rows[i : i + 3]) for i in range(0, len(rows), 3)]
    header = f"// Made by make_unicode_ranges.py from regex {regex.__version__}; do not edit."
    Path(__file__).with_name("unicode_ranges.inc").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

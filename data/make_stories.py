"""Makes short stories for children, made up from scratch: the demo text for whoever has no text at hand.

    python data/make_stories.py --megabytes 8 --seed 1 --out data/demo/stories.txt

All words and plots are in stories.grammar beside this file, whose head says how to read it. To add a plot, write it there:

    plot the hiccups:
      {pair}

      {Day}, {hero} had the hiccups. | {Day}, {hero} could not stop hiccupping.
      "[I sound like a frog/Hic]!" {cried}. | {hero} {ran} to {friend} and drank {drink}. | {sad}
      {friend} jumped out from behind the door, and the hiccups were gone. {glad friend}

      Sometimes a friend is the best medicine. | -
      {friends}

The same seed gives the same bytes on every Python from 3.10 on, because every choice is made with
random.Random(seed).random(), the one method whose results Python promises to keep.
"""

import argparse
import os
import random
import re
import sys
from pathlib import Path

SEPARATOR = "<|endoftext|>"
CHOICE = re.compile(r"\[([^]]*)\]")
SLOT = re.compile(r"\{([^}]*)\}")
A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")

Row = dict[str, str]  # a row of a table, by column
Rule = list[list[list[str]]]  # paragraphs of sentences of alternatives


class Grammar:
    """The tables, rules and plots in the text of a grammar; a list of words is a table with one column."""

    def __init__(self, text: str):
        self.tables: dict[str, list[Row]] = {}
        self.rules: dict[str, Rule] = {}
        self.plots: dict[str, Rule] = {}
        text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
        for section in re.split(r"\n+(?=\S)", text.strip()):
            heading, body = section.split(":", 1)
            kind, name = heading.split(" ", 1)
            lines = [line.strip() for line in body.strip().split("\n")]
            if kind == "words":
                self.tables[name] = [{name: word} for word in " ".join(lines).split(", ")]
            elif kind == "table":
                columns, *rows = [line.split("; ") for line in lines]
                self.tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]
            else:
                paragraphs = "\n".join(lines).replace("\n|", " |").split("\n\n")
                rule = [[line.split(" | ") for line in paragraph.split("\n")] for paragraph in paragraphs]
                {"rule": self.rules, "plot": self.plots}[kind][name] = rule


GRAMMAR = Grammar(Path(__file__).with_name("stories.grammar").read_text(encoding="ascii"))


class Story:
    """One telling of a plot: its cast, the words chosen for it, and its paragraphs."""

    def __init__(self, rng: random.Random, plot: Rule, grammar: Grammar = GRAMMAR):
        self.random, self.grammar = rng.random, grammar
        self.words: dict[str, Row] = {}  # by the slot's name: "toy", "toy2"
        self.cast: dict[str, Row] = {}  # by role: all words that depend on who it is
        company, [hers, his] = self.pick(grammar.tables["company"]), grammar.tables["gender"]
        one, other = self.pick([(hers, his), (his, hers)])  # so that "he" and "she" are never the same
        kind = self.pick(grammar.tables["kind"])
        friends = [each for each in grammar.tables["kind"] if each["hand"] == kind["hand"]]
        self.cast["hero"] = {**one, **kind, "name": company[one["child"]]}
        self.cast["friend"] = {**other, **self.pick(friends), "name": company[other["child"]]}
        self.cast["elder"] = {**other, **kind, "name": company[other["grownup"]]}
        self.paragraphs = self.tell(plot, self.cast["hero"])

    def text(self) -> str:
        return A_BEFORE_VOWEL.sub(r"\1n ", "\n".join(self.paragraphs))

    def pick(self, options: list):
        return options[int(self.random() * len(options))]

    def tell(self, rule: Rule, who: Row) -> list[str]:
        """Returns the paragraphs of a plot or rule about `who`."""
        told = [[self.fill(self.pick(sentence), who) for sentence in paragraph] for paragraph in rule]
        return [" ".join(sentence for sentence in paragraph if sentence != "-") for paragraph in told]

    def fill(self, text: str, who: Row) -> str:
        """Returns a text with its choices made and its slots filled."""
        text = CHOICE.sub(lambda choice: self.pick(choice[1].split("/")), text)
        return SLOT.sub(lambda slot: self.slot(slot[1], who), text)

    def slot(self, slot: str, who: Row) -> str:
        """Returns what a slot such as "toy", "trick.plan", "His" or "glad friend" stands for in a sentence about `who`."""
        name, _, role = slot.partition(" ")
        name, who = name.lower(), self.cast.get(role, who)
        if name in self.grammar.rules:
            [text] = self.tell(self.grammar.rules[name], who)
        elif name in self.cast:
            text = self.cast[name]["name"]
        else:
            text = self.fill(who["name"] if name == "who" else who.get(name) or self.word(name), who)
        return text[0].upper() + text[1:] if slot[0].isupper() else text

    def word(self, slot: str) -> str:
        """Returns a word of a table, whose row the story takes once and keeps: a slot that ends in a digit has its own."""
        slot, _, column = slot.partition(".")
        if slot not in self.words:
            table = self.grammar.tables[slot.rstrip("0123456789")]
            self.words[slot] = self.pick([row for row in table if row not in self.words.values()])
        row = self.words[slot]
        return row[column or next(iter(row))]


def make_story(rng: random.Random) -> Story:
    """Returns the next story."""
    plots = list(GRAMMAR.plots.values())
    return Story(rng, plots[int(rng.random() * len(plots))])


def write_stories(path: Path, megabytes: float, seed: int):
    """Writes `megabytes` (of a million bytes) of stories to `path`, all of them or nothing.

    The file ends with the first story that reaches the size. Raises ValueError if `megabytes` is not a positive number.
    """
    if not 0 < megabytes < float("inf"):
        raise ValueError(f"megabytes is {megabytes}; give a number above 0, such as 8")
    rng, size, line = random.Random(seed), 0, ""
    part = Path(f"{path}.part")
    part.unlink(missing_ok=True)
    try:
        with open(part, "x", encoding="ascii", newline="\n") as file:  # which follows no link
            while size < megabytes * 1e6:
                size += file.write(f"{line}{make_story(rng).text()}\n")
                line = f"{SEPARATOR}\n"
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description="Writes short stories for children, made up from scratch.")
    parser.add_argument("--megabytes", type=float, default=8, help="how much to write, in millions of bytes (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="the same number gives the same stories (default 1)")
    parser.add_argument("--out", type=Path, default=Path("data/demo/stories.txt"), help="the file (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_stories(args.out, args.megabytes, args.seed)
    except (ValueError, OSError) as error:
        sys.exit(f"make_stories.py: {error}")
    except KeyboardInterrupt:
        sys.exit(f"make_stories.py: interrupted; {args.out} is as it was before")
    print(f"{args.out.stat().st_size / 1e6:.1f} MB of stories in {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])

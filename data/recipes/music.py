r"""Folk tunes in ABC notation, which writes music as text: makes the text, and measures whether the bars of a model add up.

    python data/recipes/music.py make --out data/music       # from the tunes that come with music21, or --abc FOLDER
    python tokenize_data.py --data_files=data/music/train.jsonl --val_files=data/music/valid.jsonl \
        --tokens_dir=data/music/tokens --pattern='[^\n| ]+|[\s\S]' --vocab_size=1024
    python train.py --tokens_dir=data/music/tokens --model_name=music --minutes=10
    python data/recipes/music.py score models/music

A document is a tune: its meter, the unit of its note lengths and its key, by which it can be asked for, then title and notes.
The pattern cuts at spaces and bar lines, so that a token may be several notes with their lengths.
Notes keep their accidentals, lengths, ties, tuplets, chords, grace notes and bars; slurs, ornaments, fingerings, chord names,
comments and all other fields go.
"""

import hashlib
import importlib.util
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from alilama import stream_texts
from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import replacing
from alilama.model.folder import load_model

FOLDERS = ("airdsAirs", "essenFolksong", "miscFolk", "nottingham-dataset", "oneills1850", "ryansMammoth")  # of music21's corpus
HELD_OUT = 0.05  # of the tunes
OPENING_NOTES, PASSAGE_NOTES = 12, 16  # make tunes that share them one family
COPIED_BARS = (4, 8)
HEAD = re.compile(r"M:.*\nL:.*\nK:.*\n")  # of every document

# ---- reading ABC: https://abcnotation.com/wiki/abc:standard:v2.1 ----

PITCH = r"(?:\^\^?|__?|=)?[A-Ga-g](?:,+|'+)?"
LENGTH = r"\d*(?:/+\d*)?"
FIELD = r"^[A-Za-z]:(?![|:]).*$"  # A:| is a note and a repeat
SYMBOL = re.compile(
    rf"(?P<field>{FIELD})"
    r"|(?P<bar>(?::*\|[\]|:]*|\[\|[\]|:]*|::+)(?:\[?[1-9])?|\[[1-9])"
    r"|(?P<grace>\{[^{}|\n]*\})"
    r"|\((?P<tuplet>[2-9])(?::(?P<time>[1-9]?)(?::(?P<count>[1-9]?))?)?"
    rf"|(?P<note>z|{PITCH}|\[(?:{PITCH}{LENGTH})+\])(?P<length>{LENGTH})"
    r"|(?P<pair>>+|<+)"
    r"|(?P<blank>[ \n-])",  # and ties, which change no length
    re.MULTILINE,
)


@dataclass
class Bar:
    """What stands between two bar lines; lengths are in whole notes."""

    meter: Fraction | None
    opens: bool  # a part of the tune: it stands at the start, or after a double bar, a repeat or the number of an ending
    closes: bool = False
    is_broken: bool = False  # has what is no ABC, or a tuplet or a dotted pair that lacks notes
    notes: list[tuple[int | None, Fraction]] = field(default_factory=list)  # (step on the staff, None for a rest; length)

    @property
    def length(self) -> Fraction:
        return sum((length for _, length in self.notes), Fraction(0))


class Reader:
    """Reads a tune, symbol by symbol, into the bars that have something in them."""

    def __init__(self):
        self.bars: list[Bar] = []
        self.meter, self.unit = "", Fraction(1, 8)
        self.begin_bar(opens=True)

    def read(self, lines: str):
        """Reads whole lines: the tune, or what follows of it."""
        at = 0
        while at < len(lines):
            symbol = SYMBOL.match(lines, at)
            at = symbol.end() if symbol else at + 1
            self.read_symbol(symbol)

    def begin_bar(self, opens: bool):
        self.bar = Bar(read_fraction(self.meter), opens)
        self.speed, self.num_in_tuplet = Fraction(1), 0  # of a tuplet: factor of its lengths, how many notes are to come
        self.factor = Fraction(1)  # of the next note, after > or <

    def end_bar(self, closes: bool):
        self.bar.is_broken |= self.num_in_tuplet > 0 or self.factor != 1
        self.bar.closes = closes
        if self.bar.notes or self.bar.is_broken:
            self.bars.append(self.bar)
        elif self.bars:  # nothing between two bar lines: they are one
            self.bars[-1].closes |= closes

    def read_symbol(self, symbol: re.Match | None):
        """Reads the next symbol, None for a character that is none."""
        if symbol is None:
            self.bar.is_broken = True
        elif symbol["field"]:
            self.read_field(symbol["field"][0], symbol["field"][2:].strip())
        elif symbol["bar"]:
            is_seam, was_empty = symbol["bar"] != "|", not self.bar.notes
            self.end_bar(closes=is_seam)
            self.begin_bar(opens=is_seam or (was_empty and self.bar.opens))
        elif symbol["tuplet"]:
            self.read_tuplet(int(symbol["tuplet"]), symbol["time"], symbol["count"])
        elif symbol["note"]:
            self.read_note(symbol["note"], symbol["length"])
        elif symbol["pair"]:
            self.read_pair(symbol["pair"])

    def read_field(self, name: str, value: str):
        if name not in "ML":
            return
        number = read_fraction(value)
        self.bar.is_broken |= number is None
        if name == "L":
            self.unit = number or self.unit
        else:
            self.meter = value
            self.bar.meter = self.bar.meter if self.bar.notes else number

    def read_tuplet(self, size: int, time: str | None, count: str | None):
        """(p:q:r: r notes, p of which take the time of q."""
        is_compound = self.meter.split("/")[0] in ("6", "9", "12")
        usual = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(size, 3 if is_compound else 2)
        self.bar.is_broken |= self.num_in_tuplet > 0
        self.speed, self.num_in_tuplet = Fraction(int(time or usual), size), int(count or size)

    def read_note(self, note: str, factor: str):
        length = self.unit * read_length(factor) * self.factor * (self.speed if self.num_in_tuplet else 1)
        if note[0] == "[":  # a chord is as long as its first note
            length *= read_length(re.search(f"{PITCH}({LENGTH})", note)[1])
        self.bar.is_broken |= length == 0
        self.bar.notes.append((step_of(note), length))
        self.num_in_tuplet = max(0, self.num_in_tuplet - 1)
        self.factor = Fraction(1)

    def read_pair(self, signs: str):
        """A>B: A gets half of B, A>>B three quarters of it; A<B the other way round."""
        given = Fraction(1, 2 ** len(signs))
        first, second = (2 - given, given) if signs[0] == ">" else (given, 2 - given)
        if not self.bar.notes or self.factor != 1:
            self.bar.is_broken = True
            return
        step, length = self.bar.notes[-1]
        self.bar.notes[-1] = (step, length * first)
        self.factor = second


def read_bars(tune: str) -> list[Bar]:
    reader = Reader()
    reader.read(tune)
    reader.end_bar(closes=True)
    return reader.bars


def read_fraction(text: str) -> Fraction | None:
    """Returns the meter or the unit that a field names, None for what is neither."""
    return Fraction(text) if re.fullmatch(r"[1-9]\d?/[1-9]\d?", text) else None


def read_length(text: str) -> Fraction:
    """Returns the factor that stands after a note: 3, 3/2, / for 1/2, // for 1/4; 0 for what is no length."""
    number, slashes, divisor = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()
    below = int(divisor) if divisor else 2 ** len(slashes)
    return Fraction(int(number or 1), below) if below else Fraction(0)


def step_of(note: str) -> int | None:
    """Returns on which step of the staff a note, or the first one of a chord, stands: 0 is C; None for a rest."""
    found = re.search(r"([A-Ga-g])(,*)('*)", note)
    return found and "CDEFGABcdefgab".index(found[1]) + 7 * (len(found[3]) - len(found[2]))


def add_up(bars: list[Bar]) -> list[bool]:
    """Returns for each bar whether its notes fill the meter.

    A short bar where a part of the tune opens, a pickup, and a short one where a part closes do so together.
    """
    opening = [bar for bar in bars if bar.opens]
    closing = [bar for bar in bars if bar.closes]

    def is_full(bar: Bar) -> bool:
        others = (closing if bar.opens else []) + (opening if bar.closes else [])
        lengths = [Fraction(0)] + [other.length for other in others if other is not bar]
        return not bar.is_broken and any(bar.length + length == bar.meter for length in lengths)

    return [is_full(bar) for bar in bars]


# ---- make ----


class LeftOut(Exception):
    """Why a tune is no document."""


def make(folders: list[Path], out: Path):
    """Writes train.jsonl and valid.jsonl into `out`, and says what went into them."""
    tunes, reasons = [], Counter()
    for path in sorted(path for folder in folders for path in folder.rglob("*.abc")):
        for source in re.split(r"^X:.*$", path.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)[1:]:
            try:
                tunes.append(document_of(source.strip()))
            except LeftOut as reason:
                reasons[str(reason)] += 1
    if not tunes:
        raise UserError(f"{', '.join(map(str, folders))}: no tune that can be used in any .abc file there; name other folders")
    found = len(tunes)
    tunes = list({re.sub(r"\nT:.*", "", tune): tune for tune in tunes}.values())  # one of those that differ by title only
    numbers = families(tunes)
    held_out = hold_out(tunes, numbers)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", [not held for held in held_out]), ("valid", held_out)):
        rows = [json.dumps({"text": tune}, ensure_ascii=False) + "\n" for tune, is_in in zip(tunes, part, strict=True) if is_in]
        with replacing(out / f"{name}.jsonl") as file:
            file.write("".join(rows).encode())
        print(f"{out / name}.jsonl: {len(rows):,} tunes, {(out / f'{name}.jsonl').stat().st_size / 1e6:.2f} MB")
    sizes = Counter(numbers)
    relatives = sum(size for size in sizes.values() if size > 1)
    print(f"{len(sizes):,} families, the largest of {max(sizes.values()):,}; {relatives:,} tunes are not alone in theirs")
    print(f"left out: {found - len(tunes):,} copies, " + ", ".join(f"{number:,} {why}" for why, number in reasons.items()))


def document_of(source: str) -> str:
    """Returns what is kept of a tune, given without its line X:."""
    source = re.sub(r"^%.*\n|%.*|\r", "", source, flags=re.MULTILINE)
    head, key, body = re.match(r"(.*?)(?:^(K:[^\n]*)(.*)|\Z)", source, re.MULTILINE | re.DOTALL).groups()
    fields = {line[0]: line for line in reversed(re.findall(FIELD, head, re.MULTILINE))}  # the first of each
    if key is None or "M" not in fields:
        raise LeftOut("without meter or key")
    lines = [tidy_field(fields["M"])]
    usual_unit = "L:1/16" if read_fraction(lines[0][2:]) < Fraction(3, 4) else "L:1/8"
    lines += [tidy_field(fields.get("L", usual_unit)), tidy_field(key)]
    lines += ["T:" + " ".join(fields["T"][2:].split())] if "T" in fields else []
    body = re.sub(r"\[([KLM]:[^\]]*)\]", r"\n\1\n", body.strip().partition("\n\n")[0])
    reader = Reader()
    reader.read("\n".join(lines))
    for line in filter(None, map(tidy_line, body.split("\n"))):
        reader.read(line)
        is_full = bool(reader.bar.notes) and reader.bar.length == reader.bar.meter  # and lacks its line, as in essenFolksong
        reader.read("|" if is_full else "")
        lines.append(line + "|" if is_full else line)
    reader.end_bar(closes=True)
    if not reader.bars or any(bar.is_broken for bar in reader.bars):
        raise LeftOut("with notes that cannot be read")
    if sum(add_up(reader.bars)) < len(reader.bars) / 2:
        raise LeftOut("with another meter than they say")
    return "\n".join(lines)


def tidy_line(line: str) -> str:
    """Returns what is kept of a line after the key."""
    if re.fullmatch(FIELD, line):
        if line[0] == "V":
            raise LeftOut("in several voices")
        return tidy_field(line) if line[0] in "KLM" else ""
    if "[V:" in line:
        raise LeftOut("in several voices")
    line = re.sub(r'"[^"]*"|![^! |]*!|\[[A-Z]:[^\]]*\]', "", line)  # chord names and fingerings, !trill!, [P:A]
    line = re.sub(r"\((?![2-9])|[)\\!`.~H-Wh-wy]", "", line)  # slurs, continued lines, staccato, bows and ornaments
    line = re.sub(r"\s*([|:<>]+)\s*", r"\1", line.replace("x", "z"))
    return re.sub(r"\|{3,}", "|", " ".join(line.split()))


def tidy_field(line: str) -> str:
    """Returns M:, L: or K: as it is written everywhere: 4/4 for C, Em for E Minor."""
    name, value = line[0], line[2:].strip()
    if name == "K":
        found = re.fullmatch(r"([A-G][b#]?) ?(m|(?i:maj|min|mix|dor|lyd|phr|aeo)[A-Za-z]*|)", value)
        value = found and found[1] + {"maj": "", "min": "m"}.get(found[2].lower()[:3], found[2].lower()[:3])
    else:
        value = {"C": "4/4", "C|": "2/2"}.get(value, value)
        value = value if read_fraction(value) else None
    if value is None:
        raise LeftOut({"K": "in an unusual key", "M": "without a fixed meter", "L": "with an unusual unit"}[name])
    return f"{name}:{value}"


def families(tunes: list[str]) -> list[int]:
    """Returns a number for each tune, the same for tunes that have a trait in common, or are so linked by others."""
    parents = list(range(len(tunes)))

    def family(tune: int) -> int:
        while parents[tune] != tune:
            parents[tune] = parents[parents[tune]]
            tune = parents[tune]
        return tune

    first = {}
    for number, tune in enumerate(tunes):
        for trait in traits(tune):
            parents[family(number)] = family(first.setdefault(trait, number))
    return [family(number) for number in range(len(tunes))]


def traits(tune: str) -> Iterator[object]:
    """Yields what relatives share, in any key and rhythm: the title, the first 12 notes, or 16 notes in a row anywhere."""
    title = re.search(r"^T:(.*)$", tune, re.MULTILINE)
    if title and (words := re.findall(r"\w+", title[1].lower())):
        yield " ".join(words)
    steps = [step for bar in read_bars(tune) for step, _ in bar.notes if step is not None]
    rises = tuple(after - before for before, after in itertools.pairwise(steps))
    yield "opening", rises[: OPENING_NOTES - 1]
    size = PASSAGE_NOTES - 1
    yield from (rises[at : at + size] for at in range(len(rises) - size + 1))


def hold_out(tunes: list[str], numbers: list[int]) -> list[bool]:
    """Returns which tunes are held out: whole families, in an order that says nothing about them."""

    def place(family: int) -> bytes:
        return hashlib.sha256(tunes[family].encode()).digest()

    sizes, chosen, num_chosen = Counter(numbers), set(), 0
    for family in sorted(sizes, key=place):
        if num_chosen + sizes[family] <= HELD_OUT * len(tunes):
            chosen.add(family)
            num_chosen += sizes[family]
    return [number in chosen for number in numbers]


# ---- score ----


def score(folder: Path, data: Path, out: Path, num_tunes: int, **sampling):
    """Lets a model write tunes to the meters and keys of held-out ones, and prints how those of both hold together."""
    real = read_rows(data / "valid.jsonl")
    real = sorted(real, key=lambda tune: hashlib.sha256(tune.encode()).digest())[:num_tunes]
    known = {passage for tune in read_rows(data / "train.jsonl") for passage in passages(read_bars(tune))}
    written, ended = write_tunes(folder, [HEAD.match(tune)[0] for tune in real], **sampling)
    print(f"{'of ' + str(len(real)) + ' tunes each':50}  written  held out")
    print(f"{'tunes that end by themselves':50}  {sum(ended) / len(ended):7.1%}")
    columns = [measure(tunes, known) for tunes in (written, real)]
    for name, ours in columns[0].items():
        print(f"{name:50}  {ours:7.1%}  {columns[1][name]:8.1%}")
    with replacing(out) as file:
        file.write("\n".join(to_abc(tune, number) for number, tune in enumerate(written, 1)).encode())
    bars = [read_bars(tune) for tune in written]
    whole = [number for number, end in enumerate(ended) if end and len(bars[number]) >= 8 and all(add_up(bars[number]))]
    print(f"All that were written are in {out}; of 8 bars or more, ended and with all bars full is first:")
    print(to_abc(written[whole[0]], whole[0] + 1) if whole else "none")


def read_rows(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_bytes().splitlines()]


def write_tunes(folder: Path, prompts: list[str], max_new_tokens: int, **sampling) -> tuple[list[str], list[bool]]:
    """Returns the tunes that a model writes after each prompt, and which of them it ended."""
    model, tokenizer = load_model(folder)
    steps = list(stream_texts(model, tokenizer, prompts, max_new_tokens=max_new_tokens, **sampling))
    tunes = ["".join(parts) for parts in zip(prompts, *steps, strict=True)]
    return tunes, [not last for last in steps[:max_new_tokens][-1]]


def measure(tunes: list[str], known: set[tuple]) -> dict[str, float]:
    """Returns shares of tunes, bars and passages, by what they are."""
    bars = [read_bars(tune) for tune in tunes]
    full = [add_up(each) for each in bars]
    shares = {
        "tunes that are ABC from end to end": [not any(bar.is_broken for bar in each) for each in bars],
        "bars whose notes fill the meter": [is_full for each in full for is_full in each],
        "tunes all of whose bars do": [all(each) for each in full],
    }
    for length in COPIED_BARS:
        found = [passage in known for each in bars for passage in passages(each) if len(passage) == length]
        shares[f"{length} bars in a row that a training tune has"] = found
    try:
        readings = [read_by_music21(tune) for tune in tunes]
    except ImportError:
        print("pip install music21 to see which tunes it parses")
    else:
        shares["tunes in which music21 finds no error"] = [length is not None for length in readings]
        shares["... and music that lasts as long as here"] = [
            length == sum(bar.length for bar in each) for length, each in zip(readings, bars, strict=True)
        ]
    return {name: sum(values) / max(1, len(values)) for name, values in shares.items()}


def passages(bars: list[Bar]) -> Iterator[tuple]:
    """Yields what is played in every 4 and 8 bars in a row."""
    played = [hash(tuple(bar.notes)) for bar in bars]
    for length in COPIED_BARS:
        yield from (tuple(played[at : at + length]) for at in range(len(bars) - length + 1))


def read_by_music21(tune: str) -> Fraction | None:
    """Returns how many whole notes the music lasts that music21 finds in a tune, None where it raises an error."""
    from music21 import converter

    try:
        notes = converter.parseData(to_abc(tune, 1), format="abc").flatten().notesAndRests
        return sum((Fraction(note.quarterLength) for note in notes), Fraction(0)) / 4
    except Exception:  # music21 has no error for what is no ABC: whatever happens first is raised
        return None


def to_abc(tune: str, number: int) -> str:
    """Returns a tune as programs for ABC want it: with a number, and the title before the meter."""
    head, title, notes = re.fullmatch(rf"({HEAD.pattern})(T:.*\n)?((?:.|\n)*)", tune).groups()
    return f"X:{number}\n{title or ''}{head}{notes}\n"


def main(argv: list[str]):
    parser = ArgumentParser(description="Folk tunes in ABC notation: makes the text, and measures a model that learned them.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write train.jsonl and valid.jsonl")
    making.add_argument("--out", type=Path, default=Path("data/music"), help="folder that they go into [%(default)s]")
    making.add_argument("--abc", type=Path, nargs="+", help="folders of .abc files [those of the package music21]")
    scoring = commands.add_parser("score", help="let a model write tunes, and measure them")
    scoring.add_argument("model", type=Path, help="folder of the model")
    scoring.add_argument("--data", type=Path, default=Path("data/music"), help="where make wrote to [%(default)s]")
    scoring.add_argument("--out", type=Path, default=Path("tunes.abc"), help="file for the tunes [%(default)s]")
    scoring.add_argument("--num_tunes", type=int, default=100, help="how many tunes [%(default)s]")
    scoring.add_argument("--max_new_tokens", type=int, default=1000, help="longest tune, in tokens [%(default)s]")
    scoring.add_argument("--temperature", type=float, default=0.8, help="lower keeps to what is likely [%(default)s]")
    scoring.add_argument("--seed", type=int, default=1, help="the same seed writes the same tunes [%(default)s]")
    args = vars(parser.parse_args(argv))
    if args.pop("command") == "make":
        make(args["abc"] or music21_folders(), args["out"])
    else:
        score(args.pop("model"), args.pop("data"), args.pop("out"), args.pop("num_tunes"), **args)


def music21_folders() -> list[Path]:
    """Returns where music21 keeps its folk tunes."""
    found = importlib.util.find_spec("music21")
    if found is None:
        raise UserError("the tunes come with the package music21: pip install music21, or name folders of .abc files by --abc")
    return [Path(found.origin).parent / "corpus" / folder for folder in FOLDERS]


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

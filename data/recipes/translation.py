"""English to German, or to another language, learned from the message catalogues that a Debian system carries.

    python data/recipes/translation.py make --locale /usr/share/locale --language de --out data/translation
    python tokenize_data.py --data_files=data/translation/train.jsonl --val_files=data/translation/valid.jsonl \\
        --tokens_dir=data/translation/tokens
    python train.py --tokens_dir=data/translation/tokens --model_name=translation --minutes=10
    python data/recipes/translation.py score models/translation --data data/translation

A catalogue, .mo or its source .po, holds the messages of a program and what they are in a language. A row is a message in
English and in that language: {"prompt": "Open file", "completion": "Datei öffnen"}.
"""

import argparse
import hashlib
import json
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from alilama import load_model, stream_texts
from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import replacing
from alilama.model.device import choose_device

HELD_OUT = 500  # messages
MAX_LETTERS = 200  # of a message
LISTS = "iso_"  # what catalogues begin with that are lists of names, of languages and places, and no messages
SHOWN = 10  # translations

MO_MAGIC = 0x950412DE
FIELD = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr\[0\]|msgstr\[\d+\]|msgstr)?\s*"(.*)"$')
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
MARKS = "_&"  # before the letter that a key press chooses: _File of GTK, &File of Qt and KDE
PLACEHOLDER = re.compile(
    r"%(?:\d+\$)?(?:\(\w+\))?[-#0+' ]?[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|z|j|t|L)?[a-zA-Z@](?![a-z])|%L?\d+|%%"
    r"|\{\w*\}|\$\{?\w+\}?|@\w+@|</?\w[^>]*>|&\w+;"
)
WORD = re.compile(r"[^\W\d_]+")


# ---- make ----


def make(locale: Path, language: str, out: Path):
    """Writes train.jsonl and valid.jsonl of the messages of a language."""
    catalogues = find_catalogues(locale, language)
    pairs = choose_pairs(pair for path in catalogues for pair in read_catalogue(path))
    if len(pairs) <= HELD_OUT:
        raise UserError(
            f"{locale} has {len(pairs):,} messages in {language!r} that can be used, and {HELD_OUT} are held out: "
            "name a folder with more catalogues, or another language"
        )
    train, valid = split(pairs)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("valid", valid)):
        with replacing(out / f"{name}.jsonl") as file:
            for english, other in rows:
                file.write((json.dumps({"prompt": english, "completion": other}, ensure_ascii=False) + "\n").encode())
        print(f"{out / name}.jsonl: {len(rows):,} messages, {(out / f'{name}.jsonl').stat().st_size / 1e6:.1f} MB")
    print(f"from {len(catalogues)} catalogues in {locale}")


def find_catalogues(locale: Path, language: str) -> list[Path]:
    """Returns the .mo and .po files of a language, in whichever folders they are: de/LC_MESSAGES/git.mo, po/de.po."""
    found = [path for ending in ("mo", "po") for path in locale.rglob(f"*.{ending}") if path.is_file()]
    found = [path for path in found if language in (*path.relative_to(locale).parts, path.stem)]
    found = sorted(path for path in found if not path.name.startswith(LISTS))
    if not found:
        raise UserError(f"{locale} has no message catalogues (.mo, .po) in {language!r}; name another folder or language")
    return found


def read_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the messages of a catalogue, English first, as programs know them: without context, in the first plural form."""
    try:
        pairs = list((read_mo if path.suffix == ".mo" else read_po)(path.read_bytes()))
    except (struct.error, LookupError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged, or no message catalogue ({error}); leave it out") from None
    for english, other in pairs:
        if english:  # the header has none
            yield english.rpartition("\x04")[2].partition("\0")[0], other.partition("\0")[0]


def read_mo(data: bytes) -> Iterator[tuple[str, str]]:
    """Yields the entries of a compiled catalogue: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html"""
    order = "<" if data[:4] == struct.pack("<I", MO_MAGIC) else ">"
    magic, _, number, *tables = struct.unpack_from(f"{order}5I", data)
    if magic != MO_MAGIC:
        raise LookupError("it does not begin as one")
    encoding = "ascii"
    for entry in range(number):
        places = [struct.unpack_from(f"{order}2I", data, table + 8 * entry) for table in tables]
        english, other = (data[start : start + length] for length, start in places)
        if not english:
            encoding = encoding_of(other)
        yield english.decode(encoding), other.decode(encoding)


def read_po(data: bytes) -> Iterator[tuple[str, str]]:
    """Yields the entries of the source of a catalogue that are translated and not marked as doubtful."""
    for block in re.split(r"\n\s*\n", data.decode(encoding_of(data)).replace("\r\n", "\n")):
        entry, field = defaultdict(str), None
        for line in block.split("\n"):
            if found := FIELD.match(line.strip()):
                field = found[1] or field
                entry[field] += re.sub(r"\\(.)", lambda escaped: ESCAPES.get(escaped[1], escaped[1]), found[2])
        if not re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE):
            yield entry["msgid"], entry["msgstr"] or entry["msgstr[0]"]


def encoding_of(header: bytes) -> str:
    found = re.search(rb"charset=([\w.:-]+)", header)
    return found[1].decode() if found else "ascii"


def choose_pairs(pairs: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns each message once, with the translation that most catalogues have; those that differ in case, marks or
    digits alone are one."""
    counts = defaultdict(Counter)
    for english, other in pairs:
        if "|" in english and "|" not in other:
            english = english.rpartition("|")[2]  # what the older way to give a context leaves: calendar|Islamic
        english, other = clean(english, other), clean(other, english)
        if is_usable(english, other):
            counts[letters(english)][english, other] += 1
    return [count.most_common(1)[0][0] for count in counts.values()]


def clean(text: str, translation: str) -> str:
    """Returns a text in one line without the mark before the letter that a key press chooses.

    An underscore within a word that is in the translation too belongs to a name, such as LC_ALL.
    """
    text = re.sub(r"\([_&]\w\)", "", text)  # as in Chinese, where no letter of the word is on a key
    for mark in MARKS:
        words = text.split()
        marked = [
            word for word in words if re.search(rf"{mark}\w", word) and (word[0] == mark or word not in translation.split())
        ]
        if text.count(mark) == 1 and marked and not PLACEHOLDER.search(marked[0]):
            text = text.replace(mark, "")
    return " ".join(text.split())


def is_usable(english: str, other: str) -> bool:
    """Whether a pair is a translation to learn from: words, not too long, another text, the same placeholders."""
    placeholders = [sorted(re.sub(r"\d+\$", "", found) for found in PLACEHOLDER.findall(text)) for text in (english, other)]
    return (
        max(len(english), len(other)) <= MAX_LETTERS
        and bool(letters(english) and letters(other))
        and english != other
        and placeholders[0] == placeholders[1]
    )


def letters(text: str) -> str:
    """Returns the words of a text in small letters, without placeholders, digits and punctuation."""
    return " ".join(WORD.findall(PLACEHOLDER.sub(" ", text).lower()))


def split(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns what is trained on and what is held out, in an order that depends on the words only.

    Messages of the same words, however often and in whatever order, are on the same side, of the held-out ones one of each.
    """
    groups = defaultdict(list)
    for pair in pairs:
        groups[" ".join(sorted(set(letters(pair[0]).split())))].append(pair)
    order = sorted(groups, key=lambda words: hashlib.sha256(words.encode()).digest())
    return [pair for words in order[HELD_OUT:] for pair in groups[words]], [groups[words][0] for words in order[:HELD_OUT]]


# ---- score ----


def score(folder: Path, data: Path):
    """Translates the held-out messages and says how near that is to the translations of people, beside simple means."""
    try:
        from sacrebleu.metrics import CHRF
    except ImportError:
        raise UserError("chrF is measured by the package sacrebleu: pip install sacrebleu") from None
    train, valid = (read_rows(data / f"{name}.jsonl") for name in ("train", "valid"))
    english, references = zip(*valid, strict=True)
    ways = {
        "the English, copied": list(english),
        "the most similar message of the training text": nearest_translations(train, english),
        folder.name: translate(folder, english),
    }
    for message, reference, translation in list(zip(english, references, ways[folder.name], strict=True))[:SHOWN]:
        print(f"{message}\n    {translation}\n    [{reference}]")
    chrf = CHRF()
    print(f"\n{len(valid)} held-out messages {'':28}  chrF   exact")
    for name, translations in ways.items():
        exact = sum(map(str.__eq__, translations, references))
        print(f"{name:48}{chrf.corpus_score(translations, [list(references)]).score:>6.2f}{exact:>8}")
    print(chrf.get_signature())


def read_rows(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        raise UserError(f"{path} is missing: run {Path(__file__).name} make first, and name its folder by --data")
    rows = map(json.loads, path.read_bytes().splitlines())
    return [(row["prompt"], row["completion"]) for row in rows]


def translate(folder: Path, texts: tuple[str, ...]) -> list[str]:
    """Returns what a model makes of each text, the likeliest token each time."""
    model, tokenizer = load_model(folder, choose_device())
    steps = stream_texts(model, tokenizer, texts, max_new_tokens=MAX_LETTERS, temperature=0)
    return ["".join(parts).strip() for parts in zip(*steps, strict=True)]


def nearest_translations(train: list[tuple[str, str]], texts: tuple[str, ...]) -> list[str]:
    """Returns for each text the translation of the training message most like it by trigrams (Dice), the first of equals."""
    known = [trigrams(english) for english, _ in train]
    having = defaultdict(list)
    for place, grams in enumerate(known):
        for gram in grams:
            having[gram].append(place)
    found = []
    for grams in map(trigrams, texts):
        shared = Counter(place for gram in grams for place in having[gram])
        best = max(shared, key=lambda place: (2 * shared[place] / (len(grams) + len(known[place])), -place), default=0)
        found.append(train[best][1])
    return found


def trigrams(text: str) -> set[str]:
    text = f"  {text.lower()} "
    return {text[at : at + 3] for at in range(len(text) - 2)}


def main(argv: list[str]):
    arguments = parse_arguments(argv)
    if arguments.command == "make":
        make(arguments.locale, arguments.language, arguments.out)
    else:
        score(arguments.model, arguments.data)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(description="English to another language, from the message catalogues of programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write train.jsonl and valid.jsonl")
    maker.add_argument("--locale", type=Path, default=Path("/usr/share/locale"), help="folder with catalogues [%(default)s]")
    maker.add_argument("--language", default="de", help="as its folder or file is called [%(default)s]")
    maker.add_argument("--out", type=Path, default=Path("data/translation"), help="folder that they go into [%(default)s]")
    scorer = commands.add_parser("score", help="translate the held-out messages and measure it")
    scorer.add_argument("model", type=Path, help="folder of the model")
    scorer.add_argument("--data", type=Path, default=Path("data/translation"), help="what make wrote [%(default)s]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

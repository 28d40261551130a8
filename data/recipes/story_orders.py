"""Stories told to order: a model that is given words, and how the story shall end, and writes that story.

    python data/download_tinystories.py --max_stories 20000        # or any text with lines <|endoftext|> between stories
    python data/recipes/story_orders.py make --stories data/raw/tinystories.txt --valid data/tinystories_valid.txt
    python tokenize_data.py --data_files=data/story_orders/train.jsonl --val_files=data/story_orders/valid.jsonl \\
        --tokens_dir=data/story_orders/tokens --init_from=models/alilama_7M
    python train.py --tokens_dir=data/story_orders/tokens --model_name=story_orders --d_model=256 --blocks=8 \\
        --max_seq_len=512 --batch_size=32 --dropout=0.15 --epochs=12 --eval_tokens=None
    python data/recipes/story_orders.py score models/story_orders --baseline models/alilama_7M

So models/alilama_7M_orders was made, in half a minute of an NVIDIA H200. On a CPU models/alilama_2M was trained on with orders:
`--init_from=models/alilama_2M` in both commands, and `--max_seq_len=512 --batch_size=8 --learning_rate=0.045 --minutes=10`.

A row is an order, made from a story, and the story: {"prompt": "words: dragon, cake; end: happy", "completion": "Once ..."}.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from alilama import load_model, stream_texts
from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import replacing
from alilama.data.tokenizer import END_OF_TEXT
from alilama.model.device import choose_device
from alilama.model.folder import find_pretrained

SEED = 1
MOST_WORDS = 4  # of an order
RAREST, MOST_FREQUENT = 0.001, 0.2  # shares of the stories that a word may be in to be asked for
WORD = re.compile(r"(?<![\w'’-])[a-z]{3,}(?![\w'’-])")  # in small letters: names are not asked for
FUNCTION_WORDS = set(
    WORD.findall("""
        about after again all also always and any anymore anything are around away back because been before behind being both
        but came can come could did does doing done down each else end even ever every everyone everything for from get gets
        getting give going gone got had has have having her here hers herself him himself his how however into its itself just
        kept know let lot lots made make many may maybe might more most much must near never new next not nothing now off often
        one only onto other others our out over own put really said same saw says see she should since some someone something
        soon still such take than that the their them then there these they thing things this those though through time
        together too took toward towards two under until upon use used very want was way well went were what when where which
        while who whole why will with without would yes yet you your
    """)
)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”]?\s+(?![a-z])")
HAPPY = set(
    WORD.findall("""
        happy happily glad smile smiled smiling laughed laughing fun friends proud love loved hugged good great nice better
        best safe enjoyed joy excited cheered thanked
    """)
)
SAD = set(
    WORD.findall("""
        sad sadly cry cried crying tears lost gone alone lonely died hurt angry sorry broken upset wished ruined
    """)
)
LESSON = {"learned", "learnt", "lesson", "moral"}
ENDS = ("happy", "sad", "lesson")
ENDING = re.compile(r"(?<=...)(?:ing|ed|es|s|ly)$")

SCORED_WORDS, MOST_SCORED = 3, 200  # words of an order, and orders
BATCH = 50  # stories written at once
MAX_TOKENS, TEMPERATURE = 400, 0.7
BEGINNING = "Once upon a time"  # what a model that takes no orders begins with
SHOWN = 3  # stories


# ---- make ----


def make(stories: Path, valid: Path, out: Path):
    """Writes train.jsonl and valid.jsonl, with an order for each story that one can be made from."""
    held_out = set(map(words_only, read_stories(valid)))
    if not held_out:
        raise UserError(f"{valid} holds no story; expected text with lines {END_OF_TEXT} between stories")
    frequencies, number = Counter(), 0
    for story in read_stories(stories):
        frequencies.update(set(WORD.findall(story)))
        number += 1
    askable = {word for word, count in frequencies.items() if RAREST * number <= count <= MOST_FREQUENT * number}
    askable -= FUNCTION_WORDS
    if not askable:
        raise UserError(f"{stories} has no words to ask for in {number} stories: name a text with more stories")
    print(f"{len(askable):,} words may be asked for")
    out.mkdir(parents=True, exist_ok=True)
    rows_of = {
        "train": (story for story in read_stories(stories) if words_only(story) not in held_out),
        "valid": read_stories(valid),
    }
    for name, part in rows_of.items():
        rng = random.Random(SEED)
        ends = Counter()
        with replacing(out / f"{name}.jsonl") as file:
            for story in part:
                if order := make_order(story, askable, rng):
                    ends[parse_order(order)[1]] += 1
                    file.write((json.dumps({"prompt": order, "completion": story}, ensure_ascii=False) + "\n").encode())
        found = ", ".join(f"{end or 'none'} {count:,}" for end, count in sorted(ends.items(), key=str))
        print(f"{out / name}.jsonl: {ends.total():,} stories; ends: {found}")


def read_stories(path: Path) -> Iterator[str]:
    """Yields the stories of a text in which lines <|endoftext|> separate them, without white space around them."""
    lines = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip() != END_OF_TEXT:
                lines.append(line)
                continue
            yield from filter(None, ["".join(lines).strip()])
            lines = []
    yield from filter(None, ["".join(lines).strip()])


def words_only(story: str) -> str:
    """Returns what two copies of a story have in common however they are printed."""
    return " ".join(re.findall(r"\w+", story.lower()))


def make_order(story: str, askable: set[str], rng: random.Random) -> str | None:
    """Returns an order for a story: one to four of its words in any order, and often how it ends. None where it has no word.

    A happy end, which most stories have, is asked for half of the time, another one always; one that is in doubt never.
    """
    words = sorted(set(WORD.findall(story)) & askable)
    if not words:
        return None
    number = 1 + int(rng.random() * MOST_WORDS)
    words = sorted(words, key=lambda _: rng.random())[:number]
    end = end_of(story)
    return order_text(words, None if end == "happy" and rng.random() < 0.5 else end)


def order_text(words: list[str], end: str | None = None) -> str:
    return f"words: {', '.join(words)}" + (f"; end: {end}" if end else "")


def parse_order(order: str) -> tuple[list[str], str | None]:
    """Returns the words and the end of an order."""
    words, _, end = order.partition("; end: ")
    return words.removeprefix("words: ").split(", "), end or None


def end_of(story: str) -> str | None:
    """Returns how a story ends by the words of its last two sentences, "The end." not counted; None where they are in doubt.

    It is a lesson where one is named, happy or sad where there are words of only that kind. Sad words after "not" or before
    "anymore" say the opposite, so that sentences with these are in doubt.
    """
    story = re.sub(r"\bthe end\W*$", "", story, flags=re.IGNORECASE)
    words = set(re.findall(r"[a-z]+", " ".join(SENTENCE_END.split(story.strip())[-2:]).lower()))
    is_happy, is_sad = bool(words & HAPPY), bool(words & SAD)
    if words & LESSON:
        return "lesson"
    if is_happy == is_sad or (is_sad and words & {"not", "anymore"}):
        return None
    return "happy" if is_happy else "sad"


# ---- score ----


def score(folder: Path, data: Path, baseline: Path):
    """Has a model write what held-out orders ask for and counts how much of it is there, beside a model that gets no order."""
    asked = read_orders(data / "valid.jsonl")
    stories = {f"{baseline.name}, given no order": write(baseline, [BEGINNING] * len(asked))}
    for end in (None, *ENDS):
        name = f"{folder.name}, {'words only' if end is None else f'and end: {end}'}"
        stories[name] = write(folder, [order_text(words, end) for words in asked])
    for words, story in list(zip(asked, stories[f"{folder.name}, words only"], strict=True))[:SHOWN]:
        print(f"{order_text(words)}\n\n{story}\n")
    print(f"{len(asked)} held-out orders of {SCORED_WORDS} words; temperature {TEMPERATURE}, seed {SEED}")
    print(
        f"{'share in %':36}{'the words: each':>16}{'all':>5}{'inflected too: each':>21}{'all':>5}   the end: {'  '.join(ENDS)}"
    )
    for name, texts in stories.items():
        each, everything = shares_found(asked, texts, str)
        each_inflected, all_inflected = shares_found(asked, texts, stem)
        ends = [100 * sum(end_of(text) == end for text in texts) / len(texts) for end in ENDS]
        print(
            f"{name:36}{each:>16.1f}{everything:>5.0f}{each_inflected:>21.1f}{all_inflected:>5.0f}"
            f"{ends[0]:>17.0f}{ends[1]:>5.0f}{ends[2]:>8.0f}"
        )


def read_orders(path: Path) -> list[list[str]]:
    """Returns the words of the first orders of a file that ask for as many as are scored."""
    if not path.exists():
        raise UserError(f"{path} is missing: run {Path(__file__).name} make first, and name its folder by --data")
    orders = [parse_order(json.loads(line)["prompt"])[0] for line in path.read_bytes().splitlines()]
    orders = [words for words in orders if len(words) == SCORED_WORDS][:MOST_SCORED]
    if not orders:
        raise UserError(f"{path} has no order of {SCORED_WORDS} words: make it from more stories")
    return orders


def write(folder: Path, prompts: list[str]) -> list[str]:
    """Returns what a model writes after each prompt."""
    model, tokenizer = load_model(folder, choose_device())
    settings = {"max_new_tokens": MAX_TOKENS, "temperature": TEMPERATURE, "seed": SEED}
    batches = [prompts[at : at + BATCH] for at in range(0, len(prompts), BATCH)]
    steps = (zip(*stream_texts(model, tokenizer, batch, **settings), strict=True) for batch in batches)
    return ["".join(parts).strip() for batch in steps for parts in batch]


def shares_found(asked: list[list[str]], stories: list[str], form: Callable[[str], str]) -> tuple[float, float]:
    """Returns which share of the asked words is in its story, and of how many stories all are, both in percent.

    A word is there where one of the story has the same form.
    """
    found = []
    for words, story in zip(asked, stories, strict=True):
        there = set(map(form, re.findall("[a-z]+", story.lower())))
        found.append([form(word) in there for word in words])
    words = [is_there for story in found for is_there in story]
    return 100 * sum(words) / len(words), 100 * sum(map(all, found)) / len(found)


def stem(word: str) -> str:
    """Returns what cake, cakes and caked, fly and flies, run and running, happy and happily have in common."""
    root = ENDING.sub("", word)
    root = re.sub(r"([^aeiou])\1$", r"\1", root)
    return re.sub(r"(?<=..)(?:e|i|y)$", "", root)


def main(argv: list[str]):
    arguments = parse_arguments(argv)
    if arguments.command == "make":
        make(arguments.stories, arguments.valid, arguments.out)
    else:
        score(arguments.model, arguments.data, arguments.baseline)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(description="Stories told to order: of given words, and with a given end.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write train.jsonl and valid.jsonl")
    maker.add_argument("--stories", type=Path, default=Path("data/raw/tinystories.txt"), help="to train on [%(default)s]")
    maker.add_argument("--valid", type=Path, default=Path("data/tinystories_valid.txt"), help="held out [%(default)s]")
    maker.add_argument("--out", type=Path, default=Path("data/story_orders"), help="folder that they go into [%(default)s]")
    scorer = commands.add_parser("score", help="have stories written and count what of the orders is in them")
    scorer.add_argument("model", type=Path, help="folder of the model")
    scorer.add_argument("--data", type=Path, default=Path("data/story_orders"), help="what make wrote [%(default)s]")
    scorer.add_argument("--baseline", type=Path, default=find_pretrained(), help="a model that takes no orders [%(default)s]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

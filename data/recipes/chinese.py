"""Pages of LibreOffice's help in Chinese, or another of its languages, and the same pages in English to compare with.

Where LibreOffice is installed with its help, that is a folder with a folder for each language; on Debian and Ubuntu without it:

    apt-get download libreoffice-help-zh-cn libreoffice-help-en-us
    for package in libreoffice-help-*.deb; do dpkg-deb -x $package help; done

    python data/recipes/chinese.py make --help_folder help/usr/share/libreoffice/help --out data/chinese
    python data/recipes/chinese.py vocabularies --data data/chinese
    python tokenize_data.py --data_files=data/chinese/train.jsonl --val_files=data/chinese/valid.jsonl \\
        --tokens_dir=data/chinese/tokens
    python train.py --tokens_dir=data/chinese/tokens --model_name=chinese --minutes=5
    python data/recipes/chinese.py score models/chinese --data data/chinese

The English pages are in data/chinese/english, with the same commands. Both hold the same paragraphs, so that what a model
needs to write them down may be compared page by page, whatever script they are in.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import replacing

ENGLISH = "en-US"
HELD_OUT = 20  # every so many-th page, in an order that says nothing about it
PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
BROKEN = "\ufffd"  # stands where bytes are no character
VOCAB_SIZES = (1024, 2048, 4096, 8192, 16384)


# ---- make ----


class Page(HTMLParser):
    """The paragraphs of a help page by their ids, which are the same in all languages; shared ones are in it several times."""

    def __init__(self, html: str):
        super().__init__()
        self.paragraphs: dict[str, str] = {}
        self.id, self.hidden = None, 0  # of the paragraph, and how deep within words for another system
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]):
        attributes = dict(attributes)
        if tag in PARAGRAPHS:
            self.id = attributes.get("id")
            self.id = None if self.id in self.paragraphs else self.id
        elif tag == "span" and (self.hidden or {"hidden", "class"} <= attributes.keys()):
            self.hidden += 1
        elif tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str):
        if tag in PARAGRAPHS:
            self.id = None
        elif tag == "span" and self.hidden:
            self.hidden -= 1

    def handle_data(self, data: str):
        if self.id is not None and not self.hidden:
            self.paragraphs[self.id] = self.paragraphs.get(self.id, "") + data


def make(help_folder: Path, language: str, out: Path):
    """Writes the translated pages, and beside them the same paragraphs in English."""
    for name in (language, ENGLISH):
        if not (help_folder / name).is_dir():
            raise UserError(f"{help_folder}: there is no folder {name} in it; give the folder of LibreOffice's help in both")
    paths = sorted(path.relative_to(help_folder / language) for path in (help_folder / language).rglob("*.html"))
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest())
    held_out = {*shuffled[::HELD_OUT]}
    splits = {"train": [], "valid": []}
    seen = set()
    for path in paths:
        pages = [help_folder / name / path for name in (language, ENGLISH)]
        if all(page.exists() for page in pages):
            pairs = translated(*(Page(page.read_text(encoding="utf-8")).paragraphs for page in pages), seen)
            if pairs:
                splits["valid" if path in held_out else "train"].append(pairs)
    if not splits["train"] or not splits["valid"]:
        raise UserError(f"{help_folder / language}: too few of its pages are in {ENGLISH} too, and in another language there")
    for which, folder in enumerate((out, out / "english")):
        folder.mkdir(parents=True, exist_ok=True)
        for split, documents in splits.items():
            write_texts(folder / f"{split}.jsonl", ["\n".join(pair[which] for pair in pairs) for pairs in documents])


def translated(texts: dict[str, str], english: dict[str, str], seen: set[str]) -> list[tuple[str, str]]:
    """Returns the paragraphs of a page in two languages, without those that were left in English and those seen before.

    What differs from one seen before only in digits, signs or capitals, in either language, is left out too.
    """
    pairs = []
    for id in [id for id in texts if id in english]:
        pair = " ".join(texts[id].split()), " ".join(english[id].split())
        keys = {re.sub(r"[\W\d_]", "", text).casefold() for text in pair}
        if len(keys) == 2 and not keys & (seen | {""}):
            pairs.append(pair)
            seen |= keys
    return pairs


def write_texts(path: Path, texts: list[str]):
    with replacing(path) as file:
        file.writelines(f"{json.dumps({'text': text}, ensure_ascii=False)}\n".encode() for text in texts)
    sizes = f"{sum(map(len, texts)):,} characters, {sum(len(text.encode()) for text in texts):,} bytes"
    print(f"{path}: {len(texts):,} pages, {sizes}")


# ---- vocabularies ----


def vocabularies(data: Path, sizes: Iterable[int], patterns: Iterable[str]):
    """Prints how long the held-out pages are in the tokens of vocabularies that are learned from the others."""
    from alilama import Tokenizer

    texts = read_texts(data / "valid.jsonl")
    num_bytes, num_characters = sum(len(text.encode()) for text in texts), sum(map(len, texts))
    print(f"{'pattern':>8}{'vocabulary':>12}{'bytes per token':>18}{'tokens per character':>22}")
    for pattern in patterns:
        for size in sizes:
            tokenizer = Tokenizer.train(str(data / "train.jsonl"), size, pattern=pattern)
            tokens = sum(len(tokenizer.encode(text)) for text in texts)
            print(f"{pattern:>8}{tokenizer.vocab_size:>12,}{num_bytes / tokens:>18.2f}{tokens / num_characters:>22.2f}")


# ---- score ----


def score(model_folder: Path, data: Path, number: int, max_new_tokens: int, temperature: float, seed: int, shown: int):
    """Prints what a model needs for the held-out pages, and what is in those that it writes."""
    from alilama import load_model, stream_texts
    from alilama.training.scoring import encode_files, evaluate

    texts, known = read_texts(data / "valid.jsonl"), sentences_of(read_texts(data / "train.jsonl"))
    model, tokenizer = load_model(model_folder)
    context = model.config.max_seq_len
    ids = encode_files(tokenizer, [str(data / "valid.jsonl")])
    found = evaluate(model, tokenizer, ids, context, stride=max(1, context // 8))
    bits = found.nats / math.log(2)
    print(f"{len(texts)} held-out pages of {found.bytes:,} bytes, in windows of {context} of {tokenizer.vocab_size:,} tokens:")
    per_character, per_page = bits / sum(map(len, texts)), bits / len(texts)
    print(f"{found.bits_per_byte:.3f} bits per byte, {per_character:.3f} per character, {per_page:,.0f} per page")

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    steps = stream_texts(model, tokenizer, [""] * number, **sampling)
    written = ["".join(parts).rstrip(BROKEN) for parts in zip(*steps, strict=True)]  # the last, of those that were cut, may be
    for text in written[:shown]:
        print(f"{text}\n{'-' * 40}")
    sentences = sentences_of(written)
    print(
        f"{number} pages written, {sum(map(len, written)):,} characters, {''.join(written).count(BROKEN)} of them broken; "
        f"{len(sentences):,} different sentences, {len(sentences & known) / max(1, len(sentences)):.0%} of them in the text"
    )


def sentences_of(texts: list[str]) -> set[str]:
    """Returns the sentences of ten characters and more in texts."""
    parts = {part.strip() for text in texts for part in re.split(r"[。！？\n]|(?<=[.!?]) ", text)}
    return {part for part in parts if len(part) >= 10}


def read_texts(path: Path) -> list[str]:
    if not path.exists():
        raise UserError(f"{path} is not there: run python data/recipes/chinese.py make --out {path.parent} first")
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").split("\n") if line]


def main(argv: list[str]):
    parser = ArgumentParser(description="LibreOffice's help in Chinese, or another language, and in English.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write train.jsonl and valid.jsonl, and the same in English")
    usual = Path("/usr/share/libreoffice/help")
    maker.add_argument("--help_folder", type=Path, default=usual, help="with a folder for each language [%(default)s]")
    maker.add_argument("--language", default="zh-CN", help="folder of the language [%(default)s]")
    maker.add_argument("--out", type=Path, default=Path("data/chinese"), help="folder that they go into [%(default)s]")
    counter = commands.add_parser("vocabularies", help="how long the text is in the tokens of several vocabularies")
    counter.add_argument("--data", type=Path, default=Path("data/chinese"), help="where make wrote [%(default)s]")
    counter.add_argument("--sizes", type=int, nargs="+", default=VOCAB_SIZES, help="of the vocabularies [%(default)s]")
    counter.add_argument("--patterns", nargs="+", default=["gpt4", "qwen35", "gpt2"], help="[%(default)s]")
    scorer = commands.add_parser("score", help="what a model needs for the held-out pages, and what it writes")
    scorer.add_argument("model_folder", type=Path, metavar="model", help="folder of the model")
    scorer.add_argument("--data", type=Path, default=Path("data/chinese"), help="where make wrote [%(default)s]")
    scorer.add_argument("--number", type=int, default=50, help="how many pages to have written [50]")
    scorer.add_argument("--max_new_tokens", type=int, default=256, help="longest page, in tokens [256]")
    scorer.add_argument("--temperature", type=float, default=0.7, help="of the sampling [0.7]")
    scorer.add_argument("--seed", type=int, default=1, help="of the sampling [1]")
    scorer.add_argument("--shown", type=int, default=3, help="how many pages to print [3]")
    arguments = vars(parser.parse_args(argv))
    {"make": make, "vocabularies": vocabularies, "score": score}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

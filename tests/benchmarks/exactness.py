"""Compares the tokenizer with its peers on much text: python tests/benchmarks/exactness.py --stories FILE --source FOLDER

Needs pip install -r tests/benchmarks/requirements.txt. Text is made in blocks, each another mixture of stories, source code
and generated text in many scripts, and cut into chunks at the same places for everybody. Ids must be tiktoken's and those of
`tokenizers`, decoding must give the text back, merges must be rustbpe's and depend on neither threads nor blocks. Characters
younger than the Unicode tables of a peer are left out. Ends at the first difference.
"""

import argparse
import json
import os
import random
import string
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import rustbpe

import alilama.data.text
from alilama.data.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data" / "tokenizer"))
from oracles import PATTERN_STRINGS
from test_exactness import CODE_POINTS, Peers, found_by_tiktoken, found_by_tokenizers, too_young

BLOCK_CHARS = 1 << 20
CHUNK_CHARS = 1 << 17
VOCAB_SIZES = (4096, 50_000)
Kind = Callable[[random.Random, int], str]  # makes text of about so many characters

# ---- kinds of text ----

SCRIPTS = {
    "Chinese": [(0x4E00, 0x9FA5), (0x3001, 0x3002)],
    "Japanese": [(0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x5FFF)],
    "Korean": [(0xAC00, 0xD7A3), (0x1100, 0x1112)],
    "Arabic": [(0x0621, 0x0652), (0x0660, 0x0669)],
    "Hindi": [(0x0900, 0x0965), (0x0966, 0x096F)],
    "Thai": [(0x0E01, 0x0E3A), (0x0E40, 0x0E5B)],
    "Russian": [(0x0410, 0x044F)],
    "Greek": [(0x0391, 0x03A1), (0x03A3, 0x03CE)],
    "Hebrew": [(0x0591, 0x05C7), (0x05D0, 0x05EA)],
    "Latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F)],
    "mathematics": [(0x2190, 0x22FF), (0x1D400, 0x1D7FF), (0x2070, 0x209C)],
    "combining": [(0x61, 0x7A), (0x0300, 0x036F), (0x20D0, 0x20F0)],
    "symbols": [(0x21, 0x2F), (0x3A, 0x40), (0x2010, 0x2046)],
}
EMOJI = [
    *map(chr, range(0x1F300, 0x1F650)),
    "👩\u200d👩\u200d👧\u200d👦",
    "🏳\ufe0f\u200d🌈",
    "👍🏽",
    "🇫🇷",
    "🇩🇪",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
    "🧑🏿\u200d🚀",
    " ",
    "\u200d",
    "\ufe0f",
]
WHITE_SPACE = [
    *" \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000",
    "\r\n",
    "    ",
    "\n\n",
]
SUFFIXES = ["s", "t", "re", "ve", "m", "ll", "d", "ſ", "x", "l", "v", "r", "sx", "llo", "K"]
WORDS = ["the", "of", "and", "a", "don", "you", "I", "it", "O", "rock", "She", "WE", "they", "été", "жил", "l'a'b"]


def of_code_points(rng: random.Random, code_points: np.ndarray, size: int) -> str:
    chosen = np.random.default_rng(rng.getrandbits(64)).choice(code_points, size)
    return chosen.astype("<u4").tobytes().decode("utf-32-le")


def words_in(ranges: list[tuple[int, int]]) -> Kind:
    letters = np.concatenate([np.arange(first, last + 1) for first, last in ranges])
    letters = np.array([code_point for code_point in letters if chr(code_point) in agreed()])

    def make(rng: random.Random, size: int) -> str:
        few = np.array(rng.sample(letters.tolist(), min(len(letters), rng.choice([8, 40, 10_000]))))  # words come again
        gaps = np.array([ord(rng.choice("   \n\r,.!'1-\u3000"))] * (1 + len(few) // rng.randint(3, 12)))
        return of_code_points(rng, np.concatenate([few, gaps]), size)

    return make


def from_parts(make_part: Callable[[random.Random], str]) -> Kind:
    def make(rng: random.Random, size: int) -> str:
        parts, length = [], 0
        while length < size:
            parts.append(make_part(rng))
            length += len(parts[-1])
        return "".join(parts)

    return make


def number(rng: random.Random) -> str:
    digits = rng.choice(["0123456789"] * 6 + ["٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹½⅓ⅫⅣ〇①"])
    text = "".join(rng.choices(digits, k=rng.randint(1, 25)))
    written = [
        text,
        f"{rng.random()}",
        f"-{rng.random() * 1e9:,.2f}",
        hex(rng.getrandbits(48)),
        f"{text}%",
        f"${text}e-7",
        f"20{text[:2]}-{text[2:4]}-{text[4:6]}T{text[6:8]}:00",
    ]
    return rng.choice(written) + rng.choice([" ", ", ", "\n", "", "/"])


def address(rng: random.Random) -> str:
    names = ["".join(rng.choices(string.ascii_letters + string.digits + "-_%~", k=rng.randint(1, 12))) for _ in range(5)]
    path = f"{names[1]}/{names[2]}.html?{names[3]}={names[4]}&x=%20#a"
    return f"https://{names[0]}.org:{rng.randint(1, 9999)}/{path}" + rng.choice(" \n")


def json_text(rng: random.Random) -> str:
    value = {address(rng)[8:14]: [rng.random(), None, True, {"naïve \u2028 '": rng.choice(WORDS), "id": rng.getrandbits(40)}]}
    text = json.dumps(value, indent=rng.choice([None, 1, 4, "\t"]), ensure_ascii=rng.random() < 0.5)
    return text + rng.choice(["\n", "\r\n"])


def contraction(rng: random.Random) -> str:
    suffix = "".join(rng.choice([char.lower(), char.upper()]) for char in rng.choice(SUFFIXES))
    return rng.choice(WORDS) + rng.choice("''''’`") + suffix + rng.choice(["", " ", "  ", "'", "\n", "1", "!"])


def broken_bytes(rng: random.Random, size: int) -> str:
    return rng.randbytes(size).decode("utf-8", "replace")


def lines_of(rng: random.Random, size: int) -> str:
    ending = rng.choice(["\r\n", "\r", "\n", "\r\n\r\n", " \r\n", "\u2028"])
    return from_parts(lambda rng: "".join(rng.choices("abc XYZ 12!\t", k=rng.randint(0, 30))) + ending)(rng, size)


def slices_of(text: str) -> Kind:
    def make(rng: random.Random, size: int) -> str:
        start = rng.randrange(max(1, len(text) - size))
        return text[start : start + size]

    return make


_agreed: set[str] = set()


def agreed() -> set[str]:
    """The characters that everybody's Unicode tables agree on."""
    if not _agreed:
        _agreed.update(set(map(chr, CODE_POINTS)) - too_young(found_by_tiktoken) - too_young(found_by_tokenizers))
    return _agreed


def read_source(folder: Path, max_bytes: int) -> str:
    """Returns Python files below a folder, in a random order."""
    files = sorted(folder.rglob("*.py"))
    random.Random(1).shuffle(files)
    texts, size = [], 0
    while files and size < max_bytes:
        texts.append(files.pop().read_text("utf-8", "replace"))
        size += len(texts[-1])
    return "".join(texts)


def kinds_of_text(stories: Path | None, source: Path | None) -> dict[str, Kind]:
    everything = np.array([ord(char) for char in agreed()])
    in_planes = [everything[everything < limit] for limit in (0x80, 0x3000, 0x20000, 0x110000)]
    kinds: dict[str, Kind] = {name: words_in(ranges) for name, ranges in SCRIPTS.items()}
    kinds |= {
        "emoji": lambda rng, size: "".join(rng.choices(EMOJI, k=size)),
        "white space": lambda rng, size: "".join(rng.choices(WHITE_SPACE + ["a"] * rng.choice([0, 3, 30]), k=size)),
        "line ends": lines_of,
        "random code points": lambda rng, size: of_code_points(rng, rng.choice(in_planes), size),
        "numbers": from_parts(number),
        "addresses": from_parts(address),
        "JSON": from_parts(json_text),
        "contractions": from_parts(contraction),
        "broken bytes": broken_bytes,
    }
    if stories:
        documents = stories.read_text("utf-8", "replace").split("<|endoftext|>")
        random.Random(1).shuffle(documents)
        kinds["stories"] = slices_of("".join(documents))
    if source:
        kinds["source"] = slices_of(read_source(source, 40_000_000))
    return kinds


def make_blocks(kinds: dict[str, Kind], num_bytes: int) -> Iterator[str]:
    """Yields texts of some megabytes, each with its own weights for the kinds, until they have `num_bytes`."""
    too_young_ones = dict.fromkeys(map(ord, too_young(found_by_tiktoken) | too_young(found_by_tokenizers)))
    made, index = 0, 0
    while made < num_bytes:
        rng = random.Random(index)
        weights = [rng.random() ** 4 for _ in kinds]
        parts, length = [], 0
        while length < BLOCK_CHARS:
            make = rng.choices(list(kinds.values()), weights)[0]
            parts.append(make(rng, rng.choice([3, 30, 300, 3000])))
            length += len(parts[-1])
        text = "".join(parts)
        if not text.isascii() and not agreed().issuperset(text):
            text = text.translate(too_young_ones)
        yield text
        made += len(text.encode())
        index += 1


# ---- comparisons ----


def first_difference(ours: np.ndarray, theirs: np.ndarray, tokenizer: Tokenizer) -> str:
    size = min(len(ours), len(theirs))
    places = np.flatnonzero(ours[:size] != theirs[:size])
    place = int(places[0]) if len(places) else size
    around = slice(max(0, place - 3), place + 4)
    return (
        f"token {place}: ours {ours[around].tolist()}, theirs {theirs[around].tolist()}, "
        f"text {tokenizer.decode_bytes(ours[around])!r}"
    )


def compare_encoding(blocks: Iterable[str], peers: dict[str, Peers], tokenizers_bytes: int):
    """Encodes every block by every tokenizer; `tokenizers` takes part until it has seen so many bytes for each pattern."""
    done = dict.fromkeys(peers, 0)
    seen = dict.fromkeys(PATTERN_STRINGS, 0)
    tokens = 0
    for index, block in enumerate(blocks):
        chunks = [block[i : i + CHUNK_CHARS] for i in range(0, len(block), CHUNK_CHARS)]
        size = len(block.encode())
        for turn, (name, peer) in enumerate(peers.items()):
            ids = [peer.ours.encode_to_numpy(chunk) for chunk in chunks]
            tokens += sum(map(len, ids))
            for number, (chunk, ours) in enumerate(zip(chunks, ids, strict=True)):
                where = f"{name}, block {index}, chunk {number}: "
                theirs = peer.tiktoken.encode_to_numpy(chunk, disallowed_special=())
                assert np.array_equal(ours, theirs), where + "not tiktoken's; " + first_difference(ours, theirs, peer.ours)
                assert peer.ours.decode_bytes(ours) == chunk.encode(), where + "the text does not come back"
            done[name] += size
            if seen[peer.ours.pattern] < tokenizers_bytes and index % len(VOCAB_SIZES) == turn % len(VOCAB_SIZES):
                for number, (chunk, ours) in enumerate(zip(chunks, ids, strict=True)):
                    theirs = np.array(peer.hugging_face.encode_batch_fast([chunk], add_special_tokens=False)[0].ids)
                    assert np.array_equal(ours, theirs), (
                        f"{name}, block {index}, chunk {number}: not those of tokenizers; "
                        + first_difference(ours, theirs, peer.ours)
                    )
                seen[peer.ours.pattern] += size
    for name, size in done.items():
        print(f"  {name:12} {size / 1e6:6.1f} MB: ids equal tiktoken's, and the text comes back")
    for pattern, size in seen.items():
        print(f"  {pattern:12} {size / 1e6:6.1f} MB: ids equal those of tokenizers")
    print(f"  {sum(done.values()) / 1e6:.0f} MB and {tokens:,} tokens compared in all")


def compare_training(documents: list[str], file: Path, folder: Path):
    """Learns from a file on several threads and in several block sizes, and from its documents by rustbpe."""
    size = file.stat().st_size
    for pattern in PATTERN_STRINGS:
        rust = rustbpe.Tokenizer()
        rust.train_from_iterator(iter(documents), VOCAB_SIZES[0] - 1, pattern=PATTERN_STRINGS[pattern])
        expected = [bytes(token) for token, _ in rust.get_mergeable_ranks()]
        trained = Tokenizer.train(str(file), VOCAB_SIZES[0], pattern=pattern, num_threads=1)
        tokens = [trained.token_bytes(id) for id in range(VOCAB_SIZES[0] - 1)]
        differing = [id for id in range(len(tokens)) if tokens[id] != expected[id]]
        assert not differing, f"{pattern}: token {differing[0]} is {tokens[differing[0]]}, rustbpe's {expected[differing[0]]}"
        print(f"  {pattern}: {len(tokens):,} tokens learned from {size / 1e6:.1f} MB equal rustbpe's")
        variants = [(threads, 1 << 20) for threads in (2, 3, 7)] + [(2, 1 << 16), (3, 1_000_003), (7, 4099), (1, 1 << 24)]
        for threads, block_bytes in variants:
            alilama.data.text.BLOCK_BYTES = block_bytes
            again = Tokenizer.train(str(file), VOCAB_SIZES[0], pattern=pattern, num_threads=threads)
            assert again.merges == trained.merges, f"{pattern}: other merges on {threads} threads in blocks of {block_bytes}"
            print(f"  {pattern}: the same on {threads} thread(s) in blocks of {block_bytes:,} bytes")
        alilama.data.text.BLOCK_BYTES = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200, help="how much text is encoded by each of six tokenizers")
    parser.add_argument("--tokenizers_megabytes", type=float, default=50, help="how much of it by tokenizers, for each pattern")
    parser.add_argument("--train_megabytes", type=float, default=20, help="how much text is learned from")
    parser.add_argument("--stories", type=Path, help="a text file")
    parser.add_argument("--source", type=Path, help="a folder with Python files")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("error")  # that pieces were dropped, for one
    start = time.perf_counter()
    kinds = kinds_of_text(arguments.stories, arguments.source)
    print(f"{len(kinds)} kinds of text: {', '.join(kinds)}")
    print("Training")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "text.txt"
        documents = list(make_blocks(kinds, int(arguments.train_megabytes * 1e6)))
        file.write_bytes("\n<|endoftext|>\n".join(documents).encode())
        compare_training(documents, file, folder)
        peers = {}
        for pattern in PATTERN_STRINGS:
            for vocab_size in VOCAB_SIZES:
                ours = Tokenizer.train(str(file), vocab_size, pattern=pattern)
                peers[f"{pattern}, {vocab_size:,}"] = Peers(ours, folder)
        print(f"Encoding ({time.perf_counter() - start:.0f} s so far)")
        compare_encoding(make_blocks(kinds, int(arguments.megabytes * 1e6)), peers, int(arguments.tokenizers_megabytes * 1e6))
    print(f"No difference, in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

"""Slow and plain versions of what the C++ core does, and seeded text to try both on."""

import os
import random
import re
from collections import Counter

from hypothesis import HealthCheck, settings

# The pattern strings, written down again so that a slip in the package's own cannot hide.
PATTERN_STRINGS = {
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen35": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
}
WHOLE = r"(?s:.+)"  # the pattern that leaves a text in one piece
SEPARATOR = b"<|endoftext|>"


def examples(number: int) -> settings:
    """The same hypothesis examples on every run, on any machine, however slow; ALILAMA_EXAMPLES asks for more of them."""
    number = max(number, int(os.environ.get("ALILAMA_EXAMPLES", "0")))
    too_slow = [HealthCheck.too_slow]
    return settings(derandomize=True, deadline=None, database=None, max_examples=number, suppress_health_check=too_slow)


# ---- byte pair encoding ----


def replace_pair(ids: tuple[int, ...], pair: tuple[int, int], new_id: int) -> tuple[int, ...]:
    """Puts new_id for the pair, from left to right."""
    merged, i = [], 0
    while i < len(ids):
        found = ids[i : i + 2] == pair
        merged.append(new_id if found else ids[i])
        i += 2 if found else 1
    return tuple(merged)


def naive_merges(pieces: list[bytes], number: int) -> list[tuple[int, int]]:
    """Counts all pairs afresh for each merge, as they stand: three in "aaaa"; fewer merges come back when none is left."""
    words, merges = Counter(tuple(piece) for piece in pieces), []
    while len(merges) < number:
        counts = Counter()
        for ids, count in words.items():
            for pair in zip(ids, ids[1:]):  # noqa: B905, RUF007
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged = Counter()
        for ids, count in words.items():
            merged[replace_pair(ids, best, 256 + len(merges))] += count
        words = merged
        merges.append(best)
    return merges


def naive_encode(merges: list[tuple[int, int]], piece: bytes) -> list[int]:
    """Applies every merge to the whole piece, in the order they were learned."""
    ids = tuple(piece)
    for i, pair in enumerate(merges):
        if len(ids) > 1:
            ids = replace_pair(ids, pair, 256 + i)
    return list(ids)


# ---- documents ----


def naive_documents(text: bytes) -> list[bytes]:
    """Goes line by line: one that is exactly <|endoftext|> ends the document, which loses its last line end."""
    documents = [b""]
    for line in re.findall(rb"[^\n]*\n|[^\n]+", text):
        content = line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line
        if content != SEPARATOR:
            documents[-1] += line
            continue
        if documents[-1].endswith(b"\n"):
            documents[-1] = documents[-1].removesuffix(b"\n").removesuffix(b"\r")
        documents.append(b"")
    return documents


def naive_stretches(text: str, special_tokens: list[str]) -> list[str]:
    """What lies between special tokens; of those that begin together the longest counts."""
    stretches, start, i = [], 0, 0
    while i < len(text):
        here = [token for token in special_tokens if text.startswith(token, i)]
        if not here:
            i += 1
            continue
        stretches.append(text[start:i])
        start = i = i + len(max(here, key=len))
    return [*stretches, text[start:]]


# ---- text ----

# No character here is younger than Unicode 9, so that libraries with other Unicode tables agree on them.
WORD_LIST = """
the of and a to in was he that it had his her for on once upon time little dragon mountain queen river wrote happily
I'm you'll THEY'VE don't She'd we'RE dog's DOG'S isn'T 'tis o'clock rock'n'roll ſo it'ſ
1 42 365 2024 1,000,000 3.14159 0x1F ٣٤٥ १२३ x² Ⅻ ½
naïve façade ŒUVRE Straße groß İstanbul señor Łódź cafe\u0301 a\u0308\u0323
Привет мир жил-был Καλημέρα κόσμε שלום עולם مرحبا नमस्ते สวัสดี
日本語 のテキスト 今日は、世界。 漢字 한국어 안녕하세요 吾輩は猫である
🙂 🎉🎉 👍🏽 👩‍👩‍👧‍👦 🇫🇷 ❤️ ☃ → € … — “quoted” «cité» ‘it’s’
def f(x): return x**2 if(a[i]!=b){c+=d;} <html> &amp; #include <stdio.h> lambda: None // == <=> __init__ self.x
https://example.org/a?b=c&d=1 user@host /usr/lib *.py ... ?! -- ''' \"\"\" \\n \\t <|endoftex |>
"""
WORDS = WORD_LIST.split()
SYLLABLES = ["ba", "ke", "lin", "mo", "ra", "sto", "tu", "vér", "зи", "ха", "ga", "di", "fe", "ho", "ji", "nu", "pla", "we"]
GAPS = [" "] * 40 + ["  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2028", "\u0085", "    "]


def mixed_text(seed: int, num_words: int) -> str:
    """Words in many scripts, code and emoji, the first the most frequent, invented ones, some of them run together."""
    rng = random.Random(seed)
    weights = [1 / (i + 5) for i in range(len(WORDS))]
    parts = []
    for word in rng.choices(WORDS, weights, k=num_words):
        if rng.random() < 0.2:
            word = "".join(rng.choices(SYLLABLES, k=rng.randrange(1, 5)))
        parts += [word, rng.choice(GAPS) if rng.random() < 0.9 else rng.choice([",", ".", "", "-", "'", ". "])]
    return "".join(parts)


def mixed_bytes(seed: int, size: int) -> bytes:
    """Bytes that are UTF-8 for a while, then broken, cut short or random."""
    rng = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        word = rng.choice(WORDS).encode() + rng.choice(GAPS).encode()
        kind = rng.random()
        if kind < 0.1:
            word = rng.randbytes(rng.randrange(1, 6))
        elif kind < 0.3:
            word = word[: rng.randrange(len(word) + 1)]
        data += word
    return bytes(data[:size])

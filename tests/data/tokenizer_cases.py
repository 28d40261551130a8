"""What the tests of the tokenizer share: patterns, texts, plain ways to pieces, and how a refusal looks."""

import re

import pytest
import regex
import tiktoken
from oracles import PATTERN_STRINGS, WHOLE, mixed_text

from alilama.data.text import find_sources, read_blocks
from alilama.data.tokenizer import Tokenizer

EOT = "<|endoftext|>"
LETTERS_AND_REST = r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"  # a pattern that is not native and leaves no gaps
WITH_GAPS = r"[a-z]+(?= )|\d\d"
NATIVE = sorted(PATTERN_STRINGS)
PATTERNS = [*NATIVE, LETTERS_AND_REST, WITH_GAPS, WHOLE]
TEXT = mixed_text(seed=1, num_words=20_000)
SPECIAL_TOKENS = (EOT, "<|user|>", "<|user|>!", "[PAD]", "den grå ulv", "€")


TROUBLE = [
    "a",
    "b",
    "é",
    "日",
    "1",
    "٣",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\r",
    "\xa0",
    "\u2028",
    "!",
    "'s",
    "'",
    "—",
    "🙂",
    "\u0301",
    "ab a",
]


def refused(call, *words) -> str:
    """Asserts that a call is refused in one line that holds the words, and returns the line."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message and len(message) < 1000
    for word in words:
        assert str(word) in message
    return message


def train_fully(train, special_tokens=(EOT,)) -> Tokenizer:
    """Learns every merge that there is: a vocab_size that is too large is refused with the largest possible one."""
    message = refused(lambda: train(vocab_size=10**6, special_tokens=special_tokens), 10**6)
    return train(vocab_size=int(re.findall(r"\d+", message)[-1]), special_tokens=special_tokens)


def train_texts(texts, pattern="gpt4", **more):
    return lambda **kwargs: Tokenizer.train_from_iterator(texts, pattern=pattern, **more, **kwargs)


def train_files(files, pattern="gpt4", **more):
    return lambda **kwargs: Tokenizer.train(files, pattern=pattern, **more, **kwargs)


def ids_of(tokenizer: Tokenizer, texts) -> list[int]:
    """The ids of documents, text by text."""
    return [id for text in texts for id in (tokenizer.eot_id, *tokenizer.encode_ordinary(text))]


def encoded(tokenizer: Tokenizer, names, **options) -> list[int]:
    """The ids of what `data_files` names."""
    blocks = read_blocks(find_sources(names, **options), tokenizer.native_pattern)
    return [id for block in blocks for id in tokenizer.encode_block(block)[0].tolist()]


def cut(pattern: str, text: bytes) -> list[bytes]:
    """The pieces of a text by the `regex` package, gaps included."""
    string, pieces, start = text.decode("utf-8", "surrogateescape"), [], 0
    for match in regex.finditer(PATTERN_STRINGS.get(pattern, pattern), string):
        pieces += [string[start : match.start()], match[0]]
        start = match.end()
    return [piece.encode("utf-8", "surrogateescape") for piece in [*pieces, string[start:]] if piece]


def tiktoken_of(tok: Tokenizer, pattern: str) -> tiktoken.Encoding:
    """A tiktoken.Encoding built from nothing but the tokenizer's bytes."""
    ranks = {tok.token_bytes(i): i for i in range(256 + len(tok.merges))}
    return tiktoken.Encoding(
        "test", pat_str=PATTERN_STRINGS.get(pattern, pattern), mergeable_ranks=ranks, special_tokens=tok.special_tokens
    )

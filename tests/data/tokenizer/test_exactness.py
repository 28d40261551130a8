"""Every code point of Unicode, and random strings of odd ones, encode as in tiktoken and in `tokenizers`.

ALILAMA_EXAMPLES is how many random strings there are, 1,000 unless set:
ALILAMA_EXAMPLES=100000 pytest tests/data/tokenizer/test_exactness.py -k random
"""

import itertools
import os
from functools import cache

import pytest
import regex
import tiktoken
import tokenizers
from helpers import ROOT
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import PATTERN_STRINGS, examples
from tokenizers import pre_tokenizers

from alilama.data.tokenizer import Tokenizer

NUM_EXAMPLES = int(os.environ.get("ALILAMA_EXAMPLES", "1000"))
CODE_POINTS = [i for i in range(0x110000) if not 0xD800 <= i < 0xE000]
ASSIGNED = [i for i in CODE_POINTS if i < 0x40000 or 0xE0000 <= i < 0xF0000]  # other planes: no characters or private ones
CHUNK = 1 << 12  # code points that are encoded together
CLASSES = [r"\p{L}", r"\p{N}", r"\s", r"\p{M}"]


class Peers:
    """A tokenizer with tiktoken's and `tokenizers`' reading of it."""

    def __init__(self, ours: Tokenizer, folder):
        ranks = {ours.token_bytes(id): id for id in range(256 + len(ours.merges))}
        ours.save(folder / "tokenizer.json")
        self.ours = ours
        self.tiktoken = tiktoken.Encoding(
            "test", pat_str=PATTERN_STRINGS[ours.pattern], mergeable_ranks=ranks, special_tokens=ours.special_tokens
        )
        self.hugging_face = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def assert_agree(self, texts: list[str]):
        """The peers use both cores for several texts."""
        ids = [self.ours.encode_to_numpy(text).tolist() for text in texts]
        assert ids == self.tiktoken.encode_ordinary_batch(texts)
        encodings = self.hugging_face.encode_batch_fast(texts, add_special_tokens=False)
        assert ids == [encoding.ids for encoding in encodings]
        assert [self.ours.decode(each) for each in ids] == texts


@pytest.fixture(scope="module")
def peers_by_pattern(tmp_path_factory) -> dict[str, Peers]:
    """Tokenizers that merge any two bytes, so that hardly a cut at a wrong place leaves the ids as they are.

    Pairs of an ASCII byte and another go first: characters join their neighbours before they join in themselves. Ids take 16
    bits where the bytes that are in no UTF-8 are left out, and 32 for "gpt2".
    """
    in_utf8 = [byte for byte in range(256) if byte not in (0xC0, 0xC1) and byte < 0xF5]
    made = {}
    for name, byte_values, dtype in (
        ("gpt4", in_utf8, "uint16"),
        ("gpt2", range(256), "uint32"),
        ("qwen35", in_utf8, "uint16"),
    ):
        merges = sorted(itertools.product(byte_values, repeat=2), key=lambda pair: (pair[0] < 128) == (pair[1] < 128))
        made[name] = Peers(Tokenizer(merges, pattern=name), tmp_path_factory.mktemp(name))
        assert made[name].ours.dtype == dtype
    return made


@pytest.fixture(params=sorted(PATTERN_STRINGS))
def peers(request, peers_by_pattern) -> Peers:
    return peers_by_pattern[request.param]


def found_by_regex(expression: str, text: str) -> str:
    return "".join(regex.findall(expression, text))


def found_by_tiktoken(expression: str, text: str) -> str:
    encoding = tiktoken.Encoding(
        "test", pat_str=expression, mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    return encoding.decode(encoding.encode_ordinary(text))  # it skips what the pattern does not match


def found_by_tokenizers(expression: str, text: str) -> str:
    split = pre_tokenizers.Split(tokenizers.Regex(expression), "removed")
    return "".join(set(text).difference(*(part for part, _ in split.pre_tokenize_str(text))))


@cache
def all_found(find, expression: str) -> frozenset[str]:
    """The characters that match an expression, as one library has it."""
    chunks = ("".join(map(chr, ASSIGNED[i : i + CHUNK])) for i in range(0, len(ASSIGNED), CHUNK))
    return frozenset(itertools.chain.from_iterable(find(expression, chunk) for chunk in chunks))


@cache
def too_young(find) -> frozenset[str]:
    """Characters that are of another class in a library than in the regex package, from which our tables are made."""
    return frozenset().union(*(all_found(find, name) ^ all_found(found_by_regex, name) for name in CLASSES))


@pytest.mark.parametrize("find", [found_by_tiktoken, found_by_tokenizers])
def test_libraries_disagree_on_no_character_but_those_that_one_of_them_does_not_know_yet(find):
    unassigned = r"\p{Cn}"
    assert too_young(find) <= all_found(find, unassigned) ^ all_found(found_by_regex, unassigned)
    assert len(too_young(find)) < 40_000  # 17,480 between Unicode 16, which these have, and 18


def test_every_code_point_alone_is_encoded_as_in_tiktoken(peers_by_pattern):
    peers = peers_by_pattern["gpt4"]
    for i in range(0, len(CODE_POINTS), CHUNK):
        chars = [chr(code_point) for code_point in CODE_POINTS[i : i + CHUNK]]
        assert [peers.ours.encode_ordinary(char) for char in chars] == [peers.tiktoken.encode_ordinary(char) for char in chars]


def test_every_code_point_between_letters_digits_and_spaces_is_encoded_as_in_tiktoken_and_in_tokenizers(peers):
    young, assigned = too_young(found_by_tiktoken) | too_young(found_by_tokenizers), set(ASSIGNED)
    code_points = ASSIGNED if peers.ours.pattern == "gpt2" else CODE_POINTS  # it asks the table that "gpt4" does
    texts = []
    for i in range(0, len(code_points), CHUNK):
        chars = [chr(code_point) for code_point in code_points[i : i + CHUNK] if chr(code_point) not in young]
        around = "a{0}b1{0}2 {0} \n'{0}{0}s\n" if code_points[i] in assigned else "a{0}1 "
        texts.append("".join(around.format(char) for char in chars))
    for first in range(0, len(texts), 8):
        peers.assert_agree(texts[first : first + 8])


LETTERS = st.sampled_from("asdmtlveSDMTLVERxſKßİıéωʰª日한अกאب\U0001d400\U00020000")
NUMBERS = st.sampled_from("0129٣१²½Ⅻ〇\U0001d7ce")
SPACES = st.sampled_from([*" \t\n\r\v\f\x1c\x85\xa0\u1680\u2003\u2028\u2029\u3000", "\r\n", "  ", "\n\n", " \n", "\n "])
OTHERS = st.sampled_from(
    [*"'’!.-_<|€—\x00\x7f\u200b\u200d\ufeff\u0301\u093f\u180e\ue000\U0010ffff", "''", "👩\u200d👧", "👍🏽", "🇫🇷"]
)
CONTRACTIONS = st.builds(
    lambda mark, word: mark + word,
    st.sampled_from("'’"),
    st.sampled_from(
        [case(word) for word in ("s", "t", "re", "ve", "m", "ll", "d") for case in (str.lower, str.upper, str.title)]
        + ["lL", "rE", "vE", "ſ", "l", "r", "v"]
    ),
)
RUNS = st.builds(lambda unit, times: unit * times, LETTERS | NUMBERS | SPACES | OTHERS, st.integers(2, 70))
ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=70)
STRINGS = st.lists(LETTERS | NUMBERS | SPACES | OTHERS | CONTRACTIONS | RUNS | ASCII | st.text(max_size=4), max_size=40)


@examples(NUM_EXAMPLES)
@given(parts=STRINGS)
def test_random_strings_are_encoded_as_in_tiktoken_and_in_tokenizers(peers_by_pattern, parts):
    young = too_young(found_by_tiktoken) | too_young(found_by_tokenizers)
    text = "".join(char for char in "".join(parts) if char not in young)
    assume("<|endoftext|>" not in text)  # a special token to tokenizers, and hypothesis tries the words of our source
    for peers in peers_by_pattern.values():
        peers.assert_agree([text])


def test_the_benchmark_that_compares_more_text_finds_what_it_takes_from_here(run):
    assert run(ROOT / "tests" / "benchmarks" / "exactness.py", "--help").returncode == 0

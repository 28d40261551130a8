"""Encoding and decoding, against a naive BPE, tiktoken and tokenizers."""

import itertools
import os
import random
import string
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from oracles import WHOLE, examples, mixed_bytes, mixed_text, naive_encode, naive_merges
from tokenizer_cases import EOT, LETTERS_AND_REST, NATIVE, SPECIAL_TOKENS, TEXT, TROUBLE, cut, refused, tiktoken_of

from alilama.data.tokenizer import Tokenizer


def test_ids_are_the_bytes_then_the_merges_then_the_special_tokens(special):
    assert [special.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    for i, (left, right) in enumerate(special.merges):
        assert special.token_bytes(256 + i) == special.token_bytes(left) + special.token_bytes(right)
    first = 256 + len(special.merges)
    assert special.special_tokens == {token: first + i for i, token in enumerate(SPECIAL_TOKENS)}
    assert [special.token_bytes(first + i) for i in range(6)] == [token.encode() for token in SPECIAL_TOKENS]
    assert special.eot_id == special.special_tokens[EOT] == first
    assert special.vocab_size == first + 6 == 400


@examples(300)
@given(text=st.text("abc ", max_size=200), seen=st.text("abc ", min_size=30, max_size=60))
def test_encoding_is_that_of_a_naive_bpe(text, seen):
    number = len(naive_merges(cut("gpt4", seen.encode()), 20))
    tok = Tokenizer.train_from_iterator([seen], 257 + number)
    assert tok.encode(text) == [id for piece in cut("gpt4", text.encode()) for id in naive_encode(tok.merges, piece)]


@pytest.mark.parametrize("size", [*range(1, 40), 62, 63, 64, 65, 66, 67, 90, 127, 128, 129, 200, 255, 256, 257, 600, 1500])
def test_pieces_of_every_length_are_merged_lowest_rank_first_and_leftmost(size):
    rng = random.Random(size)
    for alphabet, number in (("a", 6), ("ab", 12), ("abc", 40)):
        tok = Tokenizer.train_from_iterator(["".join(random.Random(3).choices(alphabet, k=900))], 257 + number, pattern=WHOLE)
        for pattern in (*NATIVE, WHOLE):
            same = Tokenizer(tok.merges, pattern=pattern)
            for _ in range(1 if size > 100 else 3):
                text = "".join(rng.choices(alphabet, k=size))
                assert same.encode(text) == naive_encode(tok.merges, text.encode())


def test_encoding_is_that_of_tiktoken_and_of_tokenizers(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    hugging_face = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [
        TEXT,
        mixed_text(seed=14, num_words=5000),
        mixed_bytes(seed=15, size=50_000).decode("utf-8", "replace"),
        "",
        " ",
        "a",
        "".join(map(chr, range(0x20, 0x250))),
        "'S'ſ'LL'll'Ve'VE'rE'sx'",
        string.printable * 3,
        "\U0010ffff\ue000\x00\x7f",
    ]
    for text in texts:
        ids = tok.encode(text)
        assert ids == tiktoken_of(tok, tok.pattern).encode(text)
        assert ids == tok.to_tiktoken().encode(text)
        assert ids == hugging_face.encode(text).ids
        assert tok.decode(ids) == text == hugging_face.decode(ids)


@examples(300)
@given(parts=st.lists(st.sampled_from(TROUBLE) | st.text(st.characters(max_codepoint=0x24F), max_size=3), max_size=30))
def test_encoding_of_troublesome_text_is_that_of_tiktoken(parts):
    for tok, other in troubled():
        assert tok.encode("".join(parts)) == other.encode("".join(parts))


@cache
def troubled() -> list[tuple[Tokenizer, tiktoken.Encoding]]:
    trained = [Tokenizer.train_from_iterator([TEXT, "".join(TROUBLE * 5)], 800, pattern=name) for name in NATIVE]
    return [(tok, tiktoken_of(tok, tok.pattern)) for tok in trained]


def test_many_distinct_pieces_cannot_be_taken_for_one_another(tok):
    rng = random.Random(16)
    words = ["".join(rng.choices("etaoinsh", k=rng.randrange(1, 19))) for _ in range(40_000)]
    words += ["thathas" + "".join(rng.choices(string.ascii_lowercase, k=3)) for _ in range(20_000)]  # alike in 8 bytes
    text = " ".join(words + words[:20_000] + rng.sample(words, 20_000))
    expected = tiktoken_of(tok, tok.pattern).encode(text)
    assert tok.encode(text) == expected
    assert tok.encode(text) == expected  # again, now that what was met first is known


def test_encoding_does_not_read_past_the_end_of_the_text_nor_remember_it(tok):
    text = mixed_text(seed=17, num_words=30)
    other = tiktoken_of(tok, tok.pattern)
    for stop in range(len(text) + 1):
        assert tok.encode(text[:stop]) == other.encode(text[:stop])
        assert tok.encode(text[stop:]) == other.encode(text[stop:])
        assert tok.encode(text[stop : stop + 9]) == other.encode(text[stop : stop + 9])


def test_pieces_with_zero_bytes_are_not_taken_for_shorter_ones():
    tok = Tokenizer.train_from_iterator(["\0\0\0\0 a\0 a \0\0 ab\0"] * 3, 257 + 5, pattern="gpt2")
    other = tiktoken_of(tok, "gpt2")
    for chars in itertools.product("\0a ", repeat=6):
        text = "".join(chars)
        assert tok.encode(text) == other.encode(text)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "!", "é", "🙂", "'", "ab", " \n", "a ", "\0"])
def test_long_runs_come_back_and_have_no_more_ids_than_bytes(unit, tok):
    text = unit * (1_000_000 // len(unit))
    assert tok.decode(ids := tok.encode(text)) == text
    assert len(ids) <= len(text.encode())


def test_a_million_letters_are_the_longest_token_again_and_again():
    tok = Tokenizer.train_from_iterator(["a" * 64], 257 + 6)
    for text in ("a" * 1_000_000, "a" * 1_000_000 + " " + "a" * 64):
        assert tok.encode(text)[:15_625] == [261] * 15_625
    assert tok.encode("a" * (64 * 9 + 63)) == [261] * 9 + [260, 259, 258, 257, 256, 97]


@examples(400)
@given(text=st.text(max_size=80))
def test_any_text_comes_back_as_it_was(text):
    for tok, _ in troubled():
        assert (
            tok.decode(tok.encode_ordinary(text)) == text
        )  # Hypothesis also tries the constants of our code, such as <|endoftext|>


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "\ud83d\ude42", "\udc80\udcff", "x\ud83d y", "\ufeff", "\ufeff\ud800"])
def test_surrogates_are_joined_or_replaced_as_in_tiktoken(text, tok):
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert tok.encode(text) == tiktoken_of(tok, tok.pattern).encode(text) == tok.encode(expected)
    assert tok.decode(tok.encode(text)) == expected
    assert tok.encode_to_numpy(text).tolist() == tok.encode(text)


def test_encode_batch_is_encode_one_by_one(tok):
    texts = [mixed_text(seed, num_words=seed * 7 % 90) for seed in range(200)] + ["", "a", TEXT]
    expected = [tok.encode(text) for text in texts]
    assert tok.encode_batch(texts) == expected
    for num_threads in (1, 2, 3, 8):
        assert tok.encode_batch(texts, num_threads=num_threads) == expected
        assert tok.encode_batch(iter(texts), num_threads=num_threads) == expected
    assert tok.encode_batch([]) == []
    refused(lambda: tok.encode_batch(["a", f"b{EOT}", "c"]), EOT)


def test_threads_can_share_a_tokenizer(tok):
    texts = [mixed_text(seed, num_words=2000) for seed in range(20, 28)]
    expected = [tok.encode(text) for text in texts]
    fresh = Tokenizer(tok.merges, pattern=tok.pattern)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(fresh.encode, texts)) == expected


def test_encode_to_numpy_is_encode_ordinary(tok):
    for text in (TEXT, "", "a", f"a{EOT}b", "🙂 'll"):
        ids = tok.encode_to_numpy(text)
        assert isinstance(ids, np.ndarray) and ids.dtype == np.uint16 and ids.ndim == 1
        assert ids.tolist() == tok.encode_ordinary(text) == tok.encode(text, disallowed_special=())


@pytest.mark.parametrize("vocab_size, dtype", [(65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (65_793, "uint32")])
@pytest.mark.parametrize("pattern", [*NATIVE, WHOLE])
def test_ids_are_16_bits_up_to_65536_tokens_and_32_above(vocab_size, dtype, pattern):
    merges = sorted(itertools.product(range(256), repeat=2), key=lambda pair: pair == (122, 122))  # "zz" last
    merges = [*merges[: vocab_size - 258], (122, 122)]
    tok = Tokenizer(merges, pattern=pattern)
    assert tok.vocab_size == vocab_size
    ids = tok.encode_to_numpy("zz zzzz")
    assert ids.dtype == dtype and ids.tolist() == tok.encode("zz zzzz") and ids[0] == vocab_size - 2
    assert tok.decode(ids) == "zz zzzz"


# Without "<|user|>!": which of two tokens that begin together is taken is by chance in tiktoken.
APART = [token for token in SPECIAL_TOKENS if token != "<|user|>!"]


@pytest.mark.parametrize("pattern", ["gpt4", LETTERS_AND_REST])
@examples(300)
@given(
    parts=st.lists(st.sampled_from([*APART, "<|user", "|>", "a", " ", "den grå"]), max_size=8),
    allowed=st.sets(st.sampled_from(APART)) | st.sampled_from(["all", ("<|user|>",), {"a", EOT}]),
    disallowed=st.sets(st.sampled_from(APART)) | st.sampled_from(["all", (), {"a"}, ["|>"]]),
)
def test_allowed_and_disallowed_special_tokens_mean_what_they_mean_in_tiktoken(pattern, parts, allowed, disallowed):
    tok, other = set_apart(pattern)
    text = "".join(parts)
    try:
        allowed_set = allowed if allowed == "all" else set(allowed)  # tiktoken takes no tuple here
        expected = other.encode(text, allowed_special=allowed_set, disallowed_special=disallowed)
    except ValueError:
        refused(lambda: tok.encode(text, allowed_special=allowed, disallowed_special=disallowed))
        return
    assert tok.encode(text, allowed_special=allowed, disallowed_special=disallowed) == expected


@cache
def set_apart(pattern: str) -> tuple[Tokenizer, tiktoken.Encoding]:
    tok = Tokenizer([(97, 32), (60, 124)], special_tokens=APART, pattern=pattern)
    return tok, tiktoken_of(tok, pattern)


def test_a_special_token_in_the_text_is_an_error_that_offers_the_remedies(special):
    refused(lambda: special.encode(f"hello {EOT} there"), EOT, "allowed_special", "disallowed_special")
    refused(lambda: special.encode("a<|user|>", allowed_special={EOT}), "<|user|>")
    refused(lambda: special.encode("a<|user|>!b"), "<|user|>!")
    refused(lambda: special.encode("say please", disallowed_special={"please"}), "please")
    refused(lambda: special.encode(EOT, allowed_special="all", disallowed_special={EOT}), EOT)
    assert special.encode("a<|user|>", disallowed_special={EOT}) == special.encode_ordinary("a<|user|>")
    assert special.encode("<|other|>") == special.encode_ordinary("<|other|>")


def test_a_document_begins_with_end_of_text_and_holds_no_special_token(special):
    assert special.encode_document("a cat") == [special.eot_id, *special.encode_ordinary("a cat")]
    assert special.encode_document("") == [special.eot_id]
    refused(lambda: special.encode_document("a<|user|>"), "'<|user|>' at character 1", "leave it out")


def test_the_longest_special_token_is_taken_where_several_begin_together(special):
    ids = special.special_tokens
    assert special.encode("<|user|>!<|user|>?", allowed_special="all") == [ids["<|user|>!"], ids["<|user|>"], ord("?")]
    for order in itertools.permutations(["<", "<|", "<|a", "<|ab|>"]):
        tok = Tokenizer([], special_tokens=[EOT, *order])
        names = {id: token for token, id in tok.special_tokens.items()}
        found = tok.encode("<|ab|><|a<|<x<|ab", allowed_special="all")
        assert [names.get(id, id) for id in found] == ["<|ab|>", "<|a", "<|", "<", ord("x"), "<|a", ord("b")]
        assert tok.encode("<|ab|>", allowed_special={"<", "<|"}, disallowed_special=())[0] == tok.special_tokens["<|"]


def test_special_tokens_cut_the_text_around_them():
    tok = Tokenizer.train_from_iterator(["ab ab ab"], 260, pattern=WHOLE)
    whole = tok.encode("abab")
    assert tok.encode(f"abab{EOT}abab", allowed_special="all") == [*whole, tok.eot_id, *whole]
    assert tok.encode(EOT * 3, allowed_special={EOT}) == [tok.eot_id] * 3
    assert tok.encode(f" {EOT} ", allowed_special="all") == [32, tok.eot_id, 32]


def test_ordinary_text_never_becomes_a_special_token(special, tmp_path):
    special.save(tmp_path / "tokenizer.json")
    for tok in (special, Tokenizer.load(tmp_path / "tokenizer.json")):
        first = 256 + len(tok.merges)
        for text in (*SPECIAL_TOKENS, "".join(SPECIAL_TOKENS), f"a {EOT}", "<|<|endoftext|>|>"):
            for ids in (tok.encode_ordinary(text), tok.encode(text, disallowed_special=()), tok.encode_to_numpy(text).tolist()):
                assert max(ids) < first and tok.decode(ids) == text


def test_special_tokens_mean_the_same_to_tokenizers(special, tmp_path):
    special.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rng = random.Random(18)
    for _ in range(300):
        text = "".join(rng.choices([*SPECIAL_TOKENS, "a", " ", "user", "<|", "!", "😀", "\n"], k=8))
        ids = special.encode(text, allowed_special="all")
        assert other.encode(text).ids == ids
        assert other.decode(ids, skip_special_tokens=False) == text == special.decode(ids)


@examples(300)
@given(data=st.binary(max_size=100))
def test_any_bytes_can_be_written_as_ids_and_come_back(data):
    tok = troubled()[0][0]
    assert tok.decode_bytes(list(data)) == data
    assert tok.decode(list(data)) == data.decode("utf-8", "replace")
    ids = tok.encode_ordinary(data.decode("utf-8", "replace"))
    assert tok.decode_bytes(ids) == data.decode("utf-8", "replace").encode()
    assert tok.decode_bytes(ids) == b"".join(map(tok.token_bytes, ids))


def test_every_id_decodes_to_its_bytes(special):
    ids = list(range(special.vocab_size))
    random.Random(19).shuffle(ids)
    assert special.decode_bytes(ids) == b"".join(map(special.token_bytes, ids))
    assert special.decode_bytes([]) == b"" and special.decode([]) == ""


def test_decode_takes_lists_tuples_and_arrays(tok):
    ids = tok.encode("Once upon a time, the naïve 🙂")
    for same in (ids, tuple(ids), *(np.array(ids, dtype) for dtype in (np.uint16, np.uint32, np.int32, np.int64, np.uint64))):
        assert tok.decode(same) == "Once upon a time, the naïve 🙂"
        assert tok.decode_bytes(same) == "Once upon a time, the naïve 🙂".encode()
    assert tok.decode(np.repeat(ids, 2).astype(np.uint16)[::2]) == "Once upon a time, the naïve 🙂"
    assert tok.decode(np.array([], dtype=np.uint16)) == ""


def test_errors_says_what_becomes_of_bytes_that_are_no_text():
    tok = Tokenizer([])
    ids = [*b"a", 0xFF, *"é".encode()[:1], *b"b", 0xE2, 0x82]
    assert tok.decode(ids) == tok.decode(ids, "replace") == tok.decode(ids, errors="replace") == "a\ufffd\ufffdb\ufffd"
    assert tok.decode(ids, errors="ignore") == "ab"
    assert tok.decode(ids, errors="backslashreplace") == r"a\xff\xc3b\xe2\x82"
    assert tok.decode(ids, errors="surrogateescape") == "a\udcff\udcc3b\udce2\udc82"
    with pytest.raises(UnicodeDecodeError):
        tok.decode(ids, errors="strict")


@pytest.mark.parametrize("id", [-1, 258, 2**16, 2**16 + 97, 2**32, 2**32 + 97, 2**63 - 1, -(2**63), 2**63, 2**64 + 97, 10**30])
def test_ids_out_of_range_are_refused(id):
    tok = Tokenizer([(97, 98)])
    for call in (lambda: tok.decode([97, 98, id]), lambda: tok.decode_bytes([id]), lambda: tok.token_bytes(id)):
        refused(call, id)
    refused(lambda: tok.decode_bytes([97, 258]), 258, 257)


@pytest.mark.parametrize("ids", [np.array([2**63 + 97], np.uint64), np.array([-1], np.int8), np.array([-1], np.int64)])
def test_ids_out_of_range_in_arrays_are_refused(ids):
    refused(lambda: Tokenizer([]).decode(ids), ids[0])


@pytest.mark.parametrize("ids", [[97.5], [97, 98.25], np.array([97.5]), [float("nan")], [float("inf")], [1e300]])
def test_numbers_that_are_no_ids_are_refused_not_rounded(ids):
    refused(lambda: Tokenizer([]).decode(ids))


class ClearsItsList:
    """An id that changes the list it is in while it is read."""

    def __init__(self, ids):
        self.ids = ids

    def __index__(self):
        self.ids.clear()
        return 97


def test_ids_that_change_while_they_are_decoded_do_no_harm():
    ids = []
    ids += [ClearsItsList(ids), *range(97, 123)] * 1000
    assert Tokenizer([]).decode_bytes(ids) == (b"a" + bytes(range(97, 123))) * 1000


def test_an_error_of_an_id_itself_is_not_hidden():
    class Interrupted:
        def __index__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tokenizer([]).decode([97, Interrupted()])


@pytest.mark.posix
def test_a_forked_child_encodes_while_threads_of_its_parent_do():
    tok = Tokenizer([(97, 98)])
    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(lambda: [tok.encode_to_numpy("a b " * 5) for _ in range(20_000)]) for _ in range(3)]
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if tok.encode_ordinary("ab") == [256] else 1)
            assert os.waitpid(child, 0)[1] == 0
        for work in busy:
            work.result()


@pytest.mark.parametrize("special_tokens", [(EOT, 5), (EOT, "\ud800"), (EOT, ""), (EOT, EOT), (EOT, "a", "a"), ("[X]",), ()])
def test_special_tokens_that_are_not_text_or_doubled_or_lack_the_end_of_text_are_refused(special_tokens):
    refused(lambda: Tokenizer([], special_tokens=special_tokens), "special_tokens")
    refused(lambda: Tokenizer.train_from_iterator(["abab"], 260, special_tokens=special_tokens), "special_tokens")

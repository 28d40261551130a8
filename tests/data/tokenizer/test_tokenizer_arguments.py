"""What the tokenizer and its C++ are given that cannot be: refused in words, computed, and nothing in between."""

import json
import sys
import threading

import numpy as np
import pytest
import regex
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import PATTERN_STRINGS, examples

from alilama import _bpe
from alilama.common.errors import UserError
from alilama.data import tokenizer as tokenizer_module
from alilama.data.tokenizer import MAX_PATTERN, PATTERNS, Tokenizer

EOT = "<|endoftext|>"
BYTES = [bytes([byte]) for byte in range(256)]
REFUSALS = (ValueError, TypeError, OverflowError, IndexError)  # UserError is a ValueError


def make_encoder(**changed) -> _bpe.Encoder:
    usual = {"tokens": [*BYTES, b"ab", b"abc"], "byte_ids": list(range(256)), "whole_pieces": []}
    return _bpe.Encoder(**usual | {"merges": [(97, 98, 256), (256, 99, 257)]} | changed)


# ---- vocabularies ----


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": []}, "id 0 is used, but is not a token"),
        ({"tokens": [*BYTES, b"", b"abc"]}, "id 256 is used, but is not a token"),
        ({"tokens": [*BYTES[:97], b"", *BYTES[98:], b"ab", b"abc"]}, "id 97 is used, but is not a token"),
        ({"byte_ids": [*range(255), 258]}, "id 258 is used"),
        ({"byte_ids": [*range(255), 2**32 - 1]}, "id 4294967295 is used"),
        ({"byte_ids": [*range(255), 254]}, "the token of byte 255 is not that byte"),
        ({"merges": [(97, 98, 256), (97, 98, 256)]}, "merge 1 joins the same pair as an earlier one"),
        ({"merges": [(97, 98, 256), (2**32 - 1, 99, 257)]}, "id 4294967295 is used"),
        ({"merges": [(97, 98, 300)]}, "id 300 is used"),
        ({"merges": [(256, 257, 256)]}, "merge 0 joins ids 256 and 257, but"),
        ({"merges": [(256, 99, 257), (257, 97, 256)]}, "merge 1 joins ids 257 and 97, but"),  # a circle
        ({"whole_pieces": [258]}, "id 258 is used"),
        ({"whole_pieces": [2**32 - 1]}, "id 4294967295 is used"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"tokens": ["a"] * 256},
        {"tokens": None},
        {"byte_ids": [0] * 255},
        {"byte_ids": [-1] * 256},
        {"byte_ids": [2**32] * 256},
        {"merges": [(97, 98)]},
        {"merges": [(-1, 98, 256)]},
        {"merges": [(97.0, 98, 256)]},
        {"whole_pieces": [-1]},
    ],
)
def test_a_vocabulary_of_other_types_is_refused(changed):
    with pytest.raises(TypeError):
        make_encoder(**changed)


ids = st.one_of(st.integers(0, 260), st.integers(-3, 2**33))
tokens = st.one_of(st.just(BYTES), st.lists(st.binary(max_size=4), max_size=6).map(lambda more: [*BYTES, *more]))
vocabularies = st.fixed_dictionaries(
    {
        "tokens": tokens,
        "byte_ids": st.one_of(st.just(list(range(256))), st.permutations(range(256)), st.lists(ids, max_size=300)),
        "merges": st.lists(st.one_of(st.tuples(ids, ids, ids), st.lists(ids, max_size=4)), max_size=6),
        "whole_pieces": st.lists(ids, max_size=4),
    }
)


@examples(200)
@given(vocabularies, st.binary(max_size=80))
def test_any_vocabulary_is_refused_or_loses_nothing(vocabulary, text):
    try:
        encoder = _bpe.Encoder(**vocabulary)
    except REFUSALS as error:
        assert str(error)
        return
    for pattern in PATTERNS:
        assert encoder.decode_to_bytes(encoder.encode_to_numpy(pattern, text)) == text


# ---- what is encoded, decoded, counted ----


def test_an_id_before_documents_that_is_no_token_is_refused():
    encoder = make_encoder()
    for id in (258, 65536 + 97, 2**32 - 1):
        with pytest.raises(ValueError, match=f"id {id} is not a token"):
            encoder.encode_documents("gpt4", b"abc", id, False)
    ids, *_ = encoder.encode_documents("gpt4", b"abc", 257, False)
    assert ids.tolist() == [257, 257]


def test_ids_are_decoded_wherever_they_lie_and_refused_in_other_shapes():
    encoder = make_encoder()
    for dtype in (np.uint16, np.uint32, np.int64, np.int32, np.uint8, np.dtype(">u2")):
        ids = np.array([97, 98, 99], dtype)
        memory = np.zeros(3 * ids.itemsize + 1, np.uint8)
        unaligned = memory[1:].view(dtype)
        unaligned[:] = ids
        for same in (ids, unaligned, np.repeat(ids, 2)[::2], ids.tolist(), tuple(ids)):
            assert encoder.decode_to_bytes(same) == b"abc"
        with pytest.raises((IndexError, TypeError)):
            encoder.decode_to_bytes(ids[None])
    assert encoder.decode_to_bytes(np.zeros(0, np.uint16)) == encoder.decode_to_bytes([]) == b""
    for wrong in (["é" * 100], ["\ud800" * 100], [1.5], [None], [2**70], [-1], [258], np.array([1.0])):
        with pytest.raises(IndexError, match="is not a token: ids go from 0 to 257"):
            encoder.decode_to_bytes(wrong)
        with pytest.raises(UserError, match="is not a token"):
            Tokenizer([(97, 98)]).decode(wrong)


def test_text_is_not_cut_at_nothing():
    with pytest.raises(ValueError, match="a token that text is cut at is empty"):
        _bpe.split_at_tokens(b"abc", ["b", ""])
    with pytest.raises(ValueError, match="a token that text is cut at is empty"):
        _bpe.PieceCounter().add_text("gpt4", b"abc", [""], False)


def test_a_counter_is_not_merged_with_itself_and_can_be_used_after_a_merge():
    counter, other = _bpe.PieceCounter(), _bpe.PieceCounter()
    counter.add_pieces([b"ab"] * 3)
    with pytest.raises(ValueError, match="cannot be merged with itself"):
        counter.merge(counter)
    assert counter.learn_merges(5) == [(97, 98)]
    other.merge(counter)
    assert counter.num_bytes == 0 and counter.learn_merges(5) == []
    counter.add_pieces([b"cd"])
    other.merge(counter)
    assert other.learn_merges(2**64 - 1) == [(97, 98), (99, 100)]
    for number in (-1, 2**64, 1.0, None):
        with pytest.raises(TypeError):
            other.learn_merges(number)
        with pytest.raises(TypeError):
            other.drop_rarest(number)
    for wrong in (None, 5, make_encoder()):
        with pytest.raises(TypeError):
            other.merge(wrong)


def test_a_counter_is_used_by_one_thread_at_a_time():
    counter, text, outcomes = _bpe.PieceCounter(), b"word and word " * 50_000, []

    def count():
        for _ in range(5):
            try:
                counter.add_text("gpt4", text, [EOT], False)
                outcomes.append("counted")
            except ValueError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "counted" in outcomes
    assert set(outcomes) <= {"counted", "another call uses this PieceCounter: give each thread its own"}
    assert counter.learn_merges(1) == [(111, 114)]  # "or": all counts are whole, and none was lost on the way


def test_objects_of_the_core_without_anything_in_them_are_refused():
    for kind, use in ((_bpe.PieceCounter, "num_bytes"), (_bpe.Encoder, "decode_to_bytes")):
        with pytest.raises(TypeError):
            attribute = getattr(kind.__new__(kind), use)
            attribute([1])


anything = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.lists(st.integers(-2, 300), max_size=4), st.lists(st.text(max_size=3), max_size=3),
    st.lists(st.binary(max_size=3), max_size=3), st.just("gpt4"), st.just(b"a b"), st.just(np.arange(6).reshape(2, 3)),
)  # fmt: skip
CORE_CALLS = [
    (_bpe, "split_documents", 1), (_bpe, "split_at_tokens", 2), (_bpe, "find_cut", 2), (_bpe, "cuts_documents", 1),
    (_bpe, "find_document_cut", 1), (_bpe, "split_pieces", 2), (_bpe.PieceCounter, "add_text", 4),
    (_bpe.PieceCounter, "add_pieces", 1), (_bpe.PieceCounter, "merge", 1), (_bpe.PieceCounter, "drop_rarest", 1),
    (_bpe.PieceCounter, "learn_merges", 1), (_bpe.Encoder, "encode", 2), (_bpe.Encoder, "encode_to_numpy", 2),
    (_bpe.Encoder, "encode_pieces", 1), (_bpe.Encoder, "encode_documents", 4), (_bpe.Encoder, "encode_framed", 4),
    (_bpe.Encoder, "decode_to_bytes", 1), (_bpe.Encoder, "decode_to_str", 2),
]  # fmt: skip


def test_every_call_of_the_core_is_tried_below():
    kinds = {kind for kind, _, _ in CORE_CALLS}
    bound = {(kind, name) for kind in kinds for name, value in vars(kind).items() if name[0] != "_" and callable(value)}
    assert bound - {(_bpe, "PieceCounter"), (_bpe, "Encoder")} == {(kind, name) for kind, name, _ in CORE_CALLS}


@examples(600)
@given(st.sampled_from(CORE_CALLS), st.data())
def test_every_call_of_the_core_computes_or_refuses(call, data):
    kind, name, num_arguments = call
    target = {_bpe: _bpe, _bpe.PieceCounter: _bpe.PieceCounter(), _bpe.Encoder: make_encoder()}[kind]
    try:
        getattr(target, name)(*(data.draw(anything) for _ in range(num_arguments)))
    except (*REFUSALS, LookupError) as error:
        assert str(error)


# ---- the tokenizer ----


class Reads:
    tokenizer = Tokenizer([(97, 98), (256, 99)], special_tokens=[EOT, "<|x|>"])
    by_pattern = Tokenizer([(97, 98)], pattern=r"[a-z]+|\s")


METHODS = ["encode", "encode_document", "encode_prompt", "encode_ordinary", "encode_to_numpy", "encode_with_offsets", "count"]
METHODS += ["encode_batch", "decode", "decode_bytes", "token_bytes"]


@examples(400)
@given(st.sampled_from(METHODS), st.sampled_from([Reads.tokenizer, Reads.by_pattern]), anything, st.data())
def test_every_method_of_a_tokenizer_computes_or_refuses(method, tokenizer, value, data):
    keywords = {}
    if method == "encode":
        keywords = data.draw(st.fixed_dictionaries({}, optional={"allowed_special": anything, "disallowed_special": anything}))
    try:
        getattr(tokenizer, method)(value, **keywords)
    except (*REFUSALS, AttributeError, LookupError, OSError, regex.error) as error:
        assert str(error)


@examples(200)
@given(anything, st.fixed_dictionaries({}, optional={"special_tokens": anything, "pattern": anything}))
def test_a_tokenizer_is_made_of_what_it_can_be_made_of(merges, settings):
    try:
        tokenizer = Tokenizer(merges, **settings)
    except (*REFUSALS, AttributeError, LookupError) as error:
        assert str(error)
        return
    assert tokenizer.decode(tokenizer.encode_ordinary("abc éé")) == "abc éé"


@examples(100)
@given(anything, anything, st.fixed_dictionaries({}, optional={"pattern": anything, "num_threads": anything}))
def test_training_learns_or_refuses(texts, vocab_size, settings):
    if isinstance(settings.get("num_threads"), int) and settings["num_threads"] > 8:
        settings["num_threads"] = 8
    try:
        Tokenizer.train_from_iterator(texts, vocab_size, **settings)
    except (*REFUSALS, AttributeError, LookupError) as error:
        assert str(error)


# ---- patterns ----

NAMES = ", ".join(PATTERN_STRINGS)
SAID = f"expected one of {NAMES}, or a regular expression of at most 10,000 characters, without NUL or half a surrogate"


@pytest.mark.parametrize(
    "pattern", ["\ud800", "a|\udfff", "a\0", "[ab]" * 2500 + "c", "x" * 10**7, b"a", 5, regex.compile("a")]
)
def test_a_pattern_that_no_file_holds_or_nobody_wrote_is_refused_at_once(pattern):
    with pytest.raises(UserError, match=SAID) as refused:
        Tokenizer([], pattern=pattern)
    assert len(str(refused.value)) < 400 and len(str(refused.value).splitlines()) == 1
    with pytest.raises(UserError, match=SAID):
        Tokenizer.train_from_iterator(["abc"], 300, pattern=pattern)


def test_such_a_pattern_in_a_file_is_refused_too(tmp_path):
    tok = Tokenizer([(97, 98)])
    tok.save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for pattern in ("\ud800", "(" * 10**6, "a\0"):
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
        (tmp_path / "other.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=SAID) as refused:
            Tokenizer.load(tmp_path / "other.json")
        assert str(refused.value).startswith(f"{tmp_path / 'other.json'}: pattern ")
        if pattern != "\ud800":  # which text in UTF-8 does not hold
            (tmp_path / "gpt.model").write_text(f"minbpe v1\n{pattern}\n0\n97 98\n", encoding="utf-8")
            with pytest.raises(UserError, match=SAID):
                Tokenizer.from_minbpe(tmp_path / "gpt.model")


def test_the_patterns_that_are_used_are_far_below_the_limit():
    assert max(map(len, tokenizer_module.PATTERN_NAMES)) < MAX_PATTERN / 50
    longest = "|".join(f"[{chr(0x4E00 + i)}]" for i in range(MAX_PATTERN // 4))
    assert Tokenizer([], pattern=longest).decode(Tokenizer([], pattern=longest).encode("一丁!")) == "一丁!"


@pytest.mark.parametrize("pattern", [r"(?:\w|\w\w)+!|.", r"(\w|\w\w)+!|.", r"(?:\w|\w\w)+(?=!)|."])
def test_a_pattern_that_tries_too_many_ways_is_stopped(pattern, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "CUT_SECONDS", 0.05)
    tok = Tokenizer([], pattern=pattern)
    text = "ab" * 40 + "?"
    message = r"was not done with 81 bytes of text after 0\.05 s: it tries too many ways to match.*or take gpt4$"
    for use in (tok.encode, tok.count, lambda text: Tokenizer.train_from_iterator([text], 300, pattern=pattern)):
        with pytest.raises(UserError, match=message):
            use(text)
    assert tok.decode(tok.encode("ab!")) == "ab!"


def test_the_time_that_other_threads_take_is_not_counted(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "CUT_SECONDS", 1e-5)
    monkeypatch.setattr(tokenizer_module.time, "thread_time", lambda: 0.0)  # this one was not given any
    tok = Tokenizer([], pattern=r"\w+|\W+")
    assert tok.decode(tok.encode("some words " * 1000)) == "some words " * 1000


@pytest.mark.parametrize(
    ("pattern", "is_fast"),
    [
        (r" ?\p{L}+|\s", True),
        (r"\w+|\W", True),
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)|(?<=\d)\D| ?\p{L}+|\s+(?=\S)|\s+|.", True),
        (r"(?=\p{Lu})|\p{L}+|\s", False),  # a match of empty text
        (r"(.)\1|\w+|\s", False),
        (r"(?m)^\w+|\W", False),
        (r"(?<=a)|[(?!-#]", False),  # what the test of the pattern makes of it is no expression
    ],
)
def test_which_patterns_take_many_pieces_at_once(pattern, is_fast):
    tok, text = Tokenizer([], pattern=pattern), 'Abc 12345 aab!" eé\n' * 300
    pieces = tok._cut(text.encode())
    assert len(pieces) > 1000 and b"".join(pieces) == text.encode()
    assert (tok._many_pieces is not None) == is_fast
    expected, end = [], 0
    for found in regex.finditer(pattern, text):
        expected += [text[end : found.start()], found[0]]
        end = found.end()
    assert pieces == [piece.encode() for piece in [*expected, text[end:]] if piece]


PARTS = [r"\p{L}", r"\s", r"\w", r"[\W_]", "[ab]", "[^ab]", "a", "b", " ", r"\d", r"\S", "."]
PARTS = st.sampled_from([*PARTS, r"\s+(?!\S)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"\b", r"\B"])
REPEATS = st.sampled_from(["", "", "?", "*", "+", "+?", "++", "{1,3}"])


def grown(inner: st.SearchStrategy) -> st.SearchStrategy:
    choice = st.tuples(st.sampled_from(["(", "(?:"]), inner, inner).map(lambda three: f"{three[0]}{three[1]}|{three[2]})")
    around = st.tuples(st.sampled_from(["(?=", "(?!", "(?<=", "(?<!"]), inner, st.just(")")).map("".join)
    return st.one_of(
        st.tuples(inner, inner).map("".join), st.tuples(choice, REPEATS).map("".join), inner.map("(?>{})".format), around
    )


@examples(400)
@given(st.recursive(st.tuples(PARTS, REPEATS).map("".join), grown, max_leaves=5), st.text("aab  \n's1é!\udc80", max_size=150))
def test_many_pieces_at_once_are_those_that_are_found_one_by_one(pattern, text):
    try:
        tok = Tokenizer([], pattern=pattern)
    except UserError:
        return
    assume(tok._many_pieces is not None)
    try:
        expected, end = [], 0
        for found in regex.finditer(pattern, text, timeout=1):
            expected += [text[end : found.start()], found[0]]
            end = found.end()
        pieces = tok._cut(text.encode("utf-8", "surrogateescape"))
    except TimeoutError:
        return
    assert pieces == [piece.encode("utf-8", "surrogateescape") for piece in [*expected, text[end:]] if piece]


# ---- memory that runs out ----


@pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps to a limit of memory")
def test_memory_that_runs_out_anywhere_is_a_memory_error_and_the_next_call_works(run, tmp_path):
    (tmp_path / "limits.py").write_text("""
import resource
import numpy as np
from alilama import _bpe

encoder = _bpe.Encoder([bytes([byte]) for byte in range(256)], list(range(256)), [], [])
text, documents = "ab" * 2_000_000, b"x<|endoftext|>" * 100_000
array = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)
calls = {
    "list": lambda: encoder.encode("gpt4", text),
    "array": lambda: encoder.encode_to_numpy("gpt4", text),
    "bytes": lambda: encoder.decode_to_bytes(array),
    "str": lambda: encoder.decode_to_str(array, "replace"),
    "documents": lambda: _bpe.split_documents(documents),
    "pieces": lambda: _bpe.split_pieces("gpt4", documents),
}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for name, call in calls.items():
    ends = []
    for megabytes in range(0, 60, 2):
        resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), resource.RLIM_INFINITY))
        try:
            call()
            ends.append("made")
        except MemoryError:
            ends.append("refused")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print(name, *sorted(set(ends)), sep=", ")
""")
    result = run("limits.py", MALLOC_MMAP_THRESHOLD_="65536")  # what is freed is given back
    assert result.stderr == ""
    names = ["list", "array", "bytes", "str", "documents", "pieces"]
    assert result.stdout.splitlines() == [f"{name}, made, refused" for name in names]

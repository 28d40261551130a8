"""What makes encoding fast must not show: tokens found by their bytes, cuts where no token reaches, pieces seen before.
Then what `encode` tells besides ids: counts, offsets, files."""

import json
import random

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from oracles import examples, mixed_text, naive_encode
from test_foreign_tokenizers import like_llama3
from tokenizer_cases import EOT, LETTERS_AND_REST, NATIVE, TEXT, cut, refused, tiktoken_of

from alilama.data.text import Block
from alilama.data.tokenizer import Tokenizer

# Characters that share first, middle or last bytes with others, of one to four bytes, letters and none.
CHARS = "ab กế'\"é×жњ١ा“”—。，、　々丁七丂么亁你佀偀お か゠한핝🙂🙃\u0301\n1"


def random_merges(pattern: str, text: str | bytes, number: int, seed: int) -> list[tuple[int, int]]:
    """Merges of any neighbours in the text, in any order: tokens begin and end wherever they like."""
    rng, merges = random.Random(seed), []
    text = text.encode() if isinstance(text, str) else text
    pieces = [tuple(piece) for piece in cut(pattern, text)]
    while len(merges) < number:
        pairs = [pair for ids in pieces for pair in zip(ids, ids[1:])]  # noqa: B905, RUF007
        if not pairs:
            break
        merges.append(rng.choice(pairs))
        pieces = [tuple(naive_encode(merges, bytes(piece))) for piece in cut(pattern, text)]
    return merges


@pytest.mark.parametrize("pattern", NATIVE)
@examples(150)
@given(seen=st.text(CHARS, max_size=60), text=st.text(CHARS, max_size=60), number=st.integers(0, 60), seed=st.integers(0, 99))
def test_tokens_that_begin_and_end_within_characters_are_merged_as_a_naive_bpe_does(pattern, seen, text, number, seed):
    merges = random_merges(pattern, seen, number, seed)
    tok = Tokenizer(merges, pattern=pattern)
    for part in (text, seen, seen + text):
        expected = [id for piece in cut(pattern, part.encode()) for id in naive_encode(merges, piece)]
        assert tok.encode(part) == expected
        assert tok.encode(part) == expected  # again, from the cache


@examples(300)
@given(
    seen=st.lists(
        st.sampled_from(["a", " ", "é", "×", "ก", "，", "你", "好", "🙂"]) | st.binary(min_size=1, max_size=2), max_size=25
    ),
    text=st.lists(
        st.sampled_from(["a", " ", "é", "×", "ก", "，", "你", "好", "🙂"]) | st.binary(min_size=1, max_size=2), max_size=25
    ),
    number=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_bytes_that_are_no_text_are_merged_as_a_naive_bpe_does(seen, text, number, seed):
    seen, text = (b"".join(part.encode() if isinstance(part, str) else part for part in parts) for parts in (seen, text))
    merges = random_merges("gpt4", seen, number, seed)
    tok = Tokenizer(merges)
    for part in (text, seen + text):
        if b"<|" in part or not part:
            continue
        ids = tok.encode_block(Block(part, continues=False))[0].tolist()
        expected = [id for piece in cut("gpt4", part) for id in naive_encode(merges, piece)]
        assert ids == [tok.eot_id, *expected]


@pytest.mark.parametrize("early", [("a", "Ã©"), ("Ã©", "a")])
def test_a_merge_of_a_character_may_come_before_the_one_that_makes_it(early, tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer([]).save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    other = ("w", "a") if early[0] == "a" else ("a", "w")
    content["model"]["merges"] = [list(early), list(other), ["Ã", "©"]]  # Ã and © are what the bytes of é are called
    content["model"]["vocab"] |= {"".join(pair): 257 + i for i, pair in enumerate(content["model"]["merges"])}
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    for text in ("waé", "éaw", "aéw", "wéa", "é", "waéaw" * 20):
        assert ours.encode_ordinary(text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_a_list_of_all_ways_to_split_each_token_means_the_merges_that_were_learned(tmp_path):
    text = mixed_text(3, num_words=2000)
    tok = Tokenizer.train_from_iterator([text], 1500)
    content = json.loads(tok._to_json())
    ids = content["model"]["vocab"]
    learned = [merge.replace(" ", "") for merge in content["model"]["merges"]]
    splits = [  # of Llama 3's file: by the id of the token, then by those of its parts
        sorted(
            ([t[:i], t[i:]] for i in range(1, len(t)) if {t[:i], t[i:]} <= ids.keys()),
            key=lambda parts: [ids[p] for p in parts],
        )
        for t in learned
    ]
    assert any(ids[part] > ids[t] for t, ways in zip(learned, splits, strict=True) for parts in ways for part in parts)
    content["model"]["merges"] = [" ".join(parts) for ways in splits for parts in ways]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    for part in (text[:20_000], mixed_text(4, num_words=2000)):
        assert ours.encode_ordinary(part) == tok.encode_ordinary(part) == theirs.encode(part, add_special_tokens=False).ids


@pytest.mark.parametrize("size", [10, 500])
def test_a_merge_that_comes_before_the_one_that_makes_its_part_goes_first_as_soon_as_it_can(size, tmp_path):
    content = json.loads(Tokenizer([(97, 98), (256, 97)])._to_json())
    content["model"]["merges"].reverse()  # "ab" and "a" before "a" and "b"
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    for text in ("ab" * size, "abbab" * size, "aab" * size):
        assert ours.encode_ordinary(text) == theirs.encode(text, add_special_tokens=False).ids, text


@examples(300)
@given(text=st.text("ab", max_size=90), number=st.integers(0, 12), seed=st.integers(0, 999))
def test_merges_that_can_never_be_done_are_not(text, number, seed):
    rng, merges = random.Random(seed), []
    while len(merges) < number:
        pair = tuple(rng.choices([97, 98, *range(256, 256 + len(merges))], k=2))
        if pair not in merges:
            merges.append(pair)
    assert Tokenizer(merges).encode(text) == naive_encode(merges, text.encode())


DOUBLED = [(97, 97), *((id, id) for id in range(256, 280))]  # up to 2^25 letters, for which there is no trie
LONGER = [(97, 97), (256, 97), *((256, id) for id in range(257, 355))]  # among which the longest is found in too many steps


@pytest.mark.parametrize("merges", [DOUBLED[:10], DOUBLED, LONGER], ids=["doubled", "too many bytes", "too many steps"])
def test_tokens_of_one_letter_are_merged_as_a_naive_bpe_does(merges):
    tok = Tokenizer(merges)
    for size in (1, 2, 7, 63, 64, 65, 200, 401):
        assert tok.encode("a" * size) == naive_encode(merges, b"a" * size)


@pytest.mark.parametrize("pattern", NATIVE)
def test_a_text_of_every_script_has_the_ids_of_tiktoken_before_and_after_others_were_encoded(pattern):
    rng = random.Random(4)
    alphabets = [
        "的一是不了人我在有他这中大来上国和也",
        "あいうえおかきくけこのはをアイウ日本語",
        "กขคงจชซดตนบปผมยรลวสหอะาิีุูเแไ่้",
        "абвгдежз",
        "ابتثجحخد",
        "한국어를",
    ]

    def text(size: int) -> str:
        words = ("".join(rng.choices(rng.choice(alphabets), k=rng.randrange(1, 30))) for _ in range(size))
        return "".join(word + rng.choice(["，", " ", "“", "。\n", "", "!"]) for word in words)

    tok = Tokenizer.train_from_iterator([text(4000), TEXT], 6000, pattern=pattern)
    theirs = tiktoken_of(tok, pattern)
    texts = [text(3000), mixed_text(5, num_words=3000), text(3000)]
    expected = [theirs.encode(text) for text in texts]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        fresh = Tokenizer(tok.merges, pattern=pattern)
        for i in order:
            assert fresh.encode(texts[i]) == expected[i]


def test_a_part_of_a_piece_is_not_taken_for_a_piece_that_is_a_token_without_merges(tmp_path):
    content = like_llama3()
    assert content["model"]["ignore_merges"]
    for token in ("你好", "好", "ab你"):
        name = "".join(tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(token)[0][0])
        content["model"]["vocab"][name] = max(content["model"]["vocab"].values()) + 1
    ids = [token["id"] for token in content["added_tokens"]]
    content["model"]["vocab"] = {name: id + 3 if id >= min(ids) else id for name, id in content["model"]["vocab"].items()}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    for text in ("你好", "好", "你好吗", "吗好", "，你好", "好你好", "ab你", "ab你好", "你好 你好\n好，好"):
        assert ours.encode_ordinary(text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_a_text_that_is_one_long_piece_has_the_ids_of_tiktoken():
    rng = random.Random(6)
    text = "".join(rng.choices("你好们" + "".join(map(chr, range(0x4E00, 0x4E40))), k=3000))
    trained = Tokenizer.train_from_iterator([text[:1500]], 700)
    assert trained.encode(text) == tiktoken_of(trained, "gpt4").encode(text)


def test_count_is_the_number_of_ids(tok):
    for text in ("", "a", TEXT[:5000], "naïve 🙂", f"a{EOT}"):
        assert tok.count(text) == len(tok.encode_ordinary(text))


@pytest.mark.parametrize("pattern", ["gpt4", LETTERS_AND_REST])
@examples(150)
@given(text=st.text(CHARS, max_size=40))
def test_offsets_are_of_the_fewest_characters_that_hold_a_token(pattern, text):
    merges = random_merges("gpt4", "a naïve 你好 🙂🙃 “ab”", 12, seed=1)
    tok = Tokenizer(merges, pattern=pattern)
    ids, offsets = tok.encode_with_offsets(text)
    assert ids.tolist() == tok.encode_ordinary(text) and offsets.shape == (len(ids), 2) and offsets.dtype == np.int64
    end = 0
    for id, (start, stop) in zip(ids, offsets, strict=True):
        begin, end = end, end + len(tok.token_bytes(id))
        assert len(text[:start].encode()) <= begin < len(text[: start + 1].encode())
        assert len(text[: stop - 1].encode()) < end <= len(text[:stop].encode())
    assert end == len(text.encode())


def test_offsets_beside_those_of_tokenizers(tmp_path, tok):
    tok.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (TEXT[:3000], "Once upon a time", "a naïve, “old” 你好"):
        found = theirs.encode(text, add_special_tokens=False)
        ids, offsets = tok.encode_with_offsets(text)
        assert ids.tolist() == found.ids
        assert [tuple(pair) for pair in offsets.tolist()] == found.offsets


def test_encode_files_is_every_document_of_every_file_in_order(tmp_path, tok):
    documents = [["one", "two\nlines"], ["three"], ["", "four"]]
    for i, parts in enumerate(documents):
        (tmp_path / f"{i}.txt").write_text(f"\n{EOT}\n".join(parts), encoding="utf-8")
    expected = [id for parts in documents for part in parts if part for id in tok.encode_document(part)]
    for num_threads in (None, 1, 3):
        for files in (tmp_path, str(tmp_path / "*.txt"), [tmp_path / f"{i}.txt" for i in range(3)]):
            ids = tok.encode_files(files, num_threads=num_threads)
            assert ids.dtype == tok.dtype and ids.tolist() == expected
    assert tok.encode_files(tmp_path / "1.txt").tolist() == tok.encode_document("three")
    refused(lambda: tok.encode_files(tmp_path / "none.txt"), "none.txt")

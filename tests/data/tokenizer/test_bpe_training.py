"""Learning merges, against a naive BPE and rustbpe; from files, documents and in bounded memory."""

import random
import warnings

import pytest
import rustbpe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import PATTERN_STRINGS, SEPARATOR, WHOLE, examples, mixed_text, naive_documents, naive_merges, naive_stretches
from tokenizer_cases import (
    EOT,
    LETTERS_AND_REST,
    NATIVE,
    PATTERNS,
    SPECIAL_TOKENS,
    TEXT,
    TROUBLE,
    cut,
    refused,
    train_files,
    train_fully,
    train_texts,
)

import alilama.data.text
import alilama.data.tokenizer
from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer, usual_vocab_size


def test_most_frequent_pair_is_merged_first_and_ties_go_to_the_smaller_pair():
    tok = Tokenizer.train_from_iterator(["ab ab cd cd ef ef gh"], 260, pattern=r"\S+| ")
    assert tok.merges == [(97, 98), (99, 100), (101, 102)]  # twice each, in the order of their bytes
    tok = Tokenizer.train_from_iterator(["ba zz zz zz ab"], 260, pattern=r"\S+| ")
    assert tok.merges == [(122, 122), (97, 98), (98, 97)]
    tok = Tokenizer.train_from_iterator(["xb yb xa za"], 260, pattern=r"\S+| ")
    assert tok.merges == [(120, 97), (120, 98), (121, 98)]


@pytest.mark.parametrize("text", [*("a" * size for size in range(2, 20)), "aaabaaab", "abababa" * 3, "aabaab", "abcabcbcabc"])
def test_overlapping_pairs_count_as_they_stand_as_in_rustbpe(text):
    other = rustbpe.Tokenizer()
    other.train_from_iterator([text], 300, pattern=WHOLE)
    expected = [bytes(token) for token, _ in other.get_mergeable_ranks()][256:]
    tok = train_fully(train_texts([text], WHOLE))
    assert tok.merges == naive_merges([text.encode()], 300)
    assert [tok.token_bytes(256 + i) for i in range(len(tok.merges))] == expected


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
@examples(120)
@given(texts=st.lists(st.text("abc ", max_size=24), min_size=1, max_size=8))
def test_all_merges_are_those_of_a_naive_bpe(pattern, texts):
    pieces = [piece for text in texts for piece in cut(pattern, text.encode())]
    assert train_fully(train_texts(texts, pattern)).merges == naive_merges(pieces, 1000)


@examples(100)
@given(texts=st.lists(st.text(max_size=30), max_size=6), number=st.integers(0, 30))
def test_merges_are_those_of_a_naive_bpe_on_any_text(texts, number):
    stretches = [stretch for text in texts for stretch in naive_stretches(text, [EOT])]  # hypothesis tries words of our source
    expected = naive_merges([piece for stretch in stretches for piece in cut("gpt4", stretch.encode())], number)
    if len(expected) < number:
        refused(lambda: Tokenizer.train_from_iterator(texts, 257 + number), 257 + number, 257 + len(expected))
    else:
        assert Tokenizer.train_from_iterator(texts, 257 + number).merges == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_are_those_of_a_naive_bpe_on_prose(pattern):
    text = mixed_text(seed=5, num_words=600)
    tok = Tokenizer.train_from_iterator([text], 257 + 250, pattern=pattern)
    assert tok.merges == naive_merges(cut(pattern, text.encode()), 250)


@pytest.mark.parametrize("name", NATIVE)
def test_tokens_are_those_that_rustbpe_learns(name):
    texts = [mixed_text(seed, num_words=10_000) for seed in (6, 7, 8)]
    other = rustbpe.Tokenizer()
    other.train_from_iterator(texts, 256 + 1800, pattern=PATTERN_STRINGS[name])
    expected = [bytes(token) for token, _ in other.get_mergeable_ranks()]
    tok = Tokenizer.train_from_iterator(texts, 257 + 1800, pattern=name)
    assert [tok.token_bytes(i) for i in range(256 + 1800)] == expected


def test_many_distinct_pieces_of_every_length_are_all_counted():
    rng = random.Random(9)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(1, 40))) for _ in range(30_000)]
    other = rustbpe.Tokenizer()
    other.train_from_iterator([" ".join(words)], 256 + 500, pattern=PATTERN_STRINGS["gpt4"])
    tok = Tokenizer.train_from_iterator([" ".join(words)], 257 + 500)
    assert [tok.token_bytes(i) for i in range(756)] == [bytes(token) for token, _ in other.get_mergeable_ranks()]


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("pattern", ["gpt4", LETTERS_AND_REST])
def test_training_does_not_depend_on_the_number_of_threads(pattern, num_threads, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(f"\n{EOT}\n".join(mixed_text(seed, 300) for seed in range(40)).encode())
    whole = Tokenizer.train([str(path)], 900, pattern=pattern, num_threads=1)
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", 1500)
    assert Tokenizer.train([str(path)], 900, pattern=pattern, num_threads=num_threads).merges == whole.merges
    texts = [mixed_text(seed, 300) for seed in range(40)]
    assert Tokenizer.train_from_iterator(texts, 900, pattern=pattern, num_threads=num_threads).merges == whole.merges


SEPARATING = ["\n<|endoftext|>\n", "<|endoftext|>", "<|endoftext|>\r\n", "<|end", "oftext|>"]


@pytest.mark.parametrize("pattern", [*NATIVE, LETTERS_AND_REST])
@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(TROUBLE + SEPARATING), min_size=1, max_size=60),
    block_bytes=st.integers(1, 64),
    broken=st.binary(max_size=3),
)
def test_training_does_not_depend_on_how_files_are_cut_into_blocks(pattern, parts, block_bytes, broken, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    data = "".join(parts).encode()
    path.write_bytes(data[: len(data) // 2] + broken + data[len(data) // 2 :])
    whole = train_fully(train_files(str(path), pattern))
    with monkeypatch.context() as patch:
        patch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
        assert train_fully(train_files(str(path), pattern)).merges == whole.merges


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
def test_a_block_may_end_inside_a_separator_or_what_looks_like_one(pattern, tmp_path, monkeypatch):
    data = (
        b"!!\n<|endoftext|>??\n\n<|endoftext|>\r\n::\r\n<|endoftext|>\r;;\n<|endoftext|> ,,\n<|endoftext|>\n\n--\n<|endoftext|>"
    )
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    documents = [stretch for document in naive_documents(data) for stretch in document.split(SEPARATOR)]
    expected = naive_merges([piece for document in documents for piece in cut(pattern, document)], 100)
    for block_bytes in range(1, len(data) + 1):
        monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
        assert Tokenizer.train(str(path), 257 + len(expected), pattern=pattern, num_threads=1).merges == expected


@pytest.mark.parametrize("block_bytes", [8, 16, 17, 33, 64, 100])
@pytest.mark.parametrize("token", ["<|user|>", "day and night", "été", "日本", "a b", "1 ", "x—y"])
def test_special_tokens_are_never_cut_by_a_block(token, block_bytes, tmp_path, monkeypatch):
    rng = random.Random(10)
    words = ["so", "it", "day", "and", "night", token, token, "ete", "x", "1", "a"]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(rng.choices(words, k=300)), encoding="utf-8")
    whole = train_fully(train_files(str(path)), (EOT, token))
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", block_bytes)
    assert train_fully(train_files(str(path)), (EOT, token)).merges == whole.merges


def test_a_very_long_piece_or_line_can_be_learned_from(tmp_path):
    for text in ("a" * 1_000_000, "ab" * 500_000, " " * 1_000_000, "\n " * 500_000, "1" * 1_000_000, "é!" * 300_000):
        path = tmp_path / "text.txt"
        path.write_text(text, encoding="utf-8", newline="")
        assert Tokenizer.train(str(path), 257 + 2).merges == naive_merges(cut("gpt4", text[:1200].encode()), 2)
    whole = Tokenizer.train_from_iterator(["a" * 1_000_000], 257 + 6)
    assert [len(whole.token_bytes(256 + i)) for i in range(6)] == [2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    "data, documents",
    [
        (b"!\n<|endoftext|>\n?", [b"!", b"?"]),
        (b"!\r\n<|endoftext|>\r\n?", [b"!", b"?"]),
        (b"!!\n\n<|endoftext|>\n\n??", [b"!!\n", b"\n??"]),
        (b"!!\r\n\r\n<|endoftext|>\r\n\r\n??", [b"!!\r\n", b"\r\n??"]),
        (b"<|endoftext|>\n!!\n\n", [b"!!\n\n"]),
        (b"<|endoftext|>\r\n!!\n", [b"!!\n"]),
        (b"!!\n<|endoftext|>", [b"!!"]),
        (b"!!\r\n<|endoftext|>\r\n", [b"!!"]),
        (b"!!\n<|endoftext|>\n<|endoftext|>\n??\n", [b"!!", b"??\n"]),
        (b"!!\n<|endoftext|>\n\n<|endoftext|>\n??", [b"!!", b"??"]),
        (b"!!\n<|endoftext|>\n\n\n<|endoftext|>\n??", [b"!!", b"\n", b"??"]),
        (b"!! <|endoftext|>\n??", [b"!! ", b"\n??"]),  # not a line of its own: a special token, which cuts and no more
        (b"!!\n <|endoftext|>\n??", [b"!!\n ", b"\n??"]),
        (b"!!\n<|endoftext|> \n??", [b"!!\n", b" \n??"]),
        (b"!!\n<|endoftext|>\r??", [b"!!\n", b"\r??"]),
        (b"!!\r<|endoftext|>\n??", [b"!!\r", b"\n??"]),
        (b"!!\n<|endoftext|><|endoftext|>\n??", [b"!!\n", b"\n??"]),
        (b"!!\n<|endoftext|>\r\r\n??", [b"!!\n", b"\r\r\n??"]),
        (b"!!\n<|endoftext|", [b"!!\n<|endoftext|"]),
        (b"!!\n\xff<|endoftext|>\n??", [b"!!\n\xff", b"\n??"]),
    ],
)
@pytest.mark.parametrize("pattern", [*NATIVE, WHOLE])
def test_documents_are_cut_at_separator_lines_and_at_special_tokens(data, documents, pattern, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    pieces = [piece for document in documents for piece in cut(pattern, document)]
    assert train_fully(train_files(str(path), pattern)).merges == naive_merges(pieces, 100)


@pytest.mark.parametrize("pattern", ["gpt4", WHOLE])
@settings(examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(["!", "!?", "\n", "\r\n", "\r", " ", "x", EOT, EOT, EOT + "\n", "\n" + EOT]), min_size=1, max_size=12
    )
)
def test_learning_from_a_file_is_learning_from_its_documents(pattern, parts, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("".join(parts).encode())
    documents = naive_documents(path.read_bytes())
    pieces = [piece for document in documents for stretch in document.split(SEPARATOR) for piece in cut(pattern, stretch)]
    tok = train_fully(train_files(str(path), pattern))
    assert tok.merges == naive_merges(pieces, 1000)
    assert tok.merges == train_fully(train_texts([document.decode() for document in documents], pattern)).merges


def test_files_are_documents_too(tmp_path):
    texts = [mixed_text(seed, 200) for seed in (11, 12, 13)] + ["!!", "??", "\n\n"]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_bytes(text.encode())
    (tmp_path / "empty.txt").touch()
    expected = train_fully(train_texts(texts)).merges
    files = [str(tmp_path / f"{i}.txt") for i in range(len(texts))]
    assert train_fully(train_files(files)).merges == expected
    assert train_fully(train_files(files[::-1])).merges == expected
    assert train_fully(train_files(str(tmp_path))).merges == expected
    assert train_fully(train_files([str(tmp_path / "*.txt")])).merges == expected
    joined = tmp_path / "joined"
    joined.write_bytes(f"\n{EOT}\n".join(texts).encode())
    assert train_fully(train_files(str(joined))).merges == expected


@pytest.mark.parametrize("pattern", [*NATIVE, LETTERS_AND_REST])
@examples(80)
@given(parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|user", "user", "|>", "!", " ", "den grå", "PAD"]), max_size=20))
def test_special_tokens_cut_the_text_and_are_never_counted(pattern, parts):
    text = "".join(parts)
    pieces = [piece for stretch in naive_stretches(text, SPECIAL_TOKENS) for piece in cut(pattern, stretch.encode())]
    tok = train_fully(train_texts([text], pattern), SPECIAL_TOKENS)
    assert tok.merges == naive_merges(pieces, 1000)


def test_nothing_is_learned_from_special_tokens_alone():
    text = (EOT + "\n" + EOT + "<|user|>" + "<|user|>!") * 1000
    refused(lambda: Tokenizer.train_from_iterator([text], 257 + 3, special_tokens=(EOT, "<|user|>", "<|user|>!")), 259)


@pytest.mark.parametrize("vocab_size", [-1, 0, 1, 255, 256, 257, 258])
def test_a_vocab_size_too_small_for_bytes_and_special_tokens_is_refused(vocab_size):
    refused(lambda: Tokenizer.train_from_iterator([TEXT], vocab_size, special_tokens=(EOT, "a", "b")), vocab_size, 259)


@pytest.mark.parametrize("vocab_size", [257 + 4, 1000, 10**9, 10**18])
def test_a_vocab_size_above_what_the_text_can_give_is_refused(vocab_size):
    refused(lambda: Tokenizer.train_from_iterator(["abcd"], vocab_size), vocab_size, 257 + 3)


def test_a_vocab_of_bytes_alone_needs_no_text():
    assert Tokenizer.train_from_iterator([], 257).merges == []
    assert Tokenizer.train_from_iterator(iter(["", "a"]), 257).merges == []
    refused(lambda: Tokenizer.train_from_iterator([], 258), 258, 257)


def test_files_that_are_missing_or_empty_are_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    refused(lambda: Tokenizer.train(str(tmp_path / "none.txt"), 300), "none.txt")
    refused(lambda: Tokenizer.train(str(tmp_path / "empty.txt"), 300), "empty.txt")


@pytest.mark.parametrize("merges", [[(256, 97)], [(97, 256)], [(97, 98), (258, 97)], [(97, 98), (97, 98)]])
def test_merges_of_ids_not_yet_made_or_made_twice_are_refused(merges):
    refused(lambda: Tokenizer(merges))


def train_small(text, folder, monkeypatch, num_threads=2, pieces_bytes=1 << 30, vocab_size=300):
    """Trains with blocks of 2,000 bytes and little memory for pieces."""
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(alilama.data.text, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(alilama.data.tokenizer, "MAX_PIECES_BYTES", pieces_bytes)
    return Tokenizer.train(str(path), vocab_size, num_threads=num_threads)


def frequent_and_unique_words(number: int) -> str:
    rng = random.Random(1)
    words = ["once", "upon", "a", "time", "there", "was", "little", "girl"]
    return " ".join(word for _ in range(number) for word in (rng.choice(words), "".join(rng.choices("bcdfghjklm", k=9))))


def test_when_pieces_do_not_fit_the_rarest_are_dropped_with_a_warning(tmp_path, monkeypatch):
    text = frequent_and_unique_words(8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything = train_small(text, tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match=r"[\d,]+ of the rarest were dropped"):
        bounded = train_small(text, tmp_path, monkeypatch, pieces_bytes=300_000)
    assert everything.merges != bounded.merges  # the unique words are most of the text
    frequent = {bounded.encode_ordinary(f" {word}").__len__() for word in ("once", "upon", "time", "there", "little", "girl")}
    assert frequent == {1}


def test_what_is_dropped_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    text = frequent_and_unique_words(5000)
    merges = []
    for num_threads in (1, 2, 5):
        with pytest.warns(UserWarning, match="dropped"):
            merges.append(train_small(text, tmp_path, monkeypatch, num_threads, pieces_bytes=200_000).merges)
    assert merges[0] == merges[1] == merges[2]


def test_text_without_any_place_to_cut_is_learned_from_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(alilama.data.text, "MAX_UNCUT_BYTES", 5000)
    with pytest.warns(UserWarning, match="without a place to cut"):
        tok = train_small("ab" * 20_000, tmp_path, monkeypatch, vocab_size=260)
    assert [tok.token_bytes(id) for id in (256, 257, 258)] == [b"ab", b"abab", b"abababab"]


def test_the_rarest_pieces_are_dropped_first_and_their_number_is_told():
    counter = alilama._bpe.PieceCounter()
    for count in range(1, 101):
        counter.add_pieces([b"piece%03d" % count] * count)
    before = counter.num_bytes
    assert counter.drop_rarest(before) == 0
    assert counter.drop_rarest(before // 2) == 50 and counter.num_bytes <= before // 2
    merges = counter.learn_merges(2000)
    tokens = [Tokenizer(merges).token_bytes(256 + i) for i in range(len(merges))]
    assert {token for token in tokens if len(token) == 8} == {b"piece%03d" % count for count in range(51, 101)}


def test_an_error_while_counting_ends_the_training(monkeypatch):
    def fails(self, *arguments):
        raise MemoryError

    monkeypatch.setattr(Tokenizer, "_count_pieces", fails)
    with pytest.raises(MemoryError):
        Tokenizer.train_from_iterator(["some text"] * 10, 300, num_threads=1)


def test_merges_that_would_fill_the_memory_are_refused():
    doubling = [(97, 97), *((256 + i, 256 + i) for i in range(40))]
    refused(lambda: Tokenizer(doubling), "bytes; at most")


def test_a_file_named_by_a_path_is_learned_from(tmp_path):
    (tmp_path / "a.txt").write_text("ab ab ab", encoding="utf-8")
    assert Tokenizer.train(tmp_path / "a.txt", 258).merges == [(97, 98)]


@pytest.mark.parametrize(("megabytes", "vocab_size"), [(0, 512), (0.08, 512), (1, 2048), (14, 4096), (1000, 8192)])
def test_a_vocabulary_that_is_not_given_follows_the_size_of_the_text(megabytes, vocab_size):
    assert usual_vocab_size(int(megabytes * 1e6)) == vocab_size


def test_where_the_text_gives_fewer_tokens_a_vocabulary_that_is_not_given_is_smaller(tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time", encoding="utf-8")
    tokenizer = Tokenizer.train(str(tmp_path / "text.txt"), None)
    assert 257 < tokenizer.vocab_size < 280
    with pytest.raises(UserError, match="more than this text can give"):
        Tokenizer.train(str(tmp_path / "text.txt"), 512)
    with pytest.raises(UserError, match="vocab_size 0 is too small"):
        Tokenizer.train(str(tmp_path / "text.txt"), 0)

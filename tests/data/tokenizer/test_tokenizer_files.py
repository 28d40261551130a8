"""tokenizer.json: what is saved comes back, and what does not fit is refused."""

import copy
import json
import pickle
import random

import pytest
import tokenizers
import transformers
from oracles import WHOLE
from tokenizer_cases import EOT, PATTERNS, SPECIAL_TOKENS, TEXT, refused

from alilama.data.tokenizer import Tokenizer


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_saved_tokenizer_comes_back_the_same(pattern, tmp_path):
    tok = Tokenizer.train_from_iterator([TEXT], 700, pattern=pattern, special_tokens=SPECIAL_TOKENS)
    path = tmp_path / "tokenizer.json"
    tok.save(path)
    for again in (Tokenizer.load(path), Tokenizer.load(str(path))):
        assert again.merges == tok.merges
        assert list(again.special_tokens.items()) == list(tok.special_tokens.items())
        assert (again.pattern, again.sha256, again.vocab_size, again.eot_id) == (pattern, tok.sha256, 700, tok.eot_id)
        for text in (TEXT[:20_000], "".join(SPECIAL_TOKENS), "I'LL 12345  x\r\n\n"):
            assert again.encode(text, allowed_special="all") == tok.encode(text, allowed_special="all")
            assert again.encode(text, disallowed_special=()) == tok.encode(text, disallowed_special=())
        refused(lambda: again.encode(f"a{EOT}"), EOT)  # noqa: B023
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.json", "tokenizer.json"]


def test_sha256_tells_apart_what_encodes_differently():
    base = [(97, 98), (99, 100)]
    different = [
        Tokenizer(base),
        Tokenizer(base[::-1]),
        Tokenizer(base[:1]),
        Tokenizer(base, pattern="gpt2"),
        Tokenizer(base, pattern=WHOLE),
        Tokenizer(base, special_tokens=(EOT, "<x>")),
        Tokenizer(base, special_tokens=("<x>", EOT)),
    ]
    assert len({tok.sha256 for tok in different}) == len(different)
    assert Tokenizer(base).sha256 == Tokenizer(tuple(base), special_tokens=[EOT], pattern="gpt4").sha256


def test_files_saved_by_earlier_versions_keep_their_sha256(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    assert EOT not in json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    pinned = "a6347676fef379c0fe648b14d1634211a1ec17cfa7f83887c83c86296a8f37d7"
    assert Tokenizer([(97, 98)], special_tokens=(EOT, "[X]")).sha256 == pinned


def test_a_saved_tokenizer_can_be_read_by_transformers(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    text = TEXT[:20_000]
    for other in (
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        assert len(other) == tok.vocab_size
        assert other(text)["input_ids"] == tok.encode(text)
        assert other.decode(tok.encode(text), clean_up_tokenization_spaces=False) == text
        assert other.convert_tokens_to_ids(EOT) == tok.eot_id


def test_what_tokenizers_writes_again_can_be_loaded(tok, tmp_path):
    tok.save(tmp_path / "tokenizer.json")
    tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).save(str(tmp_path / "again.json"))
    assert Tokenizer.load(tmp_path / "again.json").sha256 == tok.sha256


def small_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train_from_iterator(["the cat and the hat and the bat"], 262, special_tokens=(EOT, "[X]")).save(path)
    return path


def assert_loaded_as_written_or_refused(path):
    try:
        tok = Tokenizer.load(path)
    except ValueError:
        refused(lambda: Tokenizer.load(path), path)
        return
    assert tok.decode(tok.encode_ordinary("the cat, Ünïcode 7")) == "the cat, Ünïcode 7"
    tok.save(path)
    assert Tokenizer.load(path).sha256 == tok.sha256


def test_a_truncated_tokenizer_file_is_refused(tmp_path):
    path = small_file(tmp_path)
    data = path.read_bytes().rstrip()
    for size in [*range(0, len(data), len(data) // 60), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:size])
        refused(lambda: Tokenizer.load(path), path)


def test_a_changed_tokenizer_file_is_refused_or_is_what_it_says(tmp_path):
    path = small_file(tmp_path)
    data, rng = path.read_bytes(), random.Random(40)
    for _ in range(250):
        changed = bytearray(data)
        if rng.random() < 0.5:
            changed[rng.randrange(len(data))] = rng.choice(b'0123456789"{}[],: abc\\\xff\x00-')
        else:
            start = rng.randrange(len(data))
            del changed[start : start + rng.choice([1, 2, 30, 500])]
        path.write_bytes(changed)
        assert_loaded_as_written_or_refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"\xff\xfe\x00",
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00v\x00",
        b"null",
        b"[]",
        b"{}",
        b"3",
        b'"tokenizer"',
        b"NaN",
        b"hello",
        b'{"model": null}',
        b'{"model": "\\ud800"}',
        b'{"model": {"type": "BPE"}}',
        b"9" * 10_000,
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    refused(lambda: Tokenizer.load(path), path)


def change(path, edit):
    """Edits the content of a tokenizer.json."""
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


REMOVED = object()
SPLIT, BYTE_LEVEL = "pre_tokenizer pretokenizers 0", "pre_tokenizer pretokenizers 1"


@pytest.mark.parametrize(
    "place, value",
    [
        *(
            (place, REMOVED)
            for place in (
                "model",
                "pre_tokenizer",
                "added_tokens",
                "model vocab",
                "model merges",
                "model vocab a",
                "model merges 0",
                "model merges 3",
                "added_tokens 1 id",
                "added_tokens 1 content",
                SPLIT,
                BYTE_LEVEL,
                SPLIT + " pattern",
            )
        ),
        *(
            (place, None)
            for place in ("model", "pre_tokenizer", "added_tokens", "model vocab", "model merges", "model merges 0")
        ),
        ("normalizer", {"type": "Lowercase"}),
        ("added_tokens", {}),
        ("model dropout", 0.1),
        ("model end_of_word_suffix", "</w>"),
        ("model type", "WordPiece"),
        (SPLIT + " behavior", "Removed"),
        (SPLIT + " pattern", {"String": " "}),
        (SPLIT + " pattern", {"Regex": "("}),
        (SPLIT + " pattern", {"Regex": 5}),
        (BYTE_LEVEL + " add_prefix_space", True),
        ("added_tokens 0 id", 97),
        ("added_tokens 1 id", -1),
        ("added_tokens 1 id", "261"),
        ("added_tokens 1 content", EOT),
        ("added_tokens 1 content", 7),
        ("added_tokens 1 lstrip", True),
        ("model byte_fallback", True),
        ("model vocab", []),
        ("model vocab", {}),
        ("model merges", {}),
        ("model merges", []),
        *(("model merges 0", merge) for merge in ("t", "t h e", "h e", "zz z", "", 5, ["t"], ["t", 5], ["a", "t", "e"])),
        *(("model vocab a", id) for id in (98, 1.5, -1, 2**70, "97", None, [97])),
        ("model vocab ā", True),  # its id is 1
        ("model vocab new", 300),
    ],
)
def test_a_tokenizer_file_with_wrong_content_is_refused(place, value, tmp_path):
    *parents, last = [int(key) if key.isdigit() else key for key in place.split()]

    def edit(content):
        for key in parents:
            content = content[key]
        if value is REMOVED:
            del content[last]
        else:
            content[last] = value

    change(path := small_file(tmp_path), edit)
    refused(lambda: Tokenizer.load(path), path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["model"]["merges"].append("a b"),
        lambda content: content["model"]["merges"].append(content["model"]["merges"][0]),
        lambda content: content["model"]["vocab"].update(a=98),
        lambda content: content["model"]["vocab"].update(zz=content["added_tokens"][0]["id"]),
    ],
)
def test_a_tokenizer_file_whose_merges_and_ids_do_not_fit_is_refused(edit, tmp_path):
    change(path := small_file(tmp_path), edit)
    refused(lambda: Tokenizer.load(path), path)


@pytest.mark.parametrize(
    "model",
    [
        tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        tokenizers.models.Unigram([("a", 0.0)]),
        tokenizers.models.WordLevel({"a": 0}, unk_token="a"),
        tokenizers.models.BPE(),
        tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("byte_level", [False, True])
def test_tokenizers_of_another_kind_are_refused(model, byte_level, tmp_path):
    path = tmp_path / "tokenizer.json"
    other = tokenizers.Tokenizer(model)
    if byte_level:
        other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        other.decoder = tokenizers.decoders.ByteLevel()
    other.save(str(path))
    refused(lambda: Tokenizer.load(path), path)


def test_a_tokenizer_is_pickled_and_copied(tmp_path):
    for tok in (Tokenizer([(97, 98)], special_tokens=(EOT, "[X]"), pattern="gpt2"), Tokenizer([], pattern=r"\w+")):
        for again in (pickle.loads(pickle.dumps(tok)), copy.deepcopy(tok)):
            assert again.sha256 == tok.sha256 and again.encode_ordinary("ab abc") == tok.encode_ordinary("ab abc")

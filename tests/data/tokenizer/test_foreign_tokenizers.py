"""Tokenizers of Hugging Face's libraries and of minbpe keep their ids."""

import json
import random

import pytest
import tokenizers
from oracles import PATTERN_STRINGS, naive_encode, naive_merges
from tokenizer_cases import EOT, NATIVE, TEXT, cut, refused

from alilama.data.tokenizer import Tokenizer


def trained_by_tokenizers(**trainer) -> dict:
    """A tokenizer.json as the tokenizers library writes it: special tokens first, then the alphabet, then the merges."""
    other = tokenizers.Tokenizer(tokenizers.models.BPE())
    other.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN_STRINGS["gpt4"]), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    other.decoder = tokenizers.decoders.ByteLevel()
    options = {
        "vocab_size": 400,
        "initial_alphabet": tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        "special_tokens": [EOT],
        "show_progress": False,
    } | trainer
    other.train_from_iterator([TEXT], tokenizers.trainers.BpeTrainer(**options))
    return json.loads(other.to_str())


def like_gpt2() -> dict:
    """GPT-2's form: bytes in the order of their characters, ByteLevel alone, <|endoftext|> last and in the vocabulary."""
    content = trained_by_tokenizers(special_tokens=[])
    content["pre_tokenizer"] = content["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["model"]["vocab"][EOT] = 400
    content["added_tokens"] = [
        {"id": 400, "content": EOT, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    ]
    return content


def like_llama3() -> dict:
    """Llama 3's form: its pattern, pieces that are tokens before any merge, a token that merges alone do not reach."""
    content = trained_by_tokenizers(special_tokens=[])
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    content["model"]["ignore_merges"] = True
    content["model"]["vocab"]["Ġunreachable"] = 400
    content["added_tokens"] = [
        {
            "id": 401 + i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"])
    ]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [401], "tokens": ["<|begin_of_text|>"]}},
    }
    return content


def with_ids_in_another_order() -> dict:
    content = trained_by_tokenizers()
    ids = list(content["model"]["vocab"].values())
    random.Random(3).shuffle(ids)
    content["model"]["vocab"] = dict(zip(content["model"]["vocab"], ids, strict=True))
    content["added_tokens"][0]["id"] = content["model"]["vocab"][EOT]
    return content


FOREIGN = {"gpt2": like_gpt2, "llama3": like_llama3, "tokenizers": trained_by_tokenizers, "shuffled": with_ids_in_another_order}
FOREIGN_TEXTS = [
    TEXT,
    "an unreachable word",
    " unreachable unreachable",
    "'LL 'sup don't\r\n\n  x\t\ty 12345 ſ'ſ",
    "a" * 300,
    "🦙 नमस्ते",
]


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_files_of_tokenizers_are_read_with_their_ids_and_written_so_that_it_reads_them_again(kind, tmp_path):
    path, again = tmp_path / "tokenizer.json", tmp_path / "again.json"
    path.write_text(json.dumps(FOREIGN[kind](), ensure_ascii=False), encoding="utf-8")
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)
    assert ours.vocab_size == theirs.get_vocab_size() and ours.pattern == ("gpt2" if kind == "gpt2" else "gpt4")
    ours.save(again)
    reread = tokenizers.Tokenizer.from_file(str(again))
    for text in FOREIGN_TEXTS:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode_ordinary(text) == expected
        assert ours.encode_to_numpy(text).tolist() == expected
        assert Tokenizer.load(again).encode_ordinary(text) == expected
        assert reread.encode(text, add_special_tokens=False).ids == expected
        assert ours.decode(expected) == text
    for token, id in ours.special_tokens.items():
        assert theirs.token_to_id(token) == id and ours.encode(token, allowed_special="all") == [id]


@pytest.mark.parametrize("kind", ["gpt2", "tokenizers"])
def test_a_foreign_tokenizer_becomes_a_tiktoken_encoding_with_its_ids(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(FOREIGN[kind]()), encoding="utf-8")
    ours = Tokenizer.load(tmp_path / "tokenizer.json")
    theirs = ours.to_tiktoken()
    for text in FOREIGN_TEXTS:
        assert theirs.encode_ordinary(text) == ours.encode_ordinary(text)


@pytest.mark.parametrize("special_tokens", [[EOT], ["<|pad|>", EOT], [EOT, "<|pad|>"]])
def test_special_tokens_that_come_first_keep_their_ids(special_tokens, tmp_path):
    """The default of tokenizers' trainers."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=265 + len(special_tokens),
        special_tokens=special_tokens,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(["the cat the cat sat the mat " * 20], trainer)
    model.save(str(first))
    tok = Tokenizer.load(first)
    assert tok.special_tokens == {token: id for id, token in enumerate(special_tokens)}
    tok.save(second)
    again, other = Tokenizer.load(second), tokenizers.Tokenizer.from_file(str(second))
    assert again.special_tokens == tok.special_tokens and other.get_vocab() == model.get_vocab()
    text = f"the cat{EOT}sat on the mat{special_tokens[-1]}"
    expected = model.encode(text).ids
    assert tok.encode(text, allowed_special="all") == again.encode(text, allowed_special="all") == expected
    assert other.encode(text).ids == expected


def test_merges_that_are_not_in_the_order_of_ids_are_no_tiktoken_encoding(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(with_ids_in_another_order()), encoding="utf-8")
    refused(Tokenizer.load(tmp_path / "tokenizer.json").to_tiktoken, "another order")


def test_a_foreign_tokenizer_without_end_of_text_encodes_but_has_no_eot_id(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(like_llama3()), encoding="utf-8")
    foreign = Tokenizer.load(tmp_path / "tokenizer.json")
    refused(lambda: foreign.eot_id, "<|endoftext|>")
    refused(lambda: foreign.encode_document("a"), "<|endoftext|>")


def test_a_byte_level_bpe_without_all_bytes_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(trained_by_tokenizers(initial_alphabet=[])), encoding="utf-8")
    refused(lambda: Tokenizer.load(tmp_path / "tokenizer.json"), "initial_alphabet")


def minbpe_model(merges, special_tokens=(), pattern=PATTERN_STRINGS["gpt4"]) -> str:
    special = [f"{token} {256 + len(merges) + i}" for i, token in enumerate(special_tokens)]
    return "\n".join(["minbpe v1", pattern, str(len(special)), *special, *(f"{left} {right}" for left, right in merges)]) + "\n"


@pytest.mark.parametrize("name", [*NATIVE, r"\w+|\W+"])
@pytest.mark.parametrize("special_tokens", [(), (EOT,), ("<|user|>", EOT), ("<|user|>",)])
def test_a_minbpe_model_encodes_as_it_did(name, special_tokens, tmp_path):
    pattern = PATTERN_STRINGS.get(name, name)
    merges = naive_merges(cut(pattern, TEXT[:3000].encode()), 60)
    path = tmp_path / "tok.model"
    path.write_text(minbpe_model(merges, special_tokens, pattern), encoding="utf-8")
    tok = Tokenizer.from_minbpe(path)
    assert tok.merges == merges and tok.pattern == name
    kept = special_tokens if EOT in special_tokens else (*special_tokens, EOT)
    assert tok.special_tokens == {token: 256 + 60 + i for i, token in enumerate(kept)}
    for text in (TEXT[:5000], "I'LL 12345", "  a\n\n b"):
        assert tok.encode(text) == [id for piece in cut(pattern, text.encode()) for id in naive_encode(merges, piece)]
    tok.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").sha256 == tok.sha256


def test_a_minbpe_model_without_a_pattern_leaves_the_text_in_one_piece(tmp_path):
    text = "the cat\nand the cat\n\nand the bat"
    merges = naive_merges([text.encode()], 20)
    path = tmp_path / "basic.model"
    path.write_text(minbpe_model(merges, pattern=""), encoding="utf-8")
    tok = Tokenizer.from_minbpe(str(path))
    assert tok.encode(text) == naive_encode(merges, text.encode())
    assert tok.decode(tok.encode(text)) == text


def test_special_tokens_of_a_minbpe_model_keep_ids_that_leave_gaps(tmp_path):
    """As minbpe's GPT-4-like training with register_special_tokens({"<|endoftext|>": 100257, ...}) saves them."""
    merges = naive_merges(cut("gpt4", TEXT[:3000].encode()), 60)
    special = {"<|endofprompt|>": 100276, EOT: 100257, "<|fim_prefix|>": 100258}
    lines = [*(f"{token} {id}" for token, id in special.items()), *(f"{left} {right}" for left, right in merges)]
    (tmp_path / "gpt4.model").write_text(
        "\n".join(["minbpe v1", PATTERN_STRINGS["gpt4"], "3", *lines]) + "\n", encoding="utf-8"
    )
    tok = Tokenizer.from_minbpe(tmp_path / "gpt4.model")
    assert tok.special_tokens == special and tok.eot_id == 100257 and tok.vocab_size == 100277 and tok.merges == merges
    text = f"the cat{EOT}the cat<|endofprompt|>"
    expected = naive_encode(merges, b"the") + naive_encode(merges, b" cat")
    assert tok.encode(text, allowed_special="all") == [*expected, 100257, *expected, 100276]
    refused(lambda: tok.decode([5000]), 5000)
    tok.save(tmp_path / "tokenizer.json")
    again, other = Tokenizer.load(tmp_path / "tokenizer.json"), tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert again.sha256 == tok.sha256 and again.special_tokens == special
    assert other.encode(text).ids == tok.encode(text, allowed_special="all")


def test_a_minbpe_model_without_a_pattern_can_be_opened_by_tokenizers(tmp_path):
    text = "the cat\nand the cat\n\nand the bat"
    (tmp_path / "basic.model").write_text(minbpe_model(naive_merges([text.encode()], 20), pattern=""), encoding="utf-8")
    tok = Tokenizer.from_minbpe(tmp_path / "basic.model")
    tok.save(tmp_path / "tokenizer.json")
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == tok.encode(text)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"minbpe v1",
        b"minbpe v1\n",
        b"minbpe v1\n\n",
        b"minbpe v2\n\n0\n97 98\n",
        b"minbpe v1\n(\n0\n97 98\n",
        b"\x80\x81\x82",
        b"\x00" * 50,
        b"minbpe v1\n\xff\n0\n97 98\n",
        *(
            b"minbpe v1\n\n" + special + b"\n97 98\n"
            for special in (
                b"zero",
                b"-1",
                b"2\n<|endoftext|> 257",
                b"1\n<|endoftext|>",
                b"1\n<|endoftext|> 256",  # a merge's
                b"1\n<|endoftext|> 99999999",
                b"2\na 300\nb 300",
                b"2\na 257\na 258",
            )
        ),
        *(
            b"minbpe v1\n\n0\n" + merges + b"\n"
            for merges in (b"97", b"97 98 99", b"97 x", b"97 256", b"-1 98", b"99999999999 98", b"97 98\n97 98")
        ),
    ],
)
def test_a_damaged_minbpe_model_is_refused(content, tmp_path):
    path = tmp_path / "tok.model"
    path.write_bytes(content)
    refused(lambda: Tokenizer.from_minbpe(path), path)

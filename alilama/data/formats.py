"""Tokenizer files of others: Hugging Face's tokenizer.json, written and read, and minbpe's .model, read."""

from dataclasses import dataclass

from alilama import _bpe
from alilama.common.errors import UserError

END_OF_TEXT = "<|endoftext|>"
GPT2_PATTERN = _bpe.PATTERNS["gpt2"]  # what ByteLevel cuts by


@dataclass(frozen=True)
class Vocabulary:
    """What the C++ encoder is made of: the bytes of each id, and how ids merge.

    tokens: by id, special tokens too; empty where an id is none. byte_ids: what each byte is before any merge. merges:
    (left, right, result), the earlier one goes first. whole_pieces: ids of tokens that a piece with their bytes becomes
    without any merge.
    """

    tokens: list[bytes]
    byte_ids: list[int]
    merges: list[tuple[int, int, int]]
    whole_pieces: list[int]


def _byte_level_alphabet() -> list[str]:
    """The printable character that stands for each byte in tokenizer.json: GPT-2's table."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    stands_for = {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}
    return [chr(stands_for[byte]) for byte in range(256)]


BYTE_LEVEL_ALPHABET = _byte_level_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(BYTE_LEVEL_ALPHABET)}


def byte_level_name(token: bytes) -> str:
    """Returns what a token is called in tokenizer.json."""
    return "".join(BYTE_LEVEL_ALPHABET[byte] for byte in token)


def to_hugging_face(vocabulary: Vocabulary, special_tokens: dict[str, int], pattern: str) -> dict:
    """Returns the content of tokenizer.json. Raises UserError where two tokens have one name there."""
    special_ids = set(special_tokens.values())
    names = {id: byte_level_name(token) for id, token in enumerate(vocabulary.tokens) if token and id not in special_ids}
    if len({*names.values(), *special_tokens}) < len(names) + len(special_tokens):
        raise UserError(
            "two tokens have the same bytes, or a special token is what another one is called in tokenizer.json, "
            "which cannot express that"
        )
    added = [
        {
            "id": id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, id in special_tokens.items()
    ]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": bool(vocabulary.whole_pieces),
        "vocab": {name: id for id, name in names.items()},
        "merges": [f"{names[left]} {names[right]}" for left, right, _ in vocabulary.merges],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }


def from_hugging_face(content: object) -> tuple[Vocabulary, dict[str, int], str]:
    """Reads the content of tokenizer.json; returns the vocabulary, the ids of the special tokens, and the pattern.

    A post-processor is not read: nothing is added to a text. Raises UserError for what is no byte-level BPE, and for what
    a Tokenizer cannot express, with the reason.
    """
    try:
        model, added = content["model"], content["added_tokens"]
        vocab, merges = model["vocab"], model["merges"]
        if not isinstance(added, list) or not isinstance(merges, list) or not isinstance(vocab, dict):
            raise TypeError("a list is no list")
        special_tokens = {token["content"]: token["id"] for token in sorted(added, key=lambda token: token["id"])}
        check_is_byte_level_bpe(content, model, added)
        pattern = read_pattern(content["pre_tokenizer"])
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        ids = [*vocab.values(), *special_tokens.values()]
        if not all(isinstance(id, int) and 0 <= id < 2 * len(ids) + 1000 for id in ids) or not all(
            isinstance(token, str) and token for token in special_tokens
        ):
            raise UserError(f"an id is no whole number that {len(ids)} tokens may have, or a special token no string")
        if len(special_tokens) < len(added):
            raise UserError("a special token stands in it twice")
        return _make_vocabulary(vocab, pairs, special_tokens, bool(model.get("ignore_merges"))), special_tokens, pattern
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is not the tokenizer.json of a byte-level BPE ({type(error).__name__}: {error})") from None


def check_is_byte_level_bpe(content: dict, model: dict, added: list[dict]):
    """Raises UserError for settings of tokenizer.json that a Tokenizer has no counterpart of."""
    normalizer = content.get("normalizer")
    unlike = [
        (model.get("type", "BPE") != "BPE", f"its model is {model.get('type')}, and only BPE is read"),
        (
            normalizer is not None and normalizer.get("normalizers") != [],
            "it changes the text by a normalizer before cutting it, and here every byte is kept",
        ),
        (bool(model.get("dropout")), "it drops merges at random"),
        (bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")), "it marks parts of words"),
        (bool(model.get("byte_fallback")), "its tokens are characters with bytes to fall back on, not bytes"),
        (
            any(token.get(name) for token in added for name in ("single_word", "lstrip", "rstrip")),
            "a special token takes white space with it, or stands only between words",
        ),
    ]
    for holds, reason in unlike:
        if holds:
            raise UserError(f"this tokenizer.json cannot be read: {reason}")


def read_pattern(pre_tokenizer: dict) -> str:
    """Returns the pattern that a pre-tokenizer cuts by, one of ByteLevel alone or of Split and ByteLevel."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    if kinds and kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return GPT2_PATTERN
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
            split = steps[0]
            if split["behavior"] == "Isolated" and not split["invert"] and isinstance(split["pattern"].get("Regex"), str):
                return split["pattern"]["Regex"]
    raise UserError(
        f"this tokenizer.json cannot be read: its pre-tokenizer ({', '.join(kinds)}) does not cut text by one "
        "pattern into bytes"
    )


def _make_vocabulary(
    vocab: dict[str, int], pairs: list[tuple[str, str]], special_tokens: dict[str, int], ignores_merges: bool
) -> Vocabulary:
    special_ids = set(special_tokens.values())
    tokens = [b""] * (1 + max([*vocab.values(), *special_ids], default=-1))
    for name, id in vocab.items():
        if id in special_ids:
            continue
        if tokens[id] or not name or not BYTE_OF.keys() >= set(name):
            raise UserError(f"token {name!r} is not written in bytes, or shares its id {id} with another one")
        tokens[id] = bytes(BYTE_OF[character] for character in name)
    for token, id in special_tokens.items():
        if tokens[id]:
            raise UserError(f"special token {token!r} shares its id {id} with another one")
        tokens[id] = token.encode()
    missing = [byte for byte, character in enumerate(BYTE_LEVEL_ALPHABET) if character not in vocab]
    if missing:
        raise UserError(
            f"byte {missing[0]} has no token, so texts with it would lose it ({len(missing)} bytes in all); train "
            "it with initial_alphabet=ByteLevel.alphabet()"
        )
    byte_ids = [vocab[character] for character in BYTE_LEVEL_ALPHABET]
    merges = [(vocab[left], vocab[right], vocab[left + right]) for left, right in pairs]
    whole_pieces = [id for id in vocab.values() if id not in special_ids] if ignores_merges else []
    made = {*byte_ids, *special_ids, *whole_pieces, *(result for _, _, result in merges)}
    if unmade := [name for name, id in vocab.items() if id not in made]:
        raise UserError(f"no merge makes token {unmade[0]!r} ({len(unmade)} such tokens in all)")
    return Vocabulary(tokens, byte_ids, merges, whole_pieces)


def from_minbpe(text: str) -> tuple[list[tuple[int, int]], list[str], str]:
    """Reads minbpe's .model ("minbpe v1"); returns the merges, the special tokens and the pattern.

    <|endoftext|> follows the special tokens if it is none of them. Raises UserError for a file of another kind.
    """
    lines = text.split("\n")
    try:
        if lines[0] != "minbpe v1":
            raise UserError(f"the first line is {lines[0][:40]!r}, expected 'minbpe v1'")
        pattern, number = lines[1], int(lines[2])
        special = [line.rsplit(" ", 1) for line in lines[3 : 3 + number]]
        merges = [tuple(map(int, line.split())) for line in lines[3 + number :] if line]
        if any(len(pair) != 2 for pair in merges) or len(special) != number:
            raise UserError("a line of its merges is not two numbers")
        if any(int(id) != 256 + len(merges) + i for i, (_, id) in enumerate(special)):
            raise UserError("its special tokens do not follow the merges")
    except (ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is no minbpe v1 model: {error}") from None
    tokens = [token for token, _ in special]
    return merges, tokens if END_OF_TEXT in tokens else [*tokens, END_OF_TEXT], pattern or r"(?s:.+)"

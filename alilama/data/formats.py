"""Tokenizer files of others: Hugging Face's tokenizer.json, written and read, and minbpe's .model, read."""

import json
from dataclasses import dataclass

import regex

from alilama import _bpe
from alilama.common.errors import UserError

END_OF_TEXT = "<|endoftext|>"
GPT2_PATTERN = _bpe.PATTERNS["gpt2"]  # what ByteLevel cuts by
ONE_PIECE_PATTERN = r"[\s\S]+"  # leaves a text in one piece; `tokenizers` cannot open (?s:.+)
MAX_GAPS = 1 << 20  # ids without a token, so that a small file cannot fill the memory


@dataclass(frozen=True)
class Vocabulary:
    """What the C++ encoder is made of: the bytes of each id, and how ids merge.

    tokens: by id, special tokens too; empty for an id without a token. byte_ids: what each byte is before any merge. merges:
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


def to_hugging_face(
    vocabulary: Vocabulary, special_tokens: dict[str, int], pattern: str, first_token: str | None = None
) -> dict:
    """Returns the content of tokenizer.json. Raises UserError where two tokens have one name there.

    `tokenizers` numbers a token that is only in added_tokens by the size of vocab. Special tokens whose ids follow all the
    others are therefore only there, and any others are in vocab as well. `first_token` is the special token that they put
    before every text.
    """
    special_ids = set(special_tokens.values())
    names = {id: byte_level_name(token) for id, token in enumerate(vocabulary.tokens) if token and id not in special_ids}
    if len({*names.values(), *special_tokens}) < len(names) + len(special_tokens):
        raise UserError(
            "two tokens have the same bytes, or a special token is what another one is called in tokenizer.json, "
            "which cannot express that"
        )
    vocab = {name: id for id, name in names.items()}
    if list(special_tokens.values()) != list(range(len(vocab), len(vocab) + len(special_tokens))):
        vocab |= special_tokens
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
        "vocab": vocab,
        "merges": [f"{names[left]} {names[right]}" for left, right, _ in vocabulary.merges],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None if first_token is None else preceded_by(first_token, special_tokens[first_token]),
        "decoder": byte_level,
        "model": model,
    }


def preceded_by(token: str, id: int) -> dict:
    """Returns the post-processor that puts a token before each text. Transformers 4 and 5 do so whatever else they are told."""
    texts = [
        ({"SpecialToken": {"id": token, "type_id": i}}, {"Sequence": {"id": text, "type_id": i}}) for i, text in enumerate("AB")
    ]
    return {
        "type": "TemplateProcessing",
        "single": [*texts[0]],
        "pair": [*texts[0], *texts[1]],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


def from_hugging_face(content: object) -> tuple[Vocabulary, dict[str, int], str]:
    """Reads the content of tokenizer.json; returns the vocabulary, the ids of the special tokens, and the pattern.

    A post-processor is not read: nothing is added to a text. Raises UserError for what is not a byte-level BPE, and for
    what a Tokenizer cannot express, with the reason.
    """
    try:
        model, added = content["model"], content["added_tokens"]
        vocab, merges = model["vocab"], model["merges"]
        for name, value, kind in (("added_tokens", added, list), ("merges", merges, list), ("vocab", vocab, dict)):
            if not isinstance(value, kind):
                expected = "a list" if kind is list else "an object of tokens and ids"
                raise UserError(f"its {name} is {json.dumps(value)[:40]}, expected {expected}")
        check_is_byte_level_bpe(content, model, added)
        pattern = read_pattern(content["pre_tokenizer"])
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        check_ids([*vocab.items(), *((token["content"], token["id"]) for token in added)])
        special_tokens = {token["content"]: token["id"] for token in sorted(added, key=lambda token: token["id"])}
        if len(special_tokens) < len(added):
            raise UserError("a special token is in its added_tokens twice")
        return make_vocabulary(vocab, pairs, special_tokens, bool(model.get("ignore_merges"))), special_tokens, pattern
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is not the tokenizer.json of a byte-level BPE ({type(error).__name__}: {error})") from None


def check_is_byte_level_bpe(content: dict, model: dict, added: list[dict]):
    """Raises UserError for settings of tokenizer.json that a Tokenizer does not have."""
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


def check_ids(tokens: list[tuple[object, object]]):
    """Raises UserError unless each token is a string, and its id a whole number that so many tokens may have."""
    limit = 2 * len(tokens) + MAX_GAPS
    for token, id in tokens:
        if not isinstance(token, str):
            raise UserError(f"its special token {token!r} is not a string")
        if type(id) is not int or not 0 <= id < limit:
            raise UserError(f"token {token!r} has the id {id!r}, expected a whole number from 0 to {limit - 1:,}")


def make_vocabulary(
    vocab: dict[str, int], pairs: list[tuple[str, str]], special_tokens: dict[str, int], ignores_merges: bool
) -> Vocabulary:
    """Puts together what tokenizer.json says. Raises UserError where it contradicts itself or lacks a byte."""
    special_ids = set(special_tokens.values())
    tokens = [b""] * (1 + max([*vocab.values(), *special_ids], default=-1))
    for name, id in vocab.items():
        if name in special_tokens or id in special_ids:
            if special_tokens.get(name) != id:
                raise UserError(f"its vocab and its added_tokens disagree about token {name!r} with the id {id}")
            continue
        if tokens[id] or not name or not BYTE_OF.keys() >= set(name):
            raise UserError(f"token {name!r} is not written in bytes, or shares its id {id} with another one")
        tokens[id] = bytes(BYTE_OF[character] for character in name)
    for token, id in special_tokens.items():
        if not token or tokens[id]:
            raise UserError(f"special token {token!r} is empty, or shares its id {id} with another one")
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


def from_minbpe(text: str) -> tuple[list[tuple[int, int]], dict[str, int], str]:
    """Reads minbpe's .model ("minbpe v1"); returns the merges, the ids of the special tokens and the pattern.

    Ids of special tokens may leave gaps, as in GPT-4's 100257. <|endoftext|> gets the id after all others if it is not
    among them. Raises UserError for a file of another kind.
    """
    lines = text.split("\n")
    try:
        if lines[0] != "minbpe v1":
            raise UserError(f"the first line is {lines[0][:40]!r}, expected 'minbpe v1'")
        pattern, number = lines[1], int(lines[2])
        special = [line.rsplit(" ", 1) for line in lines[3 : 3 + number]]
        ids = {token: int(id) for token, id in sorted(special, key=lambda pair: int(pair[1]))}
        merges = [tuple(map(int, line.split())) for line in lines[3 + number :] if line]
    except (ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is not a minbpe v1 model: {error}") from None
    if any(len(pair) != 2 for pair in merges):
        raise UserError("a line of its merges is not two numbers")
    if len(special) != number or len(ids) < number or len(set(ids.values())) < number:
        raise UserError(f"expected {number} different special tokens with different ids")
    first = 256 + len(merges)
    for token, id in ids.items():
        if not first <= id < first + MAX_GAPS:
            raise UserError(
                f"special token {token!r} has the id {id}, expected one after the merges, from {first} to "
                f"{first + MAX_GAPS - 1}"
            )
    if END_OF_TEXT not in ids:
        ids[END_OF_TEXT] = 1 + max([first - 1, *ids.values()])
    return merges, ids, pattern or ONE_PIECE_PATTERN


# What the `regex` package, Oniguruma (in `tokenizers`) and fancy-regex (in tiktoken) read alike. Left out are ^ $ \b (of a
# line or of the text), \w (marks, ²), flags ((?m) or (?s) for dots, ß and ss in (?i)), {1,3}+ (possessive or repeated), {2}?
# (lazy or optional), sets in sets and && in them, look-around and references (not every kind is in each).
_PUNCTUATION = r"\\[\\^$.|?*+()\[\]{}/-]"
_ESCAPE = rf"\\[rntsSdD]|{_PUNCTUATION}|\\[pP]\{{(?:[LMNPSZC][a-z]?|Han)\}}"
_IN_SET = rf"(?:[^\\\[\]^-]|{_PUNCTUATION})"
_SET = rf"\[\^?(?:(?!&&|\|\||~~)(?:{_IN_SET}-{_IN_SET}|{_IN_SET}|{_ESCAPE}))+\]"
_REPEAT = r"(?:[?*+][?+]?|\{\d{1,3}(?:,\d{0,3})?\})(?![?*+{])"
_USUAL = r"\(\?i:(?:'s\|'t\|'re\|'ve\|'m\|'ll\|'d|\[sdmt\]\|ll\|ve\|re)\)|\\s\+\(\?!\\S\)(?![?*+{])"
PORTABLE = regex.compile(rf"(?:{_USUAL}|{_ESCAPE}|{_SET}|[^\\^$|?*+()\[\]{{}}]|\((?:\?[:>]|(?!\?))|\)|\||{_REPEAT})*+")


def unportable_part(pattern: regex.Pattern) -> str | None:
    """Returns what other regex engines may read in another way than the `regex` package does, or None.

    A short list of what is alike decides, so what it returns may well be alike too.
    """
    expression = pattern.pattern
    end = PORTABLE.match(expression).end()
    if end < len(expression):
        return f"{expression[end : end + 12]!r} at character {end}"
    return "a match of empty text" if pattern.fullmatch("") else None

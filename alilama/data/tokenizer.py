"""Byte-level BPE with a C++ core: trained on your text, read by `tokenizers` and `transformers` as it is.

    tok = Tokenizer.train(["stories.txt"], vocab_size=4096)
    tok.decode(tok.encode("Once upon a time")) == "Once upon a time"

Ids 0-255 are the bytes, then the merges in the order they were learned, then the special tokens.
"""

import hashlib
import json
import math
import operator
import os
import queue
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import regex

from alilama import _bpe
from alilama.common.errors import UserError, expect, first_line, listed, shown
from alilama.common.files import check_is_file, replacing
from alilama.data.formats import END_OF_TEXT, Vocabulary, from_hugging_face, from_minbpe, to_hugging_face, unportable_part
from alilama.data.frames import FRAME_TOKENS, Conversation, Frame, Message, to_conversation, to_utf8
from alilama.data.text import BLOCK_BYTES, Block, choose_num_threads, find_sources, map_blocks, read_blocks

if TYPE_CHECKING:
    import tiktoken

# When the distinct pieces of a text take more memory than this, the rarest are dropped until they take half.
MAX_PIECES_BYTES = 1 << 30
# Blocks between two looks at that, so that the result does not depend on the number of threads; more threads are of no use.
SEGMENT_BLOCKS = 32
MAX_MERGES = 1 << 31
LEAST_VOCAB_SIZE, MOST_VOCAB_SIZE = 512, 8192  # where the size of the text decides
MAX_TOKEN_BYTES = 256 << 20  # of all tokens together, so that a few lines of merges cannot fill the memory
MAX_PATTERN = 10_000  # characters; the longest in use have 600, and 10 million took 47 s and 2.7 GB to read
CUT_SECONDS = 60  # for a megabyte of text, or less, by a regular expression; usual ones take 0.2

# The patterns that the C++ core cuts by itself.
PATTERNS: dict[str, str] = _bpe.PATTERNS
# Other ways to write them, which cut the same: Llama 3's, GPT-2's.
PATTERN_NAMES = {expression: name for name, expression in PATTERNS.items()} | {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+": "gpt4",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
}


class Tokenizer:
    """A byte-level BPE tokenizer; immutable, and threads may share it.

    merges: pairs of ids; pair i makes id 256 + i. pattern: "gpt4", "gpt2" or a regular expression of the `regex` package,
    which cuts more slowly; text that it does not match is a piece too, so nothing is ever lost. Raises UserError for a
    merge of ids not yet made, special tokens without <|endoftext|>, and a pattern that is not a regular expression.
    """

    def __init__(
        self, merges: Sequence[tuple[int, int]], *, special_tokens: Sequence[str] = (END_OF_TEXT,), pattern: str = "gpt4"
    ):
        special_tokens, merges = listed("special_tokens", special_tokens, str), to_pairs(merges)
        check_special_tokens(special_tokens)
        special = {token: 256 + len(merges) + i for i, token in enumerate(special_tokens)}
        self._set_up(number_tokens(merges, special), special, pattern)

    @classmethod
    def _of(cls, vocabulary: Vocabulary, special_tokens: dict[str, int], pattern: str) -> "Tokenizer":
        """Makes a tokenizer whose ids are numbered in another way than ours."""
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(vocabulary, special_tokens, pattern)
        return tokenizer

    def __reduce__(self) -> tuple:
        return Tokenizer._of, (self.vocabulary, self.special_tokens, self.pattern)

    def _set_up(self, vocabulary: Vocabulary, special_tokens: dict[str, int], pattern: str):
        check_pattern(pattern)
        self.pattern = PATTERN_NAMES.get(pattern, pattern)
        self._compiled = compile_pattern(PATTERNS.get(self.pattern, self.pattern))
        self.vocabulary = vocabulary
        try:
            self._core = _bpe.Encoder(**vars(vocabulary))
        except ValueError as error:
            raise UserError(str(error)) from None
        self.special_tokens = special_tokens
        self.vocab_size = len(vocabulary.tokens)

    # ---- training ----

    @classmethod
    def train(
        cls,
        files: str | Iterable[str],
        vocab_size: int | None,
        *,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = "gpt4",
        text_column: str | None = None,
        num_threads: int | None = None,
        on_bytes: Callable[[int], None] = lambda size: None,
    ) -> "Tokenizer":
        """Learns a vocabulary from what `find_sources` finds; documents stand between <|endoftext|> lines, or are rows.

        `on_bytes` is told how many bytes of the files were read for every block. The result does not depend on `num_threads`.
        Memory is bounded for files of any size: where the distinct pieces of the text would take more than MAX_PIECES_BYTES,
        the rarest are dropped, with a warning. Raises UserError for a vocab_size that is too small for the bytes and special
        tokens or larger than the text can give; None is one that suits the size of the text.
        """
        pattern = cls([], special_tokens=special_tokens, pattern=pattern).pattern  # what cannot be is refused first
        is_cut_anywhere = pattern in PATTERNS and not any(may_be_cut(token) for token in special_tokens)
        expect("text_column", text_column, str, NoneType)
        sources = find_sources(files, text_column=text_column)
        blocks = read_blocks(sources, pattern if is_cut_anywhere else None)

        def texts() -> Iterator[Texts]:
            for block in blocks:
                on_bytes(block.size)
                if block.conversations is not None:
                    yield Texts([message.content for each in block.conversations for message in each], has_documents=False)
                else:
                    yield Texts([block.text], has_documents=not block.is_document)

        return cls._train(texts(), vocab_size, special_tokens, pattern, num_threads)

    @classmethod
    def train_from_iterator(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = "gpt4",
        num_threads: int | None = None,
    ) -> "Tokenizer":
        """Learns a vocabulary from texts, each of them a document; see `train`."""
        check_texts(texts)
        return cls._train(blocks_of_texts(texts), vocab_size, special_tokens, pattern, num_threads)

    @classmethod
    def _train(
        cls,
        blocks: Iterable["Texts"],
        vocab_size: int | None,
        special_tokens: Sequence[str],
        pattern: str,
        num_threads: int | None,
    ) -> "Tokenizer":
        bytes_only = cls([], special_tokens=special_tokens, pattern=pattern)
        expect("vocab_size", vocab_size, Integral, NoneType)
        if vocab_size is not None and vocab_size < bytes_only.vocab_size:
            raise UserError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} special token(s) need "
                f"at least {bytes_only.vocab_size}"
            )
        num_bytes = 0

        def measured() -> Iterator[Texts]:
            nonlocal num_bytes
            for block in blocks:
                num_bytes += sum(map(len, block.texts))
                yield block

        counter, num_dropped = bytes_only._count_all(measured(), choose_num_threads(num_threads))
        if num_dropped:
            warnings.warn(
                f"the distinct pieces of this text do not fit into memory: {num_dropped:,} of the rarest were "
                "dropped on the way, so rare pairs may be missing from the vocabulary",
                stacklevel=3,
            )
        wanted = min((vocab_size or usual_vocab_size(num_bytes)) - bytes_only.vocab_size, MAX_MERGES)
        merges = counter.learn_merges(wanted)
        tokenizer = cls(merges, special_tokens=special_tokens, pattern=pattern)
        if vocab_size is not None and tokenizer.vocab_size < vocab_size:
            raise UserError(
                f"vocab_size {vocab_size} is more than this text can give: after {len(merges)} merges no pair is "
                f"left; give more text or a vocab_size of at most {tokenizer.vocab_size}"
            )
        return tokenizer

    def _count_all(self, blocks: Iterable["Texts"], num_threads: int) -> tuple[_bpe.PieceCounter, int]:
        """Returns the counted pieces of all blocks, and how many distinct ones were dropped to bound their memory."""
        counters = [_bpe.PieceCounter() for _ in range(num_threads)]
        idle = queue.SimpleQueue()
        for counter in counters:
            idle.put(counter)

        def count(block: Texts):
            counter = idle.get()
            try:
                for text in block.texts:
                    self._count_pieces(counter, text, block.has_documents)
            finally:
                idle.put(counter)

        def merge_counters() -> int:
            for counter in counters[1:]:
                counters[0].merge(counter)
            return counters[0].drop_rarest(MAX_PIECES_BYTES // 2) if counters[0].num_bytes > MAX_PIECES_BYTES else 0

        blocks, num_dropped = iter(blocks), 0
        while first := list(islice(blocks, 1)):
            for _ in map_blocks(count, chain(first, islice(blocks, SEGMENT_BLOCKS - 1)), num_threads):
                pass
            if sum(counter.num_bytes for counter in counters) > MAX_PIECES_BYTES:
                num_dropped += merge_counters()
        return counters[0], num_dropped + merge_counters()

    def _count_pieces(self, counter: _bpe.PieceCounter, text: bytes, has_documents: bool):
        special_tokens = list(self.special_tokens)
        if self.native_pattern is not None:
            counter.add_text(self.pattern, text, special_tokens, has_documents)
            return
        for document in _bpe.split_documents(text) if has_documents else [text]:
            for stretch in _bpe.split_at_tokens(document, special_tokens):
                counter.add_pieces(self._cut(stretch))

    # ---- encoding ----

    @property
    def expression(self) -> str:
        """The pattern as a regular expression of the `regex` package."""
        return self._compiled.pattern

    @property
    def native_pattern(self) -> str | None:
        """The pattern's name where the C++ core cuts by it, else None."""
        return self.pattern if self.pattern in PATTERNS else None

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 65536 else np.uint32)

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Collection[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """Encodes text; special tokens in it become their ids if allowed, an error if disallowed, else ordinary text.

        The words and their meaning are tiktoken's. Of special tokens that begin together the longest is taken.
        """
        try:
            special = set(self.special_tokens)
            allowed = special if allowed_special == "all" else set(allowed_special) & special
            disallowed = special - allowed if disallowed_special == "all" else set(disallowed_special)
            found = any_of(disallowed).search(text) if disallowed else None
            special_ones = any_of(allowed).finditer(text) if allowed else iter(())
        except (TypeError, ValueError, RuntimeError):  # asked for what they are only then, which takes time
            expect("text", text, str)
            for name, tokens in (("allowed_special", allowed_special), ("disallowed_special", disallowed_special)):
                listed(name, [] if isinstance(tokens, str) else tokens, str)
            raise
        if found:
            raise UserError(
                f"the text holds the special token {found[0]!r} at character {found.start()}: pass allowed_special="
                f"{{{found[0]!r}}} to encode it as one token, or disallowed_special=() to encode it as ordinary text"
            )
        if not allowed:
            return self.encode_ordinary(text)
        ids, start = [], 0
        for found in special_ones:
            ids += self.encode_ordinary(text[start : found.start()])
            ids.append(self.special_tokens[found[0]])
            start = found.end()
        return ids + self.encode_ordinary(text[start:])

    def encode_document(self, text: str) -> list[int]:
        """Encodes text as the token files hold it, preceded by <|endoftext|>. Raises UserError for a special token in it."""
        eot_id = self.eot_id
        expect("text", text, str)
        if found := any_of(self.special_tokens).search(text):
            raise UserError(f"the text holds the special token {found[0]!r} at character {found.start()}; leave it out")
        return [eot_id, *self.encode_ordinary(text)]

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, str]]) -> list[int]:
        """Encodes what a model is to go on from: the beginning of a document, or, in a frame, what it is to answer.

        With a frame `prompt` is what the user says, or messages such as {"role": "user", "content": "..."}; nothing in them
        is a special token. Without one it is as in `encode_document`. Raises UserError for other messages.
        """
        if self.frame is None:
            if not isinstance(prompt, str):
                raise UserError(
                    f"prompt = {shown(prompt)}: expected text to go on from: the model was not trained on prompts with answers"
                )
            return self.encode_document(prompt)
        conversation = (
            [Message("user", to_bytes(prompt))] if isinstance(prompt, str) else to_conversation(listed("prompt", prompt))
        )
        before, texts = self.frame.wrap(conversation)
        parts = [[id, *self._encode_bytes(text).tolist()] for id, text in zip(before, texts, strict=True)]
        return [*chain.from_iterable(parts), self.frame.role_ids["assistant"]]

    def encode_ordinary(self, text: str) -> list[int]:
        """Encodes text with no regard to special tokens."""
        if self.native_pattern is not None:
            return self._encode_by(self._core.encode, text)
        return self.encode_to_numpy(text).tolist()

    def encode_batch(self, texts: Sequence[str], num_threads: int | None = None) -> list[list[int]]:
        """Encodes each text as `encode` does, on `num_threads` threads (all cores unless given)."""
        check_texts(texts)
        return list(map_blocks(self.encode, texts, choose_num_threads(num_threads)))

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """Encodes text with no regard to special tokens into a uint16 array, uint32 above 65,536 tokens."""
        if self.native_pattern is not None:
            return self._encode_by(self._core.encode_to_numpy, text)
        return self._encode_bytes(to_bytes(text))

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Encodes text as `encode_to_numpy` does and says where each token stands: [tokens, 2] int64, text[start:stop].

        A token with a part of a character, of which others hold the rest, has the whole character's place. Surrogates that
        form a pair count as the one character that they are encoded as.
        """
        ids = self.encode_to_numpy(text)
        sizes = self._token_sizes[ids]
        ends = np.cumsum(sizes, dtype=np.int64)
        is_first_byte = (np.frombuffer(to_bytes(text), np.uint8) & 0xC0) != 0x80
        char_of_byte = np.cumsum(is_first_byte, dtype=np.int64) - 1
        return ids, np.stack([char_of_byte[ends - sizes], char_of_byte[ends - 1] + 1], axis=1)

    def count(self, text: str) -> int:
        """Returns the number of tokens that `encode_ordinary` gives."""
        return len(self.encode_to_numpy(text))

    def encode_files(
        self, files: str | os.PathLike | Iterable[str | os.PathLike], num_threads: int | None = None
    ) -> np.ndarray:
        """Encodes the documents of text files, folders or glob patterns, each preceded by <|endoftext|>, into one array.

        On `num_threads` threads (all cores unless given), in the order of the files, each once; dtype as `encode_to_numpy` has
        it. Raises UserError where a name leads to no file, where all are empty, and without <|endoftext|> in the vocabulary.
        """
        blocks = read_blocks(find_sources(files, "files"), self.native_pattern)
        encoded = map_blocks(lambda block: self.encode_block(block)[0], blocks, choose_num_threads(num_threads))
        return np.concatenate(list(encoded))

    def _encode_by(self, encode: Callable, text: str) -> list[int] | np.ndarray:
        try:
            return encode(self.pattern, text)
        except UnicodeEncodeError:  # it holds surrogates
            return encode(self.pattern, to_bytes(text))
        except TypeError:
            expect("text", text, str)
            raise

    def encode_block(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Encodes the documents in a block of a text file, each that begins there preceded by <|endoftext|>.

        Returns the ids, the number of tokens and of bytes of each part (a document or the rest of one that an earlier
        block began), and whether the first part is such a rest. Empty documents are left out. Raises UserError for
        conversations without the tokens of a frame in the vocabulary.
        """
        if block.conversations is not None:
            return self._encode_conversations(block.conversations)
        if self.native_pattern is not None and not block.is_document:
            ids, part_tokens, part_bytes = self._core.encode_documents(self.pattern, block.text, self.eot_id, block.continues)
        else:
            documents = [document for document in block.documents() if document]
            encoded = [self._encode_bytes(document) for document in documents]
            eot = np.array([self.eot_id], dtype=self.dtype)
            ids = np.concatenate([eot[:0], *(part for document in encoded for part in (eot, document))])
            part_tokens = np.array([1 + len(document) for document in encoded], dtype=np.int64)
            part_bytes = np.array([len(document) for document in documents], dtype=np.int64)
        return ids, part_tokens, part_bytes, block.continues

    def _encode_conversations(self, conversations: list[Conversation]) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        if self.frame is None:
            raise UserError(
                "there are prompts with answers in the text, and the vocabulary has no tokens to stand around them: where it "
                "is learned, they come first in their file, or have one of their own; a model must have been trained on such"
            )
        documents = [self.frame.wrap(conversation) for conversation in conversations]
        before = [id for ids, _ in documents for id in ids]
        texts = [text for _, parts in documents for text in parts]
        sizes = [len(text) for text in texts]
        if self.native_pattern is not None:
            ids, tokens = self._core.encode_framed(self.pattern, b"".join(texts), before, sizes)
        else:
            encoded = [self._encode_bytes(text) for text in texts]
            ids = np.concatenate([part for id, text in zip(before, encoded, strict=True) for part in ([id], text)])
            ids, tokens = ids.astype(self.dtype), np.array([1 + len(text) for text in encoded], dtype=np.int64)
        firsts = np.cumsum([0, *(len(ids) for ids, _ in documents)])[:-1]
        return ids, np.add.reduceat(tokens, firsts), np.add.reduceat(np.array(sizes, dtype=np.int64), firsts), False

    def _encode_bytes(self, text: bytes) -> np.ndarray:
        if self.native_pattern is not None:
            return self._core.encode_to_numpy(self.pattern, text)
        return self._core.encode_pieces(self._cut(text))

    def _cut(self, text: bytes) -> list[bytes]:
        """Cuts text into pieces by the `regex` package; what the pattern does not match is a piece too.

        Raises UserError where that takes longer than CUT_SECONDS for each megabyte: some patterns try too many ways.
        """
        try:
            string, encode = text.decode(), str.encode
        except UnicodeDecodeError:  # bytes that are not UTF-8 come back as they were
            string, encode = text.decode("utf-8", "surrogateescape"), to_utf8
        limit = timeout = CUT_SECONDS * max(1, len(text) / 1e6)
        begun = time.thread_time()
        while True:
            try:
                return [*map(encode, self._pieces_of(string, timeout))]
            except TimeoutError:  # which goes by the time of all threads
                if time.thread_time() - begun > limit / 2:
                    raise UserError(
                        f"the pattern {self.pattern[:100]!r} was not done with {len(text):,} bytes of text after {limit:.3g} "
                        "s: it tries too many ways to match, as (a+)+ does; write it so that every character is matched in one "
                        "way only, or take gpt4"
                    ) from None
                timeout *= 2

    def _pieces_of(self, string: str, timeout: float) -> list[str]:
        pieces, start = [], 0
        if (many_pieces := self._many_pieces) is not None:
            for found in many_pieces.finditer(string, timeout=timeout):
                more = found.captures("piece")
                if "" in more:  # a look-around alone matched: that cuts, and here it would end the repetition
                    self._many_pieces, pieces = None, []
                    break
                pieces += more
            else:
                return pieces
        for found in self._compiled.finditer(string, timeout=timeout):
            pieces += [string[start : found.start()], found[0]]
            start = found.end()
        return [piece for piece in [*pieces, string[start:]] if piece]

    @cached_property
    def _many_pieces(self) -> regex.Pattern | None:
        """What matches many pieces at once, which asks for the time less often; None for patterns that this may change.

        Those that all engines read alike have nothing that it would change, such as references, flags and empty matches; nor
        have \\w, \\b and look-around, which only other engines read in another way.
        """
        one = self._compiled.pattern
        simpler = regex.sub(r"\(\?<?[=!]", "(?:", regex.sub(r"\\[wWbB]", r"\\d", one))
        try:
            if unportable_part(regex.compile(simpler)):
                return None
            return regex.compile(rf"(?>(?<piece>{one})|(?<piece>[\s\S](?:(?!{one})[\s\S])*+)){{1,1000}}+")
        except (regex.error, RecursionError):  # such as sets with "(?=" in them; hundreds of parentheses within each other
            return None

    # ---- decoding ----

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Returns the bytes of the tokens. Raises UserError at an id out of range."""
        try:
            return self._core.decode_to_bytes(ids)
        except (IndexError, TypeError) as error:
            raise no_ids(ids, error) from None

    def decode(self, ids: Sequence[int] | np.ndarray, errors: str = "replace") -> str:
        """Returns the text of the tokens; `errors` says what becomes of bytes that are not UTF-8, as in bytes.decode."""
        try:
            return self._core.decode_to_str(ids, errors)
        except (IndexError, TypeError) as error:
            expect("errors", errors, str)
            raise no_ids(ids, error) from None
        except LookupError:
            raise UserError(f"errors = {shown(errors)}: expected one such as 'replace', 'strict', 'ignore'") from None

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes of one token. Raises UserError where the id is out of range."""
        return self.decode_bytes([token_id])

    # ---- looking at it ----

    @cached_property
    def merges(self) -> list[tuple[int, int]]:
        """The pairs of ids in the order they were learned: merge i makes id 256 + i unless the tokenizer is a foreign one."""
        return [(left, right) for left, right, _ in self.vocabulary.merges]

    @cached_property
    def _token_sizes(self) -> np.ndarray:
        """Bytes of each token: [ids] int64, 0 for an id that is none."""
        return np.array([len(token) for token in self.vocabulary.tokens], dtype=np.int64)

    @property
    def eot_id(self) -> int:
        """The id of <|endoftext|>. Raises UserError where a foreign tokenizer has none."""
        if END_OF_TEXT not in self.special_tokens:
            raise UserError(
                f"the tokenizer has no {END_OF_TEXT}, which separates documents here; its special tokens are "
                f"{list(self.special_tokens)}"
            )
        return self.special_tokens[END_OF_TEXT]

    @cached_property
    def frame(self) -> Frame | None:
        """The ids that stand around prompts and answers; None where the vocabulary has none for that."""
        if not {*FRAME_TOKENS, END_OF_TEXT} <= self.special_tokens.keys():
            return None
        return Frame(self.special_tokens, self.eot_id, self.vocab_size)

    @property
    def stop_ids(self) -> list[int]:
        """What ends a text: <|endoftext|>, and the end of a message."""
        return [self.eot_id] if self.frame is None else [self.eot_id, self.frame.end_id]

    def with_frame(self) -> "Tokenizer":
        """Returns this tokenizer with the tokens of a frame: those it lacks get ids after all others."""
        lacking = [token for token in FRAME_TOKENS if token not in self.special_tokens]
        if not lacking:
            return self
        tokens = [*self.vocabulary.tokens, *(token.encode() for token in lacking)]
        special = self.special_tokens | {token: self.vocab_size + i for i, token in enumerate(lacking)}
        return Tokenizer._of(replace(self.vocabulary, tokens=tokens), special, self.pattern)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of what `save` writes without a `first_token`, in hex: equal for tokenizers that encode alike."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, pattern={self.pattern!r}, special_tokens={list(self.special_tokens)})"

    # ---- files ----

    def save(self, path: str | os.PathLike, *, first_token: str | None = None):
        """Writes Hugging Face's tokenizer.json. Raises UserError where it cannot express the tokenizer.

        `first_token` is a special token that `tokenizers` and `transformers` then put before every text; here nothing is. Warns
        of a pattern that they may read in another way than `load` does.
        """
        expect("path", path, str, os.PathLike)
        expect("first_token", first_token, str, NoneType)
        if first_token not in (None, *self.special_tokens):
            raise UserError(f"first_token = {shown(first_token)}: expected one of {', '.join(self.special_tokens)}")
        self._warn_of_other_engines("`tokenizers` and `transformers`")
        content = self._to_json(first_token).encode()
        with replacing(Path(path)) as file:
            file.write(content)

    def _to_json(self, first_token: str | None = None) -> str:
        content = to_hugging_face(self.vocabulary, self.special_tokens, self._compiled.pattern, first_token)
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads the tokenizer.json of a byte-level BPE: ours, or one that Hugging Face's libraries made, ids as there.

        Raises UserError for a file that is damaged or holds another kind of tokenizer, with the reason.
        """
        expect("path", path, str, os.PathLike)
        check_is_file(path)
        try:
            return cls._of(*from_hugging_face(json.loads(Path(path).read_text(encoding="utf-8"))))
        except (ValueError, RecursionError) as error:  # Unicode and JSON errors are ValueErrors
            raise UserError(f"{path}: {error}; make one with tokenize_data.py") from None

    @classmethod
    def from_minbpe(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads minbpe's .model file ("minbpe v1"), ids as there; <|endoftext|> is added where it is missing.

        Raises UserError for a file that is damaged or of another kind.
        """
        expect("path", path, str, os.PathLike)
        check_is_file(path)
        try:
            merges, special_tokens, pattern = from_minbpe(Path(path).read_text(encoding="utf-8"))
            check_special_tokens(list(special_tokens))
            return cls._of(number_tokens(merges, special_tokens), special_tokens, pattern)
        except ValueError as error:
            raise UserError(f"{path}: {error}; expected a file that minbpe saved") from None

    def to_tiktoken(self) -> "tiktoken.Encoding":
        """Returns the same tokenizer as a tiktoken.Encoding; needs the tiktoken package.

        Raises UserError where tiktoken, which merges by the id of the result, would give other ids, or cannot read the
        pattern. Warns of a pattern that it may read in another way.
        """
        import tiktoken

        results = [result for _, _, result in self.vocabulary.merges]
        if results != sorted(set(results)):
            raise UserError("tiktoken merges by the id of the result, and this tokenizer's merges are in another order")
        special_ids = set(self.special_tokens.values())
        ids = [id for id, token in enumerate(self.vocabulary.tokens) if token and id not in special_ids]
        ranks = {self.vocabulary.tokens[id]: id for id in ids}
        if len(ranks) < len(ids):
            raise UserError("two tokens have the same bytes, which tiktoken cannot express")
        self._warn_of_other_engines("tiktoken")
        pattern = self._compiled.pattern if self.native_pattern is not None else without_gaps(self._compiled)
        try:
            return tiktoken.Encoding("alilama", pat_str=pattern, mergeable_ranks=ranks, special_tokens=self.special_tokens)
        except ValueError as error:
            raise UserError(f"tiktoken cannot read the pattern {self.pattern[:100]!r}: {first_line(error)}") from None

    def _warn_of_other_engines(self, readers: str):
        if self.native_pattern is None and (part := unportable_part(self._compiled)):
            warnings.warn(
                f"{readers} may cut text in another way, or not at all, by the pattern {self.pattern[:100]!r}: the regex "
                f"engine there may not take {part} as Alilama does, which goes on reading it as it is; before you use them, "
                r"compare the ids, or keep to plain characters, [sets], \s, \d, \p{L} and the like, |, (?:), *, +, ? and {1,3}",
                stacklevel=3,
            )


def usual_vocab_size(text_bytes: int) -> int:
    """Returns the power of two near 1.5 times the root of the size of a text: tokens that are rarer teach a model little."""
    return min(max(1 << round(math.log2(1.5 * max(1, text_bytes) ** 0.5)), LEAST_VOCAB_SIZE), MOST_VOCAB_SIZE)


def check_special_tokens(tokens: Sequence[str]):
    """Raises UserError unless the tokens are different, not empty, and <|endoftext|> is one of them."""
    is_text = all(isinstance(token, str) and token and token == token.encode(errors="replace").decode() for token in tokens)
    if END_OF_TEXT not in tokens or not is_text or len(set(tokens)) < len(tokens):
        raise UserError(f"special_tokens {list(tokens)}: expected different strings, none empty, {END_OF_TEXT!r} among them")


def to_pairs(merges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns merges as a list. Raises UserError for what are no pairs of whole numbers."""
    try:
        return [(operator.index(left), operator.index(right)) for left, right in merges]
    except (TypeError, ValueError) as error:
        raise UserError(f"merges = {shown(merges)}: expected pairs of ids, such as [(97, 98)] ({error})") from None


def check_texts(texts: object):
    """Raises UserError for what cannot be several texts, such as one."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UserError(f"texts = {shown(texts)}: expected several texts, such as ['one', 'two']")


def no_ids(ids: object, error: Exception) -> UserError:
    """What is said of ids that are not decoded: of one that is no token, or of what is no list."""
    if isinstance(error, IndexError):
        return UserError(" ".join(str(error).split()))
    return UserError(f"ids = {shown(ids)}: expected a list or array of ids ({first_line(error)})")


def number_tokens(merges: Sequence[tuple[int, int]], special_tokens: dict[str, int]) -> Vocabulary:
    """Numbers the bytes, then the merges; special tokens have ids after these. Raises UserError for an id not yet made."""
    tokens, num_bytes = [bytes([byte]) for byte in range(256)], 0
    for i, (left, right) in enumerate(merges):
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            raise UserError(f"merge {i} joins ids {left} and {right}, but only ids below {len(tokens)} are made before it")
        tokens.append(tokens[left] + tokens[right])
        num_bytes += len(tokens[-1])
        if num_bytes > MAX_TOKEN_BYTES:
            raise UserError(f"the tokens up to merge {i} take {num_bytes:,} bytes; at most {MAX_TOKEN_BYTES:,} can be held")
    numbered = [(left, right, 256 + i) for i, (left, right) in enumerate(merges)]
    tokens += [b""] * (1 + max(special_tokens.values()) - len(tokens))
    for token, id in special_tokens.items():
        tokens[id] = token.encode()
    return Vocabulary(tokens, list(range(256)), numbered, [])


def check_pattern(pattern: object):
    """Raises UserError for what is no pattern, or none that a file holds."""
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN or not is_plain(pattern):
        found = f"{len(pattern):,} characters" if isinstance(pattern, str) else f"a {type(pattern).__name__}"
        raise UserError(
            f"pattern {str(pattern)[:60]!r} ({found}): expected one of {', '.join(PATTERNS)}, or a regular expression of at "
            f"most {MAX_PATTERN:,} characters, without NUL or half a surrogate pair"
        )


def compile_pattern(pattern: str) -> regex.Pattern:
    """Compiles a pattern that cuts text into pieces. Raises UserError where it is not a regular expression."""
    try:
        compiled = regex.compile(pattern)
    except (regex.error, RecursionError, ValueError) as error:
        known = ", ".join(PATTERNS)
        raise UserError(f"pattern {pattern[:100]!r} is neither one of {known} nor a regular expression: {error}") from None
    if compiled.flags & regex.REVERSE:
        raise UserError(f"pattern {pattern[:100]!r} searches backwards, (?r), and text is cut from its beginning; leave it out")
    return compiled


def is_plain(pattern: str) -> bool:
    """Whether a pattern can be written to a file as it is: without NUL, or half a surrogate pair."""
    return "\0" not in pattern and not any("\ud800" <= character <= "\udfff" for character in pattern)


def may_be_cut(special_token: str) -> bool:
    """Whether a block of text could end inside a special token: before white space or a symbol in it."""
    return any(character.isspace() or not character.isascii() for character in special_token[1:])


class Texts(NamedTuple):
    """Texts to learn from; `has_documents` says that <|endoftext|> lines in them are separators."""

    texts: list[bytes]
    has_documents: bool


def blocks_of_texts(texts: Iterable[str]) -> Iterator[Texts]:
    """Yields the texts, each a document, as UTF-8 in lists of about BLOCK_BYTES."""
    block, num_bytes = [], 0
    for text in map(to_bytes, texts):
        block.append(text)
        num_bytes += len(text)
        if num_bytes >= BLOCK_BYTES:
            yield Texts(block, has_documents=False)
            block, num_bytes = [], 0
    if block:
        yield Texts(block, has_documents=False)


def to_bytes(text: str) -> bytes:
    """Encodes text as UTF-8; surrogates, which UTF-8 cannot hold, are joined or become U+FFFD, as in tiktoken."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")
    except AttributeError:
        expect("text", text, str)
        raise


def any_of(tokens: Collection[str]) -> re.Pattern:
    """Matches any of the tokens, the longest where several begin together."""
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))


def without_gaps(pattern: regex.Pattern) -> str:
    """Returns a pattern for tiktoken that cuts as `pattern` does here, and leaves no text between its matches.

    tiktoken loses text that is not matched, which is a piece here, and fails at a match of empty text, which cuts here.
    Since no text is left between matches, each one begins where the last one ended, which is \\G: (?!\\G) is a match's end
    only if it is not empty.
    """
    expression = pattern.pattern + ("\n" if pattern.flags & regex.VERBOSE else "")  # which ends a comment
    return rf"(?:{expression})(?!\G)|[\s\S](?:(?!{expression})[\s\S])*"

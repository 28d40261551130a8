"""Prompts and answers: the special tokens that stand around them, and which tokens of a text are learned.

    <|endoftext|> <|user|> prompt <|end|> <|assistant|> answer <|end|>

Only rows make these tokens, and never what stands in their text, so that no text can end its message and begin another one.
What an assistant says is learned, with the <|end|> after it; what it is told is not. Text without a frame is learned whole.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from alilama.common.errors import UserError

ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
END = "<|end|>"  # of a message
FRAME_TOKENS = (*ROLES.values(), END)
# The same in Jinja, as the Hub has it. Two messages of one role may follow one another.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOLD, SAID, NEITHER = 1, 2, 0  # what a token begins: text that is not learned, text that is, nothing


class Message(NamedTuple):
    """What somebody says: `role` is one of ROLES, `content` UTF-8."""

    role: str
    content: bytes


Conversation = list[Message]


class Frame:
    """The ids of the tokens of a frame in a vocabulary, and with them which ids are learned."""

    def __init__(self, special_tokens: Mapping[str, int], eot_id: int, vocab_size: int):
        self.eot_id, self.end_id = eot_id, special_tokens[END]
        self.role_ids = {role: special_tokens[token] for role, token in ROLES.items()}
        self._begins = np.zeros(vocab_size, np.uint8)  # by id: TOLD, SAID or NEITHER
        self._begins[[self.end_id, *self.role_ids.values()]] = TOLD
        self._begins[[eot_id, self.role_ids["assistant"]]] = SAID
        self._is_role = np.zeros(vocab_size, bool)
        self._is_role[[*self.role_ids.values()]] = True

    def is_learned(self, ids: np.ndarray, before: int = SAID) -> np.ndarray:
        """Tells which ids, (N,), are learned, where `before` is what the last token of the frame before them began."""
        begins = self._begins[ids]
        places = np.maximum.accumulate(np.where(begins != NEITHER, np.arange(len(ids)), -1))
        last = np.where(places < 0, before, begins[places])  # of each id or those before it
        return (np.append(before, last[:-1]) == SAID) & ~self._is_role[ids]

    def is_role(self, ids: np.ndarray) -> np.ndarray:
        """Tells which ids, (N,), begin a message."""
        return self._is_role.take(ids, mode="clip")

    def begun_before(self, ids: np.ndarray, position: int) -> int:
        """Returns what the last token of the frame before a position began: TOLD or SAID. Reads no more than needed."""
        size = 256
        while position > 0:
            begins = self._begins.take(ids[max(0, position - size) : position], mode="clip")  # damage is refused where it is
            if (found := np.flatnonzero(begins)).size:
                return int(begins[found[-1]])
            position, size = position - size, 2 * size
        return SAID

    def wrap(self, conversation: Conversation) -> tuple[list[int], list[bytes]]:
        """Returns special tokens, and the text after each of them, that are a document."""
        ids, texts = [self.eot_id], [b""]
        for role, content in conversation:
            ids += [self.role_ids[role], self.end_id]
            texts += [content, b""]
        return ids, texts


def to_conversation(messages: Iterable[object]) -> Conversation:
    """Reads messages such as {"role": "user", "content": "..."}. Raises UserError for others."""
    conversation = []
    for number, message in enumerate(messages, 1):
        role, content = (message.get(name) for name in ("role", "content")) if isinstance(message, Mapping) else (None, None)
        if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
            expected = f'{{"role": "{", ".join(ROLES)}", "content": "text"}}'
            raise UserError(f"message {number} is {str(message)[:80]}, expected one such as {expected}")
        try:
            conversation.append(Message(role, to_utf8(content)))
        except UserError as error:
            raise UserError(f"message {number} {error}") from None
    return conversation


def to_utf8(text: str) -> bytes:
    """Encodes text as UTF-8; surrogates that stand for bytes become these. Raises UserError for half a surrogate pair."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UserError(f"is not Unicode ({error.reason})") from None

"""How well a model predicts a text.

It is read both ways of the ALiBi paper (Press et al. 2022, arXiv:2108.12409): in windows that do not overlap, where many
ids have few before them, and in sliding ones.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from types import NoneType

import numpy as np
import torch

from alilama.common.errors import UserError, expect, is_out_of_memory, shown
from alilama.data.text import find_sources, read_blocks
from alilama.data.tokenizer import Tokenizer
from alilama.model.loss import linear_cross_entropy
from alilama.model.model import Model

BATCH_LOGITS = 1 << 25  # computed at once: 128 MiB


@dataclass
class Score:
    """The sum of the cross-entropies of `tokens` predicted tokens in nats, and the bytes of text they stand for."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700))  # near the largest float

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def evaluation_bytes(model: Model, num_tokens: int | None) -> int:
    """Returns about what `evaluate` takes besides the weights: a batch of logits and their softmax, in float32."""
    logits = BATCH_LOGITS if num_tokens is None else min(BATCH_LOGITS, num_tokens * model.config.vocab_size)
    return 2 * 4 * logits


@torch.inference_mode()
def evaluate(
    model: Model,
    tokenizer: Tokenizer,
    ids: np.ndarray,
    context: int,
    on_batch: Callable[[int], None] = lambda tokens: None,
    stride: int | None = None,
) -> Score:
    """Scores a model on ids, (N,) with N >= 2, in the `windows` that `context` and `stride` make, both in tokens.

    Of prompts with answers the answers are scored. It runs in evaluation mode and float32. `on_batch` is told how many ids
    were scored. Raises UserError where they hold no text.
    """
    check_arguments(model, tokenizer, ids, context, stride)
    is_learned = learned_of(tokenizer, ids)
    if not (num_bytes := count_bytes(tokenizer, ids[1:][is_learned[1:]])):
        raise UserError(f"there is no text to score in {len(ids)} validation tokens; run tokenize_data.py again with more text")
    was_training = model.training
    model.eval()
    nats = 0.0
    for inputs, targets, is_scored in windows(ids, context, model.config.vocab_size, stride, is_learned):
        nats += sum_of_losses(model, inputs, targets, is_scored)
        on_batch(int(is_scored.sum()))
    model.train(was_training)
    return Score(nats, int(is_learned[1:].sum()), num_bytes)


def check_arguments(model: Model, tokenizer: Tokenizer, ids: np.ndarray, context: int, stride: int | None):
    """Raises UserError for what `evaluate` cannot score, naming it."""
    expect("model", model, Model)
    expect("tokenizer", tokenizer, Tokenizer)
    expect("ids", ids, np.ndarray)
    vocab_size = min(model.config.vocab_size, tokenizer.vocab_size)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or (len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size):
        raise UserError(f"ids = {shown(ids)}: expected one dimension of ids from 0 to {vocab_size - 1}")
    expect("context", context, Integral)
    expect("stride", stride, Integral, NoneType)
    if context < 1 or (stride is not None and not 1 <= stride <= context):
        raise UserError(
            f"context = {context}, stride = {stride}: expected at least 1 of both, and a stride of at most the context"
        )


def learned_of(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """Tells which ids of a text, (N,), a model learns."""
    return np.ones(len(ids), bool) if tokenizer.frame is None else tokenizer.frame.is_learned(ids)


def sum_of_losses(model: Model, inputs: torch.Tensor, targets: torch.Tensor, is_scored: torch.Tensor) -> float:
    """Returns the cross-entropies in nats of the targets, (B, T), that are scored; in halves where memory runs out."""
    if not is_scored.any():
        return 0.0
    device = model.wte.weight.device
    try:
        scored = targets[is_scored].to(device)  # (N,)
        hidden = model.hidden(inputs.to(device))[is_scored.to(device)]  # (N, C)
        return linear_cross_entropy(hidden, model.wte.weight, scored).item() * len(scored)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(inputs) == 1:
            raise
    halves = zip(*(tensor.chunk(2) for tensor in (inputs, targets, is_scored)), strict=True)  # out here: the error holds memory
    return sum(sum_of_losses(model, *half) for half in halves)


def windows(
    ids: np.ndarray, context: int, vocab_size: int, stride: int | None = None, is_learned: np.ndarray | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yields (inputs, targets, is_scored), each (B, T), int64 and bool; every id but the first is scored once, or
    those of them that are learned, (N,) bool.

    Without a stride the windows follow one another without overlap and score all they hold; the last may be shorter than
    `context`. With one, each window begins `stride` ids after the one before and scores its last `stride` targets, so that
    they have at least context - stride + 1 ids before them; the first scores all. The last ends with the text, as long as
    the others, and scores what is left. A text of at most context + 1 ids is one window either way.
    """
    assert stride is None or 1 <= stride <= context
    is_learned = np.ones(len(ids), bool) if is_learned is None else is_learned
    tokens, learned = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(is_learned)
    context = min(context, len(ids) - 1)
    last_start = len(ids) - 1 - context  # of a window that ends with the text
    starts = torch.arange(0, last_start + 1, min(stride or context, context))
    if stride is not None and starts[-1] < last_start:
        starts = torch.cat([starts, torch.tensor([last_start])])
    ends = starts + context
    scored_from = torch.cat([torch.tensor([0]), ends[:-1]])
    batch_size = max(1, BATCH_LOGITS // (context * vocab_size))
    for start, first in zip(starts.split(batch_size), scored_from.split(batch_size), strict=True):
        places = start[:, None] + torch.arange(context)  # (B, T)
        yield tokens[places], tokens[places + 1], (places >= first[:, None]) & learned[places + 1]
    if ends[-1] < len(ids) - 1:
        yield from windows(ids[ends[-1] :], context, vocab_size, is_learned=is_learned[ends[-1] :])


def count_bytes(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """Returns the bytes of text that the ids stand for; special tokens stand for none."""
    special_ids = set(tokenizer.special_tokens.values())
    found, counts = np.unique(ids, return_counts=True)
    return sum(
        len(tokenizer.token_bytes(id)) * int(count)
        for id, count in zip(found.tolist(), counts, strict=True)
        if id not in special_ids
    )


def encode_files(
    tokenizer: Tokenizer,
    data_files: list[str],
    max_tokens: int | None = None,
    setting: str = "data_files",
    text_column: str | None = None,
) -> np.ndarray:
    """Returns the ids of text files, or the first `max_tokens` of them, every document preceded by <|endoftext|>.

    Raises UserError, naming `setting`, where there is no text in them.
    """
    expect("tokenizer", tokenizer, Tokenizer)
    expect("max_tokens", max_tokens, Integral, NoneType)
    expect("text_column", text_column, str, NoneType)
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"max_tokens = {max_tokens}: expected at least 1, or None for all")
    parts, num_tokens = [], 0
    for block in read_blocks(find_sources(data_files, setting, text_column), tokenizer.native_pattern):
        parts.append(tokenizer.encode_block(block)[0])
        num_tokens += len(parts[-1])
        if max_tokens is not None and num_tokens >= max_tokens:
            break
    if num_tokens < 2:
        raise UserError(f"{setting}: there is no text to score in {', '.join(data_files)}")
    return np.concatenate(parts)[:max_tokens]

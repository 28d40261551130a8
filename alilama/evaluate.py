"""How well a model predicts a text: python -m alilama.evaluate models/stories --data valid.txt --context 128,256,512

It is read both ways of the ALiBi paper (Press et al. 2022, arXiv:2108.12409): in windows that do not overlap, where many
ids have few before them, and in sliding ones.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alilama.checkpoint import PRETRAINED, load_model
from alilama.config import MAX_SIZE
from alilama.data import find_sources, read_blocks
from alilama.errors import ArgumentParser, UserError, one_line_errors
from alilama.loss import linear_cross_entropy
from alilama.model import Model, choose_device
from alilama.tokenizer import Tokenizer
from alilama.yardsticks import NGRAM_LENGTH, gzip_bits_per_byte, ngram_bits_per_byte, xz_bits_per_byte

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


def count_bytes(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """Returns the bytes of text that the ids stand for; special tokens stand for none."""
    special_ids = set(tokenizer.special_tokens.values())
    found, counts = np.unique(ids, return_counts=True)
    return sum(
        len(tokenizer.token_bytes(id)) * int(count)
        for id, count in zip(found.tolist(), counts, strict=True)
        if id not in special_ids
    )


def windows(
    ids: np.ndarray, context: int, vocab_size: int, stride: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yields (inputs, targets, is_scored), each (B, T), int64 and bool; every id but the first is scored once.

    Without a stride the windows follow one another without overlap and score all they hold; the last may be shorter than
    `context`. With one, each window begins `stride` ids behind the one before and scores its last `stride` targets, so that
    they have at least context - stride + 1 ids before them; the first scores all. The last ends with the text, as long as
    the others, and scores what is left. A text of at most context + 1 ids is one window either way.
    """
    assert stride is None or 1 <= stride <= context
    tokens = torch.from_numpy(ids.astype(np.int64))
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
        yield tokens[places], tokens[places + 1], places >= first[:, None]
    if ends[-1] < len(ids) - 1:
        yield from windows(ids[ends[-1] :], context, vocab_size)


@torch.inference_mode()
def evaluate(
    model: Model,
    tokenizer: Tokenizer,
    ids: np.ndarray,
    context: int,
    on_batch: Callable[[int], None] = lambda tokens: None,
    stride: int | None = None,
) -> Score:
    """Scores a model, in evaluation mode and float32, on two or more ids, read in `windows` of `context`."""
    was_training, device = model.training, model.wte.weight.device
    model.eval()
    nats = 0.0
    for inputs, targets, is_scored in windows(ids, context, model.config.vocab_size, stride):
        targets = targets[is_scored].to(device)  # (N,)
        hidden = model.hidden(inputs.to(device))[is_scored.to(device)]  # (N, C)
        nats += linear_cross_entropy(hidden, model.wte.weight, targets).item() * len(targets)
        on_batch(len(targets))
    model.train(was_training)
    return Score(nats, len(ids) - 1, count_bytes(tokenizer, ids[1:]))


# ---- the command ----


def encode_files(tokenizer: Tokenizer, data_files: list[str], max_tokens: int | None = None) -> np.ndarray:
    """Returns the ids of text files, or the first `max_tokens` of them, every document preceded by <|endoftext|>."""
    parts, num_tokens = [], 0
    pattern = tokenizer.pattern if tokenizer.is_native else None
    for block in read_blocks(find_sources(data_files, "--data"), pattern=pattern):
        parts.append(tokenizer.encode_block(block)[0])
        num_tokens += len(parts[-1])
        if max_tokens is not None and num_tokens >= max_tokens:
            break
    if num_tokens < 2:
        raise UserError(f"--data {' '.join(data_files)}: there is no text in it to score")
    return np.concatenate(parts)[:max_tokens]


def parse_contexts(text: str) -> list[int]:
    """Returns the window lengths that --context names, the shortest first."""
    try:
        contexts = sorted({int(length) for length in text.split(",")})
    except ValueError:
        contexts = [0]
    if contexts[0] < 1 or contexts[-1] >= MAX_SIZE:
        raise UserError(f"--context {text}: expected lengths from 1 to {MAX_SIZE - 1:,} with commas between, such as 128,512")
    return contexts


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m alilama.evaluate", description="How well a model predicts a text.")
    parser.add_argument("model", nargs="?", default=PRETRAINED, help=f"folder of the model [{PRETRAINED}]")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="text files, folders or patterns")
    parser.add_argument("--tokens", type=int, metavar="N", help="read only the first N tokens [all]")
    parser.add_argument("--context", help="window lengths in tokens, such as 128,512 [the length it was trained at]")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="TOKENS",
        help="how far sliding windows move on; the paper takes 1, which is slow [an eighth of each context]",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="where the picture goes [evaluation.png in the folder]")
    arguments = parser.parse_args(argv)
    if arguments.tokens is not None and arguments.tokens < 2:
        raise UserError(f"--tokens {arguments.tokens}: expected at least 2, for the first is not predicted")
    return arguments


def describe_yardsticks(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Says what simple means make of the text of all ids but the first, which a model is scored on."""
    text = tokenizer.decode_bytes(ids[1:][~np.isin(ids[1:], list(tokenizer.special_tokens.values()))])
    ngram = ngram_bits_per_byte(ids, tokenizer.vocab_size, len(text))
    return (
        f"yardsticks on the same text, adaptive: gzip -9 {gzip_bits_per_byte(text):.3f}, xz -9e "
        f"{xz_bits_per_byte(text):.3f}, a {NGRAM_LENGTH}-gram model of the tokens {ngram:.3f} bits per byte"
    )


def main(argv: list[str]):
    from tqdm import tqdm

    from alilama.plots import plot_evaluation, save_figure

    arguments = parse_arguments(argv)
    folder, stride = Path(arguments.model), arguments.stride
    model, tokenizer = load_model(folder, choose_device())
    trained = model.config.max_seq_len
    contexts = [trained] if arguments.context is None else parse_contexts(arguments.context)
    if stride is not None and not 1 <= stride <= contexts[0]:
        raise UserError(f"--stride {stride}: expected at least 1 and at most the shortest context, {contexts[0]}")
    picture = arguments.plot or folder / "evaluation.png"
    if not picture.parent.is_dir() or picture.is_dir():
        raise UserError(f"--plot {picture}: expected the name of a file in a folder that exists")
    ids = encode_files(tokenizer, arguments.data, arguments.tokens)

    which = f"the first {len(ids):,} tokens: " if len(ids) == arguments.tokens else ""
    num_bytes = count_bytes(tokenizer, ids[1:])
    print(f"{which}{len(ids) - 1:,} tokens to predict, {num_bytes:,} bytes of text; loss in nats per token")
    print(f"{'non-overlapping windows':>44}{'windows sliding by ' + str(stride or 'an eighth'):>36}")
    print(f"{'context':>8}" + 2 * f"{'loss':>10}{'perplexity':>12}{'bits per byte':>14}")
    scores = []  # of each context, not overlapping and sliding
    for context in contexts:
        with tqdm(total=2 * (len(ids) - 1), desc=f"context {context}", unit="tok", leave=False, unit_scale=True) as bar:
            scores.append(
                [
                    evaluate(model, tokenizer, ids, context, bar.update, stride=by)
                    for by in (None, stride or max(1, context // 8))
                ]
            )
        numbers = "".join(f"{score.loss:>10.4f}{score.perplexity:>12.2f}{score.bits_per_byte:>14.4f}" for score in scores[-1])
        note = "  trained at this length" * (context == trained) + "  the whole text" * (context >= len(ids) - 1)
        print(f"{context:>8}{numbers}{note}")
    best, context = min((sliding.bits_per_byte, context) for context, (_, sliding) in zip(contexts, scores, strict=True))
    print(f"{describe_yardsticks(tokenizer, ids)}; this model {best:.3f} (sliding, context {context})")

    try:
        save_figure(plot_evaluation(folder.name, contexts, scores, trained), picture)
    except (OSError, UserError) as error:
        raise UserError(f"the picture cannot be written ({error}); choose another place with --plot") from None
    print(f"picture: {picture}")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

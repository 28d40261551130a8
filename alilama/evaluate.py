"""How well a model predicts a text: python -m alilama.evaluate models/stories --data valid.txt --context 128,512"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alilama.data import find_sources, read_blocks
from alilama.errors import ArgumentParser, UserError, one_line_errors
from alilama.model import Model, choose_device
from alilama.tokenizer import Tokenizer

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
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def count_bytes(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """Returns the bytes of text that the ids stand for; special tokens stand for none."""
    special_ids = set(tokenizer.special_tokens.values())
    found, counts = np.unique(ids, return_counts=True)
    return sum(len(tokenizer.token_bytes(id)) * int(count) for id, count in zip(found.tolist(), counts, strict=True)
               if id not in special_ids)


def windows(ids: np.ndarray, context: int, vocab_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (inputs, targets), each (B, T) int64, that together predict every id but the first once, none overlapping."""
    ids = torch.from_numpy(ids.astype(np.int64))
    context = min(context, len(ids) - 1)
    full = (len(ids) - 1) // context
    inputs, targets = ids[:full * context].view(full, context), ids[1:full * context + 1].view(full, context)
    batch_size = max(1, BATCH_LOGITS // (context * vocab_size))
    yield from zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
    if full * context < len(ids) - 1:
        yield ids[None, full * context:-1], ids[None, full * context + 1:]


@torch.inference_mode()
def evaluate(model: Model, tokenizer: Tokenizer, ids: np.ndarray, context: int,
             on_batch: Callable[[int], None] = lambda tokens: None) -> Score:
    """Scores a model, in evaluation mode and float32, on two or more ids read in windows of `context` that do not overlap."""
    was_training, device = model.training, model.wte.weight.device
    model.eval()
    nats = 0.0
    for inputs, targets in windows(ids, context, model.config.vocab_size):
        nats += model.loss(inputs.to(device), targets.to(device)).item() * targets.numel()
        on_batch(targets.numel())
    model.train(was_training)
    return Score(nats, len(ids) - 1, count_bytes(tokenizer, ids[1:]))


def encode_files(tokenizer: Tokenizer, data_files: list[str]) -> np.ndarray:
    """Returns the ids of text files, every document preceded by <|endoftext|>."""
    blocks = read_blocks(find_sources(data_files, "--data"), any_pattern=not tokenizer.is_native)
    ids = np.concatenate([tokenizer.encode_block(block)[0] for block in blocks])
    if len(ids) < 2:
        raise UserError(f"--data {' '.join(data_files)}: there is no text in it to score")
    return ids


def main(argv: list[str]):
    from tqdm import tqdm

    from alilama.checkpoint import load_model

    parser = ArgumentParser(prog="python -m alilama.evaluate", description="How well a model predicts a text.")
    parser.add_argument("model", help="folder of the model, such as models/stories")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="text files, folders or patterns")
    parser.add_argument("--context", help="window lengths in tokens, such as 128,512 [the length it was trained at]")
    arguments = parser.parse_args(argv)
    model, tokenizer = load_model(Path(arguments.model), choose_device())
    try:
        contexts = [int(length) for length in (arguments.context or str(model.config.max_seq_len)).split(",")]
    except ValueError:
        contexts = [0]
    if min(contexts) < 1:
        raise UserError(f"--context {arguments.context}: expected lengths of at least 1 with commas between, such as 128,512")
    ids = encode_files(tokenizer, arguments.data)
    print(f"{len(ids) - 1:,} tokens, {count_bytes(tokenizer, ids[1:]):,} bytes of text, non-overlapping windows")
    print(f"{'context':>8} {'loss (nats/token)':>18} {'perplexity':>11} {'bits per byte':>14}")
    for context in contexts:
        with tqdm(total=len(ids) - 1, desc=f"context {context}", unit="tok", leave=False, unit_scale=True) as bar:
            score = evaluate(model, tokenizer, ids, context, bar.update)
        print(f"{context:>8} {score.loss:>18.4f} {math.exp(min(score.loss, 700)):>11.2f} {score.bits_per_byte:>14.4f}")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

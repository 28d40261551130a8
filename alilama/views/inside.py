"""What goes on inside a model, as numbers: its next tokens, how likely it found each token of a text, where it looks.

As in training, every text is preceded by <|endoftext|>. The model must be in evaluation mode.
"""

import codecs
import math
from collections.abc import Iterator
from numbers import Integral

import torch
import torch.nn.functional as F

from alilama.common.errors import UserError, expect
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import alibi_bias
from alilama.model.model import Model

MAX_SURPRISE_BITS = 10  # of a token of probability 1/1024; rarer ones are no more surprising
NEAR = 1  # positions before a token, where most heads look


def check_pair(model: Model, tokenizer: Tokenizer):
    """Raises UserError for what is no model or no tokenizer, and a tokenizer with more tokens than the model knows."""
    expect("model", model, Model)
    expect("tokenizer", tokenizer, Tokenizer)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"tokenizer has {tokenizer.vocab_size:,} tokens and model {model.config.vocab_size:,}: they do not belong together"
        )


@torch.inference_mode()
def next_tokens(model: Model, tokenizer: Tokenizer, prompt: str = "", count: int = 10) -> list[tuple[int, float]]:
    """Returns the `count` most likely tokens after `prompt`, as ids and probabilities, the most likely first.

    Raises UserError for a special token in the prompt, and a `count` out of range.
    """
    check_pair(model, tokenizer)
    expect("count", count, Integral)
    if not 1 <= count <= tokenizer.vocab_size:
        raise UserError(f"count = {count}: expected 1 to {tokenizer.vocab_size}, the size of the vocabulary")
    logits = text_logits(model, tokenizer.encode_prompt(prompt), slice(-1, None))  # (1, V)
    probabilities, ids = logits[0].softmax(0).sort(descending=True, stable=True)
    return list(zip(ids[:count].tolist(), probabilities[:count].tolist(), strict=True))


@torch.inference_mode()
def token_probabilities(model: Model, tokenizer: Tokenizer, text: str) -> list[tuple[int, float]]:
    """Returns the ids of a text's tokens, each with the probability that the model gave it after all tokens before.

    Raises UserError for a special token in the text.
    """
    check_pair(model, tokenizer)
    ids = tokenizer.encode_document(text)
    logits = text_logits(model, ids, slice(0, -1))  # (T - 1, V)
    targets = ids[1:]
    probabilities = logits.softmax(1)[torch.arange(len(targets)), targets]
    return list(zip(targets, probabilities.tolist(), strict=True))


def piece_probabilities(model: Model, tokenizer: Tokenizer, text: str) -> Iterator[tuple[str, float]]:
    """Yields the pieces of a text, each with its probability: tokens, or those that together make a whole character.

    Raises UserError for an empty text, and for a special token in it.
    """
    expect("text", text, str)
    if not text:
        raise UserError("the text is empty: expected one or more characters")
    decoder, together = codecs.getincrementaldecoder("utf-8")("replace"), 1.0
    for token_id, probability in token_probabilities(model, tokenizer, text):
        together *= probability
        if piece := decoder.decode(tokenizer.token_bytes(token_id)):
            yield piece, together
            together = 1.0


def surprise(probability: float) -> float:
    """Returns how surprising a token was: 0 where it was certain, 1 where its probability was 2^-MAX_SURPRISE_BITS or less."""
    return min(abs(math.log2(probability)) / MAX_SURPRISE_BITS, 1.0) if probability > 0 else 1.0


def text_logits(model: Model, ids: list[int], positions: slice) -> torch.Tensor:
    """Returns the logits at some positions of a text, (positions, V) float32 on the CPU."""
    hidden = model.hidden(torch.tensor(ids, device=model.wte.weight.device)[None])[0, positions]
    return F.linear(hidden, model.wte.weight).float().cpu()


@torch.inference_mode()
def attention_weights(model: Model, ids: list[int]) -> torch.Tensor:
    """Returns how much each position looks at which, (blocks, H, T, T) float32 on the CPU; every row sums to 1.

    Computed as the formula says, in float32, for the fast ways of attention never hold these weights.
    """
    bias = alibi_bias(model.slopes.float(), len(ids))  # (H, T, T)
    weights = []

    def attend(qkv: torch.Tensor) -> torch.Tensor:  # (1, T, 3, H, D) -> (1, T, H, D)
        q, k, v = qkv.float().transpose(1, 3).unbind(2)  # each (1, H, T, D)
        probabilities = (q @ k.mT / math.sqrt(q.shape[-1]) + bias).softmax(-1)  # (1, H, T, T)
        weights.append(probabilities[0].cpu())
        return (probabilities @ v).transpose(1, 2).to(qkv.dtype)

    model.hidden(torch.tensor(ids, device=model.wte.weight.device)[None], [attend] * len(model.blocks))
    return torch.stack(weights)


def telling_scores(weights: torch.Tensor, tokenizer: Tokenizer, ids: list[int]) -> torch.Tensor:
    """Returns how telling each head's weights, (blocks, H, T, T), are, as (blocks, H).

    A head tells something where it looks at words further back than the neighbour, and at others from each token: what counts
    is the variance of what a word gets. <|endoftext|> and what has no letter, where heads rest, are left out.
    """
    is_word = torch.tensor([any(map(str.isalpha, tokenizer.decode([token_id]))) for token_id in ids])
    is_word[0] = False
    counts = torch.ones(weights.shape[-2:]).tril(-1 - NEAR) * is_word  # (T, T)
    means = (weights * counts).sum(-2, keepdim=True) / counts.sum(-2, keepdim=True).clamp(min=1)
    return ((weights - means).square() * counts).sum((-2, -1))

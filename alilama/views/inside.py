"""What goes on inside a model, as numbers: its next tokens, how likely it found each token of a text, where it looks.

As in training, every text is preceded by <|endoftext|>. The model must be in evaluation mode.
"""

import math

import torch
import torch.nn.functional as F

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import alibi_bias
from alilama.model.model import Model


@torch.inference_mode()
def next_tokens(model: Model, tokenizer: Tokenizer, prompt: str = "", count: int = 10) -> list[tuple[int, float]]:
    """Returns the `count` most likely tokens after `prompt`, as ids and probabilities, the most likely first.

    Raises UserError for a special token in the prompt, and a `count` out of range.
    """
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
    ids = tokenizer.encode_document(text)
    logits = text_logits(model, ids, slice(0, -1))  # (T - 1, V)
    targets = ids[1:]
    probabilities = logits.softmax(1)[torch.arange(len(targets)), targets]
    return list(zip(targets, probabilities.tolist(), strict=True))


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

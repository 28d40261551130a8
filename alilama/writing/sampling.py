"""How the next token is taken from the logits."""

from collections.abc import Callable, Collection
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import get_args

import torch

from alilama.common.errors import UserError, expect
from alilama.model.model import Model

SMALLEST_TEMPERATURE = 1e-30  # below it only the most likely token is left either way, and logits would overflow
DRAWS = 256  # steps whose random numbers are drawn at once


def setting(default: float | None, meaning: str, *, holds: Callable[[float], bool], expected: str, slider: tuple) -> Field:
    """Returns a field of Sampling: what it means, what it may be, and its slider's lowest and highest value and step."""
    return field(default=default, metadata={"meaning": meaning, "holds": holds, "expected": expected, "slider": slider})


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken from the logits. Raises UserError for a value out of range.

    `repetition_penalty` divides the positive logits of tokens that are there already, and multiplies the negative ones
    (Keskar et al. 2019, arXiv:1909.05858). `temperature` divides the logits; 0 takes the most likely token. Of the
    distribution that this gives are kept: the `top_k` most likely tokens, the fewest of the most likely that together have at
    least the probability `top_p` (Holtzman et al. 2020, arXiv:1904.09751), and those that are at least `min_p` times as likely
    as the most likely (Nguyen et al. 2024, arXiv:2407.01082). The command line and the notebook's sliders are made from these
    fields.
    """

    temperature: float = setting(
        0.8,
        "0 takes the most likely token, 1 samples as learned",
        holds=lambda value: 0 <= value < float("inf"),
        expected="0 (always the most likely token) or a number above",
        slider=(0, 2, 0.05),
    )
    top_k: int | None = setting(
        None,
        "sample from the k most likely tokens only",
        holds=lambda value: value is None or value >= 1,
        expected="at least 1; without it all tokens are kept",
        slider=(0, 200, 1),
    )
    top_p: float = setting(
        1.0,
        "sample from the most likely tokens that together have this probability",
        holds=lambda value: 0 < value <= 1,
        expected="above 0 and at most 1",
        slider=(0.05, 1, 0.05),
    )
    min_p: float = setting(
        0.0,
        "sample from tokens at least this many times as likely as the most likely",
        holds=lambda value: 0 <= value <= 1,
        expected="0 (all tokens) to 1",
        slider=(0, 1, 0.01),
    )
    repetition_penalty: float = setting(
        1.0,
        "above 1: tokens that are there already become less likely",
        holds=lambda value: 0.01 <= value <= 100,
        expected="0.01 to 100; 1 changes nothing, 1.2 is much",
        slider=(1, 2, 0.05),
    )

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            kinds = get_args(each.type) or (each.type,)
            expect(each.name, value, *({int: Integral, float: Real}.get(kind, kind) for kind in kinds))
            if not each.metadata["holds"](value):
                raise UserError(f"{each.name} = {value}: expected {each.metadata['expected']}")


def next_token_probabilities(logits: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the distribution to sample from, (..., V), for logits, (..., V); `seen` marks tokens that are there already."""
    if seen is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1)
    probabilities = (logits / max(sampling.temperature, SMALLEST_TEMPERATURE)).softmax(-1)
    kept = probabilities
    if sampling.top_k is not None or sampling.top_p < 1:
        if sampling.top_k is not None:
            ordered, order = probabilities.topk(min(sampling.top_k, logits.shape[-1]))
        else:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        if sampling.top_p < 1:
            before = ordered.cumsum(-1, dtype=torch.float64) - ordered  # probability of all more likely tokens
            ordered = torch.where(before < sampling.top_p, ordered, 0)
        kept = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    if sampling.min_p > 0:
        kept = torch.where(probabilities >= sampling.min_p * probabilities.amax(-1, keepdim=True), kept, 0)
    return probabilities if kept is probabilities else kept / kept.sum(-1, keepdim=True)


def draw(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Returns an id for each distribution, (n, V), by a number each that is uniform in [0, 1), (n,)."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    found = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    likely = torch.searchsorted(cumulative, total)  # the last that has a probability: rounding must not lead past it
    return torch.minimum(found, likely)[:, 0]


class Sampler:
    """Draws the next id of each row of a batch, always the same ones for a seed on a device; without one others each time."""

    def __init__(self, sampling: Sampling, prompts: list[list[int]], model: Model, seed: int | None, stop_ids: Collection[int]):
        weight = model.wte.weight
        self.sampling = sampling
        self.device = weight.device if weight.device.type == "cuda" else torch.device("cpu")
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(int(seed))
        self.uniforms = torch.empty(DRAWS, len(prompts), device=self.device)
        self.step = 0
        self.next_step = torch.zeros(1, dtype=torch.int64, device=self.device)  # the same, where a CUDA graph finds it
        self.seen = None  # by row and token: whether it is there already, (B, V)
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(len(prompts), model.config.vocab_size, dtype=torch.bool, device=self.device)
            for row, prompt in enumerate(prompts):
                self.seen[row, [id for id in prompt if id not in stop_ids]] = True  # <|endoftext|> began it, and may end it

    def advance(self):
        """To be called before each step, outside of a CUDA graph."""
        if self.step % DRAWS == 0:
            self.uniforms.copy_(torch.rand(self.uniforms.shape, generator=self.generator))
        self.step += 1

    def sample(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Returns the next id of each of `rows`, (n,), for their logits, (n, V), on the device of both."""
        uniform = self.uniforms.index_select(0, self.next_step % DRAWS)[0, rows]  # (n,)
        self.next_step += 1
        seen = None if self.seen is None else self.seen[rows]
        ids = draw(next_token_probabilities(logits.to(self.device, torch.float32), self.sampling, seen), uniform)
        if self.seen is not None:
            self.seen.index_put_((rows, ids), torch.ones_like(ids, dtype=torch.bool))
        return ids

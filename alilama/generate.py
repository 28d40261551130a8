"""Writes text with a trained model: python -m alilama.generate models/stories --prompt "Once upon a time" """

import codecs
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from alilama.checkpoint import PRETRAINED, load_model
from alilama.decoding import KernelDecoder, TorchDecoder, cache_bytes, choose_decoder
from alilama.errors import ArgumentParser, UserError, one_line_errors
from alilama.model import Model, choose_device
from alilama.tokenizer import Tokenizer

SMALLEST_TEMPERATURE = 1e-30  # below it only the likeliest token is left either way, and logits would overflow
DRAWS = 256  # steps whose random numbers are drawn at once


# ---- sampling ----


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken from the logits. Raises UserError for a value out of range.

    `repetition_penalty` divides the positive logits of tokens that are there already, and multiplies the negative ones
    (Keskar et al. 2019, arXiv:1909.05858). `temperature` divides the logits; 0 takes the likeliest token. Of the
    distribution that this gives are kept: the `top_k` likeliest tokens, the fewest likeliest that together have at least the
    probability `top_p` (Holtzman et al. 2020, arXiv:1904.09751), and those that are at least `min_p` times as likely as the
    likeliest (Nguyen et al. 2024, arXiv:2407.01082).
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature = {self.temperature}: expected 0 (always the most likely token) or a number above")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k = {self.top_k}: expected at least 1; without it all tokens are kept")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p}: expected above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p = {self.min_p}: expected 0 (all tokens) to 1")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise UserError(f"repetition_penalty = {self.repetition_penalty}: expected 0.01 to 100; 1 is none, 1.2 is much")


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
    likely = torch.searchsorted(cumulative, total)  # the last that has a probability: rounding must not lead behind it
    return torch.minimum(found, likely)[:, 0]


class Sampler:
    """Draws the next id of each row of a batch, always the same ones for a seed on a device; without one others each time."""

    def __init__(self, sampling: Sampling, prompts: list[list[int]], model: Model, seed: int | None, stop_id: int | None):
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
                self.seen[row, [id for id in prompt if id != stop_id]] = True  # <|endoftext|> began it, and may end it

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


# ---- ids ----


def check_length(model: Model, prompts: list[list[int]], max_new_tokens: int, context: int | None):
    """Raises UserError for a length out of range, or a cache that the memory does not hold."""
    if not 1 <= max_new_tokens < 2**62:
        raise UserError(f"max_new_tokens = {max_new_tokens}: expected at least 1, and less than 2^62")
    if context is not None and context < 1:
        raise UserError(f"context = {context}: expected at least 1; without it everything is looked back on")
    if not prompts:
        raise UserError("there is no prompt: expected one or more")
    for prompt in prompts:
        if not prompt or not 0 <= min(prompt) <= max(prompt) < model.config.vocab_size:
            raise UserError(
                f"a prompt of the ids {str(list(prompt))[:60]}: expected one or more ids from 0 to "
                f"{model.config.vocab_size - 1}; the id of <|endoftext|> begins a text from nothing"
            )
    longest = max(map(len, prompts)) + max_new_tokens
    needed, free = cache_bytes(model, len(prompts), longest, context), free_bytes(model.wte.weight.device)
    if free is not None and needed > free:
        raise UserError(
            f"max_new_tokens = {max_new_tokens}: for up to {longest:,} tokens x {len(prompts)} the keys and values "
            f"take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; lower it, or set context = "
            f"{model.config.max_seq_len}, with which a text of any length takes the same memory"
        )


def free_bytes(device: torch.device) -> int | None:
    """Returns the free memory of a device, None where it is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():  # Linux
        return next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return None


def next_ids(
    decoder: KernelDecoder | TorchDecoder, sampler: Sampler, prompts: list[list[int]], stop_id: int | None
) -> Iterator[list[int]]:
    """Yields the next id of every row, without end; rows that have come to `stop_id` are left behind."""
    rows = torch.arange(len(prompts))
    ids = torch.zeros(len(prompts), dtype=torch.int64)
    logits = decoder.read_prompts(prompts)
    while True:
        sampler.advance()
        found = sampler.sample(logits, rows).cpu()
        ids[rows] = found
        yield ids.tolist()
        if stop_id is not None:
            rows, found = rows[found != stop_id], found[found != stop_id]
        logits = decoder.step(found, rows)


def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Returns what launches a step as one CUDA graph, or the step itself, which is slower, where it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            step()
    except RuntimeError:
        return step  # nothing of it was computed while it was captured
    return graph.replay


def next_ids_by_graph(decoder: TorchDecoder, sampler: Sampler, prompts: list[list[int]]) -> Iterator[list[int]]:
    """Yields the next id of every row, without end, from a CUDA GPU, which computes the ones after them meanwhile.

    A step, from the last ids to the next, is launched as one CUDA graph; nothing in it waits for the host.
    """
    rows = torch.arange(len(prompts), device=decoder.device)
    sampler.advance()
    ids = sampler.sample(decoder.read_prompts(prompts), rows)
    on_host = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
    arrived = torch.cuda.Event()
    launch = None

    def step():
        ids.copy_(sampler.sample(decoder.forward(ids[:, None]), rows))

    while True:
        on_host.copy_(ids, non_blocking=True)
        arrived.record(torch.cuda.current_stream(decoder.device))
        sampler.advance()
        moved = decoder.reserve(1)
        if decoder.read == max(map(len, prompts)):
            step()  # once by hand: what is made at the first use must not be made within a graph
        else:
            if launch is None or moved:
                launch = capture(step, decoder.device)
            launch()
        decoder.read += 1
        arrived.synchronize()
        yield on_host.tolist()


@torch.inference_mode()
def stream_batch(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 256,
    seed: int | None = None,
    stop_id: int | None = None,
    context: int | None = None,
    **sampling,
) -> Iterator[list[int | None]]:
    """Yields the next id of each of `prompts`, step by step, None where a text has ended, until all have.

    The model should be in evaluation mode. A text ends before `stop_id` or after `max_new_tokens`. With a `context` of N a
    token sees the N last ones only, and a text of any length takes the same memory. `sampling` is that of `Sampling`. The
    same seed gives the same ids on the same device; without one they differ each time. Raises UserError for a value out of
    range.
    """
    try:
        prompts = [[operator.index(id) for id in prompt] for prompt in prompts]
    except TypeError as error:
        raise UserError(f"prompts: expected a list of lists of ids, such as [[1, 2]] ({error})") from None
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise UserError(f"seed = {seed}: expected a number of at most 63 bits")
    check_length(model, prompts, max_new_tokens, context)
    sampler = Sampler(Sampling(**sampling), prompts, model, seed, stop_id)
    decoder = choose_decoder(model, len(prompts), max(map(len, prompts)) + max_new_tokens, context)
    steps = (
        next_ids_by_graph(decoder, sampler, prompts)
        if decoder.device.type == "cuda"
        else next_ids(decoder, sampler, prompts, stop_id)
    )
    ended = [False] * len(prompts)
    for ids in islice(steps, max_new_tokens):
        if max(ids) >= model.config.vocab_size:
            raise UserError("the model's logits are no finite numbers: its weights are damaged; train it again")
        ended = [before or id == stop_id for before, id in zip(ended, ids, strict=True)]
        if all(ended):
            return
        yield [None if end else id for end, id in zip(ended, ids, strict=True)]


def stream_ids(model: Model, ids: Sequence[int], **settings) -> Iterator[int]:
    """Yields the ids that follow `ids`, one by one; `settings` are those of `stream_batch`."""
    for [id] in stream_batch(model, [ids], **settings):
        yield id


# ---- text ----


def stream_texts(model: Model, tokenizer: Tokenizer, prompts: Sequence[str], **settings) -> Iterator[list[str]]:
    """Yields what follows each of `prompts` as it is made, step by step, whole characters only, until all texts have ended.

    `settings` are those of `stream_batch`. An empty prompt begins a text from nothing; one with a special token in it raises
    UserError.
    """
    if isinstance(prompts, str):
        raise UserError("prompts: expected a list of texts, such as ['Once']; stream_text takes one")
    ids = [tokenizer.encode_document(prompt) for prompt in prompts]
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in prompts]
    for step in stream_batch(model, ids, stop_id=tokenizer.eot_id, **settings):
        yield [
            decoder.decode(b"" if id is None else tokenizer.token_bytes(id), final=id is None)
            for decoder, id in zip(decoders, step, strict=True)
        ]
    yield [decoder.decode(b"", final=True) for decoder in decoders]


def stream_text(model: Model, tokenizer: Tokenizer, prompt: str = "", **settings) -> Iterator[str]:
    """Yields the text that follows `prompt` as it is made, whole characters only; see `stream_texts`."""
    for [text] in stream_texts(model, tokenizer, [prompt], **settings):
        if text:
            yield text


def main(argv: list[str]):
    parser = ArgumentParser(prog="python -m alilama.generate", description="Writes text with a trained model.")
    parser.add_argument("model", nargs="?", default=PRETRAINED, help=f"folder of the model [{PRETRAINED}]")
    parser.add_argument(
        "--prompt",
        action="append",
        help="how the text begins; may be given several times, for texts that are "
        "written together; without it a text is written from nothing",
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest text, in tokens [256]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token, 1 as learned [0.8]")
    parser.add_argument("--top_k", type=int, help="sample from the k most likely tokens only")
    parser.add_argument("--top_p", type=float, default=1.0, help="sample from the most likely tokens of this probability [1]")
    parser.add_argument(
        "--min_p", type=float, default=0.0, help="sample from tokens at least that much as likely as the likeliest [0]"
    )
    parser.add_argument(
        "--repetition_penalty", type=float, default=1.0, help="above 1: tokens that are there already become less likely [1]"
    )
    parser.add_argument(
        "--context", type=int, help="look back on that many tokens only: a text of any length takes the same memory"
    )
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    settings = vars(parser.parse_args(argv))
    model, tokenizer = load_model(settings.pop("model"), choose_device())
    prompts = settings.pop("prompt") or [""]
    texts = stream_texts(model, tokenizer, prompts, **settings)
    first = next(texts)  # a mistake in the arguments is said before anything is printed
    if len(prompts) == 1:
        print(prompts[0] + first[0], end="", flush=True)
        for [text] in texts:
            print(text, end="", flush=True)
        print()
    else:
        print(*("".join(parts) for parts in zip(prompts, first, *texts, strict=True)), sep="\n\n")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

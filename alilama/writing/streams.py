"""Text that a model writes, token by token as it is made: ids first, then whole characters."""

import codecs
import operator
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from numbers import Integral
from types import NoneType

import torch

from alilama.common.errors import UserError, expect, first_line, is_out_of_memory, listed, shown
from alilama.data.tokenizer import Tokenizer
from alilama.model.device import capture, free_bytes
from alilama.model.model import Model
from alilama.writing.decoding import KernelDecoder, OnRead, TorchDecoder, cache_bytes, choose_decoder, say_nothing
from alilama.writing.sampling import Sampler, Sampling

Prompt = str | Sequence[Mapping[str, str]]  # messages, see Tokenizer.encode_prompt

# ---- text ----


def stream_text(model: Model, tokenizer: Tokenizer, prompt: Prompt = "", **settings) -> Iterator[str]:
    """Yields what a model makes of `prompt` as it is made, whole characters only; see `stream_texts`."""
    for [text] in stream_texts(model, tokenizer, [prompt], **settings):
        if text:
            yield text


def stream_texts(model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], **settings) -> Iterator[list[str]]:
    """Yields what follows each of `prompts` as it is made, step by step, whole characters only, until all texts have ended.

    A model that was trained on prompts with answers gives the answer. `settings` are those of `stream_batch`. An empty prompt
    begins a text from nothing; one with a special token in it raises UserError where there is no frame around it.
    """
    expect("tokenizer", tokenizer, Tokenizer)
    if isinstance(prompts, str):
        raise UserError("prompts: expected a list of texts, such as ['Once']; stream_text takes one")
    prompts = listed("prompts", prompts)
    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in prompts]
    for step in stream_batch(model, ids, stop_ids=tokenizer.stop_ids, **settings):
        yield [
            decoder.decode(b"" if id is None else tokenizer.token_bytes(id), final=id is None)
            for decoder, id in zip(decoders, step, strict=True)
        ]
    yield [decoder.decode(b"", final=True) for decoder in decoders]


def shown_before(tokenizer: Tokenizer, prompt: str) -> str:
    """Returns what to show before the text that a model makes of a prompt: the prompt, and a gap where that is answered."""
    return prompt if tokenizer.frame is None else f"{prompt}\n\n"


# ---- ids ----


def generate_batch(model: Model, prompts: Sequence[Sequence[int]], **settings) -> list[list[int]]:
    """Returns the ids that follow each of `prompts`; `settings` are those of `stream_batch`."""
    prompts = to_ids(prompts)
    rows = [[] for _ in prompts]
    for step in stream_batch(model, prompts, **settings):
        for row, id in zip(rows, step, strict=True):
            if id is not None:
                row.append(id)
    return rows


@torch.inference_mode()
def stream_batch(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 256,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    context: int | None = None,
    on_read: OnRead = say_nothing,
    on_cut: Callable[[list[int]], None] | None = None,
    **sampling,
) -> Iterator[list[int | None]]:
    """Yields the next id of each of `prompts`, step by step, None where a text has ended, until all have.

    The model should be in evaluation mode. A text ends before one of `stop_ids` or after `max_new_tokens`; `on_cut` is told at
    the end which rows did the latter. With a `context` of N a token sees the N last ones only, and a text of any length takes
    the same memory. `on_read` is told now and then how many tokens of the prompts have been read, and of how many. `sampling`
    is that of `Sampling`. The same seed gives the same ids on the same device; without one they differ each time. Raises
    UserError for a value out of range.
    """
    expect("model", model, Model)
    prompts = to_ids(prompts)
    stop_ids = listed("stop_ids", stop_ids, Integral)
    for name, value in (("seed", seed), ("context", context)):
        expect(name, value, Integral, NoneType)
    expect("max_new_tokens", max_new_tokens, Integral)
    if not callable(on_read):
        raise UserError(f"on_read = {shown(on_read)}: expected a function")
    check_length(model, prompts, max_new_tokens, context)
    known = [field.name for field in fields(Sampling)]
    if unknown := sampling.keys() - known:
        raise UserError(f"{min(unknown)} is not a setting of writing; these are {', '.join(known)}")
    sampler = Sampler(Sampling(**sampling), prompts, model, seed, stop_ids)
    decoder = choose_decoder(model, len(prompts), max(map(len, prompts)) + max_new_tokens, context, on_read)
    steps = (
        next_ids_by_graph(decoder, sampler, prompts)
        if decoder.device.type == "cuda"
        else next_ids(decoder, sampler, prompts, stop_ids)
    )
    ended = [False] * len(prompts)
    for ids in islice(steps, max_new_tokens):
        if max(ids) >= model.config.vocab_size:
            raise UserError("the model's logits are not finite numbers: its weights are damaged; train it again")
        ended = [before or id in stop_ids for before, id in zip(ended, ids, strict=True)]
        if all(ended):
            return
        yield [None if end else id for end, id in zip(ended, ids, strict=True)]
    if on_cut is not None:
        on_cut([row for row, end in enumerate(ended) if not end])


def to_ids(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns prompts as lists. Raises UserError for what is no list of lists of whole numbers."""
    try:
        return [[operator.index(id) for id in prompt] for prompt in prompts]
    except TypeError as error:
        raise UserError(f"prompts: expected a list of lists of ids, such as [[1, 2]] ({error})") from None


def check_length(model: Model, prompts: list[list[int]], max_new_tokens: int, context: int | None):
    """Raises UserError for a length out of range, a cache that the memory does not hold, and a device without any."""
    if model.wte.weight.device.type == "meta":
        raise UserError("model is on the device meta, where there are no numbers; load it by load_model")
    if not 1 <= max_new_tokens < 2**62:
        raise UserError(f"max_new_tokens = {max_new_tokens}: expected at least 1, and less than 2^62")
    if context is not None and context < 1:
        raise UserError(f"context = {context}: expected at least 1; without it everything is looked back on")
    if not prompts:
        raise UserError("prompts is empty: expected one or more")
    for prompt in prompts:
        if not prompt or not 0 <= min(prompt) <= max(prompt) < model.config.vocab_size:
            raise UserError(
                f"a prompt of the ids {str(list(prompt))[:60]} is among prompts: expected one or more ids from 0 to "
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


def next_ids(
    decoder: KernelDecoder | TorchDecoder, sampler: Sampler, prompts: list[list[int]], stop_ids: Collection[int]
) -> Iterator[list[int]]:
    """Yields the next id of every row, without end; rows that have come to one of `stop_ids` are left out."""
    rows, stops = torch.arange(len(prompts)), torch.tensor([*stop_ids])
    ids = torch.zeros(len(prompts), dtype=torch.int64)
    logits = decoder.read_prompts(prompts)
    while True:
        sampler.advance()
        found = sampler.sample(logits, rows).cpu()
        ids[rows] = found
        yield ids.tolist()
        if stop_ids:
            goes_on = ~torch.isin(found, stops)
            rows, found = rows[goes_on], found[goes_on]
        logits = decoder.step(found, rows)


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
        if decoder.num_read == max(map(len, prompts)):
            step()  # once by hand: what is made at the first use must not be made within a graph
        else:
            if launch is None or moved:
                launch = launched_at_once(step)
            launch()
        decoder.num_read += 1
        arrived.synchronize()
        yield on_host.tolist()


def launched_at_once(step: Callable[[], None]) -> Callable[[], None]:
    """Returns what launches a step as one CUDA graph, or the step itself, which is slower, where it cannot be captured."""
    try:
        (launch,) = capture(step)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        warnings.warn(f"Not captured as a CUDA graph, so text is written more slowly: {first_line(error)}", stacklevel=2)
        return step  # nothing of it was computed while it was captured
    return launch

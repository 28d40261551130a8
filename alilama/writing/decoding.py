"""Logits of the next token from a cache of the keys and values of all that was read: each token is read once.

ALiBi needs no positions, so a cache may slide: with a context of N a token sees the N last ones, itself among them, and
memory and time per token stay as they are, however long the text. Shapes: B rows of text, T time, S slots of the cache,
C = d_model, H heads, D head width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
import torch.nn.functional as F

from alilama.common.errors import UserError
from alilama.model import kernels
from alilama.model.attention import kernel_agrees, linear_bias
from alilama.model.model import Model
from alilama.model.mpt import has_mpt_formulas

CHUNK = 256  # tokens of a prompt that PyTorch reads together
TOLD_TOKENS = 512  # of each row, that the kernel reads until it tells how far it is and Ctrl-C stops it
PROBED_TOKENS = 16  # that decoders are compared on
PROBE_TOLERANCE, GPU_TOLERANCE = 2e-4, 0.02  # as shares of the largest logit; GPUs round products in TF32

OnRead = Callable[[int, int], None]  # is told now and then how many tokens of the prompts have been read, and of how many

_computable: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()  # see kernel_computes
_checked: WeakSet[Model] = WeakSet()  # see check_torch_decoder


def say_nothing(read: int, total: int):
    pass


def choose_decoder(
    model: Model, rows: int, longest: int, context: int | None, on_read: OnRead = say_nothing
) -> "KernelDecoder | TorchDecoder":
    """Returns the fastest decoder for a model where it is, for `rows` texts of up to `longest` tokens.

    With a `context` of that many tokens or None, each sees all that were before. Raises UserError for a float32 model that was
    changed where TorchDecoder was not.
    """
    if context is not None and context >= longest:
        context = None
    weight = model.wte.weight
    fits_kernel = weight.device.type == "cpu" and weight.dtype == torch.float32 and kernel_agrees()
    if fits_kernel and kernel_computes(model):
        return KernelDecoder(model, rows, longest, context, on_read)
    check_torch_decoder(model)
    return TorchDecoder(model, rows, longest, context, on_read)


@torch.inference_mode()
def kernel_computes(model: Model) -> bool:
    """Whether the C++ decoder computes what a float32 model on the CPU computes, found out once, on a few tokens.

    So an architecture that was changed in Python alone is left to PyTorch.
    """
    if model not in _computable:
        names = {name.removesuffix(".weight") for name, _ in model.blocks[0].named_parameters()}
        _computable[model] = names == set(kernels.DECODER_BLOCK) and agrees_with_kernel(model)
    return _computable[model]


def agrees_with_kernel(model: Model) -> bool:
    ids = probed_ids(model.config.vocab_size)
    try:
        decoder = KernelDecoder(model, 1, len(ids), None)
    except (KeyError, ValueError):  # it has not the weights that the kernel reads, or in other shapes
        return False
    with evaluating(model):
        expected = model(torch.tensor([ids]))[0, -1]  # (V,)
    return agree(decoder.read_prompts([ids])[0], expected, PROBE_TOLERANCE)


def check_torch_decoder(model: Model):
    """Raises UserError for a float32 model that was changed where TorchDecoder was not, found out once."""
    if model in _checked:
        return
    # With the usual formulas TorchDecoder differs for weights only that are too large to compute with.
    is_changed = model.wte.weight.dtype == torch.float32 and not has_mpt_formulas(model.config)
    if is_changed and not agrees_with_torch_decoder(model):
        raise UserError(
            "TorchDecoder in alilama/writing/decoding.py does not write what the model computes: its attention, its output "
            "layer and what it keeps of the tokens before have to be changed as the model was"
        )
    _checked.add(model)


@torch.inference_mode()
def agrees_with_torch_decoder(model: Model) -> bool:
    ids = probed_ids(model.config.vocab_size)
    decoder = TorchDecoder(model, 1, len(ids), None)
    with evaluating(model):
        expected = model(torch.tensor([ids], device=decoder.device))[0, -1]  # (V,)
        decoder.read_prompts([ids[:-1]])
        [found] = decoder.step(torch.tensor(ids[-1:]), torch.tensor([0]))
    return agree(found, expected, PROBE_TOLERANCE if decoder.device.type == "cpu" else GPU_TOLERANCE)


def probed_ids(vocab_size: int) -> list[int]:
    """Returns some ids from all over a vocabulary, the last of them first: it may be that of <|endoftext|>."""
    return [vocab_size - 1 - i * vocab_size // PROBED_TOKENS for i in range(PROBED_TOKENS)]


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Lets a model be in evaluation mode."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)


def agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether logits are the same but for a `tolerance`, as a share of the largest."""
    atol = tolerance * float(expected.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(found, expected, rtol=0, atol=atol, equal_nan=True)


class KernelDecoder:
    """A float32 model on the CPU, by csrc/kernels/decoder.cpp. It holds a copy of the weights in the order it reads them."""

    def __init__(self, model: Model, rows: int, longest: int, context: int | None, on_read: OnRead = say_nothing):
        self._decoder = kernels.make_decoder(
            dict(model.named_parameters()), len(model.blocks), model.slopes, rows, longest, context or 0
        )
        self._rows, self._vocab_size, self.on_read = rows, model.config.vocab_size, on_read
        self.device = model.wte.weight.device

    def read_prompts(self, prompts: list[list[int]]) -> torch.Tensor:
        """Reads the ids that each row begins with, one or more, and returns the logits after them, (B, V)."""
        lengths = np.array([len(prompt) for prompt in prompts])
        logits = np.empty((self._rows, self._vocab_size), np.float32)
        for start in range(0, lengths.max(), TOLD_TOKENS):
            rows = np.flatnonzero(lengths > start)
            parts = [np.array(prompts[row][start : start + TOLD_TOKENS], dtype=np.int64) for row in rows]
            logits[rows] = self._read(np.concatenate(parts), rows, np.array([len(part) for part in parts]))
            self.on_read(int(np.minimum(lengths, start + TOLD_TOKENS).sum()), int(lengths.sum()))
        return torch.from_numpy(logits)

    def step(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Reads the next id of each of `rows`, both (n,), and returns the logits after them, (n, V)."""
        return self._read(ids.numpy(), rows.numpy(), np.ones(len(rows), np.int64))

    def _read(self, ids: np.ndarray, rows: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        logits = np.empty((len(rows), self._vocab_size), np.float32)
        self._decoder.read(ids, rows, lengths, logits, torch.get_num_threads())
        return torch.from_numpy(logits)


class TorchDecoder:
    """Any model on any device. All rows read together: shorter prompts are filled up on their left."""

    def __init__(self, model: Model, rows: int, longest: int, context: int | None, on_read: OnRead = say_nothing):
        self.model, self.rows, self.context, self.on_read = model, rows, context, on_read
        self.max_positions = max_positions(longest, context)
        self.device = model.wte.weight.device
        self.num_read = 0  # positions
        self.next = torch.zeros((), dtype=torch.int64, device=self.device)  # the same, where a CUDA graph finds it
        self.start = torch.zeros(rows, dtype=torch.int64, device=self.device)  # position of each row's first token
        self.capacity = 0  # S
        self.caches: list[torch.Tensor] = []  # by block: keys and values, (2, B, H, S, D)

    def read_prompts(self, prompts: list[list[int]]) -> torch.Tensor:
        """Reads the ids that each row begins with, one or more, and returns the logits after them, (B, V)."""
        longest = max(map(len, prompts))
        filled = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=self.device)
        self.start.copy_(torch.tensor([longest - len(prompt) for prompt in prompts]))
        for ids in filled.split(CHUNK, dim=1):
            self.reserve(ids.shape[1])
            logits = self.forward(ids)
            self.num_read += ids.shape[1]
            unread = longest - self.num_read  # of each prompt, or all of it: they end together
            total = sum(map(len, prompts))
            self.on_read(total - sum(min(unread, len(prompt)) for prompt in prompts), total)
        return logits

    def step(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Reads the next id of each of `rows`, both (n,), and returns the logits after them, (n, V)."""
        every = self.next.new_zeros(self.rows, 1)
        every[rows.to(self.device), 0] = ids.to(self.device)
        self.reserve(1)
        logits = self.forward(every)
        self.num_read += 1
        return logits[rows.to(self.device)]

    def reserve(self, T: int) -> bool:
        """Makes room for T more positions; returns whether the caches are new tensors.

        With a context they end as rings that hold what every token of a chunk sees: a position's slot is its remainder by
        S. Until then its slot is the position itself, so that they may grow.
        """
        needed = min(self.num_read + T, self.max_positions)
        if self.capacity >= needed:
            return False
        capacity = min(max(needed, 2 * self.capacity, CHUNK), self.max_positions)
        C, H = self.model.config.d_model, self.model.config.num_heads
        shape = (2, self.rows, H, capacity - self.capacity, C // H)
        if not self.caches:
            self.caches = [self.model.wte.weight.new_zeros(shape) for _ in self.model.blocks]
        else:
            for block, cache in enumerate(self.caches):  # one by one: never all of them twice in memory
                self.caches[block] = torch.cat((cache, cache.new_zeros(shape)), dim=3)
        self.capacity = capacity
        return True

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads ids, (B, T), for which there is room, and returns the logits after the last, (B, V)."""
        T = ids.shape[1]
        bias = self.bias(T)
        slots = (self.next + torch.arange(T, device=self.device)) % self.capacity
        hidden = self.model.hidden(ids, [self.attend(cache, slots, bias) for cache in self.caches])  # (B, T, C)
        self.next += T
        return F.linear(hidden[:, -1], self.model.wte.weight)

    def bias(self, T: int) -> torch.Tensor:
        """Returns what is added to the scores of the next T positions, (B, H, T, S): -inf on what a query does not see."""
        query = self.next + torch.arange(T, device=self.device)  # (T,)
        slot = torch.arange(self.capacity, device=self.device)
        newest = self.next + T - 1
        position = newest - (newest - slot) % self.capacity  # (S,), negative in slots that nothing was written to
        distance = query[:, None] - position  # (T, S)
        seen = (distance >= 0) & (position >= self.start[:, None, None])  # (B, T, S)
        if self.context is not None:
            seen &= distance < self.context
        seen |= distance == 0  # padding attends to itself: a softmax of only -inf is NaN
        bias = linear_bias(distance, self.model.slopes[:, None, None])  # (H, T, S)
        return torch.where(seen[:, None], bias, -torch.inf).to(self.model.wte.weight.dtype)

    def attend(self, cache: torch.Tensor, slots: torch.Tensor, bias: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns a block's attention for Model.hidden, which writes new keys and values, (B, T, 3, H, D), into its cache."""

        def attend(qkv: torch.Tensor) -> torch.Tensor:
            q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)
            cache.index_copy_(3, slots, torch.stack((k, v)))
            keys, values = cache
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=bias).transpose(1, 2)

        return attend


def cache_bytes(model: Model, rows: int, longest: int, context: int | None) -> int:
    """Returns the size of the keys and values of texts of up to `longest` tokens, when the last of them has been read."""
    return (
        rows
        * max_positions(longest, context)
        * model.config.blocks
        * 2
        * model.config.d_model
        * model.wte.weight.element_size()
    )


def max_positions(longest: int, context: int | None) -> int:
    """Returns how many positions of a text of up to `longest` tokens a cache holds at most."""
    return longest if context is None else min(longest, context + CHUNK)

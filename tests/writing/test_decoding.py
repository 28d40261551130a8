"""Cached logits against those of the whole model, which reads everything anew."""

import os
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_model

from alilama.common.errors import UserError
from alilama.model import kernels
from alilama.model.attention import masked_attention
from alilama.model.model import Attention, FeedForward, Model
from alilama.writing import decoding
from alilama.writing.decoding import KernelDecoder, TorchDecoder, cache_bytes, choose_decoder
from alilama.writing.streams import generate_batch

with_kernel = pytest.mark.skipif(not kernels.are_built(), reason="the kernels are built on Linux only")
DECODERS = [pytest.param(KernelDecoder, marks=with_kernel), TorchDecoder]
SHAPES = [  # vocabularies, widths and hidden layers that are and are not multiples of a vector
    (400, {}),
    (37, {"d_model": 24, "num_heads": 3, "hidden_dim": 50}),
    (4096, {"d_model": 64, "num_heads": 8}),
    (50, {"d_model": 10, "num_heads": 1, "blocks": 1}),
    (300, {"d_model": 80, "num_heads": 2, "blocks": 3}),
]


def lively_model(vocab_size: int, **shape):
    """A model with random weights, among them those of the norms, large enough that the text before matters."""
    model = tiny_model(vocab_size, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(1.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.inference_mode()
def logits_by_reading_anew(model, ids: torch.Tensor, context: int | None = None) -> torch.Tensor:
    """Returns the logits at every position, (B, T, V), where each sees the `context` last ones only, by a (T, T) bias."""
    distance = torch.arange(ids.shape[1])[:, None] - torch.arange(ids.shape[1])
    unseen = (distance < 0) | (distance >= (context or len(distance)))
    bias = (-model.slopes[:, None, None] * distance).masked_fill(unseen, -torch.inf)
    attend = partial(masked_attention, bias=bias)
    return F.linear(model.hidden(ids, [attend] * len(model.blocks)), model.wte.weight)


@torch.inference_mode()
def assert_cached_logits_are_those(model, decoder, ids: torch.Tensor, lengths: list[int], context: int | None = None):
    """Reads prompts of the given lengths and then one id of each row after the other, up to the end of `ids`, (B, T)."""
    expected = logits_by_reading_anew(model, ids, context)
    found = decoder.read_prompts([row[:length].tolist() for row, length in zip(ids, lengths, strict=True)])
    last = torch.tensor(lengths) - 1
    torch.testing.assert_close(found, expected[torch.arange(len(ids)), last], atol=2e-5, rtol=1e-5)
    for _ in range(ids.shape[1] - min(lengths)):
        rows = (last + 1 < ids.shape[1]).nonzero()[:, 0]
        last[rows] += 1
        found = decoder.step(ids[rows, last[rows]], rows)
        torch.testing.assert_close(found, expected[rows, last[rows]], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("Decoder", DECODERS)
@pytest.mark.parametrize(("vocab_size", "shape"), SHAPES)
def test_cached_logits_are_those_of_the_whole_model_at_every_position(Decoder, vocab_size, shape):
    model = lively_model(vocab_size, **shape)  # trained at 16
    ids = torch.randint(vocab_size, (3, 90), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits_by_reading_anew(model, ids), model(ids).detach(), atol=2e-5, rtol=1e-5)
    assert_cached_logits_are_those(model, Decoder(model, 3, 90, None), ids, [20, 1, 71])


@pytest.mark.parametrize("Decoder", DECODERS)
@pytest.mark.parametrize("context", [1, 7, 16, 33, 1000])
def test_in_a_context_a_token_sees_the_last_ones_only(Decoder, context, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 32)
    model = lively_model(100)
    ids = torch.randint(100, (2, 230), generator=torch.Generator().manual_seed(1))
    assert_cached_logits_are_those(model, Decoder(model, 2, 230, context), ids, [150, 3], context)


@pytest.mark.parametrize("Decoder", DECODERS)
@pytest.mark.parametrize("told_tokens", [64, 512])
def test_a_long_prompt_is_read_as_at_once(Decoder, told_tokens, monkeypatch):
    monkeypatch.setattr(decoding, "TOLD_TOKENS", told_tokens)
    model = lively_model(100)
    ids = torch.randint(100, (1, 700), generator=torch.Generator().manual_seed(2))
    assert_cached_logits_are_those(model, Decoder(model, 1, 1000, None), ids, [690])


@pytest.mark.parametrize("Decoder", DECODERS)
def test_prompts_of_several_lengths_are_read_in_parts_and_told_of(Decoder, monkeypatch):
    monkeypatch.setattr(decoding, "TOLD_TOKENS", 32)
    monkeypatch.setattr(decoding, "CHUNK", 32)
    model, told = lively_model(100), []
    ids = torch.randint(100, (4, 120), generator=torch.Generator().manual_seed(5))
    decoder = Decoder(model, 4, 120, None, lambda read, total: told.append((read, total)))
    assert_cached_logits_are_those(model, decoder, ids, [100, 1, 64, 65])
    assert [total for _, total in told] == [230] * 4
    read = [read for read, _ in told]
    assert read == sorted(set(read)) and read[0] >= 32 and read[-1] == 230


@with_kernel
def test_a_prompt_is_read_to_the_bit_the_same_in_parts_of_any_size(monkeypatch):
    model = lively_model(100)
    prompts = [torch.randint(100, (length,), generator=torch.Generator().manual_seed(6)).tolist() for length in (61, 200, 3)]
    found = []
    for told_tokens in (1, 2, 3, 5, 7, 63, 64, 65, 1000):  # tokens attend alone, and kQueries together
        monkeypatch.setattr(decoding, "TOLD_TOKENS", told_tokens)
        found.append(KernelDecoder(model, 3, 210, None).read_prompts(prompts))
    assert all(torch.equal(found[0], each) for each in found)


@with_kernel
def test_the_number_of_threads_changes_nothing(monkeypatch):
    model = lively_model(100)
    ids = torch.randint(100, (5, 80), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert_cached_logits_are_those(model, KernelDecoder(model, 5, 80, None), ids, [20, 1, 70, 3, 50])


def test_with_a_context_the_caches_of_torch_stay_as_they_are():
    model = lively_model(100)
    decoder = TorchDecoder(model, 1, 10**9, 8)
    decoder.read_prompts([[3] * 5000])
    assert decoder.caches[0].shape == (2, 1, 4, 8 + decoding.CHUNK, 8)


@with_kernel
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux says how much memory a process has")
def test_with_a_context_the_memory_of_the_kernel_stays_as_it_is():
    model = lively_model(100, blocks=1)
    decoder = KernelDecoder(model, 1, 10**9, 8)
    decoder.read_prompts([[3] * 1000])
    used = resident_bytes()
    rows = torch.tensor([0])
    for _ in range(20):
        decoder._read(np.full(10_000, 3), rows.numpy(), np.array([10_000]))
    assert resident_bytes() - used < 1e7  # without a bound 200,000 positions take 51 MB
    torch.testing.assert_close(
        decoder.step(torch.tensor([4]), rows),
        logits_by_reading_anew(model, torch.tensor([[3] * 60 + [4]]), 8)[:, -1],
        atol=2e-5,
        rtol=1e-5,
    )


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_read_by_torch_to_its_rounding(dtype):
    model = lively_model(100)
    ids = torch.randint(100, (1, 40), generator=torch.Generator().manual_seed(4))
    expected = logits_by_reading_anew(model, ids)
    decoder = choose_decoder(model.to(dtype), 1, 40, None)
    assert isinstance(decoder, TorchDecoder)
    with torch.inference_mode():
        found = [decoder.read_prompts([ids[0, :30].tolist()])]
        found += [decoder.step(ids[0, t : t + 1], torch.tensor([0])) for t in range(30, 40)]
    torch.testing.assert_close(torch.cat(found).float(), expected[0, 29:], atol=0.1, rtol=0)


@with_kernel
def test_the_kernel_refuses_what_it_cannot_read():
    model = lively_model(100)
    decoder = KernelDecoder(model, 2, 50, None)._decoder
    logits = np.empty((1, 100), np.float32)

    def read(ids, rows, lengths, logits=logits):
        decoder.read(np.array(ids, np.int64), np.array(rows), np.array(lengths), logits, 1)

    for id in (100, -1):
        with pytest.raises(ValueError, match=f"id {id}: expected 0 to 99"):
            read([id], [0], [1])
    for rows, lengths, message in (
        ([2], [1], "row 2 of 2 does not exist"),
        ([-1], [1], "row -1 of 2 does not exist"),
        ([0], [0], "row 0 would read 0 tokens"),
        ([0], [51], "row 0 holds 0 tokens and would read 51 more; longest is 50"),
    ):
        with pytest.raises(ValueError, match=message):
            read([1] * lengths[0], rows, lengths)
    for arguments, message in (
        (([1, 2], [0], [1]), r"ids has the shape \(2\); expected \(1\)"),
        (([1], [0], [1], np.empty((2, 100), np.float32)), r"logits has the shape \(2, 100\); expected \(1, 100\)"),
        (([1], [0], [1, 1]), r"lengths has the shape \(2\); expected \(1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            read(*arguments)
    with pytest.raises(ValueError, match="a context of at most"):
        KernelDecoder(model, 1, 2**62, 2**31)


@with_kernel
def test_the_kernel_refuses_weights_that_do_not_belong_together():
    def make(**changed):
        block = {"norm_1": (4,), "attn.Wqkv": (12, 4), "attn.out_proj": (4, 4), "norm_2": (4,), "ffn.up_proj": (8, 4)}
        shapes = {name: shape for name, shape in (block | {"ffn.down_proj": (4, 8)} | changed).items() if shape is not None}
        block = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        norm, slopes = np.zeros(4, np.float32), np.zeros(2, np.float32)
        return kernels._kernels.Decoder(np.zeros((10, 4), np.float32), [block], norm, slopes, 1, 9, 0)

    make()
    for name, shape in (("norm_1", (5,)), ("attn.Wqkv", (4, 4)), ("attn.out_proj", (4,)), ("ffn.down_proj", (8, 8))):
        with pytest.raises(ValueError, match=rf"{name} has the shape \({shape[0]}\b.*\); expected"):
            make(**{name: shape})
    with pytest.raises(ValueError, match=r"ffn\.up_proj is not a matrix"):
        make(**{"ffn.up_proj": (32,)})
    with pytest.raises(ValueError, match="a block has no weight norm_1"):
        make(norm_1=None)


@with_kernel
def test_the_kernel_is_chosen_for_float32_on_the_cpu(monkeypatch):
    assert isinstance(choose_decoder(lively_model(100), 1, 9, None), KernelDecoder)
    assert isinstance(choose_decoder(lively_model(100).double(), 1, 9, None), TorchDecoder)
    monkeypatch.setattr(kernels, "_kernels", None)
    assert isinstance(choose_decoder(lively_model(100), 1, 9, None), TorchDecoder)


@with_kernel
def test_a_c_decoder_that_gives_no_number_where_pytorch_does_is_not_used(monkeypatch):
    monkeypatch.setattr(KernelDecoder, "read_prompts", lambda self, prompts: torch.full((len(prompts), 100), torch.nan))
    assert isinstance(choose_decoder(lively_model(100), 1, 9, None), TorchDecoder)


def test_what_fills_a_short_prompt_up_sees_itself():
    decoder = TorchDecoder(lively_model(100), 2, 20, None)
    decoder.start.copy_(torch.tensor([0, 9]))
    decoder.reserve(10)
    assert decoder.bias(10).isfinite().any(-1).all()


@pytest.mark.parametrize(("longest", "context", "positions"), [(300, None, 300), (300, 20, 20 + 64), (100, 50, 100)])
def test_the_caches_become_as_large_as_is_said_and_no_larger(longest, context, positions, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 64)
    model = lively_model(100, blocks=3)
    decoder = TorchDecoder(model, 2, longest, context)
    decoder.read_prompts([[1] * 90, [1]])
    for _ in range(longest - 90):
        decoder.step(torch.tensor([1, 1]), torch.tensor([0, 1]))
    assert decoder.capacity == positions
    sizes = [cache.numel() * cache.element_size() for cache in decoder.caches]
    assert sum(sizes) == cache_bytes(model, 2, longest, context) == 2 * positions * 3 * 2 * 32 * 4


@pytest.mark.cuda
@pytest.mark.parametrize("context", [None, 40])
def test_a_gpu_writes_what_the_cpu_writes(context):
    model = lively_model(400)
    prompts = [[5, 80, 300], [7], [*range(100, 140)], [5, 80]]
    settings = {"max_new_tokens": 600, "temperature": 0, "context": context}  # the caches grow, and the graph is made anew
    assert generate_batch(model.cuda(), prompts, **settings) == generate_batch(model.cpu(), prompts, **settings)


@pytest.mark.cuda
@pytest.mark.parametrize("sampling", [{"repetition_penalty": 1.3}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.01}])
def test_seeds_stops_and_every_setting_work_in_a_cuda_graph(sampling):
    model = lively_model(400).cuda()
    settings = {"max_new_tokens": 100, "temperature": 1.0, **sampling}
    first, again, other = (generate_batch(model, [[3]] * 4, seed=seed, **settings) for seed in (1, 1, 2))
    assert first == again != other and len({tuple(row) for row in first}) == 4
    stop = first[0][50]
    stopped = generate_batch(model, [[3]] * 4, seed=1, stop_ids=[stop], **settings)
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in first]


# ---- an architecture that was changed in Python alone ----


def relu_squared(self, x):
    return self.down_proj(torch.relu(self.up_proj(x)).square())


def with_gate(self, x):
    return self.down_proj(torch.nn.functional.silu(self.up_proj(x) * 0.5) * self.up_proj(x))


def change_norms(model):
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 0.5


def add_gate(model):
    for block in model.blocks:
        block.ffn.gate_proj = torch.nn.Linear(32, 128, bias=False)


@with_kernel
@pytest.mark.parametrize("forward, change", [(relu_squared, None), (with_gate, None), (None, change_norms), (None, add_gate)])
def test_a_model_that_the_kernel_does_not_know_is_left_to_torch(forward, change, monkeypatch):
    if forward is not None:
        monkeypatch.setattr(FeedForward, "forward", forward)
    model = lively_model(100)
    if change is not None:
        change(model)
    assert isinstance(choose_decoder(model, 1, 40, None), TorchDecoder)
    expected = [3, 5]
    with torch.inference_mode():
        for _ in range(20):
            expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))
    assert generate_batch(model, [[3, 5]], max_new_tokens=20, temperature=0) == [expected[2:]]


def with_shared_keys(self, x, attend):
    """Attention whose Wqkv makes one key and value for all heads."""
    q, k, v = self.Wqkv(x).split([32, 8, 8], dim=-1)
    heads = [part.unflatten(-1, (-1, 8)).expand(-1, -1, 4, -1) for part in (q, k, v)]
    return self.out_proj(attend(torch.stack(heads, dim=2)).flatten(2))


@with_kernel
def test_a_model_whose_weights_the_kernel_cannot_read_is_left_to_torch(monkeypatch):
    model = lively_model(100)
    for block in model.blocks:
        block.attn.Wqkv = torch.nn.Linear(32, 48, bias=False)
    monkeypatch.setattr(Attention, "forward", with_shared_keys)
    assert isinstance(choose_decoder(model, 1, 40, None), TorchDecoder)


def shifted(self, x):
    """A feed-forward part that also sees the token before."""
    before = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
    return self.down_proj(torch.nn.functional.gelu(self.up_proj(x + before)))


def capped(self, ids):
    return torch.tanh(F.linear(self.hidden(ids), self.wte.weight))


@pytest.mark.parametrize("owner, forward", [(FeedForward, shifted), (Model, capped)])
def test_what_torch_would_write_otherwise_than_the_model_computes_is_refused(owner, forward, monkeypatch):
    model = lively_model(100)
    choose_decoder(model, 1, 40, None)
    monkeypatch.setattr(owner, "forward", forward)
    with pytest.raises(UserError, match=r"TorchDecoder in .* does not write what the model computes"):
        choose_decoder(lively_model(100), 1, 40, None)


def test_choosing_a_decoder_leaves_a_model_in_its_mode(monkeypatch):
    monkeypatch.setattr(decoding, "kernel_agrees", lambda: False)
    assert isinstance(choose_decoder(tiny_model(400), 1, 8, None), TorchDecoder)
    for is_training in (True, False):
        model = tiny_model(400, dropout=0.5).train(is_training)
        choose_decoder(model, 1, 8, None)
        assert model.training == is_training
    monkeypatch.undo()
    for is_training in (True, False):
        model = tiny_model(400, dropout=0.5).train(is_training)
        choose_decoder(model, 1, 8, None)
        assert model.training == is_training

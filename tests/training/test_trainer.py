"""One step on whatever hardware there is. What needs a GPU is tested where there is one."""

import math
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, tiny_model

from alilama.common.errors import UserError
from alilama.model.attention import prepare_blocks
from alilama.training.optim import make_optimizers
from alilama.training.step import FIRST_SCALE, SCALE_GROWS_AFTER
from alilama.training.trainer import Trainer, choose_precision, estimate_bytes

VOCAB, B, T = 50, 8, 16

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def batches(steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB, (B, T + 1), generator=generator) for _ in range(steps)]


def trainer_of(model, config, precision, **more) -> Trainer:
    return Trainer(model, make_optimizers(model, config, precision), config, precision, **more)


@pytest.fixture
def make_step(make_config):
    """Returns a step on a fresh model, always the same, and the list that its messages go to."""

    def make(precision=torch.float32, device="cpu", micro_batch=None, **changed) -> Trainer:
        settings = {"compile_model": False, "batch_size": B, "max_seq_len": T} | changed
        model = tiny_model(VOCAB, max_seq_len=T).train().to(device)
        made = trainer_of(model, make_config(**settings), precision, on_message=lambda text: made.messages.append(text))
        made.messages = []
        made.micro_batch = micro_batch or made.micro_batch
        return made

    return make


def failing(error):
    """A loss function that raises `error`."""

    def loss_of(ids, targets):
        raise error

    return loss_of


def weights(step):
    return {name: parameter.detach().cpu().clone() for name, parameter in step.model.named_parameters()}


def assert_close(found, expected, tolerance):
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=tolerance, rtol=0, msg=f"{name} is not the same")


# ---- what a step does ----


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_are_those_of_a_plain_training_loop(make_step, make_config, optimizer):
    step = make_step(optimizer=optimizer, grad_clip=0.3)
    model = tiny_model(VOCAB, max_seq_len=T).train()
    optimizers, losses = make_optimizers(model, make_config(optimizer=optimizer)), []
    for i, windows in enumerate(batches(5)):
        step(windows, 0.01 / (i + 1))
        value = torch.nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        value.backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3) > 0.3
        for each in optimizers:
            for group in each.param_groups:
                group["lr"].fill_(0.01 / (i + 1))
            each.step()
            each.zero_grad()
        losses.append(value.item())
    assert_close(weights(step), dict(model.named_parameters()), 1e-4)
    assert step.step.read_losses() == (pytest.approx(sum(losses) / 5, rel=1e-5), 0)
    assert step.step.read_losses() == (None, 0)
    step(windows, 0.01)
    assert step.step.read_losses()[0] == pytest.approx(model.loss(windows[:, :-1], windows[:, 1:]).item(), rel=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_only_gradients_that_are_too_long_are_clipped(make_step, precision):
    windows = batches(1)[0]
    plain = make_step()
    plain._compute_gradients(windows)
    norm = plain.step.gradients.norm().item()
    for grad_clip, expected in ((norm / 3, norm / 3), (3 * norm, norm)):
        step = make_step(precision, grad_clip=grad_clip)
        step(windows, 0.01)
        assert step.step.gradients.norm().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8])
def test_micro_batches_do_not_change_what_is_learned(make_step, micro_batch):
    whole, cut = make_step(), make_step(micro_batch=micro_batch)
    for windows in batches(3):
        whole(windows, 0.01)
        cut(windows, 0.01)
    assert cut.step.read_losses()[0] == pytest.approx(whole.step.read_losses()[0], rel=1e-5)
    assert_close(weights(cut), weights(whole), 2e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(make_step, optimizer, precision):
    step = make_step(precision, optimizer=optimizer)
    first, *rest = batches(4)
    step(first, 0.01)
    mean, skipped = step.step.read_losses()
    assert math.isfinite(mean) and skipped == 0
    before, state = weights(step), [optimizer.state_dict() for optimizer in step.step.optimizers]
    tensors = [(tensor, tensor.clone()) for each in state for values in each["state"].values() for tensor in values.values()]
    loss_of = step.step.loss_of
    step.step.loss_of = lambda *inputs: loss_of(*inputs) * math.nan
    for windows in rest[:2]:
        step(windows, 0.01)
    assert_close(weights(step), before, 0)
    assert all(torch.equal(now, then) for now, then in tensors)
    assert step.step.read_losses() == (None, 2)
    step.step.loss_of = loss_of
    step(rest[2], 0.01)
    assert step.step.read_losses()[1] == 0
    assert any(not torch.equal(now, then) for now, then in tensors)


def test_in_fp16_the_scale_of_the_loss_halves_after_an_overflow_and_grows_after_many_good_steps(make_step):
    step = make_step(torch.float16)
    windows = batches(1)[0]
    step(windows, 0.01)
    assert step.step.counts["scale"] == FIRST_SCALE
    loss_of = step.step.loss_of
    step.step.loss_of = lambda *inputs: loss_of(*inputs) * 1e30
    step(windows, 0.01)
    assert (
        step.step.counts["scale"] == FIRST_SCALE / 2 and step.step.read_losses()[1] == 1 and step.step.counts["good_steps"] == 0
    )
    step.step.loss_of = loss_of
    step.step.counts["good_steps"].fill_(SCALE_GROWS_AFTER - 2)
    step(windows, 0.01)
    assert step.step.counts["scale"] == FIRST_SCALE / 2
    step(windows, 0.01)
    assert step.step.counts["scale"] == FIRST_SCALE and step.step.counts["good_steps"] == 0


@pytest.mark.parametrize("precision, tolerance", [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_gives_nearly_the_gradients_of_float32(make_step, precision, tolerance):
    half, full = make_step(precision), make_step()
    half._compute_gradients(batches(1)[0])
    full._compute_gradients(batches(1)[0])
    error = half.step.gradients / half.step.counts["scale"] - full.step.gradients
    assert 0 < error.norm() < tolerance * full.step.gradients.norm()


def test_a_step_goes_on_from_its_state_bit_for_bit(make_step):
    whole, before, after = make_step(), make_step(), make_step()
    windows = batches(6)
    for each in windows:
        whole(each, 0.01)
    for each in windows[:3]:
        before(each, 0.01)
    after.step.load_state_dict(before.step.state_dict())
    for each in windows[3:]:
        after(each, 0.01)
    assert_close(weights(after), weights(whole), 0)
    assert after.step.read_losses() == whole.step.read_losses()


def test_a_run_that_goes_on_in_fp16_begins_with_a_scale(make_step):
    full, half = make_step(), make_step(torch.float16)
    half.step.load_state_dict(full.step.state_dict())
    assert half.step.counts["scale"] == FIRST_SCALE
    half.step.counts["scale"].fill_(8)
    again = make_step(torch.float16)
    again.step.load_state_dict(half.step.state_dict())
    assert again.step.counts["scale"] == 8


# ---- memory ----


def test_when_memory_runs_out_micro_batches_halve_until_they_fit(make_step):
    step, whole = make_step(), make_step()
    loss_of = step.step.loss_of

    def small_memory(ids, targets):
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return loss_of(ids, targets)

    step.step.loss_of = small_memory
    for windows in batches(3):
        step(windows, 0.01)
        whole(windows, 0.01)
    assert step.micro_batch == 2
    assert len(step.messages) == 2 and "Out of memory" in step.messages[0] and "4 windows at a time" in step.messages[0]
    assert_close(weights(step), weights(whole), 2e-4)
    assert step.step.read_losses() == (pytest.approx(whole.step.read_losses()[0], rel=1e-5), 0)


def test_memory_that_is_too_small_for_one_window_is_a_users_error(make_step):
    step = make_step()
    step.step.loss_of = failing(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    with pytest.raises(UserError, match="smaller max_seq_len or a smaller model"):
        step(batches(1)[0], 0.01)


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_step):
    step = make_step()
    step.step.loss_of = failing(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        step(batches(1)[0], 0.01)
    assert step.micro_batch == B


def test_the_estimate_of_memory_is_near_what_the_step_takes(make_config):
    model = tiny_model(2000, d_model=128, blocks=6, num_heads=8, max_seq_len=64).train()
    config = make_config(batch_size=64, max_seq_len=64, compile_model=False)
    step = trainer_of(model, config, torch.float32, on_message=print)
    windows = torch.zeros(64, 65, dtype=torch.int64)
    step(windows, 0.01)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(windows, 0.01)
    now = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    taken = peak + 4 * 3 * model.num_parameters()  # weights, gradients and momentum were there before
    assert 0.5 < estimate_bytes(model, config, torch.float32, 64) / taken < 2


# ---- precision and compilation ----


@pytest.mark.parametrize(
    "device, capability, has_bf16, expected",
    [
        ("cuda", (9, 0), False, torch.bfloat16),
        ("cuda", (8, 0), False, torch.bfloat16),
        ("cuda", (7, 5), True, torch.float16),
        ("cuda", (6, 1), True, torch.float16),
        ("mps", None, True, torch.float32),
        ("cpu", None, True, torch.bfloat16),
        ("cpu", None, False, torch.float32),
    ],
)
def test_auto_is_what_the_hardware_computes_in(device, capability, has_bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # also says yes where it is emulated
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision(device, "auto") == expected
    assert choose_precision(device, "fp32") == torch.float32


def test_what_does_not_compile_runs_without_and_says_why(make_step, monkeypatch):
    def no_compiler(function):
        def compiled(*inputs):
            raise OSError("no compiler here\nand much more")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    step, plain = make_step(compile_model=True), make_step()
    step.prepare(batches(1)[0])
    assert len(step.messages) == 1 and "Not compiled: no compiler here. " in step.messages[0]
    for windows in batches(2):
        step(windows, 0.01)
        plain(windows, 0.01)
    assert_close(weights(step), weights(plain), 0)


def test_an_error_without_compiling_is_not_hidden(make_step):
    step = make_step()
    step.step.loss_of = step.model.loss = failing(OSError("something else"))
    with pytest.raises(OSError, match="something else"):
        step.prepare(batches(1)[0])
    assert step.messages == []


@on_cuda
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_graph_makes_the_steps_that_are_made_without(make_step, optimizer, precision):
    graphed, plain = (make_step(precision, "cuda", optimizer=optimizer, compile_model=is_graph) for is_graph in (True, False))
    graphed.prepare(batches(1)[0])
    assert not graphed.messages
    for i, windows in enumerate(batches(12)):
        for step in (graphed, plain):
            step(windows, 0.01 / (i + 1))
    assert graphed.graph is not None and plain.graph is None
    assert_close(weights(graphed), weights(plain), 1e-3 if precision == torch.float32 else 2e-2)
    assert graphed.step.read_losses()[0] == pytest.approx(plain.step.read_losses()[0], rel=1e-3)


@on_cuda
@pytest.mark.parametrize(
    "error, message",
    [
        (torch.OutOfMemoryError("out of memory"), "4 windows at a time"),
        (RuntimeError("not permitted"), "Not recorded as a CUDA graph: not permitted"),
    ],
)
def test_a_graph_that_cannot_be_recorded_loses_no_step(make_step, monkeypatch, error, message):
    graphed, plain = (make_step(torch.float32, "cuda", compile_model=is_graph) for is_graph in (True, False))
    graph, failed = torch.cuda.graph, []

    def fails_once(*inputs):
        if not failed:
            failed.append(1)
            raise error
        return graph(*inputs)

    monkeypatch.setattr(torch.cuda, "graph", fails_once)
    for windows in batches(10):
        for step in (graphed, plain):
            step(windows, 0.01)
    assert failed and message in graphed.messages[0]
    assert_close(weights(graphed), weights(plain), 1e-3)
    assert graphed.step.read_losses()[0] == pytest.approx(plain.step.read_losses()[0], rel=1e-3)


@on_cuda
def test_a_graph_goes_on_from_a_state(make_step):
    whole, before, after = (make_step(torch.float32, "cuda", compile_model=True) for _ in range(3))
    windows = batches(12)
    for each in windows:
        whole(each, 0.01)
    for each in windows[:6]:
        before(each, 0.01)
    after.step.load_state_dict(before.step.state_dict())
    for each in windows[6:]:
        after(each, 0.01)
    assert_close(weights(after), weights(whole), 1e-3)


@on_cuda
def test_a_batch_too_large_for_the_gpu_is_computed_in_parts(make_config):
    model = tiny_model(32_000, d_model=1024, blocks=16, num_heads=16, max_seq_len=2048).train().to("cuda")
    messages = []
    step = trainer_of(model, make_config(batch_size=1024, max_seq_len=2048), torch.bfloat16, on_message=messages.append)
    step(torch.zeros(1024, 2049, dtype=torch.int64), 1e-3)
    assert messages and step.micro_batch < 1024 and math.isfinite(step.step.read_losses()[0])


@on_cuda
def test_attention_with_biases_takes_memory_that_grows_with_the_length_and_not_its_square():
    peaks = []
    for length in (1024, 4096):
        model = tiny_model(VOCAB, d_model=128, num_heads=8, max_seq_len=length).train().to("cuda")
        prepare_blocks(length, model.wte.weight.device)
        loss_of, windows = torch.compile(model.loss), torch.zeros(1, length + 1, dtype=torch.int64, device="cuda")
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            with torch.autocast("cuda", torch.bfloat16):
                loss_of(windows[:, :-1], windows[:, 1:]).backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        torch._dynamo.reset()
    assert peaks[1] < 6 * peaks[0]


def test_compiled_gradients_on_several_threads_are_the_same_each_time(make_step):
    trainer = make_step(compile_model=True)
    torch.set_num_threads(2)
    try:
        windows = torch.randint(VOCAB, (B, T + 1), generator=torch.Generator().manual_seed(0))
        gradients = []
        for _ in range(8):
            trainer._compute_gradients(windows)
            gradients.append(trainer.step.gradients.clone())
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(each, gradients[0]) for each in gradients)


# ---- several processes ----

SHARES = """
import sys
from pathlib import Path
import torch
from alilama.common.config import Config, read_settings
from alilama.model.model import Model, ModelConfig
from alilama.training.optim import make_optimizers
from alilama.training.trainer import Trainer, join_processes

rank, world_size = join_processes("cpu")
torch.manual_seed(0)
model = Model(ModelConfig(50, 32, 2, 4, 128, 16))
config = Config(**read_settings(Path(sys.argv[1]))[0] | {"batch_size": 8, "max_seq_len": 16, "compile_model": False})
optimizers = make_optimizers(model, config)
step = Trainer(model, optimizers, config, torch.float32, on_message=print, rank=rank, world_size=world_size)
loss_of, seen = step.step.loss_of, []
step.step.loss_of = lambda ids, targets: seen.append(ids) or loss_of(ids, targets)
generator = torch.Generator().manual_seed(0)
losses = []
for i in range(4):
    step(torch.randint(50, (8, 17), generator=generator), 0.01)
    losses.append(step.step.read_losses()[0])
torch.save((losses, model.state_dict(), seen[0]), f"{sys.argv[2]}/{world_size}-{rank}.pt")
"""


def test_two_processes_learn_what_one_does(tmp_path):
    (tmp_path / "shares.py").write_text(SHARES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command in ([sys.executable], torchrun):
        result = subprocess.run(
            [*command, "shares.py", ROOT / "TRAINCONFIG.py", tmp_path],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=200,
            encoding="utf-8",
        )
        assert result.returncode == 0, result.stderr
    results = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")]
    (losses, one, batch), (losses_0, first, share_0), (losses_1, second, share_1) = results
    assert len(share_0) == len(share_1) == 4 and torch.equal(torch.cat([share_0, share_1]), batch)
    assert losses_0 == losses_1 == pytest.approx(losses, rel=1e-5)
    for name in one:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], one[name], atol=2e-4, rtol=0)

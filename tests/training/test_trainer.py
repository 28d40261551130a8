"""Steps on whatever hardware there is. What needs a GPU is tested where there is one."""

import math
from functools import partial

import pytest
import torch
from helpers import tiny_model
from steps import VOCAB, B, T, assert_close, assert_close_to_rounding, batches, masked_batches, trainer_of, weights

from alilama.common.errors import UserError
from alilama.model import attention
from alilama.model.attention import prepare_blocks
from alilama.model.loss import CHUNK_LOGITS
from alilama.model.model import Ensemble
from alilama.training.optim import OPTIMIZERS
from alilama.training.scoring import evaluation_bytes
from alilama.training.trainer import check_recompute, choose_precision, estimate_bytes, fitting_windows, state_bytes, step_bytes


def failing(error):
    """A loss function that raises `error`."""

    def loss_of(ids, targets):
        raise error

    return loss_of


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8])
def test_micro_batches_do_not_change_what_is_learned(make_trainer, micro_batch):
    whole, cut = make_trainer(), make_trainer(micro_batch=micro_batch)
    for windows in batches(3):
        whole(windows, 0.01)
        cut(windows, 0.01)
    assert cut.step.read_losses()[0] == pytest.approx(whole.step.read_losses()[0], rel=1e-5)
    assert_close(weights(cut), weights(whole), 2e-4)


@pytest.mark.parametrize("precision, tolerance", [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_gives_nearly_the_gradients_of_float32(make_trainer, precision, tolerance):
    half, full = make_trainer(precision), make_trainer()
    half._compute_gradients(batches(1)[0])
    full._compute_gradients(batches(1)[0])
    error = half.step.gradients / half.step.counts["scale"] - full.step.gradients
    assert 0 < error.norm() < tolerance * full.step.gradients.norm()


# ---- memory ----


def test_when_memory_runs_out_micro_batches_halve_until_they_fit(make_trainer):
    trainer, whole = make_trainer(), make_trainer()
    loss_of = trainer.step.loss_of

    def small_memory(ids, targets):
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return loss_of(ids, targets)

    trainer.step.loss_of = small_memory
    for windows in batches(3):
        trainer(windows, 0.01)
        whole(windows, 0.01)
    assert trainer.micro_batch == 2
    assert (
        len(trainer.messages) == 2 and "Out of memory" in trainer.messages[0] and "4 windows at a time" in trainer.messages[0]
    )
    assert_close(weights(trainer), weights(whole), 2e-4)
    assert trainer.step.read_losses() == (pytest.approx(whole.step.read_losses()[0], rel=1e-5), 0)


def test_memory_that_is_too_small_for_one_window_is_a_users_error(make_trainer):
    trainer = make_trainer()
    trainer.step.loss_of = failing(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    with pytest.raises(UserError, match="smaller max_seq_len or a smaller model"):
        trainer(batches(1)[0], 0.01)


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_trainer):
    trainer = make_trainer()
    trainer.step.loss_of = failing(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trainer(batches(1)[0], 0.01)
    assert trainer.micro_batch == B


def peak_bytes(function) -> int:
    """Returns how much memory a function takes at its peak, beyond what was there."""
    with torch.profiler.profile(profile_memory=True) as profile:
        function()
    now = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def test_the_estimate_of_memory_is_near_what_the_step_takes(make_config):
    model = tiny_model(2000, d_model=128, blocks=6, num_heads=8, max_seq_len=64).train()
    config = make_config(batch_size=64, max_seq_len=64, compile_model=False)
    trainer = trainer_of(model, config, torch.float32, on_message=print)
    windows = torch.zeros(64, 65, dtype=torch.int64)
    trainer(windows, 0.01)
    peak = peak_bytes(lambda: trainer(windows, 0.01))
    taken = peak + 4 * 3 * model.num_parameters()  # weights, gradients and momentum were there before
    assert 0.5 < (state_bytes(model, config) + step_bytes(model, config, torch.float32, 64)) / taken < 2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_estimate_counts_weights_gradients_and_what_the_optimizer_keeps(make_trainer, optimizer):
    trainer = make_trainer(optimizer=optimizer)
    trainer(batches(1)[0], 0.01)
    states = [state for each in trainer.step.optimizers for state in each.state.values()]
    numbers = 2 * trainer.model.num_parameters() + sum(v.numel() for state in states for v in state.values() if v.ndim > 0)
    assert state_bytes(trainer.model, trainer.config) == 4 * numbers


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_estimate_of_an_update_is_near_what_it_takes(make_config, optimizer):
    model = tiny_model(50, d_model=128, blocks=4, num_heads=8)
    config = make_config(optimizer=optimizer, compile_model=False, eval_tokens=2)
    trainer = trainer_of(model, config, torch.float32, on_message=print)
    trainer.step.update()
    taken = peak_bytes(trainer.step.update)
    assert taken > 4 * model.num_parameters()  # the clipped gradients alone
    estimate = estimate_bytes(model, config, torch.float32, 0) - state_bytes(model, config)
    assert estimate < 2.2 * taken and taken < 2.2 * max(estimate, 8 * model.num_parameters())


def test_the_estimate_counts_a_teacher(make_config):
    model = tiny_model(500, max_seq_len=16)
    teachers = [tiny_model(500, d_model=64), tiny_model(500, d_model=96)]
    estimate = partial(estimate_bytes, model, make_config(eval_tokens=2, max_seq_len=16), torch.float32)
    weights, joined = 4 * sum(each.num_parameters() for each in teachers), 4 * 500 * (64 + 96)
    logits = 12 * 500 * 100 * 16
    activations = 100 * 16 * 4 * ((64 + 96) + 96 + 2 * 4 * 96)  # the outputs of both, and those in a block of the widest
    assert estimate(100, Ensemble(teachers)) - estimate(100) == weights + joined + logits + activations


def test_the_estimate_is_that_of_a_step_or_of_an_evaluation_which_takes_more(make_config):
    model, config = tiny_model(500), make_config(eval_tokens=1000, max_seq_len=16)
    kept, scored = state_bytes(model, config), 2 * 4 * 1000 * 500
    assert evaluation_bytes(model, None) > evaluation_bytes(model, 1000) == scored
    assert estimate_bytes(model, config, torch.float32, 1) == kept + scored
    many = step_bytes(model, config, torch.float32, 10_000)
    assert estimate_bytes(model, config, torch.float32, 10_000) == kept + many > kept + scored


def test_a_micro_batch_can_be_set(make_trainer):
    trainer, seen = make_trainer(micro_batch=3), []
    loss_of = trainer.step.loss_of
    trainer.step.loss_of = lambda ids, targets: seen.append(len(ids)) or loss_of(ids, targets)
    trainer(batches(1)[0], 0.01)
    assert seen == [3, 3, 2] and not trainer.messages
    assert make_trainer(micro_batch=100).micro_batch == make_trainer().micro_batch == B


@pytest.mark.parametrize("recompute", [False, True])
def test_as_many_windows_as_the_estimate_lets_fit_are_computed_at_once(make_config, recompute):
    model = tiny_model(500, d_model=64, blocks=4, max_seq_len=64)
    config = make_config(max_seq_len=64, recompute=recompute)
    to_come = state_bytes(model, config) - 8 * model.num_parameters()
    fitting = partial(fitting_windows, model=model, config=config, precision=torch.float32)
    assert fitting(32, 10**12) == 32
    assert fitting(32, (to_come + step_bytes(model, config, torch.float32, 16)) / 0.91) == 8
    for windows in (16, 8, 1):
        assert fitting(32, (to_come + step_bytes(model, config, torch.float32, windows)) / 0.9 + 1) == windows
    assert fitting(32, 0) == 1
    assert fitting(30, (to_come + step_bytes(model, config, torch.float32, 16)) / 0.9 + 1) == 15  # two parts of one size
    most = 8 * (CHUNK_LOGITS["cpu"] // 500) // 64  # whose loss has eight chunks
    assert fitting(most, 10**12) == most and fitting(most + 1, 10**12) == math.ceil((most + 1) / 2)


@pytest.mark.parametrize("compile_model", [False, True])
def test_recomputing_activations_takes_less_memory_for_the_same_gradients(make_trainer, compile_model):
    kept, made_again = (make_trainer(compile_model=compile_model, recompute=recompute) for recompute in (False, True))
    for trainer in (kept, made_again):
        trainer._compute_gradients(batches(1)[0])
    torch.testing.assert_close(made_again.step.gradients, kept.step.gradients, rtol=1e-5, atol=1e-7)
    if not compile_model:
        assert saved_bytes(made_again) < 0.6 * saved_bytes(kept)


def saved_bytes(trainer) -> int:
    """Returns how much the forward pass saves for the backward pass."""
    sizes = []

    def count(tensor):
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        windows = batches(1)[0]
        trainer.loss_of(windows[:, :-1], windows[:, 1:])
    return sum(sizes)


def test_recomputed_activations_have_the_same_dropout(make_config):
    gradients = []
    for recompute in (False, True):
        model = tiny_model(VOCAB, max_seq_len=T, dropout=0.5).train()
        trainer = trainer_of(model, make_config(batch_size=B, recompute=recompute), torch.float32, on_message=print)
        torch.manual_seed(1)
        trainer._compute_gradients(batches(1)[0])
        gradients.append(trainer.step.gradients)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


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


def test_dropout_that_would_be_drawn_anew_is_refused(make_config):
    with pytest.raises(UserError, match=r"recompute = True with dropout = 0.1: on Apple GPUs only with dropout = 0"):
        check_recompute("mps", make_config(recompute=True, dropout=0.1))
    for device, recompute, dropout in (("cuda", True, 0.1), ("cpu", True, 0.1), ("mps", True, 0.0), ("mps", False, 0.1)):
        check_recompute(device, make_config(recompute=recompute, dropout=dropout))


def test_what_does_not_compile_runs_without_and_says_why(make_trainer, monkeypatch):
    def no_compiler(function, **options):
        def compiled(*inputs):
            raise OSError("no compiler here\nand much more")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    trainer, plain = make_trainer(compile_model=True), make_trainer()
    trainer.prepare(batches(1)[0])
    assert len(trainer.messages) == 1 and "Not compiled: no compiler here. " in trainer.messages[0]
    for windows in batches(2):
        trainer(windows, 0.01)
        plain(windows, 0.01)
    assert_close(weights(trainer), weights(plain), 0)


def test_what_does_not_compile_is_tried_without_flex_attention_first(make_trainer, monkeypatch):
    def compiler(function, **options):
        def compiled(*inputs):
            if attention._blocks:
                raise ValueError("no such block size")
            return function(*inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    trainer, plain = make_trainer(compile_model=True), make_trainer()
    monkeypatch.setitem(attention._blocks, T, None)
    trainer.prepare(batches(1)[0])
    assert [message.partition(":")[0] for message in trainer.messages] == ["Attention without FlexAttention"]
    assert trainer.is_compiled and not attention._blocks
    for windows in batches(2):
        trainer(windows, 0.01)
        plain(windows, 0.01)
    assert_close(weights(trainer), weights(plain), 0)


def test_an_error_without_compiling_is_not_hidden(make_trainer):
    trainer = make_trainer()
    trainer.step.loss_of = trainer.model.loss = failing(OSError("something else"))
    with pytest.raises(OSError, match="something else"):
        trainer.prepare(batches(1)[0])
    assert trainer.messages == []


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("more", [{}, {"compile_model": True}, {"recompute": True}, {"micro_batch": 3}], ids=str)
def test_a_graph_makes_the_steps_that_are_made_without(make_trainer, optimizer, precision, more):
    graphed = make_trainer(precision, "cuda", optimizer=optimizer, **more)
    plain = make_trainer(precision, "cuda", optimizer=optimizer)
    plain.uses_graphs = False
    graphed.prepare(batches(1)[0])
    assert not graphed.messages
    for i, windows in enumerate(batches(12)):
        for trainer in (graphed, plain):
            trainer(windows, 0.01 / (i + 1))
    assert graphed.graphs and plain.graphs == []
    assert_close_to_rounding(weights(graphed), weights(plain), precision)
    assert graphed.step.read_losses()[0] == pytest.approx(plain.step.read_losses()[0], rel=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("more", [{}, {"compile_model": True}, {"micro_batch": 3}], ids=str)
def test_a_graph_leaves_out_what_is_not_learned(make_trainer, precision, more):
    """Another number of tokens in every batch."""
    graphed, plain = (make_trainer(precision, device, {"may_ignore": True}, **more) for device in ("cuda", "cpu"))
    graphed.prepare(masked_batches(1)[0])
    for i, windows in enumerate(masked_batches(12)):
        windows[: i % 4] = ~batches(1)[0][: i % 4]
        for trainer in (graphed, plain):
            trainer(windows, 0.01 / (i + 1))
    assert graphed.graphs and not graphed.messages
    assert_close_to_rounding(weights(graphed), weights(plain), precision)
    assert graphed.step.read_losses()[0] == pytest.approx(
        plain.step.read_losses()[0], rel=1e-3 if precision == torch.float32 else 1e-2
    )


@pytest.mark.cuda
@pytest.mark.parametrize(
    "error, message",
    [
        (torch.OutOfMemoryError("out of memory"), "4 windows at a time"),
        (RuntimeError("not permitted"), "Not captured as a CUDA graph: not permitted"),
    ],
)
def test_a_graph_that_cannot_be_captured_loses_no_step(make_trainer, monkeypatch, error, message):
    graphed, plain = make_trainer(torch.float32, "cuda"), make_trainer(torch.float32, "cuda")
    plain.uses_graphs = False
    graph, failed = torch.cuda.graph, []

    def fails_once(*inputs, **options):
        if not failed:
            failed.append(1)
            raise error
        return graph(*inputs, **options)

    monkeypatch.setattr(torch.cuda, "graph", fails_once)
    for windows in batches(10):
        for trainer in (graphed, plain):
            trainer(windows, 0.01)
    assert failed and message in graphed.messages[0]
    assert_close(weights(graphed), weights(plain), 1e-3)
    assert graphed.step.read_losses()[0] == pytest.approx(plain.step.read_losses()[0], rel=1e-3)


@pytest.mark.cuda
def test_a_capture_that_failed_leaves_nothing_behind(make_config):
    """What waits for the device cannot be captured. Earlier graphs, dropout and the allocator then go on as before."""
    trainers = []
    for _ in range(2):
        model, messages = tiny_model(VOCAB, max_seq_len=T, dropout=0.5).train().to("cuda"), []
        config = make_config(batch_size=B, max_seq_len=T, compile_model=False)
        trainers.append(trainer_of(model, config, torch.float32, on_message=messages.append))
    (earlier, failing), stream = trainers, torch.cuda.current_stream()
    for windows in batches(8):
        earlier(windows, 0.01)
    loss_of = failing.step.loss_of
    failing.step.loss_of = lambda ids, targets: loss_of(ids, targets) + 0 * ids.sum().item()
    for windows in batches(8):
        failing(windows, 0.01)
    assert len(messages) == 1 and "Not captured as a CUDA graph" in messages[0] and torch.cuda.current_stream() == stream
    large = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    del large
    reserved = torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= reserved - (1 << 28)
    failing.step.loss_of, failing.uses_graphs, failing.steps_made = loss_of, True, 3
    for windows in batches(8):
        for trainer in trainers:
            trainer(windows, 0.01)
    assert earlier.graphs and failing.graphs
    assert all(math.isfinite(trainer.step.read_losses()[0]) for trainer in trainers)


@pytest.mark.cuda
def test_a_graph_goes_on_from_a_state(make_trainer):
    whole, before, after = (make_trainer(torch.float32, "cuda", compile_model=True) for _ in range(3))
    windows = batches(12)
    for each in windows:
        whole(each, 0.01)
    for each in windows[:6]:
        before(each, 0.01)
    after.step.load_state_dict(before.step.state_dict())
    for each in windows[6:]:
        after(each, 0.01)
    assert_close(weights(after), weights(whole), 1e-3)


@pytest.mark.cuda
def test_a_batch_too_large_for_the_gpu_is_computed_in_parts(make_config):
    model = tiny_model(32_000, d_model=1024, blocks=16, num_heads=16, max_seq_len=2048).train().to("cuda")
    messages = []
    config = make_config(batch_size=256, max_seq_len=2048, micro_batch=256, compile_model=False)
    trainer = trainer_of(model, config, torch.bfloat16, on_message=messages.append)
    share = min(1.0, 20e9 / torch.cuda.mem_get_info()[1])  # the rest is for tests beside it
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        trainer(torch.zeros(256, 2049, dtype=torch.int64), 1e-3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert messages and trainer.micro_batch < 256 and math.isfinite(trainer.step.read_losses()[0])


@pytest.mark.cuda
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


def test_compiled_gradients_on_several_threads_are_the_same_each_time(make_trainer):
    trainer = make_trainer(compile_model=True)
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

import copy

import pytest
import torch
from helpers import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from alilama.common import config
from alilama.common.errors import UserError
from alilama.training.optim import OPTIMIZERS, learning_rate_at, make_optimizers, orthogonalize, set_learning_rate
from alilama.training.trainer import STEPS_BEFORE_GRAPH


def test_the_learning_rate_rises_in_the_warm_up_and_then_falls_to_zero_in_a_line(make_config):
    config = make_config(learning_rate=0.4, warmup=0.1)
    rates = [learning_rate_at(step, 1000, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.4 / 101)
    assert rates[49] == pytest.approx(0.4 * 50 / 101)
    assert all(rates[i] < rates[i + 1] for i in range(100))
    assert max(rates) == rates[100] == pytest.approx(0.4)
    assert all(rates[i] > rates[i + 1] for i in range(100, 999))
    assert rates[550] == pytest.approx(0.2)  # half way down
    assert rates[325] == pytest.approx(0.3)  # a quarter of the way
    assert rates[999] == pytest.approx(0.4 / 900)


def test_without_warm_up_the_first_step_is_at_the_peak(make_config):
    config = make_config(learning_rate=0.4, warmup=0.0)
    assert learning_rate_at(0, 1000, config) == 0.4 and learning_rate_at(0, 125, config) == pytest.approx(0.8)
    assert learning_rate_at(0, 1, config) == learning_rate_at(0, 60, config) == pytest.approx(1.022, abs=1e-3)


def test_longer_runs_take_smaller_steps(make_config):
    config = make_config(learning_rate=0.4, warmup=0.1)
    for num_steps, expected in ((1000, 1), (8000, 0.5), (125, 2)):
        assert learning_rate_at(num_steps // 2, num_steps, config) == pytest.approx(0.4 * expected * 5 / 9, rel=1e-2)


@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.5, 0.99])
def test_no_step_is_without_learning(make_config, warmup):
    config = make_config(learning_rate=1.0, warmup=warmup)
    for num_steps in (1, 2, 7, 100):
        assert all(0 < learning_rate_at(step, num_steps, config) <= 3 for step in range(num_steps))


def is_decayed(name: str, optimizer: str) -> bool:
    """Norms never; Muon keeps the norms of the blocks' matrices, so there is nothing to pull them to."""
    return name == "wte.weight" or (optimizer == "adamw" and "norm" not in name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_and_only_what_should_be_is_decayed(make_config, optimizer):
    model = tiny_model(50)
    optimizers = make_optimizers(model, make_config(optimizer=optimizer, weight_decay=0.3))
    found = [
        (id(parameter), group["weight_decay"])
        for each in optimizers
        for group in each.param_groups
        for parameter in group["params"]
    ]
    named = model.named_parameters()
    expected = [(id(parameter), 0.3 if is_decayed(name, optimizer) else 0.0) for name, parameter in named]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_without_gradient_only_decays(make_config, optimizer):
    model = tiny_model(50)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for each in make_optimizers(model, make_config(optimizer=optimizer, weight_decay=0.5, learning_rate=0.1)):
        each.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if is_decayed(name, optimizer) else 1), msg=name)


def test_the_first_step_of_adamw_moves_each_weight_by_the_learning_rate(make_config):
    model = tiny_model(50)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(20).view(2, 10)
    model.loss(ids, ids + 1).backward()
    [adamw] = make_optimizers(model, make_config(optimizer="adamw", weight_decay=0.0, learning_rate=0.01))
    adamw.step()
    for name, parameter in model.named_parameters():
        # after one step m / sqrt(v) is the sign of the gradient
        expected = before[name] - 0.01 * parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=0, msg=name)


def test_the_betas_and_rates_of_the_settings_reach_the_optimizer(make_config):
    [adamw] = make_optimizers(tiny_model(50), make_config(optimizer="adamw", beta1=0.7, beta2=0.8, learning_rate=0.3))
    assert {(group["betas"], round(group["lr"].item(), 6)) for group in adamw.param_groups} == {((0.7, 0.8), 0.3)}


@pytest.mark.parametrize(
    ("d_model", "blocks", "of_muon", "of_adamw"),
    [(8, 4, 2, 4), (64, 4, 1, 1), (512, 4, 0.5, 0.25), (64, 1, 2, 1), (64, 16, 0.5, 1)],
)
def test_rates_fall_with_width_and_depth(d_model, blocks, of_muon, of_adamw, make_config):
    optimizers = make_optimizers(tiny_model(50, d_model=d_model, blocks=blocks), make_config(optimizer="muon"))
    set_learning_rate(optimizers, 0.01)
    adamw, muon = ([group["lr"].item() for group in optimizer.param_groups] for optimizer in optimizers)
    assert adamw == pytest.approx([0.01 * of_adamw] * 2) and muon == pytest.approx([0.01 * of_muon] * 2)


def test_muon_turns_the_blocks_matrices_towards_orthogonal_ones_by_the_learning_rate(make_config):
    """Queries, keys and values each for themselves; every matrix keeps its norm."""
    model = tiny_model(50)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers = make_optimizers(model, make_config(optimizer="muon", weight_decay=0.3, learning_rate=0.01))
    for optimizer in optimizers:
        optimizer.step()
    for name, parameter in model.blocks.named_parameters(prefix="blocks"):
        if parameter.ndim == 1:
            continue
        parts = 3 if "Wqkv" in name else 1
        for old, new, gradient in zip(
            *(each.double().chunk(parts) for each in (before[name], parameter.detach(), parameter.grad)), strict=True
        ):
            assert new.norm() == pytest.approx(old.norm().item(), rel=1e-5)
            U, _, V = torch.linalg.svd(gradient, full_matrices=False)
            turned = (old - new) / old.norm()
            assert turned.norm() == pytest.approx(0.01, rel=0.1), name
            assert (turned * (U @ V)).sum() > 0.9 * turned.norm() * (U @ V).norm(), name
    muon_parameters = {id(parameter) for group in optimizers[1].param_groups for parameter in group["params"]}
    assert muon_parameters == {id(parameter) for parameter in model.blocks.parameters() if parameter.ndim == 2}


def test_muon_follows_nesterovs_momentum_on_a_ball_with_all_rows_alike(make_config):
    model = tiny_model(50)
    parameter = model.blocks[1].ffn.up_proj.weight
    gradients = torch.randn(3, *parameter.shape, generator=torch.Generator().manual_seed(0))
    _, muon = make_optimizers(model, make_config(optimizer="muon", learning_rate=0.3))
    expected, momentum = parameter.detach().clone(), torch.zeros_like(parameter)
    radius, row_squares = expected.norm(), torch.zeros(len(parameter), 1)
    for gradient in gradients:
        for each in model.parameters():
            each.grad = torch.zeros_like(each)
        parameter.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        [update] = orthogonalize((0.9 * momentum + 0.1 * gradient)[None], torch.float32)
        row_squares = 0.95 * row_squares + 0.05 * update.square().mean(1, keepdim=True)
        update = update / row_squares.sqrt()
        expected = expected - 0.3 * radius * update / update.norm()
        expected = expected / expected.norm() * radius
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("shape", [(3, 40, 40), (2, 16, 64), (2, 64, 16), (1, 1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matrices_are_made_orthogonal_whatever_their_shape_and_size(shape, dtype):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices, dtype)
    assert found.dtype == torch.float32 and found.shape == matrices.shape
    for one, matrix in zip(found, matrices, strict=True):
        U, _, V = torch.linalg.svd(matrix, full_matrices=False)
        assert (one * (U @ V)).sum() > 0.95 * one.norm() * (U @ V).norm()
        torch.testing.assert_close(orthogonalize(1e-7 * matrix[None], dtype)[0], one, atol=0.05, rtol=0)
    assert dtype == torch.float32 or not torch.equal(found, orthogonalize(matrices, torch.float32))
    assert orthogonalize(torch.zeros(shape), dtype).abs().max() == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_lowers_the_loss(make_config, optimizer):
    model = tiny_model(50).train()
    optimizers = make_optimizers(model, make_config(optimizer=optimizer, learning_rate=0.01))
    windows = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(40):
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# ---- what every optimizer keeps to ----


@pytest.fixture(params=OPTIMIZERS)
def optimized(request, make_config):
    """A model, and the optimizers that the setting makes for it, once for every one there is."""
    model = tiny_model(50)
    return model, make_optimizers(model, make_config(optimizer=request.param)), OPTIMIZERS[request.param]


def make_step(model, optimizers, seed: int, lr: float = 0.01, found_inf: float = 0.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for optimizer in optimizers:
        optimizer.found_inf = torch.tensor(found_inf)
    set_learning_rate(optimizers, lr)
    for optimizer in optimizers:
        optimizer.step()


def snapshot(model, optimizers) -> list[torch.Tensor]:
    states = [value for each in optimizers for state in each.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in [*model.parameters(), *states]]


def test_every_parameter_is_updated_by_one_optimizer(optimized):
    model, optimizers, _ = optimized
    taken = [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    assert len(taken) == len(set(taken)) and set(taken) == set(model.parameters())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    make_step(model, optimizers, 0)
    assert not any(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(), (4, 8, 2)])
def test_a_parameter_that_no_optimizer_takes_is_refused(shape, optimizer, make_config):
    model = tiny_model(50)
    model.blocks[0].gain = torch.nn.Parameter(torch.ones(shape))
    with pytest.raises(UserError, match=rf"^blocks.0.gain, .* would stay as it is: optimizer = {optimizer} takes none such"):
        make_optimizers(model, make_config(optimizer=optimizer))


def test_norms_are_not_decayed(optimized):
    _, optimizers, _ = optimized
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert all(group["weight_decay"] == 0 for group in groups if any(parameter.ndim == 1 for parameter in group["params"]))


def test_the_learning_rate_is_a_tensor_that_is_looked_at_in_each_step(optimized):
    model, optimizers, _ = optimized
    assert all(isinstance(group["lr"], torch.Tensor) for optimizer in optimizers for group in optimizer.param_groups)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    make_step(model, optimizers, 0, lr=0.0)
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_a_step_that_is_not_finite_leaves_weights_and_state_as_they_are(optimized):
    model, optimizers, _ = optimized
    make_step(model, optimizers, 0)
    before = snapshot(model, optimizers)
    make_step(model, optimizers, 1, found_inf=1.0)
    assert all(torch.equal(now, then) for now, then in zip(snapshot(model, optimizers), before, strict=True))


class Operations(TorchDispatchMode):
    """Lists the operations of torch that are made while it is on."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


def test_every_step_is_the_same_operations_and_none_waits_for_the_device(optimized):
    """So that a CUDA graph of one of them is all of them: a counter in Python would stand still in it."""
    model, optimizers, _ = optimized
    steps = []
    for seed in range(STEPS_BEFORE_GRAPH + 20):
        with Operations() as operations:
            make_step(model, optimizers, seed)
        steps.append(operations.names)
    assert all(names == steps[-1] for names in steps[STEPS_BEFORE_GRAPH:])
    assert not [name for name in steps[-1] if "_local_scalar_dense" in name]  # what item() is


def test_an_optimizer_goes_on_from_its_state_bit_for_bit(optimized, make_config, request):
    model, optimizers, _ = optimized
    make_step(model, optimizers, 0)
    other = copy.deepcopy(model)
    again = make_optimizers(other, make_config(optimizer=request.node.callspec.params["optimized"]))
    for optimizer, earlier in zip(again, optimizers, strict=True):
        state = copy.deepcopy(earlier.state_dict()["state"])
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for seed in (1, 2):
        make_step(model, optimizers, seed)
        make_step(other, again, seed)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_the_memory_of_an_optimizer_is_what_it_says(optimized):
    model, optimizers, kind = optimized
    make_step(model, optimizers, 0)
    matrices = {id(parameter) for parameter in model.blocks.parameters() if parameter.ndim == 2}
    states = [state for each in optimizers for parameter, state in each.state.items() if id(parameter) in matrices]
    numbers = sum(value.numel() for state in states for value in state.values() if value.ndim > 0)
    assert numbers == sum(kind.state_numbers(*p.shape) for p in model.blocks.parameters() if p.ndim == 2)


def test_the_settings_know_every_optimizer():
    assert set(OPTIMIZERS) == set(config.CHOICES["optimizer"])

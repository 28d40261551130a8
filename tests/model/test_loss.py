import math

import pytest
import torch
from torch.nn import functional as F

from alilama.model import loss
from alilama.model.loss import Taught, linear_cross_entropy

N, C, V = 50, 16, 97


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(N, C, generator=generator), torch.randn(V, C, generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), torch.randint(V, (N,), generator=generator)


def with_gradients(function, x, weight, targets):
    x.grad = weight.grad = None
    value = function(x, weight, targets)
    (3 * value).backward()
    return value.detach(), x.grad, weight.grad


def plain(x, weight, targets):
    return F.cross_entropy((x @ weight.T).float(), targets)


def test_it_is_the_mean_log_probability_of_the_targets(case):
    x, weight, targets = case
    logits = (x @ weight.T).detach().double()
    nats = [-math.log(logits[i].exp()[targets[i]] / logits[i].exp().sum()) for i in range(N)]
    assert linear_cross_entropy(*case).item() == pytest.approx(sum(nats) / N, rel=1e-5)
    with torch.no_grad():
        assert linear_cross_entropy(*case).item() == pytest.approx(sum(nats) / N, rel=1e-5)


@pytest.mark.parametrize("chunk_logits, compiled", [*((n, False) for n in (1, V, 7 * V, 25 * V, 50 * V, 10**9)), (7 * V, True)])
def test_value_and_gradients_do_not_depend_on_the_chunks(case, chunk_logits, compiled, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", chunk_logits)
    function = torch.compile(linear_cross_entropy, fullgraph=True) if compiled else linear_cross_entropy
    for found, expected in zip(with_gradients(function, *case), with_gradients(plain, *case), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_under_autocast_the_matrices_are_multiplied_in_its_dtype_and_the_rest_is_float32(case, dtype, tolerance):
    expected = with_gradients(plain, *case)
    with torch.autocast("cpu", dtype):
        found = with_gradients(linear_cross_entropy, *case)
    for value, right in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert (value - right).norm() < tolerance * right.norm()
    assert not torch.equal(found[1], expected[1])
    x, weight, targets = case
    logits = (x.to(dtype) @ weight.to(dtype).T).float()
    torch.testing.assert_close(found[0], F.cross_entropy(logits, targets), rtol=1e-6, atol=0)


def test_large_logits_neither_overflow_nor_vanish(case):
    with torch.no_grad():
        case[0].mul_(1000)
    for found, expected in zip(with_gradients(linear_cross_entropy, *case), with_gradients(plain, *case), strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


def test_all_logits_are_never_in_memory_at_once(monkeypatch):
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", 1 << 16)
    x, weight = torch.randn(1 << 11, 4, requires_grad=True), torch.randn(1 << 13, 4, requires_grad=True)  # 64 MiB of logits
    targets = torch.zeros(1 << 11, dtype=torch.int64)
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_cross_entropy(x, weight, targets).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 4 << 20


def test_in_fp16_the_gradient_of_a_frequent_token_does_not_overflow():
    x, weight, targets = torch.ones(60_000, 8), torch.zeros(4, 8, requires_grad=True), torch.zeros(60_000, dtype=torch.int64)
    x = (4 * x).requires_grad_()
    with torch.autocast("cpu", torch.float16):
        linear_cross_entropy(x, weight, targets).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([-3.0, 1.0, 1.0, 1.0])[:, None].expand(4, 8), rtol=1e-3, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chunk_logits, compiled", [(7 * V, False), (10**9, False), (7 * V, True)])
def test_with_a_teacher_the_targets_are_mixed_with_what_it_expects(case, share, chunk_logits, compiled, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", chunk_logits)
    taught = Taught(torch.randn(N, 5), torch.randn(V, 5), share)

    def mixed(x, weight, targets):
        expected = (1 - share) * F.one_hot(targets, V) + share * (taught.x @ taught.weight.T).softmax(-1)
        return -((x @ weight.T).log_softmax(-1) * expected).sum(-1).mean()

    function = torch.compile(linear_cross_entropy, fullgraph=True) if compiled else linear_cross_entropy
    expected = with_gradients(mixed, *case)
    for found, right in zip(with_gradients(lambda *case: function(*case, taught), *case), expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(*case, taught), expected[0], atol=1e-5, rtol=1e-5)


# ---- targets that are not learned ----


def ignoring(x, weight, targets, **more):
    return linear_cross_entropy(x, weight, targets, **more, may_ignore=True)


def negated(case, share: float):
    """The targets of a case, a share of them as ~id, which is below 0."""
    x, weight, targets = case
    is_ignored = torch.rand(N, generator=torch.Generator().manual_seed(1)) < share
    return x, weight, torch.where(is_ignored, ~targets, targets)


@pytest.mark.parametrize(
    "share, chunk_logits, compiled",
    [*((share, n, False) for share in (0.0, 0.4, 0.95) for n in (1, 7 * V, 10**9)), (0.4, 7 * V, True)],
)
@pytest.mark.parametrize("has_teacher", [False, True])
def test_targets_below_0_count_for_nothing(case, share, chunk_logits, compiled, has_teacher, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", chunk_logits)
    generator = torch.Generator().manual_seed(2)
    its_x, its_weight = torch.randn(N, 5, generator=generator), torch.randn(V, 5, generator=generator)
    taught = Taught(its_x, its_weight, 0.3) if has_teacher else None

    def theirs(x, weight, targets):
        logits, kept = x @ weight.T, targets.clamp(min=-1)
        value = F.cross_entropy(logits, kept, ignore_index=-1)
        if not has_teacher:
            return value
        expected = (its_x @ its_weight.T).softmax(-1)
        return 0.7 * value + 0.3 * F.cross_entropy(logits[kept >= 0], expected[kept >= 0])

    function = torch.compile(linear_cross_entropy, fullgraph=True) if compiled else linear_cross_entropy
    masked = negated(case, share)
    assert (masked[2] < 0).any() == (share > 0)
    expected = with_gradients(theirs, *masked)
    for found, right in zip(with_gradients(lambda *c: function(*c, taught, may_ignore=True), *masked), expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ignoring(*masked, taught=taught), expected[0], atol=1e-5, rtol=1e-5)
    is_ignored = (masked[2] < 0)[:, None]
    assert (with_gradients(ignoring, *masked)[1] == 0).all(1, keepdim=True).equal(is_ignored)


@pytest.mark.parametrize("taught", [None, Taught(torch.ones(N, 5), torch.ones(V, 5), 0.3)])
def test_where_nothing_is_learned_loss_and_gradients_are_0(case, taught):
    x, weight, targets = case
    value, *gradients = with_gradients(lambda *c: ignoring(*c, taught=taught), x, weight, ~targets)
    assert value == 0 and all((gradient == 0).all() for gradient in gradients)
    with torch.no_grad():
        value = ignoring(x, weight, ~targets, taught=taught)
    assert value == 0 and value.dtype == torch.float32


def test_where_all_is_learned_loss_and_gradients_are_exactly_those_without(case):
    for found, expected in zip(with_gradients(ignoring, *case), with_gradients(linear_cross_entropy, *case), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    with torch.no_grad():
        assert ignoring(*case) == linear_cross_entropy(*case)


def test_what_stands_at_an_ignored_place_changes_nothing_not_even_where_it_is_not_finite(case):
    x, weight, targets = negated(case, 0.4)
    expected = with_gradients(ignoring, x, weight, targets)
    other = torch.where(targets < 0, -1 - torch.randint(V, (N,)), targets)
    for found, right in zip(with_gradients(ignoring, x, weight, other), expected, strict=True):
        assert torch.equal(found, right)

import math
import sys

import pytest
import torch

from alilama.model import attention, kernels
from alilama.model.attention import SLOPE_RULE, alibi_bias, alibi_slopes, choose_attention, masked_attention

# The slopes of Press et al. 2022, section 3: for 8 heads 1/2, 1/4 ... 1/256; other numbers by the authors' published rule.
PAPER_SLOPES = {
    1: [1 / 256],
    2: [1 / 16, 1 / 256],
    4: [1 / 4, 1 / 16, 1 / 64, 1 / 256],
    6: [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8],
    8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
    12: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 0.70711, 0.35355, 0.17678, 0.08839],
}
SHAPES = [(2, 1, 1, 8), (1, 3, 2, 5), (2, 16, 4, 16), (2, 37, 6, 10), (1, 130, 8, 8), (1, 200, 3, 33)]  # (B, T, H, D)

with_kernel = pytest.mark.skipif(not kernels.are_built(), reason="the kernel is built on Linux only")


def random_case(shape, dtype=torch.float64, seed=0):
    """qkv, which wants a gradient, the slopes of its heads, and a gradient of y."""
    B, T, H, D = shape
    generator = torch.Generator().manual_seed(seed)
    qkv = 2 * torch.randn(B, T, 3, H, D, generator=generator, dtype=torch.float64)
    grad_y = torch.randn(B, T, H, D, generator=generator, dtype=torch.float64)
    return qkv.to(dtype).requires_grad_(), alibi_slopes(H), grad_y.to(dtype)


def written_out(qkv, slopes):
    """Softmax over the past, in float64 and in the words of the paper."""
    q, k, v = (each.transpose(1, 2) for each in qkv.double().unbind(2))  # each (B, H, T, D)
    positions = range(q.shape[2])
    bias = [[[-slope * (i - j) if j <= i else -math.inf for j in positions] for i in positions] for slope in slopes.tolist()]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + torch.tensor(bias, dtype=torch.float64)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return (weights @ v).transpose(1, 2)


def result_and_gradient(attend, qkv, grad_y):
    qkv.grad = None
    y = attend(qkv)
    y.backward(grad_y.to(y.dtype))
    return y.detach(), qkv.grad


@pytest.mark.parametrize("num_heads", PAPER_SLOPES)
def test_slopes_are_those_of_the_paper(num_heads):
    assert SLOPE_RULE == "alibi"  # others need another name: by it the folders of each rule refuse the other
    torch.testing.assert_close(alibi_slopes(num_heads), torch.tensor(PAPER_SLOPES[num_heads]), atol=1e-5, rtol=0)


def test_bias_falls_with_the_distance_and_forbids_the_future():
    inf = math.inf
    expected = [[[0, -inf, -inf], [-0.5, 0, -inf], [-1, -0.5, 0]], [[0, -inf, -inf], [-0.25, 0, -inf], [-0.5, -0.25, 0]]]
    assert alibi_bias(torch.tensor([0.5, 0.25]), 3).tolist() == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_attention_is_softmax_over_the_past_written_out(shape):
    qkv, slopes, grad_y = random_case(shape)
    y, grad = result_and_gradient(lambda qkv: masked_attention(qkv, alibi_bias(slopes.double(), shape[1])), qkv, grad_y)
    expected_y, expected_grad = result_and_gradient(lambda qkv: written_out(qkv, slopes), qkv, grad_y)
    torch.testing.assert_close(y, expected_y, atol=1e-12, rtol=0)
    torch.testing.assert_close(grad, expected_grad, atol=1e-12, rtol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is built on Linux only")
def test_the_kernel_is_there_on_linux():
    assert kernels._kernels is not None


@with_kernel
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_is_softmax_over_the_past_to_rounding(shape, dtype, tolerance, num_threads):
    qkv, slopes, grad_y = random_case(shape, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    y, grad = result_and_gradient(lambda qkv: kernels.attention(qkv, slopes), qkv, grad_y)
    torch.set_num_threads(before)
    exact = qkv.detach().double().requires_grad_()
    expected_y, expected_grad = result_and_gradient(lambda qkv: written_out(qkv, slopes), exact, grad_y)
    assert y.dtype == grad.dtype == dtype
    assert (y.double() - expected_y).abs().max() < 2 * tolerance * expected_y.abs().max()
    assert (grad.double() - expected_grad).abs().max() < 2 * tolerance * expected_grad.abs().max()


@with_kernel
def test_the_kernel_keeps_near_positions_apart_in_bf16_far_into_a_text():
    T = 3000
    qkv = torch.zeros(1, T, 3, 8, 16)
    qkv[:, :, 2] = torch.arange(T)[None, :, None, None] % 7  # values; queries and keys are zero: only the bias counts
    slopes = alibi_slopes(8)
    exact = kernels.attention(qkv, slopes)
    torch.testing.assert_close(kernels.attention(qkv.bfloat16(), slopes).float(), exact, atol=0.02, rtol=0)
    weights = torch.exp(-slopes[:, None] * torch.arange(T))  # (H, T), by distance
    expected = (weights * (torch.arange(T - 1, -1, -1) % 7)).sum(-1) / weights.sum(-1)
    torch.testing.assert_close(exact[0, -1, :, 0], expected, atol=1e-4, rtol=0)


@with_kernel
def test_the_kernel_takes_scores_of_any_size():
    qkv, slopes, grad_y = random_case((1, 40, 4, 8), torch.float32)
    with torch.no_grad():
        qkv *= 5  # scores of hundreds: e^score alone would overflow
    exact = qkv.detach().double().requires_grad_()
    bias = alibi_bias(slopes.double(), 40)
    expected = result_and_gradient(lambda qkv: masked_attention(qkv, bias), exact, grad_y)
    for found, right in zip(
        result_and_gradient(lambda qkv: kernels.attention(qkv, slopes), qkv, grad_y), expected, strict=True
    ):
        assert (found.double() - right).abs().max() < 1e-4 * right.abs().max()


@with_kernel
def test_the_kernel_passes_on_what_is_not_finite():
    qkv, slopes, _ = random_case((1, 40, 2, 8), torch.float32)
    with torch.no_grad():
        qkv[0, 20, 2] = math.nan
        y = kernels.attention(qkv, slopes)
    assert y[0, :16].isfinite().all() and y[0, 20:].isnan().all()


@with_kernel
def test_the_kernel_knows_torch_compile_and_half_precision():
    qkv, slopes, grad_y = random_case((2, 20, 4, 8), torch.float32)
    expected_y, expected_grad = result_and_gradient(lambda qkv: kernels.attention(qkv, slopes), qkv, grad_y)
    compiled = torch.compile(lambda qkv: kernels.attention(qkv * 1.0, slopes), fullgraph=True)
    y, grad = result_and_gradient(compiled, qkv, grad_y)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(grad, expected_grad)
    torch.library.opcheck(kernels._forward, (qkv.detach().requires_grad_(), slopes))
    half = kernels.attention(qkv.detach().half(), slopes)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected_y, atol=5e-3, rtol=0)


@with_kernel
def test_the_kernel_refuses_arrays_that_do_not_belong_together():
    qkv, slopes, _ = random_case((2, 20, 4, 8), torch.float32)
    qkv, y, logsumexp = qkv.detach().numpy(), torch.empty(2, 20, 4, 8).numpy(), torch.empty(2, 4, 20).numpy()
    kernels._kernels.attention_forward(qkv, slopes.numpy(), y, logsumexp, 1)
    for wrong in (
        (qkv[:, :, 0].copy(), slopes.numpy(), y, logsumexp),
        (qkv, slopes[:3].numpy(), y, logsumexp),
        (qkv, slopes.numpy(), y[:1], logsumexp),
        (qkv, slopes.numpy(), y, logsumexp[:1]),
    ):
        with pytest.raises(ValueError, match="shape"):
            kernels._kernels.attention_forward(*wrong, 1)
    with pytest.raises(TypeError):
        kernels._kernels.attention_forward(qkv.astype("float64"), slopes.numpy(), y, logsumexp, 1)


@with_kernel
def test_the_cpu_takes_the_kernel_and_float64_the_mask():
    attention.check_kernel()
    assert choose_attention(alibi_slopes(4), 9, 8).func is kernels.attention
    assert choose_attention(alibi_slopes(4).double(), 9, 8).func is masked_attention


@with_kernel
@pytest.mark.parametrize("distance_of", [lambda distance: distance.float().sqrt(), lambda distance: distance.clamp(max=200)])
def test_a_bias_that_was_changed_in_python_alone_is_not_left_to_the_kernel(distance_of, monkeypatch):
    monkeypatch.setattr(attention, "_kernel_agrees", False)
    with monkeypatch.context() as changed:
        changed.setattr(attention, "linear_bias", lambda distance, slope: -slope * distance_of(distance))
        attention.check_kernel()
        assert choose_attention(alibi_slopes(4), 9, 8).func is masked_attention
    attention.check_kernel()
    assert choose_attention(alibi_slopes(4), 9, 8).func is kernels.attention


@with_kernel
def test_a_cap_on_large_scores_is_not_left_to_the_kernel(monkeypatch):
    def capped(qkv, bias):
        q, k, v = qkv.transpose(1, 3).unbind(2)
        scores = 50 * torch.tanh(q @ k.mT / (50 * math.sqrt(q.shape[-1])))
        return ((scores + bias).softmax(-1) @ v).transpose(1, 2)

    monkeypatch.setattr(attention, "_kernel_agrees", False)
    with monkeypatch.context() as changed:
        changed.setattr(attention, "masked_attention", capped)
        attention.check_kernel()
        assert choose_attention(alibi_slopes(4), 9, 8).func is capped
    attention.check_kernel()
    assert choose_attention(alibi_slopes(4), 9, 8).func is kernels.attention


@with_kernel
def test_slopes_that_are_learned_are_not_left_to_the_kernel():
    attention.check_kernel()
    qkv, slopes, _ = random_case((2, 20, 4, 8), torch.float32)
    slopes.requires_grad_()
    choose_attention(slopes, 20, 8)(qkv).square().sum().backward()
    assert slopes.grad.abs().min() > 0


def test_without_the_kernel_the_cpu_takes_the_mask(monkeypatch):
    monkeypatch.setattr(kernels, "_kernels", None)
    qkv, slopes, _ = random_case((2, 20, 4, 8), torch.float32)
    found = choose_attention(slopes, 20, 8)(qkv)
    torch.testing.assert_close(found.double(), written_out(qkv, slopes), atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="on the CPU FlexAttention wanted q, k and v apart in memory before")
def test_block_attention_is_masked_attention(monkeypatch):
    """As it is compiled for a GPU, apart from the backward pass, which FlexAttention has only there."""
    monkeypatch.setattr(kernels, "_kernels", None)
    monkeypatch.setattr(attention, "MAX_MASK_LENGTH", 64)
    monkeypatch.setattr(attention, "_blocks", {})
    qkv, slopes, _ = random_case((2, 200, 12, 16), torch.float32)
    blocks = attention.create_block_mask(lambda b, h, i, j: i >= j, B=None, H=None, Q_LEN=200, KV_LEN=200, device="cpu")
    attention._blocks[200] = blocks
    used = []
    monkeypatch.setattr(
        attention,
        "block_attention",
        lambda *inputs, way=attention.block_attention, **options: used.append(1) or way(*inputs, **options),
    )
    with torch.no_grad():
        found = torch.compile(lambda qkv: choose_attention(slopes, 200, 16)(qkv))(qkv.detach())
        torch.testing.assert_close(found, masked_attention(qkv, alibi_bias(slopes, 200)), atol=1e-5, rtol=0)
    assert used
    assert choose_attention(slopes, 200, 16).func is masked_attention  # not compiled, it would hold all scores


@pytest.mark.cuda
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-3), (torch.bfloat16, 2**-6), (torch.float16, 2**-8)])
@pytest.mark.parametrize("shape", [(2, 100, 8, 8), (2, 300, 8, 16), (1, 1024, 12, 64)])
def test_every_way_on_the_gpu_is_softmax_over_the_past_to_rounding(shape, dtype, tolerance):
    qkv, slopes, grad_y = (x.to("cuda") for x in random_case(shape, dtype))
    qkv = qkv.detach().requires_grad_()
    torch._dynamo.reset()  # it compiles one function eight times at most
    attention.prepare_blocks(shape[1], slopes.device)
    assert (shape[1] in attention._blocks) == (shape[1] > 256)
    compiled = torch.compile(lambda qkv: choose_attention(slopes, shape[1], shape[3])(qkv), dynamic=False)
    exact = qkv.detach().double().requires_grad_()
    bias = alibi_bias(slopes.double(), shape[1])
    expected_y, expected_grad = result_and_gradient(lambda qkv: masked_attention(qkv, bias), exact, grad_y)
    for attend in (compiled, choose_attention(slopes, shape[1], shape[3])):
        y, grad = result_and_gradient(attend, qkv, grad_y)
        assert (y.double() - expected_y).abs().max() < tolerance * expected_y.abs().max()
        assert (grad.double() - expected_grad).abs().max() < 2 * tolerance * expected_grad.abs().max()

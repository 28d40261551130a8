"""Causal attention with linear biases (Press et al. 2022, arXiv:2108.12409), by the fastest way that a device has.

score(i, j) = q_i . k_j / sqrt(D) - slope_h * (i - j) for j <= i. Shapes: B batch, T time, H heads, D head width.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

try:
    from alilama import _kernels  # after torch: both then use the same OpenMP threads
except ImportError:  # it is built where GCC's vectors and OpenMP are: on Linux
    _kernels = None

MIN_FLEX_HEAD_DIM = 16  # FlexAttention refuses narrower heads
MAX_MASK_LENGTH = 256  # up to here the (H, T, T) bias is small, and FlexAttention's blocks of 128 would skip little


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """Returns the slope of each head, (H,) float32.

    For a power of two n they are 2^(-8h/n), h = 1..n. Other numbers take those of the next lower power of two and then
    every other slope of twice that.
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * h / lower) for h in range(1, lower + 1)]
    between = [2 ** (-8 * h / (2 * lower)) for h in range(1, 2 * lower + 1, 2)]
    return torch.tensor(slopes + between[: num_heads - lower])


def alibi_bias(slopes: torch.Tensor, T: int) -> torch.Tensor:
    """Returns what is added to the attention scores, (H, T, T): -slope * (i - j), and -inf on the future.

    Relative to the query and in float32, so that rounding to bf16 keeps near positions apart.
    """
    position = torch.arange(T, device=slopes.device)
    distance = position[:, None] - position  # (T, T)
    bias = -slopes[:, None, None] * distance  # (H, T, T)
    return bias.masked_fill(distance < 0, -math.inf)


def choose_attention(slopes: torch.Tensor, T: int, head_dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the function that makes y, (B, T, H, D), of qkv, (B, T, 3, H, D), for `slopes`, (H,), on their device."""
    device = slopes.device.type
    if device == "cpu" and slopes.dtype == torch.float32 and _kernels is not None:
        return partial(kernel_attention, slopes=slopes)
    if torch.compiler.is_compiling() and T in _blocks and head_dim >= MIN_FLEX_HEAD_DIM:
        return partial(block_attention, slopes=slopes, block_mask=_blocks[T])
    return partial(masked_attention, bias=alibi_bias(slopes, T))


def masked_attention(qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention by scaled_dot_product_attention with the bias, (H, T, T), as its mask: it works everywhere."""
    q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])  # (B, H, T, D); a mask without its own
    return y.transpose(1, 2)  # batch dimension would take the CPU off its flash kernel, twice as slow at T = 128


# ---- CUDA: FlexAttention, which computes the bias inside its kernel ----


_blocks: dict[int, BlockMask] = {}  # by length: which blocks of a (T, T) matrix a CUDA GPU needs to compute


def prepare_blocks(T: int, device: torch.device):
    """Lets attention over T positions on a CUDA GPU be block_attention where it is compiled; to be called before that."""
    if device.type == "cuda" and T > MAX_MASK_LENGTH:
        _blocks[T] = create_block_mask(lambda b, h, i, j: i >= j, B=None, H=None, Q_LEN=T, KV_LEN=T, device=str(device))


def block_attention(qkv: torch.Tensor, slopes: torch.Tensor, block_mask: BlockMask) -> torch.Tensor:
    """Attention by FlexAttention: no (T, T) matrix in memory, blocks of the future are passed over."""
    q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)

    def add_bias(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return score - slopes[h] * (i - j)

    return flex_attention(q, k, v, score_mod=add_bias, block_mask=block_mask).transpose(1, 2)


# ---- CPU: the kernel in csrc/kernels ----


def to_numpy(x: torch.Tensor):
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


@torch.library.custom_op("alilama::attention", mutates_args=())
def _forward(qkv: torch.Tensor, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    qkv = qkv.contiguous()
    B, T, _, H, D = qkv.shape
    y, logsumexp = qkv.new_empty(B, T, H, D), slopes.new_empty(B, H, T)
    _kernels.attention_forward(to_numpy(qkv), slopes.numpy(), to_numpy(y), logsumexp.numpy(), torch.get_num_threads())
    return y, logsumexp


@_forward.register_fake
def _(qkv: torch.Tensor, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    B, T, _, H, D = qkv.shape
    return qkv.new_empty(B, T, H, D), slopes.new_empty(B, H, T)


@torch.library.custom_op("alilama::attention_backward", mutates_args=())
def _backward(qkv: torch.Tensor, slopes: torch.Tensor, logsumexp: torch.Tensor, grad_y: torch.Tensor) -> torch.Tensor:
    qkv = qkv.contiguous()
    grad_qkv = torch.empty_like(qkv)
    _kernels.attention_backward(
        to_numpy(qkv),
        slopes.numpy(),
        logsumexp.numpy(),
        to_numpy(grad_y.contiguous()),
        to_numpy(grad_qkv),
        torch.get_num_threads(),
    )
    return grad_qkv


@_backward.register_fake
def _(qkv: torch.Tensor, slopes: torch.Tensor, logsumexp: torch.Tensor, grad_y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _setup(ctx, inputs: tuple, output: tuple):
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx, grad_y: torch.Tensor, grad_logsumexp: torch.Tensor) -> tuple:
    return _backward(*ctx.saved_tensors, grad_y), None


_forward.register_autograd(_gradients, setup_context=_setup)


def kernel_attention(qkv: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Attention by our own kernel, in float32 or bfloat16: 2 to 7 times faster than masked_attention."""
    if qkv.dtype == torch.float16:  # which CPUs do not compute in
        return _forward(qkv.float(), slopes)[0].half()
    return _forward(qkv, slopes)[0]

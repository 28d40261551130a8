"""Causal attention with linear biases (Press et al. 2022, arXiv:2108.12409), by the fastest way that a device has.

score(i, j) = q_i . k_j / sqrt(D) - slope_h * (i - j) for j <= i. Shapes: B batch, T time, H heads, D head width.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from alilama.model import kernels

SLOPE_RULE = "alibi"  # the name of what alibi_slopes computes; a model folder says by which rule it was trained
ALIBI_BIAS_MAX = 8  # of that rule, as MPT calls it: the flattest head of a power of two has the slope 2^-8
MIN_FLEX_HEAD_DIM = 16  # FlexAttention refuses narrower heads
MIN_FLEX_CAPABILITY = (8, 0)  # of a CUDA GPU; below it FlexAttention is not tested by its authors
PROBED_POSITIONS = 300  # of the comparison with the CPU kernel: biases may differ only far from the query
PROBED_SIZE = 5  # the largest of its numbers: scores of up to 35, at which a cap on them shows
MAX_MASK_LENGTH = 256  # up to here the (H, T, T) bias is small, and FlexAttention's blocks of 128 would skip little


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """Returns the slope of each head, (H,) float32, by SLOPE_RULE.

    For a power of two n they are 2^(-8h/n), h = 1..n, for 8 = ALIBI_BIAS_MAX. Other numbers take those of the next lower
    power of two and then every other slope of twice that.
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-ALIBI_BIAS_MAX * h / lower) for h in range(1, lower + 1)]
    between = [2 ** (-ALIBI_BIAS_MAX * h / (2 * lower)) for h in range(1, 2 * lower + 1, 2)]
    return torch.tensor(slopes + between[: num_heads - lower])


def alibi_bias(slopes: torch.Tensor, T: int) -> torch.Tensor:
    """Returns what is added to the attention scores, (H, T, T): -slope * (i - j), and -inf on the future.

    Relative to the query and in float32, so that rounding to bf16 keeps near positions apart.
    """
    position = torch.arange(T, device=slopes.device)
    distance = position[:, None] - position  # (T, T)
    return linear_bias(distance, slopes[:, None, None]).masked_fill(distance < 0, -math.inf)  # (H, T, T)


def linear_bias(distance: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Returns what is added to the score of a position `distance` before the query; csrc/kernels/vectors.hpp has the same."""
    return -slope * distance


def choose_attention(slopes: torch.Tensor, T: int, head_dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the function that makes y, (B, T, H, D), of qkv, (B, T, 3, H, D), for `slopes`, (H,), on their device."""
    is_fixed = not slopes.requires_grad  # the kernel has no gradient for slopes
    if slopes.device.type == "cpu" and slopes.dtype == torch.float32 and is_fixed and kernel_agrees():
        return partial(kernels.attention, slopes=slopes)  # 2 to 7 times faster than masked_attention
    if torch.compiler.is_compiling() and T in _blocks and head_dim >= MIN_FLEX_HEAD_DIM:
        return partial(block_attention, slopes=slopes, block_mask=_blocks[T])
    return partial(masked_attention, bias=alibi_bias(slopes, T))


def masked_attention(qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention by scaled_dot_product_attention with the bias, (H, T, T), as its mask: it works everywhere."""
    q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)
    # A mask without a batch dimension would take the CPU off its flash kernel: twice as slow at T = 128.
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None]).transpose(1, 2)  # (B, T, H, D)


# ---- CPU: the kernel in csrc/kernels ----


_kernel_agrees = False  # whether the kernel computes what masked_attention does


def kernel_agrees() -> bool:
    return kernels.are_built() and _kernel_agrees


def check_kernel():
    """Compares the CPU kernel with masked_attention on a few numbers; where only one of them was changed, it is not used.

    To be called before attention is chosen.
    """
    global _kernel_agrees
    if kernels.are_built() and not _kernel_agrees:
        numbers = PROBED_SIZE * torch.linspace(-20, 20, PROBED_POSITIONS * 3 * 4).sin()
        qkv = numbers.view(1, -1, 3, 2, 2)  # (B, T, 3, H, D)
        slopes = alibi_slopes(2)
        expected = masked_attention(qkv, alibi_bias(slopes, PROBED_POSITIONS))
        _kernel_agrees = torch.allclose(kernels.attention(qkv, slopes), expected, atol=1e-4 * PROBED_SIZE)


# ---- CUDA: FlexAttention, which computes the bias inside its kernel ----


_blocks: dict[int, BlockMask] = {}  # by length: which blocks of a (T, T) matrix a CUDA GPU needs to compute


def prepare_blocks(T: int, device: torch.device):
    """Lets attention over T positions on a CUDA GPU be block_attention where it is compiled; to be called before that."""
    is_supported = device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_FLEX_CAPABILITY
    if is_supported and T > MAX_MASK_LENGTH:
        _blocks[T] = create_block_mask(lambda b, h, i, j: i >= j, B=None, H=None, Q_LEN=T, KV_LEN=T, device=str(device))


def forget_blocks() -> bool:
    """Leaves block_attention out from now on. Returns whether it was in."""
    were_prepared = bool(_blocks)
    _blocks.clear()
    return were_prepared


def block_attention(qkv: torch.Tensor, slopes: torch.Tensor, block_mask: BlockMask) -> torch.Tensor:
    """Attention by FlexAttention: no (T, T) matrix in memory, blocks of the future are skipped."""
    q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)

    def add_bias(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return score + linear_bias(i - j, slopes[h])

    return flex_attention(q, k, v, score_mod=add_bias, block_mask=block_mask).transpose(1, 2)

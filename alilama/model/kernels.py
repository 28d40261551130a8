"""The C++ kernels of csrc/kernels, where they were built: attention on the CPU as an operation of torch, and the decoder.

Where `are_built()` is False, everything works by PyTorch alone, slower.
"""

import numpy as np
import torch

try:
    from alilama import _kernels  # after torch: both then use the same OpenMP threads
except ImportError:  # they were not built: they need GCC's vectors and OpenMP
    _kernels = None


def are_built() -> bool:
    return _kernels is not None


# ---- attention; see csrc/kernels/attention.hpp ----


def attention(qkv: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Causal attention with linear biases of float32 or bfloat16 on the CPU: (B, T, 3, H, D) and (H,) to (B, T, H, D)."""
    if qkv.dtype == torch.float16:  # which CPUs do not compute in
        return _forward(qkv.float(), slopes)[0].half()
    return _forward(qkv, slopes)[0]


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


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Returns the numbers of a tensor where they are; NumPy has no bfloat16, so its bits are uint16."""
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


# ---- cached decoding; see csrc/kernels/decoder.hpp ----

# The weights of a block of the architecture that the decoder computes.
DECODER_BLOCK = ("norm_1", "attn.Wqkv", "attn.out_proj", "norm_2", "ffn.up_proj", "ffn.down_proj")


def make_decoder(weights: dict[str, torch.Tensor], blocks: int, slopes: torch.Tensor, rows: int, longest: int, context: int):
    """Returns a Decoder with a copy of float32 `weights`, by name as in a Model of `blocks` blocks, and `slopes`, (H,)."""

    def array(name: str):
        return weights[f"{name}.weight"].detach().contiguous().numpy()

    return _kernels.Decoder(
        array("wte"),
        [{name: array(f"blocks.{block}.{name}") for name in DECODER_BLOCK} for block in range(blocks)],
        array("norm_f"),
        slopes.contiguous().numpy(),
        rows,
        longest,
        context,
    )

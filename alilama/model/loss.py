"""The cross-entropy of a linear layer's outputs, which in training are never all in memory."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

MAX_ROWS_FP16 = 4096  # of a chunk: the sum of their gradients has to stay below fp16's largest number
# Logits that are computed at once. On the CPU a chunk should stay in the cache; on a GPU few launches count for more.
CHUNK_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 27, "mps": 1 << 25}


def chunk_rows(vocab_size: int, dtype: torch.dtype, device_type: str) -> int:
    """Returns for how many tokens logits are computed at once."""
    rows = max(1, CHUNK_LOGITS[device_type] // vocab_size)
    return min(rows, MAX_ROWS_FP16) if dtype == torch.float16 else rows


class Taught(NamedTuple):
    """What a teacher expects instead of one target: the softmax of x @ weight.T, x (N, C') and weight (V, C')."""

    x: torch.Tensor
    weight: torch.Tensor
    share: float  # of the teacher in the loss; the rest is the target's


def linear_cross_entropy(
    x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, taught: Taught | None = None, *, may_ignore: bool = False
) -> torch.Tensor:
    """Returns the mean cross-entropy in nats of targets, (N,), under x @ weight.T; x is (N, C), weight (V, C).

    With a teacher the targets are mixed with what it expects (Hinton et al. 2015, arXiv:1503.02531, at temperature 1). Where it
    `may_ignore` some, targets below 0 are left out, and the mean of none is 0.
    """
    if torch.is_grad_enabled():
        return LinearCrossEntropy.apply(x, weight, targets, *(taught or (None, None, 0.0)), may_ignore)
    if may_ignore:
        is_learned = targets >= 0
        if not is_learned.any():
            return x.new_zeros((), dtype=torch.float32)
        x, targets = x[is_learned], targets[is_learned]
        taught = taught and taught._replace(x=taught.x[is_learned])
    logits = F.linear(x, weight).float()
    if taught is None:
        return F.cross_entropy(logits, targets)
    expected = F.linear(taught.x, taught.weight).float().softmax(-1)
    return F.cross_entropy(logits, targets) * (1 - taught.share) + F.cross_entropy(logits, expected) * taught.share


class LinearCrossEntropy(torch.autograd.Function):
    """What `linear_cross_entropy` computes, with gradients.

    The logits are made chunk by chunk, and each chunk's gradients at once, in the forward pass, so that nothing of size
    (N, V) is stored or read again (as in Liger-Kernel, Hsu et al. 2024, arXiv:2410.10989). Sums over chunks are in float32; the
    matrices are multiplied in autocast's dtype where autocast is on.
    """

    @staticmethod
    def forward(
        ctx,
        x: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        taught_x: torch.Tensor | None,
        taught_weight: torch.Tensor | None,
        share: float,
        may_ignore: bool,
    ) -> torch.Tensor:
        device, (N, V) = x.device.type, (len(x), len(weight))
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows, matrix = x.to(dtype), weight.to(dtype)
        chunk = chunk_rows(V, dtype, device)
        total, grad_rows, grad_weight = x.new_zeros((), dtype=torch.float32), [], torch.zeros_like(weight)
        classes = torch.arange(V, device=x.device)
        teacher = None if taught_x is None else (taught_x.to(dtype), taught_weight.to(dtype).T)
        for start, part, target in zip(range(0, N, chunk), rows.split(chunk), targets.split(chunk), strict=True):
            is_learned = (target >= 0)[:, None] if may_ignore else None  # (chunk, 1)
            target = target.clamp(min=0) if may_ignore else target
            logits = (part @ matrix.T).float()  # (chunk, V)
            logsumexp = torch.logsumexp(logits, dim=-1, keepdim=True)
            expected = (classes == target[:, None]).float()  # one-hot
            if teacher is None:
                losses = logsumexp - logits.gather(1, target[:, None])  # (chunk, 1)
            else:
                its_logits = (teacher[0][start : start + chunk] @ teacher[1]).float()
                expected = torch.lerp(expected, its_logits.softmax(-1), share)
                losses = logsumexp - (logits * expected).sum(-1, keepdim=True)
            total = total + (torch.where(is_learned, losses, 0) if may_ignore else losses).sum()
            grad_logits = (torch.exp(logits - logsumexp) - expected).to(dtype)  # softmax - what is expected
            grad_logits = torch.where(is_learned, grad_logits, 0) if may_ignore else grad_logits
            grad_rows.append(grad_logits @ matrix)
            grad_weight = grad_weight + grad_logits.T @ part
        ctx.save_for_backward(torch.cat(grad_rows), grad_weight)
        count = (targets >= 0).sum().clamp(min=1) if may_ignore else N
        ctx.scale, ctx.dtype = 1 / count, x.dtype
        return total / count

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple:
        grad_rows, grad_weight = ctx.saved_tensors
        scale = grad * ctx.scale
        return grad_rows.to(ctx.dtype) * scale, grad_weight * scale, None, None, None, None, None

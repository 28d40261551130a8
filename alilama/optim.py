"""Optimizers and the learning rate. Nothing here waits for the device, so that a whole step can be captured as a graph."""

import math
from collections import defaultdict

import torch

from alilama.config import Config
from alilama.model import Model

MOMENTUM = 0.95  # of Muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon


def orthogonalize(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns matrices, (N, rows, columns), with all singular values brought near 1, computed in `dtype`.

    Five steps of Newton-Schulz, X <- aX + (bA + cAA)X with A = XX^T, on all matrices at once.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if is_tall else matrices
    X = (X / (X.norm(dim=(1, 2), keepdim=True) + 1e-12)).to(dtype)  # in this order: fp16 cannot hold small gradients
    for _ in range(5):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return (X.mT if is_tall else X).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal, for the matrices inside of a network (Jordan et al. 2024).

    Scaled to the size of AdamW's updates, 0.2 * sqrt(max(rows, columns)) (Liu et al. 2025, arXiv:2502.16982), so that one
    learning rate serves both. A group's `parts` says of how many matrices, one below the other, each of its parameters is
    made up: Wqkv is three. Matrices of one shape are orthogonalized together. Like torch's fused AdamW it leaves everything
    as it is in a step for which its attribute `found_inf` is 1, and takes `lr` as a tensor.
    """

    def __init__(self, groups: list[dict], lr: torch.Tensor, weight_decay: float, dtype: torch.dtype):
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "parts": 1})
        self.dtype, self.found_inf = dtype, torch.zeros((), device=lr.device)

    @torch.no_grad()
    def step(self):
        same_shape = defaultdict(list)  # of matrices: (parameter, direction, group)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, (1 - MOMENTUM) * (1 - self.found_inf))
                direction = parameter.grad.lerp(momentum, MOMENTUM)  # Nesterov's
                for matrix, its_direction in zip(parameter.chunk(group["parts"]), direction.chunk(group["parts"]), strict=True):
                    same_shape[matrix.shape].append((matrix, its_direction, group))
        for (rows, columns), matrices in same_shape.items():
            updates = orthogonalize(torch.stack([direction for _, direction, _ in matrices]), self.dtype)
            for (matrix, _, group), update in zip(matrices, updates, strict=True):
                rate = group["lr"] * (1 - self.found_inf)
                matrix.mul_(1 - rate * group["weight_decay"]).sub_(update * (rate * 0.2 * math.sqrt(max(rows, columns))))


def make_optimizers(model: Model, config: Config, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """Returns the optimizers that together update every parameter: AdamW, or AdamW and Muon, which multiplies in `dtype`.

    Muon takes the matrices of the blocks. Matrices are decayed, norms are not. Each group's learning rate is a tensor on
    the model's device.
    """
    device = model.wte.weight.device
    qkv = [block.attn.Wqkv.weight for block in model.blocks]
    others = [
        p for block in model.blocks for p in (block.attn.out_proj.weight, block.ffn.up_proj.weight, block.ffn.down_proj.weight)
    ]
    norms = [p for p in model.parameters() if p.ndim == 1]
    lr = torch.tensor(config.learning_rate, device=device)
    is_muon = config.optimizer == "muon"
    decayed = [model.wte.weight] if is_muon else [model.wte.weight, *qkv, *others]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(config.beta1, config.beta2), fused=True, capturable=device.type == "cuda")
    if not is_muon:
        return [adamw]
    return [adamw, Muon([{"params": qkv, "parts": 3}, {"params": others}], lr, config.weight_decay, dtype)]


def learning_rate_at(step: int, num_steps: int, config: Config) -> float:
    """Returns the learning rate of a step: it rises linearly, then falls linearly to zero (as in arXiv:2502.15938)."""
    warmup_steps = config.warmup * num_steps
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    return config.learning_rate * (num_steps - step) / (num_steps - warmup_steps)

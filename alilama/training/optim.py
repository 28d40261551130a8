"""Optimizers and the learning rate.

OPTIMIZERS holds them by the name that the setting `optimizer` has: a function of the model, the settings and the dtype to
multiply matrices in, which returns the optimizers that together update every parameter, and the size of their state.
Nothing in their steps waits for the device, so that a whole step can be captured as a CUDA graph. Each of them

- takes `lr` as a tensor on the model's device, which is filled before each step, in every one of its `param_groups`;
- leaves weights and state as they are in a step for which its attribute `found_inf`, a tensor, is 1 (as torch's fused AdamW);
- keeps its tensors in `state`, made in the first step and changed in place from then on, so that `state_dict` goes on
  bit for bit.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from alilama.common.config import Config
from alilama.model.model import Model

MOMENTUM = 0.95  # of Muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon


def make_optimizers(model: Model, config: Config, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """Returns the optimizers of the setting `optimizer`."""
    return OPTIMIZERS[config.optimizer].make(model, config, dtype)


def make_adamw(model: Model, config: Config, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """AdamW on everything."""
    return [adamw_on([parameter for parameter in model.parameters() if parameter.ndim == 2], model, config)]


def make_muon(model: Model, config: Config, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the blocks, AdamW on the rest."""
    by_parts = defaultdict(list)
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            by_parts[getattr(module, "parts", 1)].append(module.weight)
    groups = [{"params": matrices, "parts": parts} for parts, matrices in by_parts.items()]
    muon = Muon(groups, learning_rate_tensor(model, config), config.weight_decay, dtype)
    return [adamw_on([model.wte.weight], model, config), muon]


class OptimizerKind(NamedTuple):
    make: Callable[[Model, Config, torch.dtype], list[torch.optim.Optimizer]]
    # Numbers in the state for a matrix of the blocks, by its rows and columns; everything else is AdamW's.
    state_numbers: Callable[[int, int], int]


OPTIMIZERS = {
    "adamw": OptimizerKind(make_adamw, lambda rows, columns: 2 * rows * columns),
    "muon": OptimizerKind(make_muon, lambda rows, columns: rows * columns),
}


def adamw_on(matrices: list[nn.Parameter], model: Model, config: Config) -> torch.optim.AdamW:
    """Returns torch's AdamW for some matrices and all norms; matrices are decayed, norms are not."""
    norms = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    lr = learning_rate_tensor(model, config)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.beta1, config.beta2), fused=True, capturable=lr.device.type == "cuda")


def learning_rate_tensor(model: Model, config: Config) -> torch.Tensor:
    return torch.tensor(config.learning_rate, device=model.wte.weight.device)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal, for the matrices inside of a network (Jordan et al. 2024).

    Scaled to the size of AdamW's updates, 0.2 * sqrt(max(rows, columns)) (Liu et al. 2025, arXiv:2502.16982), so that one
    learning rate serves both. A group's `parts` says of how many matrices, one below the other, each of its parameters is
    made up: Wqkv is three. Matrices of one shape are orthogonalized together.
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
                parts = zip(parameter.chunk(group["parts"]), direction.chunk(group["parts"]), strict=True)
                for matrix, its_direction in parts:
                    same_shape[matrix.shape].append((matrix, its_direction, group))
        for (rows, columns), matrices in same_shape.items():
            updates = orthogonalize(torch.stack([direction for _, direction, _ in matrices]), self.dtype)
            for (matrix, _, group), update in zip(matrices, updates, strict=True):
                rate = group["lr"] * (1 - self.found_inf)
                matrix.mul_(1 - rate * group["weight_decay"]).sub_(update * (rate * 0.2 * math.sqrt(max(rows, columns))))


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


def learning_rate_at(step: int, num_steps: int, config: Config) -> float:
    """Returns the learning rate of a step: it rises linearly, then falls linearly to zero (as in arXiv:2502.15938)."""
    warmup_steps = config.warmup * num_steps
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    return config.learning_rate * (num_steps - step) / (num_steps - warmup_steps)

"""Optimizers and the learning rate.

OPTIMIZERS holds them by the name that the setting `optimizer` has: a function of the model, the settings and the dtype to
multiply matrices in, which returns the optimizers that together update every parameter, and the size of their state.
Nothing in their steps waits for the device, so that a whole step can be captured as a CUDA graph. Each of them

- takes `lr` as a tensor on the model's device, in every one of its `param_groups`, which `set_learning_rate` fills before
  each step with the learning rate times the group's `lr_factor`;
- leaves weights and state as they are in a step for which its attribute `found_inf`, a tensor, is 1 (as torch's fused AdamW);
- keeps its tensors in `state`, made in the first step and changed in place from then on, so that `state_dict` goes on
  bit for bit.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from alilama.common.config import Config
from alilama.common.errors import UserError
from alilama.model.model import Model

MOMENTUM = 0.9  # of Muon
ROW_MEMORY = 0.95  # of the mean square of each row of Muon's updates
USUAL_STEPS, USUAL_WIDTH, USUAL_BLOCKS = 1000, 64, 4  # of a run whose learning rate is that of the settings
LEAST_STEPS = 60  # shorter runs have the rate of these
TINY = 1e-12  # added to a norm that is divided by
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon


def make_optimizers(model: Model, config: Config, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """Returns the optimizers of the setting `optimizer`. Raises UserError for a parameter that none of them would change."""
    optimizers = OPTIMIZERS[config.optimizer].make(model, config, dtype)
    taken = {id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) not in taken:
            raise UserError(
                f"{name}, {tuple(parameter.shape)}, would stay as it is: optimizer = {config.optimizer} takes none such, "
                "see OPTIMIZERS in alilama/training/optim.py"
            )
    return optimizers


def make_adamw(model: Model, config: Config, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """AdamW on everything."""
    return [adamw_on([parameter for parameter in model.parameters() if parameter.ndim == 2], model, config, lr_factor=1.0)]


def make_muon(model: Model, config: Config, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the blocks, AdamW on the rest.

    The learning rate is that of 4 blocks with a d_model of 64. Muon's falls with the third root of the width and the square
    root of the depth, AdamW's with the square of the former: between 64 x 4 and 512 x 12 what is best fell like that
    (docs/experiments.md).
    """
    width = (USUAL_WIDTH / model.config.d_model) ** (1 / 3)
    depth = (USUAL_BLOCKS / model.config.blocks) ** (1 / 2)
    by_parts = defaultdict(list)
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            by_parts[getattr(module, "parts", 1)].append(module.weight)
    groups = [{"params": matrices, "parts": parts} for parts, matrices in by_parts.items()]
    muon = Muon(groups, learning_rate_tensor(model, config), dtype, lr_factor=width * depth)
    return [adamw_on([model.wte.weight], model, config, lr_factor=width**2), muon]


class OptimizerKind(NamedTuple):
    make: Callable[[Model, Config, torch.dtype], list[torch.optim.Optimizer]]
    # Numbers for a matrix of the blocks, by its rows and columns, that stay from step to step; everything else is AdamW's.
    state_numbers: Callable[[int, int], int]
    # Numbers for it that an update takes for a moment.
    update_numbers: Callable[[int, int], int]


OPTIMIZERS = {
    "adamw": OptimizerKind(make_adamw, lambda rows, columns: 2 * rows * columns, lambda rows, columns: 0),
    "muon": OptimizerKind(make_muon, lambda rows, columns: rows * columns + rows, lambda rows, columns: 3 * rows * columns),
}


def adamw_on(matrices: list[nn.Parameter], model: Model, config: Config, lr_factor: float) -> torch.optim.AdamW:
    """Returns torch's AdamW for some matrices and all norms; matrices are decayed, norms are not."""
    gains = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "lr_factor": lr_factor},
        {"params": gains, "weight_decay": 0.0, "lr_factor": lr_factor},
    ]
    lr = learning_rate_tensor(model, config)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.beta1, config.beta2), fused=True, capturable=lr.device.type == "cuda")


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(learning_rate * group["lr_factor"])


def learning_rate_tensor(model: Model, config: Config) -> torch.Tensor:
    return torch.tensor(config.learning_rate, device=model.wte.weight.device)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is made orthogonal (Jordan et al. 2024), for matrices that keep their norm.

    Then its rows, which are neurons, are brought to one mean square over the steps (Li et al. 2025, "NorMuon",
    arXiv:2510.05491). A step goes `lr` times the Frobenius norm of the matrix along the update, and then back to that norm,
    as if on a ball (Wen et al. 2025, "Hyperball"). So a learning rate turns a matrix by the same angle whatever
    its initial size, and matrices need no weight decay. A group's `parts` says of how many matrices, one below the other,
    each of its parameters is made up: Wqkv is three. Matrices of one shape are updated together.
    """

    def __init__(self, groups: list[dict], lr: torch.Tensor, dtype: torch.dtype, lr_factor: float = 1.0):
        super().__init__(groups, {"lr": lr, "lr_factor": lr_factor, "weight_decay": 0.0, "parts": 1})
        self.dtype, self.found_inf = dtype, torch.zeros((), device=lr.device)

    @torch.no_grad()
    def step(self):
        """Updates all matrices of one shape by the same operations: small models wait for launches on a GPU."""
        same_shape = defaultdict(list)  # of matrices: (matrix, gradient, momentum, row_squares, lr)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                    state["row_squares"] = torch.zeros_like(parameter[:, :1])
                tensors = (parameter, parameter.grad, state["momentum"], state["row_squares"])
                for parts in zip(*(tensor.chunk(group["parts"]) for tensor in tensors), strict=True):
                    same_shape[parts[0].shape].append((*parts, group["lr"]))
        is_good = 1 - self.found_inf
        for group_of_shape in same_shape.values():
            kept = [list(tensors) for tensors in zip(*group_of_shape, strict=True)]
            before, gradients, momentum, squares, angles = (torch.stack(tensors) for tensors in kept)  # (N, rows, columns) ...
            momentum.lerp_(gradients, (1 - MOMENTUM) * is_good)
            updates = orthogonalize(gradients.lerp_(momentum, MOMENTUM), self.dtype)  # Nesterov's
            squares.lerp_(updates.square().mean(-1, keepdim=True), (1 - ROW_MEMORY) * is_good)  # (N, rows, 1)
            updates /= squares.sqrt() + TINY  # the squares begin at 0: how large they are as a whole is no matter here
            radii = norms(before)
            after = before - updates * (angles[:, None, None] * is_good * radii / (norms(updates) + TINY))
            after *= radii / (norms(after) + TINY)
            for tensors, values in zip((kept[0], kept[2], kept[3]), (after, momentum, squares), strict=True):
                torch._foreach_copy_(tensors, list(values))


def norms(matrices: torch.Tensor) -> torch.Tensor:
    """Returns the Frobenius norms of matrices, (N, rows, columns), as (N, 1, 1)."""
    return matrices.norm(dim=(1, 2), keepdim=True)


def orthogonalize(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns matrices, (N, rows, columns), with all singular values brought near 1, computed in `dtype`.

    Five steps of Newton-Schulz, X <- aX + (bA + cAA)X with A = XX^T, on all matrices at once.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if is_tall else matrices
    X = (X / (norms(X) + TINY)).to(dtype)  # in this order: fp16 cannot hold small gradients
    for _ in range(5):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return (X.mT if is_tall else X).float()


def learning_rate_at(step: int, num_steps: int, config: Config) -> float:
    """Returns the learning rate of a step: it rises linearly, then falls linearly to zero (as in arXiv:2502.15938).

    At its peak it is that of the settings in a run of USUAL_STEPS steps, and falls with the third root of their number, as was
    measured from LEAST_STEPS on.
    """
    peak = config.learning_rate * (USUAL_STEPS / max(num_steps, LEAST_STEPS)) ** (1 / 3)
    warmup_steps = config.warmup * num_steps
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    return peak * (num_steps - step) / (num_steps - warmup_steps)

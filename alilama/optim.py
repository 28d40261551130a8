"""Optimizers and the learning rate."""

import math

import torch

from alilama.config import Config
from alilama.model import Model


def make_optimizers(model: Model, config: Config) -> list[torch.optim.Optimizer]:
    """Returns the optimizers that together update every parameter: AdamW, or Muon and AdamW.

    Muon (Jordan et al. 2024) updates the matrices of the blocks, scaled to the size of AdamW's updates (Liu et al. 2025,
    arXiv:2502.16982), so that one learning rate serves both. Matrices are decayed, norms are not.
    """
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim == 1]
    adamw_decayed, muon = [model.wte.weight, *matrices], None
    if config.optimizer == "muon":
        adamw_decayed = [model.wte.weight]
        muon = torch.optim.Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay, momentum=0.95,
                                adjust_lr_fn="match_rms_adamw")
    groups = [{"params": adamw_decayed, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    fused = model.wte.weight.device.type in ("cpu", "cuda")
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)
    return [adamw, muon] if muon else [adamw]


def learning_rate_at(step: int, num_steps: int, config: Config) -> float:
    """Returns the learning rate of a step: it rises linearly, then falls to zero along a half cosine."""
    warmup_steps = config.warmup * num_steps
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (num_steps - warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

"""Batches for a trainer, and what its steps made of the weights."""

import torch

from alilama.training.optim import make_optimizers
from alilama.training.trainer import Trainer

VOCAB, B, T = 50, 8, 16


def batches(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(VOCAB, (B, T + 1), generator=generator) for _ in range(steps)]


def trainer_of(model, config, precision, **more) -> Trainer:
    return Trainer(model, make_optimizers(model, config, precision), config, precision, **more)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in trainer.model.named_parameters()}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float):
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=tolerance, rtol=0, msg=f"{name} is not the same")


def assert_close_to_rounding(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], precision: torch.dtype):
    """In bf16 a gradient near 0 may have either sign, and AdamW goes as far either way: there all of a matrix is compared."""
    if precision == torch.float32:
        return assert_close(found, expected, 1e-3)
    for name in expected:
        difference = ((found[name] - expected[name]).norm() / expected[name].norm()).item()
        assert difference < 0.02, f"{name} is {difference:.4f} of its size off"


def masked_batches(steps: int) -> list[torch.Tensor]:
    """The same with tokens that are not learned, ~id: a quarter, a half or all of a window, or none."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.arange(B)[:, None] % 4 / 4
    shares[3] = 1
    return [torch.where(torch.rand(B, T + 1, generator=generator) < shares, ~windows, windows) for windows in batches(steps)]


def unmasked(windows: torch.Tensor) -> torch.Tensor:
    return torch.where(windows < 0, ~windows, windows)

"""What one step of training computes. trainer.py runs it: in some precision, in parts, by several processes, as a graph."""

import torch
from torch import nn

from alilama.training.optim import Muon

FIRST_SCALE, SCALE_GROWS_AFTER = 2.0**16, 2000  # of the loss in fp16, as in torch.amp.GradScaler


class Step:
    """Gradients of the parts of a batch, then one update by them. Only `read_losses` waits for the device.

    An update by gradients that are not finite changes nothing but the count. `loss_of(ids, targets)` is the model's loss,
    made ready to run. Where it `may_ignore` tokens, `num_learned` says how many targets of the batch are learned. All gradients
    lie in one buffer: its norm is one operation, and so is adding it up over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        grad_clip: float,
        *,
        scales_loss: bool,
        may_ignore: bool = False,
    ):
        self.may_ignore = may_ignore
        self.model, self.optimizers, self.grad_clip, self.scales_loss = model, optimizers, grad_clip, scales_loss
        self.loss_of = model.loss
        parameters = list(model.parameters())
        self.device = parameters[0].device
        self.buffer = torch.zeros(sum(p.numel() for p in parameters) + 1, device=self.device)  # the last one: the loss
        self.gradients, self.loss = self.buffer[:-1], self.buffer[-1]
        for parameter, gradient in zip(parameters, self.gradients.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.num_learned = torch.ones((), device=self.device)
        # What a run that goes on needs besides weights and optimizers. Losses add up since they were last read.
        first = {"loss_sum": 0, "losses": 0, "skipped_in_a_row": 0, "good_steps": 0, "scale": FIRST_SCALE if scales_loss else 1}
        self.counts = {name: torch.tensor(float(value), device=self.device) for name, value in first.items()}

    def add_gradients(self, windows: torch.Tensor, share: float):
        """Forward and backward: adds the gradients of windows, (B, T + 1), that are a `share` of the batch.

        Where it may ignore tokens, these are negative, ~id, and the share is that of the others.
        """
        inputs, targets = windows[:, :-1], windows[:, 1:]
        if self.may_ignore:
            inputs = torch.where(inputs < 0, ~inputs, inputs)
            share = (targets >= 0).sum() / self.num_learned
        loss = self.loss_of(inputs, targets) * share
        (loss * self.counts["scale"]).backward()
        self.loss.add_(loss.detach())

    @torch.no_grad()
    def update(self):
        """Clips the gradients, lets the optimizers take them, and counts."""
        counts = self.counts
        norm = self.gradients.norm() / counts["scale"]
        is_finite = norm.isfinite()
        factor = (self.grad_clip / (norm + 1e-6)).clamp(max=1) / counts["scale"]
        self.gradients.copy_(torch.where(is_finite, self.gradients * factor, 0))
        found_inf = 1 - is_finite.float()
        if self.device.type != "mps" or is_finite:  # on Apple GPUs torch's fused AdamW does not look at found_inf
            for optimizer in self.optimizers:
                optimizer.found_inf = found_inf
                optimizer.step()
        counts["loss_sum"].add_(torch.where(is_finite, self.loss, 0))
        counts["losses"].add_(is_finite)
        counts["skipped_in_a_row"].add_(1).mul_(found_inf)
        if self.scales_loss:  # half after an overflow, twice after many good steps
            counts["good_steps"].add_(1).mul_(is_finite)
            grows = counts["good_steps"] == SCALE_GROWS_AFTER
            counts["good_steps"].mul_(~grows)
            counts["scale"].mul_(torch.where(is_finite, torch.where(grows, 2.0, 1.0), 0.5))

    def read_losses(self) -> tuple[float | None, int]:
        """Returns the mean loss since the last call, None if no step was good, and how many steps in a row were not finite."""
        loss_sum, losses = self.counts["loss_sum"].item(), self.counts["losses"].item()
        self.counts["loss_sum"].zero_()
        self.counts["losses"].zero_()
        return loss_sum / losses if losses else None, int(self.counts["skipped_in_a_row"].item())

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counts": self.counts,
        }

    def load_state_dict(self, state: dict):
        """Goes on from a `state_dict`. Raises ValueError where it is of another model or optimizer, or of no run at all."""
        check_like("the model", state["model"], self.model.state_dict())
        check_like("the step", state["counts"], self.counts)
        self.model.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict({"state": values["state"], "param_groups": optimizer.state_dict()["param_groups"]})
            check_state(optimizer)
        for name, count in self.counts.items():
            count.copy_(state["counts"][name])
        if self.scales_loss and self.counts["scale"] == 1:  # the run went on in another precision
            self.counts["scale"].fill_(FIRST_SCALE)


def check_like(owner: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]):
    """Raises ValueError unless tensors are called and shaped as expected, of the same type, and finite."""
    if found.keys() != expected.keys():
        raise ValueError(f"what {owner} remembers is {', '.join(map(str, found))}, expected {', '.join(expected)}")
    for name, tensor in found.items():
        like = expected[name]
        is_like = isinstance(tensor, torch.Tensor) and (tensor.shape, tensor.dtype) == (like.shape, like.dtype)
        if not is_like or tensor.layout != torch.strided or not tensor.isfinite().all():
            raise ValueError(f"what {owner} remembers as {name} has another shape or type, or is not finite")


def check_state(optimizer: torch.optim.Optimizer):
    """Raises ValueError where the state of AdamW or Muon does not fit the parameters: a fused step would write beyond it."""
    names = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"), Muon: ("momentum", "row_squares")}.get(type(optimizer))
    if names is None:  # one that only its author knows
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if optimizer.state and {*optimizer.state} != {*parameters}:
        raise ValueError(f"what {type(optimizer).__name__} remembers is of other weights")
    for parameter, state in optimizer.state.items():
        others = {"step": torch.zeros(()), "row_squares": parameter[..., :1]}
        check_like(type(optimizer).__name__, state, {name: others.get(name, parameter) for name in names})

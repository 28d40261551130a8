"""One training step on whatever hardware there is: precision, compilation, micro-batches, several processes, CUDA graphs."""

import atexit
import ctypes
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from alilama.attention import prepare_blocks
from alilama.config import Config
from alilama.errors import UserError, is_out_of_memory
from alilama.loss import CHUNK_LOGITS
from alilama.model import Model
from alilama.optim import make_optimizers

FIRST_SCALE, SCALE_GROWS_AFTER = 2.0**16, 2000  # of the loss in fp16, as in torch.amp.GradScaler
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
STEPS_BEFORE_GRAPH = 3  # so that everything is compiled and every buffer there before a step is captured


def choose_precision(device: str, wanted: str) -> torch.dtype:
    """Returns what to multiply matrices in: what is wanted, or for "auto" the fastest that the device computes in."""
    if wanted != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted]
    if device == "cuda":  # is_bf16_supported() says yes where bf16 is only emulated
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    if device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return torch.float32


def keep_freed_memory():
    """Makes the C library keep the memory that tensors on the CPU give back, and not fetch it page by page for the next step.

    That took a fifth of the time of a step. Linux with glibc; elsewhere, and for tensors above 32 MiB, nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_THRESHOLD, 32 << 20), (M_TOP_PAD, 64 << 20)):
            libc.mallopt(parameter, value)


def join_processes(device: str) -> tuple[int, int]:
    """Joins the processes that torchrun started, if it did. Returns the number of this one and how many there are."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(hours=1))  # one may draw and save
    atexit.register(dist.destroy_process_group)
    return dist.get_rank(), dist.get_world_size()


def estimate_bytes(model: Model, config: Config, precision: torch.dtype, windows: int) -> int:
    """Returns about how much memory training takes at its peak, for `windows` of max_seq_len tokens computed at once.

    Weights, gradients and the optimizer's memory in float32; for each token what the backward pass needs: the residual
    stream in float32 (8 bytes a block for each number), and in `precision` the inputs of the matrices, q, k and v, and the
    hidden layer before and after its activation (14 numbers); a chunk of logits and their gradients; and the gradient of
    the embedding while it is summed over chunks.
    """
    shape, size = model.config, precision.itemsize
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    weights = 16 * model.num_parameters() - (4 * matrices if config.optimizer == "muon" else 0)
    wide = 2 * shape.hidden_dim + 6 * shape.d_model
    tokens = windows * config.max_seq_len
    activations = tokens * (shape.blocks * (8 * shape.d_model + size * wide) + 8 * shape.d_model)
    logits = min(tokens * shape.vocab_size, CHUNK_LOGITS[model.wte.weight.device.type]) * (8 + size)
    return weights + activations + logits + 8 * model.wte.weight.numel()


class TrainingStep:
    """Updates a model by one batch at a time, and keeps count of the losses. Only `read_losses` waits for the device.

    A step whose gradient is not finite changes nothing but the count. In fp16 the loss is scaled. Where memory is too
    small for a batch, it is cut into micro-batches whose gradients are added up; `on_message` is told so. Several
    processes each take their share of a batch and add up their gradients (data parallel); all must be given the same
    batches. Where one process trains on a CUDA GPU and the model is compiled, a whole step becomes one CUDA graph, since
    small models wait for launches, not for arithmetic.
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        precision: torch.dtype,
        *,
        on_message: Callable[[str], None],
        rank: int = 0,
        world_size: int = 1,
    ):
        self.model, self.config, self.precision, self.on_message = model, config, precision, on_message
        self.rank, self.world_size = rank, world_size
        self.device = model.wte.weight.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.optimizers = make_optimizers(model, config, precision)
        self.loss_of = torch.compile(model.loss) if config.compile_model else model.loss
        self.micro_batch = math.ceil(config.batch_size / world_size)
        # All gradients lie in one buffer: its norm is one operation, and so is adding it up over processes.
        parameters = list(model.parameters())
        self.buffer = torch.zeros(sum(p.numel() for p in parameters) + 1, device=self.device)  # the last one: the loss
        self.gradients, self.loss = self.buffer[:-1], self.buffer[-1]
        for parameter, gradient in zip(parameters, self.gradients.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        # What a run that goes on needs besides weights and optimizers. Losses add up since they were last read.
        first = {
            "loss_sum": 0,
            "losses": 0,
            "skipped_in_a_row": 0,
            "good_steps": 0,
            "scale": FIRST_SCALE if precision == torch.float16 else 1,
        }
        self.counts = {name: torch.tensor(float(value), device=self.device) for name, value in first.items()}
        self.is_captured = self.device.type == "cuda" and world_size == 1 and config.compile_model
        self.steps_made, self.graph, self.static_windows = 0, None, None

    def __call__(self, windows: torch.Tensor, learning_rate: float):
        """Makes one step on windows, (B, T + 1) int64 on the CPU, of which this process takes its share."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"].fill_(learning_rate)
        windows = self._share(windows)
        if self.is_captured and self.graph is None and self.steps_made == STEPS_BEFORE_GRAPH:
            self._capture(windows)
        if self.graph is not None:
            self.static_windows.copy_(windows)
            self.graph.replay()
            return
        with self._stream_of_its_own():
            self._compute_gradients_in_parts(windows)
            if self.world_size > 1:
                dist.all_reduce(self.buffer)
                self.buffer.div_(self.world_size)
            self._update()
        self.steps_made += 1

    def prepare(self, windows: torch.Tensor):
        """Compiles, or says why this machine cannot; computes the gradients of windows, (B, T + 1), once, in vain."""
        windows = self._share(windows)
        prepare_blocks(self.config.max_seq_len, self.device)
        try:
            with self._stream_of_its_own():
                self._compute_gradients_in_parts(windows)
        except Exception as error:  # what a compiler raises is its own affair: anything means that it does not work here
            if self.loss_of == self.model.loss or isinstance(error, UserError):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self.on_message(f"Not compiled: {reason}. It works without, slower; --compile_model=False hides this.")
            self.loss_of, self.is_captured = self.model.loss, False
            self._compute_gradients_in_parts(windows)

    def _share(self, windows: torch.Tensor) -> torch.Tensor:
        """Returns the part of the windows that is this process's, on its device."""
        windows = windows.chunk(self.world_size)[self.rank]
        if self.device.type == "cuda":
            windows = windows.pin_memory()
        return windows.to(self.device, non_blocking=True)

    @contextmanager
    def _stream_of_its_own(self) -> Iterator[None]:
        """Runs what comes before the recording of a graph beside the current stream, as recording wants it."""
        if not self.is_captured:
            yield
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, windows: torch.Tensor):
        """Records a step as a CUDA graph, which runs nothing; where that does not work, says why."""
        static_windows, graph = windows.clone(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._compute_gradients(static_windows)
                self._update()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            if is_out_of_memory(error):
                self._halve_micro_batch(reason)
            else:
                self.on_message(f"Not recorded as a CUDA graph: {reason}. It works without, slower.")
                self.is_captured = False
            return
        self.static_windows, self.graph = static_windows, graph

    def _compute_gradients_in_parts(self, windows: torch.Tensor):
        """Computes gradients; where memory runs out, begins again with micro-batches of half the size."""
        while True:
            try:
                return self._compute_gradients(windows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).strip().partition("\n")[0]
            self._halve_micro_batch(reason)  # out here: the error holds on to memory

    def _halve_micro_batch(self, reason: str):
        if self.micro_batch == 1:
            raise UserError(
                f"out of memory even with one window at a time; choose a smaller max_seq_len or a smaller model ({reason})"
            )
        self.micro_batch = math.ceil(self.micro_batch / 2)
        self.steps_made = 0  # the new size is compiled before it is recorded
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.on_message(
            f"Out of memory: batches are computed {self.micro_batch} windows at a time from now on; what is "
            "learned stays the same."
        )

    def _compute_gradients(self, windows: torch.Tensor):  # (B, T + 1)
        self.buffer.zero_()
        for part in windows.split(self.micro_batch):
            with torch.autocast(
                self.device.type,
                dtype=self.precision,
                enabled=self.precision != torch.float32,
                cache_enabled=not self.is_captured,
            ):
                loss = self.loss_of(part[:, :-1], part[:, 1:])
            loss = loss * (len(part) / len(windows))
            (loss * self.counts["scale"]).backward()
            self.loss.add_(loss.detach())

    @torch.no_grad()
    def _update(self):
        counts = self.counts
        norm = self.gradients.norm() / counts["scale"]
        is_finite = norm.isfinite()
        factor = (self.config.grad_clip / (norm + 1e-6)).clamp(max=1) / counts["scale"]
        self.gradients.copy_(torch.where(is_finite, self.gradients * factor, 0))
        found_inf = 1 - is_finite.float()
        # On Apple GPUs torch's fused AdamW does not look at found_inf.
        if self.device.type != "mps" or is_finite:
            for optimizer in self.optimizers:
                optimizer.found_inf = found_inf
                optimizer.step()
        counts["loss_sum"].add_(torch.where(is_finite, self.loss, 0))
        counts["losses"].add_(is_finite)
        counts["skipped_in_a_row"].add_(1).mul_(found_inf)
        if self.precision == torch.float16:
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
        """Goes on from a `state_dict`; RuntimeError, ValueError, KeyError, TypeError or AttributeError say it is damaged."""
        self.model.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict({"state": values["state"], "param_groups": optimizer.state_dict()["param_groups"]})
        for name, count in self.counts.items():
            count.copy_(state["counts"][name])
        if self.precision == torch.float16 and self.counts["scale"] == 1:  # the run went on in another precision
            self.counts["scale"].fill_(FIRST_SCALE)

"""Runs training steps on whatever hardware there is: precision, compilation, micro-batches, processes, CUDA graphs."""

import ctypes
import math
import os
import platform
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import nn

from alilama.common.config import Config
from alilama.common.errors import UserError, first_line, is_out_of_memory
from alilama.model.attention import forget_blocks, prepare_blocks
from alilama.model.device import capture, free_bytes
from alilama.model.loss import CHUNK_LOGITS, chunk_rows
from alilama.model.model import Ensemble, Model, ResidualOutput
from alilama.training.optim import OPTIMIZERS, set_learning_rate
from alilama.training.scoring import evaluation_bytes
from alilama.training.step import Step

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
STEPS_BEFORE_GRAPH = 3  # so that everything is compiled and every buffer there before a step is captured
WARM_UP_STEPS = STEPS_BEFORE_GRAPH + 1  # of a run, which take longer than the others
FILLED_SHARE = 0.9  # of the free memory, by an estimate
MAX_CHUNKS = 8  # of the loss of a micro-batch on a GPU: the compiler writes each of them out


class Trainer:
    """Makes the steps of a run, `step` in step.py, one for each batch. Nothing in a step waits for the device.

    Where memory is too small for a batch, it is cut into micro-batches whose gradients are added up; `on_message` is told
    so. Several processes each take their share of a batch and add up their gradients (data parallel); all must be given the
    same batches. Where they hold tokens that are not learned, it `may_ignore` these. On a CUDA GPU a step becomes two CUDA
    graphs, the gradients and the update, since small models wait for launches, not for arithmetic.
    """

    def __init__(
        self,
        model: Model,
        optimizers: list[torch.optim.Optimizer],
        config: Config,
        precision: torch.dtype,
        teacher: Ensemble | None = None,
        *,
        on_message: Callable[[str], None],
        may_ignore: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if config.batch_size % world_size:
            raise UserError(f"batch_size = {config.batch_size}: expected a multiple of the {world_size} processes")
        self.model, self.config, self.precision, self.on_message = model, config, precision, on_message
        self.teacher, self.rank, self.world_size = teacher, rank, world_size
        scales_loss = precision == torch.float16
        self.step = Step(model, optimizers, config.grad_clip, scales_loss=scales_loss, may_ignore=may_ignore)
        self.device = self.step.device
        if self.device.type == "cpu":
            keep_freed_memory()
            add_in_order()
        self.uses_graphs = self.device.type == "cuda"
        if self.uses_graphs:
            leave_default_stream()
            # torch warns of what is meant for graphs in the steps before there is one.
            warnings.filterwarnings("ignore", message=".*capturable=True")
        self.is_compiled = config.compile_model
        self.loss_of = partial(model.loss, teacher=teacher, may_ignore=may_ignore)
        self.step.loss_of = self._in_precision(self.loss_of)
        most = config.batch_size // world_size
        if config.micro_batch is None and self.device.type == "cuda":
            kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            most = fitting_windows(most, free_bytes(self.device) + kept, model, config, precision, teacher)
        self.micro_batch = min(most, config.micro_batch or most)
        model.recomputes = config.recompute
        self.steps_made, self.graphs, self.static_windows = 0, [], None

    def prepare(self, windows: torch.Tensor):
        """Runs one discarded step on windows, (B, T + 1), so that errors of compiler and memory show before training."""
        windows = self._share(windows)
        prepare_blocks(self.config.max_seq_len, self.device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            while True:
                try:
                    return self._compute_gradients(windows)
                except Exception as error:  # a compiler may raise anything, and any of it means that it does not work here
                    if not self.is_compiled or isinstance(error, UserError):
                        raise
                    reason = first_line(error)
                self._compile_less(reason)

    def _compile_less(self, reason: str):
        """Does without FlexAttention, and where that was not it, without the compiler."""
        if forget_blocks():
            self.on_message(f"Attention without FlexAttention: {reason}. It works without, slower.")
        else:
            self.on_message(f"Not compiled: {reason}. It works without, slower; --compile_model=False hides this.")
            self.is_compiled = False
        self.step.loss_of = self._in_precision(self.loss_of)

    def __call__(self, windows: torch.Tensor, learning_rate: float):
        """Makes one step on windows, (B, T + 1) int64 on the CPU, of which this process takes its share."""
        set_learning_rate(self.step.optimizers, learning_rate)
        windows = self._share(windows)
        if self.uses_graphs and not self.graphs and self.steps_made == STEPS_BEFORE_GRAPH:
            self._capture(windows)
        compute_gradients, update = self.graphs or (partial(self._compute_gradients, windows), self.step.update)
        if self.graphs:
            self.static_windows.copy_(windows)
        compute_gradients()
        if self.world_size > 1:
            self._add_up_over_processes()
        update()
        self.steps_made += 1

    # ---- precision, and the share of a process ----

    def _in_precision(self, loss_of: Callable) -> Callable:
        """Returns a loss function, compiled where it is, whose matrices are multiplied in the precision of the run."""
        if self.is_compiled:
            loss_of = torch.compile(loss_of, dynamic=False)

        def loss(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            is_half = self.precision != torch.float32
            with torch.autocast(self.device.type, self.precision, enabled=is_half, cache_enabled=self.device.type != "cuda"):
                return loss_of(ids, targets)

        return loss

    def _share(self, windows: torch.Tensor) -> torch.Tensor:
        """Returns the part of the windows that is this process's, on its device; what is learned is counted in all of them."""
        if self.step.may_ignore:
            self.step.num_learned.fill_(max(1, int((windows[:, 1:] >= 0).sum())) / self.world_size)
        windows = windows.chunk(self.world_size)[self.rank]
        if self.device.type == "cuda":
            return windows.pin_memory().to(self.device, non_blocking=True)
        return windows.to(self.device)

    def _add_up_over_processes(self):
        """Takes the mean of all gradients; in half precision they travel in bf16, which is half as much between GPUs."""
        gradients = self.step.gradients if self.precision == torch.float32 else self.step.gradients.bfloat16()
        for tensor in (gradients, self.step.loss):
            dist.all_reduce(tensor)
        self.step.gradients.copy_(gradients)
        self.step.buffer.div_(self.world_size)

    # ---- micro-batches ----

    def _compute_gradients(self, windows: torch.Tensor):
        """Computes the gradients of windows, (B, T + 1); where memory runs out, begins again with halved micro-batches."""
        while True:
            try:
                return self._add_up_gradients(windows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            self._halve_micro_batch(reason)  # out here: the error holds on to memory

    def _add_up_gradients(self, windows: torch.Tensor):
        self.step.buffer.zero_()
        for part in windows.split(self.micro_batch):
            self.step.add_gradients(part, len(part) / len(windows))

    def _halve_micro_batch(self, reason: str):
        if self.micro_batch == 1:
            raise UserError(
                f"out of memory even with one window at a time; choose a smaller max_seq_len or a smaller model ({reason})"
            )
        self.micro_batch = math.ceil(self.micro_batch / 2)
        self.steps_made = 0  # the new size is compiled before it is captured
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.on_message(
            f"Out of memory: batches are computed {self.micro_batch} windows at a time from now on; what is "
            "learned stays the same."
        )

    # ---- CUDA graphs ----

    def _capture(self, windows: torch.Tensor):
        """Captures a step as two CUDA graphs, which runs nothing; where that does not work, says why."""
        static_windows = windows.clone()
        try:
            self.graphs = capture(partial(self._add_up_gradients, static_windows), self.step.update)
            self.static_windows = static_windows
        except RuntimeError as error:
            if is_out_of_memory(error):
                self._halve_micro_batch(first_line(error))
            else:
                self.on_message(f"Not captured as a CUDA graph: {first_line(error)}. It works without, slower.")
                self.uses_graphs = False


# ---- before the first step ----


def join_processes(device: str) -> tuple[int, int]:
    """Joins the processes that torchrun started, if it did. Returns the number of this one and how many there are.

    Where all went well they part by `leave_processes`.
    """
    if not dist.is_torchelastic_launched():
        return 0, 1
    if device == "mps":
        raise UserError("torchrun finds one GPU here, and processes cannot share it: start train.py with python")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device == "cuda" and dist.is_nccl_available() else "gloo"  # Windows has no NCCL
    dist.init_process_group(backend, timeout=timedelta(hours=1))  # one may draw and save
    return dist.get_rank(), dist.get_world_size()


def leave_processes():
    """Parts from the others. Not after an error: NCCL waits here for all of them, and they for the one that failed."""
    if dist.is_initialized():
        dist.destroy_process_group()


def leave_default_stream():
    """Makes another stream of the CUDA GPU the current one, for on the default one nothing can be captured as a graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_stream(stream)


def mean_over_processes(number: float, device: str) -> float:
    """Returns the mean of what every process has; waits for the device."""
    tensor = torch.tensor(number, dtype=torch.float32, device=device)
    if dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor.item()


def check_recompute(device: str, config: Config):
    """Raises UserError where activations computed twice would not have the same dropout, and gradients would be wrong."""
    if device == "mps" and config.recompute and config.dropout > 0:  # torch's checkpoint restores random states of CUDA and CPU
        raise UserError(
            f"recompute = True with dropout = {config.dropout}: on Apple GPUs only with dropout = 0; set one of them"
        )


def choose_precision(device: str, wanted: str) -> torch.dtype:
    """Returns what to multiply matrices in: what is wanted, or for "auto" the fastest that the device computes in."""
    if wanted != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted]
    if device == "cuda":  # is_bf16_supported() says yes where bf16 is only emulated
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    if device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return torch.float32


def estimate_bytes(model: Model, config: Config, precision: torch.dtype, windows: int, teacher: Ensemble | None = None) -> int:
    """Returns about how much memory training takes at its peak, for `windows` of max_seq_len tokens computed at once."""
    update_numbers = OPTIMIZERS[config.optimizer].update_numbers
    update = 4 * sum(update_numbers(*matrix.weight.shape) for matrix in matrices_of(model))
    step = step_bytes(model, config, precision, windows, teacher)
    teachers = 0 if teacher is None else 4 * sum(weight.numel() for weight in teacher.parameters())
    training, evaluation = max(step, update), evaluation_bytes(model, config.eval_tokens)
    keeps_both = model.wte.weight.device.type == "cuda"  # what a graph takes stays its own
    return state_bytes(model, config) + teachers + (training + evaluation if keeps_both else max(training, evaluation))


def state_bytes(model: Model, config: Config) -> int:
    """Returns what stays from step to step: weights, gradients and the optimizer state, in float32."""
    state_numbers = OPTIMIZERS[config.optimizer].state_numbers
    beyond_adamw = sum(state_numbers(*matrix.weight.shape) - 2 * matrix.weight.numel() for matrix in matrices_of(model))
    return 16 * model.num_parameters() + 4 * beyond_adamw


def step_bytes(model: Model, config: Config, precision: torch.dtype, windows: int, teacher: Ensemble | None = None) -> int:
    """Returns about what a step takes besides.

    For each token what the backward pass needs: the residual stream in float32 (8 bytes a block for each number), and in
    `precision` the inputs of the matrices and their outputs, but for those that are added to the residual stream (with
    `recompute` of one block at a time, and the input of each); a chunk of logits and their gradients; and the gradient of the
    embedding while it is summed over chunks. Of a teacher what its logits are made of, the widest activations in one
    block, and a chunk of logits.
    """
    shape, size = model.config, precision.itemsize
    numbers = sum(matrix.in_features for matrix in matrices_of(model))
    numbers += sum(matrix.out_features for matrix in matrices_of(model) if not isinstance(matrix, ResidualOutput))
    tokens = windows * config.max_seq_len
    of_blocks = tokens * (shape.blocks * 8 * shape.d_model + size * numbers)
    if config.recompute:
        of_blocks = tokens * shape.blocks * 4 * shape.d_model + of_blocks // shape.blocks
    logits = min(tokens * shape.vocab_size, CHUNK_LOGITS[model.wte.weight.device.type]) * (8 + size)
    taught = 0
    if teacher is not None:
        shapes = [each.config for each in teacher.models]  # which are computed one after the other
        widest = max(4 * each.d_model + 2 * size * each.hidden_dim for each in shapes)
        taught = tokens * (4 * sum(each.d_model for each in shapes) + widest) + logits
    return of_blocks + tokens * 8 * shape.d_model + logits + 8 * model.wte.weight.numel() + taught


def matrices_of(model: Model) -> list[nn.Linear]:
    return [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]


def fitting_windows(
    most: int, free: int, model: Model, config: Config, precision: torch.dtype, teacher: Ensemble | None = None
) -> int:
    """Returns how many windows, at most `most`, are computed at once where so many bytes are free, by the estimate.

    Choosing before anything is compiled spares the compiler the sizes that would not fit.
    """
    context, rows = config.max_seq_len, chunk_rows(model.config.vocab_size, precision, model.wte.weight.device.type)
    to_come = state_bytes(model, config) - 8 * model.num_parameters()  # weights, gradients and a teacher are there already
    windows = min(most, max(1, MAX_CHUNKS * rows // context))
    while windows > 1 and to_come + step_bytes(model, config, precision, windows, teacher) > FILLED_SHARE * free:
        windows = math.ceil(windows / 2)
    return math.ceil(most / math.ceil(most / windows))  # parts of nearly the same size


def keep_freed_memory():
    """Makes the C library keep the memory that tensors on the CPU give back, and not fetch it page by page for the next step.

    That took a fifth of the time of a step. Linux with glibc; elsewhere, and for tensors above 32 MiB, nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_THRESHOLD, 32 << 20), (M_TOP_PAD, 64 << 20)):
            libc.mallopt(parameter, value)


def add_in_order():
    """Lets compiled code on several CPU threads add up gradients of the embedding in the same order each time.

    So a run that goes on has the same losses bit for bit; it takes no time that could be measured.
    """
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # which would take time

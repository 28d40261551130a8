"""What is trained where only the time is given: the setting `minutes`.

`settle` chooses the settings that the user left at None by the size of the text and by what the machine computes in the time;
the measurements behind it are in docs/experiments.md. How many steps fit is known when some are made: Pace times them.
"""

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from alilama.common.config import Config
from alilama.common.errors import UserError
from alilama.data.tokens import TokenMeta
from alilama.model.device import free_bytes
from alilama.model.folder import load_shape
from alilama.model.model import ModelConfig, block_weights
from alilama.training.resume import Run, saved_settings
from alilama.training.trainer import WARM_UP_STEPS, mean_over_processes

LEAST_BYTES = 12  # for each parameter: its value, its gradient and what an optimizer remembers of it, in float32
SECONDS_OF_MEASURING = 0.5
SHARE_OF_TIMED_STEPS, LEAST_TIMED_STEPS = 1 / 40, 4
MOST_DOUBLINGS = 3  # of the interval between evaluations, after one that took long
STARTING_SECONDS = 15  # for compiling
LEAST_COMPILED = 2  # minutes: the first time a machine compiles, it takes most of one
CLOSING_SECONDS = 3  # for the last picture and story, and for what cannot be foreseen
EVALUATION_SHARE = 1 / 20  # of the time
TOKENS_OF_A_STORY = 100_000  # that could be read while the story, picture and checkpoint of an evaluation are made
FORWARD_SHARE = 1 / 3  # of the time that training on a token takes
EVALUATED_SHARE = 1 / 10  # of the tokens that are trained on: the most that are evaluated at once
TRAINED_EPOCHS = 5  # of a run from a model: more of a small text make it forget more than it learns

# What `choose` goes by, fitted to the table in docs/experiments.md: bits per byte below which no model of these sizes gets,
# those of a million numbers in the matrices and of a million tokens, and how they fall; how often it pays to read a text, and
# how many numbers its tokens can fill.
LEAST_LOSS, OF_SIZE, OF_TOKENS = 0.57, 0.177, 0.345
SIZE_POWER, TOKENS_POWER, REPEATS_WORTH, NUMBERS_PER_TOKEN = 0.363, 0.495, 15, 8
TRAINING_SHARE = 0.35  # of the speed of plain products of matrices
STEPS = 1500  # of a run, as long as the batches are neither small nor large
LEAST_BATCH, MOST_BATCH, CONTEXT = 16, 256, 128
LEAST_WINDOWS = 16  # of a text
SHAPE_NAMES = ["d_model", "blocks", "num_heads", "hidden_dim"]
NOT_OF_FOLDER = {"vocab_size", "max_seq_len", "dropout"}  # of a shape, what may be another than in the folder of init_from
CHOSEN = [
    *SHAPE_NAMES,
    "max_seq_len",
    "batch_size",
    "dropout",
    "compile_model",
]  # what `choose` may choose, and Config derives from that
DROPOUT_BY_EPOCHS = ((160, 0.5), (80, 0.4), (40, 0.3), (20, 0.2), (8, 0.1), (0, 0.0))  # from so many epochs on


def settle(config: Config, meta: TokenMeta, device: str, precision: torch.dtype, world_size: int = 1) -> tuple[Config, str]:
    """Returns the settings with a choice for those that are None beside `minutes`, and what to tell of it.

    The shape is that of `init_from` where it is given. A run that goes on keeps its choice. Raises UserError for a model that
    the memory does not hold.
    """
    if config.init_from is not None:
        config = with_shape_of(config, Path(config.init_from))
    config, reason = settle_time(config, meta, device, precision, world_size)
    check_memory(ModelConfig.of(config, meta.vocab_size), device)
    return config, reason


def check_memory(shape: ModelConfig, device: str):
    """Raises UserError, before a model is made, where the memory does not hold what it takes whatever its batches are."""
    of_block = sum(map(math.prod, block_weights(shape).values()))
    numbers = shape.blocks * of_block + (shape.vocab_size + 1) * shape.d_model
    needed, free = LEAST_BYTES * numbers, free_bytes(torch.device(device))
    if free is not None and needed > free:
        raise UserError(
            f"d_model = {shape.d_model}, blocks = {shape.blocks}, hidden_dim = {shape.hidden_dim}: with {shape.vocab_size:,} "
            f"tokens these are {numbers:,} parameters, which take more than {needed / 1e9:,.1f} GB in training, and "
            f"{free / 1e9:,.1f} GB are free; lower them"
        )


def settle_time(config: Config, meta: TokenMeta, device: str, precision: torch.dtype, world_size: int) -> tuple[Config, str]:
    """Returns the settings with a choice for those that are None beside `minutes`, and what to tell of it."""
    if config.minutes is None:
        return config, ""
    saved = saved_settings(config.model_dir)
    if saved.get("minutes") == config.minutes:
        chosen = config.with_choice({name: saved[name] for name in CHOSEN if name in saved})
        return replace(chosen, eval_tokens=min(config.eval_tokens or meta.tokens["val"], saved["eval_tokens"])), ""
    speed = mean_over_processes(matmul_speed(device, precision), device) * world_size
    flops = speed * max(1, 60 * config.minutes - STARTING_SECONDS)
    teacher = sum(Shape.of(load_shape(folder)).numbers(meta.vocab_size) for folder in config.teacher_dirs)
    config = choose(config, flops, meta.tokens["train"], meta.vocab_size, teacher, world_size)
    shape = Shape.of(config)
    tokens = shape.tokens_in(flops, meta.vocab_size, teacher)
    eval_tokens = min(meta.tokens["val"], config.eval_tokens or meta.tokens["val"], int(tokens * EVALUATED_SHARE) + 2)
    return replace(config, eval_tokens=eval_tokens), (
        f"minutes = {config.minutes:g}: d_model = {shape.d_model}, blocks = {shape.blocks}, batches of {config.batch_size} x "
        f"{config.max_seq_len} tokens and dropout = {config.dropout:g}, evaluated on {eval_tokens:,} tokens. At "
        f"{speed / 1e9:,.0f} GFLOP/s that model reads about {tokens / 1e6:,.1f} million tokens in the time, "
        f"{tokens / meta.tokens['train']:.1f} times the text."
    ) + f" On from a model a text is read about {TRAINED_EPOCHS} times at most." * (config.init_from is not None)


def with_shape_of(config: Config, folder: Path) -> Config:
    """Returns the settings with the shape of the model in a folder. Raises UserError where they ask for another one."""
    shape = asdict(load_shape(folder))
    for name in shape:
        given = getattr(config, name, None)
        if name not in NOT_OF_FOLDER and given not in (None, shape[name]):
            raise UserError(f"{name} = {given}: expected {shape[name]} as {folder} has it, or None")
    return config.with_choice({name: shape[name] for name in (*SHAPE_NAMES, "max_seq_len")})


def matmul_speed(device: str, precision: torch.dtype) -> float:
    """Returns how many FLOPs a second the device makes in a product of matrices as a small model has them."""
    left = torch.ones(4096, 512, device=device, dtype=precision)
    right = torch.ones(512, 2048, device=device, dtype=precision)

    def seconds(products: int) -> float:
        started = time.perf_counter()
        for _ in range(products):
            product = left @ right
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - started

    seconds(3)
    products = 1
    while (took := seconds(products)) < SECONDS_OF_MEASURING:
        products *= 2
    return 2 * left.numel() * right.shape[1] * products / took


class Shape(NamedTuple):
    """A model by what makes its size."""

    d_model: int
    blocks: int

    @classmethod
    def of(cls, config: Config | ModelConfig) -> "Shape":
        return cls(config.d_model, config.blocks)

    def numbers(self, vocab_size: int) -> int:
        """Returns how many numbers its matrices have, with a hidden_dim of 4 * d_model."""
        return 12 * self.blocks * self.d_model**2 + vocab_size * self.d_model

    def tokens_in(self, flops: float, vocab_size: int, teacher_numbers: int = 0) -> float:
        """Returns how many tokens it trains on in the time that products of matrices of so many FLOPs take."""
        return TRAINING_SHARE * flops / (6 * self.numbers(vocab_size) + 2 * teacher_numbers)

    def expected_loss(self, tokens: float, text_tokens: int, vocab_size: int) -> float:
        """Returns about how many bits per byte are left after so many tokens of a text, which may be read several times.

        The law of Muennighoff et al. 2023, arXiv:2305.16264, equation 5, fitted to the table in docs/experiments.md.
        """
        repeats = max(0.0, tokens / text_tokens - 1)
        worth = min(tokens, text_tokens) * (1 + REPEATS_WORTH * (1 - math.exp(-repeats / REPEATS_WORTH)))
        of_size = OF_SIZE * (self.numbers(vocab_size) / 1e6) ** -SIZE_POWER
        return LEAST_LOSS + of_size + OF_TOKENS * (worth / 1e6) ** -TOKENS_POWER


SHAPES = [Shape(*shape) for shape in ((64, 4), (96, 6), (128, 8), (192, 8), (256, 8), (384, 8), (512, 8), (512, 12), (768, 12))]


def choose(
    config: Config, flops: float, text_tokens: int, vocab_size: int, teacher_numbers: int = 0, world_size: int = 1
) -> Config:
    """Returns the settings with which the most is learned from a text with so many FLOPs, as far as it was measured.

    The size of the model first, then what follows from the tokens that it can read; what is not None stays.
    """
    shapes = {Shape(config.d_model or shape.d_model, config.blocks or shape.blocks) for shape in SHAPES}

    def tokens_of(shape: Shape) -> float:
        return shape.tokens_in(flops, vocab_size, teacher_numbers)

    fitting = [shape for shape in shapes if shape.numbers(vocab_size) <= NUMBERS_PER_TOKEN * text_tokens]
    fitting = sorted(fitting or [min(shapes)])
    shape = min(fitting, key=lambda shape: shape.expected_loss(tokens_of(shape), text_tokens, vocab_size))
    tokens = tokens_of(shape)
    config = config.with_choice({**shape._asdict(), "max_seq_len": min(CONTEXT, max(1, text_tokens // LEAST_WINDOWS))})
    windows = 2 ** round(math.log2(max(1, tokens / STEPS / config.max_seq_len)))
    windows = min(max(windows, LEAST_BATCH), MOST_BATCH)
    return config.with_choice(
        {
            "batch_size": math.ceil(windows / world_size) * world_size,
            "dropout": next(dropout for epochs, dropout in DROPOUT_BY_EPOCHS if tokens >= epochs * text_tokens),
            "compile_model": config.minutes >= LEAST_COMPILED,
        }
    )


class Pace:
    """When a run evaluates, and how many steps it makes where it is given `minutes`, of which some passed since `started`.

    Without an `eval_interval` evaluations take a twentieth of the time: at first as is to be expected, then by how long they
    took. Given minutes, the first steps are timed, one, two, four, eight ... of them, and the number of steps is estimated
    after each group, by the faster of the last two, until one takes a fortieth of the minutes. Then it is settled. A run on
    from a model ends before its minutes do, once it has read the text TRAINED_EPOCHS times.
    """

    def __init__(self, run: Run, started: float, device: str, num_val_tokens: int):
        self.run, self.started, self.device = run, started, device
        step_tokens = run.config.batch_size * run.config.max_seq_len
        evaluation = FORWARD_SHARE * num_val_tokens / step_tokens  # in how many steps of training one could be made
        with_story = evaluation + FORWARD_SHARE * TOKENS_OF_A_STORY / step_tokens
        self.eval_interval = run.config.eval_interval or math.ceil(with_story / EVALUATION_SHARE)
        self.most_steps = math.inf
        if run.config.minutes is not None and run.config.init_from is not None:
            self.most_steps = max(1, TRAINED_EPOCHS * run.meta.tokens["train"] // step_tokens)
            run.num_steps = min(run.num_steps, self.most_steps)
        self.steps_of_evaluation, self.seconds_of_evaluation = evaluation, None  # None: none was timed yet
        self.timed_step = run.step + WARM_UP_STEPS
        self.next_estimate = self.timed_step + 1
        self.timed_at = 0.0  # when that step was made, later by what evaluations took since
        self.slowness_before = math.inf  # seconds per step in the last group
        self.evaluated_at = None  # when the evaluation after the last step began

    def begin_step(self):
        """Is called before every step: what passed since an evaluation began was not the steps' time."""
        if self.evaluated_at is None:
            return
        seconds = mean_over_processes(time.perf_counter() - self.evaluated_at, self.device)
        self.evaluated_at, self.seconds_of_evaluation = None, seconds
        self.timed_at += seconds
        if self.run.config.eval_interval is None and self.run.step > self.timed_step:
            seconds_per_step = self._seconds_per_step(time.perf_counter())
            for _ in range(MOST_DOUBLINGS):
                if seconds > EVALUATION_SHARE * self.eval_interval * seconds_per_step:
                    self.eval_interval *= 2

    def is_evaluated(self) -> bool:
        """Tells whether an evaluation follows on the step just made; is called after every step."""
        run = self.run
        if run.step == self.timed_step:
            self.timed_at = self._now()
        elif not run.is_settled and run.step == self.next_estimate:
            self._estimate()
        is_evaluated = run.step % self.eval_interval == 0 or run.step == run.num_steps
        if is_evaluated:
            self.evaluated_at = self._now()
        return is_evaluated

    def _now(self) -> float:
        """Returns the time at which all processes have made the step."""
        mean_over_processes(0, self.device)  # waits for the device
        return time.perf_counter()

    def _seconds_per_step(self, now: float) -> float:
        return mean_over_processes(now - self.timed_at, self.device) / (self.run.step - self.timed_step)

    def _estimate(self):
        run, now, steps, minutes = self.run, self._now(), self.run.step - self.timed_step, self.run.config.minutes
        slowness = self._seconds_per_step(now)
        seconds_per_step = min(slowness, self.slowness_before)  # a step that was held up by chance is forgotten
        evaluation = self.seconds_of_evaluation or self.steps_of_evaluation * seconds_per_step
        time_left = 60 * minutes - CLOSING_SECONDS - mean_over_processes(now - self.started, self.device)
        steps_left = (time_left - evaluation) / (seconds_per_step + evaluation / self.eval_interval)
        run.num_steps = run.step + max(0, int(steps_left))
        is_timed = steps * seconds_per_step >= SHARE_OF_TIMED_STEPS * 60 * minutes
        run.is_settled = time_left <= 0 or (steps >= LEAST_TIMED_STEPS and (is_timed or time_left < 30 * minutes))
        self.timed_step, self.timed_at, self.slowness_before = run.step, now, slowness
        self.next_estimate = run.step + 2 * steps
        if not run.is_settled:  # until then no estimate ends the run
            run.num_steps = max(run.num_steps, self.next_estimate)
        run.num_steps = min(run.num_steps, max(run.step, self.most_steps))

"""What is trained where only the time is given: the setting `minutes`.

`settle` chooses the settings that the user left at None by the size of the text and by what the machine computes in the time;
the measurements behind it are in docs/experiments.md. How many steps fit is known when some are made: Pace times them.
"""

import math
import time
from dataclasses import asdict, replace
from typing import NamedTuple

import torch

from alilama.common.config import Config
from alilama.data.tokens import TokenMeta
from alilama.model.folder import load_shape
from alilama.training.resume import Run, saved_settings
from alilama.training.trainer import WARM_UP_STEPS, mean_over_processes

SECONDS_OF_MEASURING = 0.5
SHARE_OF_TIMED_STEPS = 1 / 20
STARTING_SECONDS = 15  # for compiling
CLOSING_SECONDS = 3  # for the last picture and story, and for what cannot be foreseen
EVALUATION_SHARE = 1 / 20  # of the time
TOKENS_OF_A_STORY = 100_000  # that could be read while the story, picture and checkpoint of an evaluation are made
FORWARD_SHARE = 1 / 3  # of the time that training on a token takes
EVALUATED_SHARE = 1 / 10  # of the tokens that are trained on: the most that are evaluated at once

# What `choose` goes by, fitted to the table in docs/experiments.md: bits per byte below which no model of these sizes gets,
# those of a million numbers in the matrices and of a million tokens, and how they fall; how often it pays to read a text, and
# how many numbers its tokens can fill.
LEAST_LOSS, OF_SIZE, OF_TOKENS = 0.57, 0.177, 0.345
SIZE_POWER, TOKENS_POWER, REPEATS_WORTH, NUMBERS_PER_TOKEN = 0.363, 0.495, 15, 10
TRAINING_SHARE = 0.35  # of the speed of plain products of matrices
STEPS = 1500  # of a run, as long as the batches are neither small nor large
LEAST_BATCH, MOST_BATCH, CONTEXT = 8, 256, 128
LEAST_WINDOWS = 16  # of a text
DROPOUT_BY_EPOCHS = ((20, 0.2), (8, 0.1), (0, 0.0))  # from so many epochs on


def settle(config: Config, meta: TokenMeta, device: str, precision: torch.dtype) -> tuple[Config, str]:
    """Returns the settings with a choice for those that are None beside `minutes`, and what to tell of it.

    A run that goes on keeps its choice.
    """
    if config.minutes is None:
        return config, ""
    saved = saved_settings(config.model_dir)
    if saved.get("minutes") == config.minutes:
        return replace(config.with_choice(saved), eval_tokens=saved["eval_tokens"]), ""
    if config.init_from is not None:
        config = config.with_choice(asdict(load_shape(config.init_from)))
    speed = mean_over_processes(matmul_speed(device, precision), device)
    flops = speed * max(1, 60 * config.minutes - STARTING_SECONDS)
    config = config.with_choice(choose(flops, meta.tokens["train"], meta.vocab_size))
    shape = Shape(config.d_model, config.blocks)
    tokens = shape.tokens_in(flops, meta.vocab_size)
    eval_tokens = min(config.eval_tokens or meta.tokens["val"], int(tokens * EVALUATED_SHARE) + 2)
    return replace(config, eval_tokens=eval_tokens), (
        f"minutes = {config.minutes:g}: d_model = {shape.d_model}, blocks = {shape.blocks}, batches of {config.batch_size} x "
        f"{config.max_seq_len} tokens and dropout = {config.dropout:g}. At {speed / 1e9:,.0f} GFLOP/s that model reads about "
        f"{tokens / 1e6:,.1f} million tokens in the time, {tokens / meta.tokens['train']:.1f} times the text; a larger one "
        "would see too few, a smaller one would learn less of them."
    )


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

    def numbers(self, vocab_size: int) -> int:
        """Returns how many numbers its matrices have."""
        return 12 * self.blocks * self.d_model**2 + vocab_size * self.d_model

    def tokens_in(self, flops: float, vocab_size: int) -> float:
        """Returns how many tokens it trains on in the time that products of matrices of so many FLOPs take."""
        return TRAINING_SHARE * flops / (6 * self.numbers(vocab_size))

    def expected_loss(self, tokens: float, text_tokens: int, vocab_size: int) -> float:
        """Returns about how many bits per byte are left after so many tokens of a text, which may be read several times.

        The law of Muennighoff et al. 2023, arXiv:2305.16264, equation 5, fitted to the table in docs/experiments.md.
        """
        repeats = max(0.0, tokens / text_tokens - 1)
        worth = min(tokens, text_tokens) * (1 + REPEATS_WORTH * (1 - math.exp(-repeats / REPEATS_WORTH)))
        numbers = min(self.numbers(vocab_size), NUMBERS_PER_TOKEN * text_tokens)
        of_size = OF_SIZE * (numbers / 1e6) ** -SIZE_POWER
        return LEAST_LOSS + of_size + OF_TOKENS * (worth / 1e6) ** -TOKENS_POWER


SHAPES = [Shape(*shape) for shape in ((64, 4), (96, 6), (128, 8), (192, 8), (256, 8), (384, 8), (512, 8), (512, 12), (768, 12))]


def choose(flops: float, text_tokens: int, vocab_size: int) -> dict[str, object]:
    """Returns settings by name, with which the most is learned from a text with so many FLOPs, as far as it was measured."""
    shape = min(SHAPES, key=lambda shape: shape.expected_loss(shape.tokens_in(flops, vocab_size), text_tokens, vocab_size))
    tokens = shape.tokens_in(flops, vocab_size)
    windows = 2 ** round(math.log2(max(1, tokens / STEPS / CONTEXT)))
    return {
        **shape._asdict(),
        "max_seq_len": min(CONTEXT, max(1, text_tokens // LEAST_WINDOWS)),
        "batch_size": min(max(windows, LEAST_BATCH), MOST_BATCH),
        "dropout": next(dropout for epochs, dropout in DROPOUT_BY_EPOCHS if tokens >= epochs * text_tokens),
    }


class Pace:
    """When a run evaluates, and how many steps it makes where it is given `minutes`, of which some passed since `started`.

    Without an `eval_interval` evaluations take a twentieth of the time: at first as is to be expected, then by how long the
    first took. Given minutes, the first steps are timed: whenever they have become twice as many, the number of steps is
    estimated again, until the timed ones took a twentieth of the minutes. Then it is settled.
    """

    def __init__(self, run: Run, started: float, device: str, num_val_tokens: int):
        self.run, self.started, self.device = run, started, device
        step_tokens = run.config.batch_size * run.config.max_seq_len
        self.evaluation = FORWARD_SHARE * num_val_tokens / step_tokens  # in how many steps of training one could be made
        with_story = self.evaluation + FORWARD_SHARE * TOKENS_OF_A_STORY / step_tokens
        self.eval_interval = run.config.eval_interval or math.ceil(with_story / EVALUATION_SHARE)
        self.timed_step = run.step + WARM_UP_STEPS
        self.next_estimate = self.timed_step + 1
        self.timed_at = 0.0  # when that step was made, later by what evaluations took since
        self.evaluated_at = None  # when the evaluation after the last step began

    def is_evaluated(self) -> bool:
        """Tells whether an evaluation follows on the step just made; is called after every step."""
        run = self.run
        if run.step == self.timed_step:
            self.timed_at = self._now()
        elif self.evaluated_at is not None:
            self._count_evaluation()
        if not run.is_settled and run.step == self.next_estimate:
            self._estimate()
        is_evaluated = run.step % self.eval_interval == 0 or run.step == run.num_steps
        if is_evaluated and run.step > self.timed_step:
            self.evaluated_at = self._now()
        return is_evaluated

    def _now(self) -> float:
        """Returns the time at which all processes have made the step."""
        mean_over_processes(0, self.device)  # waits for the device
        return time.perf_counter()

    def _seconds_per_step(self, now: float, steps: int) -> float:
        return mean_over_processes(now - self.timed_at, self.device) / steps

    def _count_evaluation(self):
        """Leaves an evaluation out of the time of the steps, and makes the interval longer where it took too long."""
        seconds_per_step = self._seconds_per_step(self.evaluated_at, self.run.step - 1 - self.timed_step)
        seconds = max(0.0, mean_over_processes(self._now() - self.evaluated_at, self.device) - seconds_per_step)
        self.timed_at += seconds
        self.evaluated_at, self.evaluation = None, seconds / seconds_per_step
        if self.run.config.eval_interval is None:
            while self.evaluation > EVALUATION_SHARE * self.eval_interval:
                self.eval_interval *= 2

    def _estimate(self):
        run, minutes, now = self.run, self.run.config.minutes, self._now()
        steps = run.step - self.timed_step
        seconds_per_step = self._seconds_per_step(now, steps)
        evaluation = self.evaluation * seconds_per_step
        seconds_left = 60 * minutes - CLOSING_SECONDS - mean_over_processes(now - self.started, self.device) - evaluation
        steps_left = seconds_left / (seconds_per_step + evaluation / self.eval_interval)
        run.num_steps = run.step + max(0, int(steps_left))
        run.is_settled = steps * seconds_per_step >= SHARE_OF_TIMED_STEPS * 60 * minutes or run.num_steps == run.step
        self.next_estimate += steps

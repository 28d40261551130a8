"""Trains on our token files and prints the bits per byte that are reached on their validation tokens. With nanoGPT's model:

    python tests/benchmarks/learning.py --nanogpt FOLDER [--shapes 128x8x8] [--train_tokens 3e6] [--learning_rates 1e-3,2e-3]

and with ours, at the learning rate of TRAINCONFIG.py and at multiples of it, as a table of shapes by multiples:

    python tests/benchmarks/learning.py [--shapes 64x4x8,288x6x8] [--train_tokens 2e6] [--factors 0.25,0.5,1,2,4] [--seeds 1,2]

and how long ours takes to the loss that nanoGPT ends at, both without compiling, each at a learning rate of its own schedule:

    python tests/benchmarks/learning.py --nanogpt FOLDER --race 0.1,0.2,0.4 [--train_tokens 22e6] [--learning_rates 4e-3]

where ours is trained on such shares of the tokens, one after the other, until it is as good.

Shapes are d_model x blocks x heads, contexts tokens, batches tokens of a step. The validation tokens are read in windows
that do not overlap, as `alilama.evaluate` and train.py with --eval_tokens=None count them. nanoGPT's model is that of its
model.py (https://github.com/karpathy/nanoGPT) and the step that of its train.py: AdamW with its settings for small models
(betas 0.9 and 0.99, weight decay 0.1), a warm-up over 2% of the steps, a cosine down to a tenth, gradients clipped to 1. With
--save its last model goes to a file, for tests/benchmarks/samples.py.
"""

import argparse
import contextlib
import io
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_model
from training import load_nanogpt, step_of_nanogpt, synchronize

from alilama.common.config import Config, load_config
from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenFiles, load_token_files
from alilama.model.device import choose_device
from alilama.model.model import Model, ModelConfig
from alilama.training.optim import learning_rate_at, make_optimizers
from alilama.training.resume import load_teacher
from alilama.training.scoring import count_bytes, evaluate
from alilama.training.trainer import Trainer, choose_precision

ROOT = Path(__file__).resolve().parents[2]
STEPS_TO_COMPILE = 5  # left out of times: everything is compiled in them, and a CUDA graph captured


def learning_rate_of_nanogpt(step: int, steps: int, peak: float) -> float:
    warmup = round(0.02 * steps) + 1
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


@torch.inference_mode()
def bits_per_byte(model, ids: torch.Tensor, text_bytes: int, context: int) -> float:
    """Scores nanoGPT's model on all ids, (N,), but the first, in windows that do not overlap."""
    model.eval()
    full, nats = (len(ids) - 1) // context * context, 0.0
    windows = list(zip(ids[:full].view(-1, context).split(64), ids[1 : full + 1].view(-1, context).split(64), strict=True))
    if full < len(ids) - 1:
        windows.append((ids[None, full:-1], ids[None, full + 1 :]))
    for x, y in windows:
        nats += model(x, y)[1].item() * y.numel()
    model.train()
    return nats / math.log(2) / text_bytes


def make_steps(num_steps: int, make_step: Callable[[int], None]) -> float:
    """Makes all steps and returns the seconds that they took, those of compiling left out."""
    started = time.perf_counter()
    for step in range(num_steps):
        make_step(step)
        if step + 1 == STEPS_TO_COMPILE < num_steps:
            synchronize()
            started = time.perf_counter()
    synchronize()
    timed_steps = num_steps - STEPS_TO_COMPILE if num_steps > STEPS_TO_COMPILE else num_steps
    return (time.perf_counter() - started) * num_steps / timed_steps


def train_nanogpt(folder: str, config: Config, files: TokenFiles, tokenizer: Tokenizer, peak: float):
    """Trains nanoGPT's model and returns it with its bits per byte and the seconds of all steps, compiling left out."""
    device, context = choose_device(), config.max_seq_len
    precision = choose_precision(device, config.precision)
    torch.manual_seed(1337)
    model = load_nanogpt(folder, ModelConfig.of(config, tokenizer.vocab_size)).to(device)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers(0.1, peak, (0.9, 0.99), device)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
    compiled = torch.compile(model)
    batches = TrainingWindows(files, context, config.batch_size, config.seed)
    steps = round(config.train_tokens / (config.batch_size * context))

    def make_step(step: int):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_of_nanogpt(step, steps, peak)
        step_of_nanogpt(model, compiled, optimizer, scaler, torch.from_numpy(batches.batch(step)), precision)

    seconds = make_steps(steps, make_step)
    ids = torch.from_numpy(files.val[:].astype("int64")).to(device)
    return model, bits_per_byte(model, ids, count_bytes(tokenizer, files.val[1:]), context), seconds


def train_ours(config: Config, files: TokenFiles, tokenizer: Tokenizer) -> tuple[float, float]:
    """Trains our model as train.py does; returns its bits per byte and the seconds of all steps, compiling left out."""
    device, context = choose_device(), config.max_seq_len
    precision = choose_precision(device, config.precision)
    torch.manual_seed(config.seed)
    model = Model(ModelConfig.of(config, tokenizer.vocab_size)).to(device).train()
    optimizers, teacher = make_optimizers(model, config, precision), load_teacher(config, tokenizer, device)
    trainer = Trainer(model, optimizers, config, precision, teacher, on_message=print)
    batches = TrainingWindows(files, context, config.batch_size, config.seed)
    steps = round(config.train_tokens / (config.batch_size * context))
    trainer.prepare(torch.from_numpy(batches.batch(0)))
    seconds = make_steps(
        steps, lambda step: trainer(torch.from_numpy(batches.batch(step)), learning_rate_at(step, steps, config))
    )
    return evaluate(model.eval(), tokenizer, files.val_ids(None), context).bits_per_byte, seconds


def race(arguments: argparse.Namespace, config: Config, files: TokenFiles, tokenizer: Tokenizer):
    """Trains nanoGPT's model, then ours on more and more tokens until it is as good."""
    peak = arguments.learning_rates[0]
    _, theirs, their_seconds = train_nanogpt(arguments.nanogpt, config, files, tokenizer, peak)
    print(f"nanoGPT, {config.train_tokens:,} tokens: {theirs:.4f} bits per byte in {their_seconds:.1f} s", flush=True)
    for share in arguments.race:
        tokens = round(share * config.train_tokens)
        ours, seconds = train_ours(replace(config, train_tokens=tokens), files, tokenizer)
        print(
            f"Alilama, {tokens:,} tokens: {ours:.4f} bits per byte in {seconds:.1f} s, {their_seconds / seconds:.1f} times "
            f"as fast{'' if ours <= theirs else ', and not yet as good'}",
            flush=True,
        )
        if ours <= theirs:
            return


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="FOLDER", help="folder with nanoGPT's model.py: trains that instead of ours")
    parser.add_argument("--shapes", default="64x4x8", help="d_model x blocks x heads [64x4x8]")
    parser.add_argument("--contexts", type=numbers, default="128", help="tokens of a window [128]")
    parser.add_argument("--batches", type=numbers, default="4096", help="tokens of a step [4096]")
    parser.add_argument("--train_tokens", type=float, default=2e6, help="tokens it is trained on [2e6]")
    parser.add_argument("--factors", type=numbers, default="0.25,0.5,1,2,4", help="times our learning rate [0.25,0.5,1,2,4]")
    parser.add_argument("--seeds", type=numbers, default="1", help="the table shows the mean over these [1]")
    parser.add_argument("--learning_rates", type=numbers, default="1e-3,2e-3,4e-3", help="nanoGPT's [1e-3,2e-3,4e-3]")
    parser.add_argument("--race", type=numbers, metavar="SHARES", help="of the tokens, until ours is as good as nanoGPT's")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of TRAINCONFIG.py")
    parser.add_argument("--save", metavar="FILE", help="where nanoGPT's last weights go")
    arguments = parser.parse_args()
    if arguments.save and not arguments.nanogpt:
        parser.error("--save is for nanoGPT's weights: --nanogpt is missing")
    if arguments.race and not arguments.nanogpt:
        parser.error("--race is against nanoGPT: --nanogpt is missing")
    usual = load_config(ROOT / "TRAINCONFIG.py", [f"--{setting}" for setting in arguments.settings], "")
    tokenizer = Tokenizer.load(Path(usual.tokens_dir) / "tokenizer.json")
    files = load_token_files(Path(usual.tokens_dir), tokenizer)
    if not arguments.nanogpt:
        print(
            f"| shape | context | tokens a step |{''.join(f' x {factor:g} |' for factor in arguments.factors)} from the best |"
        )
        print(f"|---|---|---|{'---|' * len(arguments.factors)}---|")
    for shape, context, batch in itertools.product(arguments.shapes.split(","), arguments.contexts, arguments.batches):
        d_model, blocks, num_heads = map(int, shape.split("x"))
        config = replace(
            usual,
            d_model=d_model,
            blocks=blocks,
            num_heads=num_heads,
            hidden_dim=None,
            max_seq_len=int(context),
            batch_size=round(batch / context),
            epochs=None,
            train_tokens=int(arguments.train_tokens),
        )
        if arguments.race:
            race(arguments, config, files, tokenizer)
            continue
        if arguments.nanogpt:
            for peak in arguments.learning_rates:
                model, bits, seconds = train_nanogpt(arguments.nanogpt, config, files, tokenizer, peak)
                print(
                    f"nanoGPT {shape}, {config.train_tokens:,} tokens, learning rate {peak:g}: {bits:.4f} bits per byte "
                    f"({seconds:.0f} s)",
                    flush=True,
                )
            continue
        print(f"| {shape} | {context:g} | {batch:g} |", end="", flush=True)
        by_factor = []
        for factor in arguments.factors:
            rate = usual.learning_rate * factor
            runs = [replace(config, learning_rate=rate, seed=int(seed)) for seed in arguments.seeds]
            by_factor.append(statistics.mean(train_ours(run, files, tokenizer)[0] for run in runs))
            print(f" {by_factor[-1]:.4f} |", end="", flush=True)
        at_default = by_factor[arguments.factors.index(1)] if 1 in arguments.factors else math.nan
        print(f" {at_default / min(by_factor) - 1:+.2%} |", flush=True)
    if arguments.save:
        save_model(model, arguments.save)


if __name__ == "__main__":
    main()

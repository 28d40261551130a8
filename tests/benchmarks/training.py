"""Measures training: python tests/benchmarks/training.py [--nanogpt FOLDER] [--shapes 470K,2M] [--contexts 128]

For each shape and context: tokens/s, FLOP/s, the share of the device's peak and the peak memory (on the CPU that of a process
of its own) of a whole step (loader, forward, backward, clipping, optimizer) as train.py makes it with the settings of
TRAINCONFIG.py, and, given a folder with nanoGPT's model.py (https://github.com/karpathy/nanoGPT), of the same step as its
train.py makes it, eager and compiled, at the same shape, batch and precision, with the operation that made most of its
attention. Everybody takes turns; the tables show medians. What making a batch takes of a step is the most that a device could
wait for the host. Then attention alone: all ways that work here to compute it with linear biases, and plain causal attention.

FLOPs are those of the matrices, 6 for each weight and token, and of causal attention, 6 * blocks * context * d_model a token
(half of what Chowdhery et al. 2022, arXiv:2204.02311, appendix B count, since half of the scores are never needed).
The peak is the one the maker states, or what a large multiplication of matrices reaches here where none is known.
"""

import argparse
import contextlib
import importlib.util
import io
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask

from alilama.common.config import Config, read_settings
from alilama.common.errors import first_line
from alilama.data.batches import TrainingWindows
from alilama.data.checksums import BlockChecksums
from alilama.data.tokens import BLOCK_TOKENS, TokenFiles, TokenMeta
from alilama.model.attention import alibi_bias, alibi_slopes, block_attention, check_kernel, choose_attention, masked_attention
from alilama.model.device import choose_device
from alilama.model.model import Model, ModelConfig
from alilama.training.optim import make_optimizers
from alilama.training.trainer import Trainer, choose_precision, state_bytes, step_bytes

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {  # d_model, blocks, heads, vocabulary; 15M and 110M as in llama2.c
    "470K": (64, 4, 8, 4096),
    "2M": (128, 8, 8, 4096),
    "7M": (256, 8, 8, 4096),
    "15M": (288, 6, 6, 32_000),
    "110M": (768, 12, 12, 32_000),
}
PEAK_TFLOPS = {  # dense, 16 bit with sums in 32 bit, by the makers' data sheets
    "H200": 989,
    "H100 80GB HBM3": 989,
    "H100 PCIe": 756,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "Tesla T4": 65,
    "RTX 4090": 165,
    "RTX 4080": 97,
    "RTX 4070": 58,
    "RTX 3090": 71,
    "RTX 3080": 60,
    "RTX 3060": 25,
    "RTX 3050": 18,
}


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_peak_flops(device: str, precision: torch.dtype) -> float:
    """Returns the FLOP/s of the multiplication of two large square matrices, the median of several."""
    n = 8192 if device == "cuda" else 2048
    a, seconds = torch.randn(n, n, device=device).to(precision), []
    for _ in range(7):
        synchronize()
        start = time.perf_counter()
        a @ a
        synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(seconds)


def peak_flops(device: str, precision: torch.dtype) -> tuple[float, str]:
    if device == "cuda" and precision != torch.float32:
        for name, tflops in PEAK_TFLOPS.items():
            if re.search(rf"\b{name}\b", torch.cuda.get_device_name()):
                return tflops * 1e12, f"the peak stated for {name}"
    return measure_peak_flops(device, precision), "the peak measured with large matrices"


def peak_memory(arguments: argparse.Namespace, who: str, shape: str, context: int) -> int:
    """Returns the bytes, libraries included, that a process has in use at its peak which only makes three steps of a case."""
    case = [
        "--only",
        who,
        "--shapes",
        shape,
        "--contexts",
        str(context),
        "--tokens",
        str(arguments.tokens),
        "--precision",
        arguments.precision,
        *(["--nanogpt", arguments.nanogpt] if arguments.nanogpt else []),
    ]
    result = subprocess.run([sys.executable, __file__, *case], stdout=subprocess.PIPE, check=True, encoding="utf-8")
    return int(result.stdout.split()[-1])


def print_peak_memory(train_step):
    seconds_of(train_step, 0, 3)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def start_of_memory(device: str) -> int:
    """Returns what a GPU has in use, and begins to look for its peak."""
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def random_windows(name: str, context: int, batch_size: int) -> tuple[ModelConfig, TrainingWindows]:
    """Returns the shape of that name with batches of random tokens."""
    d_model, blocks, num_heads, vocab_size = SHAPES[name]
    shape = ModelConfig(vocab_size, d_model, blocks, num_heads, 4 * d_model, context)
    ids = np.random.default_rng(0).integers(vocab_size, size=2 * batch_size * context + 1, dtype=np.uint16)
    meta = TokenMeta(vocab_size, "", {"train": 1}, {"train": len(ids)}, {"train": 0}, {}, {"train": []})
    start, of_blocks = np.zeros(1, np.int64), BlockChecksums(BLOCK_TOKENS)
    of_blocks.add(ids, start)
    files = TokenFiles(meta, ids, ids, start, np.array([0, 1]), of_blocks.finish(), of_blocks.finish())
    return shape, TrainingWindows(files, context, batch_size, seed=0)


def config_of(shape: ModelConfig, batch_size: int) -> Config:
    """Returns the settings of TRAINCONFIG.py for that shape and batch."""
    of_shape = {name: getattr(shape, name) for name in ("max_seq_len", "d_model", "blocks", "num_heads")}
    return Config(**read_settings(ROOT / "TRAINCONFIG.py")[0] | of_shape | {"batch_size": batch_size})


def make_alilama(shape: ModelConfig, batch_size: int, precision: torch.dtype, device: str, batches: TrainingWindows):
    config = config_of(shape, batch_size)
    model = Model(shape).to(device)
    optimizers = make_optimizers(model, config, precision)
    train_step = Trainer(model, optimizers, config, precision, on_message=print)
    train_step.prepare(torch.from_numpy(batches.batch(0)))
    return lambda step: train_step(torch.from_numpy(batches.batch(step)), 1e-3)


def load_nanogpt(folder: str, shape: ModelConfig):
    """Returns nanoGPT's model of that shape, by the model.py in a folder."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(folder) / "model.py")
    nanogpt = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = nanogpt
    spec.loader.exec_module(nanogpt)
    with contextlib.redirect_stdout(io.StringIO()):
        return nanogpt.GPT(
            nanogpt.GPTConfig(
                block_size=shape.max_seq_len,
                vocab_size=shape.vocab_size,
                n_layer=shape.blocks,
                n_head=shape.num_heads,
                n_embd=shape.d_model,
                dropout=0.0,
                bias=False,
            )
        )


def step_of_nanogpt(model, model_or_compiled, optimizer, scaler, windows: torch.Tensor, precision: torch.dtype):
    """Makes a step on windows, (B, T + 1), as nanoGPT's train.py does."""
    device = next(model.parameters()).device.type
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    if device == "cuda":
        x, y = x.pin_memory().to(device, non_blocking=True), y.pin_memory().to(device, non_blocking=True)
    with torch.autocast(device, dtype=precision, enabled=precision != torch.float32):
        _, loss = model_or_compiled(x, y)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def make_nanogpt(
    folder: str,
    is_compiled: bool,
    shape: ModelConfig,
    batch_size: int,
    precision: torch.dtype,
    device: str,
    batches: TrainingWindows,
):
    model = load_nanogpt(folder, shape).to(device)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), device)
    model_or_compiled = torch.compile(model) if is_compiled else model
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)

    return lambda step: step_of_nanogpt(
        model, model_or_compiled, optimizer, scaler, torch.from_numpy(batches.batch(step)), precision
    )


def seconds_of(train_step, first: int, steps: int) -> float:
    """Returns the seconds that each of `steps` steps takes."""
    synchronize()
    start = time.perf_counter()
    for step in range(first, first + steps):
        train_step(step)
    synchronize()
    return (time.perf_counter() - start) / steps


def attention_operation(train_step, device: str) -> str:
    """Returns the name of the operation or kernel that made most of the attention of a step."""
    with torch.profiler.profile() as profile:
        train_step(0)
        synchronize()
    found = [event for event in profile.key_averages() if re.search("flash|fmha|flex|sdpa|attention", event.key)]
    by_time = {event.key: event.device_time_total if device == "cuda" else event.cpu_time_total for event in found}
    return max(by_time, key=by_time.get, default="no fused one")


def compare_steps(arguments: argparse.Namespace, device: str, precision: torch.dtype):
    peak, its_source = (1, "") if arguments.only else peak_flops(device, precision)
    print(f"\nTraining, {arguments.tokens:,} tokens a step; peak: {peak / 1e12:.2f} TFLOP/s, {its_source}")
    print("| shape | context | who | tokens/s | ours is | GFLOP/s | of peak | memory | attention |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.shapes.split(","):
        for context in map(int, arguments.contexts.split(",")):
            batch_size = max(1, arguments.tokens // context)
            shape, batches = random_windows(name, context, batch_size)
            makers = {"Alilama": make_alilama}
            if arguments.nanogpt:
                makers["nanoGPT eager"] = partial(make_nanogpt, arguments.nanogpt, False)
                makers["nanoGPT compiled"] = partial(make_nanogpt, arguments.nanogpt, True)
            of_case = (shape, batch_size, precision, device, batches)
            if arguments.only:
                print_peak_memory(makers[arguments.only](*of_case))
                return
            steps, memory, seconds = {}, {}, {who: [] for who in makers}
            for who, make in makers.items():
                before = start_of_memory(device)
                steps[who] = make(*of_case)
                seconds_of(steps[who], 0, 5)  # compiles, and records the graph
                if device == "cuda":
                    memory[who] = torch.cuda.max_memory_allocated() - before
                else:
                    memory[who] = peak_memory(arguments, who, name, context)
            for turn in range(arguments.turns):
                for who, train_step in steps.items():
                    seconds[who].append(seconds_of(train_step, 5 + turn * arguments.steps, arguments.steps))
            model = Model(shape).to(device)
            flops = batch_size * context * (6 * model.num_parameters() + 6 * shape.blocks * context * shape.d_model)
            ours = statistics.median(seconds["Alilama"])
            for who in makers:
                s = statistics.median(seconds[who])
                ratio = statistics.median(theirs / own for theirs, own in zip(seconds[who], seconds["Alilama"], strict=True))
                print(
                    f"| {name} | {context} | {who} | {batch_size * context / s:,.0f} | {ratio:.2f}x | {flops / s / 1e9:,.0f} | "
                    f"{flops / s / peak:.1%} | {memory[who] / 1e6:,.0f} MB | {attention_operation(steps[who], device)[:50]} |",
                    flush=True,
                )
            config = config_of(shape, batch_size)
            estimate = state_bytes(model, config) + step_bytes(model, config, precision, batch_size)
            print(f"{name}, {context}: our estimate of our memory, in tensors alone: {estimate / 1e6:,.0f} MB", flush=True)
            host = statistics.median(seconds_of(batches.batch, turn, 20) for turn in range(5))
            print(f"{name}, {context}: making a batch takes the host {host / ours:.2%} of our step", flush=True)
            del steps
            torch._dynamo.reset()


def attention_ways(shape: ModelConfig, device: str) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Returns by name the ways to compute y, (B, T, H, D), of qkv, (B, T, 3, H, D), with linear biases."""
    slopes, T = alibi_slopes(shape.num_heads).to(device), shape.max_seq_len
    if device != "cuda":
        check_kernel()
        return {"ours": lambda qkv: choose_attention(slopes, T, shape.d_model // shape.num_heads)(qkv)} | {
            "masked": lambda qkv: masked_attention(qkv, alibi_bias(slopes, T))
        }
    ways = {}
    for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH):

        def masked(qkv: torch.Tensor, backend: SDPBackend = backend) -> torch.Tensor:
            with sdpa_kernel(backend):
                return masked_attention(qkv, alibi_bias(slopes, T))

        ways[f"masked, {backend.name.partition('_')[0].lower()}"] = torch.compile(masked, dynamic=False)
    mask = create_block_mask(lambda b, h, i, j: i >= j, B=None, H=None, Q_LEN=T, KV_LEN=T, device=device)
    ways["FlexAttention"] = torch.compile(lambda qkv: block_attention(qkv, slopes, mask), dynamic=False)
    return ways


def without_biases(qkv: torch.Tensor) -> torch.Tensor:
    q, k, v = qkv.transpose(1, 3).unbind(2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def compare_attention(arguments: argparse.Namespace, device: str, precision: torch.dtype):
    print("\nAttention, forward and backward; errors are the largest of the outputs and of the gradients, against float32")
    print("| shape | context | way | ms | without biases is | error | of gradient |\n|---|---|---|---|---|---|---|")
    for name in arguments.shapes.split(","):
        for context in map(int, arguments.contexts.split(",")):
            shape = random_windows(name, context, 1)[0]
            size = (max(1, arguments.tokens // context), context, 3, shape.num_heads, shape.d_model // shape.num_heads)
            qkv = torch.randn(size, device=device).to(precision).requires_grad_()
            few = qkv[: 1 + (1 << 27) // (shape.num_heads * context**2)]  # of which scores in float32 fit into memory
            exact = few.detach().float().requires_grad_()
            bias = alibi_bias(alibi_slopes(shape.num_heads).to(device), context)
            expected = masked_attention(exact, bias)
            (expected_gradient,) = torch.autograd.grad(expected.square().sum(), exact)
            ways = attention_ways(shape, device) | {"without biases": torch.compile(without_biases, dynamic=False)}
            seconds, errors = {}, {}
            for way, attend in ways.items():
                try:
                    found = attend(few)
                    (gradient,) = torch.autograd.grad(found.float().square().sum(), few)
                    seconds_of(lambda step, attend=attend, qkv=qkv: attend(qkv).sum().backward(), 0, arguments.steps)
                except Exception as error:  # whatever a backend says of what it cannot do
                    print(f"{name}, {context}, {way}: does not work ({first_line(error)[:80]})", flush=True)
                    continue
                errors[way] = [(a - b).abs().max().item() for a, b in ((found, expected), (gradient, expected_gradient))]
                seconds[way] = []
            for _ in range(arguments.turns):
                for way, its_seconds in seconds.items():
                    spent = seconds_of(lambda step, attend=ways[way], qkv=qkv: attend(qkv).sum().backward(), 0, arguments.steps)
                    its_seconds.append(spent)
            for way, its_seconds in seconds.items():
                ratio = statistics.median(b / a for a, b in zip(its_seconds, seconds["without biases"], strict=True))
                its_errors = " | " if way == "without biases" else f"{errors[way][0]:.2g} | {errors[way][1]:.2g}"
                time_of_way = f"{statistics.median(its_seconds) * 1e3:.2f}"
                print(f"| {name} | {context} | {way} | {time_of_way} | {ratio:.2f}x | {its_errors} |", flush=True)
            torch._dynamo.reset()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="FOLDER", help="folder with nanoGPT's model.py, to run beside ours")
    parser.add_argument("--shapes", default="470K,2M,15M,110M", help=f"of {', '.join(SHAPES)} [all]")
    parser.add_argument("--contexts", default="128,512,1024", help="window lengths in tokens [128,512,1024]")
    parser.add_argument("--tokens", type=int, help="tokens in a step [4096, on a GPU 32768]")
    parser.add_argument("--precision", default="auto", help="bf16, fp16, fp32 or auto [auto]")
    parser.add_argument("--turns", type=int, default=7, help="how often everybody is timed [7]")
    parser.add_argument("--steps", type=int, help="steps timed in a turn [1, on a GPU 20]")
    parser.add_argument("--only", metavar="WHO", help="print the peak memory of one of them on the CPU, in bytes, and end")
    arguments = parser.parse_args()
    device = choose_device()
    arguments.tokens = arguments.tokens or (32_768 if device == "cuda" else 4096)
    arguments.steps = arguments.steps or (20 if device == "cuda" else 1)
    precision = choose_precision(device, arguments.precision)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    print(f"{name}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}")
    compare_steps(arguments, device, precision)
    if not arguments.only:
        compare_attention(arguments, device, precision)


if __name__ == "__main__":
    main()

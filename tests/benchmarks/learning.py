"""Trains nanoGPT's model on our token files, to compare what is learned and what is written:

    python tests/benchmarks/learning.py --nanogpt FOLDER [--shape 2M] [--train_tokens 3e6] [--learning_rates 1e-3,2e-3,4e-3]

prints the bits per byte on the validation tokens of tokens_dir (TRAINCONFIG.py) after training at each learning rate, in
windows that do not overlap, as `alilama.evaluate` and train.py with --eval_tokens=None count them. The model is nanoGPT's
model.py (https://github.com/karpathy/nanoGPT) and the step that of its train.py: AdamW with its settings for small models
(betas 0.9 and 0.99, weight decay 0.1), a warm-up over 2% of the steps, a cosine down to a tenth, gradients clipped to 1, 64
windows of 128 tokens. With --save its last model goes to a file, for tests/benchmarks/samples.py.
"""

import argparse
import contextlib
import io
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_model
from training import SHAPES, load_nanogpt, step_of_nanogpt

from alilama.common.config import read_settings
from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenFiles, load_token_files
from alilama.model.model import ModelConfig, choose_device
from alilama.training.scoring import count_bytes
from alilama.training.trainer import choose_precision

ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE, CONTEXT = 64, 128


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    warmup = round(0.02 * steps) + 1
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


@torch.inference_mode()
def bits_per_byte(model, ids: torch.Tensor, text_bytes: int) -> float:
    """Scores nanoGPT's model on all ids, (N,), but the first, in windows that do not overlap."""
    model.eval()
    full, nats = (len(ids) - 1) // CONTEXT * CONTEXT, 0.0
    windows = list(zip(ids[:full].view(-1, CONTEXT).split(64), ids[1 : full + 1].view(-1, CONTEXT).split(64), strict=True))
    if full < len(ids) - 1:
        windows.append((ids[None, full:-1], ids[None, full + 1 :]))
    for x, y in windows:
        nats += model(x, y)[1].item() * y.numel()
    model.train()
    return nats / math.log(2) / text_bytes


def train(arguments: argparse.Namespace, config: ModelConfig, files: TokenFiles, tokenizer: Tokenizer, peak: float):
    """Trains a model and returns it with its bits per byte."""
    device = choose_device()
    precision = choose_precision(device, arguments.precision)
    torch.manual_seed(1337)
    model = load_nanogpt(arguments.nanogpt, config).to(device)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers(0.1, peak, (0.9, 0.99), device)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
    compiled = torch.compile(model)
    batches = TrainingWindows(files, CONTEXT, BATCH_SIZE, 1)
    steps = round(arguments.train_tokens / (BATCH_SIZE * CONTEXT))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, peak)
        step_of_nanogpt(model, compiled, optimizer, scaler, torch.from_numpy(batches.batch(step)), precision)
    ids = torch.from_numpy(files.val[:].astype("int64")).to(device)
    return model, bits_per_byte(model, ids, count_bytes(tokenizer, files.val[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="FOLDER", required=True, help="folder with nanoGPT's model.py")
    parser.add_argument("--shape", default="2M", help=f"of {', '.join(SHAPES)} [2M]")
    parser.add_argument("--train_tokens", type=float, default=3e6, help="tokens it is trained on [3e6]")
    parser.add_argument("--learning_rates", default="1e-3,2e-3,4e-3", help="peaks to try [1e-3,2e-3,4e-3]")
    parser.add_argument("--precision", default="auto", help="bf16, fp16, fp32 or auto [auto]")
    parser.add_argument("--save", metavar="FILE", help="where the last model's weights go")
    arguments = parser.parse_args()
    folder = Path(read_settings(ROOT / "TRAINCONFIG.py")[0]["tokens_dir"])
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    files = load_token_files(folder, tokenizer)
    d_model, blocks, num_heads, _ = SHAPES[arguments.shape]
    config = ModelConfig(tokenizer.vocab_size, d_model, blocks, num_heads, 4 * d_model, CONTEXT)
    for peak in map(float, arguments.learning_rates.split(",")):
        start = time.perf_counter()
        model, bits = train(arguments, config, files, tokenizer, peak)
        print(
            f"nanoGPT {arguments.shape}, {arguments.train_tokens:,.0f} tokens, learning rate {peak:g}: {bits:.4f} bits per "
            f"byte ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    if arguments.save:
        save_model(model, arguments.save)


if __name__ == "__main__":
    main()

"""Measures the writing of text: python tests/benchmarks/generation.py [--nanogpt FOLDER] [--shapes 2M] [--tokens 512]

For each shape, with random weights in float32: the tokens/s of `stream_batch` for one text and for a batch, of nanoGPT's
`generate`, given a folder with its model.py (https://github.com/karpathy/nanoGPT), and of Transformers' `generate` on the same
weights, each continuing one token by as many as asked for with temperature 0.8. Everybody takes turns; the table shows
medians, and the ratio of ours to theirs in the same turn. On a CUDA GPU also of ours without its graph.

The limit of one text is that every token reads all weights once: their size, divided by the rate at which this device reads a
tensor of that size over and over.
"""

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from training import SHAPES, load_nanogpt, synchronize

from alilama.data.tokenizer import Tokenizer
from alilama.model.device import choose_device
from alilama.model.folder import save_description, save_weights
from alilama.model.model import Model, ModelConfig
from alilama.writing.decoding import TorchDecoder
from alilama.writing.sampling import Sampler, Sampling
from alilama.writing.streams import next_ids, stream_batch


def read_rate(bytes: int, device: str) -> float:
    """Returns the bytes/s at which all threads read a tensor of that size, the best of several."""
    weights, best = torch.ones(bytes // 4, device=device), 0.0
    for _ in range(20):
        synchronize()
        start = time.perf_counter()
        for _ in range(10):
            weights.max()
        synchronize()
        best = max(best, 10 * bytes / (time.perf_counter() - start))
    return best


def write_by_steps(model: Model, tokens: int):
    """Ours on a GPU without a CUDA graph: each operation is launched by Python."""
    with torch.inference_mode():
        sampler = Sampler(Sampling(), [[0]], model, 1, ())
        for _ in islice(next_ids(TorchDecoder(model, 1, tokens + 1, None), sampler, [[0]], ()), tokens):
            pass


def make_transformers(model: Model, device: str):
    """Returns Transformers' model with the same weights."""
    from transformers import AutoModelForCausalLM

    merges = [(i, i + 1) for i in range(model.config.vocab_size - 257)]
    with tempfile.TemporaryDirectory() as folder:
        save_description(Path(folder), model.config, Tokenizer(merges))
        save_weights(Path(folder), model)
        return AutoModelForCausalLM.from_pretrained(folder).to(device).eval()


def make_writers(arguments: argparse.Namespace, config: ModelConfig, device: str) -> dict:
    """Returns by name a function that writes, and how many texts it writes at once."""
    model, batch, tokens = Model(config).to(device).eval(), arguments.batch, arguments.tokens
    writers = {
        "Alilama": (lambda: list(stream_batch(model, [[0]], max_new_tokens=tokens, seed=1)), 1),
        f"Alilama, batch of {batch}": (lambda: list(stream_batch(model, [[0]] * batch, max_new_tokens=tokens, seed=1)), batch),
    }
    if device == "cuda":
        writers["Alilama without a graph"] = (lambda: write_by_steps(model, tokens), 1)
    if arguments.nanogpt:
        peer = load_nanogpt(arguments.nanogpt, config).to(device).eval()
        start = torch.zeros(1, 1, dtype=torch.int64, device=device)
        writers["nanoGPT"] = (lambda: peer.generate(start, tokens, temperature=0.8), 1)
    if arguments.transformers:
        theirs = make_transformers(model, device)
        ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
        settings = {"do_sample": True, "temperature": 0.8, "top_k": 0, "min_new_tokens": tokens, "max_new_tokens": tokens}
        writers["Transformers"] = (lambda: theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings), 1)
    return writers


def compare(arguments: argparse.Namespace, name: str, device: str):
    d_model, blocks, num_heads, vocab_size = SHAPES[name]
    config = ModelConfig(vocab_size, d_model, blocks, num_heads, 4 * d_model, arguments.trained_length)
    writers = make_writers(arguments, config, device)
    rates = {who: [] for who in writers}
    for turn in range(arguments.turns + 1):
        for who, (write, texts) in writers.items():
            synchronize()
            start = time.perf_counter()
            with torch.inference_mode():
                write()
            synchronize()
            if turn > 0:  # the first one warms up
                rates[who].append(texts * arguments.tokens / (time.perf_counter() - start))
    bytes = 4 * Model(config).num_parameters()
    limit = read_rate(bytes, device) / bytes
    print(
        f"\n{name}: {arguments.tokens} tokens after the first, {arguments.turns} turns; the limit of one text is "
        f"{limit:,.0f} tokens/s ({bytes / 1e6:.1f} MB of weights at {limit * bytes / 1e9:.1f} GB/s)"
    )
    print("\n| shape | who | tokens/s | Alilama is |\n|---|---|---|---|")
    for who, its_rates in rates.items():
        ratio = statistics.median(own / its for own, its in zip(rates["Alilama"], its_rates, strict=True))
        print(f"| {name} | {who} | {statistics.median(its_rates):,.0f} | {ratio:.2f}x |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="FOLDER", help="folder with nanoGPT's model.py, to run beside ours")
    parser.add_argument(
        "--transformers", action=argparse.BooleanOptionalAction, default=True, help="run Transformers too [yes]"
    )
    parser.add_argument("--shapes", default="2M", help=f"of {', '.join(SHAPES)} [2M]")
    parser.add_argument("--tokens", type=int, default=512, help="tokens that are written in a text [512]")
    parser.add_argument("--trained_length", type=int, default=128, help="nanoGPT looks back on so many, ours on all [128]")
    parser.add_argument("--batch", type=int, default=64, help="texts in the batch [64]")
    parser.add_argument("--turns", type=int, default=5, help="how often everybody is timed [5]")
    arguments = parser.parse_args()
    device = choose_device()
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    print(f"{name}, float32, torch {torch.__version__}")
    for shape in arguments.shapes.split(","):
        compare(arguments, shape, device)


if __name__ == "__main__":
    main()

"""Checks and measures everything on a GPU by one command: python tests/benchmarks/gpu.py [--nanogpt FOLDER] [--minutes 9]

It needs no network: it builds the C++ in place (--wheels FOLDER installs missing packages from wheels there), runs the tests
that wait for a GPU, then the benchmarks, the most important first, until the minutes are over. What each part prints is
written at once to a file in --folder, and after each part the whole of it to report.md there, so that an interrupted run
still tells most. With --tiny it does all of that in miniature on whatever device there is, to try this script itself.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from alilama.model.device import choose_device

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
LEAST_SECONDS = 5  # for a part: with less time left it is not begun


def parts(arguments: argparse.Namespace) -> dict[str, list]:
    """Returns the commands by name, in the order of their importance."""
    nanogpt = ["--nanogpt", arguments.nanogpt] if arguments.nanogpt else []
    text, tokens = arguments.folder / "stories.txt", arguments.folder / "tokens"
    data = arguments.data or text
    python, tiny = [sys.executable], arguments.tiny

    def training(shapes: str, contexts: str, precision: str, step_tokens: int) -> list:
        if tiny:
            shapes, contexts, step_tokens = "470K", "32", 64
        size = ["--shapes", shapes, "--contexts", contexts, "--tokens", str(step_tokens), "--turns", "1" if tiny else "5"]
        return [*python, BENCHMARKS / "training.py", *nanogpt, *size, "--precision", precision]

    tiny_run = ["--train_tokens=400", "--batch_size=2", "--max_seq_len=32", "--eval_tokens=100"]
    vocabulary = ["--vocab_size=1000" if tiny else "--vocab_size=4096"]
    race_tokens = "2000" if tiny else "22e6"
    return {
        "build": [*python, "setup.py", "build_ext", "--inplace"],
        "tests": [*python, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"],
        "training, bf16": training("2M,470K,15M,110M", "128", "bf16", 8192),
        "training, bf16, context 1,024": training("110M,15M", "1024", "bf16", 32_768),
        "generation": [
            *[*python, BENCHMARKS / "generation.py", *nanogpt, "--no-transformers", "--shapes", "470K" if tiny else "2M,110M"],
            *(["--tokens", "8", "--batch", "2", "--turns", "1"] if tiny else []),
        ],
        "stories": [*python, "data/make_stories.py", "--megabytes", "1" if tiny else "14", "--out", text],
        "tokens": [*python, "tokenize_data.py", f"--data_files={data}", f"--tokens_dir={tokens}", *vocabulary],
        "a run of train.py": [
            *[*python, "train.py", f"--tokens_dir={tokens}", f"--models_dir={arguments.folder}", "--model_name=model"],
            *(tiny_run if tiny else ["--minutes=0.5"]),
        ],
        "time to nanoGPT's loss": [
            *[*python, BENCHMARKS / "learning.py", *nanogpt, "--race", "0.1,0.15,0.2,0.3,0.5", "--train_tokens", race_tokens],
            *["--batches", "64" if tiny else "8192", "--settings", f"tokens_dir={tokens}"],
            *(["--contexts", "32"] if tiny else ["--shapes", "128x8x8"]),
        ],
        "training, fp16": training("2M,110M", "128", "fp16", 8192),
        "training, fp32": training("2M,110M", "128", "fp32", 8192),
        "training, bf16, context 512": training("470K,2M,15M,110M", "512", "bf16", 32_768),
    }


def run(command: list, log: Path, seconds: float) -> str:
    """Runs a command, with its output in a file, and returns how it ended."""
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it started ends with it
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"cut off after {seconds:.0f} s"
    return f"{'done' if code == 0 else f'failed ({code})'} in {time.perf_counter() - started:.0f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="FOLDER", help="folder with nanoGPT's model.py, to run beside ours")
    parser.add_argument("--data", metavar="FILE", help="text to train on [demo stories]")
    parser.add_argument("--wheels", metavar="FOLDER", help="folder with wheels of packages that are missing")
    parser.add_argument("--minutes", type=float, default=9, help="how long all of it may take [9]")
    parser.add_argument("--folder", type=Path, default=Path("gpu"), help="where the results go [gpu]")
    parser.add_argument("--tiny", action="store_true", help="all of it in miniature, on any device")
    arguments = parser.parse_args()
    started = time.perf_counter()
    arguments.folder = arguments.folder.resolve()
    for name in ("nanogpt", "data", "wheels"):
        if getattr(arguments, name):
            setattr(arguments, name, str(Path(getattr(arguments, name)).resolve()))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    device = choose_device()
    card = torch.cuda.get_device_name() if device == "cuda" else f"{device}, no GPU"
    report = f"# {card}, torch {torch.__version__}\n"
    commands = parts(arguments)
    if arguments.wheels:
        wheels = sorted(Path(arguments.wheels).glob("*.whl"))
        commands = {"wheels": [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", *wheels]} | commands
    if arguments.data:
        del commands["stories"]
    if not arguments.nanogpt:
        del commands["time to nanoGPT's loss"]
    for number, (name, command) in enumerate(commands.items()):
        seconds_left = 60 * arguments.minutes - (time.perf_counter() - started)
        log = arguments.folder / f"{number:02}.txt"
        ended = run(command, log, seconds_left) if seconds_left > LEAST_SECONDS else "left out, for the time was over"
        output = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
        tables = "\n".join(line for line in output.splitlines() if line.startswith("|")).replace("\n| shape", "\n\n| shape")
        report += f"\n## {name}: {ended}\n\n{tables}\n\n```\n{output}\n```\n"
        (arguments.folder / "report.md").write_text(report, encoding="utf-8")
        print(f"{name}: {ended}", flush=True)


if __name__ == "__main__":
    main()

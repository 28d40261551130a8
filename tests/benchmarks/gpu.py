"""Checks and measures everything on a GPU by one command: python tests/benchmarks/gpu.py [--nanogpt FOLDER] [--minutes 9]

It needs no network: it builds the C++ in place (--wheels FOLDER first installs packages that are missing), runs the tests that
wait for a GPU, then the benchmarks: a small case of everything first, the rest while the minutes last. No part takes more than
its share of them. What it prints goes at once to log.txt in --folder, and after each part the tables to report.md there, so
that an interrupted run still tells most. With --tiny it does all of that in miniature on whatever device there is, to try
this script itself.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
LEAST_SECONDS = 5  # for a part: with less time left it is not begun


class Part(NamedTuple):
    name: str
    seconds: float  # at most
    command: list


def parts(arguments: argparse.Namespace, work: Path) -> list[Part]:
    """Returns what is to be run, in the order of its importance; what it makes goes to the folder `work`."""
    tiny, python = arguments.tiny, [sys.executable]
    nanogpt = ["--nanogpt", arguments.nanogpt] if arguments.nanogpt else []
    text, tokens = work / "stories.txt", work / "tokens"

    def training(shapes: str, contexts: str, precision: str, step_tokens: int, turns: int) -> list:
        if tiny:
            shapes, contexts, step_tokens, turns = "470K", "32", 64, 1
        size = ["--shapes", shapes, "--contexts", contexts, "--tokens", step_tokens, "--turns", turns]
        return [*python, BENCHMARKS / "training.py", *nanogpt, *size, "--precision", precision]

    def generation(shapes: str) -> list:
        size = ["--shapes", "470K", "--tokens", 8, "--batch", 2, "--turns", 1] if tiny else ["--shapes", shapes]
        return [*python, BENCHMARKS / "generation.py", *nanogpt, "--no-transformers", *size]

    length = ["--batch_size=2", "--train_tokens=400"] if tiny else ["--d_model=128", "--blocks=8", "--train_tokens=3e6"]
    race = ["--shapes", "128x8x8", "--batches", 8192, "--train_tokens", "22e6"]
    if tiny:
        race = ["--contexts", 32, "--batches", 64, "--train_tokens", 2000]
    cuda_tests = [path for path in sorted(ROOT.glob("tests/*/test_*.py")) if "mark.cuda" in path.read_text(encoding="utf-8")]
    together = ["-n", min(8, os.cpu_count() or 1)] if find_spec("xdist") else []  # they compile most of the time
    found = [
        Part("build", 120, [*python, "setup.py", "build_ext", "--inplace"]),
        Part("tests", 150, [*python, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *together, *cuda_tests]),
        Part("training, 2M, bf16", 90, training("2M", "128", "bf16", 8192, 3)),
        Part("generation, 2M", 40, generation("2M")),
    ]
    if not arguments.data:
        found.append(Part("stories", 60, [*python, "data/make_stories.py", "--megabytes", 1 if tiny else 14, "--out", text]))
    found += [
        Part(
            "tokens",
            60,
            [
                *[*python, "tokenize_data.py", f"--data_files={arguments.data or text}", f"--tokens_dir={tokens}"],
                f"--vocab_size={1000 if tiny else 4096}",
            ],
        ),
        Part(
            "a run of train.py",
            90,
            [*python, "train.py", f"--tokens_dir={tokens}", f"--models_dir={work}", "--model_name=model", *length],
        ),
        Part("training, 110M, bf16, context 1,024", 150, training("110M", "1024", "bf16", 32_768, 3)),
    ]
    if arguments.nanogpt:
        race += ["--race", "0.1,0.15,0.2,0.3,0.5", "--learning_rates", "2e-3", "--settings", f"tokens_dir={tokens}"]
        found.append(Part("time to nanoGPT's loss", 120, [*python, BENCHMARKS / "learning.py", *nanogpt, *race]))
    found += [
        Part("training, bf16, context 128", 150, training("470K,15M,110M", "128", "bf16", 8192, 5)),
        Part("training, fp16", 90, training("2M,110M", "128", "fp16", 8192, 3)),
        Part("training, fp32", 90, training("2M,110M", "128", "fp32", 8192, 3)),
        Part("training, bf16, context 512", 150, training("470K,2M,15M,110M", "512", "bf16", 32_768, 3)),
        Part("generation, 110M", 60, generation("110M")),
    ]
    return [part for part in found if part.name not in arguments.without]


def run(command: list, log: Path, seconds: float) -> str:
    """Runs a command, with its output at the end of a file, and returns how it ended."""
    started = time.perf_counter()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
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
    parser.add_argument("--folder", type=Path, default=Path("gpu"), help="where log.txt and report.md go [gpu]")
    parser.add_argument("--without", nargs="+", default=[], metavar="PART", help="parts to leave out, such as build tests")
    parser.add_argument("--tiny", action="store_true", help="all of it in miniature, on any device")
    arguments = parser.parse_args()
    started = time.perf_counter()
    for name in ("nanogpt", "data", "wheels"):
        if getattr(arguments, name):
            setattr(arguments, name, str(Path(getattr(arguments, name)).resolve()))
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    log.write_text("", encoding="utf-8")
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    report = f"# {card}, torch {torch.__version__}\n"
    with tempfile.TemporaryDirectory() as work:
        commands = parts(arguments, Path(work))
        if arguments.wheels:
            wheels = sorted(Path(arguments.wheels).glob("*.whl"))
            install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", *wheels]
            commands.insert(0, Part("wheels", 60, install))
        for part in commands:
            seconds_left = 60 * arguments.minutes - (time.perf_counter() - started)
            before = log.stat().st_size
            ended = "left out, for the time was over"
            if seconds_left > LEAST_SECONDS:
                ended = run(part.command, log, min(part.seconds, seconds_left))
            output = log.read_bytes()[before:].decode(errors="replace").splitlines()
            tables = "\n".join(line for line in output if line.startswith("|")).replace("\n| shape", "\n\n| shape")
            rest = "\n".join([line for line in output if not line.startswith("|")][-30:])
            report += f"\n## {part.name}: {ended}\n\n{tables}\n\n```\n{rest}\n```\n"
            (folder / "report.md").write_text(report, encoding="utf-8")
            print(f"{part.name}: {ended}", flush=True)


if __name__ == "__main__":
    main()

"""Short runs of the scripts in forked children, which share the seconds of importing torch."""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the same sums in the same order
TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS)]

import matplotlib.backends.backend_agg  # noqa: E402, F401, which the first picture would import
import torch  # noqa: E402
import torch._dynamo  # noqa: E402, which the first call of an operator of our own would import
from helpers import write_prose  # noqa: E402

import train  # noqa: E402
from alilama.common.errors import one_line_errors  # noqa: E402

STEPS = 10
SETTINGS = {
    "tokens_dir": "tokens",
    "models_dir": "models",
    "model_name": "owl",
    "d_model": 32,
    "blocks": 1,
    "num_heads": 4,
    "dropout": 0.1,
    "optimizer": "muon",
    "max_seq_len": 16,
    "batch_size": 8,
    "train_tokens": STEPS * 8 * 16,
    "log_interval": 1,
    "eval_interval": 5,
    "eval_tokens": 300,
    "seed": 3,
    "precision": "fp32",
    "compile_model": False,
    "sample_prompt": "Once",
}


def arguments(**changed) -> list[str]:
    return [f"--{name}={value}" for name, value in (SETTINGS | changed).items()]


def make_tokens(folder: Path):
    """Makes token files of short stories in `folder`/tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    assert finish(fork(tokenize, folder)) == 0, (folder / "output.txt").read_text()


def tokenize(seed: int = 1):
    Path("stories.txt").write_text(write_prose(200, seed), encoding="utf-8")
    tokenize_stories()


def tokenize_stories():
    sys.argv = ["tokenize_data.py", "--data_files=stories.txt", "--vocab_size=400", "--val_fraction=0.1", "--tokens_dir=tokens"]
    runpy.run_path(str(ROOT / "tokenize_data.py"), run_name="__main__")


def train_here(**changed):
    train.main(arguments(**changed))


def fork(action: Callable[[], None], folder: Path, *, waits: bool = False) -> int:
    """Starts `action` in a child, in `folder`, with all that it prints in output.txt there; returns its process number.

    With `waits` the child stops itself first, until it gets SIGCONT.
    """
    if pid := os.fork():
        return pid
    try:
        os.chdir(folder)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        if waits:
            os.kill(os.getpid(), signal.SIGSTOP)
        code = 0
        try:
            with one_line_errors():
                action()
        except SystemExit as stopped:
            if isinstance(stopped.code, str):
                print(stopped.code, file=sys.stderr)
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def fork_training(folder: Path, *, waits: bool = False, **changed) -> int:
    return fork(lambda: train_here(**changed), folder, waits=waits)


def finish(pid: int) -> int:
    """Waits for a child and returns its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def timed(pid: int) -> float:
    """Waits for a child that must succeed; returns the seconds it took."""
    started = time.perf_counter()
    assert finish(pid) == 0
    return time.perf_counter() - started


def comparable(value: object) -> object:
    """Returns a value with its tensors as plain ones, bit for bit, so that == compares all of it."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {name: comparable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(part) for part in value]
    return value

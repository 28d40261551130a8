"""Situations that are tried once each, with what comes of them: python tests/faults/situations.py

Files that may not grow (ulimit -f), a user who may not write, an output that is closed in mid-run, pipes where files are
expected, tokens that are cut while they are in use, a process of torchrun that is killed, TensorBoard that fails, and Weights &
Biases where it is installed. Each prints its last lines; where the run ended early, the same command must go on to the end
afterwards. Users need root, and torchrun takes a minute.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from forks import ROOT, arguments, finish, fork, fork_training, make_tokens, tokenize_stories, train_here

from alilama.data.batches import TrainingWindows
from alilama.training import log

SECONDS = 120  # a run takes one or two
NOBODY = 65534


def tried(name: str, action: Callable[[], None], folder: Path, *, goes_on: bool = True) -> bool:
    """Tries something in a child; prints what came of it, and returns whether that is as it has to be."""
    pid = fork(action, folder)
    ended = wait(pid)
    said = (folder / "output.txt").read_text(errors="replace").strip().splitlines()
    is_good = ended != "hangs" and "Traceback (most recent call last):" not in said
    notes = [line for line in said[:-2] if line.startswith("The log goes on")]
    print("\n    ".join([f"\n{name}: {ended}", *notes, *said[-2:]]), flush=True)
    if goes_on:
        shutil.rmtree(folder / "tokens")
        make_tokens(folder)
        code = finish(fork_training(folder))
        said = (folder / "output.txt").read_text()
        is_good = is_good and (code == 0 or "is trained to its end" in said)
        found = [line for line in said.splitlines() if line.startswith(("Going on", "Error"))]
        print(f"  then the same command: exit code {code}. {' '.join(found)}", flush=True)
    return is_good


def wait(pid: int) -> str:
    for _ in range(10 * SECONDS):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return "ended"
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def before_step(step: int, action: Callable[[], None]):
    batch = TrainingWindows.batch

    def batch_and_more(self, at):
        if at == step:
            action()
        return batch(self, at)

    TrainingWindows.batch = batch_and_more


def with_file_size(limit: int):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    train_here()


def as_nobody(action: Callable[[], None]):
    os.environ["HOME"] = "/nonexistent"
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    action()


def with_closed_output():
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    before_step(2, lambda: os.close(reading))
    os.close(writing)
    sys.stdout.reconfigure(line_buffering=True)
    train_here()


def with_pipe(name: str, **changed):
    os.unlink(name)
    os.mkfifo(name)
    train_here(**changed)


def with_tensorboard_that_fails():
    class Writer:
        def __init__(self, *arguments, **options):
            pass

        def add_scalar(self, *arguments):
            raise OSError("the network is down")

        close = add_scalar

    log.import_module = lambda name: type("module", (), {"SummaryWriter": Writer})
    train_here(log_to="tensorboard")


def with_wandb(mode: str, action: Callable[[], None] = lambda: None):
    os.environ["WANDB_MODE"] = mode
    before_step(5, action)
    train_here(log_to="wandb")


def kill_wandb():
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if "wandb-core" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(int(child), signal.SIGKILL)


def torchrun(rank: int):
    """Two processes, of which one kills itself before step 7."""
    Path("killed.py").write_text(
        "import os, signal, sys\nimport train\nbatch = train.TrainingWindows.batch\n"
        "def killed(self, at):\n"
        f"    at == 7 and os.environ['RANK'] == '{rank}' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return batch(self, at)\n"
        "train.TrainingWindows.batch = killed\nwith train.one_line_errors():\n    train.main(sys.argv[1:])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "killed.py", *arguments()]
    result = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    print([line.strip() for line in result.stderr.splitlines() if "exitcode" in line or "Signal" in line][-1])


WANDB = {
    "Weights & Biases, offline": lambda: with_wandb("offline"),
    "Weights & Biases, its process is killed": lambda: with_wandb("offline", kill_wandb),
    "Weights & Biases, its folder is moved away": lambda: with_wandb("offline", lambda: os.rename("models/owl/wandb", "moved")),
    "Weights & Biases, its folder cannot be made": lambda: (
        Path("models/owl").mkdir(parents=True),
        Path("models/owl/wandb").touch(),
        with_wandb("offline"),
    ),
    "Weights & Biases, nobody is logged in": lambda: with_wandb("online"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only those in whose name this is")
    options = parser.parse_args()
    situations: dict[str, tuple[Callable[[], None], bool]] = {
        f"ulimit -f of {limit:,} bytes": (lambda limit=limit: with_file_size(limit), True)
        for limit in (1_000, 50_000, 150_000, 200_000)
    }
    situations |= {
        "nobody, where only root may write": (lambda: as_nobody(train_here), True),
        "nobody makes tokens, where only root may write": (lambda: as_nobody(tokenize_stories), False),
        "the output is closed in mid-run": (with_closed_output, True),
        **{
            f"a pipe as {name}": (lambda name=name: with_pipe(name), False)
            for name in ("tokens/tokenizer.json", "tokens/meta.json", "tokens/train.npy", "tokens/val_checksums.npy")
        },
        "a pipe as training_state.pt": (lambda: with_pipe("models/owl/training_state.pt"), False),
        "tokens are cut in mid-run": (
            lambda: (before_step(7, lambda: os.truncate("tokens/train.npy", 999)), train_here()),
            True,
        ),
        "TensorBoard fails": (with_tensorboard_that_fails, False),
        **({name: (action, False) for name, action in WANDB.items()} if find_spec("wandb") else {}),
        "the second process of torchrun is killed": (lambda: torchrun(1), True),
        "the first process of torchrun is killed": (lambda: torchrun(0), True),
    }
    bad = []
    for name, (action, goes_on) in situations.items():
        if options.only and options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            os.chmod(folder, 0o755)
            make_tokens(folder)
            if name == "a pipe as training_state.pt":
                assert finish(fork_training(folder)) == 0
            bad += [] if tried(name, action, folder, goes_on=goes_on) else [name]
    print(f"\nnot as they have to be: {bad or 'none'}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

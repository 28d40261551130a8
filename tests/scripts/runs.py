"""A short run of train.py, and ways to start it and read what it left."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

STEPS, B, T, SEED = 20, 8, 16, 3
SHAPE = {"d_model": 32, "blocks": 1, "num_heads": 4, "dropout": 0.1}
SETTINGS = SHAPE | {
    "optimizer": "adamw",
    "max_seq_len": T,
    "batch_size": B,
    "train_tokens": STEPS * B * T,
    "learning_rate": 0.01,
    "warmup": 0.2,
    "grad_clip": 0.3,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "log_interval": 1,
    "eval_interval": 5,
    "eval_tokens": 300,
    "seed": SEED,
    "precision": "fp32",
    "compile_model": False,
    "sample_prompt": "Once",
    "models_dir": "models",
    "model_name": "owl",
}


def arguments(**changed) -> list[str]:
    return [f"--{name}={value}" for name, value in (SETTINGS | changed).items()]


def python(folder: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        encoding="utf-8",
    )


def read_log(folder: Path) -> list[dict[str, str]]:
    """The rows of log.csv without the speed, which is never the same twice."""
    with open(folder / "log.csv", newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "tokens_per_s"} for row in csv.DictReader(file)]


# A script that trains, and gets a signal before a step: stops.py SIGNAL STEP SETTINGS...
STOPS = """
import os, signal, sys
import train

name, step = sys.argv[1], int(sys.argv[2])
batch = train.TrainingWindows.batch

def stops(self, at):
    if at == step and os.environ.get("RANK", "1") == "1":  # of several processes only one hears of it
        signal.raise_signal(getattr(signal, name))
    return batch(self, at)

train.TrainingWindows.batch = stops
with train.one_line_errors():
    train.main(sys.argv[3:])
"""

"""Token files and a model that the scripts made, once for all tests of the scripts."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ANIMALS, ROOT
from runs import arguments, python

from alilama.data.batches import TrainingWindows


@pytest.fixture(scope="session")
def made(text_file, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder in which tokenize_data.py was run, and how that went."""
    folder = tmp_path_factory.mktemp("made")
    result = python(
        folder,
        ROOT / "tokenize_data.py",
        f"--data_files={text_file}",
        "--vocab_size=400",
        "--val_fraction=0.1",
        "--tokens_dir=tokens",
    )
    return folder, result


@pytest.fixture(scope="session")
def tokens_dir(made) -> Path:
    assert made[1].returncode == 0, made[1].stderr
    return made[0] / "tokens"


@pytest.fixture(scope="session")
def trained(tokens_dir, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A model folder that was trained without interruption, and how that went."""
    folder = tmp_path_factory.mktemp("trained")
    result = python(folder, ROOT / "train.py", *arguments(tokens_dir=tokens_dir))
    return folder / "models" / "owl", result


@pytest.fixture(scope="session")
def echo(tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess]]:
    """A folder in which the two scripts made a model that repeats an animal when it is asked to, and how that went."""
    folder = tmp_path_factory.mktemp("echo")
    asked = random.Random(1).choices(ANIMALS, k=400)
    rows = [json.dumps({"prompt": f"say {animal}", "completion": f"{animal}!"}) for animal in asked]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    settings = {"d_model": 32, "blocks": 1, "optimizer": "muon", "max_seq_len": 32, "batch_size": 16, "dropout": 0}
    settings |= {"tokens_dir": "t", "train_tokens": 80 * 16 * 32, "learning_rate": 0.02, "eval_interval": 40}
    tokenized = python(folder, ROOT / "tokenize_data.py", "--data_files=rows.jsonl", "--vocab_size=280", "--tokens_dir=t")
    set_names = [argument for argument in arguments(**settings) if not argument.startswith("--sample_prompt")]
    return folder, [tokenized, python(folder, ROOT / "train.py", *set_names)]


@pytest.fixture
def owl(trained, tmp_path) -> Path:
    """A copy of the trained model in the folder where `run_here` runs the scripts."""
    return Path(shutil.copytree(trained[0], tmp_path / "models" / "owl"))


@pytest.fixture
def train_here(run_here, tokens_dir):
    def train(**changed):
        run_here("train.py", *arguments(**{"tokens_dir": tokens_dir} | changed))

    return train


@pytest.fixture
def train_refused(refusal, tokens_dir):
    def train(progress=False, **changed) -> str:
        return refusal("train.py", *arguments(**{"tokens_dir": tokens_dir} | changed), progress=progress)

    return train


@pytest.fixture
def before_step(monkeypatch):
    """Calls something before the given step of training."""

    def call(step: int, action):
        batch = TrainingWindows.batch

        def batch_and_more(self, at):
            if at == step:
                action()
            return batch(self, at)

        monkeypatch.setattr(TrainingWindows, "batch", batch_and_more)

    return call

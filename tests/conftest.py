"""What several test files share: a small text, its tokenizer, a tiny model, settings, and ways to run the scripts."""

import io
import os
import random
import runpy
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the scripts: the same sums in the same order
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import torch

from alilama.common.config import Config, read_settings
from alilama.data.tokenizer import Tokenizer
from alilama.model.folder import save_description, save_weights
from alilama.model.model import Model, ModelConfig

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)

NAMES = ["Lily", "Tom", "Mia", "Ben", "Zoë", "Sam", "Anna", "Max"]
ANIMALS = ["cat", "dog", "bird", "fox", "frog", "mouse", "bear", "duck"]
PLACES = ["garden", "forest", "old house", "blue lake", "small town", "kitchen", "big field"]
FEELINGS = ["happy", "sad", "brave", "tired", "proud", "curious", "scared", "kind"]
THINGS = ["ball", "kite", "lamp", "stone", "flower", "cake", "drum", "boat"]


def write_prose(documents: int, seed: int) -> str:
    """Returns short stories with <|endoftext|> lines between them, about 330 bytes each."""
    rng = random.Random(seed)
    stories = []
    for _ in range(documents):
        name, friend, animal = rng.choice(NAMES), rng.choice(NAMES), rng.choice(ANIMALS)
        sentences = [f"Once upon a time, {name} and a {rng.choice(FEELINGS)} {animal} lived near the {rng.choice(PLACES)}."]
        for _ in range(rng.randint(3, 5)):
            found = f"{name} found a {rng.choice(THINGS)} in the {rng.choice(PLACES)} and felt very {rng.choice(FEELINGS)}."
            said = f'"Look at my {rng.choice(THINGS)}!" said {friend}, and the {animal} ran to the {rng.choice(PLACES)}.'
            gave = f"The {animal} was {rng.choice(FEELINGS)}, so {name} gave it {rng.randint(2, 12)} {rng.choice(THINGS)}s."
            sentences.append(rng.choice([found, said, gave]))
        stories.append(" ".join(sentences) + f"\nThen {name} went home.\n\nThe end…")
    return "\n<|endoftext|>\n".join(stories) + "\n"


@pytest.fixture(scope="session")
def text() -> str:
    return write_prose(200, seed=1)


@pytest.fixture(scope="session")
def text_file(text, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="session")
def tokenizer(text_file) -> Tokenizer:
    return Tokenizer.train(str(text_file), 400)


@pytest.fixture(scope="session")
def other_tokenizer(text_file) -> Tokenizer:
    return Tokenizer.train(str(text_file), 399)


def tiny_model(vocab_size: int, *, seed: int = 0, **shape) -> Model:
    torch.manual_seed(seed)
    shape = {"d_model": 32, "blocks": 2, "num_heads": 4, "max_seq_len": 16} | shape
    return Model(ModelConfig(vocab_size, **{"hidden_dim": 4 * shape["d_model"]} | shape)).eval()


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    """A model folder with random weights, large enough that the text before matters."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_model(tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    return folder


@pytest.fixture
def make_config():
    """Returns the settings of TRAINCONFIG.py with some of them changed."""

    def make(**changed) -> Config:
        return Config(**read_settings(ROOT / "TRAINCONFIG.py")[0] | changed)

    return make


@pytest.fixture
def run(tmp_path):
    """Runs `python ARGUMENTS` in tmp_path with this tree's package, and returns what came of it."""

    def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        # so that the tests of a copied tree run the copied package
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            timeout=120,
            encoding="utf-8",
            errors="replace",
        )

    return run_python


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Runs a script (a file of the root or a module) in tmp_path inside this process, much faster than `run`."""

    def run_in_process(script: str, *arguments: str):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if script.endswith(".py"):
                runpy.run_path(str(ROOT / script), run_name="__main__")
            else:
                monkeypatch.delitem(sys.modules, script, raising=False)
                runpy.run_module(script, run_name="__main__")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return run_in_process


@pytest.fixture
def refusal(run_here):
    """Runs a script as `run_here` does; it must end with one line of error, which is returned."""

    def run_refused(script: str, *arguments: str, progress: bool = False) -> str:
        """With `progress` the mistake shows only after progress bars have been drawn."""
        with redirect_stderr(io.StringIO()) as stderr, pytest.raises(SystemExit) as stopped:
            run_here(script, *arguments)
        message = stopped.value.code
        assert isinstance(message, str) and message.startswith("Error: ") and len(message.splitlines()) == 1, message
        assert progress or not stderr.getvalue()
        return message

    return run_refused

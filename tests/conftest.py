"""Fixtures that several test files share: a small text, its tokenizer, a tiny model, settings, ways to run the scripts."""

import io
import os
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
from helpers import ROOT, tiny_model, write_model, write_prose

from alilama.common.config import Config, read_settings
from alilama.data.tokenizer import Tokenizer
from alilama.model.folder import save_description, save_weights

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Tests marked `cuda` run where there is a CUDA GPU, those marked `posix` everywhere but on Windows."""
    lacking = {"cuda": not torch.cuda.is_available(), "posix": os.name != "posix"}
    for item in items:
        for name in filter(lacking.get, lacking):
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"not on this machine: {name}"))


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


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny", tokenizer)


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """A model folder of its own for every test, to be damaged."""
    model = tiny_model(tokenizer.vocab_size)
    save_description(tmp_path / "tiny", model.config, tokenizer)
    save_weights(tmp_path / "tiny", model)
    return tmp_path / "tiny"


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

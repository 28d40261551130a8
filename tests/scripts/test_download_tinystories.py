"""data/download_tinystories.py on small local datasets: the real streaming, no network."""

import importlib.util
import random
import sys
from pathlib import Path

import datasets
import pytest
from helpers import ROOT

from alilama import _bpe
from alilama.common.errors import UserError, one_line_errors
from alilama.data import hub
from alilama.data.text import find_sources

SCRIPT = ROOT / "data" / "download_tinystories.py"
spec = importlib.util.spec_from_file_location("download_tinystories", SCRIPT)
download_tinystories = importlib.util.module_from_spec(spec)
spec.loader.exec_module(download_tinystories)
write_stories = download_tinystories.write_stories

TRAIN = ["  One day,\r\nTom ran.\n", "", " \r\n ", "“Hi”, she said.", "A\n<|endoftext|>\nB <|endoftext|> C", "<|endoftext|>\n"]
TRAIN_FILE = "One day,\nTom ran.\n<|endoftext|>\n“Hi”, she said.\n<|endoftext|>\nA\nB <|endoftext|> C\n<|endoftext|>\n"


def documents(path):
    return [document.decode() for document in _bpe.split_documents(path.read_bytes()) if document]


@pytest.fixture
def local_dataset(tmp_path):
    """Two parquet files that the script, run in tmp_path, takes for the dataset on the hub."""
    folder = tmp_path / "roneneldan" / "TinyStories" / "data"
    for split, stories in (("train", TRAIN), ("validation", ["The end."])):
        datasets.Dataset.from_dict({"text": stories}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_splits_become_one_file_each_of_which_only_one_is_in_raw(tmp_path, local_dataset, run):
    done = run(SCRIPT, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/raw/tinystories.txt").read_bytes() == TRAIN_FILE.encode()
    assert (tmp_path / "data/tinystories_valid.txt").read_bytes() == b"The end.\n<|endoftext|>\n"
    assert [source.path.name for source in find_sources(str(tmp_path / "data/raw"))] == ["tinystories.txt"]
    assert not list(tmp_path.rglob("*.part"))
    assert done.stdout.splitlines()[-1].endswith(f"--val_files={Path('data/tinystories_valid.txt')}")
    assert "raw/tinystories.txt" in done.stderr and "Traceback" not in done.stderr  # the bar


def test_a_damaged_download_leaves_no_file_and_one_line(tmp_path, local_dataset, run):
    parquet = local_dataset / "train-00000-of-00001.parquet"
    content = parquet.read_bytes()
    parquet.write_bytes(content[:4] + b"\x55" * 60 + content[64:])
    done = run(SCRIPT, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: hf://roneneldan/TinyStories cannot be read (")
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["tinystories_valid.txt"]


def test_without_a_network_there_is_one_line(tmp_path, run):
    done = run(SCRIPT, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1 and done.stdout == "roneneldan/TinyStories is " + download_tinystories.HOW_LARGE + ".\n"
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: hf://roneneldan/TinyStories?split=validation cannot") and "network" in done.stderr
    assert not (tmp_path / "data").exists()


def test_without_the_datasets_package_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        download_tinystories.main(["--out", str(tmp_path)])


def test_texts_become_documents(tmp_path):
    assert write_stories(map(str.encode, TRAIN), tmp_path / "stories.txt") == 3
    assert (tmp_path / "stories.txt").read_bytes() == TRAIN_FILE.encode()


def test_no_story_forges_a_separator(tmp_path):
    rng = random.Random(1)
    parts = ["<|endoftext|>", "\n", "\r", "\r\n", " ", "\t", "\u2028", "\ufeff", "\u00a0", "\x1c", "word"]
    stories = ["".join(rng.choices(parts, k=rng.randrange(9))) for _ in range(5000)]
    number = write_stories(map(str.encode, stories), tmp_path / "stories.txt")
    found = documents(tmp_path / "stories.txt")
    assert len(found) == number > 1000
    assert sum(document.count("word") for document in found) == sum(story.count("word") for story in stories)


@pytest.mark.parametrize("failure", [ConnectionError("reset"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_nothing_and_what_was_there_before(tmp_path, failure):
    def rows():
        yield b"A whole story."
        raise failure

    for before in (None, b"older"):
        if before:
            (tmp_path / "stories.txt").write_bytes(before)
        with pytest.raises(type(failure)):
            write_stories(rows(), tmp_path / "stories.txt")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


@pytest.fixture(autouse=True)
def a_row_at_a_time(monkeypatch):
    """Datasets are not kept from test to test, and no row is read before it is wanted."""
    hub.load.cache_clear()
    monkeypatch.setattr(hub, "BATCH_ROWS", 1)
    yield
    hub.load.cache_clear()


def rows_then(failure):
    def rows():
        yield {"text": "A whole story."}
        raise failure

    return datasets.IterableDataset.from_generator(rows)


@pytest.mark.parametrize(
    "failure, line",
    [
        (RuntimeError("the peer\nclosed"), r"Error: hf://.* cannot be read .*RuntimeError: the peer closed.*network.*"),
        (KeyboardInterrupt(), r"Stopped\."),
    ],
)
def test_a_download_that_breaks_off_ends_in_one_line(tmp_path, monkeypatch, failure, line):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: rows_then(failure))
    with pytest.raises(SystemExit, match=f"^{line}$"), one_line_errors():
        download_tinystories.main(["--out", str(tmp_path)])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_max_stories_stops_early_and_refuses_none(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: rows_then(AssertionError("read on")))
    download_tinystories.main(["--out", str(tmp_path), "--max_stories", "1"])
    assert documents(tmp_path / "raw/tinystories.txt") == documents(tmp_path / "tinystories_valid.txt") == ["A whole story."]
    with pytest.raises(UserError, match="--max_stories 0"):
        download_tinystories.main(["--out", str(tmp_path / "other"), "--max_stories", "0"])


def test_a_file_that_is_there_is_kept_and_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: rows_then(AssertionError("read on")))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/tinystories.txt").write_text("mine")
    download_tinystories.main(["--out", str(tmp_path), "--max_stories", "1"])
    assert (tmp_path / "raw/tinystories.txt").read_text() == "mine"
    assert "tinystories.txt is there already and is kept" in capsys.readouterr().out

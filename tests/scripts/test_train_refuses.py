"""What train.py refuses in one line."""

import json
import os
import shutil
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, files_of
from runs import B, T, read_log

from alilama.common import files
from alilama.common.errors import UserError
from alilama.data.checksums import CHECKSUM, checksum_of
from alilama.data.tokenizer import Tokenizer
from alilama.training import log


def test_a_finished_model_is_not_touched_by_the_same_command(owl, train_refused):
    before = files_of(owl)
    message = train_refused()
    assert "trained to its end (20 steps)" in message and "--init_from=" in message and "--model_name" in message
    assert files_of(owl) == before


@pytest.mark.parametrize(("split", "use"), [("train", "trained"), ("val", "validated")])
def test_other_token_files_of_the_same_tokenizer_are_another_run(split, use, owl, train_refused, tokens_dir, tmp_path):
    shutil.copytree(tokens_dir, tmp_path / "shorter")
    ids = np.load(tokens_dir / f"{split}.npy")
    save_tokens(tmp_path / "shorter", split, ids[:-10])
    message = train_refused(tokens_dir="shorter")
    assert f"owl was {use} on other text ({len(ids):,} tokens, now {len(ids) - 10:,})" in message
    assert "--model_name" in message


@pytest.mark.parametrize(("split", "use"), [("train", "trained"), ("val", "validated")])
def test_the_same_text_in_another_order_is_another_run(split, use, owl, train_refused, tokens_dir, tmp_path):
    shutil.copytree(tokens_dir, tmp_path / "turned")
    ids = np.load(tokens_dir / f"{split}.npy")
    second = np.flatnonzero(ids == ids[0])[1]  # where the second document begins
    save_tokens(tmp_path / "turned", split, np.append(ids[second:], ids[:second]))
    assert f"owl was {use} on other text, of the same number of tokens; choose" in train_refused(tokens_dir="turned")


def save_tokens(folder, split: str, ids: np.ndarray):
    """Puts ids into token files, with all that has to fit them."""
    meta = json.loads((folder / "meta.json").read_text())
    starts = np.flatnonzero(ids == ids[0]) if split == "train" else np.array([], np.int64)
    checksums, read_before = np.array([checksum_of(ids, starts)], CHECKSUM), 0
    if split == "train":
        np.save(folder / "train_documents.npy", starts)
        np.save(folder / "train_blocks.npy", blocks := np.array([0, len(starts)]))
        read_before = zlib.crc32(blocks)
    np.save(folder / f"{split}.npy", ids)
    np.save(folder / f"{split}_checksums.npy", checksums)
    meta["tokens"][split], meta["checksums"][split] = len(ids), zlib.crc32(checksums, read_before)
    (folder / "meta.json").write_text(json.dumps(meta))


def test_the_same_text_by_another_tokenizer_is_another_run(owl, train_refused, run_here, text_file):
    settings = [f"--data_files={text_file}", "--vocab_size=390", "--val_fraction=0.1", "--tokens_dir=others"]
    run_here("tokenize_data.py", *settings)
    assert "owl was trained with another tokenizer; choose" in train_refused(tokens_dir="others")


@pytest.mark.parametrize(
    "changed",
    [
        {"d_model": 64},
        {"blocks": 2},
        {"num_heads": 8},
        {"hidden_dim": 64},
        {"max_seq_len": 32},
        {"dropout": 0.2},
        {"batch_size": 4},
        {"train_tokens": 5000},
        {"learning_rate": 0.02},
        {"warmup": 0.5},
        {"weight_decay": 0.0},
        {"beta1": 0.5},
        {"beta2": 0.5},
        {"grad_clip": 2.0},
        {"optimizer": "muon"},
        {"seed": 4},
        {"precision": "bf16"},
    ],
)
def test_a_run_with_another_setting_is_refused_and_leaves_the_model(changed, owl, train_refused):
    before = files_of(owl)
    [name] = changed
    message = train_refused(**changed)
    assert f"holds a run with {name} = " in message and "--model_name" in message
    assert files_of(owl) == before


def test_a_model_without_a_training_state_is_not_overwritten(owl, train_refused):
    (owl / "training_state.pt").unlink()
    before = files_of(owl)
    assert "would be overwritten" in train_refused(model_name="owl", train_tokens=10)
    assert files_of(owl) == before


@pytest.mark.parametrize("content", [{"another": "file"}, [1], torch.zeros(3)], ids=["dict", "list", "tensor"])
def test_a_foreign_training_state_is_refused(content, owl, train_refused):
    torch.save(content, owl / "training_state.pt")
    assert "training_state.pt" in train_refused()


def test_a_damaged_training_state_is_refused(owl, train_refused):
    (owl / "training_state.pt").write_bytes((owl / "training_state.pt").read_bytes()[:1000])
    assert "training_state.pt is damaged" in train_refused()


def test_a_model_with_another_tokenizer_is_no_start(owl, train_refused, run_here, text_file, tmp_path, tokens_dir):
    run_here("tokenize_data.py", f"--data_files={text_file}", "--vocab_size=390", "--tokens_dir=others")
    for setting in ("init_from", "teacher"):
        message = train_refused(**{setting: "models/owl"}, model_name="wiser", tokens_dir="others")
        assert "another tokenizer" in message and "tokenize_data.py --init_from=models/owl" in message
    assert not (tmp_path / "models" / "wiser").exists()
    run_here("tokenize_data.py", f"--data_files={text_file}", "--init_from=models/owl", "--tokens_dir=others")
    assert (tmp_path / "others" / "tokenizer.json").read_bytes() == (tokens_dir / "tokenizer.json").read_bytes()


def test_a_model_that_is_not_there_is_no_start(train_refused, refusal, text_file):
    assert "missing" in train_refused(init_from="models/missing")
    for teacher in ("models/missing", "models/missing,models/missing", ",", ""):
        assert "is not a model folder" in train_refused(teacher=teacher)
    assert "missing" in refusal("tokenize_data.py", f"--data_files={text_file}", "--init_from=models/missing", "--tokens_dir=t")


def test_a_mistake_ends_with_exit_code_1_and_one_line(run):
    for script, argument, found in (
        ("tokenize_data.py", "--data_files=nowhere.txt", "data_files: 'nowhere.txt' leads to no file"),
        ("train.py", "--tokens_dir=nowhere", "no token files in nowhere"),
    ):
        result = run(ROOT / script, argument)
        assert result.returncode == 1 and result.stdout == ""
        assert result.stderr.startswith("Error: ") and found in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_seq_len": 1_000_000}, "fewer than one window"),
        ({"num_heads": 5}, "num_heads = 5"),
        ({"models_dir": "a_file"}, "a_file"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast'"),
        ({"sample_prompt": "<|endoftext|>"}, "sample_prompt"),
    ],
)
def test_train_says_mistakes_in_one_line_before_it_starts(changed, message, train_refused, tmp_path):
    (tmp_path / "a_file").write_text("")
    assert message in train_refused(**changed)


@pytest.mark.parametrize("log_to, module", [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(
    log_to, module, train_refused, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install {log_to}" in train_refused(log_to=log_to)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "meta.json").unlink(), "meta.json is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenize_data.py"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda folder: Tokenizer([]).save(folder / "tokenizer.json"), "made by another tokenizer"),
        (lambda folder: (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-2]), "train.npy"),
        (lambda folder: (folder / "val.npy").unlink(), "val.npy"),
    ],
)
def test_damaged_token_files_end_the_training_in_one_line(damage, message, train_refused, tokens_dir, tmp_path):
    shutil.copytree(tokens_dir, tmp_path / "tokens")
    damage(tmp_path / "tokens")
    assert message in train_refused(tokens_dir="tokens")
    assert not (tmp_path / "models").exists()


@pytest.fixture
def ends_in_time():
    """Ends a test that waits for a pipe."""

    def ends(*_):
        raise TimeoutError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, ends)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.posix
@pytest.mark.parametrize(
    "file",
    [
        "tokens/tokenizer.json",
        "tokens/meta.json",
        "tokens/train.npy",
        "models/owl/training_state.pt",
        "models/owl/tokenizer.json",
    ],
)
def test_a_pipe_where_a_file_is_expected_is_refused_and_not_waited_for(
    file, owl, train_refused, tokens_dir, tmp_path, ends_in_time
):
    shutil.copytree(tokens_dir, tmp_path / "tokens")
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    settings = {"init_from": "models/owl", "model_name": "wiser"} if file == "models/owl/tokenizer.json" else {}
    message = train_refused(tokens_dir="tokens", **settings)
    assert Path(file).name in message and ("not an ordinary file" in message or "is missing" in message)


@pytest.mark.posix
def test_pipes_in_place_of_weights_and_of_a_log_are_refused(owl, refusal, ends_in_time):
    for name in ("model.safetensors", "log.csv"):
        (owl / name).unlink()
        os.mkfifo(owl / name)
    assert "model.safetensors is not an ordinary file" in refusal("alilama.generate", "models/owl", "--prompt=Once")
    with pytest.raises(UserError, match=r"log\.csv is not an ordinary file"):
        log.read_log(owl / "log.csv")


@pytest.mark.parametrize("split", ["train", "val"])
def test_tokens_that_become_shorter_while_they_are_in_use_end_the_training_in_one_line_with_a_state(
    split, train_refused, train_here, before_step, tokens_dir, tmp_path, capsys
):
    """Not by SIGBUS, which what is mapped and missing ends a process with."""
    shutil.copytree(tokens_dir, tmp_path / "tokens")
    before_step(7, lambda: os.truncate(tmp_path / "tokens" / f"{split}.npy", 1000))
    assert f"{split}.npy became shorter while it was in use" in train_refused(tokens_dir="tokens", progress=True)
    train_here()
    assert "Going on from step 5" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "val"])
def test_ids_beyond_the_vocabulary_end_the_training_in_one_line(split, train_refused, tokens_dir, tmp_path):
    shutil.copytree(tokens_dir, tmp_path / "tokens")
    ids = np.load(tmp_path / "tokens" / f"{split}.npy")
    ids[::7] = 60_000
    np.save(tmp_path / "tokens" / f"{split}.npy", ids)
    message = train_refused(tokens_dir="tokens", progress=True)
    assert f"{split}.npy" in message and "tokenize_data.py" in message


@pytest.mark.parametrize(
    "changed",
    [{}, {"eval_interval": 2}, {"train_tokens": 5 * B * T}, {"optimizer": "muon"}],
    ids=["as usual", "evaluated before it is noticed", "over before it is noticed", "muon"],
)
def test_a_loss_that_is_not_finite_ends_with_one_line_of_advice(changed, train_refused, tmp_path):
    message = train_refused(progress=True, **{"learning_rate": 1e30, "eval_interval": 1000, "warmup": 0.0} | changed)
    assert "not finite" in message and "smaller learning_rate" in message


def test_a_loss_that_is_not_finite_is_never_logged_as_zero(train_refused, tmp_path):
    train_refused(progress=True, learning_rate=1e30, warmup=0.0, eval_interval=1000)
    assert all(float(row["train_loss"] or "nan") != 0 for row in read_log(tmp_path / "models" / "owl"))


def test_a_full_disk_ends_the_training_in_one_line(train_refused, monkeypatch):
    def no_space(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    assert "No space left" in train_refused()


@pytest.mark.parametrize("damage", [{"model": {}}, {"optimizers": []}, {"optimizers": [5]}, {"rng": {}}])
def test_a_training_state_with_damaged_parts_is_refused(damage, owl, train_refused):
    state = torch.load(owl / "training_state.pt", weights_only=True)
    torch.save(state | {"step": 5} | damage, owl / "training_state.pt")
    assert "training_state.pt is damaged" in train_refused()


@pytest.mark.parametrize("now", [{"slope_rule": "another"}, {"hidden_dim": 64}], ids=["formula", "shape"])
def test_a_run_of_another_architecture_is_refused_and_keeps_its_description(now, owl, train_refused):
    """As after an update of Alilama, or of a change of one's own."""
    state = torch.load(owl / "training_state.pt", weights_only=True)
    torch.save(state | {"step": 1}, owl / "training_state.pt")
    config = json.loads((owl / "config.json").read_text())
    (owl / "config.json").write_text(json.dumps(config | now))
    before = files_of(owl)
    assert "config.json" in train_refused()
    assert files_of(owl) == before

"""tokenize_data.py and train.py from end to end. Signals are sent by the step they are to come at, not left to chance."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from alilama.common import files
from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files
from alilama.model import folder as folders
from alilama.model.folder import load_model
from alilama.model.model import Model, ModelConfig
from alilama.training import resume
from alilama.training.scoring import evaluate
from alilama.writing.streams import stream_text

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


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def tokens_dir(made) -> Path:
    assert made[1].returncode == 0, made[1].stderr
    return made[0] / "tokens"


@pytest.fixture(scope="module")
def trained(tokens_dir, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A model folder that was trained without interruption, and how that went."""
    folder = tmp_path_factory.mktemp("trained")
    result = python(folder, ROOT / "train.py", *arguments(tokens_dir=tokens_dir))
    return folder / "models" / "owl", result


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


# ---- the whole way ----


def test_tokenize_data_makes_a_tokenizer_and_token_files_and_says_what_they_are(made, text_file, text):
    folder, result = made
    assert result.returncode == 0, result.stderr
    assert files_of(folder / "tokens").keys() == {"meta.json", "tokenizer.json", "train.npy", "val.npy"}
    tokenizer = Tokenizer.load(folder / "tokens" / "tokenizer.json")
    assert tokenizer.sha256 == Tokenizer.train(str(text_file), 400).sha256
    tokens = load_token_files(folder / "tokens", tokenizer)
    assert tokens.meta.documents == {"train": 180, "val": 20}
    assert tokenizer.decode(tokens.train[:30]) in "<|endoftext|>" + text
    assert f"{len(tokens.train):,} tokens" in result.stdout and f"{len(tokens.val):,} tokens" in result.stdout
    assert "200 documents" in result.stdout


def test_train_leaves_a_model_that_learned_and_says_what_it_did(trained, tokens_dir):
    folder, result = trained
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "log.csv",
        "loss.png",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_state.pt",
    ]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "tokenizer.json").read_bytes() == (tokens_dir / "tokenizer.json").read_bytes()
    model, tokenizer = load_model(folder)
    assert model.config == ModelConfig(400, 32, 1, 4, 128, T, 0.1)
    assert f"{model.num_parameters():,} parameters" in result.stdout and f"{STEPS} steps of {B * T} tokens" in result.stdout
    story = "".join(stream_text(model, tokenizer, "Once", max_new_tokens=400, temperature=0.7, seed=SEED))
    assert f"Once{story}\n".replace("\r\n", "\n").replace("\r", "\n") in result.stdout  # read with universal newlines


def test_the_log_says_what_happened_at_every_step(trained, tokens_dir):
    folder, _ = trained
    rows = read_log(folder)
    tokenizer = Tokenizer.load(tokens_dir / "tokenizer.json")
    tokens = load_token_files(tokens_dir, tokenizer)
    windows_per_epoch = TrainingWindows(tokens.train, tokenizer.eot_id, T, B, SEED).windows_per_epoch
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [int(row["tokens"]) for row in rows] == [step * B * T for step in range(1, STEPS + 1)]
    assert [float(row["epoch"]) for row in rows] == pytest.approx(
        [step * B / windows_per_epoch for step in range(1, STEPS + 1)], abs=1e-4
    )
    # warm-up over 4 steps, then a line to zero over the other 16
    rates = [0.01 * (step + 1) / 5 for step in range(4)] + [0.01 * (16 - i) / 16 for i in range(16)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates, rel=0.01)
    assert [bool(row["val_loss"]) for row in rows] == [step % 5 == 0 for step in range(1, STEPS + 1)]


def test_the_saved_model_is_the_one_that_was_best_on_the_validation_tokens(trained, tokens_dir):
    folder, _ = trained
    model, tokenizer = load_model(folder)
    val_ids = np.load(tokens_dir / "val.npy")[:301]
    score = evaluate(model, tokenizer, val_ids, T)
    evaluated = [(float(row["val_loss"]), float(row["val_bits_per_byte"])) for row in read_log(folder) if row["val_loss"]]
    assert min(evaluated) == pytest.approx((score.loss, score.bits_per_byte), abs=1e-4)
    assert min(evaluated)[0] < evaluated[0][0] < math.log(400)


def test_a_model_that_gets_worse_does_not_replace_the_best_even_when_the_run_was_stopped(train_here, before_step, monkeypatch):
    scores, of_score, saved, at_step = iter([5.0, 3.0, 4.0, 3.5]), {}, [], []

    def loss(score):
        if score.nats not in of_score:
            of_score[score.nats] = next(scores)
        return of_score[score.nats]

    save_weights, save_state = folders.save_weights, resume.save_state
    monkeypatch.setattr("alilama.training.scoring.Score.loss", property(loss))
    monkeypatch.setattr(folders, "save_weights", lambda folder, model: (saved.append(1), save_weights(folder, model)))
    monkeypatch.setattr(
        resume, "save_state", lambda folder, state: (at_step.append((state["step"], len(saved))), save_state(folder, state))
    )
    before_step(11, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_here()
    train_here()
    assert at_step == [(0, 0), (5, 1), (10, 2), (12, 2), (15, 2), (20, 2)]


def test_the_losses_are_those_of_a_training_loop_written_out(trained, tokens_dir):
    """AdamW (Loshchilov and Hutter 2019), clipping and the schedule by hand, the model and the batches from the package."""
    torch.manual_seed(SEED)
    model = Model(ModelConfig(400, 32, 1, 4, 128, T, 0.1)).train()
    eot_id = Tokenizer.load(tokens_dir / "tokenizer.json").eot_id
    batches = TrainingWindows(np.load(tokens_dir / "train.npy"), eot_id, T, B, SEED)
    first = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    second = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    losses, clipped = [], 0
    torch.manual_seed(SEED)  # of dropout
    for step in range(STEPS):
        rate = 0.01 * (step + 1) / 5 if step < 4 else 0.01 * (20 - step) / 16
        windows = torch.from_numpy(batches.batch(step))
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        losses.append(loss.item())
        gradients = dict(zip(first, torch.autograd.grad(loss, model.parameters()), strict=True))
        norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients.values()))
        clipped += norm > 0.3
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                gradient = gradients[name] * min(1, 0.3 / norm)
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient**2
                if parameter.ndim == 2:
                    parameter.mul_(1 - rate * 0.1)
                mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
                parameter.sub_(rate * mean / (square.sqrt() + 1e-8))
    assert clipped > 0
    assert [float(row["train_loss"]) for row in read_log(trained[0])] == pytest.approx(losses, abs=5e-4)
    assert losses[-1] < losses[0] - 0.3


def test_the_trained_model_writes_a_story(trained, run):
    result = run("-m", "alilama.generate", trained[0], "--prompt", "Once upon a time", "--seed=1", "--max_new_tokens=20")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("Once upon a time") and len(result.stdout) > 30


# ---- stopping and going on ----


STOPS = """
import os, signal, sys
import train

name, step = sys.argv[1], int(sys.argv[2])
batch = train.TrainingWindows.batch

def stops(self, at):
    if at == step and os.environ.get("RANK", "1") == "1":  # of several processes only one hears of it
        os.kill(os.getpid(), getattr(signal, name))
    return batch(self, at)

train.TrainingWindows.batch = stops
with train.one_line_errors():
    train.main(sys.argv[3:])
"""


def test_a_run_that_was_terminated_and_killed_goes_on_to_the_same_losses_and_weights(trained, tokens_dir, tmp_path):
    (tmp_path / "stops.py").write_text(STOPS)
    command = arguments(tokens_dir=tokens_dir)
    terminated = python(tmp_path, "stops.py", "SIGTERM", "7", *command)
    assert terminated.returncode == 0 and "Stopped at step 8 of 20 and saved" in terminated.stdout, terminated.stderr
    killed = python(tmp_path, "stops.py", "SIGKILL", "13", *command)
    assert killed.returncode == -signal.SIGKILL and "Going on from step 8" in killed.stdout
    folder = tmp_path / "models" / "owl"
    assert [int(row["step"]) for row in read_log(folder)] == list(range(1, 14))
    finished = python(tmp_path, ROOT / "train.py", *command)
    assert finished.returncode == 0 and "Going on from step 10" in finished.stdout, finished.stderr
    assert read_log(folder) == read_log(trained[0])
    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert finished.stdout.split("A story by")[1] == trained[1].stdout.split("A story by")[1]
    assert not list(folder.glob("*.part"))


def test_a_killed_run_without_a_checkpoint_begins_again(trained, tokens_dir, train_here, tmp_path, capsys):
    (tmp_path / "stops.py").write_text(STOPS)
    killed = python(tmp_path, "stops.py", "SIGKILL", "3", *arguments(tokens_dir=tokens_dir))
    assert killed.returncode == -signal.SIGKILL
    train_here()
    assert "Going on" not in capsys.readouterr().out
    assert read_log(tmp_path / "models" / "owl") == read_log(trained[0])


def test_a_run_killed_between_saving_the_weights_and_the_state_goes_on_by_the_same_command(train_here, tmp_path, monkeypatch):
    save_state = resume.save_state

    def killed(folder, state):
        if state["step"] > 0:
            raise SystemExit("killed")
        save_state(folder, state)

    monkeypatch.setattr(resume, "save_state", killed)
    with pytest.raises(SystemExit, match="killed"):
        train_here()
    monkeypatch.undo()
    assert (tmp_path / "models" / "owl" / "model.safetensors").exists()
    train_here()
    assert len(read_log(tmp_path / "models" / "owl")) == STEPS


def test_stopping_between_two_rows_of_the_log_loses_none_of_their_losses(train_here, before_step, tmp_path):
    train_here(log_interval=4, model_name="whole")
    before_step(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    train_here(log_interval=4)
    train_here(log_interval=4)
    assert read_log(tmp_path / "models" / "owl") == read_log(tmp_path / "models" / "whole")


def test_what_neither_changes_the_model_nor_the_data_may_change_when_a_run_goes_on(train_here, before_step, tmp_path, trained):
    before_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_here()
    train_here(log_interval=2, eval_interval=20, sample_prompt="A cat", eval_tokens=100, val_fraction=0.3, vocab_size=999)
    rows, whole = read_log(tmp_path / "models" / "owl"), read_log(trained[0])
    assert [int(row["step"]) for row in rows] == [*range(1, 11), *range(12, 21, 2)]
    assert [row["learning_rate"] for row in rows[10:]] == [row["learning_rate"] for row in whole[11::2]]


def test_compiling_does_not_change_how_a_run_goes_on(train_here, before_step, tmp_path, monkeypatch):
    """The example that is compiled must not use up random numbers: with them a resumed run drops out other activations."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    train_here(compile_model=True, model_name="whole")
    before_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_here(compile_model=True)
    train_here(compile_model=True)
    assert read_log(tmp_path / "models" / "owl") == read_log(tmp_path / "models" / "whole")


def test_a_log_whose_last_row_was_cut_by_a_full_disk_does_not_stop_the_run(owl, train_here, before_step, tmp_path):
    shutil.rmtree(owl)
    before_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_here()
    log = (owl / "log.csv").read_text().splitlines(keepends=True)
    (owl / "log.csv").write_text("".join(log) + "1")  # of 11,...
    train_here()
    assert [int(row["step"]) for row in read_log(owl)] == list(range(1, STEPS + 1))


def test_a_finished_model_is_not_touched_by_the_same_command(owl, train_refused):
    before = files_of(owl)
    message = train_refused()
    assert "trained to its end (20 steps)" in message and "--init_from=" in message and "--model_name" in message
    assert files_of(owl) == before


def test_other_token_files_of_the_same_tokenizer_are_another_run(train_here, train_refused, before_step, tokens_dir, tmp_path):
    before_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_here()
    shutil.copytree(tokens_dir, tmp_path / "shorter")
    np.save(tmp_path / "shorter" / "train.npy", np.load(tokens_dir / "train.npy")[:-10])
    meta = json.loads((tmp_path / "shorter" / "meta.json").read_text())
    meta["tokens"]["train"] -= 10
    (tmp_path / "shorter" / "meta.json").write_text(json.dumps(meta))
    assert "holds a run with token files = " in train_refused(tokens_dir="shorter")


def test_text_to_train_on_is_no_text_to_validate_on(refusal, text_file):
    files = [f"--data_files={text_file}", f"--val_files={text_file}"]
    assert "in val_files" in refusal("tokenize_data.py", *files, "--tokens_dir=t")


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
    assert "would be overwritten" in train_refused(model_name="owl", epochs=1)
    assert files_of(owl) == before


@pytest.mark.parametrize("content", [{"another": "file"}, [1], torch.zeros(3)], ids=["dict", "list", "tensor"])
def test_a_foreign_training_state_is_refused(content, owl, train_refused):
    torch.save(content, owl / "training_state.pt")
    assert "training_state.pt" in train_refused()


def test_a_damaged_training_state_is_refused(owl, train_refused):
    (owl / "training_state.pt").write_bytes((owl / "training_state.pt").read_bytes()[:1000])
    assert "training_state.pt is damaged" in train_refused()


# ---- starting from another model ----


def test_training_on_from_a_model_starts_where_it_was(owl, train_here, tmp_path):
    train_here(init_from="models/owl", model_name="wiser")
    before, after = read_log(owl), read_log(tmp_path / "models" / "wiser")
    assert float(after[0]["train_loss"]) < 0.5 * (float(before[0]["train_loss"]) + float(before[-1]["train_loss"]))
    assert len(after) == STEPS


def test_training_on_keeps_the_settings_that_were_asked_for(owl, train_here, tmp_path):
    train_here(init_from="models/owl", model_name="wiser", max_seq_len=24, dropout=0.3)
    config = json.loads((tmp_path / "models" / "wiser" / "config.json").read_text())
    assert config["trained_seq_len"] == 24
    assert config["resid_pdrop"] == 0.3


def test_a_model_with_another_tokenizer_is_no_start(owl, train_refused, run_here, text_file, tmp_path, tokens_dir):
    run_here("tokenize_data.py", f"--data_files={text_file}", "--vocab_size=390", "--tokens_dir=others")
    message = train_refused(init_from="models/owl", model_name="wiser", tokens_dir="others")
    assert "another tokenizer" in message and "tokenize_data.py --init_from=models/owl" in message
    assert not (tmp_path / "models" / "wiser").exists()
    run_here("tokenize_data.py", f"--data_files={text_file}", "--init_from=models/owl", "--tokens_dir=others")
    assert (tmp_path / "others" / "tokenizer.json").read_bytes() == (tokens_dir / "tokenizer.json").read_bytes()


def test_a_model_that_is_not_there_is_no_start(train_refused, refusal, text_file):
    assert "missing" in train_refused(init_from="models/missing")
    assert "missing" in refusal("tokenize_data.py", f"--data_files={text_file}", "--init_from=models/missing", "--tokens_dir=t")


# ---- mistakes ----


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
    ("content", "changed", "message", "progress"),
    [
        ("", {}, "is empty", False),
        ("Once upon a time", {"vocab_size": 5000}, "vocab_size 5000 is more than this text can give", True),
        ("Once upon a time", {"vocab_size": 256}, "vocab_size = 256: expected at least 257", False),
        ("Once upon a time", {"pattern": "(", "vocab_size": 257}, "pattern '('", True),
        ("x", {"vocab_size": 257}, "leaves nothing for", True),
        ("Once upon a time", {"vocab_size": 257, "val_files": "nowhere"}, "val_files: 'nowhere' leads to no file", False),
        ("Once upon a time", {"vocab_size": 257, "tokens_dir": "text.txt"}, "text.txt", True),
    ],
)
def test_tokenize_data_says_mistakes_in_one_line_and_writes_nothing(content, changed, message, progress, refusal, tmp_path):
    (tmp_path / "text.txt").write_text(content)
    settings = {"data_files": "text.txt", "tokens_dir": "tokens"} | changed
    assert message in refusal("tokenize_data.py", *(f"--{name}={value}" for name, value in settings.items()), progress=progress)
    assert not (tmp_path / "tokens").exists() or not list((tmp_path / "tokens").iterdir())


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


def test_a_state_that_gives_no_finite_loss_does_not_replace_a_good_one(train_here, tmp_path):
    """The message promises that the last good state is in the folder."""
    with pytest.raises((SystemExit, ValueError, RuntimeError)):
        train_here(learning_rate=1e30, warmup=0.0, eval_interval=2)
    state = resume.load_state(tmp_path / "models" / "owl")
    if state is not None:
        model = Model(ModelConfig(400, 32, 1, 4, 128, T))
        model.load_state_dict(state["model"])
        assert model.loss(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).isfinite()


def test_one_step_that_is_not_finite_is_passed_over(train_here, before_step, tmp_path, monkeypatch, trained):
    loss, calls = Model.loss, []

    def once_infinite(self, *inputs, **options):
        if self.training:
            calls.append(1)
        return loss(self, *inputs, **options) * (math.inf if len(calls) == 9 and self.training else 1)  # once before

    monkeypatch.setattr(Model, "loss", once_infinite)
    train_here()
    rows, whole = read_log(tmp_path / "models" / "owl"), read_log(trained[0])
    assert rows[:7] == whole[:7]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows[8:])
    assert abs(float(rows[-1]["train_loss"]) - float(whole[-1]["train_loss"])) < 0.3


INTERRUPTED = """
import os, signal, sys
import tokenize_data
from alilama.data.tokenizer import Tokenizer

encode = Tokenizer.encode_block
blocks = []

def interrupts(self, block):
    os.kill(os.getpid(), signal.SIGINT)
    return encode(self, block)

Tokenizer.encode_block = interrupts
with tokenize_data.one_line_errors():
    tokenize_data.main(sys.argv[1:])
"""


def test_ctrl_c_while_tokens_are_written_leaves_no_file_and_no_traceback(run, tmp_path, text_file):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    result = run("interrupted.py", f"--data_files={text_file}", "--vocab_size=300", "--tokens_dir=tokens")
    assert result.returncode != 0 and "Stopped." in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "tokens").iterdir())


def test_a_full_disk_ends_the_training_in_one_line(train_refused, monkeypatch):
    def no_space(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    assert "No space left" in train_refused()


def test_a_terminal_that_lacks_a_character_does_not_stop_the_training(run, tokens_dir, tmp_path):
    result = run(
        ROOT / "train.py",
        *arguments(tokens_dir=tokens_dir, sample_prompt="Zoë", train_tokens=2 * B * T),
        PYTHONIOENCODING="ascii",
    )
    assert result.returncode == 0, result.stderr[-300:]
    assert (tmp_path / "models" / "owl" / "model.safetensors").exists()


# ---- precision and compilation ----


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_half_precision_comes_near_float32(precision, train_here, tmp_path, trained):
    train_here(precision=precision, dropout=0.0, train_tokens=6 * B * T, model_name="half")
    train_here(precision="fp32", dropout=0.0, train_tokens=6 * B * T, model_name="full")
    half, full = (read_log(tmp_path / "models" / name) for name in ("half", "full"))
    assert [float(row["train_loss"]) for row in half] == pytest.approx([float(row["train_loss"]) for row in full], abs=0.03)
    assert [row["train_loss"] for row in half] != [row["train_loss"] for row in full]


def test_a_compiled_model_learns_the_same(train_here, tmp_path, capsys):
    train_here(compile_model=True, dropout=0.0, train_tokens=3 * B * T, model_name="compiled")
    assert "Not compiled" not in capsys.readouterr().out
    train_here(compile_model=False, dropout=0.0, train_tokens=3 * B * T, model_name="eager")
    compiled, eager = (
        [float(row["train_loss"]) for row in read_log(tmp_path / "models" / name)] for name in ("compiled", "eager")
    )
    assert compiled == pytest.approx(eager, abs=1e-4)


def test_without_a_compiler_training_says_so_and_goes_on_as_if_it_had_not_tried(
    train_here, tmp_path, monkeypatch, capsys, trained
):
    def no_compiler(function):
        def compiled(*inputs):
            raise RuntimeError("no C++ compiler found\nand a long story about it")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    train_here(compile_model=True)
    said = [line for line in capsys.readouterr().out.splitlines() if "compiler" in line]
    assert len(said) == 1 and "no C++ compiler found" in said[0] and "--compile_model=False" in said[0]
    assert read_log(tmp_path / "models" / "owl") == read_log(trained[0])


def test_several_processes_learn_what_one_does_and_stop_and_go_on_together(train_here, tokens_dir, tmp_path):
    """Without dropout, which differs between processes, losses differ by rounding only."""
    train_here(dropout=0.0, log_interval=2, model_name="alone")
    (tmp_path / "stops.py").write_text(STOPS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    settings = arguments(tokens_dir=tokens_dir, dropout=0.0, log_interval=2)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outputs = []
    for script in (["stops.py", "SIGTERM", "7"], [ROOT / "train.py"]):
        result = subprocess.run(
            [*command, *script, *settings], cwd=tmp_path, env=environment, capture_output=True, timeout=200, encoding="utf-8"
        )
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert outputs[0].count("Stopped at step 8 of 20 and saved") == 1
    assert outputs[1].count("Going on from step 8") == outputs[1].count("A story by owl") == 1 and "2 x" in outputs[1]
    alone, together = (read_log(tmp_path / "models" / name) for name in ("alone", "owl"))
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    for name in ("train_loss", "val_loss"):
        found, expected = ([float(row[name]) for row in rows if row[name]] for rows in (together, alone))
        assert found == pytest.approx(expected, abs=1e-3) and len(found) in (4, 12)


def test_a_batch_that_processes_cannot_share_is_refused(train_refused, monkeypatch):
    monkeypatch.setattr("alilama.training.trainer.join_processes", lambda device: (0, 3))
    assert "batch_size = 8: expected a multiple of the 3 processes" in train_refused()


def test_a_model_that_memorizes_is_told_so_with_what_to_change(train_here, tmp_path, capsys, text_file, run_here):
    (tmp_path / "one.txt").write_text("Ba ke lin mo ra sto. " * 20, encoding="utf-8")
    run_here(
        "tokenize_data.py",
        f"--data_files={tmp_path / 'one.txt'}",
        f"--val_files={text_file}",
        "--vocab_size=270",
        f"--tokens_dir={tmp_path / 'few'}",
    )
    train_here(tokens_dir=tmp_path / "few", train_tokens=80 * B * T, eval_interval=5, dropout=0.0)
    said = [line for line in capsys.readouterr().out.splitlines() if "memorizing" in line]
    assert said and "--train_tokens=" in said[0] and "fewer blocks" in said[0] and "more text" in said[0]


def test_a_run_that_has_not_made_a_step_may_begin_again_with_other_settings(train_here, before_step, tmp_path, monkeypatch):
    def fails():
        raise MemoryError

    before_step(0, fails)
    with pytest.raises((SystemExit, MemoryError)):
        train_here(max_seq_len=32)
    monkeypatch.undo()
    train_here(max_seq_len=24)
    assert len(read_log(tmp_path / "models" / "owl")) > 0


@pytest.mark.parametrize("damage", [{"model": {}}, {"optimizers": []}, {"optimizers": [5]}])
def test_a_training_state_with_damaged_parts_is_refused(damage, owl, train_refused):
    state = torch.load(owl / "training_state.pt", weights_only=True)
    torch.save(state | {"step": 5} | damage, owl / "training_state.pt")
    assert "training_state.pt is damaged" in train_refused()


def test_token_files_do_not_go_where_the_text_is(refusal, text_file):
    message = refusal("tokenize_data.py", f"--data_files={text_file}", f"--tokens_dir={text_file.parent}")
    assert "tokens_dir" in message and "choose another folder" in message

"""The README.md that train.py writes into the folder of a model, and alilama.evaluate adds to."""

import os
import re
import shlex
import signal
from pathlib import Path

import pytest
from helpers import write_text
from runs import STEPS, read_log

import train
from alilama.model.folder import load_model


def read_card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_trained_model_has_a_card_with_its_best_evaluation_and_the_story_that_was_told(trained, text_file):
    folder, result = trained
    text = read_card(folder)
    best = min((row for row in read_log(folder) if row["val_loss"]), key=lambda row: float(row["val_loss"]))
    assert f"| bits per byte | {float(best['val_bits_per_byte']):.3f} |" in text
    assert f"step {best['step']}: " in text and f"trained for | {STEPS} steps" in text and "1 CPU thread in float32" in text
    assert f"`{text_file.name}`" in text and str(text_file.parent) not in text
    story = result.stdout.split("A text by owl:\n\n", 1)[1].split("\n\nThe model is saved", 1)[0]
    assert f"\n```\n{story}\n```\n" in re.sub("\r\n?", "\n", text)
    assert "hf upload owl models/owl --exclude training_state.pt" in result.stdout
    assert "python -m alilama.export models/owl --html owl.html" in result.stdout


def test_what_loggers_note_of_a_machine_is_not_given_away(tmp_path):
    """The patterns are read by huggingface_hub, as those of `hf upload` are."""
    hub = pytest.importorskip("huggingface_hub.utils")
    private = ["training_state.pt", "wandb_run.txt", "wandb/run-1/files/wandb-metadata.json", "tensorboard/events.mine"]
    for name in (*private, "model.safetensors", "README.md"):
        write_text(tmp_path / "owl", name, "")
    words = [word.strip('"') for word in shlex.split(train.upload_command(tmp_path / "owl"), posix=os.name == "posix")]
    assert words[:4] == ["hf", "upload", "owl", str(tmp_path / "owl")] and set(words[4::2]) == {"--exclude"}
    names = [path.relative_to(tmp_path / "owl").as_posix() for path in (tmp_path / "owl").rglob("*") if path.is_file()]
    given = hub.filter_repo_objects(names, ignore_patterns=words[5::2])
    assert set(given) == {"model.safetensors", "README.md"}


def test_the_examples_on_the_card_run(owl, monkeypatch, capsys):
    """In the folder above the model's, where its name is its path."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(owl.parent)
    blocks = re.findall(r"```python\n(.*?)\n```", read_card(owl), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks[:2]:
        exec(block, {})
        assert capsys.readouterr().out.startswith("Once")  # what follows is drawn anew each time
    settings = {}
    exec(blocks[2], settings)
    assert settings["d_model"] == 32 and settings["max_seq_len"] == load_model(owl)[0].config.max_seq_len


def test_a_run_that_was_stopped_has_the_card_of_what_it_saved(train_here, before_step, tmp_path):
    before_step(7, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    assert "| after | step 5: " in read_card(tmp_path / "models" / "owl")


def test_weights_that_are_not_the_best_change_no_card(train_here, before_step, tmp_path, monkeypatch):
    scores, of_score = iter([3.0, 4.0, 5.0]), {}

    def loss(score):
        if score.nats not in of_score:
            of_score[score.nats] = next(scores)
        return of_score[score.nats]

    monkeypatch.setattr("alilama.training.scoring.Score.loss", property(loss))
    seen = []
    before_step(14, lambda: seen.append(read_card(tmp_path / "models" / "owl")))
    before_step(16, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    assert "step 5: " in seen[0] and read_card(tmp_path / "models" / "owl") == seen[0]


def test_a_card_that_cannot_be_written_does_not_end_the_training(train_here, tmp_path, monkeypatch, capfd):
    def disk_is_full(path, text):
        raise OSError("No space left on device")

    monkeypatch.setattr("alilama.training.card.save_card", disk_is_full)
    train_here()
    said = capfd.readouterr().out
    assert "README.md was not written: No space left on device" in said and "The model is saved" in said
    assert len(read_log(tmp_path / "models" / "owl")) == STEPS
    assert not (tmp_path / "models" / "owl" / "README.md").exists()


def test_an_evaluation_goes_into_the_card_with_its_picture(owl, run_here, tmp_path, text_file, capsys):
    before = read_card(owl)
    command = ["alilama.evaluate", owl, "--data", text_file, "--tokens", "200", "--context", "8,32"]
    run_here(*command, "--plot", tmp_path / "other.png")
    assert read_card(owl) == before
    capsys.readouterr()
    run_here(*command)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7 and "```\n" + "\n".join(printed[:-1]) + "\n```\n\n![" in read_card(owl)
    assert "(evaluation.png)" in read_card(owl) and (owl / "evaluation.png").exists()


def test_the_card_of_a_run_that_goes_on_counts_all_of_it(train_here, before_step, tmp_path, trained):
    before_step(7, lambda: signal.raise_signal(signal.SIGINT))
    train_here()
    train_here()
    ours, whole = read_card(tmp_path / "models" / "owl"), read_card(trained[0])
    without_time = [re.sub(r"which took .*? minutes|\([0-9a-f]{16}\)", "", text) for text in (ours, whole)]
    assert without_time[0] == without_time[1]

"""Runs that were stopped or killed go on, and models are trained on. Signals come at a step, not by chance."""

import csv
import json
import shutil
import signal
import time

import pytest
import torch
from matplotlib.backends import backend_agg
from runs import STEPS, STOPS, B, T, arguments, python, read_log
from safetensors.torch import load_file

from alilama.data.batches import TrainingWindows
from alilama.training import resume, scoring
from alilama.training.resume import load_state
from alilama.training.step import Step
from alilama.writing import streams


@pytest.mark.posix
def test_a_run_that_was_terminated_and_killed_goes_on_to_the_same_losses_and_weights(
    trained, tokens_dir, tmp_path, train_here, before_step, capsys
):
    (tmp_path / "stops.py").write_text(STOPS)
    command = arguments(tokens_dir=tokens_dir)
    before_step(7, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    assert "Stopped at step 8 of 20 and saved" in capsys.readouterr().out
    killed = python(tmp_path, "stops.py", "SIGKILL", "13", *command)
    assert killed.returncode == -signal.SIGKILL and "Going on from step 8" in killed.stdout
    folder = tmp_path / "models" / "owl"
    assert [int(row["step"]) for row in read_log(folder)] == list(range(1, 14))
    train_here()
    finished = capsys.readouterr().out
    assert "Going on from step 10" in finished
    assert read_log(folder) == read_log(trained[0])
    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert finished.split("A text by")[1] == trained[1].stdout.split("A text by")[1]
    for name in ("samples.jsonl", "growing.html"):
        assert (folder / name).read_bytes() == (trained[0] / name).read_bytes()
    assert not list(folder.glob("*.part"))


def test_a_run_that_goes_on_with_another_number_of_threads_says_so_and_goes_on_up_to_rounding(
    train_here, before_step, tmp_path, trained, capsys
):
    before_step(9, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    capsys.readouterr()
    torch.set_num_threads(2)
    try:
        train_here()
    finally:
        torch.set_num_threads(1)
    said = [line for line in capsys.readouterr().out.splitlines() if "Going on" in line or "rounding" in line]
    assert said == ["Going on from step 10", "With threads = 2 instead of 1: the losses go on up to rounding"]
    rows, whole = ([float(row["train_loss"]) for row in read_log(folder)] for folder in (tmp_path / "models/owl", trained[0]))
    assert rows[:10] == whole[:10] and rows == pytest.approx(whole, rel=1e-3)


def test_a_run_that_goes_on_says_what_is_computed_in_another_way_than_it_was_and_not_than_it_was_to_be(
    train_here, before_step, tmp_path, monkeypatch, capsys
):
    """There is no compiler either time, and from the fifth step to the first stop memory for half a batch."""

    def compile_nothing(function, **options):
        def compiled(*inputs):
            raise OSError("no compiler here")

        return compiled

    def have_little_memory():
        memory.setattr(Step, "add_gradients", add_few)

    def add_few(self, windows, share):
        if len(windows) > B // 2:
            raise torch.OutOfMemoryError("out of memory")
        add_gradients(self, windows, share)

    add_gradients = Step.add_gradients
    monkeypatch.setattr(torch, "compile", compile_nothing)
    before_step(4, have_little_memory)
    before_step(7, lambda: signal.raise_signal(signal.SIGTERM))
    with monkeypatch.context() as memory:
        train_here(compile_model=True)
    said = capsys.readouterr().out
    assert "Not compiled: no compiler here" in said and "batches are computed 4 windows at a time" in said
    rounding = load_state(tmp_path / "models/owl")["rounding"]
    assert (rounding["compile_model"], rounding["micro_batch"]) == (False, B // 2)
    train_here(compile_model=True)
    said = [line for line in capsys.readouterr().out.splitlines() if "rounding" in line]
    assert said == [f"With micro_batch = {B} instead of {B // 2}: the losses go on up to rounding"]


def test_the_speed_in_the_log_is_that_of_the_steps_alone(train_here, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def takes(seconds: float, owner, name: str):
        function = getattr(owner, name)

        def slower(*arguments, **settings):
            now[0] += seconds
            return function(*arguments, **settings)

        monkeypatch.setattr(owner, name, slower)

    takes(2.0, TrainingWindows, "batch")
    takes(1000.0, scoring, "evaluate")
    takes(1000.0, resume, "save_state")
    takes(1000.0, streams, "stream_text")
    train_here(log_interval=3, eval_interval=5)  # after the last row but one there is one step
    with open(tmp_path / "models" / "owl" / "log.csv", newline="") as file:
        speeds = {int(row["step"]): float(row["tokens_per_s"]) for row in csv.DictReader(file)}
    assert len(speeds) == 9 and set(speeds.values()) == {B * T / 2}


@pytest.mark.posix
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
    before_step(5, lambda: signal.raise_signal(signal.SIGINT))
    train_here(log_interval=4)
    train_here(log_interval=4)
    assert read_log(tmp_path / "models" / "owl") == read_log(tmp_path / "models" / "whole")


def test_what_neither_changes_the_model_nor_the_data_may_change_when_a_run_goes_on(train_here, before_step, tmp_path, trained):
    before_step(9, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    train_here(log_interval=2, eval_interval=20, sample_prompt="A cat", eval_tokens=100, val_fraction=0.3, vocab_size=999)
    rows, whole = read_log(tmp_path / "models" / "owl"), read_log(trained[0])
    assert [int(row["step"]) for row in rows] == [*range(1, 11), *range(12, 21, 2)]
    assert [row["learning_rate"] for row in rows[10:]] == [row["learning_rate"] for row in whole[11::2]]


def test_compiling_does_not_change_how_a_run_goes_on(train_here, before_step, tmp_path, monkeypatch):
    """The example that is compiled must not use up random numbers: with them a resumed run drops out other activations."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    train_here(compile_model=True, model_name="whole")
    before_step(9, lambda: signal.raise_signal(signal.SIGTERM))
    train_here(compile_model=True)
    train_here(compile_model=True)
    assert read_log(tmp_path / "models" / "owl") == read_log(tmp_path / "models" / "whole")


def test_a_log_whose_last_row_was_cut_by_a_full_disk_does_not_stop_the_run(owl, train_here, before_step, tmp_path):
    shutil.rmtree(owl)
    before_step(9, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    log = (owl / "log.csv").read_text().splitlines(keepends=True)
    (owl / "log.csv").write_text("".join(log) + "1")  # of 11,...
    train_here()
    assert [int(row["step"]) for row in read_log(owl)] == list(range(1, STEPS + 1))


def test_a_long_log_is_drawn_a_part_at_a_time(owl, train_here, before_step, tmp_path, monkeypatch):
    """Agg takes 3 KB of memory for each point of a path."""

    class Renderer(backend_agg._RendererAgg):
        def draw_path(self, context, path, *more):
            drawn.append(len(path.vertices))
            super().draw_path(context, path, *more)

    shutil.rmtree(owl)
    before_step(9, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    log = (owl / "log.csv").read_text()
    _, *rest = log.splitlines(keepends=True)[-1].split(",")
    (owl / "log.csv").write_text(log + "".join(",".join([str(9 + i / 5000), *rest]) for i in range(5000)))
    drawn = []
    monkeypatch.setattr(backend_agg, "_RendererAgg", Renderer)
    train_here()
    assert len(read_log(owl)) == 5000 + STEPS
    assert 100 < max(drawn) < 1100 and sum(drawn) > 5000


def test_training_on_from_a_model_starts_where_it_was(owl, train_here, tmp_path):
    train_here(init_from="models/owl", model_name="wiser")
    before, after = read_log(owl), read_log(tmp_path / "models" / "wiser")
    start, *after = after
    assert start["step"] == "0" and float(start["val_loss"]) == pytest.approx(min(vals(before)), abs=1e-4)
    assert float(after[0]["train_loss"]) < 0.5 * (float(before[0]["train_loss"]) + float(before[-1]["train_loss"]))
    assert len(after) == STEPS


def vals(rows: list[dict[str, str]]) -> list[float]:
    return [float(row["val_loss"]) for row in rows if row["val_loss"]]


def test_training_never_makes_a_model_worse_on_what_is_held_out(owl, train_here, tmp_path, capsys):
    train_here(init_from="models/owl", model_name="worse", learning_rate=0.5)
    before, after = (load_file(tmp_path / "models" / name / "model.safetensors") for name in ("owl", "worse"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert (
        "Nothing was learned that helps with text that is held out: the weights of models/owl are kept"
        in capsys.readouterr().out
    )


def test_training_on_keeps_the_settings_that_were_asked_for(owl, train_here, tmp_path):
    train_here(init_from="models/owl", model_name="wiser", max_seq_len=24, dropout=0.3)
    config = json.loads((tmp_path / "models" / "wiser" / "config.json").read_text())
    assert config["trained_seq_len"] == 24
    assert config["resid_pdrop"] == 0.3


def test_a_run_that_has_not_made_a_step_may_begin_again_with_other_settings(train_here, before_step, tmp_path, monkeypatch):
    def fails():
        raise MemoryError

    before_step(0, fails)
    with pytest.raises((SystemExit, MemoryError)):
        train_here(max_seq_len=32)
    monkeypatch.undo()
    train_here(max_seq_len=24)
    assert len(read_log(tmp_path / "models" / "owl")) > 0

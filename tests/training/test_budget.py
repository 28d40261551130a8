"""The setting `minutes`: what is chosen, what stays as it was given, and when a run ends."""

import pytest
import torch
from helpers import ROOT

from alilama.common.config import USUAL, load_config
from alilama.data.tokens import TokenMeta
from alilama.training import budget
from alilama.training.budget import Pace, Shape, choose, matmul_speed, settle
from alilama.training.resume import Run

CHOSEN = USUAL.keys() - {"epochs"}


def meta(text_bytes: int) -> TokenMeta:
    sizes = {"train": text_bytes, "val": text_bytes}
    return TokenMeta(1000, "0", sizes, sizes, sizes, {"train": ["text.txt"], "val": []})


@pytest.fixture
def load(tmp_path):
    def load(*argv: str):
        return load_config(ROOT / "TRAINCONFIG.py", [f"--models_dir={tmp_path}", *argv], "A test.")

    return load


@pytest.fixture
def clock(monkeypatch):
    """A clock of the training loop that stands still but for what is added to it: clock[0] is the time in seconds."""
    now = [1000.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(budget, "matmul_speed", lambda device, precision: 1e11)  # which would wait for ever
    return now


def settle_on_cpu(config, text_bytes: int):
    return settle(config, meta(text_bytes), "cpu", torch.float32)


def test_everything_that_was_left_open_is_chosen_and_the_rest_stays(load):
    config, _ = settle_on_cpu(load("--minutes=3"), 1_000_000)
    assert all(getattr(config, name) is not None for name in (*CHOSEN, "num_heads", "hidden_dim"))
    assert config.epochs is None and config.train_tokens is None
    given, _ = settle_on_cpu(load("--minutes=3", "--d_model=48", "--dropout=0.3", "--batch_size=5"), 1_000_000)
    assert (given.d_model, given.dropout, given.batch_size, given.hidden_dim) == (48, 0.3, 5, 192)
    assert given.blocks == config.blocks


def test_no_more_is_evaluated_than_the_time_allows(load):
    few, _ = settle_on_cpu(load("--minutes=0.01"), 1_000_000)
    many, _ = settle_on_cpu(load("--minutes=10000"), 1_000_000)
    assert few.eval_tokens < many.eval_tokens == 200_000
    assert settle_on_cpu(load("--minutes=10000", "--eval_tokens=None"), 1_000_000)[0].eval_tokens == 1_000_000


def test_without_minutes_nothing_is_chosen(load):
    assert settle_on_cpu(load(), 1000) == (load(), "")


@pytest.mark.parametrize("steps_in_time", [300, 1500, 10_000])
@pytest.mark.parametrize("minutes", [1, 5, 30])
@pytest.mark.parametrize("compiling", [0, 20])
def test_a_run_ends_when_its_minutes_are_over(load, clock, steps_in_time, minutes, compiling):
    seconds_per_step = 60 * minutes / steps_in_time
    config, _ = settle_on_cpu(load(f"--minutes={minutes}"), 1_000_000)
    clock[0] = 1000.0
    run = Run(config, meta(1_000_000), 1000)
    pace = Pace(run, clock[0], "cpu", steps_in_time * config.batch_size * config.max_seq_len // 10)
    clock[0] += compiling
    counts, settled_at = [], None
    while run.step < run.num_steps:
        clock[0] += seconds_per_step * (2 if run.step < 3 else 1)
        run.step += 1
        if pace.is_evaluated():
            clock[0] += pace.evaluation * seconds_per_step + 0.2
        counts.append(run.num_steps)
        settled_at = settled_at or (run.is_settled and run.step)
    assert run.is_settled and settled_at < 0.3 * run.num_steps
    assert set(counts[settled_at - 1 :]) == {run.num_steps}
    assert 0.9 * 60 * minutes <= clock[0] - 1000 <= 60 * minutes


def test_a_run_whose_minutes_are_over_before_it_has_begun_ends_at_once(load, clock):
    config, _ = settle_on_cpu(load("--minutes=1"), 1_000_000)
    run = Run(config, meta(1_000_000), 1000)
    pace = Pace(run, clock[0], "cpu", 1000)
    clock[0] += 100
    while run.step < run.num_steps:
        clock[0] += 1
        run.step += 1
        assert pace.is_evaluated() == (run.step == run.num_steps)
    assert run.step < 10 and run.is_settled


@pytest.mark.parametrize("seconds", [0.001, 0.5, 3, 1000])
@pytest.mark.parametrize("minutes", [None, 20])
def test_evaluations_take_a_twentieth_of_the_time_however_long_they_take(load, clock, seconds, minutes):
    """Steps are as fast as on a GPU, where an evaluation's picture and story take as long as many steps."""
    config, _ = settle_on_cpu(load(f"--minutes={minutes}"), 1_000_000)
    run = Run(config, meta(1_000_000), 400_000)
    started = clock[0]
    pace, evaluations = Pace(run, started, "cpu", 200_000), 0
    assert 0.03 < pace.evaluation / pace.eval_interval <= 0.05
    while run.step < run.num_steps:
        clock[0] += 0.01
        run.step += 1
        if pace.is_evaluated():
            clock[0] += seconds
            evaluations += 1
    assert evaluations >= 2
    if minutes is None:
        assert seconds * (evaluations - 2) <= 0.05 * 0.01 * run.num_steps < 40 * seconds * evaluations or seconds == 0.001
    elif seconds < 100:  # the first alone may take longer than it should
        assert 0.9 * 60 * minutes <= clock[0] - started <= 60 * minutes + seconds


def test_an_interval_that_was_given_stays(load):
    pace = Pace(Run(load("--eval_interval=7"), meta(1000), 10), 0.0, "cpu", 200_000)
    assert pace.eval_interval == 7


def test_the_speed_of_the_machine_is_that_of_its_products():
    assert 1e8 < matmul_speed("cpu", torch.float32) < 1e15


@pytest.mark.parametrize("flops", [1e9, 1e13, 1e18, 1e25])
@pytest.mark.parametrize("text_tokens", [1, 30_000, 3_000_000, 10**12])
@pytest.mark.parametrize("vocab_size", [257, 50_000])
def test_any_machine_and_any_text_gets_a_choice(load, flops, text_tokens, vocab_size):
    choice = choose(flops, text_tokens, vocab_size)
    assert choice.keys() == CHOSEN
    assert choice["max_seq_len"] == 128 if text_tokens >= 30_000 else choice["max_seq_len"] < text_tokens + 1
    load("--minutes=1").with_choice(choice)


def test_more_time_and_more_text_get_larger_models_and_batches():
    def size(flops, text_tokens):
        choice = choose(flops, text_tokens, 4096)
        return Shape(choice["d_model"], choice["blocks"]).numbers(4096), choice["batch_size"]

    for text_tokens in (30_000, 10**9):
        by_time = [size(10.0**power, text_tokens) for power in range(11, 20)]
        assert by_time == sorted(by_time) and by_time[0] < by_time[-1]
    by_text = [size(1e17, 10**power) for power in range(4, 11)]
    assert by_text[-1] != by_text[0]
    assert choose(1e16, 10_000, 4096)["dropout"] > choose(1e16, 10**10, 4096)["dropout"] == 0

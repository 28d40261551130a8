"""The setting `minutes`: what is chosen, what stays as it was given, and when a run ends."""

from dataclasses import dataclass, replace

import pytest
import torch
from helpers import ROOT, tiny_model
from steps import trainer_of

from alilama.common.config import load_config
from alilama.common.errors import UserError
from alilama.data.tokens import TokenMeta
from alilama.model.folder import save_description
from alilama.model.model import ModelConfig
from alilama.training import budget
from alilama.training.budget import CHOSEN, LEAST_BYTES, Pace, Shape, choose, matmul_speed, settle
from alilama.training.resume import Run

DROPOUTS = ((8, 0), (20, 0.1), (40, 0.2), (80, 0.3), (160, 0.4), (1e99, 0.5))  # below so many epochs


def meta(text_bytes: int) -> TokenMeta:
    sizes = {"train": text_bytes, "val": text_bytes}
    return TokenMeta(1000, "0", sizes, sizes, sizes, sizes, {"train": ["text.txt"], "val": []})


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
    assert all(getattr(config, name) is not None for name in CHOSEN)
    assert config.epochs is None and config.train_tokens is None
    given, _ = settle_on_cpu(load("--minutes=3", "--d_model=48", "--dropout=0.3", "--batch_size=5"), 1_000_000)
    assert (given.d_model, given.dropout, given.batch_size, given.hidden_dim) == (48, 0.3, 5, 192)


@pytest.mark.parametrize(
    "given", [[], ["--d_model=512", "--blocks=8"], ["--max_seq_len=1024"], ["--d_model=64"], ["--blocks=12"]]
)
@pytest.mark.parametrize("text_tokens", [30_000, 3_000_000])
def test_batches_and_dropout_are_those_for_what_was_given(given, text_tokens, load):
    flops = 1e11 * 60 * 30
    config = choose(load("--minutes=30", *given), flops, text_tokens, 4096)
    tokens = Shape.of(config).tokens_in(flops, 4096)
    steps = tokens / (config.batch_size * config.max_seq_len)
    assert 1000 < steps < 2200 or config.batch_size in (16, 256)
    epochs = tokens / text_tokens
    assert config.dropout == next(dropout for most, dropout in DROPOUTS if epochs < most)


@pytest.mark.parametrize(
    ("given", "compiled"),
    [([], True), (["--minutes=1.5"], False), (["--minutes=2"], True), (["--minutes=1.5", "--compile_model=True"], True)],
)
def test_a_model_is_compiled_where_the_time_allows_it_unless_somebody_says(given, compiled, load):
    config = load(*given)
    assert (config if config.minutes is None else settle_on_cpu(config, 1_000_000)[0]).compile_model is compiled


def test_a_teacher_takes_time_and_processes_give_it(load):
    def tokens_of(config, **more):
        return Shape.of(config).tokens_in(1e14, 4096, **more)

    config = load("--minutes=30")
    assert tokens_of(Shape(64, 4), teacher_numbers=3 * Shape(64, 4).numbers(4096)) == tokens_of(Shape(64, 4)) / 2
    alone, taught = choose(config, 1e16, 10**8, 4096), choose(config, 1e16, 10**8, 4096, teacher_numbers=10**9)
    assert Shape.of(taught).numbers(4096) != Shape.of(alone).numbers(4096)
    assert choose(config, 1e14, 10**6, 4096, world_size=3).batch_size % 3 == 0


def test_a_model_that_the_memory_does_not_hold_is_refused_before_it_is_made(load, clock, monkeypatch):
    made = tiny_model(1000, d_model=64, blocks=4)
    monkeypatch.setattr(budget, "free_bytes", lambda device: LEAST_BYTES * made.num_parameters())
    for arguments in ([], ["--minutes=3", "--d_model=64", "--blocks=4"]):
        settle_on_cpu(load(*arguments), 1_000_000)
        monkeypatch.setattr(budget, "free_bytes", lambda device: LEAST_BYTES * made.num_parameters() - 1)
        with pytest.raises(
            UserError, match=rf"^d_model = 64, blocks = 4, .* {made.num_parameters():,} parameters.*; lower them$"
        ):
            settle_on_cpu(load(*arguments), 1_000_000)
        monkeypatch.setattr(budget, "free_bytes", lambda device: None)  # it is not known
        settle_on_cpu(load(*arguments), 1_000_000)
        monkeypatch.setattr(budget, "free_bytes", lambda device: LEAST_BYTES * made.num_parameters())
    with pytest.raises(UserError, match="lower them"):
        settle_on_cpu(load("--blocks=10000", "--d_model=8192"), 1_000_000)  # at once, though to make it takes minutes


def test_the_processes_speed_adds_up_and_a_teacher_is_asked_for_its_size(load, clock, tmp_path, tokenizer):
    said = settle_on_cpu(load("--minutes=3"), 1_000_000)[1]
    assert "At 100 GFLOP/s" in said
    assert "At 400 GFLOP/s" in settle(load("--minutes=3"), meta(1_000_000), "cpu", torch.float32, world_size=4)[1]
    save_description(tmp_path / "large", tiny_model(tokenizer.vocab_size, d_model=256, blocks=8).config, tokenizer)
    taught = settle_on_cpu(load("--minutes=3", f"--teacher={tmp_path / 'large'}"), 1_000_000)[1]
    by_two = settle_on_cpu(load("--minutes=3", f"--teacher={tmp_path / 'large'},{tmp_path / 'large'}"), 1_000_000)[1]
    assert "At 100 GFLOP/s" in taught and len({said, taught, by_two}) == 3


@pytest.mark.parametrize("minutes", [None, 3])
def test_a_model_that_is_trained_on_keeps_its_shape(minutes, load, clock, tmp_path, tokenizer):
    model = tiny_model(tokenizer.vocab_size, d_model=48, blocks=3, num_heads=6, hidden_dim=100, max_seq_len=24)
    save_description(tmp_path / "old", model.config, tokenizer)
    settings = [f"--minutes={minutes}", f"--init_from={tmp_path / 'old'}"]
    config, _ = settle_on_cpu(load(*settings), 10_000)
    found = (config.d_model, config.blocks, config.num_heads, config.hidden_dim, config.max_seq_len)
    assert found == (48, 3, 6, 100, 24)
    assert (config.dropout > 0) == (minutes is not None)  # chosen for this text, not the model's
    assert settle_on_cpu(load(*settings, "--max_seq_len=32", "--d_model=48"), 10_000)[0].max_seq_len == 32
    with pytest.raises(UserError, match=r"^d_model = 64: expected 48 as .*old has it, or None$"):
        settle_on_cpu(load(*settings, "--d_model=64"), 10_000)


def test_a_field_of_the_model_that_is_new_is_that_of_the_folder_too(load, tmp_path, tokenizer, monkeypatch):
    @dataclass
    class WithOptimizer(ModelConfig):  # a setting that there is
        optimizer: str = "adamw"

    config = tiny_model(tokenizer.vocab_size).config
    save_description(tmp_path / "old", config, tokenizer)
    monkeypatch.setattr(budget, "load_shape", lambda folder: WithOptimizer(**vars(config)))
    settings = [f"--init_from={tmp_path / 'old'}"]
    settle_on_cpu(load(*settings, "--optimizer=adamw"), 10_000)
    with pytest.raises(UserError, match=r"^optimizer = muon: expected adamw as .*old has it, or None$"):
        settle_on_cpu(load(*settings, "--optimizer=muon"), 10_000)


def test_a_run_that_goes_on_keeps_its_choice_and_nothing_else(load, clock, make_config):
    config, _ = settle_on_cpu(load("--minutes=5", "--log_to=wandb", "--eval_interval=50", "--micro_batch=4"), 1_000_000)
    model = tiny_model(1000, d_model=config.d_model, blocks=config.blocks)
    run = Run(config, meta(1_000_000), 1000)
    run.folder.mkdir(parents=True)
    run.step = 10
    run.save(trainer_of(model, make_config(), torch.float32, on_message=print))
    clock[0] += 1000
    budget_before = budget.matmul_speed
    budget.matmul_speed = None  # nothing is measured again
    try:
        same, said = settle_on_cpu(load("--minutes=5"), 1_000_000)
        fewer, _ = settle_on_cpu(load("--minutes=5", "--eval_tokens=500"), 1_000_000)
    finally:
        budget.matmul_speed = budget_before
    assert said == "" and same == replace(config, log_to=None, eval_interval=None, micro_batch=None)
    assert fewer.eval_tokens == 500
    assert settle_on_cpu(load("--minutes=50"), 1_000_000)[1] != ""


def test_no_more_is_evaluated_than_the_time_allows(load, clock):
    few, _ = settle_on_cpu(load("--minutes=0.01"), 1_000_000)
    many, _ = settle_on_cpu(load("--minutes=10000"), 1_000_000)
    assert few.eval_tokens < many.eval_tokens == 200_000
    assert f"evaluated on {few.eval_tokens:,} tokens" in settle_on_cpu(load("--minutes=0.01"), 1_000_000)[1]
    assert settle_on_cpu(load("--minutes=10000", "--eval_tokens=None"), 1_000_000)[0].eval_tokens == 1_000_000


def test_without_minutes_nothing_is_chosen(load):
    assert settle_on_cpu(load(), 1000) == (load(), "")


def make_steps(pace, clock, seconds_of_step, seconds_of_evaluation) -> tuple[list[int], list[int]]:
    """Makes the steps of a run; returns its number of steps after each that was settled, and after which it was evaluated."""
    run, settled, evaluated = pace.run, [], []
    while run.step < run.num_steps:
        pace.begin_step()
        clock[0] += seconds_of_step(run.step + 1)
        run.step += 1
        if pace.is_evaluated():
            clock[0] += seconds_of_evaluation(run.step)
            evaluated.append(run.step)
        settled += [run.num_steps] if run.is_settled else []
    return settled, evaluated


@pytest.mark.parametrize("steps_in_time", [300, 1500, 10_000])
@pytest.mark.parametrize("minutes", [1, 5, 30])
@pytest.mark.parametrize("compiling", [0, 20])
@pytest.mark.parametrize("eval_interval", [None, 1, 2, 4, 5])
def test_a_run_ends_when_its_minutes_are_over(load, clock, steps_in_time, minutes, compiling, eval_interval):
    seconds_per_step = 60 * minutes / steps_in_time
    config, _ = settle_on_cpu(load(f"--minutes={minutes}", f"--eval_interval={eval_interval}"), 1_000_000)
    started = clock[0]
    run = Run(config, meta(1_000_000), 1000)
    pace = Pace(run, started, "cpu", steps_in_time * config.batch_size * config.max_seq_len // 10)
    clock[0] += compiling
    settled, _ = make_steps(
        pace,
        clock,
        lambda step: seconds_per_step * (2 if step <= 3 else 1),
        lambda step: pace.steps_of_evaluation * seconds_per_step + 0.2,
    )
    assert run.is_settled and set(settled) == {run.num_steps}
    assert clock[0] - started <= 60 * minutes * 1.1
    if eval_interval is None:
        assert len(settled) > 0.7 * run.num_steps
        assert 0.9 * 60 * minutes <= clock[0] - started <= 60 * minutes


@pytest.mark.parametrize("text_tokens", [500, 6_000, 30_000, 200_000, 1_000_000])
@pytest.mark.parametrize("seconds_per_step", [0.002, 0.1, 2])
def test_on_from_a_model_a_text_is_read_five_times_or_until_the_minutes_are_over(
    load, clock, folder, text_tokens, seconds_per_step
):
    config, said = settle_on_cpu(
        load("--minutes=3", f"--init_from={folder}", "--batch_size=16", "--max_seq_len=128"), text_tokens
    )
    assert "a text is read about 5 times at most" in said
    started = clock[0]
    run = Run(config, meta(text_tokens), 1000)
    pace = Pace(run, started, "cpu", 1000)
    lucky = iter([seconds_per_step / 2])  # one step that looks faster than all others
    make_steps(pace, clock, lambda step: next(lucky, seconds_per_step) if step == 5 else seconds_per_step, lambda step: 0.1)
    epochs = run.step * 16 * 128 / text_tokens
    assert clock[0] - started <= 180 and (epochs <= 5 or run.step == 1)
    assert run.step == 1 or epochs > 4 or clock[0] - started > 150


def test_evaluations_are_not_taken_for_steps(load, clock):
    config, _ = settle_on_cpu(load("--minutes=5", "--eval_interval=1"), 1_000_000)
    started = clock[0]
    make_steps(Pace(Run(config, meta(1_000_000), 1000), started, "cpu", 1000), clock, lambda step: 0.1, lambda step: 1)
    assert 0.9 * 300 <= clock[0] - started <= 300


@pytest.mark.parametrize("slow", [5, 6, 9])
@pytest.mark.parametrize("seconds", [2, 4, 10])
def test_one_slow_step_does_not_end_a_run(load, clock, slow, seconds):
    config, _ = settle_on_cpu(load("--minutes=1"), 1_000_000)
    started = clock[0]
    pace = Pace(Run(config, meta(1_000_000), 1000), started, "cpu", 1000)
    make_steps(pace, clock, lambda step: seconds if step == slow else 0.05, lambda step: 0.1)
    assert pace.run.step >= 8 and (seconds > 2 or 40 <= clock[0] - started <= 60)


def test_a_run_whose_minutes_are_over_before_it_has_begun_ends_at_once(load, clock):
    config, _ = settle_on_cpu(load("--minutes=1"), 1_000_000)
    pace = Pace(Run(config, meta(1_000_000), 1000), clock[0], "cpu", 1000)
    clock[0] += 100
    _, evaluated = make_steps(pace, clock, lambda step: 1, lambda step: 0)
    assert pace.run.step < 10 and pace.run.is_settled and evaluated == [pace.run.step]


@pytest.mark.parametrize("seconds", [0.001, 0.5, 3])
@pytest.mark.parametrize("minutes", [None, 20])
def test_evaluations_take_a_twentieth_of_the_time_however_long_they_take(load, clock, seconds, minutes):
    """Steps are as fast as on a GPU, where an evaluation's picture and story take as long as many steps."""
    config, _ = settle_on_cpu(load(f"--minutes={minutes}"), 1_000_000)
    run = Run(config, meta(1_000_000), 100_000)
    started = clock[0]
    pace = Pace(run, started, "cpu", 200_000)
    _, evaluated = make_steps(pace, clock, lambda step: 0.01, lambda step: seconds)
    assert len(evaluated) >= 5
    later = [step for step in evaluated if step > run.num_steps / 10]  # by then the interval is right
    assert seconds * (len(later) - 1) <= 0.05 * 0.01 * run.num_steps
    if minutes is not None:
        assert 0.85 * 60 * minutes <= clock[0] - started <= 60 * minutes + seconds


def test_an_evaluation_that_was_held_up_makes_the_next_ones_rare_and_not_unheard_of(load, clock):
    pace = Pace(Run(load(), meta(1000), 10**6), clock[0], "cpu", 200_000)
    first = pace.eval_interval
    _, evaluated = make_steps(pace, clock, lambda step: 0.05, lambda step: 600.0 if step == first else 0.1)
    assert evaluated[1] <= 9 * first


def test_an_interval_that_was_given_stays(load, clock):
    pace = Pace(Run(load("--eval_interval=7"), meta(1000), 100), 0.0, "cpu", 200_000)
    assert make_steps(pace, clock, lambda step: 0.01, lambda step: 100)[1] == [*range(7, 100, 7), 100]


def test_the_speed_of_the_machine_is_that_of_its_products():
    assert 1e8 < matmul_speed("cpu", torch.float32) < 1e15


@pytest.mark.parametrize("flops", [1e9, 1e13, 1e18, 1e25])
@pytest.mark.parametrize("text_tokens", [1, 30_000, 3_000_000, 10**12])
@pytest.mark.parametrize("vocab_size", [257, 50_000])
def test_any_machine_and_any_text_gets_a_choice(load, flops, text_tokens, vocab_size):
    choice = choose(load("--minutes=1"), flops, text_tokens, vocab_size)
    assert all(getattr(choice, name) is not None for name in CHOSEN)
    assert choice.max_seq_len == 128 if text_tokens >= 30_000 else choice.max_seq_len < text_tokens + 1


def test_more_time_and_more_text_get_larger_models_and_batches(load):
    def chosen(flops, text_tokens):
        choice = choose(load("--minutes=1"), flops, text_tokens, 4096)
        return Shape.of(choice).numbers(4096), choice.batch_size

    for text_tokens in (30_000, 10**9):
        by_time = [chosen(10.0**power, text_tokens) for power in range(11, 20)]
        assert by_time == sorted(by_time) and by_time[0] < by_time[-1]
    by_text = [chosen(1e17, 10**power)[0] for power in range(4, 11)]
    assert by_text[-1] > by_text[0]
    little, much = (choose(load("--minutes=1"), 1e16, text_tokens, 4096).dropout for text_tokens in (10_000, 10**10))
    assert little > much == 0

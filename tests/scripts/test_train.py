"""train.py from end to end: what is learned, written and said."""

import json
import math
import os
import runpy
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ANIMALS, ROOT, write_text
from runs import SEED, SHAPE, STEPS, STOPS, B, T, arguments, read_log

from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import load_token_files
from alilama.model import folder as folders
from alilama.model.folder import load_model
from alilama.model.model import Model, ModelConfig
from alilama.training import budget, resume
from alilama.training.resume import load_state
from alilama.training.scoring import evaluate
from alilama.writing.streams import stream_text

PEAK = 0.01 * (1000 / 60) ** (1 / 3)  # of the learning rate


def test_train_leaves_a_model_that_learned_and_says_what_it_did(trained, tokens_dir, text_file):
    folder, result = trained
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "growing.html",
        "growing.png",
        "log.csv",
        "loss.png",
        "model.safetensors",
        "samples.jsonl",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_state.pt",
    ]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    model, tokenizer = load_model(folder)
    assert tokenizer.sha256 == Tokenizer.load(tokens_dir / "tokenizer.json").sha256
    assert model.config == ModelConfig(400, 32, 1, 4, 128, T, 0.1)
    assert f"{model.num_parameters():,} parameters" in result.stdout and f"{STEPS} steps of {B * T} tokens" in result.stdout
    num_tokens = load_token_files(tokens_dir, tokenizer).meta.tokens["train"]
    assert 10_000 < num_tokens < 99_000  # 3 digits are said: 23.4k
    assert f" epochs of the {num_tokens / 1000:.1f}k of {text_file}\n" in result.stdout
    story = "".join(stream_text(model, tokenizer, "Once", max_new_tokens=400, temperature=0.7, seed=SEED))
    assert f"Once{story}\n".replace("\r\n", "\n").replace("\r", "\n") in result.stdout  # read with universal newlines


def test_the_log_says_what_happened_at_every_step(trained, tokens_dir):
    folder, _ = trained
    rows = read_log(folder)
    tokenizer = Tokenizer.load(tokens_dir / "tokenizer.json")
    tokens = load_token_files(tokens_dir, tokenizer)
    windows_per_epoch = TrainingWindows(tokens, T, B, SEED).windows_per_epoch
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [int(row["tokens"]) for row in rows] == [step * B * T for step in range(1, STEPS + 1)]
    assert [float(row["epoch"]) for row in rows] == pytest.approx(
        [step * B / windows_per_epoch for step in range(1, STEPS + 1)], abs=1e-4
    )
    # warm-up over 4 steps, then a line to zero over the other 16
    rates = [PEAK * (step + 1) / 5 for step in range(4)] + [PEAK * (16 - i) / 16 for i in range(16)]
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
    before_step(11, lambda: signal.raise_signal(signal.SIGTERM))
    train_here()
    train_here()
    assert at_step == [(0, 0), (5, 1), (10, 2), (12, 2), (15, 2), (20, 2)]


def test_the_losses_are_those_of_a_training_loop_written_out(trained, tokens_dir):
    """AdamW (Loshchilov and Hutter 2019), clipping and the schedule by hand, the model and the batches from the package."""
    torch.manual_seed(SEED)
    model = Model(ModelConfig(400, 32, 1, 4, 128, T, 0.1)).train()
    tokens = load_token_files(tokens_dir, Tokenizer.load(tokens_dir / "tokenizer.json"))
    batches = TrainingWindows(tokens, T, B, SEED)
    first = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    second = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    losses, clipped = [], 0
    torch.manual_seed(SEED)  # of dropout
    for step in range(STEPS):
        rate = PEAK * (step + 1) / 5 if step < 4 else PEAK * (20 - step) / 16
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


def test_the_trained_model_writes_a_story(trained, run_here, capsys):
    run_here("alilama.generate", trained[0], "--prompt", "Once upon a time", "--seed=1", "--max_new_tokens=20")
    written = capsys.readouterr()
    assert written.out.startswith("Once upon a time") and len(written.out) > 30
    assert written.err == "(Cut off after 20 tokens: --max_new_tokens.)\n"


def test_a_state_that_gives_no_finite_loss_does_not_replace_a_good_one(train_here, tmp_path):
    """The message promises that the last good state is in the folder."""
    with pytest.raises((SystemExit, ValueError, RuntimeError)):
        train_here(learning_rate=1e30, warmup=0.0, eval_interval=2)
    state = resume.load_state(tmp_path / "models" / "owl")
    if state is not None:
        model = Model(ModelConfig(400, 32, 1, 4, 128, T))
        model.load_state_dict(state["model"])
        assert model.loss(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).isfinite()


def test_one_step_that_is_not_finite_is_skipped(train_here, before_step, tmp_path, monkeypatch, trained):
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


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run(train_refused, monkeypatch):
    loss = Model.loss
    monkeypatch.setattr(
        Model, "loss", lambda self, *inputs, **more: loss(self, *inputs, **more) * math.inf
    )  # evaluation has its own
    assert "not finite any more at step 10;" in train_refused(progress=True)


def test_a_terminal_that_lacks_a_character_does_not_stop_the_training(run, tokens_dir, tmp_path):
    result = run(
        ROOT / "train.py",
        *arguments(tokens_dir=tokens_dir, sample_prompt="Zoë", train_tokens=2 * B * T),
        PYTHONIOENCODING="ascii",
    )
    assert result.returncode == 0, result.stderr[-300:]
    assert (tmp_path / "models" / "owl" / "model.safetensors").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_half_precision_comes_near_float32(precision, train_here, tmp_path, trained):
    train_here(precision=precision, dropout=0.0, train_tokens=6 * B * T, model_name="half")
    train_here(precision="fp32", dropout=0.0, train_tokens=6 * B * T, model_name="full")
    half, full = (read_log(tmp_path / "models" / name) for name in ("half", "full"))
    assert [float(row["train_loss"]) for row in half] == pytest.approx([float(row["train_loss"]) for row in full], abs=0.03)
    assert [row["train_loss"] for row in half] != [row["train_loss"] for row in full]


def test_a_compiled_model_learns_the_same(train_here, tmp_path, capsys):
    train_here(compile_model=True, dropout=0.0, train_tokens=3 * B * T, model_name="compiled")
    said = capsys.readouterr().out
    assert "Not compiled" not in said and "\nCompiling the model" in said
    train_here(compile_model=False, dropout=0.0, train_tokens=3 * B * T, model_name="eager")
    assert "Compiling" not in capsys.readouterr().out
    compiled, eager = (
        [float(row["train_loss"]) for row in read_log(tmp_path / "models" / name)] for name in ("compiled", "eager")
    )
    assert compiled == pytest.approx(eager, abs=1e-4)


def test_without_a_compiler_training_says_so_and_goes_on_as_if_it_had_not_tried(
    train_here, tmp_path, monkeypatch, capsys, trained
):
    def no_compiler(function, **options):
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
            [*command, *script, *settings], cwd=tmp_path, env=environment, capture_output=True, timeout=900, encoding="utf-8"
        )
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert outputs[0].count("Stopped at step 8 of 20 and saved") == 1
    assert outputs[1].count("Going on from step 8") == outputs[1].count("A text by owl") == 1 and "2 x" in outputs[1]
    alone, together = (read_log(tmp_path / "models" / name) for name in ("alone", "owl"))
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    for name in ("train_loss", "val_loss"):
        found, expected = ([float(row[name]) for row in rows if row[name]] for rows in (together, alone))
        assert found == pytest.approx(expected, abs=1e-3) and len(found) in (4, 12)


def test_a_process_that_fails_does_not_wait_for_the_others(train_here, train_refused, tokens_dir, monkeypatch):
    left = []
    monkeypatch.setattr("alilama.training.trainer.leave_processes", lambda: left.append(1))
    train_here()
    assert left == [1]
    train_refused(model_name="again", learning_rate=-1.0)
    train_refused()  # it is trained to its end
    assert left == [1]


@pytest.mark.parametrize(("given", "expected"), [(None, "100"), ("7", "7")])
def test_threads_that_wait_sleep_soon_unless_told_otherwise(given, expected, tmp_path):
    """libgomp reads the environment once, when torch is imported."""
    write_text(tmp_path, "torch.py", "import os\nraise SystemExit('spins ' + os.environ['GOMP_SPINCOUNT'])\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)} | ({} if given is None else {"GOMP_SPINCOUNT": given})
    if given is None:
        environment.pop("GOMP_SPINCOUNT", None)
    result = subprocess.run([sys.executable, ROOT / "train.py"], env=environment, capture_output=True, encoding="utf-8")
    assert result.stderr.strip() == f"spins {expected}"


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


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"epochs": 4.0}, ["--epochs=2.00 ", "--dropout=0.1."]),
        ({"train_tokens": 1000, "dropout": 0.2}, ["--train_tokens=500 ", "--dropout=0.3."]),
        ({"minutes": 3.0, "dropout": 0.5}, ["--minutes=1.5 ", "--dropout=0.6."]),
    ],
)
def test_the_advice_on_memorizing_can_be_followed(settings, advice, make_config):
    train = runpy.run_path(str(ROOT / "train.py"))
    config = replace(make_config(), **{"minutes": None, "epochs": None, "train_tokens": None, "dropout": 0.0} | settings)
    run = SimpleNamespace(config=config, num_steps=20, meta=SimpleNamespace(tokens={"train": 10_000}))
    rows = [{"step": 10.0, "tokens": 500.0, "epoch": 2.0, "val_loss": 3.0}, {"step": 20.0, "val_loss": 4.0}]
    said = train["memorizing_advice"](rows, run, 10)
    assert all(words in said.replace(",", " ").replace(". ", ".  ") for words in advice), said


def test_the_advice_where_training_only_made_it_worse_names_no_length(make_config):
    train = runpy.run_path(str(ROOT / "train.py"))
    run = SimpleNamespace(config=replace(make_config(), init_from="models/owl"), num_steps=20)
    rows = [{"step": 0.0, "tokens": 0.0, "epoch": 0.0, "val_loss": 3.0}, {"step": 20.0, "val_loss": 4.0}]
    said = train["memorizing_advice"](rows, run, 10)
    assert "smaller learning_rate" in said and "models/owl are kept" in said and "--" not in said


def test_in_a_log_progress_is_a_few_lines(trained):
    """20 steps with a row of the log each; there is no terminal. A bar that is drawn again would be a line each time."""
    lines = [line for line in trained[1].stderr.splitlines() if "training" in line]
    assert 1 <= len(lines) <= 3 and "20/20" in lines[-1]


@pytest.mark.parametrize(("log_interval", "estimated_at"), [(3, 9), (4, 8), (20, 20)])
def test_the_first_steps_do_not_count_in_the_estimate_of_time(log_interval, estimated_at, train_here, monkeypatch, capsys):
    """The first four steps take 600 s and the others 60 s; a row of the log after the fourth has nothing else to go by."""
    batch, now = TrainingWindows.batch, [0.0]

    def slow_at_first(self, step):
        now[0] += 600 if step < 4 else 60
        return batch(self, step)

    monkeypatch.setattr(TrainingWindows, "batch", slow_at_first)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    train_here(log_interval=log_interval, eval_interval=24, train_tokens=24 * B * T)
    said = [line for line in capsys.readouterr().out.splitlines() if "to go" in line]
    assert said == [f"{B * T / 60:,.0f} tokens/s: about {24 - estimated_at} minutes to go"]


def test_missing_kernels_are_said_with_what_they_cost(train_here, monkeypatch, capsys):
    monkeypatch.setattr("alilama.model.kernels._kernels", None)
    train_here(train_tokens=B * T, model_name="slow")
    said = [line for line in capsys.readouterr().out.splitlines() if "kernels" in line]
    assert len(said) == 1 and "pip install -e ." in said[0]


def test_a_model_learns_from_a_teacher_what_it_expects_beside_the_text(owl, train_here, tmp_path):
    """The first loss, before anything is learned, is a mixture of the text's and the teacher's."""
    train_here(model_name="alone")
    train_here(model_name="taught", teacher="models/owl")
    alone, taught = read_log(tmp_path / "models" / "alone"), read_log(tmp_path / "models" / "taught")
    assert taught[0]["train_loss"] != alone[0]["train_loss"]
    assert float(taught[0]["train_loss"]) == pytest.approx(float(alone[0]["train_loss"]), rel=0.1)
    assert float(taught[-1]["train_loss"]) < 0.9 * float(taught[0]["train_loss"])
    train_here(model_name="again", teacher="models/owl")
    assert read_log(tmp_path / "models" / "again") == taught
    train_here(model_name="by_two", teacher="models/owl,models/taught")
    assert read_log(tmp_path / "models" / "by_two")[0]["train_loss"] not in (taught[0]["train_loss"], alone[0]["train_loss"])
    card = (tmp_path / "models" / "by_two" / "README.md").read_text(encoding="utf-8")
    assert "learned from `owl` and `taught` beside" in card and "teacher = 'owl,taught'" in card


def test_a_run_that_was_given_minutes_ends_in_time_and_goes_on_as_it_was_settled(
    train_here, before_step, monkeypatch, tmp_path, capsys
):
    """A step takes a quarter of a second. Stopped when its length is settled, a run goes on to that length."""
    batch, now = TrainingWindows.batch, [0.0]

    def slow(self, step):
        now[0] += 0.25
        return batch(self, step)

    monkeypatch.setattr(TrainingWindows, "batch", slow)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(budget, "matmul_speed", lambda device, precision: 1e11)  # which would wait for ever
    timed = {"minutes": 1, "train_tokens": None, "num_heads": None, "d_model": None, "batch_size": None, "eval_interval": None}
    before_step(40, lambda: signal.raise_signal(signal.SIGINT))
    train_here(**timed)
    stopped = load_state(tmp_path / "models" / "owl")
    assert stopped["is_settled"] and 40 <= stopped["step"] < stopped["num_steps"]
    assert 40 < stopped["num_steps"] * 0.25 < 60  # the rest is for evaluations, which take no time here
    said = capsys.readouterr().out
    assert "as minutes = 1 allows" in said and f"{stopped['num_steps']:,} steps of " in said
    now[0] = 0.0
    train_here(**timed)
    ended = load_state(tmp_path / "models" / "owl")
    assert ended["step"] == ended["num_steps"] == stopped["num_steps"] and ended["config"] == stopped["config"]
    assert ended["config"]["d_model"] is not None and ended["config"]["blocks"] == SHAPE["blocks"]


def test_prompts_with_answers_become_a_model_that_answers(echo):
    folder, [tokenized, trained] = echo
    assert tokenized.returncode == trained.returncode == 0, tokenized.stderr + trained.stderr
    assert "There are prompts with answers: the answers are learned" in tokenized.stdout
    model, tokenizer = load_model(folder / "models" / "owl")
    assert list(tokenizer.special_tokens) == ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    for animal in ANIMALS:
        assert "".join(stream_text(model, tokenizer, f"say {animal}", temperature=0)) == f"{animal}!"
    first = json.loads((folder / "rows.jsonl").read_text().splitlines()[19])["prompt"]  # of those held out
    sample = f"{first}\n\n{first.removeprefix('say ')}!\n"
    assert sample in trained.stdout and f"--prompt='{first}'" in trained.stdout
    last = read_log(folder / "models" / "owl")[-1]
    score = evaluate(model, tokenizer, np.load(folder / "t" / "val.npy"), 32)
    assert float(last["val_loss"]) == pytest.approx(score.loss, abs=0.01)
    assert score.loss < 0.1 and float(last["train_loss"]) < 0.1  # an animal that is not known yet would cost 3 bits
    assert score.bytes == 3 * 20 + sum(len(animal) - 2 for animal in held_out(folder))


def held_out(folder) -> list[str]:
    """The animals in the rows that are held out."""
    return [json.loads(row)["prompt"].removeprefix("say ") for row in (folder / "rows.jsonl").read_text().splitlines()[19::20]]


def test_without_a_sample_prompt_a_story_begins_as_the_first_text_held_out_does(run_here, tokens_dir, capsys):
    tokenizer = Tokenizer.load(tokens_dir / "tokenizer.json")
    names = [name for name in arguments(tokens_dir=tokens_dir, train_tokens=2 * B * T) if "sample_prompt" not in name]
    run_here("train.py", *names)
    text = tokenizer.decode(np.load(tokens_dir / "val.npy")[1:5])
    assert len(text) > 4 and f"--prompt={shlex.quote(text)}\n" in capsys.readouterr().out

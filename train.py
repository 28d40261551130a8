"""Trains a model on the token files: python train.py --model_name=mine --epochs=2

`train` is the whole run from top to bottom: data, model, optimizers, then the loop. Stopped at any moment, it goes on from
its last checkpoint when it is started again.
"""

import gc
import math
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from alilama.common.errors import begin_script

begin_script(__name__)

# Threads that wait sleep soon: while they spin, two of them are half as fast as one beside another program that is busy.
os.environ.setdefault("GOMP_SPINCOUNT", "100")  # read when torch is imported
import torch
from tqdm import tqdm

from alilama.common.config import DATA_SETTINGS, TYPES, Config, load_config, quoted
from alilama.common.errors import UserError, first_line, is_out_of_memory, one_line_errors
from alilama.common.locks import locked
from alilama.common.progress import progress
from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenFiles, find_beginning, load_token_files
from alilama.model import kernels
from alilama.model.device import choose_device
from alilama.model.folder import is_mpt, load_model, save_description, save_weights
from alilama.model.model import Model, ModelConfig
from alilama.training.budget import Pace, settle
from alilama.training.card import write_card
from alilama.training.log import LOGGERS, Log, Samples, best_evaluation, import_logger, is_memorizing, read_log
from alilama.training.optim import learning_rate_at, make_optimizers
from alilama.training.resume import Run, differences, load_teacher, rounding_of, start_from
from alilama.training.scoring import Score, evaluate, learned_of
from alilama.training.stopping import StopRequest
from alilama.training.trainer import (
    WARM_UP_STEPS,
    Trainer,
    check_recompute,
    choose_precision,
    estimate_bytes,
    join_processes,
    leave_processes,
)
from alilama.views.growing import save_picture, write_page
from alilama.views.pictures import plot_log, save_figure
from alilama.writing.streams import shown_before, stream_text

SECONDS_BETWEEN_PICTURES = 30
MAX_SKIPPED_STEPS = 10
FIRST_ESTIMATE = 1000  # steps of a run whose minutes are given, until some were timed
STORY_TOKENS, STORY_TEMPERATURE = 400, 0.7  # of the samples


def main(argv: list[str]):
    started = time.perf_counter()
    settings = TYPES.keys() - DATA_SETTINGS
    config = load_config(Path(__file__).with_name("TRAINCONFIG.py"), argv, "Trains a model on the token files.", settings)
    device = choose_device()
    rank, world_size = join_processes(device)  # 0 of 1, unless torchrun started several
    with locked(config.model_dir) if rank == 0 else nullcontext():
        train(config, device, rank, world_size, started)
    leave_processes()


def train(config: Config, device: str, rank: int, world_size: int, started: float):
    """A whole run, in one of `world_size` processes; `started` is when the script did."""
    is_first = rank == 0  # the process that prints and writes
    torch.manual_seed(config.seed)
    import_logger(config.log_to)  # refused before anything is written where it is not installed

    # Data
    tokenizer, tokens = load_tokens(config)
    precision = choose_precision(device, config.precision)
    config, reason = settle(config, tokens.meta, device, precision, world_size)
    check_recompute(device, config)
    batches = TrainingWindows(tokens, config.max_seq_len, config.batch_size, config.seed, tokenizer.frame)
    val_ids = tokens.val_ids(config.eval_tokens)
    if not learned_of(tokenizer, val_ids)[1:].any():
        raise UserError(f"eval_tokens = {config.eval_tokens}: there is no answer to score among so many; raise it")
    config.sample_prompt = find_beginning(tokenizer, val_ids) if config.sample_prompt is None else config.sample_prompt

    # Model and optimizers
    if config.init_from is None:
        model = Model(ModelConfig.of(config, tokenizer.vocab_size)).to(device)
    else:
        model = start_from(config.init_from, tokenizer, config).to(device)
    optimizers = make_optimizers(model, config, precision)
    teacher = load_teacher(config, tokenizer, device)
    processes = {"rank": rank, "world_size": world_size}
    may_ignore = tokenizer.frame is not None
    trainer = Trainer(model, optimizers, config, precision, teacher, on_message=tqdm.write, may_ignore=may_ignore, **processes)

    # Where an earlier run stopped
    run = Run(config, tokens.meta, count_steps(config, batches))
    run.go_on(trainer.step, rank)
    if is_first:
        print(describe_run(run, trainer, batches, reason), flush=True)
        save_description(run.folder, model.config, tokenizer)
    trainer.prepare(torch.from_numpy(batches.batch(0)))
    if is_first and (changes := differences(run.rounding, rounding_of(trainer))):
        print(f"With {changes}: the losses go on up to rounding", flush=True)
    display = Display(run, model, batches) if is_first else None
    score = None
    if run.step == 0 and config.init_from is not None:
        score = evaluate(model, tokenizer, val_ids, batches.context)  # training must not make it worse
        run.best_loss = score.loss
    if is_first and run.step == 0:
        run.save(trainer)  # from now on the folder is this run's
        (run.folder / "model.safetensors").unlink(missing_ok=True)  # of one that had not made a step either
        if config.init_from is not None:
            save_weights(run.folder, model)
            display.show_start(score)
        display.show_story(generate_sample(model, tokenizer, config), score)
        display.start_timing()

    # The loop
    pace = Pace(run, started, device, len(val_ids))
    stop = StopRequest(lambda: tqdm.write("Finishing this step and saving; once more ends at once."))
    while run.step < run.num_steps and not stop.is_made(run.step, config.log_interval, world_size):
        pace.begin_step()
        learning_rate = learning_rate_at(run.step, run.num_steps, config)
        trainer(torch.from_numpy(batches.batch(run.step)), learning_rate)
        run.step += 1
        is_evaluated = pace.is_evaluated()
        has_row = is_evaluated or run.step % config.log_interval == 0
        if is_first:
            display.count_step(has_row)
        if not has_row:
            continue

        train_loss, skipped = trainer.step.read_losses()  # waits for the device
        made_at = time.perf_counter()  # before an evaluation, whose time is not the steps'
        score = evaluate(model, tokenizer, val_ids, batches.context) if is_evaluated else None  # by all processes
        if skipped >= MAX_SKIPPED_STEPS or (score and not math.isfinite(score.loss)):
            raise UserError(
                f"the loss is not finite any more at step {run.step}; the last good state is in {run.folder}. "
                "Try a smaller learning_rate"
            )
        if not is_first:
            continue
        display.show(train_loss, learning_rate, score, made_at)
        if is_evaluated:  # what is saved comes before what is only looked at
            is_best = score.loss < run.best_loss
            if is_best:
                run.best_loss = score.loss
                save_weights(run.folder, model)
            run.save(trainer)
            display.show_evaluation(score)
            story = generate_sample(model, tokenizer, config)
            display.show_story(story, score)
            if is_best and run.step < run.num_steps:
                save_card(run, trainer, story)
        display.start_timing()
    if not is_first:
        return
    display.close()

    if run.step < run.num_steps:
        run.save(trainer)
        print(f"Stopped at step {run.step:,} of {run.num_steps:,} and saved. The same command goes on from here.")
        return
    story = generate_sample(*load_model(run.folder, device), config)
    print(f"A text by {config.model_name}:\n\n{story}\n")
    save_card(run, trainer, story)
    print(describe_end(run))


def load_tokens(config: Config) -> tuple[Tokenizer, TokenFiles]:
    """Returns the tokenizer and the token files that tokenize_data.py made."""
    folder = Path(config.tokens_dir)
    if not (folder / "tokenizer.json").exists():
        raise UserError(f"there are no token files in {folder}: run python tokenize_data.py first")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.frame is None and any(token in (config.sample_prompt or "") for token in tokenizer.special_tokens):
        raise UserError(f"sample_prompt = {config.sample_prompt!r} holds a special token; leave it out")
    return tokenizer, load_token_files(folder, tokenizer)


def count_steps(config: Config, batches: TrainingWindows) -> int:
    """Returns how many steps `epochs` or `train_tokens` are; a number to begin with where the time is given instead."""
    if config.minutes is not None:
        return FIRST_ESTIMATE
    B, T = batches.batch_size, batches.context
    return max(1, round((config.train_tokens or config.epochs * batches.windows_per_epoch * T) / (B * T)))


def describe_run(run: Run, trainer: Trainer, batches: TrainingWindows, reason: str) -> str:
    """Says what is going to be trained and why that, on what, in how much memory and for how many steps."""
    config, model, device = run.config, trainer.model, trainer.device.type
    memory = estimate_bytes(model, config, trainer.precision, trainer.micro_batch, trainer.teacher)
    lines = [reason] if reason else []
    lines += [
        f"{run.folder}: {model.num_parameters():,} parameters on {describe_hardware(trainer)}, "
        f"about {tqdm.format_sizeof(memory, 'B')} of memory",
        describe_steps(run, batches),
    ]
    if trainer.teacher is not None:
        lines.append(f"The teacher, {config.teacher}, has {trainer.teacher.num_parameters():,} parameters")
    if run.step > 0:
        lines.append(f"Going on from step {run.step:,}")
    if not is_mpt(model.config):
        lines.append(
            "Only Alilama can read this model: Transformers knows no hidden_dim but 4 * d_model, and no other formulas"
        )
    if device == "cpu" and not kernels.are_built():
        lines.append(
            "The CPU kernels were not built, so training takes about three times as long and writing text twelve times: "
            "on Linux (on Windows in WSL) install g++ or clang with OpenMP and run pip install -e . again"
        )
    if config.compile_model:
        lines.append("Compiling the model ...")  # what comes next
    return "\n".join(lines)


def describe_hardware(trainer: Trainer) -> str:
    threads = torch.get_num_threads()
    name = {"cpu": f"{threads} CPU thread{'s' if threads > 1 else ''}", "mps": "an Apple GPU"}.get(trainer.device.type)
    name = name or torch.cuda.get_device_name()
    name = name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"
    return f"{name} in {str(trainer.precision).removeprefix('torch.')}"


def describe_steps(run: Run, batches: TrainingWindows) -> str:
    step_tokens = batches.batch_size * batches.context
    text = f"{tqdm.format_sizeof(run.meta.tokens['train'])} of {run.meta.text}"
    if not run.is_settled:
        return f"As many steps of {step_tokens:,} tokens as minutes = {run.config.minutes:g} allows, on the {text}"
    return (
        f"{run.num_steps:,} steps of {step_tokens:,} tokens: {tqdm.format_sizeof(run.num_steps * step_tokens)} tokens, "
        f"{run.num_steps * batches.batch_size / batches.windows_per_epoch:.2f} epochs of the {text}"
    )


def save_card(run: Run, trainer: Trainer, story: str):
    """Writes the README.md of the model; a place where that cannot be is no reason to end the training."""
    try:
        write_card(run, trainer.model, describe_hardware(trainer), story, has_frame=trainer.step.may_ignore)
    except (OSError, UserError) as error:
        tqdm.write(f"README.md was not written: {error}")


def describe_end(run: Run) -> str:
    """Says where the model is and what to do with it."""
    try:
        best = best_evaluation(read_log(run.folder / "log.csv"))
    except (OSError, UserError):  # it was removed, or is no log any more: there is nothing to say of it
        best = None
    worse = ""
    if best is not None and best.get("step") == 0:
        worse = (
            f"Nothing was learned that helps with text that is held out: the weights of {run.config.init_from} are kept. It "
            "may know this kind of text already; or try a smaller learning_rate.\n"
        )
    return worse + (
        f"The model is saved in {run.folder}, its curves in {run.folder / 'loss.png'}, and what it wrote while it learned in "
        f"{run.folder / 'growing.html'}. To go on:\n"
        f"  python -m alilama.generate {quoted(run.folder)} --prompt={quoted(run.config.sample_prompt)}\n"
        "  pip install jupyterlab && jupyter lab inference.ipynb\n"
        f"  python -m alilama.export {quoted(run.folder)} --html {quoted(run.folder.name + '.html')}\n"
        f"  {upload_command(run.folder)}"
    )


def upload_command(folder: Path) -> str:
    """Returns how the model comes to the Hub without what is its owner's: the state, and what loggers note of a machine."""
    private = [*(f"{name}*" for name in LOGGERS if any(folder.glob(f"{name}*"))), "training_state.pt"]
    return " ".join(["hf upload", quoted(folder.name), quoted(folder), *(f"--exclude {quoted(name)}" for name in private)])


class Display:
    """What a run shows: the bar, a row of the log now and then, the picture of the log, stories, and advice."""

    def __init__(self, run: Run, model: Model, batches: TrainingWindows):
        self.run, self.model, self.batches = run, model, batches
        self.step_tokens = batches.batch_size * batches.context
        self.log = Log(run.folder, run.config, run.step, tqdm.write)
        self.samples = Samples(run.folder, run.step, tqdm.write)
        self.bar = progress(run.num_steps, desc="training", initial=run.step, unit="step")
        self.first_step, self.is_estimated = run.step, False
        self.val_loss, self.drawn_at = "", time.perf_counter()
        self.start_timing()

    def count_step(self, has_row: bool):
        self.bar.total = self.run.num_steps  # may still be an estimate
        self.bar.update()
        if self.timed_step == self.first_step == self.run.step - WARM_UP_STEPS and not has_row:
            self.start_timing()

    def start_timing(self):
        self.timed_step, self.timed_at = self.run.step, time.perf_counter()

    def show_start(self, score: Score):
        """Shows how well the model does that the run begins from."""
        scores = {"val_loss": round(score.loss, 5), "val_bits_per_byte": round(score.bits_per_byte, 5)}
        self.log.write({"step": 0, "tokens": 0, "epoch": 0, "tokens_per_s": 0, **scores})
        self.bar.write(f"before training: validation loss {score.loss:.3f}, {score.bits_per_byte:.3f} bits per byte")

    def show(self, train_loss: float | None, learning_rate: float, score: Score | None, made_at: float):
        """Writes a row of the log for the steps `made_at` that time and shows it on the bar; draws the log where it is time."""
        step = self.run.step
        tokens_per_s = (step - self.timed_step) * self.step_tokens / (made_at - self.timed_at)
        row = {
            "step": step,
            "tokens": step * self.step_tokens,
            "epoch": round(step * self.batches.batch_size / self.batches.windows_per_epoch, 4),
            "train_loss": "" if train_loss is None else round(train_loss, 5),
            "learning_rate": f"{learning_rate:.3g}",
            "tokens_per_s": round(tokens_per_s),
        }
        if score is not None:
            row |= {"val_loss": round(score.loss, 5), "val_bits_per_byte": round(score.bits_per_byte, 5)}
            self.val_loss = f"{score.loss:.3f}"
        if not self.is_estimated and self.timed_step >= self.first_step + WARM_UP_STEPS and self.run.is_settled:
            self.is_estimated = True
            if self.run.config.minutes is not None:
                self.bar.write(describe_steps(self.run, self.batches))
            minutes = (self.run.num_steps - step) * self.step_tokens / tokens_per_s / 60
            self.bar.write(f"{tokens_per_s:,.0f} tokens/s: {minutes_to_go(minutes)}")
        self.log.write(row)
        losses = {"loss": "-" if train_loss is None else f"{train_loss:.3f}"} | (
            {"val": self.val_loss} if self.val_loss else {}
        )
        self.bar.set_postfix(**losses, tok_s=f"{tokens_per_s:,.0f}")
        if score is None:
            self.draw()

    def draw(self, is_end: bool = False):
        """Draws the log now and then, at the end the stories too; what goes wrong is no reason to end the training."""
        if time.perf_counter() - self.drawn_at <= SECONDS_BETWEEN_PICTURES and not is_end:
            return
        try:
            save_figure(plot_log(self.log.path), self.run.folder / "loss.png")
            if is_end and self.samples.rows:
                save_picture(self.run.folder, self.samples.rows)
        except (OSError, UserError) as error:
            self.bar.write(f"A picture was not drawn: {error}")
        gc.collect()  # figures are circles of references, and take megabytes until they are found
        self.drawn_at = time.perf_counter()

    def show_evaluation(self, score: Score):
        """Shows what was found, with advice where the log shows memorizing."""
        self.bar.write(f"\nstep {self.run.step:,}: validation loss {score.loss:.3f}, {score.bits_per_byte:.3f} bits per byte")
        self.draw()
        try:
            rows = read_log(self.log.path)
        except (OSError, UserError):  # it was removed, or is no log any more, as `draw` says
            return
        if is_memorizing(rows) and not is_memorizing(rows[:-1]):
            self.bar.write(memorizing_advice(rows, self.run, self.model.num_parameters()))

    def show_story(self, story: str, score: Score | None):
        """Keeps what the model writes now, with its score if it has one, and shows it; that of the end is shown apart."""
        step, scores = self.run.step, {} if score is None else {"val_bits_per_byte": round(score.bits_per_byte, 5)}
        prompt = self.run.config.sample_prompt
        self.samples.write({"step": step, "tokens": step * self.step_tokens, **scores, "prompt": prompt, "story": story})
        if 0 < step < self.run.num_steps:
            self.bar.write(f"{story}\n")
        self.write_page(is_growing=True)

    def write_page(self, is_growing: bool):
        """Shows all stories so far in growing.html."""
        try:
            write_page(self.run.folder, self.samples.rows, is_growing=is_growing)
        except (OSError, UserError) as error:
            self.bar.write(f"The stories so far were not written: {error}")

    def close(self):
        if self.samples.rows:  # a run that goes on may have lost them
            self.write_page(is_growing=False)
        self.draw(is_end=True)
        self.bar.close()
        self.log.close()


def minutes_to_go(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute to go"
    return f"about {minutes:.0f} minute{'s' if round(minutes) > 1 else ''} to go"


def memorizing_advice(rows: list[dict[str, float]], run: Run, num_parameters: int) -> str:
    """Returns what to change when the model learns its text by heart, for the log so far."""
    best = best_evaluation(rows)
    if best["step"] == 0:
        return (
            "The validation loss rises since training began: this text makes the model worse at what is held out. Try a "
            f"smaller learning_rate, or more text; the weights of {run.config.init_from} are kept."
        )
    num_tokens = run.meta.tokens["train"]
    enough = f"--epochs={best['epoch']:.2f}"
    if run.config.minutes is not None:
        enough = f"--minutes={run.config.minutes * best['step'] / run.num_steps:.2g}"
    elif run.config.train_tokens is not None:
        enough = f"--train_tokens={best['tokens']:.0f}"
    remedies = [f"less training ({enough} would have been enough)"]
    remedies += ["a smaller d_model or fewer blocks"] if num_parameters > num_tokens / 4 else []
    remedies += ["more text", f"--dropout={min(0.9, run.config.dropout + 0.1):g}"]
    return (
        f"The model is memorizing: since step {best['step']:,.0f} the validation loss rises while the training loss falls, "
        f"with {num_parameters:,} parameters for {num_tokens:,} tokens of text. What helps: {', or '.join(remedies)}. The "
        "best weights are kept."
    )


def generate_sample(model: Model, tokenizer: Tokenizer, config: Config) -> str:
    """Returns the sample; where memory does not hold one, says so in its place, for that is no reason to end the training."""
    was_training = model.training
    model.eval()
    sampling = {"max_new_tokens": STORY_TOKENS, "temperature": STORY_TEMPERATURE, "seed": config.seed}
    try:
        text = "".join(stream_text(model, tokenizer, config.sample_prompt, **sampling))
    except (UserError, RuntimeError, MemoryError) as error:
        if not isinstance(error, UserError) and not is_out_of_memory(error):
            raise
        text = f" (no text: {first_line(error)})"
    model.train(was_training)
    return shown_before(tokenizer, config.sample_prompt) + text


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

"""Trains a model on the token files: python train.py --model_name=mine --epochs=2

Read it from top to bottom: settings, data, model, then the loop. Stopped at any moment, it goes on from its last
checkpoint when it is started again.
"""

import math
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from alilama.checkpoint import is_mpt, load_model, load_state, save_description, save_state, save_weights
from alilama.config import Config, load_config
from alilama.data import TrainingWindows, load_token_files
from alilama.errors import UserError, one_line_errors
from alilama.evaluate import evaluate
from alilama.generate import stream_text
from alilama.log import Log, is_memorizing, read_log
from alilama.model import Model, ModelConfig, choose_device
from alilama.optim import learning_rate_at
from alilama.plots import plot_log, save_figure
from alilama.tokenizer import Tokenizer
from alilama.training import TrainingStep, choose_precision, estimate_bytes, join_processes

SECONDS_BETWEEN_PICTURES = 30
MAX_SKIPPED_STEPS = 10
# What may differ when a run goes on: what changes neither the model nor what it learns from. Of the settings of
# tokenize_data.py only the token files that it made count.
FREE_TO_CHANGE = {
    "data_files",
    "val_files",
    "val_fraction",
    "vocab_size",
    "pattern",
    "tokens_dir",
    "models_dir",
    "log_interval",
    "eval_interval",
    "eval_tokens",
    "sample_prompt",
    "log_to",
    "compile_model",
}


def start_from(folder: str, tokenizer: Tokenizer, config: Config, device: str) -> Model:
    """Returns the model in a folder, to be trained on: its shape and weights, the context and dropout of `config`."""
    trained, its_tokenizer = load_model(folder)
    if its_tokenizer.sha256 != tokenizer.sha256:
        raise UserError(
            f"{folder} has another tokenizer than {config.tokens_dir}; run python tokenize_data.py --init_from={folder} first"
        )
    model = Model(replace(trained.config, max_seq_len=config.max_seq_len, dropout=config.dropout))
    model.load_state_dict(trained.state_dict())
    return model.to(device)


def check_same_run(state: dict, config: Config, tokens_sha256: str, data: dict):
    """Raises UserError where the state in the model's folder is of another run, or of one that is finished."""
    current = {**asdict(config), "tokenizer": tokens_sha256, "token files": data}
    for name, before in {**state["config"], "tokenizer": state["tokenizer_sha256"], "token files": state["data"]}.items():
        now = current.get(name)
        if name not in FREE_TO_CHANGE and now != before:
            raise UserError(
                f"{config.model_dir} holds a run with {name} = {before!r}, and now it is {now!r}; choose "
                "another --model_name, or set it back, or delete that folder"
            )
    if state["step"] >= state["num_steps"]:
        raise UserError(
            f"{config.model_dir} is trained to its end ({state['step']} steps); to train another one choose "
            f"another --model_name, to train on from it add --init_from={config.model_dir}"
        )


def get_rng_state() -> dict[str, torch.Tensor]:
    """Returns the state of torch's random numbers on every device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_rng_state(states: dict[str, torch.Tensor]):
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def is_stopping(stopping: list, step: int, log_interval: int, world_size: int) -> bool:
    """Whether a signal has come; several processes ask each other, at every row of the log, and stop at the same step."""
    if world_size == 1:
        return bool(stopping)
    if step % log_interval:
        return False
    any_stopping = torch.tensor(float(bool(stopping)), device=choose_device())
    dist.all_reduce(any_stopping)
    return any_stopping.item() > 0


def memorizing_advice(rows: list[dict[str, float]], config: Config, num_parameters: int, num_tokens: int) -> str:
    """Returns what to change when the model learns its text by heart, for the log so far and the tokens of the text."""
    best = min((row for row in rows if "val_loss" in row), key=lambda row: row["val_loss"])
    enough = f"--train_tokens={best['tokens']:.0f}" if config.train_tokens else f"--epochs={best['epoch']:.2f}"
    remedies = [f"less training ({enough} would have been enough)"]
    remedies += ["a smaller d_model or fewer blocks"] if num_parameters > num_tokens / 4 else []
    remedies += ["more text", "--dropout=0.1"]
    return (
        f"The model is memorizing: since step {best['step']:,.0f} the validation loss rises while the training loss falls, "
        f"with {num_parameters:,} parameters for {num_tokens:,} tokens of text. What helps: {', or '.join(remedies)}. The "
        "best weights are kept."
    )


def main(argv: list[str]):
    config = load_config(Path(__file__).with_name("TRAINCONFIG.py"), argv, "Trains a model on the token files.")
    folder, B, T = config.model_dir, config.batch_size, config.max_seq_len
    device = choose_device()
    rank, world_size = join_processes(device)  # 0 of 1, unless torchrun started several
    is_first = rank == 0  # the process that prints and writes
    torch.manual_seed(config.seed)

    # Data
    tokens_dir = Path(config.tokens_dir)
    if not (tokens_dir / "tokenizer.json").exists():
        raise UserError(f"there are no token files in {tokens_dir}: run python tokenize_data.py first")
    tokenizer = Tokenizer.load(tokens_dir / "tokenizer.json")
    if any(token in config.sample_prompt for token in tokenizer.special_tokens):
        raise UserError(f"sample_prompt = {config.sample_prompt!r} holds a special token; leave it out")
    if B % world_size:
        raise UserError(f"batch_size = {B}: expected a multiple of the {world_size} processes")
    tokens = load_token_files(tokens_dir, tokenizer)
    batches = TrainingWindows(tokens.train, tokenizer.eot_id, T, B, config.seed)
    num_steps = max(1, round((config.train_tokens or config.epochs * batches.windows_per_epoch * T) / (B * T)))
    val_ids = tokens.val[: config.eval_tokens and config.eval_tokens + 1]

    # Model
    if config.init_from is not None:
        model = start_from(config.init_from, tokenizer, config, device)
    else:
        shape = ModelConfig(
            tokenizer.vocab_size, config.d_model, config.blocks, config.num_heads, config.hidden_dim, T, config.dropout
        )
        model = Model(shape).to(device)
    precision = choose_precision(device, config.precision)
    train_step = TrainingStep(model, config, precision, rank=rank, world_size=world_size, on_message=tqdm.write)
    data = {"documents": tokens.meta.documents, "tokens": tokens.meta.tokens, "bytes": tokens.meta.bytes}

    # Where an earlier run stopped
    step, best_loss = 0, float("inf")
    state = load_state(folder)
    if state is not None and state["step"] == 0:  # nothing is lost by beginning again, maybe with other settings
        state = None
    elif state is not None:
        check_same_run(state, config, tokenizer.sha256, data)
        step, best_loss = state["step"], state["best_loss"]
        try:
            train_step.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{folder / 'training_state.pt'} is damaged ({reason}); delete {folder} and train again") from None
    elif (folder / "model.safetensors").exists():
        raise UserError(
            f"{folder} holds a model without a training state, which would be overwritten; choose another --model_name"
        )

    if is_first:
        hardware = {"cpu": f"{torch.get_num_threads()} CPU threads", "mps": "an Apple GPU"}
        name = hardware.get(device) or torch.cuda.get_device_name()
        name = name if world_size == 1 else f"{world_size} x {name}"
        memory = estimate_bytes(model, config, precision, B // world_size)
        print(
            f"{folder}: {model.num_parameters():,} parameters on {name} in {str(precision).removeprefix('torch.')}, "
            f"about {memory / 1e9:.1f} GB of memory"
        )
        print(
            f"{num_steps:,} steps of {B * T:,} tokens: {num_steps * B * T / 1e6:.1f}M tokens, "
            f"{num_steps * B / batches.windows_per_epoch:.2f} epochs of {tokens.meta.tokens['train'] / 1e6:.1f}M"
        )
        if step > 0:
            print(f"Going on from step {step:,}")
        if not is_mpt(model.config):
            print("hidden_dim is not 4 * d_model: the model cannot be read by Transformers or llama.cpp, only by Alilama")
        save_description(folder, model.config, tokenizer)
    log = Log(folder, config, step) if is_first else None
    train_step.prepare(torch.from_numpy(batches.batch(0)))
    torch.manual_seed(config.seed + step + rank)  # dropout differs between processes
    if state is not None and is_first:
        set_rng_state(state["rng"])

    def checkpoint():
        save_state(
            folder,
            {
                "step": step,
                "num_steps": num_steps,
                "best_loss": best_loss,
                "config": asdict(config),
                "data": data,
                "tokenizer_sha256": tokenizer.sha256,
                "rng": get_rng_state(),
                **train_step.state_dict(),
            },
        )

    def sample(model: Model) -> str:
        model.eval()
        sampling = {"max_new_tokens": 400, "temperature": 0.7, "seed": config.seed}
        text = "".join(stream_text(model, tokenizer, config.sample_prompt, **sampling))
        model.train()
        return config.sample_prompt + text

    stopping = []  # filled by Ctrl-C or SIGTERM: the step is finished and saved before the run ends

    def stop(number: int, frame: object):
        stopping.append(number)
        signal.signal(number, signal.default_int_handler)  # the second time it ends at once
        tqdm.write("Finishing this step and saving; once more ends at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    # The loop
    if state is None and is_first:
        checkpoint()  # from now on the folder is this run's
    model.train()
    bar = tqdm(total=num_steps, initial=step, unit="step", dynamic_ncols=True, disable=not is_first)
    first_step, val_score, logged_at, drawn_at = step, None, (step, time.perf_counter()), time.perf_counter()
    while step < num_steps and not is_stopping(stopping, step, config.log_interval, world_size):
        learning_rate = learning_rate_at(step, num_steps, config)
        train_step(torch.from_numpy(batches.batch(step)), learning_rate)
        step += 1
        bar.update()
        is_evaluated = step % config.eval_interval == 0 or step == num_steps
        if not is_evaluated and step % config.log_interval:
            continue

        train_loss, skipped = train_step.read_losses()  # waits for the device
        tokens_per_s = (step - logged_at[0]) * B * T / (time.perf_counter() - logged_at[1])
        if is_evaluated:  # by every process, so that all decide alike
            val_score = evaluate(model, tokenizer, val_ids, T)
        if skipped >= MAX_SKIPPED_STEPS or (is_evaluated and not math.isfinite(val_score.loss)):
            raise UserError(
                f"the loss is not finite any more at step {step}; the last good state is in {folder}. "
                "Try a smaller learning_rate"
            )
        if is_first:
            row = {
                "step": step,
                "tokens": step * B * T,
                "epoch": round(step * B / batches.windows_per_epoch, 4),
                "train_loss": "" if train_loss is None else round(train_loss, 5),
                "learning_rate": f"{learning_rate:.3g}",
                "tokens_per_s": round(tokens_per_s),
            }
            if is_evaluated:
                row |= {"val_loss": round(val_score.loss, 5), "val_bits_per_byte": round(val_score.bits_per_byte, 5)}
            if logged_at[0] == first_step:
                minutes = (num_steps - step) * B * T / tokens_per_s / 60
                bar.write(f"{tokens_per_s:,.0f} tokens/s: about {minutes:.0f} minutes to go")
            log.write(row)
            bar.set_postfix(
                loss=f"{row['train_loss']:.5}",
                **({"val": f"{val_score.loss:.3f}"} if val_score else {}),
                tok_s=f"{tokens_per_s:,.0f}",
            )
            if is_evaluated or time.perf_counter() - drawn_at > SECONDS_BETWEEN_PICTURES:
                save_figure(plot_log(log.path), folder / "loss.png")
                drawn_at = time.perf_counter()
        if is_evaluated and is_first:
            if val_score.loss < best_loss:
                best_loss = val_score.loss
                save_weights(folder, model)
            checkpoint()
            bar.write(f"\nstep {step:,}: validation loss {val_score.loss:.3f}, {val_score.bits_per_byte:.3f} bits per byte")
            rows = read_log(log.path)
            if is_memorizing(rows) and not is_memorizing(rows[:-1]):
                bar.write(memorizing_advice(rows, config, model.num_parameters(), tokens.meta.tokens["train"]))
            if step < num_steps:
                bar.write(f"{sample(model)}\n")
        logged_at = (step, time.perf_counter())
    bar.close()
    if not is_first:
        return
    log.close()

    if step < num_steps:
        checkpoint()
        print(f"Stopped at step {step:,} of {num_steps:,} and saved. The same command goes on from here.")
        return
    print(f"A story by {config.model_name}:\n\n{sample(load_model(folder, device)[0])}\n")
    print(f"The model is saved in {folder}, its curves in {folder / 'loss.png'}. To go on:")
    print(f'  python -m alilama.generate {folder} --prompt "{config.sample_prompt}"')
    print("  pip install jupyterlab && jupyter lab inference.ipynb")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

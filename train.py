"""Trains a model on the token files: python train.py --model_name=mine --epochs=2

Read it from top to bottom: settings, data, model, then the loop. Stopped at any moment, it goes on from its last
checkpoint when it is started again.
"""

import csv
import io
import math
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm

from alilama.checkpoint import is_mpt, load_model, load_state, save_description, save_state, save_weights
from alilama.config import Config, load_config
from alilama.data import TrainingWindows, load_token_files, replacing
from alilama.errors import UserError, is_out_of_memory, one_line_errors
from alilama.evaluate import evaluate
from alilama.generate import stream_text
from alilama.model import Model, ModelConfig, choose_device
from alilama.optim import learning_rate_at, make_optimizers
from alilama.plots import finite, plot_log, save_figure
from alilama.tokenizer import Tokenizer

LOG_COLUMNS = ["step", "tokens", "epoch", "train_loss", "val_loss", "val_bits_per_byte", "learning_rate", "tokens_per_s"]
MAX_SKIPPED_STEPS = 10
# What may differ when a run goes on: what changes neither the model nor what it learns from. Of the settings of
# tokenize_data.py only the token files that it made count.
FREE_TO_CHANGE = {"data_files", "val_files", "val_fraction", "vocab_size", "pattern", "tokens_dir", "models_dir",
                  "log_interval", "eval_interval", "eval_tokens", "sample_prompt", "compile_model"}


def choose_precision(device: str, wanted: str) -> torch.dtype:
    """Returns what to multiply matrices in: what is wanted, or for "auto" the fastest that the device has."""
    if wanted != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[wanted]
    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16


def compile_or_not(model: Model, example: torch.Tensor, autocast: torch.autocast):
    """Returns the loss function compiled, or as it is where this machine cannot compile it."""
    compiled = torch.compile(model.loss)
    try:
        with autocast:
            loss = compiled(example[:, :-1], example[:, 1:])
        loss.backward()
        return compiled
    except Exception as error:  # what a compiler raises is its own affair: anything means that it does not work here
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        print(f"Not compiled: {reason}. It works without, slower; --compile_model=False hides this.")
        return model.loss
    finally:
        model.zero_grad()


def start_from(folder: str, tokenizer: Tokenizer, config: Config, device: str) -> Model:
    """Returns the model in a folder, to be trained on: its shape and weights, the context and dropout of `config`."""
    trained, its_tokenizer = load_model(folder)
    if its_tokenizer.sha256 != tokenizer.sha256:
        raise UserError(f"{folder} has another tokenizer than {config.tokens_dir}; run python tokenize_data.py "
                        f"--init_from={folder} first")
    model = Model(replace(trained.config, max_seq_len=config.max_seq_len, dropout=config.dropout))
    model.load_state_dict(trained.state_dict())
    return model.to(device)


def check_same_run(state: dict, config: Config, tokens_sha256: str, data: dict):
    """Raises UserError where the state in the model's folder is of another run, or of one that is finished."""
    current = {**asdict(config), "tokenizer": tokens_sha256, "token files": data}
    for name, before in {**state["config"], "tokenizer": state["tokenizer_sha256"], "token files": state["data"]}.items():
        now = current.get(name)
        if name not in FREE_TO_CHANGE and now != before:
            raise UserError(f"{config.model_dir} holds a run with {name} = {before!r}, and now it is {now!r}; choose "
                            "another --model_name, or set it back, or delete that folder")
    if state["step"] >= state["num_steps"]:
        raise UserError(f"{config.model_dir} is trained to its end ({state['step']} steps); to train another one choose "
                        f"another --model_name, to train on from it add --init_from={config.model_dir}")


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


def open_log(path: Path, step: int):
    """Opens log.csv for new rows behind those up to `step`; a row that was cut by a full disk is left out."""
    rows = []
    if path.exists() and step > 0:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values() and int(finite(row["step"]) or 0) <= step]
    kept = io.StringIO(newline="")
    csv.DictWriter(kept, LOG_COLUMNS).writeheader()
    csv.DictWriter(kept, LOG_COLUMNS).writerows(rows)
    with replacing(path) as file:
        file.write(kept.getvalue().encode())
    file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115, open as long as the run
    return file, csv.DictWriter(file, LOG_COLUMNS)


def main(argv: list[str]):
    config = load_config(Path(__file__).with_name("TRAINCONFIG.py"), argv, "Trains a model on the token files.")
    torch.manual_seed(config.seed)
    folder, B, T = config.model_dir, config.batch_size, config.max_seq_len

    # Data
    tokens_dir = Path(config.tokens_dir)
    if not (tokens_dir / "tokenizer.json").exists():
        raise UserError(f"there are no token files in {tokens_dir}: run python tokenize_data.py first")
    tokenizer = Tokenizer.load(tokens_dir / "tokenizer.json")
    if any(token in config.sample_prompt for token in tokenizer.special_tokens):
        raise UserError(f"sample_prompt = {config.sample_prompt!r} holds a special token; leave it out")
    tokens = load_token_files(tokens_dir, tokenizer)
    batches = TrainingWindows(tokens.train, T, B, config.seed)
    num_steps = max(1, round((config.train_tokens or config.epochs * batches.windows_per_epoch * T) / (B * T)))
    val_ids = tokens.val[:config.eval_tokens and config.eval_tokens + 1]

    # Model
    device = choose_device()
    if config.init_from is not None:
        model = start_from(config.init_from, tokenizer, config, device)
    else:
        shape = ModelConfig(tokenizer.vocab_size, config.d_model, config.blocks, config.num_heads, config.hidden_dim, T,
                            config.dropout)
        model = Model(shape).to(device)
    optimizers = make_optimizers(model, config)
    precision = choose_precision(device, config.precision)
    autocast = torch.autocast(device, dtype=precision, enabled=precision != torch.float32)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
    data = {"documents": tokens.meta.documents, "tokens": tokens.meta.tokens, "bytes": tokens.meta.bytes}

    # Where an earlier run stopped
    step, best_loss, losses = 0, float("inf"), []  # losses: of the steps since the last row in the log
    state = load_state(folder)
    if state is not None and state["step"] == 0:  # nothing is lost by beginning again, maybe with other settings
        state = None
    elif state is not None:
        check_same_run(state, config, tokenizer.sha256, data)
        step, best_loss, losses = state["step"], state["best_loss"], state["losses"]
        try:
            model.load_state_dict(state["model"])
            for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{folder / 'training_state.pt'} is damaged ({reason}); delete {folder} and train again") from None
    elif (folder / "model.safetensors").exists():
        raise UserError(f"{folder} holds a model without a training state, which would be overwritten; choose another "
                        "--model_name")

    hardware = {"cpu": f"{torch.get_num_threads()} CPU threads", "mps": "an Apple GPU"}
    name = hardware.get(device) or torch.cuda.get_device_name()
    print(f"{folder}: {model.num_parameters():,} parameters on {name} in {str(precision).removeprefix('torch.')}")
    print(f"{num_steps:,} steps of {B * T:,} tokens: {num_steps * B * T / 1e6:.1f}M tokens, "
          f"{num_steps * B / batches.windows_per_epoch:.2f} epochs of {tokens.meta.tokens['train'] / 1e6:.1f}M")
    if step > 0:
        print(f"Going on from step {step:,}")
    if not is_mpt(model.config):
        print("hidden_dim is not 4 * d_model: the model cannot be read by Transformers or llama.cpp, only by Alilama")
    save_description(folder, model.config, tokenizer)
    loss_of = model.loss
    if config.compile_model:
        loss_of = compile_or_not(model, torch.from_numpy(batches.batch(0)).to(device), autocast)
    if state is not None:  # after compiling, which draws random numbers too
        set_rng_state(state["rng"])

    def checkpoint():
        save_state(folder, {
            "step": step, "num_steps": num_steps, "best_loss": best_loss, "losses": losses, "config": asdict(config),
            "data": data, "tokenizer_sha256": tokenizer.sha256, "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers], "scaler": scaler.state_dict(),
            "rng": get_rng_state()})

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
    if state is None:
        checkpoint()  # from now on the folder is this run's
    model.train()
    log_file, log = open_log(folder / "log.csv", step)
    bar = tqdm(total=num_steps, initial=step, unit="step", dynamic_ncols=True)
    skipped, val_score, logged_at = 0, None, (step, time.perf_counter())
    while step < num_steps and not stopping:
        windows = torch.from_numpy(batches.batch(step)).to(device)  # (B, T + 1)
        learning_rate = learning_rate_at(step, num_steps, config)
        with autocast:
            loss = loss_of(windows[:, :-1], windows[:, 1:])
        scaler.scale(loss).backward()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        if torch.isfinite(gradient_norm):
            for optimizer in optimizers:
                scaler.step(optimizer)
            skipped = 0
            losses.append(loss.item())
        else:
            skipped += 1
        scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad()
        step += 1

        now = time.perf_counter()
        is_evaluated = step % config.eval_interval == 0 or step == num_steps
        if is_evaluated:
            val_score = evaluate(model, tokenizer, val_ids, T)
        if skipped == MAX_SKIPPED_STEPS or (is_evaluated and not math.isfinite(val_score.loss)):
            raise UserError(f"the loss is not finite any more at step {step}; the last good state is in {folder}. "
                            "Try a smaller learning_rate")
        if is_evaluated or step % config.log_interval == 0:
            row = {"step": step, "tokens": step * B * T, "epoch": round(step * B / batches.windows_per_epoch, 4),
                   "train_loss": round(sum(losses) / len(losses), 5) if losses else "", "learning_rate": f"{learning_rate:.3g}",
                   "tokens_per_s": round((step - logged_at[0]) * B * T / (now - logged_at[1]))}
            if is_evaluated:
                row |= {"val_loss": round(val_score.loss, 5), "val_bits_per_byte": round(val_score.bits_per_byte, 5)}
            log.writerow(row)
            log_file.flush()
            losses = []
            bar.set_postfix(loss=f"{row['train_loss']:.5}", **({"val": f"{val_score.loss:.3f}"} if val_score else {}),
                            tok_s=f"{row['tokens_per_s']:,}")
        bar.update()
        if is_evaluated:
            if val_score.loss < best_loss:
                best_loss = val_score.loss
                save_weights(folder, model)
            checkpoint()
            save_figure(plot_log(folder / "log.csv"), folder / "loss.png")
            bar.write(f"\nstep {step:,}: validation loss {val_score.loss:.3f}, {val_score.bits_per_byte:.3f} bits per byte")
            if step < num_steps:
                bar.write(f"{sample(model)}\n")
        if not losses:
            logged_at = (step, time.perf_counter())
    bar.close()
    log_file.close()

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

"""Where a run stands: what is saved of it, and how it goes on from there bit for bit.

training_state.pt holds the weights, the optimizers and all that a run needs to go on; model.safetensors beside it is the
model that was best on the validation tokens.
"""

import io
import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from alilama.common.config import DATA_SETTINGS, Config
from alilama.common.errors import UserError, first_line
from alilama.common.files import check_is_file, replacing
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import SPLITS, TokenMeta
from alilama.model.folder import load_model, load_shape
from alilama.model.model import Ensemble, Model
from alilama.training.step import Step
from alilama.training.trainer import Trainer

STATE_TYPES = {
    "step": int,
    "num_steps": int,
    "is_settled": bool,
    "best_loss": float,
    "config": dict,
    "data": dict,
    "tokenizer_sha256": str,
    "model": dict,
    "optimizers": list,
    "counts": dict,
    "rng": dict,
}
# What may differ when a run goes on: what changes neither the model nor what it learns from. Of the settings of
# tokenize_data.py only the token files that it made count.
FREE_TO_CHANGE = {
    *DATA_SETTINGS,
    "tokens_dir",
    "models_dir",
    "log_interval",
    "eval_interval",
    "eval_tokens",
    "sample_prompt",
    "log_to",
    "compile_model",
    "micro_batch",
    "recompute",
}


class Run:
    """A run of `num_steps` steps on token files: `step` are made, `best_loss` is the lowest validation loss so far.

    Where the time is given in which it has to end, `num_steps` is an estimate until it `is_settled`. `rounding` has what
    decided, when it was saved, how sums were rounded, see `rounding_of`.
    """

    def __init__(self, config: Config, meta: TokenMeta, num_steps: int):
        self.config, self.meta, self.folder = config, meta, config.model_dir
        self.rounding: dict[str, str | int | None] = {}
        self.num_steps, self.is_settled = num_steps, config.minutes is None
        self.step, self.best_loss = 0, float("inf")

    def save(self, trainer: Trainer):
        """Writes training_state.pt, from which `go_on` goes on."""
        state = {
            "step": self.step,
            "num_steps": self.num_steps,
            "is_settled": self.is_settled,
            "best_loss": self.best_loss,
            "config": asdict(self.config),
            "data": self._data(),
            "tokenizer_sha256": self.meta.tokenizer_sha256,
            "rng": get_rng_state(),
            "rounding": rounding_of(trainer),
            **trainer.step.state_dict(),
        }
        save_state(self.folder, state)

    def go_on(self, trained: Step, rank: int = 0):
        """Goes on where the last `save` in this folder was, if there is one, and seeds the random numbers of process `rank`.

        Raises UserError where the folder holds another run, a finished one, or a damaged state.
        """
        state = load_state(self.folder)
        if state is None and (self.folder / "model.safetensors").exists():
            raise UserError(
                f"{self.folder} holds a model without a training state, which would be overwritten; choose another --model_name"
            )
        if state is not None and state["step"] > 0:  # before it nothing is lost by beginning again with other settings
            self._check_is_same(state)
            if load_shape(self.folder) != trained.model.config:  # refuses other formulas; a setting may be younger than the run
                raise UserError(f"{self.folder} holds a run of another shape, see its config.json; choose another --model_name")
            self.step, self.best_loss = state["step"], state["best_loss"]
            self.num_steps, self.is_settled = state["num_steps"], state["is_settled"]
            self.rounding = state.get("rounding", {})
        torch.manual_seed(self.config.seed + self.step + rank)  # dropout differs between processes
        if self.step > 0:
            try:
                trained.load_state_dict(state)
                if rank == 0:
                    set_rng_state(state["rng"])
            except Exception as error:  # whatever torch makes of damage
                raise damaged(self.folder, first_line(error)) from None

    def _check_is_same(self, state: dict):
        for name, before in state["config"].items():
            now = getattr(self.config, name, None)
            if name not in FREE_TO_CHANGE and now != before:
                raise UserError(
                    f"{self.folder} holds a run with {name} = {before!r}, and now it is {now!r}; choose "
                    "another --model_name, or set it back, or delete that folder"
                )
        if difference := self._difference_in_text(state):
            raise UserError(f"{self.folder} was {difference}; choose another --model_name, or delete that folder")
        if state["step"] >= state["num_steps"]:
            raise UserError(
                f"{self.folder} is trained to its end ({state['step']} steps); to train another one choose "
                f"another --model_name, to train on from it add --init_from={self.folder}"
            )

    def _difference_in_text(self, state: dict) -> str | None:
        """Says how the token files of a saved run were others, None where they were these."""
        before, now = state["data"], self._data()
        is_same_text = all(before[name] == now[name] for name in ("documents", "bytes"))
        if is_same_text and state["tokenizer_sha256"] != self.meta.tokenizer_sha256:
            return "trained with another tokenizer"
        for split, use in (("train", "trained"), ("val", "validated")):
            if any(before[name][split] != now[name][split] for name in ("documents", "tokens", "bytes")):
                return f"{use} on other text ({before['tokens'][split]:,} tokens, now {now['tokens'][split]:,})"
            if "checksums" in before and before["checksums"].get(split) != now["checksums"][split]:
                return f"{use} on other text, of the same number of tokens"
        return None

    def _data(self) -> dict:
        meta = self.meta
        return {"documents": meta.documents, "tokens": meta.tokens, "bytes": meta.bytes, "checksums": meta.checksums}


def rounding_of(trainer: Trainer) -> dict[str, str | int | None]:
    """Returns what decides now how the sums of a training are rounded, by name: with the same a CPU goes on bit for bit."""
    is_cpu = trainer.device.type == "cpu"
    return {
        "device": trainer.device.type if trainer.device.type != "cuda" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads() if is_cpu else None,
        "processes": trainer.world_size,
        "precision": str(trainer.precision).removeprefix("torch."),
        "compile_model": trainer.is_compiled,
        "micro_batch": trainer.micro_batch,
        "torch": str(torch.__version__),
    }


def differences(before: dict, now: dict) -> str:
    """Says which of the values that were saved by name are others now; a state that is older has none."""
    changed = [f"{name} = {value} instead of {before[name]}" for name, value in now.items() if before.get(name, value) != value]
    return ", ".join(changed)


def saved_settings(folder: Path) -> dict[str, object]:
    """Returns the settings, by name, of the run in a folder; none where none has begun there."""
    state = load_state(folder)
    return state["config"] if state is not None and state["step"] > 0 else {}


def save_state(folder: Path, state: dict):
    """Writes training_state.pt: tensors and plain values under the names in STATE_TYPES, and `rounding`."""
    content = io.BytesIO()
    torch.save(state, content)  # not into the file, for torch hides what a full disk says
    with replacing(folder / "training_state.pt") as file:
        file.write(content.getbuffer())


def load_state(folder: Path) -> dict | None:
    """Returns what `save_state` wrote last, None where there is nothing. Raises UserError for a damaged or foreign file."""
    path = folder / "training_state.pt"
    check_is_file(path)
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()  # compares checksums, which torch does not
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr]  # which torch would not read
    except Exception as error:  # zipfile raises what it comes across in a damaged file
        raise damaged(folder, first_line(error)) from None
    if changed is not None:
        raise damaged(folder, f"{changed} in it has another checksum")
    if folders:
        raise damaged(folder, f"{folders[0]} in it is marked as a folder")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message says how to run the code in the file
        raise damaged(folder, "it holds more than tensors and plain values") from None
    except Exception as error:  # torch raises what it comes across in a damaged file
        raise damaged(folder, first_line(error)) from None
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in STATE_TYPES.items()):
        raise UserError(f"{path} was not written by train.py; delete {folder} and train again")
    if not is_possible(state):
        raise damaged(folder, "it holds numbers that no run has")
    return state


def is_possible(state: dict) -> bool:
    """Whether the plain values of a state, of the types in STATE_TYPES, are those of some run."""
    counts = [state["data"].get(name) for name in ("documents", "tokens", "bytes")]
    return (
        0 <= state["step"] <= state["num_steps"]
        and state["best_loss"] >= 0  # not NaN either
        and all(isinstance(name, str) for name in state["config"])
        and all(isinstance(count, dict) and all(type(count.get(split)) is int for split in SPLITS) for count in counts)
        and isinstance(rounding := state.get("rounding", {}), dict)
        and all(isinstance(value, str | int | None) for value in rounding.values())
    )


def damaged(folder: Path, reason: str) -> UserError:
    return UserError(f"{folder / 'training_state.pt'} is damaged ({reason}); delete {folder} and train again")


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


def start_from(folder: str, tokenizer: Tokenizer, config: Config) -> Model:
    """Returns the model in a folder, to be trained on: its shape and weights, the context and dropout of `config`.

    Tokens of a frame that it did not know begin as the mean of all others.
    """
    trained = load_known(folder, tokenizer, config, may_lack_frame=True)
    shape = replace(trained.config, vocab_size=tokenizer.vocab_size, max_seq_len=config.max_seq_len, dropout=config.dropout)
    model, weights = Model(shape), trained.state_dict()
    known = weights["wte.weight"]
    weights["wte.weight"] = torch.cat([known, known.mean(0).expand(tokenizer.vocab_size - len(known), -1)])
    model.load_state_dict(weights)
    return model


def load_teacher(config: Config, tokenizer: Tokenizer, device: str) -> Ensemble | None:
    """Returns the models that the setting `teacher` names as one, None where it names none."""
    models = [load_known(folder, tokenizer, config) for folder in config.teacher_dirs]
    return Ensemble(models).to(device).requires_grad_(False) if models else None


def load_known(folder: str | Path, tokenizer: Tokenizer, config: Config, *, may_lack_frame: bool = False) -> Model:
    """Returns the model in a folder, for token files that its tokenizer made, or that tokenizer with the tokens of a frame.

    Raises UserError for another tokenizer.
    """
    model, its_tokenizer = load_model(folder)
    known = {its_tokenizer.sha256} | ({its_tokenizer.with_frame().sha256} if may_lack_frame else set())
    if tokenizer.sha256 not in known:
        raise UserError(
            f"{folder} has another tokenizer than {config.tokens_dir}; run python tokenize_data.py --init_from={folder} first"
        )
    return model

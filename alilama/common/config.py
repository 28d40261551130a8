"""Reads TRAINCONFIG.py and the command line, and refuses what cannot be."""

import argparse
import io
import math
import os
import runpy
import shlex
import sys
import tokenize
import traceback
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import list2cmdline
from types import NoneType

from alilama.common.errors import ArgumentParser, UserError

MAX_SIZE = 1 << 24  # of anything in a model or batch: more is a typing mistake
MAX_BLOCKS = 10_000  # as deep as any model that was published; each of them takes milliseconds to make
LEAST_RATE, MOST_RATE = 1e-9, 1e30  # a learning rate below changes no weight in float32, above it is infinite there
CHOICES = {  # what a setting may be; a model folder is held to it too, for settings that are fields of ModelConfig
    "optimizer": ("adamw", "muon"),
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "log_to": (None, "tensorboard", "wandb"),
}
# What stands for None where no `minutes` are given, in which training/budget.py chooses; the shape is that of init_from.
USUAL_SHAPE = {"d_model": 64, "blocks": 4, "max_seq_len": 128}
USUAL = {"dropout": 0.0, "epochs": 2.5, "batch_size": 32, "compile_model": True}
USUAL_LEARNING_RATE, TRAINED_LEARNING_RATE = 0.045, 0.0045  # from nothing, and from a model
USUAL_HEADS, WIDEST_HEAD = 8, 64


@dataclass
class Config:
    """The settings of a run; TRAINCONFIG.py gives every value and says what it means."""

    data_files: str | list[str]
    text_column: str | None
    val_files: str | list[str] | None
    val_fraction: float
    vocab_size: int | None
    pattern: str
    tokens_dir: str

    model_name: str
    minutes: float | None
    d_model: int | None
    blocks: int | None
    num_heads: int | None
    hidden_dim: int | None
    max_seq_len: int | None
    dropout: float | None

    epochs: float | None
    train_tokens: int | None
    batch_size: int | None
    micro_batch: int | None
    recompute: bool
    learning_rate: float | None
    warmup: float
    weight_decay: float
    beta1: float
    beta2: float
    grad_clip: float
    optimizer: str
    precision: str
    compile_model: bool | None
    seed: int
    init_from: str | None
    teacher: str | None

    log_interval: int
    eval_interval: int | None
    eval_tokens: int | None
    sample_prompt: str | None
    log_to: str | None
    models_dir: str

    def __post_init__(self):
        """Derives what is None and raises UserError for what cannot be."""
        if self.epochs is not None and self.train_tokens is not None:
            raise UserError(f"epochs = {self.epochs} and train_tokens = {self.train_tokens}: expected one of them to be None")
        self._take({"learning_rate": USUAL_LEARNING_RATE if self.init_from is None else TRAINED_LEARNING_RATE})
        if self.minutes is None:
            self._take(USUAL_SHAPE if self.init_from is None else {})
            self._take({name: value for name, value in USUAL.items() if name != "epochs" or self.train_tokens is None})
        for name in (
            "minutes",
            "d_model",
            "blocks",
            "num_heads",
            "hidden_dim",
            "max_seq_len",
            "epochs",
            "train_tokens",
            "batch_size",
            "micro_batch",
            "learning_rate",
            "grad_clip",
            "log_interval",
            "eval_interval",
            "eval_tokens",
        ):
            self._check(name, lambda value: 0 < value < math.inf, "a number above 0")
        for name in ("d_model", "blocks", "num_heads", "hidden_dim", "max_seq_len", "batch_size"):
            self._check(name, lambda value: value < MAX_SIZE, f"a number below {MAX_SIZE:,}")
        self._check("blocks", lambda value: value <= MAX_BLOCKS, f"at most {MAX_BLOCKS:,}")
        self._check("learning_rate", lambda value: LEAST_RATE <= value <= MOST_RATE, f"{LEAST_RATE:g} to {MOST_RATE:g}")
        self._check("minutes", lambda value: value < 1e6, "a number below 1e6")
        self._check("epochs", lambda value: value < 1e9, "a number below 1e9")
        self._check("train_tokens", lambda value: value < 2**60, "a number below 2**60")
        self._check("val_fraction", lambda value: value == 0 or value > 1e-9, "0 or above 1e-9")
        for name in ("val_fraction", "dropout", "warmup", "beta1", "beta2"):
            self._check(name, lambda value: 0 <= value < 1, "at least 0 and below 1")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} = {getattr(self, name)!r}: expected one of {', '.join(map(str, allowed))}")
        self._check("vocab_size", lambda value: value >= 257, "at least 257: 256 bytes and <|endoftext|>")
        self._check("weight_decay", lambda value: 0 <= value <= MOST_RATE, f"0 to {MOST_RATE:g}")
        self._check("seed", lambda value: 0 <= value < 2**63, "at least 0 and below 2**63")
        self._check("val_fraction", lambda value: value > 0 or self.val_files is not None, "above 0 unless val_files are given")
        self._check(
            "model_name",
            lambda value: value and value.rstrip(" .") == value and not set(value) & set("/\\"),
            "the name of a folder inside models_dir, which ends in no space or period",
        )
        for name in ("epochs", "train_tokens"):
            self._check(name, lambda value: self.minutes is None, f"None beside minutes = {self.minutes}, which fix it")
        if self.d_model is not None:
            if self.init_from is None:
                self._take({"num_heads": usual_heads(self.d_model), "hidden_dim": 4 * self.d_model})
            self._check("num_heads", lambda value: self.d_model % value == 0, f"a divisor of d_model = {self.d_model}")

    def _take(self, values: dict[str, object]):
        """Takes values for settings that are None."""
        for name, value in values.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def _check(self, name: str, holds: Callable[[typing.Any], bool], expected: str):
        """Raises UserError for a value that is not as expected; None is what is chosen later."""
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise UserError(f"{name} = {value!r}: expected {expected}")

    def with_choice(self, values: dict[str, object]) -> "Config":
        """Returns the settings with values for those that are None, checked and derived again."""
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})

    @property
    def model_dir(self) -> Path:
        return Path(self.models_dir) / self.model_name

    @property
    def teacher_dirs(self) -> list[Path]:
        return [] if self.teacher is None else [Path(name.strip()) for name in self.teacher.split(",")]


def usual_heads(d_model: int) -> int:
    """Returns 8, or as many heads as keep each at most 64 wide; for a d_model that does not allow it, the next fewer."""
    most = max(USUAL_HEADS, d_model // WIDEST_HEAD)
    return next(heads for heads in range(min(most, d_model), 0, -1) if d_model % heads == 0)


TYPES = typing.get_type_hints(Config)
DATA_SETTINGS = ("data_files", "text_column", "val_files", "val_fraction", "vocab_size", "pattern")  # of tokenize_data.py alone
SHARED_SETTINGS = ("tokens_dir", "init_from")


def load_config(path: Path, argv: list[str], description: str, shown: Collection[str] | None = None) -> Config:
    """Returns the settings of a TRAINCONFIG.py, overridden by --name=value or --name value in `argv`.

    --help lists those `shown`, or all; the others are taken too, for a file and a command may serve both scripts.
    """
    values, comments = read_settings(path)
    parser = ArgumentParser(
        description=description,
        usage="%(prog)s [--name=value ...]",
        epilog=f"The values without these options are those of {path.name}.",
    )
    for name in TYPES:
        comment = f"{comments.get(name, '')} [{values[name]}]".replace("%", "%%")
        if shown is not None and name not in shown:
            comment = argparse.SUPPRESS
        nargs = "+" if list[str] in typing.get_args(TYPES[name]) else None
        parser.add_argument(f"--{name}", nargs=nargs, metavar="X", help=comment)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    for name, value in given.items():
        values[name] = convert(name, value[0] if isinstance(value, list) and len(value) == 1 else value)
    return Config(**values)


def read_settings(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    """Runs a TRAINCONFIG.py; returns its settings and the comment of each, by name."""
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    try:
        values = {name: value for name, value in runpy.run_path(str(path)).items() if not name.startswith("__")}
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:  # the file is the user's code: whatever it raises is a mistake in it
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else path
        raise UserError(f"{place}: {type(error).__name__}: {error}") from None
    if unknown := values.keys() - TYPES.keys():
        raise UserError(f"{path}: {min(unknown)} is not a setting; the settings are {', '.join(TYPES)}")
    if missing := [name for name in TYPES if name not in values]:
        raise UserError(f"{path}: {missing[0]} is missing; add a line '{missing[0]} = ...'")
    comments, name = {}, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string
        elif token.type == tokenize.COMMENT and token.start[1] > 0:
            comments[name] = token.string.lstrip("# ")
    try:
        return {name: convert(name, value) for name, value in values.items()}, comments
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def convert(name: str, value: object) -> object:
    """Returns `value` as the type of setting `name`; text, as on the command line, is read as a value of that type."""
    kinds = typing.get_args(TYPES[name]) or (TYPES[name],)
    for kind in sorted(kinds, key=lambda kind: kind is not NoneType):  # "None" is None where it may be
        try:
            return PARSERS[kind](value)
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
    expected = " or ".join("None" if kind is NoneType else getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UserError(f"{name} = {value!r}: expected {expected}")


def parse_none(value: object) -> None:
    if value is not None and value != "None":
        raise ValueError


def parse_bool(value: object) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def parse_int(value: object) -> int:
    """22e6 is a whole number too."""
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError
    return int(float(value)) if isinstance(value, float) or "e" in str(value).lower() else int(value)


def parse_float(value: object) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def parse_str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def parse_names(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return [parse_str(name) for name in value]


# How a value of each type is read; each raises ValueError, KeyError, TypeError or OverflowError for what is not one.
PARSERS = {NoneType: parse_none, bool: parse_bool, int: parse_int, float: parse_float, str: parse_str, list[str]: parse_names}


def quoted(argument: str | os.PathLike) -> str:
    """Returns an argument as a command line of this system takes it, for commands that are shown."""
    return list2cmdline([str(argument)]) if sys.platform == "win32" else shlex.quote(str(argument))

"""The log of a training run: log.csv always, TensorBoard or Weights & Biases when asked for; samples.jsonl beside it."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType

from alilama.common.config import Config
from alilama.common.errors import UserError, first_line
from alilama.common.files import check_is_file, replacing

COLUMNS = ["step", "tokens", "epoch", "train_loss", "val_loss", "val_bits_per_byte", "learning_rate", "tokens_per_s"]
LOGGERS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}  # the modules
SAMPLE_TYPES = {"step": int, "tokens": int, "prompt": str, "story": str}  # beside them val_bits_per_byte, if it was evaluated


class Log:
    """Writes the rows of a run that goes on at `step` after those up to it; a row that a full disk cut is left out.

    What goes wrong with a log is no reason to end a run: `on_message` is told, and a damaged log.csv gets another name. Raises
    UserError where a run begins and cannot be logged where it is to be.
    """

    def __init__(self, folder: Path, config: Config, step: int, on_message: Callable[[str], None]):
        self.path, self._on_message = folder / "log.csv", on_message
        rows = []
        if self.path.exists() and step > 0:
            try:
                rows = list(read_rows(self.path))
                if rows and "step" not in rows[0]:
                    raise UserError(f"{self.path} has no column step")
            except UserError as error:
                self.path.replace(folder / "log.damaged.csv")
                rows = []
                on_message(f"{error}; it is log.damaged.csv now, and a new one begins here")
        kept = io.StringIO(newline="")
        csv.DictWriter(kept, COLUMNS).writeheader()
        whole = [row for row in rows if None not in (*row, *row.values()) and is_up_to(step, row)]
        csv.DictWriter(kept, COLUMNS, extrasaction="ignore").writerows(whole)
        with replacing(self.path) as file:
            file.write(kept.getvalue().encode())
        self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115, open as long as the run
        self._csv = csv.DictWriter(self._file, COLUMNS)
        self._write_elsewhere = self._close_elsewhere = lambda *_: None
        if config.log_to is not None:
            try:
                self._write_elsewhere, self._close_elsewhere = open_elsewhere(folder, config, step)
            except UserError as error:
                if step == 0:  # nothing is lost yet
                    raise
                on_message(f"The log goes on in log.csv alone: {error}")

    def write(self, row: dict[str, object]):
        """Adds a row of values by COLUMNS; a column that it lacks stays empty."""
        try:
            self._csv.writerow(row)
            self._file.flush()
        except OSError as error:
            self._on_message(f"{self.path} was not written ({error.strerror}); a row is missing there")
        numbers = {name: number for name in COLUMNS[1:] if (number := finite(str(row.get(name, "")))) is not None}
        try:
            self._write_elsewhere(numbers, row["step"])
        except Exception as error:  # of a program of others, or of the network
            self._on_message(f"The log goes on in log.csv alone, for the other one failed: {first_line(error)}")
            self._write_elsewhere = self._close_elsewhere = lambda *_: None

    def close(self):
        """Closes what is open; what cannot be closed has been told of."""
        for close in (self._file.close, self._close_elsewhere):
            try:
                close()
            except Exception as error:  # as above, and a full disk
                self._on_message(f"A log was not closed: {first_line(error)}")


def open_elsewhere(folder: Path, config: Config, step: int):
    """Returns what writes numbers, by name, of a step to config.log_to, and what closes it. Raises UserError where it fails."""
    logger = import_logger(config.log_to)
    try:
        return {"tensorboard": open_tensorboard, "wandb": open_wandb}[config.log_to](logger, folder, config, step)
    except Exception as error:  # of a program of others: nobody is logged in, no network, a folder that cannot be made
        reason = first_line(error).rstrip(".")
        raise UserError(f"log_to = {config.log_to!r}: {reason}; mend that, or set log_to to None") from None


def open_tensorboard(logger: ModuleType, folder: Path, config: Config, step: int):
    writer = logger.SummaryWriter(folder / "tensorboard", purge_step=step + 1)  # hides what comes from there on

    def write(numbers: dict[str, float], step: int):
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)
        writer.flush()

    return write, writer.close


def open_wandb(logger: ModuleType, folder: Path, config: Config, step: int):
    id_file = folder / "wandb_run.txt"
    known = {"id": id_file.read_text(), "resume": "allow"} if step > 0 and id_file.exists() else {}  # it may be offline still
    run = logger.init(project="alilama", name=config.model_name, dir=folder, config=asdict(config), **known)
    id_file.write_text(run.id)
    return lambda numbers, step: run.log(numbers, step=step), run.finish


def import_logger(log_to: str | None) -> ModuleType | None:
    """Returns the module that writes to `log_to`, None for None. Raises UserError where it is not installed."""
    try:
        return import_module(LOGGERS[log_to]) if log_to is not None else None
    except ImportError as error:
        raise UserError(f"log_to = {log_to!r}: {error.name or log_to} is not installed; run pip install {log_to}") from None


def read_log(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a log.csv; a cell that is not a finite number is missing here."""
    return [{name: number for name, cell in row.items() if (number := finite(cell)) is not None} for row in read_rows(path)]


def is_up_to(step: int, row: dict[str, str]) -> bool:
    found = finite(row.get("step"))
    return found is not None and found <= step


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yields the rows of a log.csv as they are, also where a spreadsheet wrote a byte order mark before them."""
    check_is_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            yield from csv.DictReader(file)
    except csv.Error as error:
        raise UserError(f"{path} is not a log of a training ({error})") from None


def finite(cell: str | None) -> float | None:
    """Returns the number in a cell, None if there is none or it is not finite."""
    try:
        return number if math.isfinite(number := float(cell or "")) else None
    except (ValueError, TypeError):
        return None


def best_evaluation(rows: list[dict[str, float]]) -> dict[str, float] | None:
    """Returns the row of the lowest validation loss, after which the weights were saved; None where nothing was evaluated."""
    return min((row for row in rows if "val_loss" in row), key=lambda row: row["val_loss"], default=None)


def is_memorizing(rows: list[dict[str, float]]) -> bool:
    """Whether over the last three evaluations the validation loss rose each time while the training loss fell."""
    train, val, since = [], [], []
    for row in rows:
        since += [row["train_loss"]] if "train_loss" in row else []
        if "val_loss" in row and since:
            train.append(sum(since) / len(since))
            val.append(row["val_loss"])
            since = []
    return len(val) >= 3 and val[-3] < val[-2] < val[-1] and train[-3] > train[-2] > train[-1]


class Samples:
    """What a model writes at its evaluations, a line of JSON each in samples.jsonl, of a run that goes on at `step`.

    What goes wrong with them is no reason to end a run: `on_message` is told, and of a damaged file, which gets another name,
    those that can be read are kept.
    """

    def __init__(self, folder: Path, step: int, on_message: Callable[[str], None]):
        self.path, self._on_message = folder / "samples.jsonl", on_message
        self.rows, self._before = [], b""
        try:
            if step > 0 and self.path.exists():
                rows, is_damaged = read_samples(self.path)
                self.rows = [row for row in rows if row["step"] <= step]
                if is_damaged:
                    self.path.replace(folder / "samples.damaged.jsonl")
                    on_message(f"{self.path} is damaged; it is samples.damaged.jsonl now, and what can be read of it is kept")
            with replacing(self.path) as file:
                file.writelines(sample_line(row) for row in self.rows)
        except (OSError, UserError) as error:
            on_message(f"No earlier samples are kept: {error}")

    def write(self, row: dict[str, object]):
        """Adds a sample of SAMPLE_TYPES, with its val_bits_per_byte if there is one."""
        self.rows.append(row)
        try:
            with open(self.path, "ab") as file:
                file.write(self._before + sample_line(row))
            self._before = b""
        except OSError as error:
            self._before = b"\n"  # after what there may be of this one
            self._on_message(f"{self.path} was not written ({error.strerror}); a sample is missing there")


def sample_line(row: dict[str, object]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="replace")  # of surrogates


def read_samples(path: Path) -> tuple[list[dict], bool]:
    """Returns the samples in a samples.jsonl, and whether it has other lines; a last one that was cut does not count."""
    check_is_file(path)
    *lines, _ = path.read_bytes().split(b"\n")
    rows = [sample_in(line) for line in lines if line]
    return [row for row in rows if row is not None], None in rows


def sample_in(line: bytes) -> dict[str, object] | None:
    """Returns the sample in a line, None where it has none; a score that is no finite number is missing."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # Unicode and JSON errors are ValueErrors
        return None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in SAMPLE_TYPES.items()):
        return None
    if not all(0 <= row[name] < 2**63 for name in ("step", "tokens")):
        return None
    score = row.get("val_bits_per_byte")
    is_score = isinstance(score, int | float) and 0 <= score < 2**63
    names = {*SAMPLE_TYPES, "val_bits_per_byte"} if is_score else {*SAMPLE_TYPES}
    return {name: value for name, value in row.items() if name in names}

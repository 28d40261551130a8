"""Pictures: of a training log, of the loss by context, of next tokens; what all pictures share."""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from functools import cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from alilama.common.errors import UserError
from alilama.common.files import replacing, to_path
from alilama.data.tokenizer import Tokenizer
from alilama.model.model import Model
from alilama.training.log import best_evaluation, read_log
from alilama.views.inside import next_tokens

MAX_TITLE = 70  # characters of a prompt
MAX_LABEL = 16  # characters of a token
CLIFF = 1 / 20  # of a training, in which the loss falls by more than in all the rest
MAX_EPOCHS = 20  # that are marked


def plot_log(log: str | os.PathLike) -> Figure:
    """Draws a training log: train and validation loss over the tokens seen, with bits per byte on the right.

    The cliff at the start is cut off, and passes over the text are marked. Raises UserError where `log` is not a log.csv.
    """
    log = to_path("log", log)
    if not log.is_file():
        raise UserError(f"{log} is not there: train.py writes it into the folder of the model")
    rows = read_log(log)
    trained = [row for row in rows if row.keys() >= {"tokens", "train_loss"}]
    validated = [row for row in rows if row.keys() >= {"tokens", "val_loss", "val_bits_per_byte"}]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [row["tokens"] / 1e6 for row in trained],
        [row["train_loss"] for row in trained],
        color="tab:blue",
        alpha=0.7,
        label="training",
    )
    axes.plot(
        [row["tokens"] / 1e6 for row in validated],
        [row["val_loss"] for row in validated],
        "o-",
        color="tab:orange",
        label="validation",
    )
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    title = log.parent.name
    if validated:
        best = best_evaluation(validated)
        title += f": {best['val_bits_per_byte']:.3f} bits per byte on validation after {best['tokens'] / 1e6:.1f}M tokens"
        add_bits_per_byte(axes, best["val_loss"], best["val_bits_per_byte"])
    set_title(axes, title)
    cut_cliff(axes, trained, validated)
    mark_epochs(axes, rows)
    axes.legend()
    return figure


def cut_cliff(axes: Axes, trained: Sequence[dict[str, float]], validated: Sequence[dict[str, float]]):
    """Leaves out of a loss axis what lies above the losses after the first CLIFF of the tokens, and says where it began."""
    later = [row for row in trained if row["tokens"] >= CLIFF * trained[-1]["tokens"]]
    losses = [row["train_loss"] for row in later] + [row["val_loss"] for row in validated]
    if later and trained[0]["train_loss"] > max(losses):
        margin = 0.06 * (max(losses) - min(losses))
        axes.set_ylim(min(losses) - margin, max(losses) + margin)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
        begin = f"↑ from {trained[0]['train_loss']:.1f}"
        axes.annotate(begin, (later[0]["tokens"] / 1e6, 1), (6, -5), color="tab:blue", **place)


def mark_epochs(axes: Axes, rows: Sequence[dict[str, float]]):
    """Marks each whole pass over the training text, up to MAX_EPOCHS of them."""
    if not (whole := [row for row in rows if row.get("epoch", 0) > 0 and row.get("tokens", 0) > 0]):
        return
    tokens_of_epoch = whole[-1]["tokens"] / whole[-1]["epoch"] / 1e6
    for epoch in range(1, min(MAX_EPOCHS, math.floor(whole[-1]["epoch"])) + 1):
        axes.axvline(epoch * tokens_of_epoch, color="gray", linestyle=":", linewidth=1, zorder=0)
        label = f"epoch {epoch}" if epoch == 1 else str(epoch)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(label, (epoch * tokens_of_epoch, 0), (-3, 4), ha="right", color="gray", fontsize=8, **place)


def plot_contexts(title: str, lines: Mapping[str, Mapping[int, float]], trained: int) -> Figure:
    """Draws bits per byte by context length, a line of each name; `trained` is the length the models were trained at."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, by_context in lines.items():
        [line] = axes.plot(by_context.keys(), by_context.values(), "o-", label=drawable(name))
        place = {"textcoords": "offset points", "ha": "center", "color": line.get_color(), "fontsize": 9}
        axes.annotate(f"{by_context[max(by_context)]:.3f}", (max(by_context), by_context[max(by_context)]), (0, 7), **place)
    axes.axvspan(min(map(min, lines.values())), trained, color="gray", alpha=0.12, zorder=0, label=f"trained: up to {trained}")
    axes.set_xscale("log", base=2)
    contexts = sorted({context for by_context in lines.values() for context in by_context})
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.margins(y=0.15)
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel("bits per byte")
    axes.grid(alpha=0.3)
    set_title(axes, title)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    return figure


def read_contexts(path: str | os.PathLike) -> dict[str, dict[int, float]]:
    """Reads lines of `plot_contexts` from a CSV file with the columns name, context and bits_per_byte.

    Raises UserError where it is missing or anything else.
    """
    path, lines = to_path("path", path), defaultdict(dict)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                context, bits = int(row["context"]), float(row["bits_per_byte"])
                if context < 1 or not math.isfinite(bits):
                    raise ValueError(f"found {context} and {bits}")
                lines[row["name"]][context] = bits
    except (OSError, csv.Error, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a CSV file with the columns name, context and bits_per_byte ({error})") from None
    if not lines:
        raise UserError(f"{path} has no rows: expected some of name, context and bits_per_byte")
    return dict(lines)


def add_bits_per_byte(axes: Axes, loss: float, bits_per_byte: float):
    """Adds an axis on the right for a loss axis, where `loss` nats per token are `bits_per_byte`."""
    if bits_per_byte > 0 and loss > 0 and math.isfinite(bits_per_byte / loss):
        bits_per_byte_of_nats = bits_per_byte / loss
        right = axes.secondary_yaxis(
            "right", functions=(lambda nats: nats * bits_per_byte_of_nats, lambda bits: bits / bits_per_byte_of_nats)
        )
        right.set_ylabel("bits per byte")


def plot_next_tokens(model: Model, tokenizer: Tokenizer, prompt: str = "", count: int = 10) -> Figure:
    """Draws the most likely tokens after `prompt` as bars, the most likely at the top."""
    ids, probabilities = zip(*next_tokens(model, tokenizer, prompt, count), strict=True)
    figure = Figure(figsize=(8, 1.2 + 0.3 * count), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(count), [100 * probability for probability in probabilities], color="tab:blue")
    axes.bar_label(bars, fmt="%.1f %%", padding=4)
    axes.margins(x=0.12)  # room for the numbers
    axes.invert_yaxis()
    label_tokens(axes.yaxis, tokenizer, ids, family="monospace")
    axes.set_xlabel("probability (%)")
    start = repr(prompt) if len(prompt) <= MAX_TITLE else f"…{prompt[-MAX_TITLE:]!r}"
    set_title(axes, f"what comes after {start}")
    return figure


def label_tokens(axis: Axis, tokenizer: Tokenizer, ids: Sequence[int], **style):
    axis.set_ticks(range(len(ids)), [token_label(tokenizer, token_id) for token_id in ids], parse_math=False, **style)


def token_label(tokenizer: Tokenizer, token_id: int) -> str:
    """Returns a token as one word: spaces and line ends are seen, bytes that are not characters are written out."""
    text = tokenizer.token_bytes(token_id).decode(errors="backslashreplace").replace(" ", "␣").replace("\n", "↵")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return drawable(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…")


def set_title(axes: Axes, text: str):
    """Gives axes a title of any text, which is not read as a formula."""
    axes.set_title(drawable(text), fontsize=11, parse_math=False)


def drawable(text: str) -> str:
    """Returns a text with a sign for each character that the font of pictures lacks, such as controls and surrogates."""
    return "".join(character if ord(character) in drawable_characters() else "\N{REPLACEMENT CHARACTER}" for character in text)


@cache
def drawable_characters() -> Set[int]:
    return {ord(" "), *(code for code in get_font(findfont(FontProperties())).get_charmap() if chr(code).isprintable())}


def save_figure(figure: Figure, path: Path):
    """Writes a PNG, all of it or nothing."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)

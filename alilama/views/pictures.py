"""Pictures: of a training log, of the loss by context, of next tokens; what all pictures share."""

import csv
import itertools
import math
import os
import textwrap
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from functools import cache
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from alilama.common.errors import UserError
from alilama.common.files import replacing, to_path
from alilama.data.tokenizer import Tokenizer
from alilama.model.model import Model
from alilama.training.log import best_evaluation, read_log, read_samples
from alilama.views.bidi import in_visual_order, is_right_to_left, join_arabic
from alilama.views.inside import next_tokens

MAX_TITLE = 70  # characters of a prompt
MAX_LABEL = 16  # characters of a token
CLIFF = 1 / 20  # of a training, in which the loss falls by more than in all the rest
MAX_EPOCHS = 20  # that are marked
MAX_PINS, PIN_LINES, PIN_CHARACTERS, PIN_SIZE = 4, 4, 25, 7  # samples above the curves, what fits of each, and points
POINTS_AT_ONCE = 1000  # of a curve: drawing it takes 3 KB for each, else 47 MB for a log of 16,000 rows
LABEL_HEIGHT = 0.05  # of the axes, of a number where a line ends
MISSING = "\N{REPLACEMENT CHARACTER}"


def plot_log(log: str | os.PathLike) -> Figure:
    """Draws a training log: train and validation loss over the tokens seen, with bits per byte on the right.

    The cliff at the start is cut off, passes over the text are marked, and above the curves stands what the model wrote, if
    there is a samples.jsonl beside the log. Raises UserError where `log` is not a log.csv.
    """
    log = to_path("log", log)
    if not log.is_file():
        raise UserError(f"{log} is not there: train.py writes it into the folder of the model")
    rows = read_log(log)
    trained = [row for row in rows if row.keys() >= {"tokens", "train_loss"}]
    validated = [row for row in rows if row.keys() >= {"tokens", "val_loss", "val_bits_per_byte"}]
    pins = choose_pins(log.with_name("samples.jsonl"), validated)
    pins_height = 1.3 * PIN_SIZE * PIN_LINES + 12 if pins else 0  # points
    figure = Figure(figsize=(8, 4.5 + pins_height / 72), layout="constrained")
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
    set_title(axes, title, pad=6 + pins_height)
    cut_cliff(axes, trained, validated)
    mark_epochs(axes, rows)
    draw_pins(axes, pins)
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
        place |= {"bbox": {"fc": "white", "ec": "none", "pad": 1}}  # a pin may be behind it
        begin = f"↑ from {trained[0]['train_loss']:.1f}"
        axes.annotate(begin, (later[0]["tokens"] / 1e6, 1), (6, -5), color="tab:blue", **place)


def mark_epochs(axes: Axes, rows: Sequence[dict[str, float]]):
    """Marks each whole pass over the training text; where there are more than MAX_EPOCHS, each second, third or so."""
    if not (whole := [row for row in rows if row.get("epoch", 0) > 0 and row.get("tokens", 0) > 0]):
        return
    tokens_of_epoch = whole[-1]["tokens"] / whole[-1]["epoch"] / 1e6
    passes = math.floor(whole[-1]["epoch"])
    every = max(1, math.ceil(passes / MAX_EPOCHS))
    for epoch in range(every, passes + 1, every):
        axes.axvline(epoch * tokens_of_epoch, color="gray", linestyle=":", linewidth=1, zorder=0)
        label = f"epoch {epoch}" if epoch == every else str(epoch)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(label, (epoch * tokens_of_epoch, 0), (-3, 4), ha="right", color="gray", fontsize=8, **place)


def choose_pins(path: Path, validated: Sequence[dict[str, float]]) -> list[tuple[float, float, str]]:
    """Returns (tokens in millions, loss, how the model went on from the prompt) of up to MAX_PINS evaluations, evenly chosen.

    There are none where the samples are missing, nor for a text of which the font lacks more than a tenth.
    """
    samples = {sample["step"]: sample for sample in read_samples(path)[0]} if path.is_file() else {}
    pins = []
    for row in validated:
        if (sample := samples.get(row.get("step"))) is not None:
            text = drawable(" ".join(f"…{sample['story'].removeprefix(sample['prompt'])}".split()))
            if text.count(MISSING) <= len(text) / 10:
                pins.append((row["tokens"] / 1e6, row["val_loss"], text))
    last = min(MAX_PINS, len(pins)) - 1
    return [pins[round(i * (len(pins) - 1) / max(1, last))] for i in range(last + 1)]


def draw_pins(axes: Axes, pins: Sequence[tuple[float, float, str]]):
    """Writes the texts of pins side by side above the axes, each with a line to its place.

    Within the axes a line goes straight down, so that it meets each curve at most once.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # which stay so
    width = 1 / MAX_PINS  # of a column, in widths of the axes
    left = -width
    for number, (tokens, loss, text) in enumerate(pins):
        x, y = axes.transLimits.transform((tokens, loss))
        left = min(max(x - width / 2, left + width), 1 - (len(pins) - number) * width)
        right = left + 0.95 * width
        line = {"color": "tab:orange", "linewidth": 0.8, "alpha": 0.6, "zorder": 1.5, "clip_on": False}
        axes.plot([min(max(x, left + 0.01), right), x, x], [1.025, 1, y], transform=axes.transAxes, **line)
        from_right = is_right_to_left(text)
        lines = textwrap.wrap(text, PIN_CHARACTERS, max_lines=PIN_LINES, placeholder=" …")
        lines = [drawable_line(line, from_right) for line in lines]
        place, side = (right, "right") if from_right or x > left + 0.7 * width else (left, "left")
        style = {"fontsize": PIN_SIZE, "color": "dimgray", "va": "bottom", "ha": side, "ma": side, "parse_math": False}
        axes.text(place, 1.035, "\n".join(lines), transform=axes.transAxes, **style)


def plot_contexts(title: str, lines: Mapping[str, Mapping[int, float]], trained: int) -> Figure:
    """Draws bits per byte by context length, a line of each name; `trained` is the length the models were trained at."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, by_context in lines.items():
        axes.plot(by_context.keys(), by_context.values(), "o-", label=drawable(name))
    axes.set_xscale("log", base=2)
    contexts = sorted({context for by_context in lines.values() for context in by_context})
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.margins(x=0.08, y=0.15)
    left, right = axes.get_xlim()
    axes.axvspan(left, trained, color="gray", alpha=0.12, zorder=0, label=f"trained: up to {trained}")
    axes.set_xlim(left, max(right, trained))
    label_ends(axes, [max(by_context.items()) for by_context in lines.values()])
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel("bits per byte")
    axes.grid(alpha=0.3)
    set_title(axes, title)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    return figure


def label_ends(axes: Axes, ends: Sequence[tuple[int, float]]):
    """Writes beside the (x, y) where each line ends its y, those of one x far enough apart to be read."""
    axes.set_ylim(axes.get_ylim())  # which stays so
    heights = [axes.transLimits.transform((0, y))[1] for _, y in ends]  # from 0 to 1
    for x in {x for x, _ in ends}:
        rising = sorted((i for i, end in enumerate(ends) if end[0] == x), key=lambda i: heights[i])
        for below, i in itertools.pairwise(rising):
            heights[i] = max(heights[i], heights[below] + LABEL_HEIGHT)
    for (x, y), height, line in zip(ends, heights, axes.get_lines(), strict=False):
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{y:.3f}", (x, height), (8, 0), color=line.get_color(), fontsize=9, **place)


def read_contexts(path: str | os.PathLike) -> dict[str, dict[int, float]]:
    """Reads lines of `plot_contexts` from a CSV file with the columns name, context and bits_per_byte.

    Raises UserError where it is missing or anything else, and where two rows have one name and context.
    """
    path, lines = to_path("path", path), defaultdict(dict)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                context, bits = int(row["context"]), float(row["bits_per_byte"])
                if context < 1 or not math.isfinite(bits):
                    raise ValueError(f"found {context} and {bits}")
                if context in lines[row["name"]]:
                    raise ValueError(f"found {row['name']!r} at {context} twice; give each model a name of its own")
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
    return drawable_line(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…")


def set_title(axes: Axes, text: str, pad: float = 6):
    """Gives axes a title of any text, which is not read as a formula, so many points above them."""
    axes.set_title(drawable_line(text), fontsize=11, parse_math=False, pad=pad)


def drawable_line(text: str, from_right: bool = False) -> str:
    """Returns a line of `drawable` text as it is seen, where a part of it, or all, is read from right to left."""
    return in_visual_order(join_arabic(drawable(text), drawable_characters()), from_right)


def drawable(text: str) -> str:
    """Returns a text with a sign for each character that the font of pictures lacks, such as controls and surrogates.

    What only says how others are shown (category Cf), and has no shape of its own, is left out.
    """
    characters = (character for character in text if unicodedata.category(character) != "Cf")
    return "".join(character if ord(character) in drawable_characters() else MISSING for character in characters)


def count_missing(text: str) -> int:
    """Returns how many characters of a text a picture shows as a sign, without spaces and line ends."""
    return sum(drawable(character) == MISSING != character for character in "".join(text.split()))


@cache
def drawable_characters() -> Set[int]:
    return {ord(" "), *(code for code in get_font(findfont(FontProperties())).get_charmap() if chr(code).isprintable())}


def save_figure(figure: Figure, path: Path):
    """Writes a PNG, all of it or nothing."""
    with replacing(path) as file, rc_context({"agg.path.chunksize": POINTS_AT_ONCE}):
        figure.savefig(file, format="png", dpi=120)

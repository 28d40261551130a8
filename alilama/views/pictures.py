"""Pictures: of a training log, of an evaluation, of next tokens and of attention."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from alilama.common.errors import UserError
from alilama.common.files import replacing
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import alibi_bias
from alilama.model.model import Model
from alilama.training.log import best_evaluation, read_log
from alilama.training.scoring import Score
from alilama.views.inside import attention_weights, next_tokens

MAX_TITLE = 70  # characters of a prompt
MAX_LABEL = 16  # characters of a token
MAX_LABELED_TOKENS = 48  # on an axis, beyond which only their positions are marked
MAX_MAP_TOKENS = 1024  # of a text whose attention is drawn
LOWEST_BIAS = -8  # drawn darkest, for it leaves e^-8 = 0.03% of a weight; one scale, so that heads can be compared


def plot_log(log: str | os.PathLike) -> Figure:
    """Draws a training log: train and validation loss over the tokens seen, with bits per byte on the right.

    Raises UserError where `log` is not a log.csv.
    """
    log = Path(log)
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
    axes.legend()
    return figure


def plot_evaluation(name: str, contexts: Sequence[int], scores: Sequence[tuple[Score, Score]], trained: int) -> Figure:
    """Draws the loss by context length, in windows that do not overlap and in sliding ones, with bits per byte on the right.

    `scores` has both scores of each context, `trained` is the length the model was trained at.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, colour, way in zip(
        ("non-overlapping windows", "sliding windows"), ("tab:orange", "tab:blue"), zip(*scores, strict=True), strict=True
    ):
        axes.plot(contexts, [score.loss for score in way], "o-", color=colour, label=label)
    axes.axvline(trained, color="gray", linestyle="--", label=f"trained length, {trained}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, map(str, contexts))
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    add_bits_per_byte(axes, scores[0][0].loss, scores[0][0].bits_per_byte)
    set_title(axes, f"{name}: loss by context length")
    axes.legend()
    return figure


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


def plot_attention(model: Model, tokenizer: Tokenizer, text: str, layer: int = 1, head: int = 1) -> Figure:
    """Draws where a head looks, and beside it the ALiBi bias of that head; layers and heads are counted from 1.

    Each row is a token of `text`: how much of its attention goes to itself and to each token before it. Raises
    UserError for a layer or head that the model does not have, and for more than MAX_MAP_TOKENS tokens.
    """
    for name, number, largest in (("layer", layer, model.config.blocks), ("head", head, model.config.num_heads)):
        if not 1 <= number <= largest:
            raise UserError(f"{name} = {number}: expected 1 to {largest}, for the model has {largest}")
    ids = tokenizer.encode_document(text)
    if len(ids) > MAX_MAP_TOKENS:
        raise UserError(f"the text has {len(ids)} tokens: expected at most {MAX_MAP_TOKENS}, a map of more is not readable")
    weights = attention_weights(model, ids)[layer - 1, head - 1]  # (T, T)
    bias = alibi_bias(model.slopes.float().cpu(), len(ids))[head - 1]  # (T, T)
    slope = f"{model.slopes[head - 1]:.3g}"
    figure = Figure(figsize=(12, 6), layout="constrained")
    figure.suptitle(f"layer {layer} of {model.config.blocks}, head {head} of {model.config.num_heads}, slope {slope}")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_map(left, weights, tokenizer, ids, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    draw_map(right, bias, tokenizer, ids, cmap="Oranges_r", norm=Normalize(LOWEST_BIAS, 0))
    figure.colorbar(left.images[0], label="share of the attention", shrink=0.8)
    figure.colorbar(right.images[0], label="added to the score", shrink=0.8, extend="min")
    left.set_title("where each token looks", fontsize=11)
    right.set_title(f"the ALiBi bias: −{slope} × distance", fontsize=11)
    left.set_ylabel("token that looks")
    return figure


def draw_map(axes: Axes, values: torch.Tensor, tokenizer: Tokenizer, ids: list[int], **style):
    """Draws what each token, a row, has for itself and each token before it; values: (T, T)."""
    future = torch.ones_like(values, dtype=torch.bool).triu(1)
    axes.imshow(values.masked_fill(future, math.nan).numpy(), **style)
    axes.set_facecolor("0.93")  # the future
    axes.set_xlabel("token looked at")
    if len(ids) <= MAX_LABELED_TOKENS:
        label_tokens(axes.xaxis, tokenizer, ids, rotation=90, fontsize=8)
        label_tokens(axes.yaxis, tokenizer, ids, fontsize=8)


def label_tokens(axis: Axis, tokenizer: Tokenizer, ids: Sequence[int], **style):
    axis.set_ticks(range(len(ids)), [token_label(tokenizer, token_id) for token_id in ids], parse_math=False, **style)


def token_label(tokenizer: Tokenizer, token_id: int) -> str:
    """Returns a token as one word: spaces and line ends are seen, bytes that are not characters are written out."""
    text = tokenizer.token_bytes(token_id).decode(errors="backslashreplace").replace(" ", "␣").replace("\n", "↵")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def set_title(axes: Axes, text: str):
    """Gives axes a title of any text: not read as a formula, without surrogates, which fonts cannot draw."""
    axes.set_title(text.encode(errors="replace").decode(), fontsize=11, parse_math=False)


def save_figure(figure: Figure, path: Path):
    """Writes a PNG, all of it or nothing."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)

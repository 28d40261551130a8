"""Pictures."""

from pathlib import Path

from matplotlib.figure import Figure

from alilama.data import replacing
from alilama.log import read_log


def plot_log(log: Path) -> Figure:
    """Draws a training log: train and validation loss over the tokens seen, with bits per byte on the right."""
    rows = read_log(log)
    trained = [row for row in rows if row.keys() >= {"tokens", "train_loss"}]
    validated = [row for row in rows if row.keys() >= {"tokens", "val_loss", "val_bits_per_byte"}]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["tokens"] / 1e6 for row in trained], [row["train_loss"] for row in trained], color="tab:blue", alpha=0.7,
              label="training")
    axes.plot([row["tokens"] / 1e6 for row in validated], [row["val_loss"] for row in validated], "o-", color="tab:orange",
              label="validation")
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    title = log.parent.name
    if validated:
        best = min(validated, key=lambda row: row["val_loss"])
        title += f": {best['val_bits_per_byte']:.3f} bits per byte on validation after {best['tokens'] / 1e6:.1f}M tokens"
    if validated and best["val_bits_per_byte"] > 0:
        bits_per_byte_of_nats = best["val_bits_per_byte"] / best["val_loss"]
        right = axes.secondary_yaxis("right", functions=(lambda nats: nats * bits_per_byte_of_nats,
                                                         lambda bits: bits / bits_per_byte_of_nats))
        right.set_ylabel("bits per byte")
    axes.set_title(title.encode(errors="replace").decode(), fontsize=11, parse_math=False)
    axes.legend()
    return figure


def save_figure(figure: Figure, path: Path):
    """Writes a PNG, all of it or nothing."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)

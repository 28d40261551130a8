"""Where a model looks: arcs over the words for one head, a small map for each head of its layer, and the slopes of all."""

import itertools
import math
from numbers import Integral
from types import NoneType

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Arc

from alilama.common.errors import UserError, expect
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import linear_bias
from alilama.model.model import Model
from alilama.views.inside import attention_weights, check_pair, telling_scores
from alilama.views.pictures import token_label
from alilama.views.story import width_of

WIDTH = 9.6  # inches
ABOVE, ROW = 2.6, 1.7  # heights: of the arcs, and of a row of maps
FONT, LEAST_SIZE = FontProperties(size=10), 7  # of the words
GAP = 6  # points between words
MAX_ARC_TOKENS = 64  # a longer text has a large map instead
MAX_MAP_TOKENS = 1024
LEAST_SHARE = 0.08  # of a token's attention that is drawn
LOWEST_BIAS = -8  # leaves e^-8 = 0.03% of a weight
COLOUR = "tab:blue"
MAP = {"cmap": "Blues", "norm": PowerNorm(0.5, 0, 1)}  # one scale, so that heads can be compared


def plot_attention(model: Model, tokenizer: Tokenizer, text: str, layer: int | None = None, head: int | None = None) -> Figure:
    """Draws where a head looks, all heads of its layer, and the bias of each; layers and heads are counted from 1.

    Those that are not given are where the model looks most tellingly, see `telling_scores`. Raises UserError for a layer or
    head that the model does not have, and for more than MAX_MAP_TOKENS tokens.
    """
    check_pair(model, tokenizer)
    blocks, H = model.config.blocks, model.config.num_heads
    for name, number, largest in (("layer", layer, blocks), ("head", head, H)):
        expect(name, number, Integral, NoneType)
        if number is not None and not 1 <= number <= largest:
            raise UserError(f"{name} = {number}: expected 1 to {largest}, for the model has {largest}")
    ids = tokenizer.encode_document(text)
    if len(ids) > MAX_MAP_TOKENS:
        raise UserError(f"the text has {len(ids)} tokens: expected at most {MAX_MAP_TOKENS}, a map of more is not readable")
    weights = attention_weights(model, ids)  # (blocks, H, T, T)
    layer, head = most_telling(telling_scores(weights, tokenizer, ids), layer, head)
    shown = weights[layer - 1]  # (H, T, T)
    columns = min(H, max(4, math.ceil(math.sqrt(2 * H))))
    rows = math.ceil(H / columns)
    heights = ABOVE, 0.3 + ROW * rows
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=heights)
    if len(ids) <= MAX_ARC_TOKENS:
        draw_arcs(above.subplots(), shown[head - 1], [token_label(tokenizer, token_id) for token_id in ids])
    else:
        draw_map(above.subplots(), shown[head - 1])
    stronger = "wider" if len(ids) <= MAX_ARC_TOKENS else "darker"
    title = f"layer {layer} of {blocks}, head {head} of {H}: what each token looks back at, the {stronger} the more"
    above.suptitle(title, fontsize=11)
    maps, slopes = below.subfigures(1, 2, width_ratios=(columns, 1.25))
    maps.suptitle(f"all heads of layer {layer}: each row a token, from left to right what it looks at", fontsize=9)
    for number, axes in enumerate(maps.subplots(rows, columns, squeeze=False).flat, 1):
        if number > H:
            axes.axis("off")
            continue
        draw_map(axes, shown[number - 1])
        colour, width = (COLOUR, 2) if number == head else ("0.8", 0.8)
        axes.spines[:].set(color=colour, linewidth=width)
        axes.set_title(f"head {number}", fontsize=8, color=COLOUR if number == head else "black")
    draw_slopes(slopes.subplots(), model.slopes.float().cpu(), head, len(ids))
    return figure


def most_telling(scores: torch.Tensor, layer: int | None, head: int | None) -> tuple[int, int]:
    """Returns the layer and head, counted from 1, of the highest of scores, (blocks, H); what is given stays."""
    layers = range(len(scores)) if layer is None else [layer - 1]
    heads = range(scores.shape[1]) if head is None else [head - 1]
    best = max(((layer, head) for layer in layers for head in heads), key=lambda place: scores[place])
    return best[0] + 1, best[1] + 1


def draw_arcs(axes: Axes, weights: torch.Tensor, labels: list[str]):
    """Draws an arc from each token to those before it that it looks at, weights: (T, T), the wider, the more.

    What stays with the token itself or rests on the first, <|endoftext|>, has none.
    """
    words = [label.strip("␣") or label for label in labels]
    widths = [width_of(word, FONT) + GAP for word in words]
    ends = list(itertools.accumulate(widths))
    size, rotation = FONT.get_size_in_points() * min(1.0, 72 * WIDTH / ends[-1]), 0
    places = [end - width / 2 for end, width in zip(ends, widths, strict=True)]
    if size < LEAST_SIZE:  # so many words stand upright, at equal distances
        size, rotation, places = LEAST_SIZE, 90, [(number + 0.5) * ends[-1] / len(words) for number in range(len(words))]
    highest = 1.0
    for i, j in (weights.tril(-1) >= LEAST_SHARE).nonzero().tolist():
        if j > 0:
            middle, width, share = (places[i] + places[j]) / 2, places[i] - places[j], float(weights[i, j])
            height = width**0.75  # long ones are flatter
            highest = max(highest, height)
            style = {"theta1": 0, "theta2": 180, "color": COLOUR, "alpha": 0.15 + 0.7 * share, "linewidth": 4 * share}
            axes.add_patch(Arc((middle, 0), width, 2 * height, **style))
    axes.set(xlim=(0, max(ends[-1], 72 * WIDTH)), ylim=(0, 1.05 * highest), yticks=[])
    axes.set_xticks(places, words, fontsize=size, rotation=rotation, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.get_xticklabels()[0].set_color("0.6")


def draw_map(axes: Axes, weights: torch.Tensor):
    """Draws how much each token, a row, looks at itself and each token before it; weights: (T, T)."""
    future = torch.ones_like(weights, dtype=torch.bool).triu(1)
    axes.imshow(weights.masked_fill(future, math.nan).numpy(), **MAP)
    axes.set(xticks=[], yticks=[], facecolor="0.95")  # the future


def draw_slopes(axes: Axes, slopes: torch.Tensor, head: int, T: int):
    """Draws what distance adds to the scores of each head, slopes: (H,)."""
    distance = torch.arange(T)
    for number, slope in enumerate(slopes, 1):
        style = {"color": COLOUR, "linewidth": 2, "zorder": 3} if number == head else {"color": "0.7", "linewidth": 1}
        axes.plot(distance, linear_bias(distance, slope), **style)
    axes.set(ylim=(LOWEST_BIAS, 0.2), box_aspect=1)
    axes.set_xlabel("distance (tokens)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.set_title("the bias of each head (ALiBi)", fontsize=8)

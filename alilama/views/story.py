"""A text as a picture, each token coloured by how likely the model found it: python -m alilama.generate --picture FILE.png"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import text_to_path

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model.model import Model
from alilama.views.bidi import in_visual_order, is_right_to_left, join_arabic, visual_order
from alilama.views.inside import piece_probabilities, surprise
from alilama.views.pictures import drawable, drawable_characters

WIDTH, MARGIN, LINE = 576, 20, 24  # points, of which 72 are an inch
PARAGRAPH = 1.3  # lines, from the last of a paragraph to the next
FONT = FontProperties(family=["DejaVu Serif", "sans-serif"], size=12.5)
SMALL = FontProperties(size=8)
COLOURS = LinearSegmentedColormap.from_list("surprise", ["white", "#ffe9ad", "#ffb163", "#f4705a"])
MAX_LINES = 1000
LEGEND = (1, 0.5, 0.1, 0.01, 0.001)


def plot_story(model: Model, tokenizer: Tokenizer, text: str) -> Figure:
    """Draws a text, its tokens in boxes that are the darker, the less likely the model found them after all before them.

    Raises UserError for an empty text, one of more than MAX_LINES, and a special token in it.
    """
    pieces, probabilities = zip(*piece_probabilities(model, tokenizer, text), strict=True)
    letters = iter(join_arabic("".join(pieces), drawable_characters()))
    pieces = ["".join(itertools.islice(letters, len(piece))) for piece in pieces]
    placed = list(wrap(zip(pieces, probabilities, strict=True), width_of, WIDTH - 2 * MARGIN))
    last_line = max((line for _, line, *_ in placed), default=0)
    if last_line > MAX_LINES:
        raise UserError(f"the text fills {last_line:,.0f} lines of a picture: expected at most {MAX_LINES:,}")
    height = 2 * MARGIN + LINE * (last_line + 2)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    for line, on_line in itertools.groupby(placed, key=lambda place: place[1]):
        for x, piece, probability in in_reading_direction(on_line, width_of, WIDTH - 2 * MARGIN, is_right_to_left(text)):
            draw_piece(axes, MARGIN + x, MARGIN + LINE * (line + 0.5), piece, probability, FONT)
    x, y = MARGIN, height - MARGIN
    for piece in ("probability of each token:", *LEGEND):
        label, probability = (piece, 1) if isinstance(piece, str) else (f"{100 * piece:g}%", piece)
        draw_piece(axes, x, y, label, probability, SMALL)
        x += width_of(label, SMALL) + 12
    return figure


def wrap(
    pieces: Iterable[tuple[str, float]], measure: Callable[[str], float], line_width: float
) -> Iterator[tuple[float, float, str, float]]:
    """Yields (x, line, text, probability) of all that is not space in pieces, in lines that break between words.

    A word that is wider than a line, as in scripts that know no spaces, is broken between pieces.
    """
    parts = [(part, probability) for piece, probability in pieces for part in re.findall(r"\n|[^\S\n]+|\S+", piece)]
    x, line = 0.0, 0.0
    for is_space, run in itertools.groupby(parts, lambda part: part[0].isspace()):
        if is_space:
            for text, _ in run:
                x, line = (0.0, line + PARAGRAPH) if text == "\n" else (x + measure(" " * len(text)), line)
            continue
        word = [(shape, probability) for text, probability in run if (shape := drawable(text))]
        widths = [measure(text) for text, _ in word]
        if x > 0 and x + sum(widths) > line_width:
            x, line = 0.0, line + 1
        for (text, probability), width in zip(word, widths, strict=True):
            if x > 0 and x + width > line_width:
                x, line = 0.0, line + 1
            yield x, line, text, probability
            x += width


def in_reading_direction(
    line: Iterable[tuple[float, float, str, float]], measure: Callable[[str], float], line_width: float, from_right: bool
) -> Iterator[tuple[float, str, float]]:
    """Yields (x, text, probability) of what `wrap` placed on a line, as it is seen where words are read from right to left."""
    parts, end = [], 0.0  # with the spaces between
    for x, _, text, probability in line:
        parts += [(x - end, " ", 0.0)] * (x > end) + [(measure(text), text, probability)]
        end = x + measure(text)
    x = line_width - end if from_right else 0.0
    for place, turned in visual_order([text for _, text, _ in parts], from_right):
        width, text, probability = parts[place]
        if text != " ":
            yield x, in_visual_order(text, turned), probability
        x += width


def width_of(text: str, font: FontProperties = FONT) -> float:
    """Returns how wide a text is in points, spaces at its ends too, which a box around its ink leaves out."""
    both, bars = (text_to_path.get_text_width_height_descent(each, font, ismath=False)[0] for each in (f"|{text}|", "||"))
    return both - bars


def draw_piece(axes: Axes, x: float, y: float, text: str, probability: float, font: FontProperties):
    """Draws a piece of text with its middle line at y, in a box of the colour of its probability."""
    size = font.get_size_in_points()
    box = FancyBboxPatch(
        (x, y - 0.75 * size),
        width_of(text, font) - 0.6,
        1.5 * size,
        boxstyle="round,pad=0,rounding_size=2.5",
        fc=COLOURS(surprise(probability)),
        ec="none",
    )
    axes.add_patch(box)
    axes.text(x, y + 0.36 * size, text, fontproperties=font, parse_math=False)

"""What inference.ipynb shows: stories while they are written, shaded text, sliders; needs the package ipywidgets.

Backgrounds are translucent, so that text is readable on light and on dark themes.
"""

import base64
import html
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import Field, fields
from typing import get_args

from alilama.common.errors import UserError, expect, listed
from alilama.data.tokenizer import Tokenizer
from alilama.model.model import Model
from alilama.views.heads import plot_attention
from alilama.views.inside import check_pair, piece_probabilities, surprise
from alilama.views.story import LEGEND
from alilama.writing.sampling import Sampling
from alilama.writing.streams import shown_before, stream_text

try:
    import ipywidgets as widgets
    from IPython.display import HTML, display
except ImportError:
    raise UserError("the notebook needs the package ipywidgets: pip install ipywidgets, then restart the kernel") from None

UPDATES_PER_S = 20  # at most, of what is shown while a story is written
CUT_OFF = "<p><i>(cut off at the longest length, max_new_tokens)</i></p>"
PIECE_COLOURS = ("rgba(66, 133, 244, 0.22)", "rgba(245, 166, 35, 0.28)")  # blue and orange
DARKEST = 0.7  # opacity at which text is still readable
RARE = 0.01  # tokens less likely than this are bold too
# The class keeps dollar signs from becoming formulas.
TEXT = '<div class="mathjax_ignore tex2jax_ignore" style="white-space: pre-wrap; line-height: 1.7; max-width: 60em">{}</div>'
CELL = '<td style="text-align: left; vertical-align: top; white-space: normal; width: {}">{}</td>'
WIDE = {"style": {"description_width": "11em"}, "layout": {"width": "36em"}}


def describe(model: Model, tokenizer: Tokenizer) -> HTML:
    """Shows what a model is."""
    check_pair(model, tokenizer)
    config = model.config
    return HTML(
        table(
            [
                [
                    "parameters",
                    f"{model.num_parameters():,}, of them {model.wte.weight.numel():,} in the embedding of the tokens",
                ],
                [
                    "shape",
                    f"{config.blocks} layers, each with {config.num_heads} heads of attention; d_model {config.d_model}, "
                    f"hidden_dim {config.hidden_dim}",
                ],
                ["vocabulary", f"{tokenizer.vocab_size:,} tokens"],
                ["trained at", f"a length of {config.max_seq_len:,} tokens; it reads and writes longer texts too"],
                ["runs on", str(model.wte.weight.device)],
            ]
        )
    )


# ---- stories ----


def write_story(model: Model, tokenizer: Tokenizer, prompt: str = "", **settings) -> str:
    """Shows a story while it is written, and returns it; `settings` are those of `stream_text`.

    Interrupting the kernel ends it early.
    """
    check_pair(model, tokenizer)
    expect("prompt", prompt, str)
    show, pieces, start, cut = show_live(), [], shown_before(tokenizer, prompt), []
    with suppress(KeyboardInterrupt):
        written = stream_text(model, tokenizer, prompt, on_cut=cut.extend, **settings)
        stream_into(pieces, written, lambda: show(story_html(start, pieces) + CUT_OFF * bool(cut)))
    return start + "".join(pieces)


def compare_temperatures(
    model: Model, tokenizer: Tokenizer, prompt: str = "", temperatures: Sequence[float] = (0.0, 0.5, 1.0, 1.5), **settings
):
    """Shows how the same start goes on at several temperatures, side by side; the rest is as in `write_story`."""
    check_pair(model, tokenizer)
    expect("prompt", prompt, str)
    temperatures = listed("temperatures", temperatures)
    if not temperatures:
        raise UserError("temperatures is empty: expected one or more, such as (0.5, 1.0)")
    for temperature in temperatures:
        Sampling(temperature)  # a mistake in the last is said before the first is written
    titles = [f"<b>temperature {temperature}</b>" for temperature in temperatures]
    show, stories, start = show_live(), [[] for _ in temperatures], shown_before(tokenizer, prompt)

    def show_all():
        show(table([titles, [story_html(start, pieces) for pieces in stories]], width=f"{100 / len(stories):.0f}%"))

    with suppress(KeyboardInterrupt):
        for pieces, temperature in zip(stories, temperatures, strict=True):
            stream_into(pieces, stream_text(model, tokenizer, prompt, temperature=temperature, **settings), show_all)


def show_live() -> Callable[[str], None]:
    """Returns what shows HTML below the cell, each time in place of what it showed before."""
    handle = display(HTML(""), display_id=True)
    if handle is None:
        raise UserError("this shows text while it is written, in a notebook; elsewhere use stream_text")
    return lambda content: handle.update(HTML(content))


def stream_into(so_far: list[str], pieces: Iterator[str], show: Callable[[], None]):
    """Appends pieces as they come; calls `show` before, at most UPDATES_PER_S times a second meanwhile, and at the end."""
    show()
    shown_at = time.monotonic()
    try:
        for piece in pieces:
            so_far.append(piece)
            if time.monotonic() - shown_at >= 1 / UPDATES_PER_S:
                show()
                shown_at = time.monotonic()
    finally:  # also where the kernel is interrupted
        show()


def story_html(prompt: str, pieces: Iterable[str]) -> str:
    """Returns a story as HTML: the prompt bold and underlined, its pieces on alternating backgrounds.

    A piece of `stream_text` is a token, or the tokens that together make a whole character.
    """
    coloured = (
        f'<span style="background-color: {PIECE_COLOURS[index % 2]}">{escape(piece)}</span>'
        for index, piece in enumerate(pieces)
    )
    return TEXT.format(f'<b style="border-bottom: 2px solid">{escape(prompt)}</b>{"".join(coloured)}')


# ---- looking inside ----


def shade_text(model: Model, tokenizer: Tokenizer, text: str) -> HTML:
    """Shows how sure the model was of each token of a text: the darker, the less; the mouse shows the probability.

    It is `plot_story` for texts that no font of matplotlib can draw. Tokens that together make a whole character are shaded
    together, by the product of their probabilities.
    """
    pieces = (shaded(piece, probability) for piece, probability in piece_probabilities(model, tokenizer, text))
    legend = " ".join(shaded(f" {100 * probability:g}% ", probability) for probability in LEGEND)
    return HTML(TEXT.format("".join(pieces) + f"<br><br><small>probability: {legend} (bold: below {RARE:.0%})</small>"))


def shaded(text: str, probability: float) -> str:
    """Returns text as HTML, the darker the less probable, and bold where it is rare."""
    tag = "b" if probability < RARE else "span"
    return (
        f'<{tag} title="{100 * probability:.3g}%" style="background-color: rgba(214, 39, 40, '
        f'{DARKEST * surprise(probability):.2f})">{escape(text)}</{tag}>'
    )


# ---- sliders ----


class Panel(widgets.VBox):
    """Widgets below each other; where none are shown, as in a preview, their picture stands there, or else their names."""

    def __repr__(self) -> str:
        sliders = [child for child in self.children if isinstance(child, widgets.IntSlider | widgets.FloatSlider)]
        return f"(sliders, once this cell has run: {', '.join(f'{slider.description} = {slider.value}' for slider in sliders)})"

    def _repr_mimebundle_(self, **options) -> dict[str, object]:
        bundle = super()._repr_mimebundle_(**options) | {"text/plain": repr(self)}
        for child in self.children:
            if isinstance(child, widgets.Image):
                bundle["image/png"] = base64.b64encode(child.value).decode()
        return bundle


def story_writer(model: Model, tokenizer: Tokenizer, prompt: str = "") -> Panel:
    """Returns a text box, the settings of sampling and a button that writes the story on below them as it is made.

    Interrupting the kernel ends a story early.
    """
    check_pair(model, tokenizer)
    expect("prompt", prompt, str)
    text = widgets.Textarea(prompt, description="start", rows=3, **WIDE)
    sliders = {field.name: sampling_slider(field) for field in fields(Sampling)} | {
        "max_new_tokens": widgets.IntSlider(256, min=1, max=1024, description="max_new_tokens", **WIDE),
        "seed": widgets.IntSlider(1, min=0, max=999, description="seed", **WIDE),
    }
    button = widgets.Button(description="Write", button_style="primary")
    output = widgets.HTML()

    def write(_):
        button.disabled = True  # clicks would queue up while the kernel writes
        start, pieces, cut = text.value, [], []
        settings = {name: slider.value for name, slider in sliders.items()}
        settings |= {field.name: settings[field.name] or None for field in fields(Sampling) if field.default is None}

        def show():
            output.value = story_html(shown_before(tokenizer, start), pieces) + CUT_OFF * bool(cut)

        try:
            with suppress(KeyboardInterrupt):
                stream_into(pieces, stream_text(model, tokenizer, start, on_cut=cut.extend, **settings), show)
        except UserError as error:
            output.value = TEXT.format(escape(f"Error: {error}"))
        finally:
            button.disabled = False

    button.on_click(write)
    return Panel([text, *sliders.values(), button, output])


def sampling_slider(field: Field) -> widgets.FloatSlider | widgets.IntSlider:
    """Returns the slider of a field of Sampling; 0 stands for None."""
    lowest, highest, step = field.metadata["slider"]
    kind = widgets.IntSlider if int in get_args(field.type) else widgets.FloatSlider
    description = f"{field.name} (0: all)" if field.default is None else field.name
    return kind(field.default or 0, min=lowest, max=highest, step=step, description=description, **WIDE)


def attention_viewer(model: Model, tokenizer: Tokenizer, text: str, layer: int = 1, head: int = 1) -> Panel:
    """Returns sliders for layer and head, both counted from 1, above the picture of `plot_attention`."""
    check_pair(model, tokenizer)
    expect("text", text, str)
    expect("layer", layer, int)
    expect("head", head, int)
    layers = widgets.IntSlider(layer, min=1, max=model.config.blocks, description="layer", **WIDE)
    heads = widgets.IntSlider(head, min=1, max=model.config.num_heads, description="head", **WIDE)
    picture = widgets.Image(format="png")

    def draw(layer: int, head: int):
        content = io.BytesIO()
        plot_attention(model, tokenizer, text, layer, head).savefig(content, format="png", dpi=80)
        picture.value = content.getvalue()

    draw(layer, head)  # the values as given, which sliders would bring into their range
    for slider in (layers, heads):
        slider.observe(lambda _: draw(layers.value, heads.value), "value")
    return Panel([layers, heads, picture])


# ---- HTML ----


def table(rows: Iterable[Sequence[str]], width: str = "auto") -> str:
    """Returns rows of HTML as a table whose columns have a CSS width."""
    rows = ("".join(CELL.format(width, cell) for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def escape(text: str) -> str:
    """Returns text as HTML; line ends are seen also where a preview, such as GitHub's, leaves styles out."""
    return html.escape(text).replace("\n", "<br>")

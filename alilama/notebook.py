"""The story writer of inference.ipynb; needs the package ipywidgets."""

from alilama.errors import UserError
from alilama.generate import stream_text
from alilama.model import Model
from alilama.tokenizer import Tokenizer

try:
    import ipywidgets as widgets
except ImportError:
    raise UserError("the story writer needs the package ipywidgets: pip install ipywidgets, then restart the kernel") from None


def story_writer(model: Model, tokenizer: Tokenizer, prompt: str = "") -> widgets.Widget:
    """Returns a text box, the settings of sampling and a button that writes the story on below them as it is made.

    Interrupting the kernel ends a story early.
    """
    wide = {"style": {"description_width": "9em"}, "layout": widgets.Layout(width="36em")}
    text = widgets.Textarea(prompt, description="beginning", rows=3, **wide)
    temperature = widgets.FloatSlider(0.8, min=0, max=2, step=0.05, description="temperature", **wide)
    top_k = widgets.IntSlider(0, min=0, max=200, description="top_k (0: all)", **wide)
    top_p = widgets.FloatSlider(1, min=0.05, max=1, step=0.05, description="top_p", **wide)
    length = widgets.IntSlider(256, min=1, max=1024, description="length in tokens", **wide)
    seed = widgets.IntSlider(1, min=0, max=999, description="seed", **wide)
    button = widgets.Button(description="Write", button_style="primary")
    output = widgets.Output()

    def show(story: str):
        output.outputs = ({"output_type": "stream", "name": "stdout", "text": story},)

    def write(_):
        button.disabled = True  # clicks would queue up while the kernel writes
        story = text.value
        show(story)
        try:
            for piece in stream_text(model, tokenizer, story, temperature=temperature.value, top_k=top_k.value or None,
                                     top_p=top_p.value, max_new_tokens=length.value, seed=seed.value):
                story += piece
                show(story)
        except UserError as error:
            show(f"Error: {error}")
        except KeyboardInterrupt:
            pass
        finally:
            button.disabled = False

    button.on_click(write)
    return widgets.VBox([text, temperature, top_k, top_p, length, seed, button, output])

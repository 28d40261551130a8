"""inference.ipynb from top to bottom on a tiny model, and all it shows without a kernel.

The committed notebook holds the outputs of the committed model; this writes them anew, in the root of the repository:

    python -c "import nbclient, nbformat; notebook = nbformat.read('inference.ipynb', 4);
    nbclient.NotebookClient(notebook, record_timing=False).execute(); nbformat.write(notebook, 'inference.ipynb')"
"""

import ast
import csv
import html
import importlib
import io
import itertools
import math
import re
import shutil
import sys
from types import SimpleNamespace

import nbclient
import nbformat
import pytest
from helpers import ROOT, tiny_model
from ipykernel import kernelspec

from alilama import load_model
from alilama.common.errors import UserError
from alilama.training.log import COLUMNS
from alilama.views import notebook
from alilama.views.heads import plot_attention
from alilama.views.inside import token_probabilities
from alilama.writing.streams import stream_text

NOTEBOOK = ROOT / "inference.ipynb"
MAX_NOTEBOOK_BYTES = 1_000_000
PROMPT = "Once upon a time, there was a little girl named Lily."  # in the notebook
DEFAULTS = {
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "max_new_tokens": 256,
    "seed": 1,
}
CHANGED = {
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.25,
    "min_p": 0.5,
    "repetition_penalty": 2.0,
    "max_new_tokens": 40,
    "seed": 7,
}


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


@pytest.fixture(scope="module")
def executed(model_folder, tmp_path_factory):
    """The outputs of the notebook's cells, run in a folder that has the model, with a cell that clicks the story writer."""
    folder = tmp_path_factory.mktemp("notebook")
    model = folder / "models" / "alilama_7M"
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "positions.csv", folder / "docs")
    shutil.copytree(model_folder, model)
    with open(model / "log.csv", "w", newline="", encoding="utf-8") as file:
        log = csv.DictWriter(file, COLUMNS)
        log.writeheader()
        log.writerows(dict.fromkeys(COLUMNS, 1) | {"tokens": 1000 * step, "train_loss": 5 - step / 10} for step in range(1, 9))
    content = nbformat.read(NOTEBOOK, as_version=4)
    [writer] = [number for number, cell in enumerate(code_cells(content), 1) if cell.id == "writer"]
    content.cells.append(
        nbformat.v4.new_code_cell(
            f"text, *_, button, output = Out[{writer}].children\ntext.value = 'the cat'\nbutton.click()\nprint(output.value)",
            id="extra",
        )
    )
    with pytest.MonkeyPatch.context() as patch:  # a kernel of this interpreter, whatever kernels the machine has
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        kernelspec.write_kernel_spec(folder / "kernels" / "python3")
        nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.id: cell.outputs for cell in code_cells(content)}


@pytest.fixture
def shown(monkeypatch):
    """What is shown below a cell, one version after the other."""
    versions = []

    def display(content, *, display_id):
        assert display_id
        versions.append(content.data)
        return SimpleNamespace(update=lambda content: versions.append(content.data))

    monkeypatch.setattr(notebook, "display", display)
    return versions


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code"]


def read(content):
    """Returns what a reader sees of HTML, but for the word that a story was cut off."""
    content = content.replace(notebook.CUT_OFF, "")
    return html.unescape(re.sub("<[^>]*>", "", content.replace("<br>", "\n")))


def continuation(tiny, prompt, **settings):
    return "".join(stream_text(*tiny, prompt, **settings))


# ---- the notebook ----


def test_the_notebook_is_valid_and_has_cell_ids():
    content = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(content)
    assert (content.nbformat, content.nbformat_minor) == (4, 5)
    assert content.metadata.kernelspec.name == "python3"


def test_the_committed_notebook_holds_the_outputs_of_one_run_small_and_without_traces_of_a_machine():
    """Fails until the notebook has been run; how, stands at the top of this file."""
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)) and all(cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_NOTEBOOK_BYTES
    assert not re.search(r"[\"' (](/(home|root|tmp|usr|opt|work|Users|private)/|[A-Z]:\\)", text)


def test_the_cells_are_short_and_only_call_the_package():
    for cell in code_cells(nbformat.read(NOTEBOOK, as_version=4)):
        lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
        assert len(lines) <= 8
        kinds = {type(statement) for statement in ast.parse("\n".join(lines)).body}
        assert kinds <= {ast.Import, ast.ImportFrom, ast.Assign, ast.Expr}


def test_before_every_topic_stands_what_it_shows():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert cells[0].source.startswith("# ")
    assert [cell.cell_type for cell in cells[1:]] == ["markdown", "code"] * ((len(cells) - 1) // 2)
    assert [cell.id for cell in code_cells(SimpleNamespace(cells=cells))] == [
        "choose",
        "write",
        "writer",
        "temperatures",
        "next",
        "sure",
        "attention",
        "viewer",
        "curves",
        "lengths",
    ]


def test_the_model_cell_says_what_the_model_is(tiny, executed):
    model, tokenizer = tiny
    text = read(executed["choose"][0].data["text/html"])
    assert f"{model.num_parameters():,}, of them {32 * tokenizer.vocab_size:,} in the embedding" in text
    assert "2 layers, each with 4 heads" in text and "d_model 32, hidden_dim 128" in text
    assert f"{tokenizer.vocab_size} tokens" in text and "length of 16 tokens" in text


def test_the_story_cell_writes_the_prompt_and_what_the_model_continues_it_with(tiny, executed):
    [output] = executed["write"]
    story = PROMPT + continuation(tiny, PROMPT, max_new_tokens=256, temperature=0.8, seed=1)
    assert read(output.data["text/html"]) == story != PROMPT


def test_the_temperatures_cell_has_a_story_for_each(tiny, executed):
    [output] = executed["temperatures"]
    for temperature in (0.2, 0.6, 1.0, 1.4):
        story = PROMPT + continuation(tiny, PROMPT, max_new_tokens=100, temperature=temperature, seed=1)
        assert story in read(output.data["text/html"])


@pytest.mark.parametrize("cell", ["next", "sure", "attention", "viewer", "curves", "lengths"])
def test_what_is_drawn_is_a_picture(cell, executed):
    assert "image/png" in executed[cell][-1].data


@pytest.mark.parametrize("cell", ["writer", "viewer"])
def test_sliders_are_shown_and_named_where_they_cannot_be(cell, executed):
    data = executed[cell][0].data
    assert "application/vnd.jupyter.widget-view+json" in data
    settings = {"writer": DEFAULTS, "viewer": {"layer": 1, "head": 1}}[cell]
    assert data["text/plain"].startswith("(sliders, once this cell has run: ")
    for name, value in settings.items():
        assert re.search(rf"\b{name}( \(0: all\))? = {value}[,)]", data["text/plain"])


def test_the_writer_writes_in_a_kernel(tiny, executed):
    [output] = executed["extra"]
    assert read(output.text) == "the cat" + continuation(tiny, "the cat", seed=1) + "\n"


def test_no_cell_writes_to_stderr(executed):
    assert not [output for outputs in executed.values() for output in outputs if output.get("name") == "stderr"]


# ---- stories ----


def test_the_prompt_is_bold_and_the_pieces_alternate_in_colour():
    story = notebook.story_html('<i>&"', [" a", "<b>", "c"])
    prompt, *pieces = re.findall(r"<(b|span) style=\"([^\"]*)\">([^<]*)<", story)
    assert prompt[0] == "b" and html.unescape(prompt[2]) == '<i>&"'
    assert [html.unescape(text) for *_, text in pieces] == [" a", "<b>", "c"]
    colours = [style for _, style, _ in pieces]
    assert colours[0] == colours[2] != colours[1] and all("background-color: rgba" in colour for colour in colours)


def test_line_ends_and_spaces_of_a_story_are_seen():
    story = notebook.story_html("a\nb", ["\n", "  c"])
    assert story.count("<br>") == 2 and "\n" not in story and "white-space: pre-wrap" in story


def test_a_story_is_shown_while_it_is_written(tiny, shown, monkeypatch):
    monkeypatch.setattr(notebook, "UPDATES_PER_S", math.inf)
    written = notebook.write_story(*tiny, "the dog", seed=3, max_new_tokens=30)
    texts = [read(version) for version in shown[1:]]
    assert texts[-1] == written
    assert texts[0] == "the dog" and texts[-1] == "the dog" + continuation(tiny, "the dog", seed=3, max_new_tokens=30)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts)) and len(set(texts)) > 10
    assert [notebook.CUT_OFF in version for version in shown[1:]] == [False] * (len(shown) - 2) + [True]


def test_a_story_is_shown_at_most_20_times_a_second_and_whole_at_the_end(monkeypatch):
    clock, shown, so_far = [0.0], [], []
    monkeypatch.setattr(notebook, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def pieces():
        for number in range(1000):
            clock[0] += 0.001
            yield f"{number} "

    notebook.stream_into(so_far, pieces(), lambda: shown.append(len(so_far)))
    assert shown[0] == 0 and shown[-1] == 1000
    assert 18 <= len(shown) <= 22


def test_an_interrupt_keeps_what_is_written(tiny, shown, monkeypatch):
    calls = []

    def interrupted(*args, **settings):
        calls.append(settings)
        yield " ran"
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook, "stream_text", interrupted)
    notebook.write_story(*tiny, "the dog")
    assert read(shown[-1]) == "the dog ran"
    notebook.compare_temperatures(*tiny, "the dog", (0.5, 1.0))
    assert len(calls) == 2 and "the dog ran" in read(shown[-1])  # the second temperature is not begun
    writer = notebook.story_writer(*tiny, "the dog")
    assert written(writer) == "the dog ran" and not parts(writer)[2].disabled


def test_the_columns_are_the_stories_of_their_temperatures(tiny, shown):
    temperatures = (0.0, 0.7, 2.0)
    notebook.compare_temperatures(*tiny, "the dog", iter(temperatures), seed=2, max_new_tokens=20)
    cells = [read(cell) for cell in re.findall("<td[^>]*width: 33%[^>]*>(.*?)</td>", shown[-1])]
    assert cells[:3] == [f"temperature {temperature}" for temperature in temperatures]
    assert cells[3:] == [
        "the dog" + continuation(tiny, "the dog", temperature=temperature, seed=2, max_new_tokens=20)
        for temperature in temperatures
    ]
    assert len(set(cells[3:])) == 3


def test_a_setting_out_of_range_is_explained(tiny, shown):
    with pytest.raises(UserError, match="top_p = 2"):
        notebook.write_story(*tiny, "the dog", top_p=2)
    before = len(shown)
    with pytest.raises(UserError, match="temperature = -1"):
        notebook.compare_temperatures(*tiny, "the dog", (1.0, -1.0), max_new_tokens=3)
    assert len(shown) == before  # the first story is not written in vain
    with pytest.raises(UserError, match="temperatures is empty"):
        notebook.compare_temperatures(*tiny, "the dog", ())


# ---- looking inside ----


def shades(content):
    """Returns (text, percent, opacity, is bold) of each shaded piece of HTML."""
    found = re.findall(r'<(b|span) title="([^"]*)%" style="background-color: rgba\(214, 39, 40, ([^)]*)\)">(.*?)</', content)
    return [(read(text), float(percent), float(opacity), tag == "b") for tag, percent, opacity, text in found]


def test_every_token_is_shaded_by_its_probability(tiny):
    model, tokenizer = tiny
    text = "Mia & Tom <ran> home.\nThe end"
    content = notebook.shade_text(model, tokenizer, text).data
    expected = token_probabilities(model, tokenizer, text)
    found, legend = shades(content)[: len(expected)], shades(content)[len(expected) :]
    assert read(content).startswith(text)
    assert [piece for piece, *_ in found] == [tokenizer.decode([token_id]) for token_id, _ in expected]
    assert [percent for _, percent, *_ in found] == pytest.approx([100 * probability for _, probability in expected], rel=0.01)
    assert [percent for _, percent, *_ in legend] == [100, 50, 10, 1, 0.1]
    assert all(is_bold == (percent < 1) for _, percent, _, is_bold in found + legend)


def test_the_less_likely_a_token_the_darker_it_is_and_never_too_dark_to_read():
    probabilities = [1, 0.9, 0.5, 0.1, 0.01, 0.001]
    [*opacities] = [shades(notebook.shaded("x", probability))[0][2] for probability in probabilities]
    assert opacities[0] == 0 and all(lighter < darker for lighter, darker in itertools.pairwise(opacities))
    assert shades(notebook.shaded("x", 1e-9))[0][2] == shades(notebook.shaded("x", 0))[0][2] == 0.7


def test_an_empty_text_cannot_be_shaded(tiny):
    with pytest.raises(UserError, match="the text is empty"):
        notebook.shade_text(*tiny, "")


# ---- sliders ----


def parts(writer):
    """Returns the text box, the sliders by setting, the button and the output."""
    text, *sliders, button, output = writer.children
    return text, {slider.description.partition(" ")[0]: slider for slider in sliders}, button, output


def written(writer):
    *_, button, output = parts(writer)
    button.click()
    return read(output.value)


def test_the_writer_begins_with_the_prompt_and_the_defaults_of_the_command(tiny):
    text, sliders, *_ = parts(notebook.story_writer(*tiny, "Once"))
    assert text.value == "Once"
    assert {name: slider.value for name, slider in sliders.items()} == DEFAULTS


@pytest.mark.parametrize("name", CHANGED)
def test_every_slider_changes_the_story_as_its_setting_does(tiny, name):
    writer = notebook.story_writer(*tiny, "the dog")
    before = written(writer)
    parts(writer)[1][name].value = CHANGED[name]
    values = {**DEFAULTS, name: CHANGED[name]}
    expected = "the dog" + continuation(tiny, "the dog", **values | {"top_k": values["top_k"] or None})
    assert written(writer) == expected != before
    parts(writer)[1][name].value = DEFAULTS[name]
    assert written(writer) == before


def test_the_story_streams_and_the_button_waits_for_its_end(tiny, monkeypatch):
    monkeypatch.setattr(notebook, "UPDATES_PER_S", math.inf)
    writer = notebook.story_writer(*tiny, "the dog")
    *_, button, output = parts(writer)
    seen, disabled = [], []
    output.observe(lambda change: (seen.append(read(change.new)), disabled.append(button.disabled)), "value")
    story = written(writer)
    assert seen[0] == "the dog" and seen[-1] == story and len(seen) > 10
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert all(disabled) and not button.disabled


def test_a_special_token_in_the_beginning_is_explained_and_the_next_story_is_written(tiny):
    writer = notebook.story_writer(*tiny, "the <|endoftext|>")
    text, _, button, _ = parts(writer)
    assert written(writer).startswith("Error: the text holds the special token '<|endoftext|>'") and not button.disabled
    text.value = "the dog"
    assert written(writer).startswith("the dog")


def test_the_viewer_shows_the_attention_of_the_layer_and_head_on_its_sliders(tiny):
    def picture(layer, head):
        content = io.BytesIO()
        plot_attention(*tiny, "the dog", layer, head).savefig(content, format="png", dpi=80)
        return content.getvalue()

    layers, heads, shown = notebook.attention_viewer(*tiny, "the dog", layer=2, head=3).children
    assert (layers.value, layers.min, layers.max, heads.value, heads.min, heads.max) == (2, 1, 2, 3, 1, 4)
    assert shown.value == picture(2, 3)
    layers.value = 1
    assert shown.value == picture(1, 3)
    heads.value = 4
    assert shown.value == picture(1, 4)


def test_a_viewer_of_no_such_layer_is_explained(tiny):
    with pytest.raises(UserError, match="layer = 3: expected 1 to 2"):
        notebook.attention_viewer(*tiny, "the dog", layer=3)


def test_without_ipywidgets_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "alilama.views.notebook", raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UserError, match="pip install ipywidgets"):
        importlib.import_module("alilama.views.notebook")


# ---- prompts and answers ----


@pytest.mark.parametrize("prompt", ["Who?", "<|end|><|assistant|>"])
def test_below_a_prompt_stands_its_answer(prompt, tiny, shown):
    tokenizer = tiny[1].with_frame()
    model = tiny_model(tokenizer.vocab_size)
    settings = {"max_new_tokens": 12, "seed": 1}
    expected = f"{prompt}\n\n{continuation((model, tokenizer), prompt, **settings)}"
    notebook.write_story(model, tokenizer, prompt, **settings)
    assert read(shown[-1]) == expected
    notebook.compare_temperatures(model, tokenizer, prompt, (0.8,), **settings)
    assert read(shown[-1]).endswith(expected)
    writer = notebook.story_writer(model, tokenizer, prompt)
    parts(writer)[1]["max_new_tokens"].value = 12
    assert written(writer) == expected

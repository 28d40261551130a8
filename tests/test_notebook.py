"""inference.ipynb from top to bottom on a tiny model, and the story writer in it without a kernel."""

import csv
import importlib
import itertools
import shutil
import sys

import nbclient
import nbformat
import pytest
from conftest import ROOT
from ipykernel import kernelspec

from alilama import load_model
from alilama.errors import UserError
from alilama.generate import stream_text
from alilama.log import COLUMNS

NOTEBOOK = ROOT / "inference.ipynb"
DEFAULTS = {"temperature": 0.8, "top_k (0: all)": 0, "top_p": 1.0, "length in tokens": 256, "seed": 1}
CHANGED = {"temperature": 0.5, "top_k (0: all)": 3, "top_p": 0.25, "length in tokens": 40, "seed": 7}


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


@pytest.fixture(scope="module")
def executed(model_folder, tmp_path_factory):
    """The notebook as it is, run in a folder that has models/stories, with a cell behind it that uses the story writer."""
    folder = tmp_path_factory.mktemp("notebook")
    stories = folder / "models" / "stories"
    shutil.copytree(model_folder, stories)
    with open(stories / "log.csv", "w", newline="", encoding="utf-8") as file:
        log = csv.DictWriter(file, COLUMNS)
        log.writeheader()
        log.writerows(dict.fromkeys(COLUMNS, 1) | {"tokens": 1000 * step, "train_loss": 5 - step / 10} for step in range(1, 9))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(
        "text, *_, button, output = writer.children\n"
        "text.value = 'the cat'\n"
        "button.click()\n"
        "print(output.outputs[0]['text'])", id="extra"))
    with pytest.MonkeyPatch.context() as patch:  # a kernel of this interpreter, whatever kernels the machine has
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        kernelspec.write_kernel_spec(folder / "kernels" / "python3")
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def parts(writer):
    """Returns the text box, the sliders by name, the button and the output."""
    text, *sliders, button, output = writer.children
    return text, {slider.description: slider for slider in sliders}, button, output


def written(writer):
    *_, button, output = parts(writer)
    button.click()
    (stream,) = output.outputs
    assert stream["output_type"] == "stream"
    return stream["text"]


def test_the_notebook_is_valid_has_cell_ids_and_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_the_model_cell_says_what_the_model_is(tiny, executed):
    model, tokenizer = tiny
    text = printed(executed["choose"])
    assert f"models/stories: {model.num_parameters():,} parameters" in text
    assert f"{tokenizer.vocab_size} tokens" in text and "length of 16 tokens" in text


def test_the_story_cell_writes_the_prompt_and_what_the_model_continues_it_with(tiny, executed):
    prompt = "Once upon a time"
    story = prompt + "".join(stream_text(*tiny, prompt, max_new_tokens=256, temperature=0.8, seed=1))
    assert printed(executed["write"]) == story != prompt


def test_the_writer_shows_and_writes_in_a_kernel(tiny, executed):
    assert "application/vnd.jupyter.widget-view+json" in executed["writer"][0].data
    assert printed(executed["extra"]) == "the cat" + "".join(stream_text(*tiny, "the cat", seed=1)) + "\n"


def test_the_curves_are_a_picture(executed):
    assert "image/png" in executed["curves"][0].data


def test_no_cell_writes_to_stderr(executed):
    assert not [output for outputs in executed.values() for output in outputs if output.get("name") == "stderr"]


def test_the_writer_begins_with_the_prompt_and_the_defaults_of_the_command(tiny):
    from alilama.notebook import story_writer

    text, sliders, *_ = parts(story_writer(*tiny, "Once"))
    assert text.value == "Once"
    assert {name: slider.value for name, slider in sliders.items()} == DEFAULTS


@pytest.mark.parametrize("name", CHANGED)
def test_every_slider_changes_the_story_as_its_setting_does(tiny, name):
    from alilama.notebook import story_writer

    writer = story_writer(*tiny, "the dog")
    before = written(writer)
    parts(writer)[1][name].value = CHANGED[name]
    values = {**DEFAULTS, name: CHANGED[name]}
    expected = stream_text(*tiny, "the dog", temperature=values["temperature"], top_k=values["top_k (0: all)"] or None,
                           top_p=values["top_p"], max_new_tokens=values["length in tokens"], seed=values["seed"])
    assert written(writer) == "the dog" + "".join(expected) != before
    parts(writer)[1][name].value = DEFAULTS[name]
    assert written(writer) == before


def test_the_story_streams_and_the_button_waits_for_its_end(tiny):
    from alilama.notebook import story_writer

    writer = story_writer(*tiny, "the dog")
    *_, button, output = parts(writer)
    seen, disabled = [], []
    output.observe(lambda change: (seen.append(change.new[0]["text"]), disabled.append(button.disabled)), "outputs")
    story = written(writer)
    assert seen[0] == "the dog" and seen[-1] == story and len(seen) > 10
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert all(disabled) and not button.disabled


def test_a_special_token_in_the_beginning_is_explained_and_the_next_story_is_written(tiny):
    from alilama.notebook import story_writer

    writer = story_writer(*tiny, "the <|endoftext|>")
    text, _, button, _ = parts(writer)
    assert written(writer).startswith("Error: the text holds the special token") and not button.disabled
    text.value = "the dog"
    assert written(writer).startswith("the dog")


def test_an_interrupt_keeps_what_is_written(tiny, monkeypatch):
    from alilama import notebook

    def interrupted(*args, **sampling):
        yield " ran"
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook, "stream_text", interrupted)
    writer = notebook.story_writer(*tiny, "the dog")
    assert written(writer) == "the dog ran" and not parts(writer)[2].disabled


def test_without_ipywidgets_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "alilama.notebook", raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UserError, match="pip install ipywidgets"):
        importlib.import_module("alilama.notebook")

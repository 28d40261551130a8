"""Whatever is given to a function that users call, it computes, or refuses in one line: nothing hangs, nothing else is raised.

ALILAMA_EXAMPLES=20000 pytest tests/export/test_arguments_of_users.py tries more of it.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny_model, write_prose
from hypothesis import given
from hypothesis import strategies as st
from oracles import examples

import alilama
from alilama import Model, ModelConfig, Tokenizer, generate_batch, load_model, stream_text, stream_texts
from alilama.common.errors import UserError
from alilama.model.folder import save_description, save_weights
from alilama.training.scoring import encode_files, evaluate
from alilama.views.heads import plot_attention
from alilama.views.inside import next_tokens, token_probabilities
from alilama.views.pictures import plot_log, plot_next_tokens, read_contexts
from alilama.views.story import plot_story
from alilama.writing.sampling import Sampling
from alilama.writing.streams import stream_batch

write_gguf = pytest.importorskip("alilama.export.gguf").write_gguf
write_html = pytest.importorskip("alilama.export.html").write_html
notebook = pytest.importorskip("alilama.views.notebook")

EOT = "<|endoftext|>"
TOKENIZER = Tokenizer.train_from_iterator([write_prose(20, seed=1)], 300)
MODEL = tiny_model(TOKENIZER.vocab_size, d_model=8, num_heads=2)
IDS = np.arange(20, 60)

numbers = st.one_of(st.integers(-3, 5), st.integers(), st.floats(), st.sampled_from([2**63, -(2**70), 10**400, 1 + 2j]))
characters = st.characters(exclude_categories=["Cc", "Zl", "Zp"])  # a name is said as it is, line ends too
texts = st.one_of(
    st.text(characters, max_size=5), st.sampled_from(["\ud800", "a\0b", EOT, "\udc80", "all", "replace", "gpt4", "cuda"])
)
arrays = st.sampled_from(
    [
        np.arange(6).reshape(2, 3), np.array([0.5, np.nan]), np.array([], np.int64), np.array([-1, 2]), np.array([1, 300_000]),
        np.array([1 + 1j]), np.array(["a"]), np.array([b"a", None]), np.arange(3, dtype=np.uint16), np.float32(2), np.int64(2),
        torch.tensor([1, 2]), torch.tensor(0.5), torch.zeros(2, 2, dtype=torch.float16), torch.zeros(3, device="meta"),
    ]
)  # fmt: skip
others = st.sampled_from(
    [
        None, True, b"", b"ab", {}, {"role": "user", "content": "\ud800"}, [{"role": "user"}], object(), len, Path("."),
        Path("/nonexistent/x"), slice(None), frozenset([EOT]), Tokenizer, TOKENIZER, Tokenizer([]), MODEL, tiny_model(100),
        tiny_model(TOKENIZER.vocab_size).half(), tiny_model(TOKENIZER.vocab_size).to("meta"), Sampling(),
    ]
)  # fmt: skip
scalars = st.one_of(numbers, texts, arrays, others)
anything = st.one_of(scalars, st.lists(scalars, max_size=3), st.lists(st.lists(numbers, max_size=3), max_size=3))


def in_full(function: Callable) -> Callable:
    """Returns a generator function as one that goes to its end."""
    return lambda **arguments: list(function(**arguments))


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, tuple[Callable, dict[str, object]]]:
    """The functions by name, each with arguments that it takes."""
    folder = tmp_path_factory.mktemp("users")
    save_description(folder / "m", MODEL.config, TOKENIZER)
    save_weights(folder / "m", MODEL)
    (folder / "t.txt").write_text(write_prose(3, seed=2))
    TOKENIZER.save(folder / "t.json")
    file, of_model, special = str(folder / "t.txt"), {"model": MODEL, "max_new_tokens": 2, "seed": 1}, {"special_tokens": [EOT]}
    batch = {**of_model, "prompts": [[1, 2], [3]], "context": None, "stop_ids": ()}
    learn = {"vocab_size": 258, "pattern": "gpt4", "num_threads": 1} | special
    sampling = {"temperature": 0.8, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}
    shape = {"vocab_size": 9, "d_model": 4, "blocks": 1, "num_heads": 2, "hidden_dim": 8, "max_seq_len": 8, "dropout": 0.0}
    codes = {"encode_document", "encode_ordinary", "encode_to_numpy", "encode_with_offsets", "count"}
    return {
        "Model": (Model, {"config": MODEL.config}),
        "ModelConfig": (lambda **arguments: Model(ModelConfig(**arguments)), shape),
        "Tokenizer": (Tokenizer, {"merges": [(97, 98)], "pattern": "gpt4"} | special),
        "generate_batch": (generate_batch, batch | sampling),
        "stream_batch": (in_full(stream_batch), batch | {"on_read": lambda read, total: None}),
        "stream_text": (in_full(stream_text), {**of_model, "tokenizer": TOKENIZER, "prompt": "a"}),
        "stream_texts": (in_full(stream_texts), {**of_model, "tokenizer": TOKENIZER, "prompts": ["a", ""]}),
        "load_model": (load_model, {"folder": folder / "m", "device": "cpu"}),
        "Sampling": (Sampling, sampling),
        "evaluate": (evaluate, {"model": MODEL, "tokenizer": TOKENIZER, "ids": IDS, "context": 8, "stride": 4}),
        "encode_files": (encode_files, {"tokenizer": TOKENIZER, "data_files": file, "max_tokens": 9, "text_column": None}),
        "write_html": (write_html, {"folder": folder / "m", "file": str(folder / "m.html")}),
        "write_gguf": (write_gguf, {"folder": folder / "m", "file": str(folder / "m.gguf"), "precision": "f32"}),
        "Tokenizer.train": (Tokenizer.train, {"files": file, "text_column": None} | learn),
        "Tokenizer.train_from_iterator": (Tokenizer.train_from_iterator, {"texts": ["abc abc"]} | learn),
        "Tokenizer.load": (Tokenizer.load, {"path": folder / "t.json"}),
        "Tokenizer.from_minbpe": (Tokenizer.from_minbpe, {"path": folder / "t.json"}),
        "Tokenizer.save": (TOKENIZER.save, {"path": folder / "saved.json", "first_token": EOT}),
        "Tokenizer.encode": (TOKENIZER.encode, {"text": "a", "allowed_special": "all", "disallowed_special": ()}),
        "Tokenizer.encode_batch": (TOKENIZER.encode_batch, {"texts": ["a"], "num_threads": 1}),
        "Tokenizer.encode_files": (TOKENIZER.encode_files, {"files": [file], "num_threads": 1}),
        "Tokenizer.encode_prompt": (TOKENIZER.with_frame().encode_prompt, {"prompt": [{"role": "user", "content": "a"}]}),
        "Tokenizer.decode": (TOKENIZER.decode, {"ids": [200, 97], "errors": "replace"}),
        "Tokenizer.decode_bytes": (TOKENIZER.decode_bytes, {"ids": IDS}),
        "Tokenizer.token_bytes": (TOKENIZER.token_bytes, {"token_id": 5}),
        **{f"Tokenizer.{name}": (getattr(TOKENIZER, name), {"text": "a b"}) for name in codes},
    }


def test_the_arguments_that_are_changed_below_are_taken_as_they_are(calls):
    for name, (function, arguments) in calls.items():
        if name == "Tokenizer.from_minbpe":  # which is given a file of another kind
            with pytest.raises(UserError, match=r"t\.json: the first line is"):
                function(**arguments)
        else:
            function(**arguments)


def test_whatever_the_package_names_and_every_method_of_a_tokenizer_are_tried(calls):
    methods = {name for name, value in inspect.getmembers(Tokenizer, callable) if name[0] != "_"}
    untried = {"encode_block", "with_frame", "to_tiktoken"}  # one of the rooms, and two without arguments
    assert {*alilama.__all__, *(f"Tokenizer.{name}" for name in methods - untried)} <= calls.keys()


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def views(tmp_path_factory, module_patch) -> dict[str, tuple[Callable, dict[str, object]]]:
    """The functions of the notebook by name, each with arguments that it takes."""
    module_patch.setattr(notebook, "display", lambda *_, **__: SimpleNamespace(update=lambda content: None))
    folder = tmp_path_factory.mktemp("views")
    (folder / "log.csv").write_text("step,tokens,train_loss,val_loss,val_bits_per_byte\n5,10,2.5,2.6,1.1\n")
    (folder / "lines.csv").write_text("name,context,bits_per_byte\nours,8,1.5\n")
    of_model, short = {"model": MODEL, "tokenizer": TOKENIZER}, {"max_new_tokens": 2, "seed": 1}
    return {
        "next_tokens": (next_tokens, of_model | {"prompt": "a", "count": 3}),
        "token_probabilities": (token_probabilities, of_model | {"text": "a b"}),
        "plot_next_tokens": (plot_next_tokens, of_model | {"prompt": "a", "count": 3}),
        "plot_attention": (plot_attention, of_model | {"text": "a b c", "layer": 1, "head": 2}),
        "plot_story": (plot_story, of_model | {"text": "a b"}),
        "plot_log": (plot_log, {"log": folder / "log.csv"}),
        "read_contexts": (read_contexts, {"path": folder / "lines.csv"}),
        "describe": (notebook.describe, of_model),
        "shade_text": (notebook.shade_text, of_model | {"text": "a b"}),
        "write_story": (notebook.write_story, of_model | {"prompt": "a"} | short),
        "compare_temperatures": (notebook.compare_temperatures, of_model | {"prompt": "a", "temperatures": [0.5]} | short),
        "story_writer": (notebook.story_writer, of_model | {"prompt": "a"}),
        "attention_viewer": (notebook.attention_viewer, of_model | {"text": "a b c", "layer": 1, "head": 2}),
    }


def test_the_arguments_of_views_that_are_changed_below_are_taken_as_they_are(views):
    for function, arguments in views.values():
        function(**arguments)


@examples(150)
@given(st.data())
def test_every_function_of_the_notebook_computes_or_refuses_in_words(views, data):
    change_an_argument(views, data)


@examples(800)
@given(st.data())
def test_every_function_that_users_call_computes_or_refuses_in_words(calls, data):
    change_an_argument(calls, data)


def change_an_argument(calls, data):
    """Calls a function with one of its arguments changed, which it takes or refuses in words."""
    function, arguments = calls[data.draw(st.sampled_from(sorted(calls)))]
    name = data.draw(st.sampled_from(sorted(arguments)))
    value = data.draw(anything)
    if name == "max_new_tokens" and isinstance(value, int | np.integer) and value > 9:
        value = 2**62  # less is written, however long that takes
    if (name == "path" and isinstance(value, str | Path)) or name == "file":
        value = data.draw(st.sampled_from([None, 5, b"x", [], "/nonexistent/x", "/", "\ud800"]))  # nothing is left behind
    try:
        function(**arguments | {name: value})
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000
    except (TypeError, ValueError, OSError) as error:
        assert str(error)


WRONG = [
    ("generate_batch", "model", None), ("generate_batch", "prompts", 5), ("generate_batch", "prompts", [["a"]]),
    ("generate_batch", "max_new_tokens", 1.5), ("generate_batch", "max_new_tokens", True), ("generate_batch", "seed", "1"),
    ("generate_batch", "stop_ids", 3), ("generate_batch", "stop_ids", [None]), ("generate_batch", "context", "all"),
    ("generate_batch", "temperature", "hot"), ("generate_batch", "temperature", 2**70), ("generate_batch", "top_k", 1.5),
    ("generate_batch", "top_p", None), ("stream_batch", "on_read", 5), ("stream_texts", "tokenizer", MODEL),
    ("stream_texts", "prompts", "Once"), ("stream_texts", "prompts", []), ("stream_text", "prompt", 5),
    ("Model", "config", {}), ("ModelConfig", "blocks", 2**31), ("ModelConfig", "blocks", 0), ("ModelConfig", "num_heads", 3),
    ("ModelConfig", "max_seq_len", "8"), ("ModelConfig", "dropout", float("nan")), ("load_model", "folder", 5),
    ("load_model", "device", "tpu?"), ("load_model", "device", -1), ("evaluate", "ids", np.array([-1, 2])),
    ("evaluate", "ids", np.array([1, 300])), ("evaluate", "ids", [1, 2]), ("evaluate", "context", 0), ("evaluate", "stride", 9),
    ("evaluate", "stride", 0), ("encode_files", "max_tokens", -1), ("encode_files", "text_column", 5),
    ("encode_files", "data_files", 5), ("write_html", "folder", None), ("write_html", "file", 5),
    ("write_gguf", "precision", []),
    ("Tokenizer", "merges", "ab"), ("Tokenizer", "special_tokens", "ab"), ("Tokenizer", "pattern", []),
    ("Tokenizer.train_from_iterator", "texts", "one text"), ("Tokenizer.train_from_iterator", "texts", 5),
    ("Tokenizer.train_from_iterator", "texts", [5]), ("Tokenizer.train_from_iterator", "num_threads", float("nan")),
    ("Tokenizer.train_from_iterator", "num_threads", 2**31), ("Tokenizer.train", "vocab_size", 300.5),
    ("Tokenizer.train", "text_column", 5), ("Tokenizer.encode", "text", None), ("Tokenizer.encode", "text", b"a"),
    ("Tokenizer.encode", "allowed_special", 5), ("Tokenizer.encode", "disallowed_special", [5]), ("Tokenizer.count", "text", 5),
    ("Tokenizer.encode_with_offsets", "text", b"a"), ("Tokenizer.encode_batch", "texts", "one text"),
    ("Tokenizer.encode_batch", "num_threads", float("nan")), ("Tokenizer.encode_prompt", "prompt", 5),
    ("Tokenizer.decode", "ids", 5), ("Tokenizer.decode", "errors", 5), ("Tokenizer.save", "first_token", "a"),
    ("Tokenizer.load", "path", 5),
]  # fmt: skip


@pytest.mark.parametrize(("function", "name", "value"), WRONG, ids=lambda value: str(value)[:30])
def test_what_is_wrong_is_named_in_one_line(function, name, value, calls):
    call, arguments = calls[function]
    with pytest.raises(UserError) as refused:
        call(**arguments | {name: value})
    message = str(refused.value)
    name = {"data_files": "data_files", "texts": "text"}.get(name, name)
    assert name in message and "expected" in message and len(message.splitlines()) == 1 and len(message) < 300

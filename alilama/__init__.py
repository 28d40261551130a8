"""Alilama: train a small language model on any text you have.

Its rooms in the order of the way of the data; a later one reads earlier ones, and none reads a later one:

    common      settings, mistakes in one line, files written whole or not at all, progress bars
    data        text files, the tokenizer, token files, batches
    model       the decoder, its attention and loss, the folder it is saved in
    training    optimizers, what a step computes and how it is run, where a run stands, its log, how good the model is
    writing     sampling, decoding from a cache, text as it is made
    views       what goes on inside a model, pictures, the notebook
    export      a file for each format of others

`python -m alilama.generate`, `alilama.evaluate` and `alilama.export` are commands.
"""

from importlib import import_module

_MODULES = {
    "Model": "model.model",
    "ModelConfig": "model.model",
    "Tokenizer": "data.tokenizer",
    "generate_batch": "writing.streams",
    "load_model": "model.folder",
    "stream_text": "writing.streams",
    "stream_texts": "writing.streams",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    """Imports a name when it is first used, so that the tokenizer does not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'alilama' has no attribute {name!r}")
    return getattr(import_module(f"alilama.{_MODULES[name]}"), name)

"""Alilama: train a small language model on any text you have."""

from importlib import import_module

_MODULES = {"Model": "model", "ModelConfig": "model", "Tokenizer": "tokenizer", "load_model": "checkpoint"}

__all__ = ["Model", "ModelConfig", "Tokenizer", "load_model"]


def __getattr__(name: str):
    """Imports a name when it is first used, so that the tokenizer does not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'alilama' has no attribute {name!r}")
    return getattr(import_module(f"alilama.{_MODULES[name]}"), name)

"""Models for the tests of the page."""

import json

import torch

from alilama.data.tokenizer import Tokenizer
from alilama.model.folder import save_description, save_weights
from alilama.model.model import Model, ModelConfig

TEXT = "Once upon a time, Zoë and a tired dragon lived near the old 你好 house.\n\nIt's 12345 o'clock! 🙂 </script> " * 3
SCALE = 4  # of random weights, so that the text before matters and stories are no repetition


def save_model(folder, config=None, seed=0, **tokenizer):
    """Writes a folder with a model of random weights, large enough that its greedy choices are clear."""
    tok = Tokenizer.train_from_iterator([TEXT], 256 + 50, **tokenizer)
    torch.manual_seed(seed)
    model = Model(
        ModelConfig(
            **{"vocab_size": tok.vocab_size, "d_model": 24, "blocks": 2, "num_heads": 3, "hidden_dim": 50, "max_seq_len": 16}
            | (config or {})
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_((weight * (0.3 if name == "wte.weight" else SCALE)).half())  # so that 16 bits hold it
    save_description(folder, model.config, tok)
    save_weights(folder, model)
    return model.eval(), tok


def js(value) -> str:
    """Returns a value as JavaScript writes it."""
    return json.dumps(value)

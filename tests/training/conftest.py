"""A trainer of a tiny model."""

import pytest
import torch
from helpers import tiny_model
from steps import VOCAB, B, T, trainer_of

from alilama.training.trainer import Trainer


@pytest.fixture
def make_trainer(make_config):
    """Returns a trainer of a fresh model, always the same, and beside it the list of its messages; `more` are its arguments."""

    def make(precision=torch.float32, device="cpu", more=None, **changed) -> Trainer:
        settings = {"compile_model": False, "batch_size": B, "max_seq_len": T} | changed
        model, tell = tiny_model(VOCAB, max_seq_len=T).train().to(device), lambda text: made.messages.append(text)
        made = trainer_of(model, make_config(**settings), precision, on_message=tell, **more or {})
        made.messages = []
        return made

    return make

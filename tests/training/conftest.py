"""A trainer of a tiny model."""

import pytest
import torch
from helpers import tiny_model
from steps import VOCAB, B, T, trainer_of

from alilama.training.trainer import Trainer


@pytest.fixture
def make_trainer(make_config):
    """Returns a trainer of a fresh model, always the same, and beside it the list that its messages go to."""

    def make(precision=torch.float32, device="cpu", **changed) -> Trainer:
        settings = {"compile_model": False, "batch_size": B, "max_seq_len": T} | changed
        model = tiny_model(VOCAB, max_seq_len=T).train().to(device)
        made = trainer_of(model, make_config(**settings), precision, on_message=lambda text: made.messages.append(text))
        made.messages = []
        return made

    return make

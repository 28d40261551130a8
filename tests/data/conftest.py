"""Tokenizers that several tests use."""

import pytest
from tokenizer_cases import LETTERS_AND_REST, NATIVE, SPECIAL_TOKENS, TEXT

from alilama.data.tokenizer import Tokenizer


@pytest.fixture(scope="session", params=[*NATIVE, LETTERS_AND_REST])
def tok(request) -> Tokenizer:
    return Tokenizer.train_from_iterator([TEXT], 1500, pattern=request.param)


@pytest.fixture(scope="session")
def special() -> Tokenizer:
    return Tokenizer.train_from_iterator([TEXT], 400, special_tokens=SPECIAL_TOKENS)

"""What the writing of text is given that cannot be: refused before anything is read; and what is said of a long prompt."""

import io
from contextlib import redirect_stderr
from functools import partial

import numpy as np
import pytest
import torch
from helpers import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from oracles import examples

from alilama import generate
from alilama.common.errors import UserError
from alilama.common.progress import progress
from alilama.data.tokenizer import Tokenizer
from alilama.model import kernels
from alilama.writing import decoding
from alilama.writing.decoding import KernelDecoder, TorchDecoder, cache_bytes, choose_decoder
from alilama.writing.sampling import Sampling, next_token_probabilities
from alilama.writing.streams import generate_batch, stream_batch, stream_text, stream_texts

REFUSALS = (ValueError, TypeError, OverflowError, IndexError, AttributeError)  # UserError is a ValueError

TOKENIZER = Tokenizer([(97, 98)])
MODEL = tiny_model(TOKENIZER.vocab_size)

number = st.one_of(st.integers(-3, 5), st.integers(), st.floats(), st.booleans(), st.none())
anything = st.one_of(number, st.text(max_size=4), st.binary(max_size=4), st.lists(st.integers(-2, 300), max_size=4))
anything |= st.sampled_from(
    [np.float32(0.5), np.int64(2), np.arange(6).reshape(2, 3), torch.tensor([1, 2]), torch.tensor(0.5), {}]
)
prompts = st.one_of(anything, st.lists(st.lists(st.integers(-1, 260), max_size=5), max_size=4), st.lists(anything, max_size=3))
SETTINGS = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "context", "stop_ids"}
settings = st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(SETTINGS), anything))


@examples(300)
@given(prompts, st.one_of(st.integers(1, 4), st.integers(max_value=3), st.floats(), st.none()), settings)
def test_ids_are_written_or_what_was_given_is_refused(prompts, max_new_tokens, settings):
    try:
        rows = generate_batch(MODEL, prompts, max_new_tokens=max_new_tokens, **settings)
    except REFUSALS as error:
        assert str(error)
        return
    assert len(rows) == len(prompts)
    for row in rows:
        assert len(row) <= max_new_tokens and all(0 <= id < TOKENIZER.vocab_size for id in row)


@examples(150)
@given(st.one_of(prompts, st.lists(st.text(max_size=5), max_size=3)), settings)
def test_text_is_written_or_what_was_given_is_refused(prompts, settings):
    settings.pop("stop_ids", None)
    for write in (stream_texts, stream_text):
        try:
            for texts in write(MODEL, TOKENIZER, prompts, max_new_tokens=3, **settings):
                assert isinstance(texts, str) or all(isinstance(text, str) for text in texts)
        except REFUSALS as error:
            assert str(error)


@examples(200)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(SETTINGS - {"seed", "context", "stop_ids"}), number)))
def test_what_sampling_takes_gives_probabilities(settings):
    try:
        sampling = Sampling(**settings)
        probabilities = next_token_probabilities(torch.linspace(-3, 9, 40).view(2, 20), sampling)
    except REFUSALS as error:
        assert str(error)
        return
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    assert (probabilities >= 0).all()


@pytest.mark.parametrize("Decoder", [KernelDecoder, TorchDecoder] if kernels.are_built() else [TorchDecoder])
@examples(100)
@given(number, number, number, prompts)
def test_a_decoder_reads_prompts_or_refuses(Decoder, rows, longest, context, prompts):
    try:
        if isinstance(rows, int | float) and rows > 10**4:
            rows = 10**4  # whose caches are not made before something is read
        with torch.inference_mode():
            logits = Decoder(MODEL, rows, longest, context).read_prompts(prompts)
    except (*REFUSALS, RuntimeError, KeyError) as error:
        assert str(error)
        return
    assert logits.shape == (len(prompts), TOKENIZER.vocab_size)


def test_seeds_are_whole_numbers():
    for seed in (1.5, "1", [1], torch.tensor([1, 2]), 2**63, -(2**63) - 1):
        with pytest.raises(UserError, match="expected a whole number of at most 63 bits"):
            next(stream_batch(MODEL, [[1]], seed=seed))
    first, again = (generate_batch(MODEL, [[1]], seed=seed, max_new_tokens=9) for seed in (3, np.int64(3)))
    assert first == again


def test_a_cache_is_as_large_as_its_numbers_say_however_long_a_text_is():
    assert cache_bytes(MODEL, 1, 2**62, None) == 2**62 * 2 * 2 * 32 * 4
    assert cache_bytes(MODEL, 3, 2**62, 10) == 3 * (10 + decoding.CHUNK) * 2 * 2 * 32 * 4
    decoder = choose_decoder(MODEL, 1, 2**62, 10)
    with torch.inference_mode():
        assert decoder.read_prompts([[1, 2]]).isfinite().all()


# ---- how far a long prompt is ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


CUT = "(Cut off after 3 tokens: --max_new_tokens.)\n"


@pytest.fixture
def write_after(model_folder, monkeypatch, capsys):
    """Runs the command with a long prompt and returns what it printed and what it said to `stderr` meanwhile."""
    monkeypatch.setattr(decoding, "TOLD_TOKENS", 64)

    def run(stderr: io.StringIO, *arguments: str) -> tuple[str, str]:
        with redirect_stderr(stderr):
            generate.main([str(model_folder), "--seed=1", "--max_new_tokens=3", *arguments])
        return capsys.readouterr().out, stderr.getvalue()

    return run


def test_on_a_terminal_it_is_said_how_far_a_long_prompt_has_been_read(write_after, monkeypatch):
    monkeypatch.setattr(generate, "progress", partial(progress, mininterval=0))
    monkeypatch.setattr(generate, "SILENT_S", 1e-9)
    prompt = "--prompt=" + "Lily found a ball. " * 200
    quiet, nothing = write_after(io.StringIO(), prompt)
    text, said = write_after(Terminal(), prompt)
    assert text == quiet and nothing == CUT  # no file and no pipe is told more
    assert "Reading the prompt" in said and "tokens" in said
    assert said.endswith("\r" + CUT)  # nothing else of it stays


def test_nothing_is_said_of_a_prompt_that_is_read_at_once(write_after):
    text, said = write_after(Terminal(), "--prompt=Once", "--prompt=Tom")
    assert text.startswith("Once") and said == CUT.replace("off", "off text 1, 2")

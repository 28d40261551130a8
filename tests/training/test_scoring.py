"""How well a model predicts a text, against probabilities written out one by one."""

import math
import shutil

import numpy as np
import pytest
import torch
from helpers import tiny_model

from alilama.common.errors import UserError
from alilama.data.frames import FRAME_TOKENS
from alilama.data.text import find_sources, read_blocks
from alilama.data.tokenizer import Tokenizer
from alilama.model.folder import load_model
from alilama.training import scoring
from alilama.training.scoring import Score, count_bytes, encode_files, evaluate, windows


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


def random_ids(size: int, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 400, size).astype(np.uint16)


def explicit_nats(model, ids: list[int], context: int) -> float:
    """Minus the log probability of every id but the first, from the logits of windows that do not overlap."""
    total = 0.0
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        logits = model(torch.tensor([window[:-1]])).detach().double()[0]
        for t, target in enumerate(window[1:]):
            weights = [math.exp(logit) for logit in logits[t].tolist()]
            total -= math.log(weights[target] / sum(weights))
    return total


def explicit_sliding_nats(model, ids: list[int], context: int, stride: int) -> float:
    """Minus the log probability of every id but the first, one by one, from the last logits of the ids it is predicted from.

    A window's last target is at `end`: at the context, then every stride further, and at last at the end of the text.
    """
    total, end = 0.0, min(context, len(ids) - 1)
    for place, target in enumerate(ids[1:], start=1):
        if place > end:
            end = min(end + stride, len(ids) - 1)
        logits = model(torch.tensor([ids[max(0, end - context) : place]])).detach().double()[0, -1]
        total += float(logits.logsumexp(0) - logits[target])
    return total


SIZES_AND_CONTEXTS = [(50, 16), (49, 16), (33, 16), (50, 7), (50, 49), (50, 1000), (2, 16), (20, 1)]


@pytest.mark.parametrize(("size", "context"), SIZES_AND_CONTEXTS)
def test_nats_are_those_of_the_logits(model, tokenizer, size, context):
    ids = random_ids(size)
    score = evaluate(model, tokenizer, ids, context)
    assert score.nats == pytest.approx(explicit_nats(model, ids.tolist(), context), rel=1e-5)
    assert score.tokens == size - 1
    assert score.loss == pytest.approx(score.nats / (size - 1))
    assert score.perplexity == pytest.approx(math.exp(score.loss))


@pytest.mark.parametrize(("size", "context"), SIZES_AND_CONTEXTS)
@pytest.mark.parametrize("stride", [1, 2, 5, 7, 16, 1000])
def test_nats_of_sliding_windows_are_those_of_the_logits_one_by_one(model, tokenizer, size, context, stride):
    ids, stride = random_ids(size), min(stride, context)
    score = evaluate(model, tokenizer, ids, context, stride=stride)
    assert score.nats == pytest.approx(explicit_sliding_nats(model, ids.tolist(), context, stride), rel=1e-5)
    assert (score.tokens, score.bytes) == (size - 1, evaluate(model, tokenizer, ids, context).bytes)


def scored_places(size: int, context: int, stride: int | None) -> tuple[list[int], list[int]]:
    """The places of the ids that are scored, in order, and the number of ids that each is predicted from."""
    places, ids_before = [], []
    for inputs, targets, is_scored in windows(np.arange(size, dtype=np.uint16), context, 7, stride):
        assert inputs.dtype == targets.dtype == torch.int64 and inputs.shape == targets.shape == is_scored.shape
        assert torch.equal(inputs + 1, targets)
        assert stride is None or inputs.shape[1] == min(context, size - 1)
        places += targets[is_scored].tolist()
        ids_before += (targets - inputs[:, :1])[is_scored].tolist()
    return places, ids_before


@pytest.mark.parametrize("stride", [None, 1, 2, 3, 8, 10])
@pytest.mark.parametrize("size", [2, 3, 10, 11, 12, 100, 101, 102])
@pytest.mark.parametrize("context", [10, 10_000])
def test_every_id_but_the_first_is_scored_once_from_enough_ids(size, context, stride):
    places, ids_before = scored_places(size, context, stride)
    assert places == list(range(1, size))
    assert ids_before[:context] == places[:context]  # the first window
    if stride is not None:
        assert all(context - stride + 1 <= number <= context for number in ids_before[context:])


@pytest.mark.parametrize("size", [2, 10, 11, 12, 100, 101, 102])
def test_with_stride_1_every_id_is_predicted_from_the_context_before_it(size):
    places, ids_before = scored_places(size, 10, stride=1)
    assert ids_before == [min(place, 10) for place in places]


@pytest.mark.parametrize("size", [2, 10, 11, 12, 21, 29, 100])
def test_with_the_context_as_stride_only_the_rest_at_the_end_is_predicted_from_more(size):
    _, without_overlap = scored_places(size, 10, stride=None)
    _, sliding = scored_places(size, 10, stride=10)
    whole = (size - 1) // 10 * 10
    rest = size - 1 - whole
    assert sliding[:whole] == without_overlap[:whole]
    assert without_overlap[whole:] == list(range(1, rest + 1))
    assert sliding[whole:] == (list(range(10 - rest + 1, 11)) if whole else list(range(1, rest + 1)))


@pytest.mark.parametrize("stride", [None, 1, 4])
@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("context", [1, 10, 10_000])
def test_batches_are_full_and_bounded(context, batch_tokens, stride, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_LOGITS", 7 * batch_tokens)
    stride = stride and min(stride, context)
    sizes = [len(inputs) for inputs, _, _ in windows(np.arange(102, dtype=np.uint16), context, 7, stride)]
    if stride is None and context == 10:
        assert sizes.pop() == 1  # the shorter window at the end
    assert set(sizes[:-1]) <= {max(1, batch_tokens // min(context, 101))} and sizes[-1] <= max(sizes)


def test_a_longer_context_is_used(model, tokenizer):
    ids = np.tile(random_ids(20), 6)
    assert evaluate(model, tokenizer, ids, 10).nats != pytest.approx(evaluate(model, tokenizer, ids, 119).nats, rel=1e-6)


def test_bits_per_byte_are_counted_over_the_bytes_of_the_text(model, tokenizer):
    text = "Zoë found a 🦙 and a kite…"
    ids = np.array([tokenizer.eot_id, *tokenizer.encode(text), tokenizer.eot_id, *tokenizer.encode("é")], dtype=np.uint16)
    score = evaluate(model, tokenizer, ids, 1000)
    assert score.bytes == len(text.encode()) + 2  # end of text is no text
    assert score.bits_per_byte == pytest.approx(explicit_nats(model, ids.tolist(), 1000) / math.log(2) / score.bytes, rel=1e-5)
    assert Score(nats=math.log(2) * 8, tokens=4, bytes=2).bits_per_byte == pytest.approx(4)


def test_the_first_id_is_not_predicted_and_its_bytes_do_not_count(model, tokenizer):
    ids = np.array(tokenizer.encode("Once upon a time"), dtype=np.uint16)
    assert evaluate(model, tokenizer, ids, 16).bytes == len("Once upon a time") - len(tokenizer.token_bytes(ids[0]))


@pytest.mark.parametrize("size", [0, 1, 2, 40])
def test_ids_without_text_are_refused(model, tokenizer, size):
    with pytest.raises(UserError, match="no text to score"):
        evaluate(model, tokenizer, np.full(size, tokenizer.eot_id, dtype=np.uint16), 8)


def test_bytes_of_all_tokens_are_counted(tokenizer):
    every_id = np.arange(400, dtype=np.uint16)
    assert count_bytes(tokenizer, every_id) == len(tokenizer.decode_bytes(every_id)) - len("<|endoftext|>")


def test_dropout_is_off_in_evaluation_and_back_on_behind_it(tokenizer):
    model = tiny_model(400, dropout=0.5)
    expected = evaluate(model, tokenizer, random_ids(40), 16).nats
    assert not model.training
    model.train()
    assert evaluate(model, tokenizer, random_ids(40), 16).nats == expected
    assert model.training


def test_evaluation_keeps_no_gradients(model, tokenizer, monkeypatch):
    enabled = []
    hidden = type(model).hidden
    monkeypatch.setattr(type(model), "hidden", lambda *a, **k: (enabled.append(torch.is_grad_enabled()), hidden(*a, **k))[1])
    evaluate(model, tokenizer, random_ids(40), 16)
    assert enabled and not any(enabled)


@pytest.mark.parametrize("stride", [None, 7])
def test_where_memory_runs_out_windows_are_scored_in_halves(stride, model, tokenizer, monkeypatch):
    ids = np.arange(500, dtype=np.uint16) % tokenizer.vocab_size
    expected, hidden, sizes = evaluate(model, tokenizer, ids, 16, stride=stride), model.hidden, []

    def small_memory(inputs):
        sizes.append(len(inputs))
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return hidden(inputs)

    monkeypatch.setattr(model, "hidden", small_memory)
    score = evaluate(model, tokenizer, ids, 16, stride=stride)
    assert max(sizes) > 20 and score.tokens == expected.tokens and score.nats == pytest.approx(expected.nats, rel=1e-5)
    for error in (torch.OutOfMemoryError("out of memory, for one window too"), ZeroDivisionError("and this is another one")):

        def fails(inputs, error=error):
            raise error

        monkeypatch.setattr(model, "hidden", fails)
        with pytest.raises(type(error), match=str(error)):
            evaluate(model, tokenizer, ids, 16)


@pytest.mark.parametrize("stride", [None, 3])
def test_progress_is_told_of_every_token(model, tokenizer, stride):
    told = []
    evaluate(model, tokenizer, random_ids(41), 16, told.append, stride)
    assert sum(told) == 40


def test_files_are_encoded_as_token_files_are(tokenizer, text_file, text):
    ids = encode_files(tokenizer, [str(text_file)])
    expected = []
    for story in text.split("\n<|endoftext|>\n"):
        expected += [tokenizer.eot_id, *tokenizer.encode(story)]
    assert ids.tolist() == expected
    assert tokenizer.decode(ids) == "<|endoftext|>" + text.replace("\n<|endoftext|>\n", "<|endoftext|>")


@pytest.mark.parametrize("max_tokens", [2, 100, 10_000, None])
def test_only_the_first_tokens_are_read(tokenizer, text_file, max_tokens, monkeypatch):
    blocks = list(read_blocks(find_sources([str(text_file)]), "gpt4"))
    assert len(blocks) == 1 and len(tokenizer.encode_block(blocks[0])[0]) > 10_000
    all_ids = encode_files(tokenizer, [str(text_file)] * 2)
    assert encode_files(tokenizer, [str(text_file)], max_tokens).tolist() == all_ids[:max_tokens].tolist()


def test_files_after_the_first_tokens_are_not_encoded(tokenizer, text_file, tmp_path):
    shutil.copy(text_file, tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("Later.")
    encoded = []

    class Telling(Tokenizer):
        def encode_block(self, block):
            encoded.append(block)
            return super().encode_block(block)

    encode_files(Telling(tokenizer.merges), [str(tmp_path)], 100)
    assert len(encoded) == 1
    encode_files(Telling(tokenizer.merges), [str(tmp_path)])
    assert len(encoded) == 3


# ---- prompts and answers ----


@pytest.fixture(scope="module")
def framed(tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer.merges[:100], special_tokens=("<|endoftext|>", *FRAME_TOKENS))


DOCUMENTS = [
    [("user", "Who found the kite?"), ("assistant", "Zoë did…")],
    [("system", "Be brief."), ("user", "Where?"), ("assistant", "Here."), ("user", "When?"), ("assistant", "")],
    [("", "A text that nobody asked for.")],
    [("assistant", "Hello 🦙")],
]


def answers(tokenizer: Tokenizer) -> tuple[list[int], list[bool], int]:
    """Ids of documents, which of them are learned, and the bytes of text that these stand for."""
    special, ids, learned, num_bytes = tokenizer.special_tokens, [], [], 0
    for document in DOCUMENTS:
        learned.append(not ids or ids[-1] != special["<|end|>"])
        ids.append(special["<|endoftext|>"])
        for role, text in document:
            encoded = tokenizer.encode_ordinary(text)
            ids += [special[f"<|{role}|>"], *encoded, special["<|end|>"]] if role else encoded
            is_learned = role in ("assistant", "")
            learned += [False, *[is_learned] * (len(encoded) + 1)] if role else [True] * len(encoded)
            num_bytes += len(text.encode()) * is_learned
    return ids, learned, num_bytes


@pytest.mark.parametrize("context", [1, 5, 16, 1000])
@pytest.mark.parametrize("stride", [None, 1, 3])
def test_of_prompts_with_answers_the_answers_are_scored(framed, context, stride):
    model = tiny_model(framed.vocab_size)
    ids, learned, num_bytes = answers(framed)
    context, stride = min(context, len(ids) - 1), stride and min(stride, context)
    expected, end = 0.0, context
    for place in range(1, len(ids)):
        if place > end:
            end += context if stride is None else min(stride, len(ids) - 1 - end)
        logits = model(torch.tensor([ids[max(0, end - context) : place]])).detach().double()[0, -1]
        expected += float(logits.logsumexp(0) - logits[ids[place]]) * learned[place]
    told = []
    score = evaluate(model, framed, np.array(ids, np.uint16), context, told.append, stride)
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert (score.tokens, score.bytes, sum(told)) == (sum(learned[1:]), num_bytes, sum(learned[1:]))


def test_prompts_without_an_answer_are_no_text_to_score(framed):
    ids = np.array(framed.encode_prompt("Who found the kite?"), dtype=np.uint16)
    with pytest.raises(UserError, match="no text to score"):
        evaluate(tiny_model(framed.vocab_size), framed, ids, 8)

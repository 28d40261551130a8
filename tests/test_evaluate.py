import math

import numpy as np
import pytest
import torch
from conftest import tiny_model

from alilama import evaluate as evaluate_module
from alilama.checkpoint import load_model
from alilama.evaluate import Score, count_bytes, encode_files, evaluate, windows


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


def random_ids(size: int, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 400, size).astype(np.uint16)


def explicit_nats(model, ids: list[int], context: int) -> float:
    """Minus the log probability of every id but the first, from the logits of windows that do not overlap."""
    total = 0.0
    for start in range(0, len(ids) - 1, context):
        window = ids[start:start + context + 1]
        logits = model(torch.tensor([window[:-1]])).detach().double()[0]
        for t, target in enumerate(window[1:]):
            weights = [math.exp(logit) for logit in logits[t].tolist()]
            total -= math.log(weights[target] / sum(weights))
    return total


@pytest.mark.parametrize(("size", "context"), [(50, 16), (49, 16), (33, 16), (50, 7), (50, 49), (50, 1000), (2, 16), (20, 1)])
def test_nats_are_those_of_the_logits(model, tokenizer, size, context):
    ids = random_ids(size)
    score = evaluate(model, tokenizer, ids, context)
    assert score.nats == pytest.approx(explicit_nats(model, ids.tolist(), context), rel=1e-5)
    assert score.tokens == size - 1
    assert score.loss == pytest.approx(score.nats / (size - 1))


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("size", [2, 3, 10, 11, 12, 100, 101, 102])
@pytest.mark.parametrize("context", [1, 2, 10, 10_000])
def test_windows_predict_every_id_but_the_first_once_from_the_one_before(size, context, batch_tokens, monkeypatch):
    monkeypatch.setattr(evaluate_module, "BATCH_LOGITS", 7 * batch_tokens)
    predicted = []
    for inputs, targets in windows(np.arange(size, dtype=np.uint16), context, vocab_size=7):
        assert inputs.dtype == targets.dtype == torch.int64 and inputs.shape == targets.shape
        assert inputs.shape[1] <= context and (inputs.shape[0] == 1 or inputs.numel() <= batch_tokens)
        assert torch.equal(inputs + 1, targets)
        predicted += targets.flatten().tolist()
    assert predicted == list(range(1, size))


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
    loss = type(model).loss
    monkeypatch.setattr(type(model), "loss", lambda *a, **k: (enabled.append(torch.is_grad_enabled()), loss(*a, **k))[1])
    evaluate(model, tokenizer, random_ids(40), 16)
    assert enabled and not any(enabled)


def test_progress_is_told_of_every_token(model, tokenizer):
    told = []
    evaluate(model, tokenizer, random_ids(41), 16, told.append)
    assert sum(told) == 40


def test_files_are_encoded_as_token_files_are(tokenizer, text_file, text):
    ids = encode_files(tokenizer, [str(text_file)])
    expected = []
    for story in text.split("\n<|endoftext|>\n"):
        expected += [tokenizer.eot_id, *tokenizer.encode(story)]
    assert ids.tolist() == expected
    assert tokenizer.decode(ids) == "<|endoftext|>" + text.replace("\n<|endoftext|>\n", "<|endoftext|>")


def test_the_command_prints_what_evaluate_gives(run, model_folder, model, tokenizer, tmp_path):
    text = "Once upon a time, Zoë found a lamp.\n<|endoftext|>\nThen she went home."
    (tmp_path / "valid.txt").write_text(text, encoding="utf-8")
    result = run("-m", "alilama.evaluate", model_folder, "--data", "valid.txt", "--context", "8,64")
    assert result.returncode == 0, result.stderr
    header, _, *lines = result.stdout.splitlines()
    ids = encode_files(tokenizer, [str(tmp_path / "valid.txt")])
    assert f"{len(ids) - 1:,} tokens" in header and "55 bytes" in header  # 36 and 19, and none for the separator
    for line, context in zip(lines, (8, 64), strict=True):
        score = evaluate(model, tokenizer, ids, context)
        assert [float(number) for number in line.split()] == pytest.approx(
            [context, score.loss, math.exp(score.loss), score.bits_per_byte], abs=0.01)


@pytest.mark.parametrize(("content", "arguments", "message"), [
    ("text", ["--context=0"], "--context 0"), ("text", ["--context=long"], "--context long"),
    ("text", ["--context=8,,8"], "--context"), ("", [], "is empty"), ("<|endoftext|>\n", [], "valid.txt")])
def test_the_command_says_mistakes_in_one_line(content, arguments, message, refusal, model_folder, tmp_path):
    (tmp_path / "valid.txt").write_text(content)
    assert message in refusal("alilama.evaluate", model_folder, "--data", tmp_path / "valid.txt", *arguments)


def test_the_command_says_that_a_file_is_missing(refusal, model_folder):
    assert "--data: 'nowhere.txt' leads to no file" in refusal("alilama.evaluate", model_folder, "--data", "nowhere.txt")

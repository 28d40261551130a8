import math

import pytest
import torch
from helpers import tiny_model

from alilama import load_model
from alilama.common.errors import UserError
from alilama.views.inside import (
    attention_weights,
    next_tokens,
    piece_probabilities,
    surprise,
    telling_scores,
    token_probabilities,
)

TEXT = "Zoë found a kite in the garden.\nThe end…"


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


def probabilities_after(model, ids):
    """Returns the distribution of the token after `ids`, by what the model itself says."""
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0, -1].softmax(0)


def explicit_weights(model, ids):
    """Returns the weights of attention by the formula of the paper, number by number, from what the blocks project."""
    projected, T, H = [], len(ids), model.config.num_heads
    D = model.config.d_model // H
    hooks = [
        block.attn.Wqkv.register_forward_hook(lambda module, inputs, qkv: projected.append(qkv[0].tolist()))
        for block in model.blocks
    ]
    with torch.inference_mode():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    weights = torch.zeros(len(projected), H, T, T)
    for block, qkv in enumerate(projected):
        for h in range(H):
            for i in range(T):
                q = qkv[i][h * D : (h + 1) * D]
                keys = [qkv[j][(H + h) * D : (H + h + 1) * D] for j in range(i + 1)]
                scores = [
                    sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(D) - 2 ** (-8 * (h + 1) / H) * (i - j)
                    for j, k in enumerate(keys)
                ]
                exponentials = [math.exp(score - max(scores)) for score in scores]
                weights[block, h, i, : i + 1] = torch.tensor(exponentials) / sum(exponentials)
    return weights


def test_the_weights_of_attention_are_those_of_the_formula(tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode(TEXT)
    weights = attention_weights(model, ids)
    assert weights.shape == (2, 4, len(ids), len(ids)) and weights.dtype == torch.float32
    torch.testing.assert_close(weights, explicit_weights(model, ids), rtol=1e-4, atol=1e-6)
    assert not weights.triu(1).any()
    assert weights.amax(-1).min() < 0.9  # they say something


def test_recording_the_weights_leaves_what_the_model_computes_as_it_is(tiny, monkeypatch):
    model, tokenizer = tiny
    ids, computed, hidden = tokenizer.encode(TEXT), [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda *arguments: computed.append(hidden(*arguments)))
    attention_weights(model, ids)
    with torch.inference_mode():
        torch.testing.assert_close(computed[0], hidden(torch.tensor([ids])), rtol=1e-4, atol=1e-5)


def test_the_weights_are_computed_in_float32_for_a_model_in_bfloat16(model_folder, tiny):
    ids = tiny[1].encode(TEXT)
    weights = attention_weights(load_model(model_folder)[0].bfloat16(), ids)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights[0], attention_weights(tiny[0], ids)[0], rtol=0, atol=0.1)


@pytest.mark.parametrize("prompt", ["", "Once upon a time", TEXT])
def test_the_next_tokens_are_the_most_likely_ones_in_order(tiny, prompt):
    model, tokenizer = tiny
    found = next_tokens(model, tokenizer, prompt, 7)
    expected = probabilities_after(model, [tokenizer.eot_id, *tokenizer.encode(prompt)]).topk(7)
    assert [token_id for token_id, _ in found] == expected.indices.tolist()
    assert [probability for _, probability in found] == pytest.approx(expected.values.tolist(), rel=1e-4)


def test_all_next_tokens_together_have_probability_1(tiny):
    found = next_tokens(*tiny, "the dog", tiny[1].vocab_size)
    assert sorted(token_id for token_id, _ in found) == list(range(tiny[1].vocab_size))
    assert sum(probability for _, probability in found) == pytest.approx(1, abs=1e-5)


def test_each_token_of_a_text_has_the_probability_it_had_after_those_before_it(tiny):
    model, tokenizer = tiny
    ids, found = tokenizer.encode(TEXT), token_probabilities(model, tokenizer, TEXT)
    assert [token_id for token_id, _ in found] == ids
    expected = [float(probabilities_after(model, [tokenizer.eot_id, *ids[:place]])[ids[place]]) for place in range(len(ids))]
    assert [probability for _, probability in found] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_the_probabilities_of_a_text_make_its_loss(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(TEXT)]])
    nats = [-math.log(probability) for _, probability in token_probabilities(model, tokenizer, TEXT)]
    with torch.inference_mode():
        assert sum(nats) / len(nats) == pytest.approx(float(model.loss(ids[:, :-1], ids[:, 1:])), rel=1e-4)


def test_an_empty_text_has_no_tokens(tiny):
    assert token_probabilities(*tiny, "") == []


def test_tokens_that_make_a_character_together_are_one_piece_of_their_product(tiny):
    model, tokenizer = tiny
    [*of_character, (_, stop)] = token_probabilities(model, tokenizer, "日.")
    assert len(of_character) == 3
    pieces = list(piece_probabilities(model, tokenizer, "日."))
    assert [piece for piece, _ in pieces] == ["日", "."]
    assert [found for _, found in pieces] == pytest.approx([math.prod(each for _, each in of_character), stop])


def test_an_empty_text_has_no_pieces(tiny):
    with pytest.raises(UserError, match="the text is empty: expected"):
        list(piece_probabilities(*tiny, ""))


def test_surprise_grows_with_the_bits_and_ends_at_1():
    assert [surprise(probability) for probability in (1, 0.5, 0.125, 2**-10, 1e-9, 0)] == pytest.approx([0, 0.1, 0.3, 1, 1, 1])
    assert str(surprise(1)) == "0.0"  # and not -0.0, which a page would show


def test_the_most_telling_head_looks_far_back_at_words_and_not_always_at_the_same(tiny):
    tokenizer = tiny[1]
    ids = tokenizer.encode_document("the dog and a cat, the dog and a cat, the dog and a cat")
    T, is_word = len(ids), [tokenizer.decode([token_id]).strip().isalpha() for token_id in ids]
    comma = is_word.index(False, 1)
    looks = {
        "at itself": lambda i: i,
        "at its neighbour": lambda i: max(0, i - 1),
        "at <|endoftext|>": lambda i: 0,
        "at the first word": lambda i: min(i, 1),
        "at a comma or <|endoftext|>": lambda i: comma if i > comma + 1 and i % 2 else 0,
        "at words": lambda i: next((j for j in range(i - 2 - i % 3, 0, -1) if is_word[j]), 0),
    }
    weights = torch.zeros(1, len(looks), T, T)
    for head, look in enumerate(looks.values()):
        for i in range(T):
            weights[0, head, i, look(i)] = 1
    scores = telling_scores(weights, tokenizer, ids)
    assert scores.shape == (1, len(looks))
    assert scores[0, :-1].tolist() == pytest.approx([0] * (len(looks) - 1), abs=1e-9) and scores[0, -1] > 1


@pytest.mark.parametrize("count", [0, -1, 401])
def test_a_count_that_cannot_be_is_refused(tiny, count):
    with pytest.raises(UserError, match=f"count = {count}: expected 1 to 400"):
        next_tokens(*tiny, "the dog", count)


def test_a_special_token_in_a_text_is_refused(tiny):
    for function in (next_tokens, token_probabilities):
        with pytest.raises(UserError, match="special token"):
            function(*tiny, "the <|endoftext|>")


def test_after_a_prompt_comes_the_first_token_of_its_answer(tiny):
    tokenizer = tiny[1].with_frame()
    model = tiny_model(tokenizer.vocab_size)
    expected = probabilities_after(model, tokenizer.encode_prompt("Who?")).topk(3)
    found = next_tokens(model, tokenizer, "Who?", count=3)
    assert [id for id, _ in found] == expected.indices.tolist()
    assert [share for _, share in found] == pytest.approx(expected.values.tolist(), rel=1e-5)

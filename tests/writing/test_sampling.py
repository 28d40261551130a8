"""How the next token is taken from the logits."""

import math
from dataclasses import fields
from itertools import combinations

import pytest
import torch
from helpers import tiny_model

from alilama.common.errors import UserError
from alilama.generate import make_parser
from alilama.views.notebook import sampling_slider
from alilama.writing import sampling
from alilama.writing.sampling import Sampler, Sampling, draw, next_token_probabilities


def distribution(logits, temperature=1.0, **sampling) -> list[float]:
    return next_token_probabilities(torch.tensor(logits, dtype=torch.float64), Sampling(temperature, **sampling)).tolist()


def oracle(logits: list[float], temperature: float, top_k: int | None, top_p: float, min_p: float) -> list[float]:
    """Holtzman et al. 2020 and Nguyen et al. 2024 by a loop over the tokens, the most likely first."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    kept, total = [], 0.0
    for index in sorted(range(len(logits)), key=lambda index: -logits[index]):
        if total >= top_p or len(kept) == (top_k or len(logits)) or probabilities[index] < min_p * max(probabilities):
            break
        kept.append(index)
        total += probabilities[index]
    return [probabilities[index] / total if index in kept else 0.0 for index in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-9])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.5, 1.0])
def test_the_distribution_is_that_of_a_simple_loop(temperature, top_k, top_p, min_p):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        logits = torch.randn(20, generator=generator).mul(3).tolist()
        found = distribution(logits, temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        assert found == pytest.approx(oracle(logits, temperature, top_k, top_p, min_p), abs=1e-9)
        assert sum(found) == pytest.approx(1)


def test_temperature_divides_the_logits():
    logits = [math.log(4), math.log(2), math.log(1)]
    assert distribution(logits, 1.0) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert distribution(logits, 0.5) == pytest.approx([16 / 21, 4 / 21, 1 / 21])  # sharper: the squares
    assert distribution(logits, 2.0) == pytest.approx([2 / (3 + 2**0.5), 2**0.5 / (3 + 2**0.5), 1 / (3 + 2**0.5)])


def test_temperature_zero_takes_the_most_likely_token_and_the_smallest_temperatures_come_near_it():
    assert distribution([0.5, 2.0, 1.9], 0) == [0, 1, 0]
    for temperature in (1e-3, 1e-30, 5e-324):
        assert distribution([0.5, 2.0, 1.9], temperature) == pytest.approx([0, 1, 0]), temperature


def test_top_k_keeps_the_k_most_likely_tokens():
    logits = [math.log(p) for p in (0.1, 0.4, 0.2, 0.3)]
    assert distribution(logits, top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert distribution(logits, top_k=4) == pytest.approx([0.1, 0.4, 0.2, 0.3])


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = [0.0, math.log(2), -math.inf, math.log(4), 0.0]  # 1/8, 1/4, 0, 1/2, 1/8
    assert distribution(logits, top_p=0.5) == pytest.approx([0, 0, 0, 1, 0])
    assert distribution(logits, top_p=0.51) == pytest.approx([0, 1 / 3, 0, 2 / 3, 0])
    assert distribution(logits, top_p=0.75) == pytest.approx([0, 1 / 3, 0, 2 / 3, 0])
    assert distribution(logits, top_p=0.76) == pytest.approx([1 / 7, 2 / 7, 0, 4 / 7, 0])
    assert distribution(logits, top_p=1.0) == pytest.approx([1 / 8, 1 / 4, 0, 1 / 2, 1 / 8])
    # where nothing is rounded: two of four equal tokens have exactly the half
    assert distribution([1.0] * 4, top_p=0.5) == [0.5, 0.5, 0, 0]
    assert distribution([1.0] * 4, top_p=0.75) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_top_p_counts_the_probability_before_top_k():
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert distribution(logits, top_k=3, top_p=0.8) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])  # 0.4 + 0.3 < 0.8
    assert distribution(logits, top_k=3, top_p=0.7 - 1e-9) == pytest.approx([4 / 7, 3 / 7, 0, 0])


def test_min_p_keeps_the_tokens_that_are_likely_beside_the_likeliest():
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert distribution(logits, min_p=0.45) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])
    assert distribution(logits, min_p=0.55) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert distribution(logits, min_p=1.0) == pytest.approx([1, 0, 0, 0])


def test_the_repetition_penalty_makes_logits_of_tokens_that_are_there_smaller_whatever_their_sign():
    logits, seen = torch.tensor([[3.0, -1.0, 3.0, -1.0]] * 2), torch.tensor([[True, True, False, False], [False] * 4])
    found = next_token_probabilities(logits, Sampling(1.0, repetition_penalty=1.5), seen)
    expected = torch.tensor([[2.0, -1.5, 3.0, -1.0], [3.0, -1.0, 3.0, -1.0]]).softmax(-1)
    torch.testing.assert_close(found, expected)


def test_rows_have_their_own_distributions():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(0.7, top_k=20, top_p=0.8, min_p=0.01)
    together = next_token_probabilities(logits, sampling)
    torch.testing.assert_close(together, torch.stack([next_token_probabilities(row, sampling) for row in logits]))


def test_a_number_draws_the_token_in_whose_share_it_falls():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).repeat(7, 1)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.999, 1.0])  # 1.0: what rounding may make of less
    assert draw(probabilities, uniform).tolist() == [1, 1, 3, 3, 4, 4, 4]
    third = torch.full((1, 3), 1 / 3)  # rows need not add up to 1 exactly
    assert draw(third * 0.999999, torch.tensor([0.99999994])).tolist() == [2]
    assert draw(torch.tensor([[0.2, 0.2]]), torch.tensor([0.45])).tolist() == [0]  # shares are those of the sum


def test_every_step_draws_with_random_numbers_of_its_own(monkeypatch):
    monkeypatch.setattr(sampling, "DRAWS", 4)
    sampler, drawn = Sampler(Sampling(1.0), [[1], [1]], tiny_model(400), 1, ()), []
    for _ in range(12):
        sampler.advance()
        drawn += sampler.sample(torch.zeros(2, 400), torch.arange(2)).tolist()
    assert len(set(drawn)) > 20


def test_logits_in_half_precision_are_sampled_in_float32():
    sampler = Sampler(Sampling(1.0), [[1]] * 400, tiny_model(400), 1, ())
    sampler.uniforms.copy_(((torch.arange(400) + 0.5) / 400).expand(sampling.DRAWS, 400))
    assert sampler.sample(torch.zeros(400, 400, dtype=torch.bfloat16), torch.arange(400)).tolist() == list(range(400))


# A value of each field that changes the distribution: a new field needs one here.
OTHER_VALUES = {"temperature": 0.3, "top_k": 2, "top_p": 0.5, "min_p": 0.5, "repetition_penalty": 2.0}


@pytest.mark.parametrize("field", fields(Sampling), ids=lambda field: field.name)
def test_every_field_changes_the_distribution_and_is_on_the_command_line_and_a_slider(field):
    assert field.name in OTHER_VALUES, f"{field.name} needs a value in OTHER_VALUES"
    value = OTHER_VALUES[field.name]
    logits, seen = torch.tensor([2.0, 1.0, 0.5, -1.0]), torch.tensor([True, False, False, True])
    usual, changed = (next_token_probabilities(logits, Sampling(**given), seen) for given in ({}, {field.name: value}))
    assert not torch.allclose(usual, changed, atol=1e-3)
    settings = vars(make_parser().parse_args([f"--{field.name}={value}"]))
    assert settings[field.name] == value and vars(make_parser().parse_args([]))[field.name] == field.default
    slider = sampling_slider(field)
    assert field.name in slider.description and slider.value == (field.default or 0)
    slider.value = value
    assert slider.value == pytest.approx(value)


@pytest.mark.parametrize("names", list(combinations(OTHER_VALUES, 2)), ids=" ".join)
def test_whatever_two_fields_keep_is_a_distribution(names):
    logits = 3 * torch.randn(200, 20, generator=torch.Generator().manual_seed(0))
    found = next_token_probabilities(logits, Sampling(**{name: OTHER_VALUES[name] for name in names}), logits > 2)
    torch.testing.assert_close(found.sum(-1), torch.ones(200))


@pytest.mark.parametrize("field", fields(Sampling), ids=lambda field: field.name)
def test_a_value_out_of_the_range_of_a_field_is_refused_with_what_is_expected(field):
    with pytest.raises(UserError, match=rf"{field.name} = -1: expected .+"):
        Sampling(**{field.name: -1})

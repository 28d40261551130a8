import math

import numpy as np
import pytest
import torch
from conftest import tiny_model

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model import kernels
from alilama.model.folder import load_model
from alilama.writing import sampling, streams
from alilama.writing.sampling import Sampler, Sampling, draw, next_token_probabilities
from alilama.writing.streams import generate_batch, stream_batch, stream_ids, stream_text, stream_texts


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


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


# ---- the distribution ----


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


# ---- ids ----


def test_greedy_ids_are_the_argmax_at_every_step(model):
    ids = [5, 80, 300]
    written = list(stream_ids(model, ids, max_new_tokens=20, temperature=0))
    assert len(written) == 20 and len(set(written)) > 3
    for token in written:
        assert token == model(torch.tensor([ids]))[0, -1].argmax()
        ids.append(token)


def test_tokens_are_drawn_as_often_as_they_are_likely(model):
    ids = [7, 9]
    expected = next_token_probabilities(model(torch.tensor([ids]))[0, -1].detach(), Sampling(0.8, top_k=5))
    drawn = torch.zeros(400)
    for seed in range(600):
        drawn[next(stream_ids(model, ids, max_new_tokens=1, temperature=0.8, top_k=5, seed=seed))] += 1
    assert (drawn / 600 - expected).abs().max() < 0.06
    assert expected.max() < 0.9


def test_a_seed_gives_the_same_ids_and_none_gives_others(model):
    def write(seed):
        return list(stream_ids(model, [3], max_new_tokens=30, temperature=2.0, seed=seed))

    assert write(1) == write(1) != write(2)
    torch.manual_seed(0)
    first = write(None)
    torch.manual_seed(0)
    assert write(None) != first
    state = torch.get_rng_state()
    write(1)
    write(None)
    assert torch.equal(torch.get_rng_state(), state)  # samples in training must not change what is trained


@pytest.mark.parametrize(
    "setting", [{"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.2}, {"min_p": 0.5}, {"repetition_penalty": 3.0}, {"context": 2}]
)
def test_every_setting_changes_the_ids(model, setting):
    usual = {"max_new_tokens": 40, "temperature": 1.0, "seed": 1}
    assert list(stream_ids(model, [3], **usual)) != list(stream_ids(model, [3], **usual | setting))


def test_a_high_repetition_penalty_writes_no_token_twice_and_none_of_the_prompt(model):
    ids = [7, 9, 11, 7]
    usual = {"max_new_tokens": 100, "temperature": 0}  # there are always more tokens than that with a logit above 0
    assert len(set(stream_ids(model, ids, **usual))) < 90
    written = list(stream_ids(model, ids, **usual, repetition_penalty=100))
    assert len(set(written)) == 100 and not set(written) & set(ids)


def test_a_batch_of_unequal_prompts_is_written_as_each_alone(model):
    prompts = [[5, 80, 300], [7], [*range(100, 140)], [5, 80]]
    settings = {"max_new_tokens": 50, "temperature": 0}
    assert generate_batch(model, prompts, **settings) == [list(stream_ids(model, prompt, **settings)) for prompt in prompts]


def test_equal_prompts_of_a_batch_are_continued_differently(model):
    rows = generate_batch(model, [[5]] * 4, max_new_tokens=20, temperature=1.5, seed=1)
    assert len({tuple(row) for row in rows}) == 4


def test_rows_of_a_batch_end_one_by_one(model):
    prompts = [[5, 80, 300], [7], [9, 10]]
    full = generate_batch(model, prompts, max_new_tokens=30, temperature=0)
    stop = next(id for id in full[0] if id not in full[1])
    steps = list(stream_batch(model, prompts, max_new_tokens=30, temperature=0, stop_id=stop))
    for row, whole in zip(zip(*steps, strict=True), full, strict=True):
        expected = whole[: whole.index(stop)] if stop in whole else whole
        assert list(row) == expected + [None] * (len(steps) - len(expected))
    assert len(generate_batch(model, prompts[:1], max_new_tokens=30, temperature=0, stop_id=stop)[0]) == full[0].index(stop)


def test_rows_that_stay_go_on_as_if_none_had_ended(model):
    prompts, settings = [[5, 80, 300], [7], [9, 10]], {"temperature": 1.0, "repetition_penalty": 1.5, "seed": 2}
    full = generate_batch(model, prompts, max_new_tokens=60, **settings)
    stop = full[0][5]
    assert stop not in full[1][:40] and stop not in full[2][:40]
    written = generate_batch(model, prompts, max_new_tokens=40, stop_id=stop, **settings)
    assert written == [full[0][: full[0].index(stop)], full[1][:40], full[2][:40]]


def test_a_batch_that_ends_at_once_is_empty(model):
    first = generate_batch(model, [[5]], max_new_tokens=1, temperature=0)[0][0]
    assert generate_batch(model, [[5]], temperature=0, stop_id=first) == [[]]


def test_a_text_in_a_context_is_that_of_a_model_that_sees_no_more(model):
    written = list(stream_ids(model, [5, 80, 300, 8, 9], max_new_tokens=30, temperature=0, context=1))
    assert written[1:] == [model(torch.tensor([[id]]))[0, -1].argmax() for id in written[:-1]]


def test_every_step_draws_with_random_numbers_of_its_own(monkeypatch):
    monkeypatch.setattr(sampling, "DRAWS", 4)
    sampler, drawn = Sampler(Sampling(1.0), [[1], [1]], tiny_model(400), 1, None), []
    for _ in range(12):
        sampler.advance()
        drawn += sampler.sample(torch.zeros(2, 400), torch.arange(2)).tolist()
    assert len(set(drawn)) > 20


def test_logits_in_half_precision_are_sampled_in_float32():
    sampler = Sampler(Sampling(1.0), [[1]] * 400, tiny_model(400), 1, None)
    sampler.uniforms.copy_(((torch.arange(400) + 0.5) / 400).expand(sampling.DRAWS, 400))
    assert sampler.sample(torch.zeros(400, 400, dtype=torch.bfloat16), torch.arange(400)).tolist() == list(range(400))


def test_seeds_below_zero_are_taken(model):
    first, again, other = (generate_batch(model, [[3]], max_new_tokens=20, temperature=2.0, seed=seed) for seed in (-1, -1, 1))
    assert first == again != other


def test_writing_keeps_no_gradients(monkeypatch):
    monkeypatch.setattr(kernels, "_kernels", None)
    model, enabled = tiny_model(400), []
    hidden = model.hidden
    model.hidden = lambda *inputs: (enabled.append(torch.is_grad_enabled()), hidden(*inputs))[1]
    generate_batch(model, [[3]], max_new_tokens=3, temperature=0)
    assert len(enabled) >= 3 and not any(enabled)


def test_ids_stop_at_the_stop_id_which_is_not_given_out(model):
    written = list(stream_ids(model, [5, 80, 300], max_new_tokens=20, temperature=0))
    stop = written[7]
    stopped = list(stream_ids(model, [5, 80, 300], max_new_tokens=20, temperature=0, stop_id=stop))
    assert stopped == written[: written.index(stop)]


def test_texts_go_on_beyond_the_trained_length(model):
    assert len(list(stream_ids(model, [3], max_new_tokens=5 * model.config.max_seq_len, seed=0))) == 80


@pytest.mark.parametrize(
    "setting",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 2**63},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"seed": 10**30},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"repetition_penalty": 1e-40},
        {"context": 0},
        {"context": -3},
    ],
)
def test_settings_out_of_range_are_refused_in_one_line_that_names_them(model, setting):
    with pytest.raises(UserError, match=f"{next(iter(setting))} = .*: expected") as refused:
        next(stream_ids(model, [3], **setting))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("prompts", [[[]], [[3], []], [[-1]], [[3, 400]]])
def test_prompts_without_ids_or_with_some_out_of_range_are_refused(model, prompts):
    with pytest.raises(UserError, match=r"a prompt of the ids .*: expected one or more ids from 0 to 399"):
        generate_batch(model, prompts)


def test_a_length_that_memory_does_not_hold_is_refused_unless_a_context_bounds_it(model):
    with pytest.raises(UserError, match=r"max_new_tokens = 1000000000000: .* GB are free; lower it, or set context = 16"):
        next(stream_ids(model, [3], max_new_tokens=10**12))
    assert next(stream_ids(model, [3], max_new_tokens=10**12, context=16, seed=1)) is not None
    with pytest.raises(UserError, match="set context = 16"):
        next(stream_batch(model, [[3]] * 1000, max_new_tokens=10**12, context=10**9))
    assert next(stream_ids(model, [3], max_new_tokens=5, context=10**12, seed=1)) is not None  # nothing is that long


@pytest.mark.parametrize("prompts", [[1, 2], "abc", ["abc"], [[1.0, 2.0]], [torch.tensor([0.5])]])
def test_prompts_that_are_no_lists_of_ids_are_refused(model, prompts):
    with pytest.raises(UserError, match="expected a list of lists of ids"):
        generate_batch(model, prompts)


def test_ids_and_seeds_of_numpy_and_torch_are_taken(model):
    expected = generate_batch(model, [[5, 80]], max_new_tokens=5, seed=3)
    assert generate_batch(model, np.array([[5, 80]]), max_new_tokens=5, seed=np.int64(3)) == expected
    assert generate_batch(model, torch.tensor([[5, 80]]), max_new_tokens=5, seed=3) == expected


def test_a_model_that_gives_no_finite_numbers_is_said_to_be_damaged():
    model = tiny_model(400)
    model.norm_f.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="the model's logits are not finite numbers"):
        generate_batch(model, [[3]], max_new_tokens=1)


def test_no_prompts_are_refused(model):
    with pytest.raises(UserError, match="there is no prompt"):
        generate_batch(model, [])


# ---- text ----


class Says:
    """Stands for the decoder of a model that continues each row by the given ids."""

    def __init__(self, rows: list[list[int]], vocab_size: int):
        self.rows, self.vocab_size, self.read, self.device = rows, vocab_size, [], torch.device("cpu")

    def read_prompts(self, prompts):
        self.read += prompts
        self.said = [0] * len(prompts)
        return self.logits(range(len(prompts)))

    def step(self, ids, rows):
        self.read += ids.tolist()
        return self.logits(rows.tolist())

    def logits(self, rows):
        logits = torch.zeros(len(rows), self.vocab_size)
        for each, row in zip(logits, rows, strict=True):
            each[self.rows[row][self.said[row]]] = 100
            self.said[row] += 1
        return logits


BYTES_ONLY = Tokenizer([])
EOT = BYTES_ONLY.eot_id


@pytest.fixture
def says(monkeypatch):
    """Makes a model whose texts go on as given."""

    def make(*contents: bytes) -> tuple:
        decoder = Says([[*content, EOT, EOT] for content in contents], BYTES_ONLY.vocab_size)
        monkeypatch.setattr(streams, "choose_decoder", lambda *args: decoder)
        return tiny_model(BYTES_ONLY.vocab_size), decoder

    return make


@pytest.fixture
def say(says):
    def pieces(content: bytes, prompt="", **sampling) -> list[str]:
        return list(stream_text(says(content)[0], BYTES_ONLY, prompt, **{"max_new_tokens": 1000} | sampling))

    return pieces


def test_a_character_is_given_out_when_its_last_byte_has_come(say):
    assert say("a🦙é日b".encode()) == ["a", "🦙", "é", "日", "b"]


def test_bytes_that_are_no_character_are_marked_and_the_text_goes_on(say):
    assert "".join(say(b"a\xffb\xf0\x9f")) == b"a\xffb\xf0\x9f".decode(errors="replace")
    assert "".join(say("🦙".encode()[:3], max_new_tokens=3)) == "\ufffd"


def test_texts_of_a_batch_stop_at_their_own_ends_of_text(says):
    model, decoder = says("The énd.".encode(), b"Ho\xc3", b"")
    steps = list(stream_texts(model, BYTES_ONLY, ["", "a", "b"], max_new_tokens=100))
    assert ["".join(pieces) for pieces in zip(*steps, strict=True)] == ["The énd.", "Ho\ufffd", ""]
    assert decoder.said == [10, 4, 1]  # what has ended is not read on


def test_what_a_text_breaks_off_with_is_given_out_when_it_ends(says):
    model, _ = says(b"abcdef", b"Ho\xc3")
    steps = list(stream_texts(model, BYTES_ONLY, ["", ""], max_new_tokens=100))
    assert [step[1] for step in steps] == ["H", "o", "", "\ufffd", "", "", ""]


def test_the_end_of_text_that_a_prompt_begins_with_does_not_keep_the_text_from_ending(say):
    assert say(b"abc", repetition_penalty=100) == ["a", "b", "c"]


def test_the_model_reads_end_of_text_and_the_prompt_and_then_what_it_wrote(says):
    model, decoder = says(b"yes")
    assert "".join(stream_text(model, BYTES_ONLY, "é?")) == "yes"
    assert decoder.read == [[EOT, *"é?".encode()], *b"yes"]


def test_a_text_is_given_out_while_it_is_made(says):
    model, decoder = says(b"abc")
    assert next(stream_text(model, BYTES_ONLY)) == "a"
    assert decoder.said == [1]


def test_a_text_in_place_of_a_list_of_texts_is_refused(model, tokenizer):
    with pytest.raises(UserError, match="expected a list of texts"):
        next(stream_texts(model, tokenizer, "Once"))


def test_a_special_token_in_the_prompt_is_refused(model, tokenizer):
    with pytest.raises(UserError, match=r"special token '<\|endoftext\|>'"):
        next(stream_text(model, tokenizer, "Forget this.<|endoftext|>Now"))


# ---- the command ----


def test_the_command_writes_the_prompt_and_then_the_text(run, model_folder, model, tokenizer):
    arguments = [
        "-m",
        "alilama.generate",
        model_folder,
        "--prompt",
        "Once upon a time, Zoë",
        "--seed=3",
        "--max_new_tokens=30",
        "--temperature=0.9",
        "--top_k=50",
        "--top_p=0.95",
        "--min_p=0.01",
        "--repetition_penalty=1.1",
        "--context=9",
    ]
    result = run(*arguments)
    text = "".join(
        stream_text(
            model,
            tokenizer,
            "Once upon a time, Zoë",
            seed=3,
            max_new_tokens=30,
            temperature=0.9,
            top_k=50,
            top_p=0.95,
            min_p=0.01,
            repetition_penalty=1.1,
            context=9,
        )
    )
    assert text
    assert (result.returncode, result.stdout, result.stderr) == (0, f"Once upon a time, Zoë{text}\n", "")


def test_the_command_writes_a_text_for_every_prompt(run, model_folder, model, tokenizer):
    prompts = ["Once", "Tom and Mia went"]
    arguments = [f"--prompt={prompt}" for prompt in prompts]
    result = run("-m", "alilama.generate", *arguments, model_folder, "--seed=3", "--max_new_tokens=9")
    texts = [
        "".join(pieces)
        for pieces in zip(prompts, *stream_texts(model, tokenizer, prompts, seed=3, max_new_tokens=9), strict=True)
    ]
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n\n".join(texts) + "\n", "")


def test_the_command_writes_to_a_terminal_that_lacks_a_character(run, model_folder):
    """A Windows console or pipe often knows 256 characters only; model text holds any."""
    result = run("-m", "alilama.generate", model_folder, "--prompt", "Zoë 🦙", "--max_new_tokens=3", PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert result.stdout.startswith("Zo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature=-1"], "temperature = -1"),
        (["--top_k=0"], "top_k = 0"),
        (["--top_p=2"], "top_p = 2"),
        (["--max_new_tokens=0"], "max_new_tokens = 0"),
        (["--prompt", "<|endoftext|>"], "special token"),
        (["--seed", str(10**30)], "seed"),
        (["--min_p=2"], "min_p = 2"),
        (["--repetition_penalty=0"], "repetition_penalty = 0"),
        (["--context=0"], "context = 0"),
        (["--max_new_tokens=10000000000000"], "set context = 16"),
    ],
)
def test_the_command_says_mistakes_in_one_line(arguments, message, refusal, model_folder, capsys):
    assert message in refusal("alilama.generate", model_folder, *arguments)
    assert capsys.readouterr().out == ""


def test_the_command_says_that_there_is_no_model(refusal, tmp_path):
    assert "is not a model folder" in refusal("alilama.generate", tmp_path / "missing")


def test_a_prompt_longer_than_memory_allows_is_one_line(model_folder, run, tmp_path):
    (tmp_path / "long.py").write_text(
        "import resource, runpy, sys\n"
        "import alilama.model.folder\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (500 << 20),) * 2)\n"
        "sys.argv = ['generate', sys.argv[1], '--prompt', 'word ' * 3_000_000]\n"
        "runpy.run_module('alilama.generate', run_name='__main__')\n"
    )
    result = run("long.py", model_folder)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1, result.stderr[-500:]

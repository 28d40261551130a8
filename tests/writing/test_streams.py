"""Text that a model writes: ids, batches, whole characters."""

import math

import numpy as np
import pytest
import torch
from helpers import tiny_model

from alilama.common.errors import UserError
from alilama.data.frames import FRAME_TOKENS
from alilama.data.tokenizer import Tokenizer
from alilama.model import kernels
from alilama.model.folder import load_model
from alilama.writing import streams
from alilama.writing.sampling import Sampling, next_token_probabilities
from alilama.writing.streams import generate_batch, stream_batch, stream_text, stream_texts


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


def test_greedy_ids_are_the_argmax_at_every_step(model):
    ids = [5, 80, 300]
    written = generate_batch(model, [ids], max_new_tokens=20, temperature=0)[0]
    assert len(written) == 20 and len(set(written)) > 3
    for token in written:
        assert token == model(torch.tensor([ids]))[0, -1].argmax()
        ids.append(token)


def test_tokens_are_drawn_as_often_as_they_are_likely(model):
    ids = [7, 9]
    expected = next_token_probabilities(model(torch.tensor([ids]))[0, -1].detach(), Sampling(0.8, top_k=5))
    drawn = torch.zeros(400)
    for seed in range(600):
        [[drawn_id]] = generate_batch(model, [ids], max_new_tokens=1, temperature=0.8, top_k=5, seed=seed)
        drawn[drawn_id] += 1
    assert (drawn / 600 - expected).abs().max() < 0.06
    assert expected.max() < 0.9


def test_a_seed_gives_the_same_ids_and_none_gives_others(model):
    def write(seed):
        return generate_batch(model, [[3]], max_new_tokens=30, temperature=2.0, seed=seed)[0]

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
    assert generate_batch(model, [[3]], **usual)[0] != generate_batch(model, [[3]], **usual | setting)[0]


def test_a_high_repetition_penalty_writes_no_token_twice_and_none_of_the_prompt(model):
    ids = [7, 9, 11, 7]
    usual = {"max_new_tokens": 100, "temperature": 0}  # there are always more tokens than that with a logit above 0
    assert len(set(generate_batch(model, [ids], **usual)[0])) < 90
    written = generate_batch(model, [ids], **usual, repetition_penalty=100)[0]
    assert len(set(written)) == 100 and not set(written) & set(ids)


def test_a_batch_of_unequal_prompts_is_written_as_each_alone(model):
    prompts = [[5, 80, 300], [7], [*range(100, 140)], [5, 80]]
    settings = {"max_new_tokens": 50, "temperature": 0}
    assert generate_batch(model, prompts, **settings) == [generate_batch(model, [prompt], **settings)[0] for prompt in prompts]


def test_equal_prompts_of_a_batch_are_continued_differently(model):
    rows = generate_batch(model, [[5]] * 4, max_new_tokens=20, temperature=1.5, seed=1)
    assert len({tuple(row) for row in rows}) == 4


def test_rows_of_a_batch_end_one_by_one(model):
    prompts = [[5, 80, 300], [7], [9, 10]]
    full = generate_batch(model, prompts, max_new_tokens=30, temperature=0)
    stop = next(id for id in full[0] if id not in full[1])
    cut = []
    steps = list(stream_batch(model, prompts, max_new_tokens=30, temperature=0, stop_ids=[stop], on_cut=cut.extend))
    assert 1 in cut and cut == [row for row, whole in enumerate(full) if stop not in whole]
    for row, whole in zip(zip(*steps, strict=True), full, strict=True):
        expected = whole[: whole.index(stop)] if stop in whole else whole
        assert list(row) == expected + [None] * (len(steps) - len(expected))
    assert len(generate_batch(model, prompts[:1], max_new_tokens=30, temperature=0, stop_ids=[stop])[0]) == full[0].index(stop)


def test_rows_that_stay_go_on_as_if_none_had_ended(model):
    prompts, settings = [[5, 80, 300], [7], [9, 10]], {"temperature": 1.0, "repetition_penalty": 1.5, "seed": 2}
    full = generate_batch(model, prompts, max_new_tokens=60, **settings)
    stop = full[0][5]
    assert stop not in full[1][:40] and stop not in full[2][:40]
    written = generate_batch(model, prompts, max_new_tokens=40, stop_ids=[stop], **settings)
    assert written == [full[0][: full[0].index(stop)], full[1][:40], full[2][:40]]


def test_a_batch_that_ends_at_once_is_empty(model):
    first, cut = generate_batch(model, [[5]], max_new_tokens=1, temperature=0)[0][0], []
    assert generate_batch(model, [[5]], temperature=0, stop_ids=[first], on_cut=cut.append) == [[]]
    assert not cut


def test_a_text_in_a_context_is_that_of_a_model_that_sees_no_more(model):
    written = generate_batch(model, [[5, 80, 300, 8, 9]], max_new_tokens=30, temperature=0, context=1)[0]
    assert written[1:] == [model(torch.tensor([[id]]))[0, -1].argmax() for id in written[:-1]]


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
    written = generate_batch(model, [[5, 80, 300]], max_new_tokens=20, temperature=0)[0]
    stop = written[7]
    stopped = generate_batch(model, [[5, 80, 300]], max_new_tokens=20, temperature=0, stop_ids=[stop])[0]
    assert stopped == written[: written.index(stop)]


def test_texts_go_on_beyond_the_trained_length(model):
    assert len(generate_batch(model, [[3]], max_new_tokens=5 * model.config.max_seq_len, seed=0)[0]) == 80


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
        {"seed": 2**63},
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
        next(stream_batch(model, [[3]], **setting))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("prompts", [[[]], [[3], []], [[-1]], [[3, 400]]])
def test_prompts_without_ids_or_with_some_out_of_range_are_refused(model, prompts):
    with pytest.raises(UserError, match=r"a prompt of the ids .*: expected one or more ids from 0 to 399"):
        generate_batch(model, prompts)


def test_a_length_that_memory_does_not_hold_is_refused_unless_a_context_bounds_it(model):
    with pytest.raises(UserError, match=r"max_new_tokens = 1000000000000: .* GB are free; lower it, or set context = 16"):
        next(stream_batch(model, [[3]], max_new_tokens=10**12))
    assert next(stream_batch(model, [[3]], max_new_tokens=10**12, context=16, seed=1)) is not None
    with pytest.raises(UserError, match="set context = 16"):
        next(stream_batch(model, [[3]] * 1000, max_new_tokens=10**12, context=10**9))
    assert next(stream_batch(model, [[3]], max_new_tokens=5, context=10**12, seed=1)) is not None  # nothing is that long


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
    with pytest.raises(UserError, match="prompts is empty"):
        generate_batch(model, [])


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


# ---- prompts and answers ----


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_text_ends_before_the_first_of_several_ids(model, temperature):
    prompts, settings = [[5, 80, 300], [7], [9, 10]], {"temperature": temperature, "seed": 1, "max_new_tokens": 30}
    full = generate_batch(model, prompts, **settings)
    stops = [full[0][7], full[1][3], 399]
    stopped = generate_batch(model, prompts, **settings, stop_ids=stops)
    ends = [next((place for place, id in enumerate(row) if id in stops), 30) for row in full]
    assert stopped == [row[:end] for row, end in zip(full, ends, strict=True)] and len({*ends}) > 1


def test_rows_that_ended_are_not_computed_any_further(model, monkeypatch):
    full = generate_batch(model, [[5, 80, 300], [7]], max_new_tokens=30, temperature=0)
    stops, computed, choose = [399, full[0][7], full[1][-1]], [], streams.choose_decoder

    def watched(*arguments):
        decoder = choose(*arguments)
        step = decoder.step
        decoder.step = lambda ids, rows: (computed.append(rows.tolist()), step(ids, rows))[1]
        return decoder

    monkeypatch.setattr(streams, "choose_decoder", watched)
    steps = list(stream_batch(model, [[5, 80, 300], [7]], max_new_tokens=30, temperature=0, stop_ids=stops))
    assert [[row for row, id in enumerate(step) if id is not None] for step in steps][: len(computed)] == computed
    assert len({*map(tuple, computed)}) > 1


@pytest.fixture(scope="module")
def framed(tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer.merges[:100], special_tokens=("<|endoftext|>", *FRAME_TOKENS))


@pytest.mark.parametrize("end", ["<|end|>", "<|endoftext|>"])
def test_an_answer_is_what_follows_the_prompt_in_its_frame_up_to_its_end(end, framed, monkeypatch):
    asked, conversation = [], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?<|end|>"}]
    scripted = framed.encode_ordinary("Zoë did. ")

    def next_ids(decoder, sampler, prompts, stop_ids):
        asked.extend(prompts)
        assert {*stop_ids} == {framed.special_tokens["<|endoftext|>"], framed.special_tokens["<|end|>"]}
        yield from ([id] * len(prompts) for id in [*scripted, framed.special_tokens[end], 65])

    monkeypatch.setattr(streams, "next_ids", next_ids)
    prompts = ["Who?", conversation, ""]
    steps = list(stream_texts(tiny_model(framed.vocab_size), framed, prompts))
    assert ["".join(row) for row in zip(*steps, strict=True)] == ["Zoë did. "] * 3
    eot, user, assistant, stop = (framed.special_tokens[f"<|{name}|>"] for name in ("endoftext", "user", "assistant", "end"))
    encode, system = framed.encode_ordinary, framed.special_tokens["<|system|>"]
    assert asked == [
        [eot, user, *encode("Who?"), stop, assistant],
        [eot, system, *encode("Be brief."), stop, user, *encode("Why?<|end|>"), stop, assistant],
        [eot, user, stop, assistant],
    ]


def test_what_is_shown_before_an_answer_is_the_prompt_and_a_gap(framed, tokenizer):
    assert streams.shown_before(framed, "Who?") == "Who?\n\n" and streams.shown_before(tokenizer, "Once") == "Once"


def test_a_setting_that_is_none_is_one_line_with_those_that_are(model):
    with pytest.raises(UserError, match=r"stop_id is not a setting of writing; these are temperature, top_k"):
        generate_batch(model, [[5]], stop_id=3)

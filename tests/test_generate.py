import math

import pytest
import torch
from torch import nn

from alilama.checkpoint import load_model
from alilama.errors import UserError
from alilama.generate import next_token_probabilities, stream_ids, stream_text
from alilama.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


def distribution(logits, temperature=1.0, top_k=None, top_p=1.0) -> list[float]:
    return next_token_probabilities(torch.tensor(logits), temperature, top_k, top_p).tolist()


def oracle(logits: list[float], temperature: float, top_k: int | None, top_p: float) -> list[float]:
    """Holtzman et al. 2020 by a loop over the tokens, the most likely first."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    kept, total = [], 0.0
    for index in sorted(range(len(logits)), key=lambda index: -logits[index]):
        if total >= top_p or len(kept) == (top_k or len(logits)):
            break
        kept.append(index)
        total += probabilities[index]
    return [probabilities[index] / total if index in kept else 0.0 for index in range(len(logits))]


# ---- the distribution ----


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-9])
def test_the_distribution_is_that_of_a_simple_loop(temperature, top_k, top_p):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        logits = torch.randn(20, generator=generator).mul(3).tolist()
        found = distribution(logits, temperature, top_k, top_p)
        assert found == pytest.approx(oracle(logits, temperature, top_k, top_p), abs=1e-9)
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
    expected = next_token_probabilities(model(torch.tensor([ids]))[0, -1].detach(), 0.8, 5, 1.0)
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


@pytest.mark.parametrize("setting", [{"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.2}])
def test_every_setting_reaches_the_sampler(model, setting):
    usual = {"max_new_tokens": 40, "temperature": 1.0, "seed": 1}
    assert list(stream_ids(model, [3], **usual)) != list(stream_ids(model, [3], **usual | setting))


def test_ids_stop_at_the_stop_id_which_is_not_given_out(model):
    written = list(stream_ids(model, [5, 80, 300], max_new_tokens=20, temperature=0))
    stop = written[7]
    stopped = list(stream_ids(model, [5, 80, 300], max_new_tokens=20, temperature=0, stop_id=stop))
    assert stopped == written[:written.index(stop)]


def test_texts_go_on_beyond_the_trained_length(model):
    assert len(list(stream_ids(model, [3], max_new_tokens=5 * model.config.max_seq_len, seed=0))) == 80


@pytest.mark.parametrize("setting", [
    {"max_new_tokens": 0}, {"max_new_tokens": -5}, {"temperature": -1.0}, {"temperature": math.nan}, {"temperature": math.inf},
    {"top_k": 0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": math.nan}, {"seed": 10**30}])
def test_settings_out_of_range_are_refused_in_one_line_that_names_them(model, setting):
    with pytest.raises(UserError, match=f"{next(iter(setting))} = .*: expected") as refused:
        next(stream_ids(model, [3], **setting))
    assert len(str(refused.value).splitlines()) == 1


# ---- text ----


class Says(nn.Module):
    """Stands for a model that continues any text by the given ids."""

    def __init__(self, ids: list[int], vocab_size: int):
        super().__init__()
        self.wte, self.ids, self.start, self.read = nn.Embedding(vocab_size, 1), ids, None, []

    def forward(self, context):
        self.start = self.start or context.shape[1]
        self.read.append(context[0].tolist())
        logits = torch.zeros(1, context.shape[1], self.wte.num_embeddings)
        logits[0, -1, self.ids[context.shape[1] - self.start]] = 100
        return logits


BYTES_ONLY = Tokenizer([])
EOT = BYTES_ONLY.eot_id


def say(content: bytes, prompt="", **sampling) -> list[str]:
    model = Says([*content, EOT, EOT], BYTES_ONLY.vocab_size)
    return list(stream_text(model, BYTES_ONLY, prompt, **{"max_new_tokens": 1000} | sampling))


def test_a_character_is_given_out_when_its_last_byte_has_come():
    assert say("a🦙é日b".encode()) == ["a", "🦙", "é", "日", "b"]


def test_bytes_that_are_no_character_are_marked_and_the_text_goes_on():
    assert "".join(say(b"a\xffb\xf0\x9f")) == b"a\xffb\xf0\x9f".decode(errors="replace")
    assert "".join(say("🦙".encode()[:3], max_new_tokens=3)) == "\ufffd"


def test_the_text_stops_at_end_of_text():
    model = Says([*b"The end.", EOT, *b"Another"], BYTES_ONLY.vocab_size)
    assert "".join(stream_text(model, BYTES_ONLY, max_new_tokens=100)) == "The end."


def test_the_model_reads_end_of_text_and_the_prompt_and_then_what_it_wrote():
    model = Says([*b"yes", EOT], BYTES_ONLY.vocab_size)
    assert "".join(stream_text(model, BYTES_ONLY, "é?")) == "yes"
    assert model.read[0] == [EOT, *"é?".encode()]
    assert model.read[3] == [EOT, *"é?yes".encode()]


def test_a_text_is_given_out_while_it_is_made():
    model = Says([*b"abc", EOT], BYTES_ONLY.vocab_size)
    assert next(stream_text(model, BYTES_ONLY)) == "a"
    assert len(model.read) == 1


def test_a_special_token_in_the_prompt_is_refused(model, tokenizer):
    with pytest.raises(UserError, match=r"special token '<\|endoftext\|>'"):
        next(stream_text(model, tokenizer, "Forget this.<|endoftext|>Now"))


# ---- the command ----


def test_the_command_writes_the_prompt_and_then_the_text(run, model_folder, model, tokenizer):
    arguments = ["-m", "alilama.generate", model_folder, "--prompt", "Once upon a time, Zoë", "--seed=3", "--max_new_tokens=30",
                 "--temperature=0.9", "--top_k=50", "--top_p=0.95"]
    result = run(*arguments)
    text = "".join(stream_text(model, tokenizer, "Once upon a time, Zoë", seed=3, max_new_tokens=30, temperature=0.9, top_k=50,
                               top_p=0.95))
    assert text
    assert (result.returncode, result.stdout, result.stderr) == (0, f"Once upon a time, Zoë{text}\n", "")


def test_the_command_writes_to_a_terminal_that_lacks_a_character(run, model_folder):
    """A Windows console or pipe often knows 256 characters only; model text holds any."""
    result = run("-m", "alilama.generate", model_folder, "--prompt", "Zoë 🦙", "--max_new_tokens=3", PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert result.stdout.startswith("Zo")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--temperature=-1"], "temperature = -1"), (["--top_k=0"], "top_k = 0"), (["--top_p=2"], "top_p = 2"),
    (["--max_new_tokens=0"], "max_new_tokens = 0"), (["--prompt", "<|endoftext|>"], "special token"),
    (["--seed", str(10**30)], "seed")])
def test_the_command_says_mistakes_in_one_line(arguments, message, refusal, model_folder, capsys):
    assert message in refusal("alilama.generate", model_folder, *arguments)
    assert capsys.readouterr().out == ""


def test_the_command_says_that_there_is_no_model(refusal, tmp_path):
    assert "no model folder" in refusal("alilama.generate", tmp_path / "missing")


def test_a_prompt_longer_than_memory_allows_is_one_line(model_folder, run, tmp_path):
    (tmp_path / "long.py").write_text(
        "import resource, runpy, sys\n"
        "import alilama.checkpoint\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (500 << 20),) * 2)\n"
        "sys.argv = ['generate', sys.argv[1], '--prompt', 'word ' * 3_000_000]\n"
        "runpy.run_module('alilama.generate', run_name='__main__')\n")
    result = run("long.py", model_folder)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1, result.stderr[-500:]

import math
import shutil

import matplotlib.image
import numpy as np
import pytest
import torch
from helpers import tiny_model

from alilama.data.text import find_sources, read_blocks
from alilama.model.folder import load_model
from alilama.training import scoring
from alilama.training.scoring import Score, count_bytes, encode_files, evaluate, windows
from alilama.views.yardsticks import gzip_bits_per_byte, ngram_bits_per_byte, xz_bits_per_byte


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
    blocks = list(read_blocks(find_sources([str(text_file)], "--data"), "gpt4"))
    assert len(blocks) == 1 and len(tokenizer.encode_block(blocks[0])[0]) > 10_000
    all_ids = encode_files(tokenizer, [str(text_file)] * 2)
    assert encode_files(tokenizer, [str(text_file)], max_tokens).tolist() == all_ids[:max_tokens].tolist()


def test_files_after_the_first_tokens_are_not_encoded(tokenizer, text_file, tmp_path):
    shutil.copy(text_file, tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("Later.")
    encoded = []

    class Telling:
        native_pattern = "gpt4"

        def encode_block(self, block):
            encoded.append(block)
            return tokenizer.encode_block(block)

    encode_files(Telling(), [str(tmp_path)], 100)
    assert len(encoded) == 1
    encode_files(Telling(), [str(tmp_path)])
    assert len(encoded) == 3


# ---- the command ----


TEXT = "Once upon a time, Zoë found a lamp.\n<|endoftext|>\nThen she went home, and Tom found a kite in the garden."


@pytest.fixture
def printed(run_here, model_folder, tmp_path, capsys):
    """Runs the command on TEXT and returns the lines that it prints."""

    def run_command(*arguments: str, folder=model_folder) -> list[str]:
        (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
        elsewhere = ["--plot", "picture.png"] if folder == model_folder else []  # that folder is all tests'
        run_here("alilama.evaluate", folder, "--data", "valid.txt", *elsewhere, *arguments)
        return capsys.readouterr().out.splitlines()

    return run_command


def read_rows(lines: list[str]) -> dict[int, list[float]]:
    """The numbers of each context."""
    cells = [line.split() for line in lines[3:-2]]
    return {int(context): [float(number) for number in numbers[:6]] for context, *numbers in cells}


@pytest.fixture
def ids(tokenizer, tmp_path):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    return encode_files(tokenizer, [str(tmp_path / "valid.txt")])


def numbers_of(*scores: Score) -> list[float]:
    return [number for score in scores for number in (score.loss, score.perplexity, score.bits_per_byte)]


def test_the_command_prints_both_ways_and_slides_by_an_eighth(printed, model, tokenizer, ids):
    lines = printed("--context", "24,7")
    assert f"{len(ids) - 1:,} tokens" in lines[0] and "first" not in lines[0]
    assert f" {len(TEXT.encode()) - len('<|endoftext|>') - 2} bytes" in lines[0]  # the separator and its line ends are no text
    rows = read_rows(lines)
    assert list(rows) == [7, 24]
    for context, stride in ((7, 1), (24, 3)):
        scores = evaluate(model, tokenizer, ids, context), evaluate(model, tokenizer, ids, context, stride=stride)
        assert rows[context] == pytest.approx(numbers_of(*scores), abs=0.01)
        assert abs(rows[context][0] - rows[context][3]) > 0.05  # or one could be taken for the other


def test_the_stride_is_taken(printed, model, tokenizer, ids):
    lines = printed("--context", "24", "--stride", "20")
    assert "sliding by 20" in lines[1] and "sliding by an eighth" in printed("--context", "24")[1]
    scores = [evaluate(model, tokenizer, ids, 24, stride=stride) for stride in (None, 20, 3)]
    assert read_rows(lines)[24] == pytest.approx(numbers_of(*scores[:2]), abs=0.01)
    assert abs(scores[1].loss - scores[2].loss) > 0.02


def test_only_the_first_tokens_are_scored_and_the_header_says_so(printed, model, tokenizer, ids):
    lines = printed("--context", "8", "--tokens", "21")
    assert "the first 21 tokens: 20 tokens" in lines[0]
    scores = evaluate(model, tokenizer, ids[:21], 8), evaluate(model, tokenizer, ids[:21], 8, stride=1)
    assert read_rows(lines)[8] == pytest.approx(numbers_of(*scores), abs=0.01)
    text = tokenizer.decode_bytes(ids[1:21]).replace(b"<|endoftext|>", b"")
    assert f"gzip -9 {gzip_bits_per_byte(text):.3f}" in lines[-2]
    assert "first" not in printed("--tokens", "5000")[0]  # there are not so many


def test_the_context_is_the_trained_length_unless_told_otherwise(printed):
    assert list(read_rows(printed())) == [16]
    assert printed() == printed("--context", "16") != printed("--context", "8")


def test_the_trained_length_and_that_of_the_whole_text_are_marked(printed, ids):
    lines = printed("--context", f"8,16,{len(ids) - 2},{len(ids) - 1}")[3:7]
    assert ["trained at this length" in line for line in lines] == [False, True, False, False]
    assert ["the whole text" in line for line in lines] == [False, False, False, True]


def test_yardsticks_measure_the_same_text(printed, tokenizer, ids):
    lines = printed("--context", "8,16")
    rows = read_rows(lines)
    best = min(rows, key=lambda context: rows[context][5])
    text = TEXT.replace("\n<|endoftext|>\n", "").encode()
    ngram = ngram_bits_per_byte(ids, tokenizer.vocab_size, len(text))
    for part in (
        f"gzip -9 {gzip_bits_per_byte(text):.3f}",
        f"xz -9e {xz_bits_per_byte(text):.3f}",
        f"a 4-gram model of the tokens {ngram:.3f} ",
        f"this model {rows[best][5]:.3f} (sliding, context {best})",
    ):
        assert part in lines[-2]


def test_the_picture_is_where_the_command_says(printed, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "copy")
    assert printed(folder=folder)[-1] == f"picture: {folder / 'evaluation.png'}"
    assert printed("--plot", "other.png")[-1] == "picture: other.png"
    for picture in (folder / "evaluation.png", tmp_path / "other.png"):
        assert matplotlib.image.imread(picture).shape[:2] == (540, 960)
    assert not (model_folder / "evaluation.png").exists()


def test_the_module_runs_as_a_command(run, model_folder, tmp_path):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    result = run("-m", "alilama.evaluate", model_folder, "--data", "valid.txt", "--context", "8,64", "--plot", "p.png")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 7


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("text", ["--context=0"], "--context 0"),
        ("text", ["--context=long"], "--context long"),
        ("text", ["--context=8,,8"], "--context"),
        ("text", ["--context="], "--context"),
        ("text", ["--context=8,-8"], "--context"),
        ("text", [f"--context={10**30}"], "--context"),
        ("text", ["--stride=0"], "--stride 0: expected at least 1"),
        ("text", ["--stride=17"], "at most the shortest context, 16"),
        ("text", ["--context=64,8", "--stride=9"], "--stride 9: expected at least 1 and at most the shortest context, 8"),
        ("text", ["--stride=far"], "--stride"),
        ("text", ["--tokens=1"], "--tokens 1: expected at least 2"),
        ("text", ["--tokens=-5"], "--tokens -5"),
        ("text", ["--tokens=few"], "--tokens"),
        ("", [], "is empty"),
        ("<|endoftext|>\n", [], "valid.txt"),
    ],
)
def test_the_command_says_mistakes_in_one_line(content, arguments, message, refusal, model_folder, tmp_path):
    (tmp_path / "valid.txt").write_text(content)
    assert message in refusal("alilama.evaluate", model_folder, "--data", tmp_path / "valid.txt", *arguments)


def test_the_command_says_that_a_file_is_missing(refusal, model_folder):
    assert "--data: 'nowhere.txt' leads to no file" in refusal("alilama.evaluate", model_folder, "--data", "nowhere.txt")


@pytest.mark.parametrize("place", ["nowhere/picture.png", "valid.txt/picture.png", "."])
def test_a_place_where_no_picture_can_be_is_refused_before_anything_is_read(place, refusal, model_folder, tmp_path, capsys):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    message = refusal("alilama.evaluate", model_folder, "--data", "valid.txt", "--plot", place)
    assert f"--plot {place}: expected the name of a file in a folder" in message and capsys.readouterr().out == ""


def test_the_command_says_that_the_picture_cannot_be_written(refusal, model_folder, tmp_path, capsys, monkeypatch):
    def disk_is_full(figure, path):
        raise OSError("No space left on device")

    monkeypatch.setattr("alilama.views.pictures.save_figure", disk_is_full)
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    message = refusal("alilama.evaluate", model_folder, "--data", "valid.txt", "--plot", "picture.png", progress=True)
    assert "No space left on device" in message and "another place with --plot" in message
    assert "yardsticks" in capsys.readouterr().out  # what was found is not lost

"""python -m alilama.evaluate"""

import re
import shutil

import matplotlib.image
import pytest
from helpers import ROOT, files_of
from matplotlib.figure import Figure

from alilama.model.folder import load_model
from alilama.training.scoring import Score, encode_files, evaluate
from alilama.views.yardsticks import gzip_bits_per_byte, ngram_bits_per_byte, xz_bits_per_byte


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)[0]


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
    assert read_rows(lines)[24] == pytest.approx(numbers_of(*scores[:2]), rel=1e-5, abs=1e-4)
    assert abs(scores[1].loss - scores[2].loss) > 0.001


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
    ):
        assert part in lines[-2]
    found = re.search(rf"this model ([\d.]+) \(sliding, context {best}\)", lines[-2])
    assert float(found[1]) == pytest.approx(rows[best][5], abs=0.001)  # the row has another digit


def test_the_picture_is_where_the_command_says(printed, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "copy")
    assert printed(folder=folder)[-1] == f"picture: {folder / 'evaluation.png'}"
    assert printed("--plot", "other.png")[-1] == "picture: other.png"
    for picture in (folder / "evaluation.png", tmp_path / "other.png"):
        assert matplotlib.image.imread(picture).shape[:2] == (540, 960)
    assert not (model_folder / "evaluation.png").exists()


@pytest.mark.parametrize("named", ["alilama_7M", "alilama_7M_orders", "alilama_2M", None])
def test_the_picture_of_a_model_of_the_repository_goes_into_the_current_folder(named, run_here, tmp_path, capsys):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    folder = ROOT / "models" / (named or "alilama_7M")
    committed = files_of(folder)
    model = [folder] if named else []
    run_here("alilama.evaluate", *model, "--data", "valid.txt")
    assert capsys.readouterr().out.splitlines()[-1] == "picture: evaluation.png"
    assert (tmp_path / "evaluation.png").exists() and files_of(folder) == committed


def test_the_picture_has_both_ways_and_lines_of_others(printed, tmp_path, monkeypatch, model, tokenizer, ids):
    drawn = []
    monkeypatch.setattr("alilama.views.pictures.plot_contexts", lambda *arguments: drawn.append(arguments) or Figure())
    (tmp_path / "others.csv").write_text("name,context,bits_per_byte\nlearned,8,1.5\nlearned,64,4.25\n")
    printed("--context", "8,24", "--beside", "others.csv")
    [(title, lines, trained)] = drawn
    assert "tiny" in title and trained == 16
    scores = {
        context: (evaluate(model, tokenizer, ids, context), evaluate(model, tokenizer, ids, context, stride=context // 8))
        for context in (8, 24)
    }
    for name, way in ("non-overlapping windows", 0), ("sliding windows", 1):
        assert lines[name] == pytest.approx({context: both[way].bits_per_byte for context, both in scores.items()}, rel=1e-5)
    assert lines["learned"] == {8: 1.5, 64: 4.25} and len(lines) == 3


def test_lines_of_others_that_are_none_are_refused_before_anything_is_read(refusal, model_folder, tmp_path, capsys):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    message = refusal("alilama.evaluate", model_folder, "--data", "valid.txt", "--plot", "p.png", "--beside", "valid.txt")
    assert "valid.txt: expected a CSV file with the columns name, context" in message and capsys.readouterr().out == ""


def test_a_line_of_another_that_is_called_as_one_of_its_own_is_refused(refusal, model_folder, tmp_path):
    (tmp_path / "valid.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "others.csv").write_text("name,context,bits_per_byte\nsliding windows,8,1.5\n")
    message = refusal("alilama.evaluate", model_folder, "--data", "valid.txt", "--plot", "p.png", "--beside", "others.csv")
    assert "--beside others.csv: 'sliding windows' is a line of" in message and "give it another name" in message


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

import matplotlib.image
import pytest
from helpers import tiny_model
from matplotlib.figure import Figure

from alilama import Tokenizer, load_model
from alilama.common.errors import UserError
from alilama.views.heads import plot_attention
from alilama.views.inside import next_tokens
from alilama.views.pictures import (
    drawable,
    plot_contexts,
    plot_log,
    plot_next_tokens,
    read_contexts,
    read_log,
    save_figure,
    token_label,
)
from alilama.views.story import plot_story

LOG = """step,tokens,epoch,train_loss,val_loss,val_bits_per_byte,learning_rate,tokens_per_s
10,1000000,0.1,3.5,,,0.001,5000
20,2000000,0.2,3.0,2.0,1.0,0.001,5000
30,3000000,0.3,2.5,,,0.0005,5000
40,4000000,0.4,2.25,2.5,1.25,1e-05,5000
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "owl" / "log.csv"
    path.parent.mkdir()
    path.write_text(LOG)
    return path


def test_a_log_is_read_as_numbers_and_empty_cells_are_left_out(log):
    rows = read_log(log)
    assert rows[0] == {"step": 10, "tokens": 1e6, "epoch": 0.1, "train_loss": 3.5, "learning_rate": 0.001, "tokens_per_s": 5000}
    assert rows[3]["val_loss"] == 2.5 and rows[3]["learning_rate"] == 1e-5
    assert len(rows) == 4


def test_the_curves_are_the_numbers_of_the_log(log):
    figure = plot_log(log)
    figure.draw_without_rendering()
    [axes] = figure.axes
    training, validation = axes.get_lines()
    assert training.get_xydata().tolist() == [[1, 3.5], [2, 3.0], [3, 2.5], [4, 2.25]]
    assert validation.get_xydata().tolist() == [[2, 2.0], [4, 2.5]]
    title = axes.get_title()  # the best evaluation, not the last
    assert title.startswith("owl") and "1.000 bits per byte" in title and "2.0M tokens" in title
    [right] = axes.child_axes
    nats, bits = axes.get_ylim(), right.get_ylim()
    assert bits == pytest.approx([value / 2 for value in nats])  # 2.0 nats per token are 1.0 bits per byte in this log


def test_a_log_without_validation_is_drawn_too(log):
    log.write_text("\n".join(LOG.splitlines()[:2]) + "\n")
    training, _ = plot_log(log).axes[0].get_lines()
    assert training.get_xydata().tolist() == [[1, 3.5]]


def test_a_model_without_a_log_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"log\.csv is not there: train\.py writes it"):
        plot_log(tmp_path / "log.csv")


def test_a_log_is_found_by_its_name_as_text_too(log):
    assert plot_log(str(log)).axes[0].get_title() == plot_log(log).axes[0].get_title()


@pytest.mark.parametrize(("loss", "bits"), [("0", "1"), ("1e-320", "1e300")])
def test_a_loss_that_has_no_bits_per_byte_is_drawn_without_them(log, loss, bits):
    log.write_text(f"tokens,val_loss,val_bits_per_byte\n1,{loss},{bits}\n")
    plot_log(log).draw_without_rendering()
    assert not plot_log(log).axes[0].child_axes


def test_a_file_that_is_no_log_is_one_line(log):
    log.write_text('tokens,val_loss\n"' + "x" * 200_000)
    with pytest.raises(UserError, match="is not a log of a training"):
        plot_log(log)


def test_the_picture_is_a_png_with_something_on_it(log):
    save_figure(plot_log(log), log.with_name("loss.png"))
    assert log.with_name("loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(log.with_name("loss.png"))
    assert pixels.shape[:2] == (540, 960)
    colours = {tuple((pixel * 255).round().astype(int)[:3]) for pixel in pixels.reshape(-1, pixels.shape[-1])[::7]}
    assert len(colours) > 20
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.csv", "loss.png"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one_and_no_half_of_the_new(log, monkeypatch):
    picture = log.with_name("loss.png")
    picture.write_bytes(b"old")

    def disk_is_full(self, file, **options):
        if hasattr(file, "write"):
            file.write(b"half")
        else:
            file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", disk_is_full)
    with pytest.raises(OSError, match="No space"):
        save_figure(plot_log(log), picture)
    assert picture.read_bytes() == b"old"
    assert sorted(path.name for path in log.parent.iterdir()) == ["log.csv", "loss.png"]


def test_what_no_font_has_is_a_sign_and_no_warning(recwarn, tmp_path, tokenizer):
    assert drawable("Zoë, “a”\udcff\x00日") == "Zoë, “a”" + 3 * "\ufffd"
    model = tiny_model(tokenizer.vocab_size)
    for number, figure in enumerate([plot_story(model, tokenizer, "日\t߿"), plot_attention(model, tokenizer, "日\t߿")]):
        save_figure(figure, tmp_path / f"{number}.png")
    assert not recwarn.list


@pytest.mark.parametrize("name", ["$^$", "a_b", "\udcff"])
def test_any_name_of_a_model_can_be_drawn(name, tmp_path):
    (tmp_path / name).mkdir()
    log = tmp_path / name / "log.csv"
    log.write_text("step,tokens,train_loss,val_loss,val_bits_per_byte\n1,10,2.5,0.0,0.0\n2,20,2.0,1.0,0.5\n3,x,nan,\xff,\n")
    save_figure(plot_log(log), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_cliff_at_the_start_is_cut_off_and_its_height_said(log):
    head, *_ = LOG.splitlines()
    losses = [9.5, 8.0, 4.0, *(3 - step / 100 for step in range(97))]
    rows = [f"{step},{step * 1000},0.1,{loss},,,0.001,5000" for step, loss in enumerate(losses, 1)]
    log.write_text("\n".join([head, *rows]) + "\n")
    [axes] = plot_log(log).axes
    low, high = axes.get_ylim()
    assert 3 - 96 / 100 - 0.1 < low < 3 - 96 / 100 and 3 - 2 / 100 < high < 3.1  # from the twentieth of the tokens on
    assert [text.get_text() for text in axes.texts if "from" in text.get_text()] == ["↑ from 9.5"]
    assert len(axes.get_lines()[0].get_xdata()) == 100


def test_a_loss_that_never_falls_is_drawn_whole(log):
    log.write_text("step,tokens,train_loss\n1,100,2.0\n2,200,2.5\n3,300,3.0\n")
    [axes] = plot_log(log).axes
    assert axes.get_ylim()[0] < 2.0 and axes.get_ylim()[1] > 3.0 and not axes.texts


def test_each_pass_over_the_text_is_marked(log):
    log.write_text("step,tokens,epoch,train_loss\n1,1000000,0.8,3.0\n2,3000000,2.4,2.0\n")
    [axes] = plot_log(log).axes
    assert [line.get_xdata()[0] for line in axes.get_lines()[2:]] == pytest.approx([1.25, 2.5])
    assert [text.get_text() for text in axes.texts if "from" not in text.get_text()] == ["epoch 1", "2"]


# ---- contexts ----


LINES = {"ours": {128: 1.5, 1024: 1.25}, "theirs": {64: 1.75, 1024: 4.0}}


def test_the_lines_are_bits_per_byte_by_context_and_what_was_trained_is_shaded():
    figure = plot_contexts("owl", LINES, trained=256)
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert [line.get_xydata().tolist() for line in axes.get_lines()] == [
        [list(point) for point in line.items()] for line in LINES.values()
    ]
    [shade] = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (64, 256)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[:2] == ["ours", "theirs"] and "256" in legend[2]
    assert labels(axes.xaxis) == ["64", "128", "1,024"] and axes.get_title() == "owl"
    assert [text.get_text() for text in axes.texts] == ["1.250", "4.000"]  # at their ends
    assert axes.transData.transform((256, 0))[0] - axes.transData.transform((128, 0))[0] == pytest.approx(
        axes.transData.transform((1024, 0))[0] - axes.transData.transform((512, 0))[0]
    )  # each doubling is as wide


@pytest.mark.parametrize(("name", "line"), [("$^$", {16: 3.0}), ("\udcff", {1: 0.0, 1 << 24: 0.0})])
def test_any_line_can_be_drawn(name, line, tmp_path):
    save_figure(plot_contexts(name, {name: line}, trained=16), tmp_path / "contexts.png")
    assert (tmp_path / "contexts.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # a spreadsheet's has a byte order mark
def test_lines_are_read_from_a_file(encoding, tmp_path):
    rows = [f"{name},{context},{bits}" for name, line in LINES.items() for context, bits in line.items()]
    (tmp_path / "lines.csv").write_text("\n".join(["name,context,bits_per_byte", *rows]) + "\n", encoding=encoding)
    assert read_contexts(tmp_path / "lines.csv") == LINES


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "name,context,bits_per_byte\n",
        "name,context\na,1\n",
        "name,context,bits_per_byte\na,far,1\n",
        "name,context,bits_per_byte\na,0,1\n",
        "name,context,bits_per_byte\na,16,nan\n",
        '"' + "x" * 200_000,
    ],
)
def test_a_file_without_lines_is_explained(content, tmp_path):
    if content is not None:
        (tmp_path / "lines.csv").write_text(content)
    with pytest.raises(UserError, match=r"lines\.csv.* expected .*name, context and bits_per_byte"):
        read_contexts(tmp_path / "lines.csv")


# ---- inside a model ----


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize(
    ("token", "label"), [(b" ", "␣"), (b"\n", "↵"), (b"\t", r"\t"), (b"\x00", r"\x00"), (b"$", "$"), (b"\xe2", r"\xe2")]
)
def test_a_token_is_labelled_so_that_it_is_seen(token, label, tokenizer):
    assert token_label(tokenizer, tokenizer.encode_ordinary("a")[0]) == "a"
    assert token_label(tokenizer, token[0]) == label  # the first 256 ids are the bytes


def test_the_label_of_a_long_token_is_cut():
    tokenizer = Tokenizer.train_from_iterator(["once" * 8] * 3, 263)
    long = max(range(262), key=lambda token_id: len(tokenizer.token_bytes(token_id)))
    assert len(tokenizer.token_bytes(long)) == 32
    assert token_label(tokenizer, long) == "onceonceonceonc…"


def test_the_next_tokens_are_bars_the_most_likely_at_the_top(tiny):
    model, tokenizer = tiny
    figure = plot_next_tokens(model, tokenizer, "the dog", 5)
    figure.draw_without_rendering()
    [axes] = figure.axes
    expected = next_tokens(model, tokenizer, "the dog", 5)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100 * probability for _, probability in expected])
    assert [text.get_text() for text in axes.texts] == [f"{100 * probability:.1f} %" for _, probability in expected]
    assert labels(axes.yaxis) == [token_label(tokenizer, token_id) for token_id, _ in expected]
    tops = [axes.transData.transform((0, bar.get_y()))[1] for bar in axes.patches]
    assert tops == sorted(tops, reverse=True)
    assert "probability" in axes.get_xlabel() and "'the dog'" in axes.get_title()


def test_the_title_of_the_next_tokens_has_the_end_of_a_long_prompt(tiny):
    title = plot_next_tokens(*tiny, "the dog ran " * 100 + "home", 5).axes[0].get_title()
    assert title.startswith("what comes after …") and title.endswith("the dog ran home'") and len(title) < 100


def test_a_token_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    tokenizer = Tokenizer.train_from_iterator(["$^$"] * 3, 259)
    assert [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode("$^$")] == [b"$^$"]
    save_figure(plot_next_tokens(tiny_model(259), tokenizer, "$^$", 259), tmp_path / "next.png")
    assert (tmp_path / "next.png").exists()

import itertools
import json

import matplotlib.image
import pytest
from helpers import tiny_model
from matplotlib.figure import Figure

from alilama import Tokenizer, load_model
from alilama.common.errors import UserError
from alilama.views.heads import plot_attention
from alilama.views.inside import next_tokens
from alilama.views.pictures import (
    MAX_PINS,
    count_missing,
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
    for number, plot in enumerate([plot_story, plot_attention]):
        save_figure(plot(model, tokenizer, "日\t߿ ם س"), tmp_path / f"{number}.png")
    said = [str(warning.message) for warning in recwarn]  # other libraries may warn at their first use
    assert not [text for text in said if "lyph" in text or "does not support" in text]


def test_what_only_says_how_others_are_shown_is_left_out():
    assert drawable("می\u200cکرد\ufeff") == "میکرد"


def test_the_characters_that_a_font_lacks_are_counted():
    assert count_missing("the 日\n日\t\x00 \ufffd") == 3  # not the sign that the text has itself


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


def test_the_marks_of_many_passes_do_not_touch(log):
    log.write_text("step,tokens,epoch,train_loss\n1,1000000,1.7,2.0\n2,100000000,170.5,2.0\n")
    figure = plot_log(log)
    figure.draw_without_rendering()
    labels = figure.axes[0].texts
    assert [text.get_text() for text in labels] == ["epoch 9", *map(str, range(18, 171, 9))]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(text.get_window_extent() for text in labels))


# ---- pins ----


@pytest.fixture
def pinned(tmp_path):
    """Writes a log with an evaluation for each story, after 10, 20, 30 ... steps, and the stories; returns its picture."""

    def draw(*stories, before=""):
        steps = range(1, len(stories) + 1)
        rows = [f"{10 * i},{i * 1000000},0.1,{2 + 5 / i},{3 + 1 / i},{1 + 1 / i},0.001,5000" for i in steps]
        (tmp_path / "log.csv").write_text("\n".join([LOG.splitlines()[0], *rows]) + "\n")
        samples = [{"step": 10 * i, "tokens": 1, "prompt": "Once", "story": stories[i - 1]} for i in steps]
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        (tmp_path / "samples.jsonl").write_text(before + lines, encoding="utf-8")
        figure = plot_log(tmp_path / "log.csv")
        figure.draw_without_rendering()
        return figure

    return draw


def pins_of(axes):
    """The texts above the axes, and where the line of each leads."""
    texts = [text for text in axes.texts if text.get_transform() == axes.transAxes]
    lines = [line for line in axes.get_lines() if line.get_transform() == axes.transAxes]
    to_data = axes.transAxes + axes.transData.inverted()
    return texts, [tuple(to_data.transform(line.get_xydata()[-1])) for line in lines]


def test_what_the_model_wrote_is_pinned_to_the_curve(pinned):
    unevaluated = '{"step": 15, "tokens": 1, "prompt": "Once", "story": "Once unseen"}\n'
    axes = pinned("Once bl  gr\n$x^", "Once, a cat", before=unevaluated).axes[0]
    texts, places = pins_of(axes)
    assert [text.get_text() for text in texts] == ["… bl gr $x^", "…, a cat"]  # after the prompt
    assert places == [pytest.approx((1, 4)), pytest.approx((2, 3.5))]
    for line in axes.get_lines():
        if line.get_transform() == axes.transAxes:  # straight down, from above the axes
            (_, above), (x, top), (same_x, _) = line.get_xydata()
            assert above > top == 1 and x == same_x


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 50])
def test_pins_stand_side_by_side_between_the_title_and_the_curves(count, pinned):
    figure = pinned(*[f"Once {i} " + "There WAS a big red ball " * 50 for i in range(count)])
    [axes] = figure.axes
    texts, _ = pins_of(axes)
    numbers = [int(text.get_text().split()[1]) for text in texts]
    assert len(numbers) == min(MAX_PINS, count) and numbers[-1] == count - 1 and (count == 1 or numbers[0] == 0)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert not steps or max(steps) - min(steps) <= 1  # evenly chosen
    boxes = [text.get_window_extent() for text in texts]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    curves, title = axes.get_window_extent(), axes.title.get_window_extent()
    assert all(box.x0 >= curves.x0 and box.x1 <= curves.x1 for box in boxes)
    assert all(curves.y1 < box.y0 and box.y1 < title.y0 for box in boxes)
    assert [text.get_text().count("\n") for text in texts] == [3] * len(texts)


def test_a_picture_without_samples_has_no_room_for_them(pinned, tmp_path):
    whole = pinned("Once a cat").get_size_inches()
    damaged = pinned("Once a cat", before='{"step": 1\n\x00\n[]\n')
    assert len(pins_of(damaged.axes[0])[0]) == 1  # what can be read
    without = pinned()
    assert not pins_of(without.axes[0])[0] and without.get_size_inches()[1] < whole[1]
    pinned("Once a cat")
    (tmp_path / "samples.jsonl").unlink()
    missing = plot_log(tmp_path / "log.csv")
    (tmp_path / "samples.jsonl").mkdir()
    for figure in (missing, plot_log(tmp_path / "log.csv")):
        assert not pins_of(figure.axes[0])[0] and (figure.get_size_inches() == without.get_size_inches()).all()


def test_letters_that_the_font_lacks_are_not_pinned_and_others_are_seen_as_they_are_read(pinned):
    texts, places = pins_of(pinned("Once היה פעם", "Once 从前有一只猫").axes[0])
    assert [text.get_text().strip("\u202d\u202c") for text in texts] == ["םעפ היה …"]
    assert texts[0].get_horizontalalignment() == "right" and places == [pytest.approx((1, 4))]


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
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (axes.get_xlim()[0], 256)
    assert axes.get_xlim()[0] < 64 and axes.get_xlim()[1] > 1024
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[:2] == ["ours", "theirs"] and "256" in legend[2]
    assert labels(axes.xaxis) == ["64", "128", "1,024"] and axes.get_title() == "owl"
    assert [text.get_text() for text in axes.texts] == ["1.250", "4.000"]  # at their ends
    assert axes.transData.transform((256, 0))[0] - axes.transData.transform((128, 0))[0] == pytest.approx(
        axes.transData.transform((1024, 0))[0] - axes.transData.transform((512, 0))[0]
    )  # each doubling is as wide


def test_the_numbers_at_the_ends_do_not_touch():
    ends = {"a": 1.5, "b": 1.4999, "c": 1.5, "d": 1.52, "e": 4.0}
    figure = plot_contexts("owl", {name: {64: 2.0, 1024: bits} for name, bits in ends.items()}, trained=256)
    figure.draw_without_rendering()
    [axes] = figure.axes
    labels = sorted(axes.texts, key=lambda text: text.get_window_extent().y0)
    assert [float(text.get_text()) for text in labels] == [1.5, 1.5, 1.5, 1.52, 4.0]
    assert labels[0].get_color() == axes.get_lines()[1].get_color()  # the lowest
    boxes = [text.get_window_extent() for text in labels]
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    assert all(box.x1 < axes.get_window_extent().x1 for box in boxes)
    place = axes.transData.transform((1024, 4.0))
    assert (boxes[-1].y0 + boxes[-1].y1) / 2 == pytest.approx(place[1], abs=2) and boxes[-1].x0 > place[0]  # where it ends


def test_a_length_that_none_was_read_at_is_in_the_picture():
    [axes] = plot_contexts("owl", LINES, trained=4096).axes
    assert axes.get_xlim()[1] == 4096


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
        "name,context,bits_per_byte\na,16,1\nb,16,1\na,16,2\n",
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


def test_tokens_and_titles_from_the_right_are_seen_as_they_are_read():
    tokenizer = Tokenizer.train_from_iterator(["שלום"] * 3, 264)
    [token_id] = tokenizer.encode("שלום")
    assert token_label(tokenizer, token_id).strip("\u202d\u202c") == "םולש"
    assert "'םולש'" in plot_next_tokens(tiny_model(264), tokenizer, "שלום", 3).axes[0].get_title()


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

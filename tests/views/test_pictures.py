import math

import matplotlib.image
import numpy as np
import pytest
from helpers import tiny_model
from matplotlib.figure import Figure

from alilama import Tokenizer, load_model
from alilama.common.errors import UserError
from alilama.training.scoring import Score
from alilama.views.inside import attention_weights, next_tokens
from alilama.views.pictures import (
    plot_attention,
    plot_evaluation,
    plot_log,
    plot_next_tokens,
    read_log,
    save_figure,
    token_label,
)

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


@pytest.mark.parametrize("name", ["$^$", "a_b", "\udcff"])
def test_any_name_of_a_model_can_be_drawn(name, tmp_path):
    (tmp_path / name).mkdir()
    log = tmp_path / name / "log.csv"
    log.write_text("step,tokens,train_loss,val_loss,val_bits_per_byte\n1,10,2.5,0.0,0.0\n2,20,2.0,1.0,0.5\n3,x,nan,\xff,\n")
    save_figure(plot_log(log), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


# ---- evaluations ----


SCORES = [
    (Score(nats=4, tokens=2, bytes=4), Score(nats=3, tokens=2, bytes=4)),
    (Score(nats=3.5, tokens=2, bytes=4), Score(nats=2.5, tokens=2, bytes=4)),
]


def test_an_evaluation_shows_both_ways_by_context_and_the_trained_length():
    figure = plot_evaluation("owl", [128, 1024], SCORES, trained=256)
    figure.draw_without_rendering()
    [axes] = figure.axes
    without_overlap, sliding, trained = axes.get_lines()
    assert without_overlap.get_xydata().tolist() == [[128, 2], [1024, 1.75]]
    assert sliding.get_xydata().tolist() == [[128, 1.5], [1024, 1.25]]
    assert trained.get_xdata() == [256, 256]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["non-overlapping", "sliding", "trained"] and "256" in labels[2]
    assert [(tick, label.get_text()) for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)] == [
        (128, "128"),
        (1024, "1024"),
    ]
    assert axes.transData.transform((256, 0))[0] - axes.transData.transform((128, 0))[0] == pytest.approx(
        axes.transData.transform((1024, 0))[0] - axes.transData.transform((512, 0))[0]
    )  # each doubling is as wide
    assert "owl" in axes.get_title()


def test_an_evaluation_has_bits_per_byte_on_the_right():
    figure = plot_evaluation("owl", [128, 1024], SCORES, trained=128)
    figure.draw_without_rendering()
    [axes] = figure.axes
    [right] = axes.child_axes
    assert SCORES[1][1].bits_per_byte / SCORES[1][1].loss == pytest.approx(0.5 / math.log(2))
    assert right.get_ylim() == pytest.approx([nats * 0.5 / math.log(2) for nats in axes.get_ylim()])


@pytest.mark.parametrize(("name", "contexts", "nats"), [("$^$", [16], 3.0), ("\udcff", [1, 1 << 24], 0.0)])
def test_any_evaluation_can_be_drawn(name, contexts, nats, tmp_path):
    scores = [(Score(nats, 2, 4), Score(nats, 2, 4)) for _ in contexts]
    save_figure(plot_evaluation(name, contexts, scores, trained=16), tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")


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


@pytest.mark.parametrize(("layer", "head", "slope"), [(1, 1, "0.25"), (2, 1, "0.25"), (1, 3, "0.0156")])
def test_the_attention_of_a_layer_and_head_stands_beside_the_bias_of_the_head(tiny, layer, head, slope):
    model, tokenizer = tiny
    figure = plot_attention(model, tokenizer, "the dog", layer, head)
    figure.draw_without_rendering()
    left, right, *_ = figure.axes
    ids = [tokenizer.eot_id, *tokenizer.encode("the dog")]
    weights = attention_weights(model, ids)[layer - 1, head - 1].numpy()
    future = np.triu(np.ones_like(weights, dtype=bool), 1)
    [drawn], [bias] = left.images, right.images
    np.testing.assert_array_equal(drawn.get_array().filled(-1), np.where(future, -1, weights))
    i, j = np.indices(weights.shape)
    np.testing.assert_allclose(bias.get_array().filled(1), np.where(future, 1, -(4.0**-head) * (i - j)))  # of 4 heads
    assert drawn.get_clim() == (0, 1) and bias.get_clim() == (-8, 0)  # always, so that heads can be compared
    assert figure.get_suptitle() == f"layer {layer} of 2, head {head} of 4, slope {slope}"
    assert slope in right.get_title()
    words = [token_label(tokenizer, token_id) for token_id in ids]
    assert labels(left.xaxis) == labels(left.yaxis) == labels(right.xaxis) == words and words[0] == "<|endoftext|>"


def test_two_heads_do_not_look_alike(tiny, tmp_path):
    for head in (1, 4):
        save_figure(plot_attention(*tiny, "the dog $^$ ran\udcff", 2, head), tmp_path / f"{head}.png")
    assert (tmp_path / "1.png").read_bytes() != (tmp_path / "4.png").read_bytes()


def test_a_token_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    tokenizer = Tokenizer.train_from_iterator(["$^$"] * 3, 259)
    model = tiny_model(259)
    assert [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode("$^$")] == [b"$^$"]
    save_figure(plot_next_tokens(model, tokenizer, "$^$", 259), tmp_path / "next.png")
    save_figure(plot_attention(model, tokenizer, "$^$"), tmp_path / "attention.png")


def test_the_map_of_a_long_text_has_positions_and_no_tokens(tiny):
    figure = plot_attention(*tiny, "the dog ran home. " * 20)
    figure.draw_without_rendering()
    assert "0" in labels(figure.axes[0].xaxis) and "<|endoftext|>" not in labels(figure.axes[0].xaxis)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": 0}, "layer = 0: expected 1 to 2"),
        ({"layer": 3}, "layer = 3: expected 1 to 2"),
        ({"head": 0}, "head = 0: expected 1 to 4"),
        ({"head": 5}, "head = 5: expected 1 to 4"),
        ({"text": "x" * 3000}, r"the text has \d+ tokens: expected at most 1024"),
    ],
)
def test_an_attention_that_cannot_be_drawn_is_explained(tiny, changed, message):
    with pytest.raises(UserError, match=message):
        plot_attention(*tiny, **{"text": "the dog"} | changed)

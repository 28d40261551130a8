import itertools
import unicodedata

import pytest

from alilama import load_model
from alilama.common.errors import UserError
from alilama.views.inside import piece_probabilities
from alilama.views.pictures import save_figure
from alilama.views.story import LEGEND, MARGIN, PARAGRAPH, WIDTH, in_reading_direction, plot_story, width_of, wrap

TEXT = "Mia and Tom ran home, $^$ and Zoë was glad to see them again in the garden. " * 2 + "\nThe end"


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


def wrapped(pieces, width):
    """Returns the pieces with their places, each character one wide."""
    return [(x, line, text) for x, line, text, _ in wrap([(piece, 1.0) for piece in pieces], len, width)]


def test_every_token_is_drawn_in_a_box_that_is_the_darker_the_less_likely_it_was(tiny):
    axes = plot_story(*tiny, TEXT).axes[0]
    expected = [(piece.strip(), probability) for piece, probability in piece_probabilities(*tiny, TEXT) if piece.strip()]
    drawn = list(zip((text.get_text() for text in axes.texts), axes.patches, strict=True))[: -len(LEGEND) - 1]
    assert [text for text, _ in drawn] == [piece for piece, _ in expected]
    in_order = sorted(zip((probability for _, probability in expected), drawn, strict=True), key=lambda pair: -pair[0])
    greens = [box.get_facecolor()[1] for _, (_, box) in in_order]  # of white, yellow, orange and red, in this order
    assert len(set(greens)) > 5 and all(lighter >= darker for lighter, darker in itertools.pairwise(greens))


def test_below_the_text_stands_what_the_colours_mean(tiny):
    axes = plot_story(*tiny, TEXT).axes[0]
    legend = list(zip(axes.texts, axes.patches, strict=True))[-len(LEGEND) :]
    assert [text.get_text() for text, _ in legend] == ["100%", "50%", "10%", "1%", "0.1%"]
    greens = [box.get_facecolor()[1] for _, box in legend]
    assert greens[0] == 1 and greens == sorted(set(greens), reverse=True)


def test_all_is_within_the_picture_and_no_box_covers_another(tiny):
    figure = plot_story(*tiny, TEXT * 5)
    axes = figure.axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    boxes = [(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in axes.patches]
    assert all(left <= x and x + width <= right and top <= y and y + height <= bottom for x, y, width, height in boxes)
    for (x, y, width, height), (next_x, next_y, *_) in itertools.pairwise(boxes):
        assert (next_y == y and next_x >= x + width) or next_y >= y + height
    assert len({y for _, y, *_ in boxes}) > 10


def test_lines_break_between_words_and_not_within_them():
    assert wrapped(["One", " day", ",", " a", " lit", "tle", " dog"], 9) == [
        (0, 0, "One"),
        (4, 0, "day"),
        (7, 0, ","),
        (0, 1, "a"),
        (2, 1, "lit"),
        (5, 1, "tle"),
        (0, 2, "dog"),
    ]
    assert wrapped(["A", " lit", "tle"], 6) == [(0, 0, "A"), (0, 1, "lit"), (3, 1, "tle")]


def test_line_ends_and_spaces_of_the_text_are_kept():
    assert wrapped(["if a", ":\n", "    b", "\n\n", "c"], 20) == [
        (0, 0, "if"),
        (3, 0, "a"),
        (4, 0, ":"),
        (4, PARAGRAPH, "b"),
        (0, 3 * PARAGRAPH, "c"),
    ]


def test_a_word_that_is_wider_than_a_line_is_broken_between_tokens():
    assert wrapped(["abc", "defg", "h", "ijklmnop"], 6) == [(0, 0, "abc"), (0, 1, "defg"), (4, 1, "h"), (0, 2, "ijklmnop")]


def test_the_width_of_spaces_counts():
    assert width_of(" a ") == pytest.approx(width_of("a") + 2 * width_of(" "), abs=0.5) and width_of(" ") > 2


def test_words_from_the_right_begin_at_the_right_and_others_within_them_at_the_left():
    line = [(0, 0, "אב", 0.1), (2, 0, "ג", 0.2), (4, 0, "cd", 0.3), (6, 0, "e", 0.4), (8, 0, "ד", 0.5)]
    found = [(x, text.strip("\u202d\u202c"), probability) for x, text, probability in in_reading_direction(line, len, 20, True)]
    assert found == [(11, "ד", 0.5), (13, "cd", 0.3), (15, "e", 0.4), (17, "ג", 0.2), (18, "בא", 0.1)]
    assert list(in_reading_direction(line[2:4], len, 20, False)) == [(4, "cd", 0.3), (6, "e", 0.4)]


def test_a_text_from_the_right_is_read_from_there(tiny):
    text = "היה היה פעם ילד קטן בשם דני והוא גר בעיר גדולה עם אמא אבא וחתול שחור אחד. " * 2 + "\nסוף"
    axes = plot_story(*tiny, text).axes[0]
    drawn = list(zip(axes.texts, axes.patches, strict=True))[: -len(LEGEND) - 1]
    drawn.sort(key=lambda pair: (pair[0].get_position()[1], -pair[0].get_position()[0]))
    assert "".join(label.get_text().strip("\u202d\u202c") for label, _ in drawn) == "".join(text.split())
    ends = [box.get_x() + box.get_width() for _, box in drawn]
    assert max(ends) == pytest.approx(WIDTH - MARGIN, abs=1) and min(box.get_x() for _, box in drawn) >= MARGIN
    assert len({label.get_position()[1] for label, _ in drawn}) > 2


def test_arabic_letters_join_across_tokens(tiny):
    labels = [text.get_text() for text in plot_story(*tiny, "سلام").axes[0].texts[: -len(LEGEND) - 1]]
    names = [unicodedata.name(label.strip("\u202d\u202c")).split()[2:4] for label in labels]
    assert names == [["MEEM", "ISOLATED"], ["ALEF", "FINAL"], ["LAM", "MEDIAL"], ["SEEN", "INITIAL"]]


def test_what_has_no_shape_has_no_box(tiny):
    axes = plot_story(*tiny, "a\u200cb").axes[0]
    assert [text.get_text() for text in axes.texts][: -len(LEGEND) - 1] == ["a", "b"]
    assert all(box.get_width() > 0 for box in axes.patches)


@pytest.mark.parametrize("content", [" ", "\n", "\x00\t\r", "\udcff", "x" * 300, "\u200c", "א\u200f"])
def test_any_text_can_be_drawn(content, tiny, tmp_path):
    save_figure(plot_story(*tiny, content), tmp_path / "story.png")
    assert (tmp_path / "story.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the text is empty"),
        ("\n" * 800 + "x", "the text fills 1,040 lines of a picture: expected at most 1,000"),
        ("the <|endoftext|>", "special token"),
    ],
)
def test_a_text_that_cannot_be_drawn_is_explained(tiny, content, message):
    with pytest.raises(UserError, match=message):
        plot_story(*tiny, content)

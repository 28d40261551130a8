import numpy as np
import pytest
from helpers import tiny_model
from matplotlib.patches import Arc

from alilama import Tokenizer, load_model
from alilama.common.errors import UserError
from alilama.views.heads import LEAST_SHARE, MAX_ARC_TOKENS, plot_attention
from alilama.views.inside import attention_weights, telling_scores
from alilama.views.pictures import save_figure

TEXT = "the dog ran home and Mia was glad"


@pytest.fixture(scope="module")
def tiny(model_folder):
    return load_model(model_folder)


def parts(figure):
    """Returns the axes of the chosen head, of all heads, and of the slopes."""
    large, *maps, slopes = figure.axes
    return large, maps, slopes


def highlighted(maps):
    return [number for number, axes in enumerate(maps, 1) if axes.spines["top"].get_linewidth() > 1]


def weights_of(tiny, text=TEXT):
    model, tokenizer = tiny
    return attention_weights(model, tokenizer.encode_document(text)).numpy()


@pytest.mark.parametrize(("layer", "head"), [(1, 1), (2, 3)])
def test_there_is_an_arc_for_each_look_back_at_a_word_the_wider_the_more(tiny, layer, head):
    large, _, _ = parts(plot_attention(*tiny, TEXT, layer, head))
    places = large.get_xticks()
    weights = weights_of(tiny)[layer - 1, head - 1]
    expected = [  # neither what stays with the token nor what rests on <|endoftext|>
        ((places[i] + places[j]) / 2, places[i] - places[j], weights[i, j])
        for i in range(len(places))
        for j in range(1, i)
        if weights[i, j] >= LEAST_SHARE
    ]
    arcs = [arc for arc in large.patches if isinstance(arc, Arc)]
    assert len(arcs) > 5
    drawn = [(arc.center[0], arc.width, arc.get_linewidth() / 4) for arc in arcs]
    np.testing.assert_allclose(sorted(drawn), sorted(expected), rtol=1e-5)
    assert large.get_ylim()[1] > max(arc.height / 2 for arc in arcs) and (np.diff(places) > 0).all()
    assert f"layer {layer} of 2, head {head} of 4" in large.figure.get_suptitle()


def test_below_the_arcs_stand_the_words(tiny):
    large, _, _ = parts(plot_attention(*tiny, TEXT))
    words = [label.get_text() for label in large.get_xticklabels()]
    assert words[0] == "<|endoftext|>" and "".join(words[1:]) == TEXT.replace(" ", "")
    assert {label.get_rotation() for label in large.get_xticklabels()} == {0}


def test_words_of_a_text_that_is_too_long_for_a_line_stand_upright(tiny):
    large, _, _ = parts(plot_attention(*tiny, TEXT * 4))
    assert {label.get_rotation() for label in large.get_xticklabels()} == {90}
    np.testing.assert_allclose(np.diff(large.get_xticks()), large.get_xlim()[1] / len(large.get_xticks()))


def test_a_long_text_has_a_large_map_instead(tiny):
    text = TEXT * 12
    large, _, _ = parts(plot_attention(*tiny, text, 1, 2))
    weights = weights_of(tiny, text)[0, 1]
    assert len(weights) > MAX_ARC_TOKENS
    np.testing.assert_array_equal(large.images[0].get_array().filled(0), np.tril(weights))


def test_all_heads_of_the_layer_have_a_map_on_one_scale_and_the_chosen_one_is_highlighted(tiny):
    _, maps, _ = parts(plot_attention(*tiny, TEXT, 2, 3))
    weights = weights_of(tiny)[1]
    future = np.triu(np.ones_like(weights[0], dtype=bool), 1)
    for axes, expected in zip(maps, weights, strict=True):
        [drawn] = axes.images
        np.testing.assert_array_equal(drawn.get_array().filled(-1), np.where(future, -1, expected))
        assert drawn.get_clim() == (0, 1)
    assert [axes.get_title() for axes in maps] == ["head 1", "head 2", "head 3", "head 4"] and highlighted(maps) == [3]


def test_the_bias_of_each_head_is_a_line_and_that_of_the_chosen_one_is_highlighted(tiny):
    _, _, slopes = parts(plot_attention(*tiny, TEXT, 1, 2))
    lines = slopes.get_lines()
    for number, line in enumerate(lines, 1):
        np.testing.assert_allclose(line.get_ydata(), -(4.0**-number) * line.get_xdata())  # of 4 heads
    assert [line.get_linewidth() for line in lines] == [1, 2, 1, 1]


@pytest.mark.parametrize(("layer", "head"), [(None, None), (1, None), (2, None), (None, 1)])
def test_what_is_not_given_is_the_most_telling(tiny, layer, head):
    model, tokenizer = tiny
    ids = tokenizer.encode_document(TEXT)
    scores = telling_scores(attention_weights(model, ids), tokenizer, ids)
    allowed = scores[
        slice(None) if layer is None else slice(layer - 1, layer), slice(None) if head is None else slice(head - 1, head)
    ]
    [[block, number]] = (scores == allowed.max()).nonzero().tolist()
    large, maps, _ = parts(plot_attention(model, tokenizer, TEXT, layer, head))
    assert f"layer {block + 1} of 2, head {number + 1} of 4" in large.figure.get_suptitle() and highlighted(maps) == [
        number + 1
    ]


@pytest.mark.parametrize("num_heads", [1, 2, 16])
def test_any_number_of_heads_can_be_drawn(num_heads, tokenizer):
    model = tiny_model(tokenizer.vocab_size, num_heads=num_heads)
    _, maps, _ = parts(plot_attention(model, tokenizer, TEXT))
    assert len([axes for axes in maps if axes.images]) == num_heads


@pytest.mark.parametrize("content", ["", "x", "$^$ \udcff\n\t 日", "the"])
def test_any_text_can_be_drawn(content, tiny, tmp_path):
    save_figure(plot_attention(*tiny, content), tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_a_token_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    tokenizer = Tokenizer.train_from_iterator(["$^$"] * 3, 259)
    save_figure(plot_attention(tiny_model(259), tokenizer, "$^$"), tmp_path / "attention.png")
    assert (tmp_path / "attention.png").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": 0}, "layer = 0: expected 1 to 2"),
        ({"layer": 3}, "layer = 3: expected 1 to 2"),
        ({"head": 0}, "head = 0: expected 1 to 4"),
        ({"head": 5}, "head = 5: expected 1 to 4"),
        ({"head": 1.5}, "head = 1.5: expected a whole number"),
        ({"layer": "1"}, "layer = '1': expected a whole number"),
        ({"text": "x" * 3000}, r"the text has \d+ tokens: expected at most 1024"),
    ],
)
def test_an_attention_that_cannot_be_drawn_is_explained(tiny, changed, message):
    with pytest.raises(UserError, match=message):
        plot_attention(*tiny, **{"text": "the dog"} | changed)

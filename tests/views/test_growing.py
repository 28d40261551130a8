"""The page and the picture of how a model grew, read by Python's own parsers."""

import re
import warnings
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.image
import pytest

from alilama.views import growing
from alilama.views.growing import plot_growing, save_picture, thin, write_page

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(1)>&amp; \" ' \x00\x1b\ud800 NAME STAGES ]]> --> \n  two"


def sample(step, story="Once upon", score=None, prompt="Once"):
    scores = {} if score is None else {"val_bits_per_byte": score}
    return {"step": step, "tokens": 100 * step, "prompt": prompt, "story": story, **scores}


SAMPLES = [
    sample(0, "Once bl gr"),
    sample(10, "Once the the", 2.0),
    sample(20, "Once a cat", 1.0),
    sample(40, "Once a dog", 1.25),
]


class Page(HTMLParser):
    """The tags of a page, and the text of each element that is of the class story or stage, or of a kind of element."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in ("meta", "input"):
            self._open.append((tag, attributes.get("class", tag)))
            self.texts.setdefault(attributes.get("class", tag), []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        for _, name in self._open:
            self.texts[name][-1] += text


@pytest.fixture
def page_of(tmp_path):
    def page_of(samples, name="owl", is_growing=False):
        (tmp_path / name).mkdir(exist_ok=True)
        write_page(tmp_path / name, samples, is_growing=is_growing)
        return Page(tmp_path / name / "growing.html")

    return page_of


def curve_of(page):
    return ElementTree.fromstring(re.search("<svg.*</svg>", page.source, re.DOTALL)[0])


def test_the_page_tells_every_story_below_the_other_without_a_script(page_of):
    page = page_of(SAMPLES)
    assert page.texts["story"] == [sample["story"] for sample in SAMPLES]
    assert page.texts["h2"] == ["Before training", "After 1,000 tokens", "After 2,000 tokens", "After 4,000 tokens"]
    assert page.texts["b"] == ["Once"] * 4  # the prompt
    assert "step 20, 1.000 bits per byte, the best of all" in page.texts["stage"][2]
    assert ["the best" in text for text in page.texts["stage"]] == [False, False, True, False]
    assert page.texts["h1"] == ["How owl grew"] and "at 4 stages of" in page.texts["p"][0]


def test_whatever_a_model_writes_is_text(page_of):
    page = page_of([sample(0, HOSTILE, prompt=HOSTILE[:9]), sample(1, HOSTILE, 1.0, "another")], name="<b>a & b")
    shown = re.sub("[\x00\x1b\ud800]", "\ufffd", HOSTILE)
    assert page.texts["story"] == [shown, shown] and page.texts["b"] == [HOSTILE[:9]]
    assert page.texts["h1"] == ["How <b>a & b grew"] == page.texts["title"]
    assert [tag for tag, _ in page.tags].count("script") == 1 and "img" not in page.texts


def test_the_page_needs_nothing_from_elsewhere(page_of):
    page = page_of(SAMPLES)
    [policy] = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy == "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
    links = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert links == ["#stage1", "#stage2", "#stage3"]  # the points of the curve
    assert {attributes["id"] for tag, attributes in page.tags if tag == "section"} >= {link[1:] for link in links}


def test_the_curve_has_a_point_per_evaluation_where_its_axes_say(page_of):
    curve = curve_of(page_of(SAMPLES))
    points = [[float(circle.get(name)) for name in ("cx", "cy")] for circle in curve.iter("circle")]
    texts = {text.text: text for text in curve.iter("text")}
    left, right = (float(texts[tokens].get("x")) for tokens in ("0", "4k"))
    low, high = (float(texts[score].get("y")) - 4 for score in ("1", "2"))
    for (x, y), row in zip(points, SAMPLES[1:], strict=True):
        assert x == pytest.approx(left + (right - left) * row["tokens"] / 4000, abs=0.11)
        assert y == pytest.approx(low + (high - low) * (row["val_bits_per_byte"] - 1), abs=0.11)
    assert high < low and left < right
    [line] = curve.iter("polyline")
    assert line.get("points") == " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@pytest.mark.parametrize("score", [0.0, 0.299123, 1e300])
def test_one_evaluation_is_a_point_within_the_axes(score, page_of):
    curve = curve_of(page_of([sample(0), sample(7, "x", score)]))
    [circle] = curve.iter("circle")
    assert growing.TOP <= float(circle.get("cy")) <= growing.BOTTOM and float(circle.get("cx")) == growing.RIGHT
    assert all(len(text.text) <= 15 for text in curve.iter("text"))


def test_before_the_first_evaluation_there_is_no_curve(page_of):
    page = page_of([sample(0)], is_growing=True)
    assert "svg" not in page.texts and page.texts["story"] == ["Once upon"]


def test_while_it_grows_the_page_says_when_it_was_written_and_at_the_end_nothing_of_that(page_of, monkeypatch):
    monkeypatch.setattr(growing.time, "time", lambda: 1_800_000_000.9)
    page = page_of(SAMPLES, is_growing=True)
    assert page.texts["p"][1] == "Written on 2027-01-15 at 08:00 UTC, while it trained."
    assert ("time", {"id": "written", "datetime": "2027-01-15T08:00:00Z"}) in page.tags
    assert "time" not in page_of(SAMPLES).texts


def test_of_many_stages_the_page_shows_more_of_the_early_ones_and_the_best(page_of):
    samples = [sample(step, "Once " + "é" * 1500, 3 - step / 2000 if step != 1998 else 0.5) for step in range(3000)]
    kept = [row["step"] for row in thin(samples, growing.MAX_STAGES)]
    assert 80 < len(kept) <= growing.MAX_STAGES + 1 and kept == sorted(set(kept))
    assert {0, 1, 1998, 2999} <= set(kept)
    assert sum(step < 750 for step in kept) == pytest.approx(len(kept) / 2, abs=9)  # the square root of a quarter
    page = page_of(samples)
    assert len(page.texts["story"]) == len(kept) and f"at {len(kept)} of 3,000 stages" in page.texts["p"][0]
    assert len(page.source.encode()) < 500_000
    assert thin(samples[:100], 100) == samples[:100] and thin([], 4) == []


def test_the_picture_shows_the_curve_and_how_the_stories_began():
    samples = [
        sample(step, f"Once {step} $x^ \n\t\x00 " + "word " * 200, 3 - step / 10 if step else None) for step in range(10)
    ]
    figure = plot_growing("o_w$l$", samples)
    figure.draw_without_rendering()
    above, below = figure.axes
    [line] = above.get_lines()
    assert line.get_xydata().tolist() == [[100 * step, pytest.approx(3 - step / 10)] for step in range(1, 10)]
    texts = [text.get_text() for text in below.texts]
    assert texts[0::3] == ["1", "2", "3", "4"]
    assert texts[1] == "Before training" and texts[10] == "After 900 tokens, step 9, 2.100 bits per byte, the best of all"
    for step, text in zip((0, 1, 4, 9), texts[2::3], strict=True):
        assert text.startswith(f"Once {step} $x^ ") and text.count("\n") == 2 and text.endswith(" …") and "\x00" not in text
    marks = [(*text.get_position(), text.get_text()) for text in above.texts]
    assert marks == [(100, 2.9, "2"), (400, pytest.approx(2.6), "3"), (900, pytest.approx(2.1), "4")]


def test_the_picture_is_a_png_without_a_word_about_characters_that_its_font_lacks(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(tmp_path, [sample(0, "从前有一只猫 \U0001f431 \udc80"), sample(10, "नमस्ते", 1.0)])
    assert matplotlib.image.imread(tmp_path / "growing.png").shape[1] == 960


def test_one_story_alone_is_drawn_too(tmp_path):
    save_picture(tmp_path, [sample(0, "")])
    assert (tmp_path / "growing.png").read_bytes().startswith(b"\x89PNG")

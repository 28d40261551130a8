"""growing.html in the browser of this folder: what is seen of it at a time."""

import time

import pytest

from alilama.views.growing import write_page

STORIES = ["Once gr <b>bl", "Once the the", "Once a cat</script><script>document.title = 'run'</script>", "Once a dog"]


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page with a stage for each of STORIES, and returns the browser."""

    def open_page(is_growing=False):
        samples = [{"step": 5 * i, "tokens": 500 * i, "prompt": "Once", "story": story} for i, story in enumerate(STORIES)]
        for row in samples[1:]:
            row["val_bits_per_byte"] = 3 / row["step"]
        write_page(tmp_path, samples, is_growing=is_growing)
        browser.errors.clear()
        browser.open(tmp_path / "growing.html")
        return browser

    return open_page


SEEN = "[...document.querySelectorAll('.story')].filter((story) => story.offsetHeight > 0).map((story) => story.textContent)"


def press(browser, key):
    code = {"ArrowLeft": 37, "ArrowRight": 39}[key]
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def test_one_stage_is_seen_and_the_arrow_keys_go_from_one_to_the_next(open_page):
    browser = open_page()
    seen = [browser.run(SEEN)]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        press(browser, key)
        seen.append(browser.run(SEEN))
    assert seen == [[STORIES[number]] for number in (0, 1, 2, 3, 3, 2)]
    browser.run("element('slider').focus()")
    press(browser, "ArrowLeft")  # one step, and not two
    assert browser.run(SEEN) == [STORIES[1]] and browser.run("element('slider').value") == "1"
    assert browser.run("document.title").startswith("How ") and not browser.errors


def test_the_slider_and_the_points_of_the_curve_go_to_a_stage(open_page):
    browser = open_page()
    browser.run("element('slider').value = 2, element('slider').dispatchEvent(new Event('input'))")
    assert browser.run(SEEN) == [STORIES[2]]
    browser.run("document.querySelector('a[href=\"#stage3\"] circle').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert browser.run(SEEN) == [STORIES[3]]
    middle = "((box) => box.x + box.width / 2)({}.getBoundingClientRect())"
    at_cursor = browser.run(middle.format("element('cursor')"))
    assert at_cursor == pytest.approx(browser.run(middle.format("document.querySelector('circle.current')")), abs=1)


def test_playing_shows_one_after_the_other_and_begins_again_after_the_last(open_page):
    browser = open_page()
    played = browser.run(
        "window.tick = null, window.setInterval = (action) => { tick = action; return 1 }, element('play').onclick(), "
        "[0, 1, 2, 3].map(() => { tick(); return [current, timer === null] })"
    )
    assert played == [[1, False], [2, False], [3, False], [3, True]]
    browser.run("element('play').onclick()")
    assert browser.run(SEEN) == [STORIES[0]]


def test_while_the_model_grows_the_page_shows_the_newest_stage(open_page):
    assert open_page(is_growing=True).run(SEEN) == [STORIES[3]]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (-90, "less than a minute ago"),  # another clock
        (59, "less than a minute ago"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (48 * 3600 - 1, "47 hours ago"),
        (48 * 3600, "2 days ago"),
        (1000 * 24 * 3600, "1,000 days ago"),
    ],
)
def test_while_the_model_grows_the_page_says_how_old_it_is(seconds, age, open_page, monkeypatch):
    monkeypatch.setattr("alilama.views.growing.time.time", lambda: 1_800_000_000)
    browser = open_page(is_growing=True)
    said = f"Date.now = () => {1000 * (1_800_000_000 + seconds)}, tellAge(), element('written').parentNode.textContent"
    assert browser.run(said) == f"Written {age}, while it trained." and not browser.errors


def test_a_page_says_it_by_itself_and_one_of_a_finished_model_nothing(open_page, monkeypatch):
    two_days_ago = time.time() - 2.5 * 24 * 3600
    monkeypatch.setattr("alilama.views.growing.time.time", lambda: two_days_ago)
    assert open_page(is_growing=True).run("element('written').textContent") == "2 days ago"
    browser = open_page()
    assert browser.run("document.querySelector('time')") is None and not browser.errors


def test_on_a_phone_nothing_is_wider_than_the_screen(open_page):
    browser = open_page()
    browser.resize(360, 640, is_phone=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_without_scripts_all_stages_are_seen_and_when_the_page_was_written(browser, open_page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        open_page(is_growing=True)
        assert browser.run(SEEN) == STORIES
        assert browser.run("document.querySelector('time').textContent").startswith("on 20")
        assert browser.run("document.getElementById('play').offsetHeight") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)

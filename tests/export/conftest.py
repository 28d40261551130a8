import pytest
from browser import CHROMIUM, Browser
from pages import save_model

from alilama.export.html import write_html


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian, Ubuntu: apt install chromium)")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def made(browser, tmp_path_factory):
    """A page that is open, its model, and its tokenizer."""
    folder = tmp_path_factory.mktemp("made") / "<b>a & b"
    model, tok = save_model(folder)
    write_html(folder, folder / "page.html")
    browser.errors.clear()
    browser.open(folder / "page.html")
    return model, tok

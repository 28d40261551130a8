"""data/recipes/chinese.py on help pages of a few lines: what is kept of them, and what is counted."""

import importlib.util
import json
import math
import re

import pytest
import torch
from helpers import ROOT, tiny_model

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model.folder import save_description, save_weights
from alilama.writing import streams

spec = importlib.util.spec_from_file_location("recipe_chinese", ROOT / "data" / "recipes" / "chinese.py")
chinese = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chinese)

SWITCH = (
    '<span class="switchinline"><span hidden="true" class="MAC"><span class="emph">Option</span></span>'
    '<span hidden="true" id="default1">Alt</span></span>'
)
OPENS = ('<h1 id="h1"><a name="x"></a>打开文件</h1>', '<h1 id="h1"><a name="x"></a>Opening files</h1>')
CLICK = (
    f'<p id="p1">按住 {SWITCH} 键，<br>然后\n点击 &amp; 拖动。</p>',
    f'<p id="p1">Hold {SWITCH} and<br>click &amp; drag.</p>',
)
CODE = ('<p id="p2">Print Date</p>', '<p id="p2">Print Date</p>')
FRAME = ("<p>没有编号</p><div>框架</div>", "<p>no id</p><div>frame</div>")


@pytest.fixture
def write_help(tmp_path):
    """Writes pages, each a list of paragraphs in both languages, into tmp_path / "help", and returns that."""

    def write(pages: dict[str, list[tuple[str, str]]]):
        for which, language in enumerate(("zh-CN", "en-US")):
            for name, paragraphs in pages.items():
                path = tmp_path / "help" / language / "text" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("<html><body>" + "\n".join(pair[which] for pair in paragraphs), encoding="utf-8")
        return tmp_path / "help"

    return write


def paragraph(id: int, text: str, english: str) -> tuple[str, str]:
    return f'<p id="p{id}">{text}</p>', f'<p id="p{id}">{english}</p>'


def read(path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def many_pages(number: int) -> dict[str, list[tuple[str, str]]]:
    """Pages with a paragraph of their own and one that all share."""
    shared = paragraph(1, "所有页面都有这一段。", "All pages have this one.")
    names = [chr(0x4E00 + at) for at in range(number)]
    own = [[paragraph(2, f"第{name}个", f"The {name}."), paragraph(3, f"{name}的后面", f"After {name}")] for name in names]
    return {f"{at:03}.html": [shared, *pair] for at, pair in enumerate(own)}


def test_a_page_becomes_its_translated_paragraphs_and_the_same_in_english(tmp_path, write_help, monkeypatch):
    monkeypatch.setattr(chinese, "HELD_OUT", 2)
    other = [paragraph(7, "另一页", "Another page")]
    help_folder = write_help({"a.html": [OPENS, FRAME, CLICK, CODE, CLICK], "b.html": other})
    chinese.make(help_folder, "zh-CN", tmp_path / "out")
    texts = [text for split in ("train", "valid") for text in read(tmp_path / "out" / f"{split}.jsonl")]
    english = [text for split in ("train", "valid") for text in read(tmp_path / "out" / "english" / f"{split}.jsonl")]
    assert sorted(texts) == sorted(["打开文件\n按住 Alt 键， 然后 点击 & 拖动。", "另一页"])
    assert sorted(english) == ["Another page", "Opening files\nHold Alt and click & drag."]


def test_both_languages_hold_the_same_pages_paragraph_by_paragraph(tmp_path, write_help):
    chinese.make(write_help(many_pages(60)), "zh-CN", tmp_path)
    for split, number in (("train", 57), ("valid", 3)):
        texts, english = (read(folder / f"{split}.jsonl") for folder in (tmp_path, tmp_path / "english"))
        assert len(texts) == len(english) == number
        for text, translation in zip(texts, english, strict=True):
            [own] = re.findall("^第(.)个$", text, re.MULTILINE)
            assert translation.splitlines()[-2:] == [f"The {own}.", f"After {own}"]


def test_what_is_on_several_pages_is_kept_once_and_so_never_in_both_splits(tmp_path, write_help):
    chinese.make(write_help(many_pages(60)), "zh-CN", tmp_path)
    paragraphs = [
        paragraph
        for split in ("train", "valid")
        for text in read(tmp_path / f"{split}.jsonl")
        for paragraph in text.split("\n")
    ]
    assert len(paragraphs) == len(set(paragraphs)) == 2 * 60 + 1


@pytest.mark.parametrize(
    "text, english, is_kept",
    [
        ("第 2 行。", "Row B", False),  # as one before but for a digit
        ("第二列", "row 7!", False),  # as one before in English, but for the sign
        ("3 + 4", "3 + 5", False),  # no word
        ("3 + 4", "Three", False),
        ("Writer", "WRITER", False),  # left in English
        ("第二行。", "Row two", True),
    ],
)
def test_paragraphs_are_told_apart_by_their_letters(text, english, is_kept):
    pages = ({"p1": "第 1 行。", "p2": text}, {"p1": "Row 1", "p2": english})
    first = ("第 1 行。", "Row 1")
    assert chinese.translated(*pages, set()) == ([first, (text, english)] if is_kept else [first])


def test_the_same_pages_make_the_same_files(tmp_path, write_help):
    help_folder = write_help(many_pages(40))
    for folder in ("one", "two"):
        chinese.make(help_folder, "zh-CN", tmp_path / folder)
    for name in ("train.jsonl", "valid.jsonl", "english/train.jsonl", "english/valid.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_without_the_language_or_without_translations_is_refused(tmp_path, write_help):
    help_folder = write_help({"a.html": [CODE], "b.html": [CODE]})
    with pytest.raises(UserError, match="there is no folder ja in it"):
        chinese.main(["make", "--help_folder", str(help_folder), "--language", "ja", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="too few of its pages"):
        chinese.main(["make", "--help_folder", str(help_folder), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"chinese\.py make --out"):
        chinese.main(["vocabularies", "--data", str(tmp_path / "out")])


@pytest.fixture
def data(tmp_path):
    """A text to learn from and one held out: 7 and 3 characters of three bytes, and a line end."""
    texts = {"train": ["打开文件打开文件打开文件。"], "valid": ["打开\n文件", "打"]}
    for split, documents in texts.items():
        chinese.write_texts(tmp_path / f"{split}.jsonl", documents)
    return tmp_path


def test_lengths_in_tokens_are_those_of_the_held_out_text(data, capsys):
    capsys.readouterr()
    chinese.main(["vocabularies", "--data", str(data), "--sizes", "257", "261", "--patterns", "gpt2"])
    _, only_bytes, merged = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert only_bytes == ["gpt2", "257", "1.00", f"{16 / 6:.2f}"]
    assert merged[:2] == ["gpt2", "261"] and float(merged[2]) > 1.2
    assert float(merged[2]) * float(merged[3]) == pytest.approx(16 / 6, rel=0.01)


def test_a_model_that_knows_nothing_needs_as_many_bits_as_its_vocabulary_has(data, capsys, monkeypatch):
    tokenizer = Tokenizer([])
    model = tiny_model(tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save_description(data / "model", model.config, tokenizer)
    save_weights(data / "model", model)
    capsys.readouterr()
    chinese.main(["score", str(data / "model"), "--data", str(data), "--number", "4", "--shown", "0"])
    bits = 17 * math.log2(257)  # 16 bytes and the <|endoftext|> between the two pages; the one before them is given
    expected = f"{bits / 16:.3f} bits per byte, {bits / 6:.3f} per character, {bits / 2:,.0f} per page"
    printed = capsys.readouterr().out
    assert expected in printed
    assert re.search(r"4 pages written, (\d+) characters, (\d+) of them broken", printed)


def test_broken_characters_and_repeated_sentences_are_counted(data, capsys, monkeypatch, model_folder):
    chinese.write_texts(data / "train.jsonl", ["这是一个很长的句子还要长。另一个句子没有写"])
    pages = ["这是一个很长的句子还要长！新的句子在这里没有见过。短", "新的\ufffd句子在这里没有见过\n开始又断"]

    def stream(model, tokenizer, prompts, **settings):
        assert prompts == ["", ""] and settings["seed"] == 5
        yield [page[:3] for page in pages]
        yield [page[3:] for page in pages]
        yield ["", "\ufffd"]  # was cut within a character

    monkeypatch.setattr(streams, "stream_texts", stream)
    capsys.readouterr()
    chinese.main(["score", str(model_folder), "--data", str(data), "--number", "2", "--shown", "1", "--seed", "5"])
    printed = capsys.readouterr().out
    assert pages[0] in printed and pages[1] not in printed
    counted = f"{sum(map(len, pages))} characters, 1 of them broken; 3 different sentences, 33% of them in the text"
    assert f"2 pages written, {counted}" in printed

"""data/recipes/translation.py on catalogues of a few messages, written here: read beside Python's gettext, cleaned, split."""

import gettext
import importlib.util
import io
import itertools
import json
import random
import re
import struct
import sys

import pytest
from helpers import ROOT

from alilama.common.errors import UserError

spec = importlib.util.spec_from_file_location("recipe_translation", ROOT / "data" / "recipes" / "translation.py")
translation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(translation)

HEADER = "Content-Type: text/plain; charset={}\nPlural-Forms: nplurals=2; plural=(n != 1);\n"
MESSAGES = {
    "Open file": "Datei öffnen",
    "menu\x04Open": "Öffnen",
    "%d file\0%d files": "%d Datei\0%d Dateien",
    'He said "no"\\\tand\nleft': 'Er sagte "nein"\\\tund\nging',
}


def write_mo(path, messages: dict[str, str], order: str = "<", encoding: str = "utf-8"):
    """Writes a compiled catalogue as the manual of gettext describes it."""
    entries = sorted((english.encode(encoding), other.encode(encoding)) for english, other in messages.items())
    entries.insert(0, (b"", HEADER.format(encoding).encode()))
    number, texts = len(entries), b""
    start = 28 + 16 * number
    tables = ([], [])
    for table, strings in zip(tables, zip(*entries, strict=True), strict=True):
        for string in strings:
            table += [len(string), start + len(texts)]
            texts += string + b"\0"
    header = [0x950412DE, 0, number, 28, 28 + 8 * number, 0, 28]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f"{order}{7 + 4 * number}I", *header, *tables[0], *tables[1]) + texts)
    return path


def write_po(path, body: str, encoding: str = "utf-8"):
    header = "".join(f'"{line}\\n"\n' for line in HEADER.format(encoding).splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f'# A comment\nmsgid ""\nmsgstr ""\n{header}\n{body}'.encode(encoding))
    return path


# ---- reading ----


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_a_compiled_catalogue_is_read_as_gettext_reads_it(tmp_path, order, encoding):
    path = write_mo(tmp_path / "de.mo", MESSAGES, order, encoding)
    known = gettext.GNUTranslations(io.BytesIO(path.read_bytes()))
    found = list(translation.read_catalogue(path))
    plain = {english: other for english, other in found if english in ("Open file", 'He said "no"\\\tand\nleft')}
    assert len(found) == len(MESSAGES) and len(plain) == 2
    assert all(known.gettext(english) == other for english, other in plain.items())
    assert ("Open", known.pgettext("menu", "Open")) in found
    assert ("%d file", known.ngettext("%d file", "%d files", 1)) in found


def test_the_source_of_a_catalogue_is_read_as_what_it_compiles_to(tmp_path):
    body = r"""
#: main.c:12
msgid "Open file"
msgstr "Datei öffnen"

msgctxt "menu"
msgid "Open"
msgstr "Öffnen"

#, c-format
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

msgid ""
"He said \"no\"\\\t"
"and\n"
"left"
msgstr "Er sagte \"nein\"\\\tund\nging"

#, c-format, fuzzy
#| msgid "Save"
msgid "Save all"
msgstr "Speichern"

#~ msgid "Old"
#~ msgstr "Alt"
"""
    source, compiled = write_po(tmp_path / "de.po", body), write_mo(tmp_path / "de.mo", MESSAGES)
    assert sorted(translation.read_catalogue(source)) == sorted(translation.read_catalogue(compiled))
    latin = write_po(tmp_path / "latin.po", body, "iso-8859-1")
    assert list(translation.read_catalogue(latin)) == list(translation.read_catalogue(source))


@pytest.mark.parametrize("content", [b"", b"no catalogue at all, but a longer text", b"\xde\x12\x04\x95" + b"\xff" * 40])
def test_a_damaged_catalogue_is_named(tmp_path, content):
    (tmp_path / "git.mo").write_bytes(content)
    with pytest.raises(UserError, match=r"git.mo is damaged, or no message catalogue \(.+\); leave it out"):
        list(translation.read_catalogue(tmp_path / "git.mo"))


def test_catalogues_of_one_language_are_found_and_lists_of_names_left_out(tmp_path):
    for name in (
        "de/LC_MESSAGES/git.mo",
        "vim/de/vim.mo",
        "po/de.po",
        "de_AT/LC_MESSAGES/git.mo",
        "fr/LC_MESSAGES/git.mo",
        "de/LC_MESSAGES/iso_639-3.mo",
        "de/notes.txt",
    ):
        write_mo(tmp_path / name, {})
    found = [str(path.relative_to(tmp_path)) for path in translation.find_catalogues(tmp_path, "de")]
    assert found == ["de/LC_MESSAGES/git.mo", "po/de.po", "vim/de/vim.mo"]
    with pytest.raises(UserError, match=r"no message catalogues .* in 'tlh'"):
        translation.find_catalogues(tmp_path, "tlh")


# ---- cleaning ----


@pytest.mark.parametrize(
    "english, german, cleaned",
    [
        ("_Save", "_Speichern", ("Save", "Speichern")),
        ("E_xit now", "Jetzt bee_nden", ("Exit now", "Jetzt beenden")),
        ("Save &As...", "Speichern &unter ...", ("Save As...", "Speichern unter ...")),
        ("&Move", "Bewegen", ("Move", "Bewegen")),
        ("_Files & folders", "_Dateien & Ordner", ("Files & folders", "Dateien & Ordner")),
        ("LC_ALL is not set", "LC_ALL ist nicht gesetzt", ("LC_ALL is not set", "LC_ALL ist nicht gesetzt")),
        ("a_b and c_d", "c_d und a_b", ("a_b and c_d", "c_d und a_b")),
        ("one_two, three_four", "eins_zwei, drei_vier", ("one_two, three_four", "eins_zwei, drei_vier")),
        ("Save &amp; quit", "Speichern &amp; beenden", ("Save &amp; quit", "Speichern &amp; beenden")),
        ("Save(_S)", "保存(_S)", ("Save", "保存")),
        ("one\n  two\t", " eins zwei\n", ("one two", "eins zwei")),
        ("&lt;b&gt; is bold", "&lt;b&gt; ist fett", ("&lt;b&gt; is bold", "&lt;b&gt; ist fett")),
    ],
)
def test_marks_of_keys_go_and_names_stay(english, german, cleaned):
    assert (translation.clean(english, german), translation.clean(german, english)) == cleaned


@pytest.mark.parametrize(
    "english, german, is_usable",
    [
        ("Open file", "Datei öffnen", True),
        ("OK", "OK", False),
        ("%s: 12", "%s – 12", False),  # no letters
        ("Open", "…", False),
        ("%s of %d", "%s von %d", True),
        ("%s of %d", "%d von %s", True),
        ("%s of %d", "%2$d von %1$s", True),
        ("%s of %d", "%s von", False),
        ("%s of %d", "%s von %s", False),
        ("%1 files in %2", "In %2 sind %1 Dateien", True),
        ("{name} left", "{name} ging", True),
        ("{name} left", "{nom} ging", False),
        ("%(age)s years", "%(age)s Jahre", True),
        ("<b>Bold</b>", "<b>Fett</b>", True),
        ("<b>Bold</b>", "Fett", False),
        ("100% of it", "100% davon", True),
        ("a " * 99 + "bc", "x", True),
        ("a " * 99 + "bcd", "x", False),
        ("x", "a " * 99 + "bcd", False),
    ],
)
def test_pairs_are_kept_that_say_the_same_with_the_same_placeholders(english, german, is_usable):
    assert translation.is_usable(english, german) == is_usable


def test_each_message_is_there_once_with_its_most_frequent_translation():
    pairs = [
        ("Open file", "Öffne Datei"),
        ("Open file", "Datei öffnen"),
        ("_Open file", "_Datei öffnen"),
        ("OPEN FILE 2!", "DATEI 2 ÖFFNEN!"),
        ("calendar|Islamic", "Islamisch"),
        ("a|b", "c|d"),
        ("Open file", "Open file"),
    ]
    expected = [("Open file", "Datei öffnen"), ("Islamic", "Islamisch"), ("a|b", "c|d")]
    assert translation.choose_pairs(iter(pairs)) == expected


# ---- the split, and the files ----


def some_pairs() -> list[tuple[str, str]]:
    words = ["open", "close", "save", "print", "file", "folder", "page", "window"]
    return [(" ".join(chosen), " ".join(chosen).upper() + "!") for chosen in itertools.permutations(words, 3)]


def test_messages_of_the_same_words_are_on_one_side_and_the_order_of_the_catalogues_does_not_matter(monkeypatch):
    monkeypatch.setattr(translation, "HELD_OUT", 20)
    pairs = some_pairs()  # each three words in six orders
    train, valid = translation.split(pairs)
    assert len(valid) == 20 and len(train) == len(pairs) - 6 * 20

    def words(rows):
        return {frozenset(english.split()) for english, _ in rows}

    assert len(words(valid)) == 20 and not words(train) & words(valid)
    random.Random(1).shuffle(pairs)
    again = translation.split(pairs)
    assert sorted(again[0]) == sorted(train) and words(again[1]) == words(valid)


def test_catalogues_become_rows_of_prompt_and_completion(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(translation, "HELD_OUT", 10)
    write_mo(tmp_path / "locale/de/LC_MESSAGES/a.mo", dict(some_pairs()[:100]) | {"OK": "OK"})
    write_mo(tmp_path / "locale/de/LC_MESSAGES/b.mo", dict(some_pairs()[50:]) | {"%s": "%d"})
    files = []
    for out in ("one", "two"):
        translation.main(["make", "--locale", str(tmp_path / "locale"), "--language", "de", "--out", str(tmp_path / out)])
        files.append([(tmp_path / out / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "valid")])
    assert files[0] == files[1]
    rows = [json.loads(line) for file in files[0] for line in file.splitlines()]
    assert all(row["prompt"].upper() + "!" == row["completion"] and len(row) == 2 for row in rows)
    assert len(rows) == len({row["prompt"] for row in rows}) > 250
    assert len(files[0][1].splitlines()) == 10
    assert "from 2 catalogues" in capsys.readouterr().out


def test_too_few_messages_are_refused_and_nothing_is_written(tmp_path):
    write_mo(tmp_path / "de/a.mo", MESSAGES)
    with pytest.raises(UserError, match=r"has 4 messages in 'de' that can be used, and 500 are held out"):
        translation.main(["make", "--locale", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


# ---- score ----


def test_the_nearest_message_is_the_one_that_shares_most_trigrams():
    train = some_pairs()[::3]
    texts = tuple(english[1:-2] + "x" for english, _ in some_pairs()[1::7])

    def dice(one: str, other: str) -> float:
        grams = [{"".join(gram) for gram in zip(*(f"  {text} "[at:] for at in range(3)))} for text in (one, other)]  # noqa: B905
        return 2 * len(grams[0] & grams[1]) / sum(map(len, grams))

    expected = [max(train, key=lambda pair: dice(pair[0], text))[1] for text in texts]
    assert translation.nearest_translations(train, texts) == expected


@pytest.fixture
def data(tmp_path):
    rows = {"train": some_pairs()[30:], "valid": some_pairs()[:30]}
    for name, pairs in rows.items():
        lines = [json.dumps({"prompt": english, "completion": other}) for english, other in pairs]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_table_says_who_is_right(data, monkeypatch, capsys):
    pytest.importorskip("sacrebleu")
    known = dict(some_pairs())
    monkeypatch.setattr(translation, "translate", lambda folder, texts: [known[text] for text in texts])
    translation.main(["score", "models/mine", "--data", str(data)])
    printed = capsys.readouterr().out
    scores = {name: numbers for name, *numbers in re.findall(r"^(\S.*?) {2,}(\d+\.\d\d) +(\d+)$", printed, re.MULTILINE)}
    assert scores["mine"] == ["100.00", "30"]
    assert scores["the English, copied"][1] == "0" and float(scores["the English, copied"][0]) < 50
    assert len(scores) == 3 and "nrefs:1" in printed
    english, other = some_pairs()[0]
    assert f"{english}\n    {other}\n    [{other}]\n" in printed


def test_without_sacrebleu_the_message_says_how_to_get_it(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(UserError, match="pip install sacrebleu"):
        translation.main(["score", "models/mine", "--data", str(data)])


def test_missing_rows_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"train.jsonl is missing: run translation.py make"):
        translation.read_rows(tmp_path / "train.jsonl")


def test_a_row_ends_where_its_line_does_whatever_is_in_it(tmp_path):
    row = {"prompt": "One\u2028two\x85", "completion": "Eins\u2029\nzwei"}
    (tmp_path / "rows.jsonl").write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode())
    assert translation.read_rows(tmp_path / "rows.jsonl") == [(row["prompt"], row["completion"])]


def test_a_model_translates_each_text_as_it_would_alone(model_folder, monkeypatch):
    monkeypatch.setattr(translation, "MAX_LETTERS", 10)
    texts = ("Open file", "Lily", "The dog ran home")
    together = translation.translate(model_folder, texts)
    assert together == [translation.translate(model_folder, (text,))[0] for text in texts] and len(set(together)) == 3

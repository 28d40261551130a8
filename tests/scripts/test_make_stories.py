"""The demo stories: the same for the same seed, as long as asked for, and free of the slips that templates make."""

import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
import make_stories
from make_stories import GRAMMAR, SEPARATOR, Grammar, Rule, Story, main, write_stories

STORIES_PER_PLOT = 25


def tell(plot: Rule, seed: int) -> Story:
    return Story(random.Random(seed), plot)


@pytest.fixture(scope="module")
def stories() -> list[tuple[str, Story]]:
    """Some stories of every plot, as (name, story)."""
    return [(name, tell(plot, seed)) for name, plot in GRAMMAR.plots.items() for seed in range(STORIES_PER_PLOT)]


def offenders(stories, pattern: str) -> list[str]:
    """Returns plot and surroundings of what matches in the stories."""
    return [f"{name}: {match.group()!r}" for name, story in stories for match in re.finditer(pattern, story.text())]


# ---- the file ----


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        write_stories(tmp_path / name, 0.05, seed)
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other


def test_only_the_stable_method_of_random_is_used(tmp_path, monkeypatch):
    """Python promises the sequence of random() for a seed, but not that of choice, sample, randrange or shuffle."""
    for name in ("choice", "choices", "sample", "shuffle", "randrange", "randint", "getrandbits", "_randbelow"):
        monkeypatch.setattr(random.Random, name, None)
    write_stories(tmp_path / "stories.txt", 0.05, seed=1)


@pytest.mark.parametrize("megabytes", [0.000001, 0.01, 0.3])
def test_the_file_is_as_long_as_asked_for_within_one_story(tmp_path, megabytes):
    path = tmp_path / "stories.txt"
    write_stories(path, megabytes, seed=1)
    last = path.read_text(encoding="ascii").split(f"{SEPARATOR}\n")[-1]
    assert megabytes * 1e6 <= path.stat().st_size < megabytes * 1e6 + len(last) + len(SEPARATOR) + 2


def test_documents_are_separated_by_a_line_of_their_own_and_none_is_empty(tmp_path):
    path = tmp_path / "stories.txt"
    write_stories(path, 0.1, seed=1)
    documents = path.read_bytes().decode("ascii").removesuffix("\n").split(f"\n{SEPARATOR}\n")
    assert len(documents) > 50
    assert not any(SEPARATOR in text or "\n\n" in text or text != text.strip() for text in documents)
    assert len(set(documents)) == len(documents)


def test_an_interrupted_run_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "stories.txt"
    path.write_text("what was there before")
    told = []

    def interrupted(rng):
        if len(told) == 3:
            raise KeyboardInterrupt
        told.append(tell(GRAMMAR.plots["the race"], 1))
        return told[-1]

    monkeypatch.setattr(make_stories, "make_story", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_stories(path, 1, seed=1)
    with pytest.raises(SystemExit, match="interrupted"):
        main([f"--out={path}"])
    assert path.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("args", [["--megabytes=0"], ["--megabytes=-1"], ["--megabytes=nan"], ["--megabytes=inf"]])
def test_an_impossible_size_is_refused_in_one_line_and_writes_nothing(tmp_path, args):
    with pytest.raises(SystemExit) as error:
        main([*args, f"--out={tmp_path / 'stories.txt'}"])
    assert re.fullmatch(r"make_stories\.py: megabytes is \S+; give a number above 0, such as 8", str(error.value))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"make_stories\.py: .*file") as error:
        main(["--megabytes=0.001", f"--out={tmp_path / 'file' / 'stories.txt'}"])
    assert "\n" not in str(error.value)


def test_the_command_line_writes_what_write_stories_writes(tmp_path, capsys):
    main(["--megabytes=0.02", "--seed=3", f"--out={tmp_path / 'new' / 'one.txt'}"])
    write_stories(tmp_path / "two.txt", 0.02, 3)
    assert (tmp_path / "new" / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()
    assert "0.0 MB of stories" in capsys.readouterr().out


# ---- the stories ----


def test_the_plot_in_the_module_docstring_works():
    lines = make_stories.__doc__.split("there:\n\n")[1].split("\n\nThe same seed")[0]
    plots = Grammar(re.sub("^    ", "", lines, flags=re.MULTILINE)).plots
    story = tell(plots["the hiccups"], 1)
    assert story.cast["hero"]["name"] in story.text() and story.cast["friend"]["name"] in story.text()
    assert len(story.paragraphs) == 3 and "hiccup" in story.text()


def test_every_plot_is_told_about_equally_often(monkeypatch):
    told = Counter()
    monkeypatch.setattr(make_stories, "Story", lambda rng, plot: told.update([str(plot)]))
    rng, num_plots = random.Random(1), len(GRAMMAR.plots)
    for _ in range(100 * num_plots):
        make_stories.make_story(rng)
    assert len(told) == num_plots >= 15
    assert min(told.values()) > 50 and max(told.values()) < 200


def test_a_plot_seldom_repeats_itself():
    """Two tellings of one plot share some sentences, but never most of them."""
    for name, plot in GRAMMAR.plots.items():
        one, two = (set(re.findall(r"[^.!?]+[.!?]", tell(plot, seed).text())) for seed in (1, 2))
        assert len(one & two) < 0.5 * len(one), name


def test_a_story_names_nobody_but_its_cast_whom_it_introduces_at_once(stories):
    """So a small model can keep to the cast; a new friend or a grown-up may come in the second paragraph."""
    everybody = {name for row in GRAMMAR.tables["company"] for name in row.values()}
    for name, story in stories:
        cast = {who["name"] for who in story.cast.values()}
        named = {who for who in everybody if re.search(rf"\b{who}\b", story.text())}
        assert named <= cast and len(named) == 2, f"{name}: {story.text()}"
        assert all(re.search(rf"\b{who}\b", "\n".join(story.paragraphs[:2])) for who in named), f"{name}: {story.text()}"


def test_every_word_table_and_rule_is_used():
    """A slot that nothing fills raises KeyError in the stories; what no slot asks for is dead."""
    text = (Path(make_stories.__file__).with_name("stories.grammar")).read_text(encoding="ascii").lower()
    slots = {re.sub(r"\d*(\..*)?$", "", slot.split(" ")[0]) for slot in re.findall(r"\{([^}]*)\}", text)}
    of_the_cast = {"gender", "kind", "company"}
    assert (GRAMMAR.tables.keys() | GRAMMAR.rules.keys()) - slots == of_the_cast - slots


def test_stories_have_60_to_160_words_in_a_few_paragraphs(stories):
    for name, story in stories:
        assert 60 <= len(story.text().split()) <= 160, name
        assert 3 <= len(story.paragraphs) <= 7, name


def test_paragraphs_begin_with_a_capital_and_end_with_a_full_stop(stories):
    for name, story in stories:
        for paragraph in story.paragraphs:
            assert re.match(r'"?[A-Z]', paragraph) and re.search(r'[.!?]"?$', paragraph), f"{name}: {paragraph}"


def test_text_is_plain_ascii_without_unfilled_slots(stories):
    assert not offenders(stories, r"[^\n -~]|  |[{}<>\[\]()_]|\bNone\b| \n|\n | [.,!?]|\.\.|,\.|[!?],|[.!?]\w")


def test_sentences_begin_with_a_capital(stories):
    assert not offenders(stories, r'[.!?] "?[a-z]\w*|\." [a-z]\w*')  # "Yes," said Tom. but not: "Yes." said Tom.


def test_quotes_are_balanced_and_filled_in_every_paragraph(stories):
    for name, story in stories:
        for paragraph in story.paragraphs:
            assert paragraph.count('"') % 2 == 0, f"{name}: {paragraph}"
            for spoken in re.findall(r'"([^"]*)"', paragraph):
                assert re.fullmatch(r"[A-Z].*[.,!?]", spoken), f"{name}: {spoken!r}"


def test_a_and_an_fit_the_next_word(stories):
    assert not offenders(stories, r"\b[Aa] (?!one\b|useful)[aeiouAEIOU]\w*|\b[Aa]n (?!hour\b)[^aeiouAEIOU\W]\w*")
    assert any("an " in story.text() for _, story in stories)


def test_words_are_not_doubled(stories):
    assert not offenders(stories, r"\b(?!had\b|that\b|again\b)([a-z]+) \1\b")


def test_the_hero_is_named_in_the_first_paragraph_and_in_the_second_half(stories):
    for name, story in stories:
        text = story.text()
        assert story.cast["hero"]["name"] in story.paragraphs[0], name
        assert story.cast["hero"]["name"] in text[len(text) // 2 :], name


def test_nobody_is_called_she_or_he_who_is_not_in_the_story(stories):
    """Pronouns outside of speech need somebody in the text whom they can mean."""
    for name, story in stories:
        text = re.sub(r'"[^"]*"', "", story.text())
        present = {who["he"] for who in story.cast.values() if re.search(rf"\b{who['name']}\b", text)}
        if "she" not in present:
            assert not re.findall(r"\b(?:she|her|herself)\b", text, re.IGNORECASE), f"{name}: {text}"
        if "he" not in present:
            assert not re.findall(r"\b(?:he|him|his|himself)\b", text, re.IGNORECASE), f"{name}: {text}"


def test_names_in_the_cast_are_all_different(stories):
    for name, story in stories:
        names = [who["name"] for who in story.cast.values()]
        assert len(set(names)) == len(names), f"{name}: {names}"


def test_animals_have_paws_and_children_have_hands(stories):
    for name, story in stories:
        wrong = r"\b(?:hand|hands|finger|fingers)\b" if story.cast["hero"]["hand"] == "paw" else r"\bpaws?\b"
        assert not re.search(wrong, story.text()), f"{name}: {story.text()}"

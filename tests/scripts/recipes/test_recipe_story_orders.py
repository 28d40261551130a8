"""data/recipes/story_orders.py on stories of a few sentences: what is asked for, how an end is told, and what is counted."""

import importlib.util
import json
import random
import re
from collections import Counter

import pytest
from helpers import ROOT

from alilama import _bpe
from alilama.common.errors import UserError

spec = importlib.util.spec_from_file_location("recipe_story_orders", ROOT / "data" / "recipes" / "story_orders.py")
story_orders = importlib.util.module_from_spec(spec)
spec.loader.exec_module(story_orders)

THINGS = [
    "ball",
    "kite",
    "lamp",
    "stone",
    "flower",
    "cake",
    "drum",
    "boat",
    "hat",
    "spoon",
    "coat",
    "lake",
    "pond",
    "tent",
    "rope",
]
NAMES = ["Tommy", "Lilian", "Benny", "Mister-man", "Rosie's", "Spotty"]
FUNCTION_WORDS = ["very", "too", "not", "almost", "even", "still"]
END_SENTENCES = ["He was happy.", "He cried and was alone.", "He learned to share.", "It rained."]
SEPARATOR = "\n<|endoftext|>\n"


def some_stories(number: int, seed: int) -> list[str]:
    """Stories that differ in a word that no other has."""
    rng = random.Random(seed)
    return [
        f"Then {rng.choice(NAMES)} saw the {rng.choice(THINGS)} of {seed * 'x'}{letters(i)} there. "
        f"They had two {rng.choice(THINGS)}s and a {rng.choice(THINGS)} with them. "
        f"It was {rng.choice(FUNCTION_WORDS)} late now. {rng.choice(END_SENTENCES)}"
        for i in range(number)
    ]


def letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:04}")


@pytest.fixture
def make(tmp_path):
    """Makes rows of two lists of stories, and returns those of train.jsonl and of valid.jsonl."""

    def make_rows(stories: list[str], valid: list[str], out: str = "out") -> tuple[list[dict], list[dict]]:
        for name, texts in (("stories", stories), ("valid", valid)):
            (tmp_path / f"{name}.txt").write_text(SEPARATOR.join(texts) + "\n", encoding="utf-8")
        paths = [str(tmp_path / name) for name in ("stories.txt", "valid.txt", out)]
        story_orders.main(["make", "--stories", paths[0], "--valid", paths[1], "--out", paths[2]])
        files = (tmp_path / out / f"{name}.jsonl" for name in ("train", "valid"))
        return tuple([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)

    return make_rows


# ---- make ----


def test_orders_ask_for_words_that_are_in_the_story_and_neither_too_rare_nor_too_frequent(make):
    stories = some_stories(1500, 1) + [f"A zebra and a {thing} danced." for thing in THINGS]
    train, _ = make(stories, some_stories(30, 2))
    assert [row["completion"] for row in train] == stories
    asked = Counter()
    for row in train:
        words, _ = story_orders.parse_order(row["prompt"])
        assert 1 <= len(words) <= 4 and len(set(words)) == len(words)
        assert all(re.search(rf"\b{word}\b", row["completion"]) for word in words)
        asked.update(words)
    plurals = {f"{thing}s" for thing in THINGS}
    assert asked.keys() == {*THINGS, *plurals, "zebra", "danced", "almost"} | (
        asked.keys() & {"cried", "alone", "learned", "share"}
    )


def test_words_are_asked_for_in_any_order_and_number():
    rng = random.Random(3)
    story = "The drum, the kite and the lamp were in a boat."
    orders = Counter(story_orders.make_order(story, {"drum", "kite", "lamp", "boat"}, rng) for _ in range(4000))
    sizes = Counter()
    for order, count in orders.items():
        sizes[len(story_orders.parse_order(order)[0])] += count
    assert len(orders) == 4 + 4 * 3 + 4 * 3 * 2 + 24  # every choice of every size in every order
    assert all(abs(sizes[size] / 4000 - 1 / 4) < 0.04 for size in (1, 2, 3, 4))
    assert story_orders.make_order("Nothing of that.", {"drum"}, rng) is None


def test_a_happy_end_is_asked_for_half_of_the_time_another_one_always_and_one_in_doubt_never():
    rng = random.Random(4)
    for end, share in (("He was happy.", 0.5), ("He cried.", 1), ("He learned it.", 1), ("It rained.", 0)):
        orders = [story_orders.make_order(f"A drum. And more. {end}", {"drum"}, rng) for _ in range(1000)]
        assert abs(sum("; end: " in order for order in orders) / 1000 - share) <= 0.05 * (0 < share < 1)


@pytest.mark.parametrize("order", ["words: cake", "words: cake, kite, drum; end: sad", "words: end; end: lesson"])
def test_an_order_is_read_as_it_was_written(order):
    assert story_orders.order_text(*story_orders.parse_order(order)) == order


@pytest.mark.parametrize(
    "sentences, end",
    [
        ("They laughed. They went home.", "happy"),
        ("They were happy. They went home. It rained.", None),  # two sentences before the last
        ("She died. He cried.", "sad"),
        ("He was sad. Then they laughed.", None),  # both
        ("She was not sad anymore. She went home.", None),
        ("He learned to wait. He was happy.", "lesson"),
        ("The moral of this story is to wait.", "lesson"),
        ("They all smiled! They went home. The End.", "happy"),  # "The end" is no sentence
        ('"That was fun," he said. "Yes!"\nThe end', "happy"),
        ('He laughed. "No!" he said.', "happy"),  # which is one sentence
        ("She was unhappy and a bestiary fell.", None),  # whole words only
        ("", None),
    ],
)
def test_how_a_story_ends_is_told_by_its_last_two_sentences(sentences, end):
    assert story_orders.end_of(f"There was a cat. {sentences}") == end


def test_no_story_that_is_held_out_is_trained_on_however_it_is_printed(make):
    held_out = some_stories(40, 5)
    copies = [held_out[0], held_out[1].upper(), held_out[2].replace(". ", "!\n"), f"\n {held_out[3]} \n"]
    train, valid = make([*some_stories(400, 6), *copies], held_out)
    assert len(train) == 400 and len(valid) == 40

    def bare(row):
        return re.sub(r"\W+", "", row["completion"]).lower()

    assert not set(map(bare, train)) & set(map(bare, valid))


def test_the_same_stories_make_the_same_files(make, tmp_path):
    for out in ("one", "two"):
        make(some_stories(200, 7), some_stories(20, 8), out)
    assert (tmp_path / "one/train.jsonl").read_bytes() == (tmp_path / "two/train.jsonl").read_bytes()
    assert (tmp_path / "one/valid.jsonl").read_bytes() == (tmp_path / "two/valid.jsonl").read_bytes()


def test_stories_are_read_as_tokenize_data_reads_them(tmp_path):
    text = "“Hi”, she said.\n\nTwo\n<|endoftext|>\nA <|endoftext|> B\n<|endoftext|>\n<|endoftext|>\nC\n<|endoftext|>\n"
    (tmp_path / "stories.txt").write_text(text, encoding="utf-8")
    expected = [story.decode().strip() for story in _bpe.split_documents(text.encode())]
    assert list(story_orders.read_stories(tmp_path / "stories.txt")) == [story for story in expected if story]


def test_what_no_orders_can_be_made_of_is_refused_and_nothing_is_written(make, tmp_path):
    with pytest.raises(UserError, match=r"valid.txt holds no story"):
        make(some_stories(20, 1), [])
    with pytest.raises(UserError, match=r"stories.txt has no words to ask for in 3 stories"):
        make(["They were there."] * 3, some_stories(20, 1))
    assert not (tmp_path / "out").exists()


# ---- score ----


def test_words_have_a_stem_in_common_with_their_inflections_only():
    families = [
        *("cake cakes", "fly flies flying", "run runs running", "happy happily", "kiss kisses kissed kissing"),
        *("jump jumps jumped jumping", "bake baked baking", "try tries tried trying", "stop stopped stopping", "dress dresses"),
        *("quick quickly", "dance danced dancing", "thing things", "king kings", "red reds", "bee bees", "sing singing"),
    ]
    stems = [{story_orders.stem(word) for word in family.split()} for family in families]
    assert all(len(stem) == 1 for stem in stems)
    assert len(set.union(*stems)) == len(families)


def test_shares_are_of_words_and_of_stories_with_all_of_them():
    asked = [["cake", "dance", "fly"], ["kite", "red", "sun"]]
    stories = ["A Cake! They danced and flew.", "The red kite, in the sun."]
    assert story_orders.shares_found(asked, stories, str) == (pytest.approx(400 / 6), 50)  # cake, kite, red, sun
    assert story_orders.shares_found(asked, stories, story_orders.stem) == (pytest.approx(500 / 6), 50)
    assert story_orders.shares_found([["art", "cake"]], ["The party had a pancake."], str) == (0, 0)


def table(text: str) -> dict[str, list[float]]:
    """The numbers of each line of the printed table, by its name."""
    rows = re.findall(r"^(.+?) {2,}([\d. ]+)$", text, re.MULTILINE)
    return {name: [float(number) for number in numbers.split()] for name, numbers in rows}


def test_the_table_tells_who_writes_what_is_asked_for(make, tmp_path, monkeypatch, capsys):
    _, valid = make(some_stories(400, 1), some_stories(60, 2))
    asked_for_three = [row["prompt"].split(";")[0] for row in valid if row["prompt"].count(",") == 2]
    sentences = {"happy": "He was happy.", "sad": "He cried.", "lesson": "He learned it.", None: "It rained."}
    prompts_of = {}

    def write(folder, prompts):
        prompts_of.setdefault(folder.name, []).append(prompts)
        if folder.name == "plain":
            return ["There was nothing. It rained."] * len(prompts)
        orders = map(story_orders.parse_order, prompts)
        return [f"A story. Of {' and '.join(words[:-1])}, {words[-1]}. {sentences[end]}" for words, end in orders]

    monkeypatch.setattr(story_orders, "write", write)
    story_orders.main(
        ["score", str(tmp_path / "model"), "--data", str(tmp_path / "out"), "--baseline", str(tmp_path / "plain")]
    )
    rows = table(capsys.readouterr().out)
    assert list(rows) == ["plain, given no order", "model, words only", *(f"model, and end: {end}" for end in sentences if end)]
    assert rows["plain, given no order"] == [0, 0, 0, 0, 0, 0, 0]
    assert rows["model, words only"] == [100, 100, 100, 100, 0, 0, 0]
    assert rows["model, and end: sad"] == [100, 100, 100, 100, 0, 100, 0]
    assert rows["model, and end: lesson"] == [100, 100, 100, 100, 0, 0, 100]
    assert prompts_of["plain"] == [["Once upon a time"] * len(asked_for_three)]
    assert prompts_of["model"][0] == asked_for_three
    assert prompts_of["model"][1] == [f"{order}; end: happy" for order in asked_for_three]


def test_a_model_writes_the_same_stories_each_time_whole_and_in_the_order_of_the_prompts(model_folder, monkeypatch):
    monkeypatch.setattr(story_orders, "MAX_TOKENS", 12)
    prompts = ["words: cake", "", "words: kite, drum; end: sad", "Once"]
    stories = story_orders.write(model_folder, prompts)
    assert stories == story_orders.write(model_folder, prompts)
    assert len(stories) == 4 and len(set(stories)) == 4
    monkeypatch.setattr(story_orders, "BATCH", 2)
    assert story_orders.write(model_folder, prompts)[:2] == story_orders.write(model_folder, prompts[:2])
    monkeypatch.setattr(story_orders, "TEMPERATURE", 0)  # greedy: what a prompt gives depends on it alone
    greedy = story_orders.write(model_folder, prompts)
    assert story_orders.write(model_folder, prompts[::-1]) == greedy[::-1]


def test_missing_rows_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"valid.jsonl is missing: run story_orders.py make"):
        story_orders.read_orders(tmp_path / "valid.jsonl")
    (tmp_path / "valid.jsonl").write_text('{"prompt": "words: cake", "completion": "A cake."}\n')
    with pytest.raises(UserError, match="no order of 3 words"):
        story_orders.read_orders(tmp_path / "valid.jsonl")


def test_a_row_ends_where_its_line_does_whatever_is_in_it(tmp_path):
    row = {"prompt": "words: cake, kite, lamp", "completion": "A cake,\u2028a kite,\x85\na lamp."}
    (tmp_path / "rows.jsonl").write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode())
    assert story_orders.read_orders(tmp_path / "rows.jsonl") == [["cake", "kite", "lamp"]]

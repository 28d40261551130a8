"""data/recipes/music.py: bars are counted as they are played, relatives stand on one side, and the figures say what is so."""

import importlib.util
import json
import random
import re
from fractions import Fraction

import pytest
from helpers import ROOT

from alilama.common.errors import UserError

spec = importlib.util.spec_from_file_location("recipe_music", ROOT / "data" / "recipes" / "music.py")
music = importlib.util.module_from_spec(spec)
spec.loader.exec_module(music)

HEAD = "M:4/4\nL:1/8\nK:D\n"
NAMES = "CDEFGABcdefgab"


def lengths(notes: str, head: str = HEAD) -> list[str]:
    """The lengths of all notes, in whole notes."""
    return [str(length) for bar in music.read_bars(head + notes) for _, length in bar.notes]


def full(notes: str, head: str = HEAD) -> str:
    """A digit for each bar: 1 where it adds up."""
    return "".join(str(int(is_full)) for is_full in music.add_up(music.read_bars(head + notes)))


def write_note(length: Fraction, rng: random.Random) -> str:
    """A note of so many eighths, in one of the ways to write it."""
    top, bottom = length.numerator, length.denominator
    ways = [f"{top if top > 1 else ''}{f'/{bottom}' if bottom > 1 else ''}"]
    ways += ["/"] if length == Fraction(1, 2) else []
    ways += ["//"] if length == Fraction(1, 4) else []
    pitch = rng.choice(["", "^", "_", "="]) + rng.choice(NAMES) + rng.choice(["", "", ",", "''"])
    pitch = rng.choice([pitch, pitch, "z", f"[{pitch}{rng.choice(NAMES)}]"])
    return rng.choice(["", "", "{ag}"]) + pitch + rng.choice(ways)


def write_bar(eighths: int, rng: random.Random) -> str:
    """Notes that last so many eighths together, with dotted pairs, triplets and chords among them."""
    notes, left = [], Fraction(eighths)
    while left:
        length = rng.choice([each for each in (1, 2, 3, Fraction(1, 2), Fraction(3, 4), Fraction(1, 4)) if each <= left])
        kind = rng.choice(["note", "pair", "triplet"])
        if kind == "pair" and 2 * length <= left:
            notes.append(write_note(length, rng) + rng.choice(["<", ">", ">>", " > "]).strip() + write_note(length, rng))
            left -= 2 * length
        elif kind == "triplet" and 2 * length <= left:
            notes.append("(3" + "".join(write_note(length, rng) for _ in range(3)))
            left -= 2 * length
        else:
            notes.append(write_note(length, rng))
            left -= length
    return rng.choice(["", " "]).join(notes)


# ---- bars ----


@pytest.mark.parametrize(
    "notes, expected",
    [
        ("A A2 A3/2 A/ A/2 A// A3/ A/4", "1/8 1/4 3/16 1/16 1/16 1/32 3/16 1/32"),
        ("^A,2 __b'' =c", "1/4 1/8 1/8"),
        ("z2A", "1/4 1/8"),
        ("{gf}A2{/e}B", "1/4 1/8"),
        ("[CEG]2 [C2E2]2 [C/E/]", "1/4 1/2 1/16"),
        ("A2-|A2 B-B", "1/4 1/4 1/8 1/8"),
        ("A>B c<d e>>f", "3/16 1/16 1/16 3/16 7/32 1/32"),
        ("A2>B2 [CE]>z", "3/8 1/8 3/16 1/16"),
        ("(3ABc d", "1/12 1/12 1/12 1/8"),
        ("(3A2Bc", "1/6 1/12 1/12"),
        ("(3A>Bc", "1/8 1/24 1/12"),
        ("(3:2:2A2B c", "1/6 1/12 1/8"),
        ("(3::4ABcd e", "1/12 1/12 1/12 1/12 1/8"),
        ("(2AB(4ABcd(5ABcde", " ".join(["3/16"] * 2 + ["3/32"] * 4 + ["1/20"] * 5)),
        ("A\nL:1/16\nA2", "1/8 1/8"),
        ("T:Gavotte\nA\nB:book\nB:|", "1/8 1/8"),
    ],
)
def test_notes_last_as_long_as_the_standard_of_abc_says(notes, expected):
    assert " ".join(lengths(notes)) == expected
    assert not any(bar.is_broken for bar in music.read_bars(HEAD + notes))


def test_five_notes_take_the_time_of_three_where_beats_have_three_eighths():
    assert lengths("(5ABcde", "M:6/8\nL:1/8\nK:D\n") == ["3/40"] * 5


@pytest.mark.parametrize("seed", range(30))
def test_of_bars_made_to_measure_those_add_up_that_were_not_changed(seed):
    rng = random.Random(seed)
    eighths = rng.choice([4, 6, 8, 9])
    bars = [write_bar(eighths, rng) for _ in range(12)]
    changed = rng.sample(range(1, 11), 3)
    for at in changed:
        bars[at] = write_bar(eighths + rng.choice([-1, 1, 2]), rng)
    bars[6] += "\n"
    found = full("|".join(bars), f"M:{eighths}/8\nL:1/8\nK:G\nT:A tune\n")
    assert found == "".join("0" if at in changed else "1" for at in range(12))


@pytest.mark.parametrize(
    "notes, expected",
    [
        ("A2|B8|c6", "111"),  # a pickup, and the end that leaves its time
        ("A2|B8|c6:|", "111"),
        ("A2|B8|c8", "011"),  # a pickup for which no time is left
        ("A2|B8|c5|", "010"),
        ("A8|B6|c2|d8", "1001"),  # a bar cut in two where nothing begins or ends
        ("A8|B6|]c2|d8", "1111"),
        ("A8|B6||c2|d8", "1111"),
        ("|:A2|B8|c6::d2|e8|f6:|", "111111"),
        ("A2|:B8|c6:|", "111"),
        ("|:A2|B8|1c6:|2c4|]", "1110"),
        ("|:A2|B8|[1c6:|[2 c6|]", "1111"),
        ("A8|B7|1c8:|2c8|]", "1011"),  # nothing opens with an eighth
        ("A8||\n|:B8:|\n|| |c8|]", "111"),  # nothing between bar lines is no bar
        ("A8||\n|B2|c8|d6|]", "1111"),  # the second of two lines is as good as the first
        ("A2|B8|c6|\n||d2|e8|f6|]", "111111"),
        ("A8|B6|c8|d2|]", "1010"),
        ("A4|B8|", "01"),  # a pickup does not make up for itself
        ("A8|\nM:3/4\nB6|c8|", "110"),
        ("A4\nM:3/4\nB4|c6|", "11"),  # from the next bar on
    ],
)
def test_short_bars_add_up_in_pairs_at_the_seams_of_a_tune(notes, expected):
    assert full(notes) == expected


@pytest.mark.parametrize(
    "notes", ["A7?|", "A>|", "(3AB|", ">A8|", "A0A8|", "A/0A8|", "[AB|", "(AB)A6|", "{gA8|", "M:?\nA8|", "L:2\nA8|"]
)
def test_what_is_no_abc_makes_its_bar_a_broken_one_which_does_not_add_up(notes):
    bars = music.read_bars(HEAD + "c8|" + notes + "d8|")
    assert [bar.is_broken for bar in (bars[0], bars[1], bars[-1])] == [False, True, len(bars) == 2]
    assert music.add_up(bars)[:2] == [True, False]


def test_music21_finds_as_much_music_and_makes_no_tune_of_what_has_no_meter():
    pytest.importorskip("music21")
    rng = random.Random(1)
    for _ in range(20):
        bars = [write_bar(8, rng).replace("{ag}", "") for _ in range(4)]  # music21 counts grace notes as those of a triplet
        assert music.read_by_music21(f"{HEAD}T:Some tune\n{'|'.join(bars)}|]") == 4
    assert music.read_by_music21(HEAD + "M:?\nA8|") is None


# ---- make ----

SOURCE = """X: 7
T:  The  Frog
T:Another name
M:C| % cut time
Q:1/4=90
K:D Minor % as it is printed
% a comment
"Dm"(A2 .B2) ~c2 uv"4"d2 | !trill!e4 \\
   `(f>g)((3abc') {ef}g2  |
% the second part
P:B
w: words
A8
B4 [K:G Mixolydian] c4 :|

Text between the tunes.
"""
DOCUMENT = "M:2/2\nL:1/8\nK:Dm\nT:The Frog\nA2 B2 c2 d2|e4\nf>g(3abc' {ef}g2|\nA8|\nB4\nK:Gmix\nc4:|"


def write_abc(folder, tunes: list[str]):
    folder.mkdir()
    (folder / "some.abc").write_text("% a book\n\n" + "\n\n".join(f"X:{at}\n{tune}" for at, tune in enumerate(tunes)))
    return folder


def tune_of(steps: list[int], title: str, key: str = "D") -> str:
    """A tune of a note for each step, a bar of four notes each."""
    notes = ["CDEFGAB"[step % 7] + "," * max(0, -(step // 7)) + "'" * max(0, step // 7) for step in steps]
    bars = ["".join(notes[at : at + 4]) for at in range(0, len(notes), 4)]
    return f"T:{title}\nM:2/4\nL:1/8\nK:{key}\n{'|'.join(bars)}|]"


def random_steps(seed: int, number: int = 40) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(-5, 5) for _ in range(number)]


def read(path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_a_tune_keeps_its_notes_and_what_it_can_be_asked_for_by(tmp_path):
    music.make([write_abc(tmp_path / "abc", [SOURCE.partition("\n")[2]])], tmp_path / "out")
    assert read(tmp_path / "out" / "train.jsonl") == [DOCUMENT]


@pytest.mark.parametrize(
    "source, reason",
    [
        ("M:none\nL:1/8\nK:D\nA8|", "without a fixed meter"),
        ("L:1/8\nK:D\nA8|", "without meter or key"),
        ("M:4/4\nL:1/8\nA8|", "without meter or key"),
        ("M:4/4\nL:1/8\nK:Hp\nA8|", "in an unusual key"),
        ("M:4/4\nL:1/8\nK:D\n[V:1]A8|", "in several voices"),
        ("M:4/4\nL:1/8\nK:D\nV:1\nA8|", "in several voices"),
        ("M:4/4\nL:1/8\nK:D\nA8&c8|", "with notes that cannot be read"),
        ("M:4/4\nL:1/8\nK:D\n", "with notes that cannot be read"),
        ("M:4/4\nL:1/8\nK:D\nA4|A4|A4|A8|", "with another meter than they say"),
    ],
)
def test_a_tune_that_cannot_be_used_is_left_out_and_counted(tmp_path, capsys, source, reason):
    music.make([write_abc(tmp_path / "abc", [source, tune_of(random_steps(1), "Other"), source])], tmp_path / "out")
    assert len(read(tmp_path / "out" / "train.jsonl")) == 1
    assert f", 2 {reason}" in capsys.readouterr().out


def test_copies_are_kept_once_and_relatives_stand_on_one_side(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(music, "HELD_OUT", 0.3)
    tunes, families = [], {}

    def add(family: int, *tune):
        families[tune_of(*tune).partition("\n")[0][2:]] = family
        tunes.append(tune_of(*tune))

    for family in range(30):
        steps = random_steps(family)
        add(family, steps, f"Tune {family}")
        add(family, [step + 2 for step in steps], f"Higher {family}", "G")  # in another key
        add(family, random_steps(100 + family, 8) + steps[10:26], f"Quoted {family}")  # 16 notes of it
        add(family, steps[:12] + random_steps(200 + family, 8), f"Opened {family}")
        tunes.append(tune_of(random_steps(300 + family), f"tune  {family}!"))  # another one of that name
        families[f"tune {family}!"] = family
    copies = [tune.replace("T:", "T:Copy of ") for tune in tunes[::50]]
    music.make([write_abc(tmp_path / "abc", copies + tunes)], tmp_path / "out")
    titles = {
        split: [re.search("T:(?:Copy of )?(.*)", tune)[1] for tune in read(tmp_path / "out" / f"{split}.jsonl")]
        for split in ("train", "valid")
    }
    assert sorted(titles["train"] + titles["valid"]) == sorted(families)
    assert len(titles["valid"]) == 45
    sides = [{families[title] for title in titles[split]} for split in ("train", "valid")]
    assert len(sides[0]) == 21 and len(sides[1]) == 9 and not sides[0] & sides[1]
    said = capsys.readouterr().out
    assert "30 families, the largest of 5; 150 tunes are not alone in theirs" in said and "left out: 3 copies" in said


def test_tunes_of_their_own_are_no_relatives():
    tunes = [music.document_of(tune_of(random_steps(seed), f"Tune {seed}")) for seed in range(50)]
    assert len(set(music.families(tunes))) == 50


def test_the_same_tunes_make_the_same_files_wherever_they_lie(tmp_path):
    tunes = [tune_of(random_steps(seed), f"Tune {seed}") for seed in range(60)]
    for name in ("one", "two"):
        music.main(["make", f"--abc={write_abc(tmp_path / name, tunes)}", f"--out={tmp_path / name / 'out'}"])
    for split, number in (("train", 57), ("valid", 3)):
        one, two = ((tmp_path / name / "out" / f"{split}.jsonl") for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes() and len(read(one)) == number


def test_a_folder_without_tunes_and_a_missing_package_are_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no tune that can be used"):
        music.main(["make", f"--abc={tmp_path}", f"--out={tmp_path / 'out'}"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install music21"):
        music.main(["make", f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


# ---- score ----


def test_shares_are_of_tunes_bars_and_passages(monkeypatch):
    known = [f"{note}8|" for note in "ABCDEFGab"]
    train = HEAD + "".join(known)
    copied, partly = HEAD + "".join(known[:8]), HEAD + "".join(known[2:6]) + "c8|d7|?c8|d8"
    monkeypatch.setattr(music, "read_by_music21", {copied: 8, partly: None}.__getitem__)
    shares = music.measure([copied, partly], set(music.passages(music.read_bars(train))))
    assert list(shares.values()) == [1 / 2, 14 / 16, 1 / 2, 6 / 10, 1 / 2, 1 / 2, 1 / 2]
    monkeypatch.setattr(music, "read_by_music21", {copied: 7, partly: 8}.__getitem__)
    assert list(music.measure([copied, partly], set()).values())[-2:] == [1, 0]


def test_without_music21_all_but_its_own_figures_are_there(monkeypatch, capsys):
    def missing(tune):
        raise ImportError

    monkeypatch.setattr(music, "read_by_music21", missing)
    assert len(music.measure([HEAD + "A8|"], set())) == 5
    assert "pip install music21" in capsys.readouterr().out


@pytest.fixture
def data(tmp_path):
    """Training and held-out tunes as make writes them."""
    tunes = [tune_of(random_steps(seed), f"Tune {seed}") for seed in range(100)]
    music.make([write_abc(tmp_path / "abc", tunes)], tmp_path / "data")
    return tmp_path / "data"


def test_tunes_are_written_to_held_out_heads_and_ended_ones_are_told_from_cut_ones(
    tmp_path, data, model_folder, monkeypatch, capsys
):
    asked, rest = [], ["T:Short\nABcd|", "T:Cut\n" + "ABcd|" * 18 + "ABcd", "T:Whole\n" + "ABcd|" * 8]

    def stream_texts(model, tokenizer, prompts, *, max_new_tokens, seed, temperature):
        asked.extend(prompts)
        for at in range(max_new_tokens):
            yield [text[at : at + 1] for text in rest]
        yield ["", "", ""]

    monkeypatch.setattr(music, "stream_texts", stream_texts)
    options = [f"--data={data}", f"--out={tmp_path / 'tunes.abc'}", "--num_tunes=3", "--max_new_tokens=100"]
    music.main(["score", str(model_folder), *options])
    assert asked == ["M:2/4\nL:1/8\nK:D\n"] * 3
    said = capsys.readouterr().out
    assert re.search(r"tunes that end by themselves +66\.7%\n", said)
    assert said.endswith("X:3\nT:Whole\nM:2/4\nL:1/8\nK:D\n" + "ABcd|" * 8 + "\n\n")
    tunes = (tmp_path / "tunes.abc").read_text().split("\n\n")
    assert [tune.split("\n")[:2] for tune in tunes] == [["X:1", "T:Short"], ["X:2", "T:Cut"], ["X:3", "T:Whole"]]


def test_the_same_seed_writes_the_same_tunes_and_another_one_does_not(tmp_path, data, model_folder, capsys):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        out = tmp_path / f"{name}.abc"
        options = [f"--data={data}", f"--out={out}", "--num_tunes=4", "--max_new_tokens=20", f"--seed={seed}"]
        music.main(["score", str(model_folder), *options])
    one, again, other = ((tmp_path / f"{name}.abc").read_bytes() for name in ("one", "again", "other"))
    assert one == again != other
    assert capsys.readouterr().out.count("none\n") == 3  # of noise no bars add up


def test_a_row_ends_where_its_line_does_whatever_is_in_it(tmp_path):
    tunes = [f"T:One\u2028two\x85\n{HEAD}abc", f"{HEAD}def"]
    rows = [json.dumps({"text": tune}, ensure_ascii=False) + "\n" for tune in tunes]
    (tmp_path / "rows.jsonl").write_bytes("".join(rows).encode())
    assert music.read_rows(tmp_path / "rows.jsonl") == tunes

import csv
import json
import os
import sys
import threading
import tracemalloc
import types

import pytest
from helpers import write_text

from alilama.common.errors import UserError
from alilama.training.log import COLUMNS, Log, Samples, is_memorizing, read_log

ROW = {"step": 5, "tokens": 640, "epoch": 0.5, "train_loss": 2.5, "learning_rate": "0.01", "tokens_per_s": 1000}
SAMPLES = [
    {"step": 0, "tokens": 0, "prompt": "Zoë", "story": "Zoë\n\u2028\r\x00ß"},
    {"step": 5, "tokens": 640, "val_bits_per_byte": 1.5, "prompt": "Zoë", "story": "Zoë sat."},
    {"step": 10, "tokens": 1280, "val_bits_per_byte": 1, "prompt": "", "story": ""},
]
EVALUATED = ROW | {"step": 10, "val_loss": 2.25, "val_bits_per_byte": 1.5}


def rows_of(train, val):
    """Two rows for each evaluation, the training losses around the given one."""
    rows = []
    for i, (train_loss, val_loss) in enumerate(zip(train, val, strict=True)):
        rows += [
            {"step": 2 * i + 1, "train_loss": train_loss + 0.1},
            {"step": 2 * i + 2, "train_loss": train_loss - 0.1, "val_loss": val_loss},
        ]
    return rows


@pytest.mark.parametrize(
    "train, val, expected",
    [
        ([3, 2, 1], [2.0, 2.1, 2.2], True),
        ([9, 3, 2, 1], [2.5, 2.0, 2.1, 2.2], True),
        ([3, 2, 1], [2.0, 1.9, 2.2], False),
        ([3, 2, 1], [2.0, 2.1, 2.0], False),
        ([1, 2, 3], [2.0, 2.1, 2.2], False),
        ([2, 1], [2.0, 2.1], False),
        ([3, 1, 2], [2.0, 2.1, 2.2], False),
        ([9, 1, 2], [2.0, 2.1, 2.2], False),
        ([1, 3, 2], [2.0, 2.1, 2.2], False),
        ([], [], False),
    ],
)
def test_memorizing_is_a_rising_validation_loss_under_a_falling_training_loss(train, val, expected):
    assert is_memorizing(rows_of(train, val)) == expected


def test_rows_without_a_training_loss_say_nothing_of_memorizing():
    rows = rows_of([3, 2, 1], [2.0, 2.1, 2.2])
    assert is_memorizing([*rows, {"step": 7}]) and is_memorizing([{"step": 0}, *rows])


def test_the_csv_holds_every_row_at_once_and_goes_on_behind_the_step(tmp_path, make_config):
    log = Log(tmp_path, make_config(), 0, print)
    log.write(ROW)
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_log(tmp_path / "log.csv") == [
        {"step": 5, "tokens": 640, "epoch": 0.5, "train_loss": 2.5, "learning_rate": 0.01, "tokens_per_s": 1000}
    ]
    log.write(EVALUATED)
    log.write(ROW | {"step": 15})
    log.close()
    with open(tmp_path / "log.csv", "a") as file:
        file.write("9,64")  # where the disk was full
    log = Log(tmp_path, make_config(), 10, print)
    log.write(ROW | {"step": 11})
    log.close()
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [5, 10, 11]
    Log(tmp_path, make_config(), 0, print).close()
    assert read_log(tmp_path / "log.csv") == []


@pytest.mark.parametrize(
    ("before", "steps"),
    [
        ("step,tokens\n5,64\n", [5, 11]),
        ("\ufeffstep,tokens\n5,64\n", [5, 11]),
        ("step,more\n5,64\n", [5, 11]),
        ("step,tokens\n5,64,1,2\n6,64\n", [6, 11]),
        ("step;tokens\n5;64\n", [11]),
        ("5,64\n6,64\n", [11]),
        ("step,tokens\nfive,64\n", [11]),
    ],
    ids=["as it was", "byte order mark", "another column", "long row", "semicolons", "no header", "text as step"],
)
def test_a_log_that_something_else_wrote_goes_on_with_the_rows_that_can_be_read(before, steps, tmp_path, make_config):
    (tmp_path / "log.csv").write_text(before, encoding="utf-8")
    log = Log(tmp_path, make_config(), 10, print)
    log.write(ROW | {"step": 11})
    log.close()
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == steps


@pytest.mark.parametrize("content", ["x" * 200_000, "step;tokens\n5;64\n", "5,64\n6,64\n"])
def test_a_log_that_is_none_is_set_aside_with_a_word_and_never_in_the_way(content, tmp_path, make_config):
    path, said = write_text(tmp_path, "log.csv", content), []
    log = Log(tmp_path, make_config(), 10, said.append)
    log.write(ROW | {"step": 11})
    log.close()
    assert [row["step"] for row in read_log(path)] == [11]
    assert (tmp_path / "log.damaged.csv").read_text() == content
    assert len(said) == 1 and "it is log.damaged.csv now" in said[0]


@pytest.mark.posix
def test_a_pipe_in_place_of_a_log_is_set_aside_and_not_waited_for(tmp_path, make_config):
    os.mkfifo(tmp_path / "log.csv")
    said, ended = [], threading.Event()

    def begin():
        Log(tmp_path, make_config(), 10, said.append).close()
        ended.set()

    threading.Thread(target=begin, daemon=True).start()
    assert ended.wait(60) and (tmp_path / "log.damaged.csv").is_fifo()
    assert len(said) == 1 and "log.csv is not an ordinary file" in said[0]


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is not a log of a training"):
        read_log(write_text(tmp_path, "log.csv", "x" * 200_000))


def test_of_a_long_log_memory_holds_the_numbers_and_not_the_text_beside_them(tmp_path, make_config):
    log = Log(tmp_path, make_config(), 0, print)
    for step in range(3000):
        log.write(ROW | {"step": step})
    log.close()
    tracemalloc.start()
    try:
        rows = read_log(tmp_path / "log.csv")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == 3000 and peak < 1.3 * kept


def test_a_log_elsewhere_that_fails_is_left_and_the_run_goes_on(tmp_path, make_config, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("the network is gone\nand more")

    run, said = types.SimpleNamespace(id="x7", log=fail, finish=fail), []
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **settings: run))
    log = Log(tmp_path, make_config(log_to="wandb"), 0, said.append)
    log.write(ROW)
    log.write(EVALUATED)
    log.close()
    assert said == ["The log goes on in log.csv alone, for the other one failed: the network is gone"]
    assert len(read_log(tmp_path / "log.csv")) == 2


@pytest.mark.posix
def test_a_row_that_cannot_be_written_is_told_and_the_run_goes_on(tmp_path, make_config):
    said = []
    log = Log(tmp_path, make_config(), 0, said.append)
    log._file.close()
    log._file = open("/dev/full", "a")  # noqa: SIM115
    log._csv = csv.DictWriter(log._file, COLUMNS)
    log.write(ROW)
    log.close()
    assert said[0] == f"{tmp_path / 'log.csv'} was not written (No space left on device); a row is missing there"
    assert len(said) == 2 and said[1].startswith("A log was not closed")


def test_tensorboard_gets_every_number(tmp_path, make_config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path, make_config(log_to="tensorboard"), 0, print)
    log.write(ROW)
    log.write(EVALUATED)
    log.write(ROW | {"step": 15, "train_loss": 9})
    log.close()
    log = Log(tmp_path, make_config(log_to="tensorboard"), 10, print)  # the run goes on from there
    log.write(ROW | {"step": 15})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(COLUMNS) - {"step"}
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(5, 2.5), (10, 2.5), (15, 2.5)]
    assert [(event.step, event.value) for event in events.Scalars("val_loss")] == [(10, 2.25)]


def test_weights_and_biases_gets_settings_and_numbers_and_goes_on_with_the_same_run(tmp_path, make_config, monkeypatch):
    calls = []
    run = types.SimpleNamespace(id="x7", log=lambda numbers, step: calls.append((step, numbers)), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **settings: calls.append(settings) or run))
    for step in (0, 10, 0):
        log = Log(tmp_path, make_config(log_to="wandb", model_name="owl", d_model=96), step, print)
        log.write(EVALUATED)
        log.close()
    first, (step, numbers), second, _, third, _ = calls
    assert first["name"] == "owl" and first["config"]["d_model"] == 96 and "id" not in first
    assert step == 10 and numbers["val_loss"] == 2.25 and numbers["learning_rate"] == 0.01
    assert second["id"] == "x7" and second["resume"] == "allow"  # it begins one where the first was offline
    assert "id" not in third  # it begins again


@pytest.mark.parametrize("log_to", ["wandb", "tensorboard"])
def test_a_log_elsewhere_that_cannot_begin_is_refused_at_the_start_and_told_of_when_a_run_goes_on(
    log_to, tmp_path, make_config, monkeypatch
):
    def fail(*_, **__):
        raise ConnectionError("nobody is logged in.\nand more")

    if log_to == "wandb":
        monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=fail))
    else:
        (tmp_path / "tensorboard").write_text("no folder")
    reason = "nobody is logged in" if log_to == "wandb" else ".*tensorboard.*"
    with pytest.raises(UserError, match=f"^log_to = '{log_to}': {reason}; mend that, or set log_to to None$"):
        Log(tmp_path, make_config(log_to=log_to), 0, print)
    said = []
    log = Log(tmp_path, make_config(log_to=log_to), 5, said.append)
    log.write(EVALUATED)
    log.close()
    assert len(said) == 1 and said[0].startswith(f"The log goes on in log.csv alone: log_to = '{log_to}': ")
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [10]


# ---- samples ----


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def samples_of(folder, step, said):
    samples = Samples(folder, step, said.append)
    return samples.rows


def test_samples_are_kept_at_once_and_go_on_behind_the_step(tmp_path):
    samples, said = Samples(tmp_path, 0, print), []
    for number, sample in enumerate(SAMPLES, 1):
        samples.write(sample)
        assert lines_of(tmp_path / "samples.jsonl") == samples.rows == SAMPLES[:number]
    with open(tmp_path / "samples.jsonl", "a") as file:
        file.write('{"step": 15, "tok')  # where the disk was full
    assert samples_of(tmp_path, 10, said) == lines_of(tmp_path / "samples.jsonl") == SAMPLES
    assert samples_of(tmp_path, 9, said) == lines_of(tmp_path / "samples.jsonl") == SAMPLES[:2]
    assert samples_of(tmp_path, 0, said) == lines_of(tmp_path / "samples.jsonl") == []
    assert not said and [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"step,tokens",
        b"[" * 100_000,
        b"[1]",
        b'{"step": 5}',
        b'{"step": "5", "tokens": 640, "prompt": "", "story": ""}',
        b'{"step": -5, "tokens": 640, "prompt": "", "story": ""}',
        b'{"step": 5, "tokens": 1' + b"0" * 400 + b', "prompt": "", "story": ""}',
    ],
    ids=["no UTF-8", "no JSON", "deep", "a list", "too little", "text as step", "below 0", "too large"],
)
def test_damaged_samples_are_set_aside_with_a_word_and_the_others_kept(line, tmp_path):
    content, said = line + b"\n" + json.dumps(SAMPLES[1]).encode() + b"\n", []
    write_text(tmp_path, "samples.jsonl", content)
    assert samples_of(tmp_path, 10, said) == lines_of(tmp_path / "samples.jsonl") == SAMPLES[1:2]
    assert (tmp_path / "samples.damaged.jsonl").read_bytes() == content
    assert len(said) == 1 and "it is samples.damaged.jsonl now" in said[0]


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-1", '"1.5"', "null", "1" + "0" * 400])
def test_a_score_that_is_no_number_is_missing_and_the_sample_kept(score, tmp_path):
    sample = json.dumps(SAMPLES[1]).replace("1.5", score)
    write_text(tmp_path, "samples.jsonl", f"{sample}\n")
    said = []
    without = {name: value for name, value in SAMPLES[1].items() if name != "val_bits_per_byte"}
    assert samples_of(tmp_path, 10, said) == [without] and not said


def test_samples_that_cannot_be_read_or_written_are_told_and_never_in_the_way(tmp_path):
    (tmp_path / "samples.jsonl").mkdir()
    said = []
    samples = Samples(tmp_path, 10, said.append)
    assert len(said) == 1 and "No earlier samples are kept" in said[0]
    samples.write(SAMPLES[1])
    assert len(said) == 2 and "a sample is missing there" in said[1]
    assert samples.rows == SAMPLES[1:2]


def test_a_sample_after_one_that_a_full_disk_cut_has_a_line_of_its_own(tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115, closed below

        def write(self, line):
            self.file.write(line[:20])
            raise OSError(28, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    said = []
    samples = Samples(tmp_path, 0, said.append)
    monkeypatch.setattr("alilama.training.log.open", FullDisk, raising=False)
    samples.write(SAMPLES[0])
    monkeypatch.undo()
    samples.write(SAMPLES[1])
    assert len(said) == 1 and "No space left on device" in said[0]
    assert samples_of(tmp_path, 10, said) == SAMPLES[1:2]


def test_surrogates_in_a_prompt_are_replaced(tmp_path):
    samples = Samples(tmp_path, 0, print)
    samples.write(SAMPLES[0] | {"prompt": "\udcff"})
    assert lines_of(tmp_path / "samples.jsonl")[0]["prompt"] == "?"

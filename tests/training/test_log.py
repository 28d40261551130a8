import csv
import sys
import types

import pytest
from helpers import write_text

from alilama.common.errors import UserError
from alilama.training.log import COLUMNS, Log, is_memorizing, read_log

ROW = {"step": 5, "tokens": 640, "epoch": 0.5, "train_loss": 2.5, "learning_rate": "0.01", "tokens_per_s": 1000}
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


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is not a log of a training"):
        read_log(write_text(tmp_path, "log.csv", "x" * 200_000))


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
    assert second["id"] == "x7" and second["resume"] == "must"
    assert "id" not in third  # it begins again

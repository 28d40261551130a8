"""Progress: tqdm on a terminal, a line now and then in a log."""

import io
import sys
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from alilama.common import progress as module
from alilama.common.progress import SECONDS_BETWEEN_LINES, ProgressLines, progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(10, desc="learning", unit="B") as bar:
        assert isinstance(bar, tqdm) and bar.total == 10
        bar.update(10)
    assert "learning: 100%" in terminal.getvalue()


def test_in_a_log_there_is_a_line_now_and_then_and_one_at_the_end(clock, capsys):
    with progress(1000, desc="learning", unit="step") as lines:
        assert isinstance(lines, ProgressLines)
        for _ in range(1000):
            lines.update()
            clock[0] += SECONDS_BETWEEN_LINES / 480
        lines.set_postfix(loss="2.5", tok_s="10")
    written = capsys.readouterr().err
    assert "\r" not in written
    first, second, last = written.splitlines()
    assert first.startswith("learning:  48% 481/1000 [00:30<") and second.startswith("learning:  96% 961/1000")
    assert last.startswith("learning: 100% 1000/1000 [01:02<00:00, ") and last.endswith("step/s, loss=2.5, tok_s=10]")


def test_bytes_are_written_with_their_unit_and_a_start_in_the_middle_is_no_speed(clock, capsys):
    lines = progress(8_000_000, desc="writing", unit="B", unit_scale=True, initial=4_000_000)
    clock[0] += 10
    lines.update(2_000_000)
    lines.close()
    assert "6.00M/8.00M" in (line := capsys.readouterr().err) and "200kB/s" in line


def test_without_a_total_there_is_no_share(clock, capsys):
    with progress(None, desc="writing", unit="B", unit_scale=True) as lines:
        clock[0] += 10
        lines.update(2_000_000)
    assert capsys.readouterr().err == "writing: 2.00MB [00:10, 200kB/s]\n"


def test_a_bar_that_is_not_to_stay_leaves_nothing(clock, capsys):
    with progress(10, desc="context", leave=False) as lines:
        lines.update(10)
    assert capsys.readouterr().err == ""


def test_what_is_said_beside_it_goes_to_the_output(capsys):
    progress(10).write("step 5")
    assert capsys.readouterr().out == "step 5\n"

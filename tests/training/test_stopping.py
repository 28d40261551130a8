"""Signals ask a run to stop; the second one ends it at once."""

import signal

import pytest

from alilama.training.stopping import StopRequest


@pytest.fixture(autouse=True)
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_at_once(number):
    asked = []
    stop = StopRequest(lambda: asked.append(1))
    assert not stop.is_made(step=7, log_interval=5, world_size=1) and not asked
    signal.raise_signal(number)
    assert stop.is_made(step=7, log_interval=5, world_size=1) and asked == [1]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_several_processes_look_at_it_at_rows_of_the_log_only():
    stop = StopRequest(lambda: None)
    signal.raise_signal(signal.SIGTERM)
    assert not stop.is_made(step=7, log_interval=5, world_size=2)

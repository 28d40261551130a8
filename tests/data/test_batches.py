"""Batches are a function of seed and step."""

import itertools

import numpy as np
import pytest

from alilama.common.errors import UserError
from alilama.data.batches import TrainingWindows

EOT = "<|endoftext|>"


def epoch_of(windows: TrainingWindows, epoch: int) -> np.ndarray:
    """The windows of an epoch, (windows_per_epoch, T + 1), for a batch size of 1."""
    first = epoch * windows.windows_per_epoch
    return np.concatenate([windows.batch(step) for step in range(first, first + windows.windows_per_epoch)])


@pytest.mark.parametrize("size", [100, 101, 105, 109, 110, 111, 8, 7])
def test_an_epoch_visits_each_window_once_and_windows_do_not_overlap(size):
    T = 6
    windows = TrainingWindows(np.arange(size, dtype=np.uint16), 0, T, 1, seed=3)
    for epoch in range(5):
        visited = epoch_of(windows, epoch)
        assert visited.shape == (windows.windows_per_epoch, T + 1)
        assert (np.diff(visited, axis=1) == 1).all() and visited.min() >= 0 and visited.max() < size
        starts = np.sort(visited[:, 0])
        assert (np.diff(starts) == T).all()
        assert starts[0] + (size - 1 - T - starts[-1]) < 2 * T  # as many windows as fit behind any offset
    assert windows.windows_per_epoch >= max(1, (size - 1) // T - 1)


def test_every_epoch_has_another_order_and_another_offset():
    windows = TrainingWindows(np.arange(2000, dtype=np.uint16), 0, 10, 1, seed=0)
    epochs = [epoch_of(windows, epoch)[:, 0] for epoch in range(30)]
    orders = {tuple(starts.argsort()) for starts in epochs}
    assert len(orders) == 30
    assert {int(starts.min()) for starts in epochs} == set(range(10))  # all offsets come up in time
    assert all(not (np.diff(starts) > 0).all() for starts in epochs)


def test_every_target_token_is_reached_in_time():
    windows = TrainingWindows(np.arange(100, dtype=np.uint16), 0, 7, 1, seed=0)
    reached = {int(token) for epoch in range(60) for token in epoch_of(windows, epoch)[:, 1:].ravel()}
    assert reached == set(range(1, 100))


@pytest.mark.parametrize("has_first_eot", [True, False])
def test_every_epoch_lays_whole_documents_one_after_another_in_another_order(has_first_eot):
    rng, T, eot_id = np.random.default_rng(0), 9, 999
    documents = [list(range(10 * i, 10 * i + rng.integers(1, 10))) for i in range(40)]  # no id is there twice
    ids = np.array([id for document in documents for id in (eot_id, *document)][not has_first_eot :], dtype=np.uint16)
    windows, neighbours = TrainingWindows(ids, eot_id, T, 1, seed=0), []
    for epoch in range(8):
        visited = epoch_of(windows, epoch)
        targets = visited[:, 1:][visited[:, 1:] != eot_id]
        assert len(np.unique(targets)) == len(targets) > len(ids) - len(documents) - 2 * T
        inside = (visited[:, 1:] != eot_id) & (visited[:, :-1] != eot_id)
        assert (np.diff(visited, axis=1)[inside] == 1).mean() >= (1 if has_first_eot else 0.98)
        around = [window[i - 1 : i + 2].tolist() for window in visited for i in range(1, T) if window[i] == eot_id]
        assert all(before in [document[-1] for document in documents] for before, _, _ in around)
        assert all(after in [document[0] for document in documents] for _, _, after in around)
        neighbours.append({(before, after) for before, _, after in around})
    assert all(len(pairs) > 20 and len(pairs & others) < 6 for pairs, others in itertools.combinations(neighbours, 2))


def test_a_batch_is_a_function_of_the_seed_and_the_step_alone():
    ids = np.arange(1000, dtype=np.uint16)
    ids[::25] = 0
    in_order = TrainingWindows(ids, 0, 10, 7, seed=5)
    batches = [in_order.batch(step).tolist() for step in range(60)]
    for step in (59, 3, 14, 13, 40, 0):
        assert TrainingWindows(ids, 0, 10, 7, seed=5).batch(step).tolist() == batches[step]
    jumping = TrainingWindows(ids, 0, 10, 7, seed=5)
    for step in (59, 3, 14, 13, 40, 0):
        assert jumping.batch(step).tolist() == batches[step]
    assert TrainingWindows(ids, 0, 10, 7, seed=6).batch(0).tolist() != batches[0]


def test_batches_go_on_over_the_end_of_an_epoch():
    ids = np.arange(101, dtype=np.uint16)
    one, four = TrainingWindows(ids, 0, 10, 1, seed=0), TrainingWindows(ids, 0, 10, 4, seed=0)
    windows = np.concatenate([one.batch(step) for step in range(40)])
    assert np.array_equal(np.concatenate([four.batch(step) for step in range(10)]), windows)


def test_a_batch_holds_int64_windows_of_context_and_one_more():
    batch = TrainingWindows(np.arange(100, dtype=np.uint16), 0, 8, 3, seed=0).batch(0)
    assert batch.shape == (3, 9) and batch.dtype == np.int64


def test_a_text_smaller_than_one_window_is_refused():
    assert TrainingWindows(np.arange(9, dtype=np.uint16), 0, 8, 1, 0).batch(0).tolist() == [list(range(9))]
    with pytest.raises(UserError, match=r"8 tokens.*max_seq_len"):
        TrainingWindows(np.arange(8, dtype=np.uint16), 0, 8, 1, 0)

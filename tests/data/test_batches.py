"""Batches are a function of seed and step."""

import itertools
import tracemalloc

import numpy as np
import pytest
from helpers import token_files, with_checksums

from alilama.common.errors import UserError
from alilama.data.batches import TrainingWindows
from alilama.data.frames import Frame
from alilama.data.tokens import BLOCK_TOKENS

EOT = "<|endoftext|>"


def epoch_of(windows: TrainingWindows, epoch: int) -> np.ndarray:
    """The windows of an epoch, (windows_per_epoch, T + 1), for a batch size of 1."""
    first = epoch * windows.windows_per_epoch
    return np.concatenate([windows.batch(step) for step in range(first, first + windows.windows_per_epoch)])


@pytest.mark.parametrize("size", [100, 101, 105, 109, 110, 111, 8, 7])
def test_an_epoch_visits_each_window_once_and_windows_do_not_overlap(size):
    T = 6
    windows = TrainingWindows(token_files(np.arange(size, dtype=np.uint16)), T, 1, seed=3)
    for epoch in range(5):
        visited = epoch_of(windows, epoch)
        assert visited.shape == (windows.windows_per_epoch, T + 1)
        assert (np.diff(visited, axis=1) == 1).all() and visited.min() >= 0 and visited.max() < size
        starts = np.sort(visited[:, 0])
        assert (np.diff(starts) == T).all()
        assert starts[0] + (size - 1 - T - starts[-1]) < 2 * T  # as many windows as fit behind any offset
    assert windows.windows_per_epoch >= max(1, (size - 1) // T - 1)


def test_every_epoch_has_another_order_and_another_offset():
    windows = TrainingWindows(token_files(np.arange(2000, dtype=np.uint16)), 10, 1, seed=0)
    epochs = [epoch_of(windows, epoch)[:, 0] for epoch in range(30)]
    orders = {tuple(starts.argsort()) for starts in epochs}
    assert len(orders) == 30
    assert {int(starts.min()) for starts in epochs} == set(range(10))  # all offsets come up in time
    assert all(not (np.diff(starts) > 0).all() for starts in epochs)


def test_every_target_token_is_reached_in_time():
    windows = TrainingWindows(token_files(np.arange(100, dtype=np.uint16)), 7, 1, seed=0)
    reached = {int(token) for epoch in range(60) for token in epoch_of(windows, epoch)[:, 1:].ravel()}
    assert reached == set(range(1, 100))


@pytest.mark.parametrize("has_first_eot", [True, False])
def test_every_epoch_lays_whole_documents_one_after_another_in_another_order(has_first_eot):
    rng, T, eot_id = np.random.default_rng(0), 9, 999
    documents = [list(range(10 * i, 10 * i + rng.integers(1, 10))) for i in range(40)]  # no id is there twice
    ids = np.array([id for document in documents for id in (eot_id, *document)][not has_first_eot :], dtype=np.uint16)
    windows, neighbours = TrainingWindows(token_files(ids, eot_id), T, 1, seed=0), []
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
    in_order = TrainingWindows(token_files(ids), 10, 7, seed=5)
    batches = [in_order.batch(step).tolist() for step in range(60)]
    for step in (59, 3, 14, 13, 40, 0):
        assert TrainingWindows(token_files(ids), 10, 7, seed=5).batch(step).tolist() == batches[step]
    jumping = TrainingWindows(token_files(ids), 10, 7, seed=5)
    for step in (59, 3, 14, 13, 40, 0):
        assert jumping.batch(step).tolist() == batches[step]
    assert TrainingWindows(token_files(ids), 10, 7, seed=6).batch(0).tolist() != batches[0]


def test_batches_go_on_over_the_end_of_an_epoch():
    ids = np.arange(101, dtype=np.uint16)
    one, four = TrainingWindows(token_files(ids), 10, 1, seed=0), TrainingWindows(token_files(ids), 10, 4, seed=0)
    windows = np.concatenate([one.batch(step) for step in range(40)])
    assert np.array_equal(np.concatenate([four.batch(step) for step in range(10)]), windows)


def test_a_batch_holds_int64_windows_of_context_and_one_more():
    batch = TrainingWindows(token_files(np.arange(100, dtype=np.uint16)), 8, 3, seed=0).batch(0)
    assert batch.shape == (3, 9) and batch.dtype == np.int64


def test_a_text_smaller_than_one_window_is_refused():
    assert TrainingWindows(token_files(np.arange(9, dtype=np.uint16)), 8, 1, 0).batch(0).tolist() == [list(range(9))]
    with pytest.raises(UserError, match=r"8 tokens.*max_seq_len"):
        TrainingWindows(token_files(np.arange(8, dtype=np.uint16)), 8, 1, 0)


@pytest.fixture(params=[(None, None), (64, 2), (7, 3), (1, 1)], ids=["whole", "blocks", "small blocks", "tokens"])
def sections(request, monkeypatch):
    """Texts are shuffled as one, or in sections of some blocks."""
    if request.param[0]:
        monkeypatch.setattr("alilama.data.tokens.BLOCK_TOKENS", request.param[0])
        monkeypatch.setattr("alilama.data.batches.BLOCK_TOKENS", request.param[0])
        monkeypatch.setattr("alilama.data.batches.SECTION_BLOCKS", request.param[1])


@pytest.mark.parametrize("size", [1000, 1001, 131, 64, 10])
def test_a_text_in_sections_is_read_whole_each_epoch_and_each_window_once(size, sections):
    """As many targets as windows hold, none twice, and inside of a document in its order."""
    ids = np.arange(size, dtype=np.uint16)
    ids[::19] = 0
    T, seen = 9, set()
    windows = TrainingWindows(token_files(ids), T, 1, seed=0)
    for epoch in range(6):
        visited = epoch_of(windows, epoch)
        targets = visited[:, 1:][visited[:, 1:] != 0]
        assert len(np.unique(targets)) == len(targets) >= windows.windows_per_epoch * T - size // 19 - 1
        seen |= set(targets.tolist())
    assert len(seen) >= 0.9 * np.count_nonzero(ids)


def test_sections_do_not_change_what_a_batch_depends_on(sections):
    ids = np.arange(1000, dtype=np.uint16)
    ids[::25] = 0
    in_order = TrainingWindows(token_files(ids), 10, 7, seed=5)
    batches = [in_order.batch(step).tolist() for step in range(45)]
    jumping = TrainingWindows(token_files(ids), 10, 7, seed=5)
    for step in (44, 3, 14, 13, 40, 0):
        assert jumping.batch(step).tolist() == batches[step]
        assert TrainingWindows(token_files(ids), 10, 7, seed=5).batch(step).tolist() == batches[step]


def test_of_a_huge_text_only_what_a_batch_needs_is_read(tmp_path):
    """A billion tokens, all of them holes of a sparse file. An order of all windows alone would take 62 MB."""
    ids = np.lib.format.open_memmap(tmp_path / "train.npy", mode="w+", dtype=np.uint16, shape=(1_000_000_000,))
    tokens = token_files(ids[:1])
    tokens.train, tokens.blocks = ids, np.append(0, np.ones(-(-len(ids) // BLOCK_TOKENS), np.int64))
    with_checksums(tokens)
    tracemalloc.start()
    windows = TrainingWindows(tokens, 128, 8, seed=1)
    assert windows.batch(0).shape == windows.batch(10**7).shape == (8, 129)
    assert tracemalloc.get_traced_memory()[1] < 25e6
    tracemalloc.stop()


def test_damaged_documents_and_ids_are_refused():
    tokens = token_files(np.arange(100, dtype=np.uint16))
    tokens.documents, tokens.blocks = np.array([0, 50, 30, 70]), np.array([0, 4])
    with pytest.raises(UserError, match=r"train_documents\.npy is damaged: it has another checksum"):
        TrainingWindows(tokens, 8, 1, 0).batch(0)
    with_checksums(tokens)
    with pytest.raises(UserError, match=r"train_documents\.npy or train_blocks\.npy is damaged"):
        TrainingWindows(tokens, 8, 1, 0).batch(0)
    tokens = token_files(np.arange(100, dtype=np.uint16))
    tokens.meta.vocab_size = 40
    with pytest.raises(UserError, match=r"train\.npy is damaged: it holds id \d+, and the tokenizer has 40"):
        TrainingWindows(tokens, 8, 12, 0).batch(0)


# ---- prompts and answers ----

FRAME = Frame({EOT: 0, "<|system|>": 1, "<|user|>": 2, "<|assistant|>": 3, "<|end|>": 4}, 0, 1 << 16)


def conversations(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of texts and conversations, no text token twice, and which of them are learned, written down as they are made."""
    rng, next_id, ids, learned = np.random.default_rng(seed), itertools.count(5), [], []

    def write(new, is_learned: bool):
        ids.extend(new)
        learned.extend([is_learned] * len(new))

    for _ in range(number):
        write([0], not learned or ids[-1] != 4)  # what follows the end of a message is not predicted
        if rng.random() < 0.3:
            write([next(next_id) for _ in range(rng.integers(1, 40))], True)
            continue
        for _ in range(rng.integers(1, 4)):
            role, text = int(rng.integers(1, 4)), [next(next_id) for _ in range(rng.integers(0, 30))]
            write([role], False)
            write([*text, 4], role == 3)
    return np.array(ids, np.uint16), np.array(learned)


@pytest.mark.parametrize("context", [3, 9, 64])
def test_what_is_learned_of_a_window_is_what_is_learned_of_its_place_in_the_text(context, sections):
    """But for an <|endoftext|>, which is learned where it ends a text, and an epoch puts it behind another one."""
    ids, learned = conversations(40, seed=context)
    tokens, numbered = token_files(ids), token_files(ids)
    numbered.train = np.arange(len(ids), dtype=np.uint16)
    with_checksums(numbered)
    framed = TrainingWindows(tokens, context, 1, seed=1, frame=FRAME)
    plain, places = TrainingWindows(tokens, context, 1, seed=1), TrainingWindows(numbered, context, 1, seed=1)
    for epoch in range(2):
        found, windows, positions = (epoch_of(each, epoch) for each in (framed, plain, places))
        assert np.array_equal(np.where(found < 0, ~found, found), windows) and np.array_equal(ids[positions], windows)
        expected, before = learned[positions], windows[:, :-1]
        goes_on = (expected[:, :-1] | (before == 0) | (before == 3)) & (before != 4)
        expected[:, 1:] = np.where(windows[:, 1:] == 0, goes_on, expected[:, 1:])
        assert np.array_equal((found >= 0)[:, 1:], expected[:, 1:])  # of the first token nothing is predicted
        assert expected.any() and not expected.all()


def test_a_batch_of_conversations_is_a_function_of_the_seed_and_the_step_alone(sections):
    ids, _ = conversations(40, seed=0)
    in_order = TrainingWindows(token_files(ids), 10, 7, seed=5, frame=FRAME)
    batches = [in_order.batch(step) for step in range(20)]
    for step in (19, 3, 14, 0):
        assert np.array_equal(TrainingWindows(token_files(ids), 10, 7, seed=5, frame=FRAME).batch(step), batches[step])
    assert all(batch.dtype == np.int64 and (batch < 0).any() and (batch >= 0).any() for batch in batches)

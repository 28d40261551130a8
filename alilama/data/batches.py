"""The training tokens as batches."""

import numpy as np

from alilama.common.errors import UserError


class TrainingWindows:
    """The training tokens as batches: a function of the seed and the step alone, so that a run can go on anywhere.

    Every epoch lays the documents one after another in another order, cuts that into windows at another offset, and
    visits each window once, in another order. Step i takes windows i * batch_size and following of the endless sequence of
    epochs. Raises UserError for ids, (N,), that do not fill a window of `context` + 1.
    """

    def __init__(self, ids: np.ndarray, eot_id: int, context: int, batch_size: int, seed: int):
        if len(ids) < context + 1:
            raise UserError(
                f"train.npy has {len(ids)} tokens, fewer than one window of max_seq_len + 1 = {context + 1}; give "
                "more text or a smaller max_seq_len"
            )
        self.ids, self.context, self.batch_size, self.seed = ids, context, batch_size, seed
        self.windows_per_epoch = max(1, (len(ids) - context) // context)
        self._documents = find_documents(ids, eot_id)
        self._epoch = -1

    def batch(self, step: int) -> np.ndarray:
        """Returns the windows of one step, (B, T + 1) int64: inputs are [:, :-1], targets [:, 1:]."""
        epochs, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.windows_per_epoch)
        windows = [self._windows(epoch, places[epochs == epoch]) for epoch in np.unique(epochs)]
        return np.concatenate(windows).astype(np.int64)

    def _windows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Returns windows of an epoch, (n, T + 1), by their places in its order, (n,)."""
        if epoch != self._epoch:
            self._begin_epoch(epoch)
        positions = self._starts[places, None] + np.arange(self.context + 1)  # (n, T + 1)
        return self.ids[positions + self._moves[np.searchsorted(self._ends, positions, side="right")]]

    def _begin_epoch(self, epoch: int):
        rng = np.random.default_rng((self.seed, epoch))
        spare = len(self.ids) - 1 - self.windows_per_epoch * self.context
        offset = rng.integers(spare + 1)
        self._epoch, self._starts = epoch, offset + rng.permutation(self.windows_per_epoch) * self.context
        order = rng.permutation(len(self._documents) - 1)
        lengths = np.diff(self._documents)[order]
        self._ends = np.cumsum(lengths)  # of the documents in their new order
        self._moves = self._documents[order] - (self._ends - lengths)  # from a place in that order to the one in ids


def find_documents(ids: np.ndarray, eot_id: int) -> np.ndarray:
    """Returns where each document in ids begins, at <|endoftext|>, and where the last ends: (documents + 1,) int64."""
    ids_at_once = 1 << 24
    found = [start + np.flatnonzero(ids[start : start + ids_at_once] == eot_id) for start in range(0, len(ids), ids_at_once)]
    return np.unique(np.concatenate([[0], *found, [len(ids)]]))

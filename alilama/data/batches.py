"""The training tokens as batches."""

from typing import NamedTuple

import numpy as np

from alilama.common.errors import UserError
from alilama.data.frames import SAID, Frame
from alilama.data.tokens import BLOCK_TOKENS, REMEDY, TokenFiles

SECTION_BLOCKS = 32  # whose documents and windows are shuffled together: what has to be in memory at a time


class Section(NamedTuple):
    """Documents of an epoch in their order: where each ends, (n,), how far it lies from its place in the token file, (n,),
    and the order in which the windows that begin in them are visited."""

    ends: np.ndarray
    moves: np.ndarray
    windows: np.ndarray


class TrainingWindows:
    """The training tokens as batches: a function of the seed and the step alone, so that a run can go on anywhere.

    Every epoch lays the documents one after another in another order, cuts that into windows at another offset, and
    visits each window once, in another order. Step i takes windows i * batch_size and following of the endless sequence of
    epochs. Raises UserError for tokens that do not fill a window of `context` + 1, and for damaged ones that it meets.

    A text of more than 33 million tokens is not shuffled as a whole: its blocks of a million tokens are, then the documents
    and windows of 32 such blocks at a time. So starting and memory do not depend on the size of the text. A document that
    reaches over the end of a block is cut there.
    """

    def __init__(self, tokens: TokenFiles, context: int, batch_size: int, seed: int, frame: Frame | None = None):
        self.tokens, self.ids, self.frame = tokens, tokens.train, frame
        if len(self.ids) < context + 1:
            raise UserError(
                f"train.npy has {len(self.ids)} tokens, fewer than one window of max_seq_len + 1 = {context + 1}; give "
                "more text or a smaller max_seq_len"
            )
        self.context, self.batch_size, self.seed = context, batch_size, seed
        self.windows_per_epoch = max(1, (len(self.ids) - context) // context)
        self._epoch = -1

    def batch(self, step: int) -> np.ndarray:
        """Returns the windows of one step, (B, T + 1) int64: inputs are [:, :-1], targets [:, 1:].

        With a `frame` in the vocabulary, a token that is not learned stands there as ~id, which is negative.
        """
        self.tokens.check_size()
        epochs, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.windows_per_epoch)
        return np.concatenate([self._windows(epoch, places[epochs == epoch]) for epoch in np.unique(epochs)])

    def _windows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Returns windows of an epoch, (n, T + 1), by their places in its order, (n,)."""
        if epoch != self._epoch:
            self._begin_epoch(epoch)
        starts, of_window = np.empty_like(places), np.searchsorted(self._first_windows, places, side="right") - 1
        for section in np.unique(of_window):
            chosen = of_window == section
            starts[chosen] = self._section(section).windows[places[chosen] - self._first_windows[section]] * self.context
        positions = self._offset + starts[:, None] + np.arange(self.context + 1)  # (n, T + 1) in the epoch's order
        of_position = np.searchsorted(self._section_ends, positions, side="right")  # a window may reach into the next one
        for section in np.unique(of_position):
            chosen = of_position == section
            ends, moves, _ = self._section(section)
            positions[chosen] += moves[np.searchsorted(ends, positions[chosen], side="right")]
        windows = self.ids[positions].astype(np.int64)
        return windows if self.frame is None else np.where(self._are_learned(windows, positions), windows, ~windows)

    def _are_learned(self, windows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Tells which ids of windows are learned by what is before them in the token file; all three are (n, T + 1)."""
        is_learned = np.empty(windows.shape, bool)
        goes_on = np.diff(positions, axis=1) == 1  # or another document follows, or the rest of one that a block cut
        is_rest = np.zeros(windows.shape, bool)
        is_rest[:, 0] = True
        is_rest[:, 1:] = ~goes_on & (windows[:, 1:] != self.frame.eot_id)
        for row, start in zip(*np.nonzero(is_rest), strict=True):
            position = int(positions[row, start])
            is_learned[row, start:] = self.frame.is_learned(windows[row, start:], self._begun_before(position))
        return is_learned

    def _begun_before(self, position: int) -> int:
        """Returns what the last token of the frame before a position began; a text without a frame is not searched for one."""
        self.tokens.check("train", max(0, position - 1) // BLOCK_TOKENS)  # where it goes on from
        document = self.tokens.documents[max(0, np.searchsorted(self.tokens.documents, position) - 1)]
        if not self.frame.is_role(self.ids[document + 1 : document + 2]).any():
            return SAID
        return self.frame.begun_before(self.ids, position)

    def _begin_epoch(self, epoch: int):
        rng = np.random.default_rng((self.seed, epoch))
        self._epoch, self._sections = epoch, {}
        self._offset = rng.integers(len(self.ids) - self.windows_per_epoch * self.context)
        self._order = rng.permutation(len(self.tokens.blocks) - 1)
        block_ends = np.cumsum(np.minimum(len(self.ids) - self._order * BLOCK_TOKENS, BLOCK_TOKENS))
        self._section_ends = np.append(block_ends[SECTION_BLOCKS - 1 : -1 : SECTION_BLOCKS], len(self.ids))
        first_windows = -(-(self._section_ends - self._offset) // self.context)  # the first that begins behind each section
        self._first_windows = np.minimum(np.append(0, first_windows), self.windows_per_epoch)

    def _section(self, index: int) -> Section:
        if index not in self._sections:
            if len(self._sections) == 2:  # one, and the next, into which a window reaches
                del self._sections[min(self._sections)]
            self._sections[index] = self._make_section(index)
        return self._sections[index]

    def _make_section(self, index: int) -> Section:
        rng = np.random.default_rng((self.seed, self._epoch, index))
        blocks = self._order[index * SECTION_BLOCKS : (index + 1) * SECTION_BLOCKS]
        pieces = [self._documents_of(block) for block in blocks]
        starts = np.concatenate([bounds[:-1] for bounds in pieces])
        lengths = np.concatenate([np.diff(bounds) for bounds in pieces])
        order = rng.permutation(len(starts))
        starts, lengths = starts[order], lengths[order]
        ends = np.cumsum(lengths) + (self._section_ends[index - 1] if index else 0)
        first, last = self._first_windows[index : index + 2]
        return Section(ends, starts - (ends - lengths), first + rng.permutation(last - first))

    def _documents_of(self, block: int) -> np.ndarray:
        """Returns where a block and the documents in it begin, and where the block ends."""
        start, end = block * BLOCK_TOKENS, min((block + 1) * BLOCK_TOKENS, len(self.ids))
        self.tokens.check("train", block)
        documents = self.tokens.documents_of(block)
        bounds = np.concatenate([[start], documents[documents != start], [end]])
        if (np.diff(bounds) <= 0).any():
            raise UserError(f"train_documents.npy or train_blocks.npy is damaged; {REMEDY}")
        return bounds

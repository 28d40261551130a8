"""Checksums of token files, one for each block, so that damage is noticed where it is read and a start reads none of it."""

import zlib

import numpy as np

CHECKSUM = np.dtype(np.uint32)


class BlockChecksums:
    """Makes the checksums of a token file's blocks of `block_tokens` while it is written."""

    def __init__(self, block_tokens: int):
        self.block_tokens, self.length, self.finished = block_tokens, 0, []
        self._of_ids = self._of_starts = 0  # of the block that is not full yet

    def add(self, ids: np.ndarray, starts: np.ndarray):
        """Takes the next ids, (n,), and where in the whole file documents begin among them, (m,) int64."""
        begin = 0
        while begin < len(ids):
            end = min(len(ids), begin + self.block_tokens - self.length % self.block_tokens)
            bounds = np.searchsorted(starts, [self.length, self.length + end - begin])
            self._of_ids = zlib.crc32(ids[begin:end], self._of_ids)
            self._of_starts = zlib.crc32(starts[slice(*bounds)], self._of_starts)
            self.length += end - begin
            begin = end
            if self.length % self.block_tokens == 0:
                self._end_block()

    def _end_block(self):
        self.finished.append(joined(self._of_ids, self._of_starts))
        self._of_ids = self._of_starts = 0

    def finish(self) -> np.ndarray:
        """Returns the checksums, (blocks,)."""
        if self.length % self.block_tokens:
            self._end_block()
        return np.array(self.finished, CHECKSUM)


def checksum_of(ids: np.ndarray, starts: np.ndarray) -> int:
    """Returns the checksum of a block: its ids, (n,), and where in the whole file documents begin in it, (m,) int64."""
    return joined(zlib.crc32(np.ascontiguousarray(ids)), zlib.crc32(np.ascontiguousarray(starts)))


def joined(*checksums: int) -> int:
    return zlib.crc32(np.array(checksums, CHECKSUM))

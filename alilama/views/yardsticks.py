"""What simple means make of a text, in bits per byte: all begin with nothing and learn the text as they read it."""

import gzip
import lzma
import math

import numpy as np

NGRAM_LENGTH = 4  # an id after up to three others


def gzip_bits_per_byte(text: bytes) -> float:
    return 8 * len(gzip.compress(text, compresslevel=9)) / len(text)


def xz_bits_per_byte(text: bytes) -> float:
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def ngram_bits_per_byte(ids: np.ndarray, vocab_size: int, num_bytes: int) -> float:
    """Returns the bits in which an n-gram model of the ids predicts all of them but the first, by byte of their text."""
    return float(-np.log(ngram_probabilities(ids, vocab_size)[1:]).sum()) / math.log(2) / num_bytes


def ngram_probabilities(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Returns the probability of each id, (N,) float64, by the n-grams among the ids before it.

    Interpolated Witten-Bell smoothing (Witten and Bell 1991, The Zero-Frequency Problem, IEEE Transactions on Information
    Theory 37(4)): P(id | history) = (count of id + kinds * P(id | history less its first id)) / (count of all + kinds).
    Counted are the ids that came after this history before; kinds are how many different ones. A new history leaves the
    probability to the shorter one, and below the empty history it is 1 / vocab_size. Over all ids they sum to 1.
    """
    ids = ids.astype(np.int64)
    probabilities = np.full(len(ids), 1 / vocab_size)
    histories = np.zeros_like(ids)  # a number for each; at first the empty one, then one id, two, three
    for _ in range(NGRAM_LENGTH):
        ngrams = np.unique(histories * vocab_size + ids, return_inverse=True)[1]  # a number for each history with its id
        count, total = sum_before(ngrams, np.ones_like(ids)), sum_before(histories, np.ones_like(ids))
        kinds = sum_before(histories, count == 0)
        probabilities = np.where(total > 0, (count + kinds * probabilities) / np.maximum(total + kinds, 1), probabilities)
        histories = np.concatenate([[-1], ngrams[:-1]])  # -1: too short, and never again
    return probabilities


def sum_before(groups: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Returns for each place the sum of the amounts at earlier places of the same group; all three are (N,)."""
    order = np.argsort(groups, kind="stable")  # group by group, each in the order of the text
    sorted_groups, sorted_amounts = groups[order], amounts[order].astype(np.int64)
    before = np.cumsum(sorted_amounts) - sorted_amounts  # in all groups
    sums = np.empty_like(before)
    sums[order] = before - before[np.searchsorted(sorted_groups, sorted_groups)]  # less that before the group began
    return sums

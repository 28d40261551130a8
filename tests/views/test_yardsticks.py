import lzma
import math
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from alilama.views.yardsticks import gzip_bits_per_byte, ngram_bits_per_byte, ngram_probabilities, xz_bits_per_byte


def random_ids(size: int, vocab_size: int, seed=0) -> np.ndarray:
    """Ids of which the low ones are frequent, so that n-grams come back."""
    return (vocab_size * np.random.default_rng(seed).random(size) ** 3).astype(np.uint16)


def witten_bell(before: list[int], history: list[int], id: int, vocab_size: int) -> float:
    """The formula of Witten and Bell, by going through all that came before."""
    shorter = witten_bell(before, history[1:], id, vocab_size) if history else 1 / vocab_size
    size = len(history)
    followers = Counter(before[place] for place in range(size, len(before)) if before[place - size : place] == history)
    if not followers:
        return shorter
    return (followers[id] + len(followers) * shorter) / (followers.total() + len(followers))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("size", "vocab_size"), [(2, 2), (3, 2), (4, 3), (5, 3), (150, 1), (150, 2), (150, 7), (150, 1 << 16)])
def test_ngrams_predict_as_the_formula_does(size, vocab_size, seed):
    ids = random_ids(size, vocab_size, seed)
    expected = [witten_bell(ids[:t].tolist(), ids[max(0, t - 3) : t].tolist(), int(ids[t]), vocab_size) for t in range(size)]
    np.testing.assert_allclose(ngram_probabilities(ids, vocab_size), expected, rtol=1e-12)


def test_probabilities_of_all_ids_sum_to_one():
    text = random_ids(60, 9)
    for length in (0, 1, 2, 3, 10, 59):
        last = [ngram_probabilities(np.append(text[:length], id), 9)[-1] for id in range(9)]
        assert sum(last) == pytest.approx(1, abs=1e-12) and min(last) > 0


def test_what_comes_later_changes_no_probability():
    ids = random_ids(100, 9)
    edited = np.concatenate([ids[:50], ids[:50]])
    before, after = ngram_probabilities(ids, 9), ngram_probabilities(edited, 9)
    assert before[:50].tolist() == after[:50].tolist() and before[50:].tolist() != after[50:].tolist()


def test_the_bits_per_byte_of_ngrams_by_hand():
    # After the one id 3, seen once, 3 has (1 + 1 * 1/4) / (1 + 1) = 5/8 and any other id (0 + 1/4) / 2 = 1/8.
    assert ngram_bits_per_byte(np.array([3, 3]), 4, num_bytes=1) == pytest.approx(-math.log2(5 / 8))
    assert ngram_bits_per_byte(np.array([3, 0]), 4, num_bytes=1) == pytest.approx(3)
    assert ngram_bits_per_byte(np.array([3, 0]), 4, num_bytes=6) == pytest.approx(0.5)


def test_the_first_id_is_not_scored():
    ids = random_ids(50, 9)
    bits = [-math.log2(probability) for probability in ngram_probabilities(ids, 9)]
    assert ngram_bits_per_byte(ids, 9, num_bytes=100) == pytest.approx(sum(bits[1:]) / 100)


def test_ngrams_learn_a_text_that_repeats_itself():
    sentence = random_ids(50, 300)
    assert ngram_bits_per_byte(np.tile(sentence, 20), 300, 1000) < ngram_bits_per_byte(random_ids(1000, 300), 300, 1000) / 4


def test_separators_are_scored_like_all_ids():
    ids = random_ids(200, 9)
    numbered_otherwise = defaultdict(lambda: len(numbered_otherwise))
    renamed = np.array([numbered_otherwise[id] for id in ids.tolist()])
    assert ngram_bits_per_byte(renamed, 9, 100) == pytest.approx(ngram_bits_per_byte(ids, 9, 100), rel=1e-12)


def test_gzip_and_xz_are_at_their_strongest(text):
    text = text.encode()
    assert gzip_bits_per_byte(text) == 8 * len(gzip_of(text, 9)) / len(text) < 8 * len(gzip_of(text, 5)) / len(text)
    strongest = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    assert xz_bits_per_byte(text) == 8 * len(lzma.compress(text, lzma.FORMAT_XZ, filters=strongest)) / len(text)
    assert xz_bits_per_byte(text) < 8 * len(lzma.compress(text, preset=0)) / len(text)


def gzip_of(text: bytes, level: int) -> bytes:
    compressor = zlib.compressobj(level, wbits=31)  # 31: with gzip's header and check sum
    return compressor.compress(text) + compressor.flush()


@pytest.mark.parametrize("bits_per_byte", [gzip_bits_per_byte, xz_bits_per_byte])
def test_noise_takes_its_bits_and_repetition_few(bits_per_byte):
    noise = np.random.default_rng(0).bytes(1 << 14)
    assert 8 < bits_per_byte(noise) < 8.1
    assert bits_per_byte(noise[:1000] * 16) < 0.7


def test_gzip_is_told_to_be_at_its_strongest(monkeypatch):
    levels = []
    monkeypatch.setattr(
        "alilama.views.yardsticks.gzip.compress", lambda text, compresslevel: levels.append(compresslevel) or b"1"
    )
    gzip_bits_per_byte(b"text")
    assert levels == [9]

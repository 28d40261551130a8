"""What the C++ kernels are given that does not belong together: each is refused by name, and nothing is written."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import examples

from alilama.model import kernels

pytestmark = pytest.mark.skipif(not kernels.are_built(), reason="the kernels are built on Linux only")

B, T, H, D, V, C, HIDDEN = 2, 6, 2, 4, 10, 8, 12
DTYPES = [np.float32, np.uint16, np.float64, np.float16, np.int64, np.complex64, np.dtype(">f4"), object]


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers in the same order, from an odd address on."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert moved.flags.c_contiguous and not moved.flags.aligned
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


# ---- attention ----


def attention_arrays(dtype=np.float32) -> dict[str, np.ndarray]:
    def numbers(*shape: int, dtype=dtype) -> np.ndarray:
        rng = np.random.default_rng(sum(shape))
        return rng.normal(size=shape).astype(np.float32).astype(dtype)

    return {
        "qkv": numbers(B, T, 3, H, D),
        "slopes": numbers(H, dtype=np.float32),
        "y": numbers(B, T, H, D),
        "logsumexp": numbers(B, H, T, dtype=np.float32),
        "grad_y": numbers(B, T, H, D),
        "grad_qkv": numbers(B, T, 3, H, D),
    }


PASSES = {
    "attention_forward": (["qkv", "slopes", "y", "logsumexp"], ["y", "logsumexp"]),
    "attention_backward": (["qkv", "slopes", "logsumexp", "grad_y", "grad_qkv"], ["grad_qkv"]),
}


def attend(name: str, arrays: dict, num_threads=1):
    getattr(kernels._kernels, name)(*(arrays[each] for each in PASSES[name][0]), num_threads)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_an_array_of_another_shape_is_refused_by_its_name(name, dtype):
    attend(name, attention_arrays(dtype))
    for each in PASSES[name][0]:
        array = attention_arrays(dtype)[each]
        for wrong in (
            array[:-1],
            array[None],
            array.reshape(-1),
            array[..., :1].copy(),
            np.zeros(array.shape[::-1], array.dtype),
        ):
            if wrong.shape != array.shape and not (each == "qkv" and wrong.ndim == 5 and wrong.shape[2] == 3):
                with pytest.raises(ValueError, match=rf"{each} has the shape \(.*\); expected \("):
                    attend(name, attention_arrays(dtype) | {each: np.ascontiguousarray(wrong)})


@pytest.mark.parametrize("name", PASSES)
def test_a_batch_or_a_text_of_nothing_has_nothing_to_compute_and_heads_of_nothing_are_refused(name):
    for sizes in ((0, T), (B, 0)):
        b, t = sizes
        shapes = {"qkv": (b, t, 3, H, D), "slopes": (H,), "y": (b, t, H, D), "logsumexp": (b, H, t)}
        shapes |= {"grad_y": shapes["y"], "grad_qkv": shapes["qkv"]}
        attend(name, {each: np.zeros(shape, np.float32) for each, shape in shapes.items()})
    for shape in ((B, T, 3, 0, D), (B, T, 3, H, 0), (0, T, 3, 0, D), (2**58, 1, 3, 0, 1)):
        with pytest.raises(ValueError, match=r"qkv has the shape .*; expected \(B, T, 3, H, D\)"):
            attend(name, attention_arrays() | {"qkv": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("name", PASSES)
def test_arrays_that_cannot_be_read_or_written_where_they_are_are_refused(name):
    arrays, (inputs_and_outputs, outputs) = attention_arrays(), PASSES[name]
    for each in inputs_and_outputs:
        with pytest.raises(ValueError, match=f"{each} does not begin at a multiple"):
            attend(name, arrays | {each: unaligned(arrays[each])})
        wide = np.repeat(arrays[each], 2, axis=-1)[..., ::2]
        assert wide.shape == arrays[each].shape
        for wrong in (wide, arrays[each].astype(np.float64), arrays[each].tolist(), None, "abc"):
            with pytest.raises(TypeError, match="incompatible function arguments"):
                attend(name, arrays | {each: wrong})
    for each in outputs:
        with pytest.raises(ValueError, match=f"{each} is written to, but is read-only"):
            attend(name, arrays | {each: read_only(arrays[each])})
        memory = np.zeros(arrays["qkv"].size + arrays[each].size, np.float32)
        qkv = memory[: arrays["qkv"].size].reshape(arrays["qkv"].shape)
        overlapping = memory[qkv.size - 1 :][: arrays[each].size].reshape(arrays[each].shape)
        with pytest.raises(ValueError, match=f"{each} shares memory with another array"):
            attend(name, arrays | {"qkv": qkv, each: overlapping})
        beside = memory[qkv.size :].reshape(arrays[each].shape)
        attend(name, arrays | {"qkv": qkv, each: beside})


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("num_threads", [0, -1, -(2**31), 1025, 2**31 - 1])
def test_a_number_of_threads_that_cannot_be_is_refused(name, num_threads):
    with pytest.raises(ValueError, match=f"num_threads = {num_threads}: expected 1 to 1024"):
        attend(name, attention_arrays(), num_threads)


any_array = st.builds(
    lambda shape, dtype, change: change(np.ones(shape, dtype)),
    st.lists(st.integers(0, 4), max_size=6).map(tuple),
    st.sampled_from(DTYPES),
    st.sampled_from([lambda a: a, np.asfortranarray, lambda a: a[..., ::2] if a.ndim else a, read_only, lambda a: a.T]),
)
anything = st.one_of(
    any_array, st.none(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.lists(st.integers())
)


@examples(150)
@given(st.data())
def test_attention_computes_or_refuses_and_never_writes_beside_its_arrays(data):
    name = data.draw(st.sampled_from(sorted(PASSES)))
    arrays = attention_arrays(data.draw(st.sampled_from([np.float32, np.uint16])))
    for each in data.draw(st.lists(st.sampled_from(PASSES[name][0]), min_size=1, max_size=3)):
        arrays[each] = data.draw(anything)
    threads = data.draw(st.one_of(st.just(1), st.integers(-3, 3), st.integers(), st.none(), st.floats()))
    try:
        attend(name, arrays, threads)
    except (ValueError, TypeError) as error:
        assert str(error)


# ---- the decoder ----


def decoder_arguments() -> dict:
    block = {"norm_1": (C,), "attn.Wqkv": (3 * C, C), "attn.out_proj": (C, C), "norm_2": (C,)}
    block |= {"ffn.up_proj": (HIDDEN, C), "ffn.down_proj": (C, HIDDEN)}
    rng = np.random.default_rng(0)
    return {
        "embedding": rng.normal(size=(V, C)).astype(np.float32),
        "blocks": [{name: rng.normal(size=shape).astype(np.float32) for name, shape in block.items()} for _ in range(2)],
        "norm_f": np.ones(C, np.float32),
        "slopes": np.array([0.5, 0.25], np.float32),
        "rows": 3,
        "longest": 100,
        "context": 0,
    }


def make(**changed):
    return kernels._kernels.Decoder(**decoder_arguments() | changed)


def read(decoder, ids, rows, lengths, logits=None, num_threads=1) -> np.ndarray:
    logits = np.zeros((len(rows), V), np.float32) if logits is None else logits
    decoder.read(np.array(ids, np.int64), np.array(rows, np.int64), np.array(lengths, np.int64), logits, num_threads)
    return logits


def test_weights_of_the_right_size_in_another_shape_are_refused():
    blocks = decoder_arguments()["blocks"]
    for name in ("attn.Wqkv", "ffn.up_proj", "ffn.down_proj"):
        with pytest.raises(ValueError, match=rf"{name} has the shape|ffn\.\w+ has the shape"):
            make(blocks=[blocks[0], blocks[1] | {name: blocks[1][name].T.copy()}])
    for name in ("norm_1", "attn.out_proj"):
        with pytest.raises(ValueError, match=f"{name} does not begin at a multiple"):
            make(blocks=[blocks[0], blocks[1] | {name: unaligned(blocks[1][name])}])
    for name, shape in (("norm_f", (1, C)), ("slopes", (2, 1)), ("norm_f", (C - 1,))):
        with pytest.raises(ValueError, match=f"{name} has the shape"):
            make(**{name: np.ones(shape, np.float32)})
    for changed in ({"embedding": np.zeros((0, C), np.float32)}, {"embedding": np.zeros((V, 0), np.float32)}):
        with pytest.raises(ValueError, match="the embedding is not a matrix"):
            make(**changed)
    with pytest.raises(ValueError, match="3 heads do not divide d_model"):
        make(slopes=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="no blocks"):
        make(blocks=[])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rows", rows) for rows in (0, -1, 2**61, 2**20 + 1)),
        *(("longest", longest) for longest in (0, -(2**63), 2**63 - 1)),
        *(("context", context) for context in (-1, 2**30, 2**63 - 1)),
    ],
)
def test_sizes_of_a_decoder_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} = {value}.*: expected 1 to 1048576 rows"):
        make(**{name: value})


def test_lengths_whose_sum_overflows_are_refused():
    decoder = make(longest=2**62)
    for lengths in ([2**62, 2**62, 2**62], [2**62, 2**62, 2**62 + 1], [2**63 - 1, 2, 1], [2, -1, 1]):
        total = (sum(lengths) + 2**63) % 2**64 - 2**63
        with pytest.raises(ValueError, match=r"lengths ask for more ids than there are|ids has the shape|would read -1 tokens"):
            read(decoder, [1] * max(total, 0) if total < 100 else [1], [0, 1, 2], lengths)
    with pytest.raises(ValueError, match="row 1 would read -1 tokens"):
        read(decoder, [1] * 3, [0, 1, 2], [2, -1, 1])


def test_a_row_that_is_named_twice_is_refused_and_nothing_is_read():
    decoder, other = make(), make()
    for rows in ([0, 0], [2, 1, 2]):
        with pytest.raises(ValueError, match=f"row {rows[0]} is named twice"):
            read(decoder, [1] * len(rows), rows, [1] * len(rows))
    np.testing.assert_array_equal(read(decoder, [3, 4], [0], [2]), read(other, [3, 4], [0], [2]))


def test_what_a_decoder_writes_to_is_checked():
    decoder, right = make(), np.zeros((1, V), np.float32)
    for wrong, message in (
        (np.zeros((V,), np.float32), r"logits has the shape \(10\); expected \(1, 10\)"),
        (np.zeros((V, 1), np.float32), r"logits has the shape \(10, 1\)"),
        (unaligned(right), "logits does not begin at a multiple"),
        (read_only(right), "logits is written to, but is read-only"),
    ):
        with pytest.raises(ValueError, match=message):
            read(decoder, [1], [0], [1], wrong)
    for num_threads in (0, -1, 1025):
        with pytest.raises(ValueError, match="num_threads"):
            read(decoder, [1], [0], [1], num_threads=num_threads)
    with pytest.raises(TypeError):
        read(decoder, [1], [0], [1], np.zeros((1, V)))


def test_ids_may_stand_where_the_logits_go():
    memory = np.zeros(8 * V, np.uint8)
    ids, logits = memory[:16].view(np.int64), memory[: 4 * V].view(np.float32).reshape(1, V)
    ids[:] = 3, 4
    decoder = make()
    decoder.read(ids, np.array([0]), np.array([2]), logits, 1)
    np.testing.assert_array_equal(logits, read(make(), [3, 4], [0], [2]))


def test_a_decoder_is_used_by_one_thread_at_a_time():
    decoder = make(longest=10**6)
    outcomes = []

    def read_much():
        for _ in range(3):
            try:
                read(decoder, [1] * 3000, [0], [3000])
                outcomes.append("read")
            except ValueError as error:
                outcomes.append(str(error))
                time.sleep(0.001)

    threads = [threading.Thread(target=read_much) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "read" in outcomes and set(outcomes) <= {"read", "another thread uses this Decoder: give each thread its own"}
    other = make(longest=10**6)
    ids = [1] * 3000 * outcomes.count("read") + [2]
    np.testing.assert_array_equal(read(decoder, [2], [0], [1]), read(other, ids, [0], [len(ids)]))


def test_an_object_without_a_decoder_in_it_is_refused():
    with pytest.raises(TypeError):
        read(kernels._kernels.Decoder.__new__(kernels._kernels.Decoder), [1], [0], [1])


@examples(150)
@given(st.data())
def test_a_decoder_reads_or_refuses(data):
    small = st.integers(-2, 5)
    whole = st.one_of(small, st.integers(-(2**63), 2**63 - 1), st.integers())
    arguments = decoder_arguments()
    for name in data.draw(st.lists(st.sampled_from(sorted(arguments)), max_size=2)):
        arguments[name] = data.draw(st.one_of(small, whole, anything))
    try:
        decoder = kernels._kernels.Decoder(**arguments)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    numbers = st.one_of(st.lists(small, max_size=6), st.lists(whole, max_size=4), anything)
    for _ in range(3):
        logits = data.draw(st.one_of(st.integers(0, 4).map(lambda n: np.zeros((n, V), np.float32)), anything))
        threads = data.draw(st.one_of(st.just(1), st.just(2), small, whole))
        try:
            decoder.read(data.draw(numbers), data.draw(numbers), data.draw(numbers), logits, threads)
        except (ValueError, TypeError, OverflowError) as error:
            assert str(error)

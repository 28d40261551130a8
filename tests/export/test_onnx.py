"""ONNX files, run by onnxruntime: the logits are those of the model that reads a text as a whole."""

import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model, truncate
from safetensors.torch import load_file

from alilama.common.errors import UserError
from alilama.export import onnx as export
from alilama.export.onnx import write_onnx
from alilama.model.folder import save_description, save_weights
from alilama.model.model import FeedForward

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHAPES = [{}, {"d_model": 36, "num_heads": 3, "hidden_dim": 50, "blocks": 3}, {"d_model": 48, "num_heads": 12, "blocks": 1}]


class Reader:
    """A model and an onnxruntime session of the file that was made of it."""

    def __init__(self, folder: Path, tokenizer, **shape):
        self.model = tiny_model(tokenizer.vocab_size, **shape)
        with torch.no_grad():  # so large that the text before matters, and norms that are not 1
            for parameter in self.model.parameters():
                parameter.mul_(2) if parameter.ndim == 2 else parameter.add_(0.2 * torch.randn_like(parameter))
        save_description(folder, self.model.config, tokenizer)
        save_weights(folder, self.model)
        self.file = folder / "model.onnx"
        write_onnx(folder, self.file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])

    def read(self, ids: np.ndarray, past: list[np.ndarray] | None = None, mask: np.ndarray | None = None):
        """Returns the logits at ids, (B, T), after the `past` that an earlier call returned, and the past of the next call."""
        caches = self.session.get_inputs()[2:]
        if past is None:
            past = [np.zeros((len(ids), cache.shape[1], 0, cache.shape[3]), np.float32) for cache in caches]
        if mask is None:
            mask = np.ones((len(ids), past[0].shape[2] + ids.shape[1]), np.int64)
        inputs = {cache.name: tensor for cache, tensor in zip(caches, past, strict=True)}
        logits, *present = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **inputs})
        return logits, present

    @torch.inference_mode()
    def expected(self, ids: np.ndarray) -> np.ndarray:
        return self.model(torch.from_numpy(ids)).numpy()


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def reader(request, tokenizer, tmp_path_factory) -> Reader:
    return Reader(tmp_path_factory.mktemp("onnx") / "tiny", tokenizer, **request.param)


def random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 400, shape)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 16), (2, 7), (5, 40), (1, 300)])  # 16 is the trained length
def test_a_text_that_is_read_at_once_has_the_logits_of_the_model(shape, reader):
    ids = random_ids(*shape)
    np.testing.assert_allclose(reader.read(ids)[0], reader.expected(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", [[1] * 30, [7, *[1] * 23], [1, 9, 1, 16, 3]], ids=["one by one", "after a prompt", "parts"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_text_that_is_read_in_parts_has_the_logits_of_the_model(rows, parts, reader):
    ids = random_ids(rows, 30)
    past, found = None, []
    for end in np.cumsum(parts):
        read = sum(logits.shape[1] for logits in found)
        logits, past = reader.read(ids[:, read:end], past)
        found.append(logits)
    np.testing.assert_allclose(np.concatenate(found, axis=1), reader.expected(ids), atol=1e-4, rtol=0)
    assert past[0].shape[2] == 30


def test_what_fills_texts_up_on_their_left_changes_nothing_where_the_mask_is_0(reader):
    lengths, end = [4, 11, 1], 25
    texts = random_ids(3, end)
    ids = np.zeros((3, end + 11), np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, 11 - length : 11 - length + end] = texts[row]
        mask[row, 11 - length :] = 1
    logits, past = reader.read(ids[:, :11], mask=mask[:, :11])
    found = [logits]
    for t in range(11, end):
        logits, past = reader.read(ids[:, t : t + 1], past, mask[:, : t + 1])
        found.append(logits)
    found = np.concatenate(found, axis=1)
    assert np.isfinite(found).all()
    for row, length in enumerate(lengths):
        read = end - 11 + length
        expected = reader.expected(texts[row : row + 1, :read])[0]
        np.testing.assert_allclose(found[row, 11 - length :], expected, atol=1e-4, rtol=0)


def test_the_file_holds_each_weight_once_by_its_name_and_says_whose_they_are(reader):
    content = onnx.load(reader.file)
    onnx.checker.check_model(content, full_check=True)
    weights = load_file(reader.file.parent / "model.safetensors")
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in content.graph.initializer}
    assert all(np.array_equal(found[name], weight) for name, weight in weights.items())
    graph_bytes = 20_000 * (1 + reader.model.config.blocks)
    assert 0 < reader.file.stat().st_size - 4 * reader.model.num_parameters() < graph_bytes
    assert reader.session.get_modelmeta().custom_metadata_map == {"name": "tiny", "trained_seq_len": "16"}


def test_inputs_and_outputs_are_called_as_transformers_js_calls_them(reader):
    config = reader.model.config
    caches = [f"{block}.{part}" for block in range(config.blocks) for part in ("key", "value")]
    inputs = {put.name: put.shape for put in reader.session.get_inputs()}
    outputs = {put.name: put.shape for put in reader.session.get_outputs()}
    assert list(inputs) == ["input_ids", "attention_mask", *[f"past_key_values.{cache}" for cache in caches]]
    assert list(outputs) == ["logits", *[f"present.{cache}" for cache in caches]]
    head_dim = config.d_model // config.num_heads
    assert inputs["past_key_values.0.key"] == ["batch_size", config.num_heads, "past_sequence_length", head_dim]
    assert outputs["logits"] == ["batch_size", "sequence_length", config.vocab_size]


def test_exporting_prints_and_warns_nothing(folder, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_onnx(folder, folder / "model.onnx")
    assert capfd.readouterr() == ("", "")


# ---- an architecture that was changed in Python alone ----


def relu_squared(self, x):
    return self.down_proj(torch.relu(self.up_proj(x)).square())


def by_length(self, x):
    return self.down_proj(torch.relu(self.up_proj(x))) if x.shape[1] > 1 else x


def test_a_changed_architecture_is_exported_as_it_is(monkeypatch, tokenizer, tmp_path):
    monkeypatch.setattr(FeedForward, "forward", relu_squared)
    reader = Reader(tmp_path / "tiny", tokenizer)
    ids = random_ids(2, 20)
    np.testing.assert_allclose(reader.read(ids)[0], reader.expected(ids), atol=1e-4, rtol=0)


def test_an_architecture_that_chooses_by_length_is_refused(monkeypatch, folder):
    monkeypatch.setattr(FeedForward, "forward", by_length)
    with pytest.raises(UserError, match=r"something in it depends on a shape: [^\n]+$"):
        write_onnx(folder, folder / "model.onnx")
    assert not (folder / "model.onnx").exists()


def with_the_token_before(self, x):
    before = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
    return self.down_proj(torch.nn.functional.gelu(self.up_proj(x + before)))


def test_an_architecture_that_is_another_when_it_is_read_in_parts_is_refused(monkeypatch, folder):
    monkeypatch.setattr(FeedForward, "forward", with_the_token_before)
    with pytest.raises(UserError, match=r"^CachedModel in .* does not compute what the model does"):
        write_onnx(folder, folder / "model.onnx")
    assert not (folder / "model.onnx").exists()


def test_an_operation_that_onnx_does_not_have_is_refused(monkeypatch, folder):
    monkeypatch.setattr(FeedForward, "forward", lambda self, x: torch.nn.functional.rms_norm(x, x.shape[-1:]))
    with pytest.raises(UserError, match=r"^the model cannot be exported to ONNX: .*aten::rms_norm.* is not supported"):
        write_onnx(folder, folder / "model.onnx")
    assert not (folder / "model.onnx").exists()


# ---- what cannot be ----


def test_a_damaged_folder_is_refused_and_nothing_is_written(folder):
    truncate(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged"):
        write_onnx(folder, folder / "model.onnx")
    assert not list(folder.glob("*.onnx*"))


def test_a_model_that_is_too_large_for_one_file_is_refused(folder, monkeypatch):
    num_bytes = 4 * tiny_model(400).num_parameters()
    monkeypatch.setattr(export, "MAX_BYTES", num_bytes - 1)
    with pytest.raises(UserError, match=f"{num_bytes:,} bytes of weights and an ONNX file holds {num_bytes - 1:,}"):
        write_onnx(folder, folder / "model.onnx")
    monkeypatch.setattr(export, "MAX_BYTES", num_bytes)
    write_onnx(folder, folder / "model.onnx")


def test_a_full_disk_leaves_the_earlier_file_as_it_was(folder, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = folder / "model.onnx"
    file.write_bytes(b"earlier")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_onnx(folder, file)
    assert file.read_bytes() == b"earlier" and list(folder.glob("*.onnx*")) == [file]

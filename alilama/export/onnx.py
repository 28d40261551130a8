"""ONNX: a model that reads from its cache, in one file, for onnxruntime on the desktop and in the browser.

Inputs and outputs are called as Transformers.js and Optimum call those of a decoder. Shapes: B rows of text, T tokens to be
read, P that were read before (0 at first), S = P + T, H heads, D head width, V vocabulary.

    input_ids (B, T)   attention_mask (B, S)   past_key_values.N.key and .value (B, H, P, D)  int64 and float32
    logits (B, T, V)   present.N.key and .value (B, H, S, D)                                   float32

The mask is 0 on what fills shorter texts up on their left: ALiBi needs no positions.
"""

import io
import os
import warnings

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from alilama.common.errors import UserError, first_line
from alilama.common.files import replacing, to_path
from alilama.model.attention import linear_bias
from alilama.model.folder import load_model
from alilama.model.model import Attend, Model
from alilama.model.mpt import has_mpt_formulas
from alilama.writing.decoding import PROBE_TOLERANCE, agree, probed_ids

OPSET = 17  # of ONNX's operators: the first with LayerNormalization
MAX_BYTES = 2**31 - 2**24  # of weights: protobuf refuses a file of 2 GiB, and in it is the graph too
# What may differ from call to call. Transformers.js makes its first, empty cache by the name of the batch.
ROWS, TOKENS, PAST, ALL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"


def write_onnx(folder: str | os.PathLike, file: str | os.PathLike):
    """Writes the model of a folder as an ONNX file that carries its name and `trained_seq_len`.

    Raises UserError where the folder cannot be read or is too large for one file.
    """
    folder, file = to_path("folder", folder), to_path("file", file)
    model, _ = load_model(folder)
    if (num_bytes := 4 * model.num_parameters()) > MAX_BYTES:
        raise UserError(f"{folder} has {num_bytes:,} bytes of weights and an ONNX file holds {MAX_BYTES:,}; use --gguf")
    cached = CachedModel(model).eval()
    content = onnx.load_from_string(translate(cached))
    check_cached_model(cached)
    name, trained_seq_len = folder.resolve().name, str(model.config.max_seq_len)
    onnx.helper.set_model_props(content, {"name": name, "trained_seq_len": trained_seq_len})
    with replacing(file) as stream:
        stream.write(content.SerializeToString())


class CachedModel(nn.Module):
    """A Model whose blocks attend to keys and values of earlier calls too, and return them with the new ones."""

    def __init__(self, model: Model):
        super().__init__()
        self.transformer = model  # so the weights have the names of model.safetensors

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, past: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Reads ids, (B, T). `past` has the keys and the values of each block in turn, and so has what is returned."""
        bias = self.bias(ids.shape[1], mask)
        present: list[torch.Tensor] = []
        attends = [self.attend(*cache, bias, present) for cache in zip(past[::2], past[1::2], strict=True)]
        hidden = self.transformer.hidden(ids, attends)  # (B, T, C)
        return F.linear(hidden, self.transformer.wte.weight), *present

    def bias(self, T: int, mask: torch.Tensor) -> torch.Tensor:
        """Returns what is added to the scores of the last T of S positions, (B, H, T, S), for a mask, (B, S)."""
        position = torch.arange(mask.shape[1])
        distance = position[-T:, None] - position  # (T, S)
        seen = (distance >= 0) & mask[:, None].bool()  # (B, T, S)
        seen = seen | (distance == 0)  # padding attends to itself: a softmax of only -inf is NaN
        bias = linear_bias(distance, self.transformer.slopes[:, None, None])  # (H, T, S)
        return torch.where(seen[:, None], bias, -torch.inf)

    def attend(self, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, present: list[torch.Tensor]) -> Attend:
        """Returns a block's attention for Model.hidden, which also lists the keys and values of all positions, (B, H, S, D)."""
        scale = (self.transformer.config.d_model // self.transformer.config.num_heads) ** -0.5

        def attend(qkv: torch.Tensor) -> torch.Tensor:
            q, k, v = qkv.transpose(1, 3).unbind(2)  # each (B, H, T, D)
            all_keys, all_values = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
            present.extend((all_keys, all_values))
            # Written out, since scaled_dot_product_attention becomes a graph that scales all keys at every token: after 500
            # of them a token of the 2M model takes 1.1 ms instead of 0.8.
            scores = (q * scale) @ all_keys.transpose(2, 3) + bias  # (B, H, T, S)
            return (scores.softmax(dim=-1) @ all_values).transpose(1, 2)

        return attend


@torch.inference_mode()
def check_cached_model(model: CachedModel):
    """Raises UserError for a model that was changed where what is exported, which reads in parts, was not."""
    config = model.transformer.config
    if has_mpt_formulas(config):
        return
    ids = torch.tensor([probed_ids(config.vocab_size)])  # (1, T)
    mask = torch.ones_like(ids)
    empty = torch.zeros(1, config.num_heads, 0, config.d_model // config.num_heads)
    _, *past = model(ids[:, :-1], mask[:, :-1], [empty] * (2 * config.blocks))
    logits, *_ = model(ids[:, -1:], mask, past)
    if not agree(logits[0, -1], model.transformer(ids)[0, -1], PROBE_TOLERANCE):
        raise UserError(
            "CachedModel in alilama/export/onnx.py does not compute what the model does: its attention, its output layer and "
            "what it keeps of the tokens before have to be changed as the model was"
        )


def translate(model: CachedModel) -> bytes:
    """Returns the content of an ONNX file of what a model computes, in any batch and of any length.

    By torch's older exporter: 0.5 s for the 2M model, where the newer takes 26 s, needs onnxscript too, and makes a graph that
    is as fast. It records one run. Raises UserError for a choice by shape or value, which it would record as made for ever,
    and for an operation that it does not know.
    """
    config = model.transformer.config
    caches = [f"{block}.{part}" for block in range(config.blocks) for part in ("key", "value")]
    past, present = ([f"{kind}.{cache}" for cache in caches] for kind in ("past_key_values", "present"))
    B, T, P = 2, 3, 4  # of the run that is recorded
    empty = torch.zeros(B, config.num_heads, P, config.d_model // config.num_heads)
    content = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.onnx.export(
                model,
                (torch.zeros(B, T, dtype=torch.int64), torch.ones(B, P + T, dtype=torch.int64), [empty.clone() for _ in past]),
                content,
                input_names=["input_ids", "attention_mask", *past],
                output_names=["logits", *present],
                dynamic_axes={
                    "input_ids": {0: ROWS, 1: TOKENS},
                    "attention_mask": {0: ROWS, 1: ALL},
                    "logits": {0: ROWS, 1: TOKENS},
                    **{name: {0: ROWS, 2: PAST} for name in past},
                    **{name: {0: ROWS, 2: ALL} for name in present},
                },
                opset_version=OPSET,
                do_constant_folding=False,  # it would write the embedding a second time, transposed
                dynamo=False,
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            raise UserError(f"the model cannot be exported to ONNX: {first_line(error)}") from None
    if chosen := [warning.message for warning in caught if issubclass(warning.category, torch.jit.TracerWarning)]:
        raise UserError(f"the model cannot be exported to ONNX, as something in it depends on a shape: {first_line(chosen[0])}")
    return content.getvalue()

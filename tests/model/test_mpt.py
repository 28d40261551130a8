"""Whether a model that was changed is still taken for an MPT by what it computes."""

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_model
from torch import nn

from alilama.common.errors import UserError
from alilama.model import attention, model
from alilama.model.folder import is_mpt
from alilama.model.model import Attention, Block, FeedForward, Model, ModelConfig, block_weights
from alilama.model.mpt import has_mpt_formulas

CONFIG = tiny_model(50).config


@pytest.mark.parametrize(
    "changed",
    [{}, {"d_model": 24, "num_heads": 6, "hidden_dim": 40}, {"vocab_size": 300, "blocks": 5, "dropout": 0.5, "max_seq_len": 7}],
)
def test_a_model_of_any_size_has_the_formulas_of_mpt(changed, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", None)  # which would also seed GPUs, whose random numbers go on
    before = torch.get_rng_state()
    assert has_mpt_formulas(ModelConfig(**vars(CONFIG) | changed))
    assert torch.equal(torch.get_rng_state(), before)


def attend_by(score, qkv, bias):
    q, k, v = qkv.transpose(1, 3).unbind(2)
    return ((score(q @ k.mT / math.sqrt(q.shape[-1])) + bias).softmax(-1) @ v).transpose(1, 2)


def rms_norm(self, x):
    return F.rms_norm(x, self.normalized_shape, self.weight, 1e-5)


forward = Model.forward
FORMULAS = {
    "relu squared": (FeedForward, "forward", lambda self, x: self.down_proj(F.relu(self.up_proj(x)) ** 2)),
    "gelu by tanh": (FeedForward, "forward", lambda self, x: self.down_proj(F.gelu(self.up_proj(x), approximate="tanh"))),
    "parallel": (Block, "forward", lambda self, x, attend: x + self.attn(self.norm_1(x), attend) + self.ffn(self.norm_2(x))),
    "rms norm": (nn.LayerNorm, "forward", rms_norm),
    "another eps": (nn.LayerNorm, "forward", lambda self, x: F.layer_norm(x, x.shape[-1:], self.weight, None, 1e-4)),
    "capped logits": (Model, "forward", lambda self, ids: 30 * torch.tanh(forward(self, ids) / 30)),
    "scaled embedding": (nn.Embedding, "forward", lambda self, ids: 2 * F.embedding(ids, self.weight)),
    "capped scores": (attention, "masked_attention", lambda qkv, bias: attend_by(lambda s: 50 * torch.tanh(s / 50), qkv, bias)),
    "scores by 1 / D": (attention, "masked_attention", lambda qkv, bias: attend_by(lambda s: s / 3, qkv, bias)),
    "slopes": (model, "alibi_slopes", lambda num_heads: torch.linspace(0.1, 0.9, num_heads)),
    "bias": (attention, "linear_bias", lambda distance, slope: -slope * torch.log1p(distance.clamp(min=0).float())),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_that_was_changed_is_noticed(name, monkeypatch):
    monkeypatch.setattr(*FORMULAS[name])
    assert not has_mpt_formulas(CONFIG) and not is_mpt(CONFIG)


def test_attention_that_is_written_out_here_is_that_of_the_model(monkeypatch):
    monkeypatch.setattr(attention, "masked_attention", lambda qkv, bias: attend_by(lambda score: score, qkv, bias))
    assert has_mpt_formulas(CONFIG)


def test_a_field_whose_default_is_another_formula_does_not_make_that_mpt(monkeypatch):
    @dataclass
    class WithNorm(ModelConfig):
        norm: str = "rms"

    def norm(self, x):
        return rms_norm(self, x) if self.norm == "rms" else F.layer_norm(x, x.shape[-1:], self.weight)

    def block(self, config):
        made(self, config)
        self.norm_1.norm = self.norm_2.norm = getattr(config, "norm", "layer")

    made = Block.__init__
    monkeypatch.setattr(nn.LayerNorm, "norm", "layer", raising=False)
    monkeypatch.setattr(nn.LayerNorm, "forward", norm)
    monkeypatch.setattr(Block, "__init__", block)
    assert is_mpt(CONFIG) and not is_mpt(WithNorm(**vars(CONFIG)))


def widen(self, config):
    made_feed_forward(self, config)
    self.up_proj = nn.Linear(config.d_model, 2 * config.hidden_dim, bias=False)


def gated(self, x):
    gate, up = self.up_proj(x).chunk(2, dim=-1)
    return self.down_proj(F.silu(gate) * up)


def add_norm(self, config):
    made_attention(self, config)
    self.norm = nn.LayerNorm(config.d_model, bias=False)  # which nothing uses


made_feed_forward, made_attention = FeedForward.__init__, Attention.__init__


def test_a_model_that_other_sizes_do_not_suit_is_not_mpt(monkeypatch):
    monkeypatch.setattr(Attention, "forward", lambda self, x, attend: attend(self.Wqkv(x).view(1, 7, 3, 4, 5)))
    assert not has_mpt_formulas(CONFIG)


@pytest.mark.parametrize("kind", ["shape", "name"])
def test_weights_of_another_shape_or_name_are_noticed(kind, monkeypatch):
    def changed(config):
        more = {"attn.norm": (config.d_model,)} if kind == "name" else {"ffn.up_proj": (2 * config.hidden_dim, config.d_model)}
        return block_weights(config) | more

    if kind == "shape":
        monkeypatch.setattr(FeedForward, "__init__", widen)
        monkeypatch.setattr(FeedForward, "forward", gated)
    else:
        monkeypatch.setattr(Attention, "__init__", add_norm)
    with pytest.raises(UserError, match=r"block_weights and weight_shapes in .* change them too"):
        Model(CONFIG)
    monkeypatch.setattr(model, "block_weights", changed)
    assert not has_mpt_formulas(CONFIG)

"""The decoder: pre-norm blocks, attention with linear biases, tied embeddings. The MPT architecture, named as it is there.

Shapes: B batch, T time, C = d_model, H heads, D = C / H head width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from alilama.common.config import CHOICES, MAX_BLOCKS, MAX_SIZE, Config
from alilama.common.errors import UserError, expect
from alilama.model.attention import SLOPE_RULE, alibi_slopes, check_kernel, choose_attention
from alilama.model.loss import Taught, linear_cross_entropy

# What the formulas below are, for all that has to know: config.json names it, and what cannot compute it refuses.
ARCHITECTURE = {"activation": "gelu", "slope_rule": SLOPE_RULE}

TEACHER_SHARE = 0.75  # of what is learned from a teacher; the rest is learned from the text

Attend = Callable[[torch.Tensor], torch.Tensor]  # makes y, (B, T, H, D), of qkv, (B, T, 3, H, D)


@dataclass
class ModelConfig:
    """The shape of a model; `max_seq_len` is the length it is trained at."""

    vocab_size: int
    d_model: int
    blocks: int
    num_heads: int
    hidden_dim: int
    max_seq_len: int
    dropout: float = 0.0

    def __post_init__(self):
        """Raises UserError for a shape that no model has, naming the field."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                expect(field.name, value, int)
                most = MAX_BLOCKS if field.name == "blocks" else MAX_SIZE - 1
                if not 1 <= value <= most:
                    raise UserError(f"{field.name} = {value}: expected 1 to {most:,}")
            elif field.name in CHOICES and value not in CHOICES[field.name]:
                raise UserError(f"{field.name} = {value!r}: expected one of {', '.join(map(str, CHOICES[field.name]))}")
        expect("dropout", self.dropout, float, int)
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout = {self.dropout}: expected at least 0 and below 1")
        if self.d_model % self.num_heads:
            raise UserError(f"num_heads = {self.num_heads}: expected a divisor of d_model = {self.d_model}")

    @classmethod
    def of(cls, config: Config, vocab_size: int) -> "ModelConfig":
        """Returns the shape that settings describe: those that are called as its fields are."""
        return cls(vocab_size, *(getattr(config, field.name) for field in fields(cls) if field.name != "vocab_size"))


class Model(nn.Module):
    """Token ids to logits. There is no position embedding: it runs at any length, whatever it was trained at."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        expect("config", config, ModelConfig)
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.d_model)  # also the output projection
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm_f = nn.LayerNorm(config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.recomputes = False  # the activations of each block in the backward pass, for memory that does not hold them
        self.register_buffer("slopes", alibi_slopes(config.num_heads), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                gain = (2 * config.blocks) ** -0.5 if isinstance(module, ResidualOutput) else 1.0
                nn.init.xavier_normal_(module.weight, gain)
        check_is_listed(self)
        check_kernel()

    def hidden(self, ids: torch.Tensor, attends: Sequence[Attend] | None = None) -> torch.Tensor:
        """Returns what the logits are made of, (B, T, C), for ids, (B, T) int64. `attends` has a block's attention each."""
        if attends is None:
            attend = choose_attention(self.slopes, ids.shape[1], self.config.d_model // self.config.num_heads)
            attends = [attend] * len(self.blocks)
        x = self.dropout(self.wte(ids))  # (B, T, C)
        for block, attend in zip(self.blocks, attends, strict=True):
            if self.recomputes and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, use_reentrant=False)
            else:
                x = block(x, attend)
        return self.norm_f(x)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # (B, T) int64 -> (B, T, V)
        return F.linear(self.hidden(ids), self.wte.weight)

    def loss(
        self, ids: torch.Tensor, targets: torch.Tensor, teacher: "Ensemble | None" = None, *, may_ignore: bool = False
    ) -> torch.Tensor:
        """Returns the mean cross-entropy in nats per token of `targets` after `ids`, both (B, T).

        The expectations of a teacher make up TEACHER_SHARE of the targets. Where it `may_ignore` some, those below 0 are left
        out.
        """
        taught = None
        if teacher is not None:
            with torch.no_grad():
                taught = Taught(teacher.hidden(ids).flatten(0, 1), teacher.wte.weight, TEACHER_SHARE)
        hidden = self.hidden(ids).flatten(0, 1)
        return linear_cross_entropy(hidden, self.wte.weight, targets.flatten(), taught, may_ignore=may_ignore)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


class Ensemble(nn.Module):
    """One or several models with one vocabulary as a teacher, whose logits are the mean of theirs.

    That is one output layer over their last activations side by side, so that a student learns from it as from a Model.
    """

    def __init__(self, models: Sequence[Model]):
        super().__init__()
        self.models = nn.ModuleList(models)
        self.wte = nn.Embedding.from_pretrained(torch.cat([model.wte.weight for model in models], dim=1) / len(models))

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns what the logits are made of, (B, T, sum of the widths), for ids, (B, T) int64."""
        return torch.cat([model.hidden(ids) for model in self.models], dim=-1)

    def num_parameters(self) -> int:
        return sum(model.num_parameters() for model in self.models)


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = Attention(config)
        self.norm_2 = nn.LayerNorm(config.d_model, bias=False)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:  # x: (B, T, C)
        x = x + self.dropout(self.attn(self.norm_1(x), attend))
        return x + self.dropout(self.ffn(self.norm_2(x)))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.Wqkv.parts = 3  # matrices, one below the other: an optimizer of matrices takes each by itself
        self.out_proj = ResidualOutput(config.d_model, config.d_model, bias=False)

    def forward(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:  # x: (B, T, C)
        B, T, C = x.shape
        qkv = self.Wqkv(x).view(B, T, 3, self.num_heads, -1)  # (B, T, 3, H, D)
        return self.out_proj(attend(qkv).reshape(B, T, C))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.hidden_dim, bias=False)
        self.down_proj = ResidualOutput(config.hidden_dim, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, C)
        return self.down_proj(F.gelu(self.up_proj(x)))


class ResidualOutput(nn.Linear):
    """A matrix whose output is added to the residual stream: it begins smaller than others, as in GPT-2."""


def block_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a Block's weights by name."""
    C, hidden = config.d_model, config.hidden_dim
    return {
        "norm_1": (C,),
        "attn.Wqkv": (3 * C, C),
        "attn.out_proj": (C, C),
        "norm_2": (C,),
        "ffn.up_proj": (hidden, C),
        "ffn.down_proj": (C, hidden),
    }


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a Model's weights by name, without building one."""
    block = block_weights(config).items()
    blocks = {f"blocks.{i}.{name}.weight": shape for i in range(config.blocks) for name, shape in block}
    return {"wte.weight": (config.vocab_size, config.d_model), **blocks, "norm_f.weight": (config.d_model,)}


def check_is_listed(model: Model):
    """Raises UserError where the weights of a model that was changed are not those of `weight_shapes`: no folder would load."""
    listed = weight_shapes(model.config)
    found = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in found.keys() | listed.keys():
        if found.get(name) != listed.get(name):
            raise UserError(
                f"the model's weight {name} has the shape {found.get(name)}, and by block_weights and weight_shapes in "
                f"alilama/model/model.py, which go by what a folder is loaded, {listed.get(name)}: change them too"
            )

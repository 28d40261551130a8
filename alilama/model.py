"""The decoder: pre-norm blocks, attention with linear biases, tied embeddings. The MPT architecture, named as it is there.

Shapes: B batch, T time, C = d_model, H heads, D = C / H head width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


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


def choose_device() -> str:
    """Returns the fastest device there is: cuda, mps (Apple) or cpu."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """Returns the slope of each head, (H,) float32 (Press et al. 2022, arXiv:2108.12409).

    For a power of two n they are 2^(-8h/n), h = 1..n. Other numbers take those of the next lower power of two and then
    every other slope of twice that.
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * h / lower) for h in range(1, lower + 1)]
    between = [2 ** (-8 * h / (2 * lower)) for h in range(1, 2 * lower + 1, 2)]
    return torch.tensor(slopes + between[:num_heads - lower])


def alibi_bias(slopes: torch.Tensor, T: int) -> torch.Tensor:
    """Returns what is added to the attention scores, (H, T, T): -slope * (i - j), and -inf on the future.

    Relative to the query and in float32, so that rounding to bf16 keeps near positions apart.
    """
    position = torch.arange(T, device=slopes.device)
    distance = position[:, None] - position  # (T, T)
    bias = -slopes[:, None, None] * distance  # (H, T, T)
    return bias.masked_fill(distance < 0, -math.inf)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:  # x: (B, T, C), bias: (H, T, T)
        B, T, C = x.shape
        q, k, v = self.Wqkv(x).view(B, T, 3, self.num_heads, -1).transpose(1, 3).unbind(2)  # each (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])  # (B, H, T, D); a mask without its
        # own batch dimension would take the CPU off the flash kernel, twice as slow at T = 128
        return self.out_proj(y.transpose(1, 2).reshape(B, T, C))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.hidden_dim, bias=False)
        self.down_proj = nn.Linear(config.hidden_dim, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, C)
        return self.down_proj(F.gelu(self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = Attention(config)
        self.norm_2 = nn.LayerNorm(config.d_model, bias=False)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:  # x: (B, T, C), bias: (H, T, T)
        x = x + self.dropout(self.attn(self.norm_1(x), bias))
        return x + self.dropout(self.ffn(self.norm_2(x)))


class Model(nn.Module):
    """Token ids to logits. There is no position embedding: it runs at any length, whatever it was trained at."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.d_model)  # also the output projection
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm_f = nn.LayerNorm(config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("slopes", alibi_slopes(config.num_heads), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_normal_(parameter)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # (B, T) int64 -> (B, T, V)
        bias = alibi_bias(self.slopes, ids.shape[1])
        x = self.dropout(self.wte(ids))  # (B, T, C)
        for block in self.blocks:
            x = block(x, bias)
        return F.linear(self.norm_f(x), self.wte.weight)

    def loss(self, ids: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        """Returns the cross-entropy in nats per token of `targets` after `ids`, both (B, T); targets of -1 are passed over."""
        logits = self(ids).flatten(0, 1).float()  # (B * T, V)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction=reduction)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

"""MPT's formulas written out, so that what is handed to other programs is known to be what they compute."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from alilama.model.model import Model, ModelConfig

# A model that is compared: with 3 heads, since slopes of a number that is no power of two follow a rule of their own.
SHAPE = {"vocab_size": 24, "d_model": 24, "blocks": 2, "num_heads": 3, "hidden_dim": 96, "max_seq_len": 24, "dropout": 0.0}
TIMES_MATRICES, GAIN_STD = 4, 0.3  # so that scores, activations and logits are large enough to tell formulas apart
TOLERANCE = 1e-6  # as a share of the largest logit; GELU by tanh differs by 2e-4


@torch.inference_mode()
def has_mpt_formulas(config: ModelConfig) -> bool:
    """Whether a small model of a configuration, its sizes aside, has MPT's weights and computes MPT's logits."""
    ids = torch.arange(SHAPE["vocab_size"])
    try:
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)  # the CPU's alone: those of GPUs are not put back
            model = make_model(replace(config, **SHAPE))
        found = model(ids[None])[0]
    except Exception:  # another model may raise anything at a size that it was not made for, and MPT has any size
        return False
    weights = model.state_dict()
    if {name: tuple(weight.shape) for name, weight in weights.items()} != mpt_shapes():
        return False
    expected = mpt_logits(weights, ids)
    return torch.allclose(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def make_model(config: ModelConfig) -> Model:
    """Returns a model with random weights, also those of the norms, in float64, for which no kernel hides what was changed."""
    model = Model(config).eval().double()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.mul_(TIMES_MATRICES)
        else:
            parameter.add_(GAIN_STD * torch.randn_like(parameter))
    return model


def mpt_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights of an MPT of SHAPE, by their names in Model; not by what Model says of itself."""
    C, hidden = SHAPE["d_model"], SHAPE["hidden_dim"]
    block = {
        "norm_1": (C,),
        "attn.Wqkv": (3 * C, C),
        "attn.out_proj": (C, C),
        "norm_2": (C,),
        "ffn.up_proj": (hidden, C),
        "ffn.down_proj": (C, hidden),
    }
    blocks = {f"blocks.{i}.{name}.weight": shape for i in range(SHAPE["blocks"]) for name, shape in block.items()}
    return {"wte.weight": (SHAPE["vocab_size"], C), **blocks, "norm_f.weight": (C,)}


def mpt_logits(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Returns the logits after each of `ids`, (T,), of an MPT of SHAPE with weights in float64: (T, V)."""
    T, H = len(ids), SHAPE["num_heads"]
    slopes = ids.new_tensor([2**-4, 2**-8, 2**-2], dtype=torch.float64)  # those of 2 heads, and the first of 4
    distance = torch.arange(T)[:, None] - torch.arange(T)  # (T, T)
    bias = (-slopes[:, None, None] * distance).masked_fill(distance < 0, -math.inf)  # (H, T, T)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], eps=1e-5)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T

    x = weights["wte.weight"][ids]  # (T, C)
    for block in (f"blocks.{i}" for i in range(SHAPE["blocks"])):
        q, k, v = linear(norm(x, f"{block}.norm_1"), f"{block}.attn.Wqkv").view(T, 3, H, -1).permute(1, 2, 0, 3)
        attended = (q @ k.mT / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v  # (H, T, D)
        x = x + linear(attended.transpose(0, 1).flatten(1), f"{block}.attn.out_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm_2"), f"{block}.ffn.up_proj")), f"{block}.ffn.down_proj")
    return linear(norm(x, "norm_f"), "wte")

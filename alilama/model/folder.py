"""Model folders: Hugging Face's MPT form. Nothing that is read runs code.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json

Beside them train.py keeps training_state.pt, log.csv and its pictures.
"""

import json
import os
from dataclasses import fields
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

from alilama.common.config import CHOICES, MAX_SIZE
from alilama.common.errors import UserError
from alilama.common.files import replacing, write_json
from alilama.data.formats import END_OF_TEXT
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import ALIBI_BIAS_MAX
from alilama.model.model import ARCHITECTURE, Model, ModelConfig, block_weights, weight_shapes

PRETRAINED = "models/alilama_2M"  # the model that is part of the repository
PREFIX = "transformer."  # of every weight's name in an MPT file
READABLE_MULTIPLE = 16  # Transformers refuses texts longer than max_seq_len, and ALiBi reads beyond the trained length

# What MPT calls the fields of ModelConfig; a field that is not here has its own name in config.json.
MPT_NAMES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "blocks": "n_layers",
    "num_heads": "n_heads",
    "hidden_dim": "hidden_dim",
    "max_seq_len": "trained_seq_len",
    "dropout": "resid_pdrop",
}
# What the MPT form can express beside them.
MPT_ARCHITECTURE = {"activation": "gelu", "slope_rule": "alibi"}
MPT_BLOCK = {"norm_1", "attn.Wqkv", "attn.out_proj", "norm_2", "ffn.up_proj", "ffn.down_proj"}
MPT_SETTINGS = {
    "expansion_ratio": 4,
    "layer_norm_epsilon": 1e-5,
    "no_bias": True,
    "tie_word_embeddings": True,
    "attn_config": {"alibi": True, "alibi_bias_max": ALIBI_BIAS_MAX, "attn_pdrop": 0},
}


# ---- writing ----


def save_description(folder: Path, config: ModelConfig, tokenizer: Tokenizer):
    """Writes everything of a model folder that does not change in training: all but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    special_ids = {f"{role}_token_id": tokenizer.eot_id for role in ("bos", "eos", "pad")}
    content = {
        "model_type": "mpt" if is_mpt(config) else "alilama",
        "architectures": ["MptForCausalLM" if is_mpt(config) else "Model"],
        **ARCHITECTURE,
        **{MPT_NAMES.get(field.name, field.name): getattr(config, field.name) for field in fields(config)},
        "max_seq_len": READABLE_MULTIPLE * config.max_seq_len,
        "emb_pdrop": config.dropout,
        **MPT_SETTINGS,
        **special_ids,
        "torch_dtype": "float32",
    }
    generation = {**special_ids, "do_sample": True, "max_new_tokens": 256}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "pad")},
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(folder / "tokenizer.json")
    for name, values in (("tokenizer_config", tokenizer_config), ("generation_config", generation), ("config", content)):
        write_json(folder / f"{name}.json", values)


def is_mpt(config: ModelConfig) -> bool:
    """Whether the MPT form can express the model: otherwise only Alilama reads its folder."""
    others = [field for field in fields(config) if field.name not in MPT_NAMES]
    return (
        config.hidden_dim == MPT_SETTINGS["expansion_ratio"] * config.d_model
        and MPT_ARCHITECTURE | ARCHITECTURE == MPT_ARCHITECTURE
        and block_weights(config).keys() == MPT_BLOCK
        and all(getattr(config, field.name) == MPT_ARCHITECTURE.get(field.name, field.default) for field in others)
    )


def save_weights(folder: Path, model: Model):
    """Writes model.safetensors in float32; the output projection is the embedding and is not written twice."""
    weights = {PREFIX + name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as file:
        file.write(save(weights, metadata={"format": "pt"}))


# ---- reading ----


def find_pretrained() -> Path:
    """Returns the folder of PRETRAINED: below the current folder, or else in the repository that this package lies in."""
    return Path(PRETRAINED) if Path(PRETRAINED).exists() else Path(__file__).resolve().parents[2] / PRETRAINED


def load_model(folder: str | os.PathLike, device: str | torch.device = "cpu") -> tuple[Model, Tokenizer]:
    """Returns the model of a folder in float32, ready to generate (in evaluation mode), and its tokenizer.

    Raises UserError where a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    config = load_shape(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: a model writes only with the tokenizer it was trained with")
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} tokens and config.json {config.vocab_size}; they "
            "do not belong to one model"
        )
    weights = load_weights(folder, config)
    model = Model(config)
    model.load_state_dict(weights)
    with torch.inference_mode():  # one token sees itself only: what attention makes of it is its value
        hidden = model.eval().hidden(torch.tensor([[tokenizer.eot_id]]), [lambda qkv: qkv[:, :, 2]] * config.blocks)
    if not hidden.isfinite().all():
        raise UserError(f"{folder} is damaged: its weights are so large that nothing finite comes out; train the model again")
    return model.to(device), tokenizer


def load_shape(folder: Path) -> ModelConfig:
    """Reads a model folder's config.json. Raises UserError where it is missing, damaged or of another architecture."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json; train a model with train.py")
    try:
        content = MPT_ARCHITECTURE | json.loads(path.read_text(encoding="utf-8"))  # what a folder does not name is MPT's
        names = {field.name: MPT_NAMES.get(field.name, field.name) for field in fields(ModelConfig)}
        config = ModelConfig(**{name: content[key] for name, key in names.items() if key in content or name in MPT_NAMES})
        attn_config = {name: content["attn_config"][name] for name in MPT_SETTINGS["attn_config"]}  # Transformers adds others
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # Unicode and JSON errors are ValueErrors
        raise UserError(
            f"{path} is damaged or of another kind of model ({type(error).__name__}: {error}); expected one that train.py wrote"
        ) from None
    fixed = {**MPT_ARCHITECTURE, **MPT_SETTINGS, **ARCHITECTURE}
    for name, value in fixed.items():
        if name in names:  # it has become a field of ModelConfig
            continue
        found = attn_config if name == "attn_config" else content.get(name)
        if found != value:
            raise UserError(f"{path} describes another architecture: {name} is {found!r}, expected {value!r}")
    sizes = [getattr(config, name) for name in MPT_NAMES if name != "dropout"]
    is_possible = all(type(size) is int and 0 < size < MAX_SIZE for size in sizes)
    is_possible = is_possible and isinstance(config.dropout, int | float) and 0 <= config.dropout < 1
    is_possible = is_possible and all(getattr(config, name) in CHOICES[name] for name in names.keys() & CHOICES.keys())
    if not is_possible or config.d_model % config.num_heads:
        raise UserError(f"{path} describes an impossible model: {config}")
    return config


def load_weights(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Reads the weights of a folder by their names in Model, in any float type and number of files.

    Raises UserError where they are not those that `config` describes, or are not finite.
    """
    path = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    weights = {}
    for part in [path] if path.exists() or not index.exists() else read_index(index):
        try:
            with safetensors.safe_open(part, framework="pt") as file:
                weights |= {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{part} is missing or damaged ({error}); train the model again") from None
    unlike = f"{path} does not hold the {config.blocks} blocks that config.json describes; they do not belong to one model"
    if len(weights) != 2 + config.blocks * len(block_weights(config)):
        raise UserError(unlike)
    if {name: tuple(weight.shape) for name, weight in weights.items()} != weight_shapes(config):
        raise UserError(unlike)
    if not all(weight.is_floating_point() and weight.float().isfinite().all() for weight in weights.values()):
        raise UserError(f"{path} is damaged: it holds weights that are not finite numbers; train the model again")
    return weights


def read_index(path: Path) -> list[Path]:
    """Returns the files that model.safetensors.index.json says the weights are in; they lie beside it."""
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        if any(Path(name).name != name or name in ("", "..") for name in names):
            raise ValueError("it names files outside of its folder")
        b"".join(name.encode() for name in names)  # raises ValueError where no file can be called so
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); train the model again") from None
    return [path.with_name(name) for name in sorted(names)]

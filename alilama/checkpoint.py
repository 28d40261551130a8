"""Model folders: Hugging Face's MPT form, with the training state beside it. Nothing that is read runs code.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json
    training_state.pt  log.csv  loss.png  evaluation.png

model.safetensors is the model that was best on the validation tokens; training_state.pt is where the run goes on.
"""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

from alilama.config import MAX_SIZE
from alilama.data import replacing, write_json
from alilama.errors import UserError
from alilama.model import Model, ModelConfig
from alilama.tokenizer import END_OF_TEXT, Tokenizer

PRETRAINED = "models/alilama_2M"  # the model that is part of the repository
STATE_KEYS = {"step", "num_steps", "best_loss", "config", "data", "tokenizer_sha256", "model", "optimizers", "counts", "rng"}
PREFIX = "transformer."  # of every weight's name in an MPT file
ARCHITECTURE = {  # what every model has in common
    "expansion_ratio": 4,
    "layer_norm_epsilon": 1e-5,
    "no_bias": True,
    "tie_word_embeddings": True,
    "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_pdrop": 0},
}
READABLE_MULTIPLE = 16  # Transformers refuses texts longer than max_seq_len, and ALiBi reads beyond the trained length


def is_mpt(config: ModelConfig) -> bool:
    """Whether the MPT form can express the model: its feed-forward part is always 4 * d_model wide."""
    return config.hidden_dim == 4 * config.d_model


def save_description(folder: Path, config: ModelConfig, tokenizer: Tokenizer):
    """Writes everything of a model folder that does not change in training: all but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model_type": "mpt" if is_mpt(config) else "alilama",
        "architectures": ["MptForCausalLM" if is_mpt(config) else "Model"],
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "n_layers": config.blocks,
        "n_heads": config.num_heads,
        "hidden_dim": config.hidden_dim,
        "max_seq_len": READABLE_MULTIPLE * config.max_seq_len,
        "trained_seq_len": config.max_seq_len,
        "resid_pdrop": config.dropout,
        "emb_pdrop": config.dropout,
        **ARCHITECTURE,
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.eot_id,
        "pad_token_id": tokenizer.eot_id,
        "torch_dtype": "float32",
    }
    generation = {
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.eot_id,
        "pad_token_id": tokenizer.eot_id,
        "do_sample": True,
        "max_new_tokens": 256,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(folder / "tokenizer.json")
    for name, values in (("tokenizer_config", tokenizer_config), ("generation_config", generation), ("config", content)):
        write_json(folder / f"{name}.json", values)


def save_weights(folder: Path, model: Model):
    """Writes model.safetensors in float32; the output projection is the embedding and is not written twice."""
    weights = {PREFIX + name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as file:
        file.write(save(weights, metadata={"format": "pt"}))


def load_shape(folder: Path) -> ModelConfig:
    """Reads a model folder's config.json. Raises UserError where it is missing, damaged or of another architecture."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is no model folder: it has no config.json; train a model with train.py")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = ModelConfig(
            vocab_size=content["vocab_size"],
            d_model=content["d_model"],
            blocks=content["n_layers"],
            num_heads=content["n_heads"],
            hidden_dim=content["hidden_dim"],
            max_seq_len=content["trained_seq_len"],
            dropout=content["resid_pdrop"],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # Unicode and JSON errors are ValueErrors
        raise UserError(
            f"{path} is damaged or of another kind of model ({type(error).__name__}: {error}); expected one that train.py wrote"
        ) from None
    for name, value in ARCHITECTURE.items():
        if content.get(name) != value:
            raise UserError(f"{path} describes another architecture: {name} is {content.get(name)!r}, expected {value!r}")
    shape = [config.vocab_size, config.d_model, config.blocks, config.num_heads, config.hidden_dim, config.max_seq_len]
    is_possible = all(isinstance(size, int) and 0 < size < MAX_SIZE for size in shape)
    is_possible = is_possible and isinstance(config.dropout, int | float) and 0 <= config.dropout < 1
    if not is_possible or config.d_model % config.num_heads:
        raise UserError(f"{path} describes no possible model: {config}")
    return config


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a model's weights by name, as building it would; on torch's meta device that takes seconds."""
    C, hidden = config.d_model, config.hidden_dim
    block = {
        "norm_1": (C,),
        "attn.Wqkv": (3 * C, C),
        "attn.out_proj": (C, C),
        "norm_2": (C,),
        "ffn.up_proj": (hidden, C),
        "ffn.down_proj": (C, hidden),
    }
    return {
        "wte.weight": (config.vocab_size, C),
        "norm_f.weight": (C,),
        **{f"blocks.{i}.{name}.weight": shape for i in range(config.blocks) for name, shape in block.items()},
    }


def load_model(folder: str | os.PathLike, device: str | torch.device = "cpu") -> tuple[Model, Tokenizer]:
    """Returns the model of a folder, ready to generate (in evaluation mode), and its tokenizer.

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
            "are not of one model"
        )
    path = folder / "model.safetensors"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            weights = {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); train the model again") from None
    if len(weights) != 2 + 6 * config.blocks:
        raise UserError(
            f"{path} does not hold the {config.blocks} blocks that config.json describes; they are not of one model"
        )
    if not all(weight.is_floating_point() and weight.float().isfinite().all() for weight in weights.values()):
        raise UserError(f"{path} is damaged: it holds weights that are no finite numbers; train the model again")
    found = {name: weight.shape for name, weight in weights.items()}
    if found != weight_shapes(config):
        raise UserError(f"{path} does not hold the weights that config.json describes; they are not of one model")
    model = Model(config)
    model.load_state_dict(weights)
    with torch.inference_mode():  # one token sees itself only: what attention makes of it is its value
        hidden = model.eval().hidden(torch.tensor([[tokenizer.eot_id]]), [lambda qkv: qkv[:, :, 2]] * config.blocks)
    if not hidden.isfinite().all():
        raise UserError(f"{path} is damaged: its weights are so large that nothing finite comes out; train the model again")
    return model.to(device), tokenizer


def save_state(folder: Path, state: dict):
    """Writes training_state.pt: tensors and plain values under STATE_KEYS, all that a run needs to go on."""
    content = io.BytesIO()
    torch.save(state, content)  # not into the file, for torch hides what a full disk says
    with replacing(folder / "training_state.pt") as file:
        file.write(content.getbuffer())


def load_state(folder: Path) -> dict | None:
    """Returns what `save_state` wrote last, None where there is nothing. Raises UserError for a damaged or foreign file."""
    path = folder / "training_state.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); delete {folder} and train again") from None
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        raise UserError(f"{path} was not written by train.py; delete {folder} and train again")
    return state

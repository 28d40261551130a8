"""Model folders: Hugging Face's MPT form, which Transformers and vLLM read. Nothing that is read runs code.

    config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json

Beside them train.py keeps training_state.pt, log.csv, its pictures and README.md.
"""

import hashlib
import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

from alilama.common.errors import UserError, expect, first_line
from alilama.common.files import check_is_file, replacing, to_path, write_json
from alilama.data.formats import END_OF_TEXT
from alilama.data.frames import CHAT_TEMPLATE
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import ALIBI_BIAS_MAX
from alilama.model.model import ARCHITECTURE, Model, ModelConfig, block_weights, weight_shapes
from alilama.model.mpt import has_mpt_formulas

SHIPPED = ("alilama_7M", "alilama_7M_orders", "alilama_2M")  # the models that are part of the repository
PRETRAINED = f"models/{SHIPPED[0]}"  # the one that is taken where none is named
CHECKSUM = "alilama_sha256"  # of the weights, in the metadata of their file
PREFIX = "transformer."  # of every weight's name in an MPT file
LARGEST_HALF = torch.finfo(torch.float16).max
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
# What has to be so for the formulas to be ours. Transformers has these defaults, and leaves some of them out when it saves.
MPT_SETTINGS = {
    "expansion_ratio": 4,
    "layer_norm_epsilon": 1e-5,
    "norm_type": "low_precision_layernorm",
    "no_bias": True,
    "tie_word_embeddings": True,
    "logit_scale": None,
    "attn_config": {
        "attn_type": "multihead_attention",
        "alibi": True,
        "alibi_bias_max": ALIBI_BIAS_MAX,
        "clip_qkv": None,
        "qk_ln": False,
        "softmax_scale": None,
        "prefix_lm": False,
    },
}


# ---- writing ----


def save_description(folder: Path, config: ModelConfig, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32):
    """Writes everything of a model folder that does not change in training: all but the weights, which are of `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    special_ids = {f"{role}_token_id": tokenizer.eot_id for role in ("bos", "eos", "pad")}
    template = {} if tokenizer.frame is None else {"chat_template": CHAT_TEMPLATE}
    model_type, architecture = ("mpt", "MptForCausalLM") if is_mpt(config) else ("alilama", "Model")
    content = {
        "model_type": model_type,
        "architectures": [architecture],
        **ARCHITECTURE,
        "max_seq_len": READABLE_MULTIPLE * config.max_seq_len,
        "emb_pdrop": config.dropout,
        "embedding_fraction": 1.0,
        "learned_pos_emb": False,
        **MPT_SETTINGS,
        "attn_config": {**MPT_SETTINGS["attn_config"], "attn_pdrop": 0},
        # The last of these, for a new field may be called as one of MPT's settings is.
        **{MPT_NAMES.get(field.name, field.name): getattr(config, field.name) for field in fields(config)},
        **special_ids,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    # Transformers stops with an error where prompt and text are longer than max_seq_len.
    ends = tokenizer.stop_ids if tokenizer.frame is not None else tokenizer.eot_id
    generation = {
        **special_ids,
        "eos_token_id": ends,
        "do_sample": True,
        "max_new_tokens": min(256, content["max_seq_len"] // 2),
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "pad")},
        "clean_up_tokenization_spaces": False,
        "model_max_length": content["max_seq_len"],
        "padding_side": "left",  # so that prompts of different lengths go on where they end
        "model_input_names": ["input_ids", "attention_mask"],  # Transformers 4 would give the model a third, which it refuses
        **template,
    }
    tokenizer.save(folder / "tokenizer.json", first_token=END_OF_TEXT)
    for name, values in (("tokenizer_config", tokenizer_config), ("generation_config", generation), ("config", content)):
        write_json(folder / f"{name}.json", values)


def is_mpt(config: ModelConfig) -> bool:
    """Whether the MPT form can express the model: otherwise only Alilama reads its folder."""
    return config.hidden_dim == MPT_SETTINGS["expansion_ratio"] * config.d_model and computes_as_mpt(config)


def computes_as_mpt(config: ModelConfig) -> bool:
    """Whether the model has MPT's formulas and weights, of any size."""
    others = [field for field in fields(config) if field.name not in MPT_NAMES]
    return (
        MPT_ARCHITECTURE | ARCHITECTURE == MPT_ARCHITECTURE
        and block_weights(config).keys() == MPT_BLOCK
        and all(getattr(config, field.name) == MPT_ARCHITECTURE.get(field.name, field.default) for field in others)
        and has_mpt_formulas(config)
    )


def save_weights(folder: Path, model: Model, dtype: torch.dtype = torch.float32):
    """Writes model.safetensors, with a checksum; the output projection is the embedding and is not written twice."""
    weights = {PREFIX + name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as file:
        file.write(in_order(save(weights, metadata={"format": "pt", CHECKSUM: sha256_of(weights)})))


def in_order(content: bytes) -> bytes:
    """Returns a safetensors file with its metadata sorted, which come in another order each time."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def sha256_of(weights: dict[str, torch.Tensor]) -> str:
    """Returns the SHA-256 in hex of weights on the CPU and their names, in the order of these."""
    checksum = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        checksum.update(name.encode())
        checksum.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return checksum.hexdigest()


def check_half(folder: Path, weights: dict[str, torch.Tensor], precision: str, remedy: str):
    """Raises UserError for a weight that float16, or a `precision` made of it, does not hold, with what to do instead."""
    for name, weight in weights.items():
        if (largest := float(weight.abs().max())) > LARGEST_HALF:
            raise UserError(
                f"{folder}: {name} has a weight of {largest:g}, too large for {precision}, which holds up to {LARGEST_HALF:g}; "
                f"{remedy}"
            )


# ---- reading ----


def find_pretrained() -> Path:
    """Returns the folder of PRETRAINED: below the current folder, or else in the repository that this package lies in."""
    return Path(PRETRAINED) if Path(PRETRAINED).exists() else Path(__file__).resolve().parents[2] / PRETRAINED


def is_shipped(folder: Path) -> bool:
    """Whether a folder is that of a model which is part of the repository, so that nothing is to be written there."""
    return folder.resolve() in [find_pretrained().resolve().with_name(name) for name in SHIPPED]


def load_model(folder: str | os.PathLike, device: str | torch.device = "cpu") -> tuple[Model, Tokenizer]:
    """Returns the model of a folder in float32, ready to generate (in evaluation mode), and its tokenizer.

    Rows of the embedding that belong to no token, with which some make its size a round number, are left out: what is written
    is always a token. Raises UserError where files are missing, damaged, or do not fit, and for a device that is not there.
    """
    folder = to_path("folder", folder)
    expect("device", device, str, torch.device)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's, by the kind of device and how it was built
        raise UserError(f"device = {device!r}: expected one such as 'cpu' or 'cuda' ({first_line(error)[:100]})") from None
    content = read_config(folder)
    config = shape_in(content, folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: a model writes only with the tokenizer it was trained with")
    tokenizer = Tokenizer.load(path)
    eos_id = content["eos_token_id"]  # which tells more rows than tokens from the tokenizer of another model
    ends = (None, tokenizer.eot_id, [tokenizer.eot_id], tokenizer.stop_ids)
    is_padded = config.vocab_size > tokenizer.vocab_size and eos_id in ends
    if config.vocab_size != tokenizer.vocab_size and not is_padded:
        raise UserError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} tokens and config.json {config.vocab_size}; they "
            "do not belong to one model"
        )
    weights = load_weights(folder, config)
    if is_padded:
        config = replace(config, vocab_size=tokenizer.vocab_size)
        weights["wte.weight"] = weights["wte.weight"][: config.vocab_size]
    model = Model(config)
    model.load_state_dict(weights)
    with torch.inference_mode():  # one token sees itself only: what attention makes of it is its value
        hidden = model.eval().hidden(torch.tensor([[tokenizer.eot_id]]), [lambda qkv: qkv[:, :, 2]] * config.blocks)
    if not hidden.isfinite().all():
        raise UserError(f"{folder} is damaged: its weights are so large that nothing finite comes out; train the model again")
    return model.to(device), tokenizer


def load_shape(folder: Path) -> ModelConfig:
    """Reads the shape in a model folder's config.json. Raises UserError for what a Model cannot be, naming the setting."""
    return shape_in(read_config(folder), folder)


def shape_in(content: dict, folder: Path) -> ModelConfig:
    """Returns the shape that the config.json of a folder has in its `content`; see `load_shape`."""
    path = folder / "config.json"
    names = {field.name: MPT_NAMES.get(field.name, field.name) for field in fields(ModelConfig)}
    if missing := [key for name, key in names.items() if name in MPT_NAMES and key not in content]:
        raise UserError(f"{path} is damaged: it does not say {missing[0]}; train the model again, or download it again")
    found = flattened(content)
    for name, value in flattened({**MPT_ARCHITECTURE, **MPT_SETTINGS, **ARCHITECTURE}).items():
        if name not in names and found.get(name) != value:  # or it has become a field of ModelConfig
            raise UserError(f"{path} describes another architecture: {name} is {found.get(name)!r}, expected {value!r}")
    try:
        return ModelConfig(**{name: content[key] for name, key in names.items() if key in content})
    except UserError as error:
        raise UserError(f"{path} describes an impossible model: {error}") from None


def read_config(folder: Path) -> dict:
    """Reads a model folder's config.json; what it does not name is as Transformers takes it.

    Raises UserError where it is missing, damaged or of another kind of model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json; train a model with train.py")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (kind := content.get("model_type")) not in ("mpt", "alilama"):
            raise UserError(f"{path} describes another kind of model: model_type is {kind!r}, expected 'mpt'")
        attn_config = {**MPT_SETTINGS["attn_config"], **(content.get("attn_config") or {})}
        usual = {
            "hidden_dim": MPT_SETTINGS["expansion_ratio"] * content["d_model"],
            "trained_seq_len": content["max_seq_len"],
            "resid_pdrop": 0.0,
            "eos_token_id": None,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):  # which is a ValueError, as those of Unicode and JSON are
            raise
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected that of an MPT model, such as train.py writes"
        ) from None
    return {**MPT_ARCHITECTURE, **MPT_SETTINGS, **usual, **content, "attn_config": attn_config}


def flattened(settings: dict) -> dict:
    """Returns settings of config.json by name, those within attn_config too."""
    return settings | {f"attn_config.{name}": value for name, value in settings["attn_config"].items()} | {"attn_config": None}


def load_weights(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Reads the weights of a folder by their names in Model, in any float type and number of files.

    Raises UserError where they are not those that `config` describes, or are not finite.
    """
    weights = {}
    for part in find_parts(folder):
        check_is_file(part)
        try:
            with safetensors.safe_open(part, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                expected = (file.metadata() or {}).get(CHECKSUM)  # files of others have none
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{part} is missing or damaged ({error}); train the model again") from None
        if expected not in (None, sha256_of(found)):
            raise UserError(f"{part} is damaged: its weights are not those that its checksum is of; train the model again")
        weights |= {name.removeprefix(PREFIX): tensor for name, tensor in found.items()}
    head = weights.pop("lm_head.weight", None)  # some write the one matrix that it is with the embedding twice
    if head is not None and not torch.equal(weights.setdefault("wte.weight", head).float(), head.float()):
        raise UserError(f"{folder} has an output projection, lm_head.weight, beside its embedding; here they are one matrix")
    block = "|".join(map(re.escape, block_weights(config)))
    known = re.compile(rf"(?:wte|norm_f|blocks\.\d+\.(?:{block}))\.weight")
    if unknown := [name for name in weights if not known.fullmatch(name)]:
        raise UserError(f"{folder} has {unknown[0]} among its weights, which a model of this architecture does not have")
    unlike = f"{folder} does not hold the {config.blocks} blocks that config.json describes; they do not belong to one model"
    if len(weights) != 2 + config.blocks * len(block_weights(config)):
        raise UserError(unlike)
    if {name: tuple(weight.shape) for name, weight in weights.items()} != weight_shapes(config):
        raise UserError(unlike)
    if not all(weight.is_floating_point() and weight.float().isfinite().all() for weight in weights.values()):
        raise UserError(f"{folder} is damaged: it holds weights that are not finite numbers; train the model again")
    return weights


def find_parts(folder: Path) -> list[Path]:
    """Returns the files that the weights of a folder are in."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.exists() or index.exists():
        return [path] if path.exists() else read_index(index)
    if pickles := sorted(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{pickles[0]} is not read, for it may run code; where you trust it, Transformers makes a model.safetensors of it: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    return [path]


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

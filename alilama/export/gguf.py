"""GGUF files, which llama.cpp and Ollama run: a model as the MPT that it is, and its tokenizer.

Two things are not the same there. llama.cpp takes the tanh form of GELU, from a table in float16. And it cuts an apostrophe
with a long s, 'ſ, and characters of Unicode 16 and later in another way; tests/benchmarks/llama_cpp.py lists them.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
import regex

from alilama.common.errors import UserError, expect
from alilama.common.files import replacing, to_path
from alilama.data.formats import END_OF_TEXT, Vocabulary, byte_level_name
from alilama.data.frames import CHAT_TEMPLATE, END, ROLES
from alilama.data.tokenizer import PATTERNS, Tokenizer
from alilama.model.attention import ALIBI_BIAS_MAX
from alilama.model.folder import MPT_SETTINGS, PREFIX, READABLE_MULTIPLE, check_half, computes_as_mpt, is_mpt, load_model
from alilama.model.model import Model, ModelConfig
from alilama.writing.sampling import Sampling

FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
MAX_BLOCKS = 512  # of llama.cpp: LLAMA_MAX_LAYERS
# What llama.cpp calls a pattern, by whether pieces that are tokens are taken before any merge.
PRE_TOKENIZERS = {("gpt4", False): "dbrx", ("gpt4", True): "llama-bpe", ("gpt2", False): "gpt-2", ("qwen35", False): "qwen35"}


def write_gguf(folder: str | os.PathLike, file: str | os.PathLike, precision: str = "f16"):
    """Writes a model folder to a GGUF file, its matrices in f32, f16 or q8_0, and FILE.Modelfile for Ollama beside it.

    A Modelfile that is there already stays as it is: it is for this file too, and somebody may have changed it.
    Raises UserError for what llama.cpp would not run as it is here.
    """
    folder, file = to_path("folder", folder), to_path("file", file)
    expect("precision", precision, str)
    if precision not in FILE_TYPES:
        raise UserError(f"precision {precision!r}: expected one of {', '.join(FILE_TYPES)}")
    if not file.name.isprintable() or '"' in file.name:
        raise UserError(f"{str(file)!r}: expected a name that a Modelfile can hold, without quotes and line ends")
    model, tokenizer = load_model(folder)
    check_shape(folder, model.config, precision)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.MPT])
    add_description(writer, model.config, folder.resolve().name, precision)
    add_tokenizer(writer, tokenizer, folder / "tokenizer.json")
    tensors = round_weights(model, folder, precision)
    for name, (tensor, kind) in tensors.items():
        writer.add_tensor(name, tensor, raw_dtype=kind)
    with replacing(file) as part:
        with closing(writer):
            writer.write_header_to_file(Path(part.name))
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        write_data(part, [tensor for tensor, _ in tensors.values()])
    modelfile = Path(f"{file}.Modelfile")
    if not modelfile.exists():
        with replacing(modelfile) as part:
            part.write(describe_to_ollama(file.name, has_frame=tokenizer.frame is not None).encode())


# ---- the model ----


def check_shape(folder: Path, config: ModelConfig, precision: str):
    """Raises UserError for a model that llama.cpp does not run, or not in this precision."""
    if not computes_as_mpt(config):
        raise UserError(f"{folder} has other formulas or weights than MPT, as which llama.cpp would run it; it runs here only")
    if not is_mpt(config):
        raise UserError(
            f"{folder} has hidden_dim = {config.hidden_dim}, and llama.cpp takes {MPT_SETTINGS['expansion_ratio']} * d_model = "
            f"{MPT_SETTINGS['expansion_ratio'] * config.d_model}; train a model with hidden_dim = None"
        )
    if config.blocks > MAX_BLOCKS:
        raise UserError(
            f"{folder} has {config.blocks} blocks, and llama.cpp runs at most {MAX_BLOCKS}; train a model with fewer"
        )
    if config.d_model == config.num_heads:
        raise UserError(
            f"{folder} has {config.num_heads} heads of width 1, which llama.cpp does not run; train a model with fewer"
        )
    block_size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]
    if precision == "q8_0" and config.d_model % block_size:
        raise UserError(
            f"{folder} has d_model = {config.d_model}, and q8_0 rounds {block_size} weights of a row together: export f16, or "
            f"train a model with a multiple of {block_size}"
        )


def add_description(writer: gguf.GGUFWriter, config: ModelConfig, name: str, precision: str):
    writer.add_name(name)
    writer.add_context_length(READABLE_MULTIPLE * config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.blocks)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.num_heads)
    writer.add_layer_norm_eps(MPT_SETTINGS["layer_norm_epsilon"])
    writer.add_max_alibi_bias(ALIBI_BIAS_MAX)
    writer.add_file_type(FILE_TYPES[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def round_weights(model: Model, folder: Path, precision: str) -> dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]:
    """Returns the weights by their names in GGUF, rounded, with their types: norms stay in float32.

    Raises UserError for a weight that is too large for the precision.
    """
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MPT, model.config.blocks)
    weights, tensors = model.state_dict(), {}
    if precision != "f32":
        check_half(folder, {name: weight for name, weight in weights.items() if weight.ndim == 2}, precision, "export f32")
    for name, weight in weights.items():
        weight = weight.numpy()
        kind = gguf.GGMLQuantizationType[precision.upper() if weight.ndim == 2 else "F32"]
        tensors[names.get_name(PREFIX + name, try_suffixes=(".weight",))] = gguf.quantize(weight, kind), kind
    return tensors


def write_data(file: BinaryIO, tensors: list[np.ndarray]):
    """Writes the tensors after what is in the file, each from a multiple of GGUF's alignment on.

    GGUFWriter would do it by ndarray.tofile, which does not say why it failed where the disk is full.
    """
    file.seek(0, os.SEEK_END)
    for tensor in [*tensors, np.empty(0)]:  # the last one ends as the others do
        file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
        file.write(tensor.tobytes())


# ---- the tokenizer ----


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, path: Path):
    """Adds the tokenizer of a tokenizer.json. Raises UserError where llama.cpp cannot cut text as it does."""
    vocabulary = tokenizer.vocabulary
    names, kinds = name_tokens(vocabulary, tokenizer.special_tokens)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whatever the pattern
    writer.add_tokenizer_pre(find_pre_tokenizer(tokenizer, bool(vocabulary.whole_pieces), path))
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    merges = [f"{names[left]} {names[right]}" for left, right, _ in vocabulary.merges]
    writer.add_token_merges(merges or [f"{END_OF_TEXT} {END_OF_TEXT}"])  # one of no text: llama.cpp refuses an empty list
    for add_id in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add_id(tokenizer.eot_id)
    if tokenizer.frame is not None:
        writer.add_chat_template(CHAT_TEMPLATE)
        writer.add_eot_token_id(tokenizer.frame.end_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def find_pre_tokenizer(tokenizer: Tokenizer, takes_whole_pieces: bool, path: Path) -> str:
    """Returns llama.cpp's name for how the tokenizer cuts text. Raises UserError where it has none."""
    name = PRE_TOKENIZERS.get((tokenizer.native_pattern, takes_whole_pieces))
    if name is None:
        way = " and takes pieces that are tokens before any merge (ignore_merges)" if takes_whole_pieces else ""
        raise UserError(
            f"{path} cuts text by the pattern {tokenizer.pattern[:100]!r}{way}, and llama.cpp has patterns of its own only: "
            f"train a model with {' or '.join(dict.fromkeys(pattern for pattern, _ in PRE_TOKENIZERS))}"
        )
    pattern = regex.compile(PATTERNS[tokenizer.native_pattern])
    if takes_whole_pieces and (taken := [token for token in tokenizer.special_tokens if pattern.fullmatch(token)]):
        raise UserError(
            f"{path} has the special token {taken[0]!r}, which is an ordinary piece of text too, and llama.cpp would take "
            "one for the other; train a model without it"
        )
    return name


def name_tokens(vocabulary: Vocabulary, special_tokens: dict[str, int]) -> tuple[list[str], list[gguf.TokenType]]:
    """Returns what each id is called in a GGUF file, all names different, and its type."""
    names = [byte_level_name(token) for token in vocabulary.tokens]
    kinds = [gguf.TokenType.NORMAL] * len(names)
    for id, token in enumerate(vocabulary.tokens):
        if not token:
            names[id], kinds[id] = f"[unused {id}]", gguf.TokenType.UNUSED  # no text has a blank in its name ...
            while names[id] in special_tokens:  # ... but these may have one
                names[id] += "]"
    for token, id in special_tokens.items():
        names[id], kinds[id] = token, gguf.TokenType.CONTROL
    return names, kinds


# ---- Ollama ----


def describe_to_ollama(gguf_name: str, *, has_frame: bool) -> str:
    """Returns a Modelfile: the prompt as it is, or in a frame, and tokens taken as alilama.generate takes them."""
    usual = Sampling()
    parameters = {
        "temperature": usual.temperature,
        "top_k": usual.top_k or 0,  # 0 keeps all
        "top_p": usual.top_p,
        "min_p": usual.min_p,
        "repeat_penalty": usual.repetition_penalty,
        "stop": END if has_frame else END_OF_TEXT,
    }
    system = f"{{{{ if .System }}}}{ROLES['system']}{{{{ .System }}}}{END}{{{{ end }}}}"
    turn = f"{ROLES['user']}{{{{ .Prompt }}}}{END}{ROLES['assistant']}{{{{ .Response }}}}{END}"
    prompt = system + turn if has_frame else "{{ .Prompt }}"
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{prompt}"""']
    return "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in parameters.items()), ""])

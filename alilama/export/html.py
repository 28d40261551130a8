"""One web page that holds a model and writes with it, without a network or a server."""

import base64
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

from alilama.common.errors import UserError
from alilama.common.files import replacing, to_path
from alilama.data.tokenizer import Tokenizer
from alilama.export.patterns import to_javascript
from alilama.model.folder import check_half, computes_as_mpt, load_model
from alilama.model.model import Model
from alilama.training.log import read_log

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("tokenizer", "model", "page")
PROMPT = "Once upon a time"
MAX_PARAMETERS = 190_000_000  # whose weights in base64 are the longest text that Chromium takes


def write_html(folder: str | os.PathLike, file: str | os.PathLike):
    """Writes a page with the model of a folder, its weights in 16 bits.

    Raises UserError where the folder cannot be read, or page/model.js or a browser cannot compute what it holds.
    """
    folder, file = to_path("folder", folder), to_path("file", file)
    model, tokenizer = load_model(folder)
    if not computes_as_mpt(model.config):
        raise UserError(f"{folder}: a page computes MPT's blocks and this model has others; alilama.generate writes with it")
    if model.num_parameters() > MAX_PARAMETERS:
        raise UserError(f"{folder} has {model.num_parameters():,} parameters and a page holds {MAX_PARAMETERS:,}; use --gguf")
    weights = model.state_dict()
    check_half(folder, weights, "f16", "use --onnx")
    description = {
        "name": folder.resolve().name,
        "about": describe_model(folder, model),
        **describe_frame(tokenizer),
        "shape": asdict(model.config),
        "slopes": model.slopes.tolist(),
        "weights": [[name, list(weight.shape)] for name, weight in weights.items()],
        "tokenizer": describe_tokenizer(tokenizer),
    }
    halves = b"".join(weight.half().numpy().tobytes() for weight in weights.values())
    parts = {
        "DESCRIPTION": json.dumps(description, separators=(",", ":")).replace("<", r"\u003c"),  # so that no markup ends it
        "WEIGHTS": base64.b64encode(halves).decode(),
    }
    parts |= {f"{script.upper()}_JS": (PAGE / f"{script}.js").read_text(encoding="utf-8") for script in SCRIPTS}
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    page = re.sub("|".join(parts), lambda marker: parts[marker[0]], page)
    with replacing(file) as stream:
        stream.write(page.encode())


def describe_model(folder: Path, model: Model) -> str:
    """Returns what the page says of a model below its name."""
    config, log = model.config, folder / "log.csv"
    text = (
        f"{model.num_parameters() / 1e6:.1f}M parameters: {config.blocks} blocks, {config.num_heads} heads, {config.d_model} "
        f"numbers a token, {config.vocab_size:,} tokens"
    )
    rows = [row for row in read_log(log) if row.keys() >= {"tokens", "val_bits_per_byte"}] if log.is_file() else []
    if rows:
        best = min(rows, key=lambda row: row["val_bits_per_byte"])
        text += f"; after {best['tokens'] / 1e6:.1f}M tokens {best['val_bits_per_byte']:.3f} bits per byte on text it never saw"
    return text


def describe_frame(tokenizer: Tokenizer) -> dict:
    """Returns what page.js puts around a prompt, what ends a text, and what special tokens look like."""
    if tokenizer.frame is None:
        around = {"prompt": PROMPT, "before": [tokenizer.eot_id], "after": [], "shown": {tokenizer.eot_id: ""}}
        return {**around, "stopIds": tokenizer.stop_ids, "refusedTokens": list(tokenizer.special_tokens)}
    roles, end_id = tokenizer.frame.role_ids, tokenizer.frame.end_id
    shown = dict.fromkeys([tokenizer.eot_id, end_id, *roles.values()], "") | {roles["assistant"]: "\n\n"}
    around = {"prompt": "", "before": [tokenizer.eot_id, roles["user"]], "after": [end_id, roles["assistant"]], "shown": shown}
    return {**around, "stopIds": tokenizer.stop_ids, "refusedTokens": []}


def describe_tokenizer(tokenizer: Tokenizer) -> dict:
    """Returns what page/tokenizer.js makes a Tokenizer of."""
    vocabulary = tokenizer.vocabulary
    return {
        "sizes": [len(token) for token in vocabulary.tokens],
        "bytes": base64.b64encode(b"".join(vocabulary.tokens)).decode(),
        "byteIds": vocabulary.byte_ids,
        "merges": [id for merge in vocabulary.merges for id in merge],
        "wholePieces": vocabulary.whole_pieces,
        "pattern": to_javascript(tokenizer.expression),
    }

"""One web page that holds a model and writes with it, without a network or a server."""

import base64
import json
import re
from dataclasses import asdict
from pathlib import Path

import torch

from alilama.common.errors import UserError
from alilama.common.files import replacing
from alilama.data.tokenizer import Tokenizer
from alilama.export.patterns import to_javascript
from alilama.model.folder import MPT_ARCHITECTURE, MPT_BLOCK, load_model
from alilama.model.model import ARCHITECTURE, Model, block_weights
from alilama.training.log import read_log

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("tokenizer", "model", "page")
LARGEST_HALF = torch.finfo(torch.float16).max
PROMPT = "Once upon a time"


def write_html(folder: Path, file: Path):
    """Writes a page with the model of a folder, its weights in 16 bits.

    Raises UserError where the folder cannot be read, or page/model.js or a browser cannot compute what it holds.
    """
    model, tokenizer = load_model(folder)
    check_architecture(folder, model)
    weights = model.state_dict()
    if (largest := max(float(weight.abs().max()) for weight in weights.values())) > LARGEST_HALF:
        raise UserError(f"{folder}: a weight of {largest:g} does not fit into 16 bits, which hold up to {LARGEST_HALF:g}")
    name = folder.resolve().name
    description = {
        "name": name,
        "about": about(folder, model),
        "prompt": PROMPT,
        "eotId": tokenizer.eot_id,
        "specialTokens": list(tokenizer.special_tokens),
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


def check_architecture(folder: Path, model: Model):
    """Raises UserError where a model is another than the one that page/model.js computes."""
    if MPT_ARCHITECTURE | ARCHITECTURE != MPT_ARCHITECTURE or block_weights(model.config).keys() != MPT_BLOCK:
        raise UserError(f"{folder}: page/model.js computes MPT's blocks and this model has others; write them there first")


def about(folder: Path, model: Model) -> str:
    """Returns what the page says of a model below its name."""
    config, log = model.config, folder / "log.csv"
    text = (
        f"{model.num_parameters() / 1e6:.1f}M parameters: {config.blocks} blocks, {config.num_heads} heads, {config.d_model} "
        f"numbers a token, {config.vocab_size:,} tokens"
    )
    evaluations = [row for row in read_log(log) if "val_bits_per_byte" in row] if log.is_file() else []
    if evaluations:
        least = min(row["val_bits_per_byte"] for row in evaluations)
        text += f"; trained on {evaluations[-1]['tokens'] / 1e6:.1f}M tokens, {least:.3f} bits per byte on text it never saw"
    return text


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

"""What several test files share: short stories, a tiny model, and where the repository is."""

import errno
import random
from pathlib import Path

import numpy as np
import torch

from alilama.data import tokens
from alilama.data.checksums import CHECKSUM, checksum_of
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenFiles, TokenMeta
from alilama.model.folder import save_description, save_weights
from alilama.model.model import Model, ModelConfig

ROOT = Path(__file__).resolve().parents[1]

NAMES = ["Lily", "Tom", "Mia", "Ben", "Zoë", "Sam", "Anna", "Max"]
ANIMALS = ["cat", "dog", "bird", "fox", "frog", "mouse", "bear", "duck"]
PLACES = ["garden", "forest", "old house", "blue lake", "small town", "kitchen", "big field"]
FEELINGS = ["happy", "sad", "brave", "tired", "proud", "curious", "scared", "kind"]
THINGS = ["ball", "kite", "lamp", "stone", "flower", "cake", "drum", "boat"]


def write_prose(documents: int, seed: int) -> str:
    """Returns short stories with <|endoftext|> lines between them, about 330 bytes each."""
    rng = random.Random(seed)
    stories = []
    for _ in range(documents):
        name, friend, animal = rng.choice(NAMES), rng.choice(NAMES), rng.choice(ANIMALS)
        sentences = [f"Once upon a time, {name} and a {rng.choice(FEELINGS)} {animal} lived near the {rng.choice(PLACES)}."]
        for _ in range(rng.randint(3, 5)):
            found = f"{name} found a {rng.choice(THINGS)} in the {rng.choice(PLACES)} and felt very {rng.choice(FEELINGS)}."
            said = f'"Look at my {rng.choice(THINGS)}!" said {friend}, and the {animal} ran to the {rng.choice(PLACES)}.'
            gave = f"The {animal} was {rng.choice(FEELINGS)}, so {name} gave it {rng.randint(2, 12)} {rng.choice(THINGS)}s."
            sentences.append(rng.choice([found, said, gave]))
        stories.append(" ".join(sentences) + f"\nThen {name} went home.\n\nThe end…")
    return "\n<|endoftext|>\n".join(stories) + "\n"


def tiny_model(vocab_size: int, *, seed: int = 0, **shape) -> Model:
    torch.manual_seed(seed)
    shape = {"d_model": 32, "blocks": 2, "num_heads": 4, "max_seq_len": 16} | shape
    return Model(ModelConfig(vocab_size, **{"hidden_dim": 4 * shape["d_model"]} | shape)).eval()


def write_model(folder: Path, tokenizer: Tokenizer) -> Path:
    """Writes a model folder with random weights, large enough that the text before matters."""
    model = tiny_model(tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    return folder


def token_files(ids: np.ndarray, eot_id: int = 0) -> TokenFiles:
    """Token files of training ids in memory: documents begin at `eot_id`, and at the start."""
    documents = np.union1d([0], np.flatnonzero(ids == eot_id)).astype(np.int64)
    counts = [{"train": len(documents)}, *[{"train": len(ids)}] * 2, {}]
    meta = TokenMeta(1 << 16, "", *counts, {"train": []})
    blocks = np.append(np.searchsorted(documents, np.arange(0, len(ids), tokens.BLOCK_TOKENS)), len(documents))
    return with_checksums(TokenFiles(meta, ids, ids[:0], documents, blocks, None, None))


def with_checksums(files: TokenFiles) -> TokenFiles:
    """Gives the training ids and documents of token files, whatever they are, the right checksums."""
    size = tokens.BLOCK_TOKENS
    blocks = [files.train[begin : begin + size] for begin in range(0, len(files.train), size)]
    checksums = [checksum_of(ids, files.documents_of(block)) for block, ids in enumerate(blocks)]
    files.train_checksums = np.array(checksums, CHECKSUM)
    return files


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_text(folder, name: str, content: str | bytes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused_by_windows(old, new, code: int = 32) -> PermissionError:
    """Returns the error by which Windows refuses to rename or replace a file that somebody reads."""
    error = PermissionError(errno.EACCES, "The process cannot access the file", str(old), None, str(new))
    error.winerror = code
    return error


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-100])

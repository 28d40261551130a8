"""A model folder with its weights in 16 bits: half as large, and read by everything that reads the other."""

import os
import shutil

import torch

from alilama.common.errors import UserError
from alilama.common.files import to_path
from alilama.model.folder import check_half, load_model, save_description, save_weights

TOLD = (".md", ".csv", ".jsonl", ".png")  # ends of the files of a folder that are about the model


def write_half(folder: str | os.PathLike, target: str | os.PathLike):
    """Writes the model of `folder` to a new folder `target` with its weights in float16, and what is told of it.

    Raises UserError where `target` exists, or the folder cannot be read or holds a weight that float16 does not.
    """
    folder, target = to_path("folder", folder), to_path("target", target)
    if target.exists():  # it may be the same folder, whose weights would lose half their bits
        raise UserError(f"{target} exists; remove it first, or name another folder")
    model, tokenizer = load_model(folder)
    check_half(folder, model.state_dict(), "float16", "keep it as it is")
    save_description(target, model.config, tokenizer, torch.float16)
    save_weights(target, model, torch.float16)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in TOLD:
            shutil.copyfile(path, target / path.name)

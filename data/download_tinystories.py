"""Fetches TinyStories (Eldan and Li 2023, arXiv:2305.07759) from the Hugging Face Hub: python data/download_tinystories.py

For training this is not needed, for tokenize_data.py reads it from there, each time it is run and without storing it:

    python tokenize_data.py --data_files=hf://roneneldan/TinyStories --val_files="hf://roneneldan/TinyStories?split=validation"

Here the training stories go to data/raw, which tokenize_data.py reads as it is. The validation stories go beside it, because
all of data/raw is trained on.
"""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from alilama.common.errors import UserError, one_line_errors
from alilama.common.files import replacing
from alilama.data.hub import HubDataset, ending_at_once, load
from alilama.data.rows import read_hub
from alilama.data.tokenizer import END_OF_TEXT

DATASET = "roneneldan/TinyStories"
PATHS = {"validation": "tinystories_valid.txt", "train": "raw/tinystories.txt"}  # of each split, the small one first
HOW_LARGE = "1.0 GB to download, which takes 80 seconds at 100 Mbit/s, and 1.9 GB on the disk"


def clean(story: str) -> str:
    r"""Returns a story with \n for \r\n, without white space around it, and without lines that say only <|endoftext|>.

    Such a line would cut the story in two.
    """
    lines = story.replace("\r\n", "\n").split("\n")
    return "\n".join(line for line in lines if line.strip() != END_OF_TEXT).strip()


def write_stories(texts: Iterable[bytes], path: Path) -> int:
    """Writes each text, a line <|endoftext|> after it, and returns how many stories that made.

    Stories are cleaned first, and empty ones left out. Where `texts` raises, nothing is written.
    """
    number = 0
    with replacing(path) as file:
        for text in texts:
            if story := clean(text.decode()):
                file.write(f"{story}\n{END_OF_TEXT}\n".encode())
                number += 1
    return number


def fetch(split: str, path: Path, max_stories: int | None):
    """Streams a split into a text file, with a progress bar."""
    dataset = HubDataset(DATASET, split=split)
    splits = load(dataset).info.splits
    sizes = [max_stories, splits[split].num_examples if splits else None]
    total = min((size for size in sizes if size is not None), default=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(
        islice(read_hub(dataset, "text"), max_stories), desc=str(path), total=total, unit="story", dynamic_ncols=True
    ) as bar:
        number = write_stories(bar, path)
    print(f"{path}: {number:,} stories, {path.stat().st_size / 1e6:,.1f} MB")


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description=f"Fetches {DATASET} from the Hugging Face Hub as text files: {HOW_LARGE}.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder that the files go into [data]")
    parser.add_argument("--max_stories", type=int, help="no more than this many of each split, for a small try")
    arguments = parser.parse_args(argv)
    if arguments.max_stories is not None and arguments.max_stories < 1:
        raise UserError(f"--max_stories {arguments.max_stories}: expected at least 1")
    paths = {split: arguments.out / name for split, name in PATHS.items()}
    if arguments.max_stories is None and not paths["train"].exists():
        print(f"{DATASET} is {HOW_LARGE}.", flush=True)
    for split, path in paths.items():
        if path.exists():
            print(f"{path} is there already and is kept; delete it to download it again")
        else:
            fetch(split, path, arguments.max_stories)
    print(f"Next: python tokenize_data.py --data_files={paths['train']} --val_files={paths['validation']}")


if __name__ == "__main__":
    with ending_at_once(), one_line_errors():
        main(sys.argv[1:])

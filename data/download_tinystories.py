"""Fetches TinyStories (Eldan and Li 2023, arXiv:2305.07759) from Hugging Face: python data/download_tinystories.py

The training stories go to data/raw, which tokenize_data.py reads as it is. The validation stories go beside it, because
all of data/raw is trained on.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from alilama.common.errors import UserError, one_line_errors
from alilama.common.files import replacing
from alilama.data.tokenizer import END_OF_TEXT

DATASET = "roneneldan/TinyStories"
PATHS = {"validation": "tinystories_valid.txt", "train": "raw/tinystories.txt"}  # of each split, the small one first


def clean(story: str) -> str:
    r"""Returns a story with \n for \r\n, without white space around it, and without lines that say only <|endoftext|>.

    Such a line would cut the story in two.
    """
    lines = story.replace("\r\n", "\n").split("\n")
    return "\n".join(line for line in lines if line.strip() != END_OF_TEXT).strip()


def write_stories(rows: Iterable[dict], path: Path) -> int:
    """Writes the "text" of every row, a line <|endoftext|> after each, and returns how many stories that made.

    Stories are cleaned first, and empty ones left out. Where `rows` raises, nothing is written.
    """
    number = 0
    with replacing(path) as file:
        for row in rows:
            if story := clean(row["text"]):
                file.write(f"{story}\n{END_OF_TEXT}\n".encode())
                number += 1
    return number


@contextmanager
def explained() -> Iterator[None]:
    """Turns whatever the download raises into a UserError."""
    try:
        yield
    except Exception as error:  # of datasets, huggingface_hub, httpx, fsspec or pyarrow
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"could not download {DATASET} ({message}); check the network and start this again") from None


def fetch(split: str, path: Path, max_stories: int | None):
    """Streams a split into a text file, with a progress bar."""
    try:
        from datasets import load_dataset
        from huggingface_hub.utils import logging
    except ImportError:
        raise UserError("this needs the package datasets: pip install datasets") from None
    logging.set_verbosity_error()  # it would report every retry
    with explained():
        dataset = load_dataset(DATASET, split=split, streaming=True)
    sizes = [max_stories, dataset.info.splits[split].num_examples if dataset.info.splits else None]
    total = min((size for size in sizes if size is not None), default=None)

    def rows() -> Iterator[dict]:
        with explained():
            yield from islice(dataset, max_stories)

    path.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(rows(), desc=str(path), total=total, unit="story", dynamic_ncols=True) as bar:
        number = write_stories(bar, path)
    print(f"{path}: {number:,} stories, {path.stat().st_size / 1e6:,.1f} MB")


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description=f"Fetches {DATASET} from Hugging Face as text files, about 2 GB.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder that the files go into [data]")
    parser.add_argument("--max_stories", type=int, help="no more than this many of each split, for a small try")
    arguments = parser.parse_args(argv)
    if arguments.max_stories is not None and arguments.max_stories < 1:
        raise UserError(f"--max_stories {arguments.max_stories}: expected at least 1")
    paths = {split: arguments.out / name for split, name in PATHS.items()}
    for split, path in paths.items():
        if path.exists():
            print(f"{path} is there already and is kept; delete it to download it again")
        else:
            fetch(split, path, arguments.max_stories)
    print(f"Next: python tokenize_data.py --data_files={paths['train']} --val_files={paths['validation']}")


if __name__ == "__main__":
    code = None
    try:
        with one_line_errors():
            main(sys.argv[1:])
    except SystemExit as stopped:
        code = stopped.code
    if isinstance(code, str):  # a message, as sys.exit takes it
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)  # threads of pyarrow that still read would abort an ordinary end of Python

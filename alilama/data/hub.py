"""Datasets of the Hugging Face Hub, read as they come and stored nowhere: hf://OWNER/NAME?config=CONFIG&split=SPLIT"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

from alilama.common.errors import UserError
from alilama.data.opening import need

if TYPE_CHECKING:
    from datasets import IterableDataset

PREFIX = "hf://"
BATCH_ROWS = 1000


class HubDataset(NamedTuple):
    """A split of a dataset; the words are those of the Hub's own addresses and of `datasets`."""

    name: str  # OWNER/NAME
    config: str | None = None
    split: str = "train"

    @classmethod
    def of(cls, address: str) -> "HubDataset":
        """Reads hf://OWNER/NAME, with ?config=CONFIG, ?split=SPLIT or both behind it. Raises UserError for another form."""
        name, _, query = address.removeprefix(PREFIX).removeprefix("datasets/").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        is_known = options.keys() <= {"config", "split"} and all(options.values())
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or not is_known:
            raise UserError(f"{address!r}: expected hf://OWNER/NAME or 'hf://OWNER/NAME?config=CONFIG&split=SPLIT'")
        return cls(name, **options)

    def __str__(self) -> str:
        options = {"config": self.config, "split": self.split if self.split != "train" else None}
        query = urlencode({name: value for name, value in options.items() if value is not None})
        return f"{PREFIX}{self.name}" + f"?{query}" * bool(query)

    @property
    def num_bytes(self) -> int:
        """The size of the split in all its columns, as the dataset's card says it, or 0 where it does not."""
        splits = load(self).info.splits
        return splits[self.split].num_bytes or 0 if splits and self.split in splits else 0

    def batches(self) -> Iterator[dict[str, list]]:
        """Yields the columns of BATCH_ROWS rows at a time. Raises UserError where they cannot be had."""
        with explained(self):
            yield from load(self).iter(BATCH_ROWS)


@cache
def load(dataset: HubDataset) -> "IterableDataset":
    """Finds a dataset. Raises UserError where it cannot be had."""
    datasets = need("datasets", "datasets of the Hub")
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would report every retry
    datasets.disable_progress_bars()
    with explained(dataset):
        return datasets.load_dataset(dataset.name, dataset.config, split=dataset.split, streaming=True)


@contextmanager
def explained(dataset: HubDataset) -> Iterator[None]:
    """Turns whatever a dataset raises into a UserError."""
    try:
        yield
    except Exception as error:  # of datasets, huggingface_hub, httpx, fsspec or pyarrow
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{dataset} cannot be read ({message}); check its name and the network") from None


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends the process with what the block ends with, where a dataset was read in it.

    Threads of pyarrow that still read ahead would abort an ordinary end of Python.
    """
    code = None
    try:
        yield
    except SystemExit as stopped:
        code = stopped.code
        if not load.cache_info().currsize:
            raise
    if load.cache_info().currsize:
        if isinstance(code, str):  # a message, as sys.exit takes it
            print(code, file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)

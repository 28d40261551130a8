"""Writes text with a trained model: python -m alilama.generate models/stories --prompt "Once upon a time" """

from alilama.common.errors import begin_script

begin_script(__name__)

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import get_args

from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.progress import progress
from alilama.model.device import choose_device
from alilama.model.folder import PRETRAINED, find_pretrained, load_model
from alilama.writing.decoding import OnRead, say_nothing
from alilama.writing.sampling import Sampling
from alilama.writing.streams import stream_texts

SILENT_S = 2  # for so long nothing is said of how much of the prompts has been read


def main(argv: list[str]):
    settings = vars(make_parser().parse_args(argv))
    model, tokenizer = load_model(settings.pop("model"), choose_device())
    prompts = settings.pop("prompt")
    if prompts is None and tokenizer.frame is not None:
        raise UserError("this model answers prompts: pass --prompt")
    prompts = prompts or [""]
    with told_how_far() as settings["on_read"]:
        texts = stream_texts(model, tokenizer, prompts, **settings)
        first = next(texts)  # a mistake in the arguments is said before anything is printed
    prompts = prompts if tokenizer.frame is None else [""] * len(prompts)  # which are answered, not gone on from
    if len(prompts) == 1:
        print(prompts[0] + first[0], end="", flush=True)
        for [text] in texts:
            print(text, end="", flush=True)
        print()
    else:
        print(*("".join(parts) for parts in zip(prompts, first, *texts, strict=True)), sep="\n\n")


@contextmanager
def told_how_far() -> Iterator[OnRead]:
    """Gives what shows a bar on a terminal while prompts are read that take longer than SILENT_S."""
    if not sys.stderr.isatty():
        yield say_nothing
        return
    with progress(None, desc="Reading the prompt", unit=" tokens", leave=False, delay=SILENT_S) as bar:

        def on_read(read: int, total: int):
            bar.total = total
            bar.update(read - bar.n)

        yield on_read


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m alilama.generate", description="Writes text with a trained model.")
    parser.add_argument("model", nargs="?", default=find_pretrained(), help=f"folder of the model [{PRETRAINED}]")
    parser.add_argument(
        "--prompt",
        action="append",
        help="how the text begins, or what is to be answered by a model that was trained on prompts with answers; may be given "
        "several times, for texts that are written together; without it a text is written from nothing",
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest text, in tokens [256]")
    for field in fields(Sampling):
        is_whole = int in (field.type, *get_args(field.type))
        default = "all" if field.default is None else f"{field.default:g}"
        meaning = f"{field.metadata['meaning']} [{default}]"
        parser.add_argument(f"--{field.name}", type=int if is_whole else float, default=field.default, help=meaning)
    parser.add_argument(
        "--context", type=int, help="look back on that many tokens only: a text of any length takes the same memory"
    )
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    return parser


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

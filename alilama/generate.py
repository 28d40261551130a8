"""Writes text with a trained model: python -m alilama.generate models/stories --prompt "Once upon a time" """

from alilama.common.errors import begin_script

begin_script(__name__)

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import get_args

from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import check_picture_can_go
from alilama.common.progress import progress
from alilama.data.tokenizer import Tokenizer
from alilama.model.device import choose_device
from alilama.model.folder import PRETRAINED, find_pretrained, load_model
from alilama.model.model import Model
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
    picture = settings.pop("picture")
    if picture is not None:
        if len(prompts) > 1 or tokenizer.frame is not None:
            raise UserError("--picture draws one text: expected one --prompt, and a model that goes on from it")
        check_picture_can_go("--picture", picture)
    with told_how_far() as settings["on_read"]:
        cut = []
        texts = stream_texts(model, tokenizer, prompts, on_cut=cut.extend, **settings)
        first = next(texts)  # a mistake in the arguments is said before anything is printed
    prompts = prompts if tokenizer.frame is None else [""] * len(prompts)  # which are answered, not gone on from
    if len(prompts) == 1:
        text = prompts[0] + first[0]
        print(text, end="", flush=True)
        for [piece] in texts:
            print(piece, end="", flush=True)
            text += piece
        print()
        if picture is not None:
            save_story_picture(model, tokenizer, text, picture)
    else:
        print(*("".join(parts) for parts in zip(prompts, first, *texts, strict=True)), sep="\n\n")
    if cut:
        which = "" if len(prompts) == 1 else f" text {', '.join(str(row + 1) for row in cut)}"
        print(f"(Cut off{which} after {settings['max_new_tokens']:,} tokens: --max_new_tokens.)", file=sys.stderr)


def save_story_picture(model: Model, tokenizer: Tokenizer, text: str, path: Path):
    from alilama.views.pictures import count_missing, save_figure  # which takes a second to import
    from alilama.views.story import plot_story

    save_figure(plot_story(model, tokenizer, text), path)
    print(f"picture: {path}")
    if missing := count_missing(text):
        print(f"{missing:,} of its {len(text):,} characters stand there as a sign, for the font of pictures lacks them")


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
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw the text too, each token coloured by how likely it was"
    )
    return parser


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

"""Writes text with a trained model: python -m alilama.generate models/stories --prompt "Once upon a time" """

import sys
from dataclasses import fields
from typing import get_args

from alilama.common.errors import ArgumentParser, one_line_errors
from alilama.model.device import choose_device
from alilama.model.folder import PRETRAINED, find_pretrained, load_model
from alilama.writing.sampling import Sampling
from alilama.writing.streams import stream_texts


def main(argv: list[str]):
    settings = vars(make_parser().parse_args(argv))
    model, tokenizer = load_model(settings.pop("model"), choose_device())
    prompts = settings.pop("prompt") or [""]
    texts = stream_texts(model, tokenizer, prompts, **settings)
    first = next(texts)  # a mistake in the arguments is said before anything is printed
    if len(prompts) == 1:
        print(prompts[0] + first[0], end="", flush=True)
        for [text] in texts:
            print(text, end="", flush=True)
        print()
    else:
        print(*("".join(parts) for parts in zip(prompts, first, *texts, strict=True)), sep="\n\n")


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m alilama.generate", description="Writes text with a trained model.")
    parser.add_argument("model", nargs="?", default=find_pretrained(), help=f"folder of the model [{PRETRAINED}]")
    parser.add_argument(
        "--prompt",
        action="append",
        help="how the text begins; may be given several times, for texts that are written together; without it a text is "
        "written from nothing",
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

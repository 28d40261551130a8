"""Writes a model for other programs: python -m alilama.export models/stories --html story.html"""

from alilama.common.errors import begin_script

begin_script(__name__)

import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.model.folder import PRETRAINED, find_pretrained

PRECISIONS = ("f32", "f16", "q8_0")  # of --gguf
FORMATS = {  # the name of an option, of the file in this folder, and of the package that it needs
    "html": "a web page that writes stories, without a network or a server",
    "gguf": "a file for llama.cpp, and a Modelfile for Ollama beside it",
    "onnx": "a file for onnxruntime and Transformers.js",
    "half": "a folder with the same model in 16 bits, half as large, without the training state",
}
FOLDERS = {"half"}  # of these


def main(argv: list[str]):
    arguments = make_parser().parse_args(argv)
    files = {name: Path(file) for name in FORMATS if (file := getattr(arguments, name)) is not None}
    check_files(files)
    if arguments.precision and "gguf" not in files:
        raise UserError(f"precision = {arguments.precision}: it is for --gguf, which is not given")
    writers = {name: writer_of(name) for name in files}
    for name, file in files.items():
        started = time.perf_counter()
        options = [arguments.precision] if name == "gguf" and arguments.precision else []
        file.parent.mkdir(parents=True, exist_ok=True)
        writers[name](Path(arguments.model), file, *options)
        size = sum(each.stat().st_size for each in (file.iterdir() if name in FOLDERS else [file]))
        print(f"{file}: {size / 1e6:.1f} MB, {time.perf_counter() - started:.1f} s")


def check_files(files: dict[str, Path]):
    """Raises UserError where nothing is to be written, or over something else."""
    if not files:
        raise UserError(
            f"nothing is to be written: give {', '.join(f'--{name} {kind_of(name)}' for name in FORMATS)}, or several of them"
        )
    for name, file in files.items():
        if name in FOLDERS and file.exists():
            raise UserError(f"--{name} {file}: it exists, so it may be something else; remove it first, or name another folder")
        if name not in FOLDERS and file.exists() and file.suffix != f".{name}":
            raise UserError(
                f"--{name} {file}: it exists and does not end in .{name}, so it may be something else; remove it first"
            )
    if len({file.resolve() for file in files.values()}) < len(files):
        raise UserError(f"--{' and --'.join(files)} name the same file; give each its own")


def kind_of(name: str) -> str:
    return "FOLDER" if name in FOLDERS else "FILE"


def writer_of(name: str) -> Callable:
    """Returns the function that writes a format. Raises UserError where its package is missing."""
    try:
        return getattr(import_module(f"alilama.export.{name}"), f"write_{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"--{name} needs the package {name}: pip install {name}") from None


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m alilama.export", description="Writes a model for other programs.")
    parser.add_argument("model", nargs="?", default=find_pretrained(), help=f"folder of the model [{PRETRAINED}]")
    for name, meaning in FORMATS.items():
        parser.add_argument(f"--{name}", metavar=kind_of(name), help=meaning)
    parser.add_argument("--precision", choices=PRECISIONS, help="of the weights in --gguf [f16]")
    return parser


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

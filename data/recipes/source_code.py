"""Functions of Python's standard library, and how many of those that a model writes can be parsed.

    python data/recipes/source_code.py make --out data/source_code
    python tokenize_data.py --data_files=data/source_code/train.jsonl --val_files=data/source_code/valid.jsonl \\
        --tokens_dir=data/source_code/tokens
    python train.py --tokens_dir=data/source_code/tokens --model_name=source_code --minutes=10
    python data/recipes/source_code.py score models/source_code

A document is a function or method, moved to the left margin, below a comment that says where it stands. A small model looks
back on a few hundred tokens, which a function fits into and a file does not; and its end is the end of a text.
"""

import ast
import hashlib
import json
import random
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import replacing

LEFT_OUT = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "turtledemo", "pydoc_data"}  # folders
HELD_OUT = 0.05  # of the bytes
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


# ---- make ----


@dataclass
class Function:
    """A function, where it stands, and the part of the library that it belongs to."""

    family: str
    place: str
    code: str

    @property
    def text(self) -> str:
        return f"# {self.place}\n{self.code}"


def make(library: Path, out: Path):
    """Writes the functions of all modules below `library`, those that are alike once, split by family."""
    distinct = {}
    for path in find_modules(library):
        for function in read_functions(path, library):
            distinct.setdefault(function.code, function)
    functions = list(distinct.values())
    if not functions:
        raise UserError(f"{library}: found no functions in .py files there; give the folder of a Python library")
    held_out = choose_families(functions)
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        chosen = [function.text for function in functions if (function.family in held_out) == (split == "valid")]
        with replacing(out / f"{split}.jsonl") as file:
            file.writelines(f"{json.dumps({'text': text})}\n".encode() for text in chosen)
        print(f"{out / split}.jsonl: {len(chosen):,} functions, {sum(map(len, chosen)) / 1e6:.2f} MB")
    print(f"held out: {', '.join(sorted(held_out))}")


def find_modules(library: Path) -> list[Path]:
    """Returns the .py files below a folder, without tests and what others have installed there."""
    return sorted(path for path in library.rglob("*.py") if not LEFT_OUT & {*path.relative_to(library).parts[:-1]})


def read_functions(path: Path, library: Path) -> Iterator[Function]:
    """Yields the functions of a module and the methods of its classes; those within functions are part of them."""
    source = path.read_text(encoding="utf-8", errors="replace")
    tree = parse(source)
    if tree is None:
        return  # is meant not to be Python, or to be that of another version
    parts = path.relative_to(library).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    family = re.sub("^_(py)?", "", parts[0])  # so that _pyio stays with io
    lines = source.split("\n")

    def walk(body: list[ast.stmt], place: str) -> Iterator[Function]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{place}.{node.name}")
            elif isinstance(node, FUNCTIONS):
                first = min([node, *node.decorator_list], key=lambda part: part.lineno).lineno
                margin = " " * node.col_offset
                code = "\n".join(line.removeprefix(margin) for line in lines[first - 1 : node.end_lineno])
                if find_function(code, is_whole=True) is not None:  # it is, unless it was indented by tabs
                    yield Function(family, place, code)

    yield from walk(tree.body, module)


def choose_families(functions: list[Function]) -> set[str]:
    """Returns families, in an order that says nothing about them, that hold about HELD_OUT of the text."""
    sizes = {}
    for function in functions:
        sizes[function.family] = sizes.get(function.family, 0) + len(function.text)
    left = HELD_OUT * sum(sizes.values())
    chosen = set()
    for family in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[family] <= left:
            chosen.add(family)
            left -= sizes[family]
    return chosen


# ---- score ----


def score(model_folder: Path, data: Path, number: int, max_new_tokens: int, temperature: float, seed: int, shown: int):
    """Has functions written whose heads are those of held-out ones, and counts what became of them."""
    from alilama import (
        load_model,  # here, for --help and make need no torch
        stream_texts,
    )

    known = {body_of(function) for text in read_texts(data / "train.jsonl") if (function := find_function(text, True))}
    real = random.Random(seed).sample(texts := read_texts(data / "valid.jsonl"), min(number, len(texts)))
    model, tokenizer = load_model(model_folder)
    heads = [head_of(text) for text in real]
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    steps = list(stream_texts(model, tokenizer, heads, **sampling))
    last = steps[max_new_tokens - 1] if len(steps) > max_new_tokens else [""] * len(heads)  # nothing of what had ended before
    written = [("".join(parts), not token) for parts, token in zip(zip(heads, *steps, strict=True), last, strict=True)]
    for text, _ in written[:shown]:
        print(f"{text}\n{'-' * 40}")
    print(f"of {len(real)} functions{'parse':>18}{'trivial':>12}{'copied':>12}{'lines':>12}")
    print(f"{'  held out':20}{describe([(text, True) for text in real], known)}")
    print(f"{'  written':20}{describe(written, known)}")
    print(f"{sum(not ended for _, ended in written)} of those written had not ended after {max_new_tokens} tokens")


def describe(texts: list[tuple[str, bool]], known: set[str]) -> str:
    """Counts, of texts and whether they ended, those that parse, and of these the trivial, the copied, and lines on average."""
    parsed = [function for text, ended in texts if (function := find_function(text, ended))]
    trivial = [function for function in parsed if is_trivial(function)]
    copied = [function for function in parsed if function not in trivial and body_of(function) in known]
    lines = sum(function.end_lineno - function.lineno + 1 for function in parsed) / max(1, len(parsed))
    return f"{len(parsed):>12}{len(trivial):>12}{len(copied):>12}{lines:>12.1f}"


def find_function(text: str, is_whole: bool) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Returns the function that a text begins with, or None where it does not parse.

    It ends before the first line at its own level that can follow it, or with the text, if that is whole.
    """
    lines = text.split("\n")
    head = next((number for number, line in enumerate(lines) if re.match(r"(async )?def ", line)), len(lines))
    ends = [number for number in range(head + 1, len(lines)) if re.match(r"\S", lines[number])]
    for end in ends + [len(lines)] * is_whole:
        tree = parse("\n".join(lines[:end]))
        if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], FUNCTIONS):
            return tree.body[0]
    return None


def parse(text: str) -> ast.Module | None:
    """Returns the syntax tree of a text, or None where it is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def head_of(text: str) -> str:
    """Returns a function's text up to the parenthesis that opens its parameters."""
    return re.match(r"(?s).*?^(async )?def \w+\(", text, re.MULTILINE)[0]


def statements_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """Returns what a function consists of, its docstring aside."""
    return function.body if ast.get_docstring(function) is None else function.body[1:]


def body_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Returns what a function does, however it is laid out and commented."""
    return "\n".join(map(ast.dump, statements_of(function)))


def is_trivial(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a docstring, `pass` or `...` and nothing else."""
    return all(ast.unparse(statement) in ("pass", "...") for statement in statements_of(function))


def read_texts(path: Path) -> list[str]:
    if not path.exists():
        raise UserError(f"{path} is not there: run python data/recipes/source_code.py make --out {path.parent} first")
    return [json.loads(line)["text"] for line in path.read_bytes().splitlines()]


def main(argv: list[str]):
    parser = ArgumentParser(description="Functions of Python's standard library.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write train.jsonl and valid.jsonl")
    maker.add_argument("--out", type=Path, default=Path("data/source_code"), help="folder that they go into [%(default)s]")
    library = Path(sysconfig.get_path("stdlib"))
    maker.add_argument("--library", type=Path, default=library, help="folder of .py files [this Python's library]")
    scorer = commands.add_parser("score", help="count how many functions of a model parse")
    scorer.add_argument("model_folder", type=Path, metavar="model", help="folder of the model")
    scorer.add_argument("--data", type=Path, default=Path("data/source_code"), help="where make wrote [%(default)s]")
    scorer.add_argument("--number", type=int, default=100, help="how many functions [100]")
    scorer.add_argument("--max_new_tokens", type=int, default=512, help="longest function, in tokens [512]")
    scorer.add_argument("--temperature", type=float, default=0.7, help="of the sampling [0.7]")
    scorer.add_argument("--seed", type=int, default=1, help="of the choice of heads and of the sampling [1]")
    scorer.add_argument("--shown", type=int, default=3, help="how many functions to print [3]")
    arguments = vars(parser.parse_args(argv))
    {"make": make, "score": score}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

"""data/recipes/source_code.py on a library of a few lines and on parts of the real one."""

import ast
import importlib.util
import json
import sysconfig
from pathlib import Path

import pytest
from helpers import ROOT

from alilama.common.errors import UserError
from alilama.writing import streams

spec = importlib.util.spec_from_file_location("recipe_source_code", ROOT / "data" / "recipes" / "source_code.py")
source_code = importlib.util.module_from_spec(spec)
spec.loader.exec_module(source_code)

MODULE = '''import os

def first(a, b=")"):
    """Adds."""
    def inner():
        return a
    return inner() + b  # done

class Box:
    size = 3

    @property
    @staticmethod
    def text():
        return """
left
        """

    class Lid:
        async def open(self): pass

x = lambda: 3
'''
WRITTEN = [
    '# box\ndef first(a, b=")"):\n    """Adds."""\n    def inner():\n        return a\n    return inner() + b  # done',
    '# box.Box\n@property\n@staticmethod\ndef text():\n    return """\nleft\n    """',
    "# box.Box.Lid\nasync def open(self): pass",
]
LIBRARY = Path(sysconfig.get_path("stdlib"))


def write_library(folder: Path, modules: dict[str, str]) -> Path:
    for name, text in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def made(out: Path) -> dict[str, list[str]]:
    return {split: source_code.read_texts(out / f"{split}.jsonl") for split in ("train", "valid")}


def code_of(text: str) -> str:
    return text.partition("\n")[2]


def test_functions_and_methods_are_documents_at_the_left_margin(tmp_path):
    write_library(tmp_path / "lib", {"box.py": MODULE})
    assert [f.text for f in source_code.read_functions(tmp_path / "lib" / "box.py", tmp_path / "lib")] == WRITTEN


@pytest.mark.parametrize("package", ["json", "email", "asyncio", "importlib"])
def test_all_functions_of_real_modules_are_found_and_parse(package):
    for path in source_code.find_modules(LIBRARY / package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        blocks = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
        inner = {node for block in ast.walk(tree) if isinstance(block, source_code.FUNCTIONS) for node in ast.walk(block)} - {
            block for block in ast.walk(tree) if isinstance(block, source_code.FUNCTIONS)
        }
        names = [
            node.name
            for block in blocks
            if block not in inner
            for node in block.body
            if isinstance(node, source_code.FUNCTIONS)
        ]
        found = list(source_code.read_functions(path, LIBRARY))
        parsed = [source_code.find_function(function.text, is_whole=True).name for function in found]
        assert sorted(parsed) == sorted(names)
        assert all(function.place.startswith(package) and function.family == package for function in found)


def test_tests_and_what_is_not_python_are_left_out(tmp_path):
    library = write_library(
        tmp_path / "lib",
        {
            "test/a.py": "def a(): return 1\n",
            "pkg/tests/b.py": "def b(): return 2\n",
            "site-packages/c.py": "def c(): return 3\n",
            "old.py": "print 'no'\n\ndef d(): return 4\n",
            "tabs.py": "class T:\n\tdef e(self):\n\t\treturn 5\n",
            "notes.txt": "def f(): return 6\n",
            "pkg/__init__.py": "def g(): return 7\n",
            "pkg/h.py": "def h(): return 8\n",
        },
    )
    texts = [f.text for path in source_code.find_modules(library) for f in source_code.read_functions(path, library)]
    assert texts == ["# pkg\ndef g(): return 7", "# pkg.h\ndef h(): return 8"]


def families(number: int) -> dict[str, str]:
    """Modules and their twins that begin with an underscore, each with a function of its own and one that all have."""
    shared = "def shared(self):\n    return self\n"
    return {
        f"{prefix}part{at}{suffix}": f"{shared}\n\ndef own(self):\n    return '{prefix}', {at}, '{suffix}'\n"
        for at in range(number)
        for prefix, suffix in (("", ".py"), ("_", ".py"), ("_py", ".py"), ("", "/sub.py"))
    }


def test_no_function_and_no_family_is_in_both_splits(tmp_path):
    source_code.make(write_library(tmp_path / "lib", families(60)), tmp_path / "out")
    splits = made(tmp_path / "out")
    codes = [code_of(text) for texts in splits.values() for text in texts]
    assert len(codes) == len(set(codes)) == 4 * 60 + 1
    names = {
        split: {text.split()[1].split(".")[0].lstrip("_").removeprefix("py") for text in splits[split]} for split in splits
    }
    assert len(names["valid"]) in (2, 3) and len(names["train"] | names["valid"]) == 60
    assert not names["train"] & names["valid"]


def test_the_same_library_makes_the_same_files(tmp_path):
    library = write_library(tmp_path / "lib", families(30))
    for folder in ("one", "two"):
        source_code.make(library, tmp_path / folder)
    assert made(tmp_path / "one") == made(tmp_path / "two") and made(tmp_path / "one")["valid"]


def test_a_folder_without_functions_is_refused_and_nothing_is_written(tmp_path):
    library = write_library(tmp_path / "lib", {"a.py": "x = 1\n"})
    with pytest.raises(UserError, match="found no functions"):
        source_code.main(["make", "--library", str(library), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"source_code\.py make --out"):
        source_code.main(["score", "models/none", "--data", str(tmp_path / "out")])


@pytest.mark.parametrize(
    "text, is_whole, lines",
    [
        ("# m\ndef f():\n    return 1", True, 2),
        ("# m\ndef f():\n    return 1", False, None),  # was cut, perhaps within it
        ("# m\ndef f():\n    return 1\nprint(3", False, 2),  # had ended before it was cut
        ("# m\ndef f():\n    return (1", True, None),
        ("# m\ndef f(\n    a,\n):\n    return 1\n\n# m\ndef g(:", False, 4),  # the bracket is no end
        ("# m\n@cached\nasync def f():\n    return '''\nx\n'''\n@", False, 4),  # nor is a line within a string
        ("# m\ndef f():\n    a\n  b\nc", True, None),
        ("# m\nx = 1", True, None),
        ("# m\ndef f(", True, None),
        ("# m\ndef f():\n    return 1\n    \0", True, None),
        ("", True, None),
    ],
)
def test_a_function_ends_where_a_line_at_its_level_can_follow(text, is_whole, lines):
    found = source_code.find_function(text, is_whole)
    assert lines == (found and found.end_lineno - found.lineno + 1)


@pytest.mark.parametrize(
    "body, is_trivial",
    [("pass", True), ("...", True), ('"""Only says."""', True), ('"""Says."""\n    pass', True), ("return", False)],
)
def test_a_function_that_does_nothing_is_trivial(body, is_trivial):
    assert source_code.is_trivial(ast.parse(f"def f():\n    {body}").body[0]) == is_trivial


def test_the_same_body_is_the_same_whatever_its_name_layout_and_docstring():
    one, two, other = (
        source_code.body_of(ast.parse(text).body[0])
        for text in (
            'def f(a):\n    """Says."""\n    return a.b  # why',
            "async def g(a, c):\n    return (a\n            .b)",
            "def f(a):\n    return a.c",
        )
    )
    assert one == two != other


def test_what_was_written_is_counted(tmp_path, capsys, monkeypatch, model_folder):
    known = ["# m\ndef known(self):\n    return self.size", "# m\ndef nothing():\n    pass"]
    real = ["# n\ndef one(self, a):\n    return a", "# n\ndef two(self):\n    return self.size", "# n\ndef three(): pass"]
    more = ["# n\ndef four():\n    return 4", "# n\ndef five():\n    x = 1\n    return 5"]
    for split, texts in (("train", known), ("valid", real + more)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    endings = {
        "one": ["self):\n", "    return self.size", ""],  # is in the text
        "two": ["):\n", "    pass", ""],
        "three": ["):\n", "    return (", ""],
        "four": ["):\n", "    return 1", "00"],  # was cut
        "five": ["a):\n    b", " = 1\n    return 7\n", "# n"],  # was cut, after it had ended
    }

    def stream(model, tokenizer, prompts, **settings):
        assert sorted(prompts) == sorted(f"# n\ndef {name}(" for name in endings) and settings["seed"] == 7
        parts = [endings[prompt[8:-1]] for prompt in prompts]
        yield from ([part[step] for part in parts] for step in range(settings["max_new_tokens"]))
        yield [""] * len(prompts)

    monkeypatch.setattr(streams, "stream_texts", stream)
    source_code.main(
        ["score", str(model_folder), "--data", str(tmp_path), "--max_new_tokens", "3", "--shown", "1", "--seed", "7"]
    )
    printed = capsys.readouterr().out.splitlines()
    rows = {line.rsplit(maxsplit=4)[0].strip(): line.split()[-4:] for line in printed[-3:-1]}
    assert rows == {"held out": ["5", "1", "1", "2.0"], "written": ["3", "1", "1", "2.3"]}
    assert printed[-1] == "2 of those written had not ended after 3 tokens"
    assert printed[0] == "# n" and sum(line == "-" * 40 for line in printed) == 1


def test_the_same_seed_writes_the_same_functions(tmp_path, capsys, model_folder):
    source_code.make(write_library(tmp_path, families(60)), tmp_path / "out")
    printed = []
    for seed in (1, 1, 2):
        capsys.readouterr()
        arguments = ["--data", str(tmp_path / "out"), "--max_new_tokens", "8", "--number", "5", "--seed", str(seed)]
        source_code.main(["score", str(model_folder), *arguments])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]

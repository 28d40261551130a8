"""The rooms of the package, read from the files themselves."""

import ast
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers import ROOT

import alilama

ROOMS = [
    "common",
    "data",
    "model",
    "training",
    "writing",
    "views",
    "evaluate",
    "generate",
    "export",
]  # in the order of the way of the data
C_MODULES = {"alilama._bpe", "alilama._kernels"}
MAX_NAMES = 14


def modules() -> dict[str, Path]:
    paths = [path for path in (ROOT / "alilama").rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def imports_of(path: Path) -> set[str]:
    """All modules of the package that a file imports, at its top, within functions and for types alike."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    assert "alilama" not in found or found & C_MODULES, f"{path}: name the room, not the whole package"
    assert not found & {"train", "tokenize_data"}, f"{path}: a script"
    return (found & (modules().keys() | C_MODULES)) - C_MODULES


def test_there_is_no_circle_of_imports():
    graph = {name: imports_of(path) for name, path in modules().items()}
    assert len(graph) > 20 and sum(map(len, graph.values())) > 50
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_room_reads_a_later_one():
    for name, path in modules().items():
        room = ROOMS.index(name.split(".")[1])
        later = {other for other in imports_of(path) if ROOMS.index(other.split(".")[1]) > room}
        assert not later, f"{name} reads {later}"


def test_what_users_import_is_where_the_package_says():
    assert len(alilama.__all__) >= 4
    for name in alilama.__all__:
        assert callable(getattr(alilama, name))
    with pytest.raises(AttributeError, match="nothing"):
        _ = alilama.nothing


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
def test_no_folder_shows_more_names_than_a_reader_can_take_in():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8").stdout.split("\n")
    names = {}
    for file in files:
        parts = Path(file).parts
        for depth in range(1, len(parts)):
            name = parts[depth] if depth + 1 < len(parts) else Path(parts[depth]).stem
            names.setdefault("/".join(parts[:depth]), set()).add(name)
    assert "alilama/model" in names
    crowded = {folder: found for folder, found in names.items() if len(found) > MAX_NAMES and "corpus" not in folder}
    assert not crowded

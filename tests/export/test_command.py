import sys

import pytest
from helpers import ROOT

from alilama.common.errors import UserError
from alilama.export.__main__ import FORMATS, main, writer_of


def test_every_format_has_its_writer_and_is_written_by_its_option(model_folder, tmp_path, capsys):
    for package in ("gguf", "onnx"):
        pytest.importorskip(package)
    files = {name: tmp_path / f"a model.{name}" for name in FORMATS}
    main([str(model_folder), *(part for name, file in files.items() for part in (f"--{name}", str(file)))])
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in printed] == [str(file) for file in files.values()]
    assert all(file.stat().st_size > 1000 for file in files.values())
    assert {path.stem for path in (ROOT / "alilama" / "export").glob("*.py")} >= FORMATS.keys()


@pytest.mark.parametrize("precision", ["f32", "q8_0"])
def test_the_precision_is_that_of_the_gguf_file(precision, model_folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "alilama.export.__main__.writer_of", lambda name: lambda *a: [asked.append((name, *a[2:])), a[1].touch()]
    )
    main(["m", "--gguf", str(tmp_path / "g"), "--onnx", str(tmp_path / "o"), "--precision", precision])
    assert asked == [("gguf", precision), ("onnx",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing is to be written: give --html FILE, --gguf FILE, --onnx FILE, --half FOLDER"),
        (["--html", "a", "--precision", "f16"], "it is for --gguf"),
        (["--html", "."], "exists and does not end in .html"),
        (["--gguf", "setup.py"], "exists and does not end in .gguf, so it may be something else"),
        (["--half", "tests"], "--half tests: it exists, so it may be something else; remove it first"),
        (["--html", "a", "--onnx", "./a"], "--html and --onnx name the same file"),
    ],
)
def test_a_mistake_gets_one_line(options, message, model_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        main([str(model_folder), *options])


@pytest.mark.parametrize("name", ["gguf", "onnx"])
def test_a_missing_package_is_named_with_what_installs_it(name, monkeypatch, tmp_path, model_folder):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"alilama.export.{name}", raising=False)
    with pytest.raises(UserError, match=rf"needs the package {name}: pip install {name}$"):
        writer_of(name)(model_folder, tmp_path / "file")


def test_nothing_is_written_where_a_package_is_missing_and_folders_are_made(model_folder, tmp_path, monkeypatch):
    main([str(model_folder), "--html", str(tmp_path / "a" / "b" / "m.html")])
    assert (tmp_path / "a" / "b" / "m.html").is_file()
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "alilama.export.onnx", raising=False)
    with pytest.raises(UserError, match="needs the package onnx"):
        main([str(model_folder), "--html", str(tmp_path / "m.html"), "--onnx", str(tmp_path / "m.onnx")])
    assert not (tmp_path / "m.html").exists()

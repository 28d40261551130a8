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
        ([], "nothing is to be written: give --html FILE, --gguf FILE, --onnx FILE"),
        (["--html", "a", "--precision", "f16"], "it is for --gguf"),
        (["--html", "."], "not an ordinary file"),
    ],
)
def test_a_mistake_gets_one_line(options, message, model_folder):
    with pytest.raises(UserError, match=message):
        main([str(model_folder), *options])


@pytest.mark.parametrize("name", ["gguf", "onnx"])
def test_a_missing_package_is_named_with_what_installs_it(name, monkeypatch, tmp_path, model_folder):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"alilama.export.{name}", raising=False)
    with pytest.raises(UserError, match=r"needs the package .*: pip install -e .\[export\]"):
        writer_of(name)(model_folder, tmp_path / "file")

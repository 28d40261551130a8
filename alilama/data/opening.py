"""Opens files as what they hold, decompressed, and says which of them hold no text."""

import codecs
import importlib
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from alilama.common.errors import UserError, first_line

READ_BYTES = 1 << 18  # at a time, of what has to be decompressed or parsed
SAMPLE_BYTES = 1 << 16  # where a file begins, to see what is in it
MOST_NOISE = 0.1  # of the bytes of a text; random bytes have 0.55
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
COMPRESSIONS = {".gz": ("gzip", "BadGzipFile"), ".xz": ("lzma", "LZMAError"), ".zst": (ZSTD, "ZstdError")}  # module, its error
PACKAGES = {ZSTD: "backports.zstd", "orjson": "orjson", "pyarrow.parquet": "pyarrow", "datasets": "datasets"}
CONTROLS = bytes({*range(32)} - {*b"\b\t\n\v\f\r\x1b"})  # bytes that no text has many of
RENAMED = "let its name end in {}"
CONVERTED = "convert it to UTF-8 (iconv -f {} -t UTF-8 OLD > NEW)"
BEGINNINGS = {  # of files that are no text: what they are, what to do; the longer of two that agree comes first
    b"\xff\xfe\0\0": ("UTF-32 text", CONVERTED.format("UTF-32")),
    b"\0\0\xfe\xff": ("UTF-32 text", CONVERTED.format("UTF-32")),
    b"\xff\xfe": ("UTF-16 text", CONVERTED.format("UTF-16")),
    b"\xfe\xff": ("UTF-16 text", CONVERTED.format("UTF-16")),
    b"\x1f\x8b": ("a gzip file", RENAMED.format(".gz")),
    b"\x28\xb5\x2f\xfd": ("a zstd file", RENAMED.format(".zst")),
    b"\xfd7zXZ\0": ("an xz file", RENAMED.format(".xz")),
    b"PAR1": ("a parquet file", RENAMED.format(".parquet")),
    b"PK\x03\x04": ("a ZIP archive, as .docx and .epub are", "unpack it, or save it as plain text"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"BZh91AY&SY": ("a bzip2 file", "unpack it"),
    b"\x93NUMPY": ("a NumPy array, as token files are", "take the text it was made from"),
    b"GGUF": ("a GGUF model", "take the text it was trained on"),
    b"\x7fELF": ("a program", "take its source"),
    b"%PDF-": ("a PDF", "convert it to text (pdftotext)"),
    b"\xd0\xcf\x11\xe0": ("a Word or Excel file", "save it as plain text"),
}


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Opens a file to read what it holds, decompressed, and with it what tells how far the file itself was read.

    Raises UserError where its compression is damaged.
    """
    with open(path, "rb") as raw:
        if not is_compressed(path):
            yield raw, raw.tell
            return
        name, damage = COMPRESSIONS[path.suffix.lower()]
        module = need(name, f"{path.suffix} files")
        try:
            with module.open(raw) as file:
                yield io.BufferedReader(file, READ_BYTES), raw.tell
        except (EOFError, zlib.error, getattr(module, damage)) as error:
            raise UserError(f"{path} is damaged or not whole ({first_line(error)}); fetch it again") from None


def need(module: str, use: str) -> ModuleType:
    """Imports an optional package. Raises UserError, with how to install it, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{use} need the package {PACKAGES[module]}: pip install {PACKAGES[module]}") from None


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSIONS


def format_of(path: Path) -> str:
    """Returns the ending that says what a file holds, without that of a compression: .txt of book.txt.gz."""
    return (Path(path.stem) if is_compressed(path) else path).suffix.lower()


def check_text(path: Path) -> float:
    """Returns which share of the bytes where a file begins, decompressed, are not UTF-8.

    Raises UserError, with what to do, where it holds no text, or text in an encoding that is far from UTF-8.
    """
    if format_of(path) == ".parquet":
        return 0.0  # is not text, and its reader says so where it is damaged
    with opened(path) as (file, _):
        sample = file.read(SAMPLE_BYTES)
    for beginning, (kind, remedy) in BEGINNINGS.items():
        if sample.startswith(beginning):
            raise UserError(f"{path} is {kind}, not plain text: {remedy}, or leave it out")
    if sample[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive, not plain text: unpack it, or leave it out")
    zeros = sorted(sample[start::2].count(0) / (len(sample) + 1) for start in (0, 1))
    if zeros[1] > MOST_NOISE and zeros[0] < zeros[1] / 10:  # every other byte of Latin letters
        raise UserError(f"{path} is UTF-16 text, not plain text: {CONVERTED.format('UTF-16')}, or leave it out")
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    invalid = len(sample) - len(decoder.decode(sample).encode()) - len(decoder.getstate()[0])  # less what the sample cuts
    controls = len(sample) - len(sample.translate(None, CONTROLS))
    if invalid + controls > MOST_NOISE * len(sample):
        raise UserError(
            f"{path} is not UTF-8 text, for {(invalid + controls) / len(sample):.0%} of its first bytes are not: leave it out, "
            f"or, if it is text in another encoding, {CONVERTED.format('ENCODING')}"
        )
    return invalid / max(1, len(sample))

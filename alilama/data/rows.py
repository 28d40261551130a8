"""Files whose rows are documents, .jsonl, .json, .csv, .tsv and .parquet: one row at a time, through bounded memory."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from alilama.common.errors import UserError, first_line
from alilama.data.hub import HubDataset
from alilama.data.opening import READ_BYTES, format_of, need

if TYPE_CHECKING:
    import pyarrow

MAX_ROW_BYTES = 64 << 20
MAX_BATCH_ROWS = 1000
SHOWN_COLUMNS = 20
TEXT_TYPES = ("string", "large_string", "string_view", "null")  # pyarrow's
LONGEST_WORD = len("-Infinity")  # of JSON: what ends nearer to the end of a buffer may go on
BETWEEN_VALUES = re.compile(r"[\s,]*")


def has_rows(path: Path) -> bool:
    """Whether a file is one of rows, and not plain text."""
    return format_of(path) in READERS


def read_file(path: Path, file: BinaryIO, column: str) -> Iterator[bytes]:
    """Yields the text of each row of an opened file that is not empty there.

    Raises UserError, with the file and the line, for a row that is broken or has no text in that column.
    """
    return texts_of(READERS[format_of(path)](path, file, column), column, f"{path}, line")


def read_hub(dataset: HubDataset, column: str) -> Iterator[bytes]:
    """Yields the text of each row of a dataset that is not empty there. Raises UserError as `read_file` does."""

    def values() -> Iterator[object]:
        for batch in dataset.batches():
            if column not in batch:
                raise no_column(column, list(batch), str(dataset))
            yield from batch[column]

    return texts_of(enumerate(values(), 1), column, f"{dataset}, row")


def texts_of(values: Iterable[tuple[int, object]], column: str, place: str) -> Iterator[bytes]:
    """Yields numbered values, str or UTF-8, as UTF-8, but for None and those without a character."""
    for number, value in values:
        if isinstance(value, str):
            try:
                value = value.encode("utf-8", "surrogateescape")  # bytes that were not UTF-8 become what they were
            except UnicodeEncodeError as error:
                raise UserError(f"{place} {number}: {column} is not Unicode ({error.reason}); mend the row") from None
        elif value is not None and not isinstance(value, bytes):
            kind = type(value).__name__
            raise UserError(f"{place} {number}: {column} is not text but {kind}; mend the row, or set another text_column")
        if value:
            yield value


# ---- the kinds of files: each yields the line that a row begins in and what it holds in a column ----


def read_jsonl(path: Path, file: BinaryIO, column: str) -> Iterator[tuple[int, object]]:
    loads = need("orjson", ".jsonl files").loads  # three times as fast as json
    for number, line in enumerate(iter(partial(file.readline, MAX_ROW_BYTES), b""), 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            row = loads(line)
        except json.JSONDecodeError as error:
            if not line.strip():
                continue
            if len(line) == MAX_ROW_BYTES:
                raise too_long(path, number) from None
            problem = f"{error.msg} at its character {error.colno}"
            raise UserError(f"{path}, line {number} is not JSON ({problem}); mend or delete it") from None
        yield number, pick(row, column, path, number)


def read_json(path: Path, file: BinaryIO, column: str) -> Iterator[tuple[int, object]]:
    with decoded(file) as text:
        for line, value in json_values(path, text):
            picked = pick(value, column, path, line)
            if isinstance(picked, list):  # the whole column
                yield from ((line, text) for text in picked)
            else:
                yield line, picked


def json_values(path: Path, file: io.TextIOWrapper) -> Iterator[tuple[int, object]]:
    """Yields the elements of an array, or values that follow one another, and the line that each begins in."""
    decode = json.JSONDecoder().raw_decode
    text, at, line, wanted, is_first, is_open = "", 0, 1, READ_BYTES, True, False
    while True:
        start = BETWEEN_VALUES.match(text, at).end()
        line += text.count("\n", at, start)
        at = start
        if (is_first and text.startswith("[", at)) or (is_open and text.startswith("]", at)):
            is_first, is_open, at = False, is_first, at + 1
            continue
        try:
            value, end = decode(text, at)
        except json.JSONDecodeError as error:
            problem = error.msg
            is_cut = problem.startswith("Unterminated string") or error.pos > len(text) - LONGEST_WORD
        except RecursionError:
            problem, is_cut = "it is nested too deeply", False
        else:
            yield line, value
            line += text.count("\n", at, end)
            is_first, at, wanted = False, end, READ_BYTES
            continue
        more = file.read(wanted) if is_cut else ""
        if not more and at < len(text):
            raise UserError(f"{path}, line {line} is not JSON ({problem}); mend it")
        if not more and is_open:
            raise UserError(f"{path} ends in line {line}, before its array does; fetch it again")
        if not more:
            return
        if len(text) - at > MAX_ROW_BYTES:
            raise too_long(path, line)
        text, at, wanted = text[at:] + more, 0, 2 * wanted


def read_csv(path: Path, file: BinaryIO, column: str, delimiter: str = ",") -> Iterator[tuple[int, object]]:
    limit, line = csv.field_size_limit(MAX_ROW_BYTES), 1  # the limit is that of the whole process
    with decoded(file) as text:
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
            if column not in header:
                raise no_column(column, header, f"{path}, line 1")
            place, line = header.index(column), rows.line_num + 1
            for row in rows:
                if row and len(row) != len(header):
                    raise UserError(
                        f"{path}, line {line} has {len(row)} fields, and the header {len(header)}; text with a delimiter or "
                        'a line end in it stands in "quotes"'
                    )
                if row:
                    yield line, row[place]
                line = rows.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}, line {line}: {error}; a quote within quoted text stands there twice") from None
        finally:
            csv.field_size_limit(limit)


@contextmanager
def decoded(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """Reads a file as UTF-8, less a mark at its start; bytes that are not UTF-8 become surrogates."""
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    yield text
    text.detach()  # it would close the file, which still tells how far it was read


def read_parquet(path: Path, file: BinaryIO, column: str) -> Iterator[tuple[int, object]]:
    parquet = need("pyarrow.parquet", ".parquet files")
    try:
        table = parquet.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False)
        if column not in (columns := table.schema_arrow.names):
            raise no_column(column, columns, str(path))
        num_rows, groups = table.metadata.num_rows, map(table.metadata.row_group, range(table.num_row_groups))
        batch_rows = READ_BYTES * num_rows // max(sum(group.total_byte_size for group in groups), 1)
        batch_rows = min(max(batch_rows, 1), MAX_BATCH_ROWS)
        for batch in table.iter_batches(batch_rows, columns=[column], use_threads=False):
            yield from enumerate(read_column(batch.column(0), column, path))
    except UserError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's are both
        raise UserError(f"{path} is damaged, or no parquet file ({first_line(error)}); fetch it again") from None


def read_column(texts: "pyarrow.Array", column: str, path: Path) -> list[bytes | None]:
    """Returns texts as UTF-8, None where one is null. Raises UserError for a column of another type."""
    import pyarrow

    if pyarrow.types.is_dictionary(texts.type):
        texts = texts.cast(texts.type.value_type)
    if str(texts.type) not in TEXT_TYPES:
        raise UserError(f"{path}: column {column!r} is not text but {texts.type}; set another text_column")
    return texts.cast(pyarrow.large_binary()).to_pylist()


def pick(row: object, column: str, path: Path, line: int) -> object:
    """Returns what a row of JSON holds under a name. Raises UserError where it does not."""
    if not isinstance(row, dict):
        raise UserError(f'{path}, line {line} is not a row such as {{"{column}": "..."}} but {type(row).__name__}; mend it')
    if column not in row:
        raise no_column(column, list(row), f"{path}, line {line}")
    return row[column]


def no_column(column: str, columns: list[str], place: str) -> UserError:
    shown = ", ".join(columns[:SHOWN_COLUMNS]) + ", ..." * (len(columns) > SHOWN_COLUMNS)
    return UserError(f"{place}: there is no column {column!r}, only {shown or 'none'}; set text_column to the right one")


def too_long(path: Path, line: int) -> UserError:
    remedy = "cut it" if format_of(path) != ".json" else "convert the file to .jsonl, a row in each line"
    return UserError(f"{path}, line {line}: this row is longer than {MAX_ROW_BYTES >> 20} MB; {remedy}")


READERS: dict[str, Callable[[Path, BinaryIO, str], Iterator[tuple[int, object]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".parquet": read_parquet,
}

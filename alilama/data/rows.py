"""Files whose rows are documents, .jsonl, .json, .csv, .tsv and .parquet: one row at a time, through bounded memory.

A document is what a row holds in the column that is asked for. Where none is, it is the conversation in `messages`, or that of
`prompt` and `completion`, or else the `text`.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, BinaryIO

from alilama.common.errors import UserError, first_line
from alilama.data.frames import Conversation, Message, to_conversation, to_utf8
from alilama.data.hub import HubDataset
from alilama.data.opening import READ_BYTES, format_of, need

if TYPE_CHECKING:
    import pyarrow

MAX_ROW_BYTES = 64 << 20
MAX_BATCH_ROWS = 1000
SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 500
MESSAGES, PROMPT_AND_COMPLETION, TEXT = ("messages",), ("prompt", "completion"), ("text",)
TEXT_TYPES = ("string", "large_string", "string_view", "null")  # pyarrow's
LONGEST_WORD = len("-Infinity")  # of JSON: what ends nearer to the end of a buffer may go on
BETWEEN_VALUES = re.compile(r"[\s,]*")

Row = Mapping[str, object]
Document = bytes | Conversation


def has_rows(path: Path) -> bool:
    """Whether a file is one of rows, and not plain text."""
    return format_of(path) in READERS


def read_file(path: Path, file: BinaryIO, column: str | None) -> Iterator[Document]:
    """Yields the document of each row of an opened file, but for those in which there is nothing to learn.

    Raises UserError, with the file and the line, for a row that is broken or has no text there.
    """
    return documents_of(READERS[format_of(path)](path, file, column), column, f"{path}, line")


def read_hub(dataset: HubDataset, column: str | None) -> Iterator[Document]:
    """Yields the document of each row of a dataset, but for those in which there is nothing to learn; as `read_file`."""

    def rows() -> Iterator[Row]:
        for batch in dataset.batches():
            columns = choose_columns(batch, column, str(dataset))
            for values in zip(*(batch[name] for name in columns), strict=True):
                yield dict(zip(columns, values, strict=True))

    return documents_of(enumerate(rows(), 1), column, f"{dataset}, row")


def documents_of(rows: Iterable[tuple[int, Row]], column: str | None, place: str) -> Iterator[Document]:
    """Yields the documents of numbered rows, but for those in which there is nothing to learn."""
    names, columns = None, ()
    for number, row in rows:
        if row.keys() != names:  # as a rule those of all rows, and to choose takes a fifth of the time of a row
            names, columns = row.keys(), choose_columns(row, column, f"{place} {number}")
        if columns == MESSAGES and (column is None or not isinstance(row[column], str)):  # asked for, it may be text
            messages = row[MESSAGES[0]]
            if messages is not None and not isinstance(messages, list):
                kind = type(messages).__name__
                raise UserError(f"{place} {number}: messages is not a list but {kind}; mend the row, or set text_column")
            try:
                conversation = to_conversation(messages or [])
            except UserError as error:
                raise UserError(f"{place} {number}: {error}; mend the row") from None
        else:
            texts = [to_text(row[name], name, f"{place} {number}") for name in columns]
            if columns != PROMPT_AND_COMPLETION:
                if texts[0]:
                    yield texts[0]
                continue
            conversation = [Message("user", texts[0]), Message("assistant", texts[1])]
        if any(content for role, content in conversation if role == "assistant"):
            yield conversation


def to_text(value: object, column: str, place: str) -> bytes:
    """Returns a value, str, UTF-8 or None, as UTF-8."""
    if isinstance(value, str):
        try:
            return to_utf8(value)  # bytes that were not UTF-8 become what they were
        except UserError as error:
            raise UserError(f"{place}: {column} {error}; mend the row") from None
    if value is not None and not isinstance(value, bytes):
        raise UserError(f"{place}: {column} is not text but {type(value).__name__}; mend the row, or set another text_column")
    return value or b""


def choose_columns(names: Collection[str], column: str | None, place: str) -> tuple[str, ...]:
    """Returns which of the columns that are there a document is made of. Raises UserError where they are missing."""
    for columns in [(column,)] if column is not None else [MESSAGES, PROMPT_AND_COMPLETION, TEXT]:
        if all(name in names for name in columns):
            return columns
    if column is None and (halves := set(PROMPT_AND_COMPLETION) & set(names)):
        missing = next(name for name in PROMPT_AND_COMPLETION if name not in halves)
        raise UserError(f"{place}: there is no column {missing!r} beside {halves.pop()!r}; add it, or set text_column")
    shown = ", ".join([*names][:SHOWN_COLUMNS]) + ", ..." * (len(names) > SHOWN_COLUMNS)
    shown = shorten(shown, SHOWN_CHARACTERS, placeholder=" ...")  # on one line
    raise UserError(
        f"{place}: there is no column {column or TEXT[0]!r}, only {shown or 'none'}; set text_column to the right one"
    )


# ---- the kinds of files: each yields the line that a row begins in, and the row, or the columns of it that count ----


def read_jsonl(path: Path, file: BinaryIO, column: str | None) -> Iterator[tuple[int, Row]]:
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
        yield number, checked(row, path, number)


def read_json(path: Path, file: BinaryIO, column: str | None) -> Iterator[tuple[int, Row]]:
    with decoded(file) as text:
        for line, value in json_values(path, text):
            row = checked(value, path, line)
            columns = choose_columns(row, column, f"{path}, line {line}")
            values = [row[name] for name in columns]
            if columns != MESSAGES and all(isinstance(value, list) for value in values):  # the whole columns
                if len({*map(len, values)}) > 1:
                    raise UserError(f"{path}, line {line}: the columns {', '.join(columns)} are not of one length; mend it")
                yield from ((line, dict(zip(columns, row, strict=True))) for row in zip(*values, strict=True))
            else:
                yield line, row


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


def read_csv(path: Path, file: BinaryIO, column: str | None, delimiter: str = ",") -> Iterator[tuple[int, Row]]:
    limit, line = csv.field_size_limit(MAX_ROW_BYTES), 1  # the limit is that of the whole process
    with decoded(file) as text:
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
            columns = {name: header.index(name) for name in choose_columns(header, column, f"{path}, line 1")}
            line = rows.line_num + 1
            for row in rows:
                if row and len(row) != len(header):
                    raise UserError(
                        f"{path}, line {line} has {len(row)} fields, and the header {len(header)}; text with a delimiter or "
                        'a line end in it stands in "quotes"'
                    )
                if row:
                    yield line, {name: row[place] for name, place in columns.items()}
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


def read_parquet(path: Path, file: BinaryIO, column: str | None) -> Iterator[tuple[int, Row]]:
    parquet = need("pyarrow.parquet", ".parquet files")
    from pyarrow import ArrowException

    try:
        table = parquet.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True)
        columns = choose_columns(table.schema_arrow.names, column, str(path))
        num_rows, groups = table.metadata.num_rows, map(table.metadata.row_group, range(table.num_row_groups))
        batch_rows = READ_BYTES * num_rows // max(sum(group.total_byte_size for group in groups), 1)
        batch_rows = min(max(batch_rows, 1), MAX_BATCH_ROWS)
        number = 1
        for batch in table.iter_batches(batch_rows, columns=[*columns], use_threads=False):
            values = [read_column(batch.column(name), name, path) for name in columns]
            yield from enumerate((dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)), number)
            number += len(batch)
    except UserError:
        raise
    except (ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged, or no parquet file ({first_line(error)}); fetch it again") from None


def read_column(values: "pyarrow.Array", column: str, path: Path) -> list[object]:
    """Returns texts as UTF-8, None where one is null, or messages. Raises UserError for a column of another type."""
    import pyarrow

    if (column,) == MESSAGES:
        return values.to_pylist()
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if str(values.type) not in TEXT_TYPES:
        raise UserError(f"{path}: column {column!r} is not text but {values.type}; set another text_column")
    return values.cast(pyarrow.large_binary()).to_pylist()


def checked(row: object, path: Path, line: int) -> Row:
    """Returns a value of JSON. Raises UserError where it is no row."""
    if not isinstance(row, dict):
        raise UserError(f'{path}, line {line} is not a row such as {{"text": "..."}} but {type(row).__name__}; mend it')
    return row


def too_long(path: Path, line: int) -> UserError:
    remedy = "cut it" if format_of(path) != ".json" else "convert the file to .jsonl, a row in each line"
    return UserError(f"{path}, line {line}: this row is longer than {MAX_ROW_BYTES >> 20} MB; {remedy}")


READERS: dict[str, Callable[[Path, BinaryIO, str | None], Iterator[tuple[int, Row]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".parquet": read_parquet,
}

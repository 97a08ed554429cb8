"""One column of a table of texts, a part at a time: the file may be larger than the memory.

The formats are those of ``formats``, and what is refused there is refused here. A JSON array alone is read as a whole.
"""

import csv
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchscope.data.decoding import Repeating, decompressed, parsed_record
from batchscope.data.layout import READ, table_ending
from batchscope.errors import UserError
from batchscope.files import HALF

csv.field_size_limit(sys.maxsize)
Text = str | None
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def text_parts(path: Path, column: str, rows: int) -> Iterator[list[Text]]:
    """The values of a column in the order of the file, ``rows`` at a time; None where a row has no text.

    Blank lines of a csv, tsv or jsonl file are no rows. Raises UserError naming file, row and column.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    ending = table_ending(path)
    if ending is None:
        raise UserError(f"{path} is not {READ}")
    try:
        if ending == ".parquet":
            yield from _parquet(path, column, rows)
        else:
            values = _json(path, column) if ending in (".json", ".jsonl", ".ndjson") else _delimited(path, column)
            texts = map(_with_text, values)
            while part := list(islice(texts, rows)):
                yield part
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not encoded in UTF-8 (byte 0x{error.object[error.start]:02X}); convert it"
        ) from None
    except DAMAGED as error:
        raise UserError(f"cannot read {path}, it may be damaged or cut off: {error}") from None


def _with_text(value: Text) -> Text:
    """None for white space alone."""
    return value if value is not None and value.strip() else None


def _check(column: str, columns: Iterable[str], path: Path) -> None:
    names = list(columns)
    if names.count(column) != 1:
        many = "no column" if column not in names else f"{names.count(column)} columns"
        listed = ", ".join(map(repr, names[:12])) or "none, it is empty"
        raise UserError(f"--text: {path} has {many} {column!r}; its columns are: {listed}")


def _parquet(path: Path, column: str, rows: int) -> Iterator[list[Text]]:
    with pq.ParquetFile(path) as file:
        _check(column, file.schema_arrow.names, path)
        kind = file.schema_arrow.field(column).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
            raise UserError(f"--text: column {column!r} of {path} holds {value}, not text")
        for batch in file.iter_batches(rows, columns=[column]):
            yield [_with_text(text) for text in batch.column(0).to_pylist()]


def _opened(path: Path) -> IO[bytes]:
    """The content, decompressed by the file's ending."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return gzip.GzipFile(path)  # type: ignore[return-value]
    if ending in (".bz2", ".xz"):
        return io.BufferedReader(_Decompressed(path, ending))
    if ending == ".zst":
        return pa.input_stream(str(path), compression="zstd")  # type: ignore[no-any-return]
    return path.open("rb")


class _Decompressed(io.RawIOBase):
    """A ``.bz2`` or ``.xz`` file as one of its content."""

    def __init__(self, path: Path, ending: str) -> None:
        self._file = path.open("rb")
        self._parts, self._rest = decompressed(self._file, ending), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = part
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _delimited(path: Path, column: str) -> Iterator[Text]:
    """A csv or tsv file. A tsv file whose quotation marks do not pair is read without quoting, as ``formats`` does."""
    if table_ending(path) == ".csv":
        return _rows(path, column, ",", csv.QUOTE_MINIMAL)
    try:
        for _ in _rows(path, column, "\t", csv.QUOTE_MINIMAL):
            pass
    except UserError:
        return _rows(path, column, "\t", csv.QUOTE_NONE)
    return _rows(path, column, "\t", csv.QUOTE_MINIMAL)


def _rows(path: Path, column: str, separator: str, quoting: Literal[0, 3]) -> Iterator[Text]:
    number = 0
    with closing(_opened(path)) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
        try:
            header = next(reader, [])
            _check(column, header, path)
            place = header.index(column)
            for row in filter(None, reader):
                number += 1
                if len(row) != len(header):
                    raise UserError(
                        f"data row {number} of {path} (line {reader.line_num}) has {len(row)} values, the header has "
                        f"{len(header)} columns; a text with a separator needs quotation marks around it"
                    )
                if row == header:
                    raise UserError(
                        f"data row {number} of {path} (line {reader.line_num}) is the header once more, as where "
                        "several files were joined; remove it"
                    )
                yield row[place]
        except csv.Error as error:
            raise UserError(f"{path} cannot be parsed at data row {number + 1}: {error}") from None


def _json(path: Path, column: str) -> Iterator[Text]:
    with closing(_opened(path)) as file, io.TextIOWrapper(file, "utf-8-sig", newline="\n") as lines:
        for number, record in enumerate(_records(lines, path), 1):
            if not isinstance(record, dict):
                raise UserError(f"data row {number} of {path} is not an object with columns")
            if number == 1:
                _check(column, record, path)
            if isinstance(record, Repeating) and column in record.repeated:
                raise UserError(f"--text: data row {number} of {path} has {column!r} twice; keep one of them")
            text = record.get(column)
            if text is not None and not isinstance(text, str):
                raise UserError(
                    f"--text: data row {number} of {path} has a {type(text).__name__} as {column!r}, not text"
                )
            if text and HALF.search(text):
                raise UserError(
                    f"--text: data row {number} of {path} has half a character (a lone surrogate such as \\ud83d); "
                    "remove it"
                )
            yield text


def _records(lines: Iterable[str], path: Path) -> Iterator[object]:
    """One object a line, or the objects of an array."""
    filled = filter(str.strip, lines)
    first = next(filled, "")
    if first.lstrip().startswith("["):
        try:
            records = parsed_record(first + "".join(filled))
            assert isinstance(records, list)
            yield from records
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON: {error}") from None
        return
    line = first
    for number in range(1, sys.maxsize):
        if not line:
            return
        try:
            yield parsed_record(line)
        except ValueError as error:
            raise UserError(f"row {number} of {path} is not valid JSON: {error}") from None
        line = next(filled, "")

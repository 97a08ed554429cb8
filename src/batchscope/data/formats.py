"""One file of reviews as an Arrow table of two columns: parquet, csv, tsv, or JSON as lines or as one array.

Text formats are parsed by Python's own modules. They infer nothing (a label ``2020-01-01`` stays a string), tell the
row of a mistake, and refuse a quotation mark in the wrong place, after which a laxer parser swallows rows in silence.
"""

import csv
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchscope.data.columns import Columns, check_columns, label_strings, scalar_labels
from batchscope.data.decoding import POINTER, Repeating, parsed_record, read_text
from batchscope.data.layout import table_ending
from batchscope.errors import UserError
from batchscope.files import HALF, parse_json

log = logging.getLogger(__name__)
csv.field_size_limit(sys.maxsize)


class FileTable(NamedTuple):
    """The reviews of one file."""

    table: pa.Table
    """The columns of the text and the label, under their own names."""
    class_names: list[str] | None
    """Names of the classes where the file states them; labels then count from 0."""


class NotATableError(UserError):
    """The file is sound, but holds something else than one record per review."""


def read_table(path: Path, columns: Columns) -> FileTable:
    """The text and label of every review of a file. Raises UserError naming file, row and column."""
    ending = table_ending(path)
    if ending == ".parquet":
        return _parquet(path, columns)
    if ending in (".csv", ".tsv"):
        return FileTable(_delimited(path, columns, "\t" if ending == ".tsv" else ","), None)
    return FileTable(_json(path, columns), None)


# ----------------------------------------------------------------------------------------------- parquet


def _parquet(path: Path, columns: Columns) -> FileTable:
    try:
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise UserError(f"data.source: {path} is a Git LFS pointer, not the data; run `git lfs pull`")
        schema = pq.read_schema(path)
        check_columns(schema.names, columns, str(path))
        table = pq.read_table(path, columns=list(dict.fromkeys(columns)), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"data.source: cannot read {path}, it may be damaged or cut off: {error}") from None
    return FileTable(table, _class_names(schema, columns.label, path))


def _class_names(schema: pa.Schema, label: str, path: Path) -> list[str] | None:
    """The names of a ClassLabel column in a parquet file that `datasets` wrote. Raises UserError if they name none."""
    try:
        names = parse_json(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    if not isinstance(names, list) or not names or not all(map(_is_name, names)) or len(set(names)) < len(names):
        raise UserError(
            f"data.label: {path} states {names!r:.80} as the names of the classes in {label!r}; they must be texts, a "
            "different one for each class. Write the file anew with such names, or with none"
        )
    return names


def _is_name(value: object) -> bool:
    """Whether a value is a text that can be written: not blank, and without half a character."""
    return isinstance(value, str) and bool(value.strip()) and not HALF.search(value)


# ------------------------------------------------------------------------------------------- csv and tsv


def _delimited(path: Path, columns: Columns, separator: str) -> pa.Table:
    """A csv or tsv file. A tsv file whose quotation marks do not pair is read without quoting, as many are written."""
    content = read_text(path)
    try:
        rows = _rows(content, path, columns, separator, quoting=csv.QUOTE_MINIMAL)
        if separator == "\t" and any("\t" in text and "\n" in text for text, _ in rows):
            raise UserError(f"data.source: a text of {path} has a tab and a line break")
    except UserError:
        if separator != "\t" or '"' not in content:
            raise
        rows = _rows(content, path, columns, separator, quoting=csv.QUOTE_NONE)
        log.warning(f"data.source: the quotation marks of {path} do not pair, so they are read as part of the texts")
    texts, labels = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({columns.text: pa.array(texts, pa.string()), columns.label: label_strings(list(labels))})


def _rows(content: str, path: Path, columns: Columns, separator: str, quoting: Literal[0, 3]) -> list[tuple[str, str]]:
    """(text, label) of every row after the header; blank lines do not count."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, quoting=quoting, strict=True)
    rows: list[tuple[str, str]] = []
    try:
        _check_separator(content.partition("\n")[0], path, columns, separator)
        header = next(reader, [])
        check_columns(header, columns, str(path))
        text, label = header.index(columns.text), header.index(columns.label)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(_ragged(path, len(rows) + 1, reader.line_num, row, header, separator))
            if row == header:
                raise UserError(
                    f"data.source: data row {len(rows) + 1} of {path} (line {reader.line_num}) is the header once "
                    "more, as where several files were joined; remove it"
                )
            rows.append((row[text], row[label]))
    except csv.Error as error:
        raise UserError(
            f"data.source: {path} cannot be parsed at data row {len(rows) + 1} (line {reader.line_num}): {error}. A "
            f"text with a {_name(separator)}, a quotation mark or a line break needs quotation marks around it, and "
            'those inside it doubled ("")'
        ) from None
    return rows


def _ragged(path: Path, number: int, line: int, row: list[str], header: list[str], separator: str) -> str:
    values = f"{len(row)} value" + ("" if len(row) == 1 else "s")
    return (
        f"data.source: data row {number} of {path} (line {line}) has {values}, the header has {len(header)} columns: "
        f"{separator.join(row)[:80]!r}. A text with a {_name(separator)} needs quotation marks around it"
    )


def _check_separator(first_line: str, path: Path, columns: Columns, separator: str) -> None:
    """Raises UserError if the columns are there, but separated by something else."""
    for other in (separator, ",", ";", "\t", "|"):
        if columns.text in [name.strip(' "\r') for name in first_line.split(other)]:
            if other == separator:
                return
            raise UserError(
                f"data.source: the columns of {path} are separated by a {_name(other)}, not by a {_name(separator)}. "
                + ("Rename it to .tsv" if other == "\t" else "Save it with commas")
            )


def _name(separator: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}[separator]


# -------------------------------------------------------------------------------------------------- JSON


def _json(path: Path, columns: Columns) -> pa.Table:
    """JSON with one object per line, or one array of objects."""
    texts: list[str | None] = []
    labels: list[object] = []
    for number, record in enumerate(_records(read_text(path), path), 1):
        if not isinstance(record, dict):
            raise UserError(f"data.source: data row {number} of {path} is {_kind(record)}, not an object with columns")
        if number == 1:
            check_columns(list(record), columns, str(path))
        if isinstance(record, Repeating) and (twice := record.repeated.intersection(columns)):
            raise UserError(f"data.source: data row {number} of {path} has {min(twice)!r} twice; keep one of them")
        text = record.get(columns.text)
        if text is not None and not isinstance(text, str):
            raise UserError(f"data.text: data row {number} of {path} has {_kind(text)} as {columns.text!r}, not text")
        texts.append(text)
        labels.append(record.get(columns.label))
    try:
        strings = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        raise UserError(
            f"data.text: data row {_first_broken(texts)} of {path} has half a character (a lone surrogate such as "
            "\\ud83d); remove it"
        ) from None
    return pa.table({columns.text: strings, columns.label: scalar_labels(labels, columns.label, str(path))})


def _records(content: str, path: Path) -> Iterator[object]:
    """The records of a JSON file, in order. A line ends at a line feed alone: other breaks may occur in a text."""
    if content.lstrip().startswith("["):
        try:
            records = parsed_record(content)
            assert isinstance(records, list)
            yield from records
        except ValueError as error:
            raise UserError(f"data.source: {path} is not valid JSON: {error}") from None
        return
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield parsed_record(line)
            except ValueError as error:
                raise _no_lines(content, path, number, error) from None


def _no_lines(content: str, path: Path, number: int, error: ValueError) -> UserError:
    try:
        parsed_record(content)
    except ValueError:
        return UserError(f"data.source: line {number} of {path} is not valid JSON: {error}")
    return NotATableError(
        f"data.source: {path} holds one JSON object over several lines; it must hold one object per line, or one array "
        "of objects"
    )


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "a text" if isinstance(value, str) else "nothing")


def _first_broken(texts: list[str | None]) -> int:
    return next(n for n, text in enumerate(texts, 1) if text and HALF.search(text))

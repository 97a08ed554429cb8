"""The column of the text and the column of the label: checked, and brought to one type each."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from math import isnan
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchscope.errors import UserError
from batchscope.files import HALF

MISSING = ("", "null", "nan", "na", "n/a", "#n/a", "<na>")
"""What programs write for a missing label, in small letters. ``none`` is not here: it can be a class."""
WRITTEN_BY_PYTHON = "None"
NUMBER = r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?$"
"""A label with a leading zero is a string: ``01`` and ``1`` would be one number."""
EXACT = 2**53
"""Whole numbers beyond are not told apart as floats."""
NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
LARGEST = 10**18
ODD = "something else"
FEW = 12


class Columns(NamedTuple):
    """The columns that the config names."""

    text: str
    label: str


def check_columns(there: Sequence[str], columns: Columns, name: str) -> None:
    """Raises UserError unless both columns are there, once each. ``name`` is the file's, for the message."""
    for key, column in columns._asdict().items():
        count = list(there).count(column)
        if count > 1:
            raise UserError(f"data.{key}: {name} has {count} columns {column!r}: a duplicate; rename or remove one")
        if count == 0:
            listed = ", ".join(repr(other[:40]) for other in there[:FEW]) + (", …" if len(there) > FEW else "")
            near = [other for other in there if other.strip().lower() == column.strip().lower()]
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"data.{key}: {name} has no column {column!r}; its columns are: {listed or 'none, it is empty'}{hint}"
                + (". A file of reviews without labels must not be in the source" if key == "label" else "")
            )


def checked_text(values: pa.ChunkedArray, column: str, name: str) -> pa.ChunkedArray:
    """[N] strings, none of them empty or white space alone. Raises UserError naming file and row."""
    values = _decoded(values)
    if not _is_text(values.type) and len(values) > 0:
        raise UserError(f"data.text: column {column!r} of {name} holds {values.type}, not text")
    strings = values.cast(pa.string())
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UserError(f"data.text: column {column!r} of {name} is not valid UTF-8: {error}") from None
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(strings)), 0)
    _refuse(pc.fill_null(empty, True), f"data.text: {{}} of {name} {{}} no text in column {column!r}")
    return strings


def checked_label(values: pa.ChunkedArray, column: str, name: str) -> pa.ChunkedArray:
    """[N] int64 or strings, none of them missing. Raises UserError naming file and row."""
    values = _decoded(values)
    if _is_text(values.type):
        values = _without_missing(values.cast(pa.string()))
    _refuse(pc.is_null(values, nan_is_null=True), f"data.label: {{}} of {name} {{}} no label in column {column!r}")
    if _is_text(values.type) or pa.types.is_boolean(values.type):
        return values.cast(pa.string())
    if any(holds(values.type) for holds in NUMBERS) or len(values) == 0:
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            row = next((n for n, value in enumerate(values.to_pylist()) if not _is_whole(value)), 0)
            raise UserError(
                f"data.label: data row {row + 1} of {name} has {values[row]} in column {column!r}; it must hold whole "
                "numbers or strings; a number of more than 18 digits must be a string"
            ) from None
    raise UserError(
        f"data.label: column {column!r} of {name} holds {values.type}; it must hold whole numbers or strings"
    )


def label_strings(values: list[str]) -> pa.Array:
    """Labels of a file without types, [N]: numbers if all that are not missing are numbers, else strings."""
    strings = _without_missing(pa.array(values, pa.string()))
    if not pc.all(pc.fill_null(pc.match_substring_regex(strings, NUMBER), True)).as_py():
        return strings
    try:
        return strings.cast(pa.int64())
    except pa.ArrowInvalid:
        floats = strings.cast(pa.float64())
        return floats if pc.all(pc.less(pc.abs(floats), EXACT)).as_py() else strings


def scalar_labels(values: list[object], column: str, name: str) -> pa.Array:
    """Labels as JSON has them, [N]. Raises UserError for labels of several kinds."""
    given = [None if value == "" else value for value in values]
    kinds = {_kind(value) for value in given} - {None}
    if len(kinds) <= 1 and ODD not in kinds:
        as_floats = any(isinstance(value, float) for value in given)
        try:
            return pa.array(given, pa.float64() if as_floats and "numbers" in kinds else None, from_pandas=True)
        except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
            pass
    first = next(_kind(value) for value in given if value is not None)
    odd = next(
        (
            n
            for n, value in enumerate(given, 1)
            if _kind(value) not in (None, first) or _kind(value) == ODD or _has_no_room(value)
        ),
        None,
    )
    where = f"; data row {odd} has {given[odd - 1]!r:.80}" if odd is not None else ""
    raise UserError(f"data.label: column {column!r} of {name} must hold whole numbers alone or strings alone{where}")


def _kind(value: object) -> str | None:
    """What sort of label a value is; None for a missing one."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return None
    kinds = {bool: "true or false", int: "numbers", float: "numbers", str: "strings"}
    return kinds.get(type(value), ODD)


def _has_no_room(value: object) -> bool:
    """Whether Arrow has no type for a label: half a character, or a number of 19 digits or more."""
    if isinstance(value, str):
        return HALF.search(value) is not None
    return isinstance(value, int) and abs(value) >= LARGEST


def _is_whole(value: int | float | Decimal) -> bool:
    return float(value).is_integer() and abs(float(value)) < LARGEST


def unlabelled(label: pa.ChunkedArray) -> bool:
    """Whether every label is -1, as in the unsupervised part of IMDB."""
    return bool(pc.all(pc.equal(label.cast(pa.string()), "-1")).as_py())


def _without_missing(strings: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings without white space around them; null for what programs write where there is none."""
    trimmed = pc.utf8_trim_whitespace(strings)
    missing = pc.is_in(pc.utf8_lower(trimmed), pa.array(MISSING)) if len(trimmed) else pc.is_null(trimmed)
    return pc.if_else(pc.or_(missing, pc.equal(trimmed, WRITTEN_BY_PYTHON)), pa.scalar(None, pa.string()), trimmed)


def all_checked(*checks: Callable[[], pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """What each check gives. Raises one UserError with the messages of all that fail, a line each."""
    passed, messages = [], []
    for check in checks:
        try:
            passed.append(check())
        except UserError as error:
            messages.append(str(error))
    if messages:
        raise UserError("\n".join(messages))
    return passed


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _refuse(marked: pa.ChunkedArray, message: str) -> None:
    """Raises UserError if any row is marked; ``message`` has two blanks: for the rows, counted from 1, and the verb."""
    count = pc.sum(marked).as_py() or 0
    numbers = [str(row + 1) for row in pc.indices_nonzero(marked.combine_chunks())[:FEW].to_pylist()]
    if count == 1:
        raise UserError(message.format(f"data row {numbers[0]}", "has") + "; complete or remove it")
    if count > 1:
        more = f" and {count - FEW:,} more" if count > FEW else ""
        rows = f"{count:,} of {len(marked):,} data rows ({', '.join(numbers)}{more})"
        raise UserError(message.format(rows, "have") + "; complete or remove them")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

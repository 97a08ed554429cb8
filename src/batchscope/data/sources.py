"""Reading what a user calls the data: a hub id, a folder in the aclImdb layout, or parquet, csv and jsonl files.

A source comes in parts: the splits of a hub dataset, the folders or the files of a local one. A part belongs to the
source's own train, validation or test set if its name begins with one of these words (``train-00000-of-00002``,
``test``, ``dev``). If any part is named so, the parts named otherwise (``unsupervised``, companion tables) are left
out; if none is, all parts are training data. A part labelled -1 throughout is unlabelled and left out as well.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json
import pyarrow.parquet as pq
from pyarrow import csv

from batchscope.data.hub import snapshot
from batchscope.errors import UserError

ORIGINS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
ORIGIN_ORDER = ("train", "validation", "test")
NAMED = re.compile(rf"({'|'.join(ORIGINS)})(?![a-z])", re.IGNORECASE)
SUFFIXES = (".parquet", ".csv", ".jsonl")
BLOCK_BYTES = 1 << 26


class Part(NamedTuple):
    """Some reviews as the source gives them, in its order."""

    name: str
    """File or split, for messages."""
    origin: str
    """``train``, ``validation`` or ``test``."""
    text: pa.ChunkedArray
    """[N] strings, none of them empty."""
    label: pa.ChunkedArray
    """[N] int64 or string, no nulls."""
    class_names: list[str] | None
    """Names of the classes where the source states them; labels then count from 0."""


def read_source(spec: dict[str, Any]) -> list[Part]:
    """The labelled parts of a hub or local source: train first, then validation, then test.

    ``spec`` holds ``kind`` (``hub | local``), ``source``, ``text``, ``label`` and, for the hub, ``revision``.
    Raises UserError for a source that cannot be read, a missing column, an empty text or an unusable label.
    """
    parts = _hub(spec) if spec["kind"] == "hub" else _local(Path(spec["source"]).expanduser(), spec)
    labelled = [part for part in parts if not pc.all(pc.equal(part.label.cast(pa.string()), "-1")).as_py()]
    if not labelled:
        raise UserError(f"data.source: {spec['source']!r} holds no labelled reviews")
    return sorted(labelled, key=lambda part: ORIGIN_ORDER.index(part.origin))


def _chosen(names: Iterable[str]) -> dict[str, str]:
    """Name of a part → its origin, for the parts that the rule above keeps."""
    found = {name: NAMED.match(name) for name in names}
    named = {name: ORIGINS[match[1].lower()] for name, match in found.items() if match}
    return named or dict.fromkeys(found, "train")


# --------------------------------------------------------------------------------------------------- hub


def _hub(spec: dict[str, Any]) -> list[Part]:
    import datasets

    source = spec["source"]
    folder = snapshot("data.source", "dataset", source, spec["revision"])
    try:
        splits = datasets.load_dataset(str(folder))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data.source: cannot read the data set {source!r} at revision {spec['revision']!r}: {error}\n"
            f"  It is in {folder}; another revision may do, or point data.source at a local folder."
        ) from None
    parts = []
    for name, origin in _chosen(splits).items():
        feature = splits[name].features.get(spec["label"])
        names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        table = splits[name].with_format("arrow")[:]
        parts.append(_part(table, f"{source} ({name})", origin, names, spec))
    return parts


# ------------------------------------------------------------------------------------------------- local


def _local(path: Path, spec: dict[str, Any]) -> list[Part]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise UserError(f"data.source: {path} must end in {', '.join(SUFFIXES)}")
        return [_file(path, "train", spec)]
    if not path.is_dir():
        raise UserError(f"data.source: there is no file or folder {str(path)!r}")
    if any(path.glob("train/*/*.txt")):
        return [_text_folder(folder) for folder in _in_order(path.iterdir()) if _is_text_split(folder)]
    files = {file.relative_to(path).as_posix(): file for file in _in_order(path.rglob("*")) if file.suffix in SUFFIXES}
    if not files:
        raise UserError(
            f"data.source: {path} holds neither {', '.join(SUFFIXES)} files nor folders train/CLASS/*.txt and "
            "test/CLASS/*.txt"
        )
    origins = _chosen(file.stem for file in files.values())
    return [_file(file, origins[file.stem], spec) for file in files.values() if file.stem in origins]


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, numbers by value: 2_1.txt before 10_1.txt."""
    return sorted(paths, key=lambda path: [(p.isdigit(), int(p) if p.isdigit() else p) for p in _pieces(path)])


def _pieces(path: Path) -> list[str]:
    return [piece for piece in re.split(r"(\d+)", path.as_posix()) if piece]


def _is_text_split(folder: Path) -> bool:
    return folder.name in ORIGINS and folder.is_dir()


def _text_folder(folder: Path) -> Part:
    """One split of the aclImdb layout: a folder per class, a file per review; ``unsup`` is unlabelled."""
    texts, labels = [], []
    for class_folder in _in_order(path for path in folder.iterdir() if path.is_dir() and path.name != "unsup"):
        for file in _in_order(class_folder.glob("*.txt")):
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"data.source: cannot read {file}: {error}") from None
            labels.append(class_folder.name)
    table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})
    return _part(table, str(folder), ORIGINS[folder.name], None, {"text": "text", "label": "label"})


def _file(path: Path, origin: str, spec: dict[str, Any]) -> Part:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
        elif path.suffix == ".csv":
            table = csv.read_csv(
                path,
                read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(column_types={spec["text"]: pa.string()}),
            )
        else:
            table = arrow_json.read_json(path, arrow_json.ReadOptions(block_size=BLOCK_BYTES))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"data.source: cannot read {path}: {error}") from None
    return _part(table, str(path), origin, _class_names(table.schema, spec["label"]), spec)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names of a ClassLabel column in a parquet file that `datasets` wrote."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features[label]["names"])
    except (TypeError, KeyError, ValueError):
        return None


# ------------------------------------------------------------------------------------------------ columns


def _part(table: pa.Table, name: str, origin: str, class_names: list[str] | None, spec: dict[str, Any]) -> Part:
    text = _column(table, "text", name, spec)
    if not _is_text(text.type):
        raise UserError(f"data.text: column {spec['text']!r} of {name} holds {text.type}, not text")
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)
    _refuse(pc.fill_null(empty, True), f"data.text: {{}} of {name} have no text; remove them")
    label = _column(table, "label", name, spec)
    _refuse(pc.is_null(label), f"data.label: {{}} of {name} have no label; remove them")
    return Part(name, origin, text.cast(pa.string()), _label(label, name, spec), class_names)


def _column(table: pa.Table, key: str, name: str, spec: dict[str, Any]) -> pa.ChunkedArray:
    if spec[key] not in table.column_names:
        there = ", ".join(table.column_names)
        raise UserError(f"data.{key}: {name} has no column {spec[key]!r}; its columns are: {there}")
    return table[spec[key]].cast(pa.string()) if pa.types.is_dictionary(table[spec[key]].type) else table[spec[key]]


def _label(label: pa.ChunkedArray, name: str, spec: dict[str, Any]) -> pa.ChunkedArray:
    if _is_text(label.type) or pa.types.is_boolean(label.type):
        return label.cast(pa.string())
    if pa.types.is_integer(label.type) or pa.types.is_floating(label.type):
        try:
            return label.cast(pa.int64())
        except pa.ArrowInvalid:
            pass
    raise UserError(f"data.label: column {spec['label']!r} of {name} must hold whole numbers or strings")


def _refuse(rows: pa.ChunkedArray, message: str) -> None:
    """Raise UserError if any row is marked; ``message`` gets the count and the first of them, counted from 1."""
    count = pc.sum(rows).as_py()
    if count:
        first = pc.index(rows, True).as_py() + 1
        raise UserError(message.format(f"{count} of {len(rows)} rows (the first is row {first})"))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

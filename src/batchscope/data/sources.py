"""Reading what a user calls the data: a data set of the hub, a folder in the aclImdb layout, or files of reviews.

A source comes in parts: the splits of a hub dataset, the folders or the files of a local one. ``layout`` says which of
them are reviews and of which split. A part labelled -1 throughout is unlabelled and left out. Whatever is left out is
named in the log and in ``data/audit.json``.
"""

import logging
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from batchscope.data.columns import Columns, all_checked, check_columns, checked_label, checked_text, unlabelled
from batchscope.data.decoding import read_text
from batchscope.data.formats import FileTable, NotATableError, read_table
from batchscope.data.hub import snapshot
from batchscope.data.layout import (
    NO_REVIEWS,
    NO_SPLIT,
    READ,
    TableFile,
    TextFolder,
    folder_layout,
    origins,
    table_ending,
)
from batchscope.data.records import LeftOut, ReadPart, SourceRecord, SplitName
from batchscope.data.spec import CorpusSpec
from batchscope.errors import UserError

log = logging.getLogger(__name__)
ORIGIN_ORDER: tuple[SplitName, ...] = ("train", "validation", "test")
NO_ROWS = "it has no rows"
MINUS_ONE = "its reviews have no labels: -1 in every row"


class Part(NamedTuple):
    """Some reviews as the source gives them, in its order."""

    name: str
    """File or split, below the source."""
    origin: SplitName
    """The source's own split."""
    text: pa.ChunkedArray
    """[N] strings, none of them empty."""
    label: pa.ChunkedArray
    """[N] int64 or string, none of them missing."""
    class_names: list[str] | None
    """Names of the classes where the source states them; labels then count from 0."""


class Source(NamedTuple):
    """All that a source holds."""

    parts: list[Part]
    """What was read: train first, then validation, then test."""
    left_out: list[LeftOut]
    """What was not."""

    @property
    def record(self) -> SourceRecord:
        """The same in names and counts."""
        read = [ReadPart(name=part.name, origin=part.origin, reviews=len(part.text)) for part in self.parts]
        return {"read": read, "left_out": self.left_out}


def read_source(spec: CorpusSpec) -> Source:
    """The labelled parts of a hub or local source.

    Raises UserError for a source that cannot be read, a missing column, an empty text or an unusable label.
    """
    assert spec.source is not None and spec.text is not None and spec.label is not None
    columns = Columns(spec.text, spec.label)
    if spec.kind == "hub":
        assert spec.revision is not None
        found = _hub(spec.source, spec.revision, columns)
    else:
        found = _local(Path(spec.source).expanduser(), columns)
    left_out, labelled = list(found.left_out), []
    for part in found.parts:
        if len(part.text) == 0:
            left_out.append({"name": part.name, "reason": NO_ROWS})
        elif unlabelled(part.label):
            left_out.append({"name": part.name, "reason": MINUS_ONE})
        else:
            labelled.append(part)
    for entry in left_out:
        log.warning(f"data.source: left out {entry['name']}: {entry['reason']}")
    if not labelled:
        names = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in left_out)
        raise UserError(f"data.source: {spec.source!r} holds no labelled reviews ({names})")
    return Source(sorted(labelled, key=lambda part: ORIGIN_ORDER.index(part.origin)), left_out)


# --------------------------------------------------------------------------------------------------- hub


def _hub(source: str, revision: str, columns: Columns) -> Source:
    import datasets

    folder = snapshot("data.source", "dataset", source, revision)
    try:
        splits = datasets.load_dataset(str(folder))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data.source: cannot read the data set {source!r} at revision {revision!r}: {error}\n"
            f"  It is in {folder}; another revision may do, or point data.source at a local folder."
        ) from None
    origin = origins(splits)
    named = any(origin.values())
    parts, left_out = [], list[LeftOut]()
    for name, split in splits.items():
        if named and origin[name] is None:
            left_out.append({"name": name, "reason": NO_SPLIT})
            continue
        check_columns(split.column_names, columns, f"{source} ({name})")
        feature = split.features[columns.label]
        names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        table = split.select_columns(list(dict.fromkeys(columns))).with_format("arrow")[:]
        parts.append(_part(FileTable(table, names), name, f"{source} ({name})", origin[name] or "train", columns))
    return Source(parts, left_out)


# ------------------------------------------------------------------------------------------------- local


def _local(path: Path, columns: Columns) -> Source:
    if path.is_file():
        if not table_ending(path):
            raise UserError(f"data.source: {path} is not {READ}")
        return Source([_part(read_table(path, columns), path.name, str(path), "train", columns)], [])
    if not path.is_dir():
        raise UserError(f"data.source: there is no file or folder {str(path)!r}")
    layout = folder_layout(path)
    _refuse_copies(path, layout.tables)
    parts, left_out = [_text_part(folder, columns) for folder in layout.texts], list(layout.left_out)
    for file in layout.tables:
        try:
            table = read_table(file.path, columns)
        except NotATableError:
            if len(layout.tables) == 1 or origins([file.path.stem])[file.path.stem]:
                raise
            left_out.append({"name": file.name, "reason": NO_REVIEWS})
            continue
        parts.append(_part(table, file.name, str(file.path), file.origin, columns))
    return Source(parts, left_out)


def _refuse_copies(root: Path, files: list[TableFile]) -> None:
    """Raises UserError if two files of one split have the same bytes: their reviews would count twice."""
    sizes: dict[tuple[SplitName, int], list[TableFile]] = {}
    for file in files:
        if file.path.is_file() and file.path.stat().st_size:
            sizes.setdefault((file.origin, file.path.stat().st_size), []).append(file)
    for same_size in (group for group in sizes.values() if len(group) > 1):
        seen: dict[bytes, TableFile] = {}
        for file in same_size:
            other = seen.setdefault(sha256(file.path.read_bytes()).digest(), file)
            if other is not file:
                raise UserError(f"data.source: {other.name} and {file.name} in {root} are the same file; remove one")


def _text_part(folder: TextFolder, columns: Columns) -> Part:
    """One split of the aclImdb layout."""
    texts, labels = [], []
    for label, file in folder.files:
        text = read_text(file)
        if not text.strip():
            raise UserError(f"data.source: {file} is empty; remove it")
        texts.append(text)
        labels.append(label)
    table = pa.table({columns.text: pa.array(texts, pa.string()), columns.label: pa.array(labels, pa.string())})
    return _part(FileTable(table, None), folder.name, str(folder.path), folder.origin, columns)


def _part(file: FileTable, name: str, place: str, origin: SplitName, columns: Columns) -> Part:
    """A part with its columns checked; ``place`` is its name in messages."""
    text, label = all_checked(
        lambda: checked_text(file.table[columns.text], columns.text, place),
        lambda: checked_label(file.table[columns.label], columns.label, place),
    )
    return Part(name, origin, text, label, file.class_names)

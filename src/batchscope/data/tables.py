"""The two tables every later stage reads: the corpus and its split, as Parquet."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.data.records import SourceRecord, SplitName
from batchscope.errors import UserError
from batchscope.files import atomic

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """N reviews in corpus order; the position of a review is its ``example_id``."""

    text: pa.ChunkedArray
    """[N] strings."""
    label: NDArray[np.int64]
    """[N] indices into ``classes``."""
    origin: NDArray[np.str_]
    """[N] the source's own split: ``train``, ``validation`` or ``test``."""
    classes: list[str]
    """Class names in label order."""
    source: SourceRecord = field(default_factory=lambda: SourceRecord(read=[], left_out=[]))
    """What was read of the source and what was left out."""

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def texts(self) -> list[str]:
        """The texts as Python strings."""
        strings: list[str] = self.text.to_pylist()
        return strings

    def texts_of(self, example_ids: NDArray[np.int64]) -> list[str]:
        """The texts of some reviews, in the order asked for."""
        strings: list[str] = self.text.take(pa.array(example_ids)).to_pylist()
        return strings


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write ``data/corpus.parquet``."""
    schema = pa.schema(
        [("example_id", pa.int64()), ("text", pa.string()), ("label", pa.int64()), ("origin", pa.string())],
        metadata={
            "classes": json.dumps(corpus.classes, ensure_ascii=False),
            "source": json.dumps(corpus.source, ensure_ascii=False),
        },
    )
    columns = [np.arange(len(corpus)), corpus.text.cast(pa.string()), corpus.label, corpus.origin.astype(object)]
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


def read_corpus(path: Path) -> Corpus:
    """Read ``data/corpus.parquet``. Raises UserError naming the file if it is missing or damaged."""
    table = _read(path)
    return Corpus(
        text=table["text"],
        label=table["label"].to_numpy(),
        origin=np.array(table["origin"].to_pylist()),
        classes=json.loads(table.schema.metadata[b"classes"]),
        source=json.loads(table.schema.metadata[b"source"]),
    )


def write_split(split: dict[SplitName, NDArray[np.int64]], path: Path) -> None:
    """Write ``data/split.parquet`` from split name → example ids in training order."""
    names = np.repeat(np.array(SPLITS, dtype=object), [len(split[name]) for name in SPLITS])
    ids = np.concatenate([split[name] for name in SPLITS])
    table = pa.table({"example_id": pa.array(ids, pa.int64()), "split": pa.array(names, pa.string())})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_split(path: Path) -> dict[SplitName, NDArray[np.int64]]:
    """Split name → example ids in training order. Raises UserError naming the file if it is missing or damaged."""
    table = _read(path)
    ids, names = table["example_id"].to_numpy(), np.array(table["split"].to_pylist())
    return {name: ids[names == name] for name in SPLITS}


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it and start the workflow again") from None

"""Tokens of one model, made once and read by every run: ``tokens/{model}/{split}.arrow``.

They need NumPy and Arrow alone; reading maps the file into memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.files import atomic


@dataclass(frozen=True)
class Tokens:
    """The N reviews of one split as a model reads them, L tokens each, in training order."""

    example_id: NDArray[np.int64]
    """[N] row numbers of the corpus."""
    label: NDArray[np.int64]
    """[N] indices into ``classes``."""
    input_ids: NDArray[np.uint16] | NDArray[np.int32]
    """[N, L] token ids, padded on the right; read-only."""
    length: NDArray[np.int32]
    """[N] tokens before the padding, special tokens included."""
    truncated: NDArray[np.bool_]
    """[N] whether the review has more tokens than were kept."""
    classes: list[str]
    """Class names in label order."""
    pad_token_id: int
    """The id that fills a row after its ``length``."""
    vocabulary_size: int
    """Every id is below it."""

    def __len__(self) -> int:
        return len(self.label)


def write_tokens(tokens: Tokens, path: Path) -> None:
    """Write one Arrow IPC file of one uncompressed batch, so that reading it copies nothing."""
    schema = pa.schema(
        [
            ("example_id", pa.int64()),
            ("label", pa.int64()),
            ("input_ids", pa.list_(pa.from_numpy_dtype(tokens.input_ids.dtype), tokens.input_ids.shape[1])),
            ("length", pa.int32()),
            ("truncated", pa.bool_()),
        ],
        metadata={
            "classes": json.dumps(tokens.classes, ensure_ascii=False),
            "pad_token_id": str(tokens.pad_token_id),
            "vocabulary_size": str(tokens.vocabulary_size),
        },
    )
    rows = pa.FixedSizeListArray.from_arrays(pa.array(tokens.input_ids.ravel()), tokens.input_ids.shape[1])
    columns = [tokens.example_id, tokens.label, rows, tokens.length, tokens.truncated]
    batch = pa.record_batch([pa.array(column) for column in columns], schema=schema)
    with atomic(path) as temporary, pa.ipc.new_file(temporary, schema) as writer:
        writer.write_batch(batch)


def load_tokens(path: Path) -> Tokens:
    """Map one split's tokens into memory. Raises UserError naming the file if it is missing or damaged."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch, metadata = reader.get_batch(0), reader.schema.metadata
        batch.validate(full=True)
        rows = batch["input_ids"]
        return Tokens(
            example_id=batch["example_id"].to_numpy(),
            label=batch["label"].to_numpy(),
            input_ids=rows.values.to_numpy().reshape(len(rows), rows.type.list_size),
            length=batch["length"].to_numpy(),
            truncated=batch["truncated"].to_numpy(zero_copy_only=False),
            classes=json.loads(metadata[b"classes"]),
            pad_token_id=int(metadata[b"pad_token_id"]),
            vocabulary_size=int(metadata[b"vocabulary_size"]),
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it and start the workflow again") from None

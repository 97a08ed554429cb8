"""The stored probabilities of a run's training examples, as the stages write and read them. Needs no torch."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.files import DamagedFileError, atomic

FILE = "cartography.parquet"


class EpochEnd(NamedTuple):
    """Where a run was when its checkpoint of an epoch was saved."""

    epoch: int
    """From 1."""
    update: int
    """Number of the epoch's last update, from 1."""
    samples: int
    """Examples seen since the start of the run."""


class Dynamics(NamedTuple):
    """What a run says of N training examples at the end of each of its E epochs."""

    asked: int
    """``insight.cartography.examples`` of the config."""
    ends: list[EpochEnd]
    """``[E]``, in order."""
    example_id: NDArray[np.int64]
    """``[N]`` row numbers of the corpus."""
    label: NDArray[np.int64]
    """``[N]``."""
    probability: NDArray[np.float32]
    """``[N, E]``: of the label."""
    right: NDArray[np.bool_]
    """``[N, E]``: whether the label is the predicted class."""


def store_dynamics(dynamics: Dynamics, path: Path) -> None:
    """Write the file, atomically: a row per example, with lists of E values."""
    epochs = len(dynamics.ends)
    metadata = {"asked": str(dynamics.asked), "epochs": json.dumps([end._asdict() for end in dynamics.ends])}
    schema = pa.schema(
        [
            ("example_id", pa.int64()),
            ("label", pa.int64()),
            ("probability", pa.list_(pa.float32(), epochs)),
            ("right", pa.list_(pa.bool_(), epochs)),
        ],
        metadata=metadata,
    )
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), epochs)
        for values in (dynamics.probability, dynamics.right)
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.table([dynamics.example_id, dynamics.label, *lists], schema=schema), temporary)


def read_dynamics(run_folder: Path) -> Dynamics:
    """Raises UserError where the file is missing or damaged."""
    path = run_folder / FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; start the workflow again")
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        asked, ends = int(metadata[b"asked"]), [EpochEnd(**end) for end in json.loads(metadata[b"epochs"])]
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, error) from None
    example_id, label = (table[name].to_numpy() for name in ("example_id", "label"))
    probability, right = (
        table[name].combine_chunks().values.to_numpy(zero_copy_only=False).reshape(len(table), len(ends))
        for name in ("probability", "right")
    )
    return Dynamics(asked, ends, example_id, label, probability, right)

"""The stored predictions of a run, as later stages read them. Needs no torch."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.files import DamagedFileError

FILE = "predictions.parquet"


class Predictions(NamedTuple):
    """The best checkpoint's predictions on one split, in the order of the file."""

    example_id: NDArray[np.int64]
    """``[N]``"""
    label: NDArray[np.int64]
    """``[N]``"""
    logits: NDArray[np.float32]
    """``[N, C]``"""


def read_predictions(run_folder: Path, split: Literal["validation", "test"]) -> Predictions:
    """The best checkpoint's predictions. UserError where they are missing, DamagedFileError where they are damaged."""
    path = run_folder / FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; evaluate the run first")
    try:
        table = pq.read_table(path, filters=[("split", "==", split), ("checkpoint", "==", "best")])
    except pa.ArrowException as error:
        raise DamagedFileError(path, error) from None
    names = [name for name in table.column_names if name.startswith("logit_")]
    logits = np.column_stack([table[name].to_numpy() for name in names])
    return Predictions(table["example_id"].to_numpy(), table["label"].to_numpy(), logits)

"""The stored features of a run, as later stages read them. Needs no torch."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.files import DamagedFileError

FILE = "features.parquet"


def read_features(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids ``[N]`` in ascending order and features ``[N, H]``. UserError where they are missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing; start the workflow again")
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DamagedFileError(path, error) from None
    example_id = table["example_id"].to_numpy()
    column = table["features"].combine_chunks()
    features = column.values.to_numpy().reshape(len(column), column.type.list_size)
    order = np.argsort(example_id)
    return example_id[order], features[order]

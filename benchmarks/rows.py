"""Examples in memory, for a machine without the library ``datasets``."""

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


class Rows(Dataset[dict[str, Tensor]]):
    """One example per row of some columns ``[N]`` or ``[N, L]``."""

    def __init__(self, columns: dict[str, NDArray]) -> None:
        self.columns = {name: torch.from_numpy(column).long() for name, column in columns.items()}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: column[row] for name, column in self.columns.items()}

"""The test reviews that are measured, and batches of them that hold little padding and a bounded number of tokens."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.data.tokens import Tokens

TOKENS_PER_BATCH = 2048
WIDTH_STEP = 16
DRAW_SEED = 0


def drawn_reviews(there: int, wanted: int) -> NDArray[np.int64]:
    """Positions of the reviews that are measured, ascending: drawn once and for all, or all if there are no more."""
    order = np.random.default_rng(DRAW_SEED).permutation(there)
    return np.sort(order[:wanted])


def batches(
    tokens: Tokens, chosen: NDArray[np.int64], device: torch.device, most: int = TOKENS_PER_BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and mask ``[B, L]`` of the chosen reviews, at most ``most`` at a time, of similar length."""
    ordered, start = by_length(tokens, chosen), 0
    while start < len(ordered):
        rows = ordered[start : start + min(most, _rows_from(tokens, ordered, start))]
        width = min(-(-int(tokens.length[rows].max()) // WIDTH_STEP) * WIDTH_STEP, tokens.input_ids.shape[1])
        ids = torch.from_numpy(tokens.input_ids[rows, :width].astype(np.int64)).to(device)
        length = torch.from_numpy(tokens.length[rows].astype(np.int64)).to(device)
        yield ids, torch.arange(width, device=device) < length[:, None]
        start += len(rows)


def by_length(tokens: Tokens, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chosen reviews in the order of ``batches``: short ones first."""
    return chosen[np.argsort(tokens.length[chosen], kind="stable")]


def _rows_from(tokens: Tokens, ordered: NDArray[np.int64], start: int) -> int:
    """Reviews of the batch that begins at ``start``: as many as fit when each is as long as the last of them."""
    longest = int(tokens.length[ordered[min(start + TOKENS_PER_BATCH // WIDTH_STEP, len(ordered)) - 1]])
    return max(1, TOKENS_PER_BATCH // max(WIDTH_STEP, longest))

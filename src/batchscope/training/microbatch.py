"""The micro-batch: its examples on the device, and one forward and backward pass over them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import Tokens


class MicroBatch(NamedTuple):
    """``input_ids`` int ``[b, L]``, ``attention_mask`` bool ``[b, L]``, ``label`` int64 ``[b]``; ``scale`` is the
    factor of the micro-batch's summed loss in the loss of its window."""

    input_ids: Tensor
    attention_mask: Tensor
    label: Tensor
    scale: float | Tensor


class WindowSums(NamedTuple):
    """Sums over a window's examples, as scalars on the device; the caller decides when to read them."""

    loss: Tensor
    correct: Tensor


class DeviceTokens:
    """All tokens of one split on the device: a micro-batch is an index_select, without a data loader.

    If they would take more than a tenth of the GPU's free memory, they stay in page-locked memory of the host, and
    each micro-batch is copied while the GPU computes the one before. ``home`` is where they are.
    """

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self.device = device
        ids = torch.from_numpy(tokens.input_ids.astype("int32"))
        label = torch.from_numpy(tokens.label.astype("int64"))
        mask = torch.arange(ids.shape[1]) < torch.from_numpy(tokens.length.astype("int64")).unsqueeze(1)
        columns = (ids, mask, label)
        size = sum(column.element_size() * column.numel() for column in columns)
        fits = device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // 10
        self.home = device if fits else torch.device("cpu")
        self.columns = tuple(column.to(device) if fits else column.pin_memory() for column in columns)

    def order(self, rows: NDArray[np.int64]) -> Tensor:
        """Rows in the order of an epoch, int64 ``[N]``, where the tokens are."""
        return torch.from_numpy(rows).to(self.home)

    def micro_batch(self, rows: Tensor, scale: float) -> MicroBatch:
        """The examples ``rows`` (int64 ``[b]``, at ``home``), on the device."""
        ids, mask, label = (column.index_select(0, rows) for column in self.columns)
        if self.home != self.device:
            ids, mask, label = (c.pin_memory().to(self.device, non_blocking=True) for c in (ids, mask, label))
        return MicroBatch(ids, mask, label, scale)


def micro_step(
    model: nn.Module,
    batch: MicroBatch,
    autocast: AbstractContextManager[object],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> WindowSums:
    """Add the gradient of one micro-batch's scaled summed cross entropy to every ``.grad``; returns its sums."""
    with autocast:
        logits = model(batch.input_ids, batch.attention_mask)
    loss = cross_entropy(logits, batch.label, reduction="sum")
    backward(loss * batch.scale)
    return WindowSums(loss.detach(), (logits.detach().argmax(1) == batch.label).sum())

"""Several processes on one run: each computes its share of a window's micro-batches, and the gradients are summed.

torchrun starts them (``gpus: N``). The sum over the ranks of Σ scale · ∇loss is the window's gradient, as on one rank,
because the scale of a micro-batch depends on the window, not on the rank. All ranks then compute the same update.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


class Ranks:
    """The processes of this run; a single one needs no process group."""

    def __init__(self, device: torch.device) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, pieces: Sequence[T]) -> Sequence[T]:
        """This rank's part of a window's micro-batches."""
        return pieces[self.rank :: self.size]

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum every parameter's gradient over the ranks; a rank without a micro-batch adds zeros."""
        if self.size == 1:
            return
        gradients = []
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        summed_pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, summed in zip(gradients, summed_pieces, strict=True):
            gradient.copy_(summed.view_as(gradient))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the ranks."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def same(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

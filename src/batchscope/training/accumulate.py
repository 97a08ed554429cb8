"""Gradient accumulation: the gradient of a window, one micro-batch at a time."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from batchscope.data.tokens import Tokens

Observer = Callable[[int, "MicroBatch"], None]
"""Sees each micro-batch of a window, with its position from 0, once its gradient has been added."""


class MicroBatch(NamedTuple):
    """``input_ids`` int ``[b, L]``, ``attention_mask`` bool ``[b, L]``, ``label`` int64 ``[b]``; ``scale`` is the
    factor of the micro-batch's summed loss in the loss of its window."""

    input_ids: Tensor
    attention_mask: Tensor
    label: Tensor
    scale: float


class WindowSums(NamedTuple):
    """Sums over a window's examples, as scalars on the device: reading them is left to the caller."""

    loss: Tensor
    correct: Tensor


class DeviceTokens:
    """One split's tokens, whole on the device: a micro-batch is an index_select, no loader stands between."""

    def __init__(self, tokens: Tokens, device: torch.device) -> None:
        self.input_ids = torch.from_numpy(tokens.input_ids.astype("int32")).to(device)
        self.label = torch.from_numpy(tokens.label.astype("int64")).to(device)
        length = torch.from_numpy(tokens.length.astype("int64")).to(device)
        self.attention_mask = torch.arange(self.input_ids.shape[1], device=device) < length.unsqueeze(1)

    def micro_batch(self, rows: Tensor, scale: float) -> MicroBatch:
        """The examples ``rows`` (int64 ``[b]``, on the device)."""
        return MicroBatch(self.input_ids[rows], self.attention_mask[rows], self.label[rows], scale)


def accumulate_window(
    model: nn.Module,
    micro_batches: Iterable[MicroBatch],
    autocast: AbstractContextManager[object],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    backward: Callable[[Tensor], None] = Tensor.backward,
    observe: Observer | None = None,
) -> WindowSums:
    """Add the window's gradient to every parameter's ``.grad``; no optimizer step.

    The gradient is Σ scale · ∇(summed cross entropy): with scale = 1 / (examples of the window) it is that of the
    window as one batch, however it is cut. ``autocast`` must be reusable; ``around`` and ``backward`` are where
    another engine takes part in each micro-batch.
    """
    losses, hits = [], []
    for position, batch in enumerate(micro_batches):
        with around():
            with autocast:
                logits = model(batch.input_ids, batch.attention_mask)
            loss = cross_entropy(logits, batch.label, reduction="sum")
            backward(loss * batch.scale)
        if observe is not None:
            observe(position, batch)
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == batch.label).sum())
    if not losses:  # a rank may have no part in a window
        zero = torch.zeros((), device=next(model.parameters()).device)
        return WindowSums(zero, zero.long())
    return WindowSums(torch.stack(losses).sum(), torch.stack(hits).sum())


class ManualEngine:
    """Accumulation by hand: PyTorch's own, nothing else."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, observe: Observer | None = None) -> None:
        self.model, self.optimizer, self.observe = model, optimizer, observe

    def accumulate(self, micro_batches: Sequence[MicroBatch], autocast: AbstractContextManager[object]) -> WindowSums:
        """See ``accumulate_window``."""
        return accumulate_window(self.model, micro_batches, autocast, observe=self.observe)


class AccelerateEngine:
    """Accumulation by Hugging Face Accelerate's ``accumulate()``, bit for bit the manual engine's gradients.

    Accelerate divides each loss by its number of accumulation steps, whatever the window holds. Here that number is
    set to the window's own micro-batches, and the backward pass starts from it instead of from one: the division
    cancels exactly, where multiplying the loss beforehand would round.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, observe: Observer | None = None) -> None:
        from accelerate import Accelerator

        on_cpu = next(model.parameters()).device.type == "cpu"
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.observe = observe

    def accumulate(self, micro_batches: Sequence[MicroBatch], autocast: AbstractContextManager[object]) -> WindowSums:
        """See ``accumulate_window``; afterwards Accelerate lets its optimizer step."""
        accelerator, steps = self.accelerator, len(micro_batches)
        accelerator.gradient_accumulation_steps = steps
        accelerator.step = 0

        def backward(loss: Tensor) -> None:
            accelerator.backward(loss, gradient=torch.full_like(loss, steps))

        return accumulate_window(
            self.model, micro_batches, autocast, lambda: accelerator.accumulate(self.model), backward, self.observe
        )


ENGINES: dict[str, type[ManualEngine] | type[AccelerateEngine]] = {
    "manual": ManualEngine,
    "accelerate": AccelerateEngine,
}

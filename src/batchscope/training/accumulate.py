"""Gradient accumulation: the gradient of a window, one micro-batch at a time."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from batchscope.training.cuda_graph import GraphedMicroStep, graph_if_faster
from batchscope.training.microbatch import MicroBatch, WindowSums, micro_step
from batchscope.training.records import MicroStepKind, Trial

Observer = Callable[[int, MicroBatch], None]
"""Called with each micro-batch of a window and its position from 0, after its gradient was added."""


def accumulate_window(
    model: nn.Module,
    micro_batches: Iterable[MicroBatch],
    step: Callable[[MicroBatch], WindowSums],
    observe: Observer | None = None,
) -> WindowSums:
    """Add the window's gradient to every parameter's ``.grad``; no optimizer step, no synchronisation.

    The gradient is Σ scale · ∇(summed cross entropy): with scale = 1 / (examples of the window) it is that of the
    window as one batch, whatever the micro-batches are. ``step`` computes one micro-batch.
    """
    device = next(model.parameters()).device
    loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for position, batch in enumerate(micro_batches):
        sums = step(batch)
        loss, correct = loss + sums.loss, correct + sums.correct
        if observe is not None:
            observe(position, batch)
    return WindowSums(loss, correct)


class ManualEngine:
    """Accumulation with PyTorch alone. On CUDA a micro-batch may be the replay of a graph."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, observe: Observer | None = None) -> None:
        self.model, self.optimizer, self.observe = model, optimizer, observe
        self.graph: GraphedMicroStep | None = None

    def prepare(self, batch: MicroBatch, autocast: AbstractContextManager[object], kind: MicroStepKind | None) -> Trial:
        """Choose how micro-batches of this shape are computed: as ``kind``, or by a trial the faster one if it is None.

        Returns what was measured; leaves no gradient behind.
        """
        self.graph = None
        found: Trial = {"micro_step": "eager"}
        if kind != "eager" and batch.label.is_cuda:
            self.graph, found = graph_if_faster(self.model, batch, autocast, must=kind == "cuda_graph")
        self.zero_grad()
        return found

    def accumulate(self, micro_batches: Sequence[MicroBatch], autocast: AbstractContextManager[object]) -> WindowSums:
        """See ``accumulate_window``."""

        def step(batch: MicroBatch) -> WindowSums:
            if self.graph is not None and self.graph.fits(batch):
                return self.graph(batch)
            return micro_step(self.model, batch, autocast)

        return accumulate_window(self.model, micro_batches, step, self.observe)

    def zero_grad(self) -> None:
        """Clear the gradients before the next window; in place where a graph writes into them."""
        self.optimizer.zero_grad(set_to_none=self.graph is None)


class AccelerateEngine:
    """Accumulation by Hugging Face Accelerate's ``accumulate()``, with the gradients of the manual engine bit for bit.

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

    def prepare(self, batch: MicroBatch, autocast: AbstractContextManager[object], kind: MicroStepKind | None) -> Trial:
        """There is no choice: Accelerate's backward pass is not captured in a graph."""
        return {"micro_step": "eager"}

    def accumulate(self, micro_batches: Sequence[MicroBatch], autocast: AbstractContextManager[object]) -> WindowSums:
        """See ``accumulate_window``; afterwards Accelerate's optimizer may step."""
        accelerator, steps = self.accelerator, len(micro_batches)
        accelerator.gradient_accumulation_steps = steps
        accelerator.step = 0

        def backward(loss: Tensor) -> None:
            accelerator.backward(loss, gradient=torch.full_like(loss, steps))

        def step(batch: MicroBatch) -> WindowSums:
            with accelerator.accumulate(self.model):
                return micro_step(self.model, batch, autocast, backward)

        return accumulate_window(self.model, micro_batches, step, self.observe)

    def zero_grad(self) -> None:
        """Clear the gradients before the next window."""
        self.optimizer.zero_grad()


ENGINES: dict[str, type[ManualEngine] | type[AccelerateEngine]] = {
    "manual": ManualEngine,
    "accelerate": AccelerateEngine,
}

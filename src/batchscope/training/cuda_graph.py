"""A micro-batch as a CUDA graph: hundreds of kernels in one launch.

At a micro-batch of 16 a GPU finishes a kernel before Python has started the next one. A graph is recorded once and
replayed with other tokens in the same memory. Before it is used, its speed is measured and its gradient compared.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from batchscope.training.gradients import compare, flat_gradient
from batchscope.training.microbatch import MicroBatch, WindowSums, micro_step
from batchscope.training.records import Trial

log = logging.getLogger(__name__)
WARM_UP = 3
TIMED = 10
LARGEST_DIFFERENCE = 1e-2
"""Largest relative difference ‖a−b‖ / ‖b‖ of the graph's gradient a from the eager b; bfloat16 rounds to 2e-3."""


class StaticMicroStep:
    """``micro_step`` on tensors and gradients that keep their place in memory."""

    def __init__(self, model: nn.Module, batch: MicroBatch, autocast: AbstractContextManager[object]) -> None:
        self.model, self.autocast = model, autocast
        columns = (batch.input_ids.clone(), batch.attention_mask.clone(), batch.label.clone())
        # In float64, as Python multiplies with it: 1/n rounded to float32 would be off by up to 6e-8.
        scale = torch.tensor(float(batch.scale), dtype=torch.float64, device=batch.label.device)
        self.place = MicroBatch(*columns, scale)

    def fits(self, batch: MicroBatch) -> bool:
        """Whether the micro-batch has the shape that this step was made for."""
        return batch.input_ids.shape == self.place.input_ids.shape

    def __call__(self, batch: MicroBatch) -> WindowSums:
        """See ``micro_step``; the sums are overwritten by the next call."""
        for target, source in zip(self.place[:3], batch[:3], strict=True):
            target.copy_(source)
        assert isinstance(self.place.scale, torch.Tensor)
        self.place.scale.fill_(batch.scale)
        return self.run()

    def run(self) -> WindowSums:
        """One step on the tensors in place."""
        return micro_step(self.model, self.place, self.autocast)


class GraphedMicroStep(StaticMicroStep):
    """``StaticMicroStep``, recorded. RuntimeError if the forward pass synchronises with the device."""

    def __init__(self, model: nn.Module, batch: MicroBatch, autocast: AbstractContextManager[object]) -> None:
        super().__init__(model, batch, autocast)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):  # allocates every gradient, and lets libraries choose their kernels
                super().run()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.sums = super().run()

    def run(self) -> WindowSums:
        """Replay the graph on the tensors in place."""
        self.graph.replay()
        return self.sums


def graph_if_faster(
    model: nn.Module, batch: MicroBatch, autocast: AbstractContextManager[object], must: bool = False
) -> tuple[GraphedMicroStep | None, Trial]:
    """A graph for micro-batches of this shape if it is faster than the eager step and has its gradient, and the trial.

    With ``must``, a slower graph is used too. Leaves gradients behind. Runs out of memory only where the eager step
    does."""

    def eager(batch: MicroBatch) -> WindowSums:
        return micro_step(model, batch, autocast)

    seconds = {"eager": _seconds(eager, batch)}
    expected = _gradient(model, eager, batch)
    try:
        graph = GraphedMicroStep(model, batch, autocast)
        found = _gradient(model, graph, batch)
    except RuntimeError as error:
        log.info(f"no CUDA graph for this model: {str(error).splitlines()[0]}")
        model.zero_grad()
        torch.cuda.empty_cache()
        return None, {"micro_step": "eager", "micro_step_seconds": seconds}
    seconds["cuda_graph"] = _seconds(graph, batch)
    difference = compare(found, expected)["relative_l2"]
    if difference is None or difference > LARGEST_DIFFERENCE:
        log.warning(f"the CUDA graph's gradient differs from the eager one by {difference}; continuing without it")
        return None, {"micro_step": "eager", "micro_step_seconds": seconds}
    if seconds["cuda_graph"] < seconds["eager"] or must:
        return graph, {"micro_step": "cuda_graph", "micro_step_seconds": seconds}
    return None, {"micro_step": "eager", "micro_step_seconds": seconds}


def _gradient(model: nn.Module, step: Callable[[MicroBatch], WindowSums], batch: MicroBatch) -> torch.Tensor:
    """The gradient of one step with a fixed dropout seed; its tensors keep their place in memory."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    torch.manual_seed(0)
    step(batch)
    return flat_gradient(model)


def _seconds(step: Callable[[MicroBatch], WindowSums], batch: MicroBatch) -> float:
    """Seconds per step: the mean of several in a row after a first one."""
    step(batch)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(TIMED):
        step(batch)
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / TIMED

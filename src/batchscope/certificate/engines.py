"""Our own engines in one precision: every window, micro-batch by micro-batch, against the window as one batch.

What is measured is what trains: on a CPU with the kernels of ``model/cpu_kernels``, on CUDA eagerly and as the CUDA
graph of a micro-batch. The window as one batch is computed by transformers and PyTorch alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from batchscope.certificate.measures import window_measures
from batchscope.certificate.records import EngineRow, WindowMeasures
from batchscope.certificate.verdict import TOLERANCES, engine_verdict
from batchscope.data.tokens import Tokens
from batchscope.hardware.device import autocast
from batchscope.model.classifier import TextClassifier
from batchscope.model.cpu_kernels import ATTENTION, use_cpu_kernels
from batchscope.training.accumulate import ENGINES, AccelerateEngine, ManualEngine
from batchscope.training.gradients import compare, flat_gradient
from batchscope.training.microbatch import DeviceTokens, MicroBatch
from batchscope.training.windows import Window, loss_scale, micro_batches

GRAPH = "CUDA graph"
ROOM_ABOVE_FLOOR = 100
"""A window's rounding differs from another order's by this factor at most, for a correct engine in float64."""


class Plan(NamedTuple):
    """The windows to measure, the size of their micro-batches, and how many of these make a full window."""

    windows: dict[str, Window]
    micro_batch: int
    steps: int


class Bench:
    """A model in one precision on its device, and the examples to measure it with."""

    def __init__(self, model: TextClassifier, tokens: Tokens, precision: str, device: torch.device) -> None:
        self.dtype: torch.dtype = getattr(torch, precision)
        self.model = model.to(device, torch.float64 if self.dtype == torch.float64 else torch.float32)
        self.data = DeviceTokens(tokens, device)
        self.order = torch.arange(len(tokens), device=self.data.home)
        self.device, self.precision = device, precision
        implementation = model.config._attn_implementation
        self.plain = "sdpa" if implementation == ATTENTION else implementation

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, as in training."""
        return autocast(self.device, self.dtype)

    def use_training_kernels(self) -> None:
        """Compute as a training on this device does."""
        if self.device.type == "cpu":
            use_cpu_kernels(self.model.encoder)

    def full_batch(self, rows: Tensor, factor: float = 1.0) -> tuple[Tensor, float]:
        """Gradient and mean loss of the rows as one batch, by transformers and PyTorch alone.

        ``factor`` multiplies the loss and divides its gradient again: another rounding of the same numbers. Raises
        ArithmeticError for a gradient that is not finite.
        """
        if self.model.config._attn_implementation != self.plain:
            self.model.encoder.set_attn_implementation(self.plain)
        batch = self.data.micro_batch(rows, 1.0)
        with self.autocast():
            logits = self.model(batch.input_ids, batch.attention_mask)
        loss = cross_entropy(logits, batch.label)
        torch.autograd.backward(loss * factor)
        gradient = flat_gradient(self.model) / factor
        self.model.zero_grad()
        if not gradient.isfinite().all():
            raise ArithmeticError("its gradient is not finite")
        return gradient, float(loss.detach())

    def pieces(self, window: Window, plan: Plan) -> list[MicroBatch]:
        """The window's micro-batches, scaled as those of a training."""
        target = plan.steps * plan.micro_batch
        return [
            self.data.micro_batch(
                self.order[start:stop], loss_scale(window, stop - start, target, "exact", plan.micro_batch)
            )
            for start, stop in micro_batches(window, plan.micro_batch)
        ]

    def engines(self, batch: MicroBatch) -> Iterator[tuple[str, ManualEngine | AccelerateEngine]]:
        """Every engine that may train here, ready for micro-batches like ``batch``; one at a time."""
        for name, kind in ENGINES.items():
            engine = kind(self.model, torch.optim.SGD(self.model.parameters(), lr=0.0))
            engine.prepare(batch, self.autocast(), "eager")
            yield name, engine
        if self.device.type == "cuda":
            graphed = ManualEngine(self.model, torch.optim.SGD(self.model.parameters(), lr=0.0))
            if graphed.prepare(batch, self.autocast(), "cuda_graph")["micro_step"] == "cuda_graph":
                yield GRAPH, graphed


def certify_engines(bench: Bench, plan: Plan, tolerance: float) -> list[EngineRow]:
    """Measure every window with every engine: one row per engine."""
    found: dict[str, dict[str, WindowMeasures]] = {}
    for window_name, window in plan.windows.items():
        expected, true_loss = bench.full_batch(bench.order[window.start : window.stop])
        bench.use_training_kernels()
        pieces = bench.pieces(window, plan)
        manual: Tensor | None = None
        for name, engine in bench.engines(pieces[0]):
            sums = engine.accumulate(pieces, bench.autocast())
            gradient = flat_gradient(bench.model)
            measures = window_measures(gradient, expected, float(sums.loss) / window.examples, true_loss)
            if name == "manual":
                manual = gradient
            elif name == "accelerate" and manual is not None:
                measures["bitwise_equal"] = torch.equal(gradient, manual)
            found.setdefault(name, {})[window_name] = measures
            bench.model.zero_grad()
    rows: list[EngineRow] = []
    for name, windows in found.items():
        passed, words = engine_verdict(windows, tolerance, must_be_bitwise=bench.device.type == "cpu")
        rows.append(
            {"engine": name, "precision": bench.precision, "windows": windows, "passed": passed, "verdict": words}
        )
    return rows


def float64_floor(bench: Bench, window: Window) -> float:
    """Rounding of the model's own float64: the largest difference between gradients of one batch, computed twice.

    The second time the examples come in reverse order and the loss is three times as large. In pure float64 the
    difference is some 1e-16 of the largest element. Encoders that compute norms or softmax in float32 even if their
    weights are float64 reach 1e-7, and no engine can be nearer to the full batch than that.
    """
    rows = bench.order[window.start : window.stop]
    expected, _ = bench.full_batch(rows)
    again, _ = bench.full_batch(rows.flip(0), factor=3.0)
    return compare(again, expected)["largest_difference"] or 0.0


def float64_tolerance(floor: float) -> float:
    """Tolerance of float64 for a model with this floor: never above float32's, which no wrong scale passes."""
    return min(max(TOLERANCES["float64"], ROOM_ABOVE_FLOOR * floor), TOLERANCES["float32"])

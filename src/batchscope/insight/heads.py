"""The attention of every head, layer by layer, over batches of padded reviews: sums that give measures.

Only the layer at work is in memory. Padding and the keys outside a sliding layer's window count nowhere.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.insight.key_classes import KEY_CLASSES
from batchscope.insight.records import HeadMeasures
from batchscope.model.classifier import TextClassifier

EPSILONS = (0.1, 0.2, 0.3, 0.4, 0.5)
SINK_EPSILON = 0.3
Use = Callable[[int, Tensor], None]


@contextmanager
def every_layer(model: TextClassifier, use: Use) -> Iterator[None]:
    """Call ``use(layer, weights)`` with each layer's weights ``[B, H, L, L]`` while the context lasts.

    The weights are taken out of what an attention module returns, so that a layer's are freed before the next one's are
    computed. Encoders whose modules return something else give all layers of the batch at its end.
    """
    layers = 0

    def is_map(weights: Any) -> bool:
        return isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]

    def take(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        nonlocal layers
        if not isinstance(output, tuple) or len(output) < 2 or not is_map(output[1]):
            return None
        use(layers, output[1])
        layers += 1
        return (output[0], None, *output[2:])

    def take_all(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        nonlocal layers
        if not layers:
            for number, weights in enumerate(getattr(output, "attentions", None) or ()):
                use(number, weights)
        layers = 0

    config = model.encoder.config
    implementation, asked = config._attn_implementation, config.output_attentions
    model.encoder.set_attn_implementation("eager")
    config.output_attentions = True
    modules = [module for module in model.encoder.modules() if "Attention" in type(module).__name__]
    hooks = [module.register_forward_hook(take) for module in modules]
    hooks.append(model.encoder.register_forward_hook(take_all))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        config.output_attentions = asked
        model.encoder.set_attn_implementation(implementation)


class Batch:
    """What the measures need to know of B padded reviews of L positions, for layers with one window."""

    def __init__(self, mask: Tensor, classes: Tensor, window: int | None) -> None:
        """``mask``: bool ``[B, L]``, False on padding. ``classes``: int ``[B, L]``. ``window``: largest |i − j|."""
        length = mask.shape[1]
        place = torch.arange(length, device=mask.device)
        self.distance = (place[:, None] - place).abs().float()
        near = self.distance <= (length if window is None else window)
        self.allowed = mask[:, :, None] & mask[:, None, :] & near
        self.mask = mask.float()
        self.keys = self.allowed.sum(2).float()
        """Allowed keys of each query ``[B, L]``; 0 on padding."""
        self.queries = self.allowed.sum(1).float()
        """Queries that may see each key ``[B, L]``."""
        kinds = torch.arange(len(KEY_CLASSES), device=mask.device)
        self.kinds = ((classes[:, :, None] == kinds) & mask[:, :, None]).float()
        """``[B, L, K]``: 1 where a position is of a class."""
        counted = self.keys.clamp(min=1)
        self.log_keys = torch.where(self.keys > 1, self.keys.log(), torch.inf)
        """Of a query with one key it is infinite, so that its entropy counts as 0."""
        self.even_distance = (self.allowed * self.distance).sum(2) / counted
        self.even_kinds = (self.allowed.float() @ self.kinds) / counted[:, :, None]

    def inside(self, weights: Tensor) -> Tensor:
        """The weights ``[B, H, L, L]``, 0 where a query is padding or a key is not allowed, whatever is there."""
        return torch.where(self.allowed[:, None], weights, 0.0)

    def received(self, inside: Tensor) -> Tensor:
        """Mean attention to each key ``[B, H, L]`` from the queries that may see it, of what ``inside`` gives."""
        return (self.mask[:, None, None] @ inside)[:, :, 0] / self.queries.clamp(min=1)[:, None]


class HeadSums:
    """Sums over the queries of all reviews so far, for the heads of one layer."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.queries = self.several = self.reviews = 0.0
        self.totals: dict[str, NDArray[np.float64]] = {}
        """Measure → sum per head ``[H]`` or ``[H, …]``."""
        self.even: dict[str, NDArray[np.float64]] = {}
        """The same for uniform attention to the allowed keys, which is equal for all heads."""

    def add(self, weights: Tensor, batch: Batch) -> None:
        """Count one batch, weights ``[B, H, L, L]``."""
        mask = batch.mask[:, None]
        inside = batch.inside(weights)
        entropy = torch.special.entr(inside).sum(3) / batch.log_keys[:, None]
        received = batch.received(inside)
        largest, kinds = inside.amax(3) * batch.keys[:, None], inside @ batch.kinds[:, None]
        over = torch.stack([received > epsilon for epsilon in EPSILONS], 3)
        sinks = (received > SINK_EPSILON).float()
        self._sum("entropy", (entropy * mask).sum((0, 2)))
        self._sum("distance", ((inside * batch.distance).sum(3) * mask).sum((0, 2)))
        self._sum("largest", (largest * mask).sum((0, 2)))
        self._sum("kinds", (kinds * mask[..., None]).sum((0, 2)))
        self._sum("sinks", over.any(2).float().sum(0))
        self._sum("sink_kinds", (sinks[:, :, None] @ batch.kinds[:, None])[:, :, 0].sum(0))
        self._sum("distance", (batch.even_distance * batch.mask).sum(), self.even)
        self._sum("kinds", (batch.even_kinds * batch.mask[..., None]).sum((0, 1)), self.even)
        self.queries += float(batch.mask.sum())
        self.several += float(((batch.keys > 1) & (batch.mask > 0)).sum())
        self.reviews += len(weights)

    def _sum(self, name: str, value: Tensor, where: dict[str, NDArray[np.float64]] | None = None) -> None:
        totals = self.totals if where is None else where
        totals[name] = totals.get(name, 0.0) + value.float().cpu().numpy().astype(np.float64)

    def measures(self, layer: int) -> list[HeadMeasures]:
        """One record per head."""
        t = self.totals
        lifts = t["kinds"] / np.where(self.even["kinds"] > 0, self.even["kinds"], np.nan)
        found: list[HeadMeasures] = []
        for head in range(len(t["entropy"])):
            sinks = float(t["sink_kinds"][head].sum())
            found.append(
                {
                    "layer": layer,
                    "head": head,
                    "window": self.window,
                    "entropy": float(t["entropy"][head] / max(1.0, self.several)),
                    "distance": float(t["distance"][head] / self.queries),
                    "even_distance": float(self.even["distance"] / self.queries),
                    "largest_lift": float(t["largest"][head] / self.queries),
                    "mass": _by_class(t["kinds"][head] / self.queries),
                    "lift": _by_class(lifts[head]),
                    "sink_rates": {f"{e}": float(t["sinks"][head][n] / self.reviews) for n, e in enumerate(EPSILONS)},
                    "sink_classes": _by_class(t["sink_kinds"][head] / sinks) if sinks else None,
                }
            )
        return found


class RolloutSums:
    """Rollout of the reviews so far, pooled as the model pools, by class of the input token."""

    def __init__(self) -> None:
        self.kinds = np.zeros(len(KEY_CLASSES))
        self.even = np.zeros(len(KEY_CLASSES))
        self.reached: Tensor | None = None

    def step(self, weights: Tensor) -> None:
        """One layer's weights ``[B, H, L, L]``, from the first to the last."""
        same = torch.eye(weights.shape[2], device=weights.device)
        mixed = (weights.mean(1) + same) / 2
        self.reached = mixed if self.reached is None else mixed @ self.reached

    def end(self, batch: Batch) -> None:
        """The batch is through its last layer; ``batch`` is that of a global layer."""
        assert self.reached is not None
        share = batch.mask / batch.mask.sum(1, keepdim=True)
        pooled = (share[:, None] @ self.reached @ batch.kinds)[:, 0]
        self.kinds += pooled.sum(0).cpu().numpy()
        self.even += (share[:, None] @ batch.kinds)[:, 0].sum(0).cpu().numpy()
        self.reached = None

    def lift(self) -> dict[str, float | None]:
        """Class → mass over that of uniform attention."""
        return _by_class(self.kinds / np.where(self.even > 0, self.even, np.nan))


def _by_class(values: NDArray[np.float64]) -> dict[str, float | None]:
    """None where there is no token of the class."""
    pairs = zip(KEY_CLASSES, values, strict=True)
    return {name: None if np.isnan(value) else float(value) for name, value in pairs}

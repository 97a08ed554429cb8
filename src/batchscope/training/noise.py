"""The gradient noise scale, from the micro-batches of each window (McCandlish et al. 2018, arXiv 1812.06162).

G is the gradient over all data, S the trace of the covariance of one example's gradient: one example is that noisy
a sample of G, dropout's masks included. The mean gradient of any b independent examples has

    E‖g‖² = |G|² + S/b

so two squared norms, of a smaller and of a larger mean, give both unknowns without bias (appendix A.1 there):

    |G|²̂ = (B‖g_B‖² − b‖g_b‖²) / (B − b)        Ŝ = (‖g_b‖² − ‖g_B‖²) / (1/b − 1/B)

The larger mean is that of the window: B = n examples, its norm is the update's. The smaller one:

``cheap``  the first micro-batch, b = b_1. One more norm per update and no memory, but one draw only.
``full``   all K micro-batches, weighted by their sizes: m = Σ b_k‖g_k‖²/n. Its expectation is |G|² + S·K/n, as if of
           their average size b = n/K, so that

               |G|²̂ = (K‖ḡ‖² − m) / (K − 1)        Ŝ = n/(K − 1) · (m − ‖ḡ‖²) = Σ b_k‖g_k − ḡ‖² / (K − 1)

           whether or not they are equal: Ŝ is the mean square between groups of an analysis of variance, of all
           weightings the one with the least variance for Gaussian gradients. ``.grad`` holds the running sum, so each
           g_k is a difference, and one spare gradient buffer is all it needs.

Both are noisy, and |G|²̂ may be negative: average each over many updates first, then divide. B_simple = S/|G|².
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from batchscope.training.microbatch import MicroBatch


class NoiseColumns(TypedDict):
    """An update's columns in the history; None where the window cannot give an estimate."""

    gradient_square: float | None
    noise_trace: float | None


class NoiseEstimate(NamedTuple):
    """Unbiased estimates of |G|² and of S; either may be negative."""

    gradient_square: float
    noise_trace: float


def estimate_noise(small_square: float, small: float, large_square: float, large: float) -> NoiseEstimate:
    """|G|² and S from two squared norms whose expectations are |G|² + S/small and |G|² + S/large; small < large."""
    assert small < large
    return NoiseEstimate(
        gradient_square=(large * large_square - small * small_square) / (large - small),
        noise_trace=(small_square - large_square) / (1 / small - 1 / large),
    )


class WindowNorms(NamedTuple):
    """What a gauge measured of one window: sizes and weights of its K micro-batches, and on the device the norms of the
    first k of them, ``[k]``."""

    sizes: list[int]
    weights: list[float]
    norms: Tensor


class NoiseGauge:
    """Measures the norms of a window's partial gradients while they accumulate; changes nothing.

    Call ``observe`` after each micro-batch's backward pass and ``close`` after the window. All norms stay on the
    device until the caller reads them and passes them to ``noise_columns``.
    """

    def __init__(self, model: nn.Module, kind: Literal["cheap", "full"]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.kind = kind
        self._spare: list[Tensor] = []
        self._sizes: list[int] = []
        self._weights: list[float] = []
        self._norms: list[Tensor] = []

    def observe(self, position: int, batch: MicroBatch) -> None:
        """Measure micro-batch ``position`` of its window; position 0 always starts a new window."""
        if position == 0:
            self._sizes, self._weights, self._norms = [], [], []
        self._sizes.append(len(batch.label))
        self._weights.append(float(batch.scale) * len(batch.label))
        if self.kind == "cheap" and position > 0:
            return
        total = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if position == 0:
            self._norms.append(_norm(total))
        else:
            torch._foreach_sub_(self._spare, total)
            self._norms.append(_norm(self._spare))
        if self.kind == "full":
            self._spare = self._spare or [torch.empty_like(gradient) for gradient in total]
            torch._foreach_copy_(self._spare, total)

    def close(self) -> WindowNorms:
        """End the window; returns what was measured of it."""
        norms = torch.stack(self._norms) if self._norms else torch.empty(0, device=self.parameters[0].device)
        seen = WindowNorms(self._sizes, self._weights, norms)
        self._sizes, self._weights, self._norms = [], [], []
        return seen


def noise_columns(
    seen: WindowNorms, norms: list[float], grad_norm: float, over_ranks: Callable[[Tensor], Tensor] | None = None
) -> NoiseColumns:
    """The update's fields in the history, ``gradient_square`` and ``noise_trace``, from ``seen`` with its norms as read
    and the norm of the window's whole gradient before clipping.

    None for a window of one micro-batch: it is one mean, and one equation does not give two unknowns. Where
    several processes share the window, ``over_ranks`` sums a tensor over them; all of them call this.
    """
    # .grad is Σ a_k·g_k. The exact loss has a_k = b_k/n; a naive division has not, and a tail's do not sum to 1.
    measured = list(zip(seen.weights, seen.sizes, norms, strict=False))
    sums = [
        len(seen.sizes),
        sum(seen.weights),
        sum(weight**2 / size for weight, size in zip(seen.weights, seen.sizes, strict=True)),
        sum(weight for weight, _, _ in measured),
        sum(weight / size for weight, size, _ in measured),
        sum(norm**2 / weight for weight, _, norm in measured),
    ]
    if over_ranks is not None:
        sums = over_ranks(torch.tensor(sums, dtype=torch.float64, device=seen.norms.device)).tolist()
    count, whole, whole_noise, part, part_noise, part_square = sums
    small, large = part / part_noise, whole**2 / whole_noise
    if count < 2 or small >= large:
        return {"gradient_square": None, "noise_trace": None}
    estimate = estimate_noise(part_square / part, small, (grad_norm / whole) ** 2, large)
    return {"gradient_square": estimate.gradient_square, "noise_trace": estimate.noise_trace}


def noise_gauge(model: nn.Module, kind: Literal["cheap", "full"] | None) -> NoiseGauge | None:
    """The gauge for a training spec's ``noise_scale``; None if that is unset."""
    return None if kind is None else NoiseGauge(model, kind)


def _norm(tensors: list[Tensor]) -> Tensor:
    """Norm of all tensors together, a scalar on their device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm

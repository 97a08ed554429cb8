"""Learning rate and Adam's β and ε over target batch sizes, and schedules over updates. Pure, no torch."""

import math
from fractions import Fraction
from typing import Literal

Scaling = Literal["none", "sqrt", "linear"]
BetaScaling = Literal["none", "half_life", "malladi"]
ScheduleName = Literal["constant", "linear", "cosine"]


def scaled_learning_rate(
    base_lr: float, scaling: Scaling, target_batch_size: int, reference_batch_size: int | None
) -> float:
    """Learning rate at ``target_batch_size``, given ``base_lr`` at ``reference_batch_size``.

    ``sqrt`` is the learning-rate part of the rule for Adam of Malladi et al. 2022 (arXiv 2205.10287); ``scaled_betas``
    and ``scaled_eps`` are its other parts. ``linear`` is that of Goyal et al. 2017 (arXiv 1706.02677) for SGD.
    """
    if scaling == "none" or reference_batch_size is None:
        return base_lr
    ratio = target_batch_size / reference_batch_size
    return base_lr * (math.sqrt(ratio) if scaling == "sqrt" else ratio)


def scaled_betas(
    betas: tuple[float, float], scaling: BetaScaling, target_batch_size: int, reference_batch_size: int | None
) -> tuple[float, float]:
    """Adam's β₁ and β₂ at ``target_batch_size``, given ``betas`` at ``reference_batch_size``; κ is their ratio.

    ``malladi``: 1 − β becomes κ(1 − β) (Malladi et al. 2022, arXiv 2205.10287). Raises ValueError where that is 1 or
    more: no such β exists. ``half_life``: β becomes β^κ, which keeps the half-life of a moment constant in samples
    (Marek et al. 2025, arXiv 2507.07101, for β₂). The decimal digits of β are scaled exactly; κ = 1 changes no bit.
    """
    if scaling == "none" or reference_batch_size in (None, target_batch_size):
        return betas
    assert reference_batch_size is not None
    ratio = Fraction(target_batch_size, reference_batch_size)
    if scaling == "half_life":
        first, second = (beta ** float(ratio) for beta in betas)
        return first, second
    first, second = (1 - ratio * (1 - Fraction(repr(beta))) for beta in betas)
    for number, beta in (("₁", first), ("₂", second)):
        if beta <= 0:
            raise ValueError(f"κ(1 − β{number}) = {float(1 - beta):g} ≥ 1 for κ = {float(ratio):g}")
    return float(first), float(second)


def largest_batch_of_malladi(betas: tuple[float, float], reference_batch_size: int) -> int:
    """The largest target batch size at which ``scaled_betas`` with ``malladi`` exists: κ(1 − β) < 1, or κ = 1."""
    strictest = 1 - min(Fraction(repr(beta)) for beta in betas)
    return max(reference_batch_size, math.ceil(reference_batch_size / strictest) - 1)


def scaled_eps(eps: float, target_batch_size: int, reference_batch_size: int) -> float:
    """Adam's ε at ``target_batch_size``: ε/√κ (Malladi et al. 2022, arXiv 2205.10287)."""
    return eps / math.sqrt(target_batch_size / reference_batch_size)


def schedule_factor(name: ScheduleName, update: int, updates: int, warmup_updates: int = 0) -> float:
    """Multiplier of the learning rate for ``update`` (0-based) of ``updates``.

    The warm-up rises linearly and reaches 1 with the first update after it. ``linear`` and ``cosine`` then fall
    towards 0, which they would reach at update number ``updates``: no update is wasted on a rate of zero.
    """
    if update < warmup_updates:
        return (update + 1) / (warmup_updates + 1)
    if name == "constant":
        return 1.0
    progress = (update - warmup_updates) / (updates - warmup_updates)
    return 1.0 - progress if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

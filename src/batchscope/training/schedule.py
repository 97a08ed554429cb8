"""Learning-rate policies over target batch sizes, and schedules over updates. Pure, no torch."""

import math
from typing import Literal

Scaling = Literal["none", "sqrt", "linear"]
ScheduleName = Literal["constant", "linear", "cosine"]


def scaled_learning_rate(
    base_lr: float, scaling: Scaling, target_batch_size: int, reference_batch_size: int | None
) -> float:
    """Learning rate at ``target_batch_size``, given ``base_lr`` at ``reference_batch_size``.

    ``sqrt`` is the rule for Adam of Malladi et al. 2022 (arXiv 2205.10287), its learning-rate part alone;
    ``linear`` that of Goyal et al. 2017 (arXiv 1706.02677) for SGD.
    """
    if scaling == "none" or reference_batch_size is None:
        return base_lr
    ratio = target_batch_size / reference_batch_size
    return base_lr * (math.sqrt(ratio) if scaling == "sqrt" else ratio)


def schedule_factor(name: ScheduleName, update: int, updates: int, warmup_updates: int = 0) -> float:
    """Multiplier of the learning rate for ``update`` (0-based) of ``updates``.

    The warm-up rises linearly and reaches 1 with the first update after it. ``linear`` and ``cosine`` then fall
    towards 0, which they would reach at update number ``updates``: no update is wasted on a rate of zero.
    """
    if update < warmup_updates:
        return (update + 1) / (warmup_updates + 1)
    if name == "constant":
        return 1.0
    progress = (update - warmup_updates) / max(1, updates - warmup_updates)
    return 1.0 - progress if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

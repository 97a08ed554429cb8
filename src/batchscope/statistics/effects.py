"""What the contrasts of a study show over its seeds: which differences hold, which is the largest. Pure."""

import math
from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from typing import NamedTuple

from batchscope.statistics.paired import Contrast

LEVEL = 0.05
"""A test rejects below this corrected p."""


class Effect(NamedTuple):
    """Two target batch sizes of one model, LR policy and budget, over the seeds."""

    model: str
    lr_policy: str
    budget: str
    smaller_batch: int
    larger_batch: int
    seeds: int
    n: int
    """Number of test reviews; the seeds share them."""
    smaller_accuracy: float
    """Mean over seeds."""
    larger_accuracy: float
    """Mean over seeds."""
    difference_points: float
    """Mean over seeds of larger minus smaller batch size, in points."""
    difference_sd_points: float
    """Sample standard deviation of the difference over seeds; NaN for one seed."""
    smallest_difference_points: float
    largest_difference_points: float
    standard_error_points: float
    """Of one seed's difference of two independent binomials: mean over seeds."""
    paired_standard_error_points: float
    """Of one seed's paired difference: mean over seeds."""
    p: tuple[float, ...]
    """Exact McNemar p of every seed."""
    p_holm: tuple[float, ...]
    """The same after Holm's correction over the study."""
    established: bool
    """Whether every seed has the same sign and a corrected p below ``LEVEL``."""
    repeated: bool
    """Whether an earlier LR policy compares the same runs."""
    runs: tuple[str, ...]
    """Folders of all runs that it compares, below ``runs/``."""


class Findings(NamedTuple):
    """What the study's comparisons show. A comparison of the same runs under a second LR policy does not count."""

    effects: list[Effect]
    """The comparisons, in the order of the grid."""
    seeds: int
    tests: int
    """Tests in Holm's correction: comparisons times seeds."""
    significant_tests: int
    """Tests with a corrected p below ``LEVEL``."""
    largest: Effect
    """The comparison with the largest mean difference."""
    median_paired_standard_error: float
    """Of one seed's difference, in points."""

    @property
    def established(self) -> list[Effect]:
        """The comparisons in which every seed has the same sign and a corrected p below ``LEVEL``."""
        return [effect for effect in self.effects if effect.established]


def effects_over_seeds(contrasts: Iterable[Contrast]) -> list[Effect]:
    """One effect per model, policy, budget and pair of batch sizes, in order of appearance."""
    groups: dict[tuple[str, str, str, int, int], list[Contrast]] = {}
    for row in contrasts:
        key = row.model, row.lr_policy, row.budget, row.smaller_batch, row.larger_batch
        groups.setdefault(key, []).append(row)
    seen: set[frozenset[tuple[str, str]]] = set()
    effects = []
    for rows in groups.values():
        pairs = frozenset((row.smaller_run, row.larger_run) for row in rows)
        effects.append(_effect(rows, repeated=pairs in seen))
        seen.add(pairs)
    return effects


def find(contrasts: Sequence[Contrast]) -> Findings | None:
    """What the contrasts show; None if there are none."""
    if not contrasts:
        return None
    effects = [effect for effect in effects_over_seeds(contrasts) if not effect.repeated]
    tests = {(row.smaller_run, row.larger_run): row for row in contrasts}
    return Findings(
        effects=effects,
        seeds=max(effect.seeds for effect in effects),
        tests=len(tests),
        significant_tests=sum(row.mcnemar_p_holm < LEVEL for row in tests.values()),
        largest=max(effects, key=lambda effect: abs(effect.difference_points)),
        median_paired_standard_error=median(row.paired_standard_error_points for row in tests.values()),
    )


def _effect(rows: list[Contrast], repeated: bool) -> Effect:
    differences = [row.difference_points for row in rows]
    corrected = tuple(row.mcnemar_p_holm for row in rows)
    same_sign = all(value > 0 for value in differences) or all(value < 0 for value in differences)
    return Effect(
        model=rows[0].model,
        lr_policy=rows[0].lr_policy,
        budget=rows[0].budget,
        smaller_batch=rows[0].smaller_batch,
        larger_batch=rows[0].larger_batch,
        seeds=len(rows),
        n=rows[0].n,
        smaller_accuracy=mean(row.smaller_accuracy for row in rows),
        larger_accuracy=mean(row.larger_accuracy for row in rows),
        difference_points=mean(differences),
        difference_sd_points=stdev(differences) if len(rows) > 1 else math.nan,
        smallest_difference_points=min(differences),
        largest_difference_points=max(differences),
        standard_error_points=mean(row.standard_error_points for row in rows),
        paired_standard_error_points=mean(row.paired_standard_error_points for row in rows),
        p=tuple(row.mcnemar_p for row in rows),
        p_holm=corrected,
        established=same_sign and all(value < LEVEL for value in corrected),
        repeated=repeated,
        runs=tuple(run for row in rows for run in (row.smaller_run, row.larger_run)),
    )

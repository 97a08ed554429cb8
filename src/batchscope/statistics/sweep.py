"""Learning-rate sweeps: which rate validation chooses, how wide the good range is, and what n trials are worth. Pure.

Nothing here sees a test review.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from batchscope.report.spec import GridCell, Place, TablesSpec

S = TypeVar("S", bound=TablesSpec)
POINTS = 1.0
"""A learning rate is as good as the best if its validation accuracy is at most this many points lower."""


class Trial(NamedTuple):
    """One learning rate of a sweep at one cell, over all seeds."""

    model: str
    lr_policy: str
    budget: str
    target_batch_size: int
    learning_rate: float
    seeds: int
    correct: int
    """Correct validation reviews of each seed's best checkpoint, summed over the seeds."""
    examples: int
    runs: tuple[str, ...]
    """Folders of the runs below ``runs/``."""

    @property
    def accuracy(self) -> float:
        """Validation accuracy, mean over seeds."""
        return self.correct / self.examples

    @property
    def place(self) -> Place:
        """The cell of the grid that the trial is for."""
        return self.model, self.lr_policy, self.budget, self.target_batch_size


class Choice(NamedTuple):
    """What a sweep says of one model, policy, budget and target batch size."""

    model: str
    lr_policy: str
    budget: str
    target_batch_size: int
    trials: int
    seeds: int
    learning_rate: float
    """The rate with the most correct validation reviews; the smallest of several."""
    validation_accuracy: float
    edge: str
    """``lowest`` or ``highest`` where no rate is better than that at this edge of the sweep, so that a better one may
    lie beyond. Of equally good rates the smallest is chosen, so ``highest`` need not be the chosen one."""
    lowest_within: float
    """The good range: rates next to the chosen one whose accuracy is at most ``POINTS`` lower, without a gap."""
    highest_within: float
    width_ratio: float
    """``highest_within / lowest_within``. A range of one rate is 1: narrower than the sweep's steps."""
    open_ends: str
    """``lowest``, ``highest`` or ``lowest highest``: where the range reaches an edge of the sweep and may be wider."""


def trials(cells: Iterable[GridCell], validation: Mapping[str, tuple[int, int]]) -> list[Trial]:
    """Every learning rate of every sweep; ``validation`` maps a run to its correct and all validation reviews.

    The validation is that of the run's best checkpoint. Seeds are averaged by adding up their counts.
    """
    groups: dict[tuple[Place, float], list[GridCell]] = {}
    for cell in cells:
        if cell.candidate_of is not None:
            place = cell.model, cell.candidate_of, cell.budget, cell.batch
            groups.setdefault((place, cell.learning_rate), []).append(cell)
    return [
        Trial(
            *place,
            learning_rate=rate,
            seeds=len(members),
            correct=sum(validation[cell.run][0] for cell in members),
            examples=sum(validation[cell.run][1] for cell in members),
            runs=tuple(cell.run for cell in members),
        )
        for (place, rate), members in groups.items()
    ]


def choices(tried: Iterable[Trial]) -> list[Choice]:
    """The choice of validation for every cell of a sweep, in order of appearance."""
    groups: dict[Place, list[Trial]] = {}
    for trial in tried:
        groups.setdefault(trial.place, []).append(trial)
    return [_choice(sorted(group, key=lambda trial: trial.learning_rate)) for group in groups.values()]


def _choice(group: Sequence[Trial]) -> Choice:
    """The choice among trials in order of their rates."""
    best = max(range(len(group)), key=lambda number: (group[number].accuracy, -number))
    enough = [100 * (group[best].accuracy - trial.accuracy) <= POINTS + 1e-9 for trial in group]
    low = high = best
    while low > 0 and enough[low - 1]:
        low -= 1
    while high < len(group) - 1 and enough[high + 1]:
        high += 1
    last = len(group) - 1
    ends = [name for name, reached in (("lowest", low == 0), ("highest", high == last)) if reached]
    return Choice(
        *group[best].place,
        trials=len(group),
        seeds=group[best].seeds,
        learning_rate=group[best].learning_rate,
        validation_accuracy=group[best].accuracy,
        edge="lowest" if best == 0 else "highest" if group[last].accuracy == group[best].accuracy else "",
        lowest_within=group[low].learning_rate,
        highest_within=group[high].learning_rate,
        width_ratio=group[high].learning_rate / group[low].learning_rate,
        open_ends=" ".join(ends),
    )


def chosen_rates(made: Iterable[Choice]) -> dict[Place, float]:
    """Cell of a sweep → its learning rate, for ``chosen_grid``."""
    return {(one.model, one.lr_policy, one.budget, one.target_batch_size): one.learning_rate for one in made}


def chosen_grid(spec: S, rates: Mapping[Place, float]) -> S:
    """The grid without the candidates of sweeps: of each sweep the one with the rate that was chosen, by its name.

    A run counts as shared where an earlier cell of that grid reads it.
    """
    cells: list[GridCell] = []
    read: set[str] = set()
    for cell in spec.cells:
        name = cell.candidate_of
        if name is not None and rates[cell.model, name, cell.budget, cell.batch] != cell.learning_rate:
            continue
        named = {"policy": name or cell.policy, "candidate_of": None}
        cells.append(cell.model_copy(update={**named, "shared": cell.run in read}))
        read.add(cell.run)
    return spec.model_copy(update={"cells": tuple(cells)})


def expected_best(accuracies: Sequence[float]) -> list[float]:
    """Expected validation accuracy of the best of n trials, for n = 1 … N.

    E[max of n] = Σ over the sorted values vᵢ, i = 1 … N, of vᵢ · ((i/N)ⁿ − ((i−1)/N)ⁿ): n draws with replacement from
    the N values observed (Dodge et al. 2019, arXiv 1909.03004). It is biased downwards for n near N (Tang et al.
    2020, arXiv 2004.13705).
    """
    ordered, count = sorted(accuracies), len(accuracies)
    return [
        math.fsum(
            value * ((rank / count) ** draws - ((rank - 1) / count) ** draws) for rank, value in enumerate(ordered, 1)
        )
        for draws in range(1, count + 1)
    ]

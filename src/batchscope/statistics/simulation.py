"""Error rates of the inference on studies with known truth: the table in ``docs/methods.md``.

python -m batchscope.statistics.simulation --write      simulate anew and renew the table: some minutes
python -m batchscope.statistics.simulation              print it

A study has two LR policies × three batch sizes. Whether seed j of cell k is right on review i is decided by
m_k + a_kj + r_i + q_ki + e_kji > 0 with independent normal terms: seed, review, review × cell, and residual. A trained
model is deterministic on a review, and so is this. The truth is the mean over seeds and reviews, in closed form.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from batchscope.files import write_text
from batchscope.statistics.crossed import Estimate, moments, population, these_reviews

METHODS = Path(__file__).resolve().parents[3] / "docs" / "methods.md"
BEGIN, END = "<!-- simulated by `make methods` -->", "<!-- end of simulated -->"
SEEDS, REVIEWS, DRAWS = (2, 3, 5, 10), (500, 5000), 2000
MARGIN, LEVEL = 0.01, 0.05
AT_ONCE = 20_000_000
"""Decisions simulated together: bounds the memory."""
FAMILY = ((0, 1), (0, 2), (3, 4), (3, 5), (0, 3), (1, 4), (2, 5))
"""The default family of six cells: each batch size against the smallest per policy, the policies at each size."""
STEPS = (0, 1, 1, 1, 2, 2)
"""Accuracy of the six cells in margins above the first, so that every contrast of the family is one margin."""


class Mix(NamedTuple):
    """Standard deviations of the four terms, and the mean, which set the accuracy near 92%."""

    seed: float
    review: float
    review_by_cell: float
    residual: float
    mean: float = 3.2

    @property
    def sd(self) -> float:
        """SD of the sum of the terms."""
        return float(np.sqrt(self.seed**2 + self.review**2 + self.review_by_cell**2 + self.residual**2))

    def accuracy(self) -> float:
        """The accuracy of a cell with this mean."""
        return float(stats.norm.cdf(self.mean / self.sd))

    def mean_for(self, accuracy: float) -> float:
        """The mean of a cell with this accuracy."""
        return float(stats.norm.ppf(accuracy)) * self.sd


MIXES = {
    "residual": Mix(seed=0.3, review=2.0, review_by_cell=0.3, residual=1.0),
    "review × cell": Mix(seed=0.05, review=2.0, review_by_cell=0.8, residual=0.3),
    "seed": Mix(seed=0.8, review=2.0, review_by_cell=0.3, residual=1.0),
}
"""Which term dominates the scatter of a difference → the terms."""


def studies(
    mix: Mix, steps: NDArray[np.float64], seeds: int, reviews: int, draws: int, rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Batches of simulated studies ``[draws, K, J, N]``; ``steps`` ``[K]``: accuracies above the mix's."""
    cells = len(steps)
    means = np.array([mix.mean_for(mix.accuracy() + step) for step in steps], dtype=np.float32)[:, None, None]
    most = max(1, AT_ONCE // (cells * seeds * reviews))
    for start in range(0, draws, most):
        count = min(most, draws - start)
        normal = rng.standard_normal((count, cells, seeds, reviews), dtype=np.float32)
        normal *= mix.residual
        normal += mix.seed * rng.standard_normal((count, cells, seeds, 1), dtype=np.float32)
        normal += mix.review * rng.standard_normal((count, 1, 1, reviews), dtype=np.float32)
        normal += mix.review_by_cell * rng.standard_normal((count, cells, 1, reviews), dtype=np.float32)
        yield normal > -means


class Rates(NamedTuple):
    """What was found in simulated studies of one kind: shares."""

    coverage: float
    """Of the 95% interval for seeds and reviews like these."""
    coverage_over_seeds: float
    """Of a t interval over seeds alone, which takes the reviews as fixed: for comparison."""
    false_different: float
    """Studies without any difference in which a contrast is *different* after Holm."""
    false_equivalent: float
    """Studies whose contrasts all differ by the margin in which one is *equivalent* after Holm."""
    power: float
    """Contrasts that differ by the margin and whose p is below the level without a correction."""


def rates(mix: Mix, seeds: int, reviews: int, draws: int, seed: int = 1) -> Rates:
    """Simulate ``draws`` studies without a difference, and as many whose contrasts all differ by the margin.

    Holm rejects something in a family exactly if the smallest p is at most level/contrasts.
    """
    rng = np.random.default_rng([seed, seeds, reviews])
    strictest = LEVEL / len(FAMILY)
    covered = covered_over_seeds = different = equivalent = found = 0
    for correct in studies(mix, np.zeros(len(STEPS)), seeds, reviews, draws, rng):
        p = np.stack([population(moments(d)).p_value() for d in _differences(correct)])
        different += int((p.min(0) <= strictest).sum())
    for correct in studies(mix, MARGIN * np.array(STEPS), seeds, reviews, draws, rng):
        each = []
        for d in _differences(correct):
            m = moments(d)
            estimate, over_seeds = population(m), these_reviews(m)
            covered += _covering(estimate)
            covered_over_seeds += _covering(over_seeds)
            found += int((estimate.p_value() < LEVEL).sum())
            each.append(estimate.p_equivalence(MARGIN))
        equivalent += int((np.stack(each).min(0) <= strictest).sum())
    contrasts = draws * len(FAMILY)
    return Rates(
        covered / contrasts, covered_over_seeds / contrasts, different / draws, equivalent / draws, found / contrasts
    )


def _covering(estimate: Estimate) -> int:
    """How many of the intervals hold the margin, the truth."""
    low, high = estimate.interval(LEVEL)
    return int(((low <= MARGIN) & (high >= MARGIN)).sum())


def _differences(correct: NDArray[np.bool_]) -> Iterator[NDArray[np.int8]]:
    """``[draws, J, N]`` of each contrast of the family."""
    cells = correct.view(np.int8)
    return (cells[:, end] - cells[:, start] for start, end in FAMILY)


def table(draws: int) -> str:
    """The table in Markdown."""
    lines = [
        "| largest scatter | seeds | reviews | coverage | coverage of t over seeds | false *different* | "
        "false *equivalent* | power |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, mix), reviews, seeds in product(MIXES.items(), REVIEWS, SEEDS):
        shown = " | ".join(f"{100 * rate:.1f}%" for rate in rates(mix, seeds, reviews, draws))
        lines.append(f"| {name} | {seeds} | {reviews:,} | {shown} |")
    error = 100 * float(np.sqrt(LEVEL * (1 - LEVEL) / draws))
    lines += [
        "",
        f"{draws:,} simulated studies per row and column. A rate of errors of {100 * LEVEL:.0f}% is estimated with a "
        f"standard error of {error:.2f} points, so that up to {100 * LEVEL + 2 * error:.2f}% agree with it.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m batchscope.statistics.simulation")
    parser.add_argument("--write", action="store_true", help=f"renew the table in {METHODS.name}")
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help=f"studies per row ({DRAWS:,})")
    given = parser.parse_args(arguments)
    made = table(given.draws)
    if not given.write:
        print(made)
        return 0
    before, begin, rest = METHODS.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{METHODS} needs the two lines {BEGIN} and {END}")
    write_text(METHODS, f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What reported accuracies can and cannot show: counts, contrasts, trends and scatter from k and n alone. Pure.

Nothing here sees a single prediction. A difference of two runs is therefore tested as if their test sets were
independent. Two runs on the same reviews mostly err on the same ones, so their paired test can show more: the marginals
bound how much more.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from batchscope.statistics.paired import binomial_standard_error, holm, mcnemar_exact, wilson_interval

Factor = Literal["batch", "policy", "model"]
Level = str | int
WIDTH = float(stats.norm.ppf(0.975))
"""Standard errors on each side of a 95% interval."""
FACTORS: tuple[Factor, ...] = ("batch", "policy", "model")


class Reported(NamedTuple):
    """The reported test accuracy of one run."""

    study: str
    model: str
    policy: str
    batch: int
    learning_rate: float | None
    seed: int | None
    examples: int
    """Number of test reviews."""
    test_set: str
    """Name of the test set; the same name means the same reviews."""
    accuracy: float
    """As printed, as a share."""
    decimals: int | None
    """Decimals of the printed accuracy; None where the count itself is reported."""
    evaluation_batch: int | None
    """Batch size of the evaluation, where the accuracy may be a mean of per-batch accuracies."""

    @property
    def nominal(self) -> str | float:
        """The learning rate, or the policy where that is not reported: equal for runs of one nominal training."""
        return self.policy if self.learning_rate is None else self.learning_rate


class Countable(NamedTuple):
    """Whether a printed accuracy can be k correct of n reviews."""

    cell: Reported
    possible: bool
    """Whether some k/n prints so, rounded or cut."""
    fewest: int
    """Fewest correct reviews; where no k/n prints so, the next count below."""
    most: int
    """Most correct reviews; where no k/n prints so, the next count above."""
    mean_of_batches: bool | None
    """Whether a mean of per-batch accuracies prints so; None without ``evaluation_batch``."""
    low: float
    """95% Wilson interval of the printed accuracy."""
    high: float


class McNemarBounds(NamedTuple):
    """What an exact McNemar test of two runs could show, given only how many reviews each gets right."""

    fewest_discordant: int
    """Fewest reviews on which the runs disagree: |k₁ − k₂|, where one run's errors include the other's."""
    best_p: float
    """Two-sided exact p at that number: the smallest possible."""
    independent_discordant: int
    """Reviews on which the runs would disagree if their errors were independent."""
    independent_p: float
    """Two-sided exact p at that number."""
    most_discordant: int | None
    """Most disagreement at which p is below the level; None if p is never below it."""


class ReportedContrast(NamedTuple):
    """Two cells of one study that differ in one factor. Means over the seeds, where there are several."""

    study: str
    factor: Factor
    model: str
    policy: str
    batch: str
    level_from: str
    level_to: str
    seeds: int
    examples: int
    difference_points: float
    """Second minus first level, in points."""
    se_points: float
    """Of the difference of two independent binomials with the reviews of one run: seeds share their reviews."""
    low_points: float
    high_points: float
    z: float
    p: float
    p_holm: float
    """After Holm's correction over the study's contrasts of this factor."""
    comparisons: int
    """Number of contrasts in that correction."""
    sd_seed_points: float
    """SD of the difference over seeds, paired by number; NaN for one seed."""
    p_seeds: float
    """Two-sided p of a t test over these differences, for these reviews alone; NaN for one seed."""
    fewest_discordant: int
    mcnemar_best_p: float
    independent_discordant: int
    mcnemar_independent_p: float
    most_discordant: int | None
    """See ``McNemarBounds``; of the counts that the printed accuracies allow, those farthest apart."""


class ReportedTrend(NamedTuple):
    """Accuracy against log₂ of the target batch size, within one model and policy of one study."""

    study: str
    model: str
    policy: str
    batches: str
    slope_points: float
    """Points per doubling of the batch size."""
    se_points: float
    z: float
    p: float
    p_holm: float
    """After Holm's correction over the study's trends."""


class Scatter(NamedTuple):
    """Nominally equal runs, or equal contrasts, of several studies or seeds against chance on the test set."""

    what: str
    runs: int
    mean: float
    """Mean accuracy; for a contrast the inverse-variance mean of the differences, in points."""
    sd_points: float
    chance_sd_points: float
    """SD that independent test sets predict."""
    q: float
    """Cochran's Q: Σ (value − mean)² / variance, with the variances of independent binomials."""
    df: int
    p: float
    same_reviews_sd_points: float
    """SD that stable trainings show on one and the same test set: √(error / 2n). NaN for contrasts and for different
    test sets."""
    same_reviews_p: float
    """P of a chi-squared test of the scatter against that SD."""


# ------------------------------------------------------------------------------------------------------- counts


def countable(cell: Reported) -> Countable:
    """Which counts print as the reported accuracy, rounded or cut after its decimals. In integers, so exact."""
    n, interval = cell.examples, [float(end) for end in wilson_interval(cell.accuracy, cell.examples)]
    if cell.decimals is None:
        count = round(cell.accuracy * n)
        return Countable(cell, True, count, count, None, *interval)
    low, below = _printed_bounds(cell)
    unit = 2 * 10**cell.decimals
    fewest, most = -(-low * n // unit), (below * n - 1) // unit
    possible = fewest <= most
    if not possible:
        fewest, most = most, fewest
    return Countable(cell, possible, max(0, fewest), min(n, most), _mean_of_batches(cell), *interval)


def _printed_bounds(cell: Reported) -> tuple[int, int]:
    """Bounds of the values that print as the accuracy, in half units of its last decimal; the second is excluded."""
    assert cell.decimals is not None
    printed = round(cell.accuracy * 10**cell.decimals)
    return 2 * printed - 1, 2 * printed + 2


def _mean_of_batches(cell: Reported) -> bool | None:
    """Whether the mean of the accuracies of ⌈n/b⌉ batches, the last one smaller, can print as the accuracy.

    With r examples in the last batch, s of the others and t of these correct, it is (s/b + t/r) / ⌈n/b⌉.
    """
    n, batch = cell.examples, cell.evaluation_batch
    if batch is None or cell.decimals is None:
        return None
    batches, last = -(-n // batch), n % batch or batch
    low, below = _printed_bounds(cell)
    scale = batch * last * batches  # the mean is (s·r + t·b) / scale
    unit = 2 * 10**cell.decimals
    for correct_in_last in range(last + 1):
        used = correct_in_last * batch * unit
        fewest = max(0, -(-(low * scale - used) // (last * unit)))
        if fewest <= n - last and fewest * last * unit + used < below * scale:
            return True
    return False


# ---------------------------------------------------------------------------------------------------- contrasts


def mcnemar_bounds(first: Countable, second: Countable, level: float) -> McNemarBounds:
    """The exact McNemar p that two reported accuracies allow (``paired.mcnemar_exact``).

    With b and c discordant reviews, b − c = k₁ − k₂ is known and b + c is not: it lies between |k₁ − k₂| and what the
    errors of the two runs leave room for. p rises with b + c.
    """
    n = first.cell.examples
    down, up = first.most - second.fewest, second.most - first.fewest
    lower, upper = (second.fewest, first.most) if down > up else (first.fewest, second.most)
    net, pairs_at_most = upper - lower, min(n - upper, lower)
    p, q = first.cell.accuracy, second.cell.accuracy
    independent = max(0, round(((p * (1 - q) + q * (1 - p)) * n - net) / 2))  # pairs that cancel out
    best, most = mcnemar_exact(net, 0), None
    if best < level:
        low, high = 0, pairs_at_most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if mcnemar_exact(net + middle, middle) < level else (low, middle - 1)
        most = net + 2 * low
    p_independent = mcnemar_exact(net + independent, independent)
    return McNemarBounds(net, best, net + 2 * independent, p_independent, most)


def contrasts(cells: Sequence[Reported], level: float) -> list[ReportedContrast]:
    """Every pair of levels of one factor with the other factors equal, study by study.

    z is the difference over √(p₁q₁/n + p₂q₂/n): the runs as independent samples, not pooled. Holm's family is the
    contrasts of one study and factor. A run that a study reports under two policies counts once.
    """
    found: list[ReportedContrast] = []
    for study in dict.fromkeys(cell.study for cell in cells):
        own = [cell for cell in cells if cell.study == study]
        for factor in FACTORS:
            rows = _of_factor(own, factor, level)
            adjusted = holm({number: row.p for number, row in enumerate(rows)})
            found += [r._replace(p_holm=adjusted[i], comparisons=len(rows)) for i, r in enumerate(rows)]
    return found


def _of_factor(cells: Sequence[Reported], factor: Factor, level: float) -> list[ReportedContrast]:
    """The contrasts of one factor, as if each were the only one."""
    others = [name for name in ("model", "policy", "batch") if name != factor]
    groups: dict[tuple[Level, ...], dict[Level, list[Reported]]] = {}
    for cell in cells:
        place = tuple(getattr(cell, name) for name in others)
        groups.setdefault(place, {}).setdefault(getattr(cell, factor), []).append(cell)
    rows, seen = [], set()
    for levels in groups.values():
        names = sorted(levels, key=int) if factor == "batch" else list(levels)
        for low, high in combinations(names, 2):
            pair = frozenset((_run(levels[low]), _run(levels[high])))
            if len(pair) == 2 and pair not in seen:
                rows.append(_contrast(levels[low], levels[high], factor, level))
            seen.add(pair)
    return rows


def _run(cells: Sequence[Reported]) -> tuple[object, ...]:
    """What tells the runs of a cell from those of another: two policies may report one run."""
    first = cells[0]
    return first.model, first.batch, first.nominal, tuple((cell.seed, cell.accuracy) for cell in cells)


def _contrast(first: Sequence[Reported], second: Sequence[Reported], factor: Factor, level: float) -> ReportedContrast:
    p, q = (mean(cell.accuracy for cell in cells) for cells in (first, second))
    n, one, other = first[0].examples, first[0], second[0]
    error = math.hypot(binomial_standard_error(p, n), binomial_standard_error(q, n))
    z = (q - p) / error if error else math.copysign(math.inf, q - p) if q != p else 0.0
    two_sided = float(2 * stats.norm.sf(abs(z)))
    of_seed = {cell.seed: cell.accuracy for cell in first}
    # Rounded, so that differences that are equal as printed have no scatter at all.
    paired = [round(cell.accuracy - of_seed[cell.seed], 12) for cell in second if cell.seed in of_seed]
    spread = stdev(paired) if len(paired) > 1 else math.nan
    bounds = mcnemar_bounds(_typical(first), _typical(second), level)
    labels = {
        name: str(getattr(one, name)) if name != factor else f"{getattr(one, name)} → {getattr(other, name)}"
        for name in ("model", "policy", "batch")
    }
    return ReportedContrast(
        study=one.study,
        factor=factor,
        **labels,
        level_from=str(getattr(one, factor)),
        level_to=str(getattr(other, factor)),
        seeds=max(1, len(paired)),
        examples=n,
        difference_points=100 * (q - p),
        se_points=100 * error,
        low_points=100 * (q - p - WIDTH * error),
        high_points=100 * (q - p + WIDTH * error),
        z=z,
        p=two_sided,
        p_holm=two_sided,
        comparisons=1,
        sd_seed_points=100 * spread,
        p_seeds=float(stats.ttest_1samp(paired, 0).pvalue) if spread > 0 else math.nan,
        fewest_discordant=bounds.fewest_discordant,
        mcnemar_best_p=bounds.best_p,
        independent_discordant=bounds.independent_discordant,
        mcnemar_independent_p=bounds.independent_p,
        most_discordant=bounds.most_discordant,
    )


def _typical(cells: Sequence[Reported]) -> Countable:
    """The counts of a cell; of several seeds those of the median one."""
    return countable(sorted(cells, key=lambda cell: cell.accuracy)[len(cells) // 2])


# ------------------------------------------------------------------------------------------- trends and scatter


def trends(cells: Sequence[Reported]) -> list[ReportedTrend]:
    """Least-squares slope of accuracy over log₂ B per study, model and policy with three batch sizes or more.

    Weights and standard error are those of independent binomials; Holm's family is the trends of one study.
    """
    groups: dict[tuple[str, str, str], list[Reported]] = {}
    for cell in cells:
        groups.setdefault((cell.study, cell.model, cell.policy), []).append(cell)
    found = []
    for (study, model, policy), own in groups.items():
        sizes = sorted({cell.batch for cell in own})
        if len(sizes) < 3:
            continue
        value = np.array([mean(cell.accuracy for cell in own if cell.batch == size) for size in sizes])
        weight = np.array([own[0].examples / max(v * (1 - v), 1e-12) for v in value])
        x = np.log2(sizes) - np.average(np.log2(sizes), weights=weight)
        slope, error = float((weight * x * value).sum() / (weight * x**2).sum()), float((weight * x**2).sum() ** -0.5)
        p = float(2 * stats.norm.sf(abs(slope / error)))
        batches = ", ".join(map(str, sizes))
        found.append(ReportedTrend(study, model, policy, batches, 100 * slope, 100 * error, slope / error, p, p))
    adjusted: dict[int, float] = {}
    for study in {row.study for row in found}:
        adjusted |= holm({number: row.p for number, row in enumerate(found) if row.study == study})
    return [row._replace(p_holm=adjusted[number]) for number, row in enumerate(found)]


def scatter_of_runs(cells: Iterable[Reported]) -> list[Scatter]:
    """Nominally equal runs: one model, batch size and learning rate (or policy, where that is not reported).

    On one test set, stable trainings of a calibrated classifier scatter by √(error / 2n) alone (Jordan 2023, arXiv
    2304.01910), since they mostly err on the same reviews; between test sets by √(pq / n).
    """
    groups: dict[tuple[str, int, str | float], dict[tuple[object, ...], Reported]] = {}
    for cell in cells:
        runs = groups.setdefault((cell.model, cell.batch, cell.nominal), {})
        runs.setdefault((cell.study, cell.seed, cell.accuracy), cell)
    found = []
    for (model, batch, alike), runs in groups.items():
        if len(runs) < 2:
            continue
        own = list(runs.values())
        values, n = [cell.accuracy for cell in own], [cell.examples for cell in own]
        pooled = sum(v * count for v, count in zip(values, n, strict=True)) / sum(n)
        variance = [pooled * (1 - pooled) / count for count in n]
        q = sum((v - pooled) ** 2 / one for v, one in zip(values, variance, strict=True) if one)
        same = len({cell.test_set for cell in own}) == 1
        stable = (1 - pooled) / (2 * n[0]) if same else math.nan
        ratio = sum((v - mean(values)) ** 2 for v in values) / stable if same and stable else math.nan
        df = len(own) - 1
        found.append(
            Scatter(
                what=f"{model}, batch {batch}, " + (f"LR {alike:g}" if isinstance(alike, float) else f"{alike}"),
                runs=len(own),
                mean=pooled,
                sd_points=100 * stdev(values),
                chance_sd_points=100 * math.sqrt(mean(variance)),
                q=q,
                df=df,
                p=float(stats.chi2.sf(q, df)),
                same_reviews_sd_points=100 * math.sqrt(stable),
                same_reviews_p=float(stats.chi2.sf(ratio, df)),
            )
        )
    return found


def scatter_of_contrasts(rows: Iterable[ReportedContrast]) -> list[Scatter]:
    """The same contrast between two batch sizes in several studies: inverse-variance mean, and Cochran's Q (1954)."""
    groups: dict[tuple[str, str, str], list[ReportedContrast]] = {}
    for row in rows:
        if row.factor == "batch":
            groups.setdefault((row.model, row.policy, row.batch), []).append(row)
    found = []
    for (model, policy, batch), own in groups.items():
        if len(own) < 2:
            continue
        difference = np.array([row.difference_points for row in own])
        weight = np.array([row.se_points for row in own]) ** -2.0
        pooled = float((weight * difference).sum() / weight.sum())
        q = float((weight * (difference - pooled) ** 2).sum())
        chance = math.sqrt(mean(row.se_points**2 for row in own))
        p = float(stats.chi2.sf(q, len(own) - 1))
        what, spread = f"{model}, {policy}, batch {batch}", stdev(difference.tolist())
        found.append(Scatter(what, len(own), pooled, spread, chance, q, len(own) - 1, p, math.nan, math.nan))
    return found

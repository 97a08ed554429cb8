"""The rows of the tables that say what a study establishes: types, nothing computed."""

from typing import Literal, NamedTuple

from batchscope.config.claims import Factor

Verdict = Literal["did not learn", "different", "equivalent", "undecided", "underpowered"]
Estimand = Literal["population", "these_reviews", "these_models"]


class Finding(NamedTuple):
    """One contrast under one estimand. Differences are level_to minus level_from in points of test accuracy.

    The first fields, up to ``sd_residual``, are the columns of ``tables/contrasts.csv``.
    """

    factor: Factor
    model: str
    """Empty where the models are compared; so for the other factors."""
    lr_policy: str
    budget: str
    level_from: str
    """The level, and behind an @ the target batch size where that is not the factor: ``constant@256``."""
    level_to: str
    seeds: int
    reviews: int
    estimand: Estimand
    difference_points: float
    se_points: float
    df: float
    """Degrees of freedom of the t distribution; infinity for the normal one."""
    low_points: float
    """95% interval, whatever the level of the claims."""
    high_points: float
    p: float
    """Two-sided p of no difference; for ``these_models`` that of the exact McNemar test."""
    p_holm: float
    """Adjusted over the family; missing for a contrast with a run that did not learn, which counts as p = 1."""
    p_equivalence: float
    """p of two one-sided tests at the margin, adjusted in the same way."""
    verdict: Verdict | None
    """None for a contrast that only describes."""
    more_seeds: float
    """Of an underpowered contrast: seeds that it lacks with its reviews; infinity if no number is enough."""
    more_reviews: float
    """Of an underpowered contrast: reviews that it lacks with its seeds; infinity if no number is enough."""
    sd_seed: float
    """Components of one review's difference with one seed, in points: the seeds,"""
    sd_review: float
    """review × level,"""
    sd_residual: float
    """and what remains."""

    family: str
    tests: int
    """Contrasts in the family."""
    batch_from: int
    batch_to: int
    accuracy_from: float
    """Mean over seeds."""
    accuracy_to: float
    smallest_points: float
    """The smallest true difference that this contrast finds with the wanted power."""
    seed_sd_points: float
    """Sample SD of the difference over seeds; NaN for one seed."""
    chance_sd_points: float
    """The part of it that single reviews explain: residual/√N, what a stable classifier would show."""
    lowest_points: float
    """The smallest difference of a seed."""
    highest_points: float
    p_mid: float
    """McNemar's mid-p; for ``these_models`` alone."""
    bootstrap_low_points: float
    """95% interval of the multi-bootstrap; for ``population`` alone."""
    bootstrap_high_points: float
    runs: str
    """Folders of all its runs below ``runs/``, joined by blanks."""
    faulty: str
    """Those that did not learn."""


COLUMNS = Finding._fields[: Finding._fields.index("sd_residual") + 1]
"""The columns of ``tables/contrasts.csv``."""


class Trend(NamedTuple):
    """All batch sizes of one model, LR policy and budget."""

    model: str
    lr_policy: str
    budget: str
    batch_sizes: str
    """Joined by blanks."""
    seeds: int
    reviews: int
    f: float
    df1: float
    df2: float
    p: float
    """Of no difference between any two batch sizes, not adjusted: it describes. Missing for one seed."""
    slope_points: float
    """Change of accuracy per doubling of the batch size."""
    se_points: float
    df: float
    low_points: float
    """95% interval of the slope."""
    high_points: float
    p_slope: float
    faulty: str
    """The runs that did not learn; where there are any, the row is no effect of the batch size."""

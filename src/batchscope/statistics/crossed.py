"""Inference for a difference measured with J seeds on the same N reviews. Pure; formulae in ``docs/methods.md``.

Three estimands, each with its own standard error:

- ``population``: seeds and reviews like these (Obuchowski and Rockette 1995, Hillis 2007: readers × cases);
- ``these_reviews``: other seeds, the same reviews;
- ``these_models``: the two trained models of one seed, other reviews.

Every function takes arrays with any leading shape, so that a simulation computes thousands of studies at once.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from batchscope.statistics.behrens_fisher import upper_tail

Array = NDArray[np.float64]
ROUNDING = 1e-12
"""A variance below this share of the one that chance gives is zero but for rounding."""


class Moments(NamedTuple):
    """What the seeds × reviews say of a difference. Each field has the leading shape of the data."""

    difference: Array
    """Mean over seeds and reviews."""
    seed_variance: Array
    """s²_D: sample variance over seeds of each seed's difference; NaN for one seed."""
    covariance: Array
    """Mean over pairs of different seeds of the covariance over reviews; NaN for one seed. It can be negative."""
    variance: Array
    """Mean over seeds of the variance over reviews."""
    seeds: int
    reviews: int


class Estimate(NamedTuple):
    """A difference with its standard error. Each array has the leading shape of the data."""

    difference: Array
    from_seeds: Array
    """The part of the squared standard error that the scatter of the seeds gives."""
    from_reviews: Array
    """The part that the reviews give; it rests on so many of them that it counts as known."""
    seeds_df: float
    """Degrees of freedom of the first part; infinity for one that is known."""
    df: Array
    """Degrees of freedom of the interval's t distribution; infinity for the normal one."""

    @property
    def standard_error(self) -> Array:
        """Of the difference."""
        return np.asarray(np.sqrt(self.from_seeds + self.from_reviews))

    def interval(self, level: float = 0.05) -> tuple[Array, Array]:
        """The interval of confidence 1 − ``level``, by a t distribution with ``df``."""
        half = stats.t.ppf(1 - level / 2, self.df) * self.standard_error
        return np.asarray(self.difference - half), np.asarray(self.difference + half)

    def p_value(self) -> Array:
        """Two-sided p of no difference, by the distribution of Behrens and Fisher.

        Without a part from the reviews it is that of the t test. With both, a t with ``df`` is good enough for a 95%
        interval, but with three seeds it exceeds the small levels of a family's tests threefold (``docs/methods.md``).
        """
        return np.minimum(2 * self._beyond(np.abs(self.difference)), 1.0)

    def p_equivalence(self, margin: float) -> Array:
        """p of two one-sided tests (Schuirmann 1987): small where the difference lies within ± ``margin``."""
        return self._beyond(margin - np.abs(self.difference))

    def _beyond(self, x: ArrayLike) -> Array:
        """Probability that the estimate misses the truth by more than ``x`` in one direction."""
        return upper_tail(x, self.from_seeds, self.from_reviews, self.seeds_df)


def moments(data: ArrayLike, values: ArrayLike | None = None) -> Moments:
    """Moments of ``data`` ``[..., J, N]``: the difference of review i under seed j.

    ``data`` holds −1, 0 and 1 for correctness, or the pseudo-values of another metric. Then ``values`` ``[..., J]``
    holds the metric of each seed, which is not the mean of its pseudo-values.

    The mean covariance needs no J × J matrix: Var_i(Σ_j d_ij) = Σ_j Var_i(d_ij) + Σ_{j≠j′} Cov_i(d_ij, d_ij′).
    Sums of whole numbers are exact.
    """
    d = np.asarray(data)
    seeds, reviews = d.shape[-2:]
    wide: Any = np.int64 if d.dtype.kind in "iub" else np.float64
    own = d.sum(-1, dtype=wide)
    means = own / reviews if values is None else np.asarray(values, dtype=np.float64)
    if wide is np.float64:
        d = d - (own / reviews)[..., None]
    variances = _variance(d, wide)
    total = _variance(d.sum(-2, dtype=wide), wide)
    pairs = seeds * (seeds - 1)
    nothing = np.full(total.shape, np.nan)
    return Moments(
        difference=np.asarray(means.mean(-1)),
        seed_variance=np.asarray(means.var(-1, ddof=1)) if pairs else nothing,
        covariance=np.asarray((total - variances.sum(-1)) / pairs) if pairs else nothing,
        variance=np.asarray(variances.mean(-1)),
        seeds=seeds,
        reviews=reviews,
    )


def _variance(x: NDArray[Any], wide: Any) -> Array:
    """Sample variance over the last axis; sums of whole numbers are exact."""
    n = x.shape[-1]
    sums = x.sum(-1, dtype=wide)
    squares = np.einsum("...i,...i->...", x, x, dtype=wide)
    return np.asarray((squares - sums * (sums / n)) / (n - 1), dtype=np.float64)


def population(m: Moments) -> Estimate:
    """The difference for seeds and reviews like these, from J ≥ 2 seeds.

    SE² = s²_D/J + max(c̄, 0)/N with c̄ the mean covariance between seeds, and
    df = SE⁴ / ((s²_D/J)²/(J − 1)); Hillis 2007, doi 10.1002/sim.2532. With two seeds df = J − 1 = 1, because s²_D is
    then too uncertain for an approximation that reads it.
    """
    from_seeds, from_reviews = seed_variance(m) / m.seeds, np.maximum(m.covariance, 0) / m.reviews
    df = np.full(from_seeds.shape, float(m.seeds - 1))
    if m.seeds > 2:
        df = (from_seeds + from_reviews) ** 2 / (from_seeds**2 / (m.seeds - 1))
    return Estimate(m.difference, from_seeds, from_reviews, float(m.seeds - 1), df)


def these_reviews(m: Moments) -> Estimate:
    """The difference for seeds like these on these reviews alone: a t interval over the seeds, J ≥ 2."""
    square, df = seed_variance(m) / m.seeds, float(m.seeds - 1)
    return Estimate(m.difference, square, np.zeros_like(square), df, np.full(square.shape, df))


def these_models(m: Moments) -> Estimate:
    """The difference of two trained models, one seed, for reviews like these: paired, by the normal distribution.

    Standard error of Bonett and Price 2012 (doi 10.3102/1076998611411915) for two paired proportions: one review is
    added to both kinds of disagreement, so that few disagreements do not look like certainty.
    """
    if m.seeds != 1:
        raise ValueError(f"this compares one pair of models, not {m.seeds}")
    n = m.reviews
    discordant = m.variance * (n - 1) / n + m.difference**2
    square = np.asarray((discordant * n + 2) / (n + 2) - (m.difference * n / (n + 2)) ** 2) / (n + 2)
    return of_reviews(m.difference, square)


def of_reviews(difference: Array, square: Array) -> Estimate:
    """An estimate whose squared standard error comes from the reviews alone, by the normal distribution."""
    return Estimate(difference, np.zeros_like(square), square, np.inf, np.full(square.shape, np.inf))


def seed_variance(m: Moments) -> Array:
    """s²_D, except where all seeds have the same difference.

    Counts can agree by chance, and zero would then claim certainty. In their place stands the variance that the
    reviews alone give to a seed's difference, (v̄ − max(c̄, 0))/N, with at least one differing review per seed.
    """
    chance = np.maximum(m.variance - np.maximum(m.covariance, 0), 1 / m.reviews) / m.reviews
    return np.where(m.seed_variance > ROUNDING * chance, m.seed_variance, chance)

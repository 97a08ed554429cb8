"""What the contrasts of a study come to: how many have which verdict, and what the study can establish. Pure."""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from batchscope.config.claims import Claims
from batchscope.statistics.components import Components, chance_sd
from batchscope.statistics.power import reviews_needed, seeds_needed, smallest_difference
from batchscope.statistics.records import Finding, Verdict


class Conclusions(NamedTuple):
    """The claims of a study under the strongest estimand that its seeds allow: *population*, or *these_models*."""

    claims: list[Finding]
    """In the order of the families."""
    largest: Finding | None
    """The largest difference among the contrasts of batch sizes whose runs all learned, or of all if there is none."""

    def of_batch_sizes(self) -> list[Finding]:
        """The contrasts between target batch sizes."""
        return [finding for finding in self.claims if finding.factor == "batch_size"]

    @property
    def one_seed(self) -> bool:
        """Whether the claims speak of trained models, not of what trains them."""
        return all(finding.estimand == "these_models" for finding in self.claims)


def conclude(findings: Sequence[Finding]) -> Conclusions | None:
    """The conclusions; None where a study has no contrasts."""
    claims = [finding for finding in findings if finding.estimand != "these_reviews"]
    if not claims:
        return None
    sizes = [finding for finding in claims if finding.factor == "batch_size"] or claims
    sound = [finding for finding in sizes if not finding.faulty]
    largest = max(sound, key=lambda finding: abs(finding.difference_points), default=None)
    return Conclusions(claims, largest)


def with_verdict(findings: Sequence[Finding], verdict: Verdict) -> list[Finding]:
    """The findings with this verdict."""
    return [finding for finding in findings if finding.verdict == verdict]


class Design(NamedTuple):
    """What so many seeds and test reviews can establish about one contrast of a family."""

    seeds: int
    reviews: int
    contrasts: int
    """Tests in the family; power is at the strictest level of Holm's correction."""
    parts: Components
    smallest_points: float
    """The smallest true difference that is found with the wanted power."""
    seeds_for_margin: float
    """Seeds for the margin with these reviews; infinity where no number is enough."""
    reviews_for_margin: float
    """Reviews for the margin with these seeds; infinity where no number is enough."""


def stable_components(accuracy: float) -> Components:
    """The components of a difference of two cells of stable classifiers: the best case.

    Each cell's accuracy has the variance err/(2N) over seeds (``chance_sd``), so their difference err/N: all of it
    residual. No seed moves a whole model, and no review prefers a batch size in every seed.
    """
    return Components(seed=0.0, review=0.0, residual=math.sqrt(2) * chance_sd(accuracy, 1))


def typical_components(findings: Sequence[Finding]) -> Components | None:
    """The median components of a study's contrasts over several seeds, without those of runs that did not learn."""
    known = [finding for finding in findings if finding.estimand == "population" and not finding.faulty]
    if not known:
        return None
    seed, review, residual = (
        median(values) for values in zip(*((one.sd_seed, one.sd_review, one.sd_residual) for one in known), strict=True)
    )
    return Components(seed / 100, review / 100, residual / 100)


def design(parts: Components, seeds: int, reviews: int, claims: Claims, contrasts: int = 1) -> Design:
    """What a study of ``seeds`` and ``reviews`` can establish, given the components of its differences.

    One seed is counted as if its model were typical: its result is a lower bound.
    """
    level, margin = claims.level / contrasts, claims.margin / 100
    return Design(
        seeds=seeds,
        reviews=reviews,
        contrasts=contrasts,
        parts=parts,
        smallest_points=100 * smallest_difference(parts, seeds, reviews, level, claims.power),
        seeds_for_margin=seeds_needed(parts, margin, seeds, reviews, level, claims.power),
        reviews_for_margin=reviews_needed(parts, margin, seeds, reviews, level, claims.power),
    )

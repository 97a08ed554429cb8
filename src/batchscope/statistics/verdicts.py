"""What one contrast shows: the verdict, and what an undecided one would need. Pure."""

import math
from typing import NamedTuple

from batchscope.config.claims import Claims
from batchscope.statistics.components import Components
from batchscope.statistics.power import reviews_needed, seeds_needed, smallest_difference
from batchscope.statistics.records import Verdict

VERDICTS: dict[Verdict, str] = {
    "did not learn": "a run of the contrast diverged or collapsed, so that its difference is no effect",
    "different": "Holm-adjusted p below the level",
    "equivalent": "within the margin: Holm-adjusted p of two one-sided tests below the level",
    "undecided": "neither, although the data suffice to find a difference of the margin with the wanted power",
    "underpowered": "neither, and the data do not suffice to find a difference of the margin with the wanted power",
}
"""Every verdict, in the order in which they are considered."""


class Needs(NamedTuple):
    """What a contrast would need to find a difference of the margin with the wanted power."""

    smallest: float
    """The smallest true difference that it finds with the wanted power."""
    more_seeds: float
    """Seeds beyond its own, with its reviews; infinity where no number of seeds is enough, NaN where seeds do not
    count."""
    more_reviews: float
    """Test reviews beyond its own, with its seeds; infinity where no number of reviews is enough."""


def needs(parts: Components, seeds: int, reviews: int, claims: Claims, contrasts: int, fixed: bool = False) -> Needs:
    """Power of one of ``contrasts`` tests of a family, at the strictest level of Holm's correction, level/contrasts.

    ``fixed``: the test asks about these trained models alone, and more seeds do not help it. Without it, one seed is
    counted as if the components that it cannot show were zero.
    """
    level, margin = claims.level / contrasts, claims.margin / 100
    smallest = smallest_difference(parts, seeds, reviews, level, claims.power)
    more_seeds = more_reviews = 0.0
    if smallest > margin:
        more_seeds = seeds_needed(parts, margin, seeds, reviews, level, claims.power) - seeds
        more_reviews = reviews_needed(parts, margin, seeds, reviews, level, claims.power) - reviews
    return Needs(smallest, math.nan if fixed else more_seeds, more_reviews)


def verdict(p_holm: float, p_equivalence: float, needed: Needs, level: float, faulty: bool) -> Verdict:
    """The verdict of a contrast from its Holm-adjusted p of *different* and of *equivalent*.

    A contrast with a run that did not learn comes first, whatever its p.
    """
    if faulty:
        return "did not learn"
    if p_holm < level:
        return "different"
    if p_equivalence < level:
        return "equivalent"
    return "underpowered" if needed.more_reviews > 0 else "undecided"

"""How many reviews the shares of a split come to, before and while it is drawn. Pure."""

from fractions import Fraction
from math import ceil
from typing import NamedTuple


class SplitSizes(NamedTuple):
    """Reviews of each split."""

    train: int
    validation: int
    test: int


def exact(share: float) -> Fraction:
    """The decimal the user wrote: in floats 0.1 + 0.2 is above 0.3, and a share of 300 reviews would get 91."""
    return Fraction(repr(share))


def pooled_sizes(reviews: int, validation: float, test: float) -> SplitSizes:
    """Sizes of a pooled split: the part that is held out is rounded up, and so is the test share of that part."""
    share = exact(validation) + exact(test)
    held_out = ceil(share * reviews)
    tested = ceil(exact(test) / share * held_out)
    return SplitSizes(reviews - held_out, held_out - tested, tested)

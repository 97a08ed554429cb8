"""Two accuracies on different reviews. Pure."""

import math

from batchscope.statistics.paired import wilson_interval


def newcombe_interval(first: float, first_examples: int, second: float, second_examples: int) -> tuple[float, float]:
    """95% interval of ``second`` − ``first``, two proportions of independent examples.

    Newcombe 1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10: the Wilson
    interval of each proportion gives the distance to the limit that matters.
    """
    low, high = wilson_interval(first, first_examples)
    lower, upper = wilson_interval(second, second_examples)
    difference = second - first
    return (
        difference - math.hypot(second - lower, high - first),
        difference + math.hypot(upper - second, first - low),
    )

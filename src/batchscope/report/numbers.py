"""How numbers are printed in the report."""

import math
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"


def accuracy(value: float) -> str:
    """`0.9013`."""
    return f"{value:.4f}"


def percent(value: float, digits: int = 1) -> str:
    """A share as `90.1%`."""
    return f"{100 * value:.{digits}f}%"


def points(value: float, digits: int = 2) -> str:
    """A signed difference in points, `+1.04` or `−0.50`."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def in_points(margin: float) -> str:
    """An unsigned number of points, `0.5 points` or `1 point`."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def p_value(value: float) -> str:
    """`.035`, `< .001`, `1`."""
    if value < 0.001:
        return "< .001"
    return "1" if value >= 0.9995 else f"{value:.3f}".removeprefix("0")


def p_equals(value: float) -> str:
    """`p = .035` or `p < .001`, unbroken at the end of a line."""
    text = p_value(value)
    return (f"p {text}" if text.startswith("<") else f"p = {text}").replace(" ", "\N{NO-BREAK SPACE}")


def mean_sd(mean: float, sd: float) -> str:
    """An accuracy with its standard deviation over seeds, where there is one."""
    return accuracy(mean) if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def scientific(value: float) -> str:
    """`5e-5`."""
    mantissa, _, exponent = f"{value:.3g}".partition("e") if value >= 1e-3 else f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if exponent else mantissa


def duration(seconds: float) -> str:
    """`42 s`, `12.5 min`, `3.1 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(byte_count: float | None) -> str:
    """Mebibytes or gibibytes; a dash if nothing was measured."""
    if byte_count is None or math.isnan(byte_count):
        return "–"
    return f"{byte_count / 2**20:,.0f} MiB" if byte_count < 2**30 else f"{byte_count / 2**30:.1f} GiB"


def energy(joules: float) -> str:
    """Watt-hours or kilowatt-hours, as electricity is billed; a dash if nothing was measured."""
    if math.isnan(joules):
        return "–"
    hours = joules / 3600
    return f"{hours:,.3g} Wh" if hours < 1000 else f"{hours / 1000:,.2f} kWh"


def listed(names: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = [str(name) for name in names]
    return f"{', '.join(most)} and {last}" if most else last

"""The forest plot: every contrast with its interval, beside the margin."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from batchscope.report.numbers import MINUS, in_points
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import INK, MUTED, PAPER, RULE, frame
from batchscope.report.verdicts import ESTIMANDS, contrast_in_words
from batchscope.statistics.records import Finding, Verdict
from batchscope.wording import Wording

FEWEST_INCHES, INCHES_PER_ROW = 1.6, 0.27
MOST = 60
"""Contrasts that one figure can show; the tables hold all."""


class Look(NamedTuple):
    """How a verdict looks: told apart by shape and filling too, not by colour alone."""

    colour: str
    marker: str
    filled: bool


LOOKS: dict[Verdict, Look] = {
    "different": Look("#8a2f6b", "D", True),
    "equivalent": Look("#2c7a7b", "o", True),
    "undecided": Look("#b7791f", "o", False),
    "underpowered": Look(MUTED, "s", False),
    "did not learn": Look(INK, "x", True),
}
GAP = 0.8
"""Rows between two groups of contrasts."""


def forest_figure(spec: FiguresSpec, findings: Sequence[Finding]) -> Figure:
    """One row per contrast under the strongest estimand that its seeds allow: difference, 95% interval, verdict."""
    claims = [finding for finding in findings if finding.estimand != "these_reviews"]
    shown = claims[:MOST]
    places, several = _places(shown), len({cell.budget for cell in spec.cells}) > 1
    height = max(FEWEST_INCHES, INCHES_PER_ROW * (places[-1] + 1 if places else 2)) + 1.25
    figure = Figure(figsize=(7.6, height))
    axis = figure.subplots()
    margin, sight = spec.claims.margin, in_sight(shown, spec.claims.margin)
    axis.axvspan(-margin, margin, color=RULE, alpha=0.6, linewidth=0, zorder=0)
    axis.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    for place, finding in zip(places, shown, strict=True):
        assert finding.verdict is not None
        look = LOOKS[finding.verdict]
        ends = np.clip((finding.low_points, finding.high_points), *sight)
        axis.hlines(place, *ends, color=look.colour, linewidth=1.5, zorder=2)
        style: dict[str, Any] = {"markersize": 6, "markeredgewidth": 1.4, "zorder": 3}
        face = look.colour if look.filled else PAPER
        inset = 0.012 * (sight[1] - sight[0])  # a mark at the edge is seen whole
        at = float(np.clip(finding.difference_points, sight[0] + inset, sight[1] - inset))
        axis.plot(at, place, look.marker, color=look.colour, markerfacecolor=face, **style)
    axis.set_yticks(places, [contrast_in_words(finding, several) for finding in shown])
    axis.set_ylim((places[-1] if places else 1) + 0.7, -0.7)
    if places:
        axis.tick_params(axis="y", length=0)
    else:
        axis.text(0.5, 0.5, "The study has nothing to compare.", transform=axis.transAxes, ha="center", color=INK)
    axis.set_xlim(*sight)
    axis.set_xlabel("difference of test accuracy, points")
    axis.xaxis.set_major_formatter(FuncFormatter(_signed))
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    estimands = " and ".join(dict.fromkeys(ESTIMANDS[finding.estimand] for finding in shown))
    note = f"Bars: 95% intervals, for {estimands}. " if shown else ""
    note += f"Grey: the margin of ±{in_points(margin)}."
    if any(finding.faulty for finding in shown):
        note += " Intervals with a run that did not learn may be cut off."
    if len(claims) > MOST:
        note += f" The first {MOST} of {len(claims):,} contrasts; tables/contrasts.csv holds all."
    frame(figure, "Contrasts of test accuracy", Wording(*spec.words).of(note), _key(shown))
    return figure


def in_sight(findings: Sequence[Finding], margin: float) -> tuple[float, float]:
    """The differences in sight: the margin, zero, and every contrast whose runs all learned."""
    sound = [finding for finding in findings if not finding.faulty] or list(findings)
    low = min([-1.5 * margin, *(finding.low_points for finding in sound)])
    high = max([1.5 * margin, *(finding.high_points for finding in sound)])
    beyond = 0.03 * (high - low)
    return low - beyond, high + beyond


def _signed(value: float, _: int) -> str:
    return f"{value:+.4g}".replace("-", MINUS) if value else "0"


def _places(findings: Sequence[Finding]) -> list[float]:
    """Height of each row: contrasts of one factor and model together, a gap before the next group."""
    places: list[float] = []
    before: tuple[str, str] | None = None
    for finding in findings:
        group = finding.factor, finding.model
        step = 1.0 if before in (None, group) else 1 + GAP
        places.append(places[-1] + step if places else 0.0)
        before = group
    return places


def _key(findings: Sequence[Finding]) -> list[Artist]:
    there = {finding.verdict for finding in findings}
    key: list[Artist] = [
        Line2D(
            [],
            [],
            label=verdict,
            color=look.colour,
            marker=look.marker,
            markerfacecolor=look.colour if look.filled else PAPER,
            markersize=6,
            linewidth=1.5,
        )
        for verdict, look in LOOKS.items()
        if verdict in there
    ]
    return [*key, Patch(color=RULE, alpha=0.6, label="margin")]

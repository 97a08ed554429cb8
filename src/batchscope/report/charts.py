"""The charts of the page as Vega-Lite: what is drawn. ``chart_rows`` makes what it is drawn from.

Every chart reads one table named ``rows`` whose fields have fixed names, so that no text of the user is a field or part
of an expression. The scripts of the page fill ``x`` and ``y`` from the columns that the reader chose, filter the rows,
and add those of the means (``kind`` is ``mean``, for the others ``seed``). Colours are variables of the style sheet.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
from altair.utils import schemapi

from batchscope.report.chart_rows import Rows
from batchscope.report.numbers import in_points
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import SWEEP_COLOURS

Spec = dict[str, Any]
"""A Vega-Lite specification."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GREY, INK, MUTED, PAPER, LINE = "var(--grey)", "var(--ink)", "var(--muted)", "var(--paper)", "var(--line)"
SHAPES = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross")
DASHES = ([1, 0], [6, 3], [2, 2], [6, 2, 2, 2])
CROSS = "M-0.8,-0.8L0.8,0.8M-0.8,0.8L0.8,-0.8"
"""A × as a path within the square from −1 to 1."""
PERCENT, NUMBER = ".1%", "~s"


class Choice(NamedTuple):
    """A quantity that an axis can show."""

    field: str
    """Column of the rows."""
    title: str
    format: str = NUMBER
    bound: str = ""
    """Column of a bound that is drawn with it."""


class Chart(NamedTuple):
    """A chart of the page, in the form in which its scripts read it."""

    name: str
    spec: Spec
    rows: Rows
    x: Sequence[Choice] = ()
    """What the horizontal axis can show, the default first; empty where the rows have their ``x``."""
    y: Sequence[Choice] = ()
    logs: Sequence[str] = ()
    """Axes that can be logarithmic."""
    mean: Sequence[str] = ()
    """Columns of equal value in the rows of one mean; empty for a chart without means."""
    smooth: bool = False
    curves: bool = False
    """Whether a row stands for every cell that reads its run."""
    together: bool = False
    """Whether each row is of all seeds of its cell."""
    limit: int = 0
    """Most rows that are drawn; 0 for all."""
    note: str = ""
    """What the reader must know of the way in which it is drawn."""


def theme(sizes: Sequence[int]) -> Spec:
    """The Vega-Lite config of all charts."""
    label = {"labelFont": FONT, "titleFont": FONT, "labelFontSize": 11, "titleFontSize": 11}
    quiet = {"labelColor": MUTED, "titleColor": MUTED, "titleFontWeight": "normal"}
    axis = label | quiet | {"gridColor": LINE, "domainColor": "var(--strong)", "tickColor": "var(--strong)"}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis | {"titlePadding": 8, "labelPadding": 4, "tickSize": 4},
        "axisY": {"domain": False, "ticks": False},
        "header": label | {"labelColor": INK, "labelFontWeight": 600, "labelAnchor": "start", "labelFontSize": 12},
        "legend": label | quiet | {"orient": "top", "titleOrient": "left", "symbolSize": 70, "columnPadding": 14},
        "range": {"category": [f"var(--batch-{rank})" for rank in range(len(sizes))]},
        "title": {"font": FONT, "color": INK, "subtitleColor": MUTED, "anchor": "start", "fontSize": 14},
    }


def forest_chart(rows: Rows, sight: tuple[float, float], margin: float, most: int) -> Chart:
    """A row per contrast: difference, 95% interval, verdict as mark and word, and the margin."""
    looks = {
        "different": ("diamond", "var(--different)", "var(--different)"),
        "equivalent": ("circle", "var(--equivalent)", "var(--equivalent)"),
        "undecided": ("circle", "var(--undecided)", PAPER),
        "underpowered": ("square", "var(--underpowered)", PAPER),
        "did not learn": (CROSS, "var(--faulty)", "var(--faulty)"),
    }
    signed = "datum.value ? format(datum.value, '+~g') : '0'"
    x_axis = alt.Axis(labelExpr=signed, title="difference of test accuracy, points", tickCount=6)
    x = alt.X("shown:Q", scale=alt.Scale(domain=list(sight), nice=False), axis=x_axis)
    y = alt.Y(
        "label:N",
        sort=alt.EncodingSortField(field="order", op="min", order="ascending"),
        axis=alt.Axis(title=None, labelLimit=280, labelColor=INK, labelFontSize=11.5),
    )

    def scale(place: int) -> alt.Scale:
        return alt.Scale(domain=list(looks), range=[look[place] for look in looks.values()])

    tooltip = [
        alt.Tooltip("label:N", title="contrast"),
        alt.Tooltip("verdict:N", title="verdict"),
        alt.Tooltip("difference:N", title="difference, points"),
        alt.Tooltip("interval:N", title="95% interval"),
        alt.Tooltip("p:N", title="p (Holm)"),
        alt.Tooltip("estimand:N", title="for"),
        alt.Tooltip("flag:N", title="note"),
    ]
    base = alt.Chart(alt.NamedData(name="rows")).encode(y=y, tooltip=tooltip)
    colour = alt.Color("verdict:N", scale=scale(1), legend=None)
    band = base.mark_rect(color="var(--band)", clip=True).encode(
        x=alt.X("margin_low:Q"), x2="margin_high:Q", tooltip=alt.value(None)
    )
    zero = alt.Chart(alt.NamedData(name="rows")).mark_rule(color="var(--strong)").encode(x=alt.datum(0))
    ends = base.mark_rule(strokeWidth=1.6).encode(x=x.copy(), x2="shown_high:Q", color=colour)
    ends = ends.encode(x=alt.X("shown_low:Q", scale=alt.Scale(domain=list(sight), nice=False), axis=x_axis))
    marks = base.mark_point(size=75, strokeWidth=1.6, opacity=1).encode(
        x=x,
        shape=alt.Shape("verdict:N", scale=scale(0), legend=None),
        stroke=alt.Stroke("verdict:N", scale=scale(1), legend=None),
        fill=alt.Fill("verdict:N", scale=scale(2), legend=None),
    )
    words = base.mark_text(align="left", fontSize=11, color=MUTED).encode(
        x=alt.value(alt.ExprRef("width + 10")), text="verdict:N"
    )
    drawn = alt.layer(band, zero, ends, marks, words).properties(width=300, height=300)
    note = f"Bars: 95% intervals. Grey: the margin of ±{in_points(margin)}."
    return Chart("forest", _plain(drawn), rows, limit=most, note=note)


def accuracy_chart(spec: FiguresSpec, rows: Rows) -> Chart:
    """Test accuracy against the target batch size: a dot per seed with its interval, the mean, a line per policy."""
    choice = Choice("correct", "test accuracy", PERCENT)
    drawn = _by_batch(spec, alt.Chart(alt.NamedData(name="rows")), intervals=True)
    return Chart("accuracy", _facets(drawn, "panel"), rows, y=[choice], mean=["panel", "policy", "batch"])


def calibration_chart(spec: FiguresSpec, rows: Rows) -> Chart:
    """Calibration error, likelihood or temperature against the target batch size; a tick: what chance explains."""
    choices = [
        Choice("ece", "calibration error", "~g", "ece_by_chance_high"),
        Choice("nll", "negative log-likelihood, nats", "~g"),
        Choice("brier", "Brier score", "~g"),
        Choice("temperature", "fitted temperature", "~g"),
    ]
    base = alt.Chart(alt.NamedData(name="rows"))
    bound = _seeds(base).mark_tick(color=MUTED, thickness=1.5, size=14).encode(**_place("slot"), y=_y("bound"))
    drawn = alt.layer(bound, _by_batch(spec, base, intervals=False))
    note = "A horizontal tick: at most this much error is explained by chance."
    return Chart("calibration", _facets(drawn, "panel"), rows, y=choices, mean=["panel", "policy", "batch"], note=note)


def _by_batch(spec: FiguresSpec, base: alt.Chart, intervals: bool) -> alt.LayerChart | alt.FacetChart:
    """Seeds and their means against the target batch size, the policies beside each other."""
    dash = alt.StrokeDash("policy:N", scale=_range(spec.policy_names, DASHES), title="LR policy")
    seeds, means = _seeds(base), base.transform_filter("datum.kind === 'mean'")
    lines = means.mark_line(color=GREY, strokeWidth=1.1).encode(**_place("slot"), y=_y(), strokeDash=dash)
    dots = seeds.mark_circle(size=24, opacity=0.85).encode(
        **_place("slot"), y=_y(), color=_grey_if_flagged(spec), tooltip=_tooltip("y")
    )
    marks = means.mark_point(size=95, filled=True, opacity=1, stroke=PAPER, strokeWidth=1.2).encode(
        **_place("slot"), y=_y(), color=_batch(spec), shape=_policy(spec), tooltip=_tooltip("y", mean=True)
    )
    bars = seeds.mark_rule(opacity=0.4).encode(**_place("slot"), y=_y("low"), y2="high:Q", color=_grey_if_flagged(spec))
    return alt.layer(*([bars] if intervals else []), lines, dots, marks)


def curves_chart(
    spec: FiguresSpec, name: str, rows: Rows, x: Sequence[Choice], y: Sequence[Choice], note: str, faint: float
) -> Chart:
    """Curves of the runs, faint, and their mean over seeds; a panel per model and LR policy.

    The scripts set ``tip`` on some points of each mean, enough to be found by the pointer.
    """
    base = alt.Chart(alt.NamedData(name="rows"))
    across = alt.X("x:Q", axis=alt.Axis(title="x", format=NUMBER, tickCount=5))
    seeds = (
        _seeds(base)
        .mark_line(strokeWidth=0.9, opacity=faint)
        .encode(x=across, y=_y(), color=_grey_if_flagged(spec), detail="run:N", order="k:Q")
    )
    mean = (
        base.transform_filter("datum.kind === 'mean'")
        .mark_line(strokeWidth=2)
        .encode(x=across, y=_y(), color=_batch(spec), order="k:Q")
    )
    points = (
        base.transform_filter("datum.tip")
        .mark_point(size=60, opacity=0, filled=True)
        .encode(x=across, y=_y(), color=_batch(spec), tooltip=_tooltip("x", "y", mean=True))
    )
    layers = [seeds, mean, points]
    if "best" in rows.columns:
        best = (
            _seeds(base)
            .transform_filter("datum.best")
            .mark_point(size=34, filled=True, opacity=1)
            .encode(x=across, y=_y(), color=_grey_if_flagged(spec), tooltip=_tooltip("x", "y"))
        )
        layers.append(best)
    means = ["cell_panel", "batch", "k"]
    drawn = _facets(alt.layer(*layers), "cell_panel")
    smooth = "best" not in rows.columns
    return Chart(name, drawn, rows, x=x, y=y, logs=["x", "y"], mean=means, smooth=smooth, note=note, curves=True)


def noise_chart(spec: FiguresSpec, rows: Rows, note: str) -> Chart:
    """B against samples seen, with its band, the target batch sizes, and the measured critical ones."""
    base = alt.Chart(alt.NamedData(name="rows"))
    across = alt.X("x:Q", axis=alt.Axis(title="samples seen", format=NUMBER, tickCount=5))
    axis = alt.Axis(title="B = S / |G|², examples", format="~s", tickCount=5, grid=False)
    along = alt.Y("y:Q", scale=alt.Scale(type="log"), axis=axis)
    colour = _batch(spec)
    curve = base.transform_filter("datum.kind === 'noise'")
    low = alt.Y("low:Q", scale=alt.Scale(type="log"), axis=axis)
    band = curve.mark_area(opacity=0.13, clip=True).encode(x=across, y=low, y2="high:Q", color=colour)
    line = curve.mark_line(strokeWidth=2).encode(x=across, y=along, color=colour)
    dots = curve.mark_point(size=14, opacity=1, filled=True).encode(
        x=across, y=along, color=colour, tooltip=_tooltip("x", "y", mean=True)
    )
    target = base.transform_filter("datum.kind === 'target'").mark_line(strokeWidth=1, strokeDash=[4, 3])
    target = target.encode(x=across, y=along, color=colour)
    measured = base.transform_filter("datum.kind === 'critical' || datum.kind === 'at least'").mark_point(
        size=90, filled=True, opacity=1, shape="diamond", stroke=INK
    )
    kind = alt.Tooltip("kind:N", title="measured critical batch size")
    measured = measured.encode(x=across, y=along, color=colour, tooltip=[kind, alt.Tooltip("y:Q", title="examples")])
    return Chart("noise", _facets(alt.layer(target, band, line, dots, measured), "cell_panel"), rows, note=note)


def sweep_chart(rows: Rows) -> Chart:
    """Validation accuracy by learning rate and target batch size; the chosen rates are framed."""
    base = alt.Chart(alt.NamedData(name="rows")).encode(
        x=alt.X("batch:O", axis=alt.Axis(title="target batch size", format=",d", labelAngle=0)),
        y=alt.Y("rate_label:N", sort=alt.EncodingSortField("rate", order="descending"), title="learning rate"),
        tooltip=[
            alt.Tooltip("batch:Q", title="target batch size", format=",d"),
            alt.Tooltip("rate_label:N", title="learning rate"),
            alt.Tooltip("y:Q", title="validation accuracy", format=".2%"),
            alt.Tooltip("seeds:Q", title="seeds"),
            alt.Tooltip("diverged:Q", title="of them diverged"),
            alt.Tooltip("chosen:N", title="chosen"),
        ],
    )
    scale = alt.Scale(range=list(SWEEP_COLOURS), interpolate="rgb")
    sound = alt.datum["diverged"] < alt.datum["seeds"]
    cells = base.mark_rect().encode(
        color=alt.condition(
            sound,
            alt.Color("y:Q", scale=scale, legend=alt.Legend(format=PERCENT, tickCount=3, title="validation accuracy")),
            alt.value(GREY),
        )
    )
    frame = base.transform_filter("datum.chosen").mark_rect(filled=False, stroke=INK, strokeWidth=2.5)
    words = base.mark_text(fontSize=10.5).encode(
        text="text:N",
        color=alt.condition(
            "datum.rank > 0.55 && datum.diverged < datum.seeds", alt.value("#fff"), alt.value("#1d2129")
        ),
    )
    drawn = alt.layer(cells, frame, words)
    return Chart("sweep", _facets(drawn, "cell_panel", height=alt.Step(30)), rows)


def quality_cost_chart(spec: FiguresSpec, rows: Rows, costs: Mapping[str, str]) -> Chart:
    """Test accuracy of every run against what it cost."""
    base = alt.Chart(alt.NamedData(name="rows"))
    across = alt.X("x:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="x", format=NUMBER, tickCount=5))
    bars = base.mark_rule(opacity=0.35).encode(x=across, y=_y("low"), y2="high:Q", color=_grey_if_flagged(spec))
    marks = base.mark_point(size=70, filled=True, opacity=0.95, stroke=PAPER, strokeWidth=0.8).encode(
        x=across, y=_y(), color=_grey_if_flagged(spec), shape=_policy(spec), tooltip=_tooltip("x", "y")
    )
    choices = [Choice(field, title) for field, title in costs.items()]
    accuracy = [Choice("correct", "test accuracy", PERCENT)]
    return Chart("quality_cost", _facets(alt.layer(bars, marks), "panel"), rows, choices, accuracy, logs=["x"])


# ------------------------------------------------------------------------------------------------------------- parts


def _seeds(base: alt.Chart) -> alt.Chart:
    return base.transform_filter("datum.kind !== 'mean'")


def _y(field: str = "y") -> alt.Y:
    """The vertical axis; the scripts set title and format of the quantity that is shown."""
    return alt.Y(f"{field}:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="y", format=PERCENT, tickCount=6))


def _place(slot: str) -> dict[str, Any]:
    """The horizontal place of a mark beside its batch size."""
    x = alt.X("batch:O", axis=alt.Axis(title="target batch size", format=",d", labelAngle=0, ticks=False))
    return {"x": x, "xOffset": alt.XOffset(f"{slot}:Q", scale=alt.Scale(domain=[0, 1]))}


def _batch(spec: FiguresSpec) -> alt.Color:
    """The colour of a batch size; the theme has the colours."""
    key = alt.Legend(title="batch size", format=",d", symbolType="circle", symbolOpacity=1)
    return alt.Color("batch:N", scale=alt.Scale(domain=sorted(spec.batch_sizes)), legend=key)


def _grey_if_flagged(spec: FiguresSpec) -> Any:
    """The colour of a run: that of its batch size, or grey for one that did not learn."""
    return alt.condition("!datum.flag", _batch(spec), alt.value(GREY))


def _policy(spec: FiguresSpec) -> alt.Shape:
    """The mark of an LR policy."""
    key = alt.Legend(title="LR policy", symbolFillColor=MUTED, symbolStrokeColor=MUTED)
    return alt.Shape("policy:N", scale=_range(spec.policy_names, SHAPES), legend=key)


def _range(names: Sequence[str], looks: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[looks[rank % len(looks)] for rank in range(len(names))])


def _tooltip(*axes: str, mean: bool = False) -> list[alt.Tooltip]:
    """What is said of a run, or of a mean over seeds; the scripts set titles and formats of ``x`` and ``y``."""
    shown = [alt.Tooltip(f"{axis}:Q", title=axis, format=PERCENT) for axis in reversed(axes)]
    shown += [
        alt.Tooltip("model:N", title="model"),
        alt.Tooltip("batch:Q", title="target batch size", format=",d"),
        alt.Tooltip("policy:N", title="LR policy"),
        alt.Tooltip("budget:N", title="budget"),
    ]
    if mean:
        return [*shown, alt.Tooltip("seeds:N", title="mean over seeds")]
    return [*shown, alt.Tooltip("seed:N", title="seed"), alt.Tooltip("flag:N", title="did not learn")]


def _facets(drawn: alt.LayerChart | alt.FacetChart, panel: str, height: Any = 230) -> Spec:
    """A panel per value; the scripts set its width and the number of columns."""
    sort = alt.EncodingSortField(field=f"{panel}_order", op="min", order="ascending")
    facet = alt.Facet(f"{panel}:N", title=None, sort=sort)
    return _plain(drawn.properties(width=300, height=height).facet(facet=facet, columns=2))


def _plain(chart: Any) -> Spec:
    """The specification, without what only Altair needs."""
    spec: Spec = chart.to_dict(validate=schemapi.DEBUG_MODE)
    for name in ("$schema", "config", "datasets"):
        spec.pop(name, None)
    return spec

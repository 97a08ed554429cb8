"""The charts of a study's page: which ones it has, and their data as islands of the page."""

from pathlib import Path

import numpy as np
import pandas as pd
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from batchscope.errors import counted
from batchscope.report import chart_rows, charts
from batchscope.report.chart_rows import CLOCKS, Rows
from batchscope.report.charts import Chart, Choice
from batchscope.report.embedded_data import json_island
from batchscope.report.findings import read_csv
from batchscope.report.finished import Finished
from batchscope.report.forest import MOST, in_sight
from batchscope.report.numbers import p_value, points
from batchscope.report.spec import ReportSpec
from batchscope.report.verdicts import ESTIMANDS, contrast_in_words, interval_in_words, scope_of
from batchscope.statistics.conclusions import Conclusions
from batchscope.statistics.health import faulty_runs
from batchscope.wording import Wording


def chart_islands(
    spec: ReportSpec, study: Finished, folder: Path, found: Conclusions | None, checked: bool = False
) -> list[Markup]:
    """The charts, the runs that they name, and their common looks, for ``charts.js``.

    ``checked`` compares every specification with the schema of Vega-Lite, which takes longer than all the rest. Raises
    FileNotFoundError if a table is missing.
    """
    with debug_mode(checked):
        drawn = _charts(spec, study, folder, found)
    wording = Wording(*spec.words)
    values = [chart._replace(note=wording.of(chart.note)) for chart in drawn]
    return [
        json_island("runs", chart_rows.run_rows(spec, study.results)._asdict()),
        json_island("theme", charts.theme(spec.batch_sizes)),
        json_island("charts", [_plain(chart) for chart in values]),
    ]


def _plain(chart: Chart) -> dict[str, object]:
    """The chart as an object of JSON."""
    choices = {axis: [choice._asdict() for choice in getattr(chart, axis)] for axis in ("x", "y")}
    return chart._asdict() | choices | {"rows": chart.rows._asdict()}


def _charts(spec: ReportSpec, study: Finished, folder: Path, found: Conclusions | None) -> list[Chart]:
    tables, results = folder / "tables", study.results
    reached = read_csv(tables, "curves")
    reached = reached[reached.run.isin(set(results.run))]
    many = study.audit["splits"]["train"]["reviews"]
    updates = chart_rows.read_updates(tables, results.run)
    costs, titles = chart_rows.cost_rows(results, reached)
    drawn = [charts.accuracy_chart(spec, chart_rows.accuracy_rows(results))]
    if found is not None:
        drawn.append(_forest(spec, study, found))
    drawn += [_validation(spec, results, reached, many), _training(spec, results, updates, reached, many)]
    drawn.append(charts.quality_cost_chart(spec, costs, titles))
    if spec.shows_noise:
        branches = study.branches if spec.branches else None
        rows = chart_rows.noise_rows(spec, results, updates, branches)
        if rows is not None:
            note = "S and |G|² averaged over all seeds, then divided: the filter of seeds does not change this chart."
            drawn.append(charts.noise_chart(spec, rows, note))
    if study.choices:
        drawn.append(charts.sweep_chart(chart_rows.sweep_rows(spec, read_csv(tables, "sweep"))))
    if spec.calibration:
        runs = read_csv(tables, "calibration")
        drawn.append(charts.calibration_chart(spec, chart_rows.calibration_rows(results, runs)))
    return drawn


def _forest(spec: ReportSpec, study: Finished, found: Conclusions) -> Chart:
    """One row per claim; what is beyond the sight of the figure ends at its edge."""
    low, high = sight = in_sight(found.claims, spec.claims.margin)
    reasons, seen = faulty_runs(study.results), dict[str, int]()
    rows = []
    for order, one in enumerate(found.claims):
        label = contrast_in_words(one, spec.several_budgets)
        seen[label] = seen.get(label, 0) + 1
        inset = 0.012 * (high - low)
        why = "; ".join(f"{run}: {reasons.get(run, 'did not learn')}" for run in one.faulty.split())
        rows.append(
            {"label": label if seen[label] == 1 else f"{label} ({seen[label]})", "order": order, "scope": scope_of(one)}
            | {"verdict": one.verdict, "difference": points(one.difference_points), "interval": interval_in_words(one)}
            | {"p": "–" if np.isnan(one.p_holm) else p_value(one.p_holm), "estimand": ESTIMANDS[one.estimand]}
            | {"flag": why, "shown": float(np.clip(one.difference_points, low + inset, high - inset))}
            | {"shown_low": float(np.clip(one.low_points, low, high))}
            | {"shown_high": float(np.clip(one.high_points, low, high))}
            | {"margin_low": -spec.claims.margin, "margin_high": spec.claims.margin}
        )
    return charts.forest_chart(Rows.of(pd.DataFrame(rows)), sight, spec.claims.margin, MOST)


def _clocks(rows: Rows) -> list[Choice]:
    """The clocks of which every row has a value; updates first."""
    frame = pd.DataFrame(rows.values, columns=rows.columns)
    return [Choice(clock, title) for clock, title in CLOCKS.items() if frame[clock].notna().all()]


def _validation(spec: ReportSpec, results: pd.DataFrame, reached: pd.DataFrame, many: int) -> Chart:
    rows = chart_rows.validation_rows(results, reached, many)
    shown = [Choice("correct", "validation accuracy", charts.PERCENT), Choice("loss", "validation loss", "~g")]
    note = "A dot: the validation whose checkpoint is tested. A vertical line compares batch sizes at an equal cost."
    return charts.curves_chart(spec, "validation", rows, _clocks(rows), shown, _seeds(spec) + note, _faint(spec))


def _training(
    spec: ReportSpec, results: pd.DataFrame, updates: pd.DataFrame, reached: pd.DataFrame, many: int
) -> Chart:
    rows, together = chart_rows.training_rows(results, updates, reached, many)
    shown = [Choice("loss", "training loss", "~g"), Choice("correct", "training accuracy", charts.PERCENT)]
    note = f"Each curve has at most {chart_rows.POINTS} points, sums over the updates between them; smoothing is a "
    note += "running mean over a share of the run. Seconds between two validations are interpolated."
    if together:
        runs = counted(len(set(results.run)), "run")
        added = f"The study has {runs}: the seeds of a cell are added up, and the filter of seeds does not change "
        note = f"{added}this chart. {note}"
    chart = charts.curves_chart(
        spec, "training", rows, _clocks(rows), shown, ("" if together else _seeds(spec)) + note, _faint(spec)
    )
    return chart._replace(together=together)


def _seeds(spec: ReportSpec) -> str:
    return "Faint: each seed; strong: the mean of the selected ones. " if len(spec.seeds) > 1 else ""


def _faint(spec: ReportSpec) -> float:
    """Opacity of single seeds."""
    return min(0.45, 2.4 / len(spec.seeds)) if len(spec.seeds) > 1 else 0.0

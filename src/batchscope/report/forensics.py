"""What reported accuracies show, for a reader: text for the terminal, CSV, a forest plot."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from batchscope.errors import counted
from batchscope.files import atomic
from batchscope.report.numbers import MINUS, listed, p_equals, p_value, percent, points
from batchscope.report.style import INK, MUTED, PAPER, frame, save
from batchscope.statistics.forensics import (
    Countable,
    Reported,
    ReportedContrast,
    ReportedTrend,
    Scatter,
    contrasts,
    countable,
    scatter_of_contrasts,
    scatter_of_runs,
    trends,
)

MARKERS = ("o", "D", "s", "^", "v", "P")
FACTORS = {"batch": "target batch sizes", "policy": "LR policies", "model": "encoders"}
INCHES_PER_ROW = 0.21
WIDTH = 120


class Findings(NamedTuple):
    """All that the reported accuracies of a file show."""

    title: str
    sources: Mapping[str, str]
    """Study → where its numbers are from."""
    level: float
    accuracies: list[Countable]
    contrasts: list[ReportedContrast]
    trends: list[ReportedTrend]
    scatter: list[Scatter]

    @classmethod
    def of(cls, title: str, sources: Mapping[str, str], level: float, cells: Sequence[Reported]) -> "Findings":
        """Compute them. ``level`` is that of the tests."""
        compared = contrasts(cells, level)
        scattered = scatter_of_runs(cells) + scatter_of_contrasts(compared)
        return cls(title, sources, level, [countable(c) for c in cells], compared, trends(cells), scattered)


def in_words(found: Findings) -> str:
    """The whole analysis as text: what can be a count, contrasts by factor, trends, scatter, and a summary."""
    parts = [found.title, "=" * len(found.title), ""]
    parts += [f"{study}: {source}" for study, source in found.sources.items()]
    parts += ["", _heading("Can the accuracies be k of n?"), _accuracies(found.accuracies)]
    for factor, name in FACTORS.items():
        rows = [row for row in found.contrasts if row.factor == factor]
        if rows:
            parts += [_heading(f"Contrasts between {name}"), _contrasts(rows)]
    if found.contrasts:
        parts += [CONTRASTS_IN_WORDS, ""]
    if found.trends:
        parts += [_heading("Trend over log2 of the target batch size"), _trends(found.trends)]
    if found.scatter:
        parts += [_heading("Scatter against chance on the test set"), _scatter(found.scatter), SCATTER_IN_WORDS, ""]
    said = (textwrap.fill(sentence, WIDTH, subsequent_indent="  ") for sentence in summary(found))
    return "\n".join([*parts, _heading("Summary"), *said]) + "\n"


CONTRASTS_IN_WORDS = """\
Difference: second minus first level, in points, with its 95% interval; z takes the two runs as independent samples of
reviews. Holm p: over the contrasts of the study between these levels. Best p: exact McNemar if one run's errors include
the other's, the smallest p that these accuracies allow. Independent p: exact McNemar if their errors are independent.
Disagreement: reviews on which the two runs may disagree at most for McNemar's p to be below the level; "never" if no
number is small enough."""
SCATTER_IN_WORDS = """\
SD: over runs that are nominally the same training, or over one contrast in several studies. By chance: the SD of
independent test sets; Q and its p test against it. On the same reviews: the SD of stable trainings on one test set,
sqrt(error / 2n), and the p of a test against it."""


def summary(found: Findings) -> list[str]:
    """The sentences that a reviewer would quote."""
    said = []
    odd = [row for row in found.accuracies if not row.possible]
    for study in dict.fromkeys(row.cell.study for row in odd):
        own = [row for row in odd if row.cell.study == study]
        printed = dict.fromkeys((row.cell.model, _printed(row.cell)) for row in own)
        line = f"{study}: {counted(len(printed), 'reported value')} can be no k/{own[0].cell.examples}: "
        line += listed(f"{model} {value}" for model, value in printed) + "."
        if all(row.mean_of_batches for row in own):
            size = own[0].cell.evaluation_batch
            line += f" Each can be a mean of accuracies per batch of {size}, which weights the last batch too much."
        said.append(line)
    for study in dict.fromkeys(row.study for row in found.contrasts):
        for factor, name in FACTORS.items():
            rows = [row for row in found.contrasts if (row.study, row.factor) == (study, factor)]
            if rows:
                said.append(_of_family(study, name, rows, found.level))
    for row in found.scatter:
        if row.p < found.level:
            line = f"{row.what}: {row.runs} values scatter by {row.sd_points:.2f} points, more than chance on the test "
            said.append(f"{line}set ({row.chance_sd_points:.2f}; Q = {row.q:.2f}, {p_equals(row.p)}).")
    return said


def _of_family(study: str, name: str, rows: Sequence[ReportedContrast], level: float) -> str:
    significant = [row for row in rows if row.p_holm < level]
    largest, smallest = max(rows, key=lambda row: abs(row.z)), min(rows, key=lambda row: row.p_holm)
    line = f"{study}, {counted(len(rows), 'contrast')} between {name}: largest |z| {abs(largest.z):.2f}, "
    line += f"smallest Holm-adjusted p {_p(smallest.p_holm)}. "
    if not significant:
        return line + f"None is below {level:g}."
    shown = listed(f"{row.model}, {row.policy}, {row.batch} ({points(row.difference_points)})" for row in significant)
    line += f"{len(significant)} below {level:g}: {shown}."
    if all(row.seeds == 1 for row in significant):
        line += f" With one seed they tell trained models apart, not {name}: another seed may reverse them."
    return line


# ---------------------------------------------------------------------------------------------------- the tables


def _accuracies(rows: Sequence[Countable]) -> str:
    columns = ["study", "model", "policy", "#batch", "#accuracy", "#k of n", "possible?", "95% interval"]
    shown = []
    for row in rows:
        cell = row.cell
        k = str(row.fewest) if row.fewest == row.most else f"{row.fewest} to {row.most}"
        verdict = "yes"
        if not row.possible:
            k, verdict = "none", "no"
            if row.mean_of_batches is not None:
                said = "a" if row.mean_of_batches else "nor a"
                verdict += f", {said} mean over batches of {cell.evaluation_batch}"
        place = [cell.study, cell.model, cell.policy + ("" if cell.seed is None else f", seed {cell.seed}")]
        shown.append([*place, str(cell.batch), _printed(cell), f"{k} of {cell.examples}", verdict,
                      f"{row.low:.4f} to {row.high:.4f}"])  # fmt: skip
    return aligned(columns, shown)


def _contrasts(rows: Sequence[ReportedContrast]) -> str:
    columns = ["study", "model", "policy", "batch", "#difference", "95% interval", "#z", "#p", "#Holm p"]
    columns += ["#best p", "#independent p", "#disagreement"]
    several = any(row.seeds > 1 for row in rows)
    columns += ["#SD over seeds", "#p over seeds"] * several
    shown = []
    for row in rows:
        most = "never"
        if row.most_discordant is not None:
            most = f"{row.most_discordant} ({percent(row.most_discordant / row.examples)})"
        line = [row.study, row.model, row.policy, row.batch, points(row.difference_points)]
        line += [f"{points(row.low_points)} to {points(row.high_points)}", _z(row.z), _p(row.p), _p(row.p_holm)]
        line += [_p(row.mcnemar_best_p), _p(row.mcnemar_independent_p), most]
        if several:
            line += ["–" if math.isnan(row.sd_seed_points) else f"{row.sd_seed_points:.2f}", _p(row.p_seeds)]
        shown.append(line)
    return aligned(columns, shown)


def _trends(rows: Sequence[ReportedTrend]) -> str:
    columns = ["study", "model", "policy", "batches", "#points per doubling", "#SE", "#z", "#p", "#Holm p"]
    shown = [
        [row.study, row.model, row.policy, row.batches, points(row.slope_points), f"{row.se_points:.2f}"]
        + [_z(row.z), _p(row.p), _p(row.p_holm)]
        for row in rows
    ]
    return aligned(columns, shown)


def _scatter(rows: Sequence[Scatter]) -> str:
    columns = ["what", "#values", "#mean", "#SD", "#by chance", "#Q", "#df", "#p", "#on the same reviews", "#p "]
    shown = []
    for row in rows:
        mean = f"{row.mean:.4f}" if row.mean > 0 and "→" not in row.what else points(row.mean)
        same = "–" if math.isnan(row.same_reviews_sd_points) else f"{row.same_reviews_sd_points:.2f}"
        line = [row.what, str(row.runs), mean, f"{row.sd_points:.2f}", f"{row.chance_sd_points:.2f}", f"{row.q:.2f}"]
        shown.append([*line, str(row.df), _p(row.p), same, _p(row.same_reviews_p)])
    return aligned(columns, shown)


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in monospace; the columns that begin with # are right-aligned."""
    rows = [[column.removeprefix("#").strip() for column in columns], *rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if column.startswith("#") else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], ""])


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"


def _printed(cell: Reported) -> str:
    return f"{cell.accuracy:.4f}" if cell.decimals is None else f"{cell.accuracy:.{cell.decimals}f}"


def _z(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _p(value: float) -> str:
    return "–" if math.isnan(value) else p_value(value)


# ------------------------------------------------------------------------------------------------------ the files


def write_findings(found: Findings, folder: Path) -> list[Path]:
    """Write ``accuracies``, ``contrasts``, ``trends`` and ``scatter`` as CSV and the forest plot as PNG and SVG."""
    accuracies = [
        row.cell._asdict() | {k: v for k, v in row._asdict().items() if k != "cell"} for row in found.accuracies
    ]
    tables = {
        "accuracies": pd.DataFrame(accuracies),
        "contrasts": pd.DataFrame(found.contrasts, columns=list(ReportedContrast._fields)),
        "trends": pd.DataFrame(found.trends, columns=list(ReportedTrend._fields)),
        "scatter": pd.DataFrame(found.scatter, columns=list(Scatter._fields)),
    }
    written = []
    for name, table in tables.items():
        with atomic(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        written.append(folder / f"{name}.csv")
    if any(row.factor == "batch" for row in found.contrasts):
        for form in ("png", "svg"):
            save(forest_figure(found), folder / f"forest.{form}")
            written.append(folder / f"forest.{form}")
    return written


def forest_figure(found: Findings) -> Figure:
    """Every contrast between batch sizes with its 95% interval, z and Holm p, the studies beside each other."""
    rows = [row for row in found.contrasts if row.factor == "batch"]
    places = list(dict.fromkeys((row.model, row.policy, row.batch) for row in rows))
    rows.sort(key=lambda row: places.index((row.model, row.policy, row.batch)))
    studies = list(found.sources)
    figure = Figure(figsize=(8.4, 1.4 + INCHES_PER_ROW * (len(rows) + 0.6 * len(places))))
    axis = figure.subplots()
    y, labels, before = 0.0, [], None
    for row in rows:
        place = (row.model, row.policy, row.batch)
        y += 1.0 if place == before else 1.6
        if place != before:
            labels.append((y, f"{row.model}, {row.policy}: {row.batch}"))
        before = place
        sure = row.p_holm < found.level
        colour = INK if sure else MUTED
        axis.hlines(y, row.low_points, row.high_points, color=colour, linewidth=1.2)
        marker = MARKERS[studies.index(row.study) % len(MARKERS)]
        face = INK if sure else PAPER
        axis.plot(row.difference_points, y, marker, color=colour, markerfacecolor=face, markersize=5, zorder=3)
        text = f"{row.study}: {points(row.difference_points)}, z {_z(row.z)}, Holm p {_p(row.p_holm)}"
        axis.text(1.01, y, text, transform=axis.get_yaxis_transform(), va="center", fontsize=7, color=colour)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks([at for at, _ in labels], [label for _, label in labels])
    axis.set_ylim(y + 1, 0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("difference of test accuracy, points: larger minus smaller target batch size")
    key = [
        Line2D([], [], marker=MARKERS[number % len(MARKERS)], color=MUTED, linestyle="none", label=study)
        for number, study in enumerate(studies)
    ]
    note = "Bars: 95% interval of the difference of two independent binomials. Filled and dark: Holm-adjusted p below "
    note += f"{found.level:g}, over the contrasts between batch sizes of the study."
    frame(figure, found.title, note, key)
    return figure

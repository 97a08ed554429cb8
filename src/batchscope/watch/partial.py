"""What a study has so far: tables, figures and a page of its finished runs, without a verdict.

They are written to a folder of their own, ``partial/``, which no rule reads or writes.
"""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import pandas as pd

from batchscope.data.records import Audit
from batchscope.errors import UserError, counted
from batchscope.files import read_json, write_text
from batchscope.insight.records import AttentionMeasures
from batchscope.pages.render import render
from batchscope.provenance.inputs import check_written
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import STAGES
from batchscope.report.curves import training_figure, validation_figure
from batchscope.report.figures import accuracy_figure, cost_figure
from batchscope.report.numbers import accuracy, mean_sd
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import GridCell, Place, ReportSpec
from batchscope.report.style import batch_colours, save
from batchscope.report.tables import Run, history_of, result_row, summarise, write_csv, write_parquet
from batchscope.report.verdicts import level_in_words
from batchscope.statistics.families import Planned, planned
from batchscope.statistics.sweep import chosen_grid
from batchscope.watch.frame import ended_in_words, shown
from batchscope.watch.states import ENDED_BADLY, Look, Watcher, last_lines
from batchscope.wording import Wording

FOLDER = "partial"
LOG_LINES = 8


class Missing(NamedTuple):
    """A run that is not finished."""

    run: str
    stage: str
    """The stage that it waits for: ``train`` or ``evaluate``."""
    state: str
    reason: str
    """How it failed; empty where it did not."""
    log: str
    """Path of the log of a failed one; else empty."""
    lines: list[str]
    """The end of that log."""


def write_partial(layout: Layout) -> Path:
    """Write ``partial/`` of a study; the path of its page.

    Raises UserError where no run is finished, and where the study is.
    """
    look = Watcher(layout).look()
    page = layout.study / STAGES["report"].output
    if look.states.get("report") == "done":
        raise UserError(f"the study is complete, and its report is {page}: there is no partial one to write")
    spec = look.jobs.spec("report", ReportSpec)
    runs = list(dict.fromkeys(cell.run for cell in spec.cells))
    missing = {run: lacking for run in runs if (lacking := _missing(run, look, layout))}
    if len(missing) == len(runs):
        raise UserError(
            f"no run of {layout.study} is trained and evaluated yet (0 of {len(runs)}): there is nothing to show. "
            "`batchscope watch` shows how far the runs are"
        )
    folder = layout.study / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    part = finished_part(spec, missing)
    read = {cell.run: _read(cell, layout.run(cell.run)) for cell in reversed(part.cells)}
    results = _write_tables(part, read, missing, layout, folder / "tables")
    pictures = _draw(part, results, folder) if len(results) else []
    context = _context(spec, runs, missing, results, _of_sweeps(spec, missing, layout))
    write_text(folder / "index.html", render("partial.html.j2", {**context, "pictures": pictures}))
    return folder / "index.html"


def _missing(run: str, look: Look, layout: Layout) -> Missing | None:
    """What a run lacks; None where it is trained and evaluated."""
    for stage in ("train", "evaluate"):
        name = f"{stage}/{run}"
        state = look.states.get(name, "to do")
        if state == "done":
            continue
        job = look.active.get(name)
        if job is None or state not in ENDED_BADLY:
            return Missing(run, stage, state, "", "", [])
        log = layout.log(name)
        lines = [shown(line) for line in last_lines(log, LOG_LINES)]
        return Missing(run, stage, state, ended_in_words(job), log.as_posix(), lines)
    return None


def finished_part(spec: ReportSpec, missing: Mapping[str, Missing]) -> ReportSpec:
    """The cells whose runs are finished, in the colours of the whole study; without the candidates of sweeps.

    The test of a candidate is read only once validation has chosen it, and that needs the whole sweep.
    """
    colours = batch_colours(spec)
    cells = tuple(cell for cell in spec.cells if cell.run not in missing and cell.candidate_of is None)
    sizes = dict.fromkeys(cell.batch for cell in cells)
    return spec.model_copy(update={"cells": cells, "palette": tuple(colours[size] for size in sizes), "branches": None})


def _read(cell: GridCell, folder: Path) -> Run:
    """A run without its attention, which nothing here shows. Raises DamagedFileError."""
    layout = Layout.of_run(folder)
    check_written(layout, f"train/{cell.run}", ["*/train.json", "*/manifest.json", "*/history.jsonl"])
    check_written(layout, f"evaluate/{cell.run}", ["*/metrics.json"])
    facts, metrics, manifest = (read_json(folder / name) for name in ("train.json", "metrics.json", "manifest.json"))
    return Run(cell, folder, facts, metrics, manifest, cast(AttentionMeasures, {"reason": "not read"}))


def _write_tables(
    spec: ReportSpec, runs: Mapping[str, Run], missing: Mapping[str, Missing], layout: Layout, tables: Path
) -> pd.DataFrame:
    """Write the tables of the finished runs, and what is missing; one row per finished cell."""
    check_written(layout, "audit", ["data/audit.json"])
    audit: Audit | None = read_json(layout.audit) if layout.audit.is_file() else None
    results = pd.DataFrame([result_row(cell, run := runs[cell.run], _classes(run, audit)) for cell in spec.cells])
    lacking = [one._replace(lines=[])._asdict() for one in missing.values()]
    write_csv(tables / "missing.csv", pd.DataFrame(lacking, columns=Missing._fields).drop(columns="lines"))
    if len(results):
        write_csv(tables / "results.csv", results)
        write_csv(tables / "summary.csv", summarise(results))
        write_parquet(tables / "history.parquet", history_of(runs.values()))
    return results


def _classes(run: Run, audit: Audit | None) -> list[str]:
    """The names of the classes; their numbers as long as there is no audit."""
    return audit["classes"] if audit else [f"class {n}" for n in range(len(run.metrics["test"]["best"]["confusion"]))]


def _draw(spec: ReportSpec, results: pd.DataFrame, folder: Path) -> list[tuple[str, Picture]]:
    """Draw the figures of the finished runs; title → picture."""
    history, figures = pd.read_parquet(folder / "tables/history.parquet"), folder / "figures"
    drawn = {"accuracy": accuracy_figure(spec, results), "cost": cost_figure(spec, results)}
    for number, (model, budget) in enumerate(dict.fromkeys((cell.model, cell.budget) for cell in spec.cells)):
        cells = tuple(cell for cell in spec.cells if (cell.model, cell.budget) == (model, budget))
        part, title = spec.model_copy(update={"cells": cells}), f"{model}, {budget}" if spec.several_budgets else model
        part = part.model_copy(update={"palette": tuple(batch_colours(spec)[size] for size in part.batch_sizes)})
        mine = history[history.run.isin({cell.run for cell in cells})]
        for quantity in ("accuracy", "loss"):
            drawn[f"training_{quantity}_{number}"] = training_figure(part, mine, model, quantity, title)
        drawn[f"validation_accuracy_{number}"] = validation_figure(part, mine, model, title)
    for name, figure in drawn.items():
        for form in ("svg", "png"):
            save(figure, figures / f"{name}.{form}")
    return [(name.rstrip("_0123456789").replace("_", " "), embedded(figures, name)) for name in drawn]


def _of_sweeps(spec: ReportSpec, missing: Mapping[str, Missing], layout: Layout) -> list[list[str]]:
    """A row per finished candidate of a sweep: by validation alone, which is what chooses."""
    rows = []
    for cell in spec.cells:
        if cell.candidate_of is not None and cell.run not in missing:
            check_written(layout, f"train/{cell.run}", ["*/train.json"])
            best = read_json(layout.run(cell.run) / "train.json")["best_validation"]
            place = [cell.model, cell.candidate_of, cell.budget, f"{cell.batch:,}", f"{cell.learning_rate:g}"]
            rows.append([*place, str(cell.seed), accuracy(best["correct"] / best["examples"])])
    return rows


# ----------------------------------------------------------------------------------------------------- in words


def _context(
    spec: ReportSpec,
    runs: Sequence[str],
    missing: Mapping[str, Missing],
    results: pd.DataFrame,
    sweep: list[list[str]],
) -> dict[str, object]:
    states, done = Counter(map(_state_in_words, missing.values())), len(runs) - len(missing)
    wording = Wording(*spec.words).beside([*spec.model_names, *spec.policy_names])
    return {
        "title": spec.title or spec.study,
        "study": spec.study,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "banner": f"partial: {done} of {counted(len(runs), 'run')}",
        "finished": f"{done} of {counted(len(runs), 'run')} {'is' if done == 1 else 'are'}",
        "states": ", ".join(f"{count:,} {state}" for state, count in states.items()),
        "withheld": [wording.of(sentence) for sentence in withheld_verdicts(spec, missing)],
        "failed": [one for one in missing.values() if one.reason],
        "tables": [(budget, grid_of_results(spec, budget, results, missing)) for budget in spec.budget_names],
        "several_budgets": spec.several_budgets,
        "sweep": sweep,
        "missing": list(missing.values()),
    }


class Shown(NamedTuple):
    """A cell of the grid: what its finished runs reached, or why there is nothing."""

    text: str
    note: str
    """Of how many seeds; or the reason."""
    missing: bool


class GridOfResults(NamedTuple):
    """A row per model and target batch size, with two cells per policy: validation and test accuracy."""

    policies: list[str]
    rows: list[tuple[str, str, list[Shown]]]


def grid_of_results(
    spec: ReportSpec, budget: str, results: pd.DataFrame, missing: Mapping[str, Missing]
) -> GridOfResults:
    """The whole grid of a budget, finished or not."""
    summary = summarise(results).to_dict("records") if len(results) else []
    found = {(row["model"], row["target_batch_size"], row["lr_policy"], row["budget"]): row for row in summary}
    rows = []
    for model in spec.model_names:
        for batch in spec.batch_sizes:
            cells: list[Shown] = []
            for policy in spec.policy_names:
                place = model, batch, policy, budget
                cells += _shown(_cells_at(spec, place), found.get(place), missing)
            rows.append((model, f"{batch:,}", cells))
    return GridOfResults(spec.policy_names, rows)


def _cells_at(spec: ReportSpec, place: tuple[str, int, str, str]) -> list[GridCell]:
    """The cells of a place over seeds; of a sweep over its learning rates, too."""
    return [c for c in spec.cells if (c.model, c.batch, c.candidate_of or c.policy, c.budget) == place]


def _shown(cells: Sequence[GridCell], row: Mapping[str, object] | None, missing: Mapping[str, Missing]) -> list[Shown]:
    """Validation and test accuracy of a place."""
    lacking = Counter(_state_in_words(missing[cell.run]) for cell in cells if cell.run in missing)
    reasons = ", ".join(f"{count} {state}" for state, count in lacking.items())
    if any(cell.candidate_of is not None for cell in cells):
        reason = f"its learning rate is chosen when the sweep is finished{f' ({reasons})' if reasons else ''}"
        return [Shown("–", reason, True)] * 2
    if row is None:
        return [Shown("–", reasons or "not in the grid", True)] * 2
    seeds = len(cells) - lacking.total()
    note = f"{seeds} of {counted(len(cells), 'seed')}{f'; {reasons}' if reasons else ''}"
    return [
        Shown(mean_sd(float(str(row[f"{split}_accuracy_mean"])), float(str(row[f"{split}_accuracy_sd"]))), note, False)
        for split in ("validation", "test")
    ]


def _state_in_words(one: Missing) -> str:
    """``to do``; of a run that is trained, ``not evaluated``."""
    if one.state in ENDED_BADLY or one.stage == "train":
        return one.state
    return "not evaluated"


def withheld_verdicts(spec: ReportSpec, missing: Mapping[str, Missing]) -> list[str]:
    """A sentence for every claim of the study: why it has no verdict yet."""
    rates: dict[Place, float] = {}
    for cell in spec.cells:
        if cell.candidate_of is not None:  # which rate will be chosen does not matter here
            rates.setdefault((cell.model, cell.candidate_of, cell.budget, cell.batch), cell.learning_rate)
    contrasts = planned(chosen_grid(spec, rates).cells, spec.claims)
    lacking = {number: _lacking(contrast, spec, missing) for number, contrast in enumerate(contrasts)}
    sentences = []
    for number, contrast in enumerate(contrasts):
        family = [other for other, one in enumerate(contrasts) if one.family == contrast.family]
        unfinished = [other for other in family if lacking[other]]
        if lacking[number]:
            reason = lacking[number]
        elif unfinished:
            reason = f"its runs are finished, but Holm's correction is over {counted(len(family), 'contrast')}, of "
            reason += f"which {len(unfinished)} {'is' if len(unfinished) == 1 else 'are'} not"
        else:
            reason = "its runs are finished: start the workflow again, which tests it"
        sentences.append(f"{_contrast_in_words(contrast, spec.several_budgets)}: no verdict yet, because {reason}.")
    return sentences


def _lacking(contrast: Planned, spec: ReportSpec, missing: Mapping[str, Missing]) -> str:
    """Why the runs of a contrast do not suffice; empty where they do."""
    runs: set[str] = set()
    for place in (contrast.start, contrast.end):
        cells = _cells_at(spec, (place.model, place.batch, place.policy, place.budget))
        runs |= {cell.run for cell in cells if cell.candidate_of is not None or cell.seed in contrast.seeds}
    count = len(runs & missing.keys())
    if not count:
        return ""
    return f"{count:,} of its {counted(len(runs), 'run')} {'is' if count == 1 else 'are'} not finished"


def _contrast_in_words(contrast: Planned, several_budgets: bool) -> str:
    """``bert · constant · 64 → 1,024``."""
    place, factor = contrast.start, contrast.factor
    parts = {"model": place.model, "lr_policy": place.policy, "budget": place.budget if several_budgets else ""}
    beside = [part for name, part in parts.items() if part and name != factor]
    beside += [f"{place.batch:,}"] if factor != "batch_size" else []
    levels = (level_in_words(one.level(factor)) for one in (contrast.start, contrast.end))
    return " · ".join([*beside, " → ".join(levels)])

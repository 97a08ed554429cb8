"""The report: one self-contained page and a summary in Markdown, from the study's tables and figures."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from batchscope import __version__
from batchscope.errors import UserError
from batchscope.files import write_text
from batchscope.report import atlas, attention, calibration, inlined, insight, messages, sections, trust, verdicts
from batchscope.report.answer import answer
from batchscope.report.branches import branches_in_words, branches_table
from batchscope.report.budgets import budgets_section
from batchscope.report.cartography import cartography_section
from batchscope.report.catalogue import attention_cells, suffix
from batchscope.report.cautions import Caution, balance_in_words, cautions
from batchscope.report.embedded_data import json_island
from batchscope.report.findings import read_csv
from batchscope.report.finished import Finished
from batchscope.report.geometry import geometry_section
from batchscope.report.horizon import horizon_table
from batchscope.report.outline import SECTIONS, colour_rules, filters, header_lines, shown_sections
from batchscope.report.page_charts import chart_islands
from batchscope.report.pictures import Picture, embedded
from batchscope.report.protocol import protocol_table
from batchscope.report.spec import ReportSpec
from batchscope.report.sweep import sweep_section
from batchscope.report.table import scopes
from batchscope.report.tables import summarise
from batchscope.report.viewer import viewer_section
from batchscope.report.visible import visible, with_code
from batchscope.statistics.conclusions import Conclusions, conclude
from batchscope.statistics.health import faulty_runs
from batchscope.statistics.horizon import warnings
from batchscope.wording import Wording

LONGEST_REVIEW = 900
MOST_VERDICTS = 8
"""Sentences on contrasts that are in sight; the others unfold."""
TRAINING = ("training_accuracy", "training_loss")
MAPS = {
    "attention": "attention of the last layer for the review, side by side over batch sizes",
    "attention_difference": "change of the last layer's attention for the review from the first batch size",
}
"""Figures of a review, and what they show."""
VALIDATION = ("validation_accuracy", "validation_cost")


def write_report(spec: ReportSpec, study_folder: Path) -> None:
    """Write ``report/index.html`` and ``report/summary.md`` of a study.

    Raises UserError if a table, a figure or a data file is missing.
    """
    try:
        study = Finished.read(spec, study_folder)
        context = _context(study.grid, study, study_folder)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or error} is missing; make the study's tables and figures first") from None
    for name, escaped in (("index.html", True), ("summary.md", False)):
        template = _templates(escaped, wording_of(spec, study)).get_template(f"{name}.j2")
        write_text(study_folder / "report" / name, template.render(context))


def markdown_cell(text: str) -> str:
    """Text that neither ends a Markdown table's cell nor becomes markup."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "\\|").replace("\n", " ")


def wording_of(spec: ReportSpec, study: Finished) -> Wording:
    """What the study's texts are called on its page."""
    return Wording(*spec.words).beside([*spec.model_names, *spec.policy_names, *study.audit["classes"]])


def _templates(autoescape: bool, wording: Wording) -> Environment:
    loader = PackageLoader("batchscope.report")
    environment = Environment(
        loader=loader,
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = markdown_cell
    environment.filters["worded"] = wording.of
    environment.filters["prose"] = lambda sentence: with_code(wording.of(sentence))
    environment.filters["scopes"] = scopes
    return environment


def _shown(value: object) -> object:
    """What a template writes: text with its control characters visible, and markup of our own as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _context(spec: ReportSpec, study: Finished, folder: Path) -> dict[str, object]:
    """Everything that the templates show. ``spec`` is the grid as the sweeps chose it."""
    found, figures = conclude(study.findings), folder / "figures"
    summary, cost = summarise(study.results), study.results[~study.results.shared]
    baseline = study.reviews["baseline"]
    too_large = spec.too_large_in_words(study.audit["splits"]["train"]["reviews"])
    said = [
        *([Caution("results", too_large)] if too_large else []),
        *cautions(study.results, found.claims if found else [], study.audit, baseline, study.provenance),
        *(Caution("trust", one) for one in trust.uncertified_in_words(study.certificates, study.provenance)),
        *(Caution("fair", one) for one in warnings(study.horizons)),
    ]
    context: dict[str, object] = {
        "answer": answer(spec, study.results, summary, found, len(study.audit["classes"])),
        "cautions": said,
        "horizon": horizon_table(study.horizons),
        "protocol": protocol_table(spec, summary, cost, study.audit),
        "results": sections.results_tables(spec, summary, baseline),
        "budgets": budgets_section(spec, summary),
        "contrasts": _contrasts(spec, study, found, figures) if found else None,
        "sweep": _sweep(spec, study, folder),
        "accuracy": embedded(figures, "accuracy"),
        "training": _curves(spec, figures, TRAINING),
        "validation": _curves(spec, figures, VALIDATION),
        "noise": _noise(spec, study, figures) if spec.shows_noise else None,
        "errors": _errors(spec, study, folder),
        "calibration": calibration.calibration_section(spec, folder) if spec.calibration else None,
        "geometry": geometry_section(spec, folder),
        "cost_table": sections.cost_table(cost),
        "cost_figure": embedded(figures, "cost"),
        "quality_cost_figure": embedded(figures, "quality_cost"),
        "attention": _attention(spec, study, figures),
        "over_reviews": attention.attention_section(spec, folder) if spec.attention_measures else None,
        "viewer": viewer_section(spec, folder),
        "messages": _messages(spec, study, summary, found, folder),
        **_classes(study, summary),
        **_trust(spec, study),
    }
    islands = [
        json_island("batches", [str(size) for size in sorted(spec.batch_sizes)]),
        *chart_islands(spec, study, folder, found),
    ]
    return context | {"islands": islands} | _shell(spec, study, context, said)


def _shell(spec: ReportSpec, study: Finished, context: Mapping[str, object], said: list[Caution]) -> dict[str, object]:
    """What holds the sections together: header, filters, styles and scripts."""
    return {
        "title": spec.title or spec.study,
        "study": spec.study,
        "version": __version__,
        "header": header_lines(spec, study),
        "sections": shown_sections(context, said),
        "titles": {section.name: section.title for section in SECTIONS},
        "filters": filters(spec),
        "legend": [f"{size:,}" for size in sorted(spec.batch_sizes)],
        "most_claims": MOST_VERDICTS,
        "colours": colour_rules(spec),
        "style": inlined.style(),
        "scripts": inlined.scripts(),
        "content_policy": inlined.content_policy(),
    }


def _messages(
    spec: ReportSpec, study: Finished, summary: pd.DataFrame, found: Conclusions | None, folder: Path
) -> dict[str, str]:
    """The titles of the charts."""
    runs = read_csv(folder / "tables", "calibration") if spec.calibration else None
    return {
        "accuracy": messages.accuracy_message(spec, found),
        "fair": messages.fair_message(spec, summary),
        "sweep": messages.sweep_message(study.choices),
        "noise": messages.noise_message(study.noise_scale),
        "cost": messages.cost_message(study.results),
        "calibration": messages.calibration_message(runs) if runs is not None else "",
    }


def _errors(spec: ReportSpec, study: Finished, folder: Path) -> dict[str, object] | None:
    """The errors on the test split and the map of the training examples; None where neither is measured."""
    if not spec.errors and not spec.cartography:
        return None
    return {
        "tested": atlas.errors_section(spec, spec.errors, folder, study.audit["classes"]) if spec.errors else None,
        "cartography": cartography_section(spec, folder),
    }


def _contrasts(spec: ReportSpec, study: Finished, found: Conclusions, figures: Path) -> dict[str, object]:
    """Verdicts, the forest plot and the tables behind them."""
    several, reasons = spec.several_budgets, faulty_runs(study.results)
    seeds, wording = not found.one_seed, wording_of(spec, study)
    return {
        "figure": embedded(figures, "contrasts"),
        "message": messages.forest_message(found.claims),
        "claims": [verdicts.claim_in_short(finding, spec.claims, reasons, several) for finding in found.claims],
        "about": verdicts.family_in_words(found.claims, spec.claims),
        "table": verdicts.findings_table(study.findings, several, wording),
        "components": verdicts.components_table(study.findings, several, wording) if seeds else None,
        "trends": verdicts.trends_table(study.trends, several) if study.trends else None,
        "pairs": verdicts.pairs_table(study.pairs, several, wording) if len(study.pairs) else None,
    }


def _classes(study: Finished, summary: pd.DataFrame) -> dict[str, object]:
    """The tables behind the results."""
    few = len(study.audit["classes"]) <= sections.MOST_CLASSES
    return {
        "details": sections.details_table(summary),
        "classes": sections.classes_table(study.per_class) if few else None,
        "unbalanced": bool(balance_in_words(study.audit)),
        "confusion": sections.confusion_table(study.confusion) if few else None,
    }


def _sweep(spec: ReportSpec, study: Finished, folder: Path) -> dict[str, object] | None:
    """Table, sentences and figures of the learning-rate sweeps; None where there are none."""
    section = sweep_section(study.choices, folder / "tables")
    if section is None:
        return None
    images = [
        (model, [embedded(folder / "figures", f"{what}_{model}") for what in ("sweep", "best_of_n")])
        for model in spec.model_names
    ]
    return {"table": section.table, "sentences": section.sentences, "images": images}


def _titles(spec: ReportSpec) -> list[tuple[str, str, str]]:
    """Heading, model and budget of the figures that show one of each."""
    return [
        (f"{model}, {budget}" if spec.several_budgets else model, model, budget)
        for model in spec.model_names
        for budget in spec.budget_names
    ]


def _curves(spec: ReportSpec, figures: Path, names: tuple[str, ...]) -> list[tuple[str, list[tuple[str, Picture]]]]:
    """Heading of every model and budget → the figures of these names that the study has."""
    there = [name for name in names if name != "validation_cost" or spec.validates_within_epochs]
    return [
        (title, [(name, embedded(figures, f"{name}_{model}{suffix(spec, budget)}")) for name in there])
        for title, model, budget in _titles(spec)
    ]


def _noise(spec: ReportSpec, study: Finished, figures: Path) -> dict[str, object]:
    """Figures and tables of the gradient noise scale and of the measured critical batch sizes."""
    return {
        "images": [
            (title, embedded(figures, f"noise_scale_{model}{suffix(spec, budget)}"))
            for title, model, budget in _titles(spec)
        ],
        "table": insight.noise_table(study.noise_scale) if spec.measures_noise else None,
        "kind": spec.noise_scale,
        "branches": branches_table(study.branches, spec.branches) if spec.branches else None,
        "critical": branches_in_words(study.branches, spec.branches) if spec.branches else [],
    }


def _attention(spec: ReportSpec, study: Finished, figures: Path) -> dict[str, object]:
    """The reviews with their maps; for a model whose encoder gives no attention, the reason in place of both."""
    reasons = {}
    for model in spec.model_names:
        first = study.measures[attention_cells(spec, model)[0].run]
        if "reason" in first:
            reasons[model] = first["reason"]
    shown = [model for model in spec.model_names if model not in reasons]
    found = {review["name"]: review for review in study.reviews["reviews"]}
    return {
        "table": insight.attention_table(spec, study.measures),
        "rule": study.reviews["rule"],
        "reasons": [f"{model}: {reason}" for model, reason in reasons.items()],
        "reviews": [
            {
                "title": found[name]["title"],
                "text": _shortened(found[name]["text"]),
                "maps": [
                    (f"{model}: {what}", embedded(figures, f"{stem}_{model}_{name}"))
                    for model in shown
                    for stem, what in MAPS.items()
                    if len(spec.batch_sizes) > 1 or stem == "attention"
                ],
            }
            for name in (spec.review_names if shown else ())
        ],
    }


def _trust(spec: ReportSpec, study: Finished) -> dict[str, object]:
    """Certificates, data and provenance."""
    return {
        "certificate": trust.certificate_table(spec, study.certificates),
        "certificate_verdict": trust.certificate_verdict(study.certificates),
        "splits": trust.splits_table(study.audit, wording_of(spec, study)),
        "duplicates": trust.duplicates_table(study.audit, wording_of(spec, study)),
        "left_out": trust.left_out_table(study.audit),
        "provenance": trust.provenance_table(study.provenance),
        "runs": trust.runs_table(study.provenance),
    }


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REVIEW else text[:LONGEST_REVIEW].rsplit(" ", 1)[0] + " …"

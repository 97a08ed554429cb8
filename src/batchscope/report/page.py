"""The report: one self-contained page and a summary in Markdown, from the study's tables and figures."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from batchscope.errors import UserError
from batchscope.files import read_json, write_text
from batchscope.report import sections
from batchscope.report.answer import answer
from batchscope.report.catalogue import measures_noise, names_in_order
from batchscope.report.tables import summarise

WIDEST = 1920
LONGEST_REVIEW = 900


def write_report(spec: dict[str, Any], study_folder: Path) -> None:
    """Write ``report/index.html`` and ``report/summary.md`` of a study.

    ``spec`` is ``Study.report_spec()``. Raises UserError if a table, a figure or a data file is missing.
    """
    try:
        context = _context(spec, study_folder)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or error} is missing; make the study's tables and figures first") from None
    html = _templates(autoescape=True).get_template("index.html.j2").render(context)
    write_text(study_folder / "report" / "index.html", html)
    write_text(study_folder / "report" / "summary.md", _templates(False).get_template("summary.md.j2").render(context))


def embedded(path: Path) -> dict[str, Any]:
    """An image as ``{src, width, height}``: lossless WebP in a data URI, no wider than the page can use."""
    image = Image.open(path).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
        image = image.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=80, method=4)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": f"data:image/webp;base64,{encoded}", "width": image.width, "height": image.height}


def markdown_cell(text: str) -> str:
    """Text that neither ends a Markdown table's cell nor becomes markup."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "\\|").replace("\n", " ")


def _templates(autoescape: bool) -> Environment:
    loader = PackageLoader("batchscope.report")
    environment = Environment(
        loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = markdown_cell
    return environment


def _context(spec: dict[str, Any], study_folder: Path) -> dict[str, Any]:
    tables, figures = study_folder / "tables", study_folder / "figures"
    results = pd.read_parquet(tables / "results.parquet")
    contrasts = pd.read_csv(tables / "contrasts.csv", dtype={"model": str, "lr_policy": str}, keep_default_na=False)
    summary, cost = summarise(results), results[~results.shared]
    audit, reviews = (read_json(study_folder / "data" / f"{name}.json") for name in ("audit", "reviews"))
    models = names_in_order(spec, "model")
    certificates = {model: read_json(study_folder / "certificates" / f"{model}.json") for model in models}
    found = {review["name"]: review for review in reviews["reviews"]}
    return {
        "title": spec["report"].get("title") or spec["study"],
        "study": spec["study"],
        "answer": answer(spec, results, contrasts),
        "protocol": sections.protocol_table(spec, summary, cost, audit),
        "results": sections.results_table(spec, summary, reviews["baseline"]),
        "details": sections.details_table(summary),
        "contrasts": sections.contrasts_table(contrasts) if len(contrasts) else None,
        "accuracy": embedded(figures / "accuracy.png"),
        "training": [
            (model, [(what, embedded(figures / f"{what}_{model}.png")) for what in CURVES]) for model in models
        ],
        "noise": _noise(spec, study_folder) if measures_noise(spec) else None,
        "attention": sections.attention_table(spec, study_folder),
        "attention_rule": reviews["rule"],
        "reviews": [
            {
                "title": found[name]["title"],
                "text": _shortened(found[name]["text"]),
                "maps": [(model, embedded(figures / f"attention_{model}_{name}.png")) for model in models],
            }
            for name in spec["review_names"]
        ],
        "cost": sections.cost_table(cost),
        "cost_figure": embedded(figures / "cost.png"),
        "quality_cost_figure": embedded(figures / "quality_cost.png"),
        "certificate": sections.certificate_table(spec, certificates),
        "certificate_verdict": sections.certificate_verdict(certificates),
        "splits": sections.splits_table(audit),
        "duplicates": sections.duplicates_table(audit),
        "provenance": _provenance(study_folder / "runs" / spec["cells"][0]["run"] / "manifest.json"),
    }


def _noise(spec: dict[str, Any], study_folder: Path) -> dict[str, Any]:
    """Figures and table of the gradient noise scale."""
    names = [(model, study_folder / "figures" / f"noise_scale_{model}.png") for model in names_in_order(spec, "model")]
    history = pd.read_parquet(study_folder / "tables" / "history.parquet")
    return {
        "images": [(model, embedded(path)) for model, path in names],
        "table": sections.noise_table(spec, history),
        "kind": spec["noise_scale"],
    }


CURVES = ("training_accuracy", "training_loss", "validation_accuracy")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REVIEW else text[:LONGEST_REVIEW].rsplit(" ", 1)[0] + " …"


def _provenance(manifest: Path) -> sections.Table:
    """Versions, platform and revision of the study's first run, as far as its manifest holds them."""
    facts = read_json(manifest) if manifest.is_file() else {}
    git = facts.get("git") or {}
    rows = [[name, str(number)] for name, number in facts.get("versions", {}).items()]
    if facts.get("platform"):
        rows.append(["platform", str(facts["platform"])])
    if git:
        rows.append(["git revision", f"{git['revision'][:12]}{', with local changes' if git.get('dirty') else ''}"])
    return sections.Table(["software", "version"], rows)

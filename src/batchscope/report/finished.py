"""A finished study as the page reads it: its tables, and the files that it shows as they are."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from batchscope.certificate.records import Certificate
from batchscope.data.records import Audit, ReviewsFile
from batchscope.files import read_json
from batchscope.insight.records import AttentionMeasures
from batchscope.report.catalogue import attention_cells
from batchscope.report.findings import read_csv, read_findings, read_trends
from batchscope.report.spec import ReportSpec
from batchscope.report.sweep import chosen_by, read_choices
from batchscope.statistics.horizon import Horizon
from batchscope.statistics.records import Finding, Trend
from batchscope.statistics.sweep import Choice


class Finished(NamedTuple):
    """What the page of a study is made of, besides its figures."""

    grid: ReportSpec
    """The study with each sweep's chosen learning rate in place of the sweep."""
    results: pd.DataFrame
    """One row per cell."""
    horizons: list[Horizon]
    choices: list[Choice]
    """What the sweeps chose."""
    findings: list[Finding]
    """Every contrast under every estimand."""
    trends: list[Trend]
    pairs: pd.DataFrame
    """All pairs of batch sizes."""
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    noise_scale: pd.DataFrame
    branches: pd.DataFrame
    """One row per branch of a run at a larger batch; none in a study without branches."""
    provenance: pd.DataFrame
    """One row per run, all text; unknown values are empty."""
    audit: Audit
    reviews: ReviewsFile
    certificates: dict[str, Certificate]
    """Model → its certificate."""
    measures: dict[str, AttentionMeasures]
    """Run whose attention is shown → its measures."""

    @classmethod
    def read(cls, spec: ReportSpec, folder: Path) -> "Finished":
        """The study in a folder. Raises FileNotFoundError if a file is missing."""
        tables = folder / "tables"
        results = pd.read_parquet(tables / "results.parquet")
        grid = chosen_by(spec, results)
        shown = [cell.run for model in spec.model_names for cell in attention_cells(grid, model)]
        return cls(
            grid=grid,
            results=results,
            horizons=[Horizon(*row) for row in read_csv(tables, "horizon").itertuples(index=False, name=None)],
            choices=read_choices(tables),
            findings=read_findings(folder),
            trends=read_trends(folder),
            pairs=pd.read_parquet(tables / "pairs.parquet"),
            per_class=read_csv(tables, "classes"),
            confusion=read_csv(tables, "confusion"),
            noise_scale=read_csv(tables, "noise_scale"),
            branches=read_csv(tables, "branches"),
            provenance=pd.read_csv(tables / "provenance.csv", dtype=str, keep_default_na=False),
            audit=read_json(folder / "data" / "audit.json"),
            reviews=read_json(folder / "data" / "reviews.json"),
            certificates={model: read_json(folder / "certificates" / f"{model}.json") for model in spec.model_names},
            measures={run: read_json(folder / "runs" / run / "attention" / "measures.json") for run in shown},
        )

"""The contrasts and trends of a study, read back from its tables."""

from pathlib import Path

import pandas as pd

from batchscope.statistics.records import Finding, Trend


def read_findings(study_folder: Path) -> list[Finding]:
    """The rows of ``tables/contrasts.parquet``. Raises FileNotFoundError where it is missing."""
    table = pd.read_parquet(study_folder / "tables" / "contrasts.parquet")
    return [Finding(*row) for row in table[list(Finding._fields)].itertuples(index=False, name=None)]


def read_trends(study_folder: Path) -> list[Trend]:
    """The rows of ``tables/omnibus.parquet``. Raises FileNotFoundError where it is missing."""
    table = pd.read_parquet(study_folder / "tables" / "omnibus.parquet")
    return [Trend(*row) for row in table[list(Trend._fields)].itertuples(index=False, name=None)]

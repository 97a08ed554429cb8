"""The tables of a study, read back: its CSV files, contrasts and trends."""

from pathlib import Path

import pandas as pd

from batchscope.statistics.records import Finding, Trend

TEXT: tuple[str, ...] = ("model", "lr_policy", "budget", "run", "class", "label", "prediction", "edge", "open_ends")
TEXT += ("runs", "attention", "between", "reason", "removed", "layer_set")
"""Columns that hold text whatever it looks like: a model may be called 1 or NA."""


def read_csv(tables: Path, name: str) -> pd.DataFrame:
    """``{name}.csv`` in ``tables``; only an empty number is missing, never a name. Raises FileNotFoundError."""
    table = pd.read_csv(tables / f"{name}.csv", dtype=dict.fromkeys(TEXT, str), na_values=[""], keep_default_na=False)
    return table.assign(**{column: table[column].fillna("") for column in TEXT if column in table})


def read_findings(study_folder: Path) -> list[Finding]:
    """The rows of ``tables/contrasts.parquet``. Raises FileNotFoundError where it is missing."""
    table = pd.read_parquet(study_folder / "tables" / "contrasts.parquet")
    return [Finding(*row) for row in table[list(Finding._fields)].itertuples(index=False, name=None)]


def read_trends(study_folder: Path) -> list[Trend]:
    """The rows of ``tables/omnibus.parquet``. Raises FileNotFoundError where it is missing."""
    table = pd.read_parquet(study_folder / "tables" / "omnibus.parquet")
    return [Trend(*row) for row in table[list(Trend._fields)].itertuples(index=False, name=None)]

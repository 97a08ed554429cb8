"""A table of the page and of the summary, as text: both render the same ones."""

from typing import NamedTuple

import pandas as pd


class Table(NamedTuple):
    """Rows of text. Columns that start with `#` hold numbers. A first cell that repeats the one above is left blank."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


def by_policy(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with model and policy together, each in their order of appearance."""
    order = frame.assign(**{f"_{key}": pd.factorize(frame[key])[0] for key in ("model", "lr_policy")})
    return order.sort_values(["_model", "_lr_policy"], kind="stable").drop(columns=["_model", "_lr_policy"])

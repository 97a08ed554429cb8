"""A table of the page and of the summary, as text: both render the same ones."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import pandas as pd

R = TypeVar("R")


class Table(NamedTuple):
    """Rows of text. Columns that start with `#` hold numbers. A first cell that repeats the one above is left blank."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


def by_policy(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with model, policy and budget together, each in their order of appearance."""
    ranks = {f"_{key}": pd.factorize(frame[key])[0] for key in ("model", "lr_policy", "budget")}
    return frame.assign(**ranks).sort_values(list(ranks), kind="stable").drop(columns=list(ranks))


def together(rows: Sequence[R]) -> list[R]:
    """Rows of named tuples with model, policy and budget together, each in their order of appearance."""
    keys = ("model", "lr_policy", "budget")
    ranks = {
        key: {value: n for n, value in enumerate(dict.fromkeys(getattr(row, key) for row in rows))} for key in keys
    }
    return sorted(rows, key=lambda row: [ranks[key][getattr(row, key)] for key in keys])


def groups(frame: pd.DataFrame, *further: str) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """First cells and rows of every model, policy, budget and batch size, and of every value of ``further`` columns.

    The cells are those of ``labels``; a study with one budget does not name it.
    """
    keys = ["model", "lr_policy", "budget", "target_batch_size"]
    for key, group in by_policy(frame).groupby([*keys, *further], sort=False):
        model, policy, budget, batch, *rest = (str(part) for part in key)
        named = [budget] if several_budgets(frame) else []
        yield [model, policy, *named, f"{int(batch):,}", *rest], group


def labels(frame: pd.DataFrame) -> list[str]:
    """Headings of the cells that ``groups`` begins a row with."""
    return ["model", "LR policy", *(["budget"] if several_budgets(frame) else []), "#batch size"]


def several_budgets(frame: pd.DataFrame) -> bool:
    """Whether the rows are of more than one budget."""
    return bool(frame.budget.nunique() > 1)

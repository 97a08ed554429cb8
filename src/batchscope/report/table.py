"""A table of the page and of the summary, as text: both render the same ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pandas as pd

R = TypeVar("R")


Scope = Mapping[str, Sequence[str]]
"""Filter of the page, such as ``batch``, → the values that a row or a mark is about."""
FILTERED = {"model": "model", "LR policy": "policy", "#batch size": "batch", "budget": "budget", "#seed": "seed"}
"""Column of a table → the filter of the page that it answers to."""


class Table(NamedTuple):
    """Rows of text. Columns that start with `#` hold numbers. A first cell that repeats the one above is left blank."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""
    scopes: Sequence[Scope] = ()
    """What each row is about, where its cells in the columns of ``FILTERED`` do not say it."""


def scopes(table: Table) -> list[Scope]:
    """What every row is about: the filters of the page hide those of which a value is not selected."""
    if table.scopes:
        return list(table.scopes)
    places = {FILTERED[column]: place for place, column in enumerate(table.columns) if column in FILTERED}
    return [{key: [row[place].replace(",", "")] for key, place in places.items()} for row in table.rows]


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

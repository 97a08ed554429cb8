"""Cells of the grid that belong together. Pure."""

from collections.abc import Iterable
from typing import Literal

from batchscope.report.spec import GridCell

Part = Literal["model", "batch", "policy", "budget", "seed"]


def cells_by(cells: Iterable[GridCell], *parts: Part) -> list[list[GridCell]]:
    """The cells that are equal in these parts, together; groups and members in order of appearance."""
    groups: dict[tuple[object, ...], list[GridCell]] = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell, part) for part in parts), []).append(cell)
    return list(groups.values())

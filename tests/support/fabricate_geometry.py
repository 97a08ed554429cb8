"""The geometry of a fabricated study: random measures around its checkpoints, and the real tables of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from batchscope.files import write_json
from batchscope.insight.geometry import Between, Compare, write_geometry
from batchscope.provenance.layout import Layout
from batchscope.report.spec import TablesSpec


def write_geometry_of(
    folder: Path, spec: TablesSpec, eigenvalues: int = 2, change: Callable[[dict[str, Any]], Any] = lambda found: None
) -> None:
    """Write ``geometry.json`` of every run, each changed by ``change``, and the tables."""
    dice = np.random.default_rng(5)
    layout = Layout(folder)
    for cell in spec.cells:
        if not cell.shared:
            part = _around(float(np.exp(dice.normal())) * cell.batch**0.3, eigenvalues)
            found: dict[str, Any] = {"asked": 64, "examples": 64, "parameters": 10, "best": part, "last": part}
            change(found)
            write_json(layout.run(cell.run) / "geometry.json", found)
    write_geometry(spec.cells, layout, 9, lambda model: _compared(dice))


def _around(size: float, eigenvalues: int) -> dict[str, Any]:
    plain = {"average": 0.01 * size, "average_standard_error": 0.001, "one_step": 0.02 * size, "adaptive": 0.3 * size}
    return {
        "epoch": 1,
        "update": 2,
        "loss": 0.2,
        "correct": 60,
        "gradient_norm": 0.5,
        "weight_norm": 30.0,
        "distance": 2.0 + size,
        "logit_size": 1.5,
        "plain": plain,
        "normalised": plain | {"average": -0.001, "adaptive": 0.1 / size},
        "eigenvalues": [40.0 * size / number for number in range(1, eigenvalues + 1)],
        "hessian_products": 30,
    }


def _compared(dice: np.random.Generator) -> Compare:
    at = np.linspace(0, 1, 7)

    def between(one: str, other: str) -> Between:
        hill = float(dice.uniform(0, 0.5)) * 4 * at * (1 - at)
        return Between(at, 0.2 + 0.1 * at + hill, float(dice.uniform(2, 9)), float(dice.uniform(0.8, 1)), 64)

    return between

"""The cells that a study's measures compare: of each learning-rate sweep the one that validation chose."""

from collections.abc import Sequence

from batchscope.evaluation.records import Metrics
from batchscope.files import read_json
from batchscope.provenance.layout import Layout
from batchscope.report.spec import GridCell, TablesSpec
from batchscope.statistics.sweep import choices, chosen_grid, chosen_rates, trials


def chosen_cells(cells: Sequence[GridCell], layout: Layout) -> tuple[GridCell, ...]:
    """The cells of the grid, of each sweep those with the learning rate that validation chose, under its name."""
    counts = {}
    for cell in cells:
        if cell.candidate_of is not None:
            metrics: Metrics = read_json(layout.run(cell.run) / "metrics.json")
            best = metrics["validation"]["best"]
            counts[cell.run] = best["correct"], best["examples"]
    rates = chosen_rates(choices(trials(tuple(cells), counts)))
    return chosen_grid(TablesSpec(cells=tuple(cells)), rates).cells

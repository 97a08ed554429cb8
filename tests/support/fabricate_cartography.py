"""The training examples of a fabricated study: random probabilities of their labels, and the real tables of them."""

import json
from pathlib import Path

import numpy as np

from batchscope.insight.cartography import map_examples
from batchscope.insight.spec import CartographySpec
from batchscope.insight.stored_cartography import FILE, Dynamics, EpochEnd, store_dynamics
from batchscope.report.spec import TablesSpec


def write_cartography(folder: Path, spec: TablesSpec, examples: int) -> None:
    """``cartography.parquet`` of every run, whose examples have a difficulty of their own, and the tables.

    An easy example is learned in the first epoch, a hard one never; seed and batch size shift each a little.
    """
    difficulty = np.random.default_rng(3).normal(size=examples)
    for number, cell in enumerate(spec.cells):
        path = folder / "runs" / cell.run
        if cell.shared:
            continue
        history = (path / "history.jsonl").read_text(encoding="utf-8").splitlines()
        lines = [line for line in map(json.loads, history) if line["kind"] == "epoch"]
        ends = [EpochEnd(line["epoch"], line["update"], line["samples"]) for line in lines]
        dice = np.random.default_rng(number)
        learned = 1.5 * np.arange(1, len(ends) + 1) / (1 + 0.2 * spec.batch_sizes.index(cell.batch))
        logit = learned - 2 * difficulty[:, None] + dice.normal(0, 0.5, (examples, len(ends)))
        probability = (1 / (1 + np.exp(-logit))).astype(np.float32)
        ids, label = np.arange(examples) * 3, np.arange(examples) % 2
        store_dynamics(Dynamics(max(examples, 60), ends, ids, label, probability, probability > 0.5), path / FILE)
    map_examples(CartographySpec(cells=spec.cells), folder)

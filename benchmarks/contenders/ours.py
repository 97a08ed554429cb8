"""Batchscope: the training of the workflow's ``train`` rule, with a budget in updates."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchscope.config.study import Study
from batchscope.files import read_json
from batchscope.training.loop import train as train_run
from benchmarks.work import Work

REPORTED = (
    "precision", "physical_batch_size", "training_seconds", "validation_seconds", "update_seconds_p50",
    "samples_per_second", "trial",
)  # fmt: skip


def train(work: Work, observe: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
    """``observe`` sees each line of the history as it is written."""
    study = Study.from_mapping(
        {
            "study": "benchmark",
            "data": {"source": "synthetic"},  # the tokens are there already
            "models": {"model": {"checkpoint": str(work.checkpoint)}},
            "target_batch_sizes": [work.target_batch_size],
            "physical_batch_size": work.physical_batch_size,
            "lr_policies": {"constant": {"base_lr": work.learning_rate}},
            "seeds": [work.seed],
            "budget": {"updates": work.updates},
            "optimizer": {"name": "adam"},
            "precision": work.precision,
            "device": work.device,
        }
    )
    [spec] = study.train_specs().values()
    with tempfile.TemporaryDirectory() as folder:
        run, state = Path(folder) / "run", Path(folder) / "state"
        train_run(spec, "benchmark", study.train_settings(), work.tokens, run, state, observe)
        facts = read_json(run / "train.json")
    work.facts.update({key: facts[key] for key in REPORTED})
    work.facts["validation"] = facts["best_validation"]

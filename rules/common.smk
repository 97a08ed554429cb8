# Reads and checks the config; names folders, runs and specs. No rules here, and no logic: that is in batchscope.study.

import re
import sys
from os import environ, pathsep
from pathlib import Path

from snakemake.exceptions import WorkflowError

SOURCE = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE))

from batchscope.errors import UserError
from batchscope.fingerprint import canonical_json, code_hash
from batchscope.report.catalogue import figure_names
from batchscope.study import Cell, Study

# Jobs run this checkout's package, with this Python unless a conda environment is activated in front of it.
environ["PYTHONPATH"] = pathsep.join(
    filter(None, [str(SOURCE), environ.get("PYTHONPATH")])
)
environ["PATH"] = pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])

CONTENT_MEMORY = Path("results/.content.json")

try:
    STUDY = Study.from_mapping(config)
    TRAIN_SPECS = STUDY.train_specs(CONTENT_MEMORY)
    RUN_OF_CELL = STUDY.runs(CONTENT_MEMORY)
    CORPUS_SPEC = STUDY.corpus_spec(CONTENT_MEMORY)
    TOKENS_SPECS = {
        model: STUDY.tokens_spec(model, CONTENT_MEMORY) for model in STUDY.models
    }
    REPORT_SPEC = STUDY.report_spec(CONTENT_MEMORY)
except UserError as error:
    raise WorkflowError(f"batchscope: {error}")

STUDY_FOLDER = f"results/{STUDY.study}"
TOKENS = f"{STUDY_FOLDER}/tokens/{{model}}"
RUN = f"{STUDY_FOLDER}/runs/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}"
RUNS = list(dict.fromkeys(RUN_OF_CELL.values()))
# What a training does for its later stages while it has torch in memory. Their jobs compute what is not exactly theirs.
AHEAD = canonical_json(
    {
        "evaluate": {
            "spec": STUDY.evaluation_spec(),
            "code": code_hash("batchscope.evaluation.evaluate"),
        },
        "attention": {
            "spec": STUDY.attention_spec(),
            "code": code_hash("batchscope.insight.attention"),
            "reviews": f"{STUDY_FOLDER}/data/reviews.json",
        },
    }
)
GPU = 0 if STUDY.device == "cpu" else 1
GPUS_PER_TRAINING = GPU * STUDY.gpus
MODEL_THREADS = 1 if STUDY.device == "cpu" else 2


def one_of(values):
    """Wildcard constraint: exactly these."""
    return "|".join(re.escape(str(value)) for value in values)


def cell(wildcards):
    """The cell that a run's path names."""
    return Cell(
        wildcards.model, int(wildcards.batch), wildcards.policy, int(wildcards.seed)
    )


def of_all_runs(file):
    """A file of every run."""
    return [f"{STUDY_FOLDER}/runs/{run.path}/{file}" for run in RUNS]


def maps_of_all_runs():
    """Every attention map of every run."""
    return [
        f"{STUDY_FOLDER}/runs/{run.path}/attention/{review}_{part}.png"
        for run in RUNS
        for review in STUDY.review_names()
        for part in ["last", "layers"]
    ]


wildcard_constraints:
    model=one_of(STUDY.models),
    batch=one_of(STUDY.target_batch_sizes),
    policy=one_of(STUDY.lr_policies),
    seed=one_of(STUDY.seeds),

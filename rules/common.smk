# Reads and checks the config; names folders, runs and specs. No rules here, and no logic: that is in batchscope.config.study.

import atexit
import gc
import re
import sys
from os import environ, pathsep
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile, apply_wildcards

# Snakemake makes a job for every stage of every run and forgets none: looking for garbage among them, and once more at
# the end, is a third of the time that a grid of thousands takes to plan.
gc.set_threshold(200_000, 50, 50)
atexit.register(gc.freeze)

SOURCE = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE))

from batchscope.errors import UserError
from batchscope.provenance.fingerprint import canonical_json, code_hash
from batchscope.report.catalogue import figure_names
from batchscope.provenance.stages import STAGES, strangers
from batchscope.config.study import Cell, Study

# Jobs run this checkout's package, with this Python unless a conda environment is activated in front of it.
environ["PYTHONPATH"] = pathsep.join(
    filter(None, [str(SOURCE), environ.get("PYTHONPATH")])
)
environ["PATH"] = pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])

CONTENT_MEMORY = Path("results/.content.json")

try:
    STUDY = Study.from_mapping(config)
    SPECS = STUDY.job_specs(CONTENT_MEMORY)
    RUNS = list(dict.fromkeys(STUDY.runs(CONTENT_MEMORY).values()))
except UserError as error:
    raise WorkflowError(f"batchscope: {error}")
CODE = {verb: code_hash(stage.module) for verb, stage in STAGES.items()}

# Every job that runs a model shares its GPU, not the trainings alone; none of the results depends on it.
environ["BATCHSCOPE_RUNS_PER_GPU"] = str(STUDY.runs_per_gpu)

STUDY_FOLDER = f"results/{STUDY.study}"
TOKENS = f"{STUDY_FOLDER}/tokens/{{model}}"
RECORDS = f"{STUDY_FOLDER}/fingerprints"
RUN = f"{STUDY_FOLDER}/runs/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}"
# What a training does for its later stages while it has torch in memory. Their jobs compute what is not exactly theirs.
AHEAD = canonical_json(
    {
        "evaluate": {
            "spec": STUDY.evaluation_spec(),
            "code": CODE["evaluate"],
        },
        "attention": {
            "spec": STUDY.attention_spec(),
            "code": CODE["attention"],
            "reviews": f"{STUDY_FOLDER}/data/reviews.json",
        },
    }
)
GPU = 0 if STUDY.device == "cpu" else 1
GPUS_PER_TRAINING = GPU * STUDY.gpus


def growing(amount):
    """A resource of which every retry asks for more: once, twice, three times as much."""
    return lambda wildcards, attempt: amount * attempt


def one_of(values):
    """Wildcard constraint: exactly these."""
    return "|".join(re.escape(str(value)) for value in values)


def cell(wildcards):
    """The cell that a run's path names. WorkflowError where the study has none like it."""
    named = Cell(
        wildcards.model, int(wildcards.batch), wildcards.policy, int(wildcards.seed)
    )
    if f"train/{named.path}" not in SPECS:
        raise WorkflowError(f"batchscope: the study has no run {named.path}")
    return named


def of_runs(runs, file):
    """A file of each of these runs."""
    return [f"{STUDY_FOLDER}/runs/{run.path}/{file}" for run in runs]


def of_all_runs(file):
    """A file of every run."""
    return of_runs(RUNS, file)


def of_runs_with_maps(file):
    """A file of every run whose attention maps belong to the study; the rule draws those of any run."""
    return of_runs(filter(STUDY.draws_maps, RUNS), file)


# Of batch sizes and seeds there may be thousands, and Snakemake would scan a list of them for every file; `cell` refuses
# what is not in the study.
wildcard_constraints:
    model=one_of(STUDY.models),
    batch=r"[1-9]\d*",
    policy=one_of(STUDY.lr_policies),
    seed=r"0|[1-9]\d*",


def forcing(strange_files, log):
    """An input function that names no file; it forces its job where Snakemake would not see what its record tells."""

    def no_files(wildcards):
        job = apply_wildcards(log, wildcards)
        job = job.removeprefix(f"{STUDY_FOLDER}/logs/").removesuffix(".log")
        if job in strange_files:
            file = strange_files[job]
            metadata = workflow.persistence.metadata(IOFile(file))
            now = {repr(SPECS[job]), repr(CODE[job.partition("/")[0]])}
            if metadata is None or now <= set(metadata.params or ()):
                workflow.dag.forcefiles.add(file)
        return []

    return no_files


def compare_with_records():
    """Force the jobs whose files were made of another spec or other code than the config's, by the records they left.

    To be called when all rules are known. Jobs on a cluster have been compared.
    """
    if workflow.is_main_process:
        strange_files = dict(strangers(Path(STUDY_FOLDER), SPECS, CODE))
        for step in workflow.rules if strange_files else []:
            if step.log:
                step.set_input(forcing(strange_files, str(step.log[0])))

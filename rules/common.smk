# Reads and checks the config; names folders, runs and specs. No rules here, and no logic: that is in batchscope.config.study.

import gc
import re
import sys
from functools import wraps
from os import environ, pathsep
from pathlib import Path
from shlex import quote

from snakemake import __version__ as snakemake_version
from snakemake.common import get_function_params, overwrite_function_params
from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile, apply_wildcards
from snakemake.logging import logger
from snakemake.resources import Resource
from snakemake_interface_executor_plugins.executors.real import RealExecutor

# `compare_with_records` uses internals of Snakemake, which a minor release may change.
if not snakemake_version.startswith("9.27."):
    raise WorkflowError(
        f"batchscope: this is Snakemake {snakemake_version}; Batchscope is tested with 9.27 and uses internals of it. "
        "Install the pinned release: pip install snakemake==9.27.1"
    )

# Another workflow may use this one as a module.
if not (HOME / "src").is_dir():
    raise WorkflowError(
        f"batchscope: {HOME} is not a folder with Batchscope's package in src/. Clone the repository, and give the module the "
        "clone's Snakefile"
    )
if workflow.modifier.path_modifier.replace_prefix("results/") != "results/":
    raise WorkflowError(
        "batchscope: the module statement changes the paths of files, but a study is always in results/STUDY. Remove `prefix:` "
        "and `replace_prefix:`, and name the study with `study:` in its config"
    )

SOURCE = HOME / "src"
sys.path.insert(0, str(SOURCE))

from batchscope.cli.failures import is_told
from batchscope.config.study import Study
from batchscope.config.text import read_mapping
from batchscope.errors import UserError
from batchscope.files import DamagedFileError
from batchscope.provenance.code import code_hash
from batchscope.provenance.donors import keep_donors
from batchscope.provenance.expected import training_examples_on_disk
from batchscope.provenance.jobs import (
    JOB_FILES,
    fingerprints,
    read_job_file,
    write_job_file,
)
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import STAGES, stale_jobs, verb_of
from batchscope.report.catalogue import PLAIN_TABLES, figure_names

logger.addFilter(is_told)

# Jobs run this checkout's package, with this Python unless a conda environment is activated in front of it.
environ["PYTHONPATH"] = pathsep.join(
    filter(None, [str(SOURCE), environ.get("PYTHONPATH")])
)
environ["PATH"] = pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])


def quote_python(executors):
    """Let executors quote the path of Python: they write it into shell lines as it is, also with a blank or a quote.

    Once per process: a workflow may use two modules made of this Snakefile.
    """
    for executor in executors:
        path = vars(executor).get("get_python_executable")
        if path and not hasattr(path, "__wrapped__"):

            @wraps(path)
            def quoted(self, path=path):
                return quote(path(self))

            executor.get_python_executable = quoted
        quote_python(executor.__subclasses__())


quote_python(RealExecutor.__subclasses__())

# The default collects garbage so often that it takes a tenth of the time of a dry run of thousands of jobs.
gc.set_threshold(100_000, 50, 100)


def known(function, called=None):
    """The function with its signature remembered, which Snakemake works out anew for every job: a tenth of a dry run.

    `called` is what is called in its place: of a method, the bound one, which has no `self`.
    """
    overwrite_function_params(function, get_function_params(called or function))
    return function


known(Resource.evaluate, called=Resource("gpu", 1).evaluate)

REFERENCE = HOME / "config/config.yaml"
try:
    # Snakemake takes some mistakes in silence, such as a key that is there twice, and has a traceback for others.
    for file in map(Path, workflow.configfiles or [REFERENCE]):
        read_mapping(file, f"the config {file}")
except UserError as error:
    raise WorkflowError(f"batchscope: {error}")

if not workflow.config_settings.configfiles:

    configfile: REFERENCE


CONTENT_MEMORY = Path("results/.content.json")

try:
    STUDY = Study.from_mapping(config)
    STUDY_FOLDER = f"results/{STUDY.study}"
    # Stage → hash of its code. To read it takes a second, for which a mistake in the config need not wait.
    CODE = {verb: code_hash(stage.module) for verb, stage in STAGES.items()}
    # Once the data is divided, a target batch size above the training examples is left out, and log, plan and report say so.
    EXAMPLES = training_examples_on_disk(
        Layout(Path(STUDY_FOLDER)), fingerprints(STUDY.data_specs(CONTENT_MEMORY)), CODE
    )
    STUDY = STUDY.without_batches_above(EXAMPLES)
    JOB_SPECS = STUDY.job_specs(CONTENT_MEMORY)
    RUNS = list(dict.fromkeys(STUDY.runs(CONTENT_MEMORY).values()))
    BRANCHED_RUNS = STUDY.branched_runs(CONTENT_MEMORY)
    EMBEDDED_CELLS = STUDY.embedded_cells(CONTENT_MEMORY)
except (UserError, DamagedFileError) as error:
    raise WorkflowError(f"batchscope: {error}")
if STUDY.too_large:
    logger.warning(f"batchscope: {JOB_SPECS['report'].too_large_in_words(EXAMPLES)}")

# What Snakemake compares between runs: of each job the fingerprint of its spec, and CODE of its stage. No text of
# the config enters a rule, so that braces in it are never wildcards.
SPECS = fingerprints(JOB_SPECS)
JOBS = write_job_file(
    Path(environ.get(JOB_FILES) or Layout(Path(STUDY_FOLDER)).job_files),
    STUDY.study,
    JOB_SPECS,
    CODE,
    STUDY.train_settings(),
)

# Job → one of its files, where these were made of another spec or other code. Jobs on a cluster have been compared.
STALE = (
    dict(stale_jobs(Layout(Path(STUDY_FOLDER)), SPECS, CODE))
    if workflow.is_main_process
    else {}
)

# Every job that runs a model shares its GPU, not the trainings alone; none of the results depends on it.
environ["BATCHSCOPE_RUNS_PER_GPU"] = str(STUDY.runs_per_gpu)

TOKENS = f"{STUDY_FOLDER}/tokens/{{model}}"
# A run's path below runs/, as wildcards, in a job's shell line and in words; a study of several budgets names them.
RUN_NAME = STUDY.run_pattern
RUN = f"{STUDY_FOLDER}/runs/{RUN_NAME}"
RUN_OF_JOB = RUN_NAME.replace("{", "{wildcards.")
RUN_IN_WORDS = (
    "{wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, "
    + ("budget {wildcards.budget}, " if STUDY.several_budgets else "")
    + "seed {wildcards.seed}"
)
GPU = 0 if STUDY.device == "cpu" else 1
GPUS_PER_TRAINING = GPU * STUDY.gpus


@known
def job_file(wildcards, output):
    """The job file. A parameter function that takes `output` is not compared between runs: another file reruns nothing."""
    return JOBS


# Only a cluster ends a job at its runtime. Neither function is compared between runs.
LIMIT = known(
    (lambda wildcards, resources: resources.runtime)
    if workflow.remote_exec
    else (lambda wildcards, output: "inf")
)


def command(job, options=""):
    """A rule's shell line: the verb of its job, whose name may hold wildcards. It is the same for every job file."""
    words = f"python -m batchscope {verb_of(job)} --jobs {{params.jobs:q}} --job {job}"
    return f"{words} {options}".rstrip() + " > {log:q} 2>&1"


def growing(amount):
    """A resource of which every retry asks for more: once, twice, three times as much."""
    return known(lambda wildcards, attempt: amount * attempt)


def one_of(values):
    """Wildcard constraint: exactly these."""
    return "|".join(re.escape(str(value)) for value in values)


def spec_of(verb):
    """The spec of a run's job, by its wildcards. WorkflowError where the study has no such run."""

    @known
    def fingerprint(wildcards):
        run = apply_wildcards(RUN_NAME, wildcards)
        if f"{verb}/{run}" not in SPECS:
            raise WorkflowError(f"batchscope: the study has no run {run}")
        return SPECS[f"{verb}/{run}"]

    return fingerprint


def of_runs(runs, file):
    """A file of each of these runs."""
    return [f"{STUDY_FOLDER}/runs/{run.path}/{file}" for run in runs]


def of_all_runs(file):
    """A file of every run."""
    return of_runs(RUNS, file)


def of_branched_runs(file):
    """A file of every run that the study branches."""
    return of_runs(BRANCHED_RUNS, file)


def of_embedded_runs(file):
    """A file of every run whose test examples are drawn as points."""
    return [f"{STUDY_FOLDER}/runs/{cell.run}/{file}" for cell in EMBEDDED_CELLS]


def of_runs_with_maps(file):
    """A file of every run whose attention maps belong to the study; the rule draws those of any run."""
    return of_runs(filter(STUDY.draws_maps, RUNS), file)


# Of batch sizes and seeds there may be thousands, and Snakemake would scan a list of them for every file; `spec_of` refuses
# what is not in the study.
wildcard_constraints:
    model=one_of(STUDY.models),
    batch=r"[1-9]\d*",
    policy=one_of(STUDY.trained_policies),
    budget=one_of(STUDY.named_budgets),
    seed=r"0|[1-9]\d*",


def forcing(stale, log):
    """An input function that names no file; it forces its job where Snakemake would not see what its record tells."""

    def no_files(wildcards):
        job = apply_wildcards(log, wildcards)
        job = job.removeprefix(f"{STUDY_FOLDER}/logs/").removesuffix(".log")
        if job in stale:
            metadata = workflow.persistence.metadata(IOFile(stale[job]))
            now = {repr(SPECS[job]), repr(CODE[verb_of(job)])}
            if metadata is None or now <= set(metadata.params or ()):
                workflow.dag.forcefiles.add(stale[job])
        return []

    return no_files


def compare_with_records():
    """Force the jobs whose files were made of another spec or other code than the config's, by the records they left.

    To be called when all rules are known.
    """
    for step in workflow.rules if STALE else []:
        if step.log:
            step.set_input(forcing(STALE, str(step.log[0])))


def keep_what_others_take():
    """Keep the finished runs that one training will overwrite and another take; to be called before the first job."""
    try:
        if STALE:
            keep_donors(read_job_file(Path(JOBS)), STALE)
    except UserError as error:
        raise WorkflowError(f"batchscope: {error}")

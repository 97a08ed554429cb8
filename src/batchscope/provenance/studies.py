"""Which study a person means: by its config, its folder, or its name."""

from dataclasses import replace
from pathlib import Path

import yaml

from batchscope.errors import UserError
from batchscope.provenance.jobs import JobFile, job_files, read_job_file
from batchscope.provenance.layout import RESULTS, Layout
from batchscope.provenance.stages import STAGES, subject_of, verb_of
from batchscope.report.spec import TablesSpec

CONFIGS = (".yaml", ".yml", ".json")


def find_study(named: Path) -> Layout:
    """The study of a config file (below ``results/`` of the working directory), a folder or a name.

    Raises UserError where there is none, or where the workflow was never started for it.
    """
    folder = RESULTS / _study_of(named) if named.is_file() else named if named.is_dir() else RESULTS / named
    if not named.is_file() and not folder.is_dir():
        raise UserError(f"there is no study {named}: give its config file, or its folder such as results/demo")
    layout = Layout(folder)
    if not job_files(layout):
        if named.is_file() or layout.job_files.is_dir():
            raise UserError(f"the workflow was not started for {named} yet: {layout.job_files} holds no job file")
        raise UserError(f"{named} is not the folder of a study: it has no jobs/, which the workflow writes first")
    return layout


def _study_of(config: Path) -> str:
    """``study`` of a config. Raises UserError where it has none."""
    if config.suffix not in CONFIGS:
        raise UserError(f"{config} is neither a config ({', '.join(CONFIGS)}) nor the folder of a study")
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the config {config}: {' '.join(str(error).split())}") from None
    study = content.get("study") if isinstance(content, dict) else None
    if not isinstance(study, str) or not study or "/" in study:
        raise UserError(f"{config} names no study: it has no key `study` with a name")
    return study


def newest_job_file(layout: Layout) -> Path:
    """The job file of the workflow's last start. Raises UserError where there is none."""
    files = job_files(layout)
    if not files:
        raise UserError(f"{layout.job_files} holds no job file: start the workflow, which writes it")
    return files[-1]


def jobs_in(layout: Layout, path: Path) -> JobFile:
    """The jobs of a job file of a study, wherever its folder is. Raises UserError for a damaged one."""
    return replace(read_job_file(path), folder=layout.study)


def wanted_jobs(jobs: JobFile) -> list[str]:
    """The jobs that the workflow runs where no file is asked for by name, in the order of the job file."""
    wanted = []
    tables = jobs.spec("tables", TablesSpec)
    runs, first_seed = {cell.run for cell in tables.cells}, f"/seed{tables.seeds[0]}"
    for job in jobs.jobs:
        verb = verb_of(job)
        if STAGES[verb].output.startswith("runs/") and subject_of(job) not in runs:
            continue  # of a cell that reads the run of another one
        untracked = verb == "track" and jobs.plain(job).get("mode") == "disabled"
        without_maps = verb == "maps" and not jobs.settings.all_maps and not job.endswith(first_seed)
        if not untracked and not without_maps:
            wanted.append(job)
    return wanted

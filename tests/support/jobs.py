"""Jobs as the workflow starts them: a job file below ``results/``, and the verbs in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forked import Forked

from batchscope.config.study import Study
from batchscope.provenance.code import code_hash
from batchscope.provenance.jobs import JobFile, read_job_file, write_job_file
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import STAGES

RUN = "bert/bs16/constant/seed1"
MODULE = ("-m", "batchscope")


@cache
def codes() -> dict[str, str]:
    """The hashes of the code of every stage, as the workflow makes them."""
    return {verb: code_hash(stage.module) for verb, stage in STAGES.items()}


@dataclass
class Jobs:
    """The jobs of one study, in the folder where Snakemake would run."""

    folder: Path
    study: Study
    codes: dict[str, str]

    @property
    def layout(self) -> Layout:
        """The study's files."""
        return Layout(self.folder / "results" / self.study.study)

    def file(self) -> Path:
        """Write the job file; its path."""
        settings = self.study.train_settings()
        return write_job_file(self.layout.job_files, self.study.study, self.study.job_specs(), self.codes, settings)

    def read(self) -> JobFile:
        """The job file as a verb reads it."""
        return read_job_file(self.file())

    def words(self, job: str, options: tuple[object, ...]) -> list[str]:
        """The arguments of `batchscope` for a job."""
        return [job.partition("/")[0], "--jobs", str(self.file()), "--job", job, *map(str, options)]

    def fork(
        self, job: str, *options: object, before: Callable[[], object] | None = None, **environment: str
    ) -> Forked:
        """Start a job in a process that has the libraries already, for tests that are not about the start."""
        return Forked("batchscope", self.words(job, options), self.folder, os.environ | environment, before)

    def start(self, job: str, *options: object, program: tuple[str, ...] = MODULE, **environment: str):
        """Start a job; standard output and error apart."""
        return subprocess.Popen(
            [sys.executable, *program, *self.words(job, options)],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, job: str, *options: object, program: tuple[str, ...] = MODULE, **environment: str):
        """Run a job to its end, whatever that is."""
        process = self.start(job, *options, program=program, **environment)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def succeed(self, job: str, *options: object, program: tuple[str, ...] = MODULE, **environment: str):
        """Run a job that must succeed."""
        done = self.run(job, *options, program=program, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def jobs_of(folder: Path, config: dict, small_study=None) -> Jobs:
    """The jobs of a config, run in ``folder``; with the data of the small study, so that trainings can begin."""
    jobs = Jobs(folder, Study.from_mapping(config), dict(codes()))
    if small_study is not None:
        jobs.layout.study.mkdir(parents=True)
        for name in ("data", "tokens"):
            (jobs.layout.study / name).symlink_to(small_study.folder / name)
    return jobs

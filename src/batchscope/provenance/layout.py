"""Where the files of a study are, below ``results/{study}/``: every path that follows from a job's name."""

import re
from pathlib import Path
from typing import NamedTuple

from batchscope.errors import UserError

RESULTS = Path("results")
FINGERPRINTS = "fingerprints"
LOCKS = ".locks"
EPOCH_END = re.compile(r"epoch(\d+)-val_acc[\d.]+\.safetensors")
RUN_DEPTHS = (5, 4)
"""Folders of a run below ``runs/``: model, batch, policy, the budget where a study has several, and seed."""


def run_path(model: str, batch: int | str, policy: str, budget: str | None, seed: int | str) -> str:
    """Folder of a run below ``runs/``; ``budget`` is None in a study that has one."""
    return "/".join([model, f"bs{batch}", policy, *([] if budget is None else [budget]), f"seed{seed}"])


def run_files(name: str) -> tuple[str, ...]:
    """Patterns below a study's folder of a file that every run has."""
    return tuple(f"runs/{'*/' * depth}{name}" for depth in RUN_DEPTHS)


class Layout:
    """The files of one study. A run is named by its path below ``runs/``: ``bert/bs64/constant/seed1``."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.results = study.parent
        self.corpus = study / "data/corpus.parquet"
        self.split = study / "data/split.parquet"
        self.audit = study / "data/audit.json"
        self.reviews = study / "data/reviews.json"
        self.state = study / "state"
        """States of unfinished runs; Snakemake does not know this folder, so it outlives a failed job."""
        self.ready = study / "state/ready"
        """Results that a training computed for later stages of its run."""
        self.processes = study / "state/running"
        """Signs of life of the processes of jobs."""
        self.locks = self.results / LOCKS
        """Locks on trainings, by their fingerprint; two studies may want the same one."""
        self.tracking = study / "wandb"
        self.job_files = study / "jobs"

    @classmethod
    def of_run(cls, run_folder: Path) -> "Layout":
        """The study that a run's folder belongs to."""
        return cls(_folder_of_runs(run_folder).parent)

    @staticmethod
    def model_of_run(run_folder: Path) -> str:
        """The model that a run's folder belongs to."""
        return Layout.name_of_run(run_folder).partition("/")[0]

    @staticmethod
    def name_of_run(run_folder: Path) -> str:
        """A run's path below ``runs/``, by which its jobs are named."""
        return run_folder.absolute().relative_to(_folder_of_runs(run_folder)).as_posix()

    def tokens(self, model: str) -> Path:
        """Folder of a model's tokens."""
        return self.study / "tokens" / model

    def certificate(self, model: str) -> Path:
        """A model's certificate."""
        return self.study / "certificates" / f"{model}.json"

    def run(self, run: str) -> Path:
        """Folder of a run."""
        return self.study / "runs" / run

    def record(self, job: str) -> Path:
        """What the job's files were made of."""
        return self.study / FINGERPRINTS / f"{job}.json"

    def process(self, job: str) -> Path:
        """The sign of life of the job's process."""
        return self.processes / f"{job}.json"

    def log(self, job: str) -> Path:
        """What the job wrote to standard output and error."""
        return self.study / "logs" / f"{job}.log"

    def code_record(self, code: str) -> Path:
        """The description of a code that a record names."""
        return self.study / FINGERPRINTS / "code" / f"{code}.json"


class Trained(NamedTuple):
    """What a training wrote that later stages read; its run may be published yet or not."""

    best: Path
    last: Path
    history: Path
    epochs: dict[int, Path]
    """The checkpoints of the ends of epochs, as far as they were kept."""

    @property
    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints that every run keeps."""
        return {"best": self.best, "last": self.last}


def trained_in(folder: Path) -> Trained:
    """The files of a run in its folder."""
    return Trained(**checkpoints_of(folder), history=folder / "history.jsonl", epochs=epochs_in(folder))


def epochs_in(folder: Path) -> dict[int, Path]:
    """Epoch → the checkpoint of its end; those within an epoch are named by their update as well."""
    paths = sorted((folder / "checkpoints").glob("epoch*.safetensors"))
    return {int(named[1]): path for path in paths if (named := EPOCH_END.fullmatch(path.name))}


def states_of(state_folder: Path, fingerprint: str) -> list[Path]:
    """The folders of an unfinished training: one for each precision and kind of device in which it was begun."""
    return sorted(path for path in state_folder.glob(f"{fingerprint}-*") if path.is_dir())


def training_of(states: Path) -> str:
    """The fingerprint of the training that a folder of states belongs to."""
    return states.name.partition("-")[0]


def _folder_of_runs(run_folder: Path) -> Path:
    """The study's ``runs/`` above a run's folder. Raises UserError for a folder that is none of a run."""
    parents = run_folder.absolute().parents
    for depth in RUN_DEPTHS:
        if len(parents) >= depth and parents[depth - 1].name == "runs":
            return parents[depth - 1]
    raise UserError(f"{run_folder} is no run: its folder looks like results/demo/runs/bert/bs64/constant/seed1")


def checkpoints_of(run_folder: Path) -> dict[str, Path]:
    """The checkpoints of a finished run that later stages read."""
    return {name: run_folder / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}

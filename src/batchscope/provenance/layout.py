"""Where the files of a study are, below ``results/{study}/``: every path that follows from a job's name."""

from pathlib import Path

RESULTS = Path("results")
FINGERPRINTS = "fingerprints"
RUN_DEPTH = 4
"""Folders of a run below ``runs/``: model, batch, policy and seed."""


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
        self.locks = self.results / ".locks"
        """Locks on trainings, by their fingerprint; two studies may want the same one."""
        self.tracking = study / "wandb"
        self.job_files = study / "jobs"

    @classmethod
    def of_run(cls, run_folder: Path) -> "Layout":
        """The study that a run's folder belongs to."""
        return cls(run_folder.absolute().parents[RUN_DEPTH])

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

    def code_record(self, code: str) -> Path:
        """The description of a code that a record names."""
        return self.study / FINGERPRINTS / "code" / f"{code}.json"


def checkpoints_of(run_folder: Path) -> dict[str, Path]:
    """The checkpoints of a finished run that later stages read."""
    return {name: run_folder / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}

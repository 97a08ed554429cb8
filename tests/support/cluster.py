"""A real one-node SLURM cluster from the project's own script, and the workflow that submits to it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchscope.provenance.fingerprint import file_hash

SCRIPT = Path(__file__).parents[1] / "slurm/cluster.sh"
POLLING = Path(__file__).with_name("snakemake_polling.py")
RESTING = Path(__file__).with_name("resting")
CONFIGURATION = Path("/etc/slurm/slurm.conf")
PREFIX = "batchscope-slurm-"
PACKAGES = "slurm-wlm slurmdbd mariadb-server munge"
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]

# On a busy machine two threads spend their time waiting for each other.
ONE_THREAD = [f"{rule}=1" for rule in ("train", "certify", "evaluate", "attention", "tokenize")]
UPDATES = 24
# With this rest after each update no machine is fast enough for one attempt of a minute.
LONG_REST = 61 / UPDATES
RUN = "bert/bs64/constant/seed1"
STUDY: dict[str, Any] = {
    "study": "cluster",
    "data": {"source": "synthetic", "synthetic": {"reviews": 640}, "max_length": 64},
    "models": {
        "bert": {
            "architecture": "bert",
            "config": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
            "vocabulary_size": 500,
        }
    },
    "target_batch_sizes": [64],
    "physical_batch_size": 8,
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "seeds": [1],
    "budget": {"updates": UPDATES},
    "precision": "float32",
    "noise_scale": "full",
    "save_every": 2,
    "device": "auto",
}


@dataclass
class SlurmStudy:
    """The study in a folder of its own."""

    root: Path
    folder: Path
    rest: float = 0.0
    """Seconds that a training rests after each update."""

    def write_config(self) -> None:
        """Write the study's config."""
        (self.folder / "config.json").write_text(json.dumps(STUDY))

    def command(self, *arguments: object) -> list[str]:
        """Snakemake's command line."""
        snakemake = [sys.executable, POLLING, "--snakefile", self.root / "Snakefile"]
        config = ["--directory", self.folder, "--configfile", self.folder / "config.json", "--set-threads", *ONE_THREAD]
        return [str(part) for part in [*snakemake, *config, *arguments]]

    def on_slurm(self, *arguments: object, profile: Path | None = None) -> list[str]:
        """The command line that submits jobs. The first status check comes earlier than a site would like."""
        cluster = ["--workflow-profile", profile or self.root / "profiles/slurm"]
        return self.command(*cluster, "--slurm-init-seconds-before-status-checks", 3, "--latency-wait", 10, *arguments)

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command; stdout and stderr go together into ``output.log``."""
        resting = {"PYTHONPATH": str(RESTING), "SECONDS_OF_REST": str(self.rest)}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | resting
        with (self.folder / "output.log").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)

    def run(self, command: list[str]) -> str:
        """Run a command that must succeed; what it printed."""
        process = self.start(command)
        assert process.wait(timeout=900) == 0, self.output
        return self.output

    @property
    def output(self) -> str:
        """What the latest command printed."""
        return (self.folder / "output.log").read_text()

    @property
    def results(self) -> Path:
        """The study's folder."""
        return self.folder / "results/cluster"

    def states(self) -> list[str]:
        """Names of all states that stand there to go on from, oldest first."""
        return sorted(path.name for path in self.results.glob("state/*/state-*.pt"))

    @property
    def run_folder(self) -> Path:
        """The files of the training."""
        return self.results / "runs" / RUN

    def trained(self) -> dict[str, str]:
        """Hashes of what the training made."""
        files = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
        return {name: file_hash(self.run_folder / name) for name in files}


@dataclass(frozen=True)
class Job:
    """A row of ``sacct``: seconds since 1970, minutes."""

    number: str
    rule: str
    start: int
    end: int
    state: str
    tres: str

    @property
    def gpus(self) -> int:
        """How many `gpu` were allocated."""
        found = re.search(r"gres/gpu=(\d+)", self.tres)
        return int(found[1]) if found else 0


def accounted(folder: Path) -> list[Job]:
    """What the accounting database knows of the jobs started from a folder, in the order of their start."""
    columns = "JobID,Comment,Start,End,State,AllocTRES,WorkDir"
    table = subprocess.run(
        ["sacct", "--allocations", "--duplicates", "--noheader", "--parsable2", f"--format={columns}"],
        env=os.environ | {"SLURM_TIME_FORMAT": "%s"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split("|") for line in table.splitlines()]
    jobs = [
        Job(number, re.sub(r"^rule_|_wildcards_.*$", "", comment), int(start), int(end), state, tres)
        for number, comment, start, end, state, tres, place in rows
        if place == str(folder) and start.isdecimal() and end.isdecimal()
    ]
    return sorted(jobs, key=lambda job: job.start)


def stop_abandoned_cluster() -> None:
    """Stop the cluster of a test run that was killed before it could."""
    folder = CONFIGURATION.resolve().parent
    if CONFIGURATION.is_symlink() and folder.name.startswith(PREFIX):
        owner = folder / "owner"
        if not owner.exists() or not Path("/proc", owner.read_text()).exists():
            stop_cluster(folder)


def stop_cluster(folder: Path) -> None:
    """Stop a cluster and delete its folder."""
    subprocess.run([*AS_ROOT, SCRIPT, "stop", folder], check=True, timeout=180)
    subprocess.run([*AS_ROOT, "rm", "-rf", folder], check=True)


def obstacle() -> str | None:
    """Why no cluster can be started here."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "mariadbd", "munged")
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not installed; on Debian and Ubuntu: apt-get install {PACKAGES}"
    if AS_ROOT and subprocess.run([*AS_ROOT, "true"], capture_output=True, check=False).returncode != 0:
        return "only root can start slurmd, and `sudo -n` does not work"
    stop_abandoned_cluster()
    if CONFIGURATION.is_symlink() or CONFIGURATION.exists():
        return f"{CONFIGURATION} exists: this machine belongs to a SLURM cluster, which is left alone"
    return None


@contextmanager
def running_cluster(*options: str) -> Iterator[None]:
    """A cluster while the context lasts; skipped where there can be none, unless BATCHSCOPE_REQUIRE_SLURM is set."""
    if (reason := obstacle()) is not None:
        (pytest.fail if os.environ.get("BATCHSCOPE_REQUIRE_SLURM") else pytest.skip)(reason)
    # Not below pytest's own folder: munge runs as a user of its own, which that one keeps out.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / "owner").write_text(str(os.getpid()))
    try:
        subprocess.run([*AS_ROOT, SCRIPT, "start", folder, *options], check=True, timeout=180)
        yield
    finally:
        stop_cluster(folder)

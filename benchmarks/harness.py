"""Running a case: every measurement in a fresh process, the contenders in turn, round after round.

The harness itself loads no torch: it would be counted in the memory of what it starts.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchscope.files import read_json
from benchmarks.cases import Accuracy, Contender, Training
from benchmarks.work import Work

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = "benchmarks/results", "docs/benchmarks.md"
"""What the benchmarks write, from the root."""
DISTURBED = 0.15
"""Cores taken by other processes from which on a measurement on the CPU is repeated, whatever it says."""


@dataclass(frozen=True)
class Bench:
    """Where and how to measure."""

    folder: Path
    """For data, checkpoints and jobs."""
    repeats: int = 5
    threads: int = 2
    attempts: int = 3
    """Times that a measurement is made at most, where others disturb it."""

    def environment(self) -> dict[str, str]:
        """What every process is started with: this checkout's code, no network, a fixed number of threads."""
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }

    def do(self, task: str, **job: Any) -> dict[str, Any]:
        """A task of the worker, in a fresh process. RuntimeError with the end of its output if it fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            job_file, output = Path(folder) / "job.json", Path(folder) / "output.json"
            job_file.write_text(json.dumps(job, default=Work.to_dict), encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks.worker", task, job_file, output]
            self.run(command, folder=Path(folder), environment=self.environment())
            return read_json(output)

    def run(self, command: list[Any], folder: Path, environment: dict[str, str]) -> None:
        """Run a command in a folder to its end. RuntimeError with the end of its output if it fails."""
        finished = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if finished.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{finished.stdout[-3000:]}")

    def tokens(self, train: int, validation: int) -> Path:
        """A tokens folder of so many reviews."""
        return Path(self.do("prepare_tokens", folder=str(self.folder), train=train, validation=validation)["path"])

    def checkpoint(self, encoder: str, dropout: bool = True) -> Path:
        """A folder with an encoder's initial weights."""
        job = {"folder": str(self.folder), "encoder": encoder, "dropout": dropout}
        return Path(self.do("prepare_checkpoint", **job)["path"])

    def conditions(self, device: str, corpus: str) -> dict[str, Any]:
        """What is said of every result: hardware, versions, corpus, state of the code."""
        return {
            "machine": self.do("describe_machine", device=device, threads=self.threads),
            "corpus": corpus,
            "revision": revision(ROOT),
        }


def revision(root: Path) -> str:
    """The commit that is measured, and whether files differ from it, those aside that the benchmarks write themselves;
    empty outside a repository."""

    def git(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=False)

    commit = git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", ".", f":!{RESULTS}", f":!{PAGE}").returncode != 0
    return f"revision {commit}{'-dirty' if changed else ''}" if commit else ""


def corpus_name() -> str:
    """Where the reviews come from: IMDB where it is at hand, else the embedded corpus."""
    return "IMDB" if os.environ.get("BATCHSCOPE_IMDB") else "synthetic reviews"


def run_training(case: Training, bench: Bench) -> dict[str, Any]:
    """Gradients first, then the rounds, with those contenders alone whose gradient is ours."""
    work = Work(
        tokens=bench.tokens((case.warm_up + case.updates) * case.target_batch_size, validation=32),
        checkpoint=bench.checkpoint(case.encoder),
        target_batch_size=case.target_batch_size,
        updates=case.warm_up + case.updates,
        device=case.device,
        threads=bench.threads,
    )
    peers = [contender.module for contender in case.contenders if contender.module != "ours"]
    without_dropout = replace(work, checkpoint=bench.checkpoint(case.encoder, dropout=False))
    compared = bench.do("compare_gradients", work=without_dropout, contenders=peers)
    return bench.conditions(case.device, corpus_name()) | compared | {
        "case": asdict(case),
        "rounds": run_rounds(case, work, compared["gradients"], bench),
    }  # fmt: skip


def run_rounds(
    case: Training, work: Work, gradients: dict[str, dict[str, Any]], bench: Bench
) -> list[dict[str, dict[str, Any]]]:
    """Per round, label → measurement of every contender whose gradient passed."""
    admitted = [c for c in case.contenders if c.module == "ours" or gradients[c.module]["passed"]]
    for contender in case.contenders:
        if contender not in admitted:
            log.error(f"{case.name}: {contender.label} is not timed: its gradient is not ours")
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(1, bench.repeats + 1):
        rounds.append({})
        for contender in admitted:
            found = measure(contender, work, case.warm_up, bench)
            rounds[-1][contender.label] = found
            log.info(f"{case.name}, round {number}: {contender.label}, {found['samples_per_second']:.1f} samples/s")
    return rounds


def measure(contender: Contender, work: Work, warm_up: int, bench: Bench) -> dict[str, Any]:
    """One measurement; on the CPU made anew where other processes took part of the machine meanwhile."""
    job = replace(work, precision=contender.precision, physical_batch_size=contender.physical_batch_size)
    for attempt in range(1, bench.attempts + 1):
        found = bench.do("time_training", work=job, contender=contender.module, warm_up=warm_up)
        found["attempts"] = attempt
        if work.device == "cuda" or found["cores_taken_by_others"] < DISTURBED:
            break
        log.warning(f"{contender.label}: other processes took {found['cores_taken_by_others']:.2f} cores meanwhile")
    return found


def run_accuracy(case: Accuracy, bench: Bench) -> dict[str, Any]:
    """One training of each contender; counts, so that nobody rounds before the comparison."""
    work = Work(
        tokens=bench.tokens(case.updates * case.target_batch_size, case.validation),
        checkpoint=bench.checkpoint(case.encoder),
        target_batch_size=case.target_batch_size,
        updates=case.updates,
        device=case.device,
        threads=bench.threads,
        learning_rate=case.learning_rate,
        validate=True,
    )
    results = {}
    for contender in case.contenders:
        job = replace(work, precision=contender.precision, physical_batch_size=contender.physical_batch_size)
        found = bench.do("time_training", work=job, contender=contender.module, warm_up=1)
        score = found["facts"]["validation"]
        log.info(f"{case.name}: {contender.label}, {score['correct']} of {score['examples']}")
        results[contender.label] = {key: score[key] for key in ("correct", "examples")} | {
            key: found[key] for key in ("precision", "samples_per_second")
        }
    return bench.conditions(case.device, corpus_name()) | {"case": asdict(case), "results": results}

"""What the jobs of a plan will take: which find their work finished, and how long earlier jobs like them took."""

import csv
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from batchscope.files import read_json
from batchscope.provenance.fingerprint import canonical_json, file_hash, without_places
from batchscope.provenance.manifests import run_fingerprint, tokens_manifest
from batchscope.provenance.plan import PlannedJob
from batchscope.provenance.reuse import RUNS, TOKENS, manifests
from batchscope.provenance.stages import FOLDER, read_record
from batchscope.training.spec import TrainSpec

COPYING_SECONDS = 5.0
"""Start of a job that only takes over finished files; no measurement, but hardly ever more."""


def forecast(jobs: list[PlannedJob], results: Path = Path("results")) -> None:
    """Fill in ``reuses`` and ``seconds`` of every job."""
    _find_finished({job.name: job for job in jobs}, results)
    history = History(results)
    for job in jobs:
        job.seconds = COPYING_SECONDS if job.reuses else history.seconds(job)


# ------------------------------------------------------------------------------------------------- finished work


def _find_finished(jobs: dict[str, PlannedJob], results: Path) -> None:
    """Follow the fingerprints as the jobs will: corpus and split give those of tokens, tokens those of runs."""
    hash_of = cache(file_hash)
    index = {
        pattern: {manifest["fingerprint"]: folder for folder, manifest in manifests(results, pattern)}
        for pattern in (TOKENS, RUNS)
    }
    tokens: dict[str, Path | None] = {}
    for name, job in jobs.items():
        if name.startswith("tokenize/"):
            target = Path(job.command["output"])
            data = _data_folder(jobs, target.parents[1], results)
            found = None
            if data:
                files = (data / "corpus.parquet", data / "split.parquet")
                manifest = tokens_manifest(json.loads(job.command["spec"]), job.command["code"], *files)
                found = index[TOKENS].get(manifest["fingerprint"])
            found = None if found == target else found
            job.reuses = found.as_posix() if found else None
            tokens[target.as_posix()] = found
    for name, job in jobs.items():
        if name.startswith("train/"):
            folder = tokens.get(job.command["tokens"], Path(job.command["tokens"]))
            if folder and (folder / "train.arrow").is_file():
                spec = TrainSpec(**json.loads(job.command["spec"]))
                fingerprint = run_fingerprint(spec, job.command["code"], folder, hash_of)
                run = index[RUNS].get(fingerprint)
                job.reuses = run.as_posix() if run else None


def _data_folder(jobs: dict[str, PlannedJob], study: Path, results: Path) -> Path | None:
    """Where corpus and split stand as this study will have them: here, or in a study that made them of the same."""
    making = [job for job in (jobs.get("corpus"), jobs.get("split")) if job]
    if not making:
        return study / "data"
    for other in sorted(results.glob("*/data")):
        records = {job.name: read_record(other.parent / FOLDER / f"{job.name}.json") for job in making}
        same = all(
            (record := records[job.name])
            and record["code"] == job.command["code"]
            and canonical_json(record["spec"]) == job.command["spec"]
            for job in making
        )
        if same and "corpus" in records and other.parent != study:
            return other
    return None


# --------------------------------------------------------------------------------------------------- measurements


class History:
    """How long earlier jobs took, in all studies under ``results``."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.measured = cache(self._measured)
        self.trainings = cache(lambda: list(self._trainings()))

    def seconds(self, job: PlannedJob) -> float | None:
        """Median of the most similar earlier jobs: the same one, else of its model, else of its stage."""
        verb, _, subject = job.name.partition("/")
        if verb == "train":
            return self._training_seconds(job)
        earlier = self.measured(verb)
        study = Path(job.command["record"]).parts[1] if "record" in job.command else ""
        model = subject.partition("/")[0]
        for similar in (
            [seconds for where, what, seconds in earlier if (where, what) == (study, subject)],
            [seconds for _, what, seconds in earlier if what.partition("/")[0] == model],
            [seconds for _, _, seconds in earlier],
        ):
            if similar:
                return median(similar)
        return None

    def _training_seconds(self, job: PlannedJob) -> float | None:
        """Samples to train on at the pace of earlier runs of the model on this kind of device.

        Of those, the runs of the same target batch size if there are some; the pace is wall-clock, validation included.
        On top comes what a job takes to start and to write its files.
        """
        spec = json.loads(job.command["spec"])
        device = json.loads(job.command["settings"])["device"]
        runs = [run for run in self.trainings() if run["model"] == spec["model"]]
        if device != "auto" or any(run["driver"] for run in runs):
            runs = [run for run in runs if bool(run["driver"]) == (device in ("auto", "cuda"))]
        if not runs:
            return None
        latest = max(runs, key=lambda run: run["time"])
        runs = [run for run in runs if run["device"] == latest["device"]]
        runs = [run for run in runs if run["batch"] == spec["target_batch_size"]] or runs
        tokens = Path(job.command["tokens"])
        examples = [run for run in self.trainings() if run["study"] == tokens.parts[1]] or runs
        samples = _samples(spec, examples[-1]["examples"])
        starting = [run["starting"] for run in self.trainings() if run["starting"] is not None]
        return samples * median(run["seconds"] / run["samples"] for run in runs) + (median(starting) if starting else 0)

    def _measured(self, verb: str) -> list[tuple[str, str, float]]:
        """(study, subject, seconds) of every benchmark of a stage."""
        found = []
        for path in [
            *self.results.glob(f"*/benchmarks/{verb}/**/*.tsv"),
            *self.results.glob(f"*/benchmarks/{verb}.tsv"),
        ]:
            study, _, *subject = path.relative_to(self.results).with_suffix("").parts
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
            if rows:
                found.append((study, "/".join(subject[1:]), float(rows[-1]["s"])))
        return found

    def _trainings(self) -> Iterator[dict[str, Any]]:
        """Pace, model, batch size and device of every finished run."""
        for folder, manifest in manifests(self.results, RUNS):
            try:
                facts = read_json(folder / "train.json")
            except (OSError, ValueError):
                continue
            study, _, *cell = folder.relative_to(self.results).parts
            job = _benchmark(self.results / study / "benchmarks/train" / f"{'/'.join(cell)}.tsv")
            yield {
                "starting": None if job is None or job < facts["seconds"] else job - facts["seconds"],
                "study": study,
                "model": without_places(manifest["spec"]["model"]),
                "batch": manifest["spec"]["target_batch_size"],
                "driver": manifest.get("driver"),
                "device": facts["device"],
                "seconds": facts["seconds"],
                "samples": facts["samples"],
                "examples": facts["train_examples"],
                "time": (folder / "train.json").stat().st_mtime,
            }


def _benchmark(path: Path) -> float | None:
    """Wall-clock seconds of a job in Snakemake's benchmark file."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        return float(rows[-1]["s"])
    except (OSError, ValueError, IndexError, KeyError):
        return None


def _samples(spec: dict[str, Any], examples: int) -> int:
    budget = spec["budget"]
    if "epochs" in budget:
        return int(budget["epochs"]) * examples
    return int(budget["samples"] if "samples" in budget else budget["updates"] * spec["target_batch_size"])

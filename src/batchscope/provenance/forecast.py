"""What the jobs of a plan will take: which find their work finished, and how long earlier jobs like them took."""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

from batchscope.data.spec import TokensSpec
from batchscope.files import read_json
from batchscope.provenance.fingerprint import canonical_json, file_hash
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout
from batchscope.provenance.manifests import run_fingerprint, tokens_manifest
from batchscope.provenance.plan import PlannedJob
from batchscope.provenance.reuse import RUNS, TOKENS, manifests
from batchscope.provenance.stages import model_of, read_record, verb_of
from batchscope.training.spec import TrainSpec

COPYING_SECONDS = 5.0
"""Start of a job that only takes over finished files; no measurement, but hardly ever more."""


def forecast(planned: list[PlannedJob], jobs: JobFile) -> None:
    """Fill in ``reuses`` and ``seconds`` of every job."""
    _find_finished({job.name: job for job in planned}, jobs)
    history = History(jobs)
    for job in planned:
        job.seconds = COPYING_SECONDS if job.reuses else history.seconds(job.name)


# ------------------------------------------------------------------------------------------------- finished work


def _find_finished(planned: dict[str, PlannedJob], jobs: JobFile) -> None:
    """Follow the fingerprints as the jobs will: corpus and split give those of tokens, tokens those of runs."""
    hash_of = cache(file_hash)
    layout = jobs.layout
    index = {
        pattern: {manifest["fingerprint"]: folder for folder, manifest in manifests(layout.results, pattern)}
        for pattern in (TOKENS, RUNS)
    }
    tokens: dict[str, Path | None] = {}
    for name, job in planned.items():
        if verb_of(name) == "tokenize":
            model, found = model_of(name), None
            data = _data_layout(planned, jobs)
            if data:
                spec = jobs.spec(name, TokensSpec)
                manifest = tokens_manifest(spec, jobs.code(name), data.corpus, data.split)
                found = index[TOKENS].get(manifest["fingerprint"])
            found = None if found == layout.tokens(model) else found
            job.reuses = found.as_posix() if found else None
            tokens[model] = found
    for name, job in planned.items():
        if verb_of(name) == "train":
            model = model_of(name)
            folder = tokens.get(model, layout.tokens(model))
            if folder and (folder / "train.arrow").is_file():
                fingerprint = run_fingerprint(jobs.spec(name, TrainSpec), jobs.code(name), folder, hash_of)
                run = index[RUNS].get(fingerprint)
                job.reuses = run.as_posix() if run else None


def _data_layout(planned: dict[str, PlannedJob], jobs: JobFile) -> Layout | None:
    """The study whose corpus and split are as this study's will be: itself, or one that made them of the same."""
    making = [name for name in ("corpus", "split") if name in planned]
    if not making:
        return jobs.layout
    if "corpus" not in making:
        return None
    for folder in sorted(jobs.layout.results.glob("*/data")):
        other = Layout(folder.parent)
        records = {name: read_record(other.record(name)) for name in making}
        same = all(
            (record := records[name])
            and record["code"] == jobs.code(name)
            and canonical_json(record["spec"]) == jobs.identity(name)
            for name in making
        )
        if same and other.study != jobs.layout.study:
            return other
    return None


# --------------------------------------------------------------------------------------------------- measurements


class _Training(NamedTuple):
    """A finished run, for the pace of the next."""

    study: str
    model: str
    """``Spec.identity`` of its model."""
    batch: int
    on_gpu: bool
    device: str
    seconds: float
    samples: int
    examples: int
    """Of the train split."""
    starting: float | None
    """Seconds of its job besides the training; None where nobody measured."""
    time: float
    """When it was finished, in seconds since 1970."""


class History:
    """How long earlier jobs took, in all studies under ``results``."""

    def __init__(self, jobs: JobFile) -> None:
        self.jobs = jobs
        self.results = jobs.layout.results
        self.measured = cache(self._measured)
        self.trainings = cache(lambda: list(self._trainings()))

    def seconds(self, job: str) -> float | None:
        """Median of the most similar earlier jobs: the same one, else of its model, else of its stage."""
        verb, _, subject = job.partition("/")
        if verb == "train":
            return self._training_seconds(job)
        earlier = self.measured(verb)
        model = subject.partition("/")[0]
        for similar in (
            [seconds for where, what, seconds in earlier if (where, what) == (self.jobs.study, subject)],
            [seconds for _, what, seconds in earlier if what.partition("/")[0] == model],
            [seconds for _, _, seconds in earlier],
        ):
            if similar:
                return median(similar)
        return None

    def _training_seconds(self, job: str) -> float | None:
        """Samples to train on at the pace of earlier runs of the model on this kind of device.

        Of those, the runs of the same target batch size if there are some; the pace is wall-clock, validation included.
        On top comes what a job takes to start and to write its files.
        """
        spec, device = self.jobs.spec(job, TrainSpec), self.jobs.settings.device
        model = spec.model.identity()
        runs = [run for run in self.trainings() if run.model == model]
        if device != "auto" or any(run.on_gpu for run in runs):
            runs = [run for run in runs if run.on_gpu == (device in ("auto", "cuda"))]
        if not runs:
            return None
        latest = max(runs, key=lambda run: run.time)
        runs = [run for run in runs if run.device == latest.device]
        runs = [run for run in runs if run.batch == spec.target_batch_size] or runs
        examples = [run for run in self.trainings() if run.study == self.jobs.study] or runs
        samples = _samples(spec, examples[-1].examples)
        starting = [run.starting for run in self.trainings() if run.starting is not None]
        return samples * median(run.seconds / run.samples for run in runs) + (median(starting) if starting else 0)

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

    def _trainings(self) -> Iterator[_Training]:
        """Every finished run."""
        for folder, manifest in manifests(self.results, RUNS):
            try:
                facts = read_json(folder / "train.json")
                spec = TrainSpec.read(manifest["spec"])
            except (OSError, ValueError, KeyError):
                continue
            study, _, *cell = folder.relative_to(self.results).parts
            job = _benchmark(self.results / study / "benchmarks/train" / f"{'/'.join(cell)}.tsv")
            yield _Training(
                study=study,
                model=spec.model.identity(),
                batch=spec.target_batch_size,
                on_gpu=bool(manifest.get("driver")),
                device=facts["device"],
                seconds=facts["seconds"],
                samples=facts["samples"],
                examples=facts["train_examples"],
                starting=None if job is None or job < facts["seconds"] else job - facts["seconds"],
                time=(folder / "train.json").stat().st_mtime,
            )


def _benchmark(path: Path) -> float | None:
    """Wall-clock seconds of a job in Snakemake's benchmark file."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        return float(rows[-1]["s"])
    except (OSError, ValueError, IndexError, KeyError):
        return None


def _samples(spec: TrainSpec, examples: int) -> int:
    budget = spec.budget
    if budget.epochs is not None:
        return budget.epochs * examples
    if budget.updates is not None:
        return budget.updates * spec.target_batch_size
    assert budget.samples is not None
    return budget.samples

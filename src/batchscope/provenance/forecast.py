"""What the jobs of a plan will take: which find their work finished, and how long earlier jobs like them took."""

import csv
import math
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from batchscope.config.errors import shown
from batchscope.data.spec import CorpusSpec, TokensSpec
from batchscope.data.tokens import load_tokens
from batchscope.files import read_json
from batchscope.provenance.fingerprint import canonical_json, file_hash
from batchscope.provenance.horizon import training_examples
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout
from batchscope.provenance.manifests import run_fingerprint, tokens_manifest
from batchscope.provenance.places import Place, Places, begun_elsewhere, finished_elsewhere, place_of, unfinished
from batchscope.provenance.plan import Machine, Outlook, PlannedJob
from batchscope.provenance.reuse import MANIFEST, RUNS, TOKENS, StoredManifest, manifests, stored_manifest
from batchscope.provenance.stages import model_of, read_record, subject_of, verb_of
from batchscope.provenance.walltime import wall_seconds
from batchscope.report.spec import ReportSpec
from batchscope.training.spec import TrainSpec
from batchscope.training.windows import windows

COPYING_SECONDS = 5.0
"""Start of a job that only takes over finished files; no measurement, but hardly ever more."""


def forecast(planned: list[PlannedJob], jobs: JobFile, machine: Machine | None = None) -> Outlook:
    """Fill in ``reuses``, ``resumes``, ``note`` and ``seconds`` of every job; what is to be said of all of them."""
    places = Places(jobs)
    _find_finished({job.name: job for job in planned}, jobs, places)
    history = History(jobs)
    for job in planned:
        job.seconds = COPYING_SECONDS if job.reuses else history.seconds(job.name, after_update=job.resumes or 0)
    again = {subject_of(job.name) for job in planned if verb_of(job.name) == "train"}
    stay = [run for run in jobs.subjects("train") if run not in again]
    read = {run: stored_manifest(jobs.layout.run(run) / MANIFEST) for run in stay}
    finished = {run: manifest for run, manifest in read.items() if manifest is not None}
    notes = [*places.of_finished_runs(finished), *_too_large(planned, jobs), *_from_the_hub(planned, jobs)]
    wall = wall_seconds(planned, *machine) if machine else None
    return Outlook(notes, wall, machine)


# ------------------------------------------------------------------------------------------------- finished work


def _find_finished(planned: dict[str, PlannedJob], jobs: JobFile, places: Places) -> None:
    """Follow the fingerprints as the jobs will: corpus and split give those of tokens, tokens those of runs."""
    hash_of = cache(file_hash)
    layout = jobs.layout
    of_tokens = {stored["fingerprint"]: made for made, stored in manifests(layout.results, TOKENS)}
    runs: dict[str, list[tuple[Path, StoredManifest]]] = {}
    for run, stored in manifests(layout.results, RUNS):
        runs.setdefault(stored["fingerprint"], []).append((run, stored))
    tokens: dict[str, Path | None] = {}
    for name, job in planned.items():
        if verb_of(name) == "tokenize":
            model, found = model_of(name), None
            data = _data_layout(planned, jobs)
            if data:
                spec = jobs.spec(name, TokensSpec)
                manifest = tokens_manifest(spec, jobs.code(name), data.corpus, data.split)
                found = of_tokens.get(manifest["fingerprint"])
            found = None if found == layout.tokens(model) else found
            job.reuses = found.as_posix() if found else None
            tokens[model] = found
    for name, job in planned.items():
        if verb_of(name) == "train":
            model = model_of(name)
            folder = tokens.get(model, layout.tokens(model))
            if folder and (folder / "train.arrow").is_file():
                fingerprint = run_fingerprint(jobs.spec(name, TrainSpec), jobs.code(name), folder, hash_of)
                _find_run(job, runs.get(fingerprint, []), unfinished(layout.state, fingerprint), places)


def _find_run(
    job: PlannedJob, finished: list[tuple[Path, StoredManifest]], states: dict[Place, int], places: Places
) -> None:
    """What a training with this fingerprint finds: a finished run, or else a saved state, made in its own place."""
    elsewhere = None
    for folder, manifest in finished:
        place = place_of(manifest)
        if not places.differs(place):
            job.reuses = folder.as_posix()
            return
        elsewhere = folder, place
    here = places.here if states or elsewhere else None
    if here is None:
        job.resumes = next(iter(states.values())) if len(states) == 1 else None
        return
    job.resumes = states.get(here)
    if elsewhere and elsewhere[1]:
        job.note = finished_elsewhere(elsewhere[0], elsewhere[1], here)
    elif states and job.resumes is None:
        job.note = begun_elsewhere(*next(iter(states.items())), here)


def _too_large(planned: list[PlannedJob], jobs: JobFile) -> Iterator[str]:
    """A sentence where a target batch size is above the training examples, once the split is known.

    The study leaves such sizes out. Where none would be left it keeps them, and their trainings fail.
    """
    examples, known = training_examples(jobs)
    if any(verb_of(job.name) in ("corpus", "split") for job in planned) or examples is None or not known:
        return
    left_out = jobs.spec("report", ReportSpec).too_large_in_words(examples)
    if left_out:
        yield left_out
    batches = {jobs.spec(job, TrainSpec).target_batch_size for job in jobs.jobs if verb_of(job) == "train"}
    for batch in sorted(batch for batch in batches if batch > examples):
        yield (
            f"target_batch_sizes: {batch:,} is above the {examples:,} training examples, so its runs will fail: give "
            "a smaller one, or use more data."
        )


def _from_the_hub(planned: list[PlannedJob], jobs: JobFile) -> Iterator[str]:
    """A sentence that names what will be read from the hub: a misspelt path looks like a hub id."""
    names = [job.name for job in planned]
    ids = [jobs.spec("corpus", CorpusSpec)] if "corpus" in names else []
    found = [one.source for one in ids if one.kind == "hub" and one.source]
    for name in names:
        if verb_of(name) == "tokenize":
            model = jobs.spec(name, TokensSpec).model
            if model.checkpoint and model.content is None:
                found.append(model.checkpoint)
    if found:
        listed = ", ".join(shown(one) for one in found)
        yield f"From the Hugging Face hub, because there is no such file or folder here: {listed}."


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


class _Pace(NamedTuple):
    """How fast a training goes."""

    seconds_per_sample: float
    starting: float
    """Seconds of its job besides the training."""
    examples: int
    """Of the train split of a run like it."""


class History:
    """How long earlier jobs took, in all studies under ``results``."""

    def __init__(self, jobs: JobFile) -> None:
        self.jobs = jobs
        self.results = jobs.layout.results
        self.measured = cache(self._measured)
        self.trainings = cache(lambda: list(self._trainings()))
        self._medians, self._pace = cache(self._find_medians), cache(self._find_pace)
        self.examples_of = cache(lambda path: len(load_tokens(path)))

    def seconds(self, job: str, after_update: int = 0) -> float | None:
        """Median of the most similar earlier jobs: the same one, else of its model, else of its stage.

        A training is one that goes on after this update, from the beginning by default.
        """
        verb, _, subject = job.partition("/")
        if verb == "train":
            return self._training_seconds(job, after_update)
        medians = self._medians(verb)
        similar = (self.jobs.study, subject), subject.partition("/")[0], None
        return next((medians[key] for key in similar if key in medians), None)

    def _training_seconds(self, job: str, after_update: int) -> float | None:
        """Samples still to train on at the pace of earlier runs of the model on this kind of device.

        Of those, the runs of the same target batch size if there are some; the pace is wall-clock, validation included.
        On top comes what a job takes to start and to write its files.
        """
        spec = self.jobs.spec(job, TrainSpec)
        pace = self._pace(spec.model.identity(), spec.target_batch_size)
        if pace is None:
            return None
        samples = _samples(spec, self._examples(job, pace.examples), after_update)
        return samples * pace.seconds_per_sample + pace.starting

    def _examples(self, job: str, otherwise: int) -> int:
        """Examples of the train split: of the study's own, where it is there, as a measured run had otherwise."""
        tokens = self.jobs.layout.tokens(model_of(job)) / "train.arrow"
        return self.examples_of(tokens) if tokens.is_file() else otherwise

    def _find_pace(self, model: str, batch: int) -> "_Pace | None":
        """Of the most similar earlier runs; None where there are none."""
        device, trainings = self.jobs.settings.device, self.trainings()
        runs = [run for run in trainings if run.model == model]
        if device != "auto" or any(run.on_gpu for run in runs):
            runs = [run for run in runs if run.on_gpu == (device in ("auto", "cuda"))]
        if not runs:
            return None
        latest = max(runs, key=lambda run: run.time)
        runs = [run for run in runs if run.device == latest.device]
        runs = [run for run in runs if run.batch == batch] or runs
        examples = [run for run in trainings if run.study == self.jobs.study] or runs
        starting = [run.starting for run in trainings if run.starting is not None]
        return _Pace(
            median(run.seconds / run.samples for run in runs),
            median(starting) if starting else 0.0,
            examples[-1].examples,
        )

    def _find_medians(self, verb: str) -> dict[object, float]:
        """Median seconds of a stage's jobs: by study and subject, by model, and of all under None."""
        groups: dict[object, list[float]] = {}
        for where, what, seconds in self.measured(verb):
            for key in ((where, what), what.partition("/")[0], None):
                groups.setdefault(key, []).append(seconds)
        return {key: median(values) for key, values in groups.items()}

    def _measured(self, verb: str) -> list[tuple[str, str, float]]:
        """(study, subject, seconds) of every benchmark of a stage."""
        found = []
        for path in [
            *self.results.glob(f"*/benchmarks/{verb}/**/*.tsv"),
            *self.results.glob(f"*/benchmarks/{verb}.tsv"),
        ]:
            study, _, *subject = path.relative_to(self.results).with_suffix("").parts
            if (seconds := _benchmark(path)) is not None:
                found.append((study, "/".join(subject[1:]), seconds))
        return found

    def _trainings(self) -> Iterator[_Training]:
        """Every finished run that says what it took."""
        for folder, manifest in manifests(self.results, RUNS):
            try:
                facts = read_json(folder / "train.json")
                spec = TrainSpec.read(manifest["spec"])
                took, *counts = (facts[name] for name in ("seconds", "samples", "train_examples"))
                seconds, samples, examples = float(took), *map(int, counts)
                device = str(facts["device"])
            except (OSError, ValueError, KeyError, TypeError, OverflowError):
                continue
            if not (0 <= seconds < math.inf and samples > 0 and examples > 0):
                continue
            study, _, *cell = folder.relative_to(self.results).parts
            job = _benchmark(self.results / study / "benchmarks/train" / f"{'/'.join(cell)}.tsv")
            yield _Training(
                study=study,
                model=spec.model.identity(),
                batch=spec.target_batch_size,
                on_gpu=bool(manifest.get("driver")),
                device=device,
                seconds=seconds,
                samples=samples,
                examples=examples,
                starting=None if job is None or job < seconds else job - seconds,
                time=(folder / "train.json").stat().st_mtime,
            )


def _benchmark(path: Path) -> float | None:
    """Wall-clock seconds of a job in Snakemake's benchmark file; None where it does not say."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        seconds = float(rows[-1]["s"])
    except (OSError, ValueError, IndexError, KeyError, TypeError, csv.Error):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _samples(spec: TrainSpec, examples: int, after_update: int) -> int:
    """Examples that a run still sees after an update."""
    budget = spec.budget
    if budget.epochs is not None:
        total = budget.epochs * examples
    elif budget.updates is not None:
        total = budget.updates * spec.target_batch_size
    else:
        assert budget.samples is not None
        total = budget.samples
    if not after_update or spec.target_batch_size > examples:
        return total
    seen = windows(examples, spec.target_batch_size, spec.budget, spec.tail)
    last = next(islice(seen, after_update - 1, None), None)
    return total - last.samples if last else 0

"""The verbs that the workflow calls: one per stage. Each reads files, writes files and knows nothing of later stages.

A verb imports its stage only when it is called and returns the work that is then to be done, so that its log can tell
the time of the work from that of the imports.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout, Trained, states_of, trained_in
from batchscope.provenance.stages import model_of, subject_of, verb_of
from batchscope.training.launch import is_rank, launch
from batchscope.training.records import HistoryLine
from batchscope.training.spec import BranchSpec
from batchscope.training.stop import deadline
from batchscope.wording import Wording

log = logging.getLogger("batchscope")
Work = Callable[[], None]


class Ahead(NamedTuple):
    """Where a job reads and writes that a training does before its run is published."""

    trained: Trained
    folder: Path


@dataclass(frozen=True)
class Task:
    """One job of the job file, and what Snakemake gives it."""

    jobs: JobFile
    name: str
    """Such as ``train/bert/bs64/constant/seed1``."""
    threads: int | None
    """CPU threads; all of them if None."""
    runtime: float | None
    """Minutes after which the job is ended."""
    started: float
    """When the process started, in seconds since 1970."""
    observe: Callable[[HistoryLine], None] = lambda line: None
    """Sees every line of a training's history as it is written."""
    ahead: Ahead | None = None
    """Of a job that a training does ahead; None where the run is finished."""

    @property
    def layout(self) -> Layout:
        """Where the study's files are."""
        return self.jobs.layout

    @property
    def code(self) -> str:
        """Hash of the stage's code, as the workflow saw it."""
        return self.jobs.code(self.name)

    @property
    def subject(self) -> str:
        """The model or the run that the job is for."""
        return subject_of(self.name)

    @property
    def model(self) -> str:
        """The model that the job is for."""
        return model_of(self.name)

    @property
    def tokens(self) -> Path:
        """Folder of the model's tokens."""
        return self.layout.tokens(self.model)

    @property
    def run(self) -> Path:
        """Folder of the run that the job is for."""
        return self.layout.run(self.subject)

    @property
    def trained(self) -> Trained:
        """The files of the run's training."""
        return self.ahead.trained if self.ahead else trained_in(self.run)

    @property
    def output(self) -> Path:
        """Folder for what the job writes of its run."""
        return self.ahead.folder if self.ahead else self.run

    @property
    def branches(self) -> BranchSpec | None:
        """The branches of the run, whose states its training keeps; None where it has none."""
        name = f"branch/{self.subject}"
        return self.jobs.spec(name, BranchSpec) if name in self.jobs.jobs else None

    @cached_property
    def fingerprint(self) -> str:
        """``run_fingerprint`` of a training, which reads all of its tokens."""
        from batchscope.provenance.manifests import run_fingerprint
        from batchscope.training.spec import TrainSpec

        return run_fingerprint(self.jobs.spec(self.name, TrainSpec), self.code, self.tokens)


def corpus(task: Task) -> Work:
    """Read the reviews from their source into one table."""
    from batchscope.data.corpus import build_corpus
    from batchscope.data.spec import CorpusSpec

    return lambda: build_corpus(task.jobs.spec(task.name, CorpusSpec), task.layout.corpus)


def split(task: Task) -> Work:
    """Divide the reviews into train, validation and test."""
    from batchscope.data.spec import SplitSpec
    from batchscope.data.split import make_split

    return lambda: make_split(task.jobs.spec(task.name, SplitSpec), task.layout.corpus, task.layout.split)


def tokenize(task: Task) -> Work:
    """Turn the reviews into one model's tokens."""
    from batchscope.data.spec import TokensSpec
    from batchscope.data.tokenize import tokenize as run
    from batchscope.provenance.manifests import tokens_manifest
    from batchscope.provenance.reuse import MANIFEST, TOKENS, hashes, reuse

    def work() -> None:
        spec, layout = task.jobs.spec(task.name, TokensSpec), task.layout
        manifest = tokens_manifest(spec, task.code, layout.corpus, layout.split)
        found = reuse(task.tokens, manifest["fingerprint"], layout.results, TOKENS)
        if found:
            log.info(f"the same tokens are in {found}: taken from there")
            return
        run(spec, layout.corpus, layout.split, task.tokens)
        write_json(task.tokens / MANIFEST, manifest | {"files": hashes(task.tokens), "reused_from": None})

    return work


def audit(task: Task) -> Work:
    """Count what could mislead: class balance, truncation, duplicates within and across splits."""
    from batchscope.data.audit import audit as run

    layout, models = task.layout, task.jobs.subjects("tokenize")
    tokens = {model: layout.tokens(model) for model in models}
    return lambda: run(layout.corpus, layout.split, tokens, layout.audit)


def reviews(task: Task) -> Work:
    """Choose the reviews whose attention is drawn, the same for every run."""
    from batchscope.data.reviews import choose_reviews
    from batchscope.data.spec import ReviewsSpec

    layout = task.layout
    return lambda: choose_reviews(task.jobs.spec(task.name, ReviewsSpec), layout.corpus, layout.split, layout.reviews)


def train(task: Task) -> Work:
    """Train one run by gradient accumulation, unless a finished one with the same fingerprint is found."""
    settings = task.jobs.settings
    if settings.gpus > 1 and not is_rank():
        return lambda: launch(settings.gpus, sys.argv[1:])
    from batchscope.hardware.device import pick_place, use_threads
    from batchscope.provenance.handover import is_short, prepare
    from batchscope.tracking import Tracker, TrackingSpec
    from batchscope.training.loop import train as run
    from batchscope.training.spec import TrainSpec
    from batchscope.training.state import workspace_folder

    use_threads(task.threads)
    spec, layout = task.jobs.spec(task.name, TrainSpec), task.layout
    limit, short = deadline(task.runtime, task.started), is_short(task.started)

    def prepare_later_stages(trained: Trained) -> None:
        def compute(job: str, folder: Path) -> None:
            VERBS[verb_of(job)](replace(task, name=job, ahead=Ahead(trained, folder)))()

        # Several ranks would wait for one; strict kernels give other bits than those of the later stages.
        if settings.gpus == 1 and spec.determinism is None:
            prepare(task.jobs, task.subject, trained, task.threads, compute, short(), limit)

    def work() -> None:
        tracking = task.jobs.spec(f"track/{task.subject}", TrackingSpec)
        # Offline, the `track` rule replays the history when the training is done.
        if tracking.mode != "online" or os.environ.get("RANK", "0") != "0":
            tracking = tracking.model_copy(update={"mode": "disabled"})
        place = pick_place(settings.device, spec.precision)
        earlier = workspace_folder(layout.state, task.fingerprint, place) / "history.jsonl"
        with Tracker(tracking, spec.plain(), task.fingerprint, layout.tracking, earlier) as tracker:
            run(
                spec,
                task.code,
                settings,
                task.tokens,
                task.run,
                layout.state,
                observe=_each(tracker.log, task.observe),
                deadline=limit,
                before_publish=prepare_later_stages,
                certified=task.layout.certificate(task.model).is_file(),
                branches=task.branches,
            )

    return work


def _each(*observers: Callable[[HistoryLine], None]) -> Callable[[HistoryLine], None]:
    """Shows a line of the history to every observer."""

    def observe(line: HistoryLine) -> None:
        for observer in observers:
            observer(line)

    return observe


def branch(task: Task) -> Work:
    """Branch a run at multiples of its batch size, from states that it kept, to measure the critical batch size."""
    from batchscope.hardware.device import use_threads
    from batchscope.training.branch import branch as run
    from batchscope.training.spec import TrainSpec

    use_threads(task.threads)
    spec, training = task.jobs.spec(task.name, BranchSpec), task.jobs.spec(f"train/{task.subject}", TrainSpec)
    limit = deadline(task.runtime, task.started)
    settings, state = task.jobs.settings, task.layout.state
    return lambda: run(spec, training, task.code, settings, task.tokens, task.run, state, limit)


def certify(task: Task) -> Work:
    """Compare a model's accumulated gradients with the full batch's, and audit the installed peers."""
    from batchscope.certificate.certify import certify as run
    from batchscope.certificate.spec import CertificateSpec
    from batchscope.certificate.verdict import terminal_table
    from batchscope.hardware.device import use_threads

    use_threads(task.threads)

    def work() -> None:
        spec, output = task.jobs.spec(task.name, CertificateSpec), task.layout.certificate(task.model)
        certificate = run(spec, task.tokens, output)
        print(terminal_table(certificate))
        if not certificate["passed"]:
            raise UserError(f"{certificate['verdict']}\nDo not trust trainings with these versions on this device.")

    return work


def evaluate(task: Task) -> Work:
    """Predict validation and test with the best and the last checkpoint of a run, and measure."""
    from batchscope.evaluation.evaluate import evaluate as run
    from batchscope.evaluation.spec import EvaluationSpec
    from batchscope.hardware.device import use_threads

    use_threads(task.threads)
    spec = task.jobs.spec(task.name, EvaluationSpec)
    return lambda: run(spec, task.tokens, task.trained.checkpoints, task.output, task.jobs.settings.device)


def track(task: Task) -> Work:
    """Replay a finished run into Weights & Biases; nothing else depends on it."""
    from batchscope.tracking import TrackingSpec
    from batchscope.tracking import track as run

    spec = task.jobs.spec(task.name, TrackingSpec)
    return lambda: run(spec, task.run, task.layout.tracking, task.run / "tracking.json")


def attention(task: Task) -> Work:
    """Compute the attention of a run's best checkpoint on the chosen reviews."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.attention import attend
    from batchscope.insight.spec import AttentionSpec

    use_threads(task.threads)
    spec, best = task.jobs.spec(task.name, AttentionSpec), task.trained.best
    return lambda: attend(spec, task.tokens, task.layout.reviews, best, task.output, task.jobs.settings.device)


def maps(task: Task) -> Work:
    """Draw a run's attention maps."""
    from batchscope.report.maps import draw_maps
    from batchscope.report.spec import MapsSpec

    spec = task.jobs.spec(task.name, MapsSpec)
    return lambda: draw_maps(task.run, spec.names, task.run / "attention/maps", Wording(*spec.words))


def attention_measures(task: Task) -> Work:
    """Measure the attention of a run's best checkpoint over many test reviews, per layer and head."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.attention_measures import measure_attention
    from batchscope.insight.spec import AttentionMeasuresSpec

    use_threads(task.threads)
    spec, best = task.jobs.spec(task.name, AttentionMeasuresSpec), task.trained.best
    output = task.output / "attention/heads.json"
    return lambda: measure_attention(spec, task.tokens, best, output, task.jobs.settings.device)


def divergence(task: Task) -> Work:
    """Compare the attention of runs, between batch sizes and between seeds, and gather its measures."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.divergence import measure_divergence
    from batchscope.insight.spec import DivergenceSpec

    use_threads(task.threads)
    spec = task.jobs.spec(task.name, DivergenceSpec)
    return lambda: measure_divergence(spec, task.layout.study, task.jobs.settings.device)


def calibration(task: Task) -> Work:
    """Measure the calibration of every run from its predictions."""
    from batchscope.insight.calibration import measure_calibration
    from batchscope.insight.spec import CalibrationSpec

    spec = task.jobs.spec(task.name, CalibrationSpec)
    return lambda: measure_calibration(spec, task.layout.study)


def errors(task: Task) -> Work:
    """Tell the errors on the test reviews: review by review, by group, and what decides them."""
    from batchscope.insight.errors import measure_errors
    from batchscope.insight.spec import ErrorsSpec

    return lambda: measure_errors(task.jobs.spec(task.name, ErrorsSpec), task.layout.study)


def geometry_measures(task: Task) -> Work:
    """Measure the training loss around a run's checkpoints: sharpness, curvature, distance from the start."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.geometry_measures import measure_geometry
    from batchscope.insight.spec import GeometryMeasuresSpec
    from batchscope.training.spec import TrainSpec

    use_threads(task.threads)
    spec, training = task.jobs.spec(task.name, GeometryMeasuresSpec), task.jobs.spec(f"train/{task.subject}", TrainSpec)
    start = training.model, training.seed
    checkpoints, output = task.trained.checkpoints, task.output / "geometry.json"
    return lambda: measure_geometry(spec, start, task.tokens, checkpoints, output, task.jobs.settings.device)


def geometry(task: Task) -> Work:
    """Compare the weights of runs, and ask whether sharpness says more of accuracy than the learning rates do."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.geometry import compare_geometry
    from batchscope.insight.spec import GeometrySpec

    use_threads(task.threads)
    spec = task.jobs.spec(task.name, GeometrySpec)
    return lambda: compare_geometry(spec, task.layout.study, task.jobs.settings.device)


def cartography_measures(task: Task) -> Work:
    """Write the probability of the label of training examples at the end of each epoch of a run."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.cartography_measures import kept_epochs, write_dynamics
    from batchscope.insight.spec import CartographyMeasuresSpec
    from batchscope.insight.stored_cartography import FILE

    use_threads(task.threads)
    spec, output = task.jobs.spec(task.name, CartographyMeasuresSpec), task.output / FILE
    history, device = task.trained.history, task.jobs.settings.device

    def work() -> None:
        epochs = task.ahead.trained.epochs if task.ahead else kept_epochs(task.run)
        write_dynamics(spec, task.tokens, history, epochs, output, device)

    return work


def cartography(task: Task) -> Work:
    """Map the training examples, easy, ambiguous or hard, and ask whether batch size or seed decides it."""
    from batchscope.insight.cartography import map_examples
    from batchscope.insight.spec import CartographySpec

    return lambda: map_examples(task.jobs.spec(task.name, CartographySpec), task.layout.study)


def features(task: Task) -> Work:
    """Write the pooled features of test reviews from a run's best checkpoint."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.features import write_features
    from batchscope.insight.spec import FeaturesSpec
    from batchscope.insight.stored_features import FILE

    use_threads(task.threads)
    spec, best = task.jobs.spec(task.name, FeaturesSpec), task.trained.best
    return lambda: write_features(spec, task.tokens, best, task.output / FILE, task.jobs.settings.device)


def embedding(task: Task) -> Work:
    """Embed the features of the compared runs together: PCA, then t-SNE."""
    from batchscope.insight.embedding import measure_embedding
    from batchscope.insight.spec import EmbeddingSpec

    return lambda: measure_embedding(task.jobs.spec(task.name, EmbeddingSpec), task.layout.study)


def tables(task: Task) -> Work:
    """Compile the tables of a study."""
    from batchscope.report.spec import TablesSpec
    from batchscope.report.tables import write_tables

    return lambda: write_tables(task.jobs.spec(task.name, TablesSpec), task.layout.study)


def figures(task: Task) -> Work:
    """Draw the figures of a study."""
    from batchscope.report.figures import draw_figures
    from batchscope.report.spec import FiguresSpec

    return lambda: draw_figures(task.jobs.spec(task.name, FiguresSpec), task.layout.study)


def report(task: Task) -> Work:
    """Write the report of a study."""
    from batchscope.report.page import write_report
    from batchscope.report.spec import ReportSpec

    return lambda: write_report(task.jobs.spec(task.name, ReportSpec), task.layout.study)


VERBS: dict[str, Callable[[Task], Work]] = {
    verb.__name__: verb
    for verb in (corpus, split, tokenize, audit, reviews, train, branch, certify, evaluate, track, attention, maps)
    + (attention_measures, divergence, calibration, errors, features, embedding, geometry_measures, geometry)
    + (cartography_measures, cartography)
    + (tables, figures, report)
}


def is_done(task: Task) -> bool:
    """Whether the job's result was made already and is now in its place: without torch or a device.

    A run may be finished in another study or under another name; its training may have computed later stages.
    """
    from batchscope.provenance.handover import FILES, collect

    verb = verb_of(task.name)
    if verb == "train" and not is_rank():
        return _reused(task)
    return verb in FILES and collect(task.jobs, task.name, task.threads)


def alone(task: Task) -> AbstractContextManager[None]:
    """No other process trains the same run while this lasts: it waits for one that does. Nothing for other jobs."""
    if verb_of(task.name) != "train" or is_rank():
        return nullcontext()
    from batchscope.locks import waiting_lock

    return waiting_lock(task.layout.locks / f"{task.fingerprint}.lock", f"the training of {task.subject}")


def _reused(task: Task) -> bool:
    from batchscope.provenance.donors import KEPT
    from batchscope.provenance.reuse import RUNS, StoredManifest, reuse
    from batchscope.training.spec import TrainSpec

    def differs(manifest: StoredManifest) -> str | None:
        """Why a run trained elsewhere is not what this job would train; asked of an equal run alone."""
        from batchscope.hardware.place import place_in_words

        here = place_in_words(task.jobs.settings.device, task.jobs.spec(task.name, TrainSpec).precision)
        there = manifest.get("precision"), manifest.get("device_type")
        if here == there:
            return None
        return f"was trained in {there[0]} on {there[1]}, and this job trains in {here[0]} on {here[1]}"

    found = reuse(task.run, task.fingerprint, task.layout.results, (*RUNS, *KEPT), differs)
    if found:
        log.info(f"{found} is the same training, finished: nothing to train")
        # A process that died between publishing a run and this left its states; or the run was kept for this job.
        for states in states_of(task.layout.state, task.fingerprint):
            shutil.rmtree(states)
    return found is not None

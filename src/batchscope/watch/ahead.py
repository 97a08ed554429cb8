"""How long the rest of a study will take: each running training at its own pace, every other job as `plan` predicts."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from batchscope.data.tokens import load_tokens
from batchscope.provenance.forecast import History
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.plan import PlannedJob
from batchscope.provenance.stages import RUNS_A_MODEL, model_of, subject_of, verb_of
from batchscope.provenance.walltime import wall_seconds
from batchscope.training.spec import TrainSpec
from batchscope.watch.states import Job, Look

PRIORITY = {"corpus": 10, "split": 10, "tokenize": 10, "reviews": 10, "certify": 5, "maps": -10}
RUNNING = 1000
"""Priority of a job that has its core already."""
SHARE = 0.02
"""Of the time may go into predicting."""


class Left(NamedTuple):
    """What is left of a study."""

    seconds: float | None
    """Until the last job ends; None where nothing was measured, or nothing runs and no number of cores was given."""
    unmeasured: int
    """Jobs for which nothing is predicted."""
    cores: int


def threads_of(job: str, jobs: JobFile) -> int:
    """CPU threads that the workflow asks for."""
    verb = verb_of(job)
    return jobs.settings.threads if verb in RUNS_A_MODEL else 2 if verb == "tokenize" else 1


def gpus_of(job: str, jobs: JobFile) -> int:
    """GPUs that the workflow asks for."""
    if verb_of(job) not in RUNS_A_MODEL or jobs.settings.device == "cpu":
        return 0
    return jobs.settings.gpus if verb_of(job) == "train" else 1


def _seen_in_use(job: str, jobs: JobFile) -> int:
    """Cores that a running job proves: Snakemake gives ``tokenize`` one of its two where there is no other."""
    return threads_of(job, jobs) if verb_of(job) in RUNS_A_MODEL else 1


MEASURES = ("calibration", "geometry", "cartography", "divergence", "errors", "embedding")
"""The measures of a study that are drawn and shown."""


def needs_of(job: str, subjects: Mapping[str, Sequence[str]]) -> list[str]:
    """The jobs that make the inputs of a job, as the rules say; ``subjects`` maps a verb to its models or runs."""
    verb, subject, model = verb_of(job), subject_of(job), model_of(job)

    def each(*verbs: str) -> list[str]:
        return [f"{name}/{one}" if one else name for name in verbs for one in subjects.get(name, ())]

    of_run = {
        "evaluate": ["train", "tokenize"],
        "attention": ["train", "tokenize", "reviews"],
        "maps": ["attention"],
        "branch": ["train", "tokenize"],
        "attention_measures": ["train", "tokenize"],
        "geometry_measures": ["train", "tokenize"],
        "cartography_measures": ["train", "tokenize"],
        "features": ["train", "tokenize"],
        "track": ["train", "evaluate"],
        "train": ["tokenize"],
        "certify": ["tokenize"],
    }
    if verb in of_run:
        of_model = {"tokenize": f"tokenize/{model}", "reviews": "reviews"}
        return [of_model.get(name, f"{name}/{subject}") for name in of_run[verb]]
    of_study = {
        "corpus": [],
        "split": ["corpus"],
        "tokenize": ["corpus", "split"],
        "reviews": ["corpus", "split"],
        "audit": ["corpus", "split", *each("tokenize")],
        "divergence": each("attention_measures", "train", "tokenize"),
        "calibration": each("evaluate"),
        "errors": [*each("evaluate", "tokenize"), "corpus"],
        "embedding": [
            *each("features", "errors"),
            *(job.replace("features", "evaluate", 1) for job in each("features")),
        ],
        "geometry": each("geometry_measures", "train", "evaluate", "tokenize"),
        "cartography": each("cartography_measures", "evaluate"),
        "tables": [*each("train", "evaluate", "attention", "branch", "certify"), "audit", "reviews"],
        "figures": ["tables", *each(*MEASURES, "attention")],
        "report": ["tables", *each(*MEASURES, "attention"), "figures", "reviews", "audit", *each("certify")],
    }
    return of_study[verb]


def total_samples(spec: TrainSpec, examples: int) -> int:
    """Examples that a whole run sees: ``windows(...)`` added up, without listing them."""
    batch, budget = spec.target_batch_size, spec.budget
    epoch = examples - examples % batch if spec.tail == "drop" else examples
    if budget.samples is not None:
        return budget.samples
    if budget.epochs is not None:
        return budget.epochs * epoch
    assert budget.updates is not None
    epochs, updates = divmod(budget.updates, -(-epoch // batch))
    return epochs * epoch + updates * batch


class Forecaster:
    """Predicts what is left of a study. ``cores``: how many there are; as many as were seen in use if None."""

    def __init__(self, cores: int | None = None, timer: Callable[[], float] = time.monotonic) -> None:
        self.cores, self.timer = cores, timer
        self._in_use = self._gpus = 0
        self._history: History | None = None
        self._renewal = 0.0
        self._examples = cache(lambda path: len(load_tokens(path)))

    def total(self, job: str, jobs: JobFile) -> int | None:
        """Examples that a training sees from beginning to end; None as long as there are no tokens."""
        tokens = jobs.layout.tokens(model_of(job)) / "train.arrow"
        if not tokens.is_file():
            return None
        return total_samples(jobs.spec(job, TrainSpec), self._examples(tokens))

    def training_left(self, job: Job, jobs: JobFile) -> float | None:
        """Seconds that a running training still needs at its own pace; None before its pace is known."""
        progress = job.progress
        if verb_of(job.name) != "train" or progress is None or not progress["samples_per_second"]:
            return None
        total = self.total(job.name, jobs)
        return None if total is None else max(0, total - progress["samples"]) / progress["samples_per_second"]

    def left(self, look: Look) -> Left:
        """What is left of a study."""
        began = self.timer()
        left = self._left(look)
        if math.isinf(self._renewal):
            self._renewal = self.timer() + (self.timer() - began) / SHARE
        return left

    def _left(self, look: Look) -> Left:
        jobs, running = look.jobs, [name for name, job in look.active.items() if job.state == "running"]
        self._in_use = max(self._in_use, sum(_seen_in_use(name, jobs) for name in running))
        self._gpus = max(self._gpus, sum(gpus_of(name, jobs) for name in running))
        subjects: dict[str, list[str]] = {}
        for name in look.states:
            subjects.setdefault(verb_of(name), []).append(subject_of(name))
        todo = [name for name, state in look.states.items() if state != "done"]
        planned, seconds = [], self._predictor(look)
        for name in todo:
            job = PlannedJob(verb_of(name), {}, name, threads=threads_of(name, jobs), gpus=gpus_of(name, jobs))
            job.seconds, job.needs = seconds(name), needs_of(name, subjects)
            job.priority = PRIORITY.get(verb_of(name), 0)
            if name in running:
                job.priority, job.needs = RUNNING, []
            planned.append(job)
        unmeasured = sum(job.seconds is None for job in planned)
        cores = self.cores or self._in_use
        if not cores or unmeasured == len(planned):
            return Left(0.0 if not planned else None, unmeasured, cores)
        return Left(wall_seconds(planned, cores, max(self._gpus, 1)), unmeasured, cores)

    def _predictor(self, look: Look) -> Callable[[str], float | None]:
        """Job → seconds that it still needs."""
        jobs = look.jobs
        history = self._measured(jobs)
        paces: dict[str, float] = {}
        for job in look.active.values():
            if job.state == "running" and job.progress and job.progress["samples_per_second"]:
                paces[model_of(job.name)] = job.progress["samples_per_second"]

        alike: dict[tuple[object, ...], float | None] = {}

        def of_training(name: str) -> float | None:
            """A whole training; those that differ in seed and learning rate alone take the same time."""
            plain, model = jobs.plain(name), model_of(name)
            key = model, plain["target_batch_size"], json.dumps(plain["budget"])
            if key not in alike:
                alike[key] = history.seconds(name)
                if alike[key] is None and model in paces and (total := self.total(name, jobs)) is not None:
                    alike[key] = total / paces[model]
            return alike[key]

        def seconds(name: str) -> float | None:
            job = look.active.get(name)
            if job and job.state == "running" and (left := self.training_left(job, jobs)) is not None:
                return left
            whole = of_training(name) if verb_of(name) == "train" else history.seconds(name)
            if job and job.state == "running" and job.process and whole is not None:
                return max(0.0, whole - (time.time() - job.process["started"]))
            return whole

        return seconds

    def _measured(self, jobs: JobFile) -> History:
        """What earlier jobs took: read again once that is a small share of the time since the last reading."""
        if self._history is None or self._history.jobs is not jobs or self.timer() >= self._renewal:
            self._history, self._renewal = History(jobs), math.inf
        return self._history

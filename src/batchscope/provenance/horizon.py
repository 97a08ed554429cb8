"""Adam's horizon of the trainings that a plan holds: what their settings will mean, said before they are paid for."""

from collections.abc import Iterable
from functools import cache, partial
from typing import NamedTuple

from batchscope.errors import counted
from batchscope.provenance.expected import count_training_examples, expected_sizes
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.stages import verb_of
from batchscope.statistics.horizon import Horizon, Setting, horizons, lr_sum, warnings
from batchscope.training.spec import BudgetSpec, Tail, TrainSpec
from batchscope.training.windows import Window, windows


class Foresight(NamedTuple):
    """The audit of the planned cells, and what its numbers of updates rest on."""

    horizons: list[Horizon]
    examples: int | None
    """Training examples; None where they are not known yet."""
    known: bool
    """Whether the split says so; otherwise it is an estimate from the config."""
    training: bool
    """Whether anything is to be trained."""

    @property
    def notes(self) -> list[str]:
        """What is to be known before the trainings run, a sentence each; the last says what the audit knows."""
        if not self.training:
            return []
        if self.examples is None:
            return [
                "Not checked yet: whether every run makes enough updates for Adam's averages. The number of training "
                "examples is known once the data is read."
            ]
        source = "of the split" if self.known else "by the config's shares"
        basis = "Checked: whether every run makes enough updates for Adam's averages, on "
        basis += f"{counted(self.examples, 'training example')}, {source}."
        return [*warnings(self.horizons), basis]


def foresee(jobs: JobFile, planned: Iterable[str]) -> Foresight:
    """Audit the cells that have a training among the ``planned`` jobs, against the reference cells of the whole study.

    A target batch size above the number of training examples is left out: its training will say so.
    """
    examples, known = training_examples(jobs)
    wanted = {job for job in planned if verb_of(job) == "train"}
    if examples is None or not wanted:
        return Foresight([], examples, known, bool(wanted))
    windows_of = cache(partial(_windows, examples))
    settings, to_train = [], set()
    for run in jobs.subjects("train"):
        spec = jobs.spec(f"train/{run}", TrainSpec)
        made = windows_of(spec.target_batch_size, spec.budget, spec.tail)
        if not made:
            continue
        model, _, policy, *budget, _ = run.split("/")
        setting = _setting(spec, made, (model, policy, budget[0] if budget else _in_words(spec.budget)))
        settings.append(setting)
        if f"train/{run}" in wanted:
            to_train.add(setting[:4])
    return Foresight([one for one in horizons(settings) if one[:4] in to_train], examples, known, training=True)


def _setting(spec: TrainSpec, made: list[Window], place: tuple[str, str, str]) -> Setting:
    updates, per_epoch = len(made), sum(window.epoch == 1 for window in made)
    total = lr_sum(spec.learning_rate, spec.schedule.name, spec.schedule.warmup, updates)
    model, policy, budget = place
    return Setting(
        model=model,
        lr_policy=policy,
        budget=budget,
        target_batch_size=spec.target_batch_size,
        learning_rate=spec.learning_rate,
        betas=spec.optimizer.betas,
        eps=spec.optimizer.eps,
        updates=updates,
        updates_per_epoch=per_epoch,
        lr_sum=total,
    )


def _windows(examples: int, target_batch_size: int, budget: BudgetSpec, tail: Tail) -> list[Window]:
    """The windows of a run; none where the target batch size is above the examples."""
    try:
        return list(windows(examples, target_batch_size, budget, tail))
    except ValueError:
        return []


def _in_words(budget: BudgetSpec) -> str:
    """`5 epochs`."""
    given = {"epoch": budget.epochs, "update": budget.updates, "sample": budget.samples}
    return next(counted(count, unit) for unit, count in given.items() if count is not None)


def training_examples(jobs: JobFile) -> tuple[int | None, bool]:
    """Size of the train split, and whether it is that of the split on disk; else what is expected, or None."""
    if jobs.layout.split.is_file():
        return count_training_examples(jobs.layout), True
    expected = expected_sizes(jobs)
    return None if expected is None else expected.train, False

"""The answer in words: is the difference between batch sizes real? What is counted comes from ``statistics``."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from batchscope.config.claims import Claims
from batchscope.config.schema import Budget
from batchscope.errors import counted
from batchscope.report.numbers import in_points, percent, points
from batchscope.report.spec import ReportSpec
from batchscope.report.verdicts import ESTIMANDS, difference_in_words, power_in_words
from batchscope.statistics.conclusions import (
    Conclusions,
    design,
    stable_components,
    typical_components,
    with_verdict,
)
from batchscope.statistics.records import Finding, Verdict
from batchscope.statistics.verdicts import VERDICTS


class Answer(NamedTuple):
    """A headline and the sentences that support it."""

    headline: str
    sentences: list[str]


def answer(
    spec: ReportSpec, results: pd.DataFrame, summary: pd.DataFrame, found: Conclusions | None, classes: int = 2
) -> Answer:
    """What the contrasts of test accuracy show, in plain words.

    ``results`` has one row per cell, ``summary`` one per cell over its seeds; ``classes`` is their number.
    """
    sizes = found.of_batch_sizes() if found else []
    if found is None or not sizes:
        if len(spec.batch_sizes) > 1:
            headline = "The study's contrasts do not compare target batch sizes."
            return Answer(headline, ["Add such a contrast to `claims.contrasts` to see what the batch size does."])
        headline = "There is nothing to compare: the study has one target batch size."
        return Answer(headline, ["Add values to `target_batch_sizes` to see what the batch size does."])
    budgets = [_budget(name, spec.budgets[name], results, len(spec.budgets) > 1) for name in spec.budget_names]
    sentences = [_faulty(sizes), _verdicts(sizes, spec.claims), _largest(found), _scatter(summary, classes)]
    sentences += [_power(found, summary, spec.claims), *budgets]
    headline = _of_one_seed(sizes) if found.one_seed else _headline(sizes, spec.claims)
    return Answer(headline, [sentence for sentence in sentences if sentence])


def _of_one_seed(sizes: Sequence[Finding]) -> str:
    """One seed says nothing of what trains the models: the headline speaks of trained models alone."""
    different = len(with_verdict(sizes, "different"))
    said = f"{different} of {counted(len(sizes), 'pair')} of trained models {'differs' if different == 1 else 'differ'}"
    return f"One seed cannot answer this. {said} on reviews like these."


def _headline(sizes: Sequence[Finding], claims: Claims) -> str:
    total, held = len(sizes), len(with_verdict(sizes, "different"))
    budgets = "these budgets" if len({finding.budget for finding in sizes}) > 1 else "this budget"
    alike = len(with_verdict(sizes, "equivalent"))
    if held:
        return f"Yes, in {held} of {counted(total, 'contrast')} of target batch sizes, under {budgets}."
    if alike == total == 1:
        return f"No: the contrast is equivalent within {in_points(claims.margin)}."
    if alike == total:
        return f"No: all {counted(total, 'contrast')} are equivalent within {in_points(claims.margin)}."
    if alike:
        said = f"{alike} of {counted(total, 'contrast')} {_is(alike)} equivalent within {in_points(claims.margin)}"
        return f"No difference between target batch sizes is established. {said}."
    if len(with_verdict(sizes, "did not learn")) == total:
        return "Nothing can be said: every contrast includes a run that did not learn."
    return "No difference between target batch sizes is established, and none is excluded."


def _faulty(sizes: Sequence[Finding]) -> str:
    """Contrasts that cannot be read come first."""
    broken = len(with_verdict(sizes, "did not learn"))
    if not broken:
        return ""
    which = "includes a run that did not learn: it is" if broken == 1 else "include a run that did not learn: they are"
    return f"{broken} of {counted(len(sizes), 'contrast')} {which} not read as an effect of the batch size."


def _verdicts(sizes: Sequence[Finding], claims: Claims) -> str:
    """How many contrasts have which verdict, and in which direction the different ones point."""
    counts: dict[Verdict, int] = {verdict: len(with_verdict(sizes, verdict)) for verdict in VERDICTS}
    said = "; ".join(f"{count} {verdict}" for verdict, count in counts.items() if count and verdict != "did not learn")
    if not said:
        return ""
    family = f"after Holm's correction over {counted(sizes[0].tests, 'contrast')} at {percent(claims.level, 0)}"
    whose = ESTIMANDS[sizes[0].estimand]
    if sizes[0].estimand == "these_models":
        whose = "pairs of trained models, on reviews like these"
    return f"Verdicts between target batch sizes, for {whose}, {family}: {said}.{_direction(sizes)}"


def _direction(sizes: Sequence[Finding]) -> str:
    held = with_verdict(sizes, "different")
    if not held or held[0].estimand == "these_models":
        return ""
    higher = sum(finding.difference_points > 0 for finding in held)
    if higher in (0, len(held)):
        where = "In the different one" if len(held) == 1 else "In all different ones"
        return f" {where}, the {'larger' if higher else 'smaller'} target batch size is the more accurate."
    return f" The larger target batch size is the more accurate in {higher} of the {len(held)} different ones."


def _largest(found: Conclusions) -> str:
    largest = found.largest
    if largest is None:
        return ""
    levels = " to ".join(
        f"{batch:,} ({percent(accuracy, 2)})"
        for batch, accuracy in (
            (largest.batch_from, largest.accuracy_from),
            (largest.batch_to, largest.accuracy_to),
        )
    )
    several = len({finding.budget for finding in found.of_batch_sizes()}) > 1
    budget = [f"budget {largest.budget}"] if several else []
    where = ", ".join([largest.model, f"{largest.lr_policy} LR policy", *budget, f"from {levels}"])
    if not largest.difference_points:
        said = "In every contrast of target batch sizes, both sizes have the same test accuracy. The first difference"
        return f"{said} is {difference_in_words(largest)}, for {ESTIMANDS[largest.estimand]}: {where}."
    said = f"The largest difference is {difference_in_words(largest)}, for {ESTIMANDS[largest.estimand]}: {where}."
    if largest.seeds > 1:
        said += f" Over its {largest.seeds} seeds it goes from {points(largest.lowest_points)} to "
        said += f"{points(largest.highest_points)}."
    return said


def _scatter(summary: pd.DataFrame, classes: int) -> str:
    """The scatter over seeds beside that of a stable classifier, which of more than two classes has an upper bound."""
    expected = 100 * summary.test_accuracy_sd_expected.median()
    reviews = counted(int(summary.test_examples.iloc[0]), "test review")
    who, most = (
        ("A stable classifier", "") if classes == 2 else (f"A stable classifier of {classes} classes", "at most ")
    )
    if summary.seeds.max() == 1:
        return (
            f"Every cell was trained once: variation from seed to seed is not measured. {who} would have an SD over "
            f"seeds of {most}{expected:.2f} points on {reviews}, √(err/(2N)){', which is a lower bound' * (not most)}."
        )
    own = summary[~summary.shared]
    more = int((own.test_accuracy_sd_p < 0.05).sum())
    sd = 100 * own.test_accuracy_sd.median()
    judged = f"in {more} of {counted(len(own), 'cell')}, seeds differ by more than expected (χ², p < .05)"
    if not more:
        judged = "in no cell do seeds differ by more than expected"
    return (
        f"The SD over seeds of test accuracy is {sd:.2f} points (median of the cells). {who} would have "
        f"{most}{expected:.2f} on {reviews}, √(err/(2N)): {judged}."
    )


def _power(found: Conclusions, summary: pd.DataFrame, claims: Claims) -> str:
    """What the study can establish, from its own components or, with one seed, from those of stable classifiers."""
    tests = found.claims[0].tests
    seeds, reviews = found.claims[0].seeds, found.claims[0].reviews
    parts = typical_components(found.claims)
    stable = stable_components(float(summary.test_accuracy_mean.mean()))
    return power_in_words(design(parts or stable, seeds, reviews, claims, tests), claims, assumed=parts is None)


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _budget(name: str, budget: Budget, results: pd.DataFrame, several: bool) -> str:
    """What an equal budget leaves unequal; with the budget's name where there are several."""
    updates = results[results.budget == name].groupby("target_batch_size").updates.max()
    small, large = int(updates.index.min()), int(updates.index.max())
    at_small, at_large = counted(int(updates[small]), "update"), counted(int(updates[large]), "update")
    who = f"Under the budget {name}, every run" if several else "Every run"
    if budget.updates is not None:
        return (
            f"{who} makes {at_large}, so target batch size {large:,} sees more samples than {small:,}: the effect "
            f"of the batch size includes that of more data and compute."
        )
    return (
        f"{who} sees the same number of samples, so target batch size {large:,} makes {at_large} where {small:,} "
        f"makes {at_small}: the effect of the batch size includes that of fewer updates."
    )

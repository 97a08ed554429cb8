"""The answer in words: is the difference between batch sizes real? What is counted comes from ``statistics``."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from batchscope.config.schema import Budget
from batchscope.errors import counted
from batchscope.report.cautions import faulty_runs
from batchscope.report.numbers import p_equals, percent, points
from batchscope.report.spec import ReportSpec
from batchscope.statistics.effects import Effect, Findings


class Answer(NamedTuple):
    """A headline and the sentences that support it."""

    headline: str
    sentences: list[str]


def answer(spec: ReportSpec, results: pd.DataFrame, findings: Findings | None) -> Answer:
    """What the contrasts of test accuracy show, in plain words. ``results`` has one row per cell."""
    if findings is None:
        headline = "There is nothing to compare: the study has one target batch size."
        return Answer(headline, ["Add values to target_batch_sizes to see what the batch size does."])
    headline, verdict = _verdict(findings)
    headline += _faulty(findings.established, set(faulty_runs(results)))
    budgets = [_budget(name, spec.budgets[name], results, len(spec.budgets) > 1) for name in spec.budget_names]
    return Answer(headline, [_largest(findings), verdict, _seeds(findings.seeds), *budgets])


def _largest(findings: Findings) -> str:
    effect = findings.largest
    small, large = (
        f"{batch:,} ({percent(accuracy, 2)})"
        for batch, accuracy in (
            (effect.smaller_batch, effect.smaller_accuracy),
            (effect.larger_batch, effect.larger_accuracy),
        )
    )
    several = len({one.budget for one in findings.effects}) > 1
    budget = f", budget {effect.budget}" if several else ""
    where = f"{effect.model}, {effect.lr_policy} LR policy{budget}, from target batch size {small} to {large}"
    errors = f"{effect.paired_standard_error_points:.2f} points paired, {effect.standard_error_points:.2f} unpaired"
    what = "mean difference" if effect.seeds > 1 else "difference"
    said = f"The largest {what} in test accuracy within a model is {_size(effect)}: {where}. "
    whose = "The standard error of one seed's difference" if effect.seeds > 1 else "Its standard error"
    said += f"{whose} is {errors}, on the same {counted(effect.n, 'test review')}. Exact McNemar test: "
    correction = f"after Holm's correction over {counted(findings.tests, 'test')}"
    return said + f"{_each_p(effect.p)}; {_each_p(effect.p_holm)} {correction}."


def _size(effect: Effect) -> str:
    """`−1.20 points`, with the spread over several seeds."""
    size = f"{points(effect.difference_points)} points"
    if effect.seeds == 1:
        return size
    spread = f"from {points(effect.smallest_difference_points)} to {points(effect.largest_difference_points)}"
    return f"{size} (mean of {effect.seeds} seeds, {spread})"


def _each_p(values: tuple[float, ...]) -> str:
    if len(values) == 1:
        return p_equals(values[0])
    lowest, highest = p_equals(min(values)), p_equals(max(values))
    return f"{lowest} in every seed" if lowest == highest else f"{lowest} to {highest} over the seeds"


def _verdict(findings: Findings) -> tuple[str, str]:
    effects, seeds = findings.effects, findings.seeds
    budgets = "these budgets" if len({effect.budget for effect in effects}) > 1 else "this budget"
    total, held = len(effects), findings.established
    if not findings.significant_tests:
        blind = 2 * findings.median_paired_standard_error
        return (
            "No difference between target batch sizes is established.",
            f"None of the {counted(total, 'comparison')} has a Holm-corrected p below .05. That is not evidence of no "
            f"effect: on this many test reviews, differences under about {blind:.1f} points (two paired standard "
            f"errors) are hard to tell from chance.",
        )
    if seeds == 1:
        return (
            f"In {len(held)} of {counted(total, 'comparison')} the runs differ by more than the test set's chance. "
            f"With one seed, that is not yet the batch size.",
            f"There the Holm-corrected p is below .05{_direction(held)}: those trained models differ on reviews like "
            f"these. One seed cannot show whether another seed would give the same difference.",
        )
    if not held:
        return (
            "No difference between target batch sizes repeats over the seeds.",
            f"The Holm-corrected p is below .05 in {findings.significant_tests} of {counted(findings.tests, 'test')}. "
            f"No comparison of the {total:,} has that, with the same sign, in each of the {seeds} seeds.",
        )
    where = "In every comparison" if len(held) == total else "There"
    others = total - len(held)
    rest = f" The other {counted(others, 'comparison')} {_is(others)} not established." if others else ""
    return (
        f"Yes, for {len(held)} of {counted(total, 'comparison')} of batch sizes, under {budgets}.",
        f"{where} the difference has the same sign and a Holm-corrected p below .05 in each of the {seeds} seeds"
        f"{_direction(held)}.{rest}",
    )


def _faulty(established: Sequence[Effect], faulty: set[str]) -> str:
    """How many of the established comparisons include a run that did not learn."""
    touched = sum(not faulty.isdisjoint(effect.runs) for effect in established)
    if not touched:
        return ""
    which = "It includes" if len(established) == 1 else f"{touched} of these include{'s' if touched == 1 else ''}"
    return f" {which} a run that did not learn."


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _direction(effects: Iterable[Effect]) -> str:
    signs = [effect.difference_points > 0 for effect in effects]
    higher = sum(signs)
    which = "" if len(signs) == 1 else " in every one of them"
    if higher == 0:
        return f", and the smaller batch is the more accurate{which}"
    if higher == len(signs):
        return f", and the larger batch is the more accurate{which}"
    return f", with the larger batch more accurate in {higher} and the smaller in {len(signs) - higher} of them"


def _seeds(seeds: int) -> str:
    if seeds == 1:
        return (
            "Every cell was trained once: variation from seed to seed is not measured, and the tests above speak about "
            "these trained models only."
        )
    few = "; with so few, their spread is itself only roughly known" if seeds < 5 else ""
    return f"Every cell was trained with {seeds} seeds{few}."


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

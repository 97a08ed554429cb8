"""The titles of the charts: what each one shows of this study, from its verdicts and tables."""

from collections.abc import Sequence

import pandas as pd

from batchscope.config.claims import Claims
from batchscope.errors import counted
from batchscope.report.numbers import in_points, listed
from batchscope.report.spec import ReportSpec
from batchscope.statistics.budgets import ranking_flips
from batchscope.statistics.conclusions import Conclusions, with_verdict
from batchscope.statistics.records import Finding, Verdict
from batchscope.statistics.sweep import Choice


def accuracy_message(spec: ReportSpec, found: Conclusions | None) -> str:
    """What the verdicts say of test accuracy against the target batch size."""
    sizes = [one for one in (found.claims if found else []) if one.factor == "batch_size"]
    if found is None or not sizes:
        return "Test accuracy by target batch size"
    if found.one_seed:
        return "One seed per cell: differences are between trained models, not batch sizes"
    different = with_verdict(sizes, "different")
    down = [one for one in different if _gain(one) < 0]
    up = [one for one in different if _gain(one) > 0]
    if down and up:
        total = counted(len(sizes), "contrast")
        return f"Of {total}, a larger batch loses points in {len(down)} and gains points in {len(up)}"
    if different:
        return _one_way(spec, sizes, different, "lose" if down else "gain")
    return _no_difference(sizes, spec.claims)


def _one_way(spec: ReportSpec, sizes: Sequence[Finding], different: Sequence[Finding], verb: str) -> str:
    """All differences point in one direction."""
    noun = {"lose": "loss", "gain": "gain"}[verb]
    there = [name for name in spec.budget_names if any(one.budget == name for one in different)]
    elsewhere = [name for name in spec.budget_names if name not in there]
    places = listed(_place(spec, name) for name in there)
    if elsewhere:
        others = [one for one in sizes if one.budget in elsewhere]
        if others and len(with_verdict(others, "equivalent")) == len(others):
            return f"Larger batches {verb} points only {places}"
        rest = listed(_place(spec, name) for name in elsewhere)
        return f"Larger batches {verb} points {places}; {rest} no {noun} is established"
    if len(different) == len(sizes):
        return f"Larger batches {verb} points {places}"
    return f"Larger batches {verb} points {places} in {len(different)} of {counted(len(sizes), 'contrast')}"


def _no_difference(sizes: Sequence[Finding], claims: Claims) -> str:
    if len(with_verdict(sizes, "equivalent")) == len(sizes):
        return f"All batch sizes are equivalent within {in_points(claims.margin)}"
    if len(with_verdict(sizes, "did not learn")) == len(sizes):
        return "Every contrast includes a run that did not learn"
    return "No difference between batch sizes is established"


def _gain(finding: Finding) -> float:
    """Points that the larger of the two batch sizes is ahead."""
    return finding.difference_points * (1 if finding.batch_to > finding.batch_from else -1)


def _place(spec: ReportSpec, budget: str) -> str:
    """`at equal epochs`; by name where several budgets count the same."""
    units = {name: next(iter(one.model_dump(exclude_none=True))) for name, one in spec.budgets.items()}
    unit = units[budget]
    return f"at equal {unit}" if list(units.values()).count(unit) == 1 else f"under the budget {budget}"


def forest_message(claims: Sequence[Finding]) -> str:
    """`Of 8 contrasts, 2 differ, 1 is equivalent and 5 are underpowered`."""
    counts = {verdict: len(with_verdict(claims, verdict)) for verdict in ORDER}
    said = [f"{count} {ORDER[verdict][count != 1]}" for verdict, count in counts.items() if count]
    return f"Of {counted(len(claims), 'contrast')}, {listed(said)}"


ORDER: dict[Verdict, tuple[str, str]] = {
    "different": ("differs", "differ"),
    "equivalent": ("is equivalent", "are equivalent"),
    "undecided": ("is undecided", "are undecided"),
    "underpowered": ("is underpowered", "are underpowered"),
    "did not learn": ("includes a run that did not learn", "include a run that did not learn"),
}
"""Verdict → what is said of one contrast with it, and of several."""


def fair_message(spec: ReportSpec, summary: pd.DataFrame) -> str:
    """Whether the ranking of batch sizes depends on what is held equal."""
    if not spec.several_budgets:
        return "The same runs at equal updates, samples or compute"
    return (
        "The ranking of batch sizes depends on the budget"
        if ranking_flips(summary)
        else "Every budget ranks the batch sizes alike, by mean test accuracy"
    )


def sweep_message(made: Sequence[Choice]) -> str:
    """Whether the sweeps were wide enough."""
    at_edge = sum(bool(one.edge) for one in made)
    if at_edge:
        return f"In {at_edge} of {counted(len(made), 'cell')} the best learning rate is at an edge of the sweep"
    return "In no cell is the best learning rate at an edge of the sweep"


def noise_message(noise_scale: pd.DataFrame) -> str:
    """Where B is in the last epoch."""
    known = noise_scale.last_noise_scale.dropna() if len(noise_scale) else noise_scale.get("last_noise_scale", [])
    if not len(known):
        return "Where averaging more examples stops paying"
    low, high = f"{min(known):,.0f}", f"{max(known):,.0f}"
    where = f"is {low}" if low == high else f"lies between {low} and {high}"
    return f"In the last epoch, B {where} examples"


def calibration_message(runs: pd.DataFrame) -> str:
    """How many runs are off by more than chance."""
    off = int((runs.ece > runs.ece_by_chance_high).sum())
    return f"{off} of {counted(len(runs), 'run')} {'is' if off == 1 else 'are'} calibrated worse than chance explains"


def cost_message(results: pd.DataFrame) -> str:
    """How much faster the largest batch size trains than the smallest, per model, LR policy and budget."""
    own = results[~results.shared]
    small, large = own.target_batch_size.min(), own.target_batch_size.max()
    if small == large:
        return "What the runs cost, and what they reached"
    rates = own.groupby(["model", "lr_policy", "budget", "target_batch_size"]).samples_per_second.mean().unstack()
    ratios = (rates[large] / rates[small]).dropna()
    if not len(ratios):
        return "What the runs cost, and what they reached"
    low, high = f"{ratios.min():.2g}", f"{ratios.max():.2g}"
    times = f"{low} times" if low == high else f"{low} to {high} times"
    return f"Batch size {large:,} processes {times} as many samples per second as {small:,}"

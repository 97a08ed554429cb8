"""What a reader must keep in mind beside the answer: faulty runs, duplicates, yardsticks, mixed hardware."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from batchscope.data.records import Audit, Baseline
from batchscope.errors import counted
from batchscope.report.numbers import listed, percent
from batchscope.report.trust import MOST_NAMED, named, run_in_words
from batchscope.statistics.health import faulty_runs
from batchscope.statistics.records import Finding

UNBALANCED = 1.5
"""Classes are unbalanced if the most frequent one has this many times its equal share."""


class Caution(NamedTuple):
    """A sentence that a reader must know beside the answer."""

    section: str
    """The section of the page that shows more of it."""
    text: str
    warns: bool = True
    """Whether it is a warning, and not for comparison alone."""


def cautions(
    results: pd.DataFrame, claims: Sequence[Finding], audit: Audit, baseline: Baseline, runs: pd.DataFrame
) -> list[Caution]:
    """The sentences that apply to the study, the gravest first.

    ``results`` has one row per cell; ``runs`` is ``tables/provenance.csv`` as text.
    """
    own = results[~results.shared]
    found = [
        Caution("results", faulty_in_words(own, claims)),
        *(Caution("trust", sentence) for sentence in differing_in_words(runs, claims)),
        Caution("results", two_seeds_in_words(results)),
        Caution("trust", duplicates_in_words(audit)),
        Caution("results", balance_in_words(audit)),
        Caution("trust", left_out_in_words(audit)),
        Caution("results", yardsticks_in_words(own, audit, baseline), warns=False),
    ]
    return [caution for caution in found if caution.text]


def faulty_in_words(results: pd.DataFrame, claims: Sequence[Finding]) -> str:
    """Names the runs that did not learn, and how many contrasts include one."""
    faulty = faulty_runs(results)
    if not faulty:
        return ""
    shown = [f"{run_in_words(run)} ({reason})" for run, reason in list(faulty.items())[:MOST_NAMED]]
    more = f"; and {len(faulty) - MOST_NAMED} more" if len(faulty) > MOST_NAMED else ""
    said = f"{len(faulty)} of {counted(len(results), 'run')} did not learn: {'; '.join(shown)}{more}."
    touched = sum(not faulty.keys().isdisjoint(claim.runs.split()) for claim in claims)
    if touched:
        said += f" {_they(len(faulty))} in all means. {touched} of {counted(len(claims), 'contrast')} "
        said += f"{'includes' if touched == 1 else 'include'} such a run and {_have(touched)} no verdict."
    return said


def two_seeds_in_words(results: pd.DataFrame) -> str:
    """Says what two seeds per cell cannot show. One seed per cell is in the answer itself."""
    if results.groupby(["model", "target_batch_size", "lr_policy", "budget"]).seed.nunique().max() != 2:
        return ""
    return (
        "No cell has more than two seeds. Their scatter is the difference of two runs, and by chance it can be many "
        "times too small or too large. So intervals are wide; add seeds before you rely on a difference."
    )


def differing_in_words(runs: pd.DataFrame, claims: Sequence[Finding]) -> list[str]:
    """One sentence for each of precision, device and library in which the runs of the study differ."""
    subjects = {"precision": "precision", "device": "device", "determinism": "determinism", "driver": "NVIDIA driver"}
    subjects |= {f"prediction_{name}": f"the {name} of their predictions" for name in ("precision", "device")}
    subjects |= {
        name: f"their version of {name.removeprefix('version_')}"
        for name in runs.columns
        if name.startswith("version_")
    }
    return [_differ(runs, name, subject, claims) for name, subject in subjects.items() if runs[name].nunique() > 1]


def _differ(runs: pd.DataFrame, name: str, subject: str, claims: Sequence[Finding]) -> str:
    groups = {str(value) or "unknown": list(group.run) for value, group in runs.groupby(name, sort=False)}
    value_of = {run: value for value, read in groups.items() for run in read}
    rarest = min(groups, key=lambda value: len(groups[value]))
    counts = listed(f"{value} ({counted(len(read), 'run')})" for value, read in groups.items())
    mixed = sum(len({value_of[run] for run in claim.runs.split()}) > 1 for claim in claims)
    said = f"Runs differ in {subject}: {counts}; {rarest}: {named(groups[rarest])}."
    if mixed:
        said += f" {mixed} of {counted(len(claims), 'contrast')} {'is' if mixed == 1 else 'are'} between such runs: "
        said += "their differences can come from that as well."
    return said


def duplicates_in_words(audit: Audit) -> str:
    """Names the test reviews that also appear in the splits that a run learns or chooses from."""
    crossing = {row["other"]: row for row in audit["duplicates"]["crossing"] if row["split"] == "test"}
    found = [row for name in ("train", "validation") if (row := crossing.get(name)) and row["reviews"]]
    if not found:
        return ""
    shares = listed(f"{row['reviews']:,} ({percent(row['share'], 2)}) in {row['other']}" for row in found)
    total = counted(audit["splits"]["test"]["reviews"], "test review")
    return f"Of {total}, the same texts are in other splits: {shares}. They count in every test accuracy."


def balance_in_words(audit: Audit) -> str:
    """Says that accuracy mostly counts one class, where it does."""
    name, count, total = _most_frequent(audit)
    if count < UNBALANCED * total / len(audit["classes"]):
        return ""
    return (
        f"The classes are unbalanced: {percent(count / total)} of the test reviews are {name}, and accuracy mostly "
        f"counts these. Macro-F1 and the recall of every class are in the results."
    )


def left_out_in_words(audit: Audit) -> str:
    """Names what was not read of the data source."""
    count = len(audit["source"]["left_out"])
    return f"{counted(count, 'part')} of the data source {_was(count)} not read: see Data." if count else ""


def yardsticks_in_words(results: pd.DataFrame, audit: Audit, baseline: Baseline) -> str:
    """What the bag of words and the most frequent class reach on the same test reviews, and which runs do no better."""
    name, count, total = _most_frequent(audit)
    reached = {
        baseline["name"]: baseline["test_correct"] / baseline["test_examples"],
        f"the class {name} for every review": count / total,
    }
    said = f"For comparison, on the same test reviews: {listed(f'{who} {percent(x)}' for who, x in reached.items())}. "
    beaten = int((results.test_accuracy > max(reached.values())).sum())
    if beaten == len(results):
        return said + "Every run does better than both."
    worse = list(results.run[results.test_accuracy <= max(reached.values())])
    return said + f"{counted(len(worse), 'run')} {'does' if len(worse) == 1 else 'do'} no better: {named(worse)}."


def _most_frequent(audit: Audit) -> tuple[str, int, int]:
    """The most frequent class of the test split, its reviews, and all reviews of the split."""
    per_class: Mapping[str, int] = audit["splits"]["test"]["per_class"]
    name = max(per_class, key=lambda label: per_class[label])
    return name, per_class[name], audit["splits"]["test"]["reviews"]


def _they(count: int) -> str:
    return "It counts" if count == 1 else "They count"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"

"""The answer in words, computed from the tables: is the difference between batch sizes real?"""

from typing import Any, NamedTuple

import pandas as pd

from batchscope.report.catalogue import names_in_order
from batchscope.report.numbers import listed, p_equals, percent, points

LEVEL = 0.05


class Answer(NamedTuple):
    """A headline and the sentences that support it."""

    headline: str
    sentences: list[str]


def answer(spec: dict[str, Any], results: pd.DataFrame, contrasts: pd.DataFrame) -> Answer:
    """What the contrasts of test accuracy show, in plain words."""
    if contrasts.empty:
        headline = "There is nothing to compare: the study has one target batch size."
        return Answer(headline, ["Add values to target_batch_sizes to see what the batch size does."])
    seeds = names_in_order(spec, "seed")
    headline, verdict = _verdict(contrasts, len(seeds))
    return Answer(headline, [_largest(contrasts), *verdict, _seeds(seeds), _budget(spec, results)])


def consistent(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The model × policy × pair groups whose every seed has Holm p < .05 and the same sign: one row with their mean."""
    keys = ["model", "lr_policy", "smaller_batch", "larger_batch"]
    groups = contrasts.groupby(keys, sort=False)
    held = groups.filter(
        lambda group: (group.mcnemar_p_holm < LEVEL).all() and group.difference_points.gt(0).nunique() == 1
    )
    return held.groupby(keys, sort=False).difference_points.mean().reset_index()


def _largest(contrasts: pd.DataFrame) -> str:
    row = max(contrasts.to_dict("records"), key=lambda row: abs(row["difference_points"]))
    where = f"{row['model']}, {row['lr_policy']} LR policy, seed {row['seed']}"
    small, large = (f"{row[f'{end}_batch']:,} ({percent(row[f'{end}_accuracy'], 2)})" for end in ("smaller", "larger"))
    errors = f"{row['standard_error_points']:.2f} points unpaired, {row['paired_standard_error_points']:.2f} paired"
    tests = (
        f"{p_equals(row['mcnemar_p'])}, and {p_equals(row['mcnemar_p_holm'])} after Holm's correction over the study's"
    )
    return (
        f"The largest difference in test accuracy within a model is {points(row['difference_points'])} points: "
        f"{where}, from target batch size {small} to {large}. Its standard error is {errors}, on the same "
        f"{row['n']:,} test reviews. Exact McNemar {tests} {_counted(row['comparisons'], 'comparison')}."
    )


def _verdict(contrasts: pd.DataFrame, seeds: int) -> tuple[str, list[str]]:
    distinct = int(contrasts.comparisons.iloc[0])
    significant = contrasts[contrasts.mcnemar_p_holm < LEVEL]
    if significant.empty:
        blind = 2 * contrasts.paired_standard_error_points.median()
        return "No difference between target batch sizes is established.", [
            f"None of the {_counted(distinct, 'comparison')} stays below .05 after the correction. That is not "
            f"evidence of no effect: on this many test reviews, differences under about {blind:.1f} points (two paired "
            f"standard errors) are hard to tell from chance."
        ]
    share = f"{len(significant)} of {_counted(len(contrasts), 'comparison')}"
    if seeds == 1:
        return "Some runs differ by more than the test set's chance. With one seed, that is not yet the batch size.", [
            f"In {share} the Holm-corrected p stays below .05{_direction(significant)}: those trained models differ on "
            f"reviews like these. Whether another seed would repeat it was not asked."
        ]
    held = consistent(contrasts)
    groups = len(contrasts) // seeds
    if held.empty:
        return "No difference between target batch sizes repeats over the seeds.", [
            f"In {share} the Holm-corrected p stays below .05, but in no model, LR policy and pair of batch sizes "
            f"does it do so with the same sign in every one of {seeds} seeds."
        ]
    return f"Yes, for {len(held)} of {_counted(groups, 'comparison')} of batch sizes, under this budget.", [
        f"There the difference has the same sign and a Holm-corrected p below .05 in each of the {seeds} "
        f"seeds{_direction(held)}. The other comparisons are not established."
        if len(held) < groups
        else f"Every difference has the same sign and a Holm-corrected p below .05 in each of the {seeds} "
        f"seeds{_direction(held)}."
    ]


def _direction(rows: pd.DataFrame) -> str:
    higher = int((rows.difference_points > 0).sum())
    if higher == 0:
        return ", and the smaller batch is the more accurate in every one of them"
    if higher == len(rows):
        return ", and the larger batch is the more accurate in every one of them"
    return f", with the larger batch more accurate in {higher} and the smaller in {len(rows) - higher} of them"


def _seeds(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return (
            "Every cell was trained once: variation from seed to seed is not measured, and the tests above speak about "
            "these trained models only."
        )
    few = "; with so few, their spread is itself only roughly known" if len(seeds) < 5 else ""
    return f"Every cell was trained with {len(seeds)} seeds{few}."


def _budget(spec: dict[str, Any], results: pd.DataFrame) -> str:
    updates = results.groupby("target_batch_size").updates.max()
    small, large = int(updates.index.min()), int(updates.index.max())
    if "updates" in spec["budget"]:
        return (
            f"Every run makes {updates.max():,} updates, so target batch size {large:,} sees more samples than "
            f"{small:,}: the effect of the batch size includes that of more data and compute."
        )
    return (
        f"Every run sees the same number of samples, so target batch size {large:,} makes {updates[large]:,} updates "
        f"where {small:,} makes {updates[small]:,}: the effect of the batch size includes that of fewer updates."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def budget_in_words(budget: dict[str, int]) -> str:
    """`5 epochs`, `1,000 updates`."""
    return listed(_counted(count, unit.removesuffix("s")) for unit, count in budget.items())

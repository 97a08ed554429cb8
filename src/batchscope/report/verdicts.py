"""Contrasts and their verdicts in words, and as tables. What they say is computed in ``statistics``."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from batchscope.config.claims import Claims
from batchscope.errors import counted
from batchscope.report.numbers import in_points, p_equals, p_value, percent, points
from batchscope.report.table import Scope, Table
from batchscope.report.trust import run_in_words
from batchscope.statistics.conclusions import Design
from batchscope.statistics.records import Finding, Trend, Verdict
from batchscope.wording import Wording

ESTIMANDS = {
    "population": "seeds and reviews like these",
    "these_reviews": "seeds like these, on these reviews",
    "these_models": "these two trained models, on reviews like these",
}
"""Estimand → what the interval is about."""
ARROW, DASH = "→", "–"


def level_in_words(level: str) -> str:
    """`1,024` of `1024`, `sqrt` of `sqrt@256`."""
    name, _, _ = level.partition("@")
    return f"{int(name):,}" if name.isdecimal() else name


def contrast_in_words(finding: Finding, with_budget: bool = False) -> str:
    """`bert · constant · 64 → 1,024`; `bert · 256 · constant → sqrt`."""
    beside = [finding.model, finding.lr_policy, finding.budget if with_budget else ""]
    if finding.factor != "batch_size":
        beside.append(f"{finding.batch_from:,}")
    both = f"{level_in_words(finding.level_from)} {ARROW} {level_in_words(finding.level_to)}"
    return " · ".join([*(part for part in beside if part), both])


def verdict_in_words(finding: Finding, claims: Claims, reasons: Mapping[str, str], with_budget: bool = False) -> str:
    """One contrast in two or three sentences: what was compared, the verdict, the difference with its estimand.

    ``reasons`` maps a run that did not learn to why.
    """
    shown = finding if with_budget or finding.factor == "budget" else finding._replace(budget="")
    said = f"{_subject(shown)}: {_verdict(finding, claims)}."
    if finding.verdict == "did not learn":
        faulty = "; ".join(f"{run_in_words(run)} ({reasons.get(run, 'unknown')})" for run in finding.faulty.split())
        return f"{said} A run of it did not learn: {faulty}. Its difference is not read as an effect."
    said += f" The difference is {difference_in_words(finding)}, for {ESTIMANDS[finding.estimand]}; {_test(finding)}."
    if finding.verdict == "different" and finding.p_equivalence < claims.level:
        said += f" It is smaller than the margin of {in_points(claims.margin)}."
    if _seems_to_contradict(finding, claims):
        said += f" {CONSERVATIVE}"
    if finding.verdict == "underpowered":
        said += f" {lacking_in_words(finding, claims)}"
    return said


class Claim(NamedTuple):
    """A verdict of the list beside the forest plot."""

    glyph: str
    look: str
    """Name of its class in the style sheet."""
    verdict: str
    what: str
    difference: str
    """In points; a dash without a verdict."""
    sentence: str
    scope: Scope


GLYPHS: dict[Verdict, tuple[str, str]] = {
    "different": ("◆", "different"),
    "equivalent": ("●", "equivalent"),
    "undecided": ("○", "undecided"),
    "underpowered": ("□", "underpowered"),
    "did not learn": ("✕", "faulty"),
}
"""Verdict → the mark that the forest plot gives it, and its class in the style sheet."""


def claim_in_short(finding: Finding, claims: Claims, reasons: Mapping[str, str], with_budget: bool) -> Claim:
    """One contrast for the list of verdicts; ``reasons`` as in ``verdict_in_words``."""
    assert finding.verdict is not None
    glyph, look = GLYPHS[finding.verdict]
    difference = DASH if finding.verdict == "did not learn" else points(finding.difference_points)
    said = verdict_in_words(finding, claims, reasons, with_budget)
    what = contrast_in_words(finding, with_budget)
    return Claim(glyph, look, str(finding.verdict), what, difference, said, scope_of(finding))


def scope_of(finding: Finding) -> Scope:
    """What a contrast is about: its own levels, and those beside them."""
    levels = [level.partition("@")[0] for level in (finding.level_from, finding.level_to)]
    found = {"model": [finding.model], "policy": [finding.lr_policy], "budget": [finding.budget]}
    found["batch"] = list(dict.fromkeys([str(finding.batch_from), str(finding.batch_to)]))
    if finding.factor != "batch_size":
        found[{"lr_policy": "policy"}.get(finding.factor, finding.factor)] = levels
    return {key: values for key, values in found.items() if values != [""]}


def family_in_words(findings: Sequence[Finding], claims: Claims) -> str:
    """What the verdicts are about, below their list."""
    about = " and ".join(dict.fromkeys(ESTIMANDS[finding.estimand] for finding in findings))
    tests = " and ".join(dict.fromkeys(counted(finding.tests, "contrast") for finding in findings))
    said = f"Differences in points of test accuracy, for {about}. Holm's correction over {tests} at "
    said += f"{percent(claims.level, 0)}; equivalent: within {in_points(claims.margin)}."
    return f"{said} {CONSERVATIVE}" if any(_seems_to_contradict(finding, claims) for finding in findings) else said


CONSERVATIVE = (
    "With two seeds, the 95% interval is conservative: it covers the truth more often. The verdict follows the p-value."
)


def _seems_to_contradict(finding: Finding, claims: Claims) -> bool:
    """Whether the interval of two seeds seems to contradict the verdict.

    It is a t interval with one degree of freedom for the whole error, and the test takes the part of the reviews as
    known.
    """
    if finding.estimand != "population" or finding.seeds != 2:
        return False
    if finding.verdict == "different":
        return finding.low_points <= 0 <= finding.high_points
    return finding.verdict == "equivalent" and max(-finding.low_points, finding.high_points) > claims.margin


def _subject(finding: Finding) -> str:
    """What is compared. Of one seed, it is two trained models and nothing else."""
    both = f"{level_in_words(finding.level_from)} and {level_in_words(finding.level_to)}"
    if finding.estimand == "these_models":
        beside = [part for part in (finding.model, finding.lr_policy, finding.budget) if part]
        if finding.factor != "batch_size":
            beside.append(f"{finding.batch_from:,}")
        return f"These two trained models, {both} of {', '.join(beside)}"
    where = [finding.model] if finding.model else []
    where += [f"{finding.lr_policy} LR policy"] if finding.lr_policy else []
    where += [f"budget {finding.budget}"] if finding.budget else []
    what = {"batch_size": "target batch sizes", "lr_policy": "LR policies", "model": "models", "budget": "budgets"}
    if finding.factor != "batch_size":
        where.append(f"target batch size {finding.batch_from:,}")
    return f"{', '.join(where)}, {what[finding.factor]} {both}"


def _verdict(finding: Finding, claims: Claims) -> str:
    if finding.verdict == "equivalent":
        return f"equivalent within {in_points(claims.margin)}"
    return "no verdict" if finding.verdict == "did not learn" else str(finding.verdict)


def difference_in_words(finding: Finding) -> str:
    """`−1.20 points (95% interval −1.90 to −0.50)`."""
    return f"{points(finding.difference_points)} points (95% interval {interval_in_words(finding)})"


def interval_in_words(finding: Finding) -> str:
    """`−1.90 to −0.50`."""
    return f"{points(finding.low_points)} to {points(finding.high_points)}"


def _test(finding: Finding) -> str:
    """The p that the verdict rests on."""
    family = f"Holm over {counted(finding.tests, 'contrast')}"
    if finding.verdict == "equivalent":
        return f"two one-sided tests, {p_equals(finding.p_equivalence)} ({family})"
    kind = "exact McNemar test, " if finding.estimand == "these_models" else ""
    return f"{kind}{p_equals(finding.p_holm)} ({family})"


MILLION = 1_000_000
EVERYTHING = 100.0
"""Points between the worst accuracy and the best: no larger difference exists to be found."""


def lacking_in_words(finding: Finding, claims: Claims) -> str:
    """What an underpowered contrast would need for the margin."""
    power, margin = f"{100 * claims.power:.0f}% power", in_points(claims.margin)
    found = f"a true difference of {finding.smallest_points:.2f} points"
    found = found if finding.smallest_points < EVERYTHING else "no difference, however large,"
    said = f"It finds {found} with {power}; for {margin} it needs "
    return said + needed_in_words(finding.more_seeds, finding.more_reviews, more=True) + "."


def needed_in_words(seeds: float, reviews: float, more: bool = False) -> str:
    """`4 more seeds, or 3,000 more test reviews`. Infinity: no number is enough. NaN: it does not count."""
    another = "more " if more else ""
    enough, none = [], []
    for count, noun, others in ((seeds, "seed", "reviews"), (reviews, "test review", "seeds")):
        if math.isinf(count):
            none.append(f"no number of {noun}s is enough with these {others}")
        elif not math.isnan(count):
            enough.append(_number_of(count, f"{another}{noun}"))
    if not enough:
        return f"both more seeds and more test reviews: {' and '.join(none)}" if none else "nothing more"
    return ", or ".join(enough) + (f" ({none[0]})" if none else "")


def _number_of(count: float, noun: str) -> str:
    """`3,000 reviews`; above a million the components are not known well enough for a number."""
    return counted(int(count), noun) if count <= MILLION else f"over a million {noun}s"


def power_in_words(made: Design, claims: Claims, assumed: bool) -> str:
    """The smallest difference that a study can establish, and what the margin needs.

    ``assumed``: the components are those of stable classifiers, a lower bound.
    """
    power = f"{100 * claims.power:.0f}% power"
    at_best = "at best " if assumed else ""
    said = f"From {counted(made.seeds, 'seed')} and {counted(made.reviews, 'test review')}, a contrast finds {at_best}"
    found = f"a true difference of {made.smallest_points:.2f} points or more"
    said += found if made.smallest_points < EVERYTHING else "no difference, however large,"
    said += f" with {power} (Holm over {counted(made.contrasts, 'contrast')}). "
    if made.smallest_points <= claims.margin:
        return said + f"That is enough for the margin of {in_points(claims.margin)}."
    needed = needed_in_words(made.seeds_for_margin, made.reviews_for_margin)
    return said + f"The margin of {in_points(claims.margin)} needs {needed}."


def findings_table(findings: Sequence[Finding], with_budget: bool, wording: Wording) -> Table:
    """Every contrast under every estimand."""
    columns = ["contrast", "#difference, points", "#95% interval", "estimand", "verdict", "#Holm p", "#p", "#df"]
    columns += ["#equivalence p", "#finds, points", "needs more"]
    rows = []
    for finding in findings:
        row = [contrast_in_words(finding, with_budget), points(finding.difference_points), interval_in_words(finding)]
        row += [wording.of(ESTIMANDS[finding.estimand]), str(finding.verdict), _p(finding.p_holm), _p(finding.p)]
        row += [
            _df(finding.df),
            _p(finding.p_equivalence),
            f"{finding.smallest_points:.2f}" if finding.smallest_points < EVERYTHING else "none",
            wording.of(_lacking(finding)),
        ]
        rows.append(row)
    note = "Second level minus first. Holm p and equivalence p are adjusted over the contrasts of one family under one "
    note += (
        "estimand. Finds: the smallest true difference that a contrast finds with the wanted power. Needs more: for "
    )
    note += "the margin, seeds with these reviews or test reviews with these seeds."
    return Table(columns, rows, note, [scope_of(finding) for finding in findings])


def _lacking(finding: Finding) -> str:
    if finding.verdict != "underpowered":
        return DASH
    counts = ((finding.more_seeds, "seed"), (finding.more_reviews, "review"))
    enough = [_number_of(count, noun) for count, noun in counts if math.isfinite(count)]
    none = [f"no number of {noun}s" for count, noun in counts if math.isinf(count)]
    return "; ".join(filter(None, [" or ".join(enough), " and ".join(none)])) or DASH


def pairs_table(pairs: pd.DataFrame, with_budget: bool, wording: Wording) -> Table:
    """All pairs of batch sizes, as description; ``pairs`` is ``tables/pairs.parquet``."""
    columns = ["model", "LR policy", *(["budget"] if with_budget else []), "#batch sizes", "#difference, points"]
    columns += ["#95% interval", "estimand", "#p"]
    rows: list[list[str]] = []
    about: list[Scope] = []
    for row in pairs.to_dict("records"):
        sizes = f"{int(row['level_from']):,} {ARROW} {int(row['level_to']):,}"
        interval = f"{points(row['low_points'])} to {points(row['high_points'])}"
        where = [row["model"], row["lr_policy"], *([row["budget"]] if with_budget else [])]
        shown = [points(row["difference_points"]), interval, wording.of(ESTIMANDS[row["estimand"]]), _p(row["p"])]
        rows.append([*where, sizes, *shown])
        place = {"model": [row["model"]], "policy": [row["lr_policy"]], "budget": [row["budget"]]}
        about.append(place | {"batch": [str(int(row["level_from"])), str(int(row["level_to"]))]})
    note = "Every pair, to describe: no correction for their number, and no verdict. tables/pairs_by_seed.csv compares "
    note += "the two runs of each seed, with the exact and the mid-p McNemar test."
    return Table(columns, rows, note, about)


def components_table(findings: Sequence[Finding], with_budget: bool, wording: Wording) -> Table:
    """Where the scatter of each contrast comes from, and the bootstrap beside its interval."""
    columns = ["contrast", "#SD over seeds", "#by chance", "#seed", f"#{wording.one} × level", "#residual"]
    rows: list[list[str]] = []
    about: list[Scope] = []
    for one in findings:
        if one.estimand == "population":
            per_seed = [one.seed_sd_points, one.chance_sd_points, one.sd_seed]
            row = [contrast_in_words(one, with_budget), *(f"{value:.2f}" for value in per_seed)]
            row += [f"{one.sd_review:.1f}", f"{one.sd_residual:.1f}", interval_in_words(one)]
            rows.append([*row, f"{points(one.bootstrap_low_points)} to {points(one.bootstrap_high_points)}"])
            about.append(scope_of(one))
    note = (
        "In points. SD over seeds: of a seed's difference over all reviews. By chance: what stable classifiers show, "
    )
    note += "residual/√N. Seed: the part beyond it. Review × level and residual: SD of one review's difference, shared "
    note += "by the seeds or not. Bootstrap: percentile interval of the multi-bootstrap over seeds × reviews, a check "
    note += (
        "of the interval. With few seeds it errs both ways: it shows too little of the seeds' scatter and counts the "
    )
    note += "residual twice."
    return Table([*columns, "#95% interval", "#bootstrap"], rows, note, about)


def trends_table(trends: Sequence[Trend], with_budget: bool) -> Table:
    """All batch sizes at once: F, and the change per doubling."""
    columns = ["model", "LR policy", *(["budget"] if with_budget else []), "#F (df)", "#p of F"]
    columns += ["#per doubling, points", "#95% interval", "#p of the slope"]
    rows = []
    for row in trends:
        f = DASH if math.isnan(row.f) else f"{row.f:.2f} ({row.df1:.0f}, {row.df2:.1f})"
        mark = " ‡" if row.faulty else ""
        rows.append(
            [row.model, row.lr_policy, *([row.budget] if with_budget else []), f, _p(row.p)]
            + [points(row.slope_points) + mark, f"{points(row.low_points)} to {points(row.high_points)}"]
            + [_p(row.p_slope)]
        )
    note = "F: are all target batch sizes alike, for seeds and reviews like these? Per doubling: the slope of test "
    note += "accuracy over log₂ of the target batch size. Both describe: no correction, no verdict."
    if any(row.df1 == 1 for row in trends):
        note += " With two target batch sizes both test the same difference: the p of F has the degrees of "
        note += "freedom of the interval, the p of the slope is that of the contrast."
    if any(row.faulty for row in trends):
        note += " ‡ includes a run that did not learn, and is no effect."
    return Table(columns, rows, note)


def _p(value: float) -> str:
    return DASH if math.isnan(value) else p_value(value)


def _df(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.1f}".removesuffix(".0")

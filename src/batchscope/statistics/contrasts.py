"""The contrasts of a study: differences, intervals, tests, components and verdicts, from the predictions. Pure."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscope.config.claims import Claims, Factor
from batchscope.statistics.bootstrap import multi_bootstrap
from batchscope.statistics.components import Components, components
from batchscope.statistics.crossed import Estimate, Moments, moments, population, these_models, these_reviews
from batchscope.statistics.families import Place, Planned
from batchscope.statistics.macro_f1 import pseudo_values
from batchscope.statistics.paired import Correct, disagreements, holm, mcnemar_exact, mcnemar_mid_p
from batchscope.statistics.records import Estimand, Finding
from batchscope.statistics.verdicts import needs, verdict


def findings(
    contrasts: Sequence[Planned], correct: Mapping[str, Correct], faulty: Collection[str], claims: Claims
) -> list[Finding]:
    """Every contrast under every estimand that its seeds allow: *population* and *these_reviews*, or, with one seed,
    *these_models*. Holm's correction is over the contrasts of a family under one estimand.

    ``correct`` maps a run to booleans ``[N]`` with the reviews in one order; ``faulty`` holds the runs that did not
    learn.
    """
    data = [_differences(contrast, correct) for contrast in contrasts]
    raw = [
        finding
        for contrast, d in zip(contrasts, data, strict=True)
        for finding in _estimands(contrast, d, correct, faulty, claims)
    ]
    shown = iter(multi_bootstrap([d for d in data if len(d) > 1]))
    judged = judge(raw, claims)
    return [_with_bootstrap(one, next(shown)) if one.estimand == "population" else one for one in judged]


def _with_bootstrap(finding: Finding, interval: NDArray[np.float64]) -> Finding:
    low, high = (100 * float(end) for end in interval)
    return finding._replace(bootstrap_low_points=low, bootstrap_high_points=high)


def _differences(contrast: Planned, correct: Mapping[str, Correct]) -> NDArray[np.int8]:
    """``[J, N]``: −1, 0 or 1 for every seed and review."""
    return np.stack([correct[end].astype(np.int8) - correct[start].astype(np.int8) for start, end in contrast.runs])


def _estimands(
    contrast: Planned, d: NDArray[np.int8], correct: Mapping[str, Correct], faulty: Collection[str], claims: Claims
) -> Iterator[Finding]:
    found = moments(d)
    per_seed = 100 * d.mean(1)
    facts = {
        "accuracy_from": float(np.mean([correct[start].mean() for start, _ in contrast.runs])),
        "accuracy_to": float(np.mean([correct[end].mean() for _, end in contrast.runs])),
        "lowest_points": float(per_seed.min()),
        "highest_points": float(per_seed.max()),
    }
    for estimand, estimate in estimates(found):
        finding = described(contrast, estimand, estimate, found)._replace(**facts)  # type: ignore[arg-type]
        wrong = [run for run in finding.runs.split() if run in faulty]
        finding = finding._replace(
            faulty=" ".join(wrong), p_equivalence=float(estimate.p_equivalence(claims.margin / 100))
        )
        if estimand == "these_models":
            counts = disagreements(*(correct[run] for run in contrast.runs[0]))
            finding = finding._replace(p=mcnemar_exact(*counts), p_mid=mcnemar_mid_p(*counts))
        yield finding


def estimates(found: Moments) -> list[tuple[Estimand, Estimate]]:
    """The estimands that the seeds allow."""
    if found.seeds == 1:
        return [("these_models", these_models(found))]
    return [("population", population(found)), ("these_reviews", these_reviews(found))]


def described(contrast: Planned, estimand: Estimand, estimate: Estimate, found: Moments) -> Finding:
    """A contrast without tests of a family."""
    parts = components(found)
    low, high = estimate.interval()
    nothing = math.nan
    return Finding(
        factor=contrast.factor,
        model=_shared(contrast, "model"),
        lr_policy=_shared(contrast, "lr_policy"),
        budget=_shared(contrast, "budget"),
        level_from=_level(contrast.start, contrast.factor),
        level_to=_level(contrast.end, contrast.factor),
        seeds=found.seeds,
        reviews=found.reviews,
        estimand=estimand,
        difference_points=100 * float(estimate.difference),
        se_points=100 * float(estimate.standard_error),
        df=float(estimate.df),
        low_points=100 * float(low),
        high_points=100 * float(high),
        p=float(estimate.p_value()),
        p_holm=nothing,
        p_equivalence=nothing,
        verdict=None,
        more_seeds=nothing,
        more_reviews=nothing,
        sd_seed=100 * parts.seed,
        sd_review=100 * parts.review,
        sd_residual=100 * parts.residual,
        family=contrast.family,
        tests=0,
        batch_from=contrast.start.batch,
        batch_to=contrast.end.batch,
        accuracy_from=nothing,
        accuracy_to=nothing,
        smallest_points=nothing,
        seed_sd_points=100 * math.sqrt(found.seed_variance),
        chance_sd_points=100 * parts.residual / math.sqrt(found.reviews),
        lowest_points=nothing,
        highest_points=nothing,
        p_mid=nothing,
        bootstrap_low_points=nothing,
        bootstrap_high_points=nothing,
        runs=" ".join(dict.fromkeys(run for pair in contrast.runs for run in pair)),
        faulty="",
    )


def _shared(contrast: Planned, factor: Factor) -> str:
    return "" if contrast.factor == factor else contrast.start.level(factor)


def _level(place: Place, factor: Factor) -> str:
    return place.level(factor) if factor == "batch_size" else f"{place.level(factor)}@{place.batch}"


def judge(raw: Sequence[Finding], claims: Claims) -> list[Finding]:
    """The findings with Holm's correction over their families and the verdicts."""
    families: dict[tuple[str, str], list[int]] = {}
    for number, finding in enumerate(raw):
        families.setdefault((finding.family, finding.estimand), []).append(number)
    judged = list(raw)
    for members in families.values():
        # A contrast that is not read as an effect keeps its place in the family, so that the level holds.
        different = holm({n: 1.0 if raw[n].faulty else raw[n].p for n in members})
        equivalent = holm({n: 1.0 if raw[n].faulty else raw[n].p_equivalence for n in members})
        for n in members:
            judged[n] = _judged(raw[n], different[n], equivalent[n], len(members), claims)
    return judged


def _judged(finding: Finding, p_holm: float, p_equivalence: float, tests: int, claims: Claims) -> Finding:
    parts = _of_estimand(finding)
    fixed = finding.estimand == "these_models"
    needed = needs(parts, finding.seeds, finding.reviews, claims, tests, fixed)
    said = verdict(p_holm, p_equivalence, needed, claims.level, bool(finding.faulty))
    read, lacking = not finding.faulty, said == "underpowered"
    fixed_reviews = finding.estimand == "these_reviews"
    return finding._replace(
        tests=tests,
        p_holm=p_holm if read else math.nan,
        p_equivalence=p_equivalence if read else math.nan,
        verdict=said,
        smallest_points=100 * needed.smallest,
        more_seeds=needed.more_seeds if lacking else math.nan,
        more_reviews=needed.more_reviews if lacking and not fixed_reviews else math.nan,
    )


def _of_estimand(finding: Finding) -> Components:
    """The components that count: with fixed reviews, what is common to the seeds is no error."""
    seed, review, residual = (part / 100 for part in (finding.sd_seed, finding.sd_review, finding.sd_residual))
    return Components(seed, 0.0 if finding.estimand == "these_reviews" else review, residual)


# ------------------------------------------------------------------------------------------------ description


def pair_findings(contrasts: Iterable[Planned], correct: Mapping[str, Correct]) -> list[Finding]:
    """All pairs, as description: no family, no verdict."""
    rows = []
    for contrast in contrasts:
        found = moments(_differences(contrast, correct))
        rows += [described(contrast, estimand, estimate, found) for estimand, estimate in estimates(found)]
    return rows


class OfMetric(NamedTuple):
    """A contrast in another metric than accuracy."""

    metric: str
    """``macro_f1``, or ``recall of`` a class."""
    finding: Finding


def metric_findings(
    contrasts: Iterable[Planned],
    predictions: Mapping[str, NDArray[np.integer]],
    labels: NDArray[np.integer],
    classes: Sequence[str],
) -> list[OfMetric]:
    """The contrasts in macro-F1 and in the recall of every class with two test reviews or more, as description.

    ``predictions`` maps a run to classes ``[N]``. The recall of a class is the accuracy on its reviews.
    """
    pseudo = {run: pseudo_values(labels, said, len(classes)) for run, said in predictions.items()}
    correct = {run: said == labels for run, said in predictions.items()}
    rows = []
    for contrast in contrasts:
        values = [pseudo[end][0] - pseudo[start][0] for start, end in contrast.runs]
        single = np.stack([pseudo[end][1] - pseudo[start][1] for start, end in contrast.runs])
        measured = {"macro_f1": moments(single, values)}
        differences = _differences(contrast, correct)
        for number, name in enumerate(classes):
            mine = labels == number
            if mine.sum() > 1:
                measured[f"recall of {name}"] = moments(differences[:, mine])
        for metric, found in measured.items():
            rows += [
                OfMetric(metric, described(contrast, estimand, estimate, found))
                for estimand, estimate in estimates(found)
            ]
    return rows

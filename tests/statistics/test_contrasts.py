"""Families, shared runs, faulty runs and error rates of whole studies."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom
from sklearn.metrics import f1_score, recall_score
from slow_statistics import reference_crossed

from batchscope.config.claims import Claims
from batchscope.errors import UserError
from batchscope.report.spec import GridCell
from batchscope.statistics.bootstrap import multi_bootstrap
from batchscope.statistics.components import Components
from batchscope.statistics.contrasts import findings, metric_findings, pair_findings
from batchscope.statistics.families import all_pairs, planned
from batchscope.statistics.macro_f1 import pseudo_values
from batchscope.statistics.omnibus import trends
from batchscope.statistics.paired import mcnemar_exact, mcnemar_mid_p
from batchscope.statistics.power import reviews_needed, seeds_needed, smallest_difference
from batchscope.statistics.records import COLUMNS, Finding
from batchscope.statistics.simulation import FAMILY, MARGIN, MIXES, rates, studies

POLICIES, SIZES = ("constant", "sqrt"), (64, 256, 1024)
Correct = dict[str, np.ndarray]


def cells(seeds: int = 3, models: tuple[str, ...] = ("bert",), shared: bool = False) -> list[GridCell]:
    """A grid of models × sizes × policies × seeds; with ``shared``, the policies agree at the smallest size."""
    found = []
    for model, policy, batch, seed in product(models, POLICIES, SIZES, range(seeds)):
        own = "constant" if shared and batch == SIZES[0] else policy
        run = f"{model}/bs{batch}/{own}/seed{seed}"
        facts = {"learning_rate": 1e-4, "run": run, "shared": own != policy, "budget": "5 epochs"}
        found.append(GridCell(model=model, batch=batch, policy=policy, seed=seed, **facts))
    return found


def predictions(grid: list[GridCell], reviews: int = 400, seed: int = 0, gap: float = 0.0) -> Correct:
    """Run → correctness; the largest batch size is ``gap`` less accurate."""
    rng = np.random.default_rng(seed)
    return {
        run: rng.random(reviews) < 0.9 - gap * ("bs1024" in run) for run in dict.fromkeys(cell.run for cell in grid)
    }


def named(found: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [(one.factor, one.lr_policy, one.level_from, one.level_to) for one in found if one.estimand == "population"]


def test_the_default_family() -> None:
    grid = cells()
    found = findings(planned(grid, Claims()), predictions(grid), {}, Claims())
    sizes = [("batch_size", policy, "64", large) for policy in POLICIES for large in ("256", "1024")]
    policies = [("lr_policy", "", f"constant@{size}", f"sqrt@{size}") for size in SIZES]
    assert named(found) == sizes + policies
    assert {one.tests for one in found} == {7}
    assert len(found) == 14, "one row per contrast and estimand"
    two = planned(cells(models=("bert", "modernbert")), Claims())
    assert sum(one.factor == "model" for one in two) == 6


def test_shared_runs_count_once_and_are_not_compared_with_themselves() -> None:
    grid = cells(models=("bert", "modernbert"), shared=True)
    plan = planned(grid, Claims())
    assert not [one for one in plan if one.factor == "lr_policy" and one.start.batch == 64]
    assert sum(one.factor == "model" for one in plan) == 5
    assert len({one.identity for one in plan}) == len(plan)


def test_a_config_names_contrasts_and_families() -> None:
    contrasts = {
        "large": {"factor": "batch_size", "levels": [256, 64, 1024], "lr_policies": ["sqrt"]},
        "policy": {"factor": "lr_policy", "levels": ["sqrt", "constant"], "batch_sizes": [1024], "family": "second"},
    }
    claims, grid = Claims.model_validate({"contrasts": contrasts}), cells()
    found = findings(planned(grid, claims), predictions(grid), {}, claims)
    assert named(found) == [
        ("batch_size", "sqrt", "256", "64"),
        ("batch_size", "sqrt", "256", "1024"),
        ("lr_policy", "", "sqrt@1024", "constant@1024"),
    ]
    assert [one.tests for one in found if one.estimand == "population"] == [2, 2, 1]
    nothing = Claims.model_validate({"contrasts": {"x": {"factor": "budget", "levels": ["short", "long"]}}})
    with pytest.raises(UserError, match=r"claims\.contrasts\.x compares no cells; levels of budget: `5 epochs`"):
        planned(grid, nothing)


def test_a_faulty_run_is_never_an_effect_and_keeps_its_place_in_the_family() -> None:
    grid = cells()
    correct, bad = predictions(grid, gap=0.3), "bert/bs1024/constant/seed1"
    sound = findings(planned(grid, Claims()), correct, {}, Claims())
    assert [one.verdict for one in sound if bad in one.runs and one.factor == "batch_size"] == ["different"] * 2
    found = findings(planned(grid, Claims()), correct, {bad}, Claims())
    for before, after in zip(sound, found, strict=True):
        if bad in after.runs.split():
            assert before.verdict != after.verdict == "did not learn"
            assert after.faulty == bad
            assert math.isnan(after.p_holm) and math.isnan(after.p_equivalence)
        else:
            assert after.faulty == ""
            assert after.p_holm >= before.p_holm - 1e-12
            assert after.tests == 7


def reference_holm(p_values: list[float]) -> list[float]:
    """Step by step, as Holm 1979 states it."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def test_the_p_values_of_a_family_are_corrected_and_decide_the_verdict() -> None:
    """The same contrasts in a family each and in one family, so that uncorrected and corrected values are known."""
    grid = cells()
    correct = predictions(grid, seed=3, gap=0.08)
    contrasts = {
        f"{policy}-{size}": {"factor": "batch_size", "levels": [64, size], "lr_policies": [policy]}
        for policy in POLICIES
        for size in (256, 1024)
    }
    alone_claims, together_claims = (
        Claims.model_validate({"margin": 4, "contrasts": each})
        for each in ({name: one | {"family": name} for name, one in contrasts.items()}, contrasts)
    )
    alone, together = (
        findings(planned(grid, claims), correct, {}, claims) for claims in (alone_claims, together_claims)
    )
    for estimand in ("population", "these_reviews"):
        each = [one for one in alone if one.estimand == estimand]
        family = [one for one in together if one.estimand == estimand]
        assert [one.p for one in each] == [one.p_holm for one in each] == [one.p for one in family]
        assert [one.p_holm for one in family] == pytest.approx(reference_holm([one.p for one in each]), rel=1e-12)
        equivalent = reference_holm([one.p_equivalence for one in each])
        assert [one.p_equivalence for one in family] == pytest.approx(equivalent, rel=1e-12)
        assert [one.verdict == "different" for one in family] == [one.p_holm < 0.05 for one in family]
        assert any(one.p < 0.05 <= one.p_holm for one in family), "the correction decides nothing"
        # A contrast with a run that did not learn counts as p = 1, whatever its own p is.
        smallest = min(range(4), key=lambda number: family[number].p)
        bad = family[smallest].runs.split()[0]
        faulty = findings(planned(grid, together_claims), correct, {bad}, together_claims)
        after = [one for one in faulty if one.estimand == estimand]
        for field, raw in (("p_holm", "p"), ("p_equivalence", "p_equivalence")):
            counted = [1.0 if end.faulty else getattr(one, raw) for one, end in zip(each, after, strict=True)]
            expected = [math.nan if end.faulty else p for end, p in zip(after, reference_holm(counted), strict=True)]
            assert [getattr(one, field) for one in after] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_one_seed_compares_trained_models() -> None:
    grid = cells(seeds=1)
    correct = predictions(grid, gap=0.1)
    found = findings(planned(grid, Claims()), correct, {}, Claims())
    assert {one.estimand for one in found} == {"these_models"}
    one = next(one for one in found if one.level_to == "1024")
    a, b = (correct[run] for run in one.runs.split())
    assert one.p == mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum()))
    assert one.p_mid == mcnemar_mid_p(int((a & ~b).sum()), int((b & ~a).sum())) < one.p
    assert math.isnan(one.sd_seed) and math.isnan(one.sd_review) and math.isnan(one.seed_sd_points)
    assert one.sd_residual == pytest.approx(100 * np.std(b.astype(int) - a, ddof=1))
    lacking = [other for other in found if other.verdict == "underpowered"]
    assert lacking and all(math.isnan(other.more_seeds) and other.more_reviews > 0 for other in lacking)
    assert one.low_points < one.difference_points < one.high_points


def test_a_difference_is_stated_in_points_from_the_first_level_to_the_second() -> None:
    grid = cells()
    correct = predictions(grid, gap=0.2)
    found = findings(planned(grid, Claims()), correct, {}, Claims())
    assert {one.verdict == "underpowered" for one in found} == {True, False}
    assert all(math.isnan(one.more_seeds) == (one.verdict != "underpowered") for one in found)
    one = next(one for one in found if one.level_to == "1024")
    by_seed = [
        100 * (correct[f"bert/bs1024/constant/seed{seed}"].mean() - correct[f"bert/bs64/constant/seed{seed}"].mean())
        for seed in range(3)
    ]
    assert one.difference_points == pytest.approx(np.mean(by_seed))
    assert (one.lowest_points, one.highest_points) == pytest.approx((min(by_seed), max(by_seed)))
    assert one.seed_sd_points == pytest.approx(np.std(by_seed, ddof=1))
    assert one.bootstrap_low_points < one.difference_points < one.bootstrap_high_points
    assert COLUMNS[:6] == ("factor", "model", "lr_policy", "budget", "level_from", "level_to")
    assert COLUMNS[-3:] == ("sd_seed", "sd_review", "sd_residual")


@pytest.mark.parametrize("gap", [0.0, 0.03])
def test_every_number_of_a_contrast_is_that_of_the_slow_reference(gap: float) -> None:
    grid, claims = cells(models=("bert", "modernbert")), Claims(margin=4, level=0.1, power=0.7)
    correct = predictions(grid, seed=7, gap=gap)
    found = findings(planned(grid, claims), correct, {}, claims)
    place = ("batch_size", "bert", "sqrt", "5 epochs", "64", "1024")
    population, fixed = (one for one in found if one[:6] == place)
    runs = [(f"bert/bs64/sqrt/seed{seed}", f"bert/bs1024/sqrt/seed{seed}") for seed in range(3)]
    d = np.stack([correct[end].astype(int) - correct[start] for start, end in runs])
    mean, error, df, covariance = reference_crossed(d)
    by_seed, within = d.mean(1), float(np.var(d, axis=1, ddof=1).mean())
    review = max(covariance, 0.0)
    parts = [
        math.sqrt(max(part, 0)) for part in (by_seed.var(ddof=1) - (within - review) / 400, review, within - review)
    ]
    for one in (population, fixed):
        assert (one.seeds, one.reviews, one.tests, one.family) == (3, 400, 20, "default")
        assert (one.batch_from, one.batch_to, one.runs) == (64, 1024, " ".join(run for pair in runs for run in pair))
        assert one.accuracy_from == pytest.approx(np.mean([correct[start].mean() for start, _ in runs]))
        assert one.accuracy_to == pytest.approx(np.mean([correct[end].mean() for _, end in runs]))
        assert one.difference_points == pytest.approx(100 * mean, abs=1e-9)
        assert (one.sd_seed, one.sd_review, one.sd_residual) == pytest.approx([100 * part for part in parts], abs=1e-6)
        assert one.chance_sd_points == pytest.approx(100 * parts[2] / 20)
        assert math.isnan(one.p_mid)
    assert (population.se_points, population.df) == pytest.approx((100 * error, df), rel=1e-9)
    test = stats.ttest_1samp(by_seed, 0)
    interval = [100 * end for end in test.confidence_interval(0.95)]
    assert (fixed.df, fixed.p, fixed.low_points, fixed.high_points) == pytest.approx(
        (2, test.pvalue, *interval), rel=1e-9
    )
    assert math.isnan(fixed.bootstrap_low_points) and math.isnan(fixed.bootstrap_high_points)
    half = stats.t.ppf(0.975, df) * 100 * error
    ends = (population.low_points, population.high_points)
    assert ends == pytest.approx((100 * mean - half, 100 * mean + half), rel=1e-9)
    # The power of a contrast is that of the components of its estimand at the strictest level of the family.
    for one, own in ((population, parts), (fixed, [parts[0], 0.0, parts[2]])):
        asked, level = Components(*own), 0.1 / 20
        assert one.smallest_points == pytest.approx(100 * smallest_difference(asked, 3, 400, level, 0.7), rel=1e-4)
        if one.verdict == "underpowered":
            assert one.more_seeds == seeds_needed(asked, 0.04, 3, 400, level, 0.7) - 3 > 0
        else:
            assert math.isnan(one.more_seeds)
    more_reviews = reviews_needed(Components(*parts), 0.04, 3, 400, 0.1 / 20, 0.7) - 400
    assert population.more_reviews == more_reviews > 0
    assert math.isnan(fixed.more_reviews), "its reviews are fixed"
    assert population.verdict == "underpowered"


def test_the_places_of_a_contrast_are_those_that_its_sides_share() -> None:
    grid = cells(models=("bert", "modernbert"))
    found = findings(planned(grid, Claims()), predictions(grid), {}, Claims())
    of_models = next(one for one in found if one.factor == "model" and one.batch_from == 256)
    assert of_models[1:6] == ("", "constant", "5 epochs", "bert@256", "modernbert@256")
    of_policies = next(one for one in found if one.factor == "lr_policy" and one.batch_from == 1024)
    assert of_policies[1:6] == ("bert", "", "5 epochs", "constant@1024", "sqrt@1024")


def test_other_metrics_and_all_pairs_describe() -> None:
    grid = cells()
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.8, 0.17, 0.03])
    said = {run: np.where(rng.random(300) < 0.2, 0, labels) for run in {cell.run for cell in grid}}
    rows = metric_findings(planned(grid, Claims()), said, labels, ["a", "b", "c"])
    assert {row.metric for row in rows} == {"macro_f1", "recall of a", "recall of b", "recall of c"}
    assert {row.finding.reviews for row in rows if row.metric == "recall of c"} == {int((labels == 2).sum())}
    assert all(row.finding.verdict is None for row in rows)
    pairs = pair_findings(all_pairs(grid), {run: one == labels for run, one in said.items()})
    assert len(pairs) == 2 * 2 * 3
    assert len(trends(grid, {run: one == labels for run, one in said.items()}, {})) == 2


def test_a_metric_is_that_of_scikit_learn_and_its_scatter_that_of_its_pseudo_values() -> None:
    """Five classes, of which one has a single review and another has two."""
    grid, names, rng = cells(), ["a", "b", "c", "one", "two"], np.random.default_rng(5)
    labels = np.concatenate([rng.choice(3, 117, p=[0.6, 0.3, 0.1]), [3, 4, 4]])
    wrong = {run: rng.random(120) < (0.4 if "bs1024" in run else 0.1) for run in (cell.run for cell in grid)}
    said = {run: np.where(changed, rng.integers(0, 5, 120), labels) for run, changed in wrong.items()}
    rows = metric_findings(planned(grid, Claims()), said, labels, names)
    assert [row.finding.estimand for row in rows[:2]] == ["population", "these_reviews"]
    mine = {row.metric: row.finding for row in rows[::2] if row.finding[2:6] == ("constant", "5 epochs", "64", "1024")}
    assert list(mine) == ["macro_f1", "recall of a", "recall of b", "recall of c", "recall of two"]
    measures = {
        run: [f1_score(labels, one, average="macro"), *np.delete(recall_score(labels, one, average=None), 3)]
        for run, one in said.items()
    }
    by_seed = np.array(
        [np.subtract(*(measures[f"bert/bs{size}/constant/seed{seed}"] for size in (1024, 64))) for seed in range(3)]
    )
    assert [one.difference_points for one in mine.values()] == pytest.approx(100 * by_seed.mean(0), abs=1e-9)
    assert [one.seed_sd_points for one in mine.values()] == pytest.approx(100 * by_seed.std(0, ddof=1), abs=1e-9)
    assert [one.reviews for one in mine.values()] == [120, *np.bincount(labels)[[0, 1, 2, 4]]]
    # With one seed the scatter of single reviews is that of their pseudo-values.
    (alone,) = (
        row.finding
        for row in metric_findings(planned(cells(seeds=1), Claims()), said, labels, names)
        if row.metric == "macro_f1" and row.finding.level_to == "1024" and row.finding.lr_policy == "constant"
    )
    start, end = (pseudo_values(labels, said[f"bert/bs{size}/constant/seed0"], 5)[1] for size in (64, 1024))
    assert alone.sd_residual == pytest.approx(100 * np.std(end - start, ddof=1), rel=1e-9)


def test_a_pair_has_no_family_no_verdict_and_nothing_of_its_runs() -> None:
    grid = cells()
    found = pair_findings(all_pairs(grid), predictions(grid))
    assert [one.estimand for one in found] == ["population", "these_reviews"] * 6
    for one in found:
        assert (one.family, one.tests, one.verdict, one.faulty) == ("pairs", 0, None, "")
        of_family = [one.p_holm, one.p_equivalence, one.more_seeds, one.more_reviews, one.smallest_points]
        of_runs = [one.accuracy_from, one.accuracy_to, one.lowest_points, one.highest_points]
        assert np.isnan([*of_family, *of_runs]).all()


def test_each_contrast_of_several_seeds_has_its_own_bootstrap_beside_contrasts_of_one() -> None:
    """The runs of size 256 have one seed of two, so that the first contrast has no bootstrap."""
    grid = [cell for cell in cells(seeds=2) if cell.batch != 256 or cell.seed == 0]
    correct, plan = predictions(grid, reviews=60, gap=0.1), planned(grid, Claims())
    found = findings(plan, correct, {}, Claims())
    assert (found[0].level_to, found[0].estimand) == ("256", "these_models")
    d = [
        np.stack([correct[end].astype(np.int8) - correct[start] for start, end in one.runs])
        for one in plan
        if len(one.runs) == 2
    ]
    ends = [(one.bootstrap_low_points, one.bootstrap_high_points) for one in found if one.estimand == "population"]
    assert np.array(ends) == pytest.approx(100 * multi_bootstrap(d), abs=1e-9)
    assert all(math.isnan(one.bootstrap_low_points) for one in found if one.estimand != "population")


def test_equivalence_is_two_t_tests_at_the_margin_and_every_faulty_run_is_named() -> None:
    one = {"factor": "batch_size", "levels": [64, 1024], "lr_policies": ["sqrt"]}
    grid, claims = cells(), Claims.model_validate({"margin": 3, "contrasts": {"one": one}})
    correct = predictions(grid, seed=3)
    _, fixed = findings(planned(grid, claims), correct, {}, claims)
    runs = [(f"bert/bs64/sqrt/seed{seed}", f"bert/bs1024/sqrt/seed{seed}") for seed in range(3)]
    by_seed = [correct[end].mean() - correct[start].mean() for start, end in runs]
    above = stats.ttest_1samp(by_seed, 0.03, alternative="less").pvalue
    below = stats.ttest_1samp(by_seed, -0.03, alternative="greater").pvalue
    assert fixed.p_equivalence == pytest.approx(max(above, below), rel=1e-9)
    faulty = findings(planned(grid, claims), correct, set(runs[1]), claims)
    assert [one.faulty for one in faulty] == [" ".join(runs[1])] * 2


def test_two_policies_that_are_the_same_are_not_different() -> None:
    """An A/A study: equal cells, other seeds. Of 21 studies, no more are different than the level allows."""
    grid, different, claims = [cell for cell in cells() if cell.batch != SIZES[-1]], 0, Claims()
    places = list(product(range(4), range(3)))
    rng = np.random.default_rng(11)
    for mix in MIXES.values():
        for correct in next(studies(mix, np.zeros(4), 3, 300, 7, rng)):
            runs = {cell.run: correct[place] for cell, place in zip(grid, places, strict=True)}
            found = findings(planned(grid, claims), runs, {}, claims)
            assert len(found) == 2 * 4
            different += any(one.verdict == "different" for one in found if one.estimand == "population")
    assert different <= binom.ppf(0.95, 21, 0.05)


@pytest.mark.parametrize("name", MIXES)
def test_error_rates_hold_and_power_grows(name: str) -> None:
    """The table of docs/methods.md in small."""
    draws = 300
    assert len(FAMILY) == 7
    assert MARGIN == 0.01
    few, many = rates(MIXES[name], 3, 500, draws), rates(MIXES[name], 8, 500, draws)
    wide = rates(MIXES[name], 3, 2000, draws)
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    for found in (few, many, wide):
        assert 0.91 < found.coverage < 0.99
        assert found.false_different <= most
        assert found.false_equivalent <= most
    assert few.power < many.power + 0.02
    assert few.power < wide.power + 0.02

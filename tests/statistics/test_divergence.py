"""The ratio of divergences: a slow reference, known ratios, and an interval that covers the truth."""

import numpy as np
import pytest

from batchscope.statistics import divergence
from batchscope.statistics.divergence import Pair, batch_seed_ratio


def simulated(rng: np.random.Generator, seeds: int, truth: float, reviews: int = 60) -> tuple[list[Pair], list[Pair]]:
    """Three batch sizes; each run has an effect of its seed on its divergences, each review a scale of its own."""
    scale = rng.gamma(8, 1 / 8, reviews)
    effect = rng.gamma(60, 1 / 60, seeds)
    of_batch = [
        Pair(seed, seed, truth * effect[seed] * scale * rng.gamma(20, 1 / 20, reviews))
        for seed in range(seeds)
        for _ in range(3)
    ]
    of_seed = [
        Pair(one, two, np.sqrt(effect[one] * effect[two]) * scale * rng.gamma(20, 1 / 20, reviews))
        for _ in range(3)
        for one in range(seeds)
        for two in range(one + 1, seeds)
    ]
    return of_batch, of_seed


def test_the_ratio_is_that_of_the_means() -> None:
    of_batch = [Pair(1, 1, np.array([0.2, 0.4])), Pair(2, 2, np.array([0.0, 0.2]))]
    of_seed = [Pair(1, 2, np.array([0.1, 0.1]))]
    found = batch_seed_ratio(of_batch, of_seed)
    assert found is not None and (found.seeds, found.reviews) == (2, 2)
    assert (found.between_batch_sizes, found.between_seeds, found.ratio) == pytest.approx((0.2, 0.1, 2.0))


@pytest.mark.filterwarnings("error")
def test_draws_count_pairs_by_their_seeds_and_reviews_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds, of which one has no pair of batch sizes; the seeds differ on two of five reviews alone."""
    monkeypatch.setattr(divergence, "DRAWS", 300)
    dice = np.random.default_rng(4)
    of_batch = [Pair(seed, seed, dice.gamma(2, 0.1, 5)) for seed in (3, 7, 7)]
    of_seed = [Pair(one, two, dice.gamma(2, 0.1, 5) * [1, 1, 0, 0, 0]) for one, two in ((3, 5), (5, 7), (3, 7))]
    rng, ratios = np.random.default_rng(divergence.DRAW_SEED), []
    for _ in range(300):
        seeds, reviews = np.array([3, 5, 7])[rng.integers(3, size=3)].tolist(), rng.integers(5, size=5)
        means = []
        for pairs, both in ((of_batch, False), (of_seed, True)):
            times = [seeds.count(one) * (seeds.count(two) if both else 1) for one, two, _ in pairs]
            values = [pair.divergence[reviews].mean() for pair in pairs]
            means.append(np.dot(times, values) / sum(times) if sum(times) else 0.0)
        if all(means):
            ratios.append(means[0] / means[1])
    found = batch_seed_ratio(of_batch, of_seed)
    assert found is not None and found.seeds == 3 and len(ratios) < 300
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), rel=1e-9)


def test_one_seed_or_one_batch_size_has_no_ratio_and_equal_runs_have_none() -> None:
    pair = Pair(1, 1, np.array([0.1]))
    assert batch_seed_ratio([pair], []) is None and batch_seed_ratio([], [pair]) is None
    found = batch_seed_ratio([pair], [Pair(1, 2, np.array([0.0]))])
    assert found is not None and np.isnan([found.ratio, found.low, found.high]).all()


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.0])
def test_the_interval_covers_the_truth(truth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "DRAWS", 200)
    rng = np.random.default_rng(3)
    found = [batch_seed_ratio(*simulated(rng, 6, truth)) for _ in range(60)]
    covered = [one.low <= truth <= one.high for one in found if one is not None]
    assert 0.85 <= np.mean(covered) <= 1.0
    assert np.mean([one.ratio for one in found if one is not None]) == pytest.approx(truth, rel=0.03)

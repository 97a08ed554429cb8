"""Maps of training examples: closed forms, the regions, equal samples seen, and ratios with known truth."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from batchscope.statistics import cartography
from batchscope.statistics.cartography import (
    REGIONS,
    Ranks,
    common_epochs,
    data_map,
    pairs_of_maps,
    rank_correlations,
    rank_ratio,
)
from batchscope.statistics.divergence import DRAW_SEED
from batchscope.statistics.geometry import RunPair

RUNS = [(batch, seed) for batch in (16, 64) for seed in range(5)]
PAIRS = pairs_of_maps(RUNS)
SEEDS = [seed for _, seed in RUNS]


def mapped(*probabilities: float) -> tuple[float, float, int, str]:
    found = data_map(np.array([probabilities], dtype=np.float32), np.array([probabilities]) > 0.5)
    return float(found.confidence[0]), float(found.variability[0]), int(found.right[0]), REGIONS[found.region[0]]


def test_closed_forms() -> None:
    third = float(np.float32(1 / 3))
    assert mapped(1, 1, 1) == (1, 0, 3, "easy")
    assert mapped(0, 0) == (0, 0, 0, "hard")
    assert mapped(third, third, third, third, third, third, third) == (third, 0, 0, "hard")
    assert mapped(0, 1) == (0.5, 0.5, 1, "ambiguous")
    confidence, variability, right, region = mapped(0.75, 0.25, 1.0, 1.0)
    assert (confidence, right, region) == (0.75, 3, "ambiguous")
    assert variability == pytest.approx(np.std([0.75, 0.25, 1.0, 1.0]))
    assert mapped(0.5, 0.5)[3] == "ambiguous"


def test_a_map_is_that_of_a_plain_computation() -> None:
    probability = np.random.default_rng(0).random((200, 4)).astype(np.float32)
    found = data_map(probability, probability > 0.3)
    wide = probability.astype(float)
    np.testing.assert_allclose(found.confidence, wide.mean(1), atol=1e-15)
    np.testing.assert_allclose(found.variability, wide.std(1), atol=1e-15)
    assert list(found.right) == [(row > np.float32(0.3)).sum() for row in probability]
    for mean, deviation, region in zip(wide.mean(1), wide.std(1), found.region, strict=True):
        expected = "easy" if mean - deviation > 0.5 else "hard" if mean + deviation < 0.5 else "ambiguous"
        assert REGIONS[region] == expected
    assert set(found.region) == {0, 1, 2}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([[184, 368, 552], [184, 368, 552]], 3),
        ([[176, 352], [160, 320]], 2),  # both leave out their tails
        ([[100, 200, 250], [100, 200, 250]], 3),  # a budget in samples
        ([[100, 200, 250], [100, 200, 300, 400]], 2),  # a budget in updates: the smaller batch ends within an epoch
        ([[60], [100, 200]], 0),
        ([[100], [100, 200]], 1),
    ],
)
def test_epochs_count_that_all_runs_end_at_equal_samples(samples: list[list[int]], expected: int) -> None:
    assert common_epochs(samples) == expected
    assert common_epochs(samples[::-1]) == expected


def test_rank_correlations_of_resampled_examples_are_scipys() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 300)).round(1)  # with many equal values
    times = rng.integers(0, 4, size=300)
    found = Ranks(values).correlations(times.astype(float))
    np.testing.assert_allclose(found, spearmanr(np.repeat(values, times, axis=1).T).statistic, atol=1e-12)
    np.testing.assert_allclose(rank_correlations(values), spearmanr(values.T).statistic, atol=1e-12)
    values[2] = 7.0
    found = rank_correlations(values)
    assert np.isnan(found[2]).all() and np.isnan(found).sum() == 7


def runs_of(dice: np.random.Generator, by_batch: float, by_seed: float, examples: int = 150) -> np.ndarray:
    """Values of the runs: of the example, of example × batch size, and of example × run."""
    shared, of_batch = dice.normal(size=examples), {batch: dice.normal(0, by_batch, examples) for batch in (16, 64)}
    return np.stack([shared + of_batch[batch] + dice.normal(0, by_seed, examples) for batch, _ in RUNS])


def test_pairs_differ_in_the_batch_size_alone_or_in_the_seed_alone() -> None:
    found = pairs_of_maps([(1, 1), (1, 2), (64, 1), (64, 2), (2, 64), (2, 2)])
    assert found == [
        RunPair("seeds", 0, 1),
        RunPair("batch sizes", 0, 2),
        RunPair("batch sizes", 1, 3),
        RunPair("batch sizes", 1, 5),
        RunPair("seeds", 2, 3),
        RunPair("batch sizes", 3, 5),
        RunPair("seeds", 4, 5),
    ]


def test_draws_count_pairs_by_their_seeds_and_examples_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain computation with each drawn example as often as it was drawn."""
    monkeypatch.setattr(cartography, "DRAWS", 60)
    runs = [(batch, seed) for batch in (16, 64, 256) for seed in (7, 3, 5)]
    pairs, seeds = pairs_of_maps(runs), [seed for _, seed in runs]
    values = np.random.default_rng(6).normal(size=(9, 25)).round(1)
    rng, ratios = np.random.default_rng(DRAW_SEED), []
    for _ in range(60):
        examples, drawn = rng.integers(25, size=25), np.array([3, 5, 7])[rng.integers(3, size=3)].tolist()
        unlike = 1 - spearmanr(values[:, examples].T).statistic
        sums = {"batch sizes": [0.0, 0.0], "seeds": [0.0, 0.0]}
        for kind, one, two in pairs:
            times = drawn.count(seeds[one]) * (drawn.count(seeds[two]) if kind == "seeds" else 1)
            sums[kind][0] += times * unlike[one, two]
            sums[kind][1] += times
        if sums["seeds"][0] > 0:
            above, below = (total / count for total, count in sums.values())
            ratios.append(above / below)
    found = rank_ratio(values, seeds, pairs)
    assert found is not None and found.seeds == 3
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), rel=1e-9)


def test_the_ratio_of_runs_that_differ_by_chance_alone_holds_one() -> None:
    dice = np.random.default_rng(2)
    found = [rank_ratio(runs_of(dice, 0.0, 0.5, examples=60), SEEDS, PAIRS) for _ in range(8)]
    inside = sum(ratio is not None and ratio.low <= 1 <= ratio.high for ratio in found)
    assert inside >= 7, inside


def test_a_batch_size_that_reorders_the_examples_shows() -> None:
    ratio = rank_ratio(runs_of(np.random.default_rng(3), 1.0, 0.5), SEEDS, PAIRS)
    assert ratio is not None and ratio.low > 1.5 and ratio.seeds == 5 and ratio.reviews == 150
    values = runs_of(np.random.default_rng(3), 1.0, 0.5)
    rho = spearmanr(values.T).statistic
    across = np.mean([1 - rho[one, two] for kind, one, two in PAIRS if kind == "batch sizes"])
    between = np.mean([1 - rho[one, two] for kind, one, two in PAIRS if kind == "seeds"])
    assert (ratio.between_batch_sizes, ratio.between_seeds) == (pytest.approx(across), pytest.approx(between))
    assert ratio.ratio == pytest.approx(across / between)


def test_what_cannot_be_compared_has_no_ratio() -> None:
    values = np.random.default_rng(4).normal(size=(2, 20))
    assert rank_ratio(values, [1, 1], pairs_of_maps([(16, 1), (64, 1)])) is None
    assert rank_ratio(values, [1, 2], pairs_of_maps([(16, 1), (64, 2)])) is None
    assert rank_ratio(np.ones((10, 20)), SEEDS, PAIRS) is None
    same = rank_ratio(np.tile(values[0], (10, 1)), SEEDS, PAIRS)
    assert same is not None and same.between_seeds == 0 and np.isnan(same.ratio) and np.isnan(same.low)
    assert len(PAIRS) == 5 + 2 * 10

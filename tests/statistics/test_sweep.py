"""A sweep's choice is that of validation alone; its edges, its good range, and the best of n trials."""

from itertools import product
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.report.spec import GridCell, TablesSpec
from batchscope.statistics.sweep import Choice, choices, chosen_grid, chosen_rates, expected_best, trials

RATES = (1e-5, 2e-5, 4e-5, 8e-5, 16e-5)


def cells(rates: tuple[float, ...] = RATES, seeds: tuple[int, ...] = (1, 2)) -> list[GridCell]:
    """One cell's sweep and, beside it, a policy that is none."""
    found = []
    for policy, rate, seed in [*product(["tuned"], rates, seeds), ("constant", 3e-5, 1)]:
        name = f"tuned@{rate!r}" if policy == "tuned" else policy
        found.append(
            GridCell(
                model="bert",
                batch=64,
                policy=name,
                budget="5 epochs",
                seed=seed,
                learning_rate=rate,
                betas=(0.9, 0.999),
                eps=1e-8,
                candidate_of="tuned" if policy == "tuned" else None,
                run=f"bert/bs64/{name}/seed{seed}",
                shared=False,
            )
        )
    return found


def choice(accuracies: list[float], seeds: tuple[int, ...] = (1, 2)) -> Choice:
    """The choice among rates with these validation accuracies of 1,000 reviews, equal over the seeds."""
    rates = RATES[: len(accuracies)]
    correct = dict(zip(rates, accuracies, strict=True))
    grid = cells(rates, seeds)
    counts = {cell.run: (round(1000 * correct.get(cell.learning_rate, 1.0)), 1000) for cell in grid}
    (made,) = choices(trials(grid, counts))
    return made


def test_seeds_are_averaged_before_the_choice() -> None:
    """The best single seed is not at the best rate."""
    grid = cells(RATES[:2])
    counts = dict.fromkeys((cell.run for cell in grid), (800, 1000))
    counts["bert/bs64/tuned@1e-05/seed1"] = (950, 1000)
    counts["bert/bs64/tuned@1e-05/seed2"] = (500, 1000)
    tried = trials(grid, counts)
    assert [trial.accuracy for trial in tried] == [0.725, 0.8]
    assert chosen_rates(choices(tried)) == {("bert", "tuned", "5 epochs", 64): 2e-5}


def test_each_cell_of_a_sweep_has_its_own_choice_and_every_number_of_its_seeds() -> None:
    grid = cells(RATES[:2])
    grid += [cell.model_copy(update={"batch": 256, "run": cell.run.replace("64", "256")}) for cell in grid]
    counts = {cell.run: (700 + 100 * ((cell.learning_rate == RATES[0]) == (cell.batch == 64)), 1000) for cell in grid}
    tried = trials(grid, counts)
    runs = tuple(f"bert/bs64/tuned@1e-05/seed{seed}" for seed in (1, 2))
    assert tried[0] == ("bert", "tuned", "5 epochs", 64, 1e-5, 2, 1600, 2000, runs)
    small, large = choices(tried)
    assert small == ("bert", "tuned", "5 epochs", 64, 2, 2, 1e-5, 0.8, "lowest", 1e-5, 1e-5, 1.0, "lowest")
    assert large[:8] == ("bert", "tuned", "5 epochs", 256, 2, 2, 2e-5, 0.8) and large.edge == "highest"


def test_the_grid_of_the_choices_has_the_chosen_candidates_by_the_name_of_their_sweep() -> None:
    """A policy behind the sweep that reads the run of a candidate: shared where that one was chosen."""
    tuned = cells(RATES[:2], seeds=(1,))[:2]
    same = [cell.model_copy(update={"policy": "fixed", "candidate_of": None, "shared": True}) for cell in tuned[:1]]
    other = [cell.model_copy(update={"policy": "mine", "candidate_of": None, "run": "own"}) for cell in tuned[:1]]
    spec = TablesSpec(cells=(*other, *tuned, *same))
    for rate, shared in ((1e-5, True), (2e-5, False)):
        found = chosen_grid(spec, {("bert", "tuned", "5 epochs", 64): rate})
        assert [(cell.policy, cell.learning_rate, cell.candidate_of, cell.shared) for cell in found.cells] == [
            ("mine", 1e-5, None, False),
            ("tuned", rate, None, False),
            ("fixed", 1e-5, None, shared),
        ]


@pytest.mark.parametrize(
    ("accuracies", "rate", "edge"),
    [
        ([0.8, 0.9, 0.85, 0.7, 0.6], 2e-5, ""),
        ([0.9, 0.8, 0.7, 0.6, 0.5], 1e-5, "lowest"),
        ([0.5, 0.6, 0.7, 0.8, 0.9], 16e-5, "highest"),
        ([0.7, 0.9, 0.9, 0.7, 0.6], 2e-5, ""),
        ([0.5, 0.5], 1e-5, "lowest"),
        ([0.5, 0.6, 0.7, 0.9, 0.9], 8e-5, "highest"),  # the highest is as good as the one chosen
    ],
)
def test_an_optimum_at_the_edge_is_flagged(accuracies: list[float], rate: float, edge: str) -> None:
    made = choice(accuracies)
    assert (made.learning_rate, made.edge) == (rate, edge)


@pytest.mark.parametrize(
    ("accuracies", "low", "high", "open_ends"),
    [
        ([0.80, 0.895, 0.90, 0.891, 0.80], 2e-5, 8e-5, ""),
        ([0.80, 0.889, 0.90, 0.89, 0.80], 4e-5, 8e-5, ""),
        ([0.89, 0.80, 0.90, 0.80, 0.895], 4e-5, 4e-5, ""),
        ([0.89, 0.90, 0.80, 0.7, 0.6], 1e-5, 2e-5, "lowest"),
        ([0.90] * 5, 1e-5, 16e-5, "lowest highest"),
    ],
)
def test_the_good_range_has_no_gap_and_says_where_it_is_open(
    accuracies: list[float], low: float, high: float, open_ends: str
) -> None:
    made = choice(accuracies)
    assert (made.lowest_within, made.highest_within, made.open_ends) == (low, high, open_ends)
    assert made.width_ratio == pytest.approx(high / low)


def reference_expected_best(accuracies: list[float], draws: int) -> float:
    """The mean of the best over every sequence of draws with replacement."""
    return mean(max(drawn) for drawn in product(accuracies, repeat=draws))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_the_best_of_n_is_the_mean_over_all_draws(counts: list[int]) -> None:
    accuracies = [count / 20 for count in counts]
    expected = [reference_expected_best(accuracies, draws) for draws in range(1, len(accuracies) + 1)]
    assert expected_best(accuracies) == pytest.approx(expected)

"""The noise scale is a ratio of means, and missing where it cannot be told."""

import numpy as np
import pandas as pd
import pytest

from batchscope.report.spec import GridCell
from batchscope.statistics.jackknife import ratio_intervals
from batchscope.statistics.noise_scale import (
    batches_without_estimate,
    noise_span,
    noise_summary,
    running_noise_scale,
)


def noise_rows(samples: list[int], squares: list[float | None], traces: list[float | None]) -> pd.DataFrame:
    counted = {"update": range(1, len(samples) + 1), "samples": samples}
    estimates = {"gradient_square": squares, "noise_trace": traces, "validation_loss": None}
    return pd.DataFrame(counted | estimates, dtype=float)


def test_the_noise_scale_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    rows = noise_rows([10, 20, 24, 34], [1.0, 3.0, None, 2.0], [10.0, 50.0, None, 6.0])
    assert running_noise_scale(rows, 20).noise_scale.tolist() == pytest.approx([15.0, 15.0, 11.2])
    assert running_noise_scale(rows, 1000).noise_scale.tolist() == pytest.approx([11.0])
    alone = running_noise_scale(rows, 1).noise_scale.tolist()
    assert alone == pytest.approx([10.0, 50 / 3, np.nan, 3.0], nan_ok=True), "the third update has no estimate"


def test_there_is_no_noise_scale_where_the_gradient_does_not_show() -> None:
    """Means of -1 ± 0 and of 0.5 ± 2.5, then of 2.5 ± 0.5 and of 1 ± 1."""
    rows = noise_rows([10, 20, 30, 40, 50], [-1.0, -2.0, 3.0, 2.0, 0.0], [10.0] * 5)
    expected = [np.nan, np.nan, 4.0, np.nan]
    assert running_noise_scale(rows, 20).noise_scale.tolist() == pytest.approx(expected, nan_ok=True)


def test_the_noise_scale_of_seeds_is_that_of_their_estimates_together() -> None:
    one, other = noise_rows([10, 20], [1.0, 2.0], [10.0, 20.0]), noise_rows([10, 20], [3.0, None], [10.0, None])
    found = running_noise_scale(pd.concat([one, other]), 10)
    assert found.samples.tolist() == [10, 20]
    assert found.noise_scale.tolist() == pytest.approx([5.0, 10.0])


def test_batch_sizes_of_one_micro_batch_are_named() -> None:
    rows = noise_rows([10, 20, 30], [None, None, 1.0], [None, None, 2.0]).assign(target_batch_size=[16, 16, 1024])
    assert batches_without_estimate(rows) == ["16"]


def test_the_interval_belongs_to_the_updates_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    samples = list(range(10, 410, 10))
    rows = noise_rows(samples, rng.normal(1, 0.3, 40).tolist(), rng.normal(50, 5, 40).tolist())
    found = running_noise_scale(rows, 200)
    low, high = ratio_intervals(
        rows.noise_trace.to_numpy(), rows.gradient_square.to_numpy(), np.arange(21), np.arange(20, 41)
    )
    assert found.low.tolist() == pytest.approx(low.tolist()) and found.high.tolist() == pytest.approx(high.tolist())
    assert (found.low < found.noise_scale).all() and (found.noise_scale < found.high).all()


def test_updates_of_two_seeds_after_equal_samples_stay_in_the_order_of_the_seeds() -> None:
    """Which updates share a block of the jackknife is not left to chance."""
    rng, samples = np.random.default_rng(2), list(range(10, 1610, 10))
    seeds = [noise_rows(samples, rng.normal(1, 0.3, 160).tolist(), rng.normal(50, 5, 160).tolist()) for _ in "ab"]
    found = running_noise_scale(pd.concat(seeds), 1590)
    square, trace = (
        np.column_stack([rows[name].to_numpy() for rows in seeds]).ravel()
        for name in ("gradient_square", "noise_trace")
    )
    low, high = ratio_intervals(trace, square, np.array([0, 2]), np.array([318, 320]))
    assert found.low.tolist() == pytest.approx(low.tolist(), rel=1e-12)
    assert found.high.tolist() == pytest.approx(high.tolist(), rel=1e-12)


def test_the_summary_has_an_interval_over_all_seeds() -> None:
    rng = np.random.default_rng(1)
    runs = [
        noise_rows(list(range(10, 110, 10)), rng.normal(1, 0.3, 10).tolist(), rng.normal(50, 5, 10).tolist()).assign(
            run=run, kind="update", epoch=1
        )
        for run in ("a", "b")
    ]
    cells = [
        GridCell(
            model="m", batch=10, policy="p", budget="1 epoch", seed=seed, learning_rate=1e-3, run=run, shared=False
        )
        for seed, run in enumerate("ab")
    ]
    (found,) = noise_summary(cells, pd.concat(runs)).to_dict("records")
    both = pd.concat(runs).sort_values("samples", kind="stable")
    low, high = ratio_intervals(
        both.noise_trace.to_numpy(), both.gradient_square.to_numpy(), np.array([0]), np.array([20])
    )
    for epoch in ("first", "last"):
        assert (found[f"{epoch}_noise_scale_low"], found[f"{epoch}_noise_scale_high"]) == (low[0], high[0])
        assert low[0] < found[f"{epoch}_noise_scale"] < high[0]


def test_the_summary_counted_by_hand() -> None:
    """Two seeds, two epochs, an update without an estimate, lines of another kind and of another run."""
    lines = [("a", 1, 10, 1.0, 10.0), ("a", 1, 20, 3.0, 20.0), ("a", 2, 30, 2.0, 8.0), ("a", 2, 40, None, None)]
    lines += [("b", 1, 10, 2.0, 30.0), ("b", 2, 30, -4.0, 6.0), ("other", 1, 10, 99.0, 99.0)]
    columns = ["run", "epoch", "samples", "gradient_square", "noise_trace"]
    history = pd.DataFrame(lines, columns=columns).assign(kind="update")
    history = pd.concat([history, history.assign(kind="epoch", gradient_square=77.0)])
    facts = {"model": "m", "policy": "p", "budget": "1 epoch", "learning_rate": 1e-3, "shared": False}
    cells = [GridCell(batch=10, seed=seed, run=run, **facts) for seed, run in enumerate("ab")]
    (found,) = noise_summary(cells, history).to_dict("records")
    missing = {f"{epoch}_noise_scale_{end}": np.nan for epoch in ("first", "last") for end in ("low", "high")}
    expected = {
        "model": "m",
        "lr_policy": "p",
        "budget": "1 epoch",
        "target_batch_size": 10,
        "updates_used": 5,
        "first_gradient_square": 2.0,
        "first_noise_trace": 20.0,
        "first_noise_scale": 10.0,
        "last_gradient_square": -1.0,
        "last_noise_trace": 7.0,
        "last_noise_scale": np.nan,
    }
    pd.testing.assert_series_equal(pd.Series(found).sort_index(), pd.Series(expected | missing).sort_index())


def test_a_row_is_of_one_model_policy_budget_and_batch_size() -> None:
    places = [("m", 10, "p", "b"), ("n", 10, "p", "b"), ("m", 20, "p", "b"), ("m", 10, "q", "b"), ("m", 10, "p", "c")]
    history = pd.concat(
        noise_rows([10, 20], [float(number), float(number)], [6.0, 6.0]).assign(run=f"{number}", kind="update", epoch=1)
        for number in range(len(places))
    )
    cells = [
        GridCell(model=m, batch=n, policy=p, budget=b, seed=1, learning_rate=1e-3, run=f"{number}", shared=False)
        for number, (m, n, p, b) in enumerate(places)
    ]
    found = noise_summary(cells, history)
    columns = ["model", "target_batch_size", "lr_policy", "budget"]
    assert list(found[columns].itertuples(index=False, name=None)) == places
    assert found.first_noise_scale.tolist() == pytest.approx([np.nan, 6.0, 3.0, 2.0, 1.5], nan_ok=True)


@pytest.mark.filterwarnings("error")
def test_a_summary_without_estimates_has_no_numbers() -> None:
    history = pd.DataFrame({"run": ["a"], "kind": "update", "epoch": 1, "samples": 10}).assign(
        gradient_square=np.nan, noise_trace=np.nan
    )
    cell = GridCell(model="m", batch=10, policy="p", budget="b", seed=1, learning_rate=1e-3, run="a", shared=False)
    (found,) = noise_summary([cell], history).to_dict("records")
    assert found["updates_used"] == 0
    assert all(np.isnan(value) for name, value in found.items() if name.startswith(("first", "last")))


def test_the_span_is_a_tenth_of_the_longest_run_or_eight_of_the_largest_windows() -> None:
    history = pd.DataFrame({"samples": [100, 20_004, 300]})
    assert (noise_span(history, 16), noise_span(history, 1024)) == (2000, 8192)

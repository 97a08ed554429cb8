"""The noise-scale estimators: unbiased on a quadratic with known noise, exact where arithmetic is."""

import numpy as np
import pytest
import torch
from torch import nn

from batchscope.training.microbatch import MicroBatch
from batchscope.training.noise import NoiseGauge, estimate_noise, noise_columns, noise_gauge

WINDOWS = 1000
EQUAL, RAGGED, LOPSIDED = [4] * 5, [6, 6, 6, 2], [1, 8, 3]


def columns_of(gauge, grad_norm, over_ranks=None):
    seen = gauge.close()
    return noise_columns(seen, seen.norms.tolist(), grad_norm, over_ranks)


class Quadratic(nn.Module):
    """Loss ½‖θ − x‖² of an example x with mean 0 and variances ``spread``²: G = θ, S = Σ spread²."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.8, -0.5, 0.3]))
        self.second = nn.Parameter(torch.tensor([[0.1], [0.9]]))
        self.unused = nn.Parameter(torch.ones(2))

    theta = torch.tensor([0.8, -0.5, 0.3, 0.1, 0.9])
    spread = torch.tensor([0.5, 1.0, 1.5, 0.7, 2.0])
    gradient_square = float(theta.square().sum())
    noise_trace = float(spread.square().sum())

    def add_gradient(self, examples: torch.Tensor, scale: float) -> None:
        """What a backward pass of the scaled sum over ``examples`` ``[b, 5]`` leaves in ``.grad``."""
        gradient = scale * (self.theta - examples).sum(0)
        for parameter, piece in ((self.first, gradient[:3]), (self.second, gradient[3:, None])):
            parameter.grad = piece.clone() if parameter.grad is None else parameter.grad.add_(piece)

    def norm(self) -> float:
        return float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]))


def micro_batch(examples: int, scale: float) -> MicroBatch:
    nothing = torch.zeros(examples, dtype=torch.int64)
    return MicroBatch(nothing, nothing, nothing, scale)


def simulate(kind, sizes, scales, count=WINDOWS, seed=0):
    """The gauge's columns over ``count`` windows of a quadratic: float64 ``[count, 2]``."""
    generator = torch.Generator().manual_seed(seed)
    model = Quadratic()
    gauge = NoiseGauge(model, kind)
    rows = []
    for _ in range(count):
        for position, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
            model.add_gradient(model.spread * torch.randn(size, 5, generator=generator), scale)
            gauge.observe(position, micro_batch(size, scale))
        columns = columns_of(gauge, model.norm())
        rows.append([columns["gradient_square"], columns["noise_trace"]])
        model.zero_grad()
    return np.array(rows)


def exact(sizes):
    return [1 / sum(sizes)] * len(sizes)


def naive(sizes, steps):
    return [1 / (size * steps) for size in sizes]


def deviations(rows):
    """How many of its standard errors each column's mean is from the truth."""
    truth = np.array([Quadratic.gradient_square, Quadratic.noise_trace])
    return np.abs(rows.mean(0) - truth) / (rows.std(0, ddof=1) / np.sqrt(len(rows)))


@pytest.mark.parametrize("kind", ["cheap", "full"])
@pytest.mark.parametrize(
    ("sizes", "scales"),
    [(EQUAL, exact(EQUAL)), (RAGGED, exact(RAGGED)), (LOPSIDED, exact(LOPSIDED)), (EQUAL, naive(EQUAL, 8))],
    ids=["equal", "ragged", "lopsided", "naive tail"],
)
def test_both_estimates_are_unbiased_within_their_standard_error(kind, sizes, scales):
    assert (deviations(simulate(kind, sizes, scales)) < 3.5).all()


def test_a_naive_ragged_window_is_unbiased_too():
    assert (deviations(simulate("full", RAGGED, naive(RAGGED, 4))) < 3.5).all()


def test_the_simulation_would_see_a_wrong_estimator():
    """The formula for equal micro-batches on ragged ones, with the size of the first."""
    rows = simulate("full", RAGGED, exact(RAGGED))
    gradient_square, trace = rows.T
    mean_square = gradient_square + trace * len(RAGGED) / sum(RAGGED)
    large_square = gradient_square + trace / sum(RAGGED)
    wrong = [estimate_noise(m, 6, large, 24) for m, large in zip(mean_square, large_square, strict=True)]
    assert (deviations(np.array(wrong)) > 6).any()


def test_all_micro_batches_tell_more_than_the_first():
    full, cheap = (simulate(kind, [2] * 12, exact([2] * 12), 150).std(0) for kind in ("full", "cheap"))
    assert full[1] < 0.7 * cheap[1]


def reference_columns(gradients, sizes):
    """The formulas of the paper and of an analysis of variance on explicit gradients ``[K, d]``."""
    count, examples = len(sizes), sum(sizes)
    sizes = np.array(sizes)[:, None]
    mean = (sizes * gradients).sum(0) / examples
    trace = (sizes * (gradients - mean) ** 2).sum() / (count - 1)
    return (mean @ mean) - trace / examples, trace


@pytest.mark.parametrize("sizes", [EQUAL, RAGGED, LOPSIDED])
def test_full_is_the_analysis_of_variance(sizes):
    model, rng = Quadratic(), torch.Generator().manual_seed(1)
    gauge = NoiseGauge(model, "full")
    gradients = []
    for position, size in enumerate(sizes):
        examples = torch.randn(size, 5, generator=rng)
        gradients.append((model.theta - examples).mean(0).double().numpy())
        model.add_gradient(examples, 1 / sum(sizes))
        gauge.observe(position, micro_batch(size, 1 / sum(sizes)))
    columns = columns_of(gauge, model.norm())
    assert list(columns.values()) == pytest.approx(reference_columns(np.array(gradients), sizes), rel=1e-5)


@pytest.mark.parametrize(("size", "count"), [(1, 2), (16, 4), (3, 7)])
def test_equal_micro_batches_give_the_formula_of_the_paper(size, count):
    m, mean_square = 1.7, 0.9
    found = estimate_noise(m, size, mean_square, size * count)
    expected = (count * mean_square - m) / (count - 1), size * count / (count - 1) * (m - mean_square)
    assert tuple(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["cheap", "full"])
def test_a_window_of_one_micro_batch_has_no_estimate(kind):
    assert np.isnan(simulate(kind, [8], [1 / 8], 2).astype(float)).all()
    gauge = NoiseGauge(model := Quadratic(), kind)
    model.add_gradient(torch.zeros(8, 5), 1 / 8)
    gauge.observe(0, micro_batch(8, 1 / 8))
    assert columns_of(gauge, model.norm()) == {"gradient_square": None, "noise_trace": None}


@pytest.mark.parametrize("kind", ["cheap", "full"])
def test_a_window_begun_again_forgets_what_was_seen_of_it(kind):
    """A run that falls back to smaller micro-batches repeats the window from its first one."""
    broken, sound = Quadratic(), Quadratic()
    gauges = NoiseGauge(broken, kind), NoiseGauge(sound, kind)
    broken.add_gradient(torch.ones(4, 5), 1 / 8)
    gauges[0].observe(0, micro_batch(4, 1 / 8))
    broken.zero_grad()
    for model, gauge in zip((broken, sound), gauges, strict=True):
        for position in range(4):
            model.add_gradient(torch.arange(10.0).reshape(2, 5) * position, 1 / 8)
            gauge.observe(position, micro_batch(2, 1 / 8))
    assert columns_of(gauges[0], broken.norm()) == columns_of(gauges[1], sound.norm())


@pytest.mark.parametrize("kind", ["cheap", "full"])
def test_ranks_that_share_a_window_are_unbiased_too(kind):
    """Three processes and four micro-batches: one has two, and what it sums is what all of them sum."""
    scales, generator, rows = exact(RAGGED), torch.Generator().manual_seed(2), []
    models = [Quadratic() for _ in range(3)]
    gauges = [NoiseGauge(model, kind) for model in models]
    for _ in range(WINDOWS // 2):
        for number, (size, scale) in enumerate(zip(RAGGED, scales, strict=True)):
            model, gauge = models[number % 3], gauges[number % 3]
            model.add_gradient(model.spread * torch.randn(size, 5, generator=generator), scale)
            gauge.observe(number // 3, micro_batch(size, scale))
        whole = Quadratic()
        whole.first.grad = sum(model.first.grad for model in models)
        whole.second.grad = sum(model.second.grad for model in models)
        vectors = []
        for gauge in gauges:
            with pytest.raises(Collected):
                columns_of(gauge, whole.norm(), collect(vectors))
        total = torch.stack(vectors).sum(0)
        rows.append(list(columns_of(gauges[0], whole.norm(), lambda _, total=total: total).values()))
        for model in models:
            model.zero_grad()
    assert (deviations(np.array(rows)) < 3.5).all()


class Collected(Exception):
    """Stands for a process that waits for the others."""


def collect(vectors):
    def over_ranks(vector):
        vectors.append(vector)
        raise Collected

    return over_ranks


def test_a_rank_without_a_micro_batch_adds_nothing():
    gauge, vectors = NoiseGauge(model := Quadratic(), "full"), []
    model.add_gradient(torch.ones(4, 5), 1 / 8)
    gauge.observe(0, micro_batch(4, 1 / 8))
    for _ in range(2):
        with pytest.raises(Collected):
            columns_of(gauge, 1.0, collect(vectors))
    assert (vectors[0] > 0).all() and (vectors[1] == 0).all()


def test_off_is_no_gauge_at_all():
    assert noise_gauge(Quadratic(), None) is None

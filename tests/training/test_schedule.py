"""Learning-rate policies and schedules."""

import math
import re

import pytest

from batchscope.training.schedule import (
    largest_batch_of_malladi,
    scaled_betas,
    scaled_eps,
    scaled_learning_rate,
    schedule_factor,
)


@pytest.mark.parametrize(("batch", "lr"), [(64, 5e-5), (256, 1e-4), (1024, 2e-4)])
def test_sqrt_policy_gives_the_reference_study_its_rates(batch, lr):
    assert scaled_learning_rate(5e-5, "sqrt", batch, 64) == pytest.approx(lr, rel=1e-15)


def test_linear_and_constant_policies():
    assert scaled_learning_rate(1e-3, "linear", 256, 64) == pytest.approx(4e-3)
    assert scaled_learning_rate(1e-3, "none", 256, None) == 1e-3


def test_policies_agree_bit_for_bit_at_the_reference_batch():
    assert scaled_learning_rate(5e-5, "sqrt", 64, 64) == scaled_learning_rate(5e-5, "none", 64, None)


def test_warmup_rises_linearly_to_one():
    factors = [schedule_factor("constant", update, 100, 4) for update in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_linear_and_cosine_fall_from_one_towards_zero():
    linear = [schedule_factor("linear", update, 10) for update in range(10)]
    assert linear == pytest.approx([1 - update / 10 for update in range(10)])
    cosine = [schedule_factor("cosine", update, 10) for update in range(10)]
    assert cosine == pytest.approx([(1 + math.cos(math.pi * update / 10)) / 2 for update in range(10)])
    assert min(*linear, *cosine) > 0


def test_linear_and_cosine_fall_from_one_after_the_warm_up():
    after = [step / 6 for step in range(6)]  # of 10 updates, 4 warm up
    linear, cosine = ([schedule_factor(name, update, 10, 4) for update in range(10)] for name in ("linear", "cosine"))
    assert linear == pytest.approx([0.2, 0.4, 0.6, 0.8, *(1 - share for share in after)])
    assert cosine == pytest.approx([0.2, 0.4, 0.6, 0.8, *((1 + math.cos(math.pi * share)) / 2 for share in after)])


def test_a_constant_rate_ignores_a_reference_batch_size():
    assert scaled_learning_rate(1e-3, "none", 256, 64) == 1e-3


BETAS = (0.9, 0.999)


def test_malladi_scales_the_distance_of_each_beta_from_one_and_epsilon_by_the_root() -> None:
    assert scaled_betas(BETAS, "malladi", 256, 64) == (0.6, 0.996), "4 · 0.1 and 4 · 0.001 below one, to the last bit"
    assert scaled_betas(BETAS, "malladi", 32, 64) == (0.95, 0.9995)
    assert scaled_eps(1e-8, 256, 64) == pytest.approx(5e-9, rel=1e-15)


def test_half_life_keeps_the_half_life_in_samples() -> None:
    for before, after in zip(BETAS, scaled_betas(BETAS, "half_life", 256, 64), strict=True):
        assert 256 / math.log(after) == pytest.approx(64 / math.log(before), rel=1e-12)


@pytest.mark.parametrize(
    "batch, reference, scaling", [(256, 64, "none"), (64, 64, "half_life"), (256, None, "malladi")]
)
def test_betas_stay_as_they_are_to_the_last_bit_where_nothing_scales_them(batch, reference, scaling) -> None:
    assert scaled_betas((0.87, 0.9993), scaling, batch, reference) == (0.87, 0.9993)


@pytest.mark.parametrize(
    ("betas", "batch", "message"),
    [
        ((0.9, 0.999), 640, "κ(1 − β₁) = 1 ≥ 1 for κ = 10"),
        ((0.999, 0.9), 1024, "κ(1 − β₂) = 1.6 ≥ 1 for κ = 16"),
    ],
)
def test_a_beta_that_would_be_zero_or_less_is_refused_by_name(betas, batch, message) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scaled_betas(betas, "malladi", batch, 64)


@pytest.mark.parametrize(("betas", "largest"), [((0.9, 0.999), 639), ((0.999, 0.97), 2133), ((0.0, 0.5), 64)])
def test_the_largest_batch_of_malladi_is_the_last_one_with_both_betas(betas, largest) -> None:
    assert largest_batch_of_malladi(betas, 64) == largest
    scaled_betas(betas, "malladi", largest, 64)
    with pytest.raises(ValueError, match="≥ 1"):
        scaled_betas(betas, "malladi", largest + 1, 64)

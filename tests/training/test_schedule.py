"""Learning-rate policies and schedules."""

import math

import pytest

from batchscope.training.schedule import scaled_learning_rate, schedule_factor


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

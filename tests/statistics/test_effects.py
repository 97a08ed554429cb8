"""Effects over seeds: means lead, a comparison counts once, and one contrary seed is enough to establish nothing."""

import math

import pytest

from batchscope.statistics.effects import Findings, effects_over_seeds, find
from batchscope.statistics.paired import Contrast


def contrast(
    seed: int, difference: float, p: float, policy: str = "constant", larger: int = 64, run: str | None = None
) -> Contrast:
    """A contrast of target batch size 16 and a larger one; ``run`` names the policy whose runs it reads."""
    read = run or policy
    return Contrast(
        model="bert",
        lr_policy=policy,
        budget="5 epochs",
        seed=seed,
        smaller_batch=16,
        larger_batch=larger,
        smaller_run=f"bert/bs16/{read}/seed{seed}",
        larger_run=f"bert/bs{larger}/{read}/seed{seed}",
        n=300,
        smaller_accuracy=0.8,
        larger_accuracy=0.8 + difference / 100,
        difference_points=difference,
        standard_error_points=3.0,
        paired_standard_error_points=2.0,
        only_smaller_correct=10,
        only_larger_correct=10,
        mcnemar_p=p / 2,
        mcnemar_p_holm=p,
        comparisons=2,
    )


def found(*rows: Contrast) -> Findings:
    findings = find(rows)
    assert findings is not None
    return findings


def test_an_effect_is_the_mean_over_its_seeds() -> None:
    (effect,) = effects_over_seeds([contrast(1, -4.0, 0.01), contrast(2, -1.0, 0.2)])
    assert effect.difference_points == -2.5
    assert effect.difference_sd_points == pytest.approx(3 / math.sqrt(2))
    assert (effect.smallest_difference_points, effect.largest_difference_points) == (-4.0, -1.0)
    assert effect.larger_accuracy == pytest.approx(0.775)
    assert effect.p_holm == (0.01, 0.2)


@pytest.mark.parametrize(
    ("rows", "held"),
    [
        ([(1, -4.0, 0.01), (2, -1.0, 0.04)], 1),
        ([(1, -4.0, 0.01), (2, -1.0, 0.05)], 0),
        ([(1, -4.0, 0.01), (2, 4.0, 0.01)], 0),
        ([(1, -4.0, 0.01), (2, 0.0, 0.01)], 0),
    ],
)
def test_an_effect_is_established_if_every_seed_agrees(rows: list[tuple[int, float, float]], held: int) -> None:
    assert len(found(*(contrast(*row) for row in rows)).established) == held


def test_the_largest_effect_is_that_of_the_means_not_of_one_seed() -> None:
    extreme = [contrast(1, 9.0, 0.2), contrast(2, -7.0, 0.2)]
    steady = [contrast(1, 3.0, 0.2, larger=256), contrast(2, 3.0, 0.2, larger=256)]
    assert found(*extreme, *steady).largest.larger_batch == 256


def test_the_same_runs_under_a_second_policy_count_once() -> None:
    own = [contrast(seed, 3.0, 0.01) for seed in (1, 2)]
    again = [contrast(seed, 3.0, 0.01, policy="sqrt", run="constant") for seed in (1, 2)]
    findings = found(*own, *again)
    assert len(findings.effects) == len(findings.established) == 1
    assert findings.tests == findings.significant_tests == 2
    assert [effect.repeated for effect in effects_over_seeds([*own, *again])] == [False, True]


def test_one_batch_size_has_no_findings() -> None:
    assert find([]) is None

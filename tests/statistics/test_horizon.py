"""Adam's horizon: the reference study's cells, the rules by their settings, and what is said of them."""

import math

import pytest

from batchscope.statistics.horizon import Setting, horizons, lr_sum, warnings
from batchscope.training.schedule import scaled_betas, scaled_eps, scaled_learning_rate
from batchscope.training.spec import BudgetSpec
from batchscope.training.windows import windows

BATCHES = (64, 256, 1024)


def cell(batch: int, policy: str = "constant", rate: float = 5e-5, examples: int = 40_000, **own: object) -> Setting:
    """A cell of the reference study: 40,000 training reviews, 5 epochs."""
    made = list(windows(examples, batch, BudgetSpec(epochs=5)))
    per_epoch = sum(window.epoch == 1 for window in made)
    values = {"betas": (0.9, 0.999), "eps": 1e-8} | own
    place = ("bert", policy, "5 epochs", batch)
    total = lr_sum(rate, "constant", 0.0, len(made))
    return Setting(*place, rate, values["betas"], values["eps"], len(made), per_epoch, total)  # type: ignore[arg-type]


def test_the_cells_of_the_reference_study() -> None:
    audit = horizons([cell(batch) for batch in BATCHES for _ in range(2)])
    assert [one.updates for one in audit] == [3125, 785, 200]
    assert [round(one.refreshes, 1) for one in audit] == [3.1, 0.8, 0.2]
    assert [round(one.half_life_updates) for one in audit] == [693] * 3
    assert [round(one.half_life_epochs, 1) for one in audit] == [1.1, 4.4, 17.3]
    assert [round(one.filled, 2) for one in audit] == [0.96, 0.54, 0.18]
    assert [one.lr_sum_ratio for one in audit] == pytest.approx([1, 785 / 3125, 200 / 3125])
    assert [one.rule for one in audit] == ["reference cell", "nothing is scaled", "nothing is scaled"]


def reference_weights(beta: float, updates: int) -> list[float]:
    """Weights of the gradients of all updates in the second moment, by its recursion v ← βv + (1 − β)g²."""
    weights: list[float] = []
    for _ in range(updates):
        weights = [beta * weight for weight in weights] + [1 - beta]
    return weights


@pytest.mark.parametrize(("beta", "updates"), [(0.999, 200), (0.9, 5), (0.0, 3)])
def test_the_filled_share_is_the_weight_of_the_run_s_own_gradients(beta: float, updates: int) -> None:
    (one,) = horizons([cell(64, betas=(0.9, beta))._replace(updates=updates)])
    assert one.filled == pytest.approx(math.fsum(reference_weights(beta, updates)))
    after = max(1, math.ceil(one.half_life_updates))
    weights = reference_weights(beta, after + 2)
    assert weights[-1 - after] <= weights[-1] / 2 < weights[-after]


def scaled(batch: int, scaling: str = "sqrt", betas: str = "malladi", eps: bool = True) -> Setting:
    """A cell under a policy that scales from 64, by the functions that the config uses."""
    return cell(
        batch,
        rate=scaled_learning_rate(5e-5, scaling, batch, 64),  # type: ignore[arg-type]
        betas=scaled_betas((0.9, 0.999), betas, batch, 64),  # type: ignore[arg-type]
        eps=scaled_eps(1e-8, batch, 64) if eps else 1e-8,
    )


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, "complete rule of Malladi et al. 2022"),
        ({"eps": False}, "LR times √κ, β scaled as Malladi et al. 2022, ε constant"),
        ({"betas": "half_life", "eps": False}, "LR times √κ, β of constant half-life in samples, ε constant"),
        ({"betas": "none", "eps": False}, "LR times √κ, β constant, ε constant"),
        ({"scaling": "linear", "betas": "none", "eps": False}, "LR times κ, a rule for SGD, β constant, ε constant"),
        ({"scaling": "none", "betas": "none", "eps": False}, "nothing is scaled"),
    ],
)
def test_a_rule_is_known_by_its_settings(settings: dict[str, object], rule: str) -> None:
    first, second = horizons([scaled(64, **settings), scaled(256, **settings)])  # type: ignore[arg-type]
    assert (first.rule, second.rule) == ("reference cell", rule)
    (said,) = [one for one in warnings([first, second]) if "incomplete for Adam" in one] or [""]
    assert bool(said) == (settings.get("scaling") != "none" and "complete" not in rule)


def test_where_no_complete_rule_exists_the_audit_says_so() -> None:
    audit = horizons([scaled(batch, betas="none", eps=False) for batch in BATCHES])
    assert audit[2].rule.endswith("a complete rule does not exist at κ = 16, as κ(1 − 0.9) ≥ 1")
    assert "does not exist" not in audit[1].rule
    unfilled, partial = warnings(audit)
    assert (
        "2 of 3 cells: bert, 5 epochs, batch size 1,024 (200 updates, β₂ 0.999: 0.2 refreshes, 18% filled); bert"
        in unfilled
    )
    assert "2 of 3 cells" in partial
    assert warnings(horizons([cell(64)])) == []


@pytest.mark.parametrize(("name", "warmup"), [("constant", 0.0), ("linear", 0.1), ("cosine", 0.0), ("constant", 0.5)])
def test_the_sum_of_learning_rates_is_that_of_the_optimizer_s(name: str, warmup: float) -> None:
    torch = pytest.importorskip("torch")
    from batchscope.training.optimizer import set_learning_rate
    from batchscope.training.spec import ScheduleSpec, TrainSpec

    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    spec = TrainSpec.model_construct(learning_rate=0.3, schedule=ScheduleSpec(name=name, warmup=warmup))
    total = sum(set_learning_rate(optimizer, spec, update, 20) for update in range(1, 21))
    assert lr_sum(0.3, name, warmup, 20) == pytest.approx(total)  # type: ignore[arg-type]

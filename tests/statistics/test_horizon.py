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


def test_every_number_of_a_row() -> None:
    reference, own = horizons([cell(64), cell(256, rate=3e-5, betas=(0.8, 0.99), eps=5e-9)])
    assert reference[-4:] == ("reference", "reference", "reference", "reference cell")
    settings = ("bert", "constant", "5 epochs", 256, 3e-5, 0.8, 0.99, 5e-9, 785)
    assert own[:9] == settings
    half_life = math.log(2) / -math.log(0.99)
    assert own[9:13] == pytest.approx((7.85, half_life, half_life / 157, 1 - 0.99**785))
    assert own[13:17] == pytest.approx((3e-5 * 785, 3e-5 * 785 / (5e-5 * 3125), 64, 4))
    unknown = "by no rule known here"
    said = f"LR {unknown}, β {unknown}, ε scaled as Malladi et al. 2022"
    assert own[17:] == ("other", "other", "malladi", said)
    _, other = horizons([cell(64), cell(256, eps=1e-7)])
    assert (other.eps_rule, other.rule) == ("other", f"LR constant, β constant, ε {unknown}")


def test_a_rate_rounded_in_the_config_is_still_that_of_its_rule_and_one_refresh_is_enough() -> None:
    _, rounded, other = horizons([cell(64), cell(128, rate=7.0710678e-5), cell(256, rate=1.0001e-4)])
    assert (rounded.lr_rule, other.lr_rule) == ("sqrt", "other")
    enough, too_few = (cell(64, betas=(0.9, 0.75))._replace(updates=updates) for updates in (4, 3))
    assert warnings(horizons([enough])) == [] and len(warnings(horizons([too_few]))) == 1


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
    assert beta or one.half_life_updates == 0
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
    assert audit[2].rule == (
        "LR times √κ, β constant, ε constant; a complete rule does not exist at κ = 16, as κ(1 − 0.9) ≥ 1"
    )
    _, at_the_edge = horizons([scaled(batch, betas="none", eps=False) for batch in (64, 640)])
    assert at_the_edge.rule.endswith("a complete rule does not exist at κ = 10, as κ(1 − 0.9) ≥ 1")
    assert "does not exist" not in audit[1].rule
    unfilled, partial = warnings(audit)
    assert (
        "2 of 3 cells: bert, 5 epochs, batch size 1,024 (200 updates, β₂ 0.999: 0.2 refreshes, 18% filled); bert"
        in unfilled
    )
    assert "54% filled" in unfilled
    assert (
        "2 of 3 cells: bert, constant, 5 epochs, batch size 256 (LR times √κ, β constant, ε constant); bert" in partial
    )
    assert warnings(horizons([cell(64)])) == []


@pytest.mark.parametrize(("cells", "rest"), [(6, ""), (7, "; and 1 more"), (9, "; and 3 more")])
def test_six_cells_are_named_and_the_others_counted(cells: int, rest: str) -> None:
    (said,) = warnings(horizons([cell(1024)._replace(budget=f"budget {number}") for number in range(cells)]))
    assert said.count("batch size 1,024") == 6
    assert f"18% filled){rest}. There a difference" in said


@pytest.mark.parametrize(("name", "warmup"), [("constant", 0.0), ("linear", 0.1), ("cosine", 0.0), ("constant", 0.5)])
def test_the_sum_of_learning_rates_is_that_of_the_optimizer_s(name: str, warmup: float) -> None:
    torch = pytest.importorskip("torch")
    from batchscope.training.optimizer import set_learning_rate
    from batchscope.training.spec import ScheduleSpec, TrainSpec

    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    spec = TrainSpec.model_construct(learning_rate=0.3, schedule=ScheduleSpec(name=name, warmup=warmup))
    total = sum(set_learning_rate(optimizer, spec, update, 20) for update in range(1, 21))
    assert lr_sum(0.3, name, warmup, 20) == pytest.approx(total)  # type: ignore[arg-type]

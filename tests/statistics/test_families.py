"""Which cells are compared: restrictions, absent levels, seeds that both sides have, runs that count once."""

from itertools import product

import pytest

from batchscope.config.claims import Claims
from batchscope.errors import UserError
from batchscope.report.spec import GridCell
from batchscope.statistics.families import Place, Planned, all_pairs, planned


def cell(model: str, batch: int, policy: str, budget: str, seed: int, run: str = "") -> GridCell:
    name = run or f"{model}/{batch}/{policy}/{budget}/{seed}"
    own = {"model": model, "batch": batch, "policy": policy, "budget": budget, "seed": seed}
    return GridCell(**own, run=name, learning_rate=1e-4, shared=bool(run))


GRID = [cell(*place, seed) for *place, seed in product(("m", "n"), (256, 64), ("p", "q"), ("long", "short"), (1, 2))]
GRID.append(cell("lone", 64, "p", "long", 1))


def claimed(**claim: object) -> list[tuple[Place, Place]]:
    claims = Claims.model_validate({"contrasts": {"x": claim}})
    found = planned(GRID, claims)
    assert {one.family for one in found} == {"claims"} and {one.factor for one in found} == {claim["factor"]}
    return [(one.start, one.end) for one in found]


def test_a_claim_is_restricted_by_the_other_factors() -> None:
    of_sizes = claimed(factor="batch_size", levels=[64, 256], models=["n"], lr_policies=["q"], budgets=["short"])
    assert of_sizes == [(Place("n", 64, "q", "short"), Place("n", 256, "q", "short"))]
    of_models = claimed(factor="model", levels=["n", "m"], batch_sizes=[256], lr_policies=["p"])
    assert of_models == [(Place("n", 256, "p", name), Place("m", 256, "p", name)) for name in ("long", "short")]
    of_budgets = claimed(factor="budget", levels=["short", "long"], batch_sizes=[64], models=["m"])
    assert of_budgets == [(Place("m", 64, name, "short"), Place("m", 64, name, "long")) for name in ("p", "q")]


def test_levels_that_no_cell_has_are_passed_over_and_a_claim_without_any_is_refused() -> None:
    some = {"models": ["m"], "lr_policies": ["p"], "budgets": ["long"]}
    there = (Place("m", 64, "p", "long"), Place("m", 256, "p", "long"))
    assert claimed(factor="batch_size", levels=[64, 16, 256], **some) == [there]
    for levels in ([64, 16], [16, 64]):
        message = r"^claims\.contrasts\.x compares no cells; levels of batch_size: `256` or `64`$"
        with pytest.raises(UserError, match=message):
            claimed(factor="batch_size", levels=levels, **some)


def test_the_seeds_of_a_contrast_are_those_of_both_sides() -> None:
    cells = [cell("m", 64, "p", "b", seed) for seed in (1, 2, 3)] + [
        cell("m", 16, "p", "b", seed) for seed in (4, 3, 2)
    ]
    cells += [cell("m", 256, "p", "b", 9)]
    (found,) = planned(cells, Claims())
    runs = (("m/16/p/b/3", "m/64/p/b/3"), ("m/16/p/b/2", "m/64/p/b/2"))
    start, end = Place("m", 16, "p", "b"), Place("m", 64, "p", "b")
    assert found == Planned("default", "batch_size", start, end, (3, 2), runs)
    assert all_pairs(cells) == [found._replace(family="pairs")], "no pair with 256, which shares no seed"


def test_runs_that_two_places_share_are_compared_once_and_never_with_themselves() -> None:
    cells = [cell("m", size, "p", "b", 1) for size in (64, 256)]
    cells += [cell("m", size, "q", "b", 1, run=f"m/{size}/p/b/1") for size in (64, 256)]
    (found,) = planned(cells, Claims())
    assert (found.factor, found.start.policy) == ("batch_size", "p")
    claim = {"factor": "batch_size", "levels": [64, 256], "lr_policies": ["p"]}
    back = {"factor": "batch_size", "levels": [256, 64], "lr_policies": ["q"]}
    once = planned(cells, Claims.model_validate({"contrasts": {"x": claim, "y": back}}))
    assert [one.start.batch for one in once] == [64]
    apart = planned(cells, Claims.model_validate({"contrasts": {"x": claim, "y": back | {"family": "second"}}}))
    assert [one.family for one in apart] == ["claims", "second"]

"""The section `branch`: which runs it names, what it changes in the specs, and what is refused."""

import pytest
from small import tiny_config

from batchscope.config.study import Study
from batchscope.errors import UserError

BRANCH = {"at": [48, 96], "samples": 512}
POLICIES = {"constant": {"base_lr": 1e-3}, "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16}}


def study(**changes: object) -> Study:
    return Study.from_mapping(tiny_config(seeds=[1, 2], lr_policies=POLICIES, **changes))


def branched(**branch: object) -> list[str]:
    return [run.path for run in study(branch=BRANCH | branch).branched_runs()]


def test_the_smallest_batch_of_the_first_policy_and_seed_is_branched_unless_it_says_otherwise() -> None:
    assert branched() == ["bert/bs16/constant/seed1", "modernbert/bs16/constant/seed1"]
    assert branched(seeds="all", target_batch_size=40, lr_policy="sqrt", factors=[1, 2])[:2] == [
        "bert/bs40/sqrt/seed1",
        "bert/bs40/sqrt/seed2",
    ]
    # At the reference batch size both policies have the same runs: the first one owns them.
    assert branched(lr_policy="sqrt") == branched()
    assert study().branched_runs() == []


def test_no_training_depends_on_it_and_no_reading_on_a_branch() -> None:
    plain, asked = study().job_specs(), study(branch=BRANCH).job_specs()
    changed = {job for job in plain if plain[job].fingerprint() != asked[job].fingerprint()}
    assert changed == {"tables", "figures", "report"}
    assert asked.keys() - plain.keys() == {f"branch/{run}" for run in branched()}
    read = study(branch=BRANCH | {"tolerance": 0.5, "smoothing": 0.1}).job_specs()
    assert {job for job in asked if asked[job].fingerprint() != read[job].fingerprint()} == changed


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ({"factors": [2, 4]}, "branch.factors: 1 must be among them"),
        ({"factors": [1, 2, 2]}, "branch.factors: 2 is there twice"),
        ({"at": []}, "branch.at: must be a list of at least 1 entry"),
        ({"at": [-1]}, "branch.at, entry 1: must be 0 or more (it is -1)"),
        ({"samples": 511}, "branch.samples: 511 are fewer than 4 updates of 8 × 16 examples; give 512"),
        ({"target_batch_size": 17}, "branch.target_batch_size: 17 is none of target_batch_sizes"),
        ({"lr_policy": "linear"}, "branch.lr_policy: there is no policy `linear`; allowed: constant, sqrt"),
        ({"tolerance": 0}, "branch.tolerance: must be above 0"),
        ({"tolerence": 0.1}, "branch.tolerence: unknown key; did you mean `tolerance`"),
    ],
    ids=str,
)
def test_a_mistake_names_its_key(branch: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        study(branch=BRANCH | branch)
    assert message in str(caught.value)

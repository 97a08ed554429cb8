"""Mistakes in `claims:` are named by key, value and what is allowed."""

import math

import pytest

from batchscope.config.claims import SMALLEST_LEVEL, Claims
from batchscope.config.study import Study
from batchscope.errors import UserError
from batchscope.statistics.components import Components
from batchscope.statistics.power import smallest_difference

CONFIG = {
    "study": "s",
    "data": {"source": "synthetic"},
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [16, 64],
    "lr_policies": {
        "constant": {"base_lr": 1e-3},
        "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16},
    },
}


def contrast(**keys: object) -> dict[str, object]:
    """The config with one named contrast."""
    return CONFIG | {"claims": {"contrasts": {"mine": {"factor": "batch_size", "levels": [16, 64]} | keys}}}


def test_a_sound_contrast_reaches_the_tables() -> None:
    spec = Study.from_mapping(contrast(lr_policies=["sqrt"])).tables_spec()
    assert spec.claims.contrasts["mine"].lr_policies == ["sqrt"]
    assert {cell.budget for cell in spec.cells} == {"5 epochs"}
    assert spec.read(spec.plain()) == spec


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"levels": [16, 128]}, "claims.contrasts.mine.levels: the study has no batch_size 128; there is `16` or `64`"),
        ({"levels": [16]}, "claims.contrasts.mine.levels: must be a list of at least 2 entries"),
        ({"levels": [16, 16]}, "claims.contrasts.mine: levels: 16 is there twice"),
        ({"models": ["gpt"]}, "claims.contrasts.mine.models: the study has no model gpt; there is `bert`"),
        ({"batch_sizes": [16]}, "claims.contrasts.mine: `factor: batch_size` is what differs"),
        ({"factor": "engine"}, "claims.contrasts.mine.factor: must be `batch_size`, `lr_policy`, `model` or `budget`"),
        ({"facter": 1}, "claims.contrasts.mine.facter: unknown key; did you mean `factor`?"),
    ],
)
def test_mistakes_name_their_key(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        Study.from_mapping(contrast(**keys))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"margin": 0}, r"claims\.margin: must be above 0"),
        ({"level": 1e-20}, r"claims\.level: must be 1e-06 or more .*1e-20"),
        ({"level": 0.95}, r"claims: `level: 0\.95` must be below `power: 0\.8`: the accepted probability"),
        ({"level": 0.05, "power": 0.05}, r"claims: `level: 0\.05` must be below `power: 0\.05`"),
    ],
)
def test_impossible_numbers_are_refused(claims: dict[str, float], message: str) -> None:
    """A level above the power, or too small for critical values, was a traceback after the last training."""
    with pytest.raises(UserError, match=message):
        Study.from_mapping(CONFIG | {"claims": claims})


def test_the_smallest_level_and_power_that_are_accepted_have_a_smallest_difference() -> None:
    claims = Claims(level=SMALLEST_LEVEL, power=1.001 * SMALLEST_LEVEL)
    for seeds in (2, 3, 1000):
        for tests in (1, 10_000):
            found = smallest_difference(Components(0.01, 0.1, 0.3), seeds, 500, claims.level / tests, claims.power)
            assert 0 < found < math.inf

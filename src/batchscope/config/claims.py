"""The section ``claims:`` of the config: what a study is to establish, and by which rule."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscope.config.section import Fraction, Name, PositiveFloat, PositiveInt, Section
from batchscope.errors import either

Factor = Literal["batch_size", "lr_policy", "model", "budget"]


class ClaimedContrast(Section):
    """Cells to compare: two or more levels of one factor, the first against each other one."""

    factor: Factor
    """What differs: `batch_size`, `lr_policy`, `model` or `budget`. Everything else is equal within a contrast."""
    levels: Annotated[list[PositiveInt | Name], Field(min_length=2)]
    """The levels of the factor: the first is compared with each of the others."""
    models: list[Name] = Field(default=[])
    """Only for these models; for all if empty."""
    lr_policies: list[Name] = Field(default=[])
    """Only for these LR policies; for all if empty."""
    budgets: list[str] = Field(default=[])
    """Only for these budgets; for all if empty."""
    batch_sizes: list[PositiveInt] = Field(default=[])
    """Only at these target batch sizes; at all if empty."""
    family: Name = "claims"
    """Contrasts of one family share Holm's correction."""

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        named = [str(level) for level in self.levels]
        repeated = [level for level in named if named.count(level) > 1]
        if repeated:
            raise ValueError(f"levels: {repeated[0]} is there twice")
        if self.restriction(self.factor):
            raise ValueError(f"`factor: {self.factor}` is what differs: name its levels under `levels` alone")
        return self

    def restriction(self, factor: Factor) -> list[str]:
        """The levels of another factor to which the contrast is restricted; none for all."""
        limits: dict[Factor, Sequence[object]] = {
            "model": self.models,
            "lr_policy": self.lr_policies,
            "budget": self.budgets,
            "batch_size": self.batch_sizes,
        }
        return [str(level) for level in limits[factor]]

    def mistakes(self, grid: Mapping[Factor, Sequence[str]]) -> Iterator[str]:
        """The levels that the grid does not have, in words. ``grid`` maps a factor to its levels."""
        keys: dict[Factor, str] = {"model": "models", "lr_policy": "lr_policies", "budget": "budgets"}
        keys |= {"batch_size": "batch_sizes"}
        for factor, there in grid.items():
            named = {keys[factor]: self.restriction(factor)}
            if factor == self.factor:
                named["levels"] = [str(level) for level in self.levels]
            for key, levels in named.items():
                for level in levels:
                    if level not in there:
                        yield f"{key}: the study has no {factor} {level}; there is {either(list(there))}"


SMALLEST_LEVEL = 1e-6
"""Below, and after Holm's correction, the numbers have too few digits for critical values."""


class Claims(Section):
    """What the study is to establish: which cells are compared, and by which rule a difference counts."""

    margin: PositiveFloat = 0.5
    """Points of accuracy: a smaller difference does not matter to you. Two cells are *equivalent* if their difference
    is shown to lie within it, and the study's power is stated for it."""
    level: Annotated[Fraction, Field(ge=SMALLEST_LEVEL)] = 0.05
    """Largest accepted probability of a false *different* in a family of contrasts, and of a false *equivalent*."""
    power: Fraction = 0.8
    """Wanted probability of finding a difference as large as `margin`."""
    contrasts: dict[Name, ClaimedContrast] = Field(default={})
    """Contrasts by a name of your own. If there are none: each target batch size against the smallest, each LR policy
    against the first, each model against the first, everything else being equal; all in one family."""

    @model_validator(mode="after")
    def _level_is_no_confidence(self) -> Self:
        """A test has at least the power of its level, and `level: 0.95` is what other programs call the confidence."""
        if self.level >= self.power:
            raise ValueError(
                f"`level: {self.level:g}` must be below `power: {self.power:g}`: the accepted probability of a false "
                "*different*, such as 0.05"
            )
        return self

"""The section `branch` of the config: short trainings at larger batches from the states of a run."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from batchscope.config.section import REAL, Name, NaturalInt, PositiveFloat, PositiveInt, Section

FEWEST_UPDATES = 4
"""Updates that the branch with the largest batch must make."""


class Branch(Section):
    """Measures the critical batch size: short branches at multiples of a run's batch size, from states of that run."""

    at: list[NaturalInt] = Field(min_length=1)
    """Samples after which the run is branched; 0 is its beginning. Each point is the end of the first update that
    reaches it. A finished run is not trained again: what it lacks is replayed."""
    factors: list[PositiveInt] = Field(default=[1, 2, 4, 8], min_length=1)
    """Multiples of the run's target batch size. 1 must be among them: it is the run itself, and the others are compared
    with it. The learning rate is multiplied by the square root."""
    samples: PositiveInt
    """Samples that each branch trains on: for all of one point the same ones in the same order."""
    target_batch_size: PositiveInt | None = None
    """Target batch size of the runs to branch; the smallest one of the study if unset."""
    lr_policy: Name | None = None
    """LR policy of the runs to branch; the first one of the study that is no sweep if unset. Of several budgets, the
    runs of the first one are branched."""
    seeds: Literal["first_seed", "all"] = "first_seed"
    """Seeds of the runs to branch."""
    tolerance: PositiveFloat = 0.01
    """A branch is as good as factor 1 if its smoothed training loss is at most this much above, in nats. The default is
    one per cent of the probability of a review's label, as a geometric mean. Smaller values need longer branches to be
    told from noise: the table gives the standard error of each difference. Changing it does not retrain anything."""
    smoothing: Annotated[float, Field(gt=0, le=1), REAL] = 0.5
    """Share of a branch, at its end, over which the training loss is averaged. Changing it does not retrain
    anything."""

    @field_validator("at", "factors")
    @classmethod
    def _distinct(cls, values: list[int]) -> list[int]:
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"{repeated[0]} is there twice")
        return sorted(values)

    @field_validator("factors")
    @classmethod
    def _begins_with_the_run_itself(cls, values: list[int]) -> list[int]:
        if 1 not in values:
            raise ValueError("1 must be among them: the other branches are compared with the run itself")
        return values

    def mistake(self, target_batch_sizes: list[int], lr_policies: list[str]) -> str | None:
        """What does not go with the study's grid, in words, or None. ``lr_policies`` are those that are no sweep."""
        batch = self.batch_of(target_batch_sizes)
        if batch not in target_batch_sizes:
            return f"branch.target_batch_size: {batch} is none of target_batch_sizes"
        if not lr_policies:
            return "branch: every policy of lr_policies is a sweep; add one with a learning rate of its own"
        if self.policy_of(lr_policies) not in lr_policies:
            return f"branch.lr_policy: there is no policy `{self.lr_policy}`; allowed: {', '.join(lr_policies)}"
        fewest = FEWEST_UPDATES * self.factors[-1] * batch
        if self.samples < fewest:
            largest = f"{FEWEST_UPDATES} updates of {self.factors[-1]} × {batch} examples"
            return f"branch.samples: {self.samples} are fewer than {largest}; give {fewest} or smaller branch.factors"
        return None

    def batch_of(self, target_batch_sizes: list[int]) -> int:
        """Target batch size of the runs to branch."""
        return self.target_batch_size or min(target_batch_sizes)

    def policy_of(self, lr_policies: list[str]) -> str:
        """LR policy of the runs to branch."""
        return self.lr_policy or lr_policies[0]

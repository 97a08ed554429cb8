"""What tables, figures and the page depend on besides the files that they read."""

from typing import Literal, Self

from batchscope.config.claims import Claims
from batchscope.config.schema import Budget, Data, Model, Optimizer, Schedule, ValidateEvery
from batchscope.provenance.spec import Spec
from batchscope.wording import REVIEWS

Place = tuple[str, str, str, int]
"""Model, LR policy, budget and target batch size."""


class GridCell(Spec):
    """One cell of the grid, and the run that it reads."""

    model: str
    batch: int
    policy: str
    budget: str
    """Name of the budget, or its length in words where the study has one without a name."""
    seed: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's, as the policy sets and scales them."""
    eps: float = 1e-8
    candidate_of: str | None = None
    """The policy whose sweep this cell's learning rate is one of."""
    run: str
    """Folder of the run below ``runs/``."""
    shared: bool
    """Whether an earlier cell of the grid reads the same run."""


class MapsSpec(Spec):
    """A run's attention maps: the names of the reviews, and what they are called."""

    names: tuple[str, ...]
    words: tuple[str, str] = REVIEWS


class BranchesSpec(Spec):
    """The branches of runs at larger batches, and how they are read."""

    runs: tuple[str, ...]
    """Folders of the branched runs below ``runs/``."""
    tolerance: float
    """In nats: a branch whose smoothed training loss is at most this much above that of factor 1 is as good."""
    smoothing: float
    """Share of a branch, at its end, over which the training loss is averaged."""


class TablesSpec(Spec):
    """The grid, in the order of the config, and what it is to establish."""

    cells: tuple[GridCell, ...]
    claims: Claims = Claims()
    branches: BranchesSpec | None = None
    """None in a study without branches."""

    @property
    def model_names(self) -> list[str]:
        """The models, in the order of the config."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def batch_sizes(self) -> list[int]:
        """The target batch sizes, in the order of the config."""
        return list(dict.fromkeys(cell.batch for cell in self.cells))

    @property
    def policy_names(self) -> list[str]:
        """The LR policies, in the order of the config."""
        return list(dict.fromkeys(cell.candidate_of or cell.policy for cell in self.cells))

    @property
    def sweep_names(self) -> list[str]:
        """The LR policies whose learning rate is chosen by validation, in the order of the config."""
        return list(dict.fromkeys(cell.candidate_of for cell in self.cells if cell.candidate_of is not None))

    @property
    def budget_names(self) -> list[str]:
        """The budgets, in the order of the config."""
        return list(dict.fromkeys(cell.budget for cell in self.cells))

    @property
    def several_budgets(self) -> bool:
        """Whether budgets are to be told apart."""
        return len(self.budget_names) > 1

    def of_budget(self, budget: str) -> Self:
        """The part of the study under one budget."""
        return self.model_copy(update={"cells": tuple(cell for cell in self.cells if cell.budget == budget)})

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the config."""
        return list(dict.fromkeys(cell.seed for cell in self.cells))


class ErrorsShown(Spec):
    """What is shown of the errors."""

    boundary: float
    """In logits: what counts as near the boundary."""
    hardest: int
    """Reviews of each model that are shown in full."""
    embedding: bool = False
    """Whether the reviews are drawn as points."""
    label_review: bool = False
    """Whether there are labels that people judged anew."""


class FiguresSpec(TablesSpec):
    """What is drawn, and in which colours."""

    review_names: tuple[str, ...]
    noise_scale: Literal["off", "cheap", "full"]
    validates_within_epochs: bool
    select_from: Literal["epoch_ends", "all"]
    palette: tuple[str, ...]
    """Colours of the target batch sizes, in order; empty for the default scale."""
    words: tuple[str, str] = REVIEWS
    """What one text and several are called."""
    calibration: bool
    """Whether the calibration of the runs is measured."""
    geometry: bool
    """Whether the loss around the runs' checkpoints is measured."""
    cartography: bool = False
    """Whether the training examples are mapped by the probability of their labels over the epochs."""
    attention_measures: bool
    """Whether the attention of every head is measured over many test texts."""
    errors: ErrorsShown | None = None
    """None where the errors are not measured."""

    @property
    def measures_noise(self) -> bool:
        """Whether the runs' histories hold the gradient noise scale."""
        return self.noise_scale != "off"

    @property
    def shows_noise(self) -> bool:
        """Whether there is a figure of the gradient noise scale, or of the critical batch size alone."""
        return self.measures_noise or self.branches is not None


class ReportSpec(FiguresSpec):
    """The protocol, for the page to state it in words: sections of the config as the user wrote them, and defaults."""

    study: str
    title: str | None = None
    too_large: tuple[int, ...] = ()
    """Target batch sizes of the config that are left out, because there are fewer training examples."""
    data: Data
    models: dict[str, Model]
    budgets: dict[str, Budget]
    optimizer: Optimizer
    schedule: Schedule
    validate_every: ValidateEvery | None = None
    engines: dict[str, str]
    """LR policy → who accumulates."""
    tail: str
    determinism: str

    def too_large_in_words(self, examples: int) -> str:
        """A sentence on the target batch sizes that are left out of a split with so many training examples."""
        if not self.too_large:
            return ""
        one, named = len(self.too_large) == 1, " and ".join(f"{size:,}" for size in self.too_large)
        return (
            f"Target batch size{'' if one else 's'} {named} of the config {'is' if one else 'are'} left out: "
            f"{'it is' if one else 'they are'} above the {examples:,} training examples."
        )

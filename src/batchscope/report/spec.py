"""What tables, figures and the page depend on besides the files that they read."""

from typing import Literal

from batchscope.config.schema import Budget, Data, Model, Optimizer, Schedule
from batchscope.provenance.spec import Spec
from batchscope.wording import REVIEWS


class GridCell(Spec):
    """One cell of the grid, and the run that it reads."""

    model: str
    batch: int
    policy: str
    seed: int
    learning_rate: float
    run: str
    """Folder of the run below ``runs/``."""
    shared: bool
    """Whether an earlier cell of the grid reads the same run."""


class MapsSpec(Spec):
    """A run's attention maps: the names of the reviews, and what they are called."""

    names: tuple[str, ...]
    words: tuple[str, str] = REVIEWS


class TablesSpec(Spec):
    """The grid, in the order of the config."""

    cells: tuple[GridCell, ...]

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
        return list(dict.fromkeys(cell.policy for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the config."""
        return list(dict.fromkeys(cell.seed for cell in self.cells))


class FiguresSpec(TablesSpec):
    """What is drawn, and in which colours."""

    review_names: tuple[str, ...]
    noise_scale: Literal["off", "cheap", "full"]
    palette: tuple[str, ...]
    """Colours of the target batch sizes, in order; empty for the default scale."""
    words: tuple[str, str] = REVIEWS
    """What one text and several are called."""

    @property
    def measures_noise(self) -> bool:
        """Whether the runs' histories hold the gradient noise scale."""
        return self.noise_scale != "off"


class ReportSpec(FiguresSpec):
    """The protocol, for the page to state it in words: sections of the config as the user wrote them, and defaults."""

    study: str
    title: str | None = None
    data: Data
    models: dict[str, Model]
    budget: Budget
    optimizer: Optimizer
    schedule: Schedule
    engine: str
    tail: str
    determinism: str

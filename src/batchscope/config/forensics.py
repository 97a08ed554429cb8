"""The file of `batchscope forensics`: studies that are known by summary numbers alone."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from batchscope.config.errors import explain
from batchscope.config.section import REAL, WHOLE, Fraction, Name, NaturalInt, PositiveFloat, PositiveInt, Section
from batchscope.config.text import read_mapping
from batchscope.errors import UserError
from batchscope.statistics.forensics import Reported


class ReportedCell(Section):
    """One reported run."""

    model: Name
    """The encoder, by the name that all studies of the file use for it."""
    policy: Name = "constant"
    """The learning-rate policy, by the name that all studies of the file use for it."""
    batch: PositiveInt
    """Target batch size."""
    learning_rate: PositiveFloat | None = None
    """Learning rate. Cells of one model, batch size and learning rate are nominally the same training."""
    seed: NaturalInt | None = None
    """Seed, where a study has several runs of a cell."""
    accuracy: Annotated[float, Field(ge=0, le=1), REAL] | None = None
    """Test accuracy as printed, as a share: 0.9013."""
    correct: NaturalInt | None = None
    """Instead of `accuracy`: number of test reviews that the run labels correctly."""

    @model_validator(mode="after")
    def _accuracy_or_count(self) -> Self:
        if (self.accuracy is None) == (self.correct is None):
            raise ValueError("give either `accuracy` or `correct`")
        return self


class ReportedStudy(Section):
    """One study, or one replication."""

    source: Annotated[str, Field(min_length=1)]
    """Where the numbers are from."""
    examples: PositiveInt
    """Number of test reviews."""
    test_set: Name | None = None
    """Name of the test set: studies that name the same one used the same test reviews."""
    decimals: Annotated[int, Field(ge=1, le=12), WHOLE] | None = None
    """Decimals with which the accuracies are printed; those of the longest one if unset."""
    evaluation_batch: PositiveInt | None = None
    """Batch size of the evaluation, where the accuracy may be a mean of per-batch accuracies."""
    cells: list[ReportedCell] = Field(min_length=1)
    """The reported runs."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        seen = set()
        for number, cell in enumerate(self.cells, start=1):
            if cell.correct is not None and cell.correct > self.examples:
                wrong = f"`correct: {cell.correct}` is above `examples: {self.examples}`"
                raise ValueError(f"cells, entry {number}: {wrong}")
            place = (cell.model, cell.policy, cell.batch, cell.seed)
            if place in seen:
                raise ValueError(f"cells, entry {number}: {cell.model}, {cell.policy}, {cell.batch} appears twice")
            seen.add(place)
            if self.decimals is not None and cell.accuracy is not None and _decimals(cell.accuracy) > self.decimals:
                raise ValueError(f"cells, entry {number}: {cell.accuracy} has more than `decimals: {self.decimals}`")
        return self

    @property
    def printed_decimals(self) -> int:
        """Decimals with which the accuracies are printed."""
        return self.decimals or max(
            [1, *(_decimals(cell.accuracy) for cell in self.cells if cell.accuracy is not None)]
        )


class ForensicsFile(Section):
    """A file of `batchscope forensics`."""

    title: str = "Forensics of reported accuracies"
    """Heading of the output and of the figure."""
    level: Fraction = 0.05
    """A contrast is called different below this Holm-adjusted p."""
    studies: dict[Name, ReportedStudy] = Field(min_length=1)
    """Studies and replications, by a name of your own."""

    def reported(self) -> list[Reported]:
        """Every reported run, in the order of the file."""
        return [
            Reported(
                study=name,
                model=cell.model,
                policy=cell.policy,
                batch=cell.batch,
                learning_rate=cell.learning_rate,
                seed=cell.seed,
                examples=study.examples,
                test_set=study.test_set or name,
                accuracy=(cell.correct or 0) / study.examples if cell.accuracy is None else cell.accuracy,
                decimals=None if cell.accuracy is None else study.printed_decimals,
                evaluation_batch=study.evaluation_batch,
            )
            for name, study in self.studies.items()
            for cell in study.cells
        ]


def read_forensics(path: Path) -> ForensicsFile:
    """Read and validate a file of reported studies. Raises UserError with one line per mistake, naming its key."""
    content = read_mapping(path, str(path))
    try:
        return ForensicsFile.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} has mistakes:\n" + explain(error.errors(), ForensicsFile)) from None


def _decimals(accuracy: float) -> int:
    """Decimals of the shortest decimal number that is this float."""
    exponent = Decimal(repr(accuracy)).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0

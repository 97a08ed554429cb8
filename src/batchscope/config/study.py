"""The study: a typed config, its grid of cells, the unique runs behind them, one spec per stage.

Everything here is pure: it reads the config and hashes local inputs, starts nothing and needs no torch. The
Snakefile asks it what to do; the verbs receive the specs it made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, ValidationError, model_validator

from batchscope.certificate.spec import CertificateSpec
from batchscope.config.branch import Branch
from batchscope.config.errors import explain, shown
from batchscope.config.schema import Config, LearningRatePolicy, Synthetic, is_file_or_folder, location, path_exists
from batchscope.config.text import read_mapping
from batchscope.data.layout import counted_files
from batchscope.data.spec import CorpusSpec, ReviewsSpec, SplitSpec, SyntheticSpec, TokensSpec
from batchscope.errors import UserError
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.insight.spec import (
    AttentionMeasuresSpec,
    AttentionSpec,
    CalibrationSpec,
    CartographyMeasuresSpec,
    CartographySpec,
    DivergenceSpec,
    EmbeddingSpec,
    ErrorsSpec,
    FeaturesSpec,
    GeometryMeasuresSpec,
    GeometrySpec,
    LabelReviewSpec,
)
from batchscope.provenance.fingerprint import content_hash
from batchscope.provenance.layout import RESULTS, run_path
from batchscope.provenance.spec import Spec
from batchscope.report.spec import BranchesSpec, ErrorsShown, FiguresSpec, GridCell, MapsSpec, ReportSpec, TablesSpec
from batchscope.tracking import TrackingSpec
from batchscope.training.spec import (
    BranchSpec,
    BudgetSpec,
    OptimizerSpec,
    ScheduleSpec,
    TrainSettings,
    TrainSpec,
    ValidationSpec,
)

PROTOCOL = ("study", "data", "models", "optimizer", "schedule", "validate_every", "tail", "determinism")
"""Sections of the config that the page states as they are."""


class Study(Config):
    """A whole study, as `config/*.yaml` states it."""

    branch: Branch | None = None
    """Measures the critical batch size: short branches at multiples of a run's batch size, from states of that run.
    Runs that are finished are not trained again."""
    _train_specs: dict["Cell", TrainSpec] = PrivateAttr(default_factory=dict)
    _runs: dict["Cell", "Cell"] = PrivateAttr(default_factory=dict)
    _tables: TablesSpec | None = PrivateAttr(default=None)
    _too_large: tuple[int, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _branches_are_of_the_grid(self) -> Self:
        mistake = self.branch and self.branch.mistake(self.target_batch_sizes, self._policies_to_branch())
        if mistake:
            raise ValueError(mistake)
        return self

    # ------------------------------------------------------------------------------------ the grid

    def without_batches_above(self, examples: int | None) -> "Study":
        """The study of those target batch sizes that the training examples can fill; its report names the others.

        It is this study where the number of ``examples`` is not known, or none of the sizes fits. Raises UserError
        where another section of the config needs a size that is left out.
        """
        sizes = self.target_batch_sizes
        fitting = [size for size in sizes if examples is None or size <= examples]
        if len(fitting) in (0, len(sizes)):
            return self
        changed = self.model_dump(exclude_unset=True) | {"target_batch_sizes": fitting}
        if self.report.palette:
            colours = [colour for size, colour in zip(sizes, self.report.palette, strict=False) if size in fitting]
            changed["report"] = changed["report"] | {"palette": colours}
        above = tuple(size for size in sizes if size not in fitting)
        try:
            study = type(self).model_validate(changed)
        except ValidationError as error:
            raise UserError(
                f"target_batch_sizes: {', '.join(f'{size:,}' for size in above)}: there are {examples:,} training "
                "examples. The study goes on without, once nothing else in the config names what is too large:\n"
                + explain(error.errors(), type(self))
            ) from None
        study._too_large = above
        return study

    @property
    def too_large(self) -> tuple[int, ...]:
        """The target batch sizes of the config that the training examples cannot fill, and that are left out."""
        return self._too_large

    def cells(self) -> list["Cell"]:
        """Every point of the grid, in the order of the config: model, batch, policy, budget, seed."""
        return [
            Cell(model, batch, policy, seed, budget, in_folder=self.several_budgets)
            for model in self.models
            for batch in self.target_batch_sizes
            for policy in self.trained_policies
            for budget in self.named_budgets
            for seed in self.seeds
        ]

    @property
    def trained_policies(self) -> dict[str, LearningRatePolicy]:
        """Every LR policy that runs are named by; a sweep has one for each of its learning rates: ``tuned@1e-05``."""
        found: dict[str, LearningRatePolicy] = {}
        for name, policy in self.lr_policies.items():
            found |= policy.trained(name)
        return found

    @property
    def sweeps(self) -> dict[str, str]:
        """Trained policy that is one of a sweep → the policy that it is a candidate of."""
        return {
            candidate: name
            for name, policy in self.lr_policies.items()
            if policy.sweep is not None
            for candidate in policy.trained(name)
        }

    @property
    def several_budgets(self) -> bool:
        """Whether a run's path names its budget."""
        return len(self.named_budgets) > 1

    @property
    def run_pattern(self) -> str:
        """A run's path below ``runs/`` with a wildcard for each of its parts."""
        budget = "{budget}" if self.several_budgets else None
        return run_path("{model}", "{batch}", "{policy}", budget, "{seed}")

    def train_specs(self, memory: Path | None = None) -> dict["Cell", TrainSpec]:
        """Cell → everything its training depends on, besides its tokens. A study resolves itself once."""
        if not self._train_specs:
            self._train_specs |= self._resolved(memory)
        return self._train_specs

    def _resolved(self, memory: Path | None) -> dict["Cell", TrainSpec]:
        models = {name: model.spec(memory) for name, model in self.models.items()}
        budgets = {name: BudgetSpec.read(budget.model_dump()) for name, budget in self.named_budgets.items()}
        same_for_all: dict[str, Any] = {
            "schedule": ScheduleSpec.read(self.schedule.model_dump()),
            "precision": self.precision,
            "tail": self.tail,
            "keep": self.keep,
            "naive_physical_batch_size": self._naive_physical_batch_size(),
            "determinism": "strict" if self.determinism == "strict" else None,
            "noise_scale": None if self.noise_scale == "off" else self.noise_scale,
            "validate_every": ValidationSpec.read(self.validate_every.model_dump()) if self.validate_every else None,
            "select_from": "all" if self.select_from == "all" else None,
        }
        policies = self.trained_policies
        optimizers = {
            (policy, batch): OptimizerSpec.read(policies[policy].optimizer(self.optimizer, batch).model_dump())
            for policy in policies
            for batch in self.target_batch_sizes
        }
        return {
            cell: TrainSpec(
                model=models[cell.model],
                target_batch_size=cell.batch,
                learning_rate=policies[cell.policy].learning_rate(cell.batch),
                optimizer=optimizers[cell.policy, cell.batch],
                seed=cell.seed,
                budget=budgets[cell.budget],
                engine=policies[cell.policy].engine or self.engine,
                **same_for_all,
            )
            for cell in self.cells()
        }

    def _naive_physical_batch_size(self) -> int | None:
        """The micro-batch where it enters the mathematics."""
        return self.physical_batch_size if self.tail == "naive" and self.physical_batch_size != "auto" else None

    def runs(self, memory: Path | None = None) -> dict["Cell", "Cell"]:
        """Cell → the cell whose training it reads: the first in the grid that resolves to the same spec."""
        if not self._runs:
            first: dict[tuple[str, str], Cell] = {}
            self._runs |= {
                cell: first.setdefault((cell.model, spec.identity()), cell)
                for cell, spec in self.train_specs(memory).items()
            }
        return self._runs

    def branched_runs(self, memory: Path | None = None) -> list["Cell"]:
        """The runs that the study branches, each once."""
        if self.branch is None:
            return []
        batch = self.branch.batch_of(self.target_batch_sizes)
        policy, budget = self.branch.policy_of(self._policies_to_branch()), next(iter(self.named_budgets))
        seeds = self.seeds if self.branch.seeds == "all" else self.seeds[:1]
        wanted = (
            run
            for cell, run in self.runs(memory).items()
            if (cell.batch, cell.policy, cell.budget) == (batch, policy, budget) and cell.seed in seeds
        )
        return list(dict.fromkeys(wanted))

    def _policies_to_branch(self) -> list[str]:
        """The LR policies whose runs can be branched: not a sweep, which has several runs per cell."""
        return [name for name, policy in self.lr_policies.items() if policy.sweep is None]

    # ----------------------------------------------------------------------------------- the specs

    def corpus_spec(self, memory: Path | None = None) -> CorpusSpec:
        """What the corpus depends on; local files count by content."""
        data = self.data
        fields: dict[str, Any] = {"kind": data.kind}
        if data.kind == "synthetic":
            fields["synthetic"] = SyntheticSpec.read((data.synthetic or Synthetic()).model_dump())
        else:
            fields |= {"source": data.source, "text": data.text, "label": data.label}
        if data.kind == "hub":
            fields["revision"] = data.revision or "main"
        if data.kind == "local":
            source = Path(data.source).expanduser()
            files, names = counted_files(source)
            fields["content"] = content_hash(source, memory, files, names)
        if data.sample is not None:
            fields |= {"sample": data.sample, "sample_seed": data.split.seed}
        return CorpusSpec(**fields)

    def split_spec(self) -> SplitSpec:
        """What the division into train, validation and test depends on."""
        return SplitSpec.read(self.data.split.model_dump())

    def tokens_spec(self, model: str, memory: Path | None = None) -> TokensSpec:
        """What one model's tokens depend on; for an encoder from scratch its size does not count."""
        identity = self.models[model].spec(memory).model_copy(update={"config": None})
        return TokensSpec(model=identity, max_length=self.data.max_length, truncation=self.data.truncation)

    def reviews_spec(self) -> ReviewsSpec:
        """What the choice of reviews for the attention maps depends on."""
        return ReviewsSpec(texts=tuple(self.attention.texts))

    def attention_spec(self) -> AttentionSpec:
        """What a run's attention depends on besides its checkpoint and the reviews: how these are cut."""
        return AttentionSpec(max_length=self.data.max_length, truncation=self.data.truncation)

    def attention_measures_spec(self) -> AttentionMeasuresSpec:
        """What the measures of a run's attention depend on besides its checkpoint and tokens."""
        settings = self.insight.attention
        return AttentionMeasuresSpec(reviews=settings.reviews, ablation_reviews=settings.ablation_reviews)

    def certificate_spec(self, model: str, memory: Path | None = None) -> CertificateSpec:
        """What a model's certificate depends on besides its tokens: nothing of the grid but the first seed."""
        spec = self.models[model].spec(memory)
        return CertificateSpec(model=spec, seed=self.seeds[0], precision=self.precision, device=self.device)

    def evaluation_spec(self) -> EvaluationSpec:
        """What a run's predictions depend on besides its checkpoints and tokens."""
        return EvaluationSpec(precision=self.precision)

    def maps_spec(self) -> MapsSpec:
        """What a run's attention maps depend on besides its attention."""
        return MapsSpec(names=self.review_names(), words=self.data.wording)

    def tables_spec(self, memory: Path | None = None) -> TablesSpec:
        """What the tables depend on besides the runs: the grid, and which cell reads which run. Made once per study."""
        if self._tables is None:
            self._tables = self._grid_in_tables(memory)
        return self._tables

    def _grid_in_tables(self, memory: Path | None) -> TablesSpec:
        trainings, sweeps = self.train_specs(memory), self.sweeps
        return TablesSpec(
            cells=tuple(
                GridCell(
                    model=cell.model,
                    batch=cell.batch,
                    policy=cell.policy,
                    budget=cell.budget,
                    seed=cell.seed,
                    learning_rate=trainings[cell].learning_rate,
                    betas=trainings[cell].optimizer.betas,
                    eps=trainings[cell].optimizer.eps,
                    candidate_of=sweeps.get(cell.policy),
                    run=run.path,
                    shared=run != cell,
                )
                for cell, run in self.runs(memory).items()
            ),
            claims=self.claims,
            branches=self._branches_in_tables(memory),
        )

    def _branches_in_tables(self, memory: Path | None) -> BranchesSpec | None:
        if self.branch is None:
            return None
        return BranchesSpec(
            runs=tuple(run.path for run in self.branched_runs(memory)),
            tolerance=self.branch.tolerance,
            smoothing=self.branch.smoothing,
        )

    def calibration_spec(self, memory: Path | None = None) -> CalibrationSpec:
        """What the calibration depends on besides the predictions: the grid, and how many bins."""
        return CalibrationSpec(cells=self.tables_spec(memory).cells, bins=self.insight.calibration.bins)

    def errors_spec(self, memory: Path | None = None) -> ErrorsSpec:
        """What the tables of errors depend on besides predictions, tokens and corpus."""
        return ErrorsSpec(
            cells=self.tables_spec(memory).cells,
            boundary=self.insight.errors.boundary,
            hardest=self.insight.errors.hardest,
            truncation=self.data.truncation,
            label_review=self._label_review(memory),
        )

    def _label_review(self, memory: Path | None) -> LabelReviewSpec | None:
        if self.data.label_review is None:
            return None
        content = content_hash(Path(self.data.label_review).expanduser(), memory)
        return LabelReviewSpec(source=self.data.label_review, content=content, corpus=self.corpus_spec(memory))

    def embedded_cells(self, memory: Path | None = None) -> tuple[GridCell, ...]:
        """The cells whose features are drawn: the first policy, budget and seed at every model and batch size."""
        if not (self.insight.errors.enabled and self.insight.errors.embedding):
            return ()
        cells = self.tables_spec(memory).cells
        first = (cells[0].policy, cells[0].budget, cells[0].seed)
        return tuple(cell for cell in cells if (cell.policy, cell.budget, cell.seed) == first)

    def features_spec(self) -> FeaturesSpec:
        """What a run's features depend on besides its checkpoint and tokens."""
        return FeaturesSpec(reviews=self.insight.errors.reviews, precision=self.precision)

    def embedding_spec(self, memory: Path | None = None) -> EmbeddingSpec:
        """What the embedding of the test reviews depends on besides features and predictions."""
        settings = self.insight.errors
        return EmbeddingSpec(cells=self.embedded_cells(memory), reviews=settings.reviews, boundary=settings.boundary)

    def divergence_spec(self, memory: Path | None = None) -> DivergenceSpec:
        """What the divergence of the runs' attention depends on besides their checkpoints and tokens."""
        return DivergenceSpec(cells=self.tables_spec(memory).cells, reviews=self.insight.attention.divergence_reviews)

    def cartography_measures_spec(self) -> CartographyMeasuresSpec:
        """What the probabilities of a run's training examples depend on besides its checkpoints and tokens."""
        return CartographyMeasuresSpec(examples=self.insight.cartography.examples, precision=self.precision)

    def cartography_spec(self, memory: Path | None = None) -> CartographySpec:
        """What the maps of the training examples depend on besides the runs' files."""
        return CartographySpec(cells=self.tables_spec(memory).cells)

    def geometry_measures_spec(self) -> GeometryMeasuresSpec:
        """What the geometry of a run's checkpoints depends on besides checkpoints and tokens."""
        settings = self.insight.geometry.model_dump()
        return GeometryMeasuresSpec(**{name: settings[name] for name in GeometryMeasuresSpec.model_fields})

    def geometry_spec(self, memory: Path | None = None) -> GeometrySpec:
        """What the comparison of the runs' weights depends on besides their files."""
        settings = self.insight.geometry
        return GeometrySpec(
            cells=self.tables_spec(memory).cells,
            examples=settings.examples,
            pairs=settings.pairs,
            path_points=settings.path_points,
        )

    def figures_spec(self, memory: Path | None = None) -> FiguresSpec:
        """What the figures depend on besides tables and attention: the grid, what is drawn, the colours."""
        tables = self.tables_spec(memory)
        return FiguresSpec(
            **dict(tables),
            review_names=self.review_names(),
            noise_scale=self.noise_scale,
            validates_within_epochs=self.validate_every is not None,
            select_from=self.select_from,
            palette=tuple(self.report.palette),
            calibration=self.insight.calibration.enabled,
            geometry=self.insight.geometry.enabled,
            cartography=self.insight.cartography.enabled,
            attention_measures=self.insight.attention.enabled,
            errors=self._errors_in_figures(),
            words=self.data.wording,
        )

    def _errors_in_figures(self) -> ErrorsShown | None:
        settings = self.insight.errors
        if not settings.enabled:
            return None
        return ErrorsShown(
            boundary=settings.boundary,
            hardest=settings.hardest,
            embedding=settings.embedding,
            label_review=self.data.label_review is not None,
        )

    def report_spec(self, memory: Path | None = None) -> ReportSpec:
        """What the page depends on besides tables and figures: the protocol in words, and the title."""
        return ReportSpec(
            **dict(self.figures_spec(memory)),
            title=self.report.title,
            budgets=self.named_budgets,
            too_large=self.too_large,
            engines={name: policy.engine or self.engine for name, policy in self.lr_policies.items()},
            **{name: getattr(self, name) for name in PROTOCOL},
        )

    def tracking_spec(self, cell: "Cell") -> TrackingSpec:
        """What a run's entry in Weights & Biases depends on besides its files: whose it is and what it is called."""
        return TrackingSpec(
            **self.tracking.model_dump(),
            study=self.study,
            model=cell.model,
            batch=cell.batch,
            policy=cell.policy,
            budget=cell.budget if self.several_budgets else None,
            seed=cell.seed,
        )

    def train_settings(self) -> TrainSettings:
        """What a training may use but its result does not depend on; it stays out of every spec."""
        return TrainSettings(
            physical_batch_size=self.physical_batch_size,
            device=self.device,
            gpus=self.gpus,
            save_every=self.save_every,
            threads=self.model_threads,
            all_maps=self.attention.maps == "all",
            words=self.data.wording,
        )

    def data_specs(self, memory: Path | None = None) -> dict[str, Spec]:
        """The jobs that decide how many training examples there are → their specs."""
        return {"corpus": self.corpus_spec(memory), "split": self.split_spec()}

    def job_specs(self, memory: Path | None = None) -> dict[str, Spec]:
        """Every job of the study, such as ``train/bert/bs64/constant/seed1`` → its spec; equal jobs share it."""
        specs: dict[str, Spec] = {
            **self.data_specs(memory),
            "audit": Spec(),
            "reviews": self.reviews_spec(),
            "tables": self.tables_spec(memory),
            "figures": self.figures_spec(memory),
            "report": self.report_spec(memory),
        }
        if self.insight.calibration.enabled:
            specs["calibration"] = self.calibration_spec(memory)
        for model in self.models:
            specs[f"tokenize/{model}"] = self.tokens_spec(model, memory)
            specs[f"certify/{model}"] = self.certificate_spec(model, memory)
        evaluation, attention, maps = self.evaluation_spec(), self.attention_spec(), self.maps_spec()
        if self.branch is not None:
            branches = BranchSpec(
                at=tuple(self.branch.at), factors=tuple(self.branch.factors), samples=self.branch.samples
            )
            specs |= {f"branch/{run.path}": branches for run in self.branched_runs(memory)}
        for cell, training in self.train_specs(memory).items():
            specs |= {
                f"train/{cell.path}": training,
                f"evaluate/{cell.path}": evaluation,
                f"attention/{cell.path}": attention,
                f"maps/{cell.path}": maps,
                f"track/{cell.path}": self.tracking_spec(cell),
            }
        if self.insight.errors.enabled:
            specs["errors"] = self.errors_spec(memory)
        if embedded := self.embedded_cells(memory):
            specs["embedding"] = self.embedding_spec(memory)
            specs |= {f"features/{cell.run}": self.features_spec() for cell in embedded}
        if self.insight.attention.enabled:
            specs["divergence"] = self.divergence_spec(memory)
            measures = self.attention_measures_spec()
            specs |= {f"attention_measures/{cell.path}": measures for cell in self.train_specs(memory)}
        if self.insight.cartography.enabled:
            specs["cartography"] = self.cartography_spec(memory)
            dynamics = self.cartography_measures_spec()
            specs |= {f"cartography_measures/{cell.path}": dynamics for cell in self.train_specs(memory)}
        if self.insight.geometry.enabled:
            specs["geometry"] = self.geometry_spec(memory)
            around = self.geometry_measures_spec()
            specs |= {f"geometry_measures/{cell.path}": around for cell in self.train_specs(memory)}
        return specs

    @property
    def model_threads(self) -> int:
        """CPU threads of each job that runs a model."""
        if self.threads == "auto":
            return 1 if self.device == "cpu" else 2
        return self.threads

    def draws_maps(self, run: "Cell") -> bool:
        """Whether the study has attention maps of this run."""
        return self.attention.maps == "all" or run.seed == self.seeds[0]

    def review_names(self) -> tuple[str, ...]:
        """File names of the reviews with attention maps."""
        own = tuple(f"text{number}" for number in range(1, len(self.attention.texts) + 1))
        return own or ("confident_correct", "confident_wrong", "undecided")

    # ------------------------------------------------------------------------------------- reading

    @classmethod
    def from_mapping(cls, config: Mapping[Any, object]) -> "Study":
        """Validate a parsed config. Raises UserError with one line per mistake, each naming its key."""
        try:
            study = cls.model_validate(dict(config))
        except ValidationError as error:
            raise UserError("the config has mistakes:\n" + explain(error.errors(), cls)) from None
        study._check_local_paths()
        return study

    @classmethod
    def from_yaml(cls, path: Path) -> "Study":
        """Read and validate a config file. Raises UserError."""
        return cls.from_mapping(read_mapping(path, f"the config {path}"))

    def _check_local_paths(self) -> None:
        for key, source in [("data.source", self.data.source)] + [
            (f"models.{name}.checkpoint", model.checkpoint) for name, model in self.models.items() if model.checkpoint
        ]:
            if source != "synthetic" and location(source) == "local" and not path_exists(source):
                below = "" if source.startswith(("/", "~")) else f" below {shown(str(Path.cwd()))}"
                raise UserError(
                    f"{key}: there is no file or folder {shown(source)}{below}; a hub id looks like 'owner/name'"
                )
            if source != "synthetic" and path_exists(source) and not is_file_or_folder(source):
                raise UserError(f"{key}: {shown(source)} is neither a file nor a folder, but a pipe or a device")
        if self.data.kind == "local" and Path.cwd().is_relative_to(Path(self.data.source).expanduser().resolve()):
            raise UserError(
                f"data.source: {shown(self.data.source)} contains the folder {RESULTS}, whose files would be read as "
                "data; name the file, or move the data to a folder of its own"
            )
        review = self.data.label_review
        if review is not None and not (path_exists(review) and Path(review).expanduser().is_file()):
            raise UserError(f"data.label_review: there is no file {shown(review)}")


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    model: str
    batch: int
    policy: str
    seed: int
    budget: str
    """Name of the budget, or its length in words where the study has one without a name."""
    in_folder: bool = field(default=False, compare=False)
    """Whether the study has several budgets, so that the path names this one."""

    @property
    def path(self) -> str:
        """Folder of the cell's run below ``runs/``."""
        return run_path(self.model, self.batch, self.policy, self.budget if self.in_folder else None, self.seed)

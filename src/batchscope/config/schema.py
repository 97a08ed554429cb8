"""The config: every key, its type, its default and what it means. Validated here, used by ``study``."""

import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from batchscope.certificate.spec import FEWEST_REVIEWS
from batchscope.config.architectures import mistakes
from batchscope.config.claims import Claims, Factor
from batchscope.config.insight import Insight
from batchscope.config.section import REAL, WHOLE, Fraction, Name, NaturalInt, PositiveFloat, PositiveInt, Section
from batchscope.data.layout import table_ending
from batchscope.data.shares import pooled_sizes
from batchscope.data.spec import SHORTEST
from batchscope.errors import counted
from batchscope.model.folder import model_files
from batchscope.model.spec import Architecture, ModelSpec
from batchscope.provenance.fingerprint import canonical_json, content_hash
from batchscope.training.schedule import (
    BetaScaling,
    Scaling,
    largest_batch_of_malladi,
    scaled_betas,
    scaled_eps,
    scaled_learning_rate,
)
from batchscope.training.spec import Engine
from batchscope.wording import Wording, plural

NOUN = r"^[^\W\d_]+([ -][^\W\d_]+)*$"
COLOUR = r"^#[0-9a-fA-F]{6}$"
Noun = Annotated[str, Field(pattern=NOUN)]
Beta = Annotated[float, Field(ge=0, lt=1), REAL]
# YAML reads a plain `off` as false.
NoiseScale = Annotated[
    Literal["off", "cheap", "full"], BeforeValidator(lambda value: "off" if value is False else value)
]
DEFAULT_VOCABULARY_SIZE = 8000
SMALLEST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""Normal numbers of float32."""
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def location(name: str) -> Literal["local", "hub"]:
    """Whether a source or checkpoint is a path or a hub id: an existing path is a path, then the looks decide.

    The name of a table, such as ``data/reviews.csv``, is a path: a misspelt one is not looked for on the hub.
    """
    if path_exists(name) or not HUB_ID.match(name) or name.startswith(".") or table_ending(Path(name)):
        return "local"
    return "hub"


def path_exists(name: str) -> bool:
    """Whether there is a file or folder of this name; no where it cannot be a path at all."""
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def is_file_or_folder(name: str) -> bool:
    """Whether what is there can be read to its end: no pipe, no device."""
    path = Path(name).expanduser()
    return path.is_file() or path.is_dir()


class Split(Section):
    """How the reviews are divided."""

    method: Literal["pooled", "official"] = "pooled"
    """`pooled` joins all reviews and divides them anew; `official` keeps the given test set."""
    train: Fraction = 0.8
    """Share of the reviews for training (`official`: train and validation share the given training set)."""
    validation: Fraction = 0.1
    """Share of the reviews that chooses the best epoch."""
    test: Fraction = 0.1
    """Share of the reviews held out (`official`: ignored, the given test set is used)."""
    seed: NaturalInt = 42
    """Seed of the division, and of the sample if there is one."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        two, three = self.train + self.validation, self.train + self.validation + self.test
        if abs(three - 1) <= 1e-9 or (self.method == "official" and abs(two - 1) <= 1e-9):
            return self
        if self.method == "official":
            raise ValueError(f"train + validation must be 1, not {two:g}; `official` ignores test")
        raise ValueError(f"train + validation + test must be 1, not {three:g}")


class Synthetic(Section):
    """The embedded corpus, made by a grammar; for `source: synthetic` only."""

    reviews: PositiveInt = 4000
    """How many reviews to make."""
    seed: NaturalInt = 0
    """Seed of the grammar's choices."""
    label_noise: Annotated[float, Field(ge=0, lt=0.5), REAL] = 0.03
    """Share of the labels that are flipped."""


class Data(Section):
    """Where the reviews come from and how they become tokens."""

    source: Annotated[str, Field(min_length=1)] = "stanfordnlp/imdb"
    """Hub id, file or folder (parquet, csv, tsv, JSON; texts in the aclImdb layout), or `synthetic`: docs/data.md."""
    revision: str | None = None
    """Commit hash, tag or branch of a hub id. Pin it: a branch can move."""
    text: str = "text"
    """Column that holds the text."""
    label: str = "label"
    """Column that holds the label: whole numbers or strings, two classes or more."""
    unit: Noun = "review"
    """What one text is called in the report and in messages: `ticket`, `query`. Changing it draws the report anew."""
    units: Noun | None = None
    """The plural, where it is not regular."""
    synthetic: Synthetic | None = None
    """Settings of the synthetic corpus."""
    sample: PositiveInt | None = None
    """Keep this many reviews, drawn evenly over labels; all of them if unset."""
    split: Split = Split()
    """How the reviews are divided."""
    max_length: Annotated[int, Field(ge=SHORTEST), WHOLE] = 128
    """Tokens per review; shorter ones are padded."""
    truncation: Literal["head", "tail", "head_tail"] = "head"
    """Which end of a long review is kept; `head_tail` keeps a quarter from the start and the rest from the end."""

    label_review: str | None = None
    """File (parquet, csv, tsv) of labels that people judged anew, for `insight.errors`: docs/insight.md. The study
    keeps its labels; the report adds the accuracy as re-judged."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.synthetic is not None and self.source != "synthetic":
            raise ValueError("`synthetic` settings go with `source: synthetic`")
        if self.revision is not None and self.kind != "hub":
            raise ValueError(f"`revision` goes with a hub id; {self.source!r} is not one")
        if self.text == self.label:
            raise ValueError(f"`text` and `label` both name the column {self.text!r}")
        return self

    @property
    def kind(self) -> Literal["synthetic", "local", "hub"]:
        """What `source` names."""
        return "synthetic" if self.source == "synthetic" else location(self.source)

    @property
    def wording(self) -> Wording:
        """What the texts are called."""
        return Wording(self.unit, self.units or plural(self.unit))

    @property
    def known_reviews(self) -> int | None:
        """Reviews of the corpus, where the config alone says how many."""
        made = (self.synthetic or Synthetic()).reviews if self.source == "synthetic" else None
        return self.sample or made

    @property
    def known_training_reviews(self) -> int | None:
        """Reviews of the train split, where the config alone says how many."""
        if self.known_reviews is None or self.split.method == "official":
            return None
        return pooled_sizes(self.known_reviews, self.split.validation, self.split.test).train


class Model(Section):
    """An encoder: pretrained (`checkpoint`) or from scratch (`architecture`)."""

    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """Hub id or local folder of a pretrained encoder, in safetensors."""
    revision: str | None = None
    """Commit hash, tag or branch of a hub id. Pin it: a branch can move."""
    architecture: Architecture | None = None
    """Build this encoder from scratch, with random weights and a tokenizer trained on the train split."""
    config: dict[str, Any] | None = None
    """For `architecture`: values of its transformers config, such as `hidden_size`."""
    vocabulary_size: Annotated[int, Field(ge=64), WHOLE] | None = None
    """For `architecture`: entries of the tokenizer to train (8000 if unset)."""

    @field_validator("config")
    @classmethod
    def _can_be_written(cls, config: dict[str, Any] | None) -> dict[str, Any] | None:
        for key, value in (config or {}).items():
            try:
                canonical_json({key: value}).encode()
            except (TypeError, ValueError, RecursionError):
                allowed = "finite numbers, text, lists and sections"
                raise ValueError(f"`{key}` must be {allowed} (it is {value!r:.60})") from None
        return config

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("give either `checkpoint` or `architecture`")
        if self.checkpoint is not None and (self.config is not None or self.vocabulary_size is not None):
            raise ValueError("`config` and `vocabulary_size` go with `architecture`, not with `checkpoint`")
        if self.revision is not None and (self.checkpoint is None or location(self.checkpoint) != "hub"):
            raise ValueError("`revision` goes with a checkpoint from the hub")
        return self

    @property
    def on_hub(self) -> bool:
        """Whether the weights come from the hub."""
        return self.checkpoint is not None and location(self.checkpoint) == "hub"

    def spec(self, memory: Path | None = None) -> ModelSpec:
        """The initial weights; a local folder counts by its content, not by its path."""
        if self.architecture is not None:
            size = self.vocabulary_size or DEFAULT_VOCABULARY_SIZE
            return ModelSpec(architecture=self.architecture, config=self.config or {}, vocabulary_size=size)
        assert self.checkpoint is not None
        if self.on_hub:
            return ModelSpec(checkpoint=self.checkpoint, revision=self.revision or "main")
        folder = Path(self.checkpoint).expanduser()
        files = model_files(folder) if folder.is_dir() else None
        content = content_hash(folder, memory, files)
        return ModelSpec(checkpoint=self.checkpoint, content=content)


class LearningRatePolicy(Section):
    """Learning rate as a function of the target batch size."""

    base_lr: PositiveFloat | None = None
    """Learning rate, at `reference_batch_size` where there is a scaling."""
    scaling: Scaling = "none"
    """`none`, `sqrt` or `linear` in target batch size / reference batch size."""
    reference_batch_size: PositiveInt | None = None
    """Target batch size at which `base_lr` and the unscaled betas and eps hold."""
    table: dict[PositiveInt, PositiveFloat] | None = None
    """Instead of a rule: target batch size → learning rate."""
    sweep: Annotated[list[PositiveFloat], Field(min_length=2)] | None = None
    """Instead of a rule: learning rates to try. All are trained. Per model, target batch size and budget, validation
    accuracy (mean over seeds) chooses one; only that one's test enters a table."""
    scale_betas: BetaScaling = "none"
    """Adam's betas in κ = target batch size / reference batch size: `malladi` (1−β becomes κ(1−β)), `half_life` (β
    becomes β^κ, so that a moment's half-life stays constant in samples) or `none`."""
    scale_eps: bool = False
    """Whether Adam's ε becomes ε/√κ; with `scaling: sqrt` and `scale_betas: malladi` that is the complete rule of
    Malladi et al. 2022."""
    betas: tuple[Beta, Beta] | None = None
    """Adam's betas under this policy; those of `optimizer` if unset."""
    eps: PositiveFloat | None = None
    """Adam's ε under this policy; that of `optimizer` if unset."""
    engine: Engine | None = None
    """Who accumulates under this policy: `manual` or `accelerate`; the study's `engine` if unset. Two policies that
    differ in nothing else compare the engines."""

    @field_validator("table", mode="before")
    @classmethod
    def _each_size_once(cls, table: object) -> object:
        """``16`` and ``"16"`` are two keys of YAML, and would be one of the table."""
        names = [str(size) for size in table] if isinstance(table, dict) else []
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{repeated[0]} is there twice")
        return table

    @field_validator("sweep")
    @classmethod
    def _distinct(cls, values: list[float] | None) -> list[float] | None:
        if repeated := sorted({value for value in values or [] if (values or []).count(value) > 1}):
            raise ValueError(f"{repeated[0]:g} is there twice")
        return values

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(given is not None for given in (self.base_lr, self.table, self.sweep)) != 1:
            raise ValueError("give exactly one of `base_lr`, `table` and `sweep`")
        if self.scaling != "none" and self.base_lr is None:
            raise ValueError("`scaling` goes with `base_lr`, not with `table` or `sweep`")
        scales = self.scaling != "none" or self.scale_betas != "none" or self.scale_eps
        if scales != (self.reference_batch_size is not None):
            raise ValueError(
                "`reference_batch_size` goes with `scaling: sqrt` or `linear`, `scale_betas` and `scale_eps`, which "
                "need it"
            )
        return self

    def learning_rate(self, target_batch_size: int) -> float:
        """Learning rate at a target batch size of the study."""
        if self.table is not None:
            return self.table[target_batch_size]
        assert self.base_lr is not None
        return scaled_learning_rate(self.base_lr, self.scaling, target_batch_size, self.reference_batch_size)

    def optimizer(self, optimizer: "Optimizer", target_batch_size: int) -> "Optimizer":
        """The study's optimizer as this policy sets and scales it. Raises ValueError where no such β exists."""
        betas, eps, reference = self.betas or optimizer.betas, self.eps or optimizer.eps, self.reference_batch_size
        scaled = {"betas": scaled_betas(betas, self.scale_betas, target_batch_size, reference), "eps": eps}
        if self.scale_eps and reference is not None:
            scaled["eps"] = scaled_eps(eps, target_batch_size, reference)
        return optimizer.model_copy(update=scaled)

    def trained(self, name: str) -> "dict[str, LearningRatePolicy]":
        """The policies that are trained, by name: this one, or one for every learning rate of the sweep."""
        if self.sweep is None:
            return {name: self}
        return {f"{name}@{rate!r}": self.model_copy(update={"sweep": None, "base_lr": rate}) for rate in self.sweep}


class Budget(Section):
    """How long each run trains: exactly one of the three."""

    epochs: PositiveInt | None = None
    """Passes over the train split: every run sees the same examples."""
    updates: PositiveInt | None = None
    """Optimizer steps: large batches see more examples."""
    samples: PositiveInt | None = None
    """Examples seen."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of `epochs`, `updates` and `samples`")
        return self

    @property
    def in_words(self) -> str:
        """`5 epochs`, `1,000 updates`."""
        ((unit, count),) = self.model_dump(exclude_none=True).items()
        return counted(count, unit.removesuffix("s"))


class ValidateEvery(Section):
    """How often a run is validated within an epoch: exactly one of the two."""

    updates: PositiveInt | None = None
    """After every so many updates."""
    samples: PositiveInt | None = None
    """After the update with which every so many examples have been seen."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.updates is None) == (self.samples is None):
            raise ValueError("give exactly one of `updates` and `samples`")
        return self


class Optimizer(Section):
    """The optimizer."""

    name: Literal["adam", "adamw"] = "adam"
    """`adam` (weight decay as an L2 term) or `adamw` (decoupled)."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the first and of the second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0), REAL] = 0.0
    """Weight decay; 0 is none."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the gradient of a window to this norm; unset is no clipping."""


class Schedule(Section):
    """The learning rate over the updates of a run."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    """`constant`, or falling to zero along a line or a cosine."""
    warmup: Annotated[float, Field(ge=0, lt=1), REAL] = 0.0
    """Share of the updates over which the learning rate rises."""


class Attention(Section):
    """Which reviews get attention maps, and of which runs."""

    texts: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    """Your own texts. If there are none, three validation reviews are chosen by a bag-of-words classifier."""
    maps: Literal["first_seed", "all"] = "first_seed"
    """Runs whose attention is drawn token by token: those of the first seed, or all. It is measured and kept of all."""


class Tracking(Section):
    """Weights & Biases."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """`offline`: each finished run is replayed into a folder under `results/STUDY/wandb`, for `wandb sync`. `online`:
    runs are logged while they train, and completed afterwards. Changing it does not retrain anything."""
    project: Name = "batchscope"
    """Project that receives the runs."""
    entity: str | None = None
    """User or team; your default if unset."""


class Report(Section):
    """The report's looks."""

    title: str | None = None
    """Heading of the report; the study's name if unset."""
    palette: list[Annotated[str, Field(pattern=COLOUR)]] = Field(default=[])
    """Colours of the target batch sizes, in order, as `#rrggbb`; a colour-blind-safe scale if empty."""


class Config(Section):
    """A whole study, as `config/*.yaml` states it."""

    study: Name
    """Name of the study and of its folder under `results/`."""
    data: Data = Data()
    """Where the reviews come from and how they become tokens."""
    models: dict[Name, Model] = Field(min_length=1)
    """Encoders to fine-tune, by a name of your own."""
    target_batch_sizes: list[PositiveInt] = Field(min_length=1)
    """Examples per update."""
    physical_batch_size: PositiveInt | Literal["auto"] = 16
    """Examples per micro-batch. A matter of memory and speed: changing it does not retrain anything. `auto` measures
    which power of two is fastest; a micro-batch that does not fit into the GPU's memory is halved either way."""
    lr_policies: dict[Name, LearningRatePolicy] = Field(min_length=1)
    """Learning-rate policies, by a name of your own."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32), WHOLE]] = Field(default=[42], min_length=1)
    """One training per seed: initialisation of the head, order of the examples, dropout."""
    budget: Budget = Budget(epochs=5)
    """How long each run trains."""
    budgets: dict[Name, Budget] | None = Field(default=None, min_length=1)
    """Instead of `budget`: several, by a name of your own. Every cell is trained under each of them, and the report
    sets them side by side."""
    validate_every: ValidateEvery | None = None
    """Validate also within an epoch, so that runs can be compared at equal updates, samples, FLOPs, ΣLR and seconds. No
    weight changes, but runs without it train anew."""
    select_from: Literal["epoch_ends", "all"] = "epoch_ends"
    """Which validations may choose the best checkpoint: those at the ends of epochs, or `all`, also those of
    `validate_every`."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""
    schedule: Schedule = Schedule()
    """The learning rate over the updates of a run."""
    engine: Engine = "manual"
    """Who accumulates: our own loop or Hugging Face Accelerate; the results are the same."""
    tail: Literal["exact", "naive", "drop"] = "exact"
    """The window left over at the end of an epoch: averaged over its own examples (`exact`), divided as if it were
    full (`naive`), or left out (`drop`)."""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """Arithmetic of the forward and backward pass; weights are float32. `auto` takes bfloat16 where the hardware
    multiplies it fast."""
    determinism: Literal["fast", "strict"] = "fast"
    """`strict` trains with deterministic GPU kernels alone and without TF32: slower, and the same bits at every
    repetition on the same kind of GPU. On a CPU both train alike."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run; `auto` takes CUDA, then Apple MPS, then the CPU. With `cpu` no job asks for a GPU."""
    threads: PositiveInt | Literal["auto"] = "auto"
    """CPU threads of each job that runs a model; `auto` is one with `device: cpu`, so that as many jobs run as there
    are cores, else two. Without a GPU more pay where there are fewer runs than cores. Changing it does not retrain
    anything."""
    gpus: PositiveInt = 1
    """GPUs per run: its micro-batches are shared out and the gradients summed, which leaves the windows as they are."""
    runs_per_gpu: PositiveInt = 1
    """Jobs that share a GPU, each with its part of the memory: for small models on a large GPU. Tell Snakemake how many
    that makes, `--resources gpu=N` with N = GPUs × this. Changing it does not retrain anything."""
    save_every: PositiveFloat = 600
    """Seconds between saved states, from which an interrupted run resumes."""
    keep: Literal["best", "all", "none"] = "best"
    """Which per-epoch checkpoints stay, beside `best.safetensors` and `last.safetensors`."""
    noise_scale: NoiseScale = "off"
    """The gradient noise scale of every update, from its micro-batches: `cheap` compares the first one with the whole
    window, `full` uses all of them and one spare gradient buffer. No weight changes, but runs without it train anew."""
    attention: Attention = Attention()
    """Which reviews get attention maps, and of which runs."""
    insight: Insight = Insight()
    """What is measured of finished runs. Changing it does not retrain anything."""
    tracking: Tracking = Tracking()
    """Weights & Biases."""
    claims: Claims = Claims()
    """What the study is to establish: which cells are compared, and by which rule a difference counts."""
    report: Report = Report()
    """The report's looks."""

    @field_validator("target_batch_sizes", "seeds")
    @classmethod
    def _distinct(cls, values: list[int]) -> list[int]:
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"{repeated[0]} appears twice")
        return values

    @field_validator("models", "lr_policies", "budgets")
    @classmethod
    def _distinct_folders(cls, named: dict[str, Any] | None) -> dict[str, Any] | None:
        """The names are those of folders, and some disks take ``Constant`` and ``constant`` for one."""
        spelling: dict[str, str] = {}
        for name in named or {}:
            other = spelling.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"`{other}` and `{name}` differ in capitals alone: rename one of them")
        return named

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.tail == "naive" and self.physical_batch_size == "auto":
            raise ValueError(
                "`tail: naive` divides by the micro-batches of a window: give `physical_batch_size` a number"
            )
        if self.determinism == "strict" and self.physical_batch_size == "auto":
            raise ValueError(
                "`determinism: strict` cannot choose micro-batches by their speed: give `physical_batch_size` a number"
            )
        if self.select_from == "all" and self.validate_every is None:
            raise ValueError("`select_from: all` goes with `validate_every`; without it all validations end an epoch")
        if self.gpus > 1 and self.device not in ("auto", "cuda"):
            raise ValueError(f"`gpus: {self.gpus}` does not go with `device: {self.device}`")
        if self.gpus > 1 and "accelerate" in {self.engine, *(one.engine for one in self.lr_policies.values())}:
            raise ValueError("`gpus` above 1 goes with `engine: manual`, under every LR policy too")
        return self

    @model_validator(mode="after")
    def _cartography_has_its_checkpoints(self) -> Self:
        if not self.insight.cartography.enabled:
            return self
        if self.keep != "all":
            raise ValueError(
                "insight.cartography.enabled: true reads the checkpoint of every epoch, and "
                f"`keep: {self.keep}` does not keep them. Set `keep: all`, which trains finished runs anew, or "
                "`insight.cartography.enabled: false`"
            )
        if all(budget.epochs == 1 for budget in self.named_budgets.values()):
            raise ValueError(
                "insight.cartography.enabled: true compares epochs, and `epochs: 1` of the budget is one. Give it 2 or "
                "more, or set `insight.cartography.enabled: false`"
            )
        return self

    @model_validator(mode="after")
    def _one_budget_or_several(self) -> Self:
        if self.budgets is not None and "budget" in self.model_fields_set:
            raise ValueError("give either `budget` or `budgets`, not both")
        return self

    @property
    def named_budgets(self) -> dict[str, Budget]:
        """Name → budget; the name of a single `budget` is its length in words."""
        return dict(self.budgets) if self.budgets else {self.budget.in_words: self.budget}

    @model_validator(mode="after")
    def _every_batch_size_has_a_colour(self) -> Self:
        sizes, colours = len(self.target_batch_sizes), len(self.report.palette)
        if 0 < colours < sizes:
            raise ValueError(
                f"report.palette: {counted(colours, 'colour')} for {counted(sizes, 'target batch size')}; add the "
                "missing ones, or leave the palette out"
            )
        return self

    @model_validator(mode="after")
    def _there_are_enough_reviews(self) -> Self:
        training = self.data.known_training_reviews
        if training is None:
            return self
        known = f"the {counted(self.data.known_reviews or 0, 'review')} of the config leave {training:,} for training"
        if training < FEWEST_REVIEWS:
            raise ValueError(f"data: {known}, and a study needs {FEWEST_REVIEWS}; take more")
        above = [size for size in self.target_batch_sizes if size > training]
        if above:
            raise ValueError(
                f"target_batch_sizes: {known}, and {above[0]:,} is more; take it out, or take more reviews"
            )
        return self

    @model_validator(mode="after")
    def _claims_compare_what_the_grid_has(self) -> Self:
        grid: dict[Factor, list[str]] = {
            "batch_size": [str(size) for size in self.target_batch_sizes],
            "lr_policy": list(self.lr_policies),
            "model": list(self.models),
        }
        wrong = [
            f"claims.contrasts.{name}.{mistake}"
            for name, contrast in self.claims.contrasts.items()
            for mistake in contrast.mistakes(grid)
        ]
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    @model_validator(mode="after")
    def _encoders_from_scratch_can_be_built(self) -> Self:
        wrong = [
            f"models.{name}.config.{key}: {mistake}"
            for name, model in self.models.items()
            if model.architecture is not None
            for key, mistake in mistakes(model.architecture, model.config or {}, self.data.max_length)
        ]
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    @model_validator(mode="after")
    def _tables_cover_the_grid(self) -> Self:
        for name, policy in self.lr_policies.items():
            missing = [
                size for size in self.target_batch_sizes if policy.table is not None and size not in policy.table
            ]
            if missing:
                raise ValueError(f"lr_policies.{name}.table has no learning rate for target batch size {missing[0]}")
        return self

    @model_validator(mode="after")
    def _scaled_betas_exist(self) -> Self:
        for name, policy in self.lr_policies.items():
            for size in self.target_batch_sizes:
                try:
                    policy.optimizer(self.optimizer, size)
                except ValueError as error:
                    reference = policy.reference_batch_size or 1
                    largest = largest_batch_of_malladi(policy.betas or self.optimizer.betas, reference)
                    raise ValueError(
                        f"lr_policies.{name}.scale_betas: at target batch size {size}, {error}, so `malladi` has no β "
                        f"there. With `reference_batch_size: {reference}` it reaches up to {largest}. Choose smaller "
                        "`target_batch_sizes`, a larger `reference_batch_size`, larger `betas` or `half_life`"
                    ) from None
        return self

    @model_validator(mode="after")
    def _scaled_numbers_can_be_used(self) -> Self:
        """Weights are float32: there a smaller number is 0 and a larger one infinite, and Adam divides by ε and 1−β."""
        for name, given in self.lr_policies.items():
            for policy, size in product(given.trained(name).values(), self.target_batch_sizes):
                optimizer = policy.optimizer(self.optimizer, size)
                for what, value in (("the learning rate", policy.learning_rate(size)), ("Adam's ε", optimizer.eps)):
                    if not SMALLEST <= value <= LARGEST:
                        raise ValueError(
                            f"lr_policies.{name}: at target batch size {size} {what} is {value:g}, not between "
                            f"{SMALLEST:.2g} and {LARGEST:.2g}, the limits of float32; correct it or its scaling"
                        )
                if max(optimizer.betas) == 1:
                    raise ValueError(
                        f"lr_policies.{name}.scale_betas: at target batch size {size} β becomes 1, as "
                        f"`reference_batch_size: {policy.reference_batch_size}` is so much larger; correct it"
                    )
        return self

"""The study: a typed config, its grid of cells, the unique runs behind them, one spec per stage.

Everything here is pure: it reads the config and hashes local inputs, starts nothing and needs no torch. The
Snakefile asks it what to do; the verbs receive the specs it made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import PrivateAttr, ValidationError

from batchscope.config.errors import explain
from batchscope.config.schema import Config, Synthetic, location
from batchscope.errors import UserError
from batchscope.provenance.fingerprint import canonical_json, content_hash, without_places
from batchscope.training.spec import TrainSpec


class Study(Config):
    """A whole study, as `config/*.yaml` states it."""

    _train_specs: dict["Cell", TrainSpec] = PrivateAttr(default_factory=dict)
    _runs: dict["Cell", "Cell"] = PrivateAttr(default_factory=dict)

    # ------------------------------------------------------------------------------------ the grid

    def cells(self) -> list["Cell"]:
        """Every point of the grid, in the order of the config: model, batch, policy, seed."""
        return [
            Cell(model, batch, policy, seed)
            for model in self.models
            for batch in self.target_batch_sizes
            for policy in self.lr_policies
            for seed in self.seeds
        ]

    def train_specs(self, memory: Path | None = None) -> dict["Cell", TrainSpec]:
        """Cell → everything its training depends on, besides its tokens. A study resolves itself once."""
        if not self._train_specs:
            self._train_specs |= self._resolved(memory)
        return self._train_specs

    def _resolved(self, memory: Path | None) -> dict["Cell", TrainSpec]:
        models = {name: model.spec(memory) for name, model in self.models.items()}
        same_for_all: dict[str, Any] = {
            "budget": self.budget.spec(),
            "optimizer": self.optimizer.model_dump(mode="json", exclude_none=True),
            "schedule": self.schedule.model_dump(),
            "precision": self.precision,
            "engine": self.engine,
            "tail": self.tail,
            "keep": self.keep,
            "naive_physical_batch_size": self._naive_physical_batch_size(),
            "determinism": "strict" if self.determinism == "strict" else None,
            "noise_scale": None if self.noise_scale == "off" else self.noise_scale,
        }
        return {
            cell: TrainSpec(
                model=models[cell.model],
                target_batch_size=cell.batch,
                learning_rate=self.lr_policies[cell.policy].learning_rate(cell.batch),
                seed=cell.seed,
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
                cell: first.setdefault((cell.model, canonical_json(spec.to_dict())), cell)
                for cell, spec in self.train_specs(memory).items()
            }
        return self._runs

    # ----------------------------------------------------------------------------------- the specs

    def corpus_spec(self, memory: Path | None = None) -> dict[str, Any]:
        """What the corpus depends on; local files count by content."""
        spec: dict[str, Any] = {"kind": self.data.kind}
        if self.data.kind == "synthetic":
            spec["synthetic"] = (self.data.synthetic or Synthetic()).model_dump()
        else:
            spec |= {"source": self.data.source, "text": self.data.text, "label": self.data.label}
        if self.data.kind == "hub":
            spec["revision"] = self.data.revision or "main"
        if self.data.kind == "local":
            spec["content"] = content_hash(Path(self.data.source).expanduser(), memory)
        if self.data.sample is not None:
            spec |= {"sample": self.data.sample, "sample_seed": self.data.split.seed}
        return spec

    def split_spec(self) -> dict[str, Any]:
        """What the division into train, validation and test depends on."""
        return self.data.split.model_dump()

    def tokens_spec(self, model: str, memory: Path | None = None) -> dict[str, Any]:
        """What one model's tokens depend on; for an encoder from scratch its size does not count."""
        identity = {key: value for key, value in self.models[model].spec(memory).items() if key != "config"}
        return {"model": identity, "max_length": self.data.max_length, "truncation": self.data.truncation}

    def reviews_spec(self) -> dict[str, Any]:
        """What the choice of reviews for the attention maps depends on."""
        return {"texts": self.attention.texts}

    def attention_spec(self) -> dict[str, Any]:
        """What a run's attention depends on besides its checkpoint and the reviews: how these are cut."""
        return {"max_length": self.data.max_length, "truncation": self.data.truncation}

    def certificate_spec(self, model: str, memory: Path | None = None) -> dict[str, Any]:
        """What a model's certificate depends on besides its tokens: nothing of the grid but the first seed."""
        return {"model": self.models[model].spec(memory), "seed": self.seeds[0], "precision": self.precision}

    def evaluation_spec(self) -> dict[str, Any]:
        """What a run's predictions depend on besides its checkpoints and tokens."""
        return {"precision": self.precision}

    def maps_spec(self) -> dict[str, Any]:
        """What a run's attention maps depend on besides its attention."""
        return {"names": self.review_names()}

    def tables_spec(self, memory: Path | None = None) -> dict[str, Any]:
        """What the tables depend on besides the runs: the grid, and which cell reads which run."""
        learning_rates = {cell: spec.learning_rate for cell, spec in self.train_specs(memory).items()}
        return {
            "cells": [
                {
                    "model": cell.model,
                    "batch": cell.batch,
                    "policy": cell.policy,
                    "seed": cell.seed,
                    "learning_rate": learning_rates[cell],
                    "run": run.path,
                    "shared": run != cell,
                }
                for cell, run in self.runs(memory).items()
            ]
        }

    def figures_spec(self, memory: Path | None = None) -> dict[str, Any]:
        """What the figures depend on besides tables and attention: the grid, what is drawn, the colours."""
        return self.tables_spec(memory) | {
            "review_names": self.review_names(),
            "noise_scale": self.noise_scale,
            "report": {"palette": self.report.palette},
        }

    def report_spec(self, memory: Path | None = None) -> dict[str, Any]:
        """What the page depends on besides tables and figures: the protocol in words, and the title."""
        shown = {
            "study",
            "data",
            "models",
            "budget",
            "optimizer",
            "schedule",
            "engine",
            "tail",
            "determinism",
            "report",
        }
        return self.figures_spec(memory) | self.model_dump(mode="json", exclude_none=True, include=shown)

    def job_specs(self, memory: Path | None = None) -> dict[str, str]:
        """Every job of the study, such as ``train/bert/bs64/constant/seed1`` → its spec as canonical JSON."""
        specs = {
            "corpus": self.corpus_spec(memory),
            "split": self.split_spec(),
            "audit": {},
            "reviews": self.reviews_spec(),
            "tables": self.tables_spec(memory),
            "figures": self.figures_spec(memory),
            "report": self.report_spec(memory),
        }
        specs |= {f"tokenize/{model}": self.tokens_spec(model, memory) for model in self.models}
        specs |= {f"certify/{model}": self.certificate_spec(model, memory) for model in self.models}
        specs |= {f"train/{cell.path}": spec.to_dict() for cell, spec in self.train_specs(memory).items()}
        texts = {job: canonical_json(without_places(spec)) for job, spec in specs.items()}
        same_for_all = {
            "evaluate": canonical_json(self.evaluation_spec()),
            "attention": canonical_json(self.attention_spec()),
            "maps": canonical_json(self.maps_spec()),
        }
        for cell in self.cells():
            texts |= {f"{verb}/{cell.path}": text for verb, text in same_for_all.items()}
            texts[f"track/{cell.path}"] = canonical_json(self.tracking_spec(cell))
        return texts

    def settings(self, cell: "Cell") -> dict[str, Any]:
        """What a training may use but its result does not depend on; it stays out of every spec."""
        return (
            {
                "physical_batch_size": self.physical_batch_size,
                "device": self.device,
                "gpus": self.gpus,
                "save_every": self.save_every,
            }
            | self.tracking_spec(cell)
            | self.model_place(cell.model)
        )

    def tracking_spec(self, cell: "Cell") -> dict[str, Any]:
        """What a run's entry in Weights & Biases depends on besides its files: whose it is and what it is called."""
        return {
            "tracking": self.tracking.model_dump(exclude_none=True),
            "study": self.study,
            "model": cell.model,
            "batch": cell.batch,
            "policy": cell.policy,
            "seed": cell.seed,
        }

    def model_place(self, model: str) -> dict[str, str]:
        """Where a model's weights lie, if in a folder of the user's: its content is in the specs, its path is not."""
        checkpoint = self.models[model].checkpoint
        return {"checkpoint": checkpoint} if checkpoint and location(checkpoint) == "local" else {}

    def data_place(self) -> dict[str, str]:
        """Where the reviews lie, if that is a file or folder of the user's."""
        return {"source": self.data.source} if self.data.kind == "local" else {}

    @property
    def model_threads(self) -> int:
        """CPU threads of each job that runs a model."""
        if self.threads == "auto":
            return 1 if self.device == "cpu" else 2
        return self.threads

    def draws_maps(self, run: "Cell") -> bool:
        """Whether the study has attention maps of this run."""
        return self.attention.maps == "all" or run.seed == self.seeds[0]

    def review_names(self) -> list[str]:
        """File names of the reviews with attention maps."""
        own = [f"text{number}" for number in range(1, len(self.attention.texts) + 1)]
        return own or ["confident_correct", "confident_wrong", "undecided"]

    # ------------------------------------------------------------------------------------- reading

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Study":
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
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read the config {path}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise UserError(f"the config {path} is not valid YAML: {error}") from None
        if not isinstance(config, dict):
            raise UserError(f"the config {path} must be a mapping of keys to values")
        return cls.from_mapping(config)

    def _check_local_paths(self) -> None:
        for key, source in [("data.source", self.data.source)] + [
            (f"models.{name}.checkpoint", model.checkpoint) for name, model in self.models.items() if model.checkpoint
        ]:
            if source != "synthetic" and location(source) == "local" and not Path(source).expanduser().exists():
                raise UserError(f"{key}: there is no file or folder {source!r}; a hub id looks like 'owner/name'")


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    model: str
    batch: int
    policy: str
    seed: int

    @property
    def path(self) -> str:
        """Folder of the cell's run below ``runs/``."""
        return f"{self.model}/bs{self.batch}/{self.policy}/seed{self.seed}"

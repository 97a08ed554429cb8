"""A small real study: synthetic reviews, split and tokens of two tiny encoders, made by the stages themselves."""

from dataclasses import dataclass
from pathlib import Path

from batchscope.config.study import Study
from batchscope.data.corpus import build_corpus
from batchscope.data.split import make_split
from batchscope.data.tokenize import tokenize
from batchscope.training.spec import TrainSettings, TrainSpec

TINY = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    "modernbert": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "local_attention": 16,
        "attention_dropout": 0.1,
        "mlp_dropout": 0.1,
        "embedding_dropout": 0.1,
    },
}


def small_grid(**changes: object) -> dict[str, object]:
    """A study of two batch sizes and two seeds on the tokens of ``small_study``, for stages that compare runs."""
    return {
        "study": "tiny",
        "data": {"source": "synthetic", "max_length": 32},
        "models": {"bert": {"architecture": "bert"}},
        "target_batch_sizes": [16, 40],
        "lr_policies": {"constant": {"base_lr": 1e-3}},
        "seeds": [1, 2],
        "budget": {"epochs": 1},
    } | changes


def tiny_config(**changes):
    """A study of both tiny encoders; 230 reviews give 184 for training: 11 windows of 16 and a tail of 8."""
    return {
        "study": "tiny",
        "data": {"source": "synthetic", "synthetic": {"reviews": 230, "seed": 1}, "max_length": 32},
        "models": {
            name: {"architecture": name, "config": config, "vocabulary_size": 300} for name, config in TINY.items()
        },
        "target_batch_sizes": [16, 40],
        "physical_batch_size": 6,
        "lr_policies": {"constant": {"base_lr": "1e-3"}},
        "seeds": [1],
        "budget": {"epochs": 2},
        "precision": "float32",
        "device": "cpu",
    } | changes


def train_settings(**changes) -> TrainSettings:
    """Micro-batches of 6 on the CPU, with keys changed."""
    return TrainSettings.read({"physical_batch_size": 6, "device": "cpu"} | changes)


@dataclass(frozen=True)
class SmallStudy:
    """Folder and specs of the small study."""

    folder: Path

    def tokens(self, model: str) -> Path:
        """Tokens folder of a model."""
        return self.folder / "tokens" / model

    def spec(self, model: str, batch: int = 16, **changes) -> TrainSpec:
        """Training spec of a model, with keys of the config changed."""
        study = Study.from_mapping(tiny_config(**changes))
        return next(spec for cell, spec in study.train_specs().items() if (cell.model, cell.batch) == (model, batch))


def made_study(folder: Path) -> SmallStudy:
    """Corpus, split and tokens of the small study, made in ``folder`` by the stages themselves."""

    study = Study.from_mapping(tiny_config())
    corpus, split = folder / "data/corpus.parquet", folder / "data/split.parquet"
    build_corpus(study.corpus_spec(), corpus)
    make_split(study.split_spec(), corpus, split)
    for model in study.models:
        tokenize(study.tokens_spec(model), corpus, split, folder / "tokens" / model)
    return SmallStudy(folder)

"""The work that every contender of a case is given: the same weights, tokens, order, windows and settings.

Reading it needs no torch: the harness holds one too, and stays small.
"""

import importlib.util
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.training.windows import epoch_order

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

    from benchmarks.classifier import Classifier

LEARNING_RATE = 5e-5
SEED = 42


@dataclass(frozen=True)
class Work:
    """One training of ``updates`` full windows. ``tokens`` is a folder as the workflow's ``tokenize`` writes it, with
    the training texts beside the tokens in ``train.parquet``; ``checkpoint`` a folder with the initial encoder."""

    tokens: Path
    checkpoint: Path
    target_batch_size: int
    updates: int
    physical_batch_size: int | Literal["auto"] = 16
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    learning_rate: float = LEARNING_RATE
    seed: int = SEED
    validate: bool = False
    """Whether the contender measures the validation split afterwards."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """What a contender has to say of itself; it comes back with the measurement."""

    @property
    def micro_batch(self) -> int:
        """The physical batch, for those that cannot choose it."""
        assert self.physical_batch_size != "auto"
        return self.physical_batch_size

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a window, for those that count in them."""
        assert self.target_batch_size % self.micro_batch == 0
        return self.target_batch_size // self.micro_batch

    @property
    def samples(self) -> int:
        """Examples in all: whole windows, as the peers divide the gradient of any other by the wrong number."""
        return self.updates * self.target_batch_size

    def split_tokens(self, split: str) -> Tokens:
        """The ``train`` or ``validation`` split."""
        return load_tokens(self.tokens / f"{split}.arrow")

    def order(self) -> list[int]:
        """The rows of the training split in the order in which Batchscope's first epoch takes them."""
        rows: list[int] = epoch_order(len(self.split_tokens("train")), self.seed, epoch=1)[: self.samples].tolist()
        assert len(rows) == self.samples, f"{self.tokens} has too few examples for {self.updates} updates"
        return rows

    def dataset(self, split: str = "train") -> "Dataset[dict[str, torch.Tensor]]":
        """Tokenised and padded examples as ``datasets`` gives them to PyTorch, those of ``train`` in training order.

        Where ``datasets`` is not installed they come from tensors in memory, which is faster.
        """
        tokens = self.split_tokens(split)
        rows = self.order() if split == "train" else list(range(len(tokens)))
        mask = np.arange(tokens.input_ids.shape[1]) < tokens.length[rows, None]
        columns = {
            "input_ids": tokens.input_ids[rows].astype("int32"),
            "attention_mask": mask.astype("int8"),
            "labels": tokens.label[rows],
        }
        if importlib.util.find_spec("datasets") is None:
            from benchmarks.rows import Rows

            return Rows(columns)
        from datasets import Dataset

        return Dataset.from_dict(columns).with_format("torch")

    def classifier(self) -> "Classifier":
        """The initial model, the same for everyone."""
        from batchscope.model.classifier import build_model
        from batchscope.model.spec import ModelSpec
        from benchmarks.classifier import Classifier

        tokens = self.split_tokens("train")
        model = build_model(
            ModelSpec(checkpoint=str(self.checkpoint)),
            len(tokens.classes),
            tokens.vocabulary_size,
            tokens.pad_token_id,
            self.seed,
        )
        return Classifier(model.encoder, model.head)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"tokens": str(self.tokens), "checkpoint": str(self.checkpoint)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**values | {"tokens": Path(values["tokens"]), "checkpoint": Path(values["checkpoint"])})

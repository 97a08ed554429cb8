"""Lightning: a module and its Trainer with ``accumulate_grad_batches``."""

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.classifier import Classifier
from benchmarks.work import Work


class LightningClassifier(LightningModule):
    """The classifier with its training step."""

    def __init__(self, classifier: Classifier, learning_rate: float) -> None:
        super().__init__()
        self.classifier, self.learning_rate = classifier, learning_rate

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = self.classifier(**batch)["loss"]
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def train(work: Work) -> None:
    trainer = Trainer(
        accelerator="gpu" if work.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if work.precision == "bfloat16" else "32-true",
        accumulate_grad_batches=work.accumulation_steps,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = LightningClassifier(work.classifier(), work.learning_rate)
    module.train()
    trainer.fit(module, DataLoader(work.dataset(), batch_size=work.micro_batch))

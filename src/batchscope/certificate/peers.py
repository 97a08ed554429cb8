"""How the installed peers accumulate a window: each runs for real, and its gradient is measured.

Every peer trains transformers' own ``AutoModelForSequenceClassification`` around the study's encoder, in float64, with
dropout and clipping off and a learning rate of zero, over a data set of a few micro-batches. What its optimizer is
given at each update is compared with the gradient of that window as one batch. No expected factor is built in.
"""

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from batchscope.certificate.engines import Plan
from batchscope.certificate.measures import window_measures
from batchscope.certificate.records import PeerRow, WindowMeasures
from batchscope.certificate.verdict import peer_verdict
from batchscope.data.tokens import Tokens
from batchscope.model.encoders import usable_config
from batchscope.training.gradients import flat_gradient

Example = dict[str, Tensor]


class Epoch(NamedTuple):
    """A peer's whole data set, and the windows it should make of it."""

    examples: list[Example]
    windows: dict[str, list[Example]]


class Reference(NamedTuple):
    """A window as one batch: its gradient, float64 ``[parameters]``, and its loss."""

    gradient: Tensor
    loss: float


class Observer:
    """An optimizer that moves no weight and compares each update's gradient with the expected one."""

    def __init__(self, model: nn.Module, expected: list[Reference]) -> None:
        self.model, self.expected = model, expected
        self.found: list[WindowMeasures] = []
        self.logged: list[float] = []
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        # After the step, not before: Lightning runs the last forward and backward pass inside of it.
        self.optimizer.register_step_post_hook(self._observe)

    def _observe(self, *_: Any) -> None:
        if len(self.found) == len(self.expected):
            raise RuntimeError(f"more than the {len(self.expected)} updates expected")
        reference = self.expected[len(self.found)]
        # Compared at once: a gradient of a large model is not kept. The loss is known only once it has been logged.
        self.found.append(window_measures(flat_gradient(self.model), reference.gradient, None, reference.loss))

    def measures(self) -> list[WindowMeasures]:
        """Measures of every update with its logged loss. Raises RuntimeError if updates are missing."""
        if len(self.found) < len(self.expected):
            raise RuntimeError(f"{len(self.found)} updates, {len(self.expected)} expected")
        for measures, loss in zip(self.found, self.logged, strict=False):
            measures["logged_loss"] = loss
        return self.found


def examples_of(tokens: Tokens) -> list[Example]:
    """Rows of tokens as the peers take them."""
    mask = torch.arange(tokens.input_ids.shape[1]) < torch.from_numpy(tokens.length.astype("int64")).unsqueeze(1)
    ids, labels = torch.from_numpy(tokens.input_ids.astype("int64")), torch.from_numpy(tokens.label.astype("int64"))
    columns = zip(ids, mask.long(), labels, strict=True)
    return [{"input_ids": row, "attention_mask": seen, "labels": label} for row, seen, label in columns]


def peer_model(encoder: PreTrainedModel, classes: int, seed: int) -> PreTrainedModel:
    """transformers' own classifier around a copy of the encoder, in float64, its new weights drawn from ``seed``.

    Its dropout stays off whatever a peer asks for. Raises RuntimeError where transformers has no such classifier.
    """
    config = usable_config(copy.deepcopy(encoder.config))
    config.num_labels = classes
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise RuntimeError(f"transformers has no sequence classifier with a {config.model_type} encoder")
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    unknown = model.base_model.load_state_dict(encoder.state_dict(), strict=False).unexpected_keys
    if unknown:
        raise RuntimeError(f"its encoder has no {unknown[0]}")
    classifier: PreTrainedModel = model.double().eval()
    classifier.train = lambda mode=True: classifier  # type: ignore[method-assign]  # peers call it before they train
    return classifier


def audit_peers(
    encoder: PreTrainedModel,
    classes: int,
    seed: int,
    epochs: list[Epoch],
    plan: Plan,
    device: torch.device,
    tolerance: float,
) -> list[PeerRow]:
    """Run every peer: one row each, with version, measures per window and verdict, or the ``reason`` why there are
    none. Nothing that goes wrong in another project is raised."""
    rows: list[PeerRow] = [{"name": name, "distribution": found} for name, (found, _) in PEERS.items()]
    try:
        model = peer_model(encoder, classes, seed)
        nn.Module.to(model, device)
        references = [[_full_batch(model, window, device) for window in epoch.windows.values()] for epoch in epochs]
    except Exception as error:
        for row in rows:
            row["reason"] = _could_not(error)
        return rows
    for row in rows:
        try:
            row["version"] = version(row["distribution"])
            windows: dict[str, WindowMeasures] = {}
            for epoch, expected in zip(epochs, references, strict=True):
                observer = Observer(model, expected)
                with quietly():
                    PEERS[row["name"]][1](model, observer, epoch.examples, plan.micro_batch, plan.steps)
                windows |= zip(epoch.windows, observer.measures(), strict=True)
            row["passed"], row["verdict"] = peer_verdict(windows, tolerance)
            row["windows"] = windows
        except PackageNotFoundError:
            row["reason"] = "not installed"
        except (Exception, SystemExit) as error:  # an error in another project is a finding about it, not ours
            row["reason"] = _could_not(error)
        finally:
            model.zero_grad()
    return rows


def _could_not(error: BaseException) -> str:
    """Why a peer was not measured, in one line."""
    return f"could not be measured: {type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def with_trainer(
    model: PreTrainedModel, observer: Observer, examples: list[Example], micro_batch: int, steps: int
) -> None:
    """Hugging Face Trainer, as it comes; the logged loss is what it logs for the update."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Loss(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                observer.logged.append(float(logs["loss"]))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=steps,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=model.device.type == "cpu",
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs would wrap the model in DataParallel
        trainer = Trainer(
            model, arguments, train_dataset=examples, callbacks=[Loss()], optimizers=(observer.optimizer, None)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def with_accelerate(
    model: PreTrainedModel, observer: Observer, examples: list[Example], micro_batch: int, steps: int
) -> None:
    """The loop of Accelerate's guide to gradient accumulation; it logs nothing by itself."""
    from accelerate import Accelerator

    accelerator = Accelerator(gradient_accumulation_steps=steps, cpu=model.device.type == "cpu", mixed_precision="no")
    prepared, optimizer, loader = accelerator.prepare(model, observer.optimizer, _loader(examples, micro_batch))
    prepared.train()
    for batch in loader:
        with accelerator.accumulate(prepared):
            loss = prepared(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()


def with_lightning(
    model: PreTrainedModel, observer: Observer, examples: list[Example], micro_batch: int, steps: int
) -> None:
    """Lightning's ``accumulate_grad_batches``; the logged loss is what ``self.log`` holds after the update."""
    from lightning import LightningModule, Trainer

    class Classifier(LightningModule):  # type: ignore[misc, unused-ignore]  # untyped where Lightning is not installed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Example, index: int) -> Tensor:
            loss: Tensor = self.model(**batch).loss
            self.log("loss", loss)
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            if self.trainer.global_step > len(observer.logged):
                observer.logged.append(float(self.trainer.callback_metrics["loss"]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return observer.optimizer

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu" if model.device.type == "cpu" else "gpu",
            devices=1,
            accumulate_grad_batches=steps,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        model.train()
        trainer.fit(Classifier(), _loader(examples, micro_batch))


Train = Callable[[PreTrainedModel, Observer, list[Example], int, int], None]
PEERS: dict[str, tuple[str, Train]] = {
    "Hugging Face Trainer": ("transformers", with_trainer),
    "Accelerate, documented loop": ("accelerate", with_accelerate),
    "Lightning": ("lightning", with_lightning),
}


def _full_batch(model: PreTrainedModel, examples: list[Example], device: torch.device) -> Reference:
    """Compute gradient and loss of the examples as one batch, by the model's own loss."""
    model.zero_grad()
    loss = model(**{name: column.to(device) for name, column in default_collate(examples).items()}).loss
    loss.backward()
    gradient = flat_gradient(model)
    model.zero_grad()
    return Reference(gradient, float(loss.detach()))


def _loader(examples: list[Example], micro_batch: int) -> DataLoader[Example]:
    return DataLoader(examples, batch_size=micro_batch, shuffle=False)  # type: ignore[arg-type]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the peers' own progress lines and advice."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)

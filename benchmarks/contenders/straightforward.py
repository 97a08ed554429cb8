"""The straightforward script, in the manner of the reference study: one cell of the grid per process, float32.

It tokenises in every run, reads each micro-batch's loss with ``.item()``, divides by the accumulation steps, steps
at the end of an epoch, and averages the accuracies of the validation batches. ``python -m
benchmarks.contenders.straightforward --help`` runs one cell from texts to test accuracy.
"""

import argparse
from pathlib import Path

import pandas
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.classifier import Classifier
from benchmarks.work import Work


def load_split(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, rows: list[int] | None = None
) -> Dataset:
    frame = pandas.read_parquet(path)
    dataset = Dataset.from_pandas(frame if rows is None else frame.iloc[rows], preserve_index=False)
    dataset = dataset.map(
        lambda batch: tokenizer(batch["text"], truncation=True, padding="max_length", max_length=max_length),
        batched=True,
    )
    dataset = dataset.rename_column("label", "labels")
    dataset.set_format("torch", columns=["input_ids", "attention_mask", "labels"])
    return dataset


def train_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, accumulation_steps: int, device: str
) -> tuple[float, float]:
    model.train()
    total_loss, correct, seen = 0.0, 0, 0
    optimizer.zero_grad()
    for step, batch in enumerate(loader):
        inputs = {key: value.to(device) for key, value in batch.items()}
        output = model(**inputs)
        (output["loss"] / accumulation_steps).backward()
        total_loss += output["loss"].item() * len(batch["labels"])
        correct += (output["logits"].argmax(dim=1) == inputs["labels"]).sum().item()
        seen += len(batch["labels"])
        if (step + 1) % accumulation_steps == 0 or step + 1 == len(loader):
            optimizer.step()
            optimizer.zero_grad()
    return total_loss / seen, correct / seen


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: str) -> tuple[float, float]:
    model.eval()
    losses, accuracies = [], []
    for batch in loader:
        inputs = {key: value.to(device) for key, value in batch.items()}
        output = model(**inputs)
        losses.append(output["loss"].item())
        accuracies.append((output["logits"].argmax(dim=1) == inputs["labels"]).float().mean().item())
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)


def train(work: Work) -> None:
    """As a contender: the training alone."""
    tokenizer = AutoTokenizer.from_pretrained(work.checkpoint)
    max_length = work.split_tokens("train").input_ids.shape[1]
    dataset = load_split(work.tokens / "train.parquet", tokenizer, max_length, work.order())
    model = work.classifier().to(work.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=work.learning_rate)
    loader = DataLoader(dataset, batch_size=work.micro_batch)
    train_epoch(model, loader, optimizer, work.accumulation_steps, work.device)


def main() -> None:
    """As a script: one cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, validation and test.parquet")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--target-batch-size", type=int, required=True)
    parser.add_argument("--physical-batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
    data = {
        split: load_split(arguments.data / f"{split}.parquet", tokenizer, arguments.max_length)
        for split in ("train", "validation", "test")
    }
    train_loader = DataLoader(data["train"], batch_size=arguments.physical_batch_size, shuffle=True)
    loaders = {split: DataLoader(data[split], batch_size=32) for split in ("validation", "test")}

    encoder = AutoModel.from_pretrained(arguments.checkpoint)
    classes = len(set(data["train"].with_format(None)["labels"]))
    model = Classifier(encoder, nn.Linear(encoder.config.hidden_size, classes)).to(arguments.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.learning_rate)
    accumulation_steps = max(1, arguments.target_batch_size // arguments.physical_batch_size)

    arguments.output.mkdir(parents=True, exist_ok=True)
    best_accuracy = -1.0
    for epoch in range(1, arguments.epochs + 1):
        loss, accuracy = train_epoch(model, train_loader, optimizer, accumulation_steps, arguments.device)
        print(f"epoch {epoch}: train loss {loss:.4f}, accuracy {accuracy:.4f}")
        loss, accuracy = evaluate(model, loaders["validation"], arguments.device)
        print(f"epoch {epoch}: validation loss {loss:.4f}, accuracy {accuracy:.4f}")
        torch.save(model.state_dict(), arguments.output / f"epoch{epoch}-val_acc{accuracy:.4f}.pt")
        if accuracy > best_accuracy:
            best_accuracy = accuracy
            torch.save(model.state_dict(), arguments.output / "best.pt")
    model.load_state_dict(torch.load(arguments.output / "best.pt"))
    loss, accuracy = evaluate(model, loaders["test"], arguments.device)
    print(f"test loss {loss:.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()

"""Hugging Face Accelerate: the loop of its guide to gradient accumulation."""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from benchmarks.work import Work


def train(work: Work) -> None:
    accelerator = Accelerator(
        gradient_accumulation_steps=work.accumulation_steps,
        mixed_precision="bf16" if work.precision == "bfloat16" else "no",
        cpu=work.device == "cpu",
    )
    model = work.classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=work.learning_rate)
    loader = DataLoader(work.dataset(), batch_size=work.micro_batch)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    torch.manual_seed(work.seed)
    model.train()
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch)["loss"]
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

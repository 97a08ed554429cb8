"""Several processes on one run: the window's gradient is that of one process."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from batchscope.data.tokens import load_tokens
from batchscope.files import read_json
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import build_model
from batchscope.provenance.fingerprint import canonical_json
from batchscope.training.accumulate import ManualEngine
from batchscope.training.microbatch import DeviceTokens
from batchscope.training.ranks import Ranks
from batchscope.training.windows import epoch_order, loss_scale, micro_batches, windows

TARGET, PHYSICAL = 45, 6  # 184 examples: four ragged windows and a tail of 4, one micro-batch for two ranks


def gradients_of_an_epoch(spec, tokens_folder):
    """The summed gradient of every window of the first epoch, float32, dropout off."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    ranks = Ranks(cpu)
    tokens = load_tokens(tokens_folder / "train.arrow")
    model = build_model(spec, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, 0).eval()
    engine, data = ManualEngine(model, torch.optim.SGD(model.parameters())), DeviceTokens(tokens, cpu)
    order, found = torch.from_numpy(epoch_order(len(tokens), 0, 1)), []
    for window in windows(len(tokens), TARGET, {"epochs": 1}):
        pieces = ranks.share(list(micro_batches(window, PHYSICAL)))
        batches = [data.micro_batch(order[a:b], loss_scale(window, b - a, TARGET, "exact")) for a, b in pieces]
        sums = engine.accumulate(batches, contextlib.nullcontext())
        ranks.sum_gradients(model)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((gradient.clone(), ranks.sum(sums.loss), ranks.sum(sums.correct)))
        model.zero_grad()
    ranks.close()
    return found


def rank_of_two(rank, port, spec, tokens_folder, output):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(gradients_of_an_epoch(spec, tokens_folder), output / f"rank{rank}.pt")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_two_ranks_have_the_gradient_of_one(small_study, tmp_path, architecture):
    spec, tokens = small_study.spec(architecture).model, small_study.tokens(architecture)
    alone = gradients_of_an_epoch(spec, tokens)
    torch.multiprocessing.spawn(rank_of_two, (free_port(), spec, tokens, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(alone) == 5
    for one, left, right in zip(alone, first, second, strict=True):
        assert torch.equal(left[0], right[0]), "every rank goes on with the same gradient"
        assert (left[0] - one[0]).abs().max() <= 1e-6 * one[0].abs().max()
        assert left[1].item() == pytest.approx(one[1].item(), rel=1e-6)
        assert left[2].item() == one[2].item()


def test_a_run_on_two_ranks_is_started_by_one_command(small_study, tmp_path):
    """The verb starts torchrun's launcher itself; the first rank writes everything, once."""
    spec = small_study.spec("bert", budget={"epochs": 1})
    settings = {"physical_batch_size": 6, "device": "cpu", "gpus": 2, "tracking": {"mode": "disabled"}}
    command = [sys.executable, "-m", "batchscope", "train", "--spec", canonical_json(spec.to_dict())]
    command += ["--settings", json.dumps(settings), "--tokens", small_study.tokens("bert"), "--run", tmp_path / "run"]
    command += ["--state", tmp_path / "state", "--tracking-folder", tmp_path / "wandb", "--threads", "1"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = read_json(tmp_path / "run/train.json")
    assert (facts["ranks"], facts["updates"], facts["samples"]) == (2, 12, 184)
    assert len((tmp_path / "run/history.jsonl").read_text().splitlines()) == 13
    model, _ = load_checkpoint(tmp_path / "run/checkpoints/best.safetensors", torch.device("cpu"))
    assert all(p.isfinite().all() for p in model.parameters())

"""Several processes on one run: the window's gradient is that of one process."""

import contextlib
import json

import pytest
import torch
from jobs import RUN, jobs_of
from small import tiny_config, train_settings
from two_ranks import on_two_ranks

from batchscope.data.tokens import load_tokens
from batchscope.files import read_json
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import build_model
from batchscope.training import loop
from batchscope.training.accumulate import ManualEngine
from batchscope.training.loop import train
from batchscope.training.microbatch import DeviceTokens
from batchscope.training.ranks import Ranks
from batchscope.training.run import Run
from batchscope.training.spec import BudgetSpec
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
    for window in windows(len(tokens), TARGET, BudgetSpec(epochs=1)):
        pieces = ranks.share(list(micro_batches(window, PHYSICAL)))
        batches = [data.micro_batch(order[a:b], loss_scale(window, b - a, TARGET, "exact")) for a, b in pieces]
        sums = engine.accumulate(batches, contextlib.nullcontext())
        ranks.sum_gradients(model)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((gradient.clone(), ranks.sum(sums.loss), ranks.sum(sums.correct)))
        model.zero_grad()
    ranks.close()
    return found


def rank_of_two(rank, spec, tokens_folder, output):
    torch.save(gradients_of_an_epoch(spec, tokens_folder), output / f"rank{rank}.pt")


def rank_with_a_clock_of_its_own(rank, spec, tokens_folder, output):
    """The first rank finds after update 3 that it is time to save, the second after update 4."""
    launch, loop.updates_ahead = Run.launch, lambda device: 1

    def launch_and_see_the_clock(self, window):
        launch(self, window)
        if window.update == 3 + rank:
            self.saved -= 1e6

    Run.launch = launch_and_see_the_clock
    settings = train_settings(save_every=1e5)
    train(spec, "code", settings, tokens_folder, output / "run", output / "state", lambda line: None)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_two_ranks_have_the_gradient_of_one(small_study, tmp_path, architecture):
    spec, tokens = small_study.spec(architecture).model, small_study.tokens(architecture)
    alone = gradients_of_an_epoch(spec, tokens)
    on_two_ranks(rank_of_two, spec, tokens, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(alone) == 5
    for one, left, right in zip(alone, first, second, strict=True):
        assert torch.equal(left[0], right[0]), "every rank goes on with the same gradient"
        assert (left[0] - one[0]).abs().max() <= 1e-6 * one[0].abs().max()
        assert left[1].item() == pytest.approx(one[1].item(), rel=1e-6)
        assert left[2].item() == one[2].item()


def test_a_run_on_two_ranks_is_started_by_one_command(small_study, tmp_path):
    """The verb starts torchrun's launcher itself; the first rank writes everything, once."""
    jobs = jobs_of(tmp_path, tiny_config(gpus=2, device="auto", budget={"epochs": 1}), small_study)
    jobs.succeed(f"train/{RUN}", "--threads", 1)
    run = jobs.layout.run(RUN)
    facts = read_json(run / "train.json")
    assert (facts["ranks"], facts["updates"], facts["samples"]) == (2, 12, 184)
    assert len((run / "history.jsonl").read_text().splitlines()) == 13
    model, _ = load_checkpoint(run / "checkpoints/best.safetensors", torch.device("cpu"))
    assert all(p.isfinite().all() for p in model.parameters())


def test_ranks_whose_clocks_differ_save_after_the_same_update(small_study, tmp_path):
    """Before a save the updates that are under way are settled, which sums over the ranks where the noise is wanted."""
    spec = small_study.spec("bert", budget={"updates": 6}, noise_scale="full")
    on_two_ranks(rank_with_a_clock_of_its_own, spec, small_study.tokens("bert"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6, 6]

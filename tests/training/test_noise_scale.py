"""The noise scale while training: it reads what is there, exactly, and changes nothing."""

import contextlib
import json

import numpy as np
import pytest
import torch
from small import train_settings
from two_ranks import on_two_ranks

from batchscope.data.tokens import load_tokens
from batchscope.model.classifier import build_model
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.accumulate import accumulate_window
from batchscope.training.loop import train
from batchscope.training.microbatch import DeviceTokens, micro_step
from batchscope.training.noise import NoiseGauge, noise_columns
from batchscope.training.spec import BudgetSpec
from batchscope.training.windows import epoch_order, loss_scale, micro_batches, windows

TARGET, PHYSICAL = 40, 6  # six micro-batches of 6 and one of 4; the tail window of 24 has four of 6


def columns_of(gauge, grad_norm, over_ranks=None):
    seen = gauge.close()
    return noise_columns(seen, seen.norms.tolist(), grad_norm, over_ranks)


def accumulate(model, pieces, observe=None):
    return accumulate_window(model, pieces, lambda piece: micro_step(model, piece, contextlib.nullcontext()), observe)


def flat_gradient(model):
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().numpy()
    model.zero_grad()
    return flat


def reference_columns(model, pieces):
    """Every micro-batch's mean gradient on its own, with dropout drawn as in the window; then the definitions."""
    gradients, sizes = [], np.array([len(piece.label) for piece in pieces])
    for piece in pieces:
        accumulate(model, [piece._replace(scale=1 / len(piece.label))])
        gradients.append(flat_gradient(model))
    mean = sizes @ np.array(gradients) / sizes.sum()
    between = sum(size * ((g - mean) ** 2).sum() for size, g in zip(sizes, gradients, strict=True))
    trace = between / (len(sizes) - 1)
    first, whole, ratio = (gradients[0] ** 2).sum(), mean @ mean, sizes[0] / sizes.sum()
    return {
        "full": {"gradient_square": whole - trace / sizes.sum(), "noise_trace": trace},
        "cheap": {
            "gradient_square": (whole - ratio * first) / (1 - ratio),
            "noise_trace": (first - whole) * sizes[0] / (1 - ratio),
        },
    }


@pytest.mark.parametrize("kind", ["cheap", "full"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_estimates_equal_those_of_explicit_gradients(small_study, architecture, kind):
    tokens = load_tokens(small_study.tokens(architecture) / "train.arrow")
    spec = small_study.spec(architecture).model
    model = build_model(spec, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, 0).train()
    data, examples = DeviceTokens(tokens, torch.device("cpu")), len(tokens.label)
    order = torch.from_numpy(epoch_order(examples, 0, 1))
    gauge = NoiseGauge(model, kind)
    for window in list(windows(examples, TARGET, BudgetSpec(epochs=1)))[-2:]:
        pieces = [
            data.micro_batch(order[start:stop], loss_scale(window, stop - start, TARGET, "exact"))
            for start, stop in micro_batches(window, PHYSICAL)
        ]
        torch.manual_seed(window.update)
        expected = reference_columns(model, pieces)[kind]
        torch.manual_seed(window.update)
        accumulate(model, pieces, gauge.observe)
        found = columns_of(gauge, float(np.linalg.norm(flat_gradient(model))))
        size = max(map(abs, expected.values()))  # |G|² is a difference of terms as large as S/n
        assert found["noise_trace"] == pytest.approx(expected["noise_trace"], rel=1e-5)
        assert found["gradient_square"] == pytest.approx(expected["gradient_square"], rel=1e-5, abs=1e-6 * size)


def trained(small_study, folder, **changes):
    spec = small_study.spec("bert", **changes)
    settings = train_settings(physical_batch_size=PHYSICAL)
    train(spec, "code", settings, small_study.tokens("bert"), folder / "run", folder / "state")
    records = [json.loads(line) for line in (folder / "run/history.jsonl").read_text().splitlines()]
    return folder / "run", records


def without_noise(records):
    return [{k: v for k, v in r.items() if k not in ("gradient_square", "noise_trace")} for r in records]


def test_weights_and_the_rest_of_the_history_are_the_same_bit_for_bit(small_study, tmp_path):
    plain, expected = trained(small_study, tmp_path / "off")
    assert all("noise_trace" not in record for record in expected)
    histories = []
    for kind, engine in (("cheap", "manual"), ("full", "manual"), ("full", "accelerate")):
        run, records = trained(small_study, tmp_path / (kind + engine), noise_scale=kind, engine=engine)
        for name in ("best", "last"):
            assert file_hash(run / f"checkpoints/{name}.safetensors") == file_hash(
                plain / f"checkpoints/{name}.safetensors"
            )
        assert without_noise(records) == expected
        updates = [record for record in records if record["kind"] == "update"]
        assert all(record["noise_trace"] is not None for record in updates)
        assert np.mean([record["noise_trace"] for record in updates]) > 0
        histories.append(records)
    assert histories[1] == histories[2], "the engines see the same gradients"


def test_clipping_comes_after_the_estimate(small_study, tmp_path):
    clipped = {"name": "adam", "max_grad_norm": 1e-3}
    (_, plain), (_, other) = (
        trained(small_study, tmp_path / name, noise_scale="full", budget={"updates": 1}, **changes)
        for name, changes in (("plain", {}), ("clipped", {"optimizer": clipped}))
    )
    assert plain[0] == other[0]


def test_windows_of_one_micro_batch_have_null_in_the_history(small_study, tmp_path):
    _, records = trained(small_study, tmp_path, noise_scale="full", target_batch_sizes=[16, 5], batch=5)
    updates = [record for record in records if record["kind"] == "update"]
    assert {(record["gradient_square"], record["noise_trace"]) for record in updates} == {(None, None)}


def train_on_a_rank(rank, spec, tokens, folder):
    train(spec, "code", train_settings(), tokens, folder / "run", folder / "state")


def test_two_ranks_estimate_what_one_does(small_study, tmp_path):
    """Without dropout, whose masks depend on the rank; three micro-batches, so that one rank has two."""
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "hidden_size": 32}
    calm |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    changes = {"models": {"bert": {"architecture": "bert", "config": calm, "vocabulary_size": 300}}}
    changes |= {"noise_scale": "full", "budget": {"updates": 2}}
    _, alone = trained(small_study, tmp_path / "alone", **changes)
    on_two_ranks(train_on_a_rank, small_study.spec("bert", **changes), small_study.tokens("bert"), tmp_path)
    together = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    for name in ("noise_trace", "gradient_square"):
        assert [r[name] for r in together[:2]] == pytest.approx([r[name] for r in alone[:2]], rel=1e-3)

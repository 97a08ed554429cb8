"""Many architectures of transformers, as tiny encoders: what a study does with each, or why it cannot."""

import logging

import numpy as np
import pytest
import torch
from encoders import ENCODERS, LENGTH, PAD, VOCABULARY, tiny_encoder
from torch.nn.functional import cross_entropy

from batchscope.certificate.certify import certified_windows, certify_model
from batchscope.certificate.engines import Plan
from batchscope.certificate.verdict import TOLERANCES, overall
from batchscope.data.tokens import Tokens
from batchscope.errors import UserError
from batchscope.evaluation.predict import predict
from batchscope.insight.weights import attention_maps, why_no_attention
from batchscope.model.check import check_model
from batchscope.model.checkpoint import load_checkpoint, save_checkpoint
from batchscope.model.classifier import build_model
from batchscope.model.cpu_kernels import use_cpu_kernels
from batchscope.model.spec import ModelSpec

CPU = torch.device("cpu")
MICRO_BATCH, REVIEWS = 2, 14
NOT_TRAINABLE = {"reformer": "its output is (2, 24, 32), not one vector per token, (2, 24, 16)"}
NO_FLOAT64 = {"canine", "longformer", "mra"}
NO_ATTENTION = {"canine", "fnet", "longformer", "mra", "reformer", "squeezebert", "yoso"}
DEPENDS_ON_PADDING = {"canine", "fnet", "funnel", "yoso"}


def reviews():
    """Reviews of 4 to ``LENGTH`` random tokens of two classes."""
    random = np.random.default_rng(1)
    ids = random.integers(5, VOCABULARY, (REVIEWS, LENGTH))
    length = random.integers(4, LENGTH, REVIEWS).astype(np.int32)
    length[0] = LENGTH
    ids[np.arange(LENGTH) >= length[:, None]] = PAD
    return Tokens(
        example_id=np.arange(REVIEWS),
        label=np.arange(REVIEWS) % 2,
        input_ids=ids.astype(np.uint16),
        length=length,
        truncated=np.zeros(REVIEWS, dtype=bool),
        classes=["negative", "positive"],
        pad_token_id=PAD,
        vocabulary_size=VOCABULARY,
    )


def trained(model, tokens):
    """The losses of three training steps on all reviews."""
    ids = torch.from_numpy(tokens.input_ids.astype("int32"))
    mask = torch.arange(LENGTH) < torch.from_numpy(tokens.length)[:, None]
    label = torch.from_numpy(tokens.label)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(3):
        loss = cross_entropy(model(ids, mask), label)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_the_sweep_is_wide():
    assert len(ENCODERS) >= 35


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_does_all_that_a_study_asks_or_says_why_not(kind, tmp_path, caplog):
    tokens = reviews()
    tiny_encoder(kind).save_pretrained(tmp_path / "pretrained")
    spec = ModelSpec(checkpoint=str(tmp_path / "pretrained"))
    model = build_model(spec, 2, VOCABULARY, PAD, seed=1).eval()
    with caplog.at_level(logging.WARNING):
        if kind in NOT_TRAINABLE:
            with pytest.raises(UserError) as refusal:
                check_model(model, tokens, tmp_path)
            assert NOT_TRAINABLE[kind] in str(refusal.value)
            return
        check_model(model, tokens, tmp_path)
    assert ("depends on the padding" in caplog.text) == (kind in DEPENDS_ON_PADDING)

    reason = why_no_attention(model, tokens.input_ids[0].astype(np.int64))
    assert (reason is not None) == (kind in NO_ATTENTION), reason
    if reason is None:
        maps, _ = attention_maps(model, torch.from_numpy(tokens.input_ids[0].astype(np.int64)))
        assert maps.shape[1:] == (LENGTH, LENGTH)
        assert len(maps) >= 2

    # One window, whose last micro-batch is shorter; what differs in the other two does not depend on the encoder.
    plan = Plan({"full": certified_windows(MICRO_BATCH)["ragged"]}, MICRO_BATCH, 4)
    rows, not_measured = certify_model(model, tokens, plan, CPU, "float32", dict(TOLERANCES))
    verdict = overall(rows, not_measured)
    assert verdict.passed, verdict.words
    assert set(not_measured) == ({"float64"} if kind in NO_FLOAT64 else set())

    model = build_model(spec, 2, VOCABULARY, PAD, seed=1).train()
    use_cpu_kernels(model.encoder)
    losses = trained(model, tokens)
    assert np.isfinite(losses).all()
    save_checkpoint(tmp_path / "best.safetensors", model, {"epoch": 1, "update": 1})
    again, facts = load_checkpoint(tmp_path / "best.safetensors", CPU)
    assert facts["epoch"] == 1
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    logits = predict(model, tokens, CPU, torch.float32)
    assert logits.shape == (REVIEWS, 2)
    np.testing.assert_array_equal(predict(again, tokens, CPU, torch.float32), logits)

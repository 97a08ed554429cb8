"""Predictions: no host waits for a device between batches, and memory grows with the logits alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_peak import measured
from torch.utils._python_dispatch import TorchDispatchMode

from batchscope.data.tokens import Tokens
from batchscope.evaluation import predict as stage
from batchscope.evaluation.predict import predict
from batchscope.model.classifier import build_model
from batchscope.model.spec import ModelSpec

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def random_tokens(reviews, width=32):
    dice = np.random.default_rng(0)
    length = dice.integers(2, width + 1, reviews).astype(np.int32)
    ids = dice.integers(5, 300, (reviews, width)).astype(np.uint16)
    ids[np.arange(width) >= length[:, None]] = 0
    flags, numbers = np.zeros(reviews, bool), np.arange(reviews)
    return Tokens(numbers, numbers % 2, ids, length, flags, ["a", "b"], pad_token_id=0, vocabulary_size=300)


def model_of(architecture, **sizes):
    spec = ModelSpec(architecture=architecture, config=SIZES | sizes)
    return build_model(spec, classes=2, vocabulary_size=300, pad_token_id=0, seed=1)


class Reads(TorchDispatchMode):
    """Counts the values that Python asks of tensors, each of which waits for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += str(function) in ("aten.item.default", "aten._local_scalar_dense.default")
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("batches", [1, 8])
def test_our_loop_reads_nothing_between_batches(batches, monkeypatch):
    tokens, model = random_tokens(64), model_of("bert")
    monkeypatch.setattr(stage, "TOKENS_PER_BATCH", 64 * 32 // batches)
    monkeypatch.setattr(model, "forward", lambda ids, mask: torch.zeros(len(ids), 2))
    with Reads() as reads:
        predict(model, tokens, torch.device("cpu"), torch.float32)
    assert reads.count == 0


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_the_order_of_the_reviews_changes_no_prediction(architecture, monkeypatch):
    monkeypatch.setattr(stage, "TOKENS_PER_BATCH", 7 * 32)
    tokens, model = random_tokens(50), model_of(architecture)
    order = np.random.default_rng(1).permutation(50)
    shuffled = Tokens(
        *(getattr(tokens, name)[order] for name in ("example_id", "label", "input_ids", "length", "truncated")),
        classes=["a", "b"],
        pad_token_id=0,
        vocabulary_size=300,
    )
    logits = predict(model, tokens, torch.device("cpu"), torch.float32)
    again = predict(model, shuffled, torch.device("cpu"), torch.float32)
    np.testing.assert_allclose(again, logits[order], atol=2e-6)
    assert model.training


PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from memory_peak import anonymous_bytes, peak_of
from test_predict import model_of, random_tokens
from batchscope.evaluation.predict import predict

def growth_of(reviews):
    tokens, before = random_tokens(reviews), anonymous_bytes()
    return peak_of(lambda: predict(model, tokens, torch.device("cpu"), torch.float32)) - before

torch.set_num_threads(1)
model = model_of("bert", hidden_size=8, num_hidden_layers=1, intermediate_size=8)
_, few, many = (growth_of(count) for count in (1000, 1000, 40_000))
print(many - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_reviews():
    """39,000 more reviews have 10 MB of int64 ids and 40 MB of hidden states, but 0.3 MB of logits."""
    assert measured(PEAK, str(Path(__file__).parent)) < 5e6

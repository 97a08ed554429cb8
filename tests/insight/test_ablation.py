"""Attention without some keys: closed forms, and a float64 reference that masks their logits before the softmax."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from encoders import VOCABULARY, random_reviews, tiny_encoder

from batchscope.insight import review_batches
from batchscope.insight.ablation import (
    Cut,
    _untouched,
    ablate,
    changed_attention,
    compared,
    cuts_of,
    margins,
    why_no_ablation,
    without,
)
from batchscope.insight.attention import layer_windows
from batchscope.insight.heads import SINK_EPSILON, Batch
from batchscope.insight.review_batches import batches
from batchscope.model.classifier import TextClassifier

SPECIAL = np.arange(VOCABULARY) % 7 == 0


@pytest.fixture(autouse=True)
def float64_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """ModernBERT's softmax is in float32, where a float64 mask of padded rows is infinite."""
    softmax = torch.nn.functional.softmax

    def exact(scores: torch.Tensor, dim: int = -1, **named: object) -> torch.Tensor:
        return softmax(scores, dim=dim)

    monkeypatch.setattr(torch.nn.functional, "softmax", exact)


def peaked(kind: str) -> TextClassifier:
    """A tiny encoder in float64 whose heads have sinks in some reviews."""
    model = TextClassifier(tiny_encoder(kind), classes=3).double().eval()
    for parameter in model.encoder.parameters():
        parameter.data *= 6
    return model


def test_a_column_is_removed_and_rows_are_divided_by_what_is_left() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]]).expand(1, 1, 3, 3)
    removed = torch.tensor([[[True, False, False]]])
    everywhere = torch.ones(1, 3, 3, dtype=torch.bool)
    found = without(weights, removed, everywhere)[0, 0].tolist()
    assert found == [[0, 0.5, 0.5], [0, 0.5, 0.5], [0, 0.25, 0.75]]
    assert without(weights, torch.zeros_like(removed), everywhere).equal(weights)
    only_itself = torch.eye(3, dtype=torch.bool)[None]
    assert without(torch.eye(3)[None, None], removed, only_itself)[0, 0].equal(torch.eye(3))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "distilbert", "roberta"])
def test_unchanged_weights_change_nothing_and_the_encoder_is_left_as_it_was(kind: str) -> None:
    model = peaked(kind)
    ids, mask = next(batches(random_reviews(), np.arange(9), torch.device("cpu")))
    implementation = model.config._attn_implementation
    with torch.no_grad():
        plain = model(ids, mask)
        with changed_attention(model, lambda layer, weights: weights):
            assert model(ids, mask).sub(plain).abs().max() < 1e-12
        with changed_attention(model, lambda layer, weights: weights.roll(1, 3)):
            assert model(ids, mask).sub(plain).abs().max() > 1e-3
        assert model(ids, mask).equal(plain)
    assert model.config._attn_implementation == implementation


@contextmanager
def masked_logits(keys: dict[tuple[int, int], list[int]], heads: int) -> Iterator[None]:
    """The encoders' softmax with the logits of keys, by layer and head, at minus infinity."""
    softmax, layers = torch.nn.functional.softmax, 0

    def patched(scores: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        nonlocal layers
        scores = scores.clone()
        for head in range(heads):
            scores[0, head, :, keys.get((layers, head), [])] = -torch.inf
        layers += 1
        return softmax(scores, *arguments, **named)

    torch.nn.functional.softmax = patched
    try:
        yield
    finally:
        torch.nn.functional.softmax = softmax


def reference(model: TextClassifier, ids: torch.Tensor, removed: str, layers: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of one unpadded review ``[1, n]`` with all keys, and without some; sinks found with plain loops."""
    mask, n = torch.ones_like(ids, dtype=torch.bool), ids.shape[1]
    model.encoder.set_attn_implementation("eager")
    maps = model.encoder(ids, output_attentions=True).attentions
    keys: dict[tuple[int, int], list[int]] = {}
    for layer, window in enumerate(layer_windows(model.config, len(maps))):
        if layers != "all" and (layers == "global") != (window is None):
            continue
        for head, one in enumerate(maps[layer][0].numpy()):
            if removed == "special tokens":
                keys[layer, head] = [key for key in range(n) if SPECIAL[ids[0, key]]]
                continue
            seen = [[q for q in range(n) if window is None or abs(q - key) <= window] for key in range(n)]
            received = [sum(one[q, key] for q in seen[key]) / len(seen[key]) for key in range(n)]
            if max(received) > SINK_EPSILON:
                keys[layer, head] = [int(np.argmax(received))]
    with masked_logits({}, 0):
        plain = model(ids, mask)[0]
    with masked_logits(keys, maps[0].shape[1]):
        return plain, model(ids, mask)[0]


@pytest.mark.parametrize("removed", ["sink", "special tokens"])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "distilbert", "roberta"])
def test_padded_batches_give_the_margins_of_the_reference(
    kind: str, removed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = peaked(kind), random_reviews(10)
    monkeypatch.setattr(review_batches, "TOKENS_PER_BATCH", 4 * 24)
    found = {(one["removed"], one["layers"]): one for one in ablate(model, tokens, np.arange(10), SPECIAL)}
    assert {layers for _, layers in found} == ({"all", "global", "sliding"} if kind == "modernbert" else {"all"})
    labels = torch.from_numpy(tokens.label)
    for layers in {layers for _, layers in found}:
        one = found[removed, layers]
        before, after = [], []
        for row in range(10):
            ids = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))[None]
            with torch.no_grad():
                pair = reference(model, ids, removed, layers)
            before.append(pair[0])
            after.append(pair[1])
        slow = compared(Cut(removed, layers), torch.stack(before), torch.stack(after), labels, one["with_sink"])
        assert 0 < one["with_sink"] < 1 and abs(one["change"]) > 1e-4
        for name in ("reviews", "flips", "correct_before", "correct_after"):
            assert one[name] == slow[name]
        for name in ("margin", "change"):
            assert one[name] == pytest.approx(slow[name], abs=1e-7)
        assert list(one["change_quantiles"].values()) == pytest.approx(
            list(slow["change_quantiles"].values()), abs=1e-7
        )


def test_random_keys_are_as_many_in_the_same_heads_and_no_sinks_or_padding() -> None:
    model = peaked("bert")
    for ids, mask in batches(random_reviews(), np.arange(14), torch.device("cpu")):
        batch = Batch(mask, torch.zeros_like(ids), None)
        _, sinks = _untouched(model, ids, mask, [batch, batch], torch.Generator().manual_seed(0))
        for sink, drawn in zip(sinks.sink, sinks.random, strict=True):
            assert sink.any() and sink.sum(2).max() == 1
            assert drawn.sum(2).equal(sink.sum(2))
            assert not (drawn & sink).any() and not (drawn & ~mask[:, None]).any()


def test_margins_and_what_is_counted() -> None:
    before = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    after = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
    labels = torch.tensor([0, 1])
    assert margins(before, labels).tolist() == [1, -2]
    found = compared(Cut("sink", "all"), before, after, labels, 0.5)
    assert (found["margin"], found["change"], found["flips"]) == (-0.5, -1.5, 1)
    assert (found["correct_before"], found["correct_after"]) == (1, 0)
    assert found["change_quantiles"]["median"] == -1.5


def test_which_layers_are_changed_together() -> None:
    assert {cut.layers for cut in cuts_of([None, None])} == {"all"}
    assert {cut.layers for cut in cuts_of([4, 4])} == {"all"}
    assert len(cuts_of([None, 4])) == 9


@pytest.mark.parametrize(("kind", "expected"), [("deberta-v2", "attention of 2 of its 2 layers"), ("bert", None)])
def test_an_encoder_whose_attention_cannot_be_changed_has_a_reason(kind: str, expected: str | None) -> None:
    found = why_no_ablation(TextClassifier(tiny_encoder(kind), classes=2), np.arange(5, 12))
    assert found is None if expected is None else found is not None and expected in found
    one_class = why_no_ablation(TextClassifier(tiny_encoder(kind), classes=1), np.arange(5, 12))
    assert one_class == "no ablation: a margin needs two classes"

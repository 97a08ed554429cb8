"""Attention measured over many reviews: closed forms, and a slow float64 reference on three architectures."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import random_reviews, tiny_encoder

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.files import read_json
from batchscope.insight import review_batches
from batchscope.insight.attention_measures import measure_attention, measured
from batchscope.insight.heads import EPSILONS, SINK_EPSILON, Batch, HeadSums
from batchscope.insight.key_classes import KEY_CLASSES
from batchscope.insight.review_batches import drawn_reviews
from batchscope.insight.rollout import pooled_rollout
from batchscope.insight.spec import AttentionMeasuresSpec
from batchscope.insight.weights import attention_maps
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier

K = len(KEY_CLASSES)
CLASS_OF = np.arange(120) % K


def sums_of(weights: torch.Tensor, lengths: list[int], window: int | None = None) -> HeadSums:
    """Sums of one batch ``[B, H, L, L]`` whose keys are of class position mod K."""
    length = weights.shape[2]
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    classes = (torch.arange(length) % K).expand(len(lengths), -1)
    sums = HeadSums(window)
    sums.add(weights, Batch(mask, classes, window))
    return sums


@pytest.mark.parametrize("window", [None, 2])
def test_uniform_attention_over_the_allowed_keys_is_even_in_every_measure(window: int | None) -> None:
    """Weights beyond padding and window are set to nonsense, and change nothing."""
    lengths, size = [9, 12, 1], 12
    weights = torch.full((3, 2, size, size), torch.nan)
    for row, n in enumerate(lengths):
        for query in range(n):
            keys = [key for key in range(n) if window is None or abs(query - key) <= window]
            weights[row, :, query, keys] = 1 / len(keys)
    for head in sums_of(weights, lengths, window).measures(0):
        assert head["entropy"] == pytest.approx(1, abs=1e-6) and head["largest_lift"] == pytest.approx(1, abs=1e-6)
        assert head["distance"] == pytest.approx(head["even_distance"], abs=1e-6)
        assert list(head["lift"].values()) == pytest.approx([1] * K, abs=1e-6)
        assert sum(head["mass"].values()) == pytest.approx(1, abs=1e-6)


def test_attention_to_one_key_is_a_sink_of_its_class() -> None:
    weights = torch.zeros(2, 1, 6, 6)
    weights[..., 3] = 1
    (head,) = sums_of(weights, [6, 5]).measures(0)
    assert head["entropy"] == 0 and head["largest_lift"] == pytest.approx((6 * 6 + 5 * 5) / 11)
    assert head["mass"][KEY_CLASSES[3]] == 1 and head["lift"][KEY_CLASSES[3]] == pytest.approx(11 / 2)
    assert set(head["sink_rates"].values()) == {1.0}
    assert head["sink_classes"] == {name: float(name == KEY_CLASSES[3]) for name in KEY_CLASSES}
    assert head["distance"] == pytest.approx((3 + 2 + 1 + 0 + 1 + 2 + 3 + 2 + 1 + 0 + 1) / 11)


def test_a_sink_is_judged_by_the_queries_that_may_see_it() -> None:
    """Half of each query's weight goes to the key before it: never a sink, though a window hides it from most."""
    weights = torch.zeros(1, 1, 8, 8)
    for query in range(8):
        weights[0, 0, query, query] = weights[0, 0, query, max(0, query - 1)] = 0.5
    weights[0, 0, 0, 0] = 1
    (wide,), (narrow,) = sums_of(weights, [8]).measures(0), sums_of(weights, [8], window=1).measures(0)
    assert wide["sink_rates"]["0.2"] == 0 and wide["sink_classes"] is None
    assert narrow["sink_rates"]["0.3"] == 1.0


def reference(model: TextClassifier, tokens: Tokens, window_of: list[int | None]) -> dict[tuple[int, int], dict]:
    """Review by review without padding, all heads at once as transformers gives them, plain loops in float64."""
    found: dict[tuple[int, int], dict] = {}
    model.encoder.set_attn_implementation("eager")
    for row in range(len(tokens)):
        ids = tokens.input_ids[row, : tokens.length[row]].astype(np.int64)
        with torch.no_grad():
            output = model.encoder(torch.from_numpy(ids)[None], output_attentions=True)
        for layer, weights in enumerate(output.attentions):
            for head, one in enumerate(weights[0].double().numpy()):
                sums = found.setdefault((layer, head), {"queries": 0, "several": 0, "reviews": 0})
                count_one(sums, one, ids, window_of[layer])
    return found


def count_one(sums: dict, weights: np.ndarray, ids: np.ndarray, window: int | None) -> None:
    def add(name: str, value: object) -> None:
        sums[name] = sums.get(name, 0) + value

    n = len(ids)
    seen = {key: [q for q in range(n) if window is None or abs(q - key) <= window] for key in range(n)}
    for query in range(n):
        keys = seen[query]
        row = weights[query]
        add("queries", 1)
        if len(keys) > 1:
            add("several", 1)
            add("entropy", -sum(row[k] * math.log(row[k]) for k in keys if row[k] > 0) / math.log(len(keys)))
        add("distance", sum(row[k] * abs(query - k) for k in keys))
        add("even_distance", sum(abs(query - k) for k in keys) / len(keys))
        add("largest", max(row) * len(keys))
        for name in range(K):
            members = [k for k in keys if CLASS_OF[ids[k]] == name]
            add(f"kind{name}", sum(row[k] for k in members))
            add(f"even{name}", len(members) / len(keys))
    received = [sum(weights[q][key] for q in seen[key]) / len(seen[key]) for key in range(n)]
    add("reviews", 1)
    for epsilon in EPSILONS:
        add(f"sinks{epsilon}", float(max(received) > epsilon))
    for key, value in enumerate(received):
        add(f"sink_kind{CLASS_OF[ids[key]]}", float(value > SINK_EPSILON))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "distilbert"])
def test_batches_with_padding_give_what_the_reference_gives_review_by_review(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = TextClassifier(tiny_encoder(kind), classes=2).double().eval(), random_reviews()
    for parameter in model.encoder.parameters():
        parameter.data *= 5
    monkeypatch.setattr(review_batches, "TOKENS_PER_BATCH", 5 * 24)
    sums, _ = measured(model, tokens, np.arange(len(tokens)), CLASS_OF)
    windows = [part.window for part in sums]
    assert (kind == "modernbert") == any(window is not None for window in windows)
    slow = reference(model, tokens, windows)
    heads = [head for layer, part in enumerate(sums) for head in part.measures(layer)]
    assert {(head["layer"], head["head"]) for head in heads} == set(slow)
    for head in heads:
        s = slow[head["layer"], head["head"]]
        assert head["entropy"] == pytest.approx(s["entropy"] / s["several"], rel=1e-4)
        assert head["distance"] == pytest.approx(s["distance"] / s["queries"], rel=1e-4)
        assert head["even_distance"] == pytest.approx(s["even_distance"] / s["queries"], rel=1e-4)
        assert head["largest_lift"] == pytest.approx(s["largest"] / s["queries"], rel=1e-4)
        assert list(head["mass"].values()) == pytest.approx([s[f"kind{n}"] / s["queries"] for n in range(K)], rel=1e-3)
        lifts = [s[f"kind{n}"] / s[f"even{n}"] for n in range(K)]
        assert list(head["lift"].values()) == pytest.approx(lifts, rel=1e-3)
        rates = [s.get(f"sinks{epsilon}", 0) / s["reviews"] for epsilon in EPSILONS]
        assert list(head["sink_rates"].values()) == pytest.approx(rates)
        sinks = [s.get(f"sink_kind{n}", 0) for n in range(K)]
        shares = None if not sum(sinks) else [value / sum(sinks) for value in sinks]
        assert (head["sink_classes"] and list(head["sink_classes"].values())) == pytest.approx(shares)


def test_rollout_is_that_of_each_review_alone() -> None:
    model, tokens = TextClassifier(tiny_encoder("bert"), classes=2).eval(), random_reviews(6)
    _, rolled = measured(model, tokens, np.arange(6), CLASS_OF)
    mass, even = np.zeros(K), np.zeros(K)
    for row in range(6):
        ids = tokens.input_ids[row, : tokens.length[row]].astype(np.int64)
        shares = pooled_rollout(attention_maps(model, torch.from_numpy(ids))[0])
        for token, share in zip(ids, shares, strict=True):
            mass[CLASS_OF[token]] += share
            even[CLASS_OF[token]] += 1 / len(ids)
    assert list(rolled.lift().values()) == pytest.approx(mass / even, rel=1e-4)


def test_fewer_reviews_than_asked_are_all_measured_and_the_draw_is_one(small_study, tmp_path: Path) -> None:
    there = load_tokens(small_study.tokens("bert") / "test.arrow")
    model = TextClassifier(tiny_encoder("bert", vocab_size=there.vocabulary_size), classes=2)
    save_checkpoint(tmp_path / "best.safetensors", model, {"epoch": 1, "validation_accuracy": 0.5})
    spec = AttentionMeasuresSpec(reviews=1000, ablation_reviews=1000)
    measure_attention(spec, small_study.tokens("bert"), tmp_path / "best.safetensors", tmp_path / "heads.json", "cpu")
    found = read_json(tmp_path / "heads.json")
    assert (found["asked"], found["reviews"]) == (1000, len(there)) and len(found["heads"]) == 4
    assert "reason" not in found
    assert list(drawn_reviews(5, 9)) == [0, 1, 2, 3, 4]
    assert set(drawn_reviews(50, 10)) < set(drawn_reviews(50, 20))


def test_an_encoder_without_attention_gives_a_sentence(small_study, tmp_path: Path) -> None:
    there = load_tokens(small_study.tokens("bert") / "test.arrow")
    model = TextClassifier(tiny_encoder("fnet", vocab_size=there.vocabulary_size), classes=2)
    save_checkpoint(tmp_path / "best.safetensors", model, {"epoch": 1, "validation_accuracy": 0.5})
    folder = small_study.tokens("bert")
    measure_attention(
        AttentionMeasuresSpec(reviews=5, ablation_reviews=5),
        folder,
        tmp_path / "best.safetensors",
        tmp_path / "h",
        "cpu",
    )
    found = read_json(tmp_path / "h")
    assert found["heads"] == [] and found["reason"].startswith("no attention maps: the fnet encoder")

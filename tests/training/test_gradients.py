"""The gradient of every window equals that of its examples as one batch, in float64, for both architectures."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import load_tokens
from batchscope.model.classifier import build_model
from batchscope.training.accumulate import accumulate_window
from batchscope.training.microbatch import DeviceTokens, micro_step
from batchscope.training.spec import BudgetSpec
from batchscope.training.windows import epoch_order, loss_scale, micro_batches, windows

TARGET, PHYSICAL = 40, 6  # 184 examples: four full windows with a ragged last micro-batch of 4, and a tail of 24


def accumulate(model, pieces, observe=None):
    return accumulate_window(model, pieces, lambda piece: micro_step(model, piece, contextlib.nullcontext()), observe)


def prepared(small_study, architecture, seed=0):
    tokens = load_tokens(small_study.tokens(architecture) / "train.arrow")
    spec = small_study.spec(architecture).model
    model = build_model(spec, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, seed)
    return model.double().eval(), DeviceTokens(tokens, torch.device("cpu")), len(tokens.label)


def gradient(model):
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return flat


def reference_gradient(model, data, rows):
    batch = data.micro_batch(rows, 1.0)
    cross_entropy(model(batch.input_ids, batch.attention_mask), batch.label, reduction="mean").backward()
    return gradient(model)


def window_gradient(model, data, order, window, tail, physical=PHYSICAL):
    pieces = (
        data.micro_batch(order[start:stop], loss_scale(window, stop - start, TARGET, tail, physical))
        for start, stop in micro_batches(window, physical)
    )
    sums = accumulate(model, pieces)
    return gradient(model), sums


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_every_window_has_the_gradient_of_its_full_batch(small_study, architecture):
    model, data, examples = prepared(small_study, architecture)
    order = torch.from_numpy(epoch_order(examples, 0, 1))
    plan = list(windows(examples, TARGET, BudgetSpec(epochs=1)))
    assert [w.examples for w in plan] == [40, 40, 40, 40, 24]
    for window in plan:
        found, _ = window_gradient(model, data, order, window, "exact")
        expected = reference_gradient(model, data, order[window.start : window.stop])
        assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_dividing_by_the_accumulation_steps_makes_the_tail_too_small(small_study, architecture):
    """The reference study's mistake: the test above would see it in a tail window and in a ragged micro-batch."""
    model, data, examples = prepared(small_study, architecture)
    order = torch.from_numpy(epoch_order(examples, 0, 1))
    full, *_, tail = windows(examples, TARGET, BudgetSpec(epochs=1))
    naive, _ = window_gradient(model, data, order, tail, "naive")
    expected = reference_gradient(model, data, order[tail.start : tail.stop])
    torch.testing.assert_close(naive, expected * 4 / 7, rtol=1e-9, atol=1e-12)  # 4 of 7 micro-batches of 6
    ragged, _ = window_gradient(model, data, order, full, "naive")
    expected = reference_gradient(model, data, order[full.start : full.stop])
    assert (ragged - expected).abs().max() > 1e-3 * expected.abs().max()


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.data(), architecture=st.sampled_from(["bert", "modernbert"]))
def test_no_window_differs_from_its_full_batch_beyond_float32_rounding(small_study, data, architecture):
    """Any number of examples, target batch and micro-batch; each time one window of the first two epochs."""
    model, tokens, available = prepared(small_study, architecture)
    model.float()
    examples = data.draw(st.integers(1, 90), "examples")
    target = data.draw(st.integers(1, examples), "target batch size")
    physical = data.draw(st.integers(1, 40), "physical batch size")
    window = data.draw(st.sampled_from(list(windows(examples, target, BudgetSpec(epochs=2)))), "window")
    order = torch.from_numpy(epoch_order(examples, 0, window.epoch) + data.draw(st.integers(0, available - examples)))
    pieces = [
        tokens.micro_batch(order[a:b], loss_scale(window, b - a, target, "exact"))
        for a, b in micro_batches(window, physical)
    ]
    accumulate(model, pieces)
    found = gradient(model)
    expected = reference_gradient(model, tokens, order[window.start : window.stop])
    # The gradients of single examples nearly cancel, so rounding is measured against their size, not the sum's.
    rows = order[window.start : window.stop][:8]
    scale = max(reference_gradient(model, tokens, row[None]).abs().max() for row in rows)
    assert (found - expected).abs().max() <= 2e-6 * scale


def test_sums_of_a_window_are_those_of_its_examples(small_study):
    model, data, examples = prepared(small_study, "bert")
    order = torch.from_numpy(epoch_order(examples, 0, 1))
    window = list(windows(examples, TARGET, BudgetSpec(epochs=1)))[-1]
    _, sums = window_gradient(model, data, order, window, "exact")
    batch = data.micro_batch(order[window.start : window.stop], 1.0)
    logits = model(batch.input_ids, batch.attention_mask)
    assert float(sums.loss) == pytest.approx(cross_entropy(logits, batch.label, reduction="sum").item(), rel=1e-12)
    assert int(sums.correct) == int((logits.argmax(1) == batch.label).sum())


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_padding_does_not_reach_the_logits(small_study, architecture):
    model, data, _ = prepared(small_study, architecture)
    width = data.columns[0].shape[1]
    length = torch.tensor([5, 9, 17, width])
    mask = torch.arange(width) < length[:, None]
    ids = data.columns[0][:4]
    expected = model(ids, mask)
    torch.testing.assert_close(model(torch.where(mask, ids, 7), mask), expected, rtol=0, atol=1e-12)
    for row in range(4):
        alone = model(ids[row : row + 1, : length[row]], mask[row : row + 1, : length[row]])
        torch.testing.assert_close(alone[0], expected[row], rtol=0, atol=1e-6)

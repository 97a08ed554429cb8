"""The fast ways of doing things equal the slow, obvious ones."""

import contextlib
import math

import numpy as np
import pytest
import torch
from small import train_settings
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModel

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.hardware.device import autocast
from batchscope.model import cpu_kernels as cpu
from batchscope.model.classifier import MASKS_READY_MADE, TextClassifier, attention_masks, build_model
from batchscope.model.cpu_kernels import (
    LONGEST,
    CpuDropout,
    CpuEmbedding,
    cpu_attention,
    draw_kept,
    use_cpu_kernels,
)
from batchscope.provenance.fingerprint import file_hash
from batchscope.training import loop
from batchscope.training.accumulate import ManualEngine
from batchscope.training.cuda_graph import StaticMicroStep
from batchscope.training.gradients import compare, flat_gradient
from batchscope.training.loop import train
from batchscope.training.microbatch import DeviceTokens, micro_step
from batchscope.training.readback import Guard
from batchscope.training.windows import epoch_order

CPU = torch.device("cpu")
SETTINGS = train_settings(save_every=1e9)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
FILES = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")


# ------------------------------------------------------------------------------------------ dropout and attention


@pytest.mark.parametrize("p", [0.1, 0.5, 0.003])
def test_a_share_p_is_dropped_and_the_expectation_stays(p):
    torch.manual_seed(0)
    kept, factor = draw_kept(torch.Size([101, 9901]), p, torch.float32)
    count = kept.numel()
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(float(1 - kept.mean(dtype=torch.float64)) - p) < 4 * math.sqrt(p * (1 - p) / count) + 2**-17
    assert factor * (1 - round(p * 65536) / 65536) == pytest.approx(1, abs=1e-15)


def test_draws_are_independent_of_their_neighbours_and_a_function_of_the_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(draw_kept(torch.Size([200_001]), 0.5, torch.float32)[0])
    assert torch.equal(*draws)
    signs = draws[0] * 2 - 1
    for lag in (1, 2, 3, 4, 8):  # four elements share one draw
        assert abs(float((signs[lag:] * signs[:-lag]).mean())) < 4 / math.sqrt(len(signs))


def test_dropout_passes_the_gradient_where_it_passed_the_value():
    layer, x = CpuDropout(0.3), torch.randn(50, 40, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert 0 < int((y == 0).sum()) < y.numel()
    assert torch.equal(layer.eval()(x), x)


def reference_attention(query, key, value, mask, kept, factor):
    """Softmax attention with a given dropout, one query at a time."""
    output = torch.zeros_like(query)
    for n, head, i in np.ndindex(*query.shape[:3]):
        scores = torch.stack([query[n, head, i] @ k for k in key[n, head]]) / math.sqrt(query.shape[-1])
        scores = torch.where(mask[n, 0, i], scores, -torch.inf)
        weights = torch.exp(scores - scores.max())
        weights = weights / weights.sum() * kept[n, head, i] * factor
        output[n, head, i] = weights @ value[n, head]
    return output.transpose(1, 2)


def test_attention_with_dropout_is_attention_with_that_mask():
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, :, :, 5:] = False
    torch.manual_seed(2)
    found, _ = cpu_attention(nn.Module(), query, key, value, mask, dropout=0.3, scaling=0.5)
    torch.manual_seed(2)
    expected = reference_attention(query, key, value, mask, *draw_kept(torch.Size([2, 3, 7, 7]), 0.3, torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * upstream).sum(), (query, key, value)) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_attention_without_dropout_is_pytorchs():
    query, key, value = (torch.randn(2, 3, 7, 4) for _ in range(3))
    encoder = nn.Module()
    encoder.is_causal = False
    found, _ = cpu_attention(encoder, query, key, value, None, scaling=0.5)
    torch.testing.assert_close(found.transpose(1, 2), scaled_dot_product_attention(query, key, value, scale=0.5))


def test_an_unpadded_batch_of_an_encoder_without_a_mask_is_dropped_our_way(monkeypatch):
    monkeypatch.setattr(cpu, "sdpa_attention_forward", lambda *_, **__: pytest.fail("PyTorch's own draw"))
    *inputs, mask = made_up_attention(7, torch.float32, requires_grad=False)
    encoder = nn.Module()
    encoder.is_causal = False
    found = []
    for given in (None, torch.ones_like(mask)):
        torch.manual_seed(2)
        found.append(cpu_attention(encoder, *inputs, given, dropout=0.3)[0])
    torch.testing.assert_close(*found)


def made_up_attention(length: int, dtype: torch.dtype, requires_grad: bool) -> tuple[torch.Tensor, ...]:
    """Query, key, value and a mask that hides the last two positions of one review."""
    torch.manual_seed(1)
    shape = (2, 3, length, 8)
    query, key, value = (torch.randn(shape).to(dtype).requires_grad_(requires_grad) for _ in range(3))
    mask = torch.ones(2, 1, length, length, dtype=torch.bool)
    mask[1, :, :, -2:] = False
    return query, key, value, mask


def test_attention_without_dropout_in_bfloat16_is_attention(monkeypatch):
    monkeypatch.setattr(cpu, "sdpa_attention_forward", lambda *_, **__: pytest.fail("the fused kernel"))
    *inputs, mask = made_up_attention(7, torch.bfloat16, requires_grad=True)
    found, _ = cpu_attention(nn.Module(), *inputs, mask)
    doubles = [column.detach().double().requires_grad_() for column in inputs]
    expected = reference_attention(*doubles, mask, torch.ones(2, 3, 7, 7, dtype=torch.float64), 1.0)
    upstream = torch.randn_like(found)
    results = [
        [y, *torch.autograd.grad((y * upstream).sum(), into)] for y, into in ((found, inputs), (expected, doubles))
    ]
    for ours, theirs in zip(*results, strict=True):
        assert float(((ours - theirs).norm() / theirs.norm()).detach()) < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    ("length", "dtype", "requires_grad"),
    [(7, torch.float32, True), (7, torch.bfloat16, False), (LONGEST + 1, torch.bfloat16, True)],
)
def test_attention_is_pytorchs_where_that_is_as_fast_or_takes_less_memory(length, dtype, requires_grad):
    query, key, value, mask = made_up_attention(length, dtype, requires_grad)
    found, _ = cpu_attention(nn.Module(), query, key, value, mask)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.equal(found.transpose(1, 2), expected)


@pytest.mark.parametrize("as_mask", [True, False])
def test_numbers_to_add_to_the_scores_are_added(as_mask):
    *inputs, mask = made_up_attention(7, torch.float32, requires_grad=False)
    bias = torch.randn(mask.shape)
    given, more = (bias, {}) if as_mask else (mask, {"position_bias": bias})
    found, _ = cpu_attention(nn.Module(), *inputs, given, dropout=1e-12, **more)
    added = bias if as_mask else bias.masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(found.transpose(1, 2), scaled_dot_product_attention(*inputs, attn_mask=added))


@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "eurobert"])
@pytest.mark.parametrize("p", [0.0, 1e-12])
def test_causal_and_grouped_attention_stays_what_it_is(kind, p):
    heads = {"num_attention_heads": 4} | ({} if kind == "gpt_neox" else {"num_key_value_heads": 2})
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "mask_token_id": 1}
    shape = SIZES | heads | special | {"attention_dropout": p, "hidden_dropout": 0.0}
    torch.manual_seed(0)
    model = TextClassifier(AutoModel.from_config(AutoConfig.for_model(kind, **shape)), 2)
    ids, unpadded = torch.randint(3, 50, (4, 30)), torch.ones(4, 30, dtype=torch.bool)
    expected = model.eval()(ids, unpadded)
    use_cpu_kernels(model.encoder)
    torch.testing.assert_close(model.train()(ids, unpadded), expected, rtol=1e-5, atol=1e-6)
    with autocast(CPU, torch.bfloat16):
        torch.testing.assert_close(model(ids, unpadded), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_an_encoder_drops_our_way_while_training_and_nothing_otherwise(small_study, architecture, monkeypatch):
    tokens = load_tokens(small_study.tokens(architecture) / "train.arrow")
    spec = small_study.spec(architecture)
    model = build_model(spec.model, 2, tokens.vocabulary_size, tokens.pad_token_id, 0)
    batch = DeviceTokens(tokens, CPU).micro_batch(torch.arange(5), 1.0)
    before = model.eval()(batch.input_ids, batch.attention_mask)
    drawn = []
    monkeypatch.setattr(cpu, "draw_kept", lambda *a: drawn.append(a) or draw_kept(*a))
    monkeypatch.setattr(torch.Tensor, "bernoulli_", lambda *_: pytest.fail("PyTorch's own draw"))
    use_cpu_kernels(model.encoder)
    assert torch.equal(model.eval()(batch.input_ids, batch.attention_mask), before)
    assert not drawn
    after = model.train()(batch.input_ids, batch.attention_mask)
    assert drawn and not torch.equal(after, before)
    assert "batchscope" not in str(model.config.to_dict())


def test_a_kept_element_in_bfloat16_is_divided_and_rounded_once():
    torch.manual_seed(0)
    inputs = torch.linspace(0.5, 3, 4096).to(torch.bfloat16)
    outputs = CpuDropout(0.1).train()(inputs)
    kept = outputs != 0
    exact = inputs.double() / (1 - round(0.1 * 65536) / 65536)
    assert 0.85 < kept.double().mean() < 0.95
    assert torch.equal(outputs[kept], exact.to(torch.bfloat16)[kept])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [None, 0])
def test_an_embedding_s_gradient_is_pytorchs_bit_for_bit(padding, dtype):
    torch.manual_seed(0)
    ours = CpuEmbedding(2000, 24, padding_idx=padding, dtype=dtype)
    theirs = nn.Embedding(2000, 24, padding_idx=padding, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):  # ``.grad`` is new in the first, and added to in the others
        ids, upstream = torch.randint(0, 40, (8, 30)), torch.randn(8, 30, 24, dtype=dtype)
        outputs = [table(ids) for table in (ours, theirs)]
        assert torch.equal(*outputs)
        for output in outputs:
            output.backward(upstream)
        assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert bool(ours.weight.grad[0].any()) == (padding is None)
    ours.weight.requires_grad_(False)
    assert not ours(ids).requires_grad


def test_an_embedding_counts_its_rows_and_not_the_whole_table(monkeypatch):
    """What it costs: no tensor of the table's size is made after the first micro-batch."""
    shapes, make = [], torch.ops.aten.embedding_dense_backward
    monkeypatch.setattr(
        cpu.torch.ops.aten, "embedding_dense_backward", lambda *a: shapes.append(a[2]) or make(*a), raising=False
    )
    table = CpuEmbedding(2000, 24)
    table(torch.tensor([3, 5, 3, 1999])).sum().backward()
    assert shapes == [3]
    assert torch.equal(table.weight.grad.sum(1).nonzero().flatten(), torch.tensor([3, 5, 1999]))
    assert float(table.weight.grad[3, 0]) == 2


# --------------------------------------------------------------------------------------------------------- masks

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 50,
    "pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 3, "embedding_size": 32,
    "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize("model_type", MASKS_READY_MADE)
def test_masks_made_here_are_those_of_transformers(model_type):
    torch.manual_seed(0)
    special = {"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
    config = AutoConfig.for_model(model_type, **SIZES, **(special if model_type == "modernbert" else {}))
    model = TextClassifier(AutoModel.from_config(config), 2).eval()
    ids = torch.randint(3, 50, (4, 30))
    mask = torch.arange(30) < torch.tensor([3, 12, 29, 30])[:, None]
    ids[~mask] = 0
    assert attention_masks(model.encoder.config, mask) is not mask
    with torch.no_grad():
        theirs = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask]
        ours = model.encoder(input_ids=ids, attention_mask=attention_masks(config, mask)).last_hidden_state[mask]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(model(ids, mask)).all()


# ---------------------------------------------------------------------------------------------------- micro-step


def prepared(small_study, architecture, device=CPU):
    tokens = load_tokens(small_study.tokens(architecture) / "train.arrow")
    spec = small_study.spec(architecture)
    model = build_model(spec.model, 2, tokens.vocabulary_size, tokens.pad_token_id, 0).to(device).train()
    return model, DeviceTokens(tokens, device), len(tokens)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_a_step_in_place_is_the_step(small_study, architecture):
    """What a CUDA graph records, run without one: tensors that stay, other examples in them."""
    model, data, examples = prepared(small_study, architecture)
    order = data.order(epoch_order(examples, 0, 1))
    batches = [data.micro_batch(order[start : start + 6], 1 / 18) for start in (0, 6, 12)]
    static, found = StaticMicroStep(model, data.micro_batch(order[90:96], 0.5), contextlib.nullcontext()), []
    for step in (lambda batch: micro_step(model, batch, contextlib.nullcontext()), static):
        torch.manual_seed(3)
        sums = [[float(value) for value in step(batch)] for batch in batches]
        found.append((sums, gradients(model)))
        for parameter in model.parameters():
            parameter.grad = None
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
    assert static.fits(batches[0]) and not static.fits(data.micro_batch(order[:5], 1.0))


def test_a_step_in_place_scales_in_float64(small_study):
    """A window of 18 examples: 1/18 in float32 would be off by 1e-8, which the certificate in float64 would report."""
    model, data, examples = prepared(small_study, "bert")
    model.double().eval()
    batch = data.micro_batch(data.order(epoch_order(examples, 0, 1))[:6], 1 / 18)
    static, found = StaticMicroStep(model, batch._replace(scale=0.5), contextlib.nullcontext()), []
    for step in (lambda batch: micro_step(model, batch, contextlib.nullcontext()), static):
        step(batch)
        found.append(flat_gradient(model))
        model.zero_grad()
    assert compare(found[1], found[0])["relative_l2"] < 1e-14


def train_in(folder, spec, tokens, **keywords):
    train(spec, "code", SETTINGS, tokens, folder / "run", folder / "state", **keywords)
    return {name: file_hash(folder / "run" / name) for name in FILES}


@pytest.mark.parametrize("noise_scale", ["off", "full"])
def test_reading_an_update_late_changes_nothing(small_study, tmp_path, monkeypatch, noise_scale):
    spec, tokens = small_study.spec("bert", noise_scale=noise_scale), small_study.tokens("bert")
    at_once = train_in(tmp_path / "at once", spec, tokens)
    monkeypatch.setattr(loop, "updates_ahead", lambda device: 1)
    assert train_in(tmp_path / "late", spec, tokens) == at_once


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_weights_stay_those_before_the_update_that_failed(small_study, tmp_path, monkeypatch, ahead):
    """Even where the host learns of it when later updates are under way."""
    spec = small_study.spec("bert", budget={"updates": 10})
    tokens, states = small_study.tokens("bert"), []
    accumulate = ManualEngine.accumulate
    calls = []

    def poisoned(self, batches, context):
        calls.append(1)
        states.append([parameter.detach().clone() for parameter in self.model.parameters()])
        sums = accumulate(self, batches, context)
        return sums._replace(loss=sums.loss * torch.nan) if len(calls) == 5 else sums

    monkeypatch.setattr(ManualEngine, "accumulate", poisoned)
    monkeypatch.setattr(loop, "updates_ahead", lambda device: ahead)
    with pytest.raises(UserError, match="the loss became nan in update 5"):
        train_in(tmp_path, spec, tokens)
    assert len(calls) == 5 + ahead
    (state,) = tmp_path.glob("state/*/state-*.pt")
    saved = torch.load(state, weights_only=True)
    assert saved["ledger"]["update"] == 4
    names = [name for name, _ in build_model(spec.model, 2, 300, 0, 0).named_parameters()]
    assert all(torch.equal(saved["model"][name], value) for name, value in zip(names, states[4], strict=True))


def test_the_guarded_fused_optimizer_is_adam():
    torch.manual_seed(0)
    start = torch.randn(40, 3)
    values, gradients = [], [torch.randn(40, 3) for _ in range(20)]
    for fused in (True, False):
        parameter = nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([parameter], lr=1e-2, weight_decay=0.1, fused=fused)
        guard = Guard(optimizer, CPU) if fused else None
        for gradient in gradients:
            parameter.grad = gradient.clone()
            if guard:
                guard.watch(gradient.sum(), gradient.norm())
            optimizer.step()
        values.append(parameter.detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)


def test_the_trial_is_recorded(small_study, tmp_path):
    settings = train_settings(physical_batch_size="auto")
    train(small_study.spec("bert"), "code", settings, small_study.tokens("bert"), tmp_path / "run", tmp_path / "state")
    facts = read_json(tmp_path / "run/train.json")
    assert facts["trial"]["micro_step"] == "eager"
    rates = facts["trial"]["samples_per_second"]
    assert set(rates) == {"8", "16"} and all(rate > 0 for rate in rates.values())

"""The rehearsal finds what would fail in the first minute, or after the first epoch, and leaves the model as it was."""

import dataclasses
import logging

import pytest
import torch
from encoders import tiny_encoder
from safetensors import SafetensorError
from torch import nn

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.model import checkpoint as checkpoints
from batchscope.model.check import check_model
from batchscope.model.classifier import TextClassifier


@pytest.fixture(scope="module")
def tokens(small_study):
    return load_tokens(small_study.tokens("bert") / "train.arrow")


def classifier(kind="bert", **changes):
    torch.manual_seed(0)
    return TextClassifier(tiny_encoder(kind, vocab_size=300, **changes), classes=2)


def test_a_sound_model_passes_and_is_left_as_it_was(tokens, tmp_path):
    model = classifier().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    check_model(model, tokens, tmp_path)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not list(tmp_path.iterdir())


def test_too_few_positions_are_named_with_the_key(tokens):
    with pytest.raises(UserError, match=r"forward pass fails with data\.max_length: 32 .*max_position_embeddings: 16"):
        check_model(classifier(max_position_embeddings=16), tokens)


def test_another_output_than_one_vector_per_token_is_refused(tokens):
    model = classifier()
    model.encoder.forward = lambda input_ids, attention_mask: (torch.zeros(len(input_ids), 4, 16),)
    with pytest.raises(UserError, match=r"its output is \(2, 4, 16\), not one vector per token, \(2, 32, 16\)"):
        check_model(model, tokens)


def test_an_encoder_that_needs_more_than_token_ids_is_one_message(tokens):
    model = classifier()

    def forward(input_ids, attention_mask, pixel_values):
        raise AssertionError

    model.encoder.forward = forward
    with pytest.raises(
        UserError, match=r"the bert encoder cannot be trained here: its forward pass fails: .*pixel_values"
    ):
        check_model(model, tokens)


@pytest.mark.parametrize(("part", "row"), [("LayerNorm", 3), ("position_embeddings", -1)])
def test_weights_that_are_not_finite_are_found(tokens, part, row):
    """Also that of a position that the rehearsed reviews do not reach."""
    model = classifier()
    with torch.no_grad():
        getattr(model.encoder.embeddings, part).weight[row] = torch.nan
    with pytest.raises(UserError, match=rf"encoder\.embeddings\.{part}\.weight has values that are not finite"):
        check_model(model, tokens)


def test_an_output_that_is_not_finite_is_found(tokens):
    with pytest.raises(UserError, match="its output is not finite"):
        check_model(classifier(layer_norm_eps=-1.0), tokens)


@pytest.mark.parametrize("changes", [{}, {"hidden_dropout_prob": 1.0}])
def test_an_output_that_no_token_changes_is_found(tokens, changes):
    """Weights that are all zero, as some interrupted conversions leave them, or a dropout of everything."""
    model = classifier(**changes).train()
    if not changes:
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter.zero_()
    with pytest.raises(UserError, match="its output is the same for every token"):
        check_model(model, tokens)


def test_an_encoder_without_a_gradient_is_found(tokens):
    model = classifier()
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match="no gradient reaches its weights"):
        check_model(model, tokens)


def test_a_weight_that_is_a_view_cannot_be_saved_and_is_found(tokens, tmp_path):
    model = classifier()
    attention = model.encoder.encoder.layer[0].attention.self
    both = torch.randn(32, 16)
    attention.query.weight, attention.key.weight = nn.Parameter(both[:16]), nn.Parameter(both[16:])
    with pytest.raises(UserError, match="it cannot be saved"):
        check_model(model, tokens, tmp_path)


def test_a_state_that_is_not_saved_is_found(tokens, tmp_path):
    model = classifier()
    model.encoder.embeddings.register_buffer("extra", torch.ones(16), persistent=False)
    whole = model.encoder.forward
    model.encoder.forward = lambda **inputs: (whole(**inputs)[0] + model.encoder.embeddings.extra,)
    with pytest.raises(UserError, match="computes other logits from the same weights"):
        check_model(model, tokens, tmp_path)


def test_an_encoder_that_reads_the_padding_is_warned_of(tokens, caplog):
    shorter = tokens.length.copy()
    shorter[7] = 5
    tokens = dataclasses.replace(tokens, length=shorter)
    with caplog.at_level(logging.WARNING):
        check_model(classifier("fnet"), tokens)
        assert "depends on the padding after a review" in caplog.text
        caplog.clear()
        check_model(classifier("bert"), tokens)
        assert not caplog.text


def test_a_full_disk_is_an_error_with_the_path(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_model", full)
    with pytest.raises(UserError, match=r"is full.*best\.safetensors"):
        checkpoints.save_checkpoint(tmp_path / "best.safetensors", classifier(), {"epoch": 1, "update": 1})

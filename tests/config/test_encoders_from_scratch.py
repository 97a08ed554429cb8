"""An encoder from scratch that cannot be built is refused before anything starts; one that can be is not."""

import pytest
from transformers import AutoConfig, AutoModel
from transformers.activations import ACT2FN

from batchscope.config.architectures import ACTIVATION, ACTIVATIONS, DEFAULTS, DROPOUTS, mistakes

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def keys(architecture: str, max_length: int = 12, **config: object) -> list[str]:
    return [key for key, _ in mistakes(architecture, SMALL | config, max_length)]


def test_the_activations_are_those_of_transformers() -> None:
    assert sorted(ACT2FN) == sorted(ACTIVATIONS)


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_the_sizes_and_their_defaults_are_those_of_transformers(architecture: str) -> None:
    known = AutoConfig.for_model(architecture)
    for key, value in DEFAULTS[architecture].items():
        if key != "global_attn_every_n_layers":  # transformers turns it into a list of layers
            assert getattr(known, key) == value, key
    assert all(hasattr(known, key) for key in (*DROPOUTS[architecture], ACTIVATION[architecture]))


@pytest.mark.parametrize("architecture", DEFAULTS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 3),
        ("num_attention_heads", 0),
        ("hidden_size", "sixteen"),
        ("hidden_size", 16.5),
        ("num_hidden_layers", True),
        ("num_hidden_layers", 10**9),
        ("max_position_embeddings", 8),
        ("vocab_size", 100),
        ("is_decoder", True),
    ],
)
def test_what_cannot_work_is_named(architecture: str, key: str, value: object) -> None:
    assert keys(architecture, **{key: value}) == [key]


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_activation_and_dropout(architecture: str) -> None:
    assert keys(architecture, **{ACTIVATION[architecture]: "swish2"}) == [ACTIVATION[architecture]]
    assert keys(architecture, **{DROPOUTS[architecture][0]: 1.5}) == [DROPOUTS[architecture][0]]


def test_rotary_positions_need_an_even_head() -> None:
    assert keys("modernbert", hidden_size=18, num_attention_heads=2) == ["num_attention_heads"]
    assert keys("bert", hidden_size=18, num_attention_heads=2) == []


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_what_is_let_through_can_be_built(architecture: str) -> None:
    for config in ({}, {"hidden_size": 24, "num_attention_heads": 6}, {ACTIVATION[architecture]: "relu"}):
        assert keys(architecture, **config) == []
        AutoModel.from_config(AutoConfig.for_model(architecture, vocab_size=64, pad_token_id=0, **SMALL | config))

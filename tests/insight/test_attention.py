"""Attention is reduced layer by layer; a slow reference that keeps every head agrees, and memory does not grow."""

import json
import sys
import weakref
import zipfile

import numpy as np
import pytest
import torch
from memory_peak import measured
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    FNetConfig,
    LongformerConfig,
    ModernBertConfig,
    SqueezeBertConfig,
)

from batchscope.errors import UserError
from batchscope.files import read_json, write_json
from batchscope.insight.attention import attend
from batchscope.insight.spec import AttentionSpec
from batchscope.insight.weights import attention_maps, why_no_attention
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier
from batchscope.provenance.fingerprint import file_hash

SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "pad_token_id": 0}
SPECIAL = {"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "modernbert": ModernBertConfig(**SIZES, **SPECIAL, local_attention=8),
    "deberta": DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]),
}


def classifier(config):
    torch.manual_seed(0)
    return TextClassifier(AutoModel.from_config(config), classes=3).eval()


def reference_maps(model, input_ids):
    """All weights of all heads at once, as transformers gives them; the probabilities from a pass of their own."""
    ids = input_ids[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    model.encoder.set_attn_implementation("eager")
    with torch.no_grad():
        output = model.encoder(input_ids=ids, attention_mask=mask, output_attentions=True)
        return torch.cat(output.attentions).mean(1).numpy(), model(ids, mask).softmax(1)[0].numpy()


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_maps_equal_those_of_all_heads_kept(architecture, tokens):
    ids = torch.randint(5, 300, (tokens,), generator=torch.Generator().manual_seed(1))
    weights, probabilities = attention_maps(classifier(CONFIGS[architecture]), ids)
    expected_weights, expected_probabilities = reference_maps(classifier(CONFIGS[architecture]), ids)
    assert weights.shape == (3, tokens, tokens)
    np.testing.assert_array_equal(weights, expected_weights)
    np.testing.assert_array_equal(probabilities, expected_probabilities)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_layer_s_weights_by_head_are_gone_before_the_next_has_its_own(architecture):
    model = classifier(CONFIGS[architecture])
    seen = []

    def watch(module, arguments, output):
        if isinstance(output, tuple) and output[1] is not None:
            assert [weights() for weights in seen] == [None] * len(seen)
            seen.append(weakref.ref(output[1]))

    for module in model.encoder.modules():
        if "Attention" in type(module).__name__:
            module.register_forward_hook(watch)
    attention_maps(model, torch.arange(5, 25))
    assert len(seen) == 3


WITHOUT_MAPS = {
    "fnet": FNetConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, intermediate_size=48),
    "longformer": LongformerConfig(**SIZES, attention_window=[8, 8, 8]),
    "squeezebert": SqueezeBertConfig(**SIZES, embedding_size=32),
}


@pytest.mark.parametrize("architecture", WITHOUT_MAPS)
def test_an_encoder_without_full_maps_says_so(architecture):
    model = classifier(WITHOUT_MAPS[architecture])
    with pytest.raises(UserError, match=f"no attention maps: the {architecture} encoder"):
        attention_maps(model, torch.arange(5, 25))
    assert why_no_attention(model, np.arange(5, 25)).startswith(f"no attention maps: the {architecture} encoder")


def test_maps_of_one_layer_out_of_two_are_not_taken_for_all():
    model = classifier(CONFIGS["bert"])
    model.config.num_hidden_layers = 4
    assert "weights of 3 of its 4 layers" in why_no_attention(model, np.arange(5, 25))


def test_an_encoder_that_fails_with_attention_weights_says_so():
    model = classifier(CONFIGS["bert"])
    model.encoder.set_attn_implementation = lambda *_: 1 / 0
    assert "cannot compute its attention weights (division by zero)" in why_no_attention(model, np.arange(5, 25))


def test_an_encoder_with_maps_has_no_reason_against_them():
    model = classifier(CONFIGS["modernbert"]).train()
    assert why_no_attention(model, np.arange(5, 25)) is None
    assert model.training


def test_attention_is_skipped_with_a_sentence(small_study, tmp_path):
    save_checkpoint(tmp_path / "best.safetensors", classifier(WITHOUT_MAPS["longformer"]), {"epoch": 1, "update": 1})
    reviews = [{"name": name, "title": "t", "text": "a film", "label": None} for name in ("one", "two")]
    write_json(tmp_path / "reviews.json", {"reviews": reviews})
    spec = AttentionSpec(max_length=32, truncation="head")
    paths = (tmp_path / "reviews.json", tmp_path / "best.safetensors", tmp_path)
    attend(spec, small_study.tokens("bert"), *paths, "cpu")
    measures = read_json(tmp_path / "attention/measures.json")
    assert measures["reason"].startswith("no attention maps: the longformer encoder")
    assert [(review["name"], review["layers"]) for review in measures["reviews"]] == [("one", []), ("two", [])]
    assert all(0 < review["probability"] <= 1 for review in measures["reviews"])
    with np.load(tmp_path / "attention/attention.npz") as maps:
        assert not list(maps)


def test_the_model_is_left_as_it_was():
    model = classifier(CONFIGS["modernbert"])
    before = model.config._attn_implementation
    twice = [attention_maps(model, torch.arange(5, 25)) for _ in range(2)]
    assert (model.config._attn_implementation, model.config.output_attentions) == (before, False)
    np.testing.assert_array_equal(twice[0][0], twice[1][0])


@pytest.fixture
def many_reviews(small_study, tmp_path):
    """Writes a checkpoint and as many reviews as asked for; returns the arguments of ``attend``."""

    def write(count, folder="out"):
        model = classifier(CONFIGS["modernbert"])
        save_checkpoint(tmp_path / "best.safetensors", model, {"epoch": 1, "update": 1})
        text = "a film that one has seen before and would see again " * 60
        reviews = [{"name": f"text{n}", "title": "t", "text": f"{n} {text}", "label": None} for n in range(count)]
        write_json(tmp_path / f"{count}.json", {"reviews": reviews})
        spec = AttentionSpec(max_length=512, truncation="head")
        tokens = small_study.tokens("modernbert")
        return spec, tokens, tmp_path / f"{count}.json", tmp_path / "best.safetensors", tmp_path / folder, "cpu"

    return write


def test_the_archive_is_numpy_s_and_equal_maps_are_equal_bytes(many_reviews):
    for folder in ("a", "b"):
        attend(*many_reviews(3, folder))
    one, other = (many_reviews(3, folder)[4] / "attention/attention.npz" for folder in ("a", "b"))
    assert file_hash(one) == file_hash(other)
    with np.load(one) as maps:
        names = ["text0", "text1", "text2"]
        assert sorted(maps) == sorted(f"{name}{end}" for name in names for end in ("", ".largest", ".levels"))
        assert {(maps[name].shape, maps[name].dtype.name) for name in names} == {((3, 512, 512), "float16")}
        np.testing.assert_allclose(maps["text0"].astype(float).sum(2), 1, atol=5e-3)
        levels, largest = maps["text0.levels"], maps["text0.largest"]
        assert (levels.shape, levels.dtype.name) == ((3, 4, 512, 512), "uint8") and (levels.max((2, 3)) == 255).all()
        of_heads = levels.astype(float) * largest[:, :, None, None] / 255
        assert np.abs(of_heads.mean(1) - maps["text0"]).max() <= largest.max() / 510 + 1e-3
    entries = {(entry.compress_type, entry.date_time[0]) for entry in zipfile.ZipFile(one).infolist()}
    assert entries == {(zipfile.ZIP_DEFLATED, 1980)}
    measures = read_json(one.with_name("measures.json"))
    assert [review["name"] for review in measures["reviews"]] == ["text0", "text1", "text2"]
    assert all(len(review["layers"]) == 3 for review in measures["reviews"])
    for review in measures["reviews"]:
        assert len(review["rollout"]) == len(review["words"]) == len(review["tokens"]) == 512
        assert sum(review["rollout"]) == pytest.approx(1)
    assert [path.name for path in sorted(one.parent.iterdir())] == ["attention.npz", "measures.json"]


PEAK = """
import json, sys
from pathlib import Path
import torch
from memory_peak import peak_of
from batchscope.insight.attention import attend
from batchscope.insight.spec import AttentionSpec

def peak_of_attention(spec, *paths):
    *paths, device = paths
    return peak_of(lambda: attend(AttentionSpec.read(spec), *map(Path, paths), device))

torch.set_num_threads(1)
_, few, many = (peak_of_attention(*json.loads(text)) for text in sys.argv[1:])  # the first fills the caches
print(many - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_reviews(many_reviews):
    """A review's maps in float16 take 1.6 MB: 10 more of them kept would show."""
    assert measured(PEAK, *(json.dumps(list(map(plain, many_reviews(count)))) for count in (2, 2, 12))) < 8e6


def plain(value):
    return value.plain() if isinstance(value, AttentionSpec) else str(value)

"""A checkpoint is loaded whole, or refused by the names of the weights that do not fit."""

import json
import logging
import pickle

import pytest
import torch
from encoders import ENCODERS, SPECIAL, tiny_encoder
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from batchscope.errors import UserError
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.model.encoders import pretrained_encoder
from batchscope.model.folder import INDEX, WEIGHTS, check_folder, model_files
from batchscope.model.spec import ModelSpec
from batchscope.provenance.fingerprint import content_hash


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a tiny BERT."""
    tiny_encoder("bert").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rename(folder, new_name):
    weights = {new_name(name): tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    weights.pop(None, None)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder):
    return pretrained_encoder(str(folder), None)


def weights_of(encoder):
    return {name: value for name, value in encoder.state_dict().items() if "pooler" not in name}


def assert_same_weights(encoder, other):
    expected = weights_of(other)
    assert weights_of(encoder).keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(encoder).items())


def test_a_whole_checkpoint_is_loaded_whole(folder):
    encoder, report = load(folder)
    assert_same_weights(encoder, tiny_encoder("bert"))
    assert report == {"loaded": len(encoder.state_dict()), "missing": [], "unexpected": []}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "0.auto_model.", "net.encoder."])
def test_other_beginnings_of_the_names_are_refused_and_named(folder, prefix):
    rename(folder, lambda name: prefix + name)
    with pytest.raises(UserError, match=r"weights of .* do not fit") as refusal:
        load(folder)
    assert f"begin with {prefix!r}" in str(refusal.value)
    assert "embeddings.LayerNorm.bias" in str(refusal.value)


def test_a_single_missing_weight_is_refused_by_name(folder):
    rename(folder, lambda name: None if name == "encoder.layer.1.output.dense.bias" else name)
    with pytest.raises(UserError, match=r"1 of the encoder's 39 weights .*: encoder\.layer\.1\.output\.dense\.bias"):
        load(folder)


@pytest.mark.parametrize(("layers", "kind"), [(4, "fewer"), (1, "more")])
def test_another_number_of_layers_is_refused(folder, layers, kind):
    edit(folder, num_hidden_layers=layers)
    with pytest.raises(UserError, match=f"{kind} layers than config.json says"):
        load(folder)


def test_a_number_of_layers_that_would_be_built_for_hours_is_refused(folder):
    edit(folder, num_hidden_layers=10**9)
    with pytest.raises(UserError, match=r"num_hidden_layers is 1000000000, which is above 10000\n.*config.json"):
        load(folder)


def test_more_layers_under_the_name_of_a_classifier_are_refused(tmp_path):
    config = AutoConfig.for_model("bert", **{**SPECIAL, **ENCODERS["bert"]})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    edit(tmp_path, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"16 weights that the encoder does not have: bert\.encoder\.layer\.1"):
        load(tmp_path)


@pytest.mark.parametrize("change", [{"vocab_size": 90}, {"intermediate_size": 32}, {"hidden_size": 32}])
def test_other_sizes_are_refused_with_both_shapes(folder, change):
    edit(folder, **change)
    with pytest.raises(UserError, match=r"has the shape \[.*\] in the file, but \[.*\] by config.json"):
        load(folder)


def test_a_missing_pooler_is_fine(folder):
    rename(folder, lambda name: None if "pooler" in name else name)
    encoder, report = load(folder)
    assert_same_weights(encoder, tiny_encoder("bert"))
    assert report["missing"] == ["pooler.dense.bias", "pooler.dense.weight"]


@pytest.mark.parametrize("kind", ["bert", "modernbert", "electra", "esm", "xlm-roberta", "deberta-v2", "distilbert"])
@pytest.mark.parametrize("head", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_an_extra_head_is_fine(tmp_path, kind, head):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SPECIAL, **ENCODERS[kind]})
    whole = head.from_config(config)
    whole.save_pretrained(tmp_path)
    encoder, report = load(tmp_path)
    assert_same_weights(encoder, whole.base_model)
    assert report["unexpected"]


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"return_dict": False, "output_hidden_states": True, "output_attentions": True},
        {"torch_dtype": "float16"},
        {"dtype": "bfloat16"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
)
def test_settings_of_another_machine_are_not_taken_over(folder, change):
    ids, mask = torch.arange(5, 25)[None], torch.ones(1, 20, dtype=torch.bool)
    expected = TextClassifier(load(folder)[0], 2)
    edit(folder, **change)
    encoder, _ = load(folder)
    assert_same_weights(encoder, tiny_encoder("bert"))
    model = TextClassifier(encoder, 2)
    model.head.load_state_dict(expected.head.state_dict())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.eval()(ids, mask), expected.eval()(ids, mask))


def test_quantised_weights_are_refused(folder):
    edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    weights = load_file(folder / WEIGHTS)
    weights["encoder.layer.0.output.dense.SCB"] = torch.ones(16)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match="in full precision"):
        load(folder)


NAME = "bert.encoder.layer.1.output.dense.weight"
KINDS = [torch.int8, torch.bool, torch.float8_e4m3fn]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_floats_are_refused_by_name(folder, kind):
    """transformers makes floats of them, without their scale."""
    name = "encoder.layer.1.output.dense.weight"
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {name: weights[name].to(kind)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"are quantised: {name} is stored as .* in full precision"):
        load(folder)


def test_whole_numbers_that_are_no_weights_are_fine(folder):
    """Older transformers saved the positions; a pooler of any kind is not used."""
    weights = load_file(folder / WEIGHTS) | {"embeddings.position_ids": torch.arange(512)[None]}
    weights["pooler.dense.bias"] = weights["pooler.dense.bias"].to(torch.int8)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert_same_weights(load(folder)[0], tiny_encoder("bert"))


def test_shards_under_the_names_of_a_classifier_are_looked_at_too(tmp_path):
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **ENCODERS["bert"]))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    path = next(path for path in sorted(tmp_path.glob("model-*.safetensors")) if NAME in load_file(path))
    weights = load_file(path)
    save_file(weights | {NAME: weights[NAME].to(torch.int8)}, path)
    with pytest.raises(UserError, match=r"bert\.encoder\.layer\.1\.output\.dense\.weight is stored as I8"):
        load(tmp_path)


@pytest.mark.parametrize("change", [{"auto_map": {"AutoModel": "evil.Model"}}, {"is_decoder": True}])
def test_a_config_with_code_or_half_the_attention(folder, change, caplog):
    """Code in the folder of a known architecture is left alone; a causal encoder is warned of."""
    (folder / "evil.py").write_text("raise SystemExit('run')")
    edit(folder, **change)
    assert_same_weights(load(folder)[0], tiny_encoder("bert"))
    assert ("a token sees only those before it" in caplog.text) == ("is_decoder" in change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 0}, "(?s)the file has 32 weights that the encoder does not have.*more layers"),
        ({"vocab_size": 0}, "index 0 is out of bounds.*\nCorrect its config.json"),
        ({"num_attention_heads": 0}, "integer (modulo|division).* by zero"),
        ({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}, "Python code of its own .* is never run"),
        ({"hidden_act": "swish2"}, "does not know 'swish2'"),
        ({"num_attention_heads": 3}, "multiple of the number of attention heads"),
        ({"model_type": "nonsense"}, "model type `nonsense`"),
        ({"model_type": "t5"}, "t5 model|cannot load"),
        ({"model_type": "vit"}, "not a text encoder|do not fit|cannot load"),
    ],
)
def test_a_config_that_makes_no_text_encoder_is_one_message(folder, change, message):
    edit(folder, **change)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_the_loading_report_comes_with_the_model(folder):
    rename(folder, lambda name: None if "pooler" in name else name)
    model = build_model(ModelSpec(checkpoint=str(folder)), 2, 120, 0, seed=1)
    assert model.loading is not None
    assert model.loading["missing"] == ["pooler.dense.bias", "pooler.dense.weight"]
    scratch = build_model(ModelSpec(architecture="bert", config=ENCODERS["bert"]), 2, 120, 0, seed=1)
    assert scratch.loading is None


def test_transformers_table_of_weights_stays_out_of_the_log(folder, caplog, capfd):
    rename(folder, lambda name: None if "pooler" in name else name)
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert not caplog.records
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


# ------------------------------------------------------------------------------------------------- the folder


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def lost_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def endless_header(path):
    header = b'{"a": ' + b"[" * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def unknown_kind(path):
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F99"', 1))


def corrupt_header(path):
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"\xff" * 20 + content[28:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "not a whole safetensors file: it has .* bytes, its header says"),
        (corrupt_header, "its header cannot be read"),
        (endless_header, "its header cannot be read"),
        (unknown_kind, r"model\.safetensors is damaged: download or save it again"),
        (lost_link, "only a link of that name to a file that is not there"),
        (lambda path: (path.unlink(), path.mkdir()), "only something of that name that is no file"),
        (
            lambda path: path.rename(path.with_name("model.gguf")),
            "only model.gguf, a format that cannot be trained from",
        ),
        (
            lambda path: (path.unlink(), path.with_name(INDEX).write_text('{"weight_map": ' + "[" * 100_000)),
            r"model\.safetensors\.index\.json is damaged",
        ),
        (lambda path: path.write_bytes(b""), "it has 0 bytes"),
        (lambda path: path.write_text("<!DOCTYPE html><html>not found</html>"), "its header would have"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"), "git lfs pull"),
        (lambda path: path.unlink(), "has no model.safetensors"),
        (lambda path: path.rename(path.with_name("encoder.safetensors")), "but encoder.safetensors"),
        (lambda path: path.with_name("config.json").unlink(), "has no config.json"),
        (lambda path: path.with_name("config.json").write_text("{"), "not a valid JSON file"),
        (lambda path: path.with_name("config.json").write_text("version https://git-lfs"), "Git LFS pointer"),
    ],
)
def test_a_spoilt_folder_is_one_message_that_names_the_file(folder, spoil, message):
    spoil(folder / WEIGHTS)
    with pytest.raises(UserError, match=message) as refusal:
        load(folder)
    assert str(folder) in str(refusal.value)


def test_a_pickle_is_refused_with_the_way_to_convert_it(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=r"only pytorch_model\.bin, .* convert it once: python -c"):
        load(folder)


def test_an_adapter_alone_is_refused(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(UserError, match="merge_and_unload"):
        load(folder)


def test_a_checkpoint_in_shards_is_loaded_and_a_missing_shard_named(tmp_path):
    tiny_encoder("bert").save_pretrained(tmp_path, max_shard_size="10KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert_same_weights(load(tmp_path)[0], tiny_encoder("bert"))
    twice = load_file(shards[1]) | {name: 2 * weight for name, weight in load_file(shards[0]).items()}
    whole = shards[1].read_bytes()
    save_file(twice, shards[1])
    with pytest.raises(UserError, match=f"{shards[0].name} and {shards[1].name} both hold the weight"):
        load(tmp_path)
    shards[1].write_bytes(whole)
    load(tmp_path)
    shards[1].unlink()
    with pytest.raises(UserError, match=f"names {shards[1].name}, which"):
        load(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        {"metadata": {}, "weight_map": {"a": "/etc/passwd"}},
        {"metadata": {}, "weight_map": {"a": "../model.safetensors"}},
        {"metadata": {}, "weight_map": {"a": 7}},
        {"metadata": {}, "weight_map": {}},
        {"weight_map": {"a": "encoder.safetensors"}},
    ],
)
def test_an_index_that_does_not_name_files_of_its_folder_is_refused(folder, index):
    """A path from the root was a traceback while the config was read."""
    (folder / WEIGHTS).rename(folder / "encoder.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    content_hash(folder, files=model_files(folder))
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json is damaged: it needs a `weight_map`"):
        load(folder)


def test_an_adapter_with_the_config_of_its_model_is_refused_as_an_adapter(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no model\.safetensors: it is an adapter .*merge_and_unload"):
        load(folder)


def test_a_file_instead_of_a_folder_is_refused(folder):
    with pytest.raises(UserError, match="is a file"):
        check_folder(folder / WEIGHTS)


UNREAD = ("README.md", ".DS_Store", ".gitattributes", "notes.txt", "training_args.bin", "optimizer.pt", "results.json")
UNREAD += ("pytorch_model.bin", "tf_model.h5", "adapter_model.safetensors", "modules.json", "trainer_state.json")


def test_a_file_that_nothing_reads_does_not_count(folder):
    before = model_files(folder)
    assert [path.name for path in before] == ["config.json", WEIGHTS]
    for name in UNREAD:
        (folder / name).write_text("first")
    for name in (".git", "1_Pooling", "onnx", "checkpoint-500"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    assert model_files(folder) == before


def test_every_file_that_a_fast_tokenizer_of_transformers_reads_counts(folder):
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    classes = {tokenizer_class_from_name(name) for name in TOKENIZER_MAPPING_NAMES.values() if name}
    fast = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerFast)]
    names = {name for kind in fast for name in kind.vocab_files_names.values()}
    assert len(names) > 5
    for name in names:
        (folder / name).write_text("")
    assert names <= {path.name for path in model_files(folder)}

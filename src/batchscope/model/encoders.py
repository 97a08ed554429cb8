"""Encoders of transformers, made fit for training: from a checkpoint, from a config, or empty for saved weights."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from batchscope.errors import UserError
from batchscope.model.folder import OWN_CODE, asks_for_code, check_folder, stored_kinds
from batchscope.model.loading import loading_report, refuse_quantised
from batchscope.model.records import LoadingReport
from batchscope.model.spec import MOST_LAYERS, ModelSpec

disable_progress_bar()  # loading weights takes no time, and its progress bar would be in every log
if "TRANSFORMERS_VERBOSITY" not in os.environ:
    set_verbosity_error()  # what it warns of when it loads weights is judged in the loading report

log = logging.getLogger(__name__)
KEYS_WITHOUT_ATTRIBUTE = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
UNUSABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, AssertionError),
    *(ZeroDivisionError, OverflowError, IndexError),
)
"""What transformers raises for a config or a checkpoint that it cannot build a model of."""


def encoder_from_scratch(spec: ModelSpec, vocabulary_size: int, pad_token_id: int) -> PreTrainedModel:
    """Build an encoder with random weights. Raises UserError, which names the key, for a config that it refuses."""
    assert spec.architecture is not None
    values = spec.config or {}
    special = {"pad_token_id": pad_token_id, "bos_token_id": None, "eos_token_id": None}
    if spec.architecture == "modernbert":
        special |= {"cls_token_id": None, "sep_token_id": None}
    known = AutoConfig.for_model(spec.architecture)
    unknown = [key for key in values if not hasattr(known, key) and key not in KEYS_WITHOUT_ATTRIBUTE]
    if unknown:
        raise UserError(f"models.*.config: the {spec.architecture} config of transformers has no key {unknown[0]!r}")
    try:
        config = AutoConfig.for_model(spec.architecture, vocab_size=vocabulary_size, **special, **values)
        return encoder_of(config)
    except (*UNUSABLE, StrictDataclassError) as error:
        raise UserError(
            f"models.*.config: transformers refuses this {spec.architecture} config ({_given(values)}): "
            f"{_reason(error)}"
        ) from None


def pretrained_encoder(checkpoint: str, revision: str | None) -> tuple[PreTrainedModel, LoadingReport]:
    """Load an encoder in float32 from a local folder or a hub id, and report how it was loaded.

    What config.json says about the machine of its author (attention kernels, precision, quantisation, the form of the
    output) is not taken over. Raises UserError for what cannot be loaded, or only in part.
    """
    folder = Path(checkpoint).expanduser()
    if folder.exists():
        check_folder(folder)
    source = str(folder) if folder.exists() else checkpoint
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
        quantised = hasattr(config, "quantization_config")
        encoder, info = AutoModel.from_pretrained(
            source,
            config=usable_config(config),
            revision=revision or "main",
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused by name in the loading report
            output_loading_info=True,
        )
    except (*UNUSABLE, SafetensorError, StrictDataclassError) as error:
        advice = (
            "Give a hub id that can be reached from here, or a folder with config.json and model.safetensors; "
            "on a machine without a network, download it elsewhere first and name the folder."
            if isinstance(error, OSError)
            else "Its model.safetensors is damaged: download or save it again."
            if isinstance(error, SafetensorError)
            else "Correct its config.json, or take another checkpoint."
        )
        raise UserError(f"cannot load the encoder {checkpoint!r}: {_reason(error)}\n{advice}") from None
    _refuse_others(encoder, checkpoint)
    report = loading_report(encoder, info, checkpoint, quantised)
    described = cached_file(source, "config.json", revision=revision or "main")
    assert described is not None
    refuse_quantised(encoder, stored_kinds(Path(described).parent), checkpoint)
    if getattr(config, "is_decoder", False):
        log.warning(f"config.json of {checkpoint!r} has `is_decoder: true`: a token sees only those before it")
    _own_storages(encoder)
    return encoder, report


def encoder_of(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the encoder of a config with random weights, in float32."""
    encoder: PreTrainedModel = AutoModel.from_config(usable_config(config), dtype=torch.float32)
    return encoder


def usable_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Reset in ``config`` what is not a property of the model, but of where it was last used, and return it.

    Raises ValueError for more layers than any encoder has.
    """
    if (getattr(config, "num_hidden_layers", None) or 0) > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {config.num_hidden_layers}, which is above {MOST_LAYERS}")
    config._attn_implementation = None  # transformers then takes the best that is installed
    config.return_dict = True
    config.output_hidden_states = False
    config.output_attentions = False
    if hasattr(config, "use_cache"):
        config.use_cache = False
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _refuse_others(encoder: PreTrainedModel, checkpoint: str) -> None:
    """Refuse models that do not turn token ids into one vector per token."""
    kind = encoder.config.model_type
    if encoder.config.is_encoder_decoder:
        raise UserError(f"{checkpoint!r} is a {kind} model, an encoder with a decoder; name a text encoder")
    if not hasattr(encoder.config, "hidden_size") or encoder.main_input_name != "input_ids":
        raise UserError(f"{checkpoint!r} is a {kind} model, not a text encoder")


def _own_storages(encoder: PreTrainedModel) -> None:
    """Give each weight a storage of its own: transformers may load q, k and v as views of one, which safetensors
    refuses to save."""
    for tensor in [*encoder.parameters(), *encoder.buffers()]:
        if tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def _reason(error: Exception) -> str:
    """The first line of an error that says something."""
    if asks_for_code(error):
        return OWN_CODE
    if isinstance(error, KeyError):
        return f"transformers does not know {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if len(lines) > 1 and text.endswith(":"):
        text = f"{text} {lines[1]}"
    return text or type(error).__name__


def _given(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items()) or "its defaults"

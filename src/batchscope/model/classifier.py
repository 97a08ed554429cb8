"""The classifier: a text encoder, masked mean pooling, one linear layer."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from batchscope.errors import UserError

disable_progress_bar()  # of loading weights, which takes no time and would stand in every log

MASKS_READY_MADE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert")
KEYS_WITHOUT_ATTRIBUTE = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")


class TextClassifier(nn.Module):
    """``logits = W · mean(last hidden states, padding excluded) + b``, for any encoder ``AutoModel`` knows."""

    encoder: PreTrainedModel

    def __init__(self, encoder: PreTrainedModel, classes: int) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            # BERT has a tanh pooler on [CLS]: unused here, its weights would only take up memory.
            encoder.register_module("pooler", None)
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Class logits ``[N, C]`` in the weights' precision.

        ``input_ids``: int ``[N, L]``; ``attention_mask``: bool ``[N, L]``, False on padding.
        Pooling and head leave autocast: bfloat16 logits would tie.
        """
        allowed = attention_masks(self.encoder.config, attention_mask)
        hidden = self.encoder(input_ids=input_ids, attention_mask=allowed).last_hidden_state
        with torch.autocast(input_ids.device.type, enabled=False):
            return self.head(masked_mean(hidden.to(self.head.weight.dtype), attention_mask))

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's transformers config."""
        return self.encoder.config


def attention_masks(config: PretrainedConfig, mask: Tensor) -> Tensor | dict[str, Tensor]:
    """What the encoder's layers may look at: from ``mask``, bool ``[N, L]``, a layer's, bool ``[N, 1, L, L]``.

    transformers would make the same, but asks the device first whether anything is padded at all: a synchronisation
    in every forward pass, which a CUDA graph cannot hold. For other encoders than those named here, and where
    attention weights are wanted (the eager implementation), ``mask`` is left to it. A padded query may look anywhere:
    nobody reads it, and a query that may look nowhere would have no softmax.
    """
    if config.model_type not in MASKS_READY_MADE or config._attn_implementation == "eager":
        return mask
    length = mask.shape[1]
    everywhere = mask[:, None, None, :].expand(-1, 1, length, -1)
    if config.model_type != "modernbert":
        return everywhere
    position = torch.arange(length, device=mask.device)
    near = (position[:, None] - position).abs() <= config.sliding_window
    return {"full_attention": everywhere, "sliding_attention": everywhere & (near | ~mask[:, None, :, None])}


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the unmasked positions: hidden ``[N, L, H]``, mask bool ``[N, L]`` → ``[N, H]``."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def build_model(
    spec: dict[str, Any], classes: int, vocabulary_size: int, pad_token_id: int, seed: int
) -> TextClassifier:
    """The model before training, on the CPU in float32; new weights are a pure function of ``seed``.

    ``spec`` is ``TrainSpec.model``. Raises UserError for an unknown, unreachable or unsuitable checkpoint.
    """
    torch.manual_seed(seed)
    if "architecture" in spec:
        encoder = AutoModel.from_config(_config_from_scratch(spec, vocabulary_size, pad_token_id))
    else:
        encoder = _pretrained_encoder(spec["checkpoint"], spec.get("revision"))
    if encoder.get_input_embeddings().num_embeddings < vocabulary_size:
        raise UserError(
            f"the tokenizer has {vocabulary_size} entries, the encoder only "
            f"{encoder.get_input_embeddings().num_embeddings} embeddings: they do not belong together"
        )
    torch.manual_seed(seed)
    return TextClassifier(encoder, classes)


def rebuild_model(encoder_config: dict[str, Any], classes: int) -> TextClassifier:
    """The classifier's structure from a checkpoint's metadata; its weights are yet to be loaded."""
    config = AutoConfig.for_model(**encoder_config)
    return TextClassifier(AutoModel.from_config(config), classes)


def _config_from_scratch(spec: dict[str, Any], vocabulary_size: int, pad_token_id: int) -> PretrainedConfig:
    special = {"pad_token_id": pad_token_id, "bos_token_id": None, "eos_token_id": None}
    if spec["architecture"] == "modernbert":
        special |= {"cls_token_id": None, "sep_token_id": None}
    known = AutoConfig.for_model(spec["architecture"])
    unknown = [key for key in spec["config"] if not hasattr(known, key) and key not in KEYS_WITHOUT_ATTRIBUTE]
    if unknown:
        raise UserError(f"models.*.config: the {spec['architecture']} config of transformers has no key {unknown[0]!r}")
    try:
        return AutoConfig.for_model(spec["architecture"], vocab_size=vocabulary_size, **special, **spec["config"])
    except (TypeError, ValueError) as error:
        raise UserError(f"models.*.config: transformers refuses this {spec['architecture']} config: {error}") from None


def _pretrained_encoder(checkpoint: str, revision: str | None) -> PreTrainedModel:
    source = str(Path(checkpoint).expanduser()) if Path(checkpoint).expanduser().exists() else checkpoint
    try:
        encoder = AutoModel.from_pretrained(
            source, revision=revision or "main", use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load the encoder {checkpoint!r}: {reason}\n"
            "Give a hub id that can be reached from here, or a folder with config.json and model.safetensors; "
            "on a machine without a network, download it elsewhere first and name the folder."
        ) from None
    if not hasattr(encoder.config, "hidden_size") or encoder.config.is_encoder_decoder:
        raise UserError(f"{checkpoint!r} is a {encoder.config.model_type} model, not a text encoder")
    return encoder

"""The classifier: a text encoder, masked mean pooling, one linear layer."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from batchscope.errors import UserError
from batchscope.model.encoders import encoder_from_scratch, encoder_of, pretrained_encoder
from batchscope.model.records import LoadingReport
from batchscope.model.spec import ModelSpec

MASKS_READY_MADE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert")


class Unpooled(nn.Module):
    """Stands in for an encoder's pooler, whose output is not used: its weights would only take up memory."""

    def forward(self, hidden: Tensor, *_: Any) -> Tensor:
        """Return the hidden states: some encoders call their pooler in any case, or apply a function to its output."""
        return hidden


class TextClassifier(nn.Module):
    """``logits = W · mean(last hidden states, padding excluded) + b``, for any text encoder of ``AutoModel``."""

    encoder: PreTrainedModel

    def __init__(self, encoder: PreTrainedModel, classes: int, loading: LoadingReport | None = None) -> None:
        super().__init__()
        if isinstance(getattr(encoder, "pooler", None), nn.Module):
            encoder.pooler = Unpooled()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)
        self.loading = loading
        """How the encoder's weights were loaded; None for an encoder from scratch or from one of our checkpoints."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Class logits ``[N, C]`` in the weights' precision.

        ``input_ids``: int ``[N, L]``; ``attention_mask``: bool ``[N, L]``, False on padding.
        Pooling and head leave autocast: bfloat16 logits would tie.
        """
        hidden = self.hidden_states(input_ids, attention_mask)
        with torch.autocast(input_ids.device.type, enabled=False):
            logits: Tensor = self.head(masked_mean(hidden.to(self.head.weight.dtype), attention_mask))
        return logits

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden states ``[N, L, H]``; see ``forward``."""
        allowed = attention_masks(self.encoder.config, attention_mask)
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=allowed)[0]
        return hidden

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's transformers config."""
        return self.encoder.config


def attention_masks(config: PretrainedConfig, mask: Tensor) -> Tensor | dict[str, Tensor]:
    """What the encoder's layers may attend to: from ``mask``, bool ``[N, L]``, masks bool ``[N, 1, L, L]``.

    transformers would make the same masks, but first asks the device whether anything is padded at all. That is a
    synchronisation in every forward pass, which a CUDA graph cannot capture. For encoders not named here, and where
    attention weights are wanted (the eager implementation), transformers makes its masks from the integer ``[N, L]``
    that its tokenizers give: some encoders compute with it. A padded query may attend to every token: its output is not
    read, and a query without any key would have no softmax.
    """
    ready_made = config.model_type in MASKS_READY_MADE and not getattr(config, "is_decoder", False)
    if not ready_made or config._attn_implementation == "eager":
        return mask.long()
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


def build_model(spec: ModelSpec, classes: int, vocabulary_size: int, pad_token_id: int, seed: int) -> TextClassifier:
    """Build the model before training, on the CPU in float32; new weights are a pure function of ``seed``.

    Raises UserError for an unknown, unreachable or unsuitable checkpoint, and for one that would be loaded in part.
    """
    torch.manual_seed(seed)
    loading = None
    if spec.architecture is not None:
        encoder = encoder_from_scratch(spec, vocabulary_size, pad_token_id)
    else:
        assert spec.checkpoint is not None
        encoder, loading = pretrained_encoder(spec.checkpoint, spec.revision)
    entries = embedded_tokens(encoder)
    if entries is not None and entries < vocabulary_size:
        raise UserError(
            f"the tokenizer has {vocabulary_size} entries, the encoder only {entries} embeddings: they do not belong "
            "together"
        )
    torch.manual_seed(seed)
    return TextClassifier(encoder, classes, loading)


def rebuild_model(encoder_config: dict[str, Any], classes: int) -> TextClassifier:
    """Build the structure of a classifier from a checkpoint's metadata; its weights are loaded afterwards."""
    return TextClassifier(encoder_of(AutoConfig.for_model(**encoder_config)), classes)


def embedded_tokens(encoder: PreTrainedModel) -> int | None:
    """Number of tokens that the encoder has an embedding for; None where it has no table of them."""
    try:
        table = encoder.get_input_embeddings().weight
        return len(table) if isinstance(table, Tensor) else None
    except (NotImplementedError, AttributeError):
        return None

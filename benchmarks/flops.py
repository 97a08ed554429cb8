"""What a sample costs: floating-point operations of one training step, counted from the model's shapes."""

from torch import nn
from transformers import PreTrainedModel

from batchscope.model.classifier import build_model
from batchscope.model.spec import ModelSpec
from benchmarks.work import Work

FORMULA = "3 · (2 · n · P + 4 · layers · n² · d)"
"""Forward pass once, backward pass twice (by activations and by weights); n tokens, padding included, P weights in the
encoder's matrices, d hidden size. Two products of [n, n] by [n, d] per layer make 4 · n² · d; a sliding window does
not shrink them, as the kernels compute and mask them whole. Embeddings are looked up, not multiplied."""


def training_flops_per_sample(encoder: PreTrainedModel, tokens: int) -> float:
    """FLOPs of ``FORMULA`` for ``tokens`` per sample."""
    weights = sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
    config = encoder.config
    attention = 4 * config.num_hidden_layers * tokens**2 * config.hidden_size
    return 3.0 * (2 * tokens * weights + attention)


def of_work(work: Work) -> float:
    """``training_flops_per_sample`` of a contender's model and tokens."""
    tokens = work.split_tokens("train")
    model = build_model(
        ModelSpec(checkpoint=str(work.checkpoint)), 2, tokens.vocabulary_size, tokens.pad_token_id, work.seed
    )
    return training_flops_per_sample(model.encoder, tokens.input_ids.shape[1])

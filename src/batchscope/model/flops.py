"""What a sample costs: floating-point operations of one training step, counted from the encoder's shapes."""

from torch import nn
from transformers import PreTrainedModel

FORMULA = "3 · (2 · n · P + 4 · layers · n² · d)"
"""Forward pass once, backward pass twice (by activations and by weights); n tokens, padding included, P weights in the
encoder's matrices, d hidden size. Two products of [n, n] by [n, d] per layer make 4 · n² · d; a sliding window does
not shrink them, as the kernels compute and mask them whole. Embeddings are looked up, not multiplied."""


def training_flops_per_sample(encoder: PreTrainedModel, tokens: int) -> float | None:
    """FLOPs of ``FORMULA`` for ``tokens`` per sample.

    None where the encoder's config does not say its layers and hidden size, or where layers share their weights
    (ALBERT), so that counting them once would be too little.
    """
    weights = sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
    layers, width = (getattr(encoder.config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if layers is None or width is None or getattr(encoder.config, "num_hidden_groups", layers) != layers:
        return None
    return 3.0 * (2 * tokens * weights + 4 * int(layers) * tokens**2 * int(width))

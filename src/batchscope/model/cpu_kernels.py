"""Faster dropout and attention for training on a CPU.

PyTorch draws a CPU's dropout masks one double after another from a serial generator, for every attention weight too: a
sixth of a BERT's training time in float32, a third in bfloat16. Here one 64-bit draw from the same generator decides
four elements. An element is dropped with probability round(65536·p)/65536, which is within 8e-6 of p. A kept element is
divided by the probability of being kept, so that the expectation is exact.

Without dropout, PyTorch's fused attention is as fast as plain matrix products in float32. In bfloat16 its forward and
backward pass take three times as long at 128 tokens, twice as long at 512.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

LEVELS = 2**16
ATTENTION = "batchscope_cpu"
LONGEST = 512
"""Tokens up to which plain matrix products replace the fused kernel: they keep every attention weight for the
backward pass."""


def draw_kept(shape: torch.Size, p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Draw 1 for a kept and 0 for a dropped element, in ``shape`` on the CPU; and the factor for kept elements."""
    dropped = round(p * LEVELS)
    count = shape.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:count].view(shape)
    # Written into int16, not bool: PyTorch's kernels between bool and float are several times slower.
    kept = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty_like(bits))
    return kept.to(dtype), LEVELS / (LEVELS - dropped)


class CpuDropout(nn.Dropout):
    """``nn.Dropout`` with a faster draw."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements while training."""
        if not self.training or not 0 < self.p < 1:
            return super().forward(input)
        kept, factor = draw_kept(input.shape, self.p, input.dtype)
        return (input * kept).mul(factor)


def cpu_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention as transformers calls it; ``query``, ``key``, ``value`` ``[N, heads, L, head size]``, mask bool
    ``[N, 1, L, L]``, True where a query may look. Output ``[N, L, heads, head size]``.

    Anything more (a causal rule instead of a mask, fewer key heads, a position bias), and every case without a gain,
    goes to transformers and PyTorch.
    """
    drops = 0 < dropout < 1
    gains = drops or (query.dtype == torch.bfloat16 and query.requires_grad and query.shape[2] <= LONGEST)
    if not gains or not is_plain(module, query, key, attention_mask, **others):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if attention_mask is not None:
        nowhere = torch.zeros_like(attention_mask, dtype=scores.dtype)
        scores += nowhere.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = softmax(scores, dim=-1)
    if drops:
        kept, factor = draw_kept(weights.shape, dropout, weights.dtype)
        # The factor goes to the output, which is smaller than the weights and rounded once.
        output = ((weights * kept) @ value).mul(factor)
    else:
        output = weights @ value
    return output.transpose(1, 2).contiguous(), None


def is_plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> bool:
    """Whether every query has a key head of its own and a bool mask, if any, is all that restricts it.

    Without a mask a module is causal unless it says otherwise: the rule of transformers' ``sdpa_attention_forward``.
    """
    if attention_mask is None:
        restricted = getattr(module, "is_causal", True) if is_causal is None else is_causal
    else:
        restricted = attention_mask.dtype != torch.bool
    return not restricted and position_bias is None and key.shape[1] == query.shape[1]


def use_cpu_kernels(encoder: PreTrainedModel) -> None:
    """Replace dropout and attention of an encoder on the CPU. A checkpoint saves nothing of it."""
    for module in encoder.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CpuDropout
    if encoder.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, cpu_attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        encoder.set_attn_implementation(ATTENTION)

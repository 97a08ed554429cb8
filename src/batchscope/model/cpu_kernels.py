"""Faster dropout, attention and embeddings for training on a CPU.

PyTorch draws a CPU's dropout masks one double after another from a serial generator, for every attention weight too: a
sixth of a BERT's training time in float32, a third in bfloat16. Here 64 bits of a faster generator, which PyTorch's own
seeds, decide four elements. An element is dropped with probability round(65536·p)/65536, which is within 8e-6 of p. A
kept element is divided by the probability of being kept, so that the expectation is exact.

Without dropout, PyTorch's fused attention is as fast as plain matrix products in float32. In bfloat16 its forward and
backward pass take three times as long at 128 tokens, twice as long at 512.

The gradient of an embedding has the size of the whole table, and PyTorch fills it with zeros and adds it up for every
micro-batch, which sees a small part of the vocabulary. Here only the rows that were seen are added.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import embedding, softmax
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
    seed = int(torch.randint(2**63 - 1, ()))
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)))
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
        if input.dtype == torch.bfloat16:  # which cannot hold the factor: 1/0.9 would be 0.2% too small
            return (input * kept).mul(factor)
        return input * kept.mul_(factor)


class AddedRows(torch.autograd.Function):
    """Rows of a table, whose backward pass adds to the table's ``.grad`` itself, in the rows that were looked up.

    Bit for bit what PyTorch adds: the gradients of a row are summed in the same order before they are added.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, ids: Tensor, table: Tensor, padding: int | None) -> Tensor:
        """``ids`` int ``[...]``, ``table`` ``[V, H]`` → ``[..., H]``; ``padding`` is an id without a gradient."""
        ctx.ids, ctx.table, ctx.padding = ids, table, padding  # type: ignore[attr-defined]
        return embedding(ids, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """``gradient`` ``[..., H]``."""
        table: Tensor = ctx.table
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        seen, place = torch.unique(ctx.ids, return_inverse=True)
        rows = torch.ops.aten.embedding_dense_backward(gradient, place, len(seen), -1, False)
        if ctx.padding is not None:
            seen, rows = seen[seen != ctx.padding], rows[seen != ctx.padding]
        table.grad[seen] += rows
        return None, None, None


class CpuEmbedding(nn.Embedding):
    """``nn.Embedding`` whose gradient costs as much as the rows that were looked up."""

    def forward(self, input: Tensor) -> Tensor:
        """Look up; with few rows in the table, or without a gradient, as PyTorch does."""
        gains = self.training and self.weight.requires_grad and torch.is_grad_enabled()
        if not gains or self.num_embeddings < 4 * input.numel():
            return super().forward(input)
        rows: Tensor = AddedRows.apply(input, self.weight, self.padding_idx)  # type: ignore[no-untyped-call]
        return rows


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


def is_plain_embedding(module: nn.Embedding) -> bool:
    """Whether a lookup is all that the module does."""
    return not module.sparse and not module.scale_grad_by_freq and module.max_norm is None


def use_cpu_kernels(encoder: PreTrainedModel) -> None:
    """Replace dropout, attention and embeddings of an encoder on the CPU. A checkpoint saves nothing of it."""
    for module in encoder.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CpuDropout
        elif type(module) is nn.Embedding and is_plain_embedding(module):
            module.__class__ = CpuEmbedding
    if encoder.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, cpu_attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        encoder.set_attn_implementation(ATTENTION)

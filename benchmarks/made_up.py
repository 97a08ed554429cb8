"""Reviews and encoders without a corpus and without a download: random token ids, random weights.

They need torch, transformers, NumPy and Arrow alone, so that the checks of a GPU run wherever those are.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from batchscope.data.tokens import Tokens
from batchscope.files import read_json, write_json

SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("bert", SMALL),  # the shape of google/bert_uncased_L-2_H-128_A-2
    "small-modernbert": ("modernbert", SMALL | {"num_hidden_layers": 3, "intermediate_size": 256, "vocab_size": 30522}),
    "tiny": ("bert", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}),
    "tiny-modernbert": ("modernbert", SMALL | {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 30522}),
    "bert-base": ("bert", {}),
    "modernbert-base": ("modernbert", {}),
}
"""Name → architecture and what differs from its default config, which is that of the base model."""
VOCABULARY = 30_522
"""Entries of BERT's vocabulary: no token id is above it."""
BERTS_SPECIAL_TOKENS = {
    "pad_token_id": 0,
    "cls_token_id": 101,
    "sep_token_id": 102,
    "bos_token_id": 101,
    "eos_token_id": 102,
}


def random_encoder(name: str, output: Path) -> None:
    """Write a folder with an encoder of ``ENCODERS``: config and random weights, the same ones each time."""
    kind, shape = ENCODERS[name]
    special = BERTS_SPECIAL_TOKENS if kind == "modernbert" else {}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **shape, **special)).save_pretrained(output)


def without_dropout(folder: Path, output: Path) -> None:
    """Copy a checkpoint's folder; the config of the copy has no dropout."""
    shutil.copytree(folder, output)
    config = read_json(output / "config.json")
    off = {key: 0.0 for key, value in config.items() if "dropout" in key and value is not None}
    write_json(output / "config.json", config | off)


def reviews(count: int, width: int, shortest: int, full: float = 0.0, vocabulary: int = VOCABULARY) -> Tokens:
    """``count`` reviews of ``shortest`` to ``width`` random tokens, the share ``full`` of them as long as ``width``.

    The classes can be learned: three quarters of the tokens of a positive review come from the upper half of the
    vocabulary, and a quarter of those of a negative one.
    """
    random = np.random.default_rng(0)
    length = random.integers(shortest, width + 1, count).astype(np.int32)
    length[random.random(count) < full] = width
    label = random.integers(0, 2, count)
    first, middle = min(1000, vocabulary // 10), vocabulary // 2
    upper = random.random((count, width)) < np.where(label == 1, 0.75, 0.25)[:, None]
    ids = np.where(
        upper, random.integers(middle, vocabulary, (count, width)), random.integers(first, middle, (count, width))
    ).astype(np.uint16)
    ids[np.arange(width) >= length[:, None]] = 0
    return Tokens(
        example_id=np.arange(count),
        label=label,
        input_ids=ids,
        length=length,
        truncated=np.zeros(count, dtype=bool),
        classes=["neg", "pos"],
        pad_token_id=0,
        vocabulary_size=vocabulary,
    )


def rows(tokens: Tokens, part: slice) -> Tokens:
    """Some of the reviews."""
    return replace(
        tokens,
        example_id=tokens.example_id[part],
        label=tokens.label[part],
        input_ids=tokens.input_ids[part],
        length=tokens.length[part],
        truncated=tokens.truncated[part],
    )

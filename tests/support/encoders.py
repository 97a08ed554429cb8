"""Tiny text encoders of many architectures: random weights, two layers of sixteen numbers; and reviews for them."""

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from batchscope.data.tokens import Tokens

VOCABULARY, PAD, LENGTH = 120, 0, 24
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": None}
POSITIONS = {"max_position_embeddings": 66}
ROTARY = {"num_key_value_heads": 2, "head_dim": 8}
XLM = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 66, "pad_index": 0}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}

ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {**SIZES, "embedding_size": 8},
    "bert": SIZES,
    "bert-generation": SIZES,
    "big_bird": {**SIZES, "block_size": 4, "max_position_embeddings": 64},
    "camembert": {**SIZES, **POSITIONS},
    "canine": {**SIZES, "num_hash_buckets": 32, "local_transformer_stride": 8, "max_position_embeddings": 64},
    "convbert": {**SIZES, "embedding_size": 16, "head_ratio": 1},
    "data2vec-text": {**SIZES, **POSITIONS},
    "deberta": {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    "deberta-v2": {
        **SIZES,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "type_vocab_size": 0,
        "position_buckets": 16,
        "conv_kernel_size": 3,
    },
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {**SIZES, "embedding_size": 8},
    "ernie": SIZES,
    "esm": {**SIZES, **POSITIONS, "position_embedding_type": "rotary", "mask_token_id": 4, "token_dropout": True},
    "eurobert": {**SIZES, **ROTARY},
    "flaubert": XLM,
    "fnet": {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24},
    "funnel": {
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
        "num_decoder_layers": 1,
        "architectures": ["FunnelModel"],
    },
    "gpt2": GPT2,
    "gte": SIZES,
    "ibert": {**SIZES, **POSITIONS},
    "jina_embeddings_v3": {**SIZES, **POSITIONS},
    "layoutlm": SIZES,
    "lilt": {**SIZES, "hidden_size": 24, "channel_shrink_ratio": 1, "max_2d_position_embeddings": 32, **POSITIONS},
    "llama": {**SIZES, **ROTARY},
    "longformer": {**SIZES, **POSITIONS, "attention_window": [8, 8]},
    "luke": {**SIZES, **POSITIONS, "entity_vocab_size": 5, "entity_emb_size": 8},
    "markuplm": {**SIZES, **POSITIONS, "max_depth": 2, "xpath_unit_hidden_size": 4},
    "megatron-bert": SIZES,
    "mobilebert": {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1},
    "modernbert": {**SIZES, "local_attention": 8, "cls_token_id": None, "sep_token_id": None},
    "mpnet": {**SIZES, **POSITIONS},
    "mra": {**SIZES, "max_position_embeddings": 64},
    "nomic_bert": SIZES,
    "nystromformer": {**SIZES, "num_landmarks": 24, "segment_means_seq_len": 24},
    "qwen3": {**SIZES, **ROTARY},
    "rembert": {**SIZES, "input_embedding_size": 8, "output_embedding_size": 8},
    "reformer": {
        "hidden_size": 16,
        "attention_head_size": 8,
        "num_attention_heads": 2,
        "feed_forward_size": 24,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 4,
        "axial_pos_shape": [4, 6],
        "axial_pos_embds_dim": [8, 8],
        "max_position_embeddings": 24,
        "is_decoder": False,
    },
    "roberta": {**SIZES, **POSITIONS},
    "roberta-prelayernorm": {**SIZES, **POSITIONS},
    "roc_bert": {**SIZES, "pronunciation_vocab_size": 20, "shape_vocab_size": 20, "enable_pronunciation": False},
    "roformer": {**SIZES, "embedding_size": 16},
    "splinter": SIZES,
    "squeezebert": {
        **SIZES,
        "embedding_size": 16,
        "q_groups": 1,
        "k_groups": 1,
        "v_groups": 1,
        "post_attention_groups": 1,
        "intermediate_groups": 1,
        "output_groups": 1,
    },
    "tapas": {**SIZES, "max_position_embeddings": 64},
    "xlm": XLM,
    "xlm-roberta": {**SIZES, **POSITIONS},
    "xlm-roberta-xl": {**SIZES, **POSITIONS},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "xmod": {**SIZES, **POSITIONS, "languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {**SIZES, "max_position_embeddings": 66, "use_expectation": True},
}


def tiny_encoder(kind: str, **changes: Any) -> PreTrainedModel:
    """An encoder of this architecture with weights drawn from one seed."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SPECIAL, **ENCODERS[kind], **changes})
    return AutoModel.from_config(config)


def random_reviews(count: int = 14, width: int = 24) -> Tokens:
    """Random token ids below the vocabulary's size, of random lengths."""
    dice = np.random.default_rng(0)
    length = dice.integers(3, width + 1, count).astype(np.int32)
    ids = dice.integers(5, VOCABULARY, (count, width)).astype(np.uint16)
    ids[np.arange(width) >= length[:, None]] = 0
    numbers = np.arange(count)
    return Tokens(numbers, numbers % 2, ids, length, np.zeros(count, bool), ["a", "b"], PAD, VOCABULARY)

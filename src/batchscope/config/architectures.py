"""What an encoder from scratch takes as ``models.*.config``: found out before anything starts, without transformers."""

from collections.abc import Iterator, Mapping

from batchscope.model.spec import MOST_LAYERS

DEFAULTS: dict[str, dict[str, int]] = {
    "bert": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    },
    "modernbert": {
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
    },
}
"""Architecture → its sizes, whole numbers above 0, and what transformers takes for those that are not given."""
DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "modernbert": ("attention_dropout", "embedding_dropout", "mlp_dropout"),
}
ACTIVATION = {"bert": "hidden_act", "modernbert": "hidden_activation"}
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu"),
    *("relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
)
"""The activations of transformers."""
OURS = {
    "vocab_size": "`vocabulary_size` sets it",
    "pad_token_id": "the tokenizer sets it",
    "is_decoder": "an encoder looks at both sides",
    "is_encoder_decoder": "an encoder has no decoder",
    "add_cross_attention": "an encoder has nothing to attend to but itself",
}


def mistakes(architecture: str, config: Mapping[str, object], max_length: int) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) of an encoder from scratch that is to read ``max_length`` tokens."""
    for key, reason in OURS.items():
        if key in config:
            yield key, f"leave it out: {reason}"
    sizes = {}
    for key, default in DEFAULTS[architecture].items():
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield key, f"must be a whole number above 0 (it is {value!r})"
            return
        sizes[key] = value
    if sizes["num_hidden_layers"] > MOST_LAYERS:
        yield "num_hidden_layers", f"{sizes['num_hidden_layers']} layers are more than {MOST_LAYERS}"
    for key in DROPOUTS[architecture]:
        value = config.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            yield key, f"must be a number from 0 to below 1 (it is {value!r})"
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if hidden % heads:
        yield "num_attention_heads", f"{heads} heads do not divide hidden_size {hidden}"
    elif architecture == "modernbert" and hidden // heads % 2:
        yield "num_attention_heads", f"hidden_size {hidden} over {heads} heads is odd, which rotary positions cannot be"
    positions = sizes["max_position_embeddings"]
    if positions < max_length:
        yield "max_position_embeddings", f"{positions} positions are fewer than data.max_length {max_length}"
    activation = config.get(ACTIVATION[architecture], "gelu")
    if activation not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        yield ACTIVATION[architecture], f"there is no activation {activation!r}; allowed are: {allowed}"

"""What a sample of a contender costs, in floating-point operations."""

from batchscope.model.classifier import build_model
from batchscope.model.flops import training_flops_per_sample
from batchscope.model.spec import ModelSpec
from benchmarks.work import Work


def of_work(work: Work) -> float | None:
    """``training_flops_per_sample`` of a contender's model and tokens."""
    tokens = work.split_tokens("train")
    model = build_model(
        ModelSpec(checkpoint=str(work.checkpoint)), 2, tokens.vocabulary_size, tokens.pad_token_id, work.seed
    )
    return training_flops_per_sample(model.encoder, tokens.input_ids.shape[1])

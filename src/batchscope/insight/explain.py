"""The attention of a finished run for one text, without a study."""

import numpy as np
import torch

from batchscope.data.encode import encode
from batchscope.errors import UserError
from batchscope.files import HALF
from batchscope.insight.attention import measures_of_layers
from batchscope.insight.finished_run import FinishedRun
from batchscope.insight.records import Explanation, ReviewMeasures
from batchscope.insight.rollout import pooled_rollout
from batchscope.insight.token_text import token_texts, word_numbers
from batchscope.insight.weights import attention_maps, class_probabilities, why_no_attention


def explain_text(run: FinishedRun, text: str) -> Explanation:
    """Classes, attention and rollout of one text. Raises UserError for a text without a token."""
    if not text.strip():
        raise UserError("the text is empty")
    if HALF.search(text):
        raise UserError("the text is not UTF-8; convert it")
    encoded = encode(run.tokenizer, [text], run.max_length, run.truncation)
    ids = encoded.input_ids[0, : encoded.length[0]].astype(np.int64)
    on_device = torch.from_numpy(ids).to(run.place.device)
    reason = why_no_attention(run.model, ids)
    weights, layers = np.empty((0, len(ids), len(ids)), np.float32), []
    if reason is None:
        weights, probabilities = attention_maps(run.model, on_device)
        layers = measures_of_layers(weights, run.model.config, np.isin(ids, run.tokenizer.all_special_ids))
    else:
        probabilities = class_probabilities(run.model, on_device)
    prediction = int(probabilities.argmax())
    shares = pooled_rollout(weights) if reason is None else np.empty(0)
    facts: ReviewMeasures = {
        "name": "text",
        "title": "Your text",
        "text": text,
        "label": None,
        "tokens": token_texts(run.tokenizer, ids.tolist()),
        "words": word_numbers(run.tokenizer, ids.tolist()),
        "rollout": shares.tolist(),
        "prediction": prediction,
        "probability": float(probabilities[prediction]),
        "layers": layers,
    }
    return Explanation(facts, probabilities, bool(encoded.truncated[0]), weights, shares, reason)

"""What is in the data: ``data/audit.json``. ``records.Audit`` explains each key."""

from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchscope.data.records import Audit, Crossing, Duplicates, ModelTokens, SplitName, Spread, TokenLengths
from batchscope.data.tables import SPLITS, Corpus, read_corpus, read_split
from batchscope.data.tokens import Tokens, load_tokens
from batchscope.files import write_json


def audit(corpus: Path, split: Path, tokens: dict[str, Path], output: Path) -> None:
    """Write the audit of a corpus, its split and each model's tokens (model name → folder) to ``output``."""
    reviews, ids = read_corpus(corpus), read_split(split)
    words = np.array([len(text.split()) for text in reviews.texts])
    report: Audit = {
        "reviews": len(reviews),
        "classes": reviews.classes,
        "source": reviews.source,
        "splits": {
            name: {
                "reviews": len(ids[name]),
                "per_class": per_class(reviews.label[ids[name]], reviews.classes),
                "words": spread(words[ids[name]]),
            }
            for name in SPLITS
        },
        "tokens": {model: model_tokens(folder) for model, folder in tokens.items()},
        "duplicates": duplicates(reviews, ids),
    }
    write_json(output, report)


def per_class(labels: NDArray[np.int64], classes: list[str]) -> dict[str, int]:
    """Class name → number of ``labels`` [N] of that class."""
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def spread(values: ArrayLike) -> Spread:
    """Minimum, median, mean and maximum of ``values`` [N]."""
    values = np.asarray(values)
    return {
        "minimum": int(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "maximum": int(values.max()),
    }


def duplicates(corpus: Corpus, split: dict[SplitName, NDArray[np.int64]]) -> Duplicates:
    """Exact duplicates in the corpus, within its parts and across the splits (split name → example ids)."""
    _, text = np.unique(np.array(corpus.texts, dtype=object), return_inverse=True)
    occurrences = np.bincount(text)
    lowest = np.full(len(occurrences), len(corpus.classes))
    highest = np.full(len(occurrences), -1)
    np.minimum.at(lowest, text, corpus.label)
    np.maximum.at(highest, text, corpus.label)
    conflicting = lowest != highest
    crossing: list[Crossing] = []
    for name, other in permutations(SPLITS, 2):
        count = int(np.isin(text[split[name]], text[split[other]]).sum())
        crossing.append({"split": name, "other": other, "reviews": count, "share": count / len(split[name])})
    return {
        "groups": int((occurrences > 1).sum()),
        "redundant": _redundant(text),
        "conflicting_groups": int(conflicting.sum()),
        "conflicting_reviews": int(occurrences[conflicting].sum()),
        "within_origin": {
            str(origin): _redundant(text[corpus.origin == origin]) for origin in dict.fromkeys(corpus.origin.tolist())
        },
        "within_split": {name: _redundant(text[split[name]]) for name in SPLITS},
        "crossing": crossing,
    }


def _redundant(text: NDArray[np.intp]) -> int:
    return len(text) - len(np.unique(text))


def model_tokens(folder: Path) -> ModelTokens:
    """Size, truncation and padding of the tokens in ``folder``, split by split."""
    splits = {name: load_tokens(folder / f"{name}.arrow") for name in SPLITS}
    return {
        "max_length": splits["train"].input_ids.shape[1],
        "vocabulary_size": splits["train"].vocabulary_size,
        "splits": {name: _lengths(tokens) for name, tokens in splits.items()},
    }


def _lengths(tokens: Tokens) -> TokenLengths:
    truncated = int(tokens.truncated.sum())
    padding = int(tokens.input_ids.size - tokens.length.sum(dtype=np.int64))
    return {
        "length": spread(tokens.length),
        "truncated": truncated,
        "truncated_share": truncated / len(tokens),
        "padding": padding,
        "padding_share": padding / tokens.input_ids.size,
    }

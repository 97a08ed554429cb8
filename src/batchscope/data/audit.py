"""What is in the data: ``data/audit.json``. Every share stands beside the counts it comes from.

Keys::

    reviews, classes        number of reviews in the corpus; class names in label order
    splits.{split}          reviews; per_class {class: reviews}; words {minimum, median, mean, maximum} per review,
                            words being what white space separates
    tokens.{model}          max_length; vocabulary_size; splits.{split}: length {minimum, median, mean, maximum} in
                            tokens as the model reads the reviews, special ones included; truncated and truncated_share
                            (reviews with more tokens than max_length has room for; how many more is not counted, they
                            are cut before); padding and padding_share (of reviews × max_length)
    duplicates              texts that are equal character for character:
        groups              distinct texts that occur more than once
        redundant           reviews to remove so that every text occurs once
        conflicting_groups  groups whose reviews have different labels
        conflicting_reviews reviews in those groups
        within_origin       {origin: redundant} inside each of the source's own splits
        within_split        {split: redundant} inside each split
        crossing            [{split, other, reviews, share}]: reviews of `split` (and their share of it) whose text
                            also stands in `other`; all ordered pairs
"""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchscope.data.tables import SPLITS, Corpus, read_corpus, read_split
from batchscope.data.tokens import Tokens, load_tokens
from batchscope.files import write_json


def audit(corpus: Path, split: Path, tokens: dict[str, Path], output: Path) -> None:
    """Write the audit of a corpus, its split and each model's tokens (model name → folder) to ``output``."""
    reviews, ids = read_corpus(corpus), read_split(split)
    words = np.array([len(text.split()) for text in reviews.texts])
    report = {
        "reviews": len(reviews),
        "classes": reviews.classes,
        "splits": {
            name: {
                "reviews": len(ids[name]),
                "per_class": per_class(reviews.label[ids[name]], reviews.classes),
                "words": spread(words[ids[name]]),
            }
            for name in SPLITS
        },
        "tokens": {model: _model(folder) for model, folder in tokens.items()},
        "duplicates": duplicates(reviews, ids),
    }
    write_json(output, report)


def per_class(labels: NDArray[np.int64], classes: list[str]) -> dict[str, int]:
    """Class name → number of ``labels`` [N] of that class."""
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def spread(values: ArrayLike) -> dict[str, float]:
    """Minimum, median, mean and maximum of ``values`` [N]."""
    values = np.asarray(values)
    return {
        "minimum": int(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "maximum": int(values.max()),
    }


def duplicates(corpus: Corpus, split: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Exact duplicates in the corpus, within its parts and across the splits (split name → example ids)."""
    _, text = np.unique(np.array(corpus.texts, dtype=object), return_inverse=True)
    occurrences = np.bincount(text)
    lowest = np.full(len(occurrences), len(corpus.classes))
    highest = np.full(len(occurrences), -1)
    np.minimum.at(lowest, text, corpus.label)
    np.maximum.at(highest, text, corpus.label)
    conflicting = lowest != highest
    crossing = []
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


def _model(folder: Path) -> dict[str, Any]:
    splits = {name: load_tokens(folder / f"{name}.arrow") for name in SPLITS}
    return {
        "max_length": splits["train"].input_ids.shape[1],
        "vocabulary_size": splits["train"].vocabulary_size,
        "splits": {name: _lengths(tokens) for name, tokens in splits.items()},
    }


def _lengths(tokens: Tokens) -> dict[str, Any]:
    truncated = int(tokens.truncated.sum())
    padding = int(tokens.input_ids.size - tokens.length.sum(dtype=np.int64))
    return {
        "length": spread(tokens.length),
        "truncated": truncated,
        "truncated_share": truncated / len(tokens),
        "padding": padding,
        "padding_share": padding / tokens.input_ids.size,
    }

"""Dividing the corpus into train, validation and test: ``data/split.parquet``."""

from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from batchscope.data.tables import Corpus, read_corpus, write_split
from batchscope.errors import UserError


def make_split(spec: dict[str, Any], corpus: Path, output: Path) -> None:
    """Write the division that ``spec`` (``method``, ``train``, ``validation``, ``test``, ``seed``) asks for.

    ``pooled`` is the recipe of the reference study: all reviews, two draws of ``datasets``' ``train_test_split``.
    ``official`` keeps the source's test set, and its validation set if there is one; if not, validation is drawn
    from its train set in the proportion of ``validation`` to ``train``.
    Raises UserError if the source has no test set (``official``), a part would be empty or the train split would hold
    one class only.
    """
    reviews = read_corpus(corpus)
    split = _pooled(spec, len(reviews)) if spec["method"] == "pooled" else _official(spec, reviews)
    if len(np.unique(reviews.label[split["train"]])) < 2:
        raise UserError(f"data.split: all {len(split['train'])} reviews of the train split are of one class; take more")
    write_split(split, output)


def _pooled(spec: dict[str, Any], count: int) -> dict[str, NDArray[np.int64]]:
    validation_share, test_share = _exact(spec["validation"]), _exact(spec["test"])
    held_out = validation_share + test_share
    train, rest = _drawn(np.arange(count), held_out, spec["seed"])
    validation, test = _drawn(rest, test_share / held_out, spec["seed"])
    return {"train": train, "validation": validation, "test": test}


def _official(spec: dict[str, Any], corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    train, validation, test = (np.flatnonzero(corpus.origin == name) for name in ("train", "validation", "test"))
    if len(test) == 0:
        raise UserError("data.split.method: `official` needs a source with a test set of its own; take `pooled`")
    if len(validation) == 0:
        share = _exact(spec["validation"])
        train, validation = _drawn(train, share / (_exact(spec["train"]) + share), spec["seed"])
    return {"train": train, "validation": validation, "test": test}


def _exact(share: float) -> Fraction:
    """The decimal the user wrote: in floats 0.1 + 0.2 is above 0.3, and a share of 300 reviews would get 91."""
    return Fraction(repr(share))


def _drawn(ids: NDArray[np.int64], share: Fraction, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``ids`` without a drawn share (its size rounded up), and that share, both in the order of the draw."""
    rows = datasets.Dataset.from_dict({"example_id": ids})
    try:
        halves = rows.train_test_split(test_size=ceil(share * len(ids)), seed=seed)
    except ValueError:
        raise UserError(
            f"data.split: {len(ids)} reviews are too few to set a share of {float(share):g} of them apart"
        ) from None
    remaining, drawn = (np.array(halves[name]["example_id"], dtype=np.int64) for name in ("train", "test"))
    return remaining, drawn

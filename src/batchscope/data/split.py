"""Dividing the corpus into train, validation and test: ``data/split.parquet``."""

import logging
from fractions import Fraction
from math import ceil
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray

from batchscope.certificate.spec import FEWEST_REVIEWS
from batchscope.data.records import SplitName
from batchscope.data.shares import exact
from batchscope.data.spec import SplitSpec
from batchscope.data.tables import Corpus, read_corpus, write_split
from batchscope.errors import UserError, counted

log = logging.getLogger(__name__)
NAMED = 8


def make_split(spec: SplitSpec, corpus: Path, output: Path) -> None:
    """Write the division that ``spec`` asks for to the parquet file ``output``.

    ``pooled`` is the recipe of the reference study: all reviews, two draws of ``datasets``' ``train_test_split``.
    ``official`` keeps the source's test set, and its validation set if there is one; if not, validation is drawn
    from its train set in the proportion of ``validation`` to ``train``.
    Raises UserError if the source has no test set (``official``), a part would be empty, or the train split would hold
    one class only or fewer reviews than the certificate needs.
    """
    reviews = read_corpus(corpus)
    try:
        split = _pooled(spec, len(reviews)) if spec.method == "pooled" else _official(spec, reviews)
    except ValueError:
        counts = f"{len(reviews)} reviews are" if len(reviews) != 1 else "1 review is"
        raise UserError(
            f"data.split: {counts} too few for shares of {spec.train:g}, {spec.validation:g} and {spec.test:g}: train, "
            "validation and test need at least one review each. Add reviews, or change the shares"
        ) from None
    if len(split["train"]) < FEWEST_REVIEWS:
        raise UserError(
            f"data.split: the train split has {counted(len(split['train']), 'review')}, a study needs "
            f"{FEWEST_REVIEWS}: the fewest with which gradient accumulation can be certified. Add reviews, raise "
            "`data.sample`, or give `data.split.train` a larger share"
        )
    present = {name: np.unique(reviews.label[ids]) for name, ids in split.items()}
    if len(present["train"]) < 2:
        only = reviews.classes[int(present["train"][0])]
        raise UserError(
            f"data.split: all {len(split['train'])} reviews of the train split are of class {only!r}; two classes are "
            "needed. Add reviews, or change data.split.seed"
        )
    for name, labels in present.items():
        lost = [repr(reviews.classes[label]) for label in range(len(reviews.classes)) if label not in labels]
        if lost:
            more = f" and {len(lost) - NAMED:,} more classes" if len(lost) > NAMED else ""
            log.warning(f"data.split: the {name} split has no review of {', '.join(lost[:NAMED])}{more}")
    write_split(split, output)


def _pooled(spec: SplitSpec, count: int) -> dict[SplitName, NDArray[np.int64]]:
    validation_share, test_share = exact(spec.validation), exact(spec.test)
    held_out = validation_share + test_share
    train, rest = _drawn(np.arange(count), held_out, spec.seed)
    validation, test = _drawn(rest, test_share / held_out, spec.seed)
    return {"train": train, "validation": validation, "test": test}


def _official(spec: SplitSpec, corpus: Corpus) -> dict[SplitName, NDArray[np.int64]]:
    train, validation, test = (np.flatnonzero(corpus.origin == name) for name in ("train", "validation", "test"))
    for name, ids in (("test", test), ("train", train)):
        if len(ids) == 0:
            raise UserError(
                f"data.split.method: `official` needs a source with a {name} set of its own, such as {name}.csv; take "
                "`pooled`, which divides all reviews anew"
            )
    if len(validation) == 0:
        share = exact(spec.validation)
        train, validation = _drawn(train, share / (exact(spec.train) + share), spec.seed)
    return {"train": train, "validation": validation, "test": test}


def _drawn(ids: NDArray[np.int64], share: Fraction, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``ids`` without a drawn share (its size rounded up), and that share, both in the order of the draw.

    Raises ValueError if either would be empty.
    """
    rows = datasets.Dataset.from_dict({"example_id": ids})
    halves = rows.train_test_split(test_size=ceil(share * len(ids)), seed=seed)
    remaining, drawn = (np.array(halves[name]["example_id"], dtype=np.int64) for name in ("train", "test"))
    return remaining, drawn

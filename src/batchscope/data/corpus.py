"""From a source to one table of labelled reviews: ``data/corpus.parquet``."""

import logging
from dataclasses import replace
from pathlib import Path
from unicodedata import category, normalize

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscope.data.records import ReadPart, SplitName
from batchscope.data.sources import Part, Source, read_source
from batchscope.data.spec import CorpusSpec, SyntheticSpec
from batchscope.data.synthetic import CLASSES, synthetic_reviews
from batchscope.data.tables import Corpus, write_corpus
from batchscope.errors import UserError

log = logging.getLogger(__name__)


def build_corpus(spec: CorpusSpec, output: Path) -> None:
    """Write the corpus that ``spec`` describes to the parquet file ``output``.

    Rows: the source's train set, then its validation set, then its test set, each in the source's order.
    Raises UserError for a source that cannot be read, holds fewer than two classes or as many as reviews, or has too
    few rows for the sample.
    """
    corpus = _joined(read_source(spec)) if spec.synthetic is None else _synthetic(spec.synthetic)
    if spec.sample is not None:
        assert spec.sample_seed is not None
        corpus = sample(corpus, spec.sample, spec.sample_seed)
    for part in corpus.source["read"]:
        log.info(f"data.source: read {part['reviews']:,} reviews of {part['name']} as {part['origin']}")
    present = np.bincount(corpus.label, minlength=len(corpus.classes))
    if np.count_nonzero(present) < 2:
        only = corpus.classes[int(np.argmax(present))]
        raise UserError(
            f"data.label: all {len(corpus)} reviews are of class {only!r}; two classes are needed{_left_out(corpus)}"
        )
    if present.max() == 1 and len(present) > 10:
        raise UserError(
            f"data.label: each of the {len(corpus):,} reviews has a label of its own, from {corpus.classes[0]!r} to "
            f"{corpus.classes[-1]!r}; name the column that holds the class"
        )
    _warn_of_twins(corpus.classes)
    write_corpus(corpus, output)


def sample(corpus: Corpus, size: int, seed: int) -> Corpus:
    """Keep exactly ``size`` reviews, in corpus order, with the corpus's shares of label and origin.

    Each (label, origin) group gives its proportional number rounded down; what is then missing comes from the groups
    with the largest remainders. Raises UserError if ``size`` exceeds the corpus or leaves a class without reviews.
    """
    if size > len(corpus):
        raise UserError(f"data.sample: {size} is more than the {len(corpus)} reviews of the corpus")
    _, group, counts = np.unique(
        np.stack([corpus.label.astype(str), corpus.origin]), axis=1, return_inverse=True, return_counts=True
    )
    quotas = counts * size // len(corpus)
    by_remainder = np.argsort(-(counts * size % len(corpus)), kind="stable")
    quotas[by_remainder[: size - quotas.sum()]] += 1
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(np.flatnonzero(group.ravel() == number))[:quota] for number, quota in enumerate(quotas)
    ]
    kept = np.sort(np.concatenate(chosen))
    lost = np.setdiff1d(corpus.label, corpus.label[kept])
    if len(lost):
        raise UserError(f"data.sample: {size} leaves no review of class {corpus.classes[lost[0]]!r}; take more")
    text, label, origin = corpus.text.take(pa.array(kept)), corpus.label[kept], corpus.origin[kept]
    return replace(corpus, text=text, label=label, origin=origin)


def _synthetic(spec: SyntheticSpec) -> Corpus:
    texts, labels, origins = zip(*synthetic_reviews(spec), strict=True)
    parts: list[tuple[str, SplitName]] = [("first half", "train"), ("second half", "test")]
    read: list[ReadPart] = [
        {"name": name, "origin": origin, "reviews": origins.count(origin)} for name, origin in parts
    ]
    return Corpus(
        text=pa.chunked_array([texts], pa.string()),
        label=np.array(labels),
        origin=np.array(origins),
        classes=list(CLASSES),
        source={"read": read, "left_out": []},
    )


def _joined(source: Source) -> Corpus:
    """One corpus with one numbering of the classes over all parts."""
    parts = source.parts
    if len({part.label.type for part in parts}) > 1:
        raise UserError(f"data.label: numbers in one file and strings in another ({_names(parts)}); use one of them")
    labels, classes = _numbered(parts)
    return Corpus(
        text=pa.chunked_array([chunk for part in parts for chunk in part.text.chunks], pa.string()),
        label=labels,
        origin=np.repeat(np.array([part.origin for part in parts]), [len(part.text) for part in parts]),
        classes=classes,
        source=source.record,
    )


def _numbered(parts: list[Part]) -> tuple[NDArray[np.int64], list[str]]:
    """Labels as indices, and the class names: those the source states, else the sorted values."""
    values = [value for part in parts for value in part.label.to_pylist()]
    stated = next((part.class_names for part in parts if part.class_names is not None), None)
    if stated is None or isinstance(values[0], str):
        classes = sorted(set(values))
        number = {value: index for index, value in enumerate(classes)}
        return np.array([number[value] for value in values], dtype=np.int64), [str(value) for value in classes]
    if any(part.class_names != stated for part in parts):
        given = "; ".join(f"{part.name}: {', '.join(part.class_names or ['none'])}" for part in parts)
        raise UserError(f"data.label: the files do not state the same class names ({given:.300}); write them alike")
    outside = sorted({value for value in values if not 0 <= value < len(stated)})
    if outside:
        count = sum(value in outside for value in values)
        raise UserError(
            f"data.label: {count} labels are {outside[0]}, which is none of the classes 0 to {len(stated) - 1} "
            f"({', '.join(stated)}); remove those rows"
        )
    return np.array(values, dtype=np.int64), stated


def _warn_of_twins(classes: list[str]) -> None:
    """Warns of classes that look alike, such as ``Good`` and ``good``, or an é of one character and of two."""
    spelling: dict[str, str] = {}
    for name in classes:
        seen = "".join(character for character in normalize("NFKC", name) if category(character) != "Cf")
        other = spelling.setdefault(" ".join(seen.casefold().split()), name)
        if other != name:
            capitals = other.lower() == name.lower()
            told = "capitals" if capitals else f"white space or characters that look alike ({other!a}, {name!a})"
            log.warning(f"data.label: {other!r} and {name!r} count as two classes; they differ in {told} alone")


def _left_out(corpus: Corpus) -> str:
    entries = corpus.source["left_out"]
    return "".join(f". Left out: {entry['name']} ({entry['reason']})" for entry in entries[:5])


def _names(parts: list[Part]) -> str:
    return ", ".join(part.name for part in parts)

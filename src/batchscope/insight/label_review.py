"""Labels that people judged anew, and what they make of the accuracies: the file that ``data.label_review`` names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.columns import Columns
from batchscope.data.formats import read_table
from batchscope.data.layout import folder_layout, table_ending
from batchscope.data.spec import CorpusSpec
from batchscope.data.tables import Corpus
from batchscope.errors import UserError
from batchscope.insight.hardest import text_hash
from batchscope.insight.spec import LabelReviewSpec
from batchscope.statistics.relabel import UNDECIDED, correct_of, majority, ranks

TABLE = "label_review.csv"
KEYS = ("text_sha256", "example_id", "id")
VOTES = ("given", "guessed", "votes_given", "votes_guessed")
NEEDS = (
    f"one of the columns {', '.join(KEYS)}, and either new_label (a class; empty where nobody judged) or "
    f"{', '.join(VOTES)} with any other votes_… columns"
)
Row = dict[str, object]


class Rejudged(NamedTuple):
    """The N test reviews of the tokens with the labels that people judged."""

    labels: NDArray[np.int64]
    """``[N]``: the label where nobody judged it; ``UNDECIDED`` where no class has more than half of the votes."""
    judged: int
    """Test reviews that the file judges."""
    rows: int
    """Rows of the file with a judgement."""
    elsewhere: int
    """Rows of reviews that are in the corpus, but not in its test split, or that the corpus left out."""
    unmatched: int
    """Rows whose text is in no review of the corpus; of a file that names reviews by ``id`` there are none."""


def read_rejudged(
    spec: LabelReviewSpec, corpus: Corpus, example_id: NDArray[np.int64], classes: Sequence[str]
) -> Rejudged:
    """The judgements on the test reviews ``example_id`` ``[N]``.

    A review is found by its text, so equal texts share a judgement; if they have several that differ, the label is
    undecided. Raises UserError for a file that cannot be read, for ids that the source does not have, and where the
    file's given labels are not those of the corpus.
    """
    table = _table(Path(spec.source).expanduser())
    verdicts = _verdicts(table, classes, spec.source)
    table, key = table[verdicts.notna()], _key(table, spec.source)
    if table[key].duplicated().any():
        twice = table[key][table[key].duplicated()].iloc[0]
        raise UserError(f"data.label_review: {spec.source} judges {key} {twice!r} twice; keep one row")
    keyed = _hashes(table, spec, corpus)
    verdict_of: dict[str, int] = {}
    for one, verdict in zip(keyed, verdicts.dropna().astype(int), strict=True):
        verdict_of[one] = verdict if verdict_of.setdefault(one, verdict) == verdict else UNDECIDED
    hashes = [text_hash(text) for text in corpus.texts]
    labels_of: dict[str, set[int]] = {}
    for one, label in zip(hashes, corpus.label.tolist(), strict=True):
        labels_of.setdefault(one, set()).add(label)
    _check_given(table, keyed, labels_of, classes, spec.source)
    if not verdict_of.keys() & labels_of.keys():
        found = f"none of the {len(table)} reviews in {spec.source} is in the corpus"
        raise UserError(f"data.label_review: {found}; is it of other data?")
    of_test = [hashes[number] for number in example_id]
    labels = [verdict_of.get(one, int(corpus.label[n])) for one, n in zip(of_test, example_id, strict=True)]
    there, unknown = set(of_test), sum(one not in labels_of for one in keyed)
    return Rejudged(
        labels=np.array(labels, np.int64),
        judged=sum(one in verdict_of for one in of_test),
        rows=len(table),
        elsewhere=sum(one not in there for one in keyed) - (0 if key == "id" else unknown),
        unmatched=0 if key == "id" else unknown,
    )


def review_rows(
    rejudged: Rejudged, labels: NDArray[np.int64], tested: Mapping[int, Sequence[NDArray[np.int64]]]
) -> list[Row]:
    """A row per batch size: accuracy as labelled, and as re-judged over the reviews that are decided.

    ``tested`` maps a batch size to the predictions ``[N]`` of its runs. The ranks say whether the order changes.
    """
    decided = np.where(rejudged.labels == UNDECIDED, UNDECIDED, labels)
    changed = (rejudged.labels != labels) & (rejudged.labels != UNDECIDED)
    rows: list[Row] = []
    for batch, runs in tested.items():
        row: Row = {"target_batch_size": batch, "seeds": len(runs), "file_rows": rejudged.rows}
        row |= {"elsewhere": rejudged.elsewhere, "unmatched": rejudged.unmatched, "judged": rejudged.judged}
        row |= {"changed": int(changed.sum()), "undecided": int((decided == UNDECIDED).sum())}
        for name, truth in (("", labels), ("_decided", decided), ("_rejudged", rejudged.labels)):
            correct, examples = correct_of(runs, truth)
            row |= {f"examples{name}": examples, f"correct{name}": correct}
            row[f"accuracy{name}"] = correct / (examples * len(runs)) if examples else None
        rows.append(row)
    for name in ("", "_rejudged"):
        found = [float(str(row[f"accuracy{name}"])) if row[f"accuracy{name}"] is not None else 0.0 for row in rows]
        for row, rank in zip(rows, ranks(found), strict=True):
            row[f"rank{name}"] = rank
    return rows


# ---------------------------------------------------------------------------------------------------- reading


def _table(path: Path) -> pd.DataFrame:
    """The file's rows, every value as text."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            return table.astype(object).where(table.notna(), "").astype(str)
        separator = "\t" if path.suffix == ".tsv" else ","
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (OSError, ValueError, UnicodeError) as error:
        raise UserError(f"data.label_review: cannot read {path}: {error}") from None


def _key(table: pd.DataFrame, source: str) -> str:
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        raise UserError(f"data.label_review: {source} has the columns {', '.join(table)}; it needs {NEEDS}")
    return key


def _verdicts(table: pd.DataFrame, classes: Sequence[str], source: str) -> pd.Series:
    """Per row the class that was judged, ``UNDECIDED``, or missing where nobody judged."""
    number = {name: place for place, name in enumerate(classes)}
    if "new_label" in table:
        unknown = sorted(set(table.new_label) - number.keys() - {""})
        if unknown:
            raise UserError(
                f"data.label_review: new_label {unknown[0]!r} in {source} is none of the classes {', '.join(classes)}"
            )
        return table.new_label.map(number)
    if not set(VOTES) <= set(table):
        raise UserError(f"data.label_review: {source} has the columns {', '.join(table)}; it needs {NEEDS}")
    others = [name for name in table if name.startswith("votes_") and name not in VOTES]
    found = []
    for row in table.to_dict("records"):
        counts = {_class(row["given"], number, source): _count(row["votes_given"], source)}
        guessed = _class(row["guessed"], number, source)
        counts[guessed] = counts.get(guessed, 0) + _count(row["votes_guessed"], source)
        counts[UNDECIDED] = sum(_count(row[name], source) for name in others)
        found.append(majority(counts))
    return pd.Series(found, index=table.index)


def _class(value: str, number: Mapping[str, int], source: str) -> int:
    """A class by its name or its number."""
    if value in number:
        return number[value]
    if value.isdecimal() and int(value) < len(number):
        return int(value)
    raise UserError(f"data.label_review: {value!r} in {source} is no class of the study: {', '.join(number)}")


def _count(value: str, source: str) -> int:
    if not value.isdecimal():
        raise UserError(f"data.label_review: {value!r} in {source} is no number of votes")
    return int(value)


def _hashes(table: pd.DataFrame, spec: LabelReviewSpec, corpus: Corpus) -> list[str]:
    """The hash of each row's text."""
    key = _key(table, spec.source)
    if key == "text_sha256":
        return [value.lower() for value in table.text_sha256]
    if key == "example_id":
        wrong = [value for value in table.example_id if not value.isdecimal() or int(value) >= len(corpus)]
        if wrong:
            raise UserError(f"data.label_review: example_id {wrong[0]!r} in {spec.source} is no row of the corpus")
        return [text_hash(text) for text in corpus.texts_of(table.example_id.astype(int).to_numpy())]
    texts = _texts_by_id(spec.corpus)
    lacking = [value for value in table.id if value not in texts]
    if lacking:
        raise UserError(
            f"data.label_review: {len(lacking)} of {len(table)} ids in {spec.source} are not in the column `id` of "
            f"data.source, such as {lacking[0]!r}. Name the reviews by text_sha256 instead, of the text in UTF-8"
        )
    return [text_hash(texts[value]) for value in table.id]


def _texts_by_id(spec: CorpusSpec) -> dict[str, str]:
    """The column ``id`` of a local source → text; of the aclImdb layout the path of each file without its ending."""
    if spec.kind != "local" or spec.source is None or spec.text is None:
        raise UserError("data.label_review: only files of data.source have an `id`; name the reviews by text_sha256")
    root, columns = Path(spec.source).expanduser(), Columns(spec.text, "id")
    files = [root] if table_ending(root) else [file.path for file in folder_layout(root).tables]
    found: dict[str, str] = {}
    for file in files:
        try:
            table = read_table(file, columns).table
        except UserError as error:
            raise UserError(f"data.label_review names reviews by `id`, which data.source must have: {error}") from None
        found |= dict(zip(map(str, table["id"].to_pylist()), table[spec.text].to_pylist(), strict=True))
    if not files:
        for folder in folder_layout(root).texts:
            for _, file in folder.files:
                found[file.relative_to(root).with_suffix("").as_posix()] = file.read_text(encoding="utf-8")
    return found


def _check_given(
    table: pd.DataFrame, hashes: Sequence[str], labels_of: Mapping[str, set[int]], classes: Sequence[str], source: str
) -> None:
    """Raises UserError where the file says that a review had another label than it has in the corpus."""
    if "given" not in table:
        return
    number = {name: place for place, name in enumerate(classes)}
    known = [(one, given) for one, given in zip(hashes, table.given, strict=True) if one in labels_of]
    other = [given for one, given in known if _class(given, number, source) not in labels_of[one]]
    if other:
        raise UserError(
            f"data.label_review: {len(other)} of {len(known)} given labels in {source} are not those of the corpus; is "
            "it of another version of the data, or are the classes numbered otherwise?"
        )

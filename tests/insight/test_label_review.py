"""Labels judged anew: votes, matching by id and by text, accuracies counted by hand, refusals that name the file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscope.data.spec import CorpusSpec
from batchscope.data.tables import Corpus
from batchscope.errors import UserError
from batchscope.insight.hardest import text_hash
from batchscope.insight.label_review import Rejudged, read_rejudged, review_rows
from batchscope.insight.spec import LabelReviewSpec
from batchscope.provenance.fingerprint import without_places
from batchscope.statistics.relabel import UNDECIDED, correct_of, majority, ranks

TEXTS = ["good film", "bad film", "fine", "awful", "good film", "train only"]
LABELS = np.array([1, 0, 1, 0, 1, 1])
CLASSES = ["neg", "pos"]
TEST = np.array([4, 3, 2, 1, 0])
CORPUS = Corpus(pa.chunked_array([TEXTS]), LABELS, np.array(["train"] * 6), CLASSES)


def spec(folder: Path, **columns: list[object]) -> LabelReviewSpec:
    """A file of judgements, and a source with ids ``test/0`` to ``test/6``; the last review is not in the corpus."""
    source = pd.DataFrame({"text": [*TEXTS, "sampled away"], "label": [*LABELS, 0]})
    source.assign(id=[f"test/{number}" for number in range(7)]).to_parquet(folder / "reviews.parquet")
    pd.DataFrame(columns).to_parquet(folder / "judged.parquet")
    corpus = CorpusSpec(kind="local", source=str(folder / "reviews.parquet"), content="x", text="text", label="label")
    return LabelReviewSpec(source=str(folder / "judged.parquet"), content="y", corpus=corpus)


def read(wanted: LabelReviewSpec) -> Rejudged:
    return read_rejudged(wanted, CORPUS, TEST, CLASSES)


def votes(**columns: list[object]) -> dict[str, list[object]]:
    """Judgements in the form of votes: changed, undecided, confirmed, elsewhere, not in the corpus."""
    return columns | {
        "given": [1, 0, 0, 1, 0],
        "guessed": [0, 1, 1, 0, 1],
        "votes_given": [0, 2, 4, 0, 0],
        "votes_guessed": [4, 2, 1, 5, 5],
        "votes_neutral": [1, 1, 0, 0, 0],
    }


def test_only_more_than_half_of_all_votes_decides() -> None:
    assert majority({0: 3, 1: 2}) == 0 and majority({0: 1, 1: 3, UNDECIDED: 1}) == 1
    assert majority({0: 2, 1: 2}) == majority({0: 2, 1: 1, UNDECIDED: 2}) == majority({0: 0}) == UNDECIDED
    assert ranks([0.9, 0.95, 0.9, 0.9, 0.8]) == [2, 1, 2, 2, 5]


def test_right_predictions_are_counted_where_the_label_is_decided() -> None:
    runs = [np.array(said) for said in ([0, 0, UNDECIDED, 1], [0, 1, 0, 0])]
    assert correct_of(runs, np.array([0, 1, UNDECIDED, 1])) == (4, 3)


def test_votes_are_matched_by_the_source_s_ids(tmp_path: Path) -> None:
    found = read(spec(tmp_path, **votes(id=["test/0", "test/1", "test/3", "test/5", "test/6"])))
    assert found.labels.tolist() == [0, 0, 1, UNDECIDED, 0], "both reviews with the text of test/0 change"
    assert (found.judged, found.rows, found.elsewhere, found.unmatched) == (4, 5, 2, 0)


def test_hashes_may_match_no_review_and_are_counted(tmp_path: Path) -> None:
    hashes = [text_hash(text) for text in ("good film", "awful", "another corpus")]
    found = read(spec(tmp_path, text_sha256=hashes, new_label=["neg", "", "pos"]))
    assert found.labels.tolist() == [0, 0, 1, 0, 0]
    assert (found.judged, found.rows, found.elsewhere, found.unmatched) == (2, 2, 0, 1)


def test_judgements_of_equal_texts_that_differ_decide_nothing(tmp_path: Path) -> None:
    found = read(spec(tmp_path, example_id=[0, 4], new_label=["neg", "pos"]))
    assert found.labels.tolist() == [UNDECIDED, 0, 1, 0, UNDECIDED]


def test_the_accuracies_are_those_counted_by_hand() -> None:
    labels = LABELS[TEST]  # 1 0 1 0 1
    rejudged = Rejudged(np.array([0, 0, 1, UNDECIDED, 0]), judged=4, rows=5, elsewhere=2, unmatched=0)
    small, large = np.array([1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 0])
    rows = review_rows(rejudged, labels, {16: [small], 64: [large, large]})
    first, second = rows
    assert (first["changed"], first["undecided"]) == (2, 1)
    assert (first["accuracy"], first["accuracy_decided"], first["accuracy_rejudged"]) == (1.0, 1.0, 0.5)
    assert (second["accuracy"], second["accuracy_decided"], second["accuracy_rejudged"]) == (0.4, 0.5, 1.0)
    assert [(row["rank"], row["rank_rejudged"]) for row in rows] == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (votes(id=["test/0", "test/1", "test/3", "x", "y"]), r"2 of 5 ids .* such as 'x'"),
        ({"id": ["test/0"]}, "has the columns id; it needs one of"),
        ({"label": ["pos"], "new_label": ["pos"]}, "it needs one of the columns text_sha256, example_id, id"),
        ({"example_id": [9], "new_label": ["pos"]}, "'9' .* is no row of the corpus"),
        ({"example_id": [0], "new_label": ["positive"]}, "'positive' .* is none of the classes neg, pos"),
        ({"example_id": [0, 0], "new_label": ["pos", "pos"]}, "judges example_id '0' twice"),
        ({"text_sha256": ["00"], "new_label": ["pos"]}, "none of the 1 reviews .* is in the corpus"),
        (votes(id=["test/1", "test/0", "test/3", "test/5", "test/6"]), "2 of 4 given labels .* are not those"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(spec(tmp_path, **columns))


def test_the_places_of_file_and_source_do_not_count(tmp_path: Path) -> None:
    plain = without_places({"label_review": spec(tmp_path, example_id=[0], new_label=["pos"]).plain()})
    assert str(tmp_path) not in str(plain) and "'content': 'y'" in str(plain)

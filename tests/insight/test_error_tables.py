"""The stage that tells the errors: its tables agree with the predictions, counted one by one."""

from dataclasses import replace
from pathlib import Path

import fabricate
import fabricate_reviews
import numpy as np
import pandas as pd
import pytest

from batchscope.data.tables import read_corpus
from batchscope.data.tokens import load_tokens, write_tokens
from batchscope.errors import UserError
from batchscope.insight.errors import measure_errors
from batchscope.insight.hardest import text_hash
from batchscope.insight.reading import Reader
from batchscope.insight.spec import ErrorsSpec
from batchscope.report.spec import ReportSpec

REPORT = fabricate.spec(models={"bert": {"architecture": "bert"}}, target_batch_sizes=[16, 64])


def spec_of(report: ReportSpec, hardest: int = 5, **changes: object) -> ErrorsSpec:
    return ErrorsSpec.model_validate(
        {"cells": report.cells, "boundary": 0.5, "hardest": hardest, "truncation": "head"} | changes
    )


def made(folder: Path, report: ReportSpec, truncation: str = "head") -> Path:
    """A fabricated study with the texts and tokens of its test reviews, in an order of their own."""
    if not folder.exists():
        fabricate.study_folder(folder, report, examples=128)
    classes = ["negative", "positive"]
    fabricate_reviews.write_test_reviews(folder, ["bert"], report.cells[0].run, classes, truncation=truncation)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(tmp_path_factory.mktemp("errors") / "study", REPORT)
    measure_errors(spec_of(REPORT), folder)
    return folder


def predictions(folder: Path, run: str) -> pd.DataFrame:
    table = pd.read_parquet(folder / "runs" / run / "predictions.parquet")
    table = table[(table.split == "test") & (table.checkpoint == "best")].set_index("example_id")
    return table.assign(wrong=(table.logit_1 > table.logit_0).astype(int) != table.label)


def test_every_review_is_counted_over_all_runs(study: Path) -> None:
    folder = study
    runs = {run: predictions(folder, run) for run in dict.fromkeys(cell.run for cell in REPORT.cells)}
    errors = pd.read_csv(folder / "tables/errors.csv")
    assert len(errors) == 300 and set(errors.runs) == {len(runs)}
    assert list(errors.wrong) == sorted(errors.wrong, reverse=True)
    for row in errors.itertuples():
        wrong = [bool(table.wrong[row.example_id]) for table in runs.values()]
        assert row.wrong == sum(wrong)
        assert row.verdict == ("always" if all(wrong) else "sometimes" if any(wrong) else "never")
        assert (row.lowest_margin < 0) == any(wrong)

    groups = pd.read_csv(folder / "tables/error_groups.csv")
    cells = [cell for cell in REPORT.cells if (cell.policy, cell.batch) == ("constant", 64)]
    right = sum(int((~runs[cell.run].wrong).sum()) for cell in cells)
    mine = groups[(groups.lr_policy == "constant") & (groups.target_batch_size == 64)]
    assert mine.groupby("by").correct.sum().to_dict() == dict.fromkeys(("class", "tokens", "truncated"), right)
    assert mine.groupby("by").examples.sum().to_dict() == dict.fromkeys(("class", "tokens", "truncated"), 300)

    flips = pd.read_csv(folder / "tables/flips.csv").set_index("lr_policy").loc["constant"]
    one, two = (runs[f"bert/bs64/constant/seed{seed}"].wrong.sort_index() for seed in (1, 2))
    small = [
        runs[next(c.run for c in REPORT.cells if (c.batch, c.policy, c.seed) == (16, "constant", s))] for s in (1, 2)
    ]
    smaller = [table.wrong.sort_index() for table in small]
    between_seeds = ((one != two).mean() + (smaller[0] != smaller[1]).mean()) / 2
    assert flips.between_seeds == pytest.approx(between_seeds)
    assert flips.between_batch_sizes == pytest.approx(((one != smaller[0]).mean() + (two != smaller[1]).mean()) / 2)
    margins = pd.read_csv(folder / "tables/margins.csv")
    assert margins.groupby(["lr_policy", "target_batch_size"]).margin.is_monotonic_increasing.all()


def test_one_run_has_no_ratio_and_reviews_of_other_tokens_are_refused(tmp_path: Path) -> None:
    one = REPORT.model_copy(update={"cells": REPORT.cells[:1]})
    folder = made(tmp_path / "one", one)
    measure_errors(spec_of(one), folder)
    (row,) = pd.read_csv(folder / "tables/flips.csv").itertuples()
    assert row.reason == "needs two batch sizes and two seeds" and row.pairs_of_seeds == 0
    counts = pd.read_csv(folder / "tables/error_counts.csv")
    assert list(counts.run_count) == [1, 1] and list(counts.sometimes) == [0, 0]
    tokens = load_tokens(folder / "tokens/bert/test.arrow")
    write_tokens(replace(tokens, example_id=tokens.example_id - 1000), folder / "tokens/bert/test.arrow")
    with pytest.raises(UserError, match="is not of the test reviews in the tokens"):
        measure_errors(spec_of(one), folder)


def test_counts_of_a_cell_are_those_of_its_predictions(study: Path) -> None:
    folder = study
    counts = pd.read_csv(folder / "tables/error_counts.csv")
    mine = counts[counts.lr_policy == "constant"].set_index("target_batch_size")
    runs = {seed: predictions(folder, f"bert/bs64/constant/seed{seed}") for seed in (1, 2)}
    wrong = pd.concat([table.wrong.sort_index() for table in runs.values()], axis=1)
    gaps = [(table.logit_1 - table.logit_0).abs().sort_index() for table in runs.values()]
    near = pd.concat(gaps, axis=1).to_numpy() < 0.5
    row = mine.loc[64]
    assert (row.run_count, row.examples, row.wrong) == (2, 300, wrong.to_numpy().sum())
    assert (row.always, row.never) == (wrong.all(axis=1).sum(), (~wrong.any(axis=1)).sum())
    assert row.sometimes == 300 - row.always - row.never
    assert row.near_boundary == near.sum()
    assert row.wrong_near_boundary == (wrong.to_numpy() & near).sum()
    both = mine[mine.index.isna()].iloc[0]
    assert both.run_count == 4 and both.wrong == mine[mine.index.notna()].wrong.sum()


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_the_hardest_reviews_come_with_what_the_model_does_not_read(study: Path, truncation: str) -> None:
    folder = made(study, REPORT, truncation)
    measure_errors(spec_of(REPORT, hardest=8, truncation=truncation), folder)
    hardest = pd.read_csv(folder / "tables/hardest.csv", keep_default_na=False)
    errors = pd.read_csv(folder / "tables/errors.csv")
    assert list(hardest.example_id) == list(errors.example_id[:8]) and list(hardest.wrong) == list(errors.wrong[:8])
    corpus, tokens = read_corpus(folder / "data/corpus.parquet"), load_tokens(folder / "tokens/bert/test.arrow")
    words = fabricate_reviews.tokenizer()
    for row in hardest.itertuples():
        assert row.text == corpus.texts[row.example_id] and row.text_sha256 == text_hash(row.text)
        assert row.cut == row.text[row.cut_from : row.cut_to] and row.new_label == ""
        place = int(np.flatnonzero(tokens.example_id == row.example_id)[0])
        assert bool(row.cut) == tokens.truncated[place]
        read = words.encode(f"{row.text[: row.cut_from]} {row.text[row.cut_to :]}").ids
        assert read == tokens.input_ids[place, : tokens.length[place]].tolist()
        assert row.wrong_at_16 + row.wrong_at_64 == row.wrong and row.runs_at_16 + row.runs_at_64 == row.runs
    runs = pd.read_csv(folder / "tables/hardest_runs.csv")
    assert len(runs) == 8 * errors.runs[0]
    assert dict(runs.groupby("example_id").right.sum()) == {
        row.example_id: row.runs - row.wrong for row in hardest.itertuples()
    }


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    reader = Reader(fabricate_reviews.tokenizer(), "head", tmp_path / "tokenizer.json")
    text = "the film was slow ."
    ids = np.array(reader.tokenizer.encode(text).ids)
    assert reader.cut(text, ids) == (len(text), len(text))
    assert text[slice(*reader.cut(text, np.array([2, *ids[1:3], 3])))] == " was slow ."
    with pytest.raises(UserError, match="does not give the tokens of the test reviews"):
        reader.cut(text, ids + 1)

"""The stage that tells the errors: its tables agree with the predictions, counted one by one."""

from pathlib import Path

import fabricate
import numpy as np
import pandas as pd
import pytest

from batchscope.data.tokens import Tokens, write_tokens
from batchscope.errors import UserError
from batchscope.insight.errors import measure_errors
from batchscope.insight.spec import ErrorsSpec
from batchscope.report.spec import ReportSpec

REPORT = fabricate.spec(models={"bert": {"architecture": "bert"}}, target_batch_sizes=[16, 64])


def made(folder: Path, report: ReportSpec, first_id: int = 1000) -> Path:
    """A fabricated study, and test tokens for its predictions, in an order of their own."""
    fabricate.study_folder(folder, report, examples=128)
    order = np.random.default_rng(0).permutation(300)
    length = (order % 50 + 5).astype(np.int32)
    ids = np.ones((300, 60), np.uint16)
    tokens = Tokens(order + first_id, order % 2, ids, length, length > 50, ["negative", "positive"], 0, 10)
    write_tokens(tokens, folder / "tokens/bert/test.arrow")
    return folder


def predictions(folder: Path, run: str) -> pd.DataFrame:
    table = pd.read_parquet(folder / "runs" / run / "predictions.parquet")
    table = table[(table.split == "test") & (table.checkpoint == "best")].set_index("example_id")
    return table.assign(wrong=(table.logit_1 > table.logit_0).astype(int) != table.label)


def test_every_review_is_counted_over_all_runs(tmp_path: Path) -> None:
    folder = made(tmp_path, REPORT)
    measure_errors(ErrorsSpec(cells=REPORT.cells), folder)
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
    measure_errors(ErrorsSpec(cells=one.cells), folder)
    (row,) = pd.read_csv(folder / "tables/flips.csv").itertuples()
    assert row.reason == "needs two batch sizes and two seeds" and row.pairs_of_seeds == 0
    with pytest.raises(UserError, match="is not of the test reviews in the tokens"):
        measure_errors(ErrorsSpec(cells=one.cells), made(tmp_path / "other", one, first_id=0))

"""The charts' rows hold what the tables hold, their titles what the verdicts say, and their data ends no script."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair
import fabricate
import pandas as pd
import pytest

from batchscope.report import chart_rows, inlined, messages
from batchscope.report.chart_rows import Rows, run_rows, training_rows, validation_rows
from batchscope.report.embedded_data import json_island
from batchscope.report.findings import read_csv, read_findings
from batchscope.report.finished import Finished
from batchscope.report.page_charts import chart_islands
from batchscope.report.tables import write_tables
from batchscope.report.visible import visible
from batchscope.statistics.conclusions import conclude
from batchscope.statistics.records import Finding

SPEC = fabricate.spec(
    models={"bert": {"architecture": "bert"}},
    target_batch_sizes=[16, 64],
    budgets={"short": {"epochs": 1}, "even": {"updates": 300}},
)
EXAMPLES = 1024


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate.study_folder(tmp_path_factory.mktemp("charts"), SPEC, examples=EXAMPLES, test=100, tokens=6)
    write_tables(SPEC, folder)
    return folder


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows.values, columns=rows.columns)


def tables(study: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    results = pd.read_parquet(study / "tables/results.parquet")
    return results, chart_rows.read_updates(study / "tables", results.run), read_csv(study / "tables", "curves")


def test_a_training_curve_adds_up_every_update_once(study: Path) -> None:
    """Against the history, added up one update after another."""
    results, updates, reached = tables(study)
    rows, together = training_rows(results, updates, reached, EXAMPLES)
    curves = frame(rows)
    assert not together
    assert curves.groupby("run").size().max() <= chart_rows.POINTS < updates.groupby("run").size().max()
    for place, own in curves.groupby("run"):
        history = updates[updates.run == results.run[place]]
        correct, losses, last = 0, 0.0, 0
        for one in history.itertuples():
            correct, losses, last = correct + one.correct, losses + one.loss * one.examples, one.update
        assert (own.correct.sum(), own["update"].max(), own.n.sum()) == (correct, last, history.examples.sum())
        assert own.loss.sum() == pytest.approx(losses, rel=1e-4)
        assert own.lr_sum.iloc[-1] == pytest.approx(history.lr.sum(), rel=1e-4)
        assert own.epoch.iloc[-1] == pytest.approx(history.samples.iloc[-1] / EXAMPLES, rel=1e-4)


def test_of_many_runs_the_seeds_of_a_cell_are_added_up(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, updates, reached = tables(study)
    alone = frame(training_rows(results, updates, reached, EXAMPLES)[0])
    monkeypatch.setattr(chart_rows, "MOST_CURVES", 3)
    rows, together = training_rows(results, updates, reached, EXAMPLES)
    cells = frame(rows)
    assert together
    assert cells.run.nunique() < alone.run.nunique()
    assert cells[["n", "correct"]].sum().tolist() == alone[["n", "correct"]].sum().tolist()


def test_a_cell_that_shares_a_run_names_its_first_reader(study: Path) -> None:
    results, _, reached = tables(study)
    runs = frame(run_rows(SPEC, results))
    assert runs.shared.any()
    assert all(results.run[one.first] == one.name for one in runs.itertuples(index=False))
    assert set(frame(validation_rows(results, reached, EXAMPLES)).run) == set(runs["first"])
    assert runs.slot.between(0, 1).all()


def test_specifications_are_vega_lite_and_hold_no_name_as_field_or_in_an_expression(study: Path) -> None:
    finished = Finished.read(SPEC, study)
    islands = chart_islands(finished.grid, finished, study, conclude(finished.findings), checked=True)
    charts = json.loads(re.sub(r"<[^>]*>", "", str(islands[2])))
    names = {*SPEC.model_names, *SPEC.policy_names, *SPEC.budget_names}
    for chart in charts:
        known = {*chart["rows"]["columns"], *json.loads(re.sub(r"<[^>]*>", "", str(islands[0])))["columns"]}
        known |= {"x", "y", "bound", "kind", "seeds", "tip"}
        for key, value in pairs(chart["spec"]):
            if key == "field":
                assert value in known, (chart["name"], value)
            if key in ("filter", "test", "expr", "labelExpr", "calculate"):
                assert not any(name in str(value) for name in names)
        assert {"url", "href", "signal"}.isdisjoint({key for key, _ in pairs(chart["spec"])})


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value with what it holds."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield key, inner
        if isinstance(inner, dict | list):
            yield from pairs(inner)


def test_an_island_is_one_element_whatever_is_in_it() -> None:
    value = {"</script><script>x": ["<!--", "a & b", "\u2028", 1.5, math.nan, math.inf, None, True, "\x1b[1m\u202eabc"]}
    island = str(json_island("any", value))
    text = island.removeprefix('<script type="application/json" id="data-any">').removesuffix("</script>")
    assert not re.search("[<>&\u2028\u2029\x1b\u202e]", text)
    ((key, read),) = json.loads(text).items()
    assert key == "</script><script>x"
    assert read == ["<!--", "a & b", "\u2028", 1.5, None, None, None, True, "[U+001B][1m[U+202E]abc"]
    assert visible("naïve\tשלום\n") == "naïve\tשלום\n"


def test_the_runtime_reads_what_altair_writes() -> None:
    runtime = (inlined.FOLDER / "vega.js").read_text(encoding="utf-8")
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    assert f"Vega-Lite {version}," in runtime.splitlines()[0], "make vega"
    assert "BSD 3-Clause" in runtime[:500]


def test_our_scripts_stay_small() -> None:
    own = [path for path in inlined.FOLDER.glob("*.js") if path.name != "vega.js"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in own) < 800
    assert {path.name for path in inlined.FOLDER.glob("*.js")} == set(inlined.SCRIPTS)


def said(study: Path, **changes: Any) -> str:
    """The title of the accuracy chart, with other verdicts; ``changes`` maps a budget to verdict and difference."""
    found: list[Finding] = []
    for one in read_findings(study):
        verdict, difference = changes[one.budget]
        if one.factor == "batch_size":
            found.append(one._replace(verdict=verdict, difference_points=difference))
    return messages.accuracy_message(SPEC, conclude(found))


@pytest.mark.parametrize(
    ("short", "even", "title"),
    [
        (("different", -2), ("equivalent", 0.1), "Larger batches lose points only at equal epochs"),
        (
            ("different", -2),
            ("underpowered", -1),
            "Larger batches lose points at equal epochs; at equal updates no loss is established",
        ),
        (("different", 2), ("different", 1), "Larger batches gain points at equal epochs and at equal updates"),
        (("different", -2), ("different", 2), "Of 4 contrasts, a larger batch loses points in 2 and gains points in 2"),
        (("equivalent", 0), ("equivalent", 0), "All batch sizes are equivalent within 0.5 points"),
        (("equivalent", 0), ("undecided", 0), "No difference between batch sizes is established"),
        (("did not learn", 0), ("did not learn", 0), "Every contrast includes a run that did not learn"),
    ],
)
def test_the_title_says_what_the_verdicts_say(study: Path, short: Any, even: Any, title: str) -> None:
    assert said(study, short=short, even=even) == title

"""Several budgets and a learning-rate sweep, from the tables to the page; no test of a rate not chosen is anywhere."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import fabricate
import numpy as np
import pandas as pd
import pytest

from batchscope.files import read_json, write_json
from batchscope.report.catalogue import figure_names
from batchscope.report.curves import CLOCKS, training_figure, validation_cost_figure
from batchscope.report.figures import accuracy_figure, cost_figure
from batchscope.report.page import write_report
from batchscope.report.sweep import chosen_by, sweep_figures
from batchscope.report.tables import write_tables

RATES = [5e-4, 1e-3, 2e-3]
SPEC = fabricate.spec(
    models={"bert": {"architecture": "bert"}},
    target_batch_sizes=[16, 64],
    lr_policies={"constant": {"base_lr": 1e-3}, "tuned": {"sweep": RATES}},
    budgets={"short": {"epochs": 1}, "even": {"updates": 12}},
    validate_every={"updates": 2},
    select_from="all",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study, from its runs to its page; with small pictures in place of its figures."""
    folder = fabricate.study_folder(tmp_path_factory.mktemp("axes"), SPEC, examples=256, effect=0.1)
    write_tables(SPEC, folder)
    fabricate.small_figures(folder, SPEC)
    write_report(SPEC, folder)
    return folder


def table(study: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(study / f"tables/{name}.csv", keep_default_na=False)


def test_validation_alone_chooses_the_mean_over_seeds(study: Path) -> None:
    made = table(study, "tuning")
    assert len(made) == 4
    for one in made.to_dict("records"):
        means = {}
        for rate in RATES:
            place = f"bert/bs{one['target_batch_size']}/tuned@{rate!r}/{one['budget']}"
            best = [read_json(path)["validation"]["best"] for path in (study / "runs" / place).glob("*/metrics.json")]
            read = [f"bert/bs{one['target_batch_size']}/constant/{one['budget']}"] if not best else []
            for shared in read:
                paths = (study / "runs" / shared).glob("*/metrics.json")
                best = [read_json(path)["validation"]["best"] for path in paths]
            assert len(best) == 2
            means[rate] = sum(scores["correct"] for scores in best) / sum(scores["examples"] for scores in best)
        assert one["validation_accuracy"] == max(means.values())
        assert means[one["learning_rate"]] == one["validation_accuracy"]


def test_the_results_have_the_chosen_rate_under_the_name_of_the_sweep(study: Path) -> None:
    results, made = table(study, "results"), table(study, "tuning")
    assert set(results.lr_policy) == {"constant", "tuned"} and len(results) == 2 * 2 * 2 * 2
    rates = {(one.budget, one.target_batch_size): one.learning_rate for one in made.itertuples()}
    for row in results[results.lr_policy == "tuned"].itertuples():
        assert row.learning_rate == rates[row.budget, row.target_batch_size]
    grid = chosen_by(SPEC, pd.read_parquet(study / "tables/results.parquet"))
    assert [cell.run for cell in grid.cells] == results.run.tolist()


def spoil(run: Path) -> None:
    """Another test of a run: other metrics, and predictions that cannot be read."""
    metrics = read_json(run / "metrics.json")
    for checkpoint in ("best", "last"):
        metrics["test"][checkpoint] |= {"correct": 1, "accuracy": 0.12345, "confusion": [[1, 0], [0, 0]]}
    write_json(run / "metrics.json", metrics)
    (run / "predictions.parquet").write_bytes(b"no table")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "tables").iterdir())}


def test_the_test_of_a_rate_that_was_not_chosen_enters_no_table(tmp_path: Path) -> None:
    folder = fabricate.study_folder(tmp_path, SPEC, examples=128)
    write_tables(SPEC, folder)
    before = files(folder)
    shown = set(pd.read_parquet(folder / "tables/results.parquet").run)
    others = {cell.run for cell in SPEC.cells} - shown
    assert others
    for run in others:
        spoil(folder / "runs" / run)
    write_tables(SPEC, folder)
    assert files(folder) == before


def test_budgets_are_apart_in_every_table(study: Path) -> None:
    for name in ("results", "summary", "contrasts", "pairs", "cost", "horizon", "classes", "noise_scale"):
        assert set(table(study, name).budget) == {"short", "even"}, name
    summary = table(study, "summary")
    updates = {(row.budget, row.target_batch_size): row.updates for row in summary.itertuples()}
    assert updates == {("short", 16): 16, ("short", 64): 4, ("even", 16): 12, ("even", 64): 12}
    for row in table(study, "pairs_by_seed").itertuples():
        assert f"/{row.budget}/" in row.smaller_run and f"/{row.budget}/" in row.larger_run


def test_a_figure_shows_one_budget_at_a_time(study: Path) -> None:
    results, history = (pd.read_parquet(study / f"tables/{name}.parquet") for name in ("results", "history"))
    grid = chosen_by(SPEC, results)
    titles = [axis.get_title(loc="left") for axis in accuracy_figure(grid, results).axes]
    assert titles == ["bert, short", "bert, even"]
    figure = training_figure(grid.of_budget("even"), history, "bert", "loss", "bert, even")
    assert max(line.get_xdata().max() for line in figure.axes[0].lines) == 12
    labels = [label.get_text() for label in cost_figure(grid, results).axes[0].get_yticklabels()]
    assert "bert · 16 · constant · short" in labels and "bert · 64 · tuned · even" in labels


def test_the_heat_map_has_every_trial_a_frame_around_each_choice_and_three_rules(study: Path) -> None:
    figures = sweep_figures(SPEC, study / "tables")
    assert set(figures) == {"sweep_bert", "best_of_n_bert"}
    made = table(study, "tuning")
    for axis, budget in zip(figures["sweep_bert"].axes, ("short", "even"), strict=True):
        assert len(axis.texts) == 2 * len(RATES) and len(axis.patches) == 2 and len(axis.lines) == 3
        first = made[(made.budget == budget) & (made.target_batch_size == 16)].learning_rate.item()
        ends = [np.interp(np.log2([16, 64]), line.get_xdata(), line.get_ydata()) for line in axis.lines]
        assert [10 ** end[0] for end in ends] == pytest.approx([first] * 3)
        assert [10 ** (end[1] - end[0]) for end in ends] == pytest.approx([1, 2, 4])


def test_every_row_of_the_latex_summary_names_its_cell(study: Path) -> None:
    text = (study / "tables/summary.tex").read_text(encoding="utf-8")
    rows = [line.split(" & ") for line in text.splitlines() if line.endswith(r"\\")][1:]
    named = {(batch, policy, budget) for _, batch, policy, budget, *_ in rows}
    assert len(named) == len(rows) and {budget for _, _, budget in named} == {"short", "even"}


def test_the_page_shows_budgets_and_sweep(study: Path) -> None:
    names = {entry.name for entry in figure_names(SPEC)}
    assert {"training_loss_bert_short.png", "training_loss_bert_even.png", "best_of_n_bert.svg"} <= names
    html = (study / "report/index.html").read_text(encoding="utf-8")
    shown = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    assert shown.count("<img ") == sum(name.endswith(".png") for name in names)
    for said in ("The budgets side by side", "Learning-rate sweep", "Adam's horizon", "bert, short", "bert, even"):
        assert said.replace("'", "&#39;") in html or said in html, said
    assert "rank the batch sizes alike" in html or "The ranking of batch sizes depends on the budget" in html
    assert "With two target batch sizes both test the same difference" in html


@pytest.mark.parametrize(
    ("shows", "wanted"), [(lambda made: made.edge != "", True), (lambda made: made.edge == "", False)]
)
def test_the_page_says_which_choices_are_at_an_edge(
    study: Path, shows: Callable[[pd.DataFrame], pd.Series], wanted: bool
) -> None:
    made = table(study, "tuning")
    text = (study / "report/summary.md").read_text(encoding="utf-8")
    sentence = re.search(r"at an edge of the sweep: (.*?)\. A better rate", text)
    for one in made[shows(made)].itertuples():
        cell = f"bert, {one.budget}, batch size {one.target_batch_size}"
        assert (sentence is not None and cell in sentence[1]) == wanted


def test_curves_have_every_validation_at_every_clock(study: Path) -> None:
    """Recomputed from the runs' own files."""
    curves, results = table(study, "curves"), table(study, "results")
    assert set(curves.run) == set(results.run)
    for run in results.run.iloc[[0, -1]]:
        lines = [json.loads(line) for line in (study / "runs" / run / "history.jsonl").read_text().splitlines()]
        facts = read_json(study / "runs" / run / "train.json")
        reached = [line for line in lines if line["kind"] != "update"]
        mine = curves[curves.run == run].to_dict("records")
        assert [row["update"] for row in mine] == [line["update"] for line in reached]
        for row, line, time in zip(mine, reached, facts["validation_times"], strict=True):
            rates = [one["lr"] for one in lines if one["kind"] == "update" and one["update"] <= line["update"]]
            assert row["lr_sum"] == pytest.approx(sum(rates))
            assert row["flops"] == line["samples"] * facts["training_flops_per_sample"]
            assert (row["seconds"], row["kind"]) == (time["seconds"], line["kind"])
            assert row["validation_correct"] == line["validation"]["correct"]
        assert [row["update"] for row in mine if row["best"]] == [facts["best_update"]]


def test_the_figure_at_equal_cost_has_a_panel_per_clock_and_policy(study: Path) -> None:
    results, reached = pd.read_parquet(study / "tables/results.parquet"), pd.read_csv(study / "tables/curves.csv")
    grid = chosen_by(SPEC, results).of_budget("even")
    figure = validation_cost_figure(grid, reached, "bert", "bert, even")
    assert len(figure.axes) == 2 * 5
    assert [axis.get_xlabel() for axis in figure.axes[5:]] == list(CLOCKS.values())
    without = validation_cost_figure(grid, reached.assign(flops=np.nan), "bert", "bert, even")
    assert len(without.axes) == 2 * 4, "a clock that was not measured has no panel"


def test_short_runs_are_said_to_be_too_short_for_adam(study: Path) -> None:
    html = (study / "report/index.html").read_text(encoding="utf-8")
    assert "second moment averages over more updates than the run makes in 8 of 8 cells" in html

"""The tables agree with what a slow recomputation from the runs' own files gives."""

import math
from pathlib import Path
from statistics import mean, stdev

import fabricate
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score
from slow_statistics import reference_crossed, reference_holm, reference_mcnemar

from batchscope.config.study import Cell
from batchscope.errors import UserError
from batchscope.files import DamagedFileError, read_json, write_json
from batchscope.insight.calibration import TABLES as CALIBRATION
from batchscope.report.catalogue import PLAIN_TABLES, SHOWN_TABLES
from batchscope.report.sections import cost_table
from batchscope.report.tables import flatten, write_tables

SPEC = fabricate.spec()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate.study_folder(tmp_path_factory.mktemp("study"), SPEC, effect=0.06)
    write_tables(SPEC, folder)
    return folder


def predictions(study: Path, run: str, split: str, checkpoint: str) -> pd.DataFrame:
    rows = pd.read_parquet(study / "runs" / run / "predictions.parquet")
    rows = rows[(rows.split == split) & (rows.checkpoint == checkpoint)].sort_values("example_id")
    return rows.assign(correct=(rows.logit_1 > rows.logit_0).astype(int) == rows.label)


def test_one_row_per_cell_from_the_run_it_reads(study: Path) -> None:
    results = pd.read_parquet(study / "tables/results.parquet")
    assert len(results) == len(SPEC.cells) == 24
    assert results.run.nunique() == 20
    for cell, row in zip(SPEC.cells, results.to_dict("records"), strict=True):
        assert row["shared"] == (cell.run != Cell(cell.model, cell.batch, cell.policy, cell.seed, cell.budget).path)
        for split in ("validation", "test"):
            for checkpoint, suffix in (("best", ""), ("last", "_last")):
                right = predictions(study, cell.run, split, checkpoint).correct
                assert row[f"{split}_correct{suffix}"] == right.sum()
                assert row[f"{split}_accuracy{suffix}"] == int(right.sum()) / len(right)
    assert list(pd.read_csv(study / "tables/results.csv").columns) == list(results.columns)


def test_summary_is_mean_and_sample_sd_over_seeds(study: Path) -> None:
    summary = pd.read_csv(study / "tables/summary.csv").to_dict("records")
    assert len(summary) == 12
    for row in summary:
        runs = [
            c.run
            for c in SPEC.cells
            if (c.model, c.batch, c.policy) == (row["model"], row["target_batch_size"], row["lr_policy"])
        ]
        values = [predictions(study, run, "test", "best").correct.mean() for run in runs]
        assert row["seeds"] == 2
        assert row["test_accuracy_mean"] == pytest.approx(mean(values))
        assert row["test_accuracy_sd"] == pytest.approx(stdev(values))
        assert row["test_standard_error"] == pytest.approx(math.sqrt(mean(values) * (1 - mean(values)) / 300))
        assert row["test_low"] < row["test_accuracy_mean"] < row["test_high"]


def test_contrasts_have_the_columns_and_the_numbers_of_the_predictions(study: Path) -> None:
    contrasts = pd.read_csv(study / "tables/contrasts.csv", dtype={"level_from": str, "level_to": str})
    names = "factor model lr_policy budget level_from level_to seeds reviews estimand difference_points se_points df "
    names += "low_points high_points p p_holm p_equivalence verdict more_seeds more_reviews "
    names += "sd_seed sd_review sd_residual"
    assert list(contrasts.columns) == names.split()
    batch_sizes = contrasts[(contrasts.factor == "batch_size") & (contrasts.estimand == "population")]
    assert len(batch_sizes) == 2 * 2 * 2, "models × policies × larger batch sizes"
    for row in batch_sizes.to_dict("records"):
        d = []
        for seed in SPEC.seeds:
            small, large = (
                next(
                    c.run
                    for c in SPEC.cells
                    if (c.model, c.policy, c.seed) == (row["model"], row["lr_policy"], seed)
                    and str(c.batch) == row[f"level_{end}"]
                )
                for end in ("from", "to")
            )
            both = [predictions(study, run, "test", "best").correct.to_numpy().astype(int) for run in (small, large)]
            d.append(both[1] - both[0])
        difference, error, df, _ = reference_crossed(np.array(d))
        assert row["difference_points"] == pytest.approx(100 * difference)
        assert row["se_points"] == pytest.approx(100 * error)
        assert row["df"] == pytest.approx(df)
        assert (row["seeds"], row["reviews"], row["budget"]) == (2, 300, "2 epochs")
    family = contrasts[contrasts.estimand == "population"]
    assert family.p_holm.tolist() == pytest.approx(reference_holm(family.p.tolist()))


def test_pairs_describe_every_pair_and_seed(study: Path) -> None:
    pairs = pd.read_csv(study / "tables/pairs_by_seed.csv").to_dict("records")
    assert len(pairs) == 2 * 2 * 2 * 3
    for row in pairs[::5]:
        small, large = (
            predictions(study, row[f"{end}_run"], "test", "best").correct.to_numpy() for end in ("smaller", "larger")
        )
        counts = int((small & ~large).sum()), int((large & ~small).sum())
        assert (row["only_smaller_correct"], row["only_larger_correct"]) == counts
        assert row["mcnemar_p"] == pytest.approx(reference_mcnemar(*counts))
        assert row["difference_points"] == pytest.approx(100 * (large.mean() - small.mean()))


def test_contrasts_that_share_their_runs_count_once(tmp_path: Path) -> None:
    twice = fabricate.spec(lr_policies={"one": {"base_lr": 1e-3}, "same": {"base_lr": 1e-3}}, seeds=[1])
    write_tables(twice, fabricate.study_folder(tmp_path, twice, examples=256))
    contrasts = pd.read_csv(tmp_path / "tables/contrasts.csv")
    assert contrasts.factor.value_counts().to_dict() == {"batch_size": 4, "model": 3}
    assert set(contrasts.estimand) == {"these_models"}


def test_contrasts_in_other_metrics_are_scikit_learns(study: Path) -> None:
    table = pd.read_csv(study / "tables/contrasts_by_metric.csv", dtype={"level_from": str, "level_to": str})
    row = table[(table.metric == "macro_f1") & (table.estimand == "population")].iloc[0]
    scores = {end: [] for end in ("from", "to")}
    for end, values in scores.items():
        for cell in SPEC.cells:
            if (cell.model, cell.policy, str(cell.batch)) == (row.model, row.lr_policy, row[f"level_{end}"]):
                rows = predictions(study, cell.run, "test", "best")
                values.append(f1_score(rows.label, rows.logit_1 > rows.logit_0, average="macro"))
    assert row.difference_points == pytest.approx(100 * (mean(scores["to"]) - mean(scores["from"])))


def test_tables_for_a_paper_have_rules_and_escaped_names(study: Path, tmp_path: Path) -> None:
    for name in ("contrasts", "omnibus", "summary"):
        text = (study / f"tables/{name}.tex").read_text(encoding="utf-8")
        assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    spec = fabricate.spec(models={"my_bert": {"architecture": "bert"}}, seeds=[1])
    write_tables(spec, fabricate.study_folder(tmp_path, spec, examples=256))
    assert r"my\_bert" in (tmp_path / "tables/contrasts.tex").read_text(encoding="utf-8")


def test_the_same_rows_are_in_csv_and_parquet(study: Path) -> None:
    for path in (study / "tables").glob("*.parquet"):
        if path.stem != "history":
            csv, parquet = pd.read_csv(path.with_suffix(".csv")), pd.read_parquet(path)
            assert len(csv) == len(parquet)
            assert list(csv.columns) == list(parquet.columns)[: len(csv.columns)]


def test_every_catalogued_table_is_written_and_no_other(study: Path) -> None:
    assert {path.name for path in (study / "tables").iterdir()} == {*SHOWN_TABLES, *PLAIN_TABLES, *CALIBRATION}


def test_class_counts_are_those_of_the_predictions(study: Path) -> None:
    classes, confusion = (pd.read_csv(study / f"tables/{name}.csv") for name in ("classes", "confusion"))
    for run in (SPEC.cells[0].run, SPEC.cells[-1].run):
        for checkpoint in ("best", "last"):
            rows = predictions(study, run, "test", checkpoint)
            said = (rows.logit_1 > rows.logit_0).astype(int)
            mine = confusion.query("run == @run and split == 'test' and checkpoint == @checkpoint")
            counts = mine.pivot(index="label", columns="prediction", values="examples").to_numpy()
            assert counts.tolist() == confusion_matrix(rows.label, said).tolist()
            row = classes.query(
                "run == @run and split == 'test' and checkpoint == @checkpoint and `class` == 'positive'"
            )
            assert row.recall.item() == recall_score(rows.label, said)
            assert row.precision.item() == precision_score(rows.label, said)
            assert row.f1.item() == pytest.approx(f1_score(rows.label, said), rel=1e-12)


def test_attention_counts_layers_from_one_and_keeps_the_reason(tmp_path: Path) -> None:
    spec = fabricate.spec(target_batch_sizes=[64], seeds=[1])
    write_tables(spec, fabricate.study_folder(tmp_path, spec, examples=128, no_attention={"bert": "It gives none."}))
    attention = pd.read_csv(tmp_path / "tables/attention.csv")
    assert sorted(set(attention.layer.dropna())) == [1, 2, 3, 4, 5]
    assert set(attention.reason.dropna()) == {"It gives none."}


def test_the_provenance_has_a_row_per_run_with_its_own_manifest(tmp_path: Path) -> None:
    spec = fabricate.spec(target_batch_sizes=[64], seeds=[1])
    one = spec.cells[-1].run
    manifests = {one: {"precision": "bfloat16", "git": None}}
    write_tables(spec, fabricate.study_folder(tmp_path, spec, examples=128, manifests=manifests))
    provenance = pd.read_csv(tmp_path / "tables/provenance.csv").set_index("run")
    assert set(provenance.index) == {cell.run for cell in spec.cells}
    assert provenance.precision[one] == "bfloat16"
    assert set(provenance.precision.drop(one)) == {"float32"}
    assert pd.isna(provenance.git_revision[one])


def test_a_run_that_predicts_one_class_is_marked_with_the_class(tmp_path: Path) -> None:
    spec = fabricate.spec(target_batch_sizes=[64], seeds=[1])
    one = spec.cells[-1].run
    write_tables(spec, fabricate.study_folder(tmp_path, spec, examples=128, collapsed=[one], diverged=[one]))
    results = pd.read_parquet(tmp_path / "tables/results.parquet").set_index("run")
    assert results.constant_prediction[one] == results.constant_prediction_last[one] == "positive"
    assert results.constant_prediction.drop(one).isna().all()
    assert results.diverged.sum() == 1
    summary = pd.read_csv(tmp_path / "tables/summary.csv")
    assert (summary.collapsed.sum(), summary.diverged.sum()) == (1, 1)


def test_history_holds_every_line_once_typed(study: Path) -> None:
    table = pq.read_table(study / "tables/history.parquet")
    lines = sum(len(path.read_text().splitlines()) for path in (study / "runs").rglob("history.jsonl"))
    assert table.num_rows == lines
    assert str(table.schema.field("correct").type) == "int64"
    epochs = table.to_pandas().query("kind == 'epoch'")
    assert epochs.validation_accuracy.notna().all()
    assert set(epochs.run) == {cell.run for cell in SPEC.cells}


def test_cost_has_one_row_per_run(study: Path) -> None:
    cost = pd.read_csv(study / "tables/cost.csv")
    assert sorted(cost.run) == sorted({cell.run for cell in SPEC.cells})
    assert cost.seconds.iloc[0] == read_json(study / "runs" / cost.run.iloc[0] / "train.json")["seconds"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=256)
    lost = tmp_path / "runs" / SPEC.cells[0].run / "metrics.json"
    lost.unlink()
    with pytest.raises(UserError, match=r"metrics\.json"):
        write_tables(SPEC, tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "history.jsonl", "predictions.parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff{"])
def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    spec = fabricate.spec(models={"bert": {"architecture": "bert"}}, target_batch_sizes=[16], seeds=[1])
    path = fabricate.study_folder(tmp_path, spec, examples=64, test=20) / "runs" / spec.cells[0].run / name
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{name} is damaged .*\. Delete it and start the workflow again"):
        write_tables(spec, tmp_path)


def test_runs_on_other_test_reviews_are_refused(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=256)
    path = tmp_path / "runs" / SPEC.cells[-1].run / "predictions.parquet"
    rows = pd.read_parquet(path)
    rows.assign(example_id=rows.example_id + 1).to_parquet(path)
    with pytest.raises(UserError, match="other test reviews"):
        write_tables(SPEC, tmp_path)


def test_flatten_keeps_every_leaf() -> None:
    assert flatten({"a": {"b": 1}, "c": [2, {"d": None}]}) == [("a.b", 1), ("c.0", 2), ("c.1.d", None)]


def test_energy_and_gpu_use_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    spec = fabricate.spec()
    folder = fabricate.study_folder(tmp_path, spec, examples=256)
    files = sorted(folder.glob("runs/**/train.json"))
    write_tables(spec, folder)
    cost = pd.read_csv(folder / "tables/cost.csv")
    assert cost.energy_joules.isna().all()
    assert "#energy" not in cost_table(cost).columns
    assert " Wh" not in cost_table(cost).caption

    for path in files:
        write_json(path, read_json(path) | {"energy_joules": 7200.0, "gpu_utilisation_mean": 0.93, "jobs_per_gpu": 1})
    write_tables(spec, folder)
    cost = pd.read_csv(folder / "tables/cost.csv")
    table = cost_table(cost)
    shown = table.columns.index("#GPU use")
    assert {tuple(row[shown : shown + 2]) for row in table.rows} == {("93%", "2 Wh")}
    assert f" and {2 * len(cost)} Wh." in table.caption and "shared a card" not in table.caption

    write_json(files[0], read_json(files[0]) | {"jobs_per_gpu": 10})
    write_tables(spec, folder)
    caption = cost_table(pd.read_csv(folder / "tables/cost.csv")).caption
    assert "Up to 10 jobs shared a card: both count the work of all of them, the sum more than once." in caption

"""The stages that map training examples: equal to a dense reference, on real checkpoints of every epoch."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from encoders import random_reviews, tiny_encoder
from small import small_grid

from batchscope.config.study import Study
from batchscope.data.tokens import Tokens, write_tokens
from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.insight.cartography import map_examples
from batchscope.insight.cartography_measures import kept_epochs, write_dynamics
from batchscope.insight.spec import CartographyMeasuresSpec
from batchscope.insight.stored_cartography import FILE, Dynamics, EpochEnd, read_dynamics, store_dynamics
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.ledger import checkpoint_name

SPEC = CartographyMeasuresSpec(examples=30, precision="float32")
ENDS = [(1, 12, 184), (2, 24, 368)]


def config(**changes: object) -> dict[str, object]:
    own = {
        "budget": {"epochs": 2},
        "keep": "all",
        "insight": {"cartography": {"enabled": True, "examples": 30}},
    }
    return small_grid(**(own | changes))


def trained(run: Path, models: list[TextClassifier], within: bool = False) -> Path:
    """A run's folder with a checkpoint of each epoch, as a training with ``keep: all`` leaves it."""
    lines, files = [], {}
    for (epoch, update, samples), model in zip(ENDS, models, strict=True):
        line = {"kind": "epoch", "epoch": epoch, "update": update, "samples": samples}
        line |= {"validation": {"accuracy": 0.8125}}
        names = [checkpoint_name(line)]  # type: ignore[arg-type]
        if within:
            names.append(checkpoint_name(line | {"kind": "validation", "update": update - 1}))  # type: ignore[arg-type]
        for name in names:
            path = run / "checkpoints" / name
            save_checkpoint(path, model if name == names[0] else models[0], {"epoch": epoch, "update": update})
            files[f"checkpoints/{name}"] = file_hash(path)
        lines += [{"kind": "update", "update": update, "lr": 1e-3}, line]
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(run / "manifest.json", {"fingerprint": "0" * 16, "files": files | {"history.jsonl": "1" * 64}})
    return run


def two(name: str) -> list[TextClassifier]:
    """A tiny classifier before and after its weights were shaken."""
    models = [TextClassifier(tiny_encoder(name), classes=2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    generator = torch.Generator().manual_seed(0)
    for parameter in models[1].parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return models


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokens]:
    """A folder of tokens, and its training examples, whose row numbers are not their places."""
    folder, drawn = tmp_path_factory.mktemp("tokens"), random_reviews(64)
    made = dataclasses.replace(drawn, example_id=drawn.example_id[::-1] * 3)
    write_tokens(made, folder / "train.arrow")
    return folder, made


@torch.no_grad()
def reference_probabilities(model: TextClassifier, tokens: Tokens, rows: np.ndarray) -> np.ndarray:
    """Probability of every class, float64 ``[N, C]``: one example at a time, without padding."""
    dense = model.double().eval()
    parts = []
    for row in rows:
        ids = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))[None]
        parts.append(dense(ids, torch.ones_like(ids, dtype=torch.bool)).softmax(1)[0])
    return torch.stack(parts).numpy()


def follow(spec: CartographyMeasuresSpec, tokens_folder: Path, run: Path) -> None:
    """As the stage does."""
    write_dynamics(spec, tokens_folder, run / "history.jsonl", kept_epochs(run), run / FILE, "cpu")


@pytest.mark.parametrize("name", ["bert", "modernbert", "distilbert"])
def test_the_probabilities_are_those_of_a_dense_reference(
    tokens: tuple[Path, Tokens], tmp_path: Path, name: str
) -> None:
    folder, there = tokens
    models = two(name)
    run = trained(tmp_path / "run", models, within=True)
    follow(SPEC, folder, run)
    found = read_dynamics(run)
    assert found.probability.dtype == np.float32 and found.probability.shape == found.right.shape == (30, 2)
    assert [tuple(end) for end in found.ends] == ENDS and found.asked == 30
    rows = np.array([int(np.flatnonzero(there.example_id == one)[0]) for one in found.example_id])
    assert len(set(rows)) == 30 and rows.max() > 40
    np.testing.assert_array_equal(found.label, there.label[rows])
    for column, model in enumerate(models):
        expected = reference_probabilities(model, there, rows)
        np.testing.assert_allclose(found.probability[:, column], expected[range(30), found.label], atol=2e-6)
        np.testing.assert_array_equal(found.right[:, column], expected.argmax(1) == found.label)
    assert np.abs(found.probability[:, 0] - found.probability[:, 1]).max() > 1e-3


def test_more_padding_changes_no_probability(tokens: tuple[Path, Tokens], tmp_path: Path) -> None:
    folder, there = tokens
    wide = np.pad(there.input_ids, ((0, 0), (0, 16)), constant_values=there.pad_token_id)
    (tmp_path / "wide").mkdir()
    write_tokens(dataclasses.replace(there, input_ids=wide), tmp_path / "wide/train.arrow")
    run = trained(tmp_path / "run", two("bert"))
    found = []
    for place in (folder, tmp_path / "wide"):
        follow(SPEC, place, run)
        found.append(read_dynamics(run).probability)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_checkpoints_that_are_missing_or_changed_are_named(tokens: tuple[Path, Tokens], tmp_path: Path) -> None:
    model, (folder, _) = two("bert")[0], tokens
    run = trained(tmp_path / "run", [model, model])
    follow(SPEC.model_copy(update={"examples": 9999}), folder, run)
    found = read_dynamics(run)
    assert (found.asked, len(found.example_id)) == (9999, 64)
    np.testing.assert_array_equal(found.probability[:, 0], found.probability[:, 1])
    (path,) = run.glob("checkpoints/epoch2-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is not as its training wrote it"):
        follow(SPEC, folder, run)
    path.unlink()
    with pytest.raises(UserError, match=r"no checkpoint of epoch 2, .*best\.safetensors and start the workflow again"):
        follow(SPEC, folder, run)


def test_a_damaged_or_missing_file_of_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; start the workflow again"):
        read_dynamics(tmp_path)
    for content in (b"", b"PAR1"):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises((UserError, ValueError, pa.ArrowException), match="is damaged"):
            read_dynamics(tmp_path)


# ------------------------------------------------------------------------------------------------------- the tables


def study_of(folder: Path, probabilities: dict[str, np.ndarray], ends: dict[str, list[int]] | None = None) -> Study:
    """Stored probabilities of the runs of ``config()``; ``ends``: run → samples seen at the ends of its epochs."""
    made = Study.from_mapping(config())
    for cell in made.cells():
        values = probabilities[cell.path].astype(np.float32)
        samples = (ends or {}).get(cell.path, [184, 368, 552, 736][: values.shape[1]])
        places = [EpochEnd(number, 9 * number, seen) for number, seen in enumerate(samples, 1)]
        ids = np.arange(len(values)) * 2
        store_dynamics(
            Dynamics(99, places, ids, ids // 2 % 2, values, values > 0.5), folder / "runs" / cell.path / FILE
        )
    map_examples(made.cartography_spec(), folder)
    return made


def random_probabilities(epochs: int = 3) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(0)
    base = dice.normal(size=(40, 1))
    runs = [cell.path for cell in Study.from_mapping(config()).cells()]
    return {run: 1 / (1 + np.exp(-2 * base - dice.normal(0, 1, (40, epochs)))) for run in runs}


def test_the_tables_are_those_of_a_plain_count(tmp_path: Path) -> None:
    values = random_probabilities()
    study_of(tmp_path, values)
    examples = pd.read_csv(tmp_path / "tables/cartography.csv")
    assert len(examples) == 4 * 40 and set(examples.epochs) == {3}
    for run, rows in examples.groupby("run"):
        own = values[str(run)].astype(np.float32).astype(float)
        np.testing.assert_allclose(rows.confidence, own.mean(1), atol=1e-6)
        np.testing.assert_allclose(rows.variability, own.std(1), atol=1e-6)
        assert list(rows.right) == list((own > 0.5).sum(1)) and list(rows.correctness) == list(rows.right / 3)
    wide = examples.pivot_table(index="example_id", columns="run", values="confidence")
    regions = pd.read_csv(tmp_path / "tables/cartography_regions.csv")
    assert list(regions.target_batch_size.fillna(0)) == [0, 16, 40] and set(regions.samples) == {552}
    for row in regions.itertuples():
        mine = (
            examples
            if np.isnan(row.target_batch_size)
            else examples[examples.target_batch_size == row.target_batch_size]
        )
        for region in ("easy", "ambiguous", "hard"):
            assert getattr(row, region) == (mine.region == region).sum()
            by_example = (mine.region == region).groupby(mine.example_id).all()
            assert getattr(row, f"{region}_in_all") == by_example.sum()
    pairs = pd.read_csv(tmp_path / "tables/cartography_pairs.csv")
    assert pairs.groupby("between").size().to_dict() == {"batch sizes": 2, "seeds": 2}
    for row in pairs.itertuples():
        assert row.confidence == pytest.approx(wide[row.run_from].corr(wide[row.run_to], "spearman"))
    ratio = pd.read_csv(tmp_path / "tables/cartography_ratio.csv").set_index("what")
    means = pairs.groupby("between")[["confidence", "variability"]].mean()
    for what in ("confidence", "variability"):
        assert ratio.loc[what].between_batch_sizes == pytest.approx(1 - means[what]["batch sizes"])
        assert ratio.loc[what].ratio == pytest.approx((1 - means[what]["batch sizes"]) / (1 - means[what]["seeds"]))
    moved = pairs.moved.groupby(pairs.between).sum() / 80
    assert ratio.loc["region"].between_seeds == pytest.approx(moved["seeds"])
    assert set(ratio.run_count) == {4} and set(ratio.examples) == {40} and ratio.low.notna().all()


def test_epochs_without_a_counterpart_are_left_out(tmp_path: Path) -> None:
    values, short = random_probabilities(4), "bert/bs16/constant/seed1"
    values[short] = values[short][:, :3]
    study_of(tmp_path, values, {short: [184, 368, 500]})
    regions = pd.read_csv(tmp_path / "tables/cartography_regions.csv")
    assert set(regions.epochs) == {2} and set(regions.longest) == {4} and set(regions.samples) == {368}
    study_of(tmp_path, values, {short: [184, 300, 500]})
    regions = pd.read_csv(tmp_path / "tables/cartography_regions.csv")
    assert set(regions.reason) == {"the runs end 1 epoch at equal samples seen, and 2 are needed"}
    assert not len(pd.read_csv(tmp_path / "tables/cartography.csv"))
    assert not len(pd.read_csv(tmp_path / "tables/cartography_ratio.csv"))


def test_runs_of_other_examples_are_refused(tmp_path: Path) -> None:
    made = study_of(tmp_path, random_probabilities())
    first, other = (tmp_path / "runs" / cell.path for cell in made.cells()[:2])
    found = read_dynamics(other)
    store_dynamics(found._replace(example_id=found.example_id + 1), other / FILE)
    with pytest.raises(UserError, match="is of other examples"):
        map_examples(made.cartography_spec(), tmp_path)
    shutil.copyfile(first / FILE, other / FILE)
    map_examples(made.cartography_spec(), tmp_path)


def test_of_a_sweep_the_chosen_rate_counts(tmp_path: Path) -> None:
    policies = {"tuned": {"sweep": [1e-3, 2e-3]}}
    made = Study.from_mapping(config(target_batch_sizes=[16], lr_policies=policies, seeds=[1]))
    for cell in made.cells():
        ends = [EpochEnd(1, 1, 184), EpochEnd(2, 2, 368)]
        values = np.full((5, 2), 0.9 if "0.002" in cell.path else 0.2, dtype=np.float32)
        folder = tmp_path / "runs" / cell.path
        store_dynamics(Dynamics(5, ends, np.arange(5), np.ones(5, dtype=int), values, values > 0.5), folder / FILE)
        best = {"best": {"correct": 9 if "0.002" in cell.path else 8, "examples": 10}}
        write_json(folder / "metrics.json", {"validation": best})
    map_examples(made.cartography_spec(), tmp_path)
    examples = pd.read_csv(tmp_path / "tables/cartography.csv")
    assert set(examples.lr_policy) == {"tuned"} and set(examples.region) == {"easy"} and len(examples) == 5
    reasons = pd.read_csv(tmp_path / "tables/cartography_ratio.csv").reason
    assert list(reasons) == ["needs two batch sizes and two seeds"]

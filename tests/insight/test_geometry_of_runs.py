"""The geometry stages on real files: identical runs, sums of learning rates, and what cannot be measured."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from encoders import random_reviews, tiny_encoder
from small import small_grid

from batchscope.config.study import Study
from batchscope.data.tokens import load_tokens
from batchscope.evaluation.metrics import measure
from batchscope.files import read_json, write_json
from batchscope.insight import geometry as stage
from batchscope.insight.geometry import compare_geometry
from batchscope.insight.geometry_measures import around, initial_weights, measure_geometry
from batchscope.insight.loss_surface import LossSurface, drawn_examples
from batchscope.insight.spec import GeometryMeasuresSpec
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.model.spec import ModelSpec
from batchscope.provenance.layout import checkpoints_of

CPU = torch.device("cpu")
SPEC = GeometryMeasuresSpec(
    examples=12,
    noise=0.01,
    draws=2,
    radius=0.05,
    adaptive_radius=0.5,
    ascent_steps=2,
    eigenvalues=1,
    hessian_products=8,
)
RATES = [1e-3, 2e-3, 3e-3, 4e-3]


def config(**changes: object) -> dict[str, object]:
    own = {"insight": {"geometry": {"enabled": True, "examples": 12, "path_points": 3}}}
    return small_grid(**(own | changes))


@pytest.fixture(scope="module")
def study(small_study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study, ModelSpec]:
    """Two seeds of two batch sizes, each a shaken initial encoder; both seeds of 40 are the same run."""
    folder = tmp_path_factory.mktemp("geometry")
    made, spec = Study.from_mapping(config()), small_study.spec("bert").model
    shutil.copytree(small_study.folder / "tokens/bert", folder / "tokens/bert")
    for cell in made.cells():
        seed, run = (1 if cell.batch == 40 else cell.seed), folder / "runs" / cell.path
        model = build_model(spec, 2, 300, 0, seed=seed)
        generator = torch.Generator().manual_seed(cell.batch)
        for name, update in (("best", 2), ("last", 4)):
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
            save_checkpoint(run / f"checkpoints/{name}.safetensors", model, {"epoch": update // 2, "update": update})
        lines = [{"kind": "update", "update": number, "lr": rate} for number, rate in enumerate(RATES, 1)]
        lines.insert(2, {"kind": "epoch", "update": 2})
        (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        right = np.eye(2)[np.arange(20) % 2] * (np.arange(20) < 10 + cell.seed)[:, None]
        scores = measure(right, np.arange(20) % 2)
        write_json(run / "metrics.json", {split: {"best": scores, "last": scores} for split in ("validation", "test")})
        start = spec, seed
        measure_geometry(SPEC, start, folder / "tokens/bert", checkpoints_of(run), run / "geometry.json", "cpu")
    compare_geometry(made.geometry_spec(), folder, "cpu")
    return folder, made, spec


def test_every_run_has_a_row_for_each_checkpoint(study: tuple[Path, Study, ModelSpec]) -> None:
    folder, _, spec = study
    runs = pd.read_csv(folder / "tables/geometry.csv")
    assert len(runs) == 4 * 2 and set(runs.examples) == {12}
    assert list(runs.groupby("checkpoint").lr_sum.unique()) == [math.fsum(RATES[:2]), math.fsum(RATES)]
    assert (runs.eigenvalue_1 > 0).sum() + runs.hessian_reason.notna().sum() == 8
    assert (runs.distance[runs.checkpoint == "last"].to_numpy() > runs.distance[runs.checkpoint == "best"]).all()
    row = runs.iloc[0]
    tokens = load_tokens(folder / "tokens/bert/train.arrow")
    model = build_model(spec, 2, 300, 0, seed=1)
    generator = torch.Generator().manual_seed(16)
    added = [0.05 * torch.randn(parameter.shape, generator=generator) for parameter in model.parameters()]
    assert row.distance == pytest.approx(float(torch.cat([part.flatten() for part in added]).norm()), rel=1e-4)
    for parameter, part in zip(model.parameters(), added, strict=True):
        parameter.data += part
    surface = LossSurface(model, drawn_examples(tokens, 12, CPU))
    assert row.loss == pytest.approx(surface.loss(surface.point), rel=1e-5)


def test_identical_runs_have_no_barrier_no_distance_and_the_same_features(
    study: tuple[Path, Study, ModelSpec],
) -> None:
    folder, _, _ = study
    pairs = pd.read_csv(folder / "tables/geometry_pairs.csv")
    assert pairs.groupby("between").size().to_dict() == {"batch sizes": 2, "seeds": 2}
    same = pairs[(pairs.between == "seeds") & (pairs.batch_to == 40)].iloc[0]
    assert (same.barrier, same.distance) == (pytest.approx(0, abs=1e-6), 0) and same.cka == pytest.approx(1)
    others = pairs[pairs.distance > 0]
    assert len(others) == 3 and (others.cka < 1 - 1e-6).all()
    paths = pd.read_csv(folder / "tables/geometry_paths.csv")
    assert list(paths.position[:3]) == [0, 0.5, 1]
    first = paths[(paths.run_to == same.run_to) & (paths.between == "seeds")]
    assert first.loss.max() == pytest.approx(first.loss.min(), rel=1e-5)
    ratio = pd.read_csv(folder / "tables/geometry_ratio.csv").set_index("what")
    assert set(ratio.reason) == {"an interval needs 3 seeds"}
    mean = (1 - pairs.cka).groupby(pairs.between).mean()
    assert ratio.loc["1 - CKA"].ratio == pytest.approx(mean["batch sizes"] / mean["seeds"])


def test_four_runs_are_too_few_for_a_correlation(study: tuple[Path, Study, ModelSpec]) -> None:
    table = pd.read_csv(study[0] / "tables/geometry_correlations.csv")
    assert set(table.checkpoint) == {"best", "last"} and set(table.measure) == {"lr_sum", *stage.MEASURES}
    assert set(table.reason) == {"4 runs: too few, a rank correlation needs 8"}
    assert set(table.run_count) == {4} and set(table.cell_count) == {2}


def test_one_run_has_no_pair_and_no_ratio(study: tuple[Path, Study, ModelSpec], tmp_path: Path) -> None:
    folder, made, _ = study
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    spec = made.geometry_spec()
    compare_geometry(spec.model_copy(update={"cells": spec.cells[:1]}), tmp_path, "cpu")
    assert (tmp_path / "tables/geometry_pairs.csv").read_text() == "model\n"
    ratio = pd.read_csv(tmp_path / "tables/geometry_ratio.csv")
    assert set(ratio.reason) == {"needs two batch sizes and two seeds: there is nothing to compare with"}


def test_of_a_sweep_the_chosen_rate_counts(study: tuple[Path, Study, ModelSpec], tmp_path: Path) -> None:
    folder, _, _ = study
    rates = [1e-3, 2e-3]
    made = Study.from_mapping(config(target_batch_sizes=[16], lr_policies={"tuned": {"sweep": rates}}))
    shutil.copytree(folder / "tokens", tmp_path / "tokens")
    for cell in made.cells():
        run = tmp_path / "runs" / cell.path
        shutil.copytree(folder / f"runs/bert/bs16/constant/seed{cell.seed}", run)
        metrics = read_json(run / "metrics.json")
        metrics["validation"]["best"]["correct"] = 11 if "0.002" in cell.policy else 10
        write_json(run / "metrics.json", metrics)
    compare_geometry(made.geometry_spec(), tmp_path, "cpu")
    runs = pd.read_csv(tmp_path / "tables/geometry.csv")
    assert set(runs.lr_policy) == {"tuned"} and set(runs.run) == {f"bert/bs16/tuned@0.002/seed{n}" for n in (1, 2)}


def test_what_an_encoder_or_a_checkpoint_does_not_give_has_a_reason(tmp_path: Path) -> None:
    examples = drawn_examples(random_reviews(4), 99, CPU)
    model = TextClassifier(tiny_encoder("bert"), classes=2)
    model.encoder.set_attn_implementation = lambda name: None  # an encoder that keeps to its fused attention
    found = around(model, examples, SPEC, "no distance from the start: gone", (1, 2))
    assert found["eigenvalues"] == [] and found["distance"] is None
    assert "the bert encoder gives no Hessian-vector products" in found["hessian_reason"]
    assert found["plain"]["adaptive"] is not None and found["normalised"]["one_step"] is not None
    model = TextClassifier(tiny_encoder("bert"), classes=2)
    found = around(model, examples, SPEC.model_copy(update={"eigenvalues": 0}), "none", (1, 2))
    assert found["hessian_reason"] == "the config asks for no eigenvalue of the Hessian"
    found = around(model, examples, SPEC.model_copy(update={"eigenvalues": 9, "hessian_products": 1}), "none", (1, 2))
    assert "not converged within" in found["hessian_reason"] and len(found["eigenvalues"]) < 9
    gone = initial_weights((ModelSpec(checkpoint=str(tmp_path / "gone"), content="x"), 1), random_reviews(4))
    assert isinstance(gone, str) and gone.startswith("no distance from the start: cannot load the encoder")


def test_a_best_checkpoint_that_is_the_last_is_measured_once(
    study: tuple[Path, Study, ModelSpec], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _, spec = study
    run = tmp_path / "run"
    shutil.copytree(folder / "runs/bert/bs16/constant/seed1", run)
    shutil.copyfile(run / "checkpoints/best.safetensors", run / "checkpoints/last.safetensors")
    quick = SPEC.model_copy(update={"examples": 9999, "eigenvalues": 0, "draws": 1, "ascent_steps": 1})
    with caplog.at_level("INFO"):
        measure_geometry(quick, (spec, 1), folder / "tokens/bert", checkpoints_of(run), run / "geometry.json", "cpu")
    found = read_json(run / "geometry.json")
    assert found["best"] == found["last"] and "one checkpoint" in caplog.text
    assert (found["asked"], found["examples"]) == (9999, 184)


def test_examples_of_another_order_give_the_same_loss() -> None:
    tokens = random_reviews(9)
    order = np.random.default_rng(1).permutation(9)
    turned = dataclasses.replace(
        tokens,
        **{name: getattr(tokens, name)[order] for name in ("example_id", "label", "input_ids", "length", "truncated")},
    )
    model = TextClassifier(tiny_encoder("bert"), classes=2)
    one, other = (LossSurface(model, drawn_examples(part, 99, CPU)) for part in (tokens, turned))
    assert one.loss(one.point) == pytest.approx(other.loss(other.point), rel=1e-6)

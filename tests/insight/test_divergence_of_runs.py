"""Divergence of attention: closed forms, SciPy's divergence row by row on three architectures, and the stage."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from encoders import random_reviews, tiny_encoder
from scipy.spatial.distance import jensenshannon
from small import small_grid

from batchscope.config.study import Study
from batchscope.files import write_json
from batchscope.insight import divergence as stage
from batchscope.insight.attention_measures import measure_attention
from batchscope.insight.attention_tables import TABLES
from batchscope.insight.divergence import Compared, _divergence, divergences, measure_divergence
from batchscope.insight.spec import AttentionMeasuresSpec, DivergenceSpec
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier, build_model


def test_equal_weights_diverge_by_nothing_and_disjoint_ones_by_a_bit() -> None:
    one = torch.eye(4).expand(2, 3, 4, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    nothing = torch.zeros(2, 3, 4)
    assert _divergence(one, one, nothing, mask).eq(0).all()
    assert _divergence(one, one.roll(1, 3), nothing, mask).eq(1).all()


def models_of(kind: str) -> list[TextClassifier]:
    found = []
    for number in range(2):
        model = TextClassifier(tiny_encoder(kind), classes=2).double().eval()
        generator = torch.Generator().manual_seed(number)
        for parameter in model.encoder.parameters():
            parameter.data = parameter.data * 5 + 0.1 * torch.randn(parameter.shape, generator=generator)
        found.append(model)
    return found


@pytest.mark.parametrize("kind", ["bert", "modernbert", "distilbert"])
def test_padded_batches_give_scipys_divergence_of_each_review_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models, tokens = models_of(kind), random_reviews(5)
    monkeypatch.setattr(stage, "BYTES_OF_WEIGHTS", 40_000)
    pairs = [Compared("seeds", 0, 1, (1, 2)), Compared("seeds", 1, 1, (2, 2))]
    found = divergences(models, tokens, np.arange(5), pairs)
    assert found[1].max() < 1e-6
    for place, row in enumerate(np.argsort(tokens.length, kind="stable")):
        ids = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))[None]
        weights = []
        for model in models:
            model.encoder.set_attn_implementation("eager")
            with torch.no_grad():
                weights.append([layer[0].numpy() for layer in model.encoder(ids, output_attentions=True).attentions])
        for layer, (one, two) in enumerate(zip(*weights, strict=True)):
            slow = jensenshannon(one, two, base=2, axis=2) ** 2
            assert found[0, place, layer] == pytest.approx(slow.mean(1), abs=1e-5)


@pytest.fixture
def study(small_study, tmp_path: Path) -> tuple[Path, Study]:
    """Two seeds and two batch sizes of an untrained encoder, its weights shaken a little more by the batch size."""
    made = Study.from_mapping(small_grid())
    shutil.copytree(small_study.folder / "tokens/bert", tmp_path / "tokens/bert")
    for cell in made.cells():
        spec = small_study.spec("bert").model
        model = build_model(spec, 2, 300, 0, seed=cell.seed)
        generator = torch.Generator().manual_seed(cell.batch)
        for parameter in model.encoder.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        run = tmp_path / "runs" / cell.path
        save_checkpoint(run / "checkpoints/best.safetensors", model, {"epoch": 1, "validation_accuracy": 0.5})
        write_json(run / "manifest.json", {"spec": {"model": spec.plain()}})
        best = run / "checkpoints/best.safetensors"
        output = run / "attention/heads.json"
        measure_attention(
            AttentionMeasuresSpec(reviews=9, ablation_reviews=9), tmp_path / "tokens/bert", best, output, "cpu"
        )
    return tmp_path, made


def test_the_stage_compares_batch_sizes_seeds_and_initial_weights(study: tuple[Path, Study]) -> None:
    folder, made = study
    measure_divergence(DivergenceSpec(cells=made.tables_spec().cells, reviews=9), folder, "cpu")
    heads, ablation, found, layers, ratio = (pd.read_csv(folder / "tables" / name) for name in TABLES)
    assert len(heads) == 4 * 2 * 2 and set(heads.reviews) == {9}
    assert found.groupby("between").pairs.first().to_dict() == {"batch sizes": 2, "seeds": 2, "initial weights": 4}
    assert (found.divergence > 0).all() and (found.divergence < 1).all()
    (row,) = ratio.itertuples()
    mean = found.groupby("between").divergence.mean()
    assert row.ratio == pytest.approx(mean["batch sizes"] / mean["seeds"])
    assert row.low <= row.ratio <= row.high and (row.seeds, row.reviews) == (2, 9)
    assert row.from_initial == pytest.approx(mean["initial weights"])
    by_layer = found.groupby(["between", "layer"]).divergence.mean()
    assert list(layers.between_seeds) == pytest.approx(list(by_layer["seeds"]))
    assert list(layers.ratio) == pytest.approx(list(by_layer["batch sizes"] / by_layer["seeds"]))
    assert len(ablation) == 4 * 3 and set(ablation.reviews) == {9} and set(ablation.layer_set) == {"all"}


def test_one_run_has_a_reason_in_place_of_a_ratio(study: tuple[Path, Study]) -> None:
    folder, made = study
    cells = made.tables_spec().cells[:1]
    measure_divergence(DivergenceSpec(cells=cells, reviews=9), folder, "cpu")
    ratio = pd.read_csv(folder / "tables/divergence_ratio.csv")
    assert ratio.from_initial.notna().all() and ratio.ratio.isna().all()
    assert list(ratio.reason) == [
        "needs two batch sizes and two seeds: there is nothing to compare the batch sizes with"
    ]

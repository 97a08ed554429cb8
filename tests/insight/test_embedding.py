"""Features of the best checkpoint, and their embedding: equal to dense references, honest about itself."""

from pathlib import Path

import fabricate
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from small import SmallStudy

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.predict import predict
from batchscope.insight.embedding import embed, measure_embedding
from batchscope.insight.features import subset, write_features
from batchscope.insight.spec import EmbeddingSpec, FeaturesSpec
from batchscope.insight.stored_features import FILE, read_features
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import build_model, masked_mean
from batchscope.statistics.embedding import trustworthiness

ON = {"errors": {"enabled": True, "reviews": 40}}
REPORT = fabricate.spec(
    insight=ON, models={"bert": {"architecture": "bert"}}, target_batch_sizes=[16, 64], seeds=[1], study="embedded"
)


def test_features_are_what_the_head_classifies(small_study: SmallStudy, tmp_path: Path) -> None:
    tokens = load_tokens(small_study.tokens("bert") / "test.arrow")
    model = build_model(small_study.spec("bert").model, 2, tokens.vocabulary_size, tokens.pad_token_id, seed=0).eval()
    facts = {"epoch": 1, "update": 1, "validation_accuracy": 0.5}
    save_checkpoint(tmp_path / "best.safetensors", model, facts)  # type: ignore[arg-type]
    spec = FeaturesSpec(reviews=15, precision="float32")
    write_features(spec, small_study.tokens("bert"), tmp_path / "best.safetensors", tmp_path / FILE, "cpu")
    ids, features = read_features(tmp_path / FILE)
    assert len(ids) == 15 and features.shape == (15, 32)
    rows = np.array([int(np.flatnonzero(tokens.example_id == one)[0]) for one in ids])
    for row, found in zip(rows, features, strict=True):  # one by one, without padding
        own = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))[None]
        with torch.no_grad():
            expected = masked_mean(model.hidden_states(own, torch.ones_like(own, dtype=torch.bool)), own >= 0)
        np.testing.assert_allclose(found, expected[0], atol=1e-5)
    logits = predict(model, subset(tokens, rows), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(model.head(torch.from_numpy(features)).numpy(), logits, atol=1e-6)


@pytest.mark.parametrize(("points", "neighbours"), [(600, 10), (40, 7)])
def test_trustworthiness_is_that_of_scikit_learn(points: int, neighbours: int) -> None:
    rng = np.random.default_rng(points)
    features = rng.normal(size=(points, 6))
    for places in (features[:, :2], rng.normal(size=(points, 2))):
        expected = sklearn_trustworthiness(features, places, n_neighbors=neighbours)
        assert trustworthiness(features, places, neighbours) == pytest.approx(expected, abs=1e-12)
    assert trustworthiness(features[:, :2], 3 * features[:, :2]) == 1.0
    # Of a few points the neighbours are fewer: at most (P - 1) / 2.
    for few, most in ((3, 1), (4, 1), (11, 5), (12, 5)):
        own, apart = features[:few], rng.normal(size=(few, 2))
        expected = sklearn_trustworthiness(own, apart, n_neighbors=most)
        assert trustworthiness(own, apart, 10) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(trustworthiness(features[:2], features[:2, :2]))


def test_neighbours_at_equal_distances_rank_in_the_order_of_the_points() -> None:
    grid = np.array([(x, y) for x in range(8) for y in range(6)], dtype=np.float32)
    places = np.random.default_rng(1).permutation(grid)
    count, k, total = len(grid), 7, 0
    for point in range(count):
        ranked, near = (
            sorted(set(range(count)) - {point}, key=lambda other: (float(((at[other] - at[point]) ** 2).sum()), other))
            for at in (grid, places)
        )
        total += sum(max(0, ranked.index(other) + 1 - k) for other in near[:k])
    expected = 1 - 2 * total / (count * k * (2 * count - 3 * k - 1))
    assert trustworthiness(grid, places, k) == pytest.approx(expected, abs=1e-12)


def test_two_clouds_stay_apart_and_the_seed_is_fixed() -> None:
    rng = np.random.default_rng(0)
    side = np.repeat([-1.0, 1.0], 40)
    features = (rng.normal(size=(80, 12)) + 6 * side[:, None]).astype(np.float32)
    places, facts = embed(features)
    again, _ = embed(features)
    assert places is not None and again is not None
    np.testing.assert_array_equal(places, again)
    covariance = np.linalg.eigvalsh(np.cov(features.astype(float).T))[::-1]
    assert facts["variance_1"] == pytest.approx(covariance[0] / covariance.sum())
    assert facts["variance_kept"] == pytest.approx(1.0) and facts["components"] == 12
    nearest = np.argsort(((places[:, None, 2:] - places[None, :, 2:]) ** 2).sum(2), axis=1)[:, 1]
    assert (side[nearest] == side).all()
    assert 0.8 < float(str(facts["trustworthiness"])) <= 1


@pytest.mark.parametrize(
    ("features", "reason"), [(np.eye(5), "10 points"), (np.ones((20, 3)), "all features are equal")]
)
def test_what_cannot_be_embedded_has_a_reason(features: np.ndarray, reason: str) -> None:
    places, facts = embed(features.astype(np.float32))
    assert places is None and reason in str(facts["reason"])


def test_the_runs_of_a_model_are_embedded_together(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, REPORT, examples=64)
    table = pd.read_csv(tmp_path / "tables/embedding.csv", keep_default_na=False)
    (quality,) = pd.read_csv(tmp_path / "tables/embedding_quality.csv").to_dict("records")
    assert len(table) == 2 * 40 == quality["points"] and quality["runs"] == 2
    errors = pd.read_csv(tmp_path / "tables/errors.csv").set_index("example_id")
    for run, rows in table.groupby("run"):
        predictions = pq.read_table(tmp_path / "runs" / str(run) / "predictions.parquet").to_pandas()
        mine = predictions[(predictions.split == "test") & (predictions.checkpoint == "best")].set_index("example_id")
        for row in rows.itertuples():
            logits = mine.loc[row.example_id]
            margin = (logits.logit_1 - logits.logit_0) * (1 if row.label == 1 else -1)
            assert row.margin == pytest.approx(margin, abs=1e-3)
            assert row.boundary == (row.wrong and abs(margin) < 1.0)
            assert row.verdict == errors.verdict[row.example_id]
    path = tmp_path / "runs" / table.run[0] / FILE
    ids = pa.array(np.arange(40))
    other = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(80, np.float32)), 2)
    pq.write_table(pa.table({"example_id": ids, "features": other}), path)
    cells = tuple(cell for cell in REPORT.cells if cell.policy == REPORT.cells[0].policy)
    with pytest.raises(UserError, match="is of other reviews"):
        measure_embedding(EmbeddingSpec(cells=cells, reviews=40, boundary=1.0), tmp_path)

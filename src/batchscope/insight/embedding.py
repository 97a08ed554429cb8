"""The test reviews as points: PCA, then t-SNE, of the features of several runs together, and how far to trust it."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.evaluation.stored import read_predictions
from batchscope.files import atomic
from batchscope.insight.spec import EmbeddingSpec
from batchscope.insight.stored_features import FILE, read_features
from batchscope.provenance.layout import Layout
from batchscope.report.spec import GridCell
from batchscope.statistics.embedding import NEIGHBOURS, trustworthiness
from batchscope.statistics.errors import margins
from batchscope.statistics.grid import cells_by

log = logging.getLogger(__name__)
TABLES = ("embedding.csv", "embedding_quality.csv")
COMPONENTS = 50
PERPLEXITY = 30.0
SEED = 0
FEWEST_POINTS = 10
Row = dict[str, object]
COLUMNS = (
    *("model", "run", "target_batch_size", "lr_policy", "budget", "seed", "example_id", "label", "prediction"),
    *("margin", "wrong", "boundary", "verdict", "pc1", "pc2", "x", "y"),
)


def measure_embedding(spec: EmbeddingSpec, study_folder: Path) -> None:
    """Write the tables ``TABLES``: a row per run and review, and a row per model.

    All runs of ``spec.cells`` of one model are embedded together. Raises UserError if a run's file is missing, or if
    two runs have features of different reviews.
    """
    layout, points = Layout(study_folder), [pd.DataFrame(columns=list(COLUMNS))]
    quality: list[Row] = []
    errors = _verdicts(study_folder / "tables/errors.csv")
    for members in cells_by(spec.cells, "model"):
        found = [read_features(layout.run(cell.run) / FILE) for cell in members]
        ids = found[0][0]
        for cell, (other, _) in zip(members, found, strict=True):
            if not np.array_equal(ids, other):
                raise UserError(f"{layout.run(cell.run) / FILE} is of other reviews; start the workflow again")
        row: Row = {"model": members[0].model, "runs": len(members), "reviews": len(ids), "asked": spec.reviews}
        places, facts = embed(np.concatenate([features for _, features in found]))
        quality.append(row | facts)
        if places is None:
            continue
        for number, cell in enumerate(members):
            part = places[number * len(ids) : (number + 1) * len(ids)]
            points.append(_rows(cell, ids, part, layout, errors, spec.boundary))
        log.info(f"{members[0].model}: trustworthiness {facts['trustworthiness']:.3f}")
    tables = pd.concat(points) if len(points) > 1 else points[0], pd.DataFrame(quality)
    for name, table in zip(TABLES, tables, strict=True):
        with atomic(study_folder / "tables" / name) as temporary:
            table.to_csv(temporary, index=False)


def embed(features: NDArray[np.float32]) -> tuple[NDArray[np.float64] | None, Row]:
    """Places ``[P, 4]`` of features ``[P, H]``: two principal components, then t-SNE; and how good they are.

    PCA to at most ``COMPONENTS`` components, t-SNE of these (van der Maaten and Hinton 2008) from the first two of
    them, with a fixed seed. None and the reason where there are too few points or all are equal.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(features)
    if count < FEWEST_POINTS:
        return None, {"points": count, "reason": f"{FEWEST_POINTS} points are needed for an embedding"}
    values = features.astype(np.float64)
    if np.ptp(values, axis=0).max() == 0:
        return None, {"points": count, "reason": "all features are equal"}
    pca = PCA(min(COMPONENTS, count - 1, features.shape[1]), svd_solver="full").fit(values)
    reduced = pca.transform(values)
    if reduced.shape[1] < 2:
        reduced = np.column_stack([reduced, np.zeros(count)])
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=_start(reduced), learning_rate="auto", random_state=SEED, n_jobs=1)
    flat = tsne.fit_transform(reduced)
    share = [*pca.explained_variance_ratio_, 0.0]
    facts: Row = {"points": count, "components": int(pca.n_components_), "variance_1": float(share[0])}
    facts |= {"variance_2": float(share[1]), "variance_kept": float(pca.explained_variance_ratio_.sum())}
    facts |= {"perplexity": perplexity, "neighbours": NEIGHBOURS, "divergence": float(tsne.kl_divergence_)}
    facts |= {"trustworthiness": trustworthiness(values, flat), "reason": None}
    facts |= {"trustworthiness_of_pca": trustworthiness(values, reduced[:, :2])}
    return np.column_stack([reduced[:, :2], flat]), facts


def _start(reduced: NDArray[np.float64]) -> NDArray[np.float32]:
    """The first two components, small, as scikit-learn's own start from PCA: the result needs no random numbers."""
    first = reduced[:, :2].astype(np.float32)
    return np.asarray(first / first[:, 0].std() * 1e-4, dtype=np.float32)


def _verdicts(path: Path) -> dict[tuple[str, int], str]:
    """(model, example id) → always, sometimes or never wrong, over all runs of the model."""
    try:
        table = pd.read_csv(
            path, usecols=["model", "example_id", "verdict"], dtype={"model": str}, keep_default_na=False
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing; start the workflow again") from None
    return {(model, example): verdict for model, example, verdict in table.itertuples(index=False)}


def _rows(
    cell: GridCell,
    ids: NDArray[np.int64],
    places: NDArray[np.float64],
    layout: Layout,
    errors: dict[tuple[str, int], str],
    boundary: float,
) -> pd.DataFrame:
    """The reviews of one run."""
    tested = read_predictions(layout.run(cell.run), "test")
    order = np.argsort(tested.example_id)
    rows = order[np.searchsorted(tested.example_id, ids, sorter=order)]
    prediction, margin = tested.logits[rows].argmax(1), margins(tested.logits[rows], tested.label[rows])
    wrong = prediction != tested.label[rows]
    labels = (cell.model, cell.run, cell.batch, cell.policy, cell.budget, cell.seed)
    columns = dict(zip(COLUMNS, labels, strict=False)) | {"example_id": ids, "label": tested.label[rows]}
    columns |= {"prediction": prediction, "margin": margin.round(4), "wrong": wrong}
    columns |= {"boundary": wrong & (np.abs(margin) < boundary)}
    columns |= {"verdict": [errors[cell.model, int(example)] for example in ids]}
    columns |= dict(zip(("pc1", "pc2", "x", "y"), places.round(4).T, strict=True))
    return pd.DataFrame(columns)[list(COLUMNS)]

"""How far apart the attention of two runs is: between batch sizes, between seeds, and from the initial weights.

The Jensen–Shannon divergence of two heads' weights, in bits: 0 is equal, 1 is no key in common. It is a mean over the
queries of a review, padding excluded. The runs of one model, LR policy and budget are in memory together; the weights
of a few reviews at a time.
"""

import csv
import logging
from collections.abc import Sequence
from itertools import combinations
from math import log as ln
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.files import atomic, read_json
from batchscope.hardware.device import pick_device
from batchscope.insight.attention import layer_windows
from batchscope.insight.attention_measures import batches, drawn_reviews
from batchscope.insight.heads import every_layer
from batchscope.insight.records import AttentionOfRun
from batchscope.insight.spec import DivergenceSpec
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.model.spec import ModelSpec
from batchscope.provenance.layout import Layout, checkpoints_of
from batchscope.provenance.records import RunManifest
from batchscope.report.spec import GridCell
from batchscope.statistics.divergence import Pair, batch_seed_ratio
from batchscope.statistics.grid import cells_by

log = logging.getLogger(__name__)
TABLES = ("attention_heads.csv", "divergence.csv", "divergence_ratio.csv")
BYTES_OF_WEIGHTS = 2**29
Row = dict[str, object]
Kind = Literal["batch sizes", "seeds", "initial weights"]


class Compared(NamedTuple):
    """Two models of a group, by their positions, and what differs between them."""

    kind: Kind
    first: int
    second: int
    seeds: tuple[int, int]


def measure_divergence(spec: DivergenceSpec, study_folder: Path, device_wanted: str) -> None:
    """Write the tables ``TABLES`` of a study. An encoder without attention, one run: a row with the reason."""
    layout, device = Layout(study_folder), pick_device(device_wanted)
    heads: list[Row] = []
    divergences: list[Row] = []
    ratios: list[Row] = []
    for cell in spec.cells:
        if not cell.shared:
            heads += _head_rows(cell, read_json(layout.run(cell.run) / "attention/heads.json"))
    for members in cells_by(spec.cells, "model", "policy", "budget"):
        labels: Row = {name: getattr(members[0], name) for name in ("model", "policy", "budget")}
        labels["lr_policy"] = labels.pop("policy")
        found: AttentionOfRun = read_json(layout.run(members[0].run) / "attention/heads.json")
        if "reason" in found:
            ratios.append(labels | {"reason": found["reason"]})
            continue
        rows, ratio = _of_group(members, layout, spec.reviews, device)
        divergences += [labels | row for row in rows]
        ratios += [labels | row for row in ratio]
    for name, content in zip(TABLES, (heads, divergences, ratios), strict=True):
        with atomic(study_folder / "tables" / name) as temporary:
            _write(temporary, content)


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV with every column that a row has."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _head_rows(cell: GridCell, found: AttentionOfRun) -> list[Row]:
    """A row per head, layers and heads counted from 1; one row with the reason where there is no attention."""
    labels: Row = {"run": cell.run, "model": cell.model, "target_batch_size": cell.batch, "lr_policy": cell.policy}
    labels |= {"budget": cell.budget, "seed": cell.seed, "reviews": found["reviews"], "asked": found["asked"]}
    if "reason" in found:
        return [labels | {"reason": found["reason"]}]
    rows = []
    for head in found["heads"]:
        row: Row = {**labels, "layer": head["layer"] + 1, "head": head["head"] + 1, "window": head["window"]}
        row |= {name: head[name] for name in ("entropy", "distance", "even_distance", "largest_lift")}
        row |= {f"mass_{name}": value for name, value in head["mass"].items()}
        row |= {f"lift_{name}": value for name, value in head["lift"].items()}
        row |= {f"sink_rate_{epsilon}": value for epsilon, value in head["sink_rates"].items()}
        row |= {f"sinks_{name}": value for name, value in (head["sink_classes"] or {}).items()}
        rows.append(row)
    return rows


def comparisons(members: Sequence[GridCell], initial: Sequence[int]) -> list[Compared]:
    """Pairs of batch sizes of one seed, pairs of seeds of one batch size, and each run with its initial weights.

    ``initial`` has the position of each member's initial weights; it is empty where there are none.
    """
    pairs = list(combinations(range(len(members)), 2))
    found: list[Compared] = []
    for first, second in pairs:
        one, two = members[first], members[second]
        if one.seed == two.seed and one.batch != two.batch:
            found.append(Compared("batch sizes", first, second, (one.seed, two.seed)))
        if one.seed != two.seed and one.batch == two.batch:
            found.append(Compared("seeds", first, second, (one.seed, two.seed)))
    for number, start in enumerate(initial):
        seed = members[number].seed
        found.append(Compared("initial weights", number, start, (seed, seed)))
    return found


def _of_group(
    members: Sequence[GridCell], layout: Layout, reviews: int, device: torch.device
) -> tuple[list[Row], list[Row]]:
    """Rows of ``divergence.csv`` and of ``divergence_ratio.csv``."""
    tokens = load_tokens(layout.tokens(members[0].model) / "test.arrow")
    models = [load_checkpoint(checkpoints_of(layout.run(cell.run))["best"], device)[0] for cell in members]
    initial = _add_initial(models, members, layout, tokens, device)
    pairs = comparisons(members, initial)
    windows = layer_windows(models[0].config, getattr(models[0].config, "num_hidden_layers", 1))
    found = divergences(models, tokens, drawn_reviews(len(tokens), reviews), pairs)
    rows: list[Row] = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        mean = np.mean([found[n].mean(0) for n, pair in enumerate(pairs) if pair.kind == kind], axis=0)
        count = sum(pair.kind == kind for pair in pairs)
        rows += [
            {"between": kind, "layer": layer + 1, "head": head + 1, "window": windows[layer]}
            | {"divergence": float(value), "pairs": count, "reviews": found.shape[1]}
            for layer, values in enumerate(mean)
            for head, value in enumerate(values)
        ]
    return rows, _ratio_rows(pairs, found, windows)


def _ratio_rows(pairs: Sequence[Compared], found: NDArray[np.float64], windows: Sequence[int | None]) -> list[Row]:
    """The ratio of global and of sliding layers, each a mean over its layers and heads."""
    rows: list[Row] = []
    for name in ("global", "sliding"):
        chosen = [layer for layer, window in enumerate(windows) if (window is None) == (name == "global")]
        if not chosen:
            continue
        of_kind: dict[Kind, list[Pair]] = {"batch sizes": [], "seeds": [], "initial weights": []}
        for pair, values in zip(pairs, found, strict=True):
            of_kind[pair.kind].append(Pair(*pair.seeds, values[:, chosen].mean((1, 2))))
        ratio = batch_seed_ratio(of_kind["batch sizes"], of_kind["seeds"])
        row: Row = {"attention": name, "layers": len(chosen)}
        if ratio is None:
            reason = "needs two batch sizes and two seeds: there is nothing to compare the batch sizes with"
            rows.append(row | {"reason": reason})
        else:
            rows.append(row | ratio._asdict())
    return rows


def _add_initial(
    models: list[TextClassifier], members: Sequence[GridCell], layout: Layout, tokens: Tokens, device: torch.device
) -> list[int]:
    """Append the weights that the trainings began with; each member's position among ``models``."""
    known: dict[int | None, int] = {}
    places = []
    for cell in members:
        manifest: RunManifest = read_json(layout.run(cell.run) / "manifest.json")
        spec = ModelSpec.read(manifest["spec"]["model"])
        key = cell.seed if spec.architecture is not None else None
        if key not in known:
            try:
                built = build_model(
                    spec, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, seed=cell.seed
                )
            except UserError as error:
                log.warning(f"no divergence from the initial weights of {cell.model}: {error}")
                return []
            known[key] = len(models)
            models.append(built.to(device).eval())
        places.append(known[key])
    return places


@torch.inference_mode()
def divergences(
    models: Sequence[TextClassifier], tokens: Tokens, chosen: NDArray[np.int64], pairs: Sequence[Compared]
) -> NDArray[np.float64]:
    """Divergence ``[pairs, N, layers, H]`` of every pair on each chosen review, those of similar length together."""
    device = next(models[0].parameters()).device
    config = models[0].config
    length = tokens.input_ids.shape[1]
    per_review = len(models) * getattr(config, "num_hidden_layers", 1) * getattr(config, "num_attention_heads", 1)
    rows = max(1, BYTES_OF_WEIGHTS // (4 * per_review * length**2))
    parts: list[list[Tensor]] = [[] for _ in pairs]
    for ids, mask in batches(tokens, chosen, device, rows):
        weights = [_layers(model, ids, mask) for model in models]
        entropies = [[torch.special.entr(layer).sum(3) for layer in layers] for layers in weights]
        for number, pair in enumerate(pairs):
            of_layers = [
                _divergence(one, two, (h_one + h_two) / 2, mask)
                for one, two, h_one, h_two in zip(
                    weights[pair.first],
                    weights[pair.second],
                    entropies[pair.first],
                    entropies[pair.second],
                    strict=True,
                )
            ]
            parts[number].append(torch.stack(of_layers, 1).cpu())
    return np.stack([torch.cat(part).double().numpy() for part in parts])


def _layers(model: TextClassifier, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Every layer's weights ``[B, H, L, L]`` of one batch."""
    found: list[Tensor] = []
    with every_layer(model.eval(), lambda layer, weights: found.append(weights.float())):
        model(ids, mask)
    return found


def _divergence(one: Tensor, two: Tensor, mean_entropy: Tensor, mask: Tensor) -> Tensor:
    """Mean over the queries that are no padding, ``[B, H]``, of weights ``[B, H, L, L]``."""
    mixed = torch.special.entr((one + two) / 2).sum(3)
    bits = (mixed - mean_entropy).clamp(min=0) / ln(2)
    mean: Tensor = torch.where(mask[:, None], bits, 0.0).sum(2) / mask.sum(1)[:, None]
    return mean

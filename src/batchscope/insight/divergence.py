"""How far apart the attention of two runs is: between batch sizes, between seeds, and from the initial weights.

The Jensen–Shannon divergence of two heads' weights, in bits: 0 is equal, 1 is no key in common. It is a mean over the
queries of a review, padding excluded. The runs of one model, LR policy and budget are in memory together; the weights
of a few reviews at a time.
"""

import logging
from collections.abc import Sequence
from math import log as ln
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.hardware.device import pick_device
from batchscope.insight.attention import layer_windows
from batchscope.insight.attention_tables import Compared, ComparedGroup, comparisons, write_tables
from batchscope.insight.heads import every_layer
from batchscope.insight.records import AttentionOfRun
from batchscope.insight.review_batches import batches, drawn_reviews
from batchscope.insight.spec import DivergenceSpec
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.model.spec import ModelSpec
from batchscope.provenance.layout import Layout, checkpoints_of
from batchscope.provenance.records import RunManifest
from batchscope.report.spec import GridCell

log = logging.getLogger(__name__)
BYTES_OF_WEIGHTS = 2**29


def measure_divergence(spec: DivergenceSpec, study_folder: Path, device_wanted: str) -> None:
    """Write the tables ``TABLES`` of a study. An encoder without attention, one run: a row with the reason."""
    layout, device = Layout(study_folder), pick_device(device_wanted)

    def heads_of(cell: GridCell) -> AttentionOfRun:
        found: AttentionOfRun = read_json(layout.run(cell.run) / "attention/heads.json")
        return found

    def compared(members: Sequence[GridCell]) -> ComparedGroup:
        return _of_group(members, layout, spec.reviews, device)

    write_tables(study_folder / "tables", spec.cells, heads_of, compared)


def _of_group(members: Sequence[GridCell], layout: Layout, reviews: int, device: torch.device) -> ComparedGroup:
    tokens = load_tokens(layout.tokens(members[0].model) / "test.arrow")
    models = [load_checkpoint(checkpoints_of(layout.run(cell.run))["best"], device)[0] for cell in members]
    initial = _add_initial(models, members, layout, tokens, device)
    pairs = comparisons(members, initial)
    windows = layer_windows(models[0].config, getattr(models[0].config, "num_hidden_layers", 1))
    found = divergences(models, tokens, drawn_reviews(len(tokens), reviews), pairs)
    return ComparedGroup(pairs, found, windows)


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

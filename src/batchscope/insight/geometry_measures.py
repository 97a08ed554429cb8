"""The training loss around a run's best and last checkpoint: sharpness, curvature, distance from the start."""

import logging
import math
from pathlib import Path

from torch import Tensor

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError, counted
from batchscope.files import write_json
from batchscope.hardware.device import pick_device
from batchscope.insight.loss_surface import (
    ExampleBatch,
    LossSurface,
    count_of,
    drawn_examples,
    logit_size,
    twice_differentiable,
    weights_of,
)
from batchscope.insight.records import CheckpointGeometry, GeometryOfRun, Sharpness
from batchscope.insight.sharpness import Spectrum, ascent_sharpness, average_sharpness, top_eigenvalues
from batchscope.insight.spec import GeometryMeasuresSpec
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.model.spec import ModelSpec

log = logging.getLogger(__name__)
Start = tuple[ModelSpec, int]
"""The model before training and the seed of its new weights."""


def measure_geometry(
    spec: GeometryMeasuresSpec,
    start: Start,
    tokens_folder: Path,
    checkpoints: dict[str, Path],
    output: Path,
    device_wanted: str,
) -> None:
    """Write ``geometry.json`` of a run's ``best`` and ``last`` checkpoint.

    What an encoder does not allow is null, with the reason beside it. The examples are the same for every run of a
    model. Besides the model, the memory holds a few vectors of the size of its weights, those of the Lanczos basis
    above all.
    """
    device = pick_device(device_wanted)
    tokens = load_tokens(tokens_folder / "train.arrow")
    examples = drawn_examples(tokens, spec.examples, device)
    initial = initial_weights(start, tokens)
    model, facts = load_checkpoint(checkpoints["best"], device)
    best = around(model, examples, spec, initial, (facts["epoch"], facts["update"]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model, facts = load_checkpoint(checkpoints["last"], device)
    place = facts["epoch"], facts["update"]
    same = place == (best["epoch"], best["update"])
    found: GeometryOfRun = {
        "asked": spec.examples,
        "examples": count_of(examples),
        "parameters": parameters,
        "best": best,
        "last": best if same else around(model, examples, spec, initial, place),
    }
    if isinstance(initial, str):
        found["distance_reason"] = initial
    write_json(output, found)
    log.info(f"measured the loss around {'one checkpoint' if same else 'two checkpoints'} on "
             f"{counted(found['examples'], 'training example')}")  # fmt: skip


def initial_weights(start: Start, tokens: Tokens) -> Tensor | str:
    """The weights ``[P]`` that the training began with, on the CPU; or why they cannot be had, in one sentence."""
    spec, seed = start
    try:
        model = build_model(spec, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, seed)
    except UserError as error:
        return f"no distance from the start: {next(iter(str(error).splitlines()))}"
    return weights_of(model)


def around(
    model: TextClassifier,
    examples: list[ExampleBatch],
    spec: GeometryMeasuresSpec,
    initial: Tensor | str,
    place: tuple[int, int],
) -> CheckpointGeometry:
    """Everything that is measured around a model's weights; ``place`` is epoch and update of its checkpoint."""
    size = logit_size(model, examples)
    surface = LossSurface(model, examples)
    begin = surface.gradient(surface.point)
    spectrum, reason = _spectrum(surface, spec)
    found: CheckpointGeometry = {
        "epoch": place[0],
        "update": place[1],
        "loss": finite(begin[0]),
        "correct": surface.correct(),
        "gradient_norm": finite(float(begin[1].norm())),
        "weight_norm": float(surface.point.norm()),
        "distance": None if isinstance(initial, str) else float((surface.point.cpu() - initial).norm()),
        "logit_size": size,
        "plain": _sharpness(surface, begin, spec),
        "normalised": _sharpness(LossSurface(model, examples, size), None, spec),
        "eigenvalues": spectrum.eigenvalues,
        "hessian_products": spectrum.products,
    }
    return found if reason is None else {**found, "hessian_reason": reason}


def _sharpness(surface: LossSurface, begin: tuple[float, Tensor] | None, spec: GeometryMeasuresSpec) -> Sharpness:
    begin = begin or surface.gradient(surface.point)
    average = average_sharpness(surface, spec.noise, spec.draws)
    return {
        "average": finite(average.sharpness),
        "average_standard_error": finite(average.standard_error),
        "one_step": finite(ascent_sharpness(surface, begin, spec.radius, 1)),
        "adaptive": finite(ascent_sharpness(surface, begin, spec.adaptive_radius, spec.ascent_steps, relative=True)),
    }


def _spectrum(surface: LossSurface, spec: GeometryMeasuresSpec) -> tuple[Spectrum, str | None]:
    """The largest eigenvalues that could be had, and why others are missing."""
    none = Spectrum([], spec.eigenvalues, 0)
    if not spec.eigenvalues:
        return none, "the config asks for no eigenvalue of the Hessian"
    with twice_differentiable(surface.model):
        try:
            LossSurface(surface.model, surface.examples[:1]).hessian_product(surface.point)
        except Exception as error:  # an encoder's own code, in a pass that nothing else uses
            words = next(iter(str(error).strip().splitlines()), type(error).__name__)
            kind = surface.model.config.model_type
            return none, f"no eigenvalues: the {kind} encoder gives no Hessian-vector products ({words})"
        found = top_eigenvalues(surface, spec.eigenvalues, spec.hessian_products)
    missing = found.asked - len(found.eigenvalues)
    if not missing:
        return found, None
    many = counted(found.products, "Hessian-vector product")
    return found, f"not converged within {many}: {missing} of {counted(found.asked, 'eigenvalue')}"


def finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None

"""Certify gradient accumulation on a study's own model and tokens.

Three windows of real reviews are accumulated micro-batch by micro-batch and compared with the same window as one batch:
a full window, a tail window of three micro-batches where a full one has four, and a window whose last micro-batch is
shorter. The installed peers then do the same.
"""

import dataclasses
import logging
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from batchscope.certificate.engines import Bench, Plan, certify_engines, float64_floor, float64_tolerance
from batchscope.certificate.peers import Epoch, audit_peers, examples_of
from batchscope.certificate.records import Certificate, EngineRow
from batchscope.certificate.spec import FEWEST_REVIEWS, CertificateSpec
from batchscope.certificate.verdict import TOLERANCES, overall
from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.hardware.allocator import keep_freed_memory
from batchscope.hardware.device import device_name, pick_place
from batchscope.insight.weights import why_no_attention
from batchscope.model.check import check_model
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.training.spec import BudgetSpec
from batchscope.training.windows import Window, epoch_order, micro_batches, windows

log = logging.getLogger(__name__)

MICRO_BATCH = 4
ACCUMULATION_STEPS = 4
TAIL_STEPS = 3
LIBRARIES = ("torch", "transformers", "accelerate")


def certify(spec: CertificateSpec, tokens_folder: Path, output: Path) -> Certificate:
    """Measure, write the certificate to ``output`` and return it; its ``passed`` is for our own engines alone.

    The micro-batch is the certificate's own, not the study's, so that 7 micro-batches of 4 examples make all three
    windows. Raises UserError for what the user can fix, at first for a model that cannot be trained.
    """
    started = time.perf_counter()
    keep_freed_memory()
    picked = pick_place(spec.device, spec.precision)
    place, precision = picked.device, picked.precision_name
    tokens = load_tokens(tokens_folder / "train.arrow")
    micro_batch = _micro_batch_size(len(tokens))
    plan = Plan(certified_windows(micro_batch), micro_batch, ACCUMULATION_STEPS)
    first = _rows(tokens, epoch_order(len(tokens), spec.seed, 1)[: plan.windows["tail"].stop])
    model = build_model(spec.model, len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, spec.seed).eval()
    check_model(model, first, output.parent)
    longest = int(first.length.argmax())
    attention = why_no_attention(model, first.input_ids[longest, : first.length[longest]].astype(np.int64))
    if attention:
        log.warning(attention)
    tolerances = dict(TOLERANCES)
    engines, not_measured = certify_model(model, first, plan, place, precision, tolerances)
    log.info("the installed peers in float64")
    peers = audit_peers(
        model.float().encoder,
        len(tokens.classes),
        spec.seed,
        _epochs(first, plan.windows),
        plan,
        _place(place, "float64"),
        tolerances["float64"],
    )
    passed, sentence = overall(engines, not_measured)
    certificate: Certificate = {
        "passed": passed,
        "verdict": sentence,
        "model": spec.model.plain(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loading": model.loading,
        "attention": attention,
        "seed": spec.seed,
        "device": device_name(place),
        "device_kind": place.type,
        "versions": {name: version(name) for name in LIBRARIES},
        "precision": precision,
        "tolerances": tolerances,
        "micro_batch": micro_batch,
        "accumulation_steps": ACCUMULATION_STEPS,
        "windows": {
            name: [stop - start for start, stop in micro_batches(window, micro_batch)]
            for name, window in plan.windows.items()
        },
        "engines": engines,
        "not_measured": not_measured,
        "peers": peers,
        "seconds": time.perf_counter() - started,
    }
    write_json(output, certificate)
    return certificate


def certify_model(
    model: TextClassifier,
    tokens: Tokens,
    plan: Plan,
    place: torch.device,
    precision: str,
    tolerances: dict[str, float],
) -> tuple[list[EngineRow], dict[str, str]]:
    """Measure our engines in float64, float32 and the study's precision: their rows, and why a precision has none.

    Sets the tolerance of float64 to what the model's own rounding there allows. Raises UserError where the model
    cannot be computed in the precision that it would train in.
    """
    rows: list[EngineRow] = []
    not_measured: dict[str, str] = {}
    for name in dict.fromkeys(["float64", "float32", precision]):
        log.info(f"our engines in {name}")
        try:
            bench = Bench(model, tokens, name, _place(place, name))
            if name == "float64":
                tolerances[name] = float64_tolerance(float64_floor(bench, plan.windows["full"]))
            rows += certify_engines(bench, plan, tolerances[name])
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            words = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if name == precision:
                advice = "; set `precision: float32`" if name == "bfloat16" else ""
                raise UserError(
                    f"the {model.config.model_type} encoder cannot compute in {name}: {words}{advice}"
                ) from None
            not_measured[name] = f"the {model.config.model_type} encoder cannot compute in {name} ({words})"
            model.zero_grad()
    return rows, not_measured


def _micro_batch_size(examples: int) -> int:
    """Examples per micro-batch: fewer than ``MICRO_BATCH`` where there are few. The split has ``FEWEST_REVIEWS``."""
    size = min(MICRO_BATCH, examples // (ACCUMULATION_STEPS + TAIL_STEPS))
    assert size >= FEWEST_REVIEWS // (ACCUMULATION_STEPS + TAIL_STEPS), f"{examples} training reviews"
    return size


def certified_windows(micro_batch: int) -> dict[str, Window]:
    """A full window and the tail window after it, and a window whose last micro-batch is about half as long."""
    target = ACCUMULATION_STEPS * micro_batch
    full, tail = windows(target + TAIL_STEPS * micro_batch, target, BudgetSpec(epochs=1))
    uneven = target - (micro_batch + 1) // 2
    (ragged,) = windows(uneven, uneven, BudgetSpec(epochs=1))
    return {"full": full, "tail": tail, "ragged": ragged}


def _epochs(tokens: Tokens, plan: dict[str, Window]) -> list[Epoch]:
    """Data sets that give the peers the same windows: one epoch for full and tail, one for the ragged window."""
    examples = examples_of(tokens)
    cut = {name: examples[window.start : window.stop] for name, window in plan.items()}
    return [
        Epoch(examples, {name: cut[name] for name in ("full", "tail")}),
        Epoch(cut["ragged"], {"ragged": cut["ragged"]}),
    ]


def _rows(tokens: Tokens, rows: NDArray[np.int64]) -> Tokens:
    """Only these rows of the tokens, in this order."""
    columns = ("example_id", "label", "input_ids", "length", "truncated")
    return dataclasses.replace(tokens, **{name: getattr(tokens, name)[rows] for name in columns})


def _place(device: torch.device, precision: str) -> torch.device:
    """Apple's GPUs have no float64."""
    return torch.device("cpu") if device.type == "mps" and precision == "float64" else device

"""Certify a study's accumulation on its own model and tokens:

    batchscope certify --spec JSON --settings JSON --tokens results/demo/tokens/bert --output results/demo/…/bert.json

Three windows of real reviews are accumulated micro-batch by micro-batch and compared with themselves as one batch: a
full one, a tail window of three micro-batches where a full one has four, and one whose last micro-batch is shorter.
The installed peers are then asked to do the same.
"""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from batchscope.certificate.peers import Epoch, audit_peers, examples_of, peer_model
from batchscope.certificate.verdict import TOLERANCES, engine_verdict, overall
from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.hardware.allocator import keep_freed_memory
from batchscope.hardware.device import autocast, device_name, pick_device, resolve_precision
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.training.accumulate import ENGINES
from batchscope.training.gradients import compare, flat_gradient
from batchscope.training.microbatch import DeviceTokens
from batchscope.training.windows import Window, epoch_order, loss_scale, micro_batches, windows

log = logging.getLogger(__name__)

MICRO_BATCH = 4
ACCUMULATION_STEPS = 4
TAIL_STEPS = 3


def certify(spec: dict[str, Any], settings: dict[str, Any], tokens_folder: Path, output: Path) -> dict[str, Any]:
    """Measure, write the certificate to ``output`` and return it; its ``passed`` is for our own engines.

    ``spec`` is ``Study.certificate_spec``: ``model``, ``seed`` and ``precision``; ``settings`` holds ``device``. The
    micro-batch is the certificate's own, not the study's, so that the three windows exist within 7 micro-batches of
    4 examples. Raises UserError for what the user can mend.
    """
    started = time.perf_counter()
    keep_freed_memory()
    device = pick_device(settings["device"])
    precision = str(resolve_precision(spec["precision"], device)).removeprefix("torch.")
    tokens = load_tokens(tokens_folder / "train.arrow")
    micro_batch = min(MICRO_BATCH, len(tokens) // (ACCUMULATION_STEPS + TAIL_STEPS))
    if micro_batch < 2:
        raise UserError(
            f"a certificate needs {2 * (ACCUMULATION_STEPS + TAIL_STEPS)} training reviews, there are {len(tokens)}: "
            "take a larger `data.sample` or more data"
        )
    plan = certified_windows(micro_batch)
    first = _rows(tokens, epoch_order(len(tokens), spec["seed"], 1)[: plan["tail"].stop])

    model = build_model(
        spec["model"], len(tokens.classes), tokens.vocabulary_size, tokens.pad_token_id, spec["seed"]
    ).eval()
    engines = []
    for name in dict.fromkeys(["float64", "float32", precision]):
        log.info(f"our engines in {name}")
        engines += _certify_engines(model, first, plan, micro_batch, name, _place(device, name))
    log.info("the installed peers in float64")
    peers = audit_peers(
        peer_model(model.float().encoder, len(tokens.classes), spec["seed"]),
        _epochs(first, plan),
        micro_batch,
        ACCUMULATION_STEPS,
        _place(device, "float64"),
    )
    passed, sentence = overall(engines)
    certificate = {
        "passed": passed,
        "verdict": sentence,
        "model": spec["model"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": spec["seed"],
        "device": device_name(device),
        "precision": precision,
        "tolerances": TOLERANCES,
        "micro_batch": micro_batch,
        "accumulation_steps": ACCUMULATION_STEPS,
        "windows": {
            name: [stop - start for start, stop in micro_batches(window, micro_batch)] for name, window in plan.items()
        },
        "engines": engines,
        "peers": peers,
        "seconds": time.perf_counter() - started,
    }
    write_json(output, certificate)
    return certificate


def certified_windows(micro_batch: int) -> dict[str, Window]:
    """A full window and the tail window after it, and a window whose last micro-batch is about half as long."""
    target = ACCUMULATION_STEPS * micro_batch
    full, tail = windows(target + TAIL_STEPS * micro_batch, target, {"epochs": 1})
    uneven = target - (micro_batch + 1) // 2
    (ragged,) = windows(uneven, uneven, {"epochs": 1})
    return {"full": full, "tail": tail, "ragged": ragged}


def _certify_engines(
    model: TextClassifier,
    tokens: Tokens,
    plan: dict[str, Window],
    micro_batch: int,
    precision: str,
    device: torch.device,
) -> list[dict[str, Any]]:
    """One row per engine: measures of every window against its full batch, in one precision."""
    dtype: torch.dtype = getattr(torch, precision)
    model.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    data, order = DeviceTokens(tokens, device), torch.arange(len(tokens), device=device)
    found: dict[str, dict[str, Any]] = {name: {} for name in ENGINES}
    for window_name, window in plan.items():
        expected, true_loss = _full_batch(model, data, order[window.start : window.stop], dtype)
        manual: Tensor | None = None
        for name, engine_class in ENGINES.items():
            engine = engine_class(model, torch.optim.SGD(model.parameters(), lr=0.0))
            sums = engine.accumulate(
                [
                    data.micro_batch(
                        order[start:stop],
                        loss_scale(window, stop - start, ACCUMULATION_STEPS * micro_batch, "exact", micro_batch),
                    )
                    for start, stop in micro_batches(window, micro_batch)
                ],
                autocast(device, dtype),
            )
            gradient = _take_gradient(model)
            losses = {"logged_loss": float(sums.loss) / window.examples, "true_loss": true_loss}
            found[name][window_name] = compare(gradient, expected) | losses
            if manual is None:
                manual = gradient
            else:
                found[name][window_name]["bitwise_equal"] = torch.equal(gradient, manual)
    rows = []
    for name, measured in found.items():
        passed, words = engine_verdict(measured, precision, must_be_bitwise=device.type == "cpu")
        rows.append({"engine": name, "precision": precision, "windows": measured, "passed": passed, "verdict": words})
    return rows


def _full_batch(
    model: TextClassifier, data: DeviceTokens, rows: Tensor, precision: torch.dtype
) -> tuple[Tensor, float]:
    """Gradient and loss of the rows as one batch, with nothing of the engines in between."""
    batch = data.micro_batch(rows, 1.0)
    with autocast(rows.device, precision):
        logits = model(batch.input_ids, batch.attention_mask)
    loss = cross_entropy(logits, batch.label)
    loss.backward()
    return _take_gradient(model), float(loss.detach())


def _take_gradient(model: TextClassifier) -> Tensor:
    gradient = flat_gradient(model)
    model.zero_grad()
    return gradient


def _epochs(tokens: Tokens, plan: dict[str, Window]) -> list[Epoch]:
    """The data sets that make the peers meet the same windows: one epoch for full and tail, one for the ragged one."""
    examples = examples_of(tokens)
    cut = {name: examples[window.start : window.stop] for name, window in plan.items()}
    return [
        Epoch(examples, {name: cut[name] for name in ("full", "tail")}),
        Epoch(cut["ragged"], {"ragged": cut["ragged"]}),
    ]


def _rows(tokens: Tokens, rows: Any) -> Tokens:
    """These rows of the tokens alone, in this order."""
    columns = ("example_id", "label", "input_ids", "length", "truncated")
    return dataclasses.replace(tokens, **{name: getattr(tokens, name)[rows] for name in columns})


def _place(device: torch.device, precision: str) -> torch.device:
    """Apple's GPUs have no float64."""
    return torch.device("cpu") if device.type == "mps" and precision == "float64" else device

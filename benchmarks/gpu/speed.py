"""Samples per second on a GPU: what is measured, the most valuable first, each measurement in a process of its own.

The cases are those of ``benchmarks/cases.py``. The reviews are made up and the encoders have random weights unless a
checkpoint is given: neither changes the speed. A peer is timed once its gradient is found to be ours.
"""

import importlib.util
import os
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from batchscope.data.tokens import write_tokens
from batchscope.model.flops import FORMULA
from batchscope.training.gradients import compare
from benchmarks import fairness, flops, machine, made_up, worker
from benchmarks.cases import CASES, OURS, OURS_AUTO, TRAINER, Contender, Training
from benchmarks.contenders import ours
from benchmarks.made_up import random_encoder, without_dropout
from benchmarks.work import Work

WIDTH, SHORTEST, FULL = 128, 16, 0.9
"""Tokens of the longest and the shortest made-up review, and the share of the longest, which is IMDB's at 128."""
CORPUS = f"made-up reviews, {FULL:.0%} of them {WIDTH} tokens long"
VALIDATION = 32
SOME = (OURS.label, TRAINER.label, OURS_AUTO.label)
"""Contenders that are measured at every target batch and in every round; the others once, at the smallest."""
LIBRARIES = {"trainer": "transformers", "accelerate_loop": "accelerate", "lightning_module": "lightning"}


class Measurement(NamedTuple):
    """A contender at a case, for the ``number``-th time."""

    case: Training
    contender: Contender
    number: int


def installed(contender: Contender) -> bool:
    """Whether the contender can run here. The straightforward script cannot: made-up reviews have no texts."""
    library = LIBRARIES.get(contender.module, "torch" if contender.module == "ours" else None)
    return library is not None and importlib.util.find_spec(library) is not None


def planned(device: str) -> list[Measurement]:
    """All measurements, the most valuable first; on a CPU a few of tiny encoders, to see that it works."""
    if device == "cpu":
        tried = Training("tiny-32", "tiny, target batch 32", "cpu", "tiny", 32, 1, 2, (OURS, TRAINER))
        return [Measurement(tried, contender, 1) for contender in tried.contenders]
    cases = [case for case in CASES if isinstance(case, Training) and case.device == device]
    first, *others = sorted({case.target_batch_size for case in cases})

    def of(target: int, number: int, some: bool = True) -> list[Measurement]:
        return [
            Measurement(case, contender, number)
            for case in cases
            for contender in case.contenders
            if case.target_batch_size == target and (contender.label in SOME) == some and installed(contender)
        ]

    targets = [first, *others]
    once = [one for target in targets for one in of(target, 1)] + of(first, 1, some=False)
    return once + [one for target in targets for number in (2, 3) for one in of(target, number)]


# ------------------------------------------------------------------------------- what runs in a process of its own


def describe(device: str) -> dict[str, Any]:
    """The machine, and how many CUDA devices it has."""
    found = machine.describe(device, torch.get_num_threads())
    return found | {"cuda": torch.version.cuda, "cuda_devices": torch.cuda.device_count()}


def prepare(encoder: str, checkpoint: Path | None, folder: Path) -> str:
    """Make an encoder's two folders below ``folder``, with and without dropout; what its weights are."""
    if checkpoint is None:
        random_encoder(encoder, folder / encoder)
    else:
        (folder / encoder).symlink_to(checkpoint.resolve())
    without_dropout(folder / encoder, folder / f"{encoder}-without-dropout")
    return "random weights" if checkpoint is None else f"the weights of {checkpoint.name}"


def work_of(case: Training, folder: Path, threads: int) -> Work:
    """The work of a case; its tokens are made where they are not there yet."""
    count = (case.warm_up + case.updates) * case.target_batch_size
    tokens = folder / f"tokens-{count}"
    if not tokens.exists():
        made = made_up.reviews(count + VALIDATION, WIDTH, SHORTEST, FULL)
        write_tokens(made_up.rows(made, slice(count)), tokens / "train.arrow")
        write_tokens(made_up.rows(made, slice(count, None)), tokens / "validation.arrow")
    return Work(
        tokens=tokens,
        checkpoint=folder / case.encoder,
        target_batch_size=case.target_batch_size,
        updates=case.warm_up + case.updates,
        device=case.device,
        threads=threads,
    )


def only_the_first_gpu() -> None:
    """Show this process one GPU, before CUDA starts: HF Trainer would otherwise use all of them."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = shown[0]


def compared(case: Training, folder: Path, threads: int) -> dict[str, Any]:
    """The gradients of a case's peers against ours, and what a sample costs: see ``worker.compare_gradients``.

    A peer that fails is not timed, and its row says so; it does not fail the others.
    """
    only_the_first_gpu()
    work = replace(work_of(case, folder, threads), updates=1, precision="float32")
    plain = replace(work, checkpoint=folder / f"{case.encoder}-without-dropout")
    expected = fairness.gradient_of(ours.train, plain)
    rows: dict[str, dict[str, Any]] = {}
    for contender in case.contenders:
        if contender.module in LIBRARIES and installed(contender):
            try:
                peer = fairness.contenders([contender.module])[contender.module]
                measures = compare(fairness.gradient_of(peer, plain), expected)
                difference = measures["largest_difference"]
                rows[contender.module] = measures | {
                    "passed": difference is not None and difference <= fairness.TOLERANCE
                }
            except Exception:
                rows[contender.module] = {"passed": False, "largest_difference": None, "error": traceback.format_exc()}
    return {
        "gradients": rows,
        "gradient_tolerance": fairness.TOLERANCE,
        "flops_per_sample": flops.of_work(work),
        "flops_formula": FORMULA,
    }


def measured(measurement: Measurement, folder: Path, threads: int) -> dict[str, Any]:
    """One measurement: see ``worker.time_training``."""
    only_the_first_gpu()
    case, contender = measurement.case, measurement.contender
    work = replace(
        work_of(case, folder, threads),
        precision=contender.precision,
        physical_batch_size=contender.physical_batch_size,
    )
    return worker.time_training(work, contender.module, case.warm_up)


def new_result(case: Training, conditions: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The result of a case before its first measurement, as ``benchmarks.tables`` reads it."""
    return conditions | found | {"case": asdict(case), "rounds": []}


def add(result: dict[str, Any], measurement: Measurement, found: dict[str, Any]) -> None:
    """Put a measurement into its round."""
    rounds = result["rounds"]
    while len(rounds) < measurement.number:
        rounds.append({})
    rounds[measurement.number - 1][measurement.contender.label] = found

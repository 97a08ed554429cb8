"""Settle on one NVIDIA GPU, in one call of under nine minutes, what a CPU cannot show: what holds, and how fast it is.

make gpu-check                               on this machine, with the environment of the lock
PYTHONPATH=src:. python -m benchmarks.gpu_check --output gpu.json      with any other that has the package's libraries
PYTHONPATH=src:. python -m benchmarks.gpu_check --device cpu           the same on tiny encoders, to see that it works

Every check and every measurement runs in a process of its own and is in the JSON file as soon as it ends. What fails is
recorded with its traceback and stops nothing else. Copied to benchmarks/results/gpu.json, the file gets into
docs/benchmarks.md by ``python -m benchmarks --render``. Exit status: 0, or 1 where something failed, or 2 where nothing
could run. It needs neither Snakemake nor ``datasets`` nor pytest.
"""

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batchscope.files import write_json
from benchmarks.gpu.isolated import Processes
from benchmarks.harness import PAGE, RESULTS, ROOT, revision
from benchmarks.tables import GPU_FILE, render

BUDGET_SECONDS = 500.0
"""Below nine minutes, with what starting and ending takes."""
SPEED_SHARE = 0.5
"""Share of the budget after which no further check begins: the speed rows get the rest."""
CHECK_SECONDS = 90.0
"""A check that takes longer has failed."""
NEEDED = {
    "accelerate": "accelerate", "numpy": "numpy", "psutil": "psutil", "pyarrow": "pyarrow", "pydantic": "pydantic",
    "safetensors": "safetensors", "torch": "torch", "tqdm": "tqdm", "transformers": "transformers", "yaml": "pyyaml",
}  # fmt: skip
"""Modules that must be there, and the packages that have them."""
ROOM = 24 * 2**30
"""Bytes of memory from which on checkpoints are written there and not on a disk."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: the first GPU")
    options.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds in all (default: %(default)s)")
    options.add_argument(
        "--output", type=Path, help=f"the JSON file (default: {RESULTS}/{GPU_FILE}; with --device cpu a temporary one)"
    )
    options.add_argument("--checks", default="all", help="comma-separated names of checks, or none")
    options.add_argument("--no-speed", action="store_true", help="only the checks")
    options.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="ENCODER=FOLDER",
        help="weights for bert-base or modernbert-base; random ones otherwise",
    )
    return options


class Report:
    """The JSON file, written anew whenever something has ended."""

    def __init__(self, path: Path, budget: float) -> None:
        self.processes = Processes()
        self.path, self.started, self.budget = path, time.monotonic(), budget
        self.content: dict[str, Any] = {
            "machine": {}, "revision": revision(ROOT), "budget_seconds": budget, "seconds": 0.0,
            "checks": [], "weights": {}, "cases": {}, "failed": [], "not_measured": [],
        }  # fmt: skip

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - (time.monotonic() - self.started)

    def save(self) -> None:
        """Write the file."""
        self.content["seconds"] = self.budget - self.left
        write_json(self.path, self.content)

    def fail(self, name: str, error: str) -> None:
        """Record something that failed."""
        self.content["failed"].append({"name": name, "error": error})
        say("FAILED", name, error)

    @property
    def failures(self) -> list[str]:
        """Names of all that failed."""
        checks = [row["name"] for row in self.content["checks"] if row["status"] == "failed"]
        return checks + [row["name"] for row in self.content["failed"]]


def say(status: str, name: str, text: str) -> None:
    """One line, with the last lines of an error below it."""
    first, *lines = text.splitlines() or [""]
    if status == "FAILED":
        lines, first = [first, *lines][-12:], ""
    print(f"{status:<8} {name:<18} {first}", *(f"         {line}" for line in lines), sep="\n", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    arguments = parser().parse_args(argv)
    if missing := sorted({package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None}):
        stop(f"missing here: {', '.join(missing)}; install them with pip, or use the environment of `make setup`")
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(
            os.pathsep
        ),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a GPU must not start CUDA before the fork
        "PYTHONWARNINGS": "ignore",
        "WANDB_MODE": "disabled",
    }
    if place := roomy():
        os.environ["TMPDIR"] = tempfile.tempdir = place
    on_the_page = ROOT / RESULTS / GPU_FILE
    elsewhere = Path(tempfile.gettempdir()) / "batchscope-gpu-check-on-a-cpu.json"
    output = arguments.output or (elsewhere if arguments.device == "cpu" else on_the_page)
    report = Report(output, arguments.budget)
    device = begin(report, arguments.device)
    with tempfile.TemporaryDirectory(prefix="batchscope-gpu-") as folder:
        run_checks(report, device, arguments.checks, Path(folder), arguments.no_speed)
        if not arguments.no_speed:
            run_speed(report, device, checkpoints(arguments.checkpoint), Path(folder))
    report.save()
    if output.resolve() == on_the_page:
        render(ROOT / PAGE, ROOT / RESULTS)
    end(report)


def stop(message: str) -> None:
    """End before anything has run."""
    print(f"gpu_check: {message}", file=sys.stderr)
    sys.exit(2)


def begin(report: Report, wanted: str) -> str:
    """The device to check, once a process has seen it; the machine goes into the report."""
    from benchmarks.gpu import speed

    kind = "cpu" if wanted == "cpu" else "cuda"
    found = report.processes.call(speed.describe, kind, limit=120)
    if found.error is not None and kind == "cuda":  # as on a system where CUDA does not survive a fork
        report.processes = Processes("spawn")
        found = report.processes.call(speed.describe, kind, limit=120)
    if found.error is not None:
        advice = "; `--device cpu` shows on tiny encoders that the command works" if kind == "cuda" else ""
        stop(f"there is no {kind} device that works here{advice}\n{found.error}")
    report.content["machine"] = found.value
    machine = found.value
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    print(f"{machine['device']}, {machine['cores']} cores; Python {machine['python']}, {versions}\n", flush=True)
    report.save()
    return kind


def roomy() -> str | None:
    """A folder in memory where there is much of it: a training of BERT-base writes gigabytes. None: the usual one."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > ROOM else None


def checkpoints(given: list[str]) -> dict[str, Path]:
    """Encoder → folder of its weights, from ``ENCODER=FOLDER``."""
    found = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not (Path(folder) / "config.json").is_file():
            stop(f"--checkpoint {text}: {folder or 'nothing'} is no folder with a config.json")
        found[name] = Path(folder)
    return found


# ------------------------------------------------------------------------------------------------------ checks


def run_checks(report: Report, device: str, wanted: str, folder: Path, all_the_time: bool) -> None:
    """Run the checks one after the other; those that this device cannot show are named."""
    import torch

    from benchmarks.gpu.checks import CHECKS

    names = [] if wanted == "none" else wanted.split(",")
    if unknown := [name for name in names if name != "all" and name not in {check.name for check in CHECKS}]:
        stop(f"--checks: there is no {unknown[0]!r}; there are {', '.join(check.name for check in CHECKS)}")
    until = 0.0 if all_the_time else report.budget * (1 - SPEED_SHARE)
    for check in CHECKS:
        if "all" not in names and check.name not in names:
            continue
        row: dict[str, Any] = {"name": check.name, "claim": check.claim, "status": "not run"}
        report.content["checks"].append(row)
        if reason := why_not(check.needs, device, report.content["machine"]["cuda_devices"]):
            row["reason"] = reason
        elif report.left <= until:
            row["reason"] = "no time was left"
        else:
            own = folder / check.name
            own.mkdir()
            limit = min(CHECK_SECONDS, report.left)
            found = report.processes.call(check.run, torch.device(device), own, limit=limit)
            row |= {"status": "failed" if found.error else "passed", "seconds": found.seconds}
            row |= {"error": found.error} if found.error else {"facts": found.value}
            shutil.rmtree(own, ignore_errors=True)
        report.save()
        if row["status"] == "failed":
            say("FAILED", check.name, row["error"])
        else:
            say(row["status"], check.name, check.claim + (f": {row['reason']}" if "reason" in row else ""))


def why_not(needs: str, device: str, count: int) -> str | None:
    """Why a check cannot run on this device; None where it can."""
    if needs != "any device" and device == "cpu":
        return "no CUDA device"
    if needs == "two CUDA devices" and count < 2:
        return "one CUDA device, and it needs two"
    return None


# ------------------------------------------------------------------------------------------------------- speed


def run_speed(report: Report, device: str, weights: dict[str, Path], folder: Path) -> None:
    """Measure in order of value until the time is used up."""
    from benchmarks.gpu import speed

    threads, refused = report.content["machine"]["threads"], dict[str, str]()
    longest: dict[str, float] = {}
    conditions = {"machine": report.content["machine"], "revision": report.content["revision"]}
    for measurement in speed.planned(device):
        case, label = measurement.case, measurement.contender.label
        name = f"{case.name}, {label}, round {measurement.number}"
        reason = refused.get(case.encoder)
        if reason is None and report.left < longest.get(label, 20.0) * 1.1:
            reason = "no time was left"
        if reason is None and case.encoder not in report.content["weights"]:
            reason = prepare(report, measurement, weights, folder, threads)
            if reason is not None:
                refused[case.encoder] = reason
        if reason is None:
            reason = refusal(report, measurement)
        if reason is not None:
            report.content["not_measured"].append({"case": case.name, "contender": label, "reason": reason})
            continue
        result = report.content["cases"].get(case.name)
        if result is None:
            gradients = report.content["gradients"][case.encoder]
            corpus = f"{speed.CORPUS}, {report.content['weights'][case.encoder]}"
            result = speed.new_result(case, conditions | {"corpus": corpus}, gradients)
            report.content["cases"][case.name] = result
        found = report.processes.call(speed.measured, measurement, folder, threads, limit=report.left)
        longest[label] = max(longest.get(label, 0.0), found.seconds)
        if found.error is not None:
            report.fail(name, found.error)
        else:
            speed.add(result, measurement, found.value)
            say("measured", name, f"{found.value['samples_per_second']:,.0f} samples/s")
        report.save()


def prepare(report: Report, measurement: Any, weights: dict[str, Path], folder: Path, threads: int) -> str | None:
    """Make an encoder's weights and compare its peers' gradients with ours; why it cannot be measured, or None."""
    from benchmarks.gpu import speed

    encoder = measurement.case.encoder
    made = report.processes.call(speed.prepare, encoder, weights.get(encoder), folder, limit=report.left)
    found = (
        made
        if made.error
        else report.processes.call(speed.compared, measurement.case, folder, threads, limit=report.left)
    )
    if found.error is not None:
        report.fail(f"{encoder}, gradients", found.error)
        report.save()
        return "its gradients could not be compared"
    report.content["weights"][encoder] = made.value
    report.content.setdefault("gradients", {})[encoder] = found.value
    for peer, row in found.value["gradients"].items():
        if not row["passed"]:
            report.fail(f"{encoder}, gradient of {peer}", row.get("error", f"differs by {row['largest_difference']}"))
    report.save()
    return None


def refusal(report: Report, measurement: Any) -> str | None:
    """Why a contender is not timed; None where its gradient is ours."""
    gradients = report.content["gradients"][measurement.case.encoder]["gradients"]
    module = measurement.contender.module
    return None if module == "ours" or gradients[module]["passed"] else "its gradient is not ours"


def end(report: Report) -> None:
    """A last line; exit status 1 where something failed."""
    checks = report.content["checks"]
    counts = {status: sum(row["status"] == status for row in checks) for status in ("passed", "failed", "not run")}
    measured = sum(len(found) for case in report.content["cases"].values() for found in case["rounds"])
    print(
        f"\n{counts['passed']} checks passed, {counts['failed']} failed, {counts['not run']} not run; "
        f"{measured} measurements; {report.content['seconds']:.0f} s; {report.path}"
    )
    if report.failures:
        print(f"failed: {', '.join(report.failures)}")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Measure the cases that this machine can run, write their JSON, and put the tables into docs/benchmarks.md:

make bench                          all cases on the CPU, and those of a GPU where there is one
make bench CASES=small,overhead     some of them; a name's beginning stands for all that begin so
python -m benchmarks --render       the tables again, from the JSON that is there
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batchscope.errors import UserError
from batchscope.files import write_json
from benchmarks.cases import CASES, Accuracy, EndToEnd, Memory, Overhead, Training, select
from benchmarks.harness import PAGE, RESULTS, ROOT, Bench, run_accuracy, run_training
from benchmarks.memory import run_memory
from benchmarks.tables import file_of, render, section
from benchmarks.workflow import run_end_to_end, run_overhead

log = logging.getLogger("benchmarks")
RUNNERS: dict[type, Any] = {
    Training: run_training,
    Accuracy: run_accuracy,
    EndToEnd: run_end_to_end,
    Overhead: run_overhead,
    Memory: run_memory,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = ", ".join(case.name for case in CASES)
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(":")[0] + ".")
    options.add_argument("--cases", default="all", help=f"comma-separated: all, cpu, gpu, or any of {names}")
    options.add_argument("--repeats", type=int, default=5, help="rounds of a case (default: 5)")
    options.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options.add_argument("--results", type=Path, default=ROOT / RESULTS, help="folder for the JSON")
    options.add_argument("--page", type=Path, default=ROOT / PAGE, help="the page whose tables are made")
    options.add_argument("--render", action="store_true", help="measure nothing")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exit status 1 where a contender was refused or the user made a mistake."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    refused: list[str] = []
    if not arguments.render:
        try:
            refused = measure(arguments)
        except UserError as error:
            sys.exit(f"benchmarks: {error}")
    render(arguments.page, arguments.results)
    log.info(f"the tables: {arguments.page}")
    if refused:
        sys.exit(f"benchmarks: not timed, as their gradient is not ours: {', '.join(refused)}")


def measure(arguments: argparse.Namespace) -> list[str]:
    """Run the chosen cases; returns the contenders that were refused."""
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix="batchscope-benchmarks-") as folder:
        bench = Bench(Path(folder), arguments.repeats, arguments.threads)
        for case in select(arguments.cases):
            if case.device == "cuda" and not bench.do("cuda_is_there")["there"]:
                log.info(f"{case.name}: left out, there is no GPU")
                continue
            started = time.perf_counter()
            result = RUNNERS[type(case)](case, bench)
            write_json(arguments.results / file_of(case, result), result)
            print(f"\n{case.title}\n\n{section(case, result)}\n", flush=True)
            log.info(f"{case.name}: done in {time.perf_counter() - started:.0f} s")
            refused += [f"{case.name}: {name}" for name, g in result.get("gradients", {}).items() if not g["passed"]]
    return refused


if __name__ == "__main__":
    main()

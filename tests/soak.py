"""A study of hundreds of tiny runs through one DAG that is killed again and again: `make soak`. Hours, so not in CI.

At the end every run is there, a sample of them has the bytes and the numbers of the same runs trained alone, and
nothing is left over: no state, no half-written file, no lock, no process.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/support")]

from small_workflow import Workflow  # noqa: E402

from batchscope.config.study import Study  # noqa: E402
from batchscope.config.text import read_mapping  # noqa: E402
from batchscope.provenance.clean import in_words, leftovers  # noqa: E402
from batchscope.provenance.fingerprint import file_hash  # noqa: E402

BYTES = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors", "predictions.parquet")
SAMPLE = 5
MEASURED = re.compile("second|memory|joules|utilisation")


def main() -> None:
    """Run the soak; AssertionError where a run is lost, differs, or leaves something behind."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=300)
    options.add_argument("--kills", type=int, default=60)
    options.add_argument("--longest", type=float, default=90, help="seconds between two kills, at most")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, default=Path("build/soak"))
    given = options.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    workflow, dice = study(given.folder / "killed", range(1, given.runs // 3 + 1)), random.Random(given.seed)
    kills = sum(killed(workflow, dice.uniform(5, given.longest)) for _ in range(given.kills))
    to_the_end(workflow)
    runs = runs_of(workflow)
    assert len(runs) == given.runs // 3 * 3, f"{len(runs)} runs"
    for run in dice.sample(runs, min(SAMPLE, len(runs))):
        same_as_alone(workflow, run, given.folder / "alone" / run.replace("/", "-"))
    nothing_left(workflow)
    print(f"{len(runs)} runs, killed {kills} times: all there, {min(SAMPLE, len(runs))} compared, nothing left over")


def study(folder: Path, seeds: range) -> Workflow:
    """Three runs per seed, of which each is seconds long and saves a state after every update."""
    folder.mkdir(parents=True)
    workflow = Workflow(ROOT, folder.resolve())
    workflow.write_config(seeds=list(seeds), save_every=0.001)
    return workflow


def to_the_end(workflow: Workflow, *arguments: str) -> None:
    """Run the workflow, however long it takes."""
    done = subprocess.run(
        workflow.command(*arguments), env=workflow.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def killed(workflow: Workflow, seconds: float) -> bool:
    """Start the workflow and kill all of its processes after some seconds; False where it was done before."""
    command = workflow.command()
    process = subprocess.Popen(
        command, env=workflow.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds) != 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert workflow.snakemake("--unlock").returncode == 0
        return True


def runs_of(workflow: Workflow) -> list[str]:
    """The study's runs, each with all that it promises."""
    runs = {run.path for run in Study.from_mapping(config_of(workflow)).runs().values()}
    folder = workflow.folder / "results/small/runs"
    lost = [
        f"{run}/{name}" for run in runs for name in (*BYTES, "manifest.json") if not (folder / run / name).is_file()
    ]
    assert not lost, lost
    return sorted(runs)


def config_of(workflow: Workflow) -> dict[object, object]:
    """The study's config, whose source is found from anywhere."""
    config = read_mapping(workflow.config, str(workflow.config))
    data = config["data"]
    assert isinstance(data, dict)
    return config | {"data": data | {"source": str(workflow.folder / "reviews.jsonl")}}


def same_as_alone(workflow: Workflow, run: str, folder: Path) -> None:
    """The run has the bytes, and in the table the row, of the same run that is trained alone, undisturbed."""
    alone = study(folder, range(int(run.rpartition("seed")[2]), int(run.rpartition("seed")[2]) + 1))
    to_the_end(alone, "--", *(f"results/small/runs/{run}/{name}" for name in BYTES))
    for name in BYTES:
        one, other = (place.folder / "results/small/runs" / run / name for place in (workflow, alone))
        assert file_hash(one) == file_hash(other), f"{one} differs from the run that was trained alone"
    to_the_end(alone, "--", "results/small/tables/results.parquet")
    one, other = (row_of(place, run) for place in (workflow, alone))
    pd.testing.assert_series_equal(one, other, check_names=False)


def row_of(workflow: Workflow, run: str) -> "pd.Series[object]":
    """The run's row in the study's table, without what a clock or the machine says."""
    table = pd.read_parquet(workflow.folder / "results/small/tables/results.parquet")
    (row,) = table[(table.run == run) & ~table.shared].to_dict("records")
    kept = pd.Series({name: value for name, value in row.items() if not MEASURED.search(name)})
    return kept.where(kept.notna(), None)  # a column without any value may be NaN or None


def nothing_left(workflow: Workflow) -> None:
    """No state, lock, half-written file or process stays."""
    time.sleep(2)
    results = workflow.folder / "results"
    assert not [path for path in (results / "small/state").rglob("*") if path.is_file()]
    assert not list((results / ".locks").glob("*.lock")) or not leftovers(results, 0)
    found = [one for one in leftovers(results, 0) if "code" not in one.why]
    assert not found, in_words(found)
    mine = str(workflow.folder)
    assert not [one.pid for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == mine and one.pid != os.getpid()]


if __name__ == "__main__":
    main()

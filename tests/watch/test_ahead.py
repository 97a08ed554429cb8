"""How long the rest of a study takes, as `watch` says it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import RUN, Jobs, jobs_of
from small import tiny_config
from small_workflow import SMALL, Workflow

from batchscope.files import write_json
from batchscope.provenance.plan import planned_jobs
from batchscope.provenance.stages import subject_of, verb_of
from batchscope.provenance.studies import wanted_jobs
from batchscope.training.spec import BudgetSpec, TrainSpec
from batchscope.training.windows import windows
from batchscope.watch.ahead import PRIORITY, Forecaster, gpus_of, needs_of, threads_of, total_samples
from batchscope.watch.frame import frame_of
from batchscope.watch.states import Watcher

SPEC = TrainSpec.model_construct(target_batch_size=16, budget=BudgetSpec(epochs=1), tail="exact")


def test_the_jobs_their_order_and_what_they_occupy_are_those_of_the_rules(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    workflow = Workflow(root, tmp_path)
    branch = {"at": [16], "factors": [1, 2], "samples": 128}
    insight = {name: {"enabled": True} for name in ("attention", "errors", "geometry", "cartography")}
    changes = {"device": "auto", "threads": 2, "seeds": [2, 1], "tracking": {"mode": "offline", "project": "p"}}
    changes |= {"budget": {"epochs": 2}, "keep": "all"}
    workflow.write_config(branch=branch, insight=insight, **changes)
    planned, jobs = planned_jobs([workflow.config])
    expected = {job.name: (sorted(job.needs), job.threads, job.gpus, job.priority) for job in planned}
    assert {verb_of(name) for name in expected} == {verb_of(name) for name in jobs.jobs}
    wanted, subjects = wanted_jobs(jobs), dict[str, list[str]]()
    for name in wanted:
        subjects.setdefault(verb_of(name), []).append(subject_of(name))
    assert expected == {
        name: (
            sorted(set(needs_of(name, subjects))),
            threads_of(name, jobs),
            gpus_of(name, jobs),
            PRIORITY.get(verb_of(name), 0),
        )
        for name in wanted
    }
    assert SMALL["device"] == "cpu"


@given(
    examples=st.integers(1, 60),
    batch=st.integers(1, 60),
    amount=st.integers(1, 90),
    kind=st.sampled_from(["epochs", "updates", "samples"]),
    tail=st.sampled_from(["exact", "naive", "drop"]),
)
def test_the_samples_of_a_whole_run_are_those_of_its_windows(examples, batch, amount, kind, tail) -> None:
    if batch > examples:
        return
    budget = BudgetSpec(**{kind: min(amount, 5) if kind == "epochs" else amount})
    spec = SPEC.model_copy(update={"target_batch_size": batch, "budget": budget, "tail": tail})
    *_, last = windows(examples, batch, budget, tail)
    assert total_samples(spec, examples) == last.samples


def test_a_running_training_needs_what_is_left_at_its_pace_and_so_do_those_like_it(
    small_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """184 examples, 2 epochs: 368 samples; 92 are seen at 4 samples/s. The other batch size goes at the same pace."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config(models={"bert": tiny_config()["models"]["bert"]})
    jobs = jobs_of(Path(), config, small_study)
    jobs.file()
    forecaster, watcher = Forecaster(), Watcher(jobs.layout)
    assert forecaster.left(watcher.look()).seconds is None, "nothing was measured"
    progress = {"update": 6, "epoch": 1, "samples": 92, "loss": 0.5, "accuracy": 0.7}
    progress |= {"samples_per_second": 4.0, "idle_seconds": 0.1}
    far = {"host": "node7", "machine": "another", "pid": 1, "started_ticks": 1, "started": 0.0}
    far["job_file"] = jobs.file().name
    write_json(jobs.layout.process(f"train/{RUN}"), far | {"phase": "working", "beat": 1, "progress": progress})
    look = watcher.look()
    assert forecaster.training_left(look.active[f"train/{RUN}"], look.jobs) == (368 - 92) / 4
    left = forecaster.left(look)
    assert (left.seconds, left.cores) == ((368 - 92) / 4 + 368 / 4, 1), "one after the other, on the core in use"
    assert left.unmeasured == len(look.states) - 2
    assert Forecaster(cores=3).left(look).seconds == 368 / 4, "and tokenize takes two"
    assert "1 min 9 s left" in at_work(watcher, jobs, forecaster)
    progress |= {"update": 24, "epoch": 2, "samples": 368}
    write_json(jobs.layout.process(f"train/{RUN}"), far | {"phase": "working", "beat": 2, "progress": progress})
    assert "trained: it measures the run" in at_work(watcher, jobs, forecaster)


def at_work(watcher: Watcher, jobs: Jobs, forecaster: Forecaster) -> str:
    """What `watch` says of the running jobs."""
    running = frame_of(watcher.look(), jobs.layout, forecaster).running
    return "\n".join(line.plain for lines in running for line in lines)

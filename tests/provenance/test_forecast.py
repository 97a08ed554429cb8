"""What a plan foretells: finished and unfinished work, where it was computed, and the time that the jobs take."""

import itertools
import json
import random
from pathlib import Path

import pytest
from jobs import jobs_of
from small import tiny_config

from batchscope.config.study import Study
from batchscope.files import DamagedFileError, write_json, write_text
from batchscope.provenance.expected import count_training_examples
from batchscope.provenance.forecast import forecast
from batchscope.provenance.jobs import JobFile, read_job_file, write_job_file
from batchscope.provenance.layout import Layout
from batchscope.provenance.manifests import run_fingerprint
from batchscope.provenance.plan import Machine, Outlook, PlannedJob, machine_of
from batchscope.provenance.plan_view import as_table
from batchscope.provenance.walltime import wall_seconds
from batchscope.training.spec import TrainSpec

RUN = "bert/bs16/constant/seed1"
CHANGES = [("seconds", "x"), ("seconds", None), ("samples", 0), ("samples", [1]), ("train_examples", None)]


@pytest.fixture
def study(small_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFile:
    """The tiny study with its tokens, in float32 on a CPU; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    return jobs_of(Path(), tiny_config(target_batch_sizes=[16]), small_study).read()


def fingerprint_of(study: JobFile) -> str:
    job = f"train/{RUN}"
    return run_fingerprint(study.spec(job, TrainSpec), study.code(job), study.layout.tokens("bert"))


def foretold(study: JobFile, *names: str) -> tuple[list[PlannedJob], Outlook]:
    """The forecast of these trainings, or of one."""
    made = [PlannedJob(name.partition("/")[0], {}, name) for name in names or (f"train/{RUN}",)]
    return made, forecast(made, study, Machine(2, 1))


def save_state(study: JobFile, place: str, update: int) -> None:
    write_text(study.layout.state / f"{fingerprint_of(study)}-{place}/state-{update:09d}-abc.pt", "a state")


def test_an_interrupted_training_needs_what_is_left_of_its_budget(study: JobFile) -> None:
    """184 examples in windows of 16: 2 epochs are 368 samples, after update 13 192 of them are seen."""
    measured = study.layout.results / f"other/runs/{RUN}"
    manifest = {"fingerprint": "another", "files": {}, "spec": study.plain(f"train/{RUN}"), "driver": None}
    write_json(measured / "manifest.json", manifest)
    facts = {"device": "a CPU", "seconds": 36.8, "samples": 1000, "train_examples": 500}
    write_json(measured / "train.json", facts)
    [job], _ = foretold(study)
    assert (job.resumes, job.seconds) == (None, pytest.approx(368 * 0.0368))
    save_state(study, "float32-cpu", 12)
    save_state(study, "float32-cpu", 13)
    [job], outlook = foretold(study)
    assert (job.resumes, job.seconds) == (13, pytest.approx((368 - 184 - 16) * 0.0368))
    assert "resumes after update 13" in as_table([job], outlook)


def test_a_state_of_another_precision_or_device_is_named_and_not_counted_on(study: JobFile) -> None:
    save_state(study, "bfloat16-cuda", 13)
    [job], outlook = foretold(study)
    assert job.resumes is None
    assert (
        "begun in bfloat16 on cuda, 13 updates done; this machine trains in float32 on cpu and would start anew"
        in as_table([job], outlook)
    )
    save_state(study, "float32-cpu", 2)
    [job], _ = foretold(study)
    assert (job.resumes, job.note) == (2, None)


def finished_elsewhere(study: JobFile, folder: Path, precision: str, device: str) -> None:
    manifest = {"fingerprint": fingerprint_of(study), "files": {}, "spec": study.plain(f"train/{RUN}")}
    write_json(folder / "manifest.json", manifest | {"precision": precision, "device_type": device})


def test_a_finished_run_of_another_precision_is_not_offered(study: JobFile) -> None:
    other = study.layout.results / f"other/runs/{RUN}"
    finished_elsewhere(study, other, "bfloat16", "cpu")
    [job], outlook = foretold(study)
    assert job.reuses is None
    assert (
        f"{other} is the same training in bfloat16 on cpu; this machine trains in float32 on cpu, so it is not taken"
        in as_table([job], outlook)
    )
    finished_elsewhere(study, study.layout.results / f"third/runs/{RUN}", "float32", "cpu")
    [job], _ = foretold(study)
    assert job.reuses == f"results/third/runs/{RUN}" and job.note is None


def test_finished_runs_of_another_device_are_named_where_they_stay(study: JobFile) -> None:
    finished_elsewhere(study, study.layout.run(RUN), "bfloat16", "cuda")
    _, outlook = foretold(study, "tables")
    assert outlook.notes == [
        f"1 finished run was trained in bfloat16 on cuda: {RUN}. This machine trains in float32 on cpu. Finished "
        "runs stay as they are, and the report names runs that differ in this."
    ]
    _, outlook = foretold(study)
    assert outlook.notes == [], "it is to be trained anew"


def test_a_target_batch_size_above_the_training_examples_is_named(small_study, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").touch()
    config = tiny_config(target_batch_sizes=[16, 185], data={"source": "reviews.csv"})
    made = jobs_of(Path(), config, small_study)
    _, outlook = foretold(made.read())
    assert outlook.notes == [
        "target_batch_sizes: 185 is above the 184 training examples, so its runs will fail: give a smaller one, or use "
        "more data."
    ]
    _, outlook = foretold(made.read(), "split", f"train/{RUN}")
    assert outlook.notes == [], "the split is made anew"
    study = Study.from_mapping(config).without_batches_above(184)
    left = write_job_file(tmp_path, study.study, study.job_specs(), made.read().codes, study.train_settings())
    _, outlook = foretold(read_job_file(left))
    assert outlook.notes == ["Target batch size 185 of the config is left out: it is above the 184 training examples."]


# ------------------------------------------------------------------------------------------------------ wall time


def job(
    name: str, seconds: float | None, *needs: str, threads: int = 1, gpus: int = 0, priority: int = 0
) -> PlannedJob:
    return PlannedJob(
        "train", {}, name, seconds=seconds, threads=threads, gpus=gpus, priority=priority, needs=list(needs)
    )


def test_jobs_beside_each_other_take_as_long_as_the_longest_path() -> None:
    chain = [job("corpus", 1), job("split", 2, "corpus"), job("train/a", 10, "split"), job("train/b", 7, "split")]
    chain.append(job("tables", 1, "train/a", "train/b"))
    assert wall_seconds(chain, 1, 0) == 21, "one core: one after the other"
    assert wall_seconds(chain, 2, 0) == wall_seconds(chain, 8, 0) == 14
    assert wall_seconds(chain[::-1], 8, 0) == 14, "whatever their order"


def test_a_card_is_given_to_one_job_at_a_time() -> None:
    trainings = [job(f"train/{number}", 10, threads=2, gpus=1) for number in range(4)]
    assert [wall_seconds(trainings, 8, gpus) for gpus in (1, 2, 3, 4)] == [40, 20, 20, 10]
    assert wall_seconds(trainings, 2, 4) == 40 and wall_seconds(trainings, 1, 4) == 40, "a job gets at most all cores"
    assert wall_seconds(trainings, 8, 0) == 10, "without a limit on cards"


def test_priority_decides_who_is_first_and_an_unmeasured_job_takes_no_time() -> None:
    jobs = [job("maps", 5, priority=-10), job("train", 5), job("evaluate", 5, "train"), job("certify", None)]
    assert wall_seconds(jobs, 1, 0) == 15
    assert wall_seconds([*jobs, job("report", 1, "evaluate")], 2, 0) == 11, "the maps fill the idle core"
    assert wall_seconds([], 2, 1) == 0


def test_wall_time_lies_between_the_bounds_of_list_scheduling() -> None:
    """Graham 1966: between max(work / cores, longest path) and work / cores + longest path."""
    dice = random.Random(5)
    for cores, count in itertools.product((1, 2, 5), (1, 10, 60)):
        jobs = [
            job(str(n), dice.uniform(0, 9), *(str(m) for m in range(n) if dice.random() < 0.1)) for n in range(count)
        ]
        ends: dict[str, float] = {}
        for one in jobs:
            ends[one.name] = (one.seconds or 0) + max((ends[name] for name in one.needs), default=0)
        work, path = sum(one.seconds or 0 for one in jobs) / cores, max(ends.values())
        assert max(work, path) - 1e-9 <= wall_seconds(jobs, cores, 0) <= work + path + 1e-9


@pytest.mark.parametrize(
    ("arguments", "machine"),
    [
        (["--cores", "8"], Machine(8, 1)),
        (["-c4", "--resources", "gpu=2", "mem_mb=100"], Machine(4, 2)),
        (["-j", "3", "--until", "train"], Machine(3, 1)),
        (["--cores", "8", "--cores", "2"], Machine(2, 1)),
        (["--workflow-profile", "profiles/slurm"], None),
        (["--executor", "slurm", "-j", "100"], None),
    ],
)
def test_the_cores_are_those_of_the_command_line(arguments: list[str], machine: Machine | None) -> None:
    assert machine_of(arguments) == machine
    assert machine_of([]).cores >= 1


def test_what_says_nothing_of_its_time_is_passed_over(study: JobFile) -> None:
    """A file of another run, of a benchmark or of a state stops no plan."""
    whole = {"device": "a CPU", "seconds": 36.8, "samples": 1000, "train_examples": 500}
    manifest = {"fingerprint": "another", "files": {}, "spec": study.plain(f"train/{RUN}"), "driver": None}
    damaged = ("[]", "null", "{}", *(json.dumps(whole | {name: change}) for name, change in CHANGES))
    for number, text in enumerate((json.dumps(whole), *damaged)):
        folder = study.layout.results / f"other{number}/runs/{RUN}"
        write_json(folder / "manifest.json", manifest)
        write_text(folder / "train.json", text)
    for number, text in enumerate((b"s\n8.0\n", b"\xff", b"", b"s\n", b"s\nnan\n", b"a\n1\n", b"s\tb\n\x00\n")):
        path = study.layout.results / f"other{number}/benchmarks/evaluate/{RUN}.tsv"
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
    save_state(study, "float32-cpu", 13)
    (study.layout.state / f"{fingerprint_of(study)}-float32-cpu/state-x-y.pt").touch()
    made, _ = foretold(study, f"train/{RUN}", f"evaluate/{RUN}")
    assert [job.seconds for job in made] == [pytest.approx((368 - 184 - 16) * 0.0368), 8.0]


@pytest.mark.parametrize("content", [b"", b"7", b"PAR1PAR1PAR1PAR1"])
def test_a_damaged_split_is_named(tmp_path: Path, content: bytes) -> None:
    layout = Layout(tmp_path)
    layout.split.parent.mkdir()
    layout.split.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"split\.parquet is damaged"):
        count_training_examples(layout)

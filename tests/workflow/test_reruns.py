"""What a change re-runs: real Snakemake on a finished study, and the exact jobs, as `batchscope plan` names them.

The table in docs/reruns.md has a line for every row here, and says the same.
"""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from forked import Forked, forget_the_package, run_forked, together
from small_workflow import SMALL, Workflow

from batchscope.config.study import Study

RUNS = ("bert/bs16/constant/seed1", "bert/bs64/constant/seed1", "bert/bs64/sqrt/seed1")
PER_RUN = ("train", "evaluate", "attention", "maps")
SHOWN = {"tables", "figures", "report"}
COMPILED = SHOWN | {"calibration"}
"""What is made of all runs."""
DATA = {"corpus", "split", "tokenize/bert", "audit", "reviews", "certify/bert"}
NOTHING: set[str] = set()


def of(verbs: Iterable[str], runs: Iterable[str] = RUNS) -> set[str]:
    """Jobs of some stages of some runs."""
    runs = list(runs)
    return {f"{verb}/{run}" for verb in verbs for run in runs}


ALL = DATA | of(PER_RUN) | COMPILED


@dataclass
class Case:
    """A finished study that a row may change as it likes."""

    root: Path
    folder: Path
    config: dict[str, Any]
    arguments: list[str] = field(default_factory=list)
    """Further arguments of snakemake."""

    @property
    def own(self) -> Path:
        """Where this case's copy of the repository is, once it has one."""
        return self.folder.with_name("repository")

    @property
    def repository(self) -> Path:
        """The code that runs: the checkout's, or the copy that a row may change."""
        return self.own if self.own.exists() else self.root

    def copied(self) -> Path:
        """This case's copy of the repository, with all times as they were."""
        for part in PARTS if not self.own.exists() else ():
            copy = shutil.copytree if (self.root / part).is_dir() else shutil.copy2
            (self.own / part).parent.mkdir(exist_ok=True)
            copy(self.root / part, self.own / part)
        return self.own

    @property
    def study(self) -> Path:
        return self.folder / "results/small"

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text of the repository that must be there."""
        file = self.copied() / path
        text = file.read_text()
        assert old in text, f"{path} has changed: give this row another edit"
        file.write_text(text.replace(old, new, 1))


Change = Callable[[Case], Any]


def setting(**changes: Any) -> Change:
    """Another config."""
    return lambda case: case.config.update(changes)


def edit(path: str, old: str, new: str) -> Change:
    """Another code."""
    return lambda case: case.edit(path, old, new)


def arguments(*words: str) -> Change:
    """Another command line."""
    return lambda case: case.arguments.extend(words)


# ------------------------------------------------------------------------------------------------------- the changes


def touch(case: Case) -> None:
    for name in ("data/corpus.parquet", "tokens/bert/train.arrow", f"runs/{RUNS[0]}/checkpoints/best.safetensors"):
        (case.study / name).touch()
    (case.folder / "reviews.jsonl").touch()
    for path in [*case.copied().rglob("*.py"), *case.copied().rglob("*.smk")]:
        path.touch()
    assert (case.study / f"runs/{RUNS[0]}/checkpoints/best.safetensors").stat().st_size > 1_000_000


def clone(case: Case) -> None:
    """What a new clone of the repository over the same results lacks."""
    shutil.rmtree(case.folder / ".snakemake")
    (case.folder / "results/.content.json").unlink()


def clone_and_change(case: Case) -> None:
    clone(case)
    case.config["lr_policies"] = {"constant": {"base_lr": 2e-3}, "sqrt": SMALL["lr_policies"]["sqrt"]}
    case.config["target_batch_sizes"] = [64]


def other_results(case: Case) -> None:
    """Results of another config put in place of these, as after a copy from a cluster; Snakemake still knows these."""
    record = case.study / f"fingerprints/train/{RUNS[1]}.json"
    record.write_text(record.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.5'))


def comment(case: Case) -> None:
    for path in case.copied().rglob("src/**/*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}\n# Another.\n")


def docstring(case: Case) -> None:
    case.edit("src/batchscope/training/loop.py", '"""Train one run:', '"""Train a run:')
    case.edit("src/batchscope/data/tokens.py", '"""[N] row numbers', '"""[N] the row numbers')
    case.edit("src/batchscope/report/figures.py", '"""Write every figure', '"""Draw every figure')


def reformatting(case: Case) -> None:
    """Every module as Python itself would write it, and a shell line broken elsewhere."""
    for path in case.copied().rglob("src/**/*.py"):
        path.write_text(ast.unparse(ast.parse(path.read_text())))
    case.edit(
        "rules/common.smk", "python -m batchscope {verb_of(job)} --jobs", "python -m batchscope {verb_of(job)}   --jobs"
    )


def swap_lr_and_epochs(case: Case) -> None:
    """Learning rate 3, two epochs become learning rate 2, three epochs: the same values under each other's names."""
    one = {"target_batch_sizes": [64], "seeds": [5], "lr_policies": {"constant": {"base_lr": 3}}}
    case.config |= one | {"budget": {"epochs": 2}}
    ran = snakemake(case, "--until", "train")
    assert ran.returncode == 0, ran.stdout
    case.config |= {"lr_policies": {"constant": {"base_lr": 2}}, "budget": {"epochs": 3}}
    case.arguments += ["--until", "train"]


def reversed_keys(value: Any) -> Any:
    return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


def other_order(case: Case) -> None:
    """Every mapping backwards, but for the policies: the first one owns a run that two of them share."""
    policies = {name: reversed_keys(policy) for name, policy in case.config["lr_policies"].items()}
    case.config = reversed_keys(case.config) | {"lr_policies": policies}


def other_spelling(case: Case) -> None:
    policies = {name: policy | {"base_lr": "1.0e-3"} for name, policy in SMALL["lr_policies"].items()}
    case.config["lr_policies"] = policies
    case.config["optimizer"] = {"eps": "0.00000001"}


def rewritten(case: Case) -> None:
    path = case.folder / "reviews.jsonl"
    text = path.read_text()
    path.unlink()
    path.write_text(text)


def one_review(case: Case) -> None:
    path = case.folder / "reviews.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace("film", "reel", 1))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns - 10**12, before.st_mtime_ns - 10**12))


def move_data(case: Case) -> None:
    (case.folder / "elsewhere").mkdir()
    (case.folder / "reviews.jsonl").rename(case.folder / "elsewhere/reviews.jsonl")
    case.config["data"] = SMALL["data"] | {"source": "elsewhere/reviews.jsonl"}


def second_budget(case: Case) -> None:
    del case.config["budget"]
    case.config["budgets"] = {"one": SMALL["budget"], "two": {"updates": 3}}


def switch_cartography_on(case: Case) -> None:
    """In a study of two epochs whose trainings kept their checkpoints: its records say so."""
    clone(case)
    case.config |= {"keep": "all", "budget": {"epochs": 2}}
    with contextlib.chdir(case.folder):
        specs = Study.from_mapping(case.config).job_specs()
    for job, spec in specs.items():
        path = case.study / f"fingerprints/{job}.json"
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"spec": json.loads(spec.identity())}))
    case.config["insight"] = {"cartography": {"enabled": True}}


def delete_best(case: Case) -> None:
    (case.study / f"runs/{RUNS[2]}/checkpoints/best.safetensors").unlink()


ATTENTION = "src/batchscope/insight/attention.py"
RENAMED = {"flat": SMALL["lr_policies"]["constant"], "sqrt": SMALL["lr_policies"]["sqrt"]}
LARGER = ("bert/bs128/constant/seed1", "bert/bs128/sqrt/seed1")
BUDGETS = tuple(run.replace("seed1", f"{budget}/seed1") for run in RUNS for budget in ("one", "two"))
SEEDS = tuple(run.replace("seed1", "seed2") for run in RUNS)
LINEAR = {"linear": {"base_lr": 1e-3, "scaling": "linear", "reference_batch_size": 16}}
SMALLER_LR = {name: policy | {"base_lr": 1e-8} for name, policy in SMALL["lr_policies"].items()}

MATRIX: dict[str, tuple[Change, set[str]]] = {
    "nothing changed": (lambda case: None, NOTHING),
    "a file touched": (touch, NOTHING),
    "the repository cloned anew over the same results": (clone, NOTHING),
    "cloned anew, and the learning rate changed": (
        clone_and_change,
        of(PER_RUN, ["bert/bs64/constant/seed1"]) | COMPILED,
    ),
    "results of another config copied over these": (
        other_results,
        of(PER_RUN, ["bert/bs64/constant/seed1"]) | COMPILED,
    ),
    "a comment": (comment, NOTHING),
    "a docstring": (docstring, NOTHING),
    "a reformatting": (reformatting, NOTHING),
    "a constant changed in training/": (
        edit("src/batchscope/training/state.py", "STATES_KEPT = 2", "STATES_KEPT = 3"),
        of(PER_RUN) | COMPILED,
    ),
    "a default changed in training/": (
        edit("src/batchscope/training/schedule.py", "warmup_updates: int = 0", "warmup_updates: int = 1"),
        of(PER_RUN) | COMPILED,
    ),
    "a constant changed in insight/attention": (
        edit(ATTENTION, "else 0.0", "else 1.0"),
        of(["attention", "maps"]) | SHOWN,
    ),
    "a constant changed in statistics/calibration": (
        edit("src/batchscope/statistics/calibration.py", "HIGHEST_TEMPERATURE = 0.01,", "HIGHEST_TEMPERATURE = 0.02,"),
        {"calibration", "figures", "report"},
    ),
    "a constant changed in report/figures": (
        edit("src/batchscope/report/figures.py", "LOG_FROM_RATIO = 10", "LOG_FROM_RATIO = 11"),
        {"figures", "report"},
    ),
    "a constant changed in report/tables": (
        edit(
            "src/batchscope/report/tables.py", 'METRICS = ("examples", "correct",', 'METRICS = ("correct", "examples",'
        ),
        SHOWN,
    ),
    "a constant changed in report/page": (
        edit("src/batchscope/report/page.py", "LONGEST_REVIEW = 900", "LONGEST_REVIEW = 800"),
        {"report"},
    ),
    "LR and epochs swapped": (swap_lr_and_epochs, {"train/bert/bs64/constant/seed5"}),
    "a value changed to equal another": (setting(optimizer={"eps": 1e-3}), of(PER_RUN) | COMPILED),
    "LR and ε swapped": (
        setting(lr_policies=SMALLER_LR, optimizer={"eps": 1e-3}),
        of(PER_RUN) | COMPILED,
    ),
    "dict order changed": (other_order, NOTHING),
    "5.0e-5 written 0.00005": (other_spelling, NOTHING),
    "one batch size added": (setting(target_batch_sizes=[16, 64, 128]), of(PER_RUN, LARGER) | COMPILED),
    "one batch size removed": (setting(target_batch_sizes=[16]), COMPILED),
    "a policy added": (
        setting(lr_policies=SMALL["lr_policies"] | LINEAR),
        of(PER_RUN, ["bert/bs64/linear/seed1"]) | COMPILED,
    ),
    "a policy renamed": (
        setting(lr_policies=RENAMED),
        of(PER_RUN, ["bert/bs16/flat/seed1", "bert/bs64/flat/seed1"]) | COMPILED,
    ),
    "a second budget added": (second_budget, of(PER_RUN, BUDGETS) | COMPILED),
    "seeds added": (setting(seeds=[1, 2]), of(PER_RUN, SEEDS) - of(["maps"], SEEDS) | COMPILED),
    "seeds added, with maps of all": (setting(seeds=[1, 2], attention={"maps": "all"}), of(PER_RUN, SEEDS) | COMPILED),
    "Snakemake's threads changed": (arguments("--set-threads", "train=2", "tokenize=2"), NOTHING),
    "mem_mb and runtime changed": (
        arguments("--set-resources", "train:mem_mb=99", "train:runtime=9", "attention:runtime=9"),
        NOTHING,
    ),
    "profile changed": (arguments("--workflow-profile", "none"), NOTHING),
    "wandb mode changed": (setting(tracking={"mode": "offline"}), of(["track"])),
    "device, threads and save_every changed": (
        setting(device="auto", threads=3, save_every=5),
        {"certify/bert"} | SHOWN,
    ),
    "a plot colour changed": (setting(report={"palette": ["#112233", "#445566"]}), {"figures", "report"}),
    "insight.attention switched on": (
        setting(insight={"attention": {"enabled": True}}),
        of(["attention_measures"]) | {"divergence", "figures", "report"},
    ),
    "insight.errors switched on": (
        setting(insight={"errors": {"enabled": True}}),
        of(["features"], RUNS[:2]) | {"errors", "embedding", "figures", "report"},
    ),
    "insight.geometry switched on": (
        setting(insight={"geometry": {"enabled": True}}),
        of(["geometry_measures"]) | {"geometry", "figures", "report"},
    ),
    "insight.cartography switched on": (
        switch_cartography_on,
        of(["cartography_measures"]) | {"cartography", "figures", "report"},
    ),
    "insight.calibration.bins changed": (
        setting(insight={"calibration": {"bins": 10}}),
        {"calibration", "figures", "report"},
    ),
    "insight.calibration switched off": (
        setting(insight={"calibration": {"enabled": False}}),
        {"figures", "report"},
    ),
    "the report's title changed": (setting(report={"title": "Another"}), {"report"}),
    "branches asked for": (
        setting(branch={"at": [48], "factors": [1], "samples": 64}),
        {f"branch/{RUNS[0]}"} | COMPILED - {"calibration"},
    ),
    "the attention texts changed": (
        setting(attention={"texts": ["A fine film."]}),
        of(["attention", "maps"]) | {"reviews"} | SHOWN,
    ),
    "the corpus file rewritten identically with a new time": (rewritten, NOTHING),
    "the corpus file moved": (move_data, {"report"}),
    "one review changed, with an older time": (one_review, ALL),
    "the best.safetensors of one run deleted": (delete_best, of(PER_RUN, RUNS[2:]) | COMPILED),
    "physical_batch_size changed": (setting(physical_batch_size=8), NOTHING),
    "max_length changed": (setting(data=SMALL["data"] | {"max_length": 20}), ALL - {"corpus", "split", "reviews"}),
}

# ---------------------------------------------------------------------------------------------------------- asking


def written(case: Case) -> str:
    """The file of the config as it is now."""
    path = case.folder / "changed.yaml"
    path.write_text(yaml.safe_dump(case.config, sort_keys=False))
    return str(path)


def environment(case: Case) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(case.repository / "src")}


def snakemake(case: Case, *words: str) -> subprocess.CompletedProcess[str]:
    """Snakemake in a forked process, on the code of the checkout; its jobs start fresh ones."""
    assert case.repository == case.root
    start = ["--snakefile", str(case.root / "Snakefile"), "--cores", "2", "--configfile", written(case)]
    return together(Forked("snakemake", [*start, *words, *case.arguments], case.folder, environment(case)).complete())


SENTENCES = {
    "read the reviews": "corpus",
    "divide the reviews into train, validation and test": "split",
    "audit the data": "audit",
    "choose the reviews whose attention is drawn": "reviews",
    "measure the calibration": "calibration",
    "tell the errors": "errors",
    "embed the test reviews": "embedding",
    "compare the attention of the runs": "divergence",
    "compare the weights of the runs": "geometry",
    "map the training examples": "cartography",
    "compile the tables": "tables",
    "draw the figures": "figures",
}
VERBS = {
    "track": "track",
    "compute attention of": "attention",
    "draw the attention maps of": "maps",
    "tokenize for": "tokenize",
    "measure the attention of": "attention_measures",
    "measure the loss around": "geometry_measures",
    "follow the training examples of": "cartography_measures",
    "write the features of": "features",
}
OF_RUN = re.compile(r"(.*) (\S+), target batch size (\d+), (\S+) LR,(?: budget (\S+),)? seed (\d+)")


def job_of(message: str) -> str | None:
    """The job that a rule's message speaks of; None for the end of the workflow, an unknown message as it is."""
    if message.startswith("the study is complete"):
        return None
    if message.startswith("write the report"):
        return "report"
    if found := OF_RUN.fullmatch(message):
        verb, model, batch, policy, budget, seed = found.groups()
        return f"{VERBS.get(verb, verb)}/{model}/bs{batch}/{policy}/{f'{budget}/' if budget else ''}seed{seed}"
    if found := re.fullmatch(r"(certify|tokenize for) (\S+)", message):
        return f"{VERBS.get(found[1], found[1])}/{found[2]}"
    return SENTENCES.get(message, message)


def told(output: str) -> set[str]:
    """The jobs of a dry run, from what Snakemake prints."""
    messages = set(re.findall(r"^Job \d+: (.*)$", output, re.M))
    return {job for message in messages if (job := job_of(message))}


def fork_snakemake(before: Callable[[], object] | None = None) -> None:
    """`plan` need not import Snakemake for its dry run. ``before``: what both processes do before they import."""
    if before is not None:
        before()
    from batchscope.provenance import plan

    run = partial(run_forked, before=before)
    plan.subprocess = SimpleNamespace(run=run, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)


def planned(case: Case) -> dict[str, Any]:
    """The answer of `batchscope plan --json`, which asks Snakemake for a dry run and names its jobs."""
    words = ["plan", "--json", "--configfile", written(case), "--", *case.arguments]
    before = partial(fork_snakemake, forget_the_package if case.own.exists() else None)
    plan = Forked("batchscope", words, case.folder, environment(case), before).complete()
    assert plan.returncode == 0, plan.stdout + plan.stderr
    return json.loads(plan.stdout)


PARTS = ("Snakefile", "rules", "src", "workflow", "profiles", "config", "envs")


@pytest.fixture
def case(pristine: Workflow, root: Path, tmp_path: Path) -> Case:
    """A copy of the finished study, with all times as they were."""
    shutil.copytree(pristine.folder, tmp_path / "study")
    return Case(root, tmp_path / "study", json.loads(json.dumps(SMALL)))


@pytest.mark.parametrize("row", MATRIX)
def test_a_change_runs_exactly_what_depends_on_it(case: Case, row: str) -> None:
    change, expected = MATRIX[row]
    change(case)
    plan = planned(case)
    assert {job["name"] for job in plan["jobs"]} == expected
    assert all(job["causes"] for job in plan["jobs"])


@pytest.mark.parametrize("row", ["cloned anew, and the learning rate changed", "max_length changed"])
def test_a_dry_run_says_the_same(case: Case, row: str) -> None:
    """The jobs that `snakemake -n` prints are those that the rows above read from `batchscope plan`."""
    change, expected = MATRIX[row]
    change(case)
    dry = snakemake(case, "--dry-run")
    assert dry.returncode == 0, dry.stdout
    assert told(dry.stdout) == expected


def logs_of_training(study: Path) -> list[str]:
    return [path.read_text() for path in sorted(study.glob("logs/train/**/*.log"))]


@pytest.mark.parametrize("renamed", ["policy", "study"])
def test_a_new_name_trains_nothing(case: Case, renamed: str) -> None:
    """Renaming schedules trainings, as their folders are new; each takes the files of the old one."""
    case.config |= {"lr_policies": RENAMED} if renamed == "policy" else {"study": "other"}
    plan = planned(case)
    result = snakemake(case, "--until", "train")
    assert result.returncode == 0, result.stdout
    study = case.folder / "results" / case.config["study"]
    taken = {
        path.parent.relative_to(study / "runs").as_posix(): manifest["reused_from"]
        for path in study.glob("runs/**/manifest.json")
        if (manifest := json.loads(path.read_text()))["reused_from"]
    }
    assert len(taken) == (2 if renamed == "policy" else 3)
    assert {job["name"]: job["reuses"] for job in plan["jobs"] if job["name"].startswith("train")} == {
        f"train/{run}": source for run, source in taken.items()
    }
    for run, source in taken.items():
        for name in ("history.jsonl", "train.json", "checkpoints/best.safetensors"):
            assert (study / "runs" / run / name).read_bytes() == (case.folder / source / name).read_bytes()
    assert sum("nothing to train" in log for log in logs_of_training(study)) == len(taken)


def test_runs_that_take_each_other_s_place_are_both_kept(case: Case) -> None:
    """Each is overwritten by a training while another one takes it, whichever Snakemake starts first."""
    rate = SMALL["lr_policies"]["constant"]["base_lr"]
    case.config["target_batch_sizes"] = [64]
    case.config["lr_policies"] = {
        "constant": {"base_lr": 2 * rate},
        "sqrt": {"base_lr": rate / 2, "scaling": "sqrt", "reference_batch_size": 16},
    }
    names = ("history.jsonl", "train.json", "checkpoints/best.safetensors")
    runs = [case.study / "runs" / run for run in RUNS[1:]]
    before = [[(run / name).read_bytes() for name in names] for run in runs]
    result = snakemake(case, "--until", "train")
    assert result.returncode == 0, result.stdout
    assert [[(run / name).read_bytes() for name in names] for run in runs] == before[::-1]
    assert sum("nothing to train" in log for log in logs_of_training(case.study)) == 2
    assert not list((case.study / "state").glob("*-finished"))


def test_a_changed_test_review_trains_nothing(case: Case) -> None:
    """All stages from the corpus on run again; a training whose tokens turn out the same keeps its files.

    It also deletes the states that a process left which was killed after it had published the run.
    """
    manifest = json.loads(next(case.study.glob("runs/**/manifest.json")).read_text())
    states = case.study / f"state/{manifest['fingerprint']}-float32-cpu"
    states.mkdir()
    (states / "state-000000008-x.pt").write_bytes(b"of a killed process")
    split = pd.read_parquet(case.study / "data/split.parquet")
    number = int(split[split.split == "test"].example_id.iloc[0])
    path = case.folder / "reviews.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | {"text": "what a dull film"})
    path.write_text("\n".join(lines) + "\n")
    before = {path: path.read_bytes() for path in case.study.glob("runs/**/best.safetensors")}
    test_tokens = (case.study / "tokens/bert/test.arrow").read_bytes()
    result = snakemake(case, "--until", "train")
    assert result.returncode == 0, result.stdout
    assert (case.study / "tokens/bert/test.arrow").read_bytes() != test_tokens
    assert {path: path.read_bytes() for path in before} == before and len(before) == 3
    assert all("nothing to train" in log for log in logs_of_training(case.study)) and not states.exists()
    assert told(snakemake(case, "--dry-run", "--until", "train").stdout) == NOTHING


def test_every_profile_keeps_the_rules_of_this_page(root: Path) -> None:
    """A profile named on the command line replaces the default one whole."""
    wanted = {"rerun-triggers": ["mtime", "params", "input"], "max-checksum-file-size": 10_000_000_000}
    for path in (root / "profiles").glob("*/*.yaml"):
        profile = yaml.safe_load(path.read_text())
        assert {key: profile.get(key) for key in wanted} == wanted, path


def test_the_page_says_what_the_matrix_says(root: Path) -> None:
    page = (root / "docs/reruns.md").read_text(encoding="utf-8")
    rows = {cells[0].strip(): cells[1] for line in page.splitlines() if len(cells := line.strip("|").split("|")) == 3}
    stated = {name: set(re.findall(r"`(\w+)`", rows[name])) for name in MATRIX if name in rows}
    expected = {name: {job.partition("/")[0] for job in jobs} for name, (_, jobs) in MATRIX.items()}
    assert stated == expected

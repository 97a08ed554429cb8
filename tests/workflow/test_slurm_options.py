"""What profiles/slurm asks of SLURM for each rule and attempt, read from the calls of a recording ``sbatch``.

Real Snakemake and its real SLURM executor; no cluster. The recording sbatch refuses, so every job is tried as often as
the profile says, and each call holds the attempt's own options.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest
from forked import Forked

SBATCH = """#!/bin/sh
printf '%s\\0' "$@" > "$RECORD/$(date +%s%N)-$$"
echo 'refused by the test' >&2
exit 1
"""
SINFO = "#!/bin/sh\necho 'batch* gpu'\n"
SACCTMGR = "#!/bin/sh\necho my-project\n"
ABSENT = "#!/bin/sh\nexit 1\n"
RUN = "runs/bert/bs16/constant/seed1"
# What the jobs under test read and write, in the order of their making.
FILES = [
    *("data/corpus.parquet", "data/split.parquet"),
    *(f"tokens/bert/{part}.arrow" for part in ("train", "validation", "test")),
    *("tokens/bert/tokenizer/tokenizer.json", "data/reviews.json"),
    *(f"{RUN}/{name}" for name in ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")),
    *(f"{RUN}/{name}" for name in ("train.json", "manifest.json", "predictions.parquet", "metrics.json")),
    *(f"{RUN}/attention/{name}" for name in ("attention.npz", "measures.json")),
    "certificates/bert.json",
]
NOTHING: dict = {}
EVERYTHING = {
    "train": f"{RUN}/train.json",
    "evaluate": f"{RUN}/metrics.json",
    "attention": f"{RUN}/attention/measures.json",
    "certify": "certificates/bert.json",
}


def profile_with(root: Path, folder: Path, lines: tuple[str, ...], replacing: dict[str, str]) -> Path:
    """The profile as a user edits it: each of ``lines`` begins exactly one commented line, which is taken in."""
    text = (root / "profiles/slurm/profile.yaml").read_text()
    for old, new in replacing.items():
        text, count = re.subn(rf"^{old}:", f"{new}:", text, flags=re.M)
        assert count == 1
    for line in lines:
        text, count = re.subn(rf"^( *)# ({re.escape(line)})", r"\1\2", text, flags=re.M)
        assert count == 1, f"the profile has {count} lines to switch on that begin with {line!r}"
    profile = folder / "profile"
    profile.mkdir(exist_ok=True)
    (profile / "profile.yaml").write_text(text)
    return profile


@pytest.fixture
def submitted(root, workflow):
    """Let Snakemake submit these rules' jobs under the profile with these lines: rule → each attempt's options."""
    tools, record = workflow.folder / "bin", workflow.folder / "record"
    tools.mkdir()
    record.mkdir()
    programs = {"sbatch": SBATCH, "sinfo": SINFO, "sacctmgr": SACCTMGR}
    for name in ("sbatch", "sinfo", "sacctmgr", "sacct", "squeue", "scontrol", "scancel", "sshare"):
        (tools / name).write_text(programs.get(name, ABSENT))
        (tools / name).chmod(0o755)
    study = workflow.folder / "results/small"

    def submit(rules, *lines, config=NOTHING, replacing=NOTHING) -> dict[str, list[list[str]]]:
        workflow.write_config(**{"target_batch_sizes": [16], "device": "auto"} | config)
        for old in record.iterdir():
            old.unlink()
        for time, name in enumerate(FILES):
            (study / name).parent.mkdir(parents=True, exist_ok=True)
            (study / name).write_text("{}")
            os.utime(study / name, (10**9 + time, 10**9 + time))
        for rule in rules:
            (study / EVERYTHING[rule]).unlink()
        targets = [f"results/small/{EVERYTHING[rule]}" for rule in rules]
        profile = profile_with(root, workflow.folder, lines, replacing)
        arguments = ["--workflow-profile", profile, "--slurm-init-seconds-before-status-checks", "1"]
        command = workflow.command(*arguments, "--rerun-triggers", "mtime", "--", *targets)
        del command[command.index("--cores") : command.index("--cores") + 2]
        environment = workflow.environment | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "RECORD": str(record)}
        result = Forked("snakemake", command[3:], workflow.folder, environment).complete(timeout=300)
        assert result.returncode != 0, "the recording sbatch refuses every job"
        found = defaultdict(list)
        for call in sorted(record.iterdir()):
            options = call.read_text().split("\0")[:-1]
            rule = re.fullmatch(r"rule_(\w+?)_wildcards_.*", options[options.index("--comment") + 1])
            assert rule, options
            found[rule[1]].append(options)
        assert set(found) == set(rules), result.stdout + result.stderr
        return dict(found)

    return submit


def site_options(options: list[str]) -> str:
    """The options without those that name this run of Snakemake: job name, log, comment, folder, command."""
    kept = iter(options)
    words = []
    for word in kept:
        if word in ("--job-name", "--output", "--comment", "-D"):
            next(kept)
        elif not word.startswith("--wrap="):
            words.append(word)
    return " ".join(words)


def test_what_each_rule_asks_for_in_each_attempt(submitted):
    """One GPU for whatever runs a model; more memory and time with every retry; SLURM is not to retry as well."""
    asked = submitted(["certify", "evaluate", "attention"]) | submitted(["train"])
    common = (
        "--parsable --export=ALL -p batch -t {time} --mem {memory} --nodes=1 --no-requeue --cpus-per-task=2 --gpus=1"
    )
    for rule, minutes in {"train": 480, "certify": 240, "evaluate": 120, "attention": 60}.items():
        assert [site_options(options) for options in asked[rule]] == [
            common.format(time=minutes * attempt, memory=8000 * attempt) for attempt in (1, 2, 3)
        ], rule


def test_a_site_that_knows_gres_only(submitted):
    lines = ['set-resources: {train: &gres {gpu: 0, gres: "gpu:1"}']
    asked = submitted(["certify", "evaluate", "attention"], *lines) | submitted(["train"], *lines)
    for rule, attempts in asked.items():
        for options in attempts:
            words = site_options(options)
            assert words.endswith(" --gres=gpu:1"), rule
            assert "--gpus" not in words, rule


def test_partition_account_constraint_model_and_qos(submitted):
    lines = ["slurm_partition: gpu", "slurm_account: my-project", "constraint: a100", "gpu_model: h100", "qos: normal"]
    options = site_options(submitted(["train"], *lines)["train"][1])
    assert options == (
        "--parsable --export=ALL -A my-project -p gpu -t 960 -C a100 --qos=normal --mem 16000 --nodes=1 --no-requeue "
        "--cpus-per-task=2 --gpus=h100:1"
    )


def test_on_a_preemptible_partition_slurm_brings_jobs_back(submitted):
    options = site_options(submitted(["train"], replacing={"slurm-no-requeue": "slurm-requeue"})["train"][0])
    assert "--requeue" in options.split() and "--no-requeue" not in options


def test_a_training_on_several_gpus_asks_for_them_on_one_node(submitted):
    options = site_options(submitted(["train"], config={"gpus": 4})["train"][0])
    assert "--nodes=1 " in options and options.endswith(" --gpus=4")


def test_a_study_for_the_cpu_asks_for_no_gpu(submitted):
    options = site_options(submitted(["train"], config={"device": "cpu"})["train"][0])
    assert "--gpus" not in options and "--ntasks=1 --cpus-per-task=1" in options

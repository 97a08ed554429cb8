"""One set of versions: pyproject.toml, lock and conda environments agree; none lacks what its rules import."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from batchscope.provenance import code
from batchscope.provenance.stages import READS, STAGES, WRITES

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "pil": "pillow",
    "yaml": "pyyaml",
    "pynvml": "nvidia-ml-py",
    "huggingface_hub": "huggingface-hub",
}
OPTIONAL = {"lightning"}  # audited where it is installed


def pins(lines: list[str]) -> dict[str, str]:
    """Distribution → version; every line must be an exact pin."""
    matches = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(matches), f"not an exact, public version: {lines[matches.index(None)]}"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in matches if match}


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Pin of a lock file, without its marker → marker and SHA-256 of each file that may be installed."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [re.split(r"\s+--hash=sha256:", line) for line in text.splitlines() if not line.startswith("#")]
    requirements = [(requirement.partition(";"), hashes) for requirement, *hashes in lines]
    return {pin.strip(): (marker.strip(), hashes) for (pin, _, marker), hashes in requirements}


LOCKS = {path.name: locked(path) for path in ROOT.glob("requirements*.lock")}
LOCK = pins(list(LOCKS["requirements.lock"]))


def environment(path: Path) -> dict[str, str]:
    dependencies: list[Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    return pins(next(entry["pip"] for entry in dependencies if isinstance(entry, dict)))


def third_party(entry_module: str) -> set[str]:
    """Distributions that a module of the package and all that it imports need."""
    names: set[str] = set()
    seen: set[str] = set()
    waiting = [entry_module]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            imports = code._source(code._module_path(module)).imports
            names |= {name.split(".")[0] for name in imports}
            waiting += filter(code._is_module, imports)
    return {
        DISTRIBUTIONS.get(n.lower(), n.lower()) for n in names - sys.stdlib_module_names - {"batchscope"} - OPTIONAL
    }


LOADED = """
import json, sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

on = {"enabled": True}
insight = {"attention": on, "errors": on, "geometry": on, "cartography": on}
everything = {"branch": {"at": [1000], "samples": 5000}, "insight": insight, "keep": "all"}
with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    config, cores = ConfigSettings(config=everything), ResourceSettings(cores=1)
    workflow = api.workflow(cores, config, snakefile=Path(sys.argv[1]), workdir=Path(sys.argv[2]))._workflow
    for rule in filter(lambda rule: rule.shellcmd, workflow.rules):
        print(json.dumps([rule.name, rule.conda_env, rule.shellcmd, [str(file) for file in rule.input]]))
"""


class Rule(NamedTuple):
    """A rule that runs a verb of the package."""

    name: str
    environment: str
    """Name of the file in envs/."""
    verb: str
    module: str
    """Where the code of its verb begins."""
    inputs: list[str]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[Rule]:
    """Every rule, as Snakemake has read it."""
    program = [sys.executable, "-c", LOADED, ROOT / "Snakefile", tmp_path_factory.mktemp("rules")]
    loaded = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    found = []
    for name, conda_environment, command, inputs in map(json.loads, re.findall(r"^\[.*\]$", loaded, re.M)):
        verb = re.search(r"\bpython -m batchscope (\w+) ", command)
        assert verb and conda_environment, f"rule {name} runs no verb or has no `conda:`"
        found.append(Rule(name, Path(conda_environment).stem, verb[1], STAGES[verb[1]].module, inputs))
    return found


def test_the_lock_holds_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = pins(project["dependencies"] + project["optional-dependencies"]["development"])
    assert asked.items() <= LOCK.items()


def test_the_lock_fits_every_machine() -> None:
    """What only a machine with a GPU needs has a lock of its own."""
    assert not [name for name in LOCK if re.match(r"nvidia-(?!ml-py)|cuda-|triton", name)]


def test_every_file_that_may_be_installed_is_known_by_its_hash() -> None:
    """pip is told to install nothing else, everywhere."""
    for lock, entries in LOCKS.items():
        bare = [pin for pin, (_, hashes) in entries.items() if not hashes]
        assert not bare, f"{lock}: no hashes of {bare}; run `make locks`"
        assert all(re.fullmatch("[0-9a-f]{64}", hash_) for _, hashes in entries.values() for hash_ in hashes)
    for file in ("Makefile", "envs/Dockerfile", "envs/batchscope.def"):
        text = (ROOT / file).read_text(encoding="utf-8").replace("--no-cache-dir --disable-pip-version-check ", "")
        installs = re.findall(r"(?:pip|PIP\)) install (.*)", text.replace("--no-index ", ""))
        assert len(installs) >= 2, file
        assert all(re.match("--no-deps --(require-hashes|no-build-isolation) ", options) for options in installs), file


def test_the_locks_hold_no_package_twice() -> None:
    """Two versions of one package would replace each other, as the order of installing has it."""
    assert LOCKS["requirements-cpu.lock"].keys() == {f"torch=={LOCK['torch']}"}
    names = [name for lock, entries in LOCKS.items() if lock != "requirements-cpu.lock" for name in pins(list(entries))]
    assert not {name for name in names if names.count(name) > 1}


def test_the_lock_of_cuda_holds_what_torch_asks_for() -> None:
    """Where the installed torch is the build for a GPU; a build for the CPU asks for none."""
    asked = {
        match[1] for line in requires("torch") or [] if (match := re.match(r"((?:nvidia|cuda|triton)[\w-]*)", line))
    }
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in asked} <= pins(
        list(LOCKS["requirements-cuda.lock"])
    ).keys()
    assert all("sys_platform == 'linux'" in marker for marker, _ in LOCKS["requirements-cuda.lock"].values())


def test_the_package_asks_for_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in (ROOT / "src").rglob("[!_]*.py")
    ]
    assert set().union(*map(third_party, modules)) <= pins(project["dependencies"]).keys()


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_has_the_lock_s_versions(path: Path) -> None:
    assert environment(path).items() <= LOCK.items()
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["channels"] == ["conda-forge", "nodefaults"]


def test_an_environment_holds_what_its_rules_import(rules: list[Rule]) -> None:
    assert {rule.module for rule in rules} == {stage.module for stage in STAGES.values()}
    for rule in rules:
        needed = third_party(rule.module) | third_party("batchscope.provenance.jobs")
        needed |= third_party("batchscope.tracking") if rule.name == "train" else set()
        missing = needed - environment(ROOT / f"envs/{rule.environment}.yaml").keys()
        assert not missing, f"envs/{rule.environment}.yaml lacks {missing} of rule {rule.name}"


def test_no_environment_holds_more(rules: list[Rule]) -> None:
    for path in ENVIRONMENTS:
        needed = set().union(*(third_party(rule.module) for rule in rules if rule.environment == path.stem))
        needed |= third_party("batchscope.provenance.jobs")
        needed |= {"tokenizers"} if "transformers" in needed else set()  # transformers imports it for us
        assert environment(path).keys() <= needed | {"wandb"}


def as_pattern(file: str) -> str:
    """A rule's input as ``READS`` writes it."""
    file = re.sub(r"^results/[^/]+/", "", file)
    file = re.sub(r"^runs/.*?/seed[^/]+/", "runs/{}/", file)
    file = re.sub(r"^(tokens|certificates)/[^/]+?(?=/|\.json)", r"\1/{}", file)
    file = re.sub(r"/tokenizer$", "/tokenizer/*", file)
    of_tables = file.startswith("tables/") and file not in itertools.chain(*WRITES.values())
    return re.sub(r"/.*", "/*", file) if of_tables or file.startswith("figures/") else file


def test_what_a_stage_compares_with_the_records_is_what_its_rule_names(rules: list[Rule]) -> None:
    inputs = {rule.verb: {as_pattern(file) for file in rule.inputs} for rule in rules}
    assert inputs.pop("corpus") == set()
    judged_anew = {"tables/label_review.csv"}  # made only where the config names a file of labels
    assert inputs == {verb: set(files) - judged_anew for verb, files in READS.items()}


# ---------------------------------------------------------------------------------------------------- containers

DOCKERFILE = (ROOT / "envs/Dockerfile").read_text(encoding="utf-8")
APPTAINER = (ROOT / "envs/batchscope.def").read_text(encoding="utf-8")


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions, a list of words each."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def test_the_images_have_one_pinned_base_with_the_environments_python() -> None:
    (base,) = (words[1].removeprefix("BASE=") for words in instructions() if words[0] == "ARG")
    assert f"From: {base}\n" in APPTAINER
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    assert version, f"{base} is not pinned"
    for path in ENVIRONMENTS:
        assert f"python={version[1]}" in yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]


def test_the_images_install_the_lock_and_the_package_without_a_cache() -> None:
    runs = [" ".join(words[1:]) for words in instructions() if words[0] == "RUN"]
    post = re.findall(r"^    (python .*)$", APPTAINER.partition("%post")[2].partition("%environment")[0], re.M)
    for steps in (runs, [step.replace("--no-cache-dir --disable-pip-version-check ", "") for step in post]):
        locks = " ".join(
            f"--requirement /opt/batchscope/{lock}" for lock in ("requirements.lock", "requirements-cuda.lock")
        )
        assert steps[0] == f"python -m pip install --no-deps --require-hashes {locks}"
        assert steps[1] == "python -m pip install --no-deps --no-build-isolation /opt/batchscope"
    assert all("--no-cache-dir" in step for step in post)
    assert ["ENV", "PIP_NO_CACHE_DIR=1"] in [words[:2] for words in instructions()]


def test_the_images_copy_the_same_files_and_nothing_else_reaches_the_builder() -> None:
    copied = {name for words in instructions() if words[0] == "COPY" for name in words[1:-1]}
    files = re.findall(r"^    (\S+) /opt", APPTAINER.partition("%files")[2].partition("%post")[0], re.M)
    ignore = (ROOT / "envs/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == set(files) == {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_does_not_run_as_root() -> None:
    assert [words[1] for words in instructions() if words[0] == "USER"] == ["batchscope"]

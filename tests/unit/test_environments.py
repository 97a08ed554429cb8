"""One set of versions: pyproject.toml, lock and conda environments agree; none lacks what its rules import."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchscope.provenance import fingerprint
from batchscope.provenance.stages import STAGES

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


LOCK = pins([line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")])


def environment(path: Path) -> dict[str, str]:
    dependencies: list[Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    return pins(next(entry["pip"] for entry in dependencies if isinstance(entry, dict)))


def third_party(entry_module: str) -> set[str]:
    """Distributions that a module of the package and all that it imports need."""
    names: set[str] = set()
    for module in fingerprint.import_closure(entry_module):
        for node in ast.walk(fingerprint._tree(fingerprint._module_path(module))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).split(".")[0])
    return {
        DISTRIBUTIONS.get(n.lower(), n.lower()) for n in names - sys.stdlib_module_names - {"batchscope"} - OPTIONAL
    }


def rules() -> list[tuple[str, str, str]]:
    """Name, environment and entry module of every rule."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    found = []
    for body in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
        name, environment, verb = (
            re.search(pattern, body) for pattern in (r"(\w+):", r"envs/(\w+)\.yaml", r'CODE\["(\w+)"\]')
        )
        assert name and environment and verb, f"a rule lacks `conda:` or `code`: {body.splitlines()[0]}"
        found.append((name[1], environment[1], STAGES[verb[1]].module))
    return found


def test_the_lock_holds_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = pins(project["dependencies"] + project["optional-dependencies"]["development"])
    assert asked.items() <= LOCK.items()


def test_the_lock_fits_every_machine() -> None:
    """What depends on the device, torch chooses for itself."""
    assert not [name for name in LOCK if re.match(r"nvidia-(?!ml-py)|cuda-|triton", name)]


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


@pytest.mark.parametrize(("rule", "name", "module"), rules(), ids=lambda value: value)
def test_an_environment_holds_what_its_rules_import(rule: str, name: str, module: str) -> None:
    needed = (
        third_party(module)
        | third_party("batchscope.provenance.stages")
        | (third_party("batchscope.tracking") if rule == "train" else set())
    )
    assert needed <= environment(ROOT / f"envs/{name}.yaml").keys()


def test_no_environment_holds_more() -> None:
    for path in ENVIRONMENTS:
        needed = set().union(*(third_party(module) for _, name, module in rules() if name == path.stem))
        needed |= {"tokenizers"} if "transformers" in needed else set()  # transformers imports it for us
        assert environment(path).keys() <= needed | {"wandb"}


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
        assert steps[0] == "python -m pip install --requirement /opt/batchscope/requirements.lock"
        assert steps[1] == "python -m pip install --no-deps /opt/batchscope"
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

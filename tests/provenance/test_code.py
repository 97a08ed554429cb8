"""The hash of a stage's code changes with what changes numbers, and with nothing else."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscope.provenance import code
from batchscope.provenance.code import (
    NO_NUMBERS,
    PACKAGE,
    code_hash,
    describe_code,
    import_closure,
    no_numbers,
    read_description,
)
from batchscope.provenance.plan import changed_code
from batchscope.provenance.stages import STAGES

MODULES = {
    "__init__": "",
    "entry": '"""Entry."""\nfrom batchscope.middle import half\n\ndef run(x=1):\n    """Run."""\n    return half(x)\n',
    "middle": "from batchscope import leaf\n\n\ndef half(x):\n    return x / leaf.TWO\n",
    "leaf": "TWO = 2\n",
    "bystander": "COLOUR = 'red'\n",
}


def package(folder: Path, **changed: str) -> Path:
    """A small package named batchscope, some of its modules replaced."""
    for name, text in (MODULES | changed).items():
        path = folder / "batchscope" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "batchscope"


@pytest.fixture
def hash_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Code hash of ``entry`` in the small package after a change of some modules."""

    def compute(**changed: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        monkeypatch.setattr(code, "PACKAGE", package(folder, **changed))
        return code_hash("batchscope.entry")

    return compute


@pytest.mark.parametrize(
    "changed",
    [
        {"entry": "# A comment.\n" + MODULES["entry"]},
        {"entry": MODULES["entry"].replace("Run.", "Another docstring.").replace("Entry.", "Another one.")},
        {"entry": MODULES["entry"].replace('    """Run."""\n', "")},
        {"entry": MODULES["entry"].replace("run(x=1):", "run(\n    x = 1,\n):")},
        {"leaf": "TWO = (2)  # a half\n"},
        {"leaf": 'TWO = 2\n"""What a constant means is no code."""\n'},
        {"bystander": "COLOUR = 'blue'\n"},
    ],
    ids=["comment", "docstring", "no docstring", "formatting", "parentheses"]
    + ["docstring of a constant", "a module that is not imported"],
)
def test_what_does_not_count_as_code(hash_of, changed: dict[str, str]) -> None:
    assert hash_of(**changed) == hash_of()


@pytest.mark.parametrize(
    "changed",
    [
        {"leaf": "TWO = 3\n"},
        {"leaf": "TWO = 2.0\n"},
        {"entry": MODULES["entry"].replace("x=1", "x=2")},
        {"middle": MODULES["middle"].replace("/", "//")},
        {"middle": MODULES["middle"] + "\n\nhalf = print\n"},
        {"leaf": "TWO = 'two'\n\n\ndef f():\n    return 'a string that is no docstring'\n"},
    ],
    ids=["constant", "type", "default", "operator", "name", "string"],
)
def test_what_counts_as_code(hash_of, changed: dict[str, str]) -> None:
    assert hash_of(**changed) != hash_of()


def test_the_description_names_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A = 1\nB = 2\n\n\ndef f():\n    return A\n\n\nclass C:\n    x = 1\n\n    def g(self):\n        return B\n"
    changes = {"f": ("return A", "return -A"), "A": ("A = 1", "A = 3"), "C": ("x = 1", "x = 2"), "C.g": ("n B", "n A")}
    definitions = {}
    for number, (old, new) in enumerate([("", ""), *changes.values()]):
        monkeypatch.setattr(code, "PACKAGE", package(tmp_path / str(number), leaf=text.replace(old, new)))
        definitions[number] = describe_code("batchscope.entry")["modules"]["batchscope.leaf"]
    for number, name in enumerate(changes, start=1):
        assert {key for key in definitions[0] if definitions[0][key] != definitions[number][key]} == {name}


def test_templates_count_for_the_module_that_renders_them(hash_of, tmp_path: Path) -> None:
    rendering = {"leaf": "from jinja2 import Environment\n\nTWO = 2\n"}
    hashes = []
    for text in ("<h1>", "<h2>"):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "batchscope/templates"
        folder.mkdir(parents=True)
        (folder / "page.html").write_text(text)
        hashes.append(hash_in(folder.parent, rendering))
    assert hashes[0] != hashes[1]


def hash_in(folder: Path, changed: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "PACKAGE", package(folder.parent, **changed))
        return code_hash("batchscope.entry")


def test_the_import_closure_is_transitive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "PACKAGE", package(tmp_path))
    assert import_closure("batchscope.entry") == [f"batchscope{name}" for name in ("", ".entry", ".leaf", ".middle")]


def test_a_cycle_of_imports_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "PACKAGE", package(tmp_path, leaf="import batchscope.entry\n\nTWO = 2\n"))
    assert "batchscope.entry" in import_closure("batchscope.leaf")


def test_a_library_release_counts_and_a_patch_does_not(hash_of, monkeypatch: pytest.MonkeyPatch) -> None:
    def under(release: str, leaf: str) -> str:
        code._release.cache_clear()
        monkeypatch.setattr(code, "version", lambda library: release)
        return hash_of(leaf=leaf)

    importing = "TWO = 2\n\n\ndef f():\n    import torch.nn as nn\n\n    return nn\n"
    assert under("2.13.0", importing) == under("2.13.1+cu130", importing) != under("2.14.0", importing)
    assert under("2.13.0", "TWO = 2\n") == under("2.14.0", "TWO = 2\n"), "a stage without the library is left alone"
    monkeypatch.undo()
    code._release.cache_clear()


def test_the_python_release_does_not_count() -> None:
    """``ast.dump`` of this differs between Python 3.11, 3.12 and 3.13."""
    text = "class A(B):\n    def f(self, x: int = 1) -> str:\n        return f'{x}' if x else None\n"
    assert code._outline(code.ast.parse(text)) == (
        "Module(body=[ClassDef(name='A', bases=[Name(id='B', ctx=Load())], body=[FunctionDef(name='f', "
        "args=arguments(args=[arg(arg='self'), arg(arg='x', annotation=Name(id='int', ctx=Load()))], "
        "defaults=[Constant(value=1)]), body=[Return(value=IfExp(test=Name(id='x', ctx=Load()), "
        "body=JoinedStr(values=[FormattedValue(value=Name(id='x', ctx=Load()), conversion=-1)]), orelse=Constant()))], "
        "returns=Name(id='str', ctx=Load()))])])"
    )


# ------------------------------------------------------------------------------------------- what changes no number

MODULES_HERE = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("[!_]*.py")
)


def hashes() -> dict[str, str]:
    return {verb: code_hash(stage.module) for verb, stage in STAGES.items()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package for all tests: what a test does not edit is read once."""
    folder = tmp_path_factory.mktemp("copy") / "batchscope"
    return shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def changed_by(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], set[str]]]:
    """The stages whose hash changes where this text is added to this module of the copy."""
    before, originals = hashes(), {}
    monkeypatch.setattr(code, "PACKAGE", copy)

    def change(name: str, text: str) -> set[str]:
        file = copy / f"{name}.py"
        originals[file] = file.read_text()
        file.write_text(originals[file] + text)
        return {verb for verb, found in hashes().items() if found != before[verb]}

    yield change
    for file, text in originals.items():
        file.write_text(text)


@pytest.mark.parametrize("pattern", NO_NUMBERS)
def test_every_entry_of_the_list_names_a_module(pattern: str) -> None:
    assert [name for name in MODULES_HERE if code.fnmatch(name, pattern)], f"{pattern} names nothing any more"
    assert NO_NUMBERS[pattern]


@pytest.mark.parametrize("name", ["hardware/lease", "training/stop", "errors", "config/schema", "provenance/plan"])
def test_an_edit_of_a_module_that_changes_no_number_reruns_nothing(changed_by, name: str) -> None:
    assert changed_by(name, "\n\nMESSAGE = 'reworded'\n") == set()


@pytest.mark.parametrize(
    ("name", "verbs"),
    [
        ("training/windows", {"train", "branch", "certify"}),
        ("evaluation/metrics", {"evaluate", "tables", "report"}),
        ("data/split", {"split"}),
        ("tracking", {"track"}),
    ],
)
def test_an_edit_of_a_module_that_computes_reruns_its_stages(changed_by, name: str, verbs: set[str]) -> None:
    assert changed_by(name, "\n\nTWO = 2\n") == verbs


def test_the_libraries_that_compute_count_for_the_stages_that_call_them() -> None:
    found = {verb: set(describe_code(stage.module)["libraries"]) for verb, stage in STAGES.items()}
    assert {"torch", "transformers", "numpy", "accelerate"} <= found["train"]
    assert {"torch", "accelerate", "transformers"} <= found["certify"]
    assert "scikit-learn" in found["reviews"] and "scipy" in found["tables"]
    assert "torch" not in found["tables"] and "accelerate" not in found["evaluate"]


def test_a_place_without_the_libraries_counts_those_that_the_lock_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node may have Snakemake alone: the code of its jobs is that of the nodes."""
    here = hashes()

    def missing(distribution: str) -> str:
        raise code.PackageNotFoundError(distribution)

    code._release.cache_clear()
    monkeypatch.setattr(code, "version", missing)
    assert hashes() == here
    code._release.cache_clear()


def test_a_stage_s_own_module_counts() -> None:
    for stage in STAGES.values():
        assert no_numbers(stage.module) is None or stage.module in describe_code(stage.module)["modules"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "7", "{}", '{"modules": [], "templates": {}, "libraries": {}}'),
        *('{"modules": {"a": 1}, "templates": {}, "libraries": {}}', '{"modules": {}, "templates": {"a": 1}}'),
    ],
)
def test_a_damaged_description_of_code_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "code.json"
    path.write_text(text)
    assert read_description(path) is None and read_description(tmp_path) is None
    changed = {"kind": "code", "module": STAGES["split"].module, "name": None, "change": "changed"}
    assert list(changed_code("split", path)) == [changed]

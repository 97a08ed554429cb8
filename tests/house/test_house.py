"""The rules of the house in docs/architecture.md, held by walking the imports."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/batchscope"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
HEAVY = ("torch", "transformers", "accelerate", "datasets", "wandb")


def room(path: Path) -> str:
    """A module's name as the page on architecture writes it: ``training/loop``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def floors() -> list[list[str]]:
    """The floors of docs/architecture.md: patterns of modules, lowest first."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = re.sub(r"\n +", " ", text.partition("## The floors")[2].partition("\n## ")[0])
    return [
        re.split(r",\s*", re.sub(r"`|\(.*?\)", "", line.partition(". ")[2]).split(":")[0])
        for line in section.splitlines()
        if re.match(r"\d\. ", line)
    ]


FLOORS = floors()


def floor(module: str) -> int:
    """The floor a module is on, from 1; an exact name beats a pattern, and of several patterns the lowest counts."""
    found = [n for n, rooms in enumerate(FLOORS, start=1) if module in rooms] or [
        n for n, rooms in enumerate(FLOORS, start=1) if any(fnmatch(module, pattern) for pattern in rooms)
    ]
    assert found, f"{module} is on no floor of docs/architecture.md"
    return found[0]


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imported(path: Path) -> set[str]:
    """The package's modules that one of them imports, as rooms."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room(path)} imports relatively, which its code hash does not see"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    rooms = {name.removeprefix("batchscope.").replace(".", "/") for name in names if name.startswith("batchscope.")}
    return {name for name in rooms if (PACKAGE / f"{name}.py").is_file()}


def test_a_module_imports_from_its_own_floor_or_below() -> None:
    above = {
        f"{room(path)} (floor {floor(room(path))})": found
        for path in MODULES
        if (found := [name for name in imported(path) if floor(name) > floor(room(path))])
    }
    assert not above, f"imports from a floor above: {above}"


def test_imports_are_visible_to_the_code_hash() -> None:
    texts = {room(path): path.read_text(encoding="utf-8") for path in MODULES}
    assert not [name for name, text in texts.items() if "import_module(" in text or "__import__(" in text]


def test_there_is_no_drawer_for_everything() -> None:
    assert not [room(path) for path in MODULES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_the_library_does_not_know_the_workflow() -> None:
    assert not [room(path) for path in MODULES if re.search(r"^\s*(import|from) snakemake", path.read_text(), re.M)]


def test_the_command_line_and_the_first_floor_need_no_torch() -> None:
    """And the statistics, which are imported first, do not draw."""
    light = [name for name in map(room, MODULES) if floor(name) == 1 or name == "cli/main"]
    statistics = [name for name in map(room, MODULES) if name.startswith("statistics/")]
    imports = [", ".join(f"batchscope.{name.replace('/', '.')}" for name in names) for names in (statistics, light)]
    program = f"""
import sys, {imports[0]}
print([m for m in {(*HEAVY, "matplotlib")} if m in sys.modules])
import {imports[1]}
print([m for m in {HEAVY} if m in sys.modules])
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split("\n") == ["[]", "[]", ""]


@cache
def calls(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Every call of a module: the function as it is written, and its keywords."""
    found = [node for node in nodes(path) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), {str(one.arg): ast.unparse(one.value) for one in node.keywords}) for node in found]


@pytest.mark.parametrize("package", sorted({room(path).partition("/")[0] for path in MODULES}))
def test_nothing_that_is_read_is_executed(package: str) -> None:
    """A state, a checkpoint, a config or a data set is data: no pickle, no code from the hub, no shell."""
    for path in [path for path in MODULES if room(path).partition("/")[0] == package]:
        assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & {
            alias.name.split(".")[0] for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names
        }, room(path)
        for name, keywords in calls(path):
            assert name not in ("eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "pd.read_pickle"), name
            assert name != "torch.load" or keywords.get("weights_only") == "True", f"{room(path)} loads a pickle"
            assert name != "yaml.load" or keywords.get("Loader") in ("_Loader", "yaml.SafeLoader"), room(path)
            unsafe = {"allow_pickle": "True", "trust_remote_code": "True", "shell": "True"}
            assert not [key for key, value in unsafe.items() if keywords.get(key) == value], f"{room(path)}: {name}"


WALL_CLOCK = {
    "training/stop": "the limit of a job is a time of day",
    "provenance/handover": "the same",
    "cli/main": "the start of the process, for the log",
    "provenance/clean": "the age of files",
    "watch/ahead": "the start of a job, which another process wrote",
    "watch/frame": "the same",
}


def test_nothing_is_measured_by_a_clock_that_can_be_set_back() -> None:
    reading = {room(path) for path in MODULES if "time.time" in {name for name, _ in calls(path)}}
    assert not reading - WALL_CLOCK.keys()


REPORT_MAY_IMPORT = (
    "report/*",
    "statistics/*",
    "*/spec",
    "*/records",
    "config/claims",
    "config/schema",
    "certificate/verdict",
    "errors",
    "wording",
    "files",
)


def test_the_report_presents_what_other_rooms_computed() -> None:
    imports = {room(path): imported(path) for path in (PACKAGE / "report").glob("*.py")}
    assert len(imports) > 20
    assert not [
        f"{name} imports {other}"
        for name, found in imports.items()
        for other in found
        if not any(fnmatch(other, allowed) for allowed in REPORT_MAY_IMPORT)
    ]


# ---------------------------------------------------------------------------------------------------- signatures

LONGEST_FUNCTION = 60


def functions(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions and methods of a module by name; a method as ``Class.method``."""
    classes = [node for node in nodes(path) if isinstance(node, ast.ClassDef)]
    of_classes = {id(node): owner.name for owner in classes for node in owner.body}
    return [
        (f"{of_classes[id(node)]}.{node.name}" if id(node) in of_classes else node.name, node)
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def crossing() -> set[str]:
    """``room.name`` of every definition that a module of another package imports."""
    found = set()
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("batchscope."):
                source = str(node.module).removeprefix("batchscope.").replace(".", "/")
                if source.split("/")[0] != room(path).split("/")[0]:
                    found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def test_no_function_is_long() -> None:
    lines = {
        f"{room(path)}.{name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for name, node in functions(path)
        if node.end_lineno
    }
    assert not {name: count for name, count in lines.items() if count > LONGEST_FUNCTION}


def test_no_untyped_dictionary_crosses_from_one_package_to_another() -> None:
    """A spec or the content of a file has a type of its own, in one place."""
    imported_elsewhere, found = crossing(), []
    for path in MODULES:
        for name, node in functions(path):
            owner = name.split(".")[0]
            private = any(part.startswith("_") and part != "__init__" for part in name.split("."))
            if private or f"{room(path)}.{owner}" not in imported_elsewhere:
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [a.annotation for a in arguments if a.annotation] + [node.returns] * bool(node.returns)
            if any(re.search(r"\b(dict|Mapping)\[str, Any\]", ast.unparse(a)) for a in annotations):
                found.append(f"{room(path)}.{name}")
    assert not found

"""The code that a stage's result depends on, as one hash: the modules that it imports and the libraries that compute.

Snakemake does not look into imported modules. Each rule therefore carries ``code``, the hash of its stage, as a
parameter. Comments, docstrings and formatting do not count, nor do the modules of ``NO_NUMBERS``.
"""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, cast

from batchscope.files import is_text_by_name, read_json
from batchscope.provenance.fingerprint import canonical_json, digest, file_hash
from batchscope.provenance.records import CodeDescription

PACKAGE = Path(__file__).parents[1]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LIBRARIES = {
    "accelerate": "accelerate",
    "datasets": "datasets",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
}
"""Libraries whose arithmetic is in a result → their distributions. Those that only store or draw numbers are not here:
pyarrow and safetensors give back the bytes they were given, matplotlib and Pillow make pictures of finished numbers."""

NO_NUMBERS = {
    "batchscope.*.records": "types of the files' content: they compute nothing",
    "batchscope.*.spec": "types of the specs: their values are compared as the spec",
    "batchscope.config.*": "the config's values reach a stage through its spec alone",
    "batchscope.errors": "the class of a message",
    "batchscope.files": "how a file is written, not what is in it",
    "batchscope.hardware.allocator": "where memory comes from",
    "batchscope.hardware.lease": "which of equal devices a job takes",
    "batchscope.hardware.telemetry": "measures time, utilisation and energy beside the computation",
    "batchscope.provenance.*": "names and compares results; computes none",
    "batchscope.training.launch": "starts the ranks",
    "batchscope.training.nonfinite": "the message of a training that fails",
    "batchscope.training.progress": "the line about a training in its log",
    "batchscope.training.stop": "when a training stops; it resumes to the same bytes",
}
"""Modules that change no number of a result → why; their imports do not count either. A stage's own module counts."""


def code_hash(entry_module: str) -> str:
    """Hash of ``describe_code``: of all the code that a stage's result depends on."""
    return digest(canonical_json(describe_code(entry_module)))


def describe_code(entry_module: str) -> CodeDescription:
    """The code of ``entry_module`` and of every batchscope module it imports, at any depth, definition by definition.

    ``modules`` maps a module to its functions, classes, methods and constants and these to hashes of their syntax
    trees; ``""`` is the rest, imports above all. Comments, docstrings and formatting do not count; a changed constant,
    default or name does. ``templates`` are the files beside a module that makes a page of them, ``libraries`` the
    releases (major.minor) of those that compute and are imported: of a library that is not installed here, as on a
    login node, the one that requirements.lock pins.
    """
    closure = {name: _source(_module_path(name)) for name in import_closure(entry_module)}
    libraries = {library for source in closure.values() for library in source.libraries}
    return {
        "modules": {name: source.definitions for name, source in closure.items()},
        "templates": {
            file.relative_to(source.path.parent).as_posix(): file_hash(file)
            for source in closure.values()
            for file in source.templates()
        },
        "libraries": {library: release for library in sorted(libraries) if (release := _release(library))},
    }


def read_description(path: Path) -> CodeDescription | None:
    """What ``describe_code`` said of a code; None where there is no readable description."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("modules"), dict):
        return None
    parts = [*found["modules"].values(), found.get("templates"), found.get("libraries")]
    return cast(CodeDescription, found) if all(map(is_text_by_name, parts)) else None


def import_closure(entry_module: str) -> list[str]:
    """Dotted names of ``entry_module`` and all batchscope modules reachable from it by imports that count, sorted."""
    seen: set[str] = set()
    waiting = [entry_module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            imports = _source(_module_path(name)).imports
            waiting += (name for name in imports if name not in seen and no_numbers(name) is None and _is_module(name))
    return sorted(seen)


@cache
def no_numbers(module: str) -> str | None:
    """Why a module changes no number; None where it counts."""
    return next((reason for pattern, reason in NO_NUMBERS.items() if fnmatch(module, pattern)), None)


def _module_path(name: str) -> Path:
    path = PACKAGE.parent / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == "batchscope" and _module_path(name).is_file()


class _Source(NamedTuple):
    """What is read of a module's file."""

    path: Path
    imports: list[str]
    """Dotted names of all that it imports, at its top or inside a function; of `from a import b` both a and a.b."""
    definitions: dict[str, str]
    """Name of a function, class, method or constant → hash of its syntax tree."""

    @property
    def libraries(self) -> list[str]:
        """The distributions of the libraries that compute and that it imports."""
        names = {name.partition(".")[0] for name in self.imports}
        return [distribution for name, distribution in LIBRARIES.items() if name in names]

    def templates(self) -> list[Path]:
        """The files below ``templates/`` and ``assets/`` beside a module that imports jinja2."""
        folders = [self.path.parent / name for name in ("templates", "assets")] if "jinja2" in self.imports else []
        return sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())


def _source(path: Path) -> _Source:
    """A module's file as it is now: while a long process runs, it may be edited."""
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@cache
def _parsed(path: Path, modified: int, size: int) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    outlines: dict[str, list[str]] = {}
    for name, statement in _named_statements(tree):
        outlines.setdefault(name, []).append(_outline(statement))
    return _Source(path, imports, {name: digest("\n".join(parts)) for name, parts in outlines.items()})


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements, at any depth: a tenth of the nodes of ``ast.walk``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            parts = getattr(node, block, None)
            if isinstance(parts, list):  # a lambda's body is an expression
                waiting += parts


def _named_statements(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The statements of a module by the name that each one gives a value to; a class without its methods, and these."""
    for node in filter(_counts, tree.body):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, FUNCTIONS)]
            node.body = [part for part in node.body if not isinstance(part, FUNCTIONS)]
            yield node.name, node
            yield from ((f"{node.name}.{method.name}", method) for method in methods)
        elif isinstance(node, FUNCTIONS):
            yield node.name, node
        else:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            yield targets[0].id if isinstance(targets[0], ast.Name) else "", node


def _counts(node: object) -> bool:
    """Not a string that stands for itself: it does nothing, and documents what is above it."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return not is_text


def _outline(node: Any) -> str:
    """Like ``ast.dump``, which however lists more empty fields in one Python release than in another; no docstrings."""
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = [part for part in value if _counts(part)] or None
            if value is not None:
                fields.append(f"{name}={_outline(value)}")
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join([_outline(part) for part in node])}]" if isinstance(node, list) else repr(node)


@cache
def _release(distribution: str) -> str | None:
    """Major.minor of a library: as installed, else as pinned; None where neither is known."""
    try:
        number = version(distribution)
    except PackageNotFoundError:
        number = _pins().get(distribution, "")
    return ".".join(number.split(".")[:2]) or None


@cache
def _pins() -> dict[str, str]:
    """Distribution → version in requirements.lock; none outside a checkout."""
    lock = PACKAGE.parents[1] / "requirements.lock"
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    return dict(line.split()[0].split("==", 1) for line in lines if "==" in line and not line.startswith("#"))

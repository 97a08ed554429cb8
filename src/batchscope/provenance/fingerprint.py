"""What a stage's result depends on, as short strings: its spec, its code, the content of files.

Snakemake compares parameters as a set of values, does not look into imported modules and trusts modification
times. Each rule therefore carries two parameters that count: ``spec``, one canonical JSON string, and ``code``, one
hash over the modules the stage imports. Pure Python, no torch.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchscope.files import write_text

PACKAGE = Path(__file__).parents[1]
NUMERICAL_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets")
PLACES = ("source", "checkpoint")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def canonical_json(value: Any) -> str:
    """One text for one meaning: sorted keys, no spaces, ``5.0e-5`` and ``0.00005`` alike.

    Raises ValueError for NaN and infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def without_places(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec without the paths of what it names by content: reviews or weights may lie anywhere."""
    if isinstance(spec.get("model"), dict):  # the tracker's spec has a model's name there
        return spec | {"model": without_places(spec["model"])}
    return {key: spec[key] for key in spec if "content" not in spec or key not in PLACES}


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of SHA-256: 64 bits, enough to tell the runs of a study apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------- code


def code_hash(entry_module: str) -> str:
    """Hash of ``describe_code``: of all the code that a stage's result depends on."""
    return digest(canonical_json(describe_code(entry_module)))


def is_code(claimed: str, entry_module: str) -> bool:
    """Whether ``claimed`` is the hash of the code here, or that of a place that has the code but not the libraries."""
    here = describe_code(entry_module)
    return claimed in (digest(canonical_json(here)), digest(canonical_json(here | {"libraries": {}})))


def describe_code(entry_module: str) -> dict[str, dict[str, Any]]:
    """The code of ``entry_module`` and of every batchscope module it imports, at any depth, definition by definition.

    ``modules`` maps a module to its functions, classes, methods and constants and these to hashes of their syntax
    trees; ``""`` is the rest, imports above all. Comments, docstrings and formatting do not count; a changed constant,
    default or name does. ``templates`` are the files beside a module that renders them, ``libraries`` the releases
    (major.minor) of those that do the arithmetic, as far as they are imported and installed.
    """
    closure = {name: _module_path(name) for name in import_closure(entry_module)}
    libraries = {library for path in closure.values() for library in _imported_libraries(path)}
    return {
        "modules": {name: _definitions(path) for name, path in closure.items()},
        "templates": {file.name: file_hash(file) for path in closure.values() for file in _templates(path)},
        "libraries": {library: release for library in sorted(libraries) if (release := _release(library))},
    }


def import_closure(entry_module: str) -> list[str]:
    """Dotted names of ``entry_module`` and all batchscope modules reachable from it by imports, sorted."""
    seen: set[str] = set()
    waiting = [entry_module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _imported_modules(name)
    return sorted(seen)


def _module_path(name: str) -> Path:
    path = PACKAGE.parent / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == "batchscope" and _module_path(name).is_file()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported_modules(name: str) -> list[str]:
    found = []
    for node in ast.walk(_tree(_module_path(name))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [module for module in found if _is_module(module)]


@cache
def _imported_libraries(path: Path) -> list[str]:
    """The numerical libraries that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return [library for library in NUMERICAL_LIBRARIES if library in names]


@cache
def _definitions(path: Path) -> dict[str, str]:
    """Name of a function, class, method or constant → hash of its syntax tree."""
    outlines: dict[str, list[str]] = {}
    for name, node in _named_statements(_WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))):
        outlines.setdefault(name, []).append(_outline(node))
    return {name: digest("\n".join(parts)) for name, parts in outlines.items()}


def _named_statements(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The statements of a module by the name that each one gives a value to; a class without its methods, and these."""
    for node in tree.body:
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


class _WithoutDocstrings(ast.NodeTransformer):
    """A string that stands for itself does nothing: it documents what is above it."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _outline(node: Any) -> str:
    """Like ``ast.dump``, which however lists more empty fields in one Python release than in another."""
    if isinstance(node, ast.AST):
        fields = (f"{name}={_outline(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_outline, node))}]" if isinstance(node, list) else repr(node)


def _templates(path: Path) -> list[Path]:
    """The files in ``templates/`` beside a module that imports jinja2."""
    nodes = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or node.names[0].name for node in nodes]
    return sorted((path.parent / "templates").glob("*")) if "jinja2" in names else []


@cache
def _release(library: str) -> str | None:
    """Major.minor of an installed library."""
    try:
        return ".".join(version(library).split(".")[:2])
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------- content


def file_hash(path: Path) -> str:
    """SHA-256 of one file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path, memory: Path | None = None) -> str:
    """Hash of the content of a file, or of a folder's files with their relative names; times do not count.

    ``memory`` is a JSON file that remembers hashes by each file's size, inode, modification and change time, so
    that an unchanged gigabyte is read once and not at every start of the workflow.
    """
    remembered = _read_memory(memory)
    known = dict(remembered)
    lines = []
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        status = file.stat()
        key = f"{file.resolve()}|{status.st_size}|{status.st_ino}|{status.st_mtime_ns}|{status.st_ctime_ns}"
        if key not in known:
            known[key] = file_hash(file)
        lines.append(f"{file.relative_to(path) if file != path else file.suffix} {known[key]}")
    if memory is not None and known != remembered:
        write_text(memory, json.dumps(known))
    return digest("\n".join(lines))


def _read_memory(memory: Path | None) -> dict[str, str]:
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else {}
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}

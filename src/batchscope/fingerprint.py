"""What a stage's result depends on, as short strings: its spec, its code, the content of files.

Snakemake compares parameters as a set of values, does not look into imported modules and trusts modification
times. Each rule therefore carries two parameters only: ``spec``, one canonical JSON string, and ``code``, one
hash over the modules the stage imports. Pure Python, no torch.
"""

import ast
import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchscope.files import write_text

PACKAGE = Path(__file__).parent
NUMERICAL_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets")


def canonical_json(value: Any) -> str:
    """One text for one meaning: sorted keys, no spaces, ``5.0e-5`` and ``0.00005`` alike.

    Raises ValueError for NaN and infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of SHA-256: 64 bits, enough to tell the runs of a study apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------- code


def code_hash(entry_module: str) -> str:
    """Hash of the syntax trees of ``entry_module`` and of every batchscope module it imports, at any depth.

    Comments, docstrings and formatting do not count; a changed constant, default or name does, and so do the templates
    beside a module that renders them. The releases (major.minor) of the libraries that do the arithmetic count as code.
    """
    closure = {name: _module_path(name) for name in import_closure(entry_module)}
    parts = [f"{name} {_syntax_tree(path)}" for name, path in closure.items()]
    parts += [f"{file.name} {file_hash(file)}" for path in closure.values() for file in _templates(path)]
    parts += [f"{library} {_release(library)}" for library in NUMERICAL_LIBRARIES]
    return digest("\n".join(parts))


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
def _syntax_tree(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return _outline(tree)


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
def _release(library: str) -> str:
    return ".".join(version(library).split(".")[:2])


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

"""The tables of the JSON files for ``docs/files.md``: made from the types that the code reads and writes them with."""

import ast
import inspect
import sys
from collections.abc import Iterator

from batchscope.certificate import records as certificate
from batchscope.data import records as data
from batchscope.evaluation import records as evaluation
from batchscope.insight import records as insight
from batchscope.provenance import records as provenance
from batchscope.training import records as training
from batchscope.watch import records as watch

RUN = "runs/{model}/bs{batch}/{policy}/seed{seed}"
FILES: dict[str, type] = {
    "data/audit.json": data.Audit,
    "data/reviews.json": data.ReviewsFile,
    "tokens/{model}/manifest.json": provenance.TokensManifest,
    f"{RUN}/history.jsonl, a line of an update": training.UpdateLine,
    f"{RUN}/history.jsonl, a line of an epoch": training.EpochLine,
    f"{RUN}/history.jsonl, a line of a validation within an epoch": training.ValidationLine,
    f"{RUN}/train.json": training.TrainFacts,
    f"{RUN}/branches.json": training.BranchesFile,
    f"{RUN}/manifest.json": provenance.RunManifest,
    f"{RUN}/metrics.json": evaluation.Metrics,
    f"{RUN}/attention/measures.json": insight.AttentionMeasures,
    f"{RUN}/attention/heads.json": insight.AttentionOfRun,
    f"{RUN}/geometry.json": insight.GeometryOfRun,
    "certificates/{model}.json": certificate.Certificate,
    "fingerprints/{job}.json": provenance.JobRecord,
    "fingerprints/code/{hash}.json": provenance.CodeDescription,
    "state/running/{job}.json": watch.JobProcess,
}
"""File below ``results/{study}/`` → the type of its content."""


def files_page() -> str:
    """Makes the tables of every file as Markdown: a section per file, a table per type, parts after the whole."""
    lines = []
    for path, kind in FILES.items():
        lines += [f"## `{path}`" if "," not in path else f"## `{path.replace(',', '`,', 1)}", ""]
        for number, part in enumerate(_parts(kind)):
            lines += [f"### {part.__name__}", ""] if number else []
            lines += [" ".join((inspect.getdoc(part) or "").split()), ""]
            lines += ["| key | value | |", "|---|---|---|"]
            lines += [f"| `{key}` | {value} | {meaning} |" for key, value, meaning in _keys(part)]
            lines.append("")
    return "\n".join(lines).replace("``", "`")


def _parts(kind: type) -> list[type]:
    """A type, and the types of its parts at any depth, in the order in which they are met."""
    found, waiting = [kind], [kind]
    while waiting:
        part = waiting.pop(0)
        annotations = [annotation for _, annotation, _ in _statements(part)]
        names = {node.id for one in annotations for node in ast.walk(one) if isinstance(node, ast.Name)}
        module = vars(sys.modules[part.__module__])
        for name, inner in module.items():
            if name in names and inspect.isclass(inner) and hasattr(inner, "__total__") and inner not in found:
                found.append(inner)
                waiting.append(inner)
    return found


def _keys(kind: type) -> Iterator[tuple[str, str, str]]:
    for key, annotation, meaning in _statements(kind):
        text = ast.unparse(annotation)
        optional = text.startswith("NotRequired[")
        value = text.removeprefix("NotRequired[").removesuffix("]") if optional else text
        value = value.replace("|", "\\|").replace("None", "null")
        yield key, f"`{value}`{', may be absent' if optional else ''}", " ".join(meaning.split())


def _statements(kind: type) -> Iterator[tuple[str, ast.expr, str]]:
    """Key, annotation and docstring of every key of a TypedDict, inherited ones first."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    for base in definition.bases:  # Python 3.11 forgets which TypedDict another one extends
        named = vars(sys.modules[kind.__module__])[ast.unparse(base)]
        if hasattr(named, "__total__"):
            yield from _statements(named)
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            meaning = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
            yield statement.target.id, statement.annotation, meaning

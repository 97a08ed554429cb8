"""The tables of docs/benchmarks.md from the measured JSON, so that nobody types a number. Pure, no torch."""

import math
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from batchscope.files import read_json, write_text
from benchmarks.cases import CASES, Accuracy, Case, EndToEnd, Memory, Overhead, Training

BEGIN, END = "<!-- begin {name} -->", "<!-- end {name} -->"
BASELINE = "HF Trainer"
GIGA, MEBI = 1e9, 2**20


def render(page: Path, results: Path) -> None:
    """Put the tables of all cases into the page, each between its markers; a case without a result stays empty."""
    text = page.read_text(encoding="utf-8")
    for case in CASES:
        begin, end = BEGIN.format(name=case.name), END.format(name=case.name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{page} must have {begin} and {end} once each")
        file = results / f"{case.name}.json"
        made = section(case, read_json(file) if file.exists() else None)
        text = text[: text.index(begin) + len(begin)] + f"\n\n{made}\n\n" + text[text.index(end) :]
    write_text(page, text)


def section(case: Case, result: dict[str, Any] | None) -> str:
    """A case's table with the line on its machine."""
    table: Any = {
        Training: training_table,
        Accuracy: accuracy_table,
        EndToEnd: end_to_end_table,
        Overhead: overhead_table,
        Memory: memory_table,
    }[type(case)]
    return f"{table(case, result)}\n\n{provenance(result)}"


def training_table(case: Training, result: dict[str, Any] | None) -> str:
    """One row per contender: medians over the rounds, ranges in brackets, ratios within each round."""
    header = ["", "precision", "micro-batch", "samples/s", f"× {BASELINE}"]
    header += ["update p50", "p95", "of product rate", "memory"]
    if case.device == "cuda":
        header.append("CUDA graph")
    rows = []
    for contender in case.contenders:
        cells = [contender.label]
        measured = [r[contender.label] for r in result["rounds"] if contender.label in r] if result else []
        if measured:
            cells += training_cells(contender.label, measured, result)
        elif result:
            gradient = result["gradients"][contender.module]
            cells += [contender.precision, str(contender.physical_batch_size)]
            cells += [f"not timed: its gradient is {gradient['largest_difference']:.1e} off"]
        rows.append(cells + [""] * (len(header) - len(cells)))
        if measured and case.device == "cuda":
            graphs = {v for m in measured for k, v in m["facts"].items() if "graph" in k}
            rows[-1][-1] = ", ".join(map(str, sorted(graphs, key=str)))
    return markdown(header, rows)


def training_cells(label: str, measured: list[dict[str, Any]], result: dict[str, Any]) -> list[str]:
    """The numbers of one contender."""
    ratios = [
        r[label]["samples_per_second"] / r[BASELINE]["samples_per_second"]
        for r in result["rounds"]
        if label in r and BASELINE in r
    ]
    updates = [seconds for m in measured for seconds in m["update_seconds"]]
    shares = [m["samples_per_second"] * result["flops_per_sample"] / m["product_rate"] for m in measured]
    micro_batches = {m["facts"].get("physical_batch_size", 16) for m in measured}
    return [
        ", ".join(sorted({m["precision"] for m in measured})),
        ", ".join(map(str, sorted(micro_batches))),
        spread([m["samples_per_second"] for m in measured], ".1f"),
        spread(ratios, ".2f") if ratios else "",
        duration(percentile(updates, 50)),
        duration(percentile(updates, 95)),
        f"{median(shares):.0%}",
        f"{median(m['peak_memory_bytes'] for m in measured) / MEBI:,.0f} MiB",
    ]


def accuracy_table(case: Accuracy, result: dict[str, Any] | None) -> str:
    """Counts, shares and the difference in standard errors."""
    header = ["", "precision", "validation accuracy", "standard error", "samples/s"]
    if result is None:
        return markdown(header, [[c.label, "", "", "", ""] for c in case.contenders])
    rows, accuracies, errors = [], [], []
    for contender in case.contenders:
        found = result["results"][contender.label]
        accuracies.append(found["correct"] / found["examples"])
        errors.append(math.sqrt(accuracies[-1] * (1 - accuracies[-1]) / found["examples"]))
        rows.append(
            [
                contender.label,
                found["precision"],
                f"{accuracies[-1]:.4f} ({found['correct']} of {found['examples']})",
                f"{errors[-1]:.4f}",
                f"{found['samples_per_second']:.1f}",
            ]
        )
    difference = accuracies[0] - accuracies[1]
    return (
        f"{markdown(header, rows)}\n\nDifference {difference:+.4f}: "
        f"{abs(difference) / max(*errors, 1e-9):.2f} standard errors of one accuracy."
    )


def end_to_end_table(_: EndToEnd, result: dict[str, Any] | None) -> str:
    """Wall times, and what they bought."""
    header = ["", "trainings", "wall time", "× straightforward script"]
    if result is None:
        return markdown(
            header, [["Batchscope, the whole DAG", "", "", ""], ["straightforward script in a loop", "", "", ""]]
        )
    ours, script = result["dag_seconds"], result["script_seconds"]
    return markdown(
        header,
        [
            ["Batchscope, the whole DAG", str(result["runs"]), duration(ours), f"{script / ours:.2f}"],
            ["straightforward script in a loop", str(result["cells"]), duration(script), "1.00"],
        ],
    )


def overhead_table(_: Overhead, result: dict[str, Any] | None) -> str:
    """Useful seconds by rule, and the share of the capacity that is not useful."""
    header = ["rule", "jobs", "useful", "wall"]
    if result is None:
        return markdown(header, [["all", "", "", ""]])
    rows = [
        [rule, str(r["jobs"]), duration(r["useful_seconds"]), duration(r["job_seconds"])]
        for rule, r in sorted(result["rules"].items())
    ]
    useful, jobs = (sum(r[key] for r in result["rules"].values()) for key in ("useful_seconds", "job_seconds"))
    rows.append(["**all**", str(sum(r["jobs"] for r in result["rules"].values())), duration(useful), duration(jobs)])
    capacity = result["wall_seconds"] * result["cores"]
    return (
        f"{markdown(header, rows)}\n\nWall time {duration(result['wall_seconds'])} on {result['cores']} cores, "
        f"capacity {duration(capacity)}, useful {duration(useful)}: **overhead {1 - useful / capacity:.1%}**."
    )


def memory_table(_: Memory, result: dict[str, Any] | None) -> str:
    """Peak memory of a stage's process at two sizes."""
    header = ["stage", "reviews", "peak memory", "seconds"]
    if result is None:
        return markdown(header, [["evaluate", "", "", ""], ["attention", "", "", ""]])
    return markdown(
        header,
        [
            [m["stage"], f"{m['reviews']:,}", f"{m['peak_memory_bytes'] / MEBI:,.0f} MiB", f"{m['seconds']:.1f}"]
            for m in result["measurements"]
        ],
    )


def provenance(result: dict[str, Any] | None) -> str:
    """Hardware, versions, corpus and conditions of a result, in one line."""
    if result is None:
        return "*Not measured yet.*"
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    parts = [
        f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads"
        + (f", {' '.join(machine['bfloat16'])}" if machine["bfloat16"] else ""),
        f"Python {machine['python']}, {versions}",
        f"on {result['corpus']}",
        result["revision"],
    ]
    measured = [m for r in result.get("rounds", []) for m in r.values()]
    if measured:
        rates = {
            p: median(m["product_rate"] for m in measured if m["precision"] == p)
            for p in {m["precision"] for m in measured}
        }
        parts.append(
            "product rate " + ", ".join(f"{rate / GIGA:,.0f} GFLOP/s {p}" for p, rate in sorted(rates.items()))
        )
        parts.append(f"{result['flops_per_sample'] / GIGA:.2f} GFLOP a sample")
        parts.append(f"{len(result['rounds'])} rounds")
        parts.append(f"others took up to {max(m['cores_taken_by_others'] for m in measured):.2f} cores")
    return "*" + "; ".join(filter(None, parts)) + ".*"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: list[float], form: str) -> str:
    """Median and range."""
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def duration(seconds: float) -> str:
    """Seconds at a sensible precision."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def percentile(values: list[float], percent: int) -> float:
    """The percentile of one value or more, interpolated."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]

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
KINDS = {
    "bfloat16": "A CPU that multiplies bfloat16 fast, where `auto` is bfloat16",
    "float32": "A CPU with AVX2 alone, where `auto` is float32",
}
"""Kind of CPU, which is also the folder of its results → in words."""
GPU_FOLDER, GPU_FILE = "gpu", "gpu.json"
"""Results of ``make bench`` on a GPU, a file per case; and those of ``make gpu-check``, all in one."""


def kind_of(machine: dict[str, Any]) -> str:
    """The kind of a measured CPU."""
    return "bfloat16" if machine["bfloat16"] else "float32"


def file_of(case: Case, result: dict[str, Any]) -> str:
    """Where a result is kept, below the folder of the results."""
    folder = GPU_FOLDER if case.device == "cuda" else kind_of(result["machine"])
    return f"{folder}/{case.name}.json"


def render(page: Path, results: Path) -> None:
    """Put the tables into the page, each between its markers. What was not measured has no table but is named."""
    cpu = {
        case.name: {kind: read_json(file) for kind in KINDS if (file := results / kind / f"{case.name}.json").exists()}
        for case in CASES
        if case.device == "cpu"
    }
    check = read_json(results / GPU_FILE) if (results / GPU_FILE).exists() else None
    gpu = {name: result for name, result in (check or {"cases": {}})["cases"].items() if any(result["rounds"])}
    gpu |= {file.stem: read_json(file) for file in sorted((results / GPU_FOLDER).glob("*.json"))}
    blocks = {case.name: cpu_block(case, cpu[case.name]) for case in CASES if case.device == "cpu"}
    blocks["gpu"] = gpu_block(check, gpu)
    blocks["not-measured"] = not_measured(cpu, gpu)
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{page} must have {begin} and {end} once each")
        text = text[: text.index(begin) + len(begin)] + f"\n\n{block}\n\n" + text[text.index(end) :]
    write_text(page, text)


def cpu_block(case: Case, found: dict[str, dict[str, Any]]) -> str:
    """A case's tables, one for each kind of CPU that was measured."""
    if not found:
        return "Not measured."
    return "\n\n".join(f"{KINDS[kind]}:\n\n{section(case, result)}" for kind, result in found.items())


def gpu_block(check: dict[str, Any] | None, found: dict[str, dict[str, Any]]) -> str:
    """What was checked on a GPU and what was measured, under a heading each."""
    parts = [] if check is None else [f"### What holds\n\n{checks_table(check)}"]
    parts += [f"### {case.title}\n\n{section(case, found[case.name])}" for case in CASES if case.name in found]
    return "\n\n".join(parts) or "Nothing has run on a GPU yet."


def checks_table(check: dict[str, Any]) -> str:
    """The checks of ``make gpu-check`` and their results."""
    rows = []
    for row in check["checks"]:
        result = row["status"] + (f": {row['reason']}" if "reason" in row else "")
        if row["status"] == "failed":
            traceback, _, _ = row["error"].partition("\n\n")  # what the process printed follows
            result = f"**failed**: {traceback.splitlines()[-1]}".replace("|", "\\|")
        rows.append([row["claim"], result, f"{row['seconds']:.1f}" if "seconds" in row else ""])
    return f"{markdown(['', 'result', 'seconds'], rows)}\n\n{provenance(check | {'corpus': 'made-up reviews'})}"


def not_measured(cpu: dict[str, dict[str, dict[str, Any]]], gpu: dict[str, dict[str, Any]]) -> str:
    """One sentence on the cases without a table; empty if there are none."""
    parts = []
    for kind, words in KINDS.items():
        missing = [case.title for case in CASES if case.device == "cpu" and kind not in cpu[case.name]]
        if missing:
            parts.append(f"{words[0].lower()}{words[1:].partition(',')[0]}: {', '.join(missing)}")
    missing = [case.title for case in CASES if case.device == "cuda" and case.name not in gpu]
    if missing:
        parts.append(f"a GPU: {', '.join(missing)}")
    return f"Not measured. On {'. On '.join(parts)}." if parts else "Every case is measured."


def section(case: Case, result: dict[str, Any]) -> str:
    """A case's table with the line on its machine."""
    table: Any = {
        Training: training_table,
        Accuracy: accuracy_table,
        EndToEnd: end_to_end_table,
        Overhead: overhead_table,
        Memory: memory_table,
    }[type(case)]
    return f"{table(case, result)}\n\n{provenance(result)}"


def training_table(case: Training, result: dict[str, Any]) -> str:
    """One row per contender that was measured or refused: medians over the rounds, ratios within each round."""
    header = ["", "precision", "micro-batch", "samples/s", f"× {BASELINE}"]
    header += ["update p50", "p95", "of product rate", "memory"]
    if case.device == "cuda":
        header.append("CUDA graph")
    rows = []
    for contender in case.contenders:
        measured = [r[contender.label] for r in result["rounds"] if contender.label in r]
        gradient = result["gradients"].get(contender.module, {"passed": True})
        if measured:
            cells = [contender.label, *training_cells(contender.label, measured, result)]
            if case.device == "cuda":
                cells.append(graph_cell(measured))
        elif not gradient["passed"]:
            difference = gradient["largest_difference"]
            reason = "it failed" if difference is None else f"its gradient is {difference:.1e} off"
            cells = [contender.label, contender.precision, str(contender.physical_batch_size), f"not timed: {reason}"]
        else:
            continue
        rows.append(cells + [""] * (len(header) - len(cells)))
    return markdown(header, rows)


def graph_cell(measured: list[dict[str, Any]]) -> str:
    """How often a graph was chosen, and how much faster than eager it was found to be; empty for a peer."""
    trials = [m["facts"]["trial"] for m in measured if "trial" in m["facts"]]
    if not trials:
        return ""
    chosen = sum(trial["micro_step"] == "cuda_graph" for trial in trials)
    seconds = [t["micro_step_seconds"] for t in trials if "cuda_graph" in t.get("micro_step_seconds", {})]
    ratios = [each["eager"] / each["cuda_graph"] for each in seconds]
    return f"{chosen} of {len(trials)}" + (f", {median(ratios):.2f} × eager" if ratios else "")


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


def accuracy_table(case: Accuracy, result: dict[str, Any]) -> str:
    """Counts, shares and the difference in standard errors."""
    header = ["", "precision", "validation accuracy", "standard error", "samples/s"]
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


def end_to_end_table(_: EndToEnd, result: dict[str, Any]) -> str:
    """Wall times, and what they bought."""
    header = ["", "trainings", "wall time", "× straightforward script"]
    ours, script = result["dag_seconds"], result["script_seconds"]
    return markdown(
        header,
        [
            ["Batchscope, the whole DAG", str(result["runs"]), duration(ours), f"{script / ours:.2f}"],
            ["straightforward script in a loop", str(result["cells"]), duration(script), "1.00"],
        ],
    )


def overhead_table(_: Overhead, result: dict[str, Any]) -> str:
    """Useful seconds by rule, and the share of the capacity that is not useful."""
    header = ["rule", "jobs", "useful", "wall"]
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


def memory_table(_: Memory, result: dict[str, Any]) -> str:
    """Peak memory of a stage's process at two sizes."""
    header = ["stage", "reviews", "peak memory", "seconds"]
    return markdown(
        header,
        [
            [m["stage"], f"{m['reviews']:,}", f"{m['peak_memory_bytes'] / MEBI:,.0f} MiB", f"{m['seconds']:.1f}"]
            for m in result["measurements"]
        ],
    )


def provenance(result: dict[str, Any]) -> str:
    """Hardware, versions, corpus and conditions of a result, in one line."""
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
        parts.append("1 round" if len(result["rounds"]) == 1 else f"{len(result['rounds'])} rounds")
        parts.append(f"others took up to {max(m['cores_taken_by_others'] for m in measured):.2f} cores")
    return "*" + "; ".join(filter(None, parts)) + ".*"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: list[float], form: str) -> str:
    """Median, and the range of several values."""
    several = f" ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else ""
    return f"{median(values):{form}}{several}"


def duration(seconds: float) -> str:
    """Seconds at a sensible precision."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def percentile(values: list[float], percent: int) -> float:
    """The percentile of one value or more, interpolated."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]

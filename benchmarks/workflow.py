"""Whole workflows: a study through the DAG beside a script in a loop, and what of the demo's time is useful."""

import csv
import logging
import os
import re
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batchscope.config.study import Study
from batchscope.data.tables import SPLITS, read_corpus, read_split
from batchscope.files import write_json
from benchmarks.cases import EndToEnd, Overhead
from benchmarks.harness import ROOT, Bench, corpus_name

log = logging.getLogger(__name__)
CORES = 2
USEFUL = re.compile(r"batchscope \w+: done in ([\d.]+) s")
"""How a verb says in its log how long its own work took, imports left out."""


def snakemake(bench: Bench, folder: Path, config: Path) -> float:
    """Seconds of a whole run in ``folder``, on two cores; Snakemake and its jobs choose their threads themselves."""
    environment = {k: v for k, v in bench.environment().items() if k not in ("OMP_NUM_THREADS", "PYTHONWARNINGS")}
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    started = time.perf_counter()
    bench.run([*command, "--cores", CORES, "--configfile", config], folder, environment)
    return time.perf_counter() - started


# ---------------------------------------------------------------------------------------- end to end


def study_config(case: EndToEnd, bench: Bench) -> dict[str, Any]:
    """The reference study's grid on a sample of the reviews."""
    source = os.environ.get("BATCHSCOPE_IMDB")
    data: dict[str, Any] = {"source": str(Path(source).resolve()), "sample": case.reviews} if source else {
        "source": "synthetic", "synthetic": {"reviews": case.reviews}
    }  # fmt: skip
    rate = {"base_lr": case.learning_rate}
    return {
        "study": "end-to-end",
        "data": data | {"split": {"method": "pooled", "seed": 42}, "max_length": 128},
        "models": {name: {"checkpoint": str(bench.checkpoint(name))} for name in case.encoders},
        "target_batch_sizes": list(case.target_batch_sizes),
        "physical_batch_size": "auto",
        "lr_policies": {
            "constant": rate,
            "sqrt": rate | {"scaling": "sqrt", "reference_batch_size": case.target_batch_sizes[0]},
        },
        "seeds": list(case.seeds),
        "budget": {"epochs": case.epochs},
        "precision": "auto",
        "device": "cpu",
    }


def run_end_to_end(case: EndToEnd, bench: Bench) -> dict[str, Any]:
    """Wall time of the DAG from nothing to its report, and of the script over every cell of the same grid."""
    folder = bench.folder / "end-to-end"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = study_config(case, bench)
    study = Study.from_mapping(config)
    config_file = folder / "config.json"
    write_json(config_file, config)
    dag_seconds = snakemake(bench, folder, config_file)
    log.info(f"{case.name}: the whole DAG, {dag_seconds:.0f} s")
    data = export_texts(folder / "results/end-to-end/data", folder / "texts")
    script_seconds = []
    for cell in study.cells():
        command = [sys.executable, "-m", "benchmarks.contenders.straightforward"]
        options = {
            "checkpoint": config["models"][cell.model]["checkpoint"],
            "data": data,
            "output": folder / "script" / cell.path,
            "target-batch-size": cell.batch,
            "learning-rate": study.lr_policies[cell.policy].learning_rate(cell.batch),
            "epochs": case.epochs,
            "seed": cell.seed,
            "device": case.device,
        }
        started = time.perf_counter()
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        bench.run([*command, *arguments], folder, bench.environment())
        script_seconds.append(time.perf_counter() - started)
        log.info(f"{case.name}: the script on {cell.path}, {script_seconds[-1]:.0f} s")
    return bench.conditions(case.device, corpus_name()) | {
        "case": asdict(case),
        "config": config | {"data": data_without_path(config["data"]), "models": list(config["models"])},
        "dag_seconds": dag_seconds,
        "script_seconds": sum(script_seconds),
        "script_seconds_by_cell": script_seconds,
        "cells": len(study.cells()),
        "runs": len(set(study.runs().values())),
        "cores": CORES,
    }


def data_without_path(data: dict[str, Any]) -> dict[str, Any]:
    """The data section as it may be published."""
    return data | {"source": "synthetic" if data["source"] == "synthetic" else "IMDB"}


def export_texts(data: Path, output: Path) -> Path:
    """The study's own splits as one parquet file of texts and labels each, as the script reads them."""
    corpus, ids = read_corpus(data / "corpus.parquet"), read_split(data / "split.parquet")
    output.mkdir()
    for split in SPLITS:
        table = pa.table({"text": corpus.texts_of(ids[split]), "label": corpus.label[ids[split]]})
        pq.write_table(table, output / f"{split}.parquet")
    return output


# ------------------------------------------------------------------------------------------ overhead


def run_overhead(case: Overhead, bench: Bench) -> dict[str, Any]:
    """The demo, and per rule what its jobs took and what of it was their own work."""
    folder = bench.folder / "overhead"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = ROOT / case.config
    wall_seconds = snakemake(bench, folder, config)
    log.info(f"{case.name}: {wall_seconds:.0f} s")
    study = folder / "results" / yaml.safe_load(config.read_text(encoding="utf-8"))["study"]
    return bench.conditions(case.device, "the embedded corpus") | {
        "case": asdict(case),
        "wall_seconds": wall_seconds,
        "cores": CORES,
        "rules": rule_seconds(study),
    }


def rule_seconds(study: Path) -> dict[str, dict[str, float]]:
    """Rule → jobs, their wall seconds and useful seconds, from the benchmark files and logs of a finished study."""
    rules: dict[str, dict[str, float]] = {}
    for file in sorted((study / "benchmarks").rglob("*.tsv")):
        job = file.relative_to(study / "benchmarks").with_suffix("")
        with file.open(encoding="utf-8") as lines:
            seconds = sum(float(row["s"]) for row in csv.DictReader(lines, delimiter="\t"))
        said = USEFUL.findall((study / "logs" / f"{job}.log").read_text(encoding="utf-8", errors="replace"))
        counts = rules.setdefault(job.parts[0], {"jobs": 0, "job_seconds": 0.0, "useful_seconds": 0.0})
        counts["jobs"] += 1
        counts["job_seconds"] += seconds
        counts["useful_seconds"] += float(said[-1])
    return rules

"""docs/benchmarks.md holds what the JSON says, and nothing typed by hand."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModel

from batchscope.files import write_json
from batchscope.model.flops import training_flops_per_sample
from benchmarks.cases import CASES, OURS, OURS_AUTO, PEERS, TRAINER, Overhead, Training
from benchmarks.clock import Clock
from benchmarks.tables import BEGIN, END, file_of, percentile, render, section

ROOT = Path(__file__).resolve().parents[2]
CASE = Training("small-64", "a case", "cpu", "small", 64, 1, 2, (OURS, TRAINER))
CONDITIONS = {
    "machine": {"device": "a CPU", "cores": 2, "threads": 2, "bfloat16": [], "python": "3", "versions": {"torch": "2"}},
    "corpus": "IMDB",
    "revision": "",
}  # fmt: skip


def measurement(samples_per_second, updates=(0.5, 0.7), rate=1e11):
    return {
        "samples_per_second": samples_per_second,
        "update_seconds": list(updates),
        "cores_taken_by_others": 0.01,
        "peak_memory_bytes": 700 * 2**20,
        "precision": "float32",
        "product_rate": rate,
        "facts": {},
    }


def training_result(ours, trainer):
    return CONDITIONS | {
        "flops_per_sample": 5e8,
        "gradients": {"trainer": {"passed": True, "largest_difference": 0.0}},
        "rounds": [
            {c.label: measurement(a if c == OURS else b) for c in (OURS, *PEERS, OURS_AUTO)}
            for a, b in zip(ours, trainer, strict=True)
        ],
    }


def page(tmp_path, text=""):
    path = tmp_path / "benchmarks.md"
    names = [*(case.name for case in CASES if case.device == "cpu"), "gpu", "not-measured"]
    blocks = (f"{BEGIN.format(name=name)}{END.format(name=name)}" for name in names)
    path.write_text(f"before {text}\n" + "\n".join(blocks) + "\nafter\n", encoding="utf-8")
    return path


def test_the_page_in_docs_is_made_of_the_results_beside_it(tmp_path):
    committed = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    copy = tmp_path / "benchmarks.md"
    copy.write_text(committed, encoding="utf-8")
    render(copy, ROOT / "benchmarks/results")
    assert copy.read_text(encoding="utf-8") == committed


def test_numbers_come_from_the_json_and_rendering_again_changes_nothing(tmp_path):
    path = page(tmp_path)
    write_json(tmp_path / "results/float32/small-64.json", training_result([120, 110, 100], [100, 100, 100]))
    render(path, tmp_path / "results")
    once = path.read_text(encoding="utf-8")
    assert "110.0 (100.0–120.0) | 1.10 (1.00–1.20) | 600.0 ms" in once
    assert once.startswith("before") and once.endswith("after\n")
    render(path, tmp_path / "results")
    assert path.read_text(encoding="utf-8") == once


def test_a_ratio_is_taken_within_a_round():
    """The machine is twice as fast in the second round: no ratio of medians sees that ours is always 10% ahead."""
    table = section(CASE, training_result([110, 220], [100, 200]))
    assert "| 1.10 (1.10–1.10) |" in table


def test_the_share_of_the_product_rate_is_that_of_the_same_process():
    result = training_result([100], [100])
    result["rounds"][0][OURS.label] = measurement(100, rate=2e11)
    rows = section(CASE, result).splitlines()
    assert "| 25% |" in rows[2] and "| 50% |" in rows[3]


def test_a_case_that_was_not_measured_has_no_table_and_is_named(tmp_path):
    path = page(tmp_path)
    write_json(tmp_path / "results/float32/small-64.json", training_result([120], [100]))
    render(path, tmp_path / "results")
    text = path.read_text(encoding="utf-8")
    tables = text.split("| --- |")
    assert len(tables) == 2, "small-64 on one kind of CPU"
    assert tables[0].splitlines()[-3] == "A CPU with AVX2 alone, where `auto` is float32:"
    assert "Nothing has run on a GPU yet." in text
    sentence = next(line for line in text.splitlines() if line.startswith("Not measured. On a CPU that multiplies"))
    fast, slow, gpu = re.split(r"\. On ", sentence)[1:]
    assert fast.count("target batch 64") == 2 and slow.count("target batch 64") == 1
    assert gpu.count("BERT-base") == 6


def test_a_result_is_kept_by_the_kind_of_its_cpu():
    case, found = CASES[0], training_result([1], [1])
    assert file_of(case, found) == "float32/small-64.json"
    found = found | {"machine": found["machine"] | {"bfloat16": ["avx512_bf16"]}}
    assert file_of(case, found) == "bfloat16/small-64.json"


def test_a_page_without_a_case_s_markers_is_refused(tmp_path):
    path = page(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("<!-- begin overhead -->", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="begin overhead"):
        render(path, tmp_path)


def test_overhead_is_what_of_the_capacity_is_not_useful():
    case = Overhead("overhead", "overhead")
    rules = {"train": {"jobs": 2, "job_seconds": 14.0, "useful_seconds": 12.0}}
    table = section(case, CONDITIONS | {"wall_seconds": 10.0, "cores": 2, "rules": rules})
    assert "**overhead 40.0%**" in table


def test_the_clock_counts_what_lies_between_its_edges(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(
        "benchmarks.clock.time", SimpleNamespace(perf_counter=lambda: next(now), process_time=lambda: 0)
    )
    clock = Clock("cpu", updates=5, warm_up=2)
    for _ in range(5):
        clock.tick()
    assert len(clock.update_seconds()) == 3
    assert clock.told == 5
    with pytest.raises(AssertionError, match="leave none to count"):
        Clock("cpu", updates=2, warm_up=2)


@pytest.mark.parametrize(("kind", "giga"), [("bert", 67), ("modernbert", 88)])
def test_a_sample_of_128_tokens_costs_what_the_shapes_say(kind, giga):
    with torch.device("meta"):
        encoder = AutoModel.from_config(AutoConfig.for_model(kind))
    assert training_flops_per_sample(encoder, 128) / 1e9 == pytest.approx(giga, abs=1)


def test_percentiles_are_interpolated():
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([5.0], 95) == 5.0

"""``determinism: strict``: set before anything computes, part of the spec only where it is asked for, recorded."""

import json
import os

import pytest
import torch
from forked import CONTEXT
from safetensors.torch import load_file
from small import train_settings

from batchscope.config.study import Study
from batchscope.files import read_json
from batchscope.training.loop import train

STRICT = {"algorithms": True, "warn_only": False, "cudnn": True, "tf32": False, "cublas": ":4096:8"}


def train_apart(spec, tokens, folder):
    """The target of a process of its own: the setting is the whole process's."""
    torch.set_num_threads(1)
    train(spec, "code", train_settings(), tokens, folder / "run", folder)
    state = {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }
    (folder / "state.json").write_text(json.dumps(state))


def test_strict_trains_alike_on_a_cpu_and_is_recorded(small_study, tmp_path):
    fast, strict = (
        small_study.spec("modernbert", budget={"epochs": 1}, determinism=name) for name in ("fast", "strict")
    )
    assert "determinism" not in fast.plain(), "the spec of every earlier training stays what it was"
    assert strict.plain() == fast.plain() | {"determinism": "strict"}
    settings = train_settings()
    train(fast, "code", settings, small_study.tokens("modernbert"), tmp_path / "fast", tmp_path / "state")
    (tmp_path / "strict").mkdir()
    process = CONTEXT.Process(target=train_apart, args=(strict, small_study.tokens("modernbert"), tmp_path / "strict"))
    process.start()
    process.join()
    assert process.exitcode == 0
    run = tmp_path / "strict/run"
    assert read_json(tmp_path / "strict/state.json") == STRICT
    assert (run / "history.jsonl").read_bytes() == (tmp_path / "fast/history.jsonl").read_bytes()
    weights, others = (load_file(folder / "checkpoints/last.safetensors") for folder in (run, tmp_path / "fast"))
    assert all(tensor.equal(others[name]) for name, tensor in weights.items())
    recorded = [read_json(folder / "manifest.json")["determinism"] for folder in (run, tmp_path / "fast")]
    assert recorded == ["strict", "fast"]


def test_a_run_says_what_it_measured(small_study, tmp_path):
    spec = small_study.spec("bert", budget={"updates": 3})
    settings = train_settings()
    train(spec, "code", settings, small_study.tokens("bert"), tmp_path / "run", tmp_path / "state")
    facts = read_json(tmp_path / "run/train.json")
    assert 0 < facts["data_wait_seconds"] < facts["training_seconds"]
    unknown = ("gpu_utilisation_mean", "gpu_utilisation_peak", "energy_joules", "jobs_per_gpu")
    assert [facts[name] for name in unknown] == [None] * 4


def test_an_unknown_determinism_is_refused():
    config = {"study": "s", "models": {"bert": {"architecture": "bert"}}, "target_batch_sizes": [16]}
    with pytest.raises(Exception, match="determinism"):
        Study.from_mapping(config | {"lr_policies": {"c": {"base_lr": 1e-3}}, "determinism": "very"})

"""The name of a run in Weights & Biases tells budgets apart, and stays what it was in a study of one budget."""

from batchscope.tracking import TrackingSpec, run_id

PLAIN = {"mode": "offline", "project": "p", "study": "s", "model": "bert", "batch": 64, "policy": "sqrt", "seed": 7}


def test_a_budget_makes_another_run_and_no_budget_changes_no_spec() -> None:
    one, long, short = (TrackingSpec.read(PLAIN | extra) for extra in ({}, {"budget": "long"}, {"budget": "short"}))
    assert "budget" not in one.plain()
    assert len({run_id(spec, "fingerprint") for spec in (one, long, short)}) == 3

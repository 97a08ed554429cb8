"""What a study can establish is said before anything is trained, and from its own results afterwards."""

import re
from pathlib import Path

import fabricate
import pytest

from batchscope.cli.main import main
from batchscope.config.study import Study
from batchscope.files import DamagedFileError, write_json, write_text
from batchscope.provenance.foresight import foresight
from batchscope.provenance.jobs import read_job_file, write_job_file
from batchscope.report.tables import write_tables

CONFIG = {
    "study": "foreseen",
    "data": {"source": "synthetic", "synthetic": {"reviews": 4000}},
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [16, 64, 256],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "seeds": [1, 2, 3],
}


def said(**changes: object) -> str:
    """What is foreseen for a study in the current folder."""
    study = Study.from_mapping(CONFIG | changes)
    specs = study.job_specs()
    path = write_job_file(Path("jobs"), study.study, specs, {}, study.train_settings())
    return foresight(read_job_file(path))


def test_a_new_study_is_told_the_best_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = said()
    assert re.match(r"From 3 seeds and 400 test reviews, a contrast finds at best a true difference of \d", told)
    assert "(Holm over 2 contrasts)" in told
    assert "Assumed: stable classifiers of 90% accuracy" in told
    assert "nothing to compare" in said(target_batch_sizes=[16])
    unread = said(data={"source": "owner/reviews"})
    assert "`batchscope design --accuracy 0.9 --reviews N --seeds 3 --contrasts 2`" in unread
    write_json(Path("results/foreseen/data/audit.json"), {"splits": {"test": {"reviews": 25_000}}})
    assert "From 3 seeds and 25,000 test reviews" in said(data={"source": "owner/reviews"})


def test_a_finished_study_speaks_from_its_own_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = fabricate.spec(**{name: CONFIG[name] for name in ("models", "lr_policies", "seeds")})
    write_tables(spec, fabricate.study_folder(Path("results/foreseen"), spec, examples=256))
    told = said()
    assert "Components: medians of the study's earlier contrasts." in told
    assert "at best" not in told


def test_design_needs_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    main(["design", "--accuracy", ".90", "--reviews", "5000", "--seeds", "5"])
    told = capsys.readouterr().out
    smallest = re.match(
        r"From 5 seeds and 5,000 test reviews, a contrast finds at best a true difference of ([\d.]+)", told
    )
    assert smallest
    assert 0.4 < float(smallest[1]) < 1.2
    main(["design", "--accuracy", ".90", "--reviews", "5000", "--seeds", "5", "--sd-review", "30", "--contrasts", "7"])
    assert "no number of seeds is enough with these reviews" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"power: must be below 1 \(it is 2\.0\)"):
        main(["design", "--accuracy", ".90", "--reviews", "5000", "--seeds", "5", "--power", "2"])
    with pytest.raises(SystemExit, match="--accuracy must be between 0 and 1"):
        main(["design", "--accuracy", "90", "--reviews", "5000", "--seeds", "5"])


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("contrasts", str(10**30), "from 1 to 1,000,000"),
        ("seeds", "0", "from 1 to 1,000,000"),
        ("reviews", "1", "from 2 to 1,000,000,000,000"),
        ("sd-seed", "nan", "from 0 to 100"),
        ("sd-review", "inf", "from 0 to 100"),
    ],
)
def test_numbers_that_no_study_has_are_refused(option: str, value: str, allowed: str) -> None:
    options = {"accuracy": ".9", "reviews": "5000", "seeds": "5"} | {option: value}
    with pytest.raises(SystemExit, match=f"--{option} must be {allowed} .it is {value}"):
        main(["design", *(word for name, given in options.items() for word in (f"--{name}", given))])


@pytest.mark.parametrize("audit", [{}, None, [], {"splits": {"test": {"reviews": "x"}}}])
def test_an_audit_that_does_not_count_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audit: object) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("results/foreseen/data/audit.json"), audit)
    with pytest.raises(DamagedFileError, match=r"audit\.json is damaged \(it does not say how many test reviews"):
        said()
    Path("results/foreseen/data/audit.json").unlink()
    write_text(Path("results/foreseen/tables/contrasts.parquet"), "7")
    assert "Assumed: stable classifiers" in said()

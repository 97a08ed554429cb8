"""The generated schema and key table are current, and every config in the repository is valid and introduced."""

import json
import re
from pathlib import Path

import pytest
import yaml

from batchscope.config import reference as config_reference
from batchscope.config.study import Study
from batchscope.provenance.formats import FILES, files_page

CONFIGS = sorted((config_reference.REPOSITORY / "config").glob("*.yaml"))


def test_the_generated_files_are_current() -> None:
    assert config_reference.out_of_date() == [], "run `make docs`"


def test_check_fails_on_drift_and_write_mends_it(tmp_path: Path) -> None:
    for path, text in config_reference.generated().items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text.replace("micro-batch", "batch"), encoding="utf-8")
    assert config_reference.main(["--check"], tmp_path) == 1
    assert config_reference.main(["--write"], tmp_path) == 0
    assert config_reference.main(["--check"], tmp_path) == 0


def test_every_key_is_in_the_table_with_an_explanation() -> None:
    rows = [line.split(" | ") for line in config_reference.key_table().splitlines()[2:]]
    assert {row[0].removeprefix("| ").strip("`").split(".")[0] for row in rows} == set(Study.model_fields)
    assert all(re.fullmatch(r"[A-Z`].*\. \|", row[3]) for row in rows)


def test_every_key_of_a_file_is_in_its_table_the_inherited_ones_too() -> None:
    sections = f"\n{files_page()}".split("\n## `")[1:]
    for section, kind in zip(sections, FILES.values(), strict=True):
        table, _, _ = section.partition("\n### ")
        assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(kind.__annotations__), section.splitlines()[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_are_valid(path: Path) -> None:
    Study.from_yaml(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_open_with_what_costs_command_and_expectation(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    introduction = "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))])
    for word in ("Costs", "Run", "Expect"):
        assert re.search(rf"^# {word} +\S", introduction, re.MULTILINE), f"{path.name}: the head says nothing on {word}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_schema_accepts_the_configs(path: Path) -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((config_reference.REPOSITORY / config_reference.SCHEMA).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load(path.read_text(encoding="utf-8")))

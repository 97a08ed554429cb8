"""The file of reported studies: what it means, and one clear line per mistake."""

import copy
from pathlib import Path

import pytest
import yaml

from batchscope.config.forensics import read_forensics
from batchscope.errors import UserError

CELL = {"model": "bert", "policy": "constant", "batch": 64, "accuracy": 0.9013}
FILE = {"studies": {"mine": {"source": "a paper", "examples": 5000, "cells": [CELL, CELL | {"batch": 256}]}}}


def written(folder: Path, content: object) -> Path:
    path = folder / "file.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def changed(*place: object, value: object) -> dict:
    content = copy.deepcopy(FILE)
    *way, last = place
    inner = content
    for part in way:
        inner = inner[part]
    inner[last] = value
    return content


def test_an_accuracy_has_the_decimals_of_the_longest_one_unless_the_file_says(tmp_path: Path) -> None:
    content = changed("studies", "mine", "cells", 1, value=CELL | {"batch": 256, "accuracy": 0.9})
    assert [cell.decimals for cell in read_forensics(written(tmp_path, content)).reported()] == [4, 4]
    content["studies"]["mine"]["decimals"] = 5
    assert [cell.decimals for cell in read_forensics(written(tmp_path, content)).reported()] == [5, 5]


def test_a_count_is_exact(tmp_path: Path) -> None:
    content = changed("studies", "mine", "cells", value=[{"model": "bert", "batch": 64, "correct": 4506}])
    (cell,) = read_forensics(written(tmp_path, content)).reported()
    assert (cell.accuracy, cell.decimals, cell.test_set, cell.policy) == (4506 / 5000, None, "mine", "constant")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("studies", "mine", "cells", 0, "acuracy", value=1), "acuracy: unknown key; did you mean `accuracy`"),
        (changed("studies", "mine", "cells", 0, "accuracy", value=90.13), "must be 1 or less (it is 90.13)"),
        (changed("studies", "mine", "cells", 0, "correct", value=3), "cells, entry 1: give either `accuracy` or"),
        (changed("studies", "mine", "cells", 0, value={"model": "bert", "batch": 64, "correct": 5001}), "is above"),
        (changed("studies", "mine", "cells", 1, "batch", value=64), "entry 2: bert, constant, 64 appears twice"),
        (changed("studies", "mine", "cells", value=[]), "cells: must be a list of at least 1 entry"),
        (changed("studies", "mine", "examples", value="many"), "studies.mine.examples: must be a whole number"),
        (changed("studies", "mine", "decimals", value=3), "entry 1: 0.9013 has more than `decimals: 3`"),
        ({}, "studies: this key is required"),
        ("studies: [", "is not valid YAML"),
        ("- a", "must be a mapping"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_its_key(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_forensics(written(tmp_path, content))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing\.yaml: No such file"):
        read_forensics(tmp_path / "nothing.yaml")

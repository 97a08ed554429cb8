"""Whatever stands in a config, the answer is a study or messages that name key, value and what is allowed.

`BATCHSCOPE_SOAK=1` tries 10,000 configs instead of a few hundred, `0.1` a tenth of them.
"""

import copy
import datetime
import json
import os
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscope.config.errors import is_section, without_none
from batchscope.config.study import Study
from batchscope.config.text import read_mapping
from batchscope.errors import UserError
from batchscope.provenance.jobs import read_job_file, write_job_file

EXAMPLES = max(300, int(10_000 * float(os.environ.get("BATCHSCOPE_SOAK", "0"))))
SMALL: dict[str, Any] = {
    "study": "s",
    "data": {"source": "synthetic", "synthetic": {"reviews": 400}},
    "models": {"bert": {"architecture": "bert", "config": {"hidden_size": 32, "num_attention_heads": 2}}},
    "target_batch_sizes": [16, 64],
    "lr_policies": {
        "constant": {"base_lr": 1e-3},
        "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16},
    },
    "seeds": [1, 2],
    "budget": {"epochs": 1},
    "device": "cpu",
}


def places(section: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every key of the config; `bert` and `constant` stand for names of the user's."""
    found = []
    for name, field in section.model_fields.items():
        inner, place = without_none(field.annotation), (*prefix, name)
        found.append(place)
        if get_origin(inner) is dict:
            inner, place = without_none(get_args(inner)[1]), (*place, "bert" if name == "models" else "constant")
            found.append(place)
        if is_section(inner):
            found += places(inner, place)
    return found


PLACES = [*places(Study), ("models", "bert", "config", "hidden_size"), ("models", "bert", "config", "new")]
WORDS = sorted({word for place in PLACES for word in place} | {"cpu", "auto", "all", "none", "malladi", "half_life"})
TEXTS = st.one_of(
    *(st.sampled_from(WORDS), st.text(max_size=8), st.sampled_from(["", "\ud800", "a\0b", "../..", "x" * 300])),
    *(st.sampled_from(["#112233", "1e-3", "0.5", "nan", "{a}", "<b>", "\x1b[31m", "\u202etxt", "~nobody/x", "/"]),),
)
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 70), st.floats(), TEXTS),
    st.sampled_from([10**30, -(10**30), 10**400, 2**32, 2**63, 1e308, 5e-324, datetime.date(2026, 1, 1), b"bytes"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.integers(0, 64), TEXTS), inner, max_size=3),
    ),
    max_leaves=6,
)
FITTING = st.one_of(
    *(st.integers(1, 64), st.floats(0, 1), st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True)),
    *(st.booleans(), st.sampled_from(WORDS), st.fixed_dictionaries({"epochs": st.integers(1, 3)})),
)
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), st.one_of(FITTING, VALUES)), min_size=1, max_size=4)


def changed(changes: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """The small config with values put at some places, where there still are sections on the way."""
    config = copy.deepcopy(SMALL)
    for place, value in changes:
        section: Any = config
        for name in place[:-1]:
            section = section.setdefault(name, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[place[-1]] = value
    return config


LIBRARY = ("Traceback", "pydantic", "Input should", "validation error", "object at 0x")


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_any_config_is_a_study_or_explained(changes: list[tuple[tuple[str, ...], Any]], tmp_path_factory: Any) -> None:
    try:
        study = Study.from_mapping(changed(changes))
        specs = study.job_specs()
    except UserError as error:
        told = str(error)
        assert not [word for word in LIBRARY if word in told], told
        assert told.encode() and len(max(told.splitlines(), key=len)) < 600
        return
    folder = tmp_path_factory.getbasetemp() / "jobs"
    path = write_job_file(folder, study.study, specs, {}, study.train_settings())
    jobs = read_job_file(path)
    assert set(jobs.jobs) == set(specs)
    for job in list(specs)[:20]:
        assert jobs.identity(job) == specs[job].identity()
    path.unlink()


MISTAKES: list[tuple[tuple[str, ...], Any, str]] = [
    (("optimizer", "weight_decay"), float("inf"), "optimizer.weight_decay: must be a finite number (it is inf)"),
    (("optimizer", "weight_decay"), float("nan"), "optimizer.weight_decay: must be a finite number (it is nan)"),
    (("schedule", "warmup"), float("nan"), "schedule.warmup: must be a finite number (it is nan)"),
    (("data", "synthetic", "label_noise"), float("nan"), "data.synthetic.label_noise: must be a finite number"),
    (("data", "split", "train"), float("nan"), "data.split.train: must be a finite number (it is nan)"),
    (("optimizer", "betas"), [0.9, float("nan")], "optimizer.betas, entry 2: must be a finite number (it is nan)"),
    (("claims", "margin"), float("nan"), "claims.margin: must be a finite number (it is nan)"),
    (("target_batch_sizes",), [10**400], "target_batch_sizes, entry 1: must be 1e+15 or less"),
    (("models", "bert", "config", "x"), float("nan"), "models.bert.config: `x` must be finite numbers, text, lists"),
    (
        ("models", "bert", "config", "x"),
        datetime.date(2026, 1, 1),
        "models.bert.config: `x` must be finite numbers, text, lists",
    ),
    (("models", "bert", "config", "x"), "\ud800", "models.bert.config: `x` must be finite numbers, text, lists"),
    (("report", "title"), "\ud800", "report.title: must be text in Unicode"),
    (("study",), "x" * 300, "study: must be text of at most 100 characters"),
    (("study",), "a\nb", "study: must be a name: letters"),
    (("study",), "..", "study: must be a name: letters"),
    (("study",), "-rf", "study: must be a name: letters"),
    (("study",), "$(id)", "study: must be a name: letters"),
    (("study",), "résumé", "study: must be a name: letters"),
    (("study",), False, "study: must be text (it is False); put it into quotation marks"),
    (("models", 7), {"architecture": "bert"}, "models.7: must be text (it is 7); put it into quotation marks"),
    (("lr_policies", False), {"base_lr": 1}, "lr_policies.False: must be text (it is False); put it into quotation"),
    (("models", "a\nb"), {"architecture": "bert"}, "models.a\\nb: must be a name: letters"),
    (("data", "\u202ex"), 1, "data.\\u202ex: unknown key"),
    (("target_batch_sizes",), [True, 64], "target_batch_sizes, entry 1: must be a whole number (it is True)"),
    (("seeds",), [False], "seeds, entry 1: must be a whole number (it is False)"),
    (("data", "split", "seed"), True, "data.split.seed: must be a whole number (it is True)"),
    (("threads",), True, "threads: must be a whole number or `auto` (it is True)"),
    (("schedule", "warmup"), False, "schedule.warmup: must be a number (it is False)"),
    (("lr_policies", "constant", "base_lr"), True, "lr_policies.constant.base_lr: must be a number (it is True)"),
    (
        ("lr_policies", "constant"),
        {"table": {16: 1, "16": 2, 64: 1}},
        "lr_policies.constant.table: 16 is there twice",
    ),
    (("models", "Bert"), {"architecture": "bert"}, "models: `bert` and `Bert` differ in capitals alone: rename one"),
    (("lr_policies", "SQRT"), {"base_lr": 1}, "lr_policies: `sqrt` and `SQRT` differ in capitals alone"),
]


@pytest.mark.parametrize(("place", "value", "told"), MISTAKES)
def test_what_no_file_can_hold_is_refused_by_its_key(place: tuple[str, ...], value: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        Study.from_mapping(changed([(place, value)]))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.strip().startswith(told)


# ------------------------------------------------------------------------------------------------- the file itself

TEXT = yaml.safe_dump(SMALL)
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
FILES: list[tuple[str, bytes, str]] = [
    ("octal", b"a: [1,\n  0123456701]\n", "`0123456701` in line 2 is the number 21913025 to YAML; write 21913025"),
    ("sexagesimal", b"save_every: 1:30\n", "`1:30` in line 1 is the number 90 to YAML; write 90"),
    ("a number as a key, twice", b"table: {16: 1, 16.0: 2}\n", "`16.0` is there twice"),
    (
        "a bomb of anchors",
        b"a0: &a0 [x]\n" + BOMB.encode(),
        "`&` and `\\*` written out it has over 1,000,000 values",
    ),
    ("a key twice", TEXT.encode() + b"seeds: [3]\n", r"the key `seeds` is there twice, in lines \d+ and \d+"),
    ("a key twice, deeper", b"data:\n  text: a\n  text: b\n", "`text` is there twice, in lines 2 and 3"),
    ("a key twice, in one line", b"budget: {epochs: 1, epochs: 2}\n", "`epochs` is there twice, in lines 1 and 1"),
    ("a key twice, in JSON", b'{"study": "a",\n\t"study": "b"}', "`study` is there twice, in lines 1 and 2"),
    ("UTF-16", TEXT.encode("utf-16"), "is not UTF-8 text"),
    ("Latin-1", "study: é\n".encode("latin-1"), "is not UTF-8 text"),
    ("a tab", b"data:\n\ttext: a\n", "is not valid YAML.*line 2"),
    ("two documents", b"study: a\n---\nstudy: b\n", "is not valid YAML.*single document"),
    ("no such date", b"study: 2026-13-45\n", "is not valid YAML.*month"),
    ("an object of Python", b"study: !!python/object/apply:os.system [id]\n", "is not valid YAML"),
    ("endless nesting", b"study: " + b"[" * 1200, "is not valid YAML: sections in sections without end"),
    ("a control character", b"study: a\x07b\n", "is not valid YAML"),
    ("a list as a key", b"? [a]\n: b\n", "is not valid YAML.*unhashable"),
    ("an unknown anchor", b"study: *a\n", "is not valid YAML.*undefined alias"),
    ("nothing", b"", "must be a mapping of keys to values"),
    ("a list", b"- a\n", "must be a mapping of keys to values"),
]


@pytest.mark.parametrize(("content", "told"), [file[1:] for file in FILES], ids=[file[0] for file in FILES])
def test_a_file_that_is_no_config_is_one_message(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "my.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"(?s)the config .*my\.yaml.*{told}"):
        Study.from_yaml(tmp_path / "my.yaml")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + TEXT.encode(), json.dumps(SMALL, indent="\t").encode()])
def test_a_byte_order_mark_and_json_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "my.yaml").write_bytes(content)
    assert Study.from_yaml(tmp_path / "my.yaml") == Study.from_mapping(SMALL)


def test_an_emoji_in_two_escapes_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "my.json").write_text(json.dumps({"title": "😀"}))
    assert read_mapping(tmp_path / "my.json", "it") == {"title": "😀"}


def test_merged_sections_may_replace_keys(tmp_path: Path) -> None:
    """That is what YAML's `<<` is for."""
    (tmp_path / "my.yaml").write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_mapping(tmp_path / "my.yaml", "it")["b"] == {"x": 3, "y": 2}


def test_a_pipe_and_the_home_of_nobody_are_no_data(tmp_path: Path) -> None:
    """Reading a pipe would never end."""
    os.mkfifo(tmp_path / "reviews.csv")
    with pytest.raises(UserError, match=r"the config .* is a pipe, and it is read more than once"):
        Study.from_yaml(tmp_path / "reviews.csv")
    for place, source, told in (
        (("data",), str(tmp_path / "reviews.csv"), "data.source: .* is neither a file nor a folder, but a pipe"),
        (("data",), "~nobody-there/reviews.csv", "data.source: there is no file or folder '~nobody-there"),
        (("models", "bert"), "/dev/null", "models.bert.checkpoint: '/dev/null' is neither a file nor a folder"),
    ):
        value = {"source": source} if place == ("data",) else {"checkpoint": source}
        with pytest.raises(UserError, match=told):
            Study.from_mapping(changed([(place, value)]))


def test_a_section_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("study: s\nmodels: &m {bert: {architecture: bert, config: {self: *m}}}\n")
    with pytest.raises(UserError, match="mistakes"):
        Study.from_yaml(tmp_path / "my.yaml")

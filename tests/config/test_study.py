"""The config's mistakes are explained; the grid, the runs and the specs hold what they should and nothing else."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small import tiny_config

from batchscope.config.errors import is_section, without_none
from batchscope.config.study import Cell, Study
from batchscope.errors import UserError
from batchscope.statistics.sweep import chosen_grid

ROOT = Path(__file__).resolve().parents[2]
REFERENCE: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
Change = Callable[[dict[str, Any]], Any]


def changed(*changes: Change) -> Study:
    """The reference study after some changes to its config."""
    config = copy.deepcopy(REFERENCE)
    for change in changes:
        change(config)
    return Study.from_mapping(config)


def put(path: str, value: Any) -> Change:
    """A change that puts ``value`` at a dotted key, with the sections on the way there."""

    def change(config: dict[str, Any]) -> None:
        *sections, last = path.split(".")
        for section in sections:
            config = config.setdefault(section, {})
        config[last] = value

    return change


def train_specs(study: Study) -> dict[Cell, str]:
    return {cell: spec.identity() for cell, spec in study.train_specs().items()}


# ------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser", {}, "optimiser: unknown key; did you mean `optimizer`?"),
        ("models.bert.chekpoint", "x", "models.bert.chekpoint: unknown key; did you mean `checkpoint`?"),
        ("lr_policies.sqrt.scalling", "sqrt", "lr_policies.sqrt.scalling: unknown key; did you mean `scaling`?"),
        ("data.synthetic", {"reviws": 5}, "data.synthetic.reviws: unknown key; did you mean `reviews`?"),
        ("budget.qqqq", 1, "budget.qqqq: unknown key; allowed here: epochs, updates, samples"),
        ("lr_policies.constant.base_lr", "fast", "lr_policies.constant.base_lr: .*number.*'fast'"),
        ("lr_policies.constant.base_lr", -1, "lr_policies.constant.base_lr: must be above 0 .*-1"),
        ("lr_policies.constant.base_lr", float("nan"), "lr_policies.constant.base_lr: .*finite"),
        ("lr_policies.sqrt", {"base_lr": 1, "scaling": "sqrt"}, "lr_policies.sqrt: `reference_batch_size` goes with"),
        ("lr_policies.t", {"table": {64: 1, 256: 1}}, "lr_policies.t.table has no .* target batch size 1024"),
        (
            "lr_policies.t",
            {"table": {64: 1}, "base_lr": 1},
            "lr_policies.t: give exactly one of `base_lr`, `table` and `sweep`",
        ),
        ("target_batch_sizes", [], "target_batch_sizes: .*at least 1"),
        ("target_batch_sizes", [64, 0], "target_batch_sizes, entry 2: must be above 0 .*0"),
        ("target_batch_sizes", [64, 64], "target_batch_sizes: 64 appears twice"),
        ("seeds", [-1], "seeds, entry 1: must be 0 or more .*-1"),
        ("lr_policies.t", {"table": {64: "x"}}, "lr_policies.t.table.64: must be a number .*'x'"),
        ("budget.updates", 10, "budget: give exactly one of `epochs`, `updates` and `samples`"),
        ("budget", {}, "budget: give exactly one of"),
        ("budget", None, "budget: must be a section"),
        ("budgets", {"long": {"epochs": 9}}, "give either `budget` or `budgets`, not both"),
        ("budgets", {"a b": {"epochs": 9}}, "budgets.a b: must be a name: letters"),
        ("validate_every", {}, "validate_every: give exactly one of `updates` and `samples`"),
        ("validate_every", {"updates": 0}, "validate_every.updates: must be above 0 .*0"),
        ("select_from", "all", "`select_from: all` goes with `validate_every`"),
        (
            "insight",
            {"cartography": {"enabled": True}},
            "insight.cartography.enabled: true reads the checkpoint of every epoch, and `keep: best`.* Set `keep: all`",
        ),
        ("select_from", "some", "select_from: must be `epoch_ends` or `all` .*'some'"),
        ("budgets", {}, "budgets: must be .* at least 1"),
        ("budgets", {"long": {}}, "budgets.long: give exactly one of `epochs`, `updates` and `samples`"),
        ("lr_policies.t", {"sweep": [1e-5]}, "lr_policies.t.sweep: must be a list of at least 2 entries"),
        ("lr_policies.t", {"sweep": [1e-5, 1e-5]}, "lr_policies.t.sweep: 1e-05 is there twice"),
        ("lr_policies.t", {"sweep": [1e-5, 2e-5], "base_lr": 1}, "lr_policies.t: give exactly one of `base_lr`, "),
        ("lr_policies.t", {"sweep": [1e-5, 2e-5], "scaling": "sqrt"}, "`scaling` goes with `base_lr`, not with"),
        ("lr_policies.sqrt.scale_betas", "maladi", "scale_betas: must be `none`, `half_life` or `malladi` .*'maladi'"),
        (
            "lr_policies.constant.scale_eps",
            True,
            "lr_policies.constant: `reference_batch_size` goes with .*`scale_eps`",
        ),
        ("lr_policies.constant.reference_batch_size", 64, "lr_policies.constant: `reference_batch_size` goes with"),
        ("lr_policies.sqrt.betas", [0.9, 1], "lr_policies.sqrt.betas, entry 2: must be below 1 .*1"),
        (
            "lr_policies.sqrt.scale_betas",
            "malladi",
            "lr_policies.sqrt.scale_betas: at target batch size 1024, κ.1 − β₁. = 1.6 ≥ 1 for κ = 16, .*up to 639",
        ),
        ("lr_policies.constant.base_lr", 1e-320, "constant: at target batch size 64 the learning rate is 9.99.*e-321"),
        ("lr_policies.sqrt.base_lr", 1e38, "sqrt: at target batch size 1024 the learning rate is 4e.38, .*float32"),
        ("lr_policies.t", {"sweep": [1e-5, 1e300]}, "lr_policies.t: .* the learning rate is 1e.300"),
        (
            "lr_policies.t",
            {"base_lr": 1e308, "scaling": "linear", "reference_batch_size": 1},
            "lr_policies.t: at target batch size 64 the learning rate is inf",
        ),
        ("optimizer.eps", 1e-40, "lr_policies.constant: at target batch size 64 Adam's ε is .*e-40"),
        (
            "lr_policies.t",
            {"base_lr": 1, "betas": [0.9, 0.9999], "scale_betas": "half_life", "reference_batch_size": 10**15},
            "lr_policies.t.scale_betas: at target batch size 64 β becomes 1, as `reference_batch_size: 10",
        ),
        ("data.split.train", 0.9, "data.split: train . validation . test must be 1, not 1.1"),
        (
            "data.split",
            {"method": "official", "train": 0.9, "validation": 0.2},
            "data.split: train . validation must be 1, not 1.1; `official` ignores test",
        ),
        ("data.split.method", "poold", "data.split.method: must be `pooled` or `official` .*'poold'"),
        ("data.synthetic", {"reviews": 5}, "data: `synthetic` settings go with `source: synthetic`"),
        ("data.source", "./no/such/folder", "data: `revision` goes with a hub id"),
        ("models.bert", {"checkpoint": "./nowhere"}, "models.bert.checkpoint: there is no file or folder './nowhere'"),
        (
            "data",
            {"source": "data/tickts.csv", "text": "a", "label": "b"},
            "data.source: there is no file or folder 'data",
        ),
        ("data", {"source": ""}, "data.source: must be text that is not empty"),
        ("data", {"source": "."}, "data.source: '.' contains the folder results"),
        ("models.bert", {"checkpoint": ""}, "models.bert.checkpoint: must be text that is not empty"),
        ("models.bert", {}, "models.bert: give either `checkpoint` or `architecture`"),
        ("models.bert.architecture", "bert", "models.bert: give either `checkpoint` or `architecture`"),
        ("models", {}, "models: must be a section of at least 1 entry"),
        ("study", "a/b", "study: .*'a/b'"),
        ("threads", "two", "mistakes:\n  threads: must be a whole number or `auto` .*'two'"),
        ("physical_batch_size", 0, "mistakes:\n  physical_batch_size: must be above 0 or `auto` .*0"),
        ("tracking.mode", "onlin", "tracking.mode: .*`online`.*'onlin'"),
        ("report.palette", ["#112233"], "report.palette: 1 colour for 3 target batch sizes"),
        ("data", {"source": "synthetic", "sample": 17}, "the 17 reviews of the config leave 13 for training.*needs 14"),
        ("data", {"source": "synthetic", "sample": 1000}, "1,000 reviews of the config leave 800.*1,024 is more"),
        ("data.label", "text", "data: `text` and `label` both name the column 'text'"),
        ("report.palette", ["red"], "report.palette, entry 1: must be a colour such as .*'red'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        changed(put(key, value))
    assert len(str(raised.value).removeprefix("the config has mistakes:\n").splitlines()) == 1
    assert "pydantic" not in str(raised.value)


JUNK = [None, True, -1, 0, 1.5, 10**30, float("nan"), "", "x y", "9" * 5000, [], [None], {}, {"a": 1}, {1: [2]}]


def dotted_keys(section: Any, prefix: str = "") -> Iterator[str]:
    """Every key of the config; ``bert`` and ``constant`` stand for the names of the user's."""
    for name, field in section.model_fields.items():
        yield prefix + name
        inner, place = without_none(field.annotation), prefix + name
        if get_origin(inner) is dict:
            inner, place = without_none(get_args(inner)[1]), f"{place}.{'bert' if name == 'models' else 'constant'}"
        if is_section(inner):
            yield place
            yield from dotted_keys(inner, f"{place}.")


@pytest.mark.parametrize("key", list(dict.fromkeys(dotted_keys(Study))))
def test_no_value_of_any_key_gets_a_library_s_words(key: str) -> None:
    for value in JUNK:
        try:
            changed(put(key, value))
        except UserError as error:
            words = ("Input", "pattern", "regex", "valid integer", "parse", "Traceback", "pydantic", "function")
            assert not [word for word in words if word in str(error)], error
            assert len(max(str(error).splitlines(), key=len)) < 400


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UserError, match=r"(?s)optimiser.*seeds|seeds.*optimiser"):
        changed(put("optimiser", {}), put("seeds", [-1]))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match="models: this key is required"):
        changed(lambda config: config.pop("models"))


@pytest.mark.parametrize("text", ["just text", "a: [", "- 1"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        Study.from_yaml(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="cannot read"):
        Study.from_yaml(tmp_path / "missing.yaml")


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert yaml.safe_load("2e-5") == "2e-5"
    study = changed(
        put("lr_policies.constant.base_lr", "2e-5"),
        put("optimizer.eps", "1e-8"),
        put("target_batch_sizes", ["64", "256", "1024"]),
    )
    assert study.lr_policies["constant"].base_lr == 2e-5
    assert study.target_batch_sizes == [64, 256, 1024]


# ------------------------------------------------------------------------------------------------- cells and runs


def reference_cell(batch: int, policy: str) -> Cell:
    return Cell("bert", batch, policy, 42, "5 epochs")


def test_the_reference_grid_has_12_cells_and_10_runs() -> None:
    study = changed()
    runs = study.runs()
    assert len(study.cells()) == len(set(study.cells())) == len(runs) == 12
    assert len(set(runs.values())) == 10
    assert runs[reference_cell(64, "sqrt")] == reference_cell(64, "constant")
    assert all(runs[run] == run for run in runs.values())


def test_the_reference_learning_rates() -> None:
    rates = {cell: spec.learning_rate for cell, spec in changed().train_specs().items() if cell.model == "bert"}
    assert [rates[reference_cell(batch, "constant")] for batch in (64, 256, 1024)] == [5e-5] * 3
    assert [rates[reference_cell(batch, "sqrt")] for batch in (64, 256, 1024)] == [5e-5, 1e-4, 2e-4]


@given(
    batches=st.lists(st.integers(1, 4096), min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    reference=st.integers(1, 4096),
)
def test_cells_share_a_run_exactly_when_they_train_the_same(
    batches: list[int], seeds: list[int], reference: int
) -> None:
    study = changed(
        put("target_batch_sizes", batches), put("seeds", seeds), put("lr_policies.sqrt.reference_batch_size", reference)
    )
    runs, specs = study.runs(), train_specs(study)
    for one in study.cells():
        for other in study.cells():
            same = one.model == other.model and specs[one] == specs[other]
            assert (runs[one] == runs[other]) == same


def test_two_models_with_the_same_weights_stay_two() -> None:
    """Their folders are read by name: sharing a run would mix their tokens."""
    study = changed(lambda config: config.update(models={"a": {"checkpoint": "x/y"}, "b": {"checkpoint": "x/y"}}))
    assert len(set(study.runs().values())) == 10


# ------------------------------------------------------------------------------------------------------ the specs


def all_specs(study: Study) -> dict[str, Any]:
    return {
        "corpus": study.corpus_spec().identity(),
        "split": study.split_spec().identity(),
        "tokens": {model: study.tokens_spec(model).identity() for model in study.models},
        "train": train_specs(study),
        "certificate": {model: study.certificate_spec(model).identity() for model in study.models},
        "evaluation": study.evaluation_spec().identity(),
        "reviews": study.reviews_spec().identity(),
    }


def reverse_keys(value: Any) -> Any:
    return {key: reverse_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


def test_the_spelling_of_the_config_does_not_count() -> None:
    other = Study.from_mapping(reverse_keys(REFERENCE))
    assert all_specs(other)["corpus"] == all_specs(changed())["corpus"]
    assert train_specs(other) == train_specs(changed())
    assert train_specs(changed(put("lr_policies.constant.base_lr", 0.00005))) == train_specs(changed())
    assert train_specs(changed(put("lr_policies.constant.base_lr", "5e-5"))) == train_specs(changed())


def test_a_spelled_out_default_does_not_count() -> None:
    spelled = changed(put("optimizer.weight_decay", 0), put("schedule.warmup", 0), put("tail", "exact"))
    assert all_specs(spelled) == all_specs(changed())


def test_the_noise_scale_is_part_of_the_training_only_where_it_is_measured() -> None:
    """A plain `off` is false to YAML."""
    assert yaml.safe_load("off") is False
    assert train_specs(changed(put("noise_scale", False))) == train_specs(changed(put("noise_scale", "off")))
    assert train_specs(changed(put("noise_scale", "off"))) == train_specs(changed())
    assert not any("noise_scale" in spec for spec in train_specs(changed()).values())
    specs = [train_specs(changed(put("noise_scale", kind))) for kind in ("off", "cheap", "full")]
    assert specs[0] != specs[1] != specs[2] != specs[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("study", "another-name"),
        ("physical_batch_size", 32),
        ("threads", 3),
        ("save_every", 5),
        ("tracking", {"mode": "online", "project": "p", "entity": "e"}),
        ("report", {"title": "Another", "palette": ["#000000", "#111111", "#222222"]}),
        ("claims", {"margin": 1.0}),
    ],
)
def test_what_leaves_the_mathematics_alone_is_in_no_spec(key: str, value: Any) -> None:
    assert all_specs(changed(put(key, value))) == all_specs(changed())


def test_the_device_is_in_the_certificate_s_spec_alone() -> None:
    """What trains is what is certified: each kind of device has kernels of its own."""
    before, after = all_specs(changed()), all_specs(changed(put("device", "cpu")))
    assert {stage for stage in before if before[stage] != after[stage]} == {"certificate"}


def test_attention_texts_are_in_the_reviews_spec_alone() -> None:
    before, after = all_specs(changed()), all_specs(changed(put("attention.texts", ["A fine film."])))
    assert {stage for stage in before if before[stage] != after[stage]} == {"reviews"}


def test_the_micro_batch_counts_where_the_tail_is_divided_as_if_full() -> None:
    naive = put("tail", "naive")
    assert train_specs(changed(naive)) != train_specs(changed(naive, put("physical_batch_size", 32)))


def test_renaming_a_policy_leaves_the_specs_alone() -> None:
    def rename(config: dict[str, Any]) -> None:
        config["lr_policies"] = {"flat": config["lr_policies"]["constant"], "root": config["lr_policies"]["sqrt"]}

    assert list(train_specs(changed(rename)).values()) == list(train_specs(changed()).values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_batch_sizes", [64, 128, 256, 1024]),
        ("seeds", [42, 43]),
        ("models.third", {"checkpoint": "x/y"}),
        ("lr_policies.linear", {"base_lr": 5e-5, "scaling": "linear", "reference_batch_size": 64}),
    ],
)
def test_growing_the_grid_leaves_the_other_runs_alone(key: str, value: Any) -> None:
    before, after = changed(), changed(put(key, value))
    assert len(after.runs()) > 12
    assert train_specs(before).items() <= train_specs(after).items()
    assert before.runs().items() <= after.runs().items()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.eps", 1e-7),
        ("optimizer.name", "adamw"),
        ("schedule.name", "cosine"),
        ("budget", {"epochs": 6}),
        ("budget", {"updates": 5}),
        ("precision", "float32"),
        ("engine", "accelerate"),
        ("tail", "drop"),
        ("models.bert.revision", "abc"),
        ("validate_every", {"updates": 7}),
    ],
)
def test_what_the_mathematics_depends_on_is_in_the_train_spec(key: str, value: Any) -> None:
    studies = changed(), changed(put(key, value))
    before, after = ({cell.path: spec for cell, spec in train_specs(study).items()} for study in studies)
    concerned = [path for path in before if path.startswith("bert/") or not key.startswith("models")]
    assert concerned and all(before[path] != after[path] for path in concerned)


def test_a_policy_chooses_its_engine() -> None:
    policies = {"ours": {"base_lr": 1e-3}, "theirs": {"base_lr": 1e-3, "engine": "accelerate"}}
    study = changed(put("lr_policies", policies), put("engine", "manual"))
    engines = {(cell.policy, spec.engine) for cell, spec in study.train_specs().items()}
    assert engines == {("ours", "manual"), ("theirs", "accelerate")}
    assert len(set(study.runs().values())) == len(study.cells()), "engines are not told apart"
    assert study.report_spec().engines == {"ours": "manual", "theirs": "accelerate"}


def test_swapped_values_are_another_spec() -> None:
    """Snakemake alone misses this: it stores a job's params as a set of values."""
    one = changed(put("seeds", [5]), put("budget", {"epochs": 3}))
    other = changed(put("seeds", [3]), put("budget", {"epochs": 5}))
    assert set(train_specs(one).values()).isdisjoint(train_specs(other).values())


def test_local_weights_count_by_content(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    local = put("models", {"bert": {"checkpoint": str(tmp_path)}})
    before = train_specs(changed(local))
    assert train_specs(changed(local)) == before
    weights.write_bytes(b"two")
    assert set(train_specs(changed(local)).values()).isdisjoint(before.values())


def test_a_data_folder_counts_by_what_the_reader_reads(tmp_path: Path) -> None:
    """Through links to folders too; not by hidden files, by such as a README, or by the time of anything."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test").symlink_to(tmp_path / "elsewhere")
    for name in ("data/train.csv", "elsewhere/0000.csv"):
        (tmp_path / name).write_text("text,label\n")

    def content() -> str | None:
        return changed(put("data", {"source": str(tmp_path / "data")})).corpus_spec().content

    before = content()
    for name in (".DS_Store", "README.md", "test/.part", ".ipynb_checkpoints"):
        (tmp_path / "data" / name).write_text("not read")
    assert content() == before
    hashes = [before]
    for name, text in (
        ("elsewhere/0000.csv", "label,text\n"),
        ("data/validation.csv", "text,label\n"),
        ("data/unlabelled.csv", "text\n"),
    ):
        (tmp_path / name).write_text(text)
        hashes.append(content())
    assert len(set(hashes)) == 4, "a file that is read, a new one, and one that is to be named as left out"
    (tmp_path / "data/unlabelled.csv").write_text("anything\n")
    assert content() == hashes[-1]
    (tmp_path / "data/dev.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"dev\.csv in .* is a link to a file that is not there; remove it"):
        content()


# ------------------------------------------------------------------------------------------------- budgets and sweeps


def several_budgets(config: dict[str, Any]) -> None:
    del config["budget"]
    config["budgets"] = {"equal_epochs": {"epochs": 5}, "equal_updates": {"updates": 3125}}


def test_a_budget_names_a_folder_only_where_there_are_several() -> None:
    one, two = changed(), changed(several_budgets)
    assert one.cells()[0].path == "bert/bs64/constant/seed42" and one.cells()[0].budget == "5 epochs"
    assert {cell.path for cell in two.cells()[:2]} == {
        "bert/bs64/constant/equal_epochs/seed42",
        "bert/bs64/constant/equal_updates/seed42",
    }
    assert len(set(two.runs().values())) == 20
    assert "train/bert/bs256/sqrt/equal_updates/seed42" in two.job_specs()
    named = changed(lambda config: config.update(budgets={"long": config.pop("budget")}))
    assert named.cells()[0].path == one.cells()[0].path and named.cells()[0].budget == "long"


def test_a_second_budget_leaves_the_trainings_of_the_first_alone() -> None:
    """Their folders are new, and their fingerprints those of the finished runs, by which they are found."""
    before, after = changed(), changed(several_budgets)
    of_first = {cell: spec for cell, spec in train_specs(after).items() if cell.budget == "equal_epochs"}
    assert list(of_first.values()) == list(train_specs(before).values())


def test_a_sweep_trains_every_rate_and_shares_runs_with_equal_policies() -> None:
    study = changed(put("lr_policies.tuned", {"sweep": ["1e-5", 5e-5]}), put("seeds", [1]))
    tuned = [cell for cell in study.cells() if cell.model == "bert" and cell.policy.startswith("tuned")]
    assert [cell.path for cell in tuned[:2]] == ["bert/bs64/tuned@1e-05/seed1", "bert/bs64/tuned@5e-05/seed1"]
    assert all(study.runs()[cell].policy == "constant" for cell in tuned if cell.policy == "tuned@5e-05")
    assert {study.train_specs()[cell].learning_rate for cell in tuned} == {1e-5, 5e-5}
    spec = study.tables_spec()
    assert (spec.policy_names, spec.sweep_names) == (["constant", "sqrt", "tuned"], ["tuned"])


def test_the_grid_of_the_chosen_rates_has_no_other_candidate() -> None:
    spec = changed(put("lr_policies", {"tuned": {"sweep": [1e-5, 5e-5]}, "constant": {"base_lr": 1e-5}})).tables_spec()
    assert next(cell for cell in spec.cells if cell.policy == "constant").shared
    rates = {(m, "tuned", "5 epochs", b): 5e-5 for m in ("bert", "modernbert") for b in (64, 256, 1024)}
    grid = chosen_grid(spec, rates | {("bert", "tuned", "5 epochs", 64): 1e-5})
    assert grid.policy_names == ["tuned", "constant"] and grid.sweep_names == [] and len(grid.cells) == 12
    by_place = {(cell.model, cell.policy, cell.batch): cell for cell in grid.cells}
    assert by_place["bert", "tuned", 256].run == "bert/bs256/tuned@5e-05/seed42"
    assert not by_place["bert", "constant", 256].shared, "the candidate that it shares its run with was not chosen"
    assert by_place["bert", "constant", 64].shared


# ------------------------------------------------------------------------------------------------------ scaling rules


def optimizers(**policy: Any) -> list[tuple[tuple[float, float], float]]:
    """Betas and ε at 64, 256 and 512 under a policy."""
    scaled = {"base_lr": 5e-5, "scaling": "sqrt", "reference_batch_size": 64} | policy
    study = changed(put("target_batch_sizes", [64, 256, 512]), put("lr_policies", {"full": scaled}))
    specs = [spec for cell, spec in study.train_specs().items() if cell.model == "bert"]
    return [(spec.optimizer.betas, spec.optimizer.eps) for spec in specs]


def test_the_complete_rule_scales_betas_and_epsilon() -> None:
    """Malladi et al. 2022: 1 − β times κ, ε over √κ."""
    found = optimizers(scale_betas="malladi", scale_eps=True)
    assert found[0] == ((0.9, 0.999), 1e-8)
    assert found[1] == ((0.6, 0.996), 5e-9)
    assert found[2] == ((0.2, 0.992), pytest.approx(1e-8 / 8**0.5))


def test_a_constant_half_life_in_samples_raises_beta_to_the_ratio() -> None:
    found = optimizers(scale_betas="half_life")
    assert found[1] == ((pytest.approx(0.9**4), pytest.approx(0.999**4)), 1e-8)
    half_lives = [
        batch * np.log(0.5) / np.log(betas[1]) for batch, (betas, _) in zip((64, 256, 512), found, strict=True)
    ]
    assert half_lives == pytest.approx([half_lives[0]] * 3)


def test_a_policy_may_have_its_own_betas_and_equal_settings_share_a_run() -> None:
    assert optimizers(betas=[0.8, 0.99], eps=1e-6) == [((0.8, 0.99), 1e-6)] * 3
    rule = {"scaling": "sqrt", "scale_betas": "malladi", "scale_eps": True, "reference_batch_size": 64}
    own = {"constant": {"base_lr": 5e-5, "betas": ["0.9", 0.999]}, "full": {"base_lr": 5e-5} | rule}
    study = changed(put("target_batch_sizes", [64, 256]), put("lr_policies", own))
    runs = study.runs()
    assert runs[reference_cell(64, "full")] == reference_cell(64, "constant")
    assert runs[reference_cell(256, "full")] == reference_cell(256, "full")


def test_batch_sizes_that_the_training_examples_cannot_fill_are_left_out() -> None:
    study = changed(
        put("target_batch_sizes", [64, 2048, 256]), put("report.palette", ["#111111", "#222222", "#333333"])
    )
    smaller = study.without_batches_above(300)
    assert {cell.batch for cell in smaller.cells()} == {64, 256}
    assert smaller.too_large == smaller.report_spec().too_large == (2048,)
    assert smaller.report.palette == ["#111111", "#333333"], "each batch size keeps its colour"
    assert study.without_batches_above(None) is study
    assert study.without_batches_above(2048) is study
    assert study.without_batches_above(10) is study, "nothing would be left"


def test_a_claim_on_a_batch_size_that_cannot_be_filled_is_named() -> None:
    claims = {"contrasts": {"large": {"factor": "batch_size", "levels": [64, 2048]}}}
    study = changed(put("target_batch_sizes", [64, 256, 2048]), put("claims", claims))
    said = r"(?s)2,048: there are 300 training examples.*claims\.contrasts\.large\.levels"
    with pytest.raises(UserError, match=said):
        study.without_batches_above(300)


@pytest.mark.parametrize("shares", [{"train": 0.9, "validation": 0.1}, {"train": 0.8, "validation": 0.1}])
def test_an_official_test_set_needs_no_share(shares: dict[str, float]) -> None:
    config = tiny_config(data={"source": "imdb", "split": {"method": "official", **shares}})
    assert Study.from_mapping(config).data.split.train == shares["train"]

"""One of two studies to compare, as its files tell."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import pandas as pd
import pyarrow as pa

from batchscope.errors import UserError
from batchscope.files import DamagedFileError, read_json
from batchscope.provenance.inputs import check_written
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout
from batchscope.provenance.records import RunManifest
from batchscope.provenance.studies import find_study
from batchscope.watch.states import Watcher

Place = tuple[str, int, str, str]
"""Model, target batch size, LR policy and budget."""
TABLES = ("results.parquet", "provenance.csv")
RESULTS_COLUMNS = (
    *("model", "target_batch_size", "lr_policy", "budget", "seed", "run"),
    *("test_correct", "test_examples"),
)
"""What is compared, and of which cells."""


class Side(NamedTuple):
    """A finished study."""

    name: str
    layout: Layout
    jobs: JobFile
    results: pd.DataFrame
    """``tables/results.parquet``: one row per cell."""
    provenance: pd.DataFrame
    """``tables/provenance.csv``: one row per run, all text."""
    manifests: Mapping[str, RunManifest]
    """Run → its manifest."""
    stale: bool
    """Whether the tables were made of another config or code than the workflow's last start has."""

    def places(self) -> dict[Place, dict[int, str]]:
        """Place → seed → run, in the order of the config."""
        found: dict[Place, dict[int, str]] = {}
        columns = ["model", "target_batch_size", "lr_policy", "budget", "seed", "run"]
        for model, batch, policy, budget, seed, run in self.results[columns].itertuples(index=False, name=None):
            found.setdefault((str(model), int(batch), str(policy), str(budget)), {})[int(seed)] = str(run)
        return found


def read_sides(first: Path, second: Path) -> tuple[Side, Side]:
    """Two studies, by config, folder or name. Raises UserError where one is none, or is not finished."""
    layouts = [find_study(named) for named in (first, second)]
    if layouts[0].study.resolve() == layouts[1].study.resolve():
        raise UserError(f"{first} and {second} are the same study, {layouts[0].study}: name two")
    names = [layout.study.name for layout in layouts]
    if names[0] == names[1]:
        names = [layout.study.as_posix() for layout in layouts]
    one, other = (_read(layout, name) for layout, name in zip(layouts, names, strict=True))
    return one, other


def _read(layout: Layout, name: str) -> Side:
    tables = layout.study / "tables"
    lacking = [file for file in TABLES if not (tables / file).is_file()]
    if lacking:
        raise UserError(
            f"{layout.study} is not finished: it has no tables/{lacking[0]}. Start its workflow again; "
            f"`batchscope watch {layout.study}` says what is missing"
        )
    check_written(layout, "tables", [f"tables/{file}" for file in TABLES])
    results = _table(tables / "results.parquet", pd.read_parquet, RESULTS_COLUMNS)
    as_text = partial(pd.read_csv, dtype=str, keep_default_na=False)
    provenance = _table(tables / "provenance.csv", as_text, ("run",))
    manifests = {run: _manifest(layout, run) for run in dict.fromkeys(results.run)}
    look = Watcher(layout).look()
    return Side(name, layout, look.jobs, results, provenance, manifests, look.states.get("tables") != "done")


def _table(path: Path, read: Callable[[Path], pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """A table that has these columns, with a value in each row. Raises DamagedFileError for another one."""
    try:
        table = read(path)
    except (ValueError, pa.ArrowException) as error:
        raise DamagedFileError(path, error) from None
    lacking = [name for name in columns if name not in table or table[name].isna().any()]
    if lacking:
        raise DamagedFileError(path, ValueError(f"it lacks {', '.join(lacking)}, or values of it"))
    return table


def _manifest(layout: Layout, run: str) -> RunManifest:
    """The manifest of a run. Raises DamagedFileError where it does not say which training it is of."""
    check_written(layout, f"train/{run}", ["*/manifest.json"])
    path = layout.run(run) / "manifest.json"
    manifest = read_json(path)
    names = [manifest.get(name) for name in ("fingerprint", "corpus", "split")] if isinstance(manifest, dict) else [0]
    if not all(isinstance(name, str | None) for name in names) or names[0] is None:
        raise DamagedFileError(path, ValueError("it does not say which training it is of"))
    return cast(RunManifest, manifest)

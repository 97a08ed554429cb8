"""The branches of runs at larger batches: rows for ``tables/branches.csv``, and the page's table and sentences."""

import pandas as pd

from batchscope.report.numbers import percent, scientific
from batchscope.report.rows import LABELS, Row, labels_of
from batchscope.report.spec import BranchesSpec, GridCell
from batchscope.report.table import Table
from batchscope.statistics.branches import BranchLoss, critical_batch
from batchscope.statistics.noise_scale import running_noise_scale
from batchscope.training.records import BranchesFile

LOSSES = tuple(name for name in BranchLoss._fields if name not in ("factor", "target_batch_size"))
COLUMNS = (*LABELS, "at", "samples", "state", "factor", "branch_batch_size", *LOSSES) + (
    ("critical", "reached", "equals_run", "noise_scale", "noise_scale_low", "noise_scale_high")
)


def branch_rows(cell: GridCell, file: BranchesFile, spec: BranchesSpec, updates: pd.DataFrame, span: int) -> list[Row]:
    """One row per point and branch of a run; ``critical`` marks the largest branch that is as good as the run.

    ``updates`` are the run's rows of the history; the noise scale is that of the ``span`` samples nearest to the point.
    """
    found: list[Row] = []
    curve = running_noise_scale(updates, span).dropna(subset="noise_scale")
    for point in file["points"]:
        critical = critical_batch(point, spec.smoothing, spec.tolerance)
        near = curve.iloc[(curve.samples - point["samples"]).abs().argsort()[:1]].to_dict("records")
        noise = near[0] if near else {}
        for loss, branch in zip(critical.losses, point["branches"], strict=True):
            place = labels_of(cell) | {name: point[name] for name in ("at", "samples", "state")}
            row: Row = place | {name: value for name, value in loss._asdict().items() if name != "target_batch_size"}
            row["branch_batch_size"] = loss.target_batch_size
            row |= {"critical": loss.factor == critical.factor, "reached": critical.reached}
            row |= {"equals_run": branch["equals_run"], "noise_scale": noise.get("noise_scale")}
            row |= {f"noise_scale_{end}": noise.get(end) for end in ("low", "high")}
            found.append(row)
    return found


def branches_table(rows: pd.DataFrame, spec: BranchesSpec) -> Table:
    """Every branch: its batch size, its loss at the end and the difference from the run on the same reviews."""
    columns = ["model", "#batch size", "LR policy", "#seed", "#from sample", "#branch", "#learning rate", "#updates"]
    columns += ["#loss", "#difference from the run", "as good?"]
    shown = []
    for row in rows.to_dict("records"):
        line = [row["model"], f"{row['target_batch_size']:,}", row["lr_policy"], str(row["seed"])]
        line += [f"{row['samples']:,}", f"{row['factor']} × = {row['branch_batch_size']:,}"]
        line += [scientific(row["learning_rate"]), f"{row['updates']:,}"]
        if row["diverged"]:
            line += ["diverged", "–", "no"]
        else:
            error = "" if pd.isna(row["standard_error"]) or row["factor"] == 1 else f" ± {row['standard_error']:.4f}"
            line += [f"{row['loss']:.4f}", "–" if row["factor"] == 1 else f"{row['difference']:+.4f}{error}"]
            line += ["the run" if row["factor"] == 1 else "yes" if row["within"] else "no"]
        shown.append(line)
    note = (
        f"Training loss over the last {percent(spec.smoothing, 0)} of each branch, and its difference from the run's "
    )
    note += f"on the same reviews ± standard error, in nats. As good: the difference is at most {spec.tolerance:g}."
    return Table(columns, shown, note)


def branches_in_words(rows: pd.DataFrame, spec: BranchesSpec) -> list[str]:
    """One sentence per point: the measured critical batch size, and B beside it. Says where noise decides."""
    said = []
    for row in rows[rows.critical].to_dict("records"):
        where = f"{row['model']}, batch size {row['target_batch_size']:,}, {row['lr_policy']} LR, seed {row['seed']}, "
        where += f"after {row['samples']:,} samples: "
        size = f"{row['branch_batch_size']:,} ({row['factor']} × the run's)"
        if row["reached"]:
            sentence = f"the measured critical batch size is {size}"
        else:
            sentence = f"no critical batch size was reached; it is at least {size}, the largest branch"
        if not pd.isna(row["noise_scale"]):
            sentence += f"; B is {row['noise_scale']:,.0f}"
        point = rows[(rows.run == row["run"]) & (rows["at"] == row["at"])]
        worse = point.factor[(point.factor < row["factor"]) & ~point.within]
        if len(worse):
            sentence += f", although the branch of {worse.iloc[0]} × was worse: noise, or a tolerance too narrow"
        error = point.standard_error.max()
        if error > spec.tolerance:
            sentence += f". The differences have standard errors up to {error:.3f} nats, above the tolerance of "
            sentence += f"{spec.tolerance:g}: longer branches would tell more"
        said.append(where + sentence + ".")
    return said

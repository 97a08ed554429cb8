"""Attention over many reviews on the page: does the batch size change it more than the seed, and what are the sinks?"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from batchscope.errors import counted
from batchscope.report.attention_figures import EPSILON, KEYS, SINK_RATE, AttentionTables, layer_means
from batchscope.report.calibration import rows_of, runs_of
from batchscope.report.catalogue import OVER_REVIEWS, suffix
from batchscope.report.numbers import MINUS
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import FiguresSpec, ReportSpec
from batchscope.report.table import Table
from batchscope.wording import Wording

ALTERNATIVES = {
    "divergence": "Jensen–Shannon divergence of the attention by layer, and the ratio of batch sizes to seeds",
    "attention_keys": "attention to each class of keys over the even share, by layer and batch size",
    "attention_sinks": "share of heads with an attention sink, by layer and over the threshold",
    "attention_layers": "entropy and distance of the attention by layer and batch size",
    "attention_ablation": "change of the margin without attention sinks, special tokens or random keys",
}
VERDICTS = {
    "more": "The batch size changes the attention more than another seed would.",
    "less": "The batch size changes the attention less than another seed would.",
    "same": "The interval includes 1: whether the batch size or the seed changes the attention more is open.",
}


class AttentionSection(NamedTuple):
    """What the page shows of the attention over many reviews."""

    sentences: list[str]
    figures: list[tuple[str, list[tuple[str, Picture]]]]
    """Model, and budget where there are several → alternative text and figure."""
    ratios: Table | None
    keys: Table | None
    ablation: Table | None


def attention_section(spec: ReportSpec, study_folder: Path) -> AttentionSection:
    """Sentences, figures and tables of the page. Raises FileNotFoundError if a file is missing."""
    tables, figures = AttentionTables.read(study_folder / "tables"), study_folder / "figures"
    pictures = [
        (
            title,
            [
                (f"{title}: {ALTERNATIVES[name]}", embedded(figures, f"{name}_{model}{suffix(spec, budget)}"))
                for name in OVER_REVIEWS
            ],
        )
        for title, model, budget in rows_of(spec)
        if tables.of(model, budget).reason is None
    ]
    sentences = [sentence for row in rows_of(spec) for sentence in _sentences(spec, tables, *row)]
    made = (ratio_table(spec, tables), keys_table(spec, tables), ablation_table(spec, tables))
    return AttentionSection(sentences, pictures, *made)


def _sentences(spec: ReportSpec, tables: AttentionTables, title: str, model: str, budget: str) -> list[str]:
    """The answers for one model and budget."""
    mine = tables.of(model, budget)
    if mine.reason is not None:
        return [f"{title}: {mine.reason}"]
    said = [ratio_in_words(title, row) for row in mine.ratios.to_dict("records")]
    said += ablation_in_words(title, mine.ablation)
    asked, measured = int(mine.heads.asked.max()), int(mine.heads.reviews.max())
    if measured < asked:
        said.append(
            f"{title}: the config asks for {counted(asked, 'review')}; the test split has {measured:,}, all are used."
        )
    if spec.models[model].architecture is not None and len(spec.seeds) > 1 and mine.ratios.ratio.notna().any():
        said.append(
            f"{title} starts from random weights, so the heads of two seeds share nothing but their position: its "
            "divergence between seeds is large by construction. Pretrained weights give the fair yardstick."
        )
    return said


def ratio_in_words(title: str, row: dict[str, object]) -> str:
    """The answer of one LR policy: the ratio, its interval, what it is a ratio of, and what follows."""
    ratio, low, high = (float(str(row[name])) if pd.notna(row[name]) else None for name in ("ratio", "low", "high"))
    layers = f"{title}, {row['lr_policy']} LR policy, {row['attention']} layers"
    start = "" if pd.isna(row["from_initial"]) else f" (from the initial weights: {_bits(row['from_initial'])} bits)"
    if ratio is None:
        if row.get("reason"):
            return f"{layers}: no ratio of batch size to seed, it {row['reason']}{start}."
        return f"{layers}: the attention of two seeds is equal, so there is no ratio{start}."
    said = (
        f"{layers}: the attention of two batch sizes differs {ratio:.2f} times as much as that of two seeds. Mean "
        f"Jensen–Shannon divergence {_bits(row['between_batch_sizes'])} against {_bits(row['between_seeds'])} bits"
        f"{start}"
    )
    if low is None or high is None:
        return f"{said}; too few seeds for an interval."
    of_seeds = " over reviews alone, because there are only two seeds" if row["seeds"] == 2 else ""
    verdict = VERDICTS["more" if low > 1 else "less" if high < 1 else "same"]
    return f"{said}; 95% interval of the ratio {low:.2f} to {high:.2f}{of_seeds}. {verdict}"


def _bits(value: object) -> str:
    return f"{float(str(value)):.3g}"


def _labels(spec: FiguresSpec) -> list[str]:
    """The first columns of each table, which the filters of the page know."""
    return ["model", "LR policy", *(["budget"] if spec.several_budgets else [])]


def _cells(spec: FiguresSpec, model: str, policy: str, budget: str) -> list[str]:
    return [model, policy, *([budget] if spec.several_budgets else [])]


def ratio_table(spec: FiguresSpec, tables: AttentionTables) -> Table | None:
    """The ratio of every model, LR policy and kind of layer."""
    columns = [*_labels(spec), "layers", "#between batch sizes", "#between seeds", "#from the start", "#ratio"]
    columns += ["#95% interval", "#seeds", f"#{Wording(*spec.words).many}"]
    rows = []
    for _, model, budget in rows_of(spec):
        mine = tables.of(model, budget)
        for row in mine.ratios.to_dict("records") if mine.reason is None else ():
            numbers = [row[name] for name in ("between_batch_sizes", "between_seeds", "from_initial")]
            interval = "–" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}"
            rows.append(
                [*_cells(spec, model, str(row["lr_policy"]), budget), f"{row['layers']:.0f} {row['attention']}"]
                + ["–" if pd.isna(value) else _bits(value) for value in numbers]
                + ["–" if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}", interval]
                + ["–" if pd.isna(row[name]) else f"{row[name]:,.0f}" for name in ("seeds", "reviews")]
            )
    note = "Mean Jensen–Shannon divergence, in bits, of the attention of two runs on the same test reviews: between "
    note += "batch sizes of one seed, between seeds of one batch size, and from a run to the weights it started from; "
    note += "mean over queries, heads and layers. Ratio: batch sizes over seeds. Interval: seeds and reviews resampled "
    note += "together, with two seeds the reviews alone; with fewer than five seeds it is rough. Two batch sizes of "
    note += "one seed share the initial head and two seeds do not, so a ratio a little below 1 is no proof that the "
    note += "batch size does nothing."
    return Table(columns, rows, note) if rows else None


def keys_table(spec: FiguresSpec, tables: AttentionTables) -> Table | None:
    """Attention by class of keys, and the sinks, of every cell."""
    columns = [*_labels(spec), "layers", "#batch size", *(f"#{name}" for name in KEYS.values())]
    columns += [f"#sinks at ε = {EPSILON}"]
    rows = []
    for _, model, budget in rows_of(spec):
        mine, part = tables.of(model, budget), spec.of_budget(budget)
        if mine.reason is not None:
            continue
        means = layer_means(mine.heads)
        for policy in part.policy_names:
            for name, sliding in (("global", False), ("sliding", True)):
                for batch in part.batch_sizes:
                    cell = runs_of(part, means[means.window.notna() == sliding], model, policy, batch)
                    if len(cell):
                        lifts = [cell[f"lift_{key}"].mean() for key in KEYS]
                        shown = ["–" if pd.isna(lift) else f"{lift:.2f}" for lift in lifts]
                        rate = f"{100 * cell[SINK_RATE + EPSILON].mean():.1f}%"
                        rows.append([*_cells(spec, model, policy, budget), name, f"{batch:,}", *shown, rate])
    note = (
        "Attention that a class of keys receives over its share under even attention: 1 is even; a dash: there are no "
    )
    note += (
        "such keys. Mean over heads, layers, test reviews and seeds. Sinks: share of heads and reviews with a key to "
    )
    note += f"which the queries that may see it give more than {EPSILON} on average."
    return Table(columns, rows, note) if rows else None


def ablation_in_words(title: str, rows: pd.DataFrame) -> list[str]:
    """What the removal of the sinks changes, over all runs of a model; the reason where it was not measured."""
    if "removed" not in rows or not (rows.removed != "").any():
        return [f"{title}: {reason}" for reason in dict.fromkeys(rows.reason)]
    every = rows[rows.layer_set == "all"]
    sink, other = (every[every.removed == name] for name in ("sink", "random key"))
    if not sink.with_sink.any():
        return [f"{title}: no head has a sink above ε = {EPSILON}, so none was removed."]
    changed, unchanged = (100 * part.flips.sum() / part.reviews.sum() for part in (sink, other))
    before, after = (100 * sink[name].sum() / sink.reviews.sum() for name in ("correct_before", "correct_after"))
    return [
        f"{title}: {100 * sink.with_sink.mean():.0f}% of the heads have a sink in a review. Without the sinks the "
        f"margin changes by {_signed(sink.change.mean())} on average (mean margin {sink.margin.mean():.2f}), "
        f"{changed:.1f}% of the predictions change and the accuracy goes from {before:.1f}% to {after:.1f}%. Without "
        f"random keys of the same heads the margin changes by {_signed(other.change.mean())} and {unchanged:.1f}% of "
        "the predictions change."
    ]


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def ablation_table(spec: FiguresSpec, tables: AttentionTables) -> Table | None:
    """Every ablation of every cell, pooled over seeds."""
    columns = [*_labels(spec), "#batch size", "layers changed", "removed", "#heads with a sink", "#mean change"]
    columns += ["#5% to 95% of reviews", "#predictions changed", "#accuracy before", "#after"]
    rows = []
    for _, model, budget in rows_of(spec):
        mine, part = tables.of(model, budget).ablation, spec.of_budget(budget)
        if "removed" not in mine or not (mine.removed != "").any():
            continue
        for policy in part.policy_names:
            for batch in part.batch_sizes:
                for (layers, removed), cell in runs_of(part, mine, model, policy, batch).groupby(
                    ["layer_set", "removed"], sort=False
                ):
                    counts = cell[["flips", "correct_before", "correct_after"]].sum() / cell.reviews.sum()
                    spread = f"{_signed(cell.change_q05.mean())} to {_signed(cell.change_q95.mean())}"
                    rows.append(
                        [
                            *_cells(spec, model, policy, budget),
                            f"{batch:,}",
                            str(layers),
                            str(removed),
                            f"{100 * cell.with_sink.mean():.0f}%",
                        ]
                        + [_signed(cell.change.mean()), spread, *(f"{100 * share:.1f}%" for share in counts)]
                    )
    note = "Margin: logit of the label minus the largest other one. Changes are means over test reviews and seeds; the "
    note += "5% and 95% quantiles over reviews are means over seeds; shares are pooled over seeds."
    return Table(columns, rows, note) if rows else None

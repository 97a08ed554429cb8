"""What the runs achieved and what they cost, as tables."""

from collections.abc import Mapping

import pandas as pd

from batchscope.data.records import Baseline
from batchscope.errors import counted
from batchscope.report.numbers import (
    accuracy,
    duration,
    energy,
    listed,
    mean_sd,
    percent,
    scientific,
    size,
)
from batchscope.report.spec import ReportSpec
from batchscope.report.table import Table, groups, labels

SHARED, FAULTY = "†", "‡"
MOST_CLASSES = 12
"""A confusion matrix of more classes is too wide for a page; it is in a file."""


def results_tables(spec: ReportSpec, summary: pd.DataFrame, baseline: Baseline) -> list[tuple[str, Table]]:
    """Budget → its table of results; a study of one budget has one table."""
    return [(budget, _results_table(spec, summary[summary.budget == budget], baseline)) for budget in spec.budget_names]


def _results_table(spec: ReportSpec, summary: pd.DataFrame, baseline: Baseline) -> Table:
    """Validation accuracy @ epoch of the best checkpoint, and test accuracy; the policies side by side."""
    policies, seeds = spec.policy_names, spec.seeds
    columns = ["model", "#batch size"]
    for policy in policies:
        columns += [f"#{policy}: val_acc@epoch", f"#{policy}: test accuracy"]
    found = {(row["model"], row["target_batch_size"], row["lr_policy"]): row for row in summary.to_dict("records")}
    rows = []
    for model in spec.model_names:
        for batch in spec.batch_sizes:
            row = [model, f"{batch:,}"]
            for policy in policies:
                cell = found[model, batch, policy]
                epochs = ",".join(str(cell["best_epochs"]).split())
                row += [f"{mean_sd(cell['validation_accuracy_mean'], cell['validation_accuracy_sd'])} @{epochs}"]
                row += [mean_sd(cell["test_accuracy_mean"], cell["test_accuracy_sd"]) + marks(cell)]
            rows.append(row)
    whose = f"Seed {seeds[0]}" if len(seeds) == 1 else f"Mean ± SD over seeds {listed(seeds)}"
    typical = summary.test_standard_error.median()
    caption = f"{whose}; after @ the epoch of each run's best checkpoint. Test accuracy is that of this checkpoint on "
    caption += f"{counted(int(summary.test_examples.iloc[0]), 'review')}; binomial standard error about "
    caption += f"{100 * typical:.2f} points. For comparison, {baseline['name']}: validation "
    caption += f"{accuracy(baseline['validation_correct'] / baseline['validation_examples'])}, test "
    caption += f"{accuracy(baseline['test_correct'] / baseline['test_examples'])}."
    return Table(columns, rows, caption + marks_in_words(summary))


def marks(cell: Mapping[str, object]) -> str:
    """The marks of a row of the summary: its runs are those of another policy, or one of them did not learn."""
    return (f" {SHARED}" if cell["shared"] else "") + (f" {FAULTY}" if cell["diverged"] or cell["collapsed"] else "")


def marks_in_words(summary: pd.DataFrame) -> str:
    """What the marks mean, as far as the table has them."""
    words = ""
    if summary.shared.any():
        words += f" {SHARED} reads the runs of another LR policy, which gives this batch size the same learning rate."
    if (summary.diverged + summary.collapsed).any():
        words += f" {FAULTY} includes a run that did not learn, named in the answer."
    return words


def details_table(summary: pd.DataFrame) -> Table:
    """Learning rate, updates, the interval and macro-F1 of every model, policy and batch size."""
    columns = [*labels(summary), "#learning rate", "#updates", "#test accuracy", "#95% interval"]
    rows = []
    for first, group in groups(summary):
        (row,) = group.to_dict("records")
        rows.append(
            [*first, scientific(row["learning_rate"]), f"{row['updates']:,}"]
            + [accuracy(row["test_accuracy_mean"]) + marks(row)]
            + [f"{row['test_low']:.4f} to {row['test_high']:.4f}", accuracy(row["test_macro_f1_mean"])]
        )
    note = "Wilson interval of the accuracy at the number of test reviews; seeds share them and do not narrow it. "
    note += "Macro-F1: mean over seeds of the mean F1 of the classes."
    return Table([*columns, "#macro-F1"], rows, note + marks_in_words(summary))


def classes_table(per_class: pd.DataFrame) -> Table:
    """Recall of every class on the test reviews, pooled over seeds."""
    classes = list(dict.fromkeys(per_class["class"]))
    tested = per_class[(per_class.split == "test") & (per_class.checkpoint == "best")]
    examples = tested[tested.run == tested.run.iloc[0]].set_index("class").examples
    rows = []
    for first, group in groups(tested):
        pooled = group.groupby("class", sort=False)[["correct", "examples"]].sum()
        recalls = ["–" if not n else percent(hits / n) for hits, n in pooled.loc[classes].itertuples(index=False)]
        rows.append([*first, *recalls])
    columns = [*labels(tested), *(f"#{name} ({examples[name]:,})" for name in classes)]
    note = "Share of each class's test reviews (their number in brackets) that is predicted as it, over all seeds."
    return Table(columns, rows, note)


def confusion_table(confusion: pd.DataFrame) -> Table:
    """Label against prediction on the test reviews, added up over seeds."""
    classes = list(dict.fromkeys(confusion.label))
    tested = confusion[(confusion.split == "test") & (confusion.checkpoint == "best")]
    rows = []
    for first, group in groups(tested, "label"):
        counts = group.groupby("prediction", sort=False).examples.sum()
        rows.append([*first, *(f"{counts[name]:,}" for name in classes)])
    columns = [*labels(tested), "label", *(f"#predicted {name}" for name in classes)]
    return Table(columns, rows, "Number of test reviews, added up over seeds.")


def cost_table(cost: pd.DataFrame) -> Table:
    """Time, rate and memory per run, averaged over seeds; use of the GPU and energy if they were measured."""
    columns = [*labels(cost), "#updates", "#time per run", "#samples/s", "#peak memory"]
    measured = bool(cost.energy_joules.notna().any() or cost.gpu_utilisation_mean.notna().any())
    columns += ["#GPU use", "#energy", "device"] if measured else ["device"]
    rows = []
    for first, group in groups(cost):
        times = [duration(group.seconds.mean()), f"{group.samples_per_second.mean():,.0f}"]
        devices = dict.fromkeys(f"{run.device}, {run.precision}" for run in group.itertuples())
        row = [*first, f"{group.updates.iloc[0]:,}", *times]
        row.append(size(group.peak_memory_bytes.max()))
        if measured:
            busy = group.gpu_utilisation_mean.mean()
            row += ["–" if pd.isna(busy) else percent(busy, 0), energy(group.energy_joules.mean())]
        rows.append([*row, listed(devices)])
    joules = cost.energy_joules.sum(skipna=False)
    total = f"All {counted(len(cost), 'run')} together: {duration(cost.seconds.sum())}"
    total += "." if pd.isna(joules) else f" and {energy(joules)}."
    if measured:
        total += " GPU use is the share of the time in which the card was computing; energy is that of the whole card."
        if (jobs := cost.jobs_per_gpu.max()) > 1:
            total += (
                f" Up to {jobs:.0f} jobs shared a card: both count the work of all of them, the sum more than once."
            )
    return Table(columns, rows, f"Mean over seeds; peak memory is the largest. {total}")

"""The tables of the page and of the summary, as text: both render the same ones."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from batchscope.certificate.verdict import COLUMNS, certificate_rows, setting_in_words
from batchscope.files import read_json
from batchscope.report.answer import budget_in_words
from batchscope.report.catalogue import attention_cells, names_in_order
from batchscope.report.numbers import (
    accuracy,
    duration,
    energy,
    listed,
    mean_sd,
    p_value,
    percent,
    points,
    scientific,
    size,
)

SPLITS = ("train", "validation", "test")


class Table(NamedTuple):
    """Rows of text. Columns that start with `#` hold numbers; the first column is blank where it repeats."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


def results_table(spec: dict[str, Any], summary: pd.DataFrame, baseline: dict[str, Any] | None) -> Table:
    """Validation accuracy @ best epoch and test accuracy per model and batch size, the policies side by side."""
    policies, seeds = names_in_order(spec, "policy"), names_in_order(spec, "seed")
    columns = ["model", "#batch size"]
    for policy in policies:
        columns += [f"#{policy}: val_acc@epoch", f"#{policy}: test accuracy"]
    found = {(row["model"], row["target_batch_size"], row["lr_policy"]): row for row in summary.to_dict("records")}
    rows = []
    for model in names_in_order(spec, "model"):
        for batch in names_in_order(spec, "batch"):
            row = [model, f"{batch:,}"]
            for policy in policies:
                cell = found[model, batch, policy]
                epochs = ",".join(str(cell["best_epochs"]).split())
                row += [f"{mean_sd(cell['validation_accuracy_mean'], cell['validation_accuracy_sd'])} @{epochs}"]
                row += [mean_sd(cell["test_accuracy_mean"], cell["test_accuracy_sd"])]
            rows.append(row)
    several = f"Mean ± SD over seeds {listed(seeds)}; after @ the best epoch of each seed." if len(seeds) > 1 else ""
    reviews = int(summary.test_examples.iloc[0])
    typical = summary.test_standard_error.median()
    caption = f"{several or f'Seed {seeds[0]}; after @ the best epoch.'} Test accuracy is that of the best epoch on "
    caption += f"{reviews:,} reviews; binomial standard error about {100 * typical:.2f} points."
    if baseline:
        caption += (
            f" For comparison, {baseline['name']}: validation "
            f"{accuracy(baseline['validation_correct'] / baseline['validation_examples'])}, test "
            f"{accuracy(baseline['test_correct'] / baseline['test_examples'])}."
        )
    return Table(columns, _blank_repeats(rows), caption)


def details_table(summary: pd.DataFrame) -> Table:
    """Learning rate, updates and the interval of every model, policy and batch size."""
    columns = ["model", "LR policy", "#batch size", "#learning rate", "#updates", "#test accuracy", "#95% interval"]
    rows = [
        [row["model"], row["lr_policy"], f"{row['target_batch_size']:,}", scientific(row["learning_rate"])]
        + [f"{row['updates']:,}", accuracy(row["test_accuracy_mean"])]
        + [f"{row['test_low']:.4f} to {row['test_high']:.4f}"]
        for row in _by_policy(summary).to_dict("records")
    ]
    note = "Wilson interval of the accuracy at the number of test reviews; seeds share them and do not narrow it."
    return Table(columns, _blank_repeats(rows), note)


def contrasts_table(contrasts: pd.DataFrame) -> Table:
    """Every pair of batch sizes within a model and policy, the seeds gathered in one row."""
    columns = [
        "model",
        "LR policy",
        "#batch sizes",
        "#difference, points",
        "#SE",
        "#paired SE",
        "#McNemar p",
        "#Holm p",
    ]
    rows = []
    keys = ["model", "lr_policy", "smaller_batch", "larger_batch"]
    for key, group in contrasts.groupby(keys, sort=False):
        model, policy, small, large = (str(part) for part in key)
        difference = points(group.difference_points.mean())
        if len(group) > 1:
            difference += f" ± {group.difference_points.std(ddof=1):.2f}"
        errors = [f"{group[name].mean():.2f}" for name in ("standard_error_points", "paired_standard_error_points")]
        tests = ["; ".join(p_value(p) for p in group[name]) for name in ("mcnemar_p", "mcnemar_p_holm")]
        rows.append([model, policy, f"{int(small):,} → {int(large):,}", difference, *errors, *tests])
    several = contrasts.seed.nunique() > 1
    note = "Larger minus smaller batch size, test accuracy. " + (
        "Mean ± SD of the difference over seeds; mean standard error of one seed's; one p per seed." if several else ""
    )
    return Table(columns, _blank_repeats(rows), note.strip())


def cost_table(cost: pd.DataFrame) -> Table:
    """Time, rate and memory per run, averaged over seeds; use of the GPU and energy if they were measured."""
    columns = ["model", "LR policy", "#batch size", "#updates", "#time per run", "#samples/s", "#peak memory"]
    measured = bool(cost.energy_joules.notna().any() or cost.gpu_utilisation_mean.notna().any())
    columns += ["#GPU use", "#energy", "device"] if measured else ["device"]
    rows = []
    for key, group in _by_policy(cost).groupby(["model", "lr_policy", "target_batch_size"], sort=False):
        model, policy, batch = (str(part) for part in key)
        times = [duration(group.seconds.mean()), f"{group.samples_per_second.mean():,.0f}"]
        device = f"{group.device.iloc[0]}, {group.precision.iloc[0]}"
        row = [model, policy, f"{int(batch):,}", f"{group.updates.iloc[0]:,}", *times]
        row.append(size(group.peak_memory_bytes.max()))
        if measured:
            busy = group.gpu_utilisation_mean.mean()
            row += ["–" if pd.isna(busy) else percent(busy, 0), energy(group.energy_joules.mean())]
        rows.append([*row, device])
    joules = cost.energy_joules.sum(skipna=False)
    total = f"All {len(cost)} runs together: {duration(cost.seconds.sum())}"
    total += "." if pd.isna(joules) else f" and {energy(joules)}."
    if measured:
        total += " GPU use is the share of the time in which the card was computing; energy is that of the whole card."
    return Table(columns, _blank_repeats(rows), f"Mean over seeds; peak memory is the largest. {total}")


def certificate_table(spec: dict[str, Any], certificates: dict[str, dict[str, Any]]) -> Table:
    """What our engines and the installed peers make of the same windows, model by model."""
    rows = [[model, *row] for model, certificate in certificates.items() for row in certificate_rows(certificate)]
    note = "Windows: length of the gradient over that of the window as one batch; 1.0000 is right. "
    note += "Largest error: the largest difference of an element over the largest element, in the worst window. "
    note += "Logged loss: over the true loss of the full window. "
    note += " ".join(dict.fromkeys(setting_in_words(certificate) for certificate in certificates.values()))
    if spec["tail"] == "naive":
        note += " This study sets `tail: naive`: it divides its tail windows as if they were full, on purpose."
    return Table(["model", *COLUMNS], _blank_repeats(rows), note)


def certificate_verdict(certificates: dict[str, dict[str, Any]]) -> str:
    """One sentence if all models have the same verdict, else one per model."""
    verdicts = {model: certificate["verdict"] for model, certificate in certificates.items()}
    if len(set(verdicts.values())) == 1:
        return str(next(iter(verdicts.values())))
    return " ".join(f"{model}: {verdict}" for model, verdict in verdicts.items())


def splits_table(audit: dict[str, Any]) -> Table:
    """Class balance, words per review and truncated share of every split."""
    models = list(audit["tokens"])
    columns = ["split", "#reviews", *(f"#{name}" for name in audit["classes"]), "#words, median (max)"]
    columns += [f"#truncated for {model}" for model in models]
    rows = []
    for split in SPLITS:
        facts = audit["splits"][split]
        shares = [f"{facts['per_class'][name]:,}" for name in audit["classes"]]
        words = f"{facts['words']['median']:,.0f} ({facts['words']['maximum']:,})"
        cut = [percent(audit["tokens"][model]["splits"][split]["truncated_share"]) for model in models]
        rows.append([split, f"{facts['reviews']:,}", *shares, words, *cut])
    lengths = listed(dict.fromkeys(str(audit["tokens"][model]["max_length"]) for model in models)) if models else "–"
    return Table(columns, rows, f"Truncated: reviews of more than {lengths} tokens, special tokens included.")


def duplicates_table(audit: dict[str, Any]) -> Table:
    """Exact duplicates: in all, and reviews whose text also stands in another split."""
    found = audit["duplicates"]
    rows = [
        ["texts that occur more than once", f"{found['groups']:,}"],
        ["reviews to remove so that every text occurs once", f"{found['redundant']:,}"],
        ["repeated texts whose labels disagree", f"{found['conflicting_groups']:,}"],
    ]
    rows += [
        [
            f"{row['split']} reviews whose text also stands in {row['other']}",
            f"{row['reviews']:,} ({percent(row['share'], 2)})",
        ]
        for row in found["crossing"]
        if row["other"] == "train"
    ]
    return Table(["exact duplicates", "#count"], rows)


def protocol_table(spec: dict[str, Any], summary: pd.DataFrame, cost: pd.DataFrame, audit: dict[str, Any]) -> Table:
    """The protocol in words."""
    data, split, optimizer, schedule = spec["data"], spec["data"]["split"], spec["optimizer"], spec["schedule"]
    counts = "/".join(f"{audit['splits'][name]['reviews']:,}" for name in SPLITS)
    rates = summary.groupby("lr_policy", sort=False).apply(
        lambda rows: listed(dict.fromkeys(scientific(rate) for rate in rows.learning_rate))
    )
    betas = listed(optimizer["betas"])
    clipping = f", gradients clipped to norm {optimizer['max_grad_norm']:g}" if optimizer.get("max_grad_norm") else ""
    decay = f", weight decay {optimizer['weight_decay']:g}" if optimizer["weight_decay"] else ""
    warmup = f", warm-up over {percent(schedule['warmup'])} of the updates" if schedule["warmup"] else ""
    kernels = ", deterministic kernels alone" if spec["determinism"] == "strict" else ""
    sample = f", a stratified sample of {data['sample']:,}" if data.get("sample") else ""
    rows = [
        ["data", f"{data['source']}{'@' + data['revision'] if data.get('revision') else ''}{sample}"],
        ["split", f"{split['method']}, seed {split['seed']}: {counts} {'/'.join(SPLITS)}"],
        ["tokens", f"at most {data['max_length']}, {data['truncation'].replace('_', ' and ')} kept"],
        ["models", "; ".join(f"{name}: {_model(spec['models'][name])}" for name in names_in_order(spec, "model"))],
        ["target batch sizes", listed(f"{batch:,}" for batch in names_in_order(spec, "batch"))],
        ["micro-batch", f"{listed(dict.fromkeys(cost.physical_batch_size))} ({spec['engine']} accumulation)"],
        ["LR policies", "; ".join(f"{policy}: {rate}" for policy, rate in rates.items())],
        ["schedule", f"{schedule['name']}{warmup}"],
        ["optimizer", f"{optimizer['name']}, β = {betas}, ε = {scientific(optimizer['eps'])}{decay}{clipping}"],
        ["budget", budget_in_words(spec["budget"])],
        ["tail window", TAILS[spec["tail"]]],
        ["precision", f"{listed(dict.fromkeys(cost.precision))} on {listed(dict.fromkeys(cost.device))}{kernels}"],
        ["seeds", listed(names_in_order(spec, "seed"))],
        ["grid", f"{len(spec['cells'])} cells, {len(cost)} runs: cells that resolve to the same training share a run"],
    ]
    return Table(["protocol", "value"], rows)


TAILS = {
    "exact": "averaged over its own examples",
    "naive": "divided as if it were full (scales the last update of an epoch down)",
    "drop": "left out",
}


def attention_table(spec: dict[str, Any], study_folder: Path) -> Table:
    """Measures of the last layer over batch sizes, averaged over the reviews shown."""
    columns = ["model", "#batch size", "#entropy", "#largest weight", "#on special tokens", "#on itself"]
    names = ("entropy", "largest_weight", "special_share", "diagonal_share")
    rows, count = [], 0
    for model in names_in_order(spec, "model"):
        for cell in attention_cells(spec, model):
            reviews = read_json(study_folder / "runs" / cell["run"] / "attention" / "measures.json")["reviews"]
            last, count = [review["layers"][-1] for review in reviews], len(reviews)
            means = [sum(layer[name] for layer in last) / count for name in names]
            rows.append([model, f"{cell['batch']:,}", *(f"{mean:.3f}" for mean in means)])
    note = "Last layer, mean over its rows, heads and the reviews shown. Entropy over that of uniform attention to the "
    note += f"allowed keys: 1 is uniform. {count} reviews illustrate; they do not measure."
    return Table(columns, _blank_repeats(rows), note)


def noise_table(spec: dict[str, Any], history: pd.DataFrame) -> Table:
    """|G|², S and B = S/|G|² of every model, policy and batch size in the first and last epoch, over all seeds."""
    columns = ["model", "LR policy", "#batch size", "#updates used"]
    columns += [f"#{name}, {epoch} epoch" for epoch in ("first", "last") for name in ("|G|²", "S", "B")]
    runs: dict[tuple[str, str, int], list[str]] = {}
    for cell in spec["cells"]:
        runs.setdefault((cell["model"], cell["policy"], cell["batch"]), []).append(cell["run"])
    rows = []
    for model in names_in_order(spec, "model"):
        for policy in names_in_order(spec, "policy"):
            for batch in names_in_order(spec, "batch"):
                updates = history[(history.kind == "update") & history.run.isin(runs[model, policy, batch])]
                ends = [_noise(updates[updates.epoch == epoch]) for epoch in (updates.epoch.min(), updates.epoch.max())]
                rows.append([model, policy, f"{batch:,}", f"{updates.noise_trace.count():,}", *ends[0], *ends[1]])
    note = (
        "|G|² and S averaged over the updates of the epoch and over seeds, then divided. An update of one micro-batch "
    )
    note += "has no estimate; where no update has one, or where the averaged |G|² is not above zero, stands a dash."
    return Table(columns, _blank_repeats(rows), note)


def _noise(updates: pd.DataFrame) -> list[str]:
    """Averaged |G|² and S of some updates, and B."""
    if not updates.noise_trace.count():
        return ["–", "–", "–"]
    square, trace = updates.gradient_square.mean(), updates.noise_trace.mean()
    return [f"{square:.3g}", f"{trace:.3g}", f"{trace / square:,.0f}" if square > 0 else "–"]


def _model(model: dict[str, Any]) -> str:
    if "checkpoint" in model:
        return model["checkpoint"] + (f"@{model['revision']}" if model.get("revision") else "")
    return f"{model['architecture']} from scratch"


def _by_policy(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with model and policy together, each in their order of appearance."""
    order = frame.assign(**{f"_{key}": pd.factorize(frame[key])[0] for key in ("model", "lr_policy")})
    return order.sort_values(["_model", "_lr_policy"], kind="stable").drop(columns=["_model", "_lr_policy"])


def _blank_repeats(rows: list[list[str]]) -> list[list[str]]:
    above = [None, *(row[0] for row in rows)]
    return [["" if row[0] == previous else row[0], *row[1:]] for row, previous in zip(rows, above, strict=False)]

"""The protocol of a study in words."""

import pandas as pd

from batchscope.config.schema import Model, ValidateEvery
from batchscope.data.records import Audit, SplitName
from batchscope.errors import counted
from batchscope.report.numbers import listed, percent, scientific
from batchscope.report.spec import ReportSpec
from batchscope.report.table import Table

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
TAILS = {
    "exact": "averaged over its own examples",
    "naive": "divided as if it were full (scales the last update of an epoch down)",
    "drop": "left out",
}


def protocol_table(spec: ReportSpec, summary: pd.DataFrame, cost: pd.DataFrame, audit: Audit) -> Table:
    """The protocol in words."""
    data, split, optimizer, schedule = spec.data, spec.data.split, spec.optimizer, spec.schedule
    counts = "/".join(f"{audit['splits'][name]['reviews']:,}" for name in SPLITS)
    rates = {
        str(policy): listed(dict.fromkeys(scientific(rate) for rate in rows.learning_rate))
        for policy, rows in summary.groupby("lr_policy", sort=False)
    }
    clipping = f", gradients clipped to norm {optimizer.max_grad_norm:g}" if optimizer.max_grad_norm else ""
    moments = f"β = {listed(optimizer.betas)}, ε = {scientific(optimizer.eps)}"
    decay = f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    warmup = f", warm-up over {percent(schedule.warmup)} of the updates" if schedule.warmup else ""
    kernels = ", deterministic kernels alone" if spec.determinism == "strict" else ""
    sample = f", a stratified sample of {data.sample:,}" if data.sample else ""
    cells, runs = counted(len(spec.cells), "cell"), counted(len(cost), "run")
    sharing = ": cells that resolve to the same training share a run" if len(cost) < len(spec.cells) else ""
    rows = [
        ["data", f"{data.source}{'@' + data.revision if data.revision else ''}{sample}"],
        ["split", f"{split.method}, seed {split.seed}: {counts} {'/'.join(SPLITS)}"],
        ["tokens", f"at most {data.max_length}, {data.truncation.replace('_', ' and ')} kept"],
        ["models", "; ".join(f"{name}: {_model(spec.models[name])}" for name in spec.model_names)],
        ["target batch sizes", listed(f"{batch:,}" for batch in spec.batch_sizes)],
        ["micro-batch", f"{listed(dict.fromkeys(cost.physical_batch_size))} ({_engines(spec)})"],
        ["LR policies", "; ".join(f"{policy}: {rate}" for policy, rate in rates.items())],
        ["schedule", f"{schedule.name}{warmup}"],
        [
            "optimizer",
            f"{optimizer.name}, {moments}{decay}{clipping}",
        ],
        ["budget", _budgets(spec)],
        *([["validation", _validations(spec.validate_every, spec.select_from)]] if spec.validate_every else []),
        ["tail window", TAILS[spec.tail]],
        ["precision", f"{listed(dict.fromkeys(cost.precision))} on {listed(dict.fromkeys(cost.device))}{kernels}"],
        ["seeds", listed(spec.seeds)],
        ["grid", f"{cells}, {runs}{sharing}"],
    ]
    return Table(["protocol", "value"], rows)


def _model(model: Model) -> str:
    """`bert-base-uncased@main`, or `bert from scratch`."""
    if model.checkpoint is not None:
        return model.checkpoint + (f"@{model.revision}" if model.revision else "")
    return f"{model.architecture} from scratch"


def _engines(spec: ReportSpec) -> str:
    """`manual accumulation`; each LR policy's engine where they differ."""
    if len(used := set(spec.engines.values())) == 1:
        return f"{used.pop()} accumulation"
    return "accumulation: " + "; ".join(f"{engine} under {policy}" for policy, engine in spec.engines.items())


def _validations(every: ValidateEvery, select_from: str) -> str:
    """How often a run is validated, and which validations choose its checkpoint."""
    often = counted(every.updates, "update") if every.updates else counted(every.samples or 0, "sample")
    chosen = "all of them" if select_from == "all" else "those at the ends of epochs"
    return f"every {often} and at the ends of epochs; the best checkpoint is chosen from {chosen}"


def _budgets(spec: ReportSpec) -> str:
    """`5 epochs`; the names of several budgets before their lengths."""
    if len(spec.budgets) == 1:
        return next(iter(spec.budgets.values())).in_words
    return "; ".join(f"{name}: {spec.budgets[name].in_words}" for name in spec.budget_names)

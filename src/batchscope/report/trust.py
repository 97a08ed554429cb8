"""What the numbers rest on, as tables: certificates, data, provenance."""

from collections.abc import Mapping

import pandas as pd

from batchscope.certificate.records import Certificate
from batchscope.certificate.verdict import COLUMNS, certificate_rows, setting_in_words
from batchscope.data.records import Audit
from batchscope.errors import counted
from batchscope.report.numbers import listed, percent
from batchscope.report.protocol import SPLITS
from batchscope.report.spec import ReportSpec
from batchscope.report.table import Table
from batchscope.wording import Wording

MOST_NAMED = 6


def certificate_table(spec: ReportSpec, certificates: Mapping[str, Certificate]) -> Table:
    """What our engines and the installed peers make of the same windows, model by model; the verdict comes first."""
    rows = [
        [model, method, verdict, *numbers]
        for model, certificate in certificates.items()
        for method, *numbers, verdict in certificate_rows(certificate)
    ]
    note = "Windows: length of the gradient over that of the window as one batch; 1.0000 is right. "
    note += "Largest error: the largest difference of an element over the largest element, in the worst window. "
    note += "Logged loss: over the true loss of the full window. "
    note += " ".join(dict.fromkeys(setting_in_words(certificate) for certificate in certificates.values()))
    if spec.tail == "naive":
        note += " This study sets `tail: naive`: it divides its tail windows as if they were full, on purpose."
    method, *numbers, verdict = COLUMNS
    return Table(["model", method, verdict, *numbers], rows, note)


def certificate_verdict(certificates: Mapping[str, Certificate]) -> str:
    """One sentence if all models have the same verdict, else one per model."""
    verdicts = {model: certificate["verdict"] for model, certificate in certificates.items()}
    if len(set(verdicts.values())) == 1:
        return next(iter(verdicts.values()))
    return " ".join(f"{model}: {verdict}" for model, verdict in verdicts.items())


def uncertified_in_words(certificates: Mapping[str, Certificate], runs: pd.DataFrame) -> list[str]:
    """One sentence per model whose certificate is of another precision or kind of device than some of its runs.

    ``runs`` is ``tables/provenance.csv`` as text, one row per run.
    """
    said = []
    for model, certificate in certificates.items():
        own = runs[runs.model == model]
        certified = certificate["precision"], certificate["device_kind"]
        other = own[(own.precision != certified[0]) | (own.device_type != certified[1])]
        if len(other):
            where = dict.fromkeys(f"{run.precision} on {run.device_type}" for run in other.itertuples())
            said.append(
                f"{model} is certified in {certified[0]} on {certified[1]}, and {len(other)} of its "
                f"{counted(len(own), 'run')} trained in {listed(where)}. Delete its certificate and start the workflow "
                "there to certify these as well."
            )
    return said


def splits_table(audit: Audit, wording: Wording) -> Table:
    """Class balance, words per review and truncated share of every split."""
    models = list(audit["tokens"])
    columns = ["split", f"#{wording.many}", *(f"#{name}" for name in audit["classes"]), "#words, median (max)"]
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


def duplicates_table(audit: Audit, wording: Wording) -> Table:
    """Exact duplicates: in all, and reviews whose text also appears in another split."""
    found = audit["duplicates"]
    rows = [
        ["texts that occur more than once", f"{found['groups']:,}"],
        [f"{wording.many} to remove so that every text occurs once", f"{found['redundant']:,}"],
        ["repeated texts whose labels disagree", f"{found['conflicting_groups']:,}"],
    ]
    rows += [
        [f"{row['split']} {wording.many} whose text also appears in {row['other']}"]
        + [f"{row['reviews']:,} ({percent(row['share'], 2)})"]
        for row in found["crossing"]
        if (row["split"], row["other"]) in (("validation", "train"), ("test", "train"), ("test", "validation"))
    ]
    return Table(["exact duplicates", "#count"], rows)


def left_out_table(audit: Audit) -> Table | None:
    """What of the data source was not read, and why; None where all of it was."""
    rows = [[row["name"], row["reason"]] for row in audit["source"]["left_out"]]
    return Table(["left out", "reason"], rows) if rows else None


def provenance_table(runs: pd.DataFrame) -> Table:
    """Device, precision, software and revision of all runs; where runs differ, every value with its runs.

    ``runs`` is ``tables/provenance.csv`` as text, one row per run.
    """
    facts = {"device": "device", "precision": "precision", "determinism": "determinism", "driver": "NVIDIA driver"}
    facts |= {f"prediction_{name}": f"{name} of predictions" for name in ("device", "precision")}
    facts |= {name: name.removeprefix("version_") for name in runs.columns if name.startswith("version_")}
    facts |= {"platform": "platform", "revision": "git revision", "ranks": "processes per run"}
    dirty = runs.git_dirty.map({"True": ", with local changes"}).fillna("")
    known = runs.assign(revision=runs.git_revision.str[:12] + dirty)
    rows = [[label, _values(known, name)] for name, label in facts.items() if (known[name] != "").any()]
    return Table(["software", "version"], rows)


def runs_table(runs: pd.DataFrame) -> Table:
    """One row per run: fingerprint, device, precision, micro-batch, revision, and where it was taken from."""
    columns = ["run", "fingerprint", "device", "precision", "#micro-batch", "git revision", "reused from"]
    rows = [
        [run.run, run.fingerprint, run.device, run.precision, run.physical_batch_size]
        + [run.git_revision[:12] or "–", run.reused_from or "–"]
        for run in runs.itertuples()
    ]
    about = [
        {"model": [run.model], "policy": [run.lr_policy.partition("@")[0]], "budget": [run.budget], "seed": [run.seed]}
        | {"batch": [run.target_batch_size]}
        for run in runs.itertuples()
    ]
    return Table(columns, rows, scopes=about)


def _values(runs: pd.DataFrame, name: str) -> str:
    """`2.13.0`; or `2.13.0 (18 runs) and 2.12.0 (2 runs: …)`."""
    groups = {str(value) or "unknown": list(group.run) for value, group in runs.groupby(name, sort=False)}
    if len(groups) == 1:
        return next(iter(groups))
    most = max(groups, key=lambda value: len(groups[value]))
    return listed(
        f"{value} ({counted(len(read), 'run')}{'' if value == most else f': {named(read)}'})"
        for value, read in groups.items()
    )


def named(runs: list[str]) -> str:
    """The first few of these runs, and how many more there are."""
    shown = [run_in_words(run) for run in runs[:MOST_NAMED]]
    more = len(runs) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def run_in_words(run: str) -> str:
    """`bert, 64, constant, seed 1` from `bert/bs64/constant/seed1`; a budget is named after the policy."""
    model, batch, *names, seed = run.split("/")
    return ", ".join([model, f"{int(batch.removeprefix('bs')):,}", *names, f"seed {seed.removeprefix('seed')}"])

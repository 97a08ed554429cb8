"""The order of the page: its header, its sections, its filters, and which sections a warning opens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from batchscope.errors import counted
from batchscope.report.cautions import Caution, differing_in_words
from batchscope.report.finished import Finished
from batchscope.report.numbers import duration, listed
from batchscope.report.spec import ReportSpec
from batchscope.report.style import batch_colours, dark_batch_colours
from batchscope.report.trust import uncertified_in_words


class Section(NamedTuple):
    """A section of the page; its template is ``templates/sections/{name}.html.j2``."""

    name: str
    title: str
    lead: str
    """What is in it, beside its title."""
    open: bool = False
    """Whether it is open without a warning in it."""


SECTIONS = (
    Section("results", "Results", "every cell, every seed, every contrast", open=True),
    Section("fair", "Fair?", "the same runs at an equal number of epochs, updates, FLOPs; learning rates", open=True),
    Section("training", "Training", "loss and accuracy while the models train"),
    Section("errors", "Errors", "who is wrong, and does batch size or seed decide it?"),
    Section("attention", "Attention", "what the models look at"),
    Section("calibration", "Calibration", "does 90% sure mean nine of ten?"),
    Section("geometry", "Geometry", "are the minima of larger batches sharper, and does it matter?"),
    Section("cost", "Cost", "time, memory, energy; quality against cost"),
    Section("trust", "Trust", "certificates, data, provenance of every run, how to read this page"),
)
"""In the order of the page. A section whose entry in the context is None is not shown."""


class ShownSection(NamedTuple):
    """A section as it is on the page."""

    name: str
    title: str
    lead: str
    open: bool
    warned: bool


class Filter(NamedTuple):
    """One picker of the filter bar."""

    key: str
    label: str
    values: list[tuple[str, str]]
    """Value as scripts compare it, and as it is shown."""


def shown_sections(context: Mapping[str, object], said: Sequence[Caution]) -> list[ShownSection]:
    """The sections that the study has. One with a warning in it is open."""
    warned = {caution.section for caution in said if caution.warns}
    return [
        ShownSection(name, title, lead, opened or name in warned, name in warned)
        for name, title, lead, opened in SECTIONS
        if context.get(name, True) is not None
    ]


def filters(spec: ReportSpec) -> list[Filter]:
    """The pickers; a factor with one value has none."""
    found = [
        Filter("model", "Model", _plain(spec.model_names)),
        Filter("policy", "LR policy", _plain(spec.policy_names)),
        Filter("batch", "Batch size", [(str(size), f"{size:,}") for size in sorted(spec.batch_sizes)]),
        Filter("budget", "Budget", _plain(spec.budget_names)),
        Filter("seed", "Seed", _plain(spec.seeds)),
    ]
    return [one for one in found if len(one.values) > 1]


def colour_rules(spec: ReportSpec) -> dict[str, list[str]]:
    """``light`` and ``dark`` → the colours ``--batch-0``, ``--batch-1``, … of the batch sizes in ascending order."""
    light, dark = batch_colours(spec), dark_batch_colours(spec)
    return {name: [scale[size] for size in sorted(scale)] for name, scale in (("light", light), ("dark", dark))}


def header_lines(spec: ReportSpec, study: Finished) -> list[list[str]]:
    """What was studied, and on what the runs rest, in short."""
    own = study.results[~study.results.shared]
    many = study.audit["splits"]["test"]["reviews"]
    grid = [
        counted(len(spec.model_names), "model"),
        counted(len(spec.batch_sizes), "batch size"),
        counted(len(spec.policy_names), "LR policy"),
        *([counted(len(spec.budget_names), "budget")] if spec.several_budgets else []),
        counted(len(spec.seeds), "seed"),
        f"{counted(many, 'test review')} of {counted(len(study.audit['classes']), 'class')}",
    ]
    alike = not differing_in_words(study.provenance, [])
    passed = all(certificate["passed"] for certificate in study.certificates.values())
    certified = passed and not uncertified_in_words(study.certificates, study.provenance)
    ground = [
        f"{listed(dict.fromkeys(own.device))}, {listed(dict.fromkeys(own.precision))}",
        f"{duration(float(own.seconds.sum()))} of training",
        f"{counted(len(own), 'run')} {'in one environment ✓' if alike else 'in differing environments !'}",
        "certified ✓" if certified else "not certified !",
    ]
    return [grid, ground]


def _plain(values: Iterable[object]) -> list[tuple[str, str]]:
    return [(str(value), str(value)) for value in values]

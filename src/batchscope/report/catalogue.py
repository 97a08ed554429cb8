"""Which tables and figures a study gets, from its spec alone: the Snakefile lists them as outputs."""

from collections.abc import Iterator
from typing import NamedTuple

from batchscope.report.spec import FiguresSpec, GridCell, TablesSpec

SHOWN_TABLES = ("summary.csv", "contrasts.csv", "cost.csv")
"""The files under ``tables/`` that `snakemake --report` presents."""
PLAIN_TABLES = (
    *("results.csv", "results.parquet", "history.parquet"),
    *("summary.parquet", "summary.tex", "contrasts.parquet", "contrasts.tex"),
    *("omnibus.csv", "omnibus.parquet", "omnibus.tex"),
    *(f"{name}.{form}" for name in ("pairs", "pairs_by_seed", "contrasts_by_metric") for form in ("csv", "parquet")),
    *("curves.csv", "horizon.csv", "sweep.csv", "tuning.csv", "best_of_n.csv", "branches.csv"),
    *("classes.csv", "confusion.csv", "audit.csv", "noise_scale.csv", "attention.csv", "certificates.csv"),
    *("baseline.csv", "provenance.csv"),
)
"""The other files under ``tables/``."""
FORMATS = ("png", "svg")
OVER_REVIEWS = {
    "divergence": "batch size against seed",
    "attention_keys": "what is attended to",
    "attention_sinks": "sinks",
    "attention_layers": "entropy and distance",
    "attention_ablation": "without sinks",
}
"""Figures of the attention over many reviews, one per model and budget, and what they show."""


class CataloguedFigure(NamedTuple):
    """A file under ``figures/`` and how `snakemake --report` presents it."""

    name: str
    """File name."""
    category: str
    """Section of the Snakemake report."""
    labels: dict[str, str]
    """Column → value; the figures of one category share their columns."""
    caption: str
    """Name of the caption: ``workflow/report/{caption}.rst``."""


def figure_names(spec: FiguresSpec) -> list[CataloguedFigure]:
    """Every figure of a study, in reading order, each in every format."""
    return [
        figure._replace(name=f"{figure.name}.{form}", labels=figure.labels | {"format": form})
        for figure in _figures(spec)
        for form in FORMATS
    ]


def _figures(spec: FiguresSpec) -> Iterator[CataloguedFigure]:
    """The figures, named without a format."""
    yield CataloguedFigure("accuracy", "Test accuracy", {"models": "all"}, "accuracy")
    yield CataloguedFigure("contrasts", "Test accuracy", {"models": "all, contrasts"}, "contrasts")
    if spec.calibration:
        yield CataloguedFigure("calibration", "Calibration", {"models": "all"}, "calibration")
        for model in spec.model_names:
            for budget in spec.budget_names:
                name = f"reliability_{model}{suffix(spec, budget)}"
                labels = {"models": f"{model}, {budget}" if spec.several_budgets else model}
                yield CataloguedFigure(name, "Calibration", labels, "reliability")
    if spec.geometry:
        yield from _geometry(spec)
    if spec.errors:
        yield from _error_figures(spec)
    if spec.cartography:
        yield from _cartography(spec)
    for model in spec.model_names:
        for budget in spec.budget_names:
            named, end = {"budget": budget} if spec.several_budgets else {}, suffix(spec, budget)
            for shows in ("accuracy", "loss"):
                labels = {"model": model, **named, "split": "train", "shows": shows}
                yield CataloguedFigure(f"training_{shows}_{model}{end}", "Training", labels, "training")
            labels = {"model": model, **named, "split": "validation", "shows": "accuracy"}
            yield CataloguedFigure(f"validation_accuracy_{model}{end}", "Training", labels, "validation")
            if spec.validates_within_epochs:
                labels = {"model": model, **named, "split": "validation", "shows": "accuracy at equal cost"}
                yield CataloguedFigure(f"validation_cost_{model}{end}", "Training", labels, "validation_cost")
            if spec.shows_noise:
                labels = {"model": model, **named, "split": "train", "shows": "gradient noise scale"}
                yield CataloguedFigure(f"noise_scale_{model}{end}", "Training", labels, "noise_scale")
        if spec.sweep_names:
            labels = {"model": model, "shows": "validation accuracy by learning rate"}
            yield CataloguedFigure(f"sweep_{model}", "Learning rates", labels, "sweep")
            labels = {"model": model, "shows": "expected best of n learning rates"}
            yield CataloguedFigure(f"best_of_n_{model}", "Learning rates", labels, "best_of_n")
        if spec.attention_measures:
            yield from _attention_over_reviews(spec, model)
        for review in spec.review_names:
            labels = {"model": model, "review": review.replace("_", " ")}
            yield CataloguedFigure(f"attention_{model}_{review}", "Attention over batch sizes", labels, "attention")
            if len(spec.batch_sizes) > 1:
                name, labels = (
                    f"attention_difference_{model}_{review}",
                    labels | {"review": f"{labels['review']}, changes"},
                )
                yield CataloguedFigure(name, "Attention over batch sizes", labels, "attention_difference")
    yield CataloguedFigure("cost", "Cost", {"runs": "all"}, "cost")
    yield CataloguedFigure("quality_cost", "Cost", {"runs": "all, against accuracy"}, "quality_cost")


def _geometry(spec: FiguresSpec) -> Iterator[CataloguedFigure]:
    category, whole = "Loss geometry", {"models": "all"}
    shows = {"shows": "sharpness and accuracy"}
    yield CataloguedFigure("geometry_correlations", category, whole | shows, "geometry_correlations")
    for model in spec.model_names:
        for budget in spec.budget_names:
            end = suffix(spec, budget)
            one = {"models": f"{model}, {budget}" if spec.several_budgets else model}
            yield CataloguedFigure(
                f"geometry_sharpness_{model}{end}", category, one | {"shows": "sharpness"}, "geometry"
            )
            shows = {"shows": "loss between two runs"}
            yield CataloguedFigure(f"geometry_paths_{model}{end}", category, one | shows, "geometry_paths")
    shows = {"shows": "similarity of features"}
    yield CataloguedFigure("geometry_cka", category, whole | shows, "geometry_cka")


def _attention_over_reviews(spec: FiguresSpec, model: str) -> Iterator[CataloguedFigure]:
    """The figures of the attention measured over many reviews."""
    for budget in spec.budget_names:
        end, named = suffix(spec, budget), f", {budget}" if spec.several_budgets else ""
        for name, shows in OVER_REVIEWS.items():
            labels = {"model": model, "shows": f"{shows}{named}"}
            yield CataloguedFigure(f"{name}_{model}{end}", "Attention over the test set", labels, name)


def _error_figures(spec: FiguresSpec) -> Iterator[CataloguedFigure]:
    for shows in ("verdicts", "flips"):
        yield CataloguedFigure(f"errors_{shows}", "Errors", {"models": "all", "shows": shows}, f"errors_{shows}")
    if spec.errors and spec.errors.embedding:
        for model in spec.model_names:
            labels = {"models": model, "shows": "embedding"}
            yield CataloguedFigure(f"errors_embedding_{model}", "Errors", labels, "errors_embedding")
    for model in spec.model_names:
        for budget in spec.budget_names:
            models = f"{model}, {budget}" if spec.several_budgets else model
            for shows in ("margins", "groups"):
                name = f"errors_{shows}_{model}{suffix(spec, budget)}"
                yield CataloguedFigure(name, "Errors", {"models": models, "shows": shows}, f"errors_{shows}")


def _cartography(spec: FiguresSpec) -> Iterator[CataloguedFigure]:
    for model in spec.model_names:
        for budget in spec.budget_names:
            models = f"{model}, {budget}" if spec.several_budgets else model
            name = f"cartography_map_{model}{suffix(spec, budget)}"
            labels = {"models": models, "shows": "training examples"}
            yield CataloguedFigure(name, "Errors", labels, "cartography_map")
    labels = {"models": "all", "shows": "training examples, batch size against seed"}
    yield CataloguedFigure("cartography_agreement", "Errors", labels, "cartography_agreement")


def suffix(spec: TablesSpec, budget: str) -> str:
    """End of the name of a figure that shows one budget; a study of one budget does not name it."""
    return f"_{budget}" if spec.several_budgets else ""


def attention_cells(spec: TablesSpec, model: str) -> list[GridCell]:
    """The cells whose maps are shown side by side for a model.

    They are those of every batch size under the first policy, budget and seed.
    """
    shown = model, spec.policy_names[0], spec.budget_names[0], spec.seeds[0]
    return [cell for cell in spec.cells if (cell.model, cell.policy, cell.budget, cell.seed) == shown]


def seed_cell(spec: TablesSpec, model: str) -> GridCell | None:
    """The cell beside the first of ``attention_cells`` that differs from it in the seed alone; None with one seed."""
    first = attention_cells(spec, model)[0]
    wanted = model, first.policy, first.budget, first.batch, spec.seeds[min(1, len(spec.seeds) - 1)]
    found = next(cell for cell in spec.cells if (cell.model, cell.policy, cell.budget, cell.batch, cell.seed) == wanted)
    return None if found.seed == first.seed else found

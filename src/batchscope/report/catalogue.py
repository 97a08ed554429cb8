"""Which figures a study gets, from its spec alone: the Snakefile lists them as outputs, `figures` draws them."""

from typing import Any, NamedTuple


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


def figure_names(spec: dict[str, Any]) -> list[CataloguedFigure]:
    """Every figure of the study of ``Study.figures_spec()``, in reading order."""
    models = names_in_order(spec, "model")
    return [
        *(
            CataloguedFigure(f"accuracy.{form}", "Test accuracy", {"models": "all", "format": form}, "accuracy")
            for form in ("png", "svg")
        ),
        *(
            CataloguedFigure(
                f"training_{quantity}_{model}.png",
                "Training",
                {"model": model, "split": "train", "shows": quantity},
                "training",
            )
            for model in models
            for quantity in ("accuracy", "loss")
        ),
        *(
            CataloguedFigure(
                f"validation_accuracy_{model}.png",
                "Training",
                {"model": model, "split": "validation", "shows": "accuracy"},
                "validation",
            )
            for model in models
        ),
        *(
            CataloguedFigure(
                f"noise_scale_{model}.png",
                "Training",
                {"model": model, "split": "train", "shows": "gradient noise scale"},
                "noise_scale",
            )
            for model in models
            if measures_noise(spec)
        ),
        *(
            CataloguedFigure(
                f"attention_{model}_{review}.png",
                "Attention over batch sizes",
                {"model": model, "review": review.replace("_", " ")},
                "attention",
            )
            for model in models
            for review in spec["review_names"]
        ),
        *(CataloguedFigure(f"cost.{form}", "Cost", {"runs": "all", "format": form}, "cost") for form in ("png", "svg")),
        *(
            CataloguedFigure(
                f"quality_cost.{form}", "Cost", {"runs": "all, against accuracy", "format": form}, "quality_cost"
            )
            for form in ("png", "svg")
        ),
    ]


def measures_noise(spec: dict[str, Any]) -> bool:
    """Whether the runs' histories hold the gradient noise scale."""
    return bool(spec["noise_scale"] != "off")


def names_in_order(spec: dict[str, Any], key: str) -> list[Any]:
    """Distinct values of ``key`` (model, batch, policy or seed) over the cells, in the order of the config.

    A spec that went through canonical JSON has its mappings sorted by key; only the list of cells keeps the order.
    """
    return list(dict.fromkeys(cell[key] for cell in spec["cells"]))


def attention_cells(spec: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """The cells whose maps stand side by side for a model: every batch size under the first policy and seed."""
    policy, seed = names_in_order(spec, "policy")[0], names_in_order(spec, "seed")[0]
    return [c for c in spec["cells"] if (c["model"], c["policy"], c["seed"]) == (model, policy, seed)]

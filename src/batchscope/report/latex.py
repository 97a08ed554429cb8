r"""Tables for a paper, in LaTeX with the rules of the booktabs package: ``\input{tables/contrasts.tex}``."""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from batchscope.report.numbers import p_value, scientific

NUMBER, TEXT = "r", "l"
ESTIMANDS = {"population": "seeds and reviews", "these_reviews": "seeds", "these_models": "these two models"}
Format = Callable[[object], str]
Formats = Mapping[str, Format]


def contrasts(findings: pd.DataFrame) -> str:
    """Every contrast under every estimand; ``findings`` holds the columns of ``tables/contrasts.csv``."""
    shown = findings.assign(
        compared=[_compared(row) for row in findings.to_dict("records")],
        interval=_intervals(findings),
        estimand=findings.estimand.map(ESTIMANDS),
    )
    return _tabular(
        shown,
        {
            "model": "Model",
            "lr_policy": "LR policy",
            "budget": "Budget",
            "compared": "Contrast",
            "estimand": "Estimand",
            "difference_points": "Difference",
            "interval": r"95\% interval",
            "df": "df",
            "p_holm": r"Holm $p$",
            "p_equivalence": r"Equivalence $p$",
            "verdict": "Verdict",
        },
        {"interval": _plain, "difference_points": _points, "df": _df, "p_holm": _p, "p_equivalence": _p},
        text=("model", "lr_policy", "budget", "compared", "estimand", "verdict"),
    )


def omnibus(trends: pd.DataFrame) -> str:
    """F over all batch sizes and the change per doubling of the batch size, per model, LR policy and budget."""
    return _tabular(
        trends.assign(interval=_intervals(trends)),
        {
            "model": "Model",
            "lr_policy": "LR policy",
            "budget": "Budget",
            "seeds": "Seeds",
            "f": "$F$",
            "df1": r"df$_1$",
            "df2": r"df$_2$",
            "p": "$p$ of $F$",
            "slope_points": "Per doubling",
            "interval": r"95\% interval",
            "p_slope": "$p$ of the slope",
        },
        {
            "interval": _plain,
            "seeds": _plain,
            "f": _two,
            "df1": _df,
            "df2": _df,
            "p": _p,
            "slope_points": _points,
            "p_slope": _p,
        },
        text=("model", "lr_policy", "budget"),
    )


def summary(cells: pd.DataFrame) -> str:
    """Accuracy of every model, LR policy, budget and batch size; ``cells`` is ``tables/summary.csv``."""
    return _tabular(
        cells,
        {
            "model": "Model",
            "target_batch_size": "Batch size",
            "lr_policy": "LR policy",
            "budget": "Budget",
            "learning_rate": "Learning rate",
            "seeds": "Seeds",
            "updates": "Updates",
            "validation_accuracy_mean": r"Validation, \%",
            "test_accuracy_mean": r"Test, \%",
            "test_accuracy_sd": "SD over seeds",
        },
        {"target_batch_size": _plain, "learning_rate": _rate, "seeds": _plain, "updates": _plain}
        | {"validation_accuracy_mean": _percent, "test_accuracy_mean": _percent, "test_accuracy_sd": _percent},
        text=("model", "lr_policy", "budget"),
    )


def _tabular(frame: pd.DataFrame, columns: Mapping[str, str], formats: Formats, text: Sequence[str]) -> str:
    """A tabular with booktabs' rules: these columns under these headings. Text is escaped, headings are LaTeX."""
    shown = pd.DataFrame({name: frame[name] for name in columns})
    style = shown.style.hide(axis="index").format(escape="latex", subset=list(text))
    for name, format_ in formats.items():
        style = style.format(format_, subset=[name])
    style = style.format_index(lambda name: columns[name], axis="columns")
    aligned = "".join(TEXT if name in text else NUMBER for name in columns)
    return str(style.to_latex(hrules=True, column_format=aligned))


def _compared(row: Mapping[str, object]) -> str:
    """`64 → 1024`, in the characters that every LaTeX has."""
    return f"{row['level_from']} to {row['level_to']}"


def _intervals(frame: pd.DataFrame) -> list[str]:
    ends = zip(frame.low_points, frame.high_points, strict=True)
    return [f"[{_points(low)}, {_points(high)}]" for low, high in ends]


def _plain(value: object) -> str:
    return str(value)


def _points(value: object) -> str:
    return _missing(value) or f"${float(str(value)):+.2f}$"


def _two(value: object) -> str:
    return _missing(value) or f"{float(str(value)):.2f}"


def _percent(value: object) -> str:
    return _missing(value) or f"{100 * float(str(value)):.2f}"


def _df(value: object) -> str:
    number = float(str(value))
    return _missing(value) or (r"$\infty$" if math.isinf(number) else f"{number:.1f}".removesuffix(".0"))


def _p(value: object) -> str:
    return _missing(value) or p_value(float(str(value))).replace("< ", "$<$")


def _rate(value: object) -> str:
    return scientific(float(str(value)))


def _missing(value: object) -> str:
    return "--" if pd.isna(value) else ""

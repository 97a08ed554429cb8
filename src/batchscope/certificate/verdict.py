"""What a certificate says in words and as a table. Pure, no torch: the report and the terminal read the same rows."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

TOLERANCES = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference from the full batch's gradient, relative to its largest element, that passes per precision.

The mathematics is held in float64. float32 and bfloat16 get room for rounding, which grows where the examples'
gradients nearly cancel: MiniLM, before training, is 50 times above the unit of rounding in float64 and float32 alike.
"""
WINDOWS = {"full": "full window", "tail": "tail window", "ragged": "ragged window"}
COLUMNS = ["method", *(f"#{name}" for name in WINDOWS.values()), "#largest error", "#logged loss", "verdict"]
SAME_DIRECTION = 0.9999
"""Cosine from which on a wrong gradient is described by its length alone."""

Windows = Mapping[str, Mapping[str, Any]]


class Verdict(NamedTuple):
    """Whether a method does what it should, and what it does in words."""

    passed: bool
    words: str


def engine_verdict(windows: Windows, precision: str, must_be_bitwise: bool) -> Verdict:
    """Of one of our own engines: every window within the tolerance, and equal to the manual one where it must be."""
    tolerance = TOLERANCES[precision]
    error = largest_error(windows)
    losses = [(window["logged_loss"], window["true_loss"]) for window in windows.values()]
    if not error <= tolerance:
        return Verdict(False, f"WRONG: {_list_of_errors(windows, tolerance)}; the tolerance is {tolerance:.0e}")
    if not all(abs(logged - true) <= tolerance * abs(true) for logged, true in losses):
        return Verdict(False, "WRONG: the loss is not that of the window")
    if all(window.get("bitwise_equal", True) for window in windows.values()):
        return Verdict(True, "exact")
    return Verdict(not must_be_bitwise, "exact, but not bit for bit the manual engine")


def peer_verdict(windows: Windows) -> Verdict:
    """Of a peer, measured in float64: which windows it gets wrong, and how."""
    logged, true = windows["full"]["logged_loss"], windows["full"]["true_loss"]
    wrong_loss = logged is not None and abs(logged / true - 1) > 5e-3
    loss = f"logged loss {logged / true:.2f}×" if wrong_loss else ""
    if largest_error(windows) <= TOLERANCES["float64"]:
        return Verdict(not wrong_loss, f"exact{', but ' if loss else ''}{loss}")
    return Verdict(False, "; ".join(filter(None, [_list_of_errors(windows, TOLERANCES["float64"]), loss])))


def overall(engines: list[dict[str, Any]]) -> Verdict:
    """The certificate's verdict: on our own engines alone."""
    failed = [row for row in engines if not row["passed"]]
    if failed:
        worst, others = failed[0], f" ({len(failed)} of {len(engines)} checks failed)"
        return Verdict(
            False, f"NOT certified: {worst['engine']} engine in {worst['precision']}: {worst['verdict']}{others}."
        )
    bitwise = all(w.get("bitwise_equal", True) for row in engines for w in row["windows"].values())
    equal = "manual and Accelerate engine are equal bit for bit" if bitwise else "both engines pass"
    return Verdict(True, f"Certified: accumulated gradients are those of the full batch; {equal}.")


def certificate_rows(certificate: dict[str, Any]) -> list[list[str]]:
    """One row of text per precision of our engines, then one per peer, under ``COLUMNS``.

    A window's number is the norm of its gradient over that of the full batch: 1.0000 is right. Logged loss is relative
    to the true one, in the full window.
    """
    rows = []
    for precision in dict.fromkeys(row["precision"] for row in certificate["engines"]):
        engines = [row for row in certificate["engines"] if row["precision"] == precision]
        worst = max(engines, key=lambda row: (not row["passed"], _sortable(largest_error(row["windows"]))))
        words = worst["verdict"]
        if all(row["verdict"] == "exact" for row in engines):
            words = "exact, both engines bit for bit"
        elif not worst["passed"]:
            words = f"{worst['engine']} engine {words}"
        rows.append([f"Batchscope, {precision}", *_numbers(worst["windows"]), words])
    for peer in certificate["peers"]:
        if "reason" in peer:
            rows.append([peer["name"], *["–"] * (len(COLUMNS) - 2), peer["reason"]])
        else:
            rows.append([f"{peer['name']} {peer['version']}", *_numbers(peer["windows"]), peer["verdict"]])
    return rows


def setting_in_words(certificate: dict[str, Any]) -> str:
    """The windows and the hardware, in one sentence."""
    windows = certificate["windows"]
    return (
        f"Micro-batches of {certificate['micro_batch']}, {certificate['accumulation_steps']} accumulation steps. "
        + "; ".join(
            f"{WINDOWS[name]}: {' + '.join(map(str, sizes))} = {sum(sizes)} examples" for name, sizes in windows.items()
        )
        + f". Dropout off; peers in float64; {certificate['device']}."
    )


def terminal_table(certificate: dict[str, Any]) -> str:
    """The certificate for a terminal: setting, aligned table, verdict."""
    rows = [[column.removeprefix("#") for column in COLUMNS], *certificate_rows(certificate)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    aligned = [column.startswith("#") for column in COLUMNS]
    lines = [
        "  ".join(
            [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, aligned, strict=False)]
            + [row[-1]]
        )
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    note = (
        "Windows: norm of the gradient over that of the full batch. Largest error: max|a−b| / max|b| over the windows."
    )
    return "\n".join([setting_in_words(certificate), "", *lines, "", note, certificate["verdict"]])


def largest_error(windows: Windows) -> float:
    """The largest of the windows' largest differences; NaN if one of them is not finite."""
    errors = [window["largest_difference"] for window in windows.values()]
    return math.nan if None in errors else max(errors)


def _list_of_errors(windows: Windows, tolerance: float) -> str:
    wrong = [
        f"{WINDOWS[name]} {_in_words(window)}"
        for name, window in windows.items()
        if window["largest_difference"] is None or window["largest_difference"] > tolerance
    ]
    return ", ".join(wrong)


def _in_words(window: Mapping[str, Any]) -> str:
    if window["largest_difference"] is None:
        return "not finite"
    if abs(window["norm_ratio"] - 1) > 0.1:
        return f"{window['norm_ratio']:.2f}×{'' if window['cosine'] > SAME_DIRECTION else ' and turned'}"
    return f"off by {100 * window['relative_l2']:.2g}%"


def _numbers(windows: Windows) -> list[str]:
    ratios = [windows[name]["norm_ratio"] for name in WINDOWS]
    full = windows["full"]
    logged = "–" if full["logged_loss"] is None else f"{full['logged_loss'] / full['true_loss']:.4f}"
    return [*("not finite" if r is None else f"{r:.4f}" for r in ratios), f"{largest_error(windows):.1e}", logged]


def _sortable(error: float) -> float:
    return math.inf if math.isnan(error) else error

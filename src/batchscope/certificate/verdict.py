"""A certificate in words and as a table. Pure, no torch: the report and the terminal show the same rows."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from batchscope.certificate.records import Certificate, EngineRow, WindowMeasures

TOLERANCES = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 2e-2}
"""Precision → largest difference from the full batch's gradient, relative to its largest element, that passes.

float64 checks the mathematics. float32 and bfloat16 need room for rounding, which grows where the examples' gradients
nearly cancel: MiniLM, before training, is 50 times above the unit of rounding in float64 and in float32.
"""
WINDOWS = {"full": "full window", "tail": "tail window", "ragged": "ragged window"}
COLUMNS = ["method", *(f"#{name}" for name in WINDOWS.values()), "#largest error", "#logged loss", "verdict"]
SAME_DIRECTION = 0.9999
"""From this cosine on, a wrong gradient is described by its length alone."""

Windows = Mapping[str, WindowMeasures]


class Verdict(NamedTuple):
    """Whether a method is right, and what it does in words."""

    passed: bool
    words: str


def engine_verdict(windows: Windows, tolerance: float, must_be_bitwise: bool) -> Verdict:
    """Judge one of our own engines: each window within the tolerance, and equal to the manual engine where required."""
    if not largest_error(windows) <= tolerance:
        return Verdict(False, f"WRONG: {_list_of_errors(windows, tolerance)}; the tolerance is {tolerance:.0e}")
    # A loss in the study's precision is a sum of few numbers: it rounds less than a gradient.
    if not all(abs(_loss_ratio(window) - 1) <= max(tolerance, TOLERANCES["float64"]) for window in windows.values()):
        return Verdict(False, "WRONG: the loss is not that of the window")
    if all(window.get("bitwise_equal", True) for window in windows.values()):
        return Verdict(True, "exact")
    return Verdict(not must_be_bitwise, "exact, but not bit for bit the manual engine")


def peer_verdict(windows: Windows, tolerance: float) -> Verdict:
    """Judge a peer, measured in float64: which windows are wrong, and how."""
    ratio = _loss_ratio(windows["full"])
    loss = f"logged loss {ratio:.2f}×" if abs(ratio - 1) > 5e-3 else ""
    if largest_error(windows) <= tolerance:
        return Verdict(not loss, f"exact{', but ' if loss else ''}{loss}")
    return Verdict(False, "; ".join(filter(None, [_list_of_errors(windows, tolerance), loss])))


def overall(engines: list[EngineRow], not_measured: Mapping[str, str]) -> Verdict:
    """Judge the certificate by our own engines alone; ``not_measured`` is precision → the reason why it has no rows."""
    if not engines:
        return Verdict(False, "NOT certified: the encoder can be measured in no precision.")
    failed = [row for row in engines if not row["passed"]]
    if failed:
        worst, others = failed[0], f" ({len(failed)} of {len(engines)} checks failed)"
        return Verdict(
            False, f"NOT certified: {worst['engine']} engine in {worst['precision']}: {worst['verdict']}{others}."
        )
    bitwise = all(w.get("bitwise_equal", True) for row in engines for w in row["windows"].values())
    equal = "manual and Accelerate engine are equal bit for bit" if bitwise else "both engines pass"
    without = "".join(f" Not measured in {name}: {reason}." for name, reason in not_measured.items())
    return Verdict(True, f"Certified: accumulated gradients are those of the full batch; {equal}.{without}")


def certificate_rows(certificate: Certificate) -> list[list[str]]:
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
    for precision, reason in certificate["not_measured"].items():
        rows.append([f"Batchscope, {precision}", *["–"] * (len(COLUMNS) - 2), reason])
    for peer in certificate["peers"]:
        if "reason" in peer:
            rows.append([peer["name"], *["–"] * (len(COLUMNS) - 2), peer["reason"]])
        else:
            rows.append([f"{peer['name']} {peer['version']}", *_numbers(peer["windows"]), peer["verdict"]])
    return rows


def setting_in_words(certificate: Certificate) -> str:
    """The windows and the hardware, in one sentence."""
    windows = certificate["windows"]
    return (
        f"Micro-batches of {certificate['micro_batch']}, {certificate['accumulation_steps']} accumulation steps. "
        + "; ".join(
            f"{WINDOWS[name]}: {' + '.join(map(str, sizes))} = {sum(sizes)} examples" for name, sizes in windows.items()
        )
        + f". Dropout off; peers in float64; {certificate['device']}."
    )


def terminal_table(certificate: Certificate) -> str:
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
    finite = [error for error in errors if error is not None]
    return max(finite) if len(finite) == len(errors) else math.nan


def _list_of_errors(windows: Windows, tolerance: float) -> str:
    wrong = [
        f"{WINDOWS[name]} {_in_words(window)}"
        for name, window in windows.items()
        if window["largest_difference"] is None or window["largest_difference"] > tolerance
    ]
    return ", ".join(wrong)


def _in_words(window: WindowMeasures) -> str:
    ratio, cosine, relative = window["norm_ratio"], window["cosine"], window["relative_l2"]
    if ratio is None or cosine is None or relative is None:
        return "not finite"
    if abs(ratio - 1) > 0.1:
        return f"{ratio:.2f}×{'' if cosine > SAME_DIRECTION else ' and turned'}"
    return f"off by {100 * relative:.2g}%" if relative > 1e-3 else f"off by {relative:.1e} of its length"


def _numbers(windows: Windows) -> list[str]:
    ratios = [windows[name]["norm_ratio"] for name in WINDOWS]
    full = windows["full"]
    logged = "–" if full["logged_loss"] is None else f"{_loss_ratio(full):.4f}"
    return [*("not finite" if r is None else f"{r:.4f}" for r in ratios), f"{largest_error(windows):.1e}", logged]


def _loss_ratio(window: WindowMeasures) -> float:
    """Logged over true loss; 1 where none is logged, NaN where the true one is not finite."""
    logged, true = window["logged_loss"], window["true_loss"]
    if logged is None:
        return 1.0
    return logged / true if true else math.nan


def _sortable(error: float) -> float:
    return math.inf if math.isnan(error) else error

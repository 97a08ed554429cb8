"""One visual language for all figures: type, paper, ink, the scale of batch sizes, how a file is saved.

Importing it sets matplotlib's defaults for the process. Figures are drawn on the Agg canvas without pyplot.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray
from PIL import Image

from batchscope.files import atomic
from batchscope.report.glyphs import font_families
from batchscope.report.spec import FiguresSpec

AS_MUCH = (0.5, 2.0)
"""Ratios that an axis of ratios shows in any case."""
NARROW = 4
"""Ratio of the ends of a logarithmic axis below which it has the ticks of a linear one."""
INK, MUTED, RULE, PAPER = "#22262e", "#6b717c", "#dfe1e5", "#ffffff"
PIXELS_PER_INCH = 160
LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"
"""In front of a title: one that begins with Arabic or Hebrew would be laid out from right to left as a whole."""
CHARACTERS_PER_INCH = 17
KEY: dict[str, Any] = {
    "handlelength": 2.8,
    "columnspacing": 1.5,
    "borderaxespad": 0,
    "borderpad": 0,
    "handletextpad": 0.6,
}
POLICY_MARKERS = ("o", "D", "s", "^", "v", "P")
POLICY_LINES: tuple[LineStyleType, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))

BATCH_SCALE = LinearSegmentedColormap.from_list("batch", ["#e3a21a", "#cf5c46", "#8a2f6b", "#241d57"])
"""Small to large batch: darkness rises steadily, so the order survives grey print and colour blindness."""
DARK_BATCH_SCALE = LinearSegmentedColormap.from_list("dark batch", ["#ffd98a", "#f2937a", "#d479b4", "#8f8cf0"])
"""The same hues on dark paper; lightness falls from small to large as well."""
ATTENTION_SCALE = LinearSegmentedColormap.from_list(
    "attention", ["#fdfcf7", "#dcebe4", "#94c8c2", "#4896ab", "#235f8c", "#15284f"]
)
DIFFERENCE_SCALE = LinearSegmentedColormap.from_list(
    "difference", ["#0c5677", "#7db6c9", "#fdfcf7", "#e3a27d", "#9c3d12"]
)
"""Less to more attention; no change is as light as no attention."""
SWEEP_COLOURS = ("#fdfbf5", "#c9dfc4", "#6fae97", "#2d7183", "#1c3a5e")
SWEEP_SCALE = LinearSegmentedColormap.from_list("sweep", SWEEP_COLOURS)
"""Low to high validation accuracy."""
NOT_ALLOWED: dict[str, Any] = {"facecolor": "#e4e2dd", "edgecolor": "#b3afa6", "hatch": "//////", "linewidth": 0.0}
"""How cells look that a sliding layer leaves out: grey and hatched, on no colour scale."""

mpl.rcParams.update(
    {
        "font.family": font_families(),
        "font.size": 8.5,
        "text.color": INK,
        "text.parse_math": False,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelsize": 8.5,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "figure.constrained_layout.use": True,
        "hatch.linewidth": 0.5,
        "svg.hashsalt": "batchscope",
    }
)


def batch_colours(spec: FiguresSpec) -> dict[int, str]:
    """Target batch size → colour: ``report.palette`` in the config's order, or the scale from small to large."""
    sizes = spec.batch_sizes
    if spec.palette:
        return dict(zip(sizes, spec.palette, strict=False))
    return {size: to_hex(BATCH_SCALE(rank / max(1, len(sizes) - 1))) for rank, size in enumerate(sorted(sizes))}


def dark_batch_colours(spec: FiguresSpec) -> dict[int, str]:
    """Target batch size → colour on dark paper; those of ``report.palette`` are kept as they are."""
    sizes = sorted(spec.batch_sizes)
    if spec.palette:
        return batch_colours(spec)
    return {size: to_hex(DARK_BATCH_SCALE(rank / max(1, len(sizes) - 1))) for rank, size in enumerate(sizes)}


class PolicyMark(NamedTuple):
    """How an LR policy looks."""

    marker: str
    line: LineStyleType
    filled: bool


def policy_marks(spec: FiguresSpec) -> dict[str, PolicyMark]:
    """LR policy → its marker and line. The first policy is filled, the others are hollow."""
    return {
        policy: PolicyMark(
            POLICY_MARKERS[rank % len(POLICY_MARKERS)], POLICY_LINES[rank % len(POLICY_LINES)], filled=rank == 0
        )
        for rank, policy in enumerate(spec.policy_names)
    }


def attention_norm(largest: float, n: int) -> PowerNorm:
    """Colours by the cube root of the weight: a sink near 1 and the even 1/n beside it both stay visible.

    The darkest colour is the ``largest`` weight of the maps of ``n`` tokens, but at least ``DARKEST_OVER_EVEN`` / n, so
    that uniform attention is light and not the maximum.
    """
    return PowerNorm(1 / 3, vmin=0, vmax=max(largest, min(1.0, DARKEST_OVER_EVEN / n)))


DARKEST_OVER_EVEN = 27
"""Even attention gets at most the cube root of its inverse, a third of the scale."""
ATTENTION_NORM_IN_WORDS = "Colour follows the cube root of the weight."
ATTENTION_TICKS = (0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def cube_root(difference: NDArray[np.floating]) -> NDArray[np.floating]:
    """Differences of weights as they are coloured: small ones stay visible beside a sink's."""
    roots: NDArray[np.floating] = np.cbrt(difference)
    return roots


def difference_bar(figure: Figure, axes: Any, largest: float) -> None:
    """The colour bar of difference maps whose values are ``cube_root`` of up to ``largest``."""
    ends = [tick for tick in ATTENTION_TICKS if 0 < tick <= largest] or [largest]
    shown = [*(-tick for tick in reversed(ends)), 0.0, *ends]
    scale = ScalarMappable(Normalize(-np.cbrt(largest), np.cbrt(largest)), DIFFERENCE_SCALE)
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, aspect=30, pad=0.015, ticks=list(np.cbrt(shown)))
    bar.outline.set_visible(False)
    bar.ax.set_yticklabels([f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0" for tick in shown])
    bar.ax.tick_params(length=2, labelsize=7.5, color=MUTED)
    bar.set_label("difference of the attention weight")


def attention_bar(figure: Figure, axes: Any, norm: PowerNorm) -> None:
    """The colour bar of one or more maps."""
    ticks = [tick for tick in ATTENTION_TICKS if tick <= float(norm.vmax or 1)]
    bar = figure.colorbar(ScalarMappable(norm, ATTENTION_SCALE), ax=axes, shrink=0.7, aspect=30, pad=0.015, ticks=ticks)
    bar.outline.set_visible(False)
    bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks])
    bar.ax.tick_params(length=2, labelsize=7.5, color=MUTED)
    bar.set_label("attention weight")


def frame(figure: Figure, title: str, note: str, key: Sequence[Artist] = ()) -> None:
    """Title and key above the panels, a quiet note below; the panels get the height between."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(note, int(width * CHARACTERS_PER_INCH))
    top, bottom = (0.56 if key else 0.34) / height, (0.1 + 0.15 * len(lines)) / height
    left = 0.08 / width
    figure.text(left, 1 - 0.08 / height, LEFT_TO_RIGHT + title, va="top", fontsize=10.5, fontweight="bold")
    figure.text(left, 0.05 / height, "\n".join(lines), va="bottom", fontsize=7.5, color=MUTED, linespacing=1.25)
    if key:
        corner = (left, 1 - 0.32 / height)
        figure.legend(handles=list(key), loc="upper left", bbox_to_anchor=corner, ncols=len(key), **KEY)
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(rect=(0, bottom, 1, 1 - top - bottom))


def batch_key(colours: dict[int, str]) -> list[Artist]:
    """The key of target batch sizes."""
    return [Line2D([], [], color=colour, linewidth=2.4, label=f"{size:,}") for size, colour in colours.items()]


def policy_key(marks: Mapping[str, PolicyMark], with_lines: bool = True) -> list[Artist]:
    """The key of LR policies: their markers, and their lines where the figure joins the marks."""
    look: dict[str, Any] = {"color": MUTED, "linewidth": 1, "markeredgewidth": 1.4, "markersize": 6}
    return [
        Line2D(
            [],
            [],
            label=f"{policy} LR policy",
            marker=mark.marker,
            linestyle=mark.line if with_lines else "none",
            fillstyle="full" if mark.filled else "none",
            **look,
        )
        for policy, mark in marks.items()
    ]


def not_allowed_key() -> list[Artist]:
    """The key of the cells outside a window."""
    return [Patch(label="not allowed: outside the layer's window", **NOT_ALLOWED)]


def open_axis(axis: Axes) -> None:
    """An axis for a map: no grid, no spines, no ticks."""
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def plain_log(axis: Axis) -> None:
    """Tick labels such as 0.5, 1 and 2 on a logarithmic axis whose marks are drawn.

    Those that matplotlib chooses are mathematics, which no figure parses.
    """
    low, high = axis.get_view_interval()
    narrow = low > 0 and high / low < NARROW
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))


def ratio_axis(axis: Axes, ratios: pd.DataFrame) -> None:
    """An axis of ratios around 1, in powers of two, with every ratio and the ends of its interval in sight."""
    axis.axvline(1, color=INK, linewidth=0.9, zorder=1)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(LogLocator(base=2, subs=(1.0,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ends = ratios[["low", "high", "ratio"]].astype(float).to_numpy()
    ends = ends[np.isfinite(ends) & (ends > 0)]
    low, high = (min(AS_MUCH[0], ends.min()), max(AS_MUCH[1], ends.max())) if len(ends) else AS_MUCH
    axis.set_xlim(low / 1.15, high * 1.15)


def save(figure: Figure, path: Path, colours: int = 256) -> None:
    """Write the figure atomically: an SVG, or a PNG of at most ``colours`` colours, which line art and maps fit in.

    The first file lays the figure out; one of the other format then shows the same layout.
    """
    with atomic(path) as temporary:
        # Drawn once: savefig would draw twice, and write a PNG that is only read again.
        if path.suffix == ".svg":
            figure.set_dpi(mpl.rcParams["figure.dpi"])  # of the pictures in it
            FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})  # type: ignore[no-untyped-call]
        else:
            figure.set_dpi(PIXELS_PER_INCH)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()  # type: ignore[no-untyped-call]
            pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
            drawn = Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")
            image = drawn.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            image.save(temporary, format="PNG", optimize=True)
        figure.set_layout_engine("none")

"""The look of every figure: colors, fonts, titles, ticks and the words in them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
INK, QUIET, FAINT = "#2b2f36", "#7a828e", "#e4e7eb"
BLUE, ORANGE, RED = "#3b6fb6", "#e08a2e", "#c8443c"
# Tableau's ten, in an order that keeps neighboring classes apart.
CLASSES = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#76b7b2",
    "#edc948",
    "#9c755f",
    "#ff9da7",
    "#5f6772",
)
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 10,
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "figure.titlesize": 11,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "savefig.facecolor": "white",
    "text.color": INK,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}


def styled(function):
    """Run a figure function under the house style and nothing of the user's own."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        import matplotlib

        style: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
        with matplotlib.rc_context(style):
            return function(*args, **kwargs)

    return run


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Return an empty figure, inches wide and high, without touching pyplot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09) if constrained else None
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def set_title(axes: Axes, title: str, notes: Sequence[str] = ()) -> None:
    """Set the title, and under it, smaller, what else must be said."""
    axes.set_title(title, pad=8 + 12 * len(notes))
    if notes:
        axes.annotate(
            "\n".join(notes),
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(0.0, 7.0),
            textcoords="offset points",
            va="bottom",
            color=QUIET,
            fontsize=8,
            linespacing=1.15,
        )


def few_ticks(count: int, *, integer: bool = False):
    """Return a locator of at most `count` intervals with round ends."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10] if integer else [1, 2, 2.5, 5, 10]
    return MaxNLocator(count, integer=integer, steps=steps, min_n_ticks=1 if integer else 2)


def count(n: int, noun: str) -> str:
    """Write a number of things: "1 code", "2,000 codes"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")

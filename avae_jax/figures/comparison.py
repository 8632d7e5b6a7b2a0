"""Numbers of several methods side by side, a panel per number."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avae_jax.figures.style import BLUE, FAINT, INK, QUIET, few_ticks, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
# Values that span more are drawn on a logarithmic axis where they are positive.
_LOG_FROM = 20.0
# Characters of a title that a panel is wide enough for.
_TITLE = 38


class Panel(NamedTuple):
    """One number of several methods.

    Attributes:
      title: what it is, with its unit.
      values: method -> its values, one per seed; none where it was not computed.
      nulls: method -> what stands beside it; methods without are left out.
      beside: what that is: "null", "floor" or "ceiling".
      better: "lower" or "higher"; empty where neither is good.
    """

    title: str
    values: Mapping[str, Sequence[float]]
    nulls: Mapping[str, float]
    beside: str = "null"
    better: str = ""


@styled
def make_comparison(panels: Sequence[Panel]) -> Figure:
    """Draw each number in a panel: a row per method, a dot per seed, a bar at their mean.

    The null, floor or ceiling is a dashed line, by method where they differ. A method without a
    number says so.

    Args:
      panels: of the same methods, at least one.

    Returns:
      The figure.

    Raises:
      ValueError: no panel.
    """
    if not panels:
        raise ValueError("panels must hold at least one, got none: give what is to be drawn")
    names = list(panels[0].values)
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    longest = max(map(len, names))
    height = 0.75 + 0.22 * len(names)
    figure = new_figure(0.075 * longest + 2.6 * columns, height * lines + 0.1)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, axes in zip(panels, grid.flat, strict=False):
        _draw(axes, panel, names)
    for axes in [*grid.flat][len(panels) :]:
        axes.remove()
    return figure


def _draw(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    finite = {name: _finite(panel.values.get(name, ())) for name in names}
    nulls = {name: null for name, null in panel.nulls.items() if np.isfinite(null)}
    shown = np.concatenate([*finite.values(), np.array([*nulls.values()])])
    # A null may be negative, where what it belongs to spans decades.
    low, high = (float(np.min(shown)), float(np.max(shown))) if len(shown) else (0.0, 1.0)
    is_log = low > 0.0 and high > _LOG_FROM * low
    if is_log:
        axes.set_xscale("log")
    for row, name in enumerate(names):
        values = finite[name]
        if len(values):
            axes.plot(values, np.full(len(values), row), "o", color=BLUE, ms=3.4, alpha=0.75, mew=0)
            mean = float(values.mean())
            axes.plot([mean, mean], [row - 0.32, row + 0.32], color=INK, lw=1.6)
        else:
            axes.annotate(
                "not computed", (0.5, row), xycoords=("axes fraction", "data"), ha="center",
                va="center", fontsize=7, color=QUIET,
            )  # fmt: skip
        if name in nulls:
            axes.plot([nulls[name]] * 2, [row - 0.5, row + 0.5], color=QUIET, ls="--", lw=1.0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(axis="y", color=FAINT)
    if is_log:
        _few_powers(axes, low, high)
    else:
        axes.xaxis.set_major_locator(few_ticks(4))
    arrow = {"lower": "← better", "higher": "better →"}.get(panel.better, "")
    title = textwrap.fill(panel.title, _TITLE, break_on_hyphens=False)
    axes.set_title(title, fontsize=8.5, pad=4)
    beside = f"dashed: {panel.beside}" if nulls else ""
    axes.set_xlabel("      ".join(filter(None, (beside, arrow))), fontsize=7.5, color=QUIET)


def _few_powers(axes: Axes, low: float, high: float) -> None:
    """Mark a logarithmic axis at powers of ten, and at 2 and 5 between them where there is room."""
    from matplotlib.ticker import LogLocator, NullLocator

    subs = (1.0, 2.0, 5.0) if high < 1e2 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _finite(values: Sequence[float]) -> np.ndarray:
    x = np.asarray([*values], np.float64)
    return x[np.isfinite(x)]

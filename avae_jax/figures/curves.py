"""Numbers along a line: training curves, and precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avae_jax.figures.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    RED,
    few_ticks,
    new_figure,
    styled,
)
from avae_jax.terms import Term, Terms, caption, null_key, null_names, split_name
from avae_jax.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What rows hold beside metrics.
_COUNTERS = ("step", "epoch")


class _Line(NamedTuple):
    """One column of the rows: its steps and values, NaN where nothing finite was logged."""

    steps: np.ndarray
    values: np.ndarray


@styled
def make_training_curves(
    rows: Sequence[Mapping[str, Any]], *, terms: Terms | None = None
) -> Figure:
    """Draw the metrics of a run against the step, one small panel each.

    `train/x` and `validation/x` share a panel, and so does their null value, a dashed line; a
    number of neither split is a single curve, drawn as logged. Each legend gives the last values.
    What is never anything but zero, or nothing above its `least`, gets no panel.

    Args:
      rows: dicts with `step`, as `training.writers.read_metrics` returns them; a row without a key
        leaves no gap, None or NaN does.
      terms: name, without the split -> caption, unit, scale, null value; None for a number that
        gets no panel. The panels come in this order, those of other names after them, in the order
        in which the rows bring them.

    Returns:
      The figure.

    Raises:
      ValueError: no row has a metric to draw.
    """
    terms = terms or {}
    panels = _panels(rows, terms)
    if not panels:
        raise ValueError(
            f"rows must hold a metric to draw, got {len(rows)} rows without one: pass keys such as "
            "'train/loss'"
        )
    columns = {4: 2, 7: 4, 8: 4}.get(len(panels), min(len(panels), 3 if len(panels) <= 9 else 4))
    lines = -(-len(panels) // columns)
    figure = new_figure(3.4 * columns, 2.45 * lines + 0.2)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    keys = dict.fromkeys(key for row in rows for key in row)
    smoothed = False
    for (name, curves), axes in zip(panels.items(), grid.flat, strict=False):
        key = null_key(name, keys, terms)
        term = terms.get(name) or Term()
        null = _line(rows, key, term.factor) if key else None
        smoothed |= _draw_panel(axes, curves, null, caption(name, terms), term)
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.remove()
        elif index + columns >= len(panels):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
    if smoothed:
        text = "faint: as logged; strong: smoothed, a running mean; legends: the last values logged"
        figure.suptitle(text, x=0.01, ha="left", fontsize=8, color=QUIET)
    return figure


@styled
def make_prd(curves: Mapping[str, tuple[Any, Any]]) -> Figure:
    """Draw precision against recall.

    Args:
      curves: name -> (precision, recall), arrays of one length; a name that begins with "floor" is
        what a perfect model would reach, and drawn dashed.

    Returns:
      The figure; a perfect model's curve lies in the upper right corner.
    """
    figure = new_figure(4.6, 4.3)
    axes = figure.add_subplot()
    colors = (BLUE, ORANGE, RED, INK)
    for index, (name, (precision, recall)) in enumerate(curves.items()):
        floor = name.startswith("floor")
        color, line = (QUIET, "--") if floor else (colors[index % len(colors)], "-")
        axes.plot(recall, precision, label=name, color=color, ls=line)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.legend(loc="lower left")
    return figure


def _panels(rows: Sequence[Mapping[str, Any]], terms: Terms) -> dict[str, dict[str, _Line]]:
    """Group the columns by panel, in the order of the panels: name -> split -> curve."""
    keys = dict.fromkeys(key for row in rows for key in row if key not in _COUNTERS)
    nulls = null_names(keys, terms)
    panels: dict[str, dict[str, _Line]] = {}
    for key in keys:
        split, name = split_name(key)
        if name in nulls or terms.get(name, Term()) is None:
            continue
        line = _line(rows, key, (terms.get(name) or Term()).factor)
        if np.isfinite(line.values).any():
            panels.setdefault(name, {})[split] = line
    order = [name for name in terms if name in panels]
    order += [name for name in panels if name not in terms]
    return {
        name: panels[name]
        for name in order
        if any(_is_worth_drawing(line, terms.get(name) or Term()) for line in panels[name].values())
    }


def _is_worth_drawing(line: _Line, term: Term) -> bool:
    return bool(np.nanmax(np.abs(line.values)) > term.factor * term.least)


def _line(rows: Sequence[Mapping[str, Any]], key: str, factor: float) -> _Line:
    pairs = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
    steps = np.array([step for step, _ in pairs], dtype=np.float64)
    values = np.array(
        [np.nan if value is None else float(value) for _, value in pairs], dtype=np.float64
    )
    return _Line(steps, factor * np.where(np.isfinite(values), values, np.nan))


def _draw_panel(
    axes: Axes, curves: Mapping[str, _Line], null: _Line | None, title: str, term: Term
) -> bool:
    """Draw one metric; return whether a curve was smoothed."""
    shown, settled = [], []
    smoothed = False
    # The first fifth of a run is where the curves come from, not where they are going.
    ends = [bound for line in curves.values() for bound in (line.steps.min(), line.steps.max())]
    begin = min(ends) + 0.2 * (max(ends) - min(ends))
    for split, (steps, values) in sorted(curves.items()):
        finite = np.isfinite(values)
        shown.append(values[finite])
        settled.append(values[finite & (steps >= begin)])
        color = ORANGE if split == "validation" else BLUE
        # What is of no split is set, not measured, and may move in steps: a running mean would
        # make ramps of them.
        smooth = _smooth(values) if split else None
        if smooth is not None:
            axes.plot(steps, values, color=color, alpha=0.35, lw=0.8)
            smoothed = True
        marker = "o" if np.count_nonzero(finite) <= 12 else ""
        label = f"{split or 'last'} {_number(float(values[finite][-1]))}"
        curve = values if smooth is None else smooth
        axes.plot(steps, curve, color=color, label=label, marker=marker, ms=2.8)
        if term.lowest and split == "validation":
            best = int(np.nanargmin(values))
            label = f"best {_number(float(values[best]))}, step {steps[best]:,.0f}"
            axes.plot(steps[best], values[best], "o", color=INK, mfc="white", ms=5, label=label)
    values, late = np.concatenate(shown), np.concatenate(settled)
    if null is not None and np.isfinite(null.values).any():
        steps, level = (column[np.isfinite(null.values)] for column in null)
        style: Any = {"color": INK, "ls": "--", "lw": 1.0, "label": f"null {_number(level[-1])}"}
        if np.ptp(level) == 0.0:
            axes.axhline(level[0], **style)
        else:
            axes.plot(steps, level, **style)
        values, late = np.append(values, level), np.append(late, level)
    axes.set_title(title, fontsize=9)
    cut = _scale_axis(axes, values, late, log=term.log)
    if cut:
        axes.set_title(cut, loc="right", fontsize=7.5, color=QUIET)
    axes.xaxis.set_major_locator(few_ticks(5, integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: _thousands(step))
    axes.legend(loc="best", handlelength=1.4, borderaxespad=0.2)
    return smoothed


def _scale_axis(axes: Axes, values: np.ndarray, late: np.ndarray, *, log: bool) -> str:
    """Choose the axis so that the settled part of a curve can be read; say where it is cut.

    What spans more than a decade is drawn on a logarithmic axis where the term allows and all
    values are positive. Otherwise an axis that the first steps would stretch is cut.
    """
    span = float(np.ptp(values))
    if log and values.min() > 0.0 and values.max() > 10.0 * values.min():
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_yscale("log")
        # Four decades have room for the powers of ten alone.
        subs = (1.0, 2.0, 5.0) if values.max() < 1e2 * values.min() else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return ""
    axes.yaxis.set_major_locator(few_ticks(5))
    if late.size > 3 and span > 8.0 * float(np.ptp(late)) > 0.0:
        low, high = float(late.min()), float(late.max())
        bottom, top = low - 0.12 * (high - low), high + 0.6 * (high - low)
        axes.set_ylim(bottom, top)
        cuts = [f"up to {_number(float(values.max()))}"] if values.max() > top else []
        cuts += [f"down to {_number(float(values.min()))}"] if values.min() < bottom else []
        return "axis cut, goes " + " and ".join(cuts) if cuts else ""
    if span <= 1e-9 * float(np.abs(values).max()):
        middle = float(values[-1])
        axes.set_ylim(middle - 0.5 * abs(middle or 1.0), middle + 0.5 * abs(middle or 1.0))
    return ""


def _smooth(values: np.ndarray) -> np.ndarray | None:
    """Return a running mean over a fiftieth of the curve, None when there are too few points."""
    if len(values) < 150 or not np.isfinite(values).all():
        return None
    half = len(values) // 100
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _number(value: float) -> str:
    return number(float(value), typographic=True)


def _thousands(step: float) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 10000 else f"{step:g}"

"""Data that are no images: pairs of points, profiles over the features, heat strips, histograms.

`images.py` calls these for `[n, features]`, after its checks and under the house style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from avae_jax.figures.style import BLUE, INK, ORANGE, QUIET, few_ticks, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How many rows are drawn: pairs of points, points, profiles, strips.
_PAIRS, _POINTS, _PROFILES, _STRIPS = 500, 4000, 12, 64
_PROFILES_PER_ROW = 4


def make_plain_reconstructions(
    x: np.ndarray, x_recon: np.ndarray, *, title: str | None = None
) -> Figure:
    """Draw rows beside their reconstructions: points for two features, else a profile per row.

    Args:
      x: `[n, features]`; points: 500 evenly spaced, profiles: the first 12.
      x_recon: same shape.
      title: None gives the mean squared error of all rows.

    Returns:
      The figure.
    """
    if title is None:
        mse = np.mean(np.square(x - x_recon))
        title = f"Reconstructions: mean squared error {mse:.2g} per feature ({len(x):,} rows)"
    if x.shape[1] == 2:
        return _pairs(x, x_recon, title)
    return _profiles(x[:_PROFILES], x_recon[:_PROFILES], title)


def make_plain_samples(
    groups: Mapping[str, np.ndarray], *, limits: tuple[float, float], notes: Sequence[str] = ()
) -> Figure:
    """Draw sets of samples side by side.

    One feature is drawn as a histogram, two as points, more as a heat strip per sample.

    Args:
      groups: name -> `[n, features]`.
      limits: the range of the histograms' axis and of the strips' colors.
      notes: lines under the first title.

    Returns:
      The figure.
    """
    features = next(iter(groups.values())).shape[1]
    figure = new_figure(0.5 + 3.9 * len(groups), 3.9)
    grid = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=features == 2)[0]
    image = None
    for index, (axes, (name, x)) in enumerate(zip(grid, groups.items(), strict=True)):
        if features == 1:
            axes.hist(x[:, 0], bins=40, range=limits, color=BLUE, alpha=0.6, density=True)
            axes.set(xlabel="$x_1$", ylabel="density")
        elif features == 2:
            axes.plot(*_evenly(x, _POINTS).T, ".", color=BLUE, ms=2.5, alpha=0.5)
            axes.set(xlabel="$x_1$", ylabel="$x_2$")
            axes.set_aspect("equal")
        else:
            image = _strips(axes, x[:_STRIPS], limits)
        # Empty notes keep the titles of the others on the same line.
        set_title(axes, name, notes if index == 0 else [""] * len(notes))
    if image is not None:
        figure.colorbar(image, ax=list(grid), fraction=0.04, pad=0.02).outline.set_visible(False)
    return figure


def _pairs(x: np.ndarray, x_recon: np.ndarray, title: str) -> Figure:
    """Draw points of the plane, each tied to its reconstruction."""
    figure = new_figure(6.0, 5.2)
    axes = figure.add_subplot()
    kept = _evenly(x, _PAIRS), _evenly(x_recon, _PAIRS)
    segments = np.stack(kept, axis=1)
    axes.plot(*segments.transpose(2, 1, 0), color=QUIET, lw=0.5, alpha=0.6)
    axes.plot(*kept[0].T, ".", color=INK, ms=3, alpha=0.7, label="original")
    axes.plot(*kept[1].T, ".", color=ORANGE, ms=3, alpha=0.9, label="reconstruction")
    axes.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="best")
    return figure


def _profiles(x: np.ndarray, x_recon: np.ndarray, title: str) -> Figure:
    """Draw a small panel per row: its features, and over them the reconstruction's."""
    columns = min(len(x), _PROFILES_PER_ROW)
    lines = -(-len(x) // columns)
    figure = new_figure(2.3 * columns, 0.5 + 1.35 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    order = np.arange(x.shape[1])
    marker = "o" if x.shape[1] <= 16 else ""
    for index, axes in enumerate(grid.flat):
        if index >= len(x):
            axes.remove()
            continue
        axes.plot(order, x[index], color=QUIET, lw=1.8, marker=marker, ms=3.5)
        axes.plot(order, x_recon[index], color=ORANGE, lw=1.1, marker=marker, ms=2.2)
        axes.xaxis.set_major_locator(few_ticks(4, integer=True))
        axes.yaxis.set_major_locator(few_ticks(4))
        # The panel below may be missing, and its axis with it.
        if index + columns >= len(x):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("feature")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.legend(
        handles=grid[0, 0].get_lines(),
        labels=["original", "reconstruction"],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _strips(axes: Axes, x: np.ndarray, limits: tuple[float, float]):
    """Draw samples as the rows of a matrix and return its image."""
    image = axes.imshow(
        x,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=limits[0],
        vmax=limits[1],
    )
    axes.grid(visible=False)
    axes.set(xlabel="feature", ylabel="sample")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(few_ticks(6, integer=True))
    return image


def _evenly(x: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many rows, evenly spaced."""
    return x[np.linspace(0, len(x) - 1, min(len(x), most)).astype(int)]

"""Codes against their prior: scatter, planes, radius, covariance, spectrum.

The prior that figures are drawn for is N(0, s^2 I), given by its standard deviation s, `prior_std`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from avae_jax.checks import check_positive
from avae_jax.figures.style import (
    BLUE,
    CLASSES,
    INK,
    ORANGE,
    QUIET,
    count,
    few_ticks,
    new_figure,
    set_title,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Circles are drawn around these shares of the prior.
_MASSES = (0.5, 0.9, 0.99)
_PERCENT = (50, 90, 99)
# That many standard deviations hold 90% of a normal variable.
_CENTRAL_90 = 1.6448536269514722
# Points drawn at most: more take long and only blacken the middle.
_SCATTERED, _SCATTERED_PER_PLANE = 8000, 6000
# Scales whose logarithms differ by less are drawn as one.
_SAME_SCALE = 0.02
# Labels of more values than this are numbers, not classes.
_MOST_CLASSES = 20


@styled
def make_latent_scatter(z, *, labels=None, prior_std: float | None = 1.0) -> Figure:
    """Draw the codes over the prior's 50, 90 and 99% circles.

    More than two dimensions are projected on the two directions of largest second moment, without
    centering, so that the prior's own center stays at the origin. One dimension is drawn as a
    histogram under the prior's density.

    Args:
      z: `[n, latent_dim]` codes; 8,000 of them at most are drawn, all are counted.
      labels: `[n]` classes (integers or strings), colored with a legend, or, when they take more
        than 20 values, numbers with a color bar; None draws all codes alike.
      prior_std: standard deviation s of the prior N(0, s^2 I), > 0; None draws no prior.

    Returns:
      The figure; its title says which share of the codes lies inside what holds 90% of the prior in
      all dimensions, a ball. A plane alone can look right while the codes lie elsewhere.

    Raises:
      ValueError: wrong shapes, no finite code, or a `prior_std` that is not positive.
    """
    z, keep, dropped = _codes(z)
    if prior_std is not None:
        prior_std = check_positive("prior_std", prior_std)
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != keep.shape:
            raise ValueError(
                f"labels must have shape {keep.shape}, got {labels.shape}: pass one label per code"
            )
        labels = labels[keep]
    if z.shape[1] == 1:
        return _latent_histogram(z[:, 0], labels, prior_std, dropped)
    points, names, notes = _largest_plane(z)
    title, radii = f"{len(z):,} codes", {}
    if prior_std is not None:
        radii = {mass: prior_std * _radius_of(mass) for mass in _MASSES}
        d, shares = z.shape[1], _shares_inside(z, prior_std)
        ball = "circle" if d == 2 else "ball"
        title = f"{shares[1]}% of {title} inside the 90% {ball} of the prior {_normal(prior_std)}"
        if d > 2:
            rows = (_PERCENT, shares, _shares_inside(points, prior_std))
            masses, whole, plane = (", ".join(map(str, row)) for row in rows)
            notes = [
                f"in {d} dimensions {whole}% of the codes inside the balls of {masses}%",
                f"{notes[0]}: {plane}% inside the circles",
            ]

    figure = new_figure(6.4, 5.6)
    axes = figure.add_subplot()
    shown = np.random.default_rng(0).permutation(len(points))[:_SCATTERED]
    size = float(np.clip(12000.0 / len(shown), 3.0, 14.0))
    _scatter(figure, axes, points[shown], None if labels is None else labels[shown], size)
    _circles(axes, radii.values())
    for mass, radius in radii.items():
        axes.annotate(
            f"{100 * mass:.0f}%",
            (0.0, radius),
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
        )
    # A few far codes must not shrink the rest to a dot.
    farthest, most = float(np.abs(points).max()), float(np.quantile(np.abs(points), 0.995))
    largest = max(radii.values(), default=0.0)
    reach = 1.06 * max(largest, min(farthest, 1.3 * max(most, largest))) or 1.0
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal")
    outside = int(np.count_nonzero(np.abs(points).max(axis=1) > reach))
    set_title(axes, title, notes + _beyond(outside) + dropped)
    return figure


@styled
def make_planes(z, planes: Mapping[str, Any], *, prior_std: float | None) -> Figure:
    """Draw the codes in several planes over the prior's 50, 90 and 99% circles.

    Args:
      z: `[n, latent_dim]` codes; 6,000 of them at most are drawn.
      planes: name -> two orthonormal directions `[2, latent_dim]`.
      prior_std: standard deviation s of the prior N(0, s^2 I), > 0; None draws no prior.

    Returns:
      The figure, one panel per plane, each under its name.

    Raises:
      ValueError: wrong shapes, no plane, no finite code, or a `prior_std` that is not positive.
    """
    z, _, dropped = _codes(z)
    if prior_std is not None:
        prior_std = check_positive("prior_std", prior_std)
    if not planes:
        raise ValueError("planes must hold at least one plane, got none: add one")
    shown = z[np.random.default_rng(0).permutation(len(z))[:_SCATTERED_PER_PLANE]]
    size = float(np.clip(9000.0 / len(shown), 2.0, 12.0))
    radii = [] if prior_std is None else [prior_std * _radius_of(mass) for mass in _MASSES]

    figure = new_figure(3.6 * len(planes), 3.9)
    grid = figure.subplots(1, len(planes), squeeze=False)[0]
    for index, (axes, (name, plane)) in enumerate(zip(grid, planes.items(), strict=True)):
        plane = np.asarray(plane, np.float64)
        if plane.shape != (2, z.shape[1]):
            raise ValueError(
                f"planes[{name!r}] must have shape (2, {z.shape[1]}), got {plane.shape}: pass two "
                "directions of the codes"
            )
        points = shown @ plane.T
        axes.scatter(*points.T, s=size, linewidths=0.0, alpha=0.5, color=BLUE)
        _circles(axes, radii)
        most = float(np.quantile(np.abs(points), 0.995))
        reach = 1.06 * (max(radii[-1], min(most, 2.5 * radii[-1])) if radii else most or 1.0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        set_title(axes, name, dropped if index == 0 else [""] * len(dropped))
    return figure


@styled
def make_radius_histogram(
    z, *, prior_std: float | None = None, distance: tuple[float, float] | None = None
) -> Figure:
    """Draw the histogram of |z| against the chi densities of the priors.

    The radius of N(0, s^2 I) has the density of s times a chi variable with latent_dim degrees of
    freedom; its square over s^2 is chi-square.

    Args:
      z: `[n, latent_dim]` codes.
      prior_std: standard deviation s of a second prior, > 0, drawn alone where it is within 2% of
        1; None draws N(0, I) only.
      distance: for the title, the Kolmogorov-Smirnov distance from the prior (the second one where
        there is one) and its null value, `radial_ks` and `radial_ks_null` of `metrics.radial_ks`;
        None counts the codes instead.

    Returns:
      The figure.

    Raises:
      ValueError: wrong shape, no finite code, or a `prior_std` that is not positive.
    """
    z, _, dropped = _codes(z)
    d = z.shape[1]
    claimed = 1.0 if prior_std is None else check_positive("prior_std", prior_std)
    priors = {1.0: (_normal(1.0), QUIET, "--")}
    # Two curves that cannot be told apart are one.
    if prior_std is not None and abs(math.log(claimed)) < _SAME_SCALE:
        priors = {}
    if prior_std is not None:
        priors[claimed] = (_normal(claimed), ORANGE, "-")
    radius = np.linalg.norm(z, axis=1)
    # chi.ppf of the tails: the axis holds the priors and the codes whole, but for far outliers.
    tails = np.sqrt(2.0 * special.gammaincinv(0.5 * d, np.array([1e-3, 1.0 - 1e-3])))
    low = min(tails[0] * min(priors), float(radius.min()))
    most = max(tails[1] * max(priors), float(np.quantile(radius, 0.999)))
    high = 1.03 * max(most, min(float(radius.max()), 1.6 * most))
    # In hundreds of dimensions all radii are large, and an axis from zero would show a spike.
    if low < 0.6 * high:
        low = 0.0

    figure = new_figure(6.0, 3.7)
    axes = figure.add_subplot()
    bins = int(np.clip(2.0 * len(z) ** (1 / 3), 12, 70))
    width = (high - low) / bins
    counts, edges = np.histogram(radius, bins=bins, range=(low, high))
    axes.stairs(
        counts / (len(radius) * width), edges, fill=True, color=BLUE, alpha=0.45, label="codes"
    )
    grid = np.linspace(low, high, 400)
    for s, (name, color, line) in priors.items():
        axes.plot(grid, _chi_density(grid / s, d) / s, color=color, ls=line, label=name, lw=1.8)
    axes.set(xlabel="|z|", ylabel="density", xlim=(low, high))
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(few_ticks(5))
    axes.legend(loc="upper right")
    title = f"Radius of {count(len(z), 'code')}"
    if distance is not None:
        value, null = distance
        title = (
            f"Radius of the codes: KS distance {value:.3f} from {priors[claimed][0]} "
            f"(null {null:.3f})"
        )
    set_title(axes, title, _beyond(int(np.count_nonzero(radius > high))) + dropped)
    return figure


@styled
def make_covariance(z, *, prior_std: float | None = None) -> Figure:
    """Draw the covariance of the codes and, beside it, its eigenvalues.

    The gray band is where the eigenvalues of a covariance from as many draws of the prior fall
    (Marchenko and Pastur 1967: s^2 (1 -+ sqrt(d/n))^2).

    Args:
      z: `[n, latent_dim]` codes, n >= 2.
      prior_std: standard deviation s of the prior, > 0. None compares with 1.

    Returns:
      The figure.

    Raises:
      ValueError: wrong shape, fewer than two finite codes, or a `prior_std` that is not positive.
    """
    z, _, dropped = _codes(z)
    if len(z) < 2:
        raise ValueError("z must have at least 2 finite codes, got 1: a covariance needs more")
    n, d = z.shape
    variance = 1.0 if prior_std is None else check_positive("prior_std", prior_std) ** 2
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)

    figure = new_figure(8.6, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    # The matrix, zero in white.
    limit = float(np.abs(covariance).max()) or 1.0
    image = left.imshow(covariance, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    left.grid(visible=False)
    left.spines[:].set_visible(False)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(few_ticks(8, integer=True))
    left.tick_params(length=0)
    left.set(xlabel="latent dimension", ylabel="latent dimension")
    bar = figure.colorbar(image, ax=left, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    off = covariance - np.diag(np.diag(covariance))
    worst = f", largest off-diagonal {np.abs(off).max():.2g}" if d > 1 else ""
    set_title(left, f"Covariance of {n:,} codes{worst}", dropped)

    # Its eigenvalues over the band of chance.
    edge = math.sqrt(d / n)
    low, high = variance * max(1.0 - edge, 0.0) ** 2, variance * (1.0 + edge) ** 2
    right.axhspan(low, high, color=QUIET, alpha=0.16, lw=0, label="sampling range of the prior")
    right.axhline(variance, color=INK, lw=1.0, ls="--", label=f"prior's variance, {variance:.3g}")
    order = np.arange(1, d + 1)
    marker = "o" if d <= 64 else ""
    right.plot(order, eigenvalues, color=BLUE, marker=marker, ms=3.5, lw=1.3, label="codes")
    right.set(xlabel="eigenvalue, largest first", ylabel="variance")
    right.xaxis.set_major_locator(few_ticks(8, integer=True))
    if d == 1:
        right.set_xlim(0.5, 1.5)
    right.set_ylim(0.0, 1.12 * max(float(eigenvalues[0]), high))
    right.legend(loc="best")
    span = f"{eigenvalues[-1]:.3g} to " if d > 1 else ""
    set_title(right, f"Eigenvalues {span}{eigenvalues[0]:.3g}")
    return figure


@styled
def make_spectrum(eigenvalues, *, prior_std: float, relevance=None) -> Figure:
    """Draw the spectrum of the codes' covariance and the decoder's response along it.

    Args:
      eigenvalues: `[latent_dim]` of the covariance of the codes, in any order.
      prior_std: standard deviation s of the prior, whose eigenvalues are all s^2, > 0.
      relevance: `[latent_dim]` shares of the decoder's response by direction, in any order and of
        any sum above zero, or None.

    Returns:
      The figure.

    Raises:
      ValueError: a `prior_std` that is not positive.
    """
    variance = check_positive("prior_std", prior_std) ** 2
    values = np.sort(np.asarray(eigenvalues, np.float64))[::-1]
    figure = new_figure(7.4 if relevance is not None else 4.2, 3.3)
    panels = figure.subplots(1, 1 if relevance is None else 2, squeeze=False)[0]
    order = np.arange(1, len(values) + 1)
    panels[0].plot(order, np.maximum(values, 1e-12), "o-", ms=3, color=BLUE, label="codes")
    if values[0] > 30.0 * values[-1]:
        panels[0].set_yscale("log")
    else:
        panels[0].set_ylim(0.0, 1.1 * max(values[0], variance))
    panels[0].axhline(variance, color=ORANGE, label="prior")
    panels[0].set(xlabel="direction", ylabel="variance")
    panels[0].legend(loc="best")
    for axes in panels:
        axes.xaxis.set_major_locator(few_ticks(8, integer=True))
    set_title(panels[0], "Covariance spectrum")
    if relevance is not None:
        shares = np.cumsum(np.sort(np.asarray(relevance, np.float64))[::-1])
        panels[1].plot(order, 100.0 * shares / shares[-1], "o-", ms=3, color=BLUE)
        panels[1].axhline(99.0, color=QUIET, ls="--")
        panels[1].set(xlabel="directions", ylabel="% of the decoder's response", ylim=(0, 103))
        set_title(panels[1], "Cumulative relevance")
    return figure


def _codes(z) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the finite codes, which rows they are, and a note for the title when some are not."""
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(
            f"z must have shape [n, latent_dim], got {z.shape}: reshape it to one row per code"
        )
    keep = np.asarray(np.isfinite(z).all(axis=1))
    bad = int(np.count_nonzero(~keep))
    if bad == len(z):
        raise ValueError(
            f"z must have a finite row, got none among {len(z)}: there is nothing to draw"
        )
    return z[keep], keep, [f"left out, not finite: {count(bad, 'code')}"] if bad else []


def _beyond(outside: int) -> list[str]:
    return [f"beyond the picture: {count(outside, 'code')}"] if outside else []


def _normal(std: float) -> str:
    shown = f"{std:.2g}" if abs(std - 1.0) >= 0.05 else f"{std:.3g}"
    return "N(0, I)" if std == 1.0 else f"N(0, {shown}² I)"


def _radius_of(mass: float) -> float:
    """Return the radius that holds a share of the standard normal of the plane."""
    return math.sqrt(-2.0 * math.log1p(-mass))


def _shares_inside(z: np.ndarray, prior_std: float) -> list[int]:
    """Return which percentages of codes lie inside the balls that hold those of the prior."""
    # The squared radius of the prior is chi-square.
    squares = 2.0 * special.gammaincinv(0.5 * z.shape[1], np.array(_MASSES))
    radius = np.linalg.norm(z, axis=1)
    return [round(100.0 * np.mean(radius <= prior_std * math.sqrt(x))) for x in squares]


def _chi_density(r: np.ndarray, d: int) -> np.ndarray:
    """Return the density of the norm of a standard normal vector in d dimensions."""
    constant = (1.0 - 0.5 * d) * math.log(2.0) - math.lgamma(0.5 * d)
    # xlogy gives the half-normal its value at r = 0 when d is 1.
    return np.exp(constant + special.xlogy(d - 1.0, np.maximum(r, 0.0)) - 0.5 * r**2)


def _largest_plane(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str], list[str]]:
    """Return the codes in the plane of largest second moment, its axes' names and a note on it."""
    if z.shape[1] == 2:
        return z, ("$z_1$", "$z_2$"), []
    eigenvalues, vectors = np.linalg.eigh(z.T @ z / len(z))
    plane = vectors[:, [-1, -2]]
    # The sign of an eigenvector is arbitrary: fix it, so that two figures can be compared.
    plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0.0, -1.0, 1.0)
    share = 100.0 * eigenvalues[-2:].sum() / max(eigenvalues.sum(), np.finfo(float).tiny)
    note = f"plane of largest variance, {share:.0f}% of the total"
    return z @ plane, ("first principal direction", "second principal direction"), [note]


def _circles(axes: Axes, radii) -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    for radius in radii:
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=INK, lw=0.9, alpha=0.75)


def _scatter(figure: Figure, axes: Axes, z: np.ndarray, labels, size: float) -> None:
    """Draw points of the plane in the colors of their labels, and say what the colors mean."""
    style = {"s": size, "linewidths": 0.0, "alpha": 0.65}
    if labels is None:
        axes.scatter(*z.T, color=BLUE, **style)
        return
    classes = np.unique(labels)
    if len(classes) > _MOST_CLASSES:
        if labels.dtype.kind not in "iuf":
            classes, labels = np.unique(labels, return_inverse=True)
        points = axes.scatter(*z.T, c=labels.astype(np.float64), cmap="viridis", **style)
        bar = figure.colorbar(points, ax=axes, fraction=0.04, pad=0.02, label="label")
        bar.outline.set_visible(False)
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
        return
    # One call with mixed colors: class by class, the last class would cover the others.
    position = np.searchsorted(classes, labels)
    axes.scatter(*z.T, color=[CLASSES[p % len(CLASSES)] for p in position], **style)
    for p, name in enumerate(classes):
        marker = "o" if p < len(CLASSES) else "s"
        axes.plot([], [], marker, color=CLASSES[p % len(CLASSES)], ms=4.5, label=str(name))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=1.0)


def _latent_histogram(z: np.ndarray, labels, prior_std: float | None, dropped: list[str]) -> Figure:
    """Draw codes of one dimension, classes stacked, under the prior's density."""
    figure = new_figure(6.0, 3.7)
    axes = figure.add_subplot()
    reach = float(np.abs(z).max()) or 1.0
    if prior_std is not None:
        reach = max(3.5 * prior_std, min(reach, 12.0 * prior_std))
    edges = np.linspace(-reach, reach, int(np.clip(2.0 * len(z) ** (1 / 3), 16, 80)) + 1)
    classes = [] if labels is None else np.unique(labels)
    if 0 < len(classes) <= _MOST_CLASSES:
        groups, names = [z[labels == name] for name in classes], [str(name) for name in classes]
        colors = [CLASSES[index % len(CLASSES)] for index in range(len(classes))]
    else:
        groups, names, colors = [z], ["codes"], [BLUE]
    floor = np.zeros(len(edges) - 1)
    for group, name, color in zip(groups, names, colors, strict=True):
        top = floor + np.histogram(group, edges)[0] / (len(z) * np.diff(edges))
        axes.stairs(top, edges, baseline=floor, fill=True, color=color, alpha=0.6, label=name)
        floor = top
    title = f"{len(z):,} codes"
    if prior_std is not None:
        grid = np.linspace(-reach, reach, 400)
        density = np.exp(-0.5 * (grid / prior_std) ** 2) / (prior_std * math.sqrt(2.0 * math.pi))
        axes.plot(grid, density, color=INK, label=f"prior {_normal(prior_std)}")
        inside = 100.0 * float(np.mean(np.abs(z) <= _CENTRAL_90 * prior_std))
        title = f"{inside:.0f}% of {title} inside the central 90% of the prior {_normal(prior_std)}"
    axes.set(xlabel="z", ylabel="density", xlim=(-reach, reach))
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    set_title(axes, title, _beyond(int(np.count_nonzero(np.abs(z) > reach))) + dropped)
    return figure

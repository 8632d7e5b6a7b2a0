"""Figures of a run: arrays in, a PNG out.

Every figure has two functions: `make_*` builds and returns a `matplotlib.figure.Figure`, `save_*`
makes it and writes a PNG. matplotlib is imported when the first figure is made, its pyplot state is
left alone, and no display is needed.

Images are `[n, h, w, c]`, floats in `value_range` or uint8 in 0..255; with c neither 1 nor 3 the
mean of the channels is drawn in grey. Plain data is `[n, features]`. Codes are `[n, latent_dim]`;
rows that are not finite are left out and counted.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from avae_jax.metrics import radial_ks, reconstruction_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 130
INK, QUIET, FAINT = "#2b2f36", "#7a828e", "#e4e7eb"
BLUE, ORANGE, RED, GREEN = "#3b6fb6", "#e08a2e", "#c8443c", "#3f9463"
# Tableau's ten, in an order that keeps neighbouring classes apart.
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
    "figure.dpi": _DPI,
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


# Reconstructions and samples ------------------------------------------------------------------


@styled
def make_reconstructions(
    x, x_recon, *, value_range: tuple[float, float] | None, title: str | None = None
) -> Figure:
    """Draw originals over their reconstructions, blocks of two rows of twelve.

    Args:
      x: `[n, h, w, c]` images or `[n, features]`; the first 24 (plain data: 12) are shown.
      x_recon: same shape.
      value_range: `(low, high)` shown as black and white; None takes the range of `x`.
      title: None gives the mean squared error of what is shown.

    Returns:
      The figure.

    Raises:
      ValueError: shapes differ or are neither images nor plain data.
    """
    x, x_recon = _data(x, "x"), _data(x_recon, "x_recon")
    if x.shape != x_recon.shape:
        raise ValueError(f"x has shape {x.shape} but x_recon has {x_recon.shape}; they must agree")
    if x.ndim == 2:
        return _plain_reconstructions(x, x_recon, title)
    x, x_recon = x[:24], x_recon[:24]
    notes = _channel_notes(x)
    low, high = _limits(value_range, x)
    if title is None:
        mse = _shown_mse(x, x_recon, low, high)
        title = f"Reconstructions: mean squared error {mse} per pixel ({_count(len(x), 'image')})"
    x, x_recon = (to_unit(drawable(images), low, high) for images in (x, x_recon))
    rows, gaps, names = [], [], []
    for start in range(0, len(x), 12):
        rows += [x[start : start + 12], x_recon[start : start + 12]]
        gaps += [4, 22]
        names += ["original", "reconstruction"]
    return tile_figure([stack_images(rows, gaps[:-1], tile=64)], [title], notes, row_names=names)


def save_reconstructions(
    x, x_recon, path, *, value_range: tuple[float, float] | None, title: str | None = None
) -> Path:
    """Write `make_reconstructions` as a PNG and return its path."""
    return _save(make_reconstructions(x, x_recon, value_range=value_range, title=title), path)


@styled
def make_image_grid(
    x, *, value_range: tuple[float, float] | None, title: str | None = None
) -> Figure:
    """Draw samples in a square grid.

    Args:
      x: `[n, h, w, c]` images, the first 100 are shown, or `[n, features]`.
      value_range: `(low, high)` shown as black and white; None takes the range of `x`.
      title: None counts the samples.

    Returns:
      The figure.
    """
    x = _data(x, "x")
    if title is None:
        title = _count(min(len(x), 100) if x.ndim == 4 else len(x), "sample")
    return _samples_figure({title: x}, value_range, most=100)


def save_image_grid(
    x, path, *, value_range: tuple[float, float] | None, title: str | None = None
) -> Path:
    """Write `make_image_grid` as a PNG and return its path."""
    return _save(make_image_grid(x, value_range=value_range, title=title), path)


@styled
def make_samples(groups: Mapping[str, Any], *, value_range: tuple[float, float] | None) -> Figure:
    """Draw several sets of samples side by side, each under its name.

    Args:
      groups: name -> `[n, h, w, c]` images, the first 64 of each are shown, or `[n, features]`;
        for instance `{"claimed scale 0.81": x1, "measured scale 0.95": x2}`. Several groups must be
        decoded from the same noise: the figure says so.
      value_range: `(low, high)` shown as black and white; None takes the range of all groups.

    Returns:
      The figure.

    Raises:
      ValueError: no groups, or groups whose samples differ in shape.
    """
    if not groups:
        raise ValueError("groups must hold at least one set of samples, got none")
    arrays = {name: _data(x, f"groups[{name!r}]") for name, x in groups.items()}
    shapes = {x.shape[1:] for x in arrays.values()}
    if len(shapes) > 1:
        raise ValueError(f"groups must hold samples of one shape, got {sorted(shapes)}")
    return _samples_figure(arrays, value_range, most=64)


def save_samples(
    groups: Mapping[str, Any], path, *, value_range: tuple[float, float] | None
) -> Path:
    """Write `make_samples` as a PNG and return its path."""
    return _save(make_samples(groups, value_range=value_range), path)


# The latent space -----------------------------------------------------------------------------


@styled
def make_latent_scatter(z, *, labels=None, prior_scale: float = 1.0) -> Figure:
    """Draw the codes over the prior's 50, 90 and 99% circles.

    More than two dimensions are projected on the two directions of largest second moment, without
    centring, so that the prior's own centre stays at the origin. One dimension is drawn as a
    histogram under the prior's density.

    Args:
      z: `[n, latent_dim]` codes; 8,000 of them at most are drawn, all are counted.
      labels: `[n]` classes (integers or strings), coloured with a legend, or, when they take more
        than 20 values, numbers with a colour bar; None draws all codes alike.
      prior_scale: standard deviation s of the prior N(0, s^2 I).

    Returns:
      The figure; its title says which share of the codes lies inside the 90% circle.

    Raises:
      ValueError: wrong shapes, no finite code, or a `prior_scale` that is not positive.
    """
    z, keep, dropped = _codes(z)
    scale = _positive(prior_scale, "prior_scale")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != keep.shape:
            raise ValueError(f"labels must have shape {keep.shape}, got {labels.shape}")
        labels = labels[keep]
    if z.shape[1] == 1:
        return _latent_histogram(z[:, 0], labels, scale, dropped)
    names = ("$z_1$", "$z_2$")
    notes = []
    if z.shape[1] > 2:
        eigenvalues, vectors = np.linalg.eigh(z.T @ z / len(z))
        plane = vectors[:, [-1, -2]]
        # The sign of an eigenvector is arbitrary: fix it, so that two figures can be compared.
        plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0.0, -1.0, 1.0)
        share = 100.0 * eigenvalues[-2:].sum() / max(eigenvalues.sum(), np.finfo(float).tiny)
        names = ("first principal direction", "second principal direction")
        notes.append(
            f"plane of largest variance of {z.shape[1]} dimensions, {share:.0f}% of the total"
        )
        z = z @ plane
    radii = {mass: scale * math.sqrt(-2.0 * math.log1p(-mass)) for mass in (0.5, 0.9, 0.99)}
    inside = 100.0 * float(np.mean(np.hypot(*z.T) <= radii[0.9]))

    figure = new_figure(6.4, 5.6)
    axes = figure.add_subplot()
    shown = np.random.default_rng(0).permutation(len(z))[:8000]
    size = float(np.clip(12000.0 / len(shown), 3.0, 14.0))
    _scatter(figure, axes, z[shown], None if labels is None else labels[shown], size)
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    for mass, radius in radii.items():
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=INK, lw=0.9, alpha=0.75)
        axes.annotate(
            f"{100 * mass:.0f}%",
            (0.0, radius),
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
        )
    # A few far codes must not shrink the rest to a dot.
    farthest, most = float(np.abs(z).max()), float(np.quantile(np.abs(z), 0.995))
    reach = 1.06 * max(radii[0.99], min(farthest, 1.3 * max(most, radii[0.99])))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal")
    outside = int(np.count_nonzero(np.abs(z).max(axis=1) > reach))
    notes += _beyond(outside) + dropped
    set_title(
        axes,
        f"{inside:.0f}% of {len(z):,} codes inside the 90% circle of the prior {_normal(scale)}",
        notes,
    )
    return figure


def save_latent_scatter(z, path, *, labels=None, prior_scale: float = 1.0) -> Path:
    """Write `make_latent_scatter` as a PNG and return its path."""
    return _save(make_latent_scatter(z, labels=labels, prior_scale=prior_scale), path)


@styled
def make_radius_histogram(z, *, scale: float | None = None) -> Figure:
    """Draw the histogram of |z| against the chi densities of the priors.

    The radius of N(0, s^2 I) has the density of s times a chi variable with latent_dim degrees of
    freedom; its square over s^2 is chi-square.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation s of a second prior; None draws N(0, I) only.

    Returns:
      The figure; its title has the Kolmogorov-Smirnov distance and its null value.

    Raises:
      ValueError: wrong shape, no finite code, or a `scale` that is not positive.
    """
    z, _, dropped = _codes(z)
    d = z.shape[1]
    scales = {1.0: (_normal(1.0), QUIET, "--")}
    if scale is not None:
        scale = _positive(scale, "scale")
        scales[scale] = (_normal(scale), ORANGE, "-")
    radius = np.linalg.norm(z, axis=1)
    # chi.ppf of the tails: the axis holds the priors and the codes whole, but for far outliers.
    tails = np.sqrt(2.0 * special.gammaincinv(0.5 * d, np.array([1e-3, 1.0 - 1e-3])))
    low = min(tails[0] * min(scales), float(radius.min()))
    most = max(tails[1] * max(scales), float(np.quantile(radius, 0.999)))
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
    for s, (name, color, line) in scales.items():
        axes.plot(grid, _chi_density(grid / s, d) / s, color=color, ls=line, label=name, lw=1.8)
    axes.set(xlabel="|z|", ylabel="density", xlim=(low, high))
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(_few_ticks(5))
    axes.legend(loc="upper right")
    distance = radial_ks(z, scale=1.0 if scale is None else scale)
    name = scales[1.0 if scale is None else scale][0]
    set_title(
        axes,
        f"Radius of the codes: KS distance {distance['radial_ks']:.3f} from {name} "
        f"(null {distance['radial_ks_null']:.3f})",
        _beyond(int(np.count_nonzero(radius > high))) + dropped,
    )
    return figure


def save_radius_histogram(z, path, *, scale: float | None = None) -> Path:
    """Write `make_radius_histogram` as a PNG and return its path."""
    return _save(make_radius_histogram(z, scale=scale), path)


@styled
def make_covariance(z, *, prior_scale: float | None = None) -> Figure:
    """Draw the covariance of the codes and, beside it, its eigenvalues.

    The grey band is where the eigenvalues of a covariance from as many draws of the prior fall
    (Marchenko and Pastur 1967: s^2 (1 -+ sqrt(d/n))^2).

    Args:
      z: `[n, latent_dim]` codes, n >= 2.
      prior_scale: standard deviation s of the prior; s^2 = 1 - h^2 is the variance that the bias
        correction claims. None compares with 1.

    Returns:
      The figure.

    Raises:
      ValueError: wrong shape, fewer than two finite codes, or a `prior_scale` that is not positive.
    """
    z, _, dropped = _codes(z)
    if len(z) < 2:
        raise ValueError("z has 1 finite code, a covariance needs at least 2")
    n, d = z.shape
    variance = 1.0 if prior_scale is None else _positive(prior_scale, "prior_scale") ** 2
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)

    figure = new_figure(8.6, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    limit = float(np.abs(covariance).max()) or 1.0
    image = left.imshow(covariance, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    left.grid(visible=False)
    left.spines[:].set_visible(False)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(_few_ticks(8, integer=True))
    left.tick_params(length=0)
    left.set(xlabel="latent dimension", ylabel="latent dimension")
    bar = figure.colorbar(image, ax=left, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    off = covariance - np.diag(np.diag(covariance))
    worst = f", largest off-diagonal {np.abs(off).max():.2g}" if d > 1 else ""
    set_title(left, f"Covariance of {n:,} codes{worst}", dropped)

    edge = math.sqrt(d / n)
    low, high = variance * max(1.0 - edge, 0.0) ** 2, variance * (1.0 + edge) ** 2
    name = "1" if prior_scale is None else f"1 − h² = {variance:.3g}"
    right.axhspan(low, high, color=QUIET, alpha=0.16, lw=0, label="sampling range of the prior")
    right.axhline(variance, color=INK, lw=1.0, ls="--", label=f"prior's variance, {name}")
    order = np.arange(1, d + 1)
    marker = "o" if d <= 64 else ""
    right.plot(order, eigenvalues, color=BLUE, marker=marker, ms=3.5, lw=1.3, label="codes")
    right.set(xlabel="eigenvalue, largest first", ylabel="variance")
    right.xaxis.set_major_locator(_few_ticks(8, integer=True))
    if d == 1:
        right.set_xlim(0.5, 1.5)
    right.set_ylim(0.0, 1.12 * max(float(eigenvalues[0]), high))
    right.legend(loc="best")
    span = f"{eigenvalues[-1]:.3g} to " if d > 1 else ""
    set_title(right, f"Eigenvalues {span}{eigenvalues[0]:.3g}")
    return figure


def save_covariance(z, path, *, prior_scale: float | None = None) -> Path:
    """Write `make_covariance` as a PNG and return its path."""
    return _save(make_covariance(z, prior_scale=prior_scale), path)


# Training curves ------------------------------------------------------------------------------

# Metric -> (title, axis), in the order of the panels; "log" where the values span a decade.
_PANELS = {
    "loss": ("Loss", "log"),
    "reconstruction": ("Reconstruction", "log"),
    "kl": ("KL (nats)", "linear"),
    "score": ("Score", "log"),
    "tail_share": ("Codes in the tail (%)", "linear"),
    "beta": ("Beta", "log"),
    "learning_rate": ("Learning rate", "log"),
    "gradient_norm": ("Gradient norm", "log"),
    "staleness": ("Staleness of the centers (steps)", "linear"),
}
_UNPREFIXED = ("beta", "learning_rate", "tail_share")
# Centers this many steps old are still as good as new.
_STALE = 10.0


@styled
def make_training_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the metrics of a run against the step, one small panel each.

    `train/x` and `validation/x` share a panel, the KL's has its null value as a dashed line and the
    score's marks its lowest validation value; each legend gives the last values. The share of codes
    in the tail is drawn where it is not always zero, the age of the centers where it exceeds 10.

    Args:
      rows: dicts with `step`, as `logging.read_metrics` returns them; a key that no row has gets
        no panel, a row without a key leaves no gap, NaN does.

    Returns:
      The figure.

    Raises:
      ValueError: no row has a metric to draw.
    """
    series = _series(rows)
    if not series:
        raise ValueError(
            "rows hold no metric to draw; expected keys such as 'train/loss' or 'beta'"
        )
    names = [name for name in _PANELS if name in series]
    columns = {4: 2, 7: 4, 8: 4}.get(len(names), min(len(names), 3))
    lines = -(-len(names) // columns)
    figure = new_figure(3.4 * columns, 2.45 * lines + 0.2)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    null = _values(rows, "null_kl")
    smoothed = False
    for name, axes in zip(names, grid.flat, strict=False):
        smoothed |= _curve_panel(axes, name, series[name], null if name == "kl" else None)
    for index, axes in enumerate(grid.flat):
        if index >= len(names):
            axes.remove()
        elif index + columns >= len(names):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
    if smoothed:
        text = "faint: as logged; strong: smoothed, a running mean; legends: the last values logged"
        figure.suptitle(text, x=0.01, ha="left", fontsize=8, color=QUIET)
    return figure


def save_training_curves(rows: Sequence[Mapping[str, Any]], path) -> Path:
    """Write `make_training_curves` as a PNG and return its path."""
    return _save(make_training_curves(rows), path)


def _series(rows):
    """Group the columns by panel: metric -> {"train" or "validation" or "": (steps, values)}."""
    keys = dict.fromkeys(key for row in rows for key in row)
    series: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for key in keys:
        split, _, name = key.rpartition("/")
        known = split in ("train", "validation") or (split == "" and name in _UNPREFIXED)
        if not known or name not in _PANELS:
            continue
        steps, values = _values(rows, key)
        if np.isfinite(values).any():
            series.setdefault(name, {})[split] = (steps, values)
    for name, least in (("tail_share", 0.0), ("staleness", _STALE)):
        lines = series.get(name, {})
        if not any(np.nanmax(values) > least for _, values in lines.values()):
            series.pop(name, None)
    return series


def _values(rows, key):
    pairs = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
    steps = np.array([step for step, _ in pairs], dtype=np.float64)
    values = [np.nan if value is None else float(value) for _, value in pairs]
    return steps, np.array(values, dtype=np.float64)


def _curve_panel(axes: Axes, name, lines, null) -> bool:
    """Draw one metric; return whether a curve was smoothed."""
    title, scale = _PANELS[name]
    factor = 100.0 if name == "tail_share" else 1.0
    shown, settled = [], []
    smoothed = False
    # The first fifth of a run is where the curves come from, not where they are going.
    ends = [bound for steps, _ in lines.values() for bound in (steps.min(), steps.max())]
    begin = min(ends) + 0.2 * (max(ends) - min(ends))
    for split, (steps, values) in sorted(lines.items()):
        values = factor * values
        finite = np.isfinite(values)
        shown.append(values[finite])
        settled.append(values[finite & (steps >= begin)])
        color = ORANGE if split == "validation" else BLUE
        # Beta and the learning rate move in steps: a running mean would make ramps of them.
        smooth = None if name in ("beta", "learning_rate") else _smooth(values)
        if smooth is not None:
            axes.plot(steps, values, color=color, alpha=0.35, lw=0.8)
            smoothed = True
        marker = "o" if np.count_nonzero(finite) <= 12 else ""
        label = f"{split or 'last'} {_compact(float(values[finite][-1]))}"
        curve = values if smooth is None else smooth
        axes.plot(steps, curve, color=color, label=label, marker=marker, ms=2.8)
        if (name, split) == ("score", "validation"):
            best = int(np.nanargmin(np.where(finite, values, np.nan)))
            label = f"best {_compact(float(values[best]))}, step {steps[best]:,.0f}"
            axes.plot(steps[best], values[best], "o", color=INK, mfc="white", ms=5, label=label)
    values, late = np.concatenate(shown), np.concatenate(settled)
    if null is not None and np.isfinite(null[1]).any():
        steps, level = (column[np.isfinite(null[1])] for column in null)
        style: Any = {"color": INK, "ls": "--", "lw": 1.0, "label": f"null {_compact(level[-1])}"}
        if np.ptp(level) == 0.0:
            axes.axhline(level[0], **style)
        else:
            axes.plot(steps, level, **style)
        values, late = np.append(values, level), np.append(late, level)
    axes.set_title(title, fontsize=9)
    cut = _scale_axis(axes, values, late, scale)
    if cut:
        axes.set_title(cut, loc="right", fontsize=7.5, color=QUIET)
    axes.xaxis.set_major_locator(_few_ticks(5, integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: _thousands(step))
    axes.legend(loc="best", handlelength=1.4, borderaxespad=0.2)
    return smoothed


def _scale_axis(axes: Axes, values: np.ndarray, late: np.ndarray, scale: str) -> str:
    """Choose the axis so that the settled part of a curve can be read; say where it is cut.

    What spans more than a decade is drawn on a logarithmic axis where the panel allows and all
    values are positive. Otherwise an axis that the first steps would stretch is cut.
    """
    span = float(np.ptp(values))
    if scale == "log" and values.min() > 0.0 and values.max() > 10.0 * values.min():
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_yscale("log")
        # Four decades have room for the powers of ten alone.
        subs = (1.0, 2.0, 5.0) if values.max() < 1e2 * values.min() else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return ""
    axes.yaxis.set_major_locator(_few_ticks(5))
    if late.size > 3 and span > 8.0 * float(np.ptp(late)) > 0.0:
        low, high = float(late.min()), float(late.max())
        bottom, top = low - 0.12 * (high - low), high + 0.6 * (high - low)
        axes.set_ylim(bottom, top)
        cuts = [f"up to {_compact(float(values.max()))}"] if values.max() > top else []
        cuts += [f"down to {_compact(float(values.min()))}"] if values.min() < bottom else []
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


# Shared pieces --------------------------------------------------------------------------------


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Return an empty figure, inches wide and high, without touching pyplot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09) if constrained else None
    return Figure(figsize=(width, height), dpi=_DPI, layout=layout)


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


@styled
def _save(figure: Figure, path) -> Path:
    """Write a PNG through a temporary file, so that a reader never sees half a picture."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=_DPI)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _data(x, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim not in (2, 4) or x.size == 0:
        raise ValueError(
            f"{name} must have shape [n, h, w, c] or [n, features] and hold something, got "
            f"{x.shape}"
        )
    return x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float64)


def to_drawable(x, value_range: tuple[float, float] | None) -> np.ndarray:
    """Return images `[n, h, w, 1 or 3]` in [0, 1] for `stack_images`."""
    x = _data(x, "x")
    return to_unit(drawable(x), *_limits(value_range, x))


def drawable(x: np.ndarray) -> np.ndarray:
    """Return images with one channel or three: the mean of the channels of others."""
    if x.shape[-1] in (1, 3):
        return x
    grey = x.mean(axis=-1, keepdims=True)
    return np.rint(grey).astype(np.uint8) if x.dtype == np.uint8 else grey


def _channel_notes(x: np.ndarray) -> list[str]:
    return [] if x.shape[-1] in (1, 3) else [f"grey: the mean of {x.shape[-1]} channels"]


def _limits(value_range, *arrays) -> tuple[float, float]:
    if value_range is not None:
        return float(value_range[0]), float(value_range[1])
    finite = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def to_unit(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale images to [0, 1]; what is not finite becomes mid-grey."""
    if x.dtype == np.uint8:
        return x / 255.0
    return np.nan_to_num(np.clip((x - low) / (high - low), 0.0, 1.0), nan=0.5)


def _shown_mse(x, x_recon, low, high) -> str:
    x, x_recon = to_unit(x, low, high), to_unit(x_recon, low, high)
    return f"{reconstruction_error(x, x_recon)['mse']:.2g}"


def stack_images(rows, gaps, tile: int, gap: int = 3) -> dict[str, Any]:
    """Lay rows of images out as one picture.

    Args:
      rows: arrays `[k, h, w, c]` in [0, 1].
      gaps: pixels between consecutive rows.
      tile: the least height of an image in pixels; smaller ones are enlarged by a whole factor.
      gap: pixels between images of a row.

    Returns:
      `picture` `[height, width, 3]` and `centers`, the rows' middles in pixels.
    """
    height, width = rows[0].shape[1:3]
    factor = max(1, round(tile / max(height, width)))
    height, width = factor * height, factor * width
    columns = max(len(row) for row in rows)
    total = len(rows) * height + sum(gaps)
    picture = np.ones((total, columns * width + (columns - 1) * gap, 3))
    top, centers = 0, []
    for index, row in enumerate(rows):
        for column, image in enumerate(row):
            left = column * (width + gap)
            enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
            picture[top : top + height, left : left + width] = enlarged
        centers.append(top + height / 2)
        top += height + (gaps[index] if index < len(gaps) else 0)
    return {"picture": picture, "centers": centers, "tile": height}


def tile_figure(stacks, titles, notes=(), row_names=None) -> Figure:
    """Place pictures side by side, one picture pixel to one pixel of the PNG."""
    shrink = min(1.0, 128.0 / stacks[0]["tile"])
    sizes = [tuple(shrink * s for s in stack["picture"].shape[:2]) for stack in stacks]
    left, right, top, bottom, between = (128 if row_names else 16), 16, 44, 16, 40
    if not any(titles):
        top = 8
    # A line of notes is 12 points high.
    top += round(12 * len(notes) * _DPI / 72)
    # A title is about 8 pixels a letter: leave room for the longest.
    widths = [
        max(size[1], 8.2 * max(map(len, title.split("\n"))))
        for size, title in zip(sizes, titles, strict=True)
    ]
    width = left + sum(widths) + between * (len(sizes) - 1) + right
    width = max(width, left + 7.6 * max(map(len, notes), default=0) + right)
    height = top + max(size[0] for size in sizes) + bottom
    figure = new_figure(width / _DPI, height / _DPI, constrained=False)
    x = left
    for stack, size, title, room in zip(stacks, sizes, titles, widths, strict=True):
        y = height - top - size[0]
        axes = figure.add_axes((x / width, y / height, size[1] / width, size[0] / height))
        axes.imshow(stack["picture"], interpolation="nearest" if shrink == 1.0 else "antialiased")
        axes.axis("off")
        set_title(axes, title, notes if stack is stacks[0] else [""] * len(notes))
        for center, name in zip(stack["centers"], row_names or [], strict=False):
            axes.annotate(
                name,
                (0.0, center),
                xytext=(-6.0, 0.0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=QUIET,
                fontsize=8,
            )
        x += room + between
    return figure


def _samples_figure(groups: Mapping[str, np.ndarray], value_range, most: int) -> Figure:
    if next(iter(groups.values())).ndim == 2:
        return _plain_samples(groups)
    notes = _same_noise(groups) + _channel_notes(next(iter(groups.values())))
    groups = {name: drawable(x[:most]) for name, x in groups.items()}
    low, high = _limits(value_range, *groups.values())
    stacks = []
    for x in groups.values():
        columns = math.ceil(math.sqrt(len(x)))
        unit = to_unit(x, low, high)
        rows = [unit[start : start + columns] for start in range(0, len(x), columns)]
        stacks.append(stack_images(rows, [3] * (len(rows) - 1), tile=48))
    return tile_figure(stacks, list(groups), notes)


def _same_noise(groups: Mapping[str, np.ndarray]) -> list[str]:
    return ["the same noise in all panels, scaled"] if len(groups) > 1 else []


def _plain_reconstructions(x, x_recon, title) -> Figure:
    shown = x[:12], x_recon[:12]
    if title is None:
        mse = reconstruction_error(x, x_recon, value_range=None)["mse"]
        title = f"Reconstructions: mean squared error {mse:.2g} per feature ({len(x):,} rows)"
    if x.shape[1] == 2:
        figure = new_figure(6.0, 5.2)
        axes = figure.add_subplot()
        stride = -(-len(x) // 500)
        kept = x[::stride], x_recon[::stride]
        segments = np.stack(kept, axis=1)
        axes.plot(*segments.transpose(2, 1, 0), color=QUIET, lw=0.5, alpha=0.6)
        axes.plot(*kept[0].T, ".", color=INK, ms=3, alpha=0.7, label="original")
        axes.plot(*kept[1].T, ".", color=ORANGE, ms=3, alpha=0.9, label="reconstruction")
        axes.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
        axes.set_aspect("equal", adjustable="datalim")
        axes.legend(loc="best")
        return figure
    columns = min(len(shown[0]), 4)
    lines = -(-len(shown[0]) // columns)
    figure = new_figure(2.3 * columns, 0.5 + 1.35 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    order = np.arange(x.shape[1])
    marker = "o" if x.shape[1] <= 16 else ""
    for index, axes in enumerate(grid.flat):
        if index >= len(shown[0]):
            axes.remove()
            continue
        axes.plot(order, shown[0][index], color=QUIET, lw=1.8, marker=marker, ms=3.5)
        axes.plot(order, shown[1][index], color=ORANGE, lw=1.1, marker=marker, ms=2.2)
        axes.xaxis.set_major_locator(_few_ticks(4, integer=True))
        axes.yaxis.set_major_locator(_few_ticks(4))
        if index + columns >= len(shown[0]):
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


def _plain_samples(groups: Mapping[str, np.ndarray]) -> Figure:
    """Draw plain data: points for two features, one row of a heat strip per sample for more."""
    count = len(groups)
    features = next(iter(groups.values())).shape[1]
    figure = new_figure(0.5 + 3.9 * count, 3.9)
    grid = figure.subplots(1, count, squeeze=False, sharex=True, sharey=features == 2)[0]
    low, high = _limits(None, *groups.values())
    image = None
    notes = _same_noise(groups)
    for axes, (name, x) in zip(grid, groups.items(), strict=True):
        if features == 1:
            axes.hist(x[:, 0], bins=40, range=(low, high), color=BLUE, alpha=0.6, density=True)
            axes.set(xlabel="$x_1$", ylabel="density")
        elif features == 2:
            axes.plot(*x[:: -(-len(x) // 4000)].T, ".", color=BLUE, ms=2.5, alpha=0.5)
            axes.set(xlabel="$x_1$", ylabel="$x_2$")
            axes.set_aspect("equal")
        else:
            image = axes.imshow(
                x[:64],
                aspect="auto",
                interpolation="nearest",
                cmap="viridis",
                vmin=low,
                vmax=high,
            )
            axes.grid(visible=False)
            axes.set(xlabel="feature", ylabel="sample")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(_few_ticks(6, integer=True))
        set_title(axes, name, notes if axes is grid[0] else [""] * len(notes))
    if image is not None:
        figure.colorbar(image, ax=list(grid), fraction=0.04, pad=0.02).outline.set_visible(False)
    return figure


def _codes(z) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the finite codes, which rows they are, and a note for the title when some are not."""
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"z must have shape [n, latent_dim], got {z.shape}")
    keep = np.asarray(np.isfinite(z).all(axis=1))
    bad = int(np.count_nonzero(~keep))
    if bad == len(z):
        raise ValueError(f"z has no finite row among {len(z)}; there is nothing to draw")
    return z[keep], keep, [f"left out, not finite: {_count(bad, 'code')}"] if bad else []


def _beyond(count: int) -> list[str]:
    return [f"beyond the picture: {_count(count, 'code')}"] if count else []


def _positive(value, name: str) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be finite and positive, got {value}")
    return value


def _scatter(figure: Figure, axes: Axes, z: np.ndarray, labels, size: float) -> None:
    style = {"s": size, "linewidths": 0.0, "alpha": 0.65}
    if labels is None:
        axes.scatter(*z.T, color=BLUE, **style)
        return
    classes = np.unique(labels)
    if len(classes) > 20:
        if labels.dtype.kind not in "iuf":
            classes, labels = np.unique(labels, return_inverse=True)
        points = axes.scatter(*z.T, c=labels.astype(np.float64), cmap="viridis", **style)
        bar = figure.colorbar(points, ax=axes, fraction=0.04, pad=0.02, label="label")
        bar.outline.set_visible(False)
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
        return
    # One call with mixed colours: class by class, the last class would cover the others.
    position = np.searchsorted(classes, labels)
    axes.scatter(*z.T, color=[CLASSES[p % 10] for p in position], **style)
    for p, name in enumerate(classes):
        marker = "o" if p < 10 else "s"
        axes.plot([], [], marker, color=CLASSES[p % 10], ms=4.5, label=str(name))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=1.0)


def _latent_histogram(z: np.ndarray, labels, scale: float, dropped: list[str]) -> Figure:
    figure = new_figure(6.0, 3.7)
    axes = figure.add_subplot()
    reach = max(3.5 * scale, min(float(np.abs(z).max()), 12.0 * scale))
    edges = np.linspace(-reach, reach, int(np.clip(2.0 * len(z) ** (1 / 3), 16, 80)) + 1)
    classes = [] if labels is None else np.unique(labels)
    if 0 < len(classes) <= 20:
        groups, names = [z[labels == name] for name in classes], [str(name) for name in classes]
        colors = [CLASSES[index % 10] for index in range(len(classes))]
    else:
        groups, names, colors = [z], ["codes"], [BLUE]
    floor = np.zeros(len(edges) - 1)
    for group, name, color in zip(groups, names, colors, strict=True):
        top = floor + np.histogram(group, edges)[0] / (len(z) * np.diff(edges))
        axes.stairs(top, edges, baseline=floor, fill=True, color=color, alpha=0.6, label=name)
        floor = top
    grid = np.linspace(-reach, reach, 400)
    density = np.exp(-0.5 * (grid / scale) ** 2) / (scale * math.sqrt(2.0 * math.pi))
    axes.plot(grid, density, color=INK, label=f"prior {_normal(scale)}")
    axes.set(xlabel="z", ylabel="density", xlim=(-reach, reach))
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    # 1.645 standard deviations hold 90% of a normal variable.
    inside = 100.0 * float(np.mean(np.abs(z) <= 1.6448536269514722 * scale))
    set_title(
        axes,
        f"{inside:.0f}% of {len(z):,} codes inside the central 90% of the prior {_normal(scale)}",
        _beyond(int(np.count_nonzero(np.abs(z) > reach))) + dropped,
    )
    return figure


def _chi_density(r: np.ndarray, d: int) -> np.ndarray:
    """Density of the norm of a standard normal vector in d dimensions."""
    constant = (1.0 - 0.5 * d) * math.log(2.0) - math.lgamma(0.5 * d)
    # xlogy gives the half-normal its value at r = 0 when d is 1.
    return np.exp(constant + special.xlogy(d - 1.0, np.maximum(r, 0.0)) - 0.5 * r**2)


def _few_ticks(count: int, *, integer: bool = False):
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10] if integer else [1, 2, 2.5, 5, 10]
    return MaxNLocator(count, integer=integer, steps=steps, min_n_ticks=1 if integer else 2)


def _normal(scale: float) -> str:
    return "N(0, I)" if scale == 1.0 else f"N(0, {scale:.2g}² I)"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _compact(value: float) -> str:
    if value != 0.0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        text = f"{value:.3g}"
    elif abs(value) >= 999.5:
        text = f"{value:,.0f}"
    else:
        text = f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def _thousands(step: float) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 10000 else f"{step:g}"

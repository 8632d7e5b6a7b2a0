"""Figures of an evaluation that a training run does not draw."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from avae_jax.training.figures import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    RED,
    new_figure,
    set_title,
    stack_images,
    styled,
    tile_figure,
    to_drawable,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRAMES, _STEPS, _REACH = 24, 9, 2.5


@styled
def to_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


@styled
def make_planes(z, planes: Mapping[str, Any], *, scale: float) -> Figure:
    """Draw the codes in several planes over the prior's 50, 90 and 99% circles.

    Args:
      z: `[n, latent_dim]` codes.
      planes: name -> two orthonormal directions `[2, latent_dim]`.
      scale: standard deviation s of the prior N(0, s^2 I).

    Returns:
      The figure, one panel a plane.
    """
    z = np.asarray(z, np.float64)
    shown = np.random.default_rng(0).permutation(len(z))[:6000]
    figure = new_figure(3.6 * len(planes), 3.9)
    grid = figure.subplots(1, len(planes), squeeze=False)[0]
    radii = [scale * math.sqrt(-2.0 * math.log1p(-mass)) for mass in (0.5, 0.9, 0.99)]
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    for axes, (name, plane) in zip(grid, planes.items(), strict=True):
        points = z[shown] @ np.asarray(plane, np.float64).T
        size = float(np.clip(9000.0 / len(shown), 2.0, 12.0))
        axes.scatter(*points.T, s=size, linewidths=0.0, alpha=0.5, color=BLUE)
        for radius in radii:
            axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=INK, lw=0.9, alpha=0.75)
        most = float(np.quantile(np.abs(points), 0.995))
        reach = 1.06 * max(radii[-1], min(most, 2.5 * radii[-1]))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        set_title(axes, name)
    return figure


@styled
def make_prd(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw precision against recall.

    Args:
      curves: name -> (precision, recall), arrays of one length.

    Returns:
      The figure; a perfect model's curve lies in the upper right corner.
    """
    figure = new_figure(4.6, 4.3)
    axes = figure.add_subplot()
    colors = (BLUE, ORANGE, RED, INK)
    for index, (name, (precision, recall)) in enumerate(curves.items()):
        floor = name.startswith("floor")
        axes.plot(
            recall, precision, label=name, color=QUIET if floor else colors[index % 4],
            ls="--" if floor else "-",
        )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.legend(loc="lower left")
    return figure


@styled
def make_spectrum(eigenvalues, *, scale: float, relevance=None) -> Figure:
    """Draw the spectrum of the codes' covariance and the decoder's response along it.

    Args:
      eigenvalues: `[latent_dim]` of the covariance of the codes.
      scale: standard deviation s of the prior, whose eigenvalues are all s^2.
      relevance: `[latent_dim]` shares of the decoder's response by direction, or None.

    Returns:
      The figure.
    """
    values = np.sort(np.asarray(eigenvalues, np.float64))[::-1]
    figure = new_figure(7.4 if relevance is not None else 4.2, 3.3)
    panels = figure.subplots(1, 1 if relevance is None else 2, squeeze=False)[0]
    order = np.arange(1, len(values) + 1)
    panels[0].plot(order, np.maximum(values, 1e-12), "o-", ms=3, color=BLUE, label="codes")
    if values[0] > 30.0 * values[-1]:
        panels[0].set_yscale("log")
    else:
        panels[0].set_ylim(0.0, 1.1 * max(values[0], scale**2))
    panels[0].axhline(scale**2, color=ORANGE, label="prior")
    panels[0].set(xlabel="direction", ylabel="variance")
    panels[0].legend(loc="best")
    set_title(panels[0], "Covariance spectrum")
    if relevance is not None:
        shares = np.cumsum(np.sort(np.asarray(relevance, np.float64))[::-1])
        panels[1].plot(order, 100.0 * shares / shares[-1], "o-", ms=3, color=BLUE)
        panels[1].axhline(99.0, color=QUIET, ls="--")
        panels[1].set(xlabel="directions", ylabel="% of the decoder's response", ylim=(0, 103))
        set_title(panels[1], "Cumulative relevance")
    return figure


@styled
def make_gallery(
    rows: Mapping[str, Any], *, value_range: tuple[float, float] | None, tile: int = 56
) -> Figure:
    """Draw named rows of images.

    Args:
      rows: name -> `[k, h, w, c]` images.
      value_range: `(low, high)` shown as black and white.
      tile: the least height of an image, pixels.
    """
    images = [to_drawable(x, value_range) for x in rows.values()]
    stack = stack_images(images, [6] * (len(images) - 1), tile=tile)
    return tile_figure([stack], [""], row_names=list(rows))


def traversal_codes(z: np.ndarray, direction: np.ndarray, spread: float, num: int) -> np.ndarray:
    """Return codes `[num, latent_dim]` that walk along a direction through a code.

    Args:
      z: `[latent_dim]`, where to walk.
      direction: `[latent_dim]` unit vector.
      spread: standard deviation of the codes along it; the walk spans 2.5 of them either way.
      num: how many codes.
    """
    steps = np.linspace(-_REACH, _REACH, num) * spread
    return z + (steps[:, None] - z @ direction) * direction


@styled
def make_traversals(
    decode: Callable[[np.ndarray], np.ndarray], z: np.ndarray, directions: Mapping[str, np.ndarray],
    spreads: Sequence[float], *, value_range: tuple[float, float] | None,
) -> tuple[Figure, bytes]:  # fmt: skip
    """Walk through a code along several directions.

    Args:
      decode: codes `[k, latent_dim]` -> images `[k, h, w, c]`.
      z: `[latent_dim]`, the code to walk through.
      directions: name -> `[latent_dim]` unit vector.
      spreads: standard deviation of the codes along each.
      value_range: `(low, high)` of the images.

    Returns:
      Strips of still images, a row a direction, and a GIF in which all of them move at once.
    """
    moving = np.concatenate(
        [
            traversal_codes(z, u, spread, _FRAMES)
            for u, spread in zip(directions.values(), spreads, strict=True)
        ]
    )
    images = to_drawable(decode(moving.astype(np.float32)), value_range)
    images = images.reshape(len(directions), _FRAMES, *images.shape[1:])
    picked = np.linspace(0, _FRAMES - 1, _STEPS).round().astype(int)
    rows = [row[picked] for row in images]
    stack = stack_images(rows, [4] * (len(rows) - 1), tile=40)
    strips = tile_figure([stack], [""], row_names=list(directions))
    return strips, _gif(images)


def _gif(images: np.ndarray) -> bytes:
    """Return frames of `[rows, frames, h, w, c]` in [0, 1] as a GIF that goes to and fro."""
    from PIL import Image

    columns = min(len(images), 10)
    rows = -(-len(images) // columns)
    frames = []
    for frame in range(images.shape[1]):
        blank = np.ones((rows * columns - len(images), *images.shape[2:]))
        tiles = np.concatenate([images[:, frame], blank])
        lines = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
        picture = stack_images(lines, [4] * (len(lines) - 1), tile=72)["picture"]
        frames.append(Image.fromarray((255 * picture + 0.5).astype(np.uint8)))
    order = frames + frames[-2:0:-1]
    file = io.BytesIO()
    order[0].save(file, format="GIF", save_all=True, append_images=order[1:], duration=70, loop=0)
    return file.getvalue()

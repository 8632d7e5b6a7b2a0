"""Images as they are: reconstructions, samples, named rows, walks that stand still or move."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from avae_jax.figures.plain import make_plain_reconstructions, make_plain_samples
from avae_jax.figures.style import count, styled
from avae_jax.figures.tiles import Stack, stack_images, tile_figure, to_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range = tuple[float, float] | None

# How many images and how large, pixels.
_PAIRS, _PAIRS_PER_ROW, _PAIR_TILE = 24, 12, 64
_GRID, _GROUP, _SAMPLE_TILE = 100, 64, 48
_STRIP_TILE, _MOVING_TILE, _MOVING_PER_ROW = 40, 72, 10
_MILLISECONDS_PER_FRAME = 70


@styled
def make_reconstructions(x, x_recon, *, value_range: Range, title: str | None = None) -> Figure:
    """Draw originals over their reconstructions, blocks of two rows of twelve.

    Args:
      x: `[n, height, width, channels]` images or `[n, features]`; the first 24 (plain data: 12) are
        shown.
      x_recon: same shape.
      value_range: `(low, high)` shown as black and white; None takes the range of `x`.
      title: None gives the mean squared error of what is shown, of plain data that of all rows.

    Returns:
      The figure.

    Raises:
      ValueError: shapes differ or are neither images nor plain data.
    """
    x, x_recon = _checked(x, "x"), _checked(x_recon, "x_recon")
    if x.shape != x_recon.shape:
        raise ValueError(
            f"x_recon must have the shape of x, {x.shape}, got {x_recon.shape}: pass one "
            "reconstruction per row of x"
        )
    if x.ndim == 2:
        return make_plain_reconstructions(x, x_recon, title=title)
    x, x_recon = x[:_PAIRS], x_recon[:_PAIRS]
    limits = _limits(value_range, [x])
    if title is None:
        # Of all channels, before they are drawn as their mean.
        difference = _scaled(x, limits) - _scaled(x_recon, limits)
        title = (
            f"Reconstructions: mean squared error {np.mean(np.square(difference)):.2g} per pixel "
            f"({count(len(x), 'image')})"
        )
    above, below = to_unit(x, limits), to_unit(x_recon, limits)
    rows, gaps, names = [], [], []
    for start in range(0, len(x), _PAIRS_PER_ROW):
        block = slice(start, start + _PAIRS_PER_ROW)
        rows += [above[block], below[block]]
        gaps += [4, 22]
        names += ["original", "reconstruction"]
    stack = stack_images(rows, gaps[:-1], tile=_PAIR_TILE)
    return tile_figure([stack], [title], notes=_channel_notes(x), row_names=names)


@styled
def make_image_grid(x, *, value_range: Range, title: str | None = None) -> Figure:
    """Draw samples in a square grid.

    Args:
      x: `[n, height, width, channels]` images, the first 100 are shown, or `[n, features]`.
      value_range: `(low, high)` shown as black and white; None takes the range of `x`.
      title: None counts the samples.

    Returns:
      The figure.

    Raises:
      ValueError: `x` is neither images nor plain data.
    """
    x = _checked(x, "x")
    if title is None:
        title = count(min(len(x), _GRID) if x.ndim == 4 else len(x), "sample")
    return _samples({title: x}, value_range, most=_GRID)


@styled
def make_samples(groups: Mapping[str, Any], *, value_range: Range) -> Figure:
    """Draw several sets of samples side by side, each under its name.

    Args:
      groups: name -> `[n, height, width, channels]` images, the first 64 of each are shown, or
        `[n, features]`; for instance `{"claimed scale 0.81": x1, "measured scale 0.95": x2}`.
        Several groups must be decoded from the same noise: the figure says so.
      value_range: `(low, high)` shown as black and white; None takes the range of all groups.

    Returns:
      The figure.

    Raises:
      ValueError: no groups, or groups whose samples differ in shape.
    """
    return _samples(_checked_groups(groups, "groups"), value_range, most=_GROUP)


@styled
def make_gallery(rows: Mapping[str, Any], *, value_range: Range, tile: int = 56) -> Figure:
    """Draw named rows of images.

    Args:
      rows: name -> `[k, height, width, channels]` images.
      value_range: `(low, high)` shown as black and white; None takes the range of all rows.
      tile: about how many pixels the larger side of an image takes, where it is to be enlarged.

    Returns:
      The figure.

    Raises:
      ValueError: no rows, or what is no image.
    """
    images = _checked_images(rows, "rows")
    limits = _limits(value_range, images.values())
    units = [to_unit(x, limits) for x in images.values()]
    stack = stack_images(units, [6] * (len(units) - 1), tile=tile)
    return tile_figure([stack], [""], row_names=list(images))


@styled
def make_strips(walks: Mapping[str, Any], *, value_range: Range, num_shown: int = 9) -> Figure:
    """Draw walks through the latent space, one row of still images per walk.

    Args:
      walks: name -> `[num_frames, height, width, channels]` images along the walk.
      value_range: `(low, high)` shown as black and white; None takes the range of all walks.
      num_shown: how many frames of each are shown, evenly spaced from first to last, >= 1.

    Returns:
      The figure.

    Raises:
      ValueError: no walks, or what is no image.
    """
    images = _checked_images(walks, "walks")
    limits = _limits(value_range, images.values())
    rows = []
    for x in images.values():
        picked = np.linspace(0, len(x) - 1, min(num_shown, len(x))).round().astype(int)
        rows.append(to_unit(x[picked], limits))
    stack = stack_images(rows, [4] * (len(rows) - 1), tile=_STRIP_TILE)
    return tile_figure([stack], [""], row_names=list(images))


def to_gif(walks: Mapping[str, Any], *, value_range: Range) -> bytes:
    """Return walks as the bytes of a GIF in which all of them move at once, to and fro.

    Args:
      walks: name -> `[num_frames, height, width, channels]` images along the walk; one number of
        frames for all, in reading order at most ten to a row.
      value_range: `(low, high)` shown as black and white; None takes the range of all walks.

    Raises:
      ValueError: no walks, what is no image, or walks of different lengths.
    """
    from PIL import Image

    images = _checked_images(walks, "walks")
    lengths = {len(x) for x in images.values()}
    if len(lengths) > 1:
        raise ValueError(f"walks must have one number of frames, got {sorted(lengths)}: cut them")
    limits = _limits(value_range, images.values())
    units = np.stack([to_unit(x, limits) for x in images.values()])
    frames = []
    for tiles in units.swapaxes(0, 1):
        picture = _grid(tiles, min(len(tiles), _MOVING_PER_ROW), gap=4, tile=_MOVING_TILE).picture
        frames.append(Image.fromarray((255 * picture + 0.5).astype(np.uint8)))
    order = frames + frames[-2:0:-1]
    file = io.BytesIO()
    order[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=order[1:],
        duration=_MILLISECONDS_PER_FRAME,
        loop=0,
    )
    return file.getvalue()


def _samples(groups: Mapping[str, np.ndarray], value_range: Range, *, most: int) -> Figure:
    first = next(iter(groups.values()))
    notes = ["the same noise in all panels, scaled"] if len(groups) > 1 else []
    if first.ndim == 2:
        return make_plain_samples(groups, limits=_limits(None, groups.values()), notes=notes)
    shown = {name: x[:most] for name, x in groups.items()}
    limits = _limits(value_range, shown.values())
    stacks = [
        _grid(to_unit(x, limits), math.ceil(math.sqrt(len(x))), gap=3, tile=_SAMPLE_TILE)
        for x in shown.values()
    ]
    return tile_figure(stacks, list(shown), notes=notes + _channel_notes(first))


def _grid(images: np.ndarray, columns: int, *, gap: int, tile: int) -> Stack:
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    return stack_images(rows, [gap] * (len(rows) - 1), tile=tile)


def _checked(x, name: str) -> np.ndarray:
    """Return images or plain data as float64, or as uint8 where images are."""
    x = np.asarray(x)
    if x.ndim not in (2, 4) or x.size == 0:
        raise ValueError(
            f"{name} must have shape [n, height, width, channels] or [n, features] and hold "
            f"something, got {x.shape}: add the axis that is missing"
        )
    return x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float64)


def _checked_groups(groups: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    if not groups:
        raise ValueError(f"{name} must hold at least one set of samples, got none: add one")
    arrays = {key: _checked(x, f"{name}[{key!r}]") for key, x in groups.items()}
    shapes = {x.shape[1:] for x in arrays.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"{name} must hold samples of one shape, got {sorted(shapes)}: draw each by itself"
        )
    return arrays


def _checked_images(groups: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    arrays = _checked_groups(groups, name)
    shape = next(iter(arrays.values())).shape
    if len(shape) != 4:
        raise ValueError(
            f"{name} must hold images [n, height, width, channels], got {shape}: only images can "
            "be tiled"
        )
    return arrays


def _channel_notes(x: np.ndarray) -> list[str]:
    return [] if x.shape[-1] in (1, 3) else [f"gray: the mean of {x.shape[-1]} channels"]


def _limits(value_range: Range, arrays: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return what is shown as black and white: what was asked for, or the range of the values."""
    if value_range is not None:
        return float(value_range[0]), float(value_range[1])
    finite = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _scaled(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return all channels in [0, 1]."""
    return to_unit(x[..., None], limits)[..., 0]

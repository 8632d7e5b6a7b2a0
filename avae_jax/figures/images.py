"""Images as they are: reconstructions, samples, named rows, walks that stand still or move."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from avae_jax.figures.plain import make_plain_reconstructions, make_plain_samples
from avae_jax.figures.style import DPI, INK, count, new_figure, set_title, styled
from avae_jax.figures.tiles import Stack, stack_images, tile_figure, to_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range = tuple[float, float] | None

# How many images and how large, pixels.
NUM_PAIRS = 24
"""Images that are shown beside their reconstructions."""
_PAIRS_PER_ROW, _PAIR_TILE = 12, 64
_GRID, _GROUP, _SAMPLE_TILE = 100, 64, 48
_MAP_TILE, _MAP_SIDE = 40, 1100
_STRIP_TILE, _MOVING_TILE, _MOVING_PER_ROW = 40, 72, 10
# A walk's name over it, pixels.
_NAME_HEIGHT, _NAME_SIZE = 20, 12
_MILLISECONDS_PER_FRAME = 70


@styled
def make_reconstructions(
    x, x_recon, *, value_range: Range, labels=None, title: str | None = None
) -> Figure:
    """Draw originals over their reconstructions, blocks of two rows of twelve.

    Args:
      x: `[n, height, width, channels]` images or `[n, features]`; 24 (plain data: 12) are shown,
        the same ones for the same n and labels, spread over all rows.
      x_recon: same shape.
      value_range: `(low, high)` shown as black and white; None takes the range of what is shown.
      labels: `[n]` classes, of which each is shown as often as another, one after another; None
        knows of none.
      title: None gives the mean squared error of what is shown, of plain data that of all rows.

    Returns:
      The figure.

    Raises:
      ValueError: shapes differ or are neither images nor plain data.
    """
    x, x_recon = np.asarray(x), np.asarray(x_recon)
    if x.shape != x_recon.shape:
        raise ValueError(
            f"x_recon must have the shape of x, {x.shape}, got {x_recon.shape}: pass one "
            "reconstruction per row of x"
        )
    if x.ndim == 2:
        x, x_recon = _checked(x, "x"), _checked(x_recon, "x_recon")
        return make_plain_reconstructions(x, x_recon, title=title)
    n, total = len(x), count(len(x), "image")
    shown = spread_rows(len(x), NUM_PAIRS, labels) if x.ndim == 4 and len(x) else slice(0)
    x, x_recon = _checked(x[shown], "x"), _checked(x_recon[shown], "x_recon")
    limits = _limits(value_range, [x])
    if title is None:
        # Of all channels, before they are drawn as their mean.
        difference = _scaled(x, limits) - _scaled(x_recon, limits)
        title = (
            f"Reconstructions: mean squared error {np.mean(np.square(difference)):.2g} per pixel "
            f"({total if len(x) == n else f'{len(x)} of {total}'})"
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


def spread_rows(n: int, most: int, labels=None) -> np.ndarray:
    """Choose rows that stand for all: from each class as many, and from all over each class.

    Args:
      n: how many rows there are, >= 1.
      most: how many to choose, >= 1.
      labels: `[n]` classes; None is one class. Where there are more classes than rows to choose,
        the classes are spread too.

    Returns:
      Indices `[min(n, most)]`, class by class and ascending in each; the same for the same
      arguments.

    Example:
      >>> spread_rows(9, 4, labels=[0, 0, 0, 0, 0, 0, 0, 1, 2])
      array([1, 4, 7, 8])
    """
    labels = np.zeros(n, int) if labels is None else np.unique(labels, return_inverse=True)[1]
    rows = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if len(rows) > most:
        rows = [rows[k] for k in _spread(len(rows), most)]
    # One from each class in turn, until there are enough.
    sizes = np.zeros(len(rows), int)
    while sizes.sum() < min(n, most):
        for k, own in enumerate(rows):
            if sizes[k] < len(own) and sizes.sum() < most:
                sizes[k] += 1
    chosen = [own[_spread(len(own), size)] for own, size in zip(rows, sizes, strict=True)]
    return np.concatenate(chosen)


def _spread(n: int, most: int) -> np.ndarray:
    """Choose one from each of so many equal stretches, at random: a grid of factors repeats."""
    edges = np.linspace(0, n, most + 1).astype(int)
    draws = np.random.default_rng(0).random(most)
    return edges[:-1] + (draws * np.diff(edges)).astype(int)


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
def make_latent_grid(images, positions, *, value_range: Range) -> Figure:
    """Draw what the plane of a latent space of two dimensions decodes to, as a map.

    Args:
      images: `[k, k, height, width, channels]`: row i, column j is decoded at
        `z = (positions[j], positions[i])`.
      positions: `[k]`, ascending, in the units of the codes.
      value_range: `(low, high)` shown as black and white; None takes the range of the images.

    Returns:
      The figure: the first latent dimension to the right, the second upward.

    Raises:
      ValueError: `images` is no such square of images.
    """
    images, positions = np.asarray(images), np.asarray(positions, np.float64)
    k = len(positions)
    if images.ndim != 5 or images.shape[:2] != (k, k) or not images.size:
        raise ValueError(
            f"images must have shape [{k}, {k}, height, width, channels], got {images.shape}: "
            "decode the square of all pairs of positions"
        )
    rows = [_checked(row, "images") for row in images[::-1]]
    limits = _limits(value_range, rows)
    units = [to_unit(row, limits) for row in rows]
    stack = stack_images(units, [2] * (k - 1), tile=_MAP_TILE, gap=2)
    height, width = stack.picture.shape[:2]
    shrink = min(1.0, _MAP_SIDE / max(height, width)) / DPI
    figure = new_figure(shrink * width + 1.1, shrink * height + 0.9)
    axes = figure.add_subplot()
    axes.imshow(stack.picture, interpolation="antialiased")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    ticks = np.linspace(0, k - 1, min(k, 7)).round().astype(int)
    names = [f"{positions[tick]:.1f}".replace("-", "−") for tick in ticks]
    across = (np.arange(k) + 0.5) * (width + 2) / k - 1.5
    axes.set_xticks(across[ticks], names)
    axes.set_yticks(np.array(stack.centers)[::-1][ticks] - 0.5, names)
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    set_title(axes, "Decoded plane", _channel_notes(rows[0]))
    return figure


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

    Each stands under its name.

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
    columns = min(len(units), _MOVING_PER_ROW)
    frames = [
        Image.fromarray((255 * _moving(tiles, columns) + 0.5).astype(np.uint8))
        for tiles in units.swapaxes(0, 1)
    ]
    for frame in frames:
        _write_names(frame, list(images), columns)
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


def _moving(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Return one frame of walks, with room for a name over each."""
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    picture = stack_images(rows, [_NAME_HEIGHT] * (len(rows) - 1), tile=_MOVING_TILE).picture
    return np.pad(picture, ((_NAME_HEIGHT, 4), (4, 4), (0, 0)), constant_values=1.0)


def _write_names(frame, names: Sequence[str], columns: int) -> None:
    from PIL import ImageDraw, ImageFont

    pen, font = ImageDraw.Draw(frame), ImageFont.load_default(_NAME_SIZE)
    rows = -(-len(names) // columns)
    width, height = (frame.width - 5) / columns, (frame.height - 4) / rows
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        while len(name) > 1 and pen.textlength(name, font) > width - 3:
            name = name[:-2] + "…"
        middle = 4 + (column + 0.5) * width, row * height + 0.5 * _NAME_HEIGHT
        pen.text(middle, name, fill=INK, font=font, anchor="mm")


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

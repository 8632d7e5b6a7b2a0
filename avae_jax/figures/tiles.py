"""Many images as one picture, one picture pixel to one pixel of the PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avae_jax.figures.style import DPI, QUIET, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The largest side of an image in a figure, pixels; larger ones are shrunk.
_MOST = 128
# Room around the pictures, pixels; on the left at least so much where rows have names.
_NAMES, _MARGIN, _TITLE, _BETWEEN = 128, 16, 44, 40
# An average letter's width in a title, in a note and in the name of a row, pixels.
_TITLE_LETTER, _NOTE_LETTER, _NAME_LETTER = 8.2, 7.6, 8.0


class Stack(NamedTuple):
    """Rows of images laid out as one picture.

    Attributes:
      picture: `[height, width, 3]` in [0, 1], white between the images.
      centers: the rows' middles, pixels from the top.
      tile: the larger side of one image, pixels.
    """

    picture: np.ndarray
    centers: list[float]
    tile: int


def to_unit(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return images `[n, height, width, 1 or 3]` in [0, 1].

    Args:
      x: `[n, height, width, channels]`; uint8 are taken as 0..255 whatever the limits. What is not
        finite becomes mid-gray, and channels neither 1 nor 3 their mean.
      limits: what is shown as black and as white.
    """
    if x.dtype == np.uint8:
        x, limits = x.astype(np.float64), (0.0, 255.0)
    if x.shape[-1] not in (1, 3):
        x = x.mean(axis=-1, keepdims=True)
    low, high = limits
    return np.nan_to_num(np.clip((x - low) / (high - low), 0.0, 1.0), nan=0.5)


def stack_images(
    rows: Sequence[np.ndarray], gaps: Sequence[int], *, tile: int, gap: int = 3
) -> Stack:
    """Lay rows of images out as one picture.

    Args:
      rows: arrays `[k, height, width, 1 or 3]` in [0, 1], of one height and width.
      gaps: pixels between consecutive rows, one fewer than rows.
      tile: about how many pixels the larger side of an image takes; smaller images are enlarged by
        a whole factor, larger ones are left as they are.
      gap: pixels between images of one row.
    """
    height, width = rows[0].shape[1:3]
    factor = max(1, round(tile / max(height, width)))
    height, width = factor * height, factor * width
    columns = max(len(row) for row in rows)
    picture = np.ones((len(rows) * height + sum(gaps), columns * width + (columns - 1) * gap, 3))
    top, centers = 0, []
    for row, below in zip(rows, [*gaps, 0], strict=True):
        for column, image in enumerate(row):
            left = column * (width + gap)
            enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
            picture[top : top + height, left : left + width] = enlarged
        centers.append(top + height / 2)
        top += height + below
    return Stack(picture, centers, max(height, width))


def tile_figure(
    stacks: Sequence[Stack],
    titles: Sequence[str],
    *,
    notes: Sequence[str] = (),
    row_names: Sequence[str] = (),
) -> Figure:
    """Place pictures side by side, each under its title.

    Every picture pixel is one pixel of the PNG, unless images are so large that they are shrunk.

    Args:
      stacks: the pictures, of images of one size.
      titles: one per picture; all empty leaves no room for them.
      notes: lines under the first title.
      row_names: what stands on the left of the rows of each picture, or nothing.
    """
    # Where everything goes, in pixels, before the figure can be made.
    shrink = min(1.0, _MOST / stacks[0].tile)
    sizes = [tuple(shrink * side for side in stack.picture.shape[:2]) for stack in stacks]
    left = _MARGIN
    if row_names:
        left = max(_NAMES, 2 * _MARGIN + round(_NAME_LETTER * max(map(len, row_names))))
    # A line of notes is 12 points high.
    top = (_TITLE if any(titles) else _MARGIN // 2) + round(12 * len(notes) * DPI / 72)
    rooms = [
        max(size[1], _TITLE_LETTER * max(map(len, title.split("\n"))))
        for size, title in zip(sizes, titles, strict=True)
    ]
    width = left + sum(rooms) + _BETWEEN * (len(sizes) - 1) + _MARGIN
    width = max(width, left + _NOTE_LETTER * max(map(len, notes), default=0) + _MARGIN)
    height = top + max(size[0] for size in sizes) + _MARGIN

    figure = new_figure(width / DPI, height / DPI, constrained=False)
    x = left
    for index, (stack, size, room) in enumerate(zip(stacks, sizes, rooms, strict=True)):
        y = height - top - size[0]
        axes = figure.add_axes((x / width, y / height, size[1] / width, size[0] / height))
        axes.imshow(stack.picture, interpolation="nearest" if shrink == 1.0 else "antialiased")
        axes.axis("off")
        # Empty notes keep the titles of the others on the same line.
        set_title(axes, titles[index], notes if index == 0 else [""] * len(notes))
        for center, name in zip(stack.centers, row_names, strict=False):
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
        x += room + _BETWEEN
    return figure

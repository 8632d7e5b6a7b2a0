"""Sprites-like: 737,280 binary 64x64 images of a square, an ellipse or a heart, drawn on demand.

A stand-in for dSprites where that cannot be downloaded, with the same factors and grid. Call
numbers measured on it "sprites-like", never dSprites.
"""

import functools

import numpy as np

from avae_jax.data.factors import FACTORS, GridImages
from avae_jax.data.image_data import ImageData
from avae_jax.data.splits import draw_splits

IMAGE_SHAPE = (64, 64, 1)
VALIDATION_SIZE = 20_000
TEST_SIZE = 20_000

_GRID = FACTORS["sprites_like"]
_NUM_SCALES, _NUM_ANGLES, _NUM_POSITIONS = _GRID.sizes[1:4]
_RADIUS = 16
"""Pixels from a sprite's centre to the border of the image at its outermost position."""

# Angles after which a shape looks the same: a square has 10 views, an ellipse 20, a heart 40.
_PERIODS = (10, 20, 40)


def load_sprites_like(
    *,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Load the sprites-like data set.

    Factors: shape 3 (square, ellipse, heart), scale 6 (0.5 to 1), orientation 40, x_position 32,
    y_position 32, the last fastest. dSprites has a colour with a single value first; it is left
    out, metrics refuse a factor that never changes.

    Orientation k is the angle `2 pi k / 40`. dSprites includes both 0 and 2 pi, which are one
    angle; here all 40 differ. A square repeats after 10 of them and an ellipse after 20, so no
    code can tell the orientation of those: a perfect code scores below 1. Positions are shifts by
    whole pixels and no sprite is ever cut off, so shape, scale and orientation alone decide the
    number of its pixels.

    Args:
      seed: seed of the validation draw.
      validation_size: count or share; None is 20,000.
      test_size: count or share; None is 20,000.

    Returns:
      `ImageData` with lazy uint8 images `[737280, 64, 64, 1]` of 0 and 255; labels are the shape.

    Raises:
      DataError: if the sizes do not fit.
    """
    splits = draw_splits(
        {"train": _GRID.num_points},
        seed=seed,
        validation_size=VALIDATION_SIZE if validation_size is None else validation_size,
        test_size=TEST_SIZE if test_size is None else test_size,
    )
    images = GridImages(_GRID, image_shape=IMAGE_SHAPE, render=render_sprites)
    labels = np.repeat(np.arange(_GRID.sizes[0]), _GRID.num_points // _GRID.sizes[0])
    return ImageData("sprites_like", images, labels, splits, _GRID.sizes[0])


def render_sprites(factors: np.ndarray) -> np.ndarray:
    """Draw sprites.

    Args:
      factors: `[b, 5]` integers: shape, scale, orientation, x_position, y_position.

    Returns:
      uint8 `[b, 64, 64, 1]`, 0 and 255; x grows to the right, y downwards.
    """
    shape, scale, orientation, x, y = np.moveaxis(np.asarray(factors), -1, 0)
    last = _NUM_POSITIONS - 1
    return _windows()[shape, scale, orientation, last - y, last - x][..., None]


@functools.cache
def _windows() -> np.ndarray:
    """Return every sprite at every position, a view of 6.5 MB.

    `[shape, scale, orientation, 32 - 1 - y, 32 - 1 - x, 64, 64]`: an image is a window into a
    larger picture with the sprite at its centre.
    """
    pad = _NUM_POSITIONS - 1
    pictures = np.pad(sprite_masks(), [(0, 0)] * 3 + [(pad, pad)] * 2)
    return np.lib.stride_tricks.sliding_window_view(pictures, IMAGE_SHAPE[:2], axis=(-2, -1))


def sprite_masks() -> np.ndarray:
    """Draw each shape at each scale and orientation.

    Returns:
      uint8 `[3, 6, 40, 33, 33]`, 0 and 255, centred.
    """
    offsets = np.arange(-_RADIUS, _RADIUS + 1.0)
    right, up = offsets[None, None, None, :], -offsets[None, None, :, None]
    scale = np.linspace(0.5, 1.0, _NUM_SCALES)[:, None, None, None]
    masks = []
    for inside, period in zip((_square, _ellipse, _heart), _PERIODS, strict=True):
        angle = (2 * np.pi / _NUM_ANGLES * np.arange(period))[:, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        mask = inside((cos * right + sin * up) / scale, (cos * up - sin * right) / scale)
        masks.append(np.tile(mask, (1, _NUM_ANGLES // period, 1, 1)))
    return 255 * np.stack(masks).astype(np.uint8)


def _square(right, up):
    return np.maximum(np.abs(right), np.abs(up)) <= 11.2


def _ellipse(right, up):
    return (right / 15.6) ** 2 + (up / 8.3) ** 2 <= 1


def _heart(right, up):
    # The sextic heart, moved so that the circle around it has its centre at the origin.
    x, y = right / 12.2, up / 12.2 + 0.25
    return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3

"""Checks of pixel values before anything is trained on them."""

from typing import Any

import numpy as np

from avae_jax.data.errors import DataError

_ROWS_PER_CHUNK = 1024


def check_value_range(
    images: Any,
    value_range: tuple[float, float] | None,
    activation: str,
    *,
    num_samples: int = 4096,
) -> None:
    """Check that images are uint8, or float within what the decoder's activation can reach.

    uint8 images always pass: they are scaled to `value_range`. Of a large set, evenly spaced rows
    are looked at.

    Args:
      images: `[n, ...]` array or lazy reader.
      value_range: `(low, high)` of the decoder's output; None allows every finite value.
      activation: name of the activation, for the message.
      num_samples: number of rows looked at.

    Raises:
      DataError: if there are no images, their dtype is neither uint8 nor floating, or a value is
        not finite or outside `value_range` by more than 1e-4 of its width.
    """
    count = images.shape[0]
    if not count:
        raise DataError(f"images have shape {tuple(images.shape)}: give at least one")
    dtype = np.dtype(images.dtype)
    if dtype == np.uint8:
        return
    if not np.issubdtype(dtype, np.floating):
        raise DataError(
            f"images have dtype {dtype}: convert to uint8 (0..255), or to float32 in the range of "
            f"decoder activation '{activation}'"
        )
    rows = np.unique(np.linspace(0, count - 1, min(count, num_samples)).astype(np.int64))
    low, high = np.inf, -np.inf
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        chunk = np.asarray(images[rows[start : start + _ROWS_PER_CHUNK]])
        low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("images hold NaN or infinite values: remove or replace them")
    if value_range is None:
        return
    bottom, top = value_range
    slack = 1e-4 * (top - bottom)
    if low < bottom - slack or high > top + slack:
        raise DataError(
            f"images span [{low:.4g}, {high:.4g}] but decoder activation '{activation}' gives "
            f"({bottom:g}, {top:g}): rescale the data or choose activation 'linear'"
        )


def holds_only(images: Any, values: tuple[int, int], *, num_samples: int | None = None) -> bool:
    """Return whether images are uint8 and hold nothing but two values, the larger one among them.

    Masks hold 0 and 1, and so does the published dSprites. The first rows that hold anything else
    end the look.

    Args:
      images: `[n, ...]` array or lazy reader, of any dtype.
      values: the smaller and the larger one.
      num_samples: number of evenly spaced rows looked at; None looks at all.
    """
    if np.dtype(images.dtype) != np.uint8 or not images.shape[0]:
        return False
    count = images.shape[0]
    rows = np.linspace(0, count - 1, min(count, num_samples or count)).astype(np.int64)
    found, start, size = False, 0, 32
    while start < len(rows):
        chunk = np.asarray(images[rows[start : start + size]])
        larger = chunk == values[1]
        if not np.all(larger | (chunk == values[0])):
            return False
        found |= bool(larger.any())
        start, size = start + size, min(2 * size, _ROWS_PER_CHUNK)
    return found


def check_scaled(images: Any) -> None:
    """Refuse uint8 images of 0 and 1, which would be black beside 255.

    Args:
      images: `[n, ...]` array or lazy reader.

    Raises:
      DataError: 4096 evenly spaced rows hold 0 and 1 alone.
    """
    if holds_only(images, (0, 1), num_samples=4096):
        raise DataError(
            "images must span 0..255 where they are uint8, got 0 and 1 alone: multiply them by 255"
        )


def check_images(images: Any, value_range: tuple[float, float] | None, activation: str) -> None:
    """Check every one of the images that a trained model is to encode.

    Args:
      images: `[n, ...]` array or lazy reader, uint8 or floating.
      value_range: `(low, high)` of the decoder's output; None allows every finite value.
      activation: name of the activation, for the message.

    Raises:
      DataError: as `check_value_range`.
    """
    check_value_range(images, value_range, activation, num_samples=images.shape[0])


def check_finite(images: np.ndarray, *, source: str) -> None:
    """Check a float array for NaN and infinity, chunk by chunk.

    Args:
      images: `[n, ...]` float array, perhaps a memory map.
      source: where the array comes from, for the message.

    Raises:
      DataError: with the number of bad values and the first position.
    """
    num_bad, first = 0, None
    for start in range(0, len(images), _ROWS_PER_CHUNK):
        chunk = images[start : start + _ROWS_PER_CHUNK]
        bad = ~np.isfinite(chunk)
        num_bad += int(bad.sum())
        if first is None and bad.any():
            position = np.argwhere(bad)[0]
            first = (start + int(position[0]), *(int(i) for i in position[1:]))
    if num_bad:
        raise DataError(
            f"{source} holds {num_bad} NaN or infinite values, the first at index {first}: "
            "remove or replace them"
        )

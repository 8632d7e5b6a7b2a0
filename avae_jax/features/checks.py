"""Input checks shared by the feature extractors."""

from collections.abc import Mapping

import numpy as np


def check_unit_images(images, *, name: str = "images", min_side: int = 1) -> np.ndarray:
    """Check images of values in [0, 1], or uint8, and bring them to the host.

    Args:
      images: `[n, height, width, channels]`, uint8 or floating point in [0, 1].
      name: what to call the argument in an error.
      min_side: the least height and width.

    Returns:
      The images as a NumPy array, values and dtype unchanged.

    Raises:
      ValueError: wrong rank, no images, too small, or values not within [0, 1].
      TypeError: another dtype.
    """
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{name} must have shape [n, height, width, channels] with no axis empty, got "
            f"{images.shape}: give grey images a last axis of 1"
        )
    if min(images.shape[1:3]) < min_side:
        raise ValueError(
            f"{name} must be at least {min_side}x{min_side}, got shape {images.shape}: "
            "pad or enlarge them"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} must be uint8 or floating point in [0, 1], got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    # Written so that NaN fails too.
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"{name} must lie in [0, 1], got [{low:g}, {high:g}]: rescale or clip them, "
            "or pass uint8 in 0..255"
        )
    return images


def check_arrays(
    arrays: Mapping, shapes: Mapping[str, tuple[int, ...]], *, source: str
) -> dict[str, np.ndarray]:
    """Check that named arrays are exactly those wanted and convert them to float32.

    Args:
      arrays: what was found, by name.
      shapes: what is wanted, by name.
      source: the file, for an error.

    Returns:
      The arrays in the order of `shapes`, C-contiguous float32.

    Raises:
      ValueError: an array is missing, unknown, mis-shaped, not floating point or not finite.
    """
    for problem, keys in (
        ("lacks", [key for key in shapes if key not in arrays]),
        ("has unknown", [key for key in arrays if key not in shapes]),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ValueError(
                f"{source} {problem} array {keys[0]}{more}; it is of another net or damaged"
            )
    checked = {}
    for key, shape in shapes.items():
        value = arrays[key]
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
            kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"{source}: {key} must be a floating point array, got {kind}")
        if value.shape != shape:
            raise ValueError(f"{source}: {key} must have shape {shape}, got {value.shape}")
        with np.errstate(over="ignore"):  # an overflow to infinity is reported just below
            checked[key] = np.ascontiguousarray(value, dtype=np.float32)
        if not np.isfinite(checked[key]).all():
            raise ValueError(f"{source}: {key} has values that are not finite; the file is damaged")
    return checked

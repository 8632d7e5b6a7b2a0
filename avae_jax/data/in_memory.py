"""A user's array as a dataset."""

from typing import Any

import numpy as np

from avae_jax.data.array_file import as_images, as_labels
from avae_jax.data.errors import DataError
from avae_jax.data.image_data import ImageData, with_drawn_splits


def make_image_data(
    images: Any,
    labels: Any = None,
    *,
    name: str = "array",
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Make a dataset of an array, with disjoint splits that are drawn from it.

    Args:
      images: `[n, height, width, channels]`, `[n, height, width]` or `[n, features]`. uint8, bool
        and integers within 0..255 are images that the trainer scales; floats are used as they are.
      labels: `[n]` integers, classes from 0 and -1 for an image without one; or None.
      name: what the dataset is called.
      seed: seed of the validation draw, at least 0; the test images do not depend on it.
      validation_size: count (int) or share (float) of validation images; None is a tenth.
      test_size: count or share of test images; None is a fifth.

    Returns:
      The dataset; uint8 and float32 arrays are not copied.

    Raises:
      DataError: arrays that cannot be trained on, or sizes that do not fit.

    Example:
      >>> make_image_data(np.zeros((100, 8, 8), np.uint8)).images.shape
      (100, 8, 8, 1)
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise DataError(f"images are no array ({error}): give all of them one shape") from None
    array = as_images(array, "the array of images")
    if labels is not None:
        labels = as_labels(np.asarray(labels), len(array), "the array of labels")
    return with_drawn_splits(
        name, array, labels, seed=seed, validation_size=validation_size, test_size=test_size
    )

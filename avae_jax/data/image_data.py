"""The one form in which every dataset reaches the trainer."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from avae_jax.data.errors import DataError
from avae_jax.data.splits import SPLIT_NAMES, Splits, draw_splits

_FINGERPRINT_ROWS = 256
_ROWS_PER_CHUNK = 32


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """A dataset in host memory, on disk behind a memory map, or behind a lazy reader.

    Attributes:
      name: registry name of the dataset.
      images: `[n, height, width, channels]` or `[n, features]`. A NumPy array (perhaps a memory
        map), or any object with `shape`, `dtype`, `len` and indexing by an integer array that
        returns a NumPy array. uint8 spans 0..255 and is scaled by the trainer; float32 is used as
        it is.
      labels: `[n]` integers, or None.
      splits: disjoint row indices.
      num_classes: number of label values, or None.

    Raises:
      DataError: if labels or splits do not fit the images.
    """

    name: str
    images: Any
    labels: np.ndarray | None
    splits: Splits
    num_classes: int | None = None

    def __post_init__(self):
        count = self.images.shape[0]
        if len(self.images.shape) not in (2, 4):
            raise DataError(
                f"images must be [n, height, width, channels] or [n, features], "
                f"got shape {tuple(self.images.shape)}"
            )
        if self.labels is not None and self.labels.shape != (count,):
            raise DataError(
                f"labels have shape {self.labels.shape} but there are {count} images: "
                "give one integer label per image"
            )
        for name in SPLIT_NAMES:
            last = getattr(self.splits, name)[-1]
            if last >= count:
                raise DataError(
                    f"split '{name}' holds index {last} but there are only {count} images: "
                    "the stored splits belong to other data"
                )

    def fingerprint(self) -> str:
        """Return a hex SHA-256 of shape, dtype and at most 256 evenly spaced images.

        Other images, or the same in another order, give another fingerprint, unless they agree on
        all the rows looked at. Up to 256 images every one is looked at.

        Numerics:
          Reads at most 256 images, 32 at a time, from a memory map or lazy reader too.
        """
        shape, dtype = tuple(map(int, self.images.shape)), np.dtype(self.images.dtype)
        value = hashlib.sha256(f"{shape} {dtype.str};".encode())
        num_rows = min(shape[0], _FINGERPRINT_ROWS)
        rows = np.linspace(0, shape[0] - 1, num_rows).astype(np.int64)
        for start in range(0, num_rows, _ROWS_PER_CHUNK):
            value.update(np.asarray(self.images[rows[start : start + _ROWS_PER_CHUNK]]).tobytes())
        return value.hexdigest()


def with_drawn_splits(
    name: str, images: Any, labels: np.ndarray | None = None, **sizes: Any
) -> ImageData:
    """Make a dataset of images without splits of their own.

    Args:
      name: what it is called.
      images: `[n, ...]`, as `ImageData` holds them.
      labels: `[n]` integers, or None.
      **sizes: `seed`, `validation_size` and `test_size`, as `draw_splits` takes them.

    Raises:
      DataError: sizes that do not fit.
    """
    splits = draw_splits({"train": len(images)}, **sizes)
    num_classes = None if labels is None else int(labels.max()) + 1
    return ImageData(name, images, labels, splits, num_classes)

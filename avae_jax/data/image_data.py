"""The one form in which every dataset reaches the trainer."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from avae_jax.data.checks import holds_only
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
      labels: `[n]` integers, classes from 0 and -1 for an image without one; or None.
      splits: disjoint row indices.
      num_classes: number of label values, or None.
      files: names of the files that the images are of, or None.

    Raises:
      DataError: if labels or splits do not fit the images.
    """

    name: str
    images: Any
    labels: np.ndarray | None
    splits: Splits
    num_classes: int | None = None
    files: Sequence[str] | None = None

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


class BlackAndWhite:
    """Reads images of 0 and 1 as 0 and 255, row by row.

    Attributes:
      shape: `(n, ...)`.
      dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Any):
        """Wrap uint8 images of 0 and 1, on disk or behind a lazy reader."""
        self.shape = tuple(images.shape)
        self._images = images

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """Return the images of an int, slice or int array."""
        return np.asarray(self._images[rows]) * np.uint8(255)


def black_and_white(images: Any) -> Any:
    """Return uint8 images of 0 and 1 alone as 0 and 255, and all others as they are.

    What is read as it is needed stays so.
    """
    if not holds_only(images, (0, 1)):
        return images
    on_disk = isinstance(images, np.memmap) or not isinstance(images, np.ndarray)
    return BlackAndWhite(images) if on_disk else images * np.uint8(255)


def with_drawn_splits(
    name: str,
    images: Any,
    labels: np.ndarray | None = None,
    *,
    files: Sequence[str] | None = None,
    **sizes: Any,
) -> ImageData:
    """Make a dataset of images without splits of their own.

    Args:
      name: what it is called.
      images: `[n, ...]`, as `ImageData` holds them; uint8 of 0 and 1 alone become 0 and 255.
      labels: `[n]` integers, or None.
      files: names of the images' files, or None.
      **sizes: `seed`, `validation_size` and `test_size`, as `draw_splits` takes them.

    Raises:
      DataError: sizes that do not fit.
    """
    splits = draw_splits({"train": len(images)}, **sizes)
    if labels is not None and labels.max() < 0:
        labels = None
    num_classes = None if labels is None else int(labels.max()) + 1
    return ImageData(name, black_and_white(images), labels, splits, num_classes, files)

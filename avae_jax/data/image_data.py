"""The one form in which every dataset reaches the trainer."""

import dataclasses
from typing import Any

import numpy as np

from avae_jax.data.errors import DataError
from avae_jax.data.splits import SPLIT_NAMES, Splits


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

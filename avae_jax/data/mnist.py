"""MNIST, zero-padded to 32x32 as in the AVAE paper."""

import numpy as np

from avae_jax.data.tfds_dataset import TfdsDataset


def pad_to_32(images: np.ndarray) -> np.ndarray:
    """Pad `[b, 28, 28, 1]` images with two rows and columns of zeros on each side."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))


MNIST = TfdsDataset(
    name="mnist",
    image_shape=(32, 32, 1),
    convert=pad_to_32,
    num_classes=10,
    validation_size=10_000,
)

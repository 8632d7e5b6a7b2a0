"""dSprites: 737,280 binary 64x64 images of the full factor grid."""

import numpy as np

from avae_jax.data.tfds_dataset import TfdsDataset


def scale_binary(images: np.ndarray) -> np.ndarray:
    """Map the stored 0 and 1 to 0 and 255, the range of every uint8 image here."""
    return images * np.uint8(255)


DSPRITES = TfdsDataset(
    name="dsprites",
    image_shape=(64, 64, 1),
    convert=scale_binary,
    label="label_shape",
    num_classes=3,
    validation_size=20_000,
    test_size=20_000,
)

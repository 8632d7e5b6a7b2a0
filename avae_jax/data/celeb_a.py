"""CelebA, aligned faces, cropped and resized to 64x64, with its official three splits."""

import numpy as np
from PIL import Image

from avae_jax.data.tfds_dataset import TfdsDataset

_CROP = 140
_SIZE = 64


def crop_and_resize(images: np.ndarray) -> np.ndarray:
    """Takes the central 140x140 pixels and resizes them to 64x64 (Lanczos).

    The protocol of WAE (Tolstikhin et al. 2018, arXiv 1711.01558), kept by the regularized
    autoencoders (Ghosh et al. 2020, arXiv 1903.12436). Other papers crop 148 pixels, which shows
    more background: their scores do not compare.

    Args:
      images: `[b, 218, 178, 3]` uint8.

    Returns:
      `[b, 64, 64, 3]` uint8.
    """
    top = (images.shape[1] - _CROP) // 2
    left = (images.shape[2] - _CROP) // 2
    crops = images[:, top : top + _CROP, left : left + _CROP]
    filter_ = Image.Resampling.LANCZOS
    return np.stack(
        [np.asarray(Image.fromarray(crop).resize((_SIZE, _SIZE), filter_)) for crop in crops]
    )


CELEB_A = TfdsDataset(
    name="celeb_a",
    image_shape=(_SIZE, _SIZE, 3),
    convert=crop_and_resize,
    label=None,
)

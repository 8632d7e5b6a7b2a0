"""scikit-learn's digits: 1,797 real 8x8 images, nothing to download."""

from avae_jax.data.tfds_dataset import TfdsDataset


def _unchanged(images):
    return images


DIGITS = TfdsDataset(
    name="digits",
    image_shape=(8, 8, 1),
    convert=_unchanged,
    num_classes=10,
    validation_size=0.1,
    test_size=0.2,
    local=True,
)

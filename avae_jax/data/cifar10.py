"""CIFAR10 as stored: 32x32 RGB."""

from avae_jax.data.tfds_dataset import TfdsDataset


def _unchanged(images):
    return images


CIFAR10 = TfdsDataset(
    name="cifar10",
    image_shape=(32, 32, 3),
    convert=_unchanged,
    num_classes=10,
    validation_size=10_000,
)

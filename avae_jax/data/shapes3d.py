"""3D Shapes: 480,000 RGB 64x64 images of the full factor grid."""

from avae_jax.data.tfds_dataset import TfdsDataset


def _unchanged(images):
    return images


SHAPES3D = TfdsDataset(
    name="shapes3d",
    image_shape=(64, 64, 3),
    convert=_unchanged,
    label="label_shape",
    num_classes=4,
    validation_size=20_000,
    test_size=20_000,
)

"""Trains the classifier in whose features the samples of a labelled data set are judged."""

from collections.abc import Callable

import numpy as np

from avae_jax.data import DataError, ImageData
from avae_jax.evaluation.material import thinned
from avae_jax.features import Classifier, train_classifier
from avae_jax.text import number

_MOST_TRAIN, _MOST_OTHER = 60_000, 10_000


def train_on(
    dataset: ImageData,
    *,
    num_epochs: int = 5,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Classifier:
    """Train a classifier on a data set's training split and measure it on the test split.

    Args:
      dataset: with labels; uint8 images or floats in [0, 1].
      num_epochs: passes over at most 60,000 training images.
      seed: of initial weights and batches.
      say: receives a line per epoch.

    Returns:
      The classifier, named after the data set.

    Raises:
      DataError: the data set has no labels, or its data are no images.
    """
    if dataset.labels is None or dataset.num_classes is None or len(dataset.images.shape) != 4:
        raise DataError(
            f"data set {dataset.name!r} has no labelled images: a classifier cannot be trained"
        )

    labels_of_all = np.asarray(dataset.labels)

    def some(split, most):
        rows = thinned(split[labels_of_all[split] >= 0], most)
        return np.asarray(dataset.images[rows]), labels_of_all[rows]

    splits = dataset.splits
    validation_images, validation_labels = some(splits.validation, _MOST_OTHER)
    images, labels = some(splits.train, _MOST_TRAIN)

    def progress(epoch, values):
        shown = "  ".join(f"{name} {number(value)}" for name, value in values.items())
        say(f"epoch {epoch}/{num_epochs}  {shown}")

    net = train_classifier(
        images,
        labels,
        num_classes=dataset.num_classes,
        dataset=dataset.name,
        validation_images=validation_images,
        validation_labels=validation_labels,
        num_epochs=num_epochs,
        seed=seed,
        progress=progress,
    )
    return net.with_test_accuracy(*some(splits.test, _MOST_OTHER))

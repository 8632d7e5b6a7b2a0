"""A small classifier of one data set, whose last hidden layer gives features for its metrics."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from avae_jax.checks import check_count, check_positive
from avae_jax.features.arrays import hash_arrays, read_npz
from avae_jax.features.batches import apply_in_batches, as_unit_floats
from avae_jax.features.checks import check_arrays, check_unit_images
from avae_jax.files import written_whole

NUM_FEATURES = 84
MIN_SIDE = 8

_WIDTHS = (16, 32)
_KERNEL = 5
_EVALUATION_BATCH = 250
_ADAM = optax.scale_by_adam()
_FORMAT = "avae_jax lenet 1"
_FIELDS = (
    "format",
    "dataset",
    "image_shape",
    "num_classes",
    "validation_accuracy",
    "test_accuracy",
    "sha256",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained LeNet: two 5x5 convolutions with max pools, 84 hidden units, a linear output.

    A Fréchet distance in these features is named after it, "FD-lenet-mnist". It tells models of one
    data set apart; it is not FID, and scores compare only under the same `hash`.

    Attributes:
      params: float32 arrays by name.
      dataset: name of the data set it was trained on.
      image_shape: (height, width, channels).
      num_classes: number of classes.
      validation_accuracy: share in [0, 1] of the validation images classified right, NaN without
        validation images. The best epoch was picked by it, so it is a little too high.
      test_accuracy: as `with_test_accuracy` measured it, NaN before.
    """

    params: dict[str, np.ndarray]
    dataset: str
    image_shape: tuple[int, int, int]
    num_classes: int
    validation_accuracy: float = float("nan")
    test_accuracy: float = float("nan")

    @property
    def name(self) -> str:
        """The name of the features, "lenet-" and the data set."""
        return f"lenet-{self.dataset}"

    @property
    def hash(self) -> str:
        """The sha256 of the parameters, 64 hex digits."""
        return hash_arrays(self.params)

    def features(self, images) -> np.ndarray:
        """Compute the last hidden layer, after its ReLU.

        Args:
          images: `[n, height, width, channels]` of `image_shape`, uint8 or floating point in
            [0, 1].

        Returns:
          `[n, 84]` NumPy float32.

        Raises:
          ValueError: wrong shape, no images, or values outside [0, 1].
          TypeError: images of another dtype.
        """
        return self._apply(_features, images)

    def logits(self, images) -> np.ndarray:
        """Compute the unnormalised log-probabilities of the classes.

        Args:
          images: as for `features`.

        Returns:
          `[n, num_classes]` NumPy float32.

        Raises:
          ValueError: wrong shape, no images, or values outside [0, 1].
          TypeError: images of another dtype.
        """
        return self._apply(_logits, images)

    def predict(self, images) -> np.ndarray:
        """Return the most probable class of each image, `[n]` NumPy int32."""
        return np.argmax(self.logits(images), axis=-1).astype(np.int32)

    def accuracy(self, images, labels) -> float:
        """Return the share of images classified right, in [0, 1].

        Args:
          images: as for `features`.
          labels: `[n]` integers in 0..num_classes-1.

        Returns:
          A Python float.

        Raises:
          ValueError: images or labels of wrong shape or range.
          TypeError: images or labels of a wrong dtype.
        """
        predicted = self.predict(images)
        labels = _check_labels(labels, len(predicted), self.num_classes)
        return float(np.mean(predicted == labels))

    def with_test_accuracy(self, images, labels) -> "Classifier":
        """Return a copy that holds its accuracy on the test images given, as `accuracy` takes."""
        return dataclasses.replace(self, test_accuracy=self.accuracy(images, labels))

    def save(self, path) -> None:
        """Write everything to a `.npz`, which `load_classifier` reads.

        Args:
          path: file name ending in `.npz`; an existing file is replaced, as a whole or not
            at all.

        Raises:
          ValueError: another ending.
        """
        path = os.path.expanduser(os.fspath(path))
        if not path.endswith(".npz"):
            raise ValueError(f"path must end in .npz, got {path}")
        contents: dict[str, Any] = {
            "format": _FORMAT,
            "dataset": self.dataset,
            "image_shape": self.image_shape,
            "num_classes": self.num_classes,
            "validation_accuracy": self.validation_accuracy,
            "test_accuracy": self.test_accuracy,
            "sha256": self.hash,
            **self.params,
        }
        with written_whole(path) as file:
            np.savez(file, **contents)

    def _apply(self, fn, images) -> np.ndarray:
        images = check_unit_images(images)
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images must have shape [n, {', '.join(map(str, self.image_shape))}] as those "
                f"{self.name} was trained on, got {images.shape}"
            )
        params = jax.device_put(self.params)
        return apply_in_batches(lambda x: fn(params, x), images, _EVALUATION_BATCH)


def load_classifier(path) -> Classifier:
    """Load a classifier that `Classifier.save` wrote.

    Args:
      path: file name of a `.npz`.

    Returns:
      The `Classifier`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not such a file, or an array in it is missing, unknown, mis-shaped or altered.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"classifier {path} does not exist or is not a file")
    with open(path, "rb") as file:
        arrays = read_npz(file.read(), path)
    fields = {key: arrays.pop(key) for key in _FIELDS if key in arrays}
    if str(fields.get("format")) != _FORMAT:
        raise ValueError(f"{path} is not a classifier written by Classifier.save (no {_FORMAT!r})")
    missing = [key for key in _FIELDS if key not in fields]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]}; save the classifier again")
    try:
        height, width, channels = (int(side) for side in fields["image_shape"])
        num_classes = int(fields["num_classes"])
        accuracies = {key: float(fields[key]) for key in ("validation_accuracy", "test_accuracy")}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; save the classifier again") from error
    shapes = _shapes((height, width, channels), num_classes)
    classifier = Classifier(
        params=check_arrays(arrays, shapes, source=path),
        dataset=str(fields["dataset"]),
        image_shape=(height, width, channels),
        num_classes=num_classes,
        **accuracies,
    )
    if classifier.hash != str(fields["sha256"]):
        raise ValueError(f"{path}: its arrays do not match its sha256; it was altered or damaged")
    return classifier


def train_classifier(
    images,
    labels,
    *,
    num_classes: int,
    dataset: str,
    validation_images=None,
    validation_labels=None,
    num_epochs: int = 2,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Classifier:
    """Train a LeNet with Adam and a cosine schedule, and keep its best epoch.

    Train it on the training split only: its features then judge samples against a test split it has
    not seen.

    Args:
      images: `[n, height, width, channels]`, at least 8x8, uint8 or floating point in [0, 1].
      labels: `[n]` integers in 0..num_classes-1, at least two classes among them.
      num_classes: number of classes.
      dataset: name of the data set, for the name "lenet-<dataset>".
      validation_images: images of the same shape that pick the epoch; None keeps the last one.
      validation_labels: their labels.
      num_epochs: passes over the images; each leaves out what does not fill a batch.
      batch_size: images per step, n if that is less.
      learning_rate: at the start; it falls to 0 along a cosine.
      seed: of the initial parameters and of the order of the images.
      progress: called after each epoch with its number from 1 and a dict of `loss` (the mean over
        the epoch, nats) and `validation_accuracy`.

    Returns:
      The `Classifier`; its `test_accuracy` is NaN until `with_test_accuracy`.

    Raises:
      ValueError: images, labels or options of wrong shape or range, or only one class.
      TypeError: images or labels of a wrong dtype, or a count that is no integer.
      FloatingPointError: the loss is not finite.

    Numerics:
      float32. The same arguments give the same bits on the CPU of one machine; another machine or
      a GPU may give other parameters, hence another hash.

    References:
      LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).
    """
    images = check_unit_images(images, min_side=MIN_SIDE)
    num_classes = check_count("num_classes", num_classes, minimum=2)
    num_epochs = check_count("num_epochs", num_epochs, minimum=1)
    learning_rate = check_positive("learning_rate", learning_rate)
    labels = _check_labels(labels, len(images), num_classes)
    if labels.min() == labels.max():
        raise ValueError(f"labels must hold at least two classes, all are {labels[0]}")
    if (validation_images is None) != (validation_labels is None):
        raise ValueError("give validation_images and validation_labels together, or neither")
    if validation_images is not None:
        validation_images = check_unit_images(validation_images, name="validation_images")
        if validation_images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"validation_images must have the shape of images, got {validation_images.shape} "
                f"and {images.shape}"
            )
        validation_labels = _check_labels(
            validation_labels, len(validation_images), num_classes, name="validation_labels"
        )
    batch_size = min(check_count("batch_size", batch_size, minimum=1), len(images))

    rng = np.random.default_rng(seed)
    params = _initialize(images.shape[1:], num_classes, rng)
    best = Classifier(params, dataset, images.shape[1:], num_classes)
    num_batches = len(images) // batch_size
    num_steps = num_epochs * num_batches
    state = _ADAM.init(params)

    for epoch in range(1, num_epochs + 1):
        order = rng.permutation(len(images))[: num_batches * batch_size]
        losses = []
        for i, rows in enumerate(order.reshape(num_batches, batch_size)):
            done = ((epoch - 1) * num_batches + i) / num_steps
            rate = np.float32(learning_rate * 0.5 * (1.0 + np.cos(np.pi * done)))
            params, state, loss = _step(params, state, images[rows], labels[rows], rate)
            losses.append(loss)
        loss = float(np.mean(jax.device_get(losses)))
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"training diverged in epoch {epoch}, its mean loss is {loss}: "
                f"lower learning_rate, now {learning_rate:g}"
            )
        classifier = dataclasses.replace(
            best,
            params={key: np.asarray(value) for key, value in params.items()},
            validation_accuracy=float("nan"),
        )
        if validation_images is not None:
            accuracy = classifier.accuracy(validation_images, validation_labels)
            classifier = dataclasses.replace(classifier, validation_accuracy=accuracy)
        # Against NaN, before the first epoch or without validation images, the newer one wins.
        if not classifier.validation_accuracy <= best.validation_accuracy:
            best = classifier
        if progress is not None:
            report = {"loss": loss, "validation_accuracy": classifier.validation_accuracy}
            progress(epoch, report)
    return best


def _check_labels(labels, count: int, num_classes: int, name: str = "labels") -> np.ndarray:
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), one per image, got {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1}, got {low}..{high}: "
            "renumber them or change num_classes"
        )
    return labels.astype(np.int32)


def _shapes(image_shape, num_classes) -> dict[str, tuple[int, ...]]:
    height, width, channels = image_shape
    first, second = _WIDTHS
    hidden = (height // 4) * (width // 4) * second
    return {
        "conv_0/kernel": (_KERNEL, _KERNEL, channels, first),
        "conv_0/bias": (first,),
        "conv_1/kernel": (_KERNEL, _KERNEL, first, second),
        "conv_1/bias": (second,),
        "hidden/kernel": (hidden, NUM_FEATURES),
        "hidden/bias": (NUM_FEATURES,),
        "output/kernel": (NUM_FEATURES, num_classes),
        "output/bias": (num_classes,),
    }


def _initialize(image_shape, num_classes, rng) -> dict[str, np.ndarray]:
    """Draw He-normal kernels, in NumPy: JAX's initialiser takes seconds to compile."""
    return {
        name: np.sqrt(2.0 / np.prod(shape[:-1])).astype(np.float32)
        * rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("kernel")
        else np.zeros(shape, np.float32)
        for name, shape in _shapes(image_shape, num_classes).items()
    }


@jax.jit
def _features(params, images):
    x = 2.0 * as_unit_floats(images) - 1.0
    for i in range(len(_WIDTHS)):
        x = _convolve(x, params[f"conv_{i}/kernel"]) + params[f"conv_{i}/bias"]
        x = jax.nn.relu(_max_pool(x))
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(_dense(params, "hidden", x))


@jax.jit
def _logits(params, images):
    return _dense(params, "output", _features(params, images))


def _loss(params, images, labels):
    logits = _logits(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def _step(params, state, images, labels, learning_rate):
    loss, gradient = jax.value_and_grad(_loss)(params, images, labels)
    updates, state = _ADAM.update(gradient, state, params)
    updates = jax.tree.map(lambda update: -learning_rate * update, updates)
    return optax.apply_updates(params, updates), state, loss


def _dense(params, name, x):
    product = jnp.matmul(x, params[f"{name}/kernel"], precision=lax.Precision.HIGHEST)
    return product + params[f"{name}/bias"]


def _convolve(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def _max_pool(x):
    """Take the maximum over 2x2 tiles; an odd last row or column is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * height, : 2 * width]
    # By reshape: the gradient of reduce_window scatters, which is slow on the CPU.
    x = x.reshape(x.shape[0], height, 2, width, 2, x.shape[3])
    return x.max(axis=(2, 4))

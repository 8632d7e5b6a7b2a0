"""Batches: which images a step sees, and how they come to the devices."""

import concurrent.futures
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from avae_jax import data as datasets
from avae_jax.mesh import replicated, split_rows
from avae_jax.methods import Batch, Method


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a compiled function needs to make batches.

    Attributes:
      images: all images, where they are resident; else those of `ids`.
      labels: of all images.
      ids: `[batch]`, or `[steps, batch]`, int32.
    """

    images: Any
    labels: Any
    ids: Any


jax.tree_util.register_dataclass(Fetched, ["images", "labels", "ids"], [])


class Feed:
    """The images of a run: on the devices once if they fit, else read as they are needed.

    Args:
      dataset: images, labels and splits, on the host.
      mesh: the devices.
      resident: whether to hold all images on every device.
      batch_size: images in a step, over all devices.
      steps_per_dispatch: steps of one compiled call.
      seed: of the order of the images.
    """

    def __init__(
        self,
        dataset: datasets.ImageData,
        *,
        mesh: Mesh,
        resident: bool,
        batch_size: int,
        steps_per_dispatch: int,
        seed: int,
    ):
        images = dataset.images
        self.shape, self.dtype = tuple(images.shape), np.dtype(images.dtype)
        self.resident, self.batch_size, self.steps_per_dispatch = (
            resident, batch_size, steps_per_dispatch,
        )  # fmt: skip
        self._mesh, self._seed, self._train = mesh, seed, dataset.splits.train
        if resident and not isinstance(images, np.ndarray):
            # A reader takes arrays of numbers, and reads them side by side.
            images = images[np.arange(len(images))]
        self._images = jax.device_put(np.asarray(images), replicated(mesh)) if resident else images
        labels = np.full(len(images), -1) if dataset.labels is None else dataset.labels
        self._labels = jax.device_put(np.asarray(labels, np.int32), replicated(mesh))

    def fetch(self, ids: np.ndarray) -> Fetched:
        """Bring images `[batch]`, or `[steps, batch]`, by number."""
        rows = split_rows(self._mesh, axis=ids.ndim - 1)
        on_devices = jax.device_put(ids, rows)
        if self.resident:
            return Fetched(self._images, self._labels, on_devices)
        images = self._images[ids.reshape(-1)].reshape(*ids.shape, *self.shape[1:])
        return Fetched(jax.device_put(images, rows), self._labels, on_devices)

    def sharding(self, axis: int) -> Fetched:
        """Return where what `fetch` brings lies, rows along an axis."""
        whole, rows = replicated(self._mesh), split_rows(self._mesh, axis=axis)
        return Fetched(whole if self.resident else rows, whole, rows)

    def batch(self, method: Method, fetched: Fetched, mask: jax.Array | None = None) -> Batch:
        """Make the batch inside a compiled function."""
        ids = fetched.ids
        images = fetched.images[ids] if self.resident else fetched.images
        return Batch(
            x=method.prepare(images),
            ids=ids,
            mask=jnp.ones(ids.shape, jnp.float32) if mask is None else mask,
            labels=fetched.labels[ids],
        )

    def abstract(self, method: Method) -> Batch:
        """Return the shapes and dtypes of a batch."""

        def of(shape, dtype) -> Any:
            return jax.ShapeDtypeStruct((self.batch_size, *shape), dtype)

        ids = of((), jnp.int32)
        x = jax.eval_shape(method.prepare, of(self.shape[1:], self.dtype))
        return Batch(x=x, ids=ids, mask=of((), jnp.float32), labels=ids)

    def steps(self, fetched: Fetched) -> tuple[Any, Any]:
        """Return what a scan over the steps of a dispatch runs over, and how to make one's own."""
        if self.resident:
            return fetched.ids, lambda ids: Fetched(fetched.images, fetched.labels, ids)
        return (
            (fetched.images, fetched.ids),
            lambda own: Fetched(own[0], fetched.labels, own[1]),
        )

    def dispatches(self, epoch: int, done: int) -> Iterator[np.ndarray]:
        """Yield the batches left in an epoch, `[steps, batch]` at a time.

        The same dispatches are made whether or not the run was interrupted, so that both give the
        same bits.

        Args:
          epoch: its number; with the seed it decides the order.
          done: steps of it that were taken already.
        """
        batches = datasets.epoch_indices(
            self._train, seed=self._seed, epoch=epoch, batch_size=self.batch_size
        )
        size = self.steps_per_dispatch
        whole = len(batches) // size * size
        while done < len(batches):
            count = size if done < whole and done % size == 0 else 1
            yield batches[done : done + count]
            done += count

    def fetch_steps(self, batches: np.ndarray) -> Fetched:
        """Bring the images of one dispatch, `[steps, batch]`."""
        return self.fetch(batches[0] if len(batches) == 1 else batches)

    def epoch(self, epoch: int, done: int) -> Iterator[tuple[Fetched, int]]:
        """Yield (images, number of steps) of the dispatches left, each read during the one before.

        Args:
          epoch: its number.
          done: steps of it that were taken already.
        """
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ahead = None
            for batches in self.dispatches(epoch, done):
                coming = pool.submit(self.fetch_steps, batches), len(batches)
                if ahead is not None:
                    yield ahead[0].result(), ahead[1]
                ahead = coming
            if ahead is not None:
                yield ahead[0].result(), ahead[1]


def pad_rows(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill an index array up to `num_rows` by repeating its first entry.

    Returns:
      The padded array, `[num_rows]`, and a float32 mask that is 1 on the entries that count.
    """
    mask = np.zeros(num_rows, np.float32)
    mask[: len(rows)] = 1
    return np.concatenate([rows, np.full(num_rows - len(rows), rows[0], rows.dtype)]), mask

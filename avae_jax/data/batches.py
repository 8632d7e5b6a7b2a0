"""Batches as a pure function of (seed, step): nothing to carry, nothing to save."""

import numpy as np

from avae_jax.checks import check_count
from avae_jax.data.errors import DataError


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of full batches in one epoch; the partial last batch is dropped.

    Args:
      num_examples: number of training images.
      batch_size: images per step, all devices and hosts together.

    Raises:
      DataError: if `batch_size` is more than `num_examples`.
      ValueError: if `batch_size` is below 1.
      TypeError: if `batch_size` is no integer.
    """
    batch_size = check_count("batch_size", batch_size, minimum=1)
    if batch_size > num_examples:
        raise DataError(
            f"batch_size={batch_size} is more than the {num_examples} training images: lower it"
        )
    return num_examples // batch_size


def epoch_indices(
    train_indices: np.ndarray, *, seed: int, epoch: int, batch_size: int
) -> np.ndarray:
    """Draw the batches of one epoch without replacement.

    Args:
      train_indices: `[n]` integer row indices of the training split.
      seed: seed of the run, at least 0.
      epoch: epoch number from 0.
      batch_size: images per step.

    Returns:
      `[n // batch_size, batch_size]` int32; row s is step s of the epoch.

    Raises:
      DataError: as `steps_per_epoch`.
      ValueError: if `batch_size` is below 1, or `seed` or `epoch` is negative.
      TypeError: if one of them is no integer.

    Numerics:
      O(n) time and memory; independent of the number of hosts and devices.
    """
    train_indices = np.asarray(train_indices, np.int32)
    num_steps = steps_per_epoch(len(train_indices), batch_size)
    seed = check_count("seed", seed, minimum=0)
    epoch = check_count("epoch", epoch, minimum=0)
    order = np.random.default_rng([seed, epoch]).permutation(len(train_indices))
    return train_indices[order[: num_steps * batch_size]].reshape(num_steps, batch_size)


def batch_indices(
    train_indices: np.ndarray, *, seed: int, step: int, batch_size: int
) -> np.ndarray:
    """Return the rows of one training step, for any step, in any order of asking.

    Each call shuffles the whole epoch; a loop over steps should ask `epoch_indices` once an epoch.

    Args:
      train_indices: `[n]` integer row indices of the training split.
      seed: seed of the run, at least 0.
      step: global step from 0.
      batch_size: images per step.

    Returns:
      `[batch_size]` int32.

    Raises:
      DataError: as `steps_per_epoch`.
      ValueError: as `epoch_indices`, or if `step` is negative.
      TypeError: as `epoch_indices`, or if `step` is no integer.

    Example:
      >>> batch_indices(np.arange(6), seed=0, step=4, batch_size=2).shape
      (2,)
    """
    step = check_count("step", step, minimum=0)
    epoch, row = divmod(step, steps_per_epoch(len(train_indices), batch_size))
    return epoch_indices(train_indices, seed=seed, epoch=epoch, batch_size=batch_size)[row]

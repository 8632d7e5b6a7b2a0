"""Batches as a pure function of (seed, step): nothing to carry, nothing to save."""

import numpy as np

from avae_jax.data.errors import DataError


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of full batches in one epoch; the partial last batch is dropped.

    Args:
      num_examples: number of training images.
      batch_size: images per step, all devices and hosts together.

    Raises:
      DataError: if `batch_size` is not in [1, num_examples].
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
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
      DataError: if `batch_size` does not fit, or `seed` or `epoch` is negative.

    Numerics:
      O(n) time and memory; independent of the number of hosts and devices.
    """
    train_indices = np.asarray(train_indices, np.int32)
    num_steps = steps_per_epoch(len(train_indices), batch_size)
    if seed < 0 or epoch < 0:
        raise DataError(f"seed and epoch must be at least 0, got seed={seed}, epoch={epoch}")
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
      DataError: as `epoch_indices`, or if `step` is negative.

    Example:
      >>> batch_indices(np.arange(6), seed=0, step=4, batch_size=2).shape
      (2,)
    """
    if step < 0:
        raise DataError(f"step must be at least 0, got {step}")
    epoch, row = divmod(step, steps_per_epoch(len(train_indices), batch_size))
    return epoch_indices(train_indices, seed=seed, epoch=epoch, batch_size=batch_size)[row]

"""Images through a network, one batch at a time."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np


def as_unit_floats(images):
    """Convert images to float32 in [0, 1]: uint8 is divided by 255, other dtypes are cast."""
    scale = 255.0 if images.dtype == jnp.uint8 else 1.0
    return images.astype(jnp.float32) / scale


def apply_in_batches(fn: Callable, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Apply a function to batches of one size, the last one padded, and join the results.

    Args:
      fn: `[batch_size, ...] -> [batch_size, features]`, each row from its own image alone.
      images: `[n, ...]` with n >= 1.
      batch_size: rows per call.

    Returns:
      `[n, features]` NumPy.
    """
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            # One shape for every call: the net is compiled once.
            batch = np.pad(batch, [(0, batch_size - count)] + [(0, 0)] * (images.ndim - 1))
        outputs.append(np.asarray(fn(batch))[:count])
    return np.concatenate(outputs)

"""Input checks shared by the metrics."""

import numpy as np


def check_codes(z, *, name: str = "z", min_codes: int = 1) -> np.ndarray:
    """Convert codes to a float64 host array and check their shape and values.

    Args:
      z: `[n, latent_dim]`, any real array type.
      name: what to call the argument in an error.
      min_codes: the fewest rows the caller can work with.

    Returns:
      `[n, latent_dim]` NumPy float64.

    Raises:
      ValueError: `z` is not of rank 2, has too few rows or no columns, or holds a
        value that is not finite.
    """
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape [n, latent_dim] with latent_dim >= 1, got {z.shape}; "
            "reshape it to one row per code"
        )
    if z.shape[0] < min_codes:
        raise ValueError(f"{name} has {z.shape[0]} rows, at least {min_codes} are needed")
    bad = int(np.count_nonzero(~np.isfinite(z).all(axis=1)))
    if bad:
        raise ValueError(
            f"{name} has {bad} of {z.shape[0]} rows that are not finite; "
            "drop them or find their cause"
        )
    return z


def check_positive(value, *, name: str) -> float:
    """Convert a scalar to a float and check that it is finite and positive.

    Args:
      value: a number or a scalar array.
      name: what to call the argument in an error.

    Returns:
      The value as a Python float.

    Raises:
      ValueError: the value is not finite or not above zero.
    """
    value = float(value)
    if not (np.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be finite and positive, got {value}")
    return value

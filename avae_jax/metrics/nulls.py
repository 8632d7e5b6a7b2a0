"""What a number is where both laws agree: repetitions of the estimator, their mean and spread."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

NUM_NULL = 20
"""Repetitions behind a simulated null: its standard deviation is then known to a sixth."""


def with_null(name: str, value: float, null: Sequence[float]) -> dict[str, float]:
    """Put the mean and the standard deviation of null values beside a number.

    Args:
      name: of the number.
      value: the number.
      null: the same estimator on draws for which both laws agree.

    Returns:
      `name`, `name_null` and `name_null_std`: NaN without null values, the deviation below two of
      them or where one is infinite.
    """
    spread = len(null) > 1 and bool(np.isfinite(null).all())
    return {
        name: value,
        f"{name}_null": float(np.mean(null)) if len(null) else math.nan,
        f"{name}_null_std": float(np.std(null, ddof=1)) if spread else math.nan,
    }


def exchanges(
    x: np.ndarray, y: np.ndarray, count: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of two sets, exchanged at random: a permutation null.

    Args:
      x: `[n, d]`.
      y: `[m, d]`.
      count: how often.
      rng: of the permutations.

    Yields:
      `[n, d]` and `[m, d]`, all rows of both.
    """
    pooled = np.concatenate([x, y])
    for _ in range(count):
        pooled = rng.permutation(pooled)
        yield pooled[: len(x)], pooled[len(x) :]

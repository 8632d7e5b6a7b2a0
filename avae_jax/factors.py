"""Grids of discrete factors: the ground truth behind a rendered data set."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class FactorGrid:
    """Names and sizes of the factors of a full grid, in C order: the last factor runs fastest.

    Attributes:
      names: one per factor, all different.
      sizes: number of values of each factor, >= 1.

    Raises:
      ValueError: no factors, names and sizes of different length, a repeated name, or a size
        below 1.

    Example:
      >>> grid = FactorGrid(("shape", "pos_x"), (3, 4))
      >>> grid.num_points
      12
      >>> grid.factors([6])
      array([[1, 2]])
      >>> grid.indices([[1, 2]])
      array([6])
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        if not self.names or len(self.names) != len(self.sizes):
            raise ValueError(
                f"names and sizes must pair up, got {len(self.names)} names and "
                f"{len(self.sizes)} sizes: give one size per name"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names must differ, got {self.names}: rename the repeated factor")
        if min(self.sizes) < 1:
            raise ValueError(f"sizes must be at least 1, got {self.sizes}")

    @property
    def num_factors(self) -> int:
        """Number of factors."""
        return len(self.sizes)

    @property
    def num_points(self) -> int:
        """Number of points, the product of the sizes."""
        return math.prod(self.sizes)

    def factors(self, indices) -> np.ndarray:
        """Convert flat indices to factor values.

        Args:
          indices: integers of any shape `[...]` in [0, num_points).

        Returns:
          `[..., num_factors]` int64.

        Raises:
          TypeError: the indices are no integers.
          ValueError: an index outside the grid.
        """
        indices = check_indices(indices, self)
        return np.stack(np.unravel_index(indices, self.sizes), axis=-1)

    def indices(self, factors) -> np.ndarray:
        """Convert factor values to flat indices.

        Args:
          factors: integers `[..., num_factors]`, column k in [0, sizes[k]).

        Returns:
          `[...]` int64.

        Raises:
          TypeError: the values are no integers.
          ValueError: wrong number of columns, or a value outside the grid.
        """
        factors = _integers("factors", factors)
        if factors.ndim == 0 or factors.shape[-1] != self.num_factors:
            raise ValueError(f"factors must have {self.num_factors} columns, got {factors.shape}")
        for k, (name, size) in enumerate(zip(self.names, self.sizes, strict=True)):
            column = factors[..., k]
            if column.size and not (column.min() >= 0 and column.max() < size):
                raise ValueError(
                    f"factors: {name} must lie in [0, {size}), got [{column.min()}, {column.max()}]"
                )
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(factors, -1, 0)), self.sizes))

    def sample(self, rng: np.random.Generator, num_samples: int) -> np.ndarray:
        """Draw flat indices uniformly, with replacement.

        Args:
          rng: source of randomness.
          num_samples: how many.

        Returns:
          `[num_samples]` int64.
        """
        return rng.integers(0, self.num_points, size=num_samples)

    def sample_fixed(self, rng: np.random.Generator, factors, num_samples: int) -> np.ndarray:
        """Draw batches of points that share one factor's value.

        Args:
          rng: source of randomness; the shared value is drawn too.
          factors: `[b]`, the position of the factor that batch b shares.
          num_samples: points per batch.

        Returns:
          `[b, num_samples]` int64 flat indices.
        """
        factors = np.asarray(factors, dtype=np.int64)
        sizes = np.asarray(self.sizes, dtype=np.int64)
        strides = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)
        size, stride = sizes[factors][:, None], strides[factors][:, None]
        points = rng.integers(0, self.num_points, size=(factors.shape[0], num_samples))
        value = points // stride % size
        return points + (value[:, :1] - value) * stride

    def positions(self, factors: Sequence[int | str] | None = None) -> np.ndarray:
        """Look up factors that a metric is to use.

        Args:
          factors: names or positions; None means all.

        Returns:
          `[k]` int64 positions.

        Raises:
          ValueError: an unknown or repeated factor, none at all, or one with a single value.
        """
        if factors is None:
            factors = range(self.num_factors)
        elif isinstance(factors, str):
            raise ValueError(f"factors must be a sequence of factors, got {factors!r}")
        positions = []
        for factor in factors:
            if factor in self.names:
                factor = self.names.index(str(factor))
            if isinstance(factor, str) or not 0 <= factor < self.num_factors:
                raise ValueError(f"factors: {factor!r} is not one of {self.names}")
            positions.append(int(factor))
        if not positions or len(set(positions)) != len(positions):
            raise ValueError(f"factors must be different and at least one, got {list(factors)}")
        constant = [self.names[k] for k in positions if self.sizes[k] < 2]
        if constant:
            usable = tuple(n for n, s in zip(self.names, self.sizes, strict=True) if s > 1)
            raise ValueError(
                f"factors: {', '.join(constant)} has one value only and cannot be scored: "
                f"pass factors={usable}"
            )
        return np.asarray(positions, dtype=np.int64)


def check_indices(indices, grid: FactorGrid) -> np.ndarray:
    """Return flat indices as int64.

    Args:
      indices: integers of any shape.
      grid: what they index.

    Raises:
      TypeError: they are no integers.
      ValueError: one lies outside the grid.
    """
    indices = _integers("indices", indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < grid.num_points):
        raise ValueError(
            f"indices must lie in [0, {grid.num_points}), got [{indices.min()}, {indices.max()}]"
        )
    return indices


def _integers(name: str, values) -> np.ndarray:
    values = np.asarray(values)
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got dtype {values.dtype}")
    return values.astype(np.int64)

"""The codes of a factor grid's points."""

from collections.abc import Callable

import numpy as np

from avae_jax.checks import check_count
from avae_jax.factors import FactorGrid, check_indices
from avae_jax.metrics.checks import check_finite_rows

_CHECK_ROWS = 65_536


class CodeLookup:
    """Look up the codes of grid points, encoding each point once.

    All metrics of a grid can share one lookup: together they cost at most one encoding pass.

    Args:
      source: `[num_points, latent_dim]` codes of the full grid in C order, or a function from flat
        indices `[n]` int64 to codes `[n, latent_dim]`. With a cache the function is always called
        with `chunk_size` indices, so a jitted encoder compiles once.
      grid: the grid.
      cache: whether to keep a function's codes; False suits a function that is cheap to call, and
        calls it with any number of indices.
      chunk_size: points per call of the function.

    Raises:
      ValueError: codes of the wrong shape, codes that are not finite (for a function, when they
        are looked up), or `chunk_size` below 1.

    Numerics:
      The codes keep their dtype; memory is num_points x latent_dim with a cache.
    """

    def __init__(self, source, grid: FactorGrid, *, cache: bool = True, chunk_size: int = 4096):
        self.grid = grid
        self._chunk_size = check_count("chunk_size", chunk_size, minimum=1)
        self._encode: Callable | None = source if callable(source) else None
        self._codes = np.empty((0, 0))
        self._cache = cache
        self._known = np.zeros(grid.num_points if self._encode and cache else 0, dtype=bool)
        if self._encode is None:
            codes = np.asarray(source)
            if codes.ndim != 2 or codes.shape[0] != grid.num_points or codes.shape[1] == 0:
                raise ValueError(
                    f"codes must have shape [{grid.num_points}, latent_dim], one row per grid "
                    f"point, got {codes.shape}"
                )
            for start in range(0, codes.shape[0], _CHECK_ROWS):
                check_finite_rows(codes[start : start + _CHECK_ROWS], name="codes")
            self._codes = codes

    @property
    def latent_dim(self) -> int:
        """Number of columns of the codes."""
        return self(np.zeros(1, dtype=np.int64)).shape[1]

    def __call__(self, indices) -> np.ndarray:
        """Return the codes of flat indices `[...]`, shape `[..., latent_dim]`."""
        indices = check_indices(indices, self.grid)
        if self._encode is not None and not self._cache:
            codes = _call(self._encode, indices.ravel())
            return codes.reshape(*indices.shape, codes.shape[1])
        if self._encode is not None:
            missing = np.unique(indices[~self._known[indices]])
            for start in range(0, missing.size, self._chunk_size):
                self._fill(self._encode, missing[start : start + self._chunk_size])
        return self._codes[indices]

    def _fill(self, encode: Callable, indices: np.ndarray) -> None:
        padded = np.full(self._chunk_size, indices[0])
        padded[: indices.size] = indices
        codes = _call(encode, padded)[: indices.size]
        if not self._codes.size:
            self._codes = np.empty((self.grid.num_points, codes.shape[1]), codes.dtype)
        self._codes[indices] = codes
        self._known[indices] = True


def as_lookup(source, grid: FactorGrid) -> CodeLookup:
    """Return `source` if it is a lookup of this grid, else wrap it in one.

    Args:
      source: a `CodeLookup`, or what its constructor takes.
      grid: the grid.

    Returns:
      The lookup.

    Raises:
      ValueError: a lookup of another grid, or bad codes.
    """
    if isinstance(source, CodeLookup):
        if source.grid != grid:
            raise ValueError(f"lookup belongs to {source.grid}, not to {grid}: use one grid")
        return source
    return CodeLookup(source, grid)


def _call(encode: Callable, indices: np.ndarray) -> np.ndarray:
    codes = np.asarray(encode(indices))
    if codes.ndim != 2 or codes.shape[0] != indices.size or codes.shape[1] == 0:
        raise ValueError(
            f"codes must have shape [{indices.size}, latent_dim], one row per index, got "
            f"{codes.shape}"
        )
    check_finite_rows(codes, name="codes")
    return codes

"""Distances between all rows of two sets, and nearest neighbours, a block of rows at a time."""

from collections.abc import Iterator

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes, check_matching

# Rows of the distance matrix held at a time: 256 x 10,000 float64 are 20 MB.
_BLOCK = 256
# Groups of columns among which the nearest are looked for.
_GROUPS = 128


def square_distances(
    x: np.ndarray, y: np.ndarray, *, upper: bool = False
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the squared distances between rows of x and y, block by block.

    Args:
      x: `[n, d]` float64, near the origin: centre rows that are not, or digits are lost.
      y: `[m, d]` float64.
      upper: leave out the columns left of a block's first row, for y equal to x.

    Yields:
      Rows, and their `[rows, m]` squared distances, free to be overwritten. Those within
      round-off of zero are zero, so that equal rows are seen as such. The same rows of x give the
      same bits for equal y, so ties between passes stay ties.
    """
    # A fresh operand keeps BLAS on one code path when y is x.
    scaled = np.ascontiguousarray(-2.0 * y.T)
    x2, y2 = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    eps = 8.0 * np.finfo(np.float64).eps
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(x)))
        first = start if upper else 0
        square = x[rows] @ scaled[:, first:]
        size = x2[rows, None] + y2[first:]
        square += size
        size *= eps
        square[square < size] = 0.0
        yield rows, square


def nearest_neighbors(
    queries: np.ndarray, points: np.ndarray, *, k: int, exclude_own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest points of each query.

    Args:
      queries: `[n, d]` finite float64.
      points: `[m, d]` finite float64.
      k: how many, at least 1 and at most the number of points a query may use.
      exclude_own: leave point i out for query i (queries and points are then the same array).

    Returns:
      `(distances, indices)`, float64 and int64 `[n, k]`, nearest first.

    Numerics:
      float64. Neighbours are ranked by one matrix product of a block of queries with all points,
      around the points' mean; their distances come from differences, so that equal rows are at
      distance 0. Time O(n m d), memory O(m (d + block)).
    """
    center = points.mean(axis=0)
    columns = np.ascontiguousarray((points - center).T)
    half = 0.5 * np.sum(columns**2, axis=0)
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(queries)))
        # Half the squared distance, short of the query's own norm.
        rank = (queries[rows] - center) @ columns
        np.subtract(half, rank, out=rank)
        if exclude_own:
            own = np.arange(rows.start, rows.stop)
            rank[own - start, own] = np.inf
        near = _smallest(rank, k)
        found = np.empty(near.shape)
        for column in range(k):
            difference = queries[rows] - points[near[:, column]]
            found[:, column] = np.linalg.norm(difference, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(found, order, axis=1)
        indices[rows] = np.take_along_axis(near, order, axis=1)
    return distances, indices


def nearest_distances(queries, points, *, k: int, exclude_own: bool = False) -> np.ndarray:
    """Find the distance of each query to its k-th nearest point.

    Args:
      queries: `[n, latent_dim]`.
      points: `[m, latent_dim]`.
      k: which neighbour, 1 for the nearest; at most the number of points a query may use.
      exclude_own: leave point i out for query i (queries and points are then the same array).

    Returns:
      `[n]` float64.

    Raises:
      ValueError: wrong shapes, values that are not finite, k below 1 or more than there are points.
      TypeError: k is no integer.

    Numerics:
      As `nearest_neighbors`.

    Example:
      >>> nearest_distances([[0.0], [1.0]], [[1.0], [3.0], [7.0]], k=2)
      array([3., 2.])
    """
    queries = check_codes(queries, name="queries")
    points = check_matching(queries, points, z_name="queries", name="points")
    k = check_count("k", k, minimum=1)
    usable = points.shape[0] - int(exclude_own)
    if k > usable:
        raise ValueError(f"k is {k} but there are {usable} neighbours: give a smaller k")
    return nearest_neighbors(queries, points, k=k, exclude_own=exclude_own)[0][:, -1]


def _smallest(block: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k smallest values of each row, in any order."""
    if k == 1:
        return np.argmin(block, axis=1)[:, None]
    rows, m = block.shape
    size = m // _GROUPS
    if k >= _GROUPS or size < 2:
        return np.argpartition(block, k - 1, axis=1)[:, :k]
    # The k smallest values lie in the k groups of smallest minimum: a minimum is far cheaper than
    # a partition of the whole row. A group holds every 128th column.
    groups = block[:, : size * _GROUPS].reshape(rows, size, _GROUPS)
    nearest = np.argpartition(groups.min(axis=1), k - 1, axis=1)[:, :k]
    columns = (np.arange(size)[:, None] * _GROUPS + nearest[:, None, :]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(size * _GROUPS, m), (rows, m - size * _GROUPS))
    columns = np.concatenate([columns, rest], axis=1)
    kept = np.take_along_axis(block, columns, axis=1)
    return np.take_along_axis(columns, np.argpartition(kept, k - 1, axis=1)[:, :k], axis=1)

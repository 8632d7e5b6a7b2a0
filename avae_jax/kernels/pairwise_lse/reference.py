"""NumPy float64 reference in difference form: what the tests and benchmarks compare with."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Queries at a time; the reference holds a few arrays of this many rows and m columns.
_ROWS = 64


class ReferenceStats(NamedTuple):
    """The fields of `PairwiseStats` in NumPy float64."""

    lse: np.ndarray
    mean: np.ndarray
    logit_mean: np.ndarray
    logit_sq_mean: np.ndarray


class ReferenceGradients(NamedTuple):
    """Gradients of sum_i cotangent_i lse_i, float64, in the shapes of the arguments."""

    x: np.ndarray
    y: np.ndarray
    bandwidth: float
    log_weights: np.ndarray


def reference_stats(x, y, *, bandwidth, log_weights=None, exclude=None) -> ReferenceStats:
    """Compute `pairwise_lse_stats` in float64, in memory linear in the number of centers.

    Args:
      x: [n, d] queries.
      y: [m, d] centers; one whose log weight is -inf is dropped, whatever it holds.
      bandwidth: number > 0.
      log_weights: [m] or None, nats.
      exclude: [n] integer or None; -1 excludes nothing.

    Returns:
      ReferenceStats.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    lse = np.full(len(x), -np.inf)
    mean, first, second = np.zeros_like(x), np.zeros(len(x)), np.zeros(len(x))
    for rows, logits, weights, row_lse in _softmax_rows(x, y, bandwidth, log_weights, exclude):
        lse[rows] = row_lse
        mean[rows] = weights @ _finite_where_used(y, log_weights)
        first[rows] = np.sum(weights * logits, axis=1)
        second[rows] = np.sum(weights * logits**2, axis=1)
    return ReferenceStats(lse, mean, first, second)


def reference_gradients(
    x, y, cotangent, *, bandwidth, log_weights=None, exclude=None
) -> ReferenceGradients:
    """Compute the gradients of sum_i cotangent_i lse_i analytically in float64.

    With softmax weights w_ij: sum_j g_i w_ij (y_j - x_i) / h^2 in x_i, sum_i g_i w_ij (x_i - y_j)
    / h^2 in y_j, sum_ij g_i w_ij |x_i - y_j|^2 / h^3 in h, and sum_i g_i w_ij in log_weights_j.

    Args:
      x: [n, d] queries.
      y: [m, d] centers.
      cotangent: [n].
      bandwidth: number > 0.
      log_weights: [m] or None, nats.
      exclude: [n] integer or None.

    Returns:
      ReferenceGradients; the one of log_weights is given even if they are None.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    g = np.asarray(cotangent, np.float64)
    used_y = _finite_where_used(y, log_weights)
    grad_x, grad_y = np.zeros_like(x), np.zeros_like(y)
    grad_h, grad_w = 0.0, np.zeros(len(y))
    for rows, logits, weights, _ in _softmax_rows(x, y, bandwidth, log_weights, exclude):
        scaled = g[rows, None] * weights
        row_sum, column_sum = scaled.sum(axis=1), scaled.sum(axis=0)
        grad_x[rows] = (scaled @ used_y - row_sum[:, None] * x[rows]) / bandwidth**2
        grad_y += (scaled.T @ x[rows] - column_sum[:, None] * used_y) / bandwidth**2
        grad_h += -2.0 * float(np.sum(scaled * logits)) / bandwidth
        grad_w += column_sum
    return ReferenceGradients(grad_x, grad_y, grad_h, grad_w)


def _finite_where_used(y, log_weights):
    if log_weights is None:
        return y
    return np.where((np.asarray(log_weights) == -np.inf)[:, None], 0.0, y)


def _softmax_rows(
    x, y, bandwidth, log_weights, exclude
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (rows, logits without log weights, softmax weights, lse) for blocks of queries."""
    y = _finite_where_used(y, log_weights)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        squared = np.zeros((len(x[rows]), len(y)))
        for k in range(x.shape[1]):
            squared += np.square(x[rows, k, None] - y[None, :, k])
        logits = -squared / (2.0 * float(bandwidth) ** 2)
        total = logits.copy() if log_weights is None else logits + np.asarray(log_weights)
        if exclude is not None:
            left_out = np.asarray(exclude)[rows]
            excluding = np.flatnonzero(left_out >= 0)
            total[excluding, left_out[excluding]] = -np.inf
        top = total.max(axis=1, keepdims=True)
        top = np.where(top == -np.inf, 0.0, top)
        weights = np.exp(total - top)
        normalizer = weights.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            lse = np.squeeze(np.log(normalizer) + top, axis=1)
        yield rows, logits, weights / np.where(normalizer == 0.0, 1.0, normalizer), lse

"""The kernel in plain JAX, with the whole matrix of logits in memory.

JAX differentiates it as any other function: forward, backward, and as often as one likes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from avae_jax.kernels.pairwise_lse.explicit import spec_of, with_auto_axes
from avae_jax.kernels.pairwise_lse.precision import matmul
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats
from avae_jax.numerics import logsumexp


def stats(x, y, bandwidths, log_weights, exclude, *, precision: str) -> PairwiseStats:
    """Return all statistics, differentiable in every floating argument.

    Args:
      x: [n, d] queries.
      y: [m, d] centers.
      bandwidths: [k].
      log_weights: [m] or None.
      exclude: [n] int32 or None.
      precision: the accuracy class of the products.

    Returns:
      PairwiseStats, [k, ...].

    Numerics:
      Squares are expanded about the mean of the centers, as in the streamed matrix form, with its
      error. Memory O(k n m), and as much again per derivative.
    """
    of_rows, of_mean = PartitionSpec(None, spec_of(x)[0]), PartitionSpec(None, *spec_of(x))
    specs: list[Any] = [of_rows, of_mean, of_rows, of_rows]
    run = functools.partial(_stats, precision=precision)
    args = x, y, bandwidths, log_weights, exclude
    return with_auto_axes(run, args, PairwiseStats(*specs))


def _stats(x, y, bandwidths, log_weights, exclude, *, precision: str) -> PairwiseStats:
    """Return the statistics as `stats` does."""
    kept = jnp.ones(y.shape[:1], bool) if log_weights is None else log_weights != -jnp.inf
    included = jnp.broadcast_to(kept[None, :], (x.shape[0], y.shape[0]))
    if exclude is not None:
        included &= exclude[:, None] != jnp.arange(y.shape[0], dtype=jnp.int32)[None, :]
    # A center that is not finite is NaN to the rows that include it, and must not reach a product:
    # 0 times it would be NaN in the others. A masked one may hold anything.
    finite = jnp.all(jnp.isfinite(y), axis=1)
    taken = (kept & finite)[:, None]
    spoilt = jnp.where(finite, 0.0, jnp.nan).astype(x.dtype)
    # The value does not depend on the origin.
    count = jnp.maximum(jnp.sum(taken), 1)
    shift = jax.lax.stop_gradient(jnp.sum(jnp.where(taken, y, 0.0), axis=0) / count)
    y = jnp.where(taken, y - shift[None, :], 0.0)
    x = x - shift[None, :]
    empty = ~jnp.any(included, axis=1)

    def at(bandwidth):
        a, b = x / bandwidth, y / bandwidth
        squares = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
        logits = matmul(a, b.T, precision) - 0.5 * squares + spoilt[None, :]
        biased = logits if log_weights is None else logits + log_weights[None, :]
        lse = logsumexp(biased, axis=1, where=included)
        # Selected twice, so that no derivative meets exp of an infinity.
        level = jnp.where(empty, 0.0, lse)[:, None]
        weights = jnp.where(included, jnp.exp(jnp.where(included, biased - level, 0.0)), 0.0)
        return PairwiseStats(
            lse,
            jnp.where(empty[:, None], 0.0, matmul(weights, y, precision) + shift[None, :]),
            jnp.sum(weights * jnp.where(included, logits, 0.0), axis=1),
            jnp.sum(weights * jnp.where(included, logits * logits, 0.0), axis=1),
        )

    return jax.vmap(at)(bandwidths)

"""Row statistics of the softmax over centers, and the one rule that combines them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PairwiseStats(NamedTuple):
    """Statistics of w_ij = softmax_j(logit_ij + log_weight_j), one row per query.

    Attributes:
      lse: [n], log of the softmax's normaliser, nats; -inf where no center is included.
      mean: [n, d], sum_j w_ij y_j in the caller's coordinates; 0 where no center is included.
      logit_mean: [n], E_w[l], l = -|x - y|^2 / (2 h^2) without log weights; 0 where none.
      logit_sq_mean: [n], E_w[l^2]; 0 where no center is included.
    """

    lse: jax.Array
    mean: jax.Array
    logit_mean: jax.Array
    logit_sq_mean: jax.Array


def merge_stats(a: PairwiseStats, b: PairwiseStats) -> PairwiseStats:
    """Combine the statistics of two disjoint sets of centers for the same queries.

    Args:
      a: statistics over one set of centers.
      b: statistics over another; same queries, same bandwidth.

    Returns:
      The statistics over the union. The rule is associative and commutative up to rounding, and
      rows in which neither side includes a center stay empty (lse -inf, the rest 0).
    """
    lse = jnp.logaddexp(a.lse, b.lse)
    finite = jnp.where(lse == -jnp.inf, 0.0, lse)
    weight_a, weight_b = jnp.exp(a.lse - finite), jnp.exp(b.lse - finite)

    def mix(u, v):
        shape = weight_a.shape + (1,) * (u.ndim - weight_a.ndim)
        return weight_a.reshape(shape) * u + weight_b.reshape(shape) * v

    return PairwiseStats(lse, *(mix(u, v) for u, v in zip(a[1:], b[1:], strict=True)))

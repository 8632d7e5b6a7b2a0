"""Row statistics of the softmax over centers, and the one rule that combines them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """Unnormalized sums over some of the centers: what tiles, shards and ring steps add up.

    The leading axis k runs over bandwidths. Fields that were not asked for are None.

    Attributes:
      top: [k, n], the level the sums are taken relative to, nats; at most `empty_level` where no
        center is included.
      total: [k, n], sum_j exp(logit_j - top).
      weighted: [k, n, d], sum_j exp(logit_j - top) (y_j - shift), in the caller's unit.
      first: [k, n], sum_j exp(logit_j - top) l_j, l without log weights.
      second: [k, n], sum_j exp(logit_j - top) l_j^2.
    """

    top: jax.Array
    total: jax.Array
    weighted: jax.Array | None = None
    first: jax.Array | None = None
    second: jax.Array | None = None


class PairwiseStats(NamedTuple):
    """Statistics of w_ij = softmax_j(logit_ij + log_weight_j), one row per query.

    With several bandwidths every field has a leading axis [k] for them.

    Attributes:
      lse: [n], log of the softmax's normalizer, nats; -inf where no center is included.
      mean: [n, d], sum_j w_ij y_j in the caller's coordinates; 0 where no center is included.
      logit_mean: [n], E_w[l], l = -|x - y|^2 / (2 h^2) without log weights; 0 where none.
      logit_sq_mean: [n], E_w[l^2]; 0 where no center is included.
    """

    lse: jax.Array
    mean: jax.Array
    logit_mean: jax.Array
    logit_sq_mean: jax.Array


def masked_level(dtype) -> float:
    """Return a logit that stands for masked: finite, since -inf - (-inf) is NaN."""
    return 0.5 * float(jnp.finfo(dtype).min)


def empty_level(dtype) -> float:
    """Return the level at and below which a sum holds masked centers only."""
    return 0.5 * masked_level(dtype)


def merge_sums(a: Sums, b: Sums) -> Sums:
    """Add the sums over two disjoint sets of centers."""
    top = jnp.maximum(a.top, b.top)
    return Sums(top, *jax.tree.map(jnp.add, _relative_to(a, top), _relative_to(b, top)))


def renormalized(sums: Sums) -> Sums:
    """Return the same sums relative to their own log-sum-exp: `total` is 1, or its rounding.

    A total of 0, of no center or of ones far below the level, stays.
    """
    level = sums.top + jnp.log(jnp.where(sums.total > 0, sums.total, 1.0))
    return Sums(level, *_relative_to(sums, level))


def merge_sums_over(sums: Sums, axis_name) -> Sums:
    """Add the sums that the devices along a mapped axis hold for the same queries."""
    top = jax.lax.pmax(sums.top, axis_name)
    return Sums(top, *jax.lax.psum(_relative_to(sums, top), axis_name))


def scatter_sums_over(sums: Sums, axis_name) -> Sums:
    """Add like `merge_sums_over`, and leave each device the sums of its own share of the queries.

    The queries of all devices lie one device after the other.
    """
    top = jax.lax.pmax(sums.top, axis_name)

    def scatter(a):
        return jax.lax.psum_scatter(a, axis_name, scatter_dimension=1, tiled=True)

    scattered = jax.tree.map(scatter, _relative_to(sums, top))
    num_rows = scattered[0].shape[1]
    start = jax.lax.axis_index(axis_name) * num_rows
    return Sums(jax.lax.dynamic_slice_in_dim(top, start, num_rows, axis=1), *scattered)


def _relative_to(sums: Sums, top) -> tuple:
    """Return the fields after `top`, rescaled to another level."""
    factor = jnp.exp(sums.top - top)

    def rescale(a):
        return a * (factor[..., None] if a.ndim > factor.ndim else factor)

    return jax.tree.map(rescale, tuple(sums[1:]))


def merge_stats(a: PairwiseStats, b: PairwiseStats) -> PairwiseStats:
    """Combine the statistics of two disjoint sets of centers for the same queries.

    Args:
      a: statistics over one set of centers.
      b: statistics over another; same queries, same bandwidth.

    Returns:
      The statistics over the union. The rule is associative and commutative up to rounding, and
      rows in which neither side includes a center stay empty (lse -inf, the rest 0).
    """
    merged: Any = merge_sums(_as_sums(a), _as_sums(b))
    empty = merged.top <= empty_level(merged.top.dtype)
    inverse = jnp.where(empty, 0.0, 1.0 / merged.total)
    return PairwiseStats(
        lse=jnp.where(empty, -jnp.inf, merged.top + jnp.log(merged.total)),
        mean=merged.weighted * inverse[..., None],
        logit_mean=merged.first * inverse,
        logit_sq_mean=merged.second * inverse,
    )


def _as_sums(stats: PairwiseStats) -> Sums:
    empty = stats.lse == -jnp.inf
    return Sums(
        top=jnp.where(empty, masked_level(stats.lse.dtype), stats.lse),
        total=1.0 - empty.astype(stats.lse.dtype),
        weighted=stats.mean,
        first=stats.logit_mean,
        second=stats.logit_sq_mean,
    )

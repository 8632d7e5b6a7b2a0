"""Streams logit tiles through an online log-sum-exp: forward sums and the center gradients.

Only one tile of logits exists at a time: an outer loop runs over tiles of one side and an inner one
over tiles of the other. Tiles are cut from the caller's arrays as they are needed, so that neither
side is ever copied whole; where the size is no multiple of the tile, the last tile overlaps the one
before it. Nothing here is meant to be differentiated (a loop would store every tile); vjp.py owns
the derivatives.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import Form
from avae_jax.kernels.pairwise_lse.precision import matmul
from avae_jax.kernels.pairwise_lse.stats import Sums, empty_level, masked_level, merge_sums
from avae_jax.kernels.pairwise_lse.tiles import tile_sizes


class _Tiles(NamedTuple):
    """How one side is cut: `count` tiles of `size` rows, the last of which may overlap."""

    size: int
    count: int
    total: int

    def cut(self, a, i) -> Any:
        """Return tile i of an array `[total, ...]`, or None for None."""
        if a is None or self.count == 1:
            return a
        return jax.lax.dynamic_slice_in_dim(a, self.start(i), self.size)

    def start(self, i):
        """Return the row tile i starts at."""
        return jnp.minimum(i * self.size, self.total - self.size)

    def is_new(self, i):
        """Return `[size]` bool: which rows of tile i no earlier tile holds; None if all always."""
        if self.size * self.count == self.total:
            return None
        return self.start(i) + jnp.arange(self.size, dtype=jnp.int32) >= i * self.size


def _cut_evenly(total: int, largest: int) -> _Tiles:
    """Cut into equal tiles of at most about `largest` rows."""
    size = -(-total // -(-total // largest))
    if size < total:
        size = min(-(-size // 8) * 8, total)
    return _Tiles(size, -(-total // size), total)


def _varying_zeros(shape, like) -> jax.Array:
    """Return zeros that vary over the mapped axes `like` varies over.

    Under shard_map the carry of a loop must do so from its first step on.
    """
    zero = jnp.where(like.reshape(-1)[0] == 0, 0.0, 0.0).astype(like.dtype)
    return jnp.broadcast_to(zero, shape)


def _loop(count: int, body, init):
    # A loop of length one still costs its copies.
    return body(0, init) if count == 1 else jax.lax.fori_loop(0, count, body, init)


def empty_sums(shape: tuple[int, int, int], like, *, mean: bool, moments: bool) -> Sums:
    """Return the sums `[k, d, n] = shape` over no center, varying over mapped axes like `like`."""
    k, d, n = shape
    zeros = _varying_zeros((k, n), like)
    return Sums(
        top=zeros + masked_level(like.dtype),
        total=zeros,
        weighted=_varying_zeros((k, d, n), like) if mean else None,
        first=zeros if moments else None,
        second=zeros if moments else None,
    )


class _Side(NamedTuple):
    """A tile of points with the parts of the logit they own."""

    centred: jax.Array  # [rows, d], divided by the bandwidth
    operand: Any  # what form.product takes
    terms: jax.Array  # [rows]


def _side(form: Form, points, shift, bandwidth) -> _Side:
    centred = (points - shift) / bandwidth
    return _Side(centred, form.operand(points, centred), form.point_terms(centred))


def _centers(form: Form, y, log_weights, is_new, shift, bandwidth) -> tuple[_Side, jax.Array]:
    """Return a tile of centers and its bias `[rows]`: log weights, masked columns at the floor."""
    floor = masked_level(y.dtype)
    bias = jnp.zeros(y.shape[:1], y.dtype)
    if log_weights is not None:
        # A masked center may hold anything: it must not reach a product.
        masked = log_weights == -jnp.inf
        y = jnp.where(masked[:, None], shift, y)
        bias = jnp.where(masked, floor, log_weights)
    if is_new is not None:
        bias = jnp.where(is_new, bias, floor)
    return _side(form, y, shift, bandwidth), bias


def sums(
    form: Form,
    x,
    y,
    bandwidths,
    log_weights,
    exclude,
    shift,
    *,
    mean: bool,
    moments: bool,
    precision: str,
) -> Sums:
    """Stream centers past the queries and return the sums asked for.

    Args:
      form: how a logit tile is computed.
      x: [n, d] queries, n >= 1.
      y: [m, d] centers, m >= 1.
      bandwidths: [k], in the unit of x and y; one product serves all.
      log_weights: [m] or None; -inf masks a center.
      exclude: [n] int32, the row of y to leave out for each query, or None; values outside of
        [0, m) leave out nothing.
      shift: [d], the origin to compute in, best near the mean of the centers.
      mean: whether to return `weighted` (a second product per tile and bandwidth).
      moments: whether to return `first` and `second`.
      precision: the accuracy class of the products.

    Returns:
      Sums, [k, n, ...].

    Numerics:
      n * m * d multiplications per product; temporaries O(n d + one tile).
    """
    (n, d), m, k = x.shape, y.shape[0], bandwidths.shape[0]
    query_size, center_size = tile_sizes(n, m, d)
    query_tiles, center_tiles = _cut_evenly(n, query_size), _cut_evenly(m, center_size)
    # Logits are computed at the smallest usable bandwidth, where rounding costs most, and rescaled
    # for the others: one that is 0 or NaN spoils its own rows only.
    usable = jnp.isfinite(bandwidths) & (bandwidths > 0)
    bandwidth = bandwidths[0] if k == 1 else jnp.min(jnp.where(usable, bandwidths, jnp.inf))
    ratios = jnp.square(bandwidth / bandwidths)

    def query_rows(i):
        query = _side(form, query_tiles.cut(x, i), shift, bandwidth)
        left_out = query_tiles.cut(exclude, i)
        pure = moments or k > 1

        def add_tile(j, carry):
            center, bias = _centers(
                form, center_tiles.cut(y, j), center_tiles.cut(log_weights, j),
                center_tiles.is_new(j), shift, bandwidth,
            )  # fmt: skip
            # Centers down, queries across: the queries' columns are contiguous for the whole inner
            # loop, which on the CPU is what vectorises the difference form.
            logits = form.product(center.operand, query.operand, bandwidth, precision)
            if pure:
                logits += center.terms[:, None] + query.terms
            else:
                bias += center.terms
            is_left_out = None
            if left_out is not None:
                row = center_tiles.start(j) + jnp.arange(center_tiles.size, dtype=jnp.int32)
                is_left_out = row[:, None] == left_out

            def add(carry, ratio):
                scaled = logits if k == 1 else logits * ratio
                biased = scaled + bias[:, None]
                if is_left_out is not None:
                    biased = jnp.where(is_left_out, masked_level(x.dtype), biased)
                top = jnp.maximum(carry.top, jnp.max(biased, axis=0))
                # Base e: XLA itself writes exp2 as an exp.
                weights = jnp.exp(biased - top)
                weighted_logits: Any = weights * scaled if moments else None
                new = Sums(
                    top=top,
                    total=jnp.sum(weights, axis=0),
                    weighted=matmul(center.centred.T, weights, precision) if mean else None,
                    first=jnp.sum(weighted_logits, axis=0) if moments else None,
                    second=jnp.sum(weighted_logits * scaled, axis=0) if moments else None,
                )
                return merge_sums(carry, new)

            if k == 1:
                one = add(jax.tree.map(lambda a: a[0], carry), None)
                return jax.tree.map(lambda a: a[None], one)
            return jax.lax.map(lambda pair: add(*pair), (carry, ratios))

        init = empty_sums((k, d, query_tiles.size), query.centred, mean=mean, moments=moments)
        result = _loop(center_tiles.count, add_tile, init)
        empty = result.top <= empty_level(x.dtype)
        if not pure:
            result = result._replace(top=jnp.where(empty, result.top, result.top + query.terms))
        if mean:
            result = result._replace(weighted=result.weighted * bandwidth)
        return result

    if query_tiles.count == 1:
        return query_rows(0)

    def write_tile(i, buffers):
        def write(buffer, a):
            return jax.lax.dynamic_update_slice_in_dim(
                buffer, a, query_tiles.start(i), axis=buffer.ndim - 1
            )

        return jax.tree.map(write, buffers, query_rows(i))

    buffers = empty_sums((k, d, n), x, mean=mean, moments=moments)
    return jax.lax.fori_loop(0, query_tiles.count, write_tile, buffers)


def center_gradients(
    form: Form, x, y, bandwidth, log_weights, exclude, shift, lse, cotangent, *, precision: str
) -> tuple[jax.Array, jax.Array]:
    """Stream queries past the centers: the gradients of sum_i g_i lse_i in y and log weights.

    Args:
      form: how a logit tile is computed.
      x: [n, d] queries.
      y: [m, d] centers.
      bandwidth: scalar.
      log_weights: [m] or None.
      exclude: [n] int32 or None.
      shift: [d].
      lse: [n], the forward value over all centers, nats.
      cotangent: [n], g.
      precision: the accuracy class of the products.

    Returns:
      (sum_i g_i w_ij (x_i - y_j) / h^2 [m, d], sum_i g_i w_ij [m]).

    Numerics:
      Two products per tile, temporaries O(m d + one tile). A query with cotangent 0 takes no part,
      non-finite or not.
    """
    (n, d), m = x.shape, y.shape[0]
    floor = masked_level(x.dtype)
    query_size, center_size = tile_sizes(n, m, d)
    query_tiles, center_tiles = _cut_evenly(n, query_size), _cut_evenly(m, center_size)

    def center_rows(j):
        center, center_bias = _centers(
            form, center_tiles.cut(y, j), center_tiles.cut(log_weights, j), None, shift, bandwidth
        )
        center_bias += center.terms
        row = center_tiles.start(j) + jnp.arange(center_tiles.size, dtype=jnp.int32)

        def add_tile(i, carry):
            weighted, total = carry
            lse_tile, g = query_tiles.cut(lse, i), query_tiles.cut(cotangent, i)
            points, left_out = query_tiles.cut(x, i), query_tiles.cut(exclude, i)
            idle = (g == 0.0) | (lse_tile == -jnp.inf)
            is_new = query_tiles.is_new(i)
            if is_new is not None:
                idle |= ~is_new
            query = _side(form, jnp.where(idle[:, None], shift, points), shift, bandwidth)
            # Added to the rest of the logit it gives the log of the softmax weight.
            bias = jnp.where(idle, floor, query.terms - lse_tile)
            # Queries down, centers across, as the product below wants it.
            logits = form.product(query.operand, center.operand, bandwidth, precision)
            logits += bias[:, None] + center_bias
            if left_out is not None:
                logits = jnp.where(left_out[:, None] == row, floor, logits)
            weights = jnp.exp(logits) * jnp.where(idle, 0.0, g)[:, None]
            return (
                weighted + matmul(query.centred.T, weights, precision),
                total + jnp.sum(weights, axis=0),
            )

        init = tuple(
            _varying_zeros(shape, center.centred)
            for shape in ((d, center_tiles.size), (center_tiles.size,))
        )
        weighted, total = _loop(query_tiles.count, add_tile, init)
        return (weighted.T - total[:, None] * center.centred) / bandwidth, total

    if center_tiles.count == 1:
        return center_rows(0)

    def write_tile(j, buffers):
        def write(buffer, a):
            return jax.lax.dynamic_update_slice_in_dim(buffer, a, center_tiles.start(j), axis=0)

        return jax.tree.map(write, buffers, center_rows(j))

    buffers = (_varying_zeros((m, d), y), _varying_zeros((m,), y))
    return jax.lax.fori_loop(0, center_tiles.count, write_tile, buffers)

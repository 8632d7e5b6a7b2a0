"""Streams logit tiles through an online log-sum-exp: forward statistics and the center gradients.

Only one tile of logits exists at a time: an outer map runs over tiles of one side and an inner scan
over tiles of the other. Nothing here is meant to be differentiated (a scan would store every tile);
vjp.py owns the derivatives.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import Form

# Largest (query, center) tile. On the CPU 2 MiB of logits stay in cache, shared by the threads over
# which XLA splits a loop of this size; accelerators want enough rows to fill the device (those
# sizes are not measured yet).
_TILES = {"cpu": (512, 1024), "gpu": (4096, 4096), "tpu": (1024, 4096)}


class RawStats(NamedTuple):
    """Row statistics of the softmax over centers; fields not asked for are None.

    Attributes:
      lse: [n], nats, -inf where no center is included.
      mean: [n, d], sum_j w_ij y_j in the caller's coordinates; 0 where no center is included.
      drift: [n, d], mean - x, taken in centred coordinates, where it keeps its digits.
      logit_mean: [n], E_w[l] without log weights.
      logit_sq_mean: [n], E_w[l^2].
    """

    lse: jax.Array
    mean: jax.Array | None = None
    drift: jax.Array | None = None
    logit_mean: jax.Array | None = None
    logit_sq_mean: jax.Array | None = None


class _Prepared(NamedTuple):
    """Both sides with the parts of the logit they own."""

    x: jax.Array  # [n, d], centred and divided by the bandwidth
    y: jax.Array  # [m, d], likewise
    x_operand: Any  # tree of [n, ...], what form.product takes
    y_operand: Any  # tree of [m, ...]
    x_terms: jax.Array  # [n]
    y_terms: jax.Array  # [m]
    column_bias: jax.Array  # [m], log weights, or 0; masked columns at the floor
    shift: jax.Array  # [d], the origin of the centred coordinates, in the caller's unit


def tile_sizes(num_queries: int, num_centers: int) -> tuple[int, int]:
    """Return the largest (query, center) tile used for this problem on the default backend."""
    query_tile, center_tile = _TILES.get(jax.default_backend(), _TILES["gpu"])
    if num_queries < query_tile:
        # The same number of logits in a tile of fewer rows.
        center_tile = query_tile * center_tile // max(num_queries, 8)
    return min(query_tile, num_queries), min(center_tile, num_centers)


def _even_tiles(size: int, largest: int) -> tuple[int, int]:
    """Split size into equal tiles of at most about `largest`; return (tile, count)."""
    tile = -(-size // -(-size // largest))
    if tile < size:
        tile = -(-tile // 8) * 8
    return tile, -(-size // tile)


def _tiled(tree, tiles, fill: float = 0):
    """Reshape every leaf [size, ...] to [count, tile, ...], padded with `fill`."""
    tile, count = tiles

    def split(a):
        pad = [(0, tile * count - a.shape[0])] + [(0, 0)] * (a.ndim - 1)
        return jnp.pad(a, pad, constant_values=fill).reshape(count, tile, *a.shape[1:])

    return jax.tree.map(split, tree)


def _map_tiles(fn, xs, count: int, size: int):
    """Map fn over the tiles of xs one after the other and join the rows of its results."""
    if count == 1:
        # A loop of length one still costs its copies.
        tiles = fn(jax.tree.map(lambda a: a[0], xs))
        return jax.tree.map(lambda a: a[:size], tiles)
    tiles = jax.lax.map(fn, xs)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], tiles)


def _floor(dtype) -> float:
    """Return a logit that stands for masked: finite, since -inf - (-inf) is NaN."""
    return 0.5 * float(jnp.finfo(dtype).min)


def _varying_zeros(shape, like) -> jax.Array:
    """Return zeros that vary over the mapped axes `like` varies over.

    Under shard_map the carry of a scan must do so from its first step on.
    """
    zero = jnp.where(like.reshape(-1)[0] == 0, 0.0, 0.0).astype(like.dtype)
    return jnp.broadcast_to(zero, shape)


def _prepare(form: Form, x, y, bandwidth, log_weights) -> _Prepared:
    if log_weights is None:
        shift = jnp.mean(y, axis=0)
        column_bias = jnp.zeros(y.shape[:1], y.dtype)
    else:
        # A masked center may hold anything: it must reach neither the shift nor a product.
        masked = log_weights == -jnp.inf
        num_kept = jnp.maximum(jnp.sum(~masked), 1).astype(y.dtype)
        shift = jnp.sum(jnp.where(masked[:, None], 0.0, y), axis=0) / num_kept
        y = jnp.where(masked[:, None], shift, y)
        column_bias = jnp.where(masked, _floor(y.dtype), log_weights)
    x_centred, y_centred = (x - shift) / bandwidth, (y - shift) / bandwidth
    return _Prepared(
        x=x_centred,
        y=y_centred,
        x_operand=form.operand(x, x_centred),
        y_operand=form.operand(y, y_centred),
        x_terms=form.point_terms(x_centred),
        y_terms=form.point_terms(y_centred),
        column_bias=column_bias,
        shift=shift,
    )


def _dot(a, b):
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def forward(
    form: Form, x, y, bandwidth, log_weights, exclude, *, mean: bool, moments: bool
) -> RawStats:
    """Stream centers past the queries and return the row statistics asked for.

    Args:
      form: how a logit tile is computed.
      x: [n, d] queries, n >= 1.
      y: [m, d] centers, m >= 1.
      bandwidth: scalar, the unit of x and y.
      log_weights: [m] or None; -inf masks a center.
      exclude: [n] int32 index of the center to leave out of each row (-1: none), or None.
      mean: whether to accumulate the softmax mean (a second product per tile).
      moments: whether to accumulate E[l] and E[l^2].

    Returns:
      RawStats.

    Numerics:
      n * m * d multiplications per product; temporaries O((n + m) d + one tile). Rows with a
      non-finite query are NaN in every field.
    """
    n, (m, d) = x.shape[0], y.shape
    floor = _floor(x.dtype)
    p = _prepare(form, x, y, bandwidth, log_weights)
    query_tile, center_tile = tile_sizes(n, m)
    query_tiles, center_tiles = _even_tiles(n, query_tile), _even_tiles(m, center_tile)
    # The moments need the logit without its bias; otherwise the two are added beforehand.
    column_bias = p.column_bias if moments else p.column_bias + p.y_terms
    centers = (
        jnp.arange(center_tiles[1], dtype=jnp.int32) * center_tiles[0],
        _tiled(p.y_operand, center_tiles),
        _tiled(column_bias, center_tiles, fill=floor),
        _tiled(p.y_terms, center_tiles) if moments else None,
        _tiled(p.y, center_tiles) if mean else None,
    )
    queries = (
        _tiled(p.x_operand, query_tiles),
        _tiled(p.x_terms, query_tiles),
        _tiled(p.x, query_tiles) if mean else None,
        _tiled(exclude, query_tiles, fill=-1),
    )

    def query_rows(query):
        x_operand, x_terms, x_tile, exclude_tile = query

        def add_centers(carry, center):
            top, total, weighted, first, second = carry
            first_column, y_operand, bias, y_terms, y_tile = center
            logits = form.product(x_operand, y_operand, bandwidth)
            if moments:
                pure = logits + y_terms + x_terms[:, None]
                logits = pure
            logits += bias
            if exclude is not None:
                column = first_column + jnp.arange(bias.shape[0], dtype=jnp.int32)
                logits = jnp.where(column == exclude_tile[:, None], floor, logits)
            new_top = jnp.maximum(top, jnp.max(logits, axis=1))
            # Base e: XLA itself writes exp2 as an exp.
            weights = jnp.exp(logits - new_top[:, None])
            rescale = jnp.exp(top - new_top)
            total = total * rescale + jnp.sum(weights, axis=1)
            if mean:
                weighted = weighted * rescale[:, None] + _dot(weights, y_tile)
            if moments:
                scaled = weights * pure
                first = first * rescale + jnp.sum(scaled, axis=1)
                second = second * rescale + jnp.sum(scaled * pure, axis=1)
            return (new_top, total, weighted, first, second), None

        zeros = _varying_zeros((query_tiles[0],), like=p.x)
        init: tuple[Any, ...] = (
            zeros + floor,
            zeros,
            _varying_zeros((query_tiles[0], d), like=p.x) if mean else None,
            zeros if moments else None,
            zeros if moments else None,
        )
        (top, total, weighted, first, second), _ = jax.lax.scan(add_centers, init, centers)
        empty = top <= 0.5 * floor
        lse = top + jnp.log(total)
        lse = jnp.where(empty, -jnp.inf, lse if moments else lse + x_terms)
        inverse = jnp.where(empty, 0.0, 1.0 / total)
        raw = RawStats(lse)
        if mean:
            centred = weighted * inverse[:, None]
            nothing = empty[:, None]
            raw = raw._replace(
                mean=jnp.where(nothing, 0.0, centred * bandwidth + p.shift),
                drift=jnp.where(nothing, 0.0, (centred - x_tile) * bandwidth),
            )
        if moments:
            # Selected, not multiplied by 0: the sums of an empty row overflow.
            raw = raw._replace(
                logit_mean=jnp.where(empty, 0.0, first * inverse),
                logit_sq_mean=jnp.where(empty, 0.0, second * inverse),
            )
        return raw

    raw = _map_tiles(query_rows, queries, query_tiles[1], n)
    # A maximum need not propagate NaN, and an infinite query can look merely far away.
    finite = jnp.all(jnp.isfinite(x), axis=1)

    def spoil(a):
        return jnp.where(finite.reshape((n,) + (1,) * (a.ndim - 1)), a, jnp.nan)

    return jax.tree.map(spoil, raw)


def center_gradients(
    form: Form, x, y, bandwidth, log_weights, exclude, lse, cotangent
) -> tuple[jax.Array, jax.Array]:
    """Stream queries past the centers: the gradients of sum_i g_i lse_i in y and log weights.

    Args:
      form: how a logit tile is computed.
      x: [n, d] queries.
      y: [m, d] centers.
      bandwidth: scalar.
      log_weights: [m] or None.
      exclude: [n] int32 or None.
      lse: [n], the forward value, nats.
      cotangent: [n], g.

    Returns:
      (sum_i g_i w_ij (x_i - y_j) / h^2 [m, d], sum_i g_i w_ij [m]).

    Numerics:
      Two products per tile, temporaries O((n + m) d + one tile). A query with cotangent 0 takes
      no part, non-finite or not.
    """
    n, (m, d) = x.shape[0], y.shape
    floor = _floor(x.dtype)
    idle = (cotangent == 0.0) | (lse == -jnp.inf)
    cotangent = jnp.where(idle, 0.0, cotangent)
    p = _prepare(form, jnp.where(idle[:, None], 0.0, x), y, bandwidth, log_weights)
    # Added to the rest of the logit it gives the log of the softmax weight.
    row_bias = jnp.where(idle, floor, p.x_terms - lse)
    query_tile, center_tile = tile_sizes(n, m)
    query_tiles, center_tiles = _even_tiles(n, query_tile), _even_tiles(m, center_tile)
    queries = (
        _tiled(p.x_operand, query_tiles),
        _tiled(row_bias, query_tiles, fill=floor),
        _tiled(cotangent, query_tiles),
        _tiled(p.x, query_tiles),
        _tiled(exclude, query_tiles, fill=-1),
    )
    centers = (
        jnp.arange(center_tiles[1], dtype=jnp.int32) * center_tiles[0],
        _tiled(p.y_operand, center_tiles),
        _tiled(p.y_terms + p.column_bias, center_tiles, fill=floor),
        _tiled(p.y, center_tiles),
    )

    def center_rows(center):
        first_row, y_operand, y_bias, y_tile = center

        def add_queries(carry, query):
            weighted, total = carry
            x_operand, x_bias, cotangent_tile, x_tile, exclude_tile = query
            # Centers along the rows, so that the product below needs no transpose.
            logits = form.product(y_operand, x_operand, bandwidth) + y_bias[:, None] + x_bias
            if exclude is not None:
                row = first_row + jnp.arange(y_bias.shape[0], dtype=jnp.int32)
                logits = jnp.where(row[:, None] == exclude_tile, floor, logits)
            weights = jnp.exp(logits) * cotangent_tile
            return (weighted + _dot(weights, x_tile), total + jnp.sum(weights, axis=1)), None

        init = tuple(
            _varying_zeros(shape, like=p.x) for shape in ((center_tiles[0], d), center_tiles[:1])
        )
        (weighted, total), _ = jax.lax.scan(add_queries, init, queries)
        return weighted - total[:, None] * y_tile, total

    grad_y, grad_log_weights = _map_tiles(center_rows, centers, center_tiles[1], m)
    return grad_y / bandwidth, grad_log_weights

"""Streams logit tiles through an online log-sum-exp: forward statistics and the center gradients.

Only one tile of logits exists at a time: an outer map runs over tiles of one side and an inner scan
over tiles of the other. Nothing here is meant to be differentiated (a scan would store every tile);
vjp.py owns the derivatives.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import Form

# Entries of a logit tile. On the CPU a tile of 1 MiB stays in one core's L2 and is still large
# enough for XLA to split its loops over threads; accelerators want enough rows to fill the device.
_TILES = {"cpu": (256, 1024), "gpu": (4096, 4096), "tpu": (1024, 4096)}


class RawStats(NamedTuple):
    """Forward statistics in centred coordinates; fields not asked for are None.

    Attributes:
        lse: [n], nats, -inf where no center is included.
        drift: [n, d], sum_j w_ij y_j - x_i, in the caller's unit; 0 where no center is included.
        logit_mean: [n], E_w[l] without log weights.
        logit_sq_mean: [n], E_w[l^2].
    """

    lse: jax.Array
    drift: jax.Array | None = None
    logit_mean: jax.Array | None = None
    logit_sq_mean: jax.Array | None = None


class _Prepared(NamedTuple):
    x: jax.Array  # [n, d], centred and divided by the bandwidth
    y: jax.Array  # [m, d], likewise
    x_terms: jax.Array  # [n], part of the logit that belongs to the query
    y_terms: jax.Array  # [m], part of the logit that belongs to the center
    col_bias: jax.Array | None  # [m], log weights, masked columns at the floor


def tile_sizes(n: int, m: int) -> tuple[int, int]:
    """Returns the largest (query, center) tile used for n queries and m centers."""
    query_tile, center_tile = _TILES.get(jax.default_backend(), _TILES["gpu"])
    if n < query_tile:
        # The same number of logits in a tile of fewer rows.
        center_tile = query_tile * center_tile // max(n, 8)
    return min(query_tile, n), min(center_tile, m)


def _even_tile(size: int, largest: int) -> tuple[int, int]:
    """Splits size into equal tiles of at most about `largest`; returns (tile, count)."""
    count = -(-size // largest)
    tile = -(-size // count)
    if count > 1:
        tile = -(-tile // 8) * 8
    return tile, -(-size // tile)


def _tiled(tree, tile, count, fill=0):
    """Reshapes every leaf [size, ...] to [count, tile, ...], padded with `fill`."""

    def split(a):
        pad = [(0, tile * count - a.shape[0])] + [(0, 0)] * (a.ndim - 1)
        return jnp.pad(a, pad, constant_values=fill).reshape(count, tile, *a.shape[1:])

    return jax.tree.map(split, tree)


def _floor(dtype) -> float:
    # Finite, so that floor - floor is 0 and not NaN, with room to add ordinary logits.
    return 0.5 * float(jnp.finfo(dtype).min)


def _prepare(form: Form, x, y, bandwidth, log_weights) -> tuple[_Prepared, jax.Array]:
    """Centres and scales both sides; returns them with their per-point terms, and the shift."""
    if log_weights is None:
        shift = jnp.mean(y, axis=0)
        col_bias = None
    else:
        # A masked center may hold anything: it must reach neither the shift nor a product.
        masked = log_weights == -jnp.inf
        kept = jnp.maximum(jnp.sum(~masked), 1).astype(y.dtype)
        shift = jnp.sum(jnp.where(masked[:, None], 0.0, y), axis=0) / kept
        y = jnp.where(masked[:, None], shift, y)
        col_bias = jnp.where(masked, _floor(y.dtype), log_weights)
    x, y = (x - shift) / bandwidth, (y - shift) / bandwidth
    return _Prepared(x, y, form.point_terms(x), form.point_terms(y), col_bias), shift


def _column_bias(prepared: _Prepared):
    if prepared.col_bias is None:
        return jnp.zeros(prepared.y.shape[:1], prepared.y.dtype)
    return prepared.col_bias


def _masked_columns(logits, exclude, first_column):
    columns = first_column + jnp.arange(logits.shape[1], dtype=jnp.int32)
    return jnp.where(columns == exclude[:, None], _floor(logits.dtype), logits)


def _dot(a, b):
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def forward(
    form: Form, x, y, bandwidth, log_weights, exclude, *, drift: bool, moments: bool
) -> RawStats:
    """Streams centers past the queries and returns the row statistics asked for.

    Args:
        form: how a logit tile is computed.
        x: [n, d] queries.
        y: [m, d] centers, m >= 1.
        bandwidth: scalar, the unit of x and y.
        log_weights: [m] or None; -inf masks a center.
        exclude: [n] int32 index of the center to leave out of each row (-1: none), or None.
        drift: whether to accumulate softmax @ y - x (a second product per tile).
        moments: whether to accumulate E[l] and E[l^2].

    Returns:
        RawStats.

    Numerics:
        n * m * d multiplications per product; temporaries O((n + m) d + one tile). Rows with a
        non-finite query are NaN in every field.
    """
    n, (m, d) = x.shape[0], y.shape
    p, _ = _prepare(form, x, y, bandwidth, log_weights)
    query_tile, center_tile = tile_sizes(n, m)
    (query_tile, num_x), (center_tile, num_y) = (
        _even_tile(n, query_tile),
        _even_tile(m, center_tile),
    )
    floor = _floor(x.dtype)
    # Padding columns sit at the floor; the pure logit beside it stays finite for the moments.
    bias = _tiled(_column_bias(p), center_tile, num_y, fill=floor)
    y_terms = _tiled(p.y_terms, center_tile, num_y)
    centers = (
        _tiled(form.operand(p.y), center_tile, num_y),
        _tiled(p.y, center_tile, num_y) if drift else None,
        y_terms if moments else y_terms + bias,
        bias if moments else None,
        jnp.arange(num_y, dtype=jnp.int32) * center_tile,
    )
    row_zero = _like_all(jnp.zeros((query_tile,), x.dtype), p.x, p.y, bias, exclude)

    def query_rows(query):
        x_operand, x_tile, x_terms, exclude_tile = query

        def add_centers(carry, center):
            top, total, weighted, first, second = carry
            y_operand, y_tile, y_term, bias_tile, first_column = center
            product = form.product(x_operand, y_operand)
            if moments:
                pure = product + y_term + x_terms[:, None]
                logits = pure + bias_tile
            else:
                logits = product + y_term
            if exclude is not None:
                logits = _masked_columns(logits, exclude_tile, first_column)
            new_top = jnp.maximum(top, jnp.max(logits, axis=1))
            weights = jnp.exp(logits - new_top[:, None])
            rescale = jnp.exp(top - new_top)
            total = total * rescale + jnp.sum(weights, axis=1)
            if drift:
                weighted = weighted * rescale[:, None] + _dot(weights, y_tile)
            if moments:
                scaled = weights * pure
                first = first * rescale + jnp.sum(scaled, axis=1)
                second = second * rescale + jnp.sum(scaled * pure, axis=1)
            return (new_top, total, weighted, first, second), None

        init = (
            row_zero + floor,
            row_zero,
            jnp.broadcast_to(row_zero[:, None], (query_tile, d)) if drift else None,
            row_zero if moments else None,
            row_zero if moments else None,
        )
        (top, total, weighted, first, second), _ = jax.lax.scan(add_centers, init, centers)
        empty = top <= 0.5 * floor
        lse = jnp.where(empty, -jnp.inf, top + jnp.log(total))
        if not moments:
            lse += x_terms
        inverse = jnp.where(empty, 0.0, 1.0 / total)
        keep = functools.partial(jnp.where, empty, 0.0)
        return RawStats(
            lse,
            jnp.where(empty[:, None], 0.0, weighted * inverse[:, None] - x_tile) if drift else None,
            keep(first * inverse) if moments else None,
            keep(second * inverse) if moments else None,
        )

    queries = (
        _tiled(form.operand(p.x), query_tile, num_x),
        _tiled(p.x, query_tile, num_x),
        _tiled(p.x_terms, query_tile, num_x),
        _tiled(exclude, query_tile, num_x, fill=-1),
    )
    tiles = jax.lax.map(query_rows, queries) if num_x > 1 else _single(query_rows, queries)
    raw = jax.tree.map(lambda a: a.reshape(num_x * query_tile, *a.shape[2:])[:n], tiles)
    finite = jnp.all(jnp.isfinite(x), axis=1)

    def poison(a):
        return (
            None if a is None else jnp.where(finite if a.ndim == 1 else finite[:, None], a, jnp.nan)
        )

    raw = RawStats(*(poison(a) for a in raw))
    return raw._replace(drift=raw.drift * bandwidth) if drift else raw


def _single(fn, xs):
    """Applies fn to the only slice along axis 0, as a map of length one without its loop."""
    out = fn(jax.tree.map(lambda a: a[0], xs))
    return jax.tree.map(lambda a: a[None], out)


def _like_all(zero, *arrays):
    """Returns `zero` marked as varying over every mapped axis that one of `arrays` varies over.

    Under shard_map's replication check a scan's carry must start with the type it ends with.
    """
    for a in arrays:
        if a is not None:
            first = a.reshape(-1)[0] != 0
            zero = zero + jnp.where(first, 0.0, 0.0).astype(zero.dtype)
    return zero


def center_gradients(form: Form, x, y, bandwidth, log_weights, exclude, lse, cotangent):
    """Streams queries past the centers: gradients of sum_i cotangent_i lse_i in y and log weights.

    Args:
        form: how a logit tile is computed.
        x: [n, d] queries.
        y: [m, d] centers.
        bandwidth: scalar.
        log_weights: [m] or None.
        exclude: [n] int32 or None.
        lse: [n], the forward value, nats.
        cotangent: [n].

    Returns:
        (grad_y [m, d], grad_log_weights [m]): sum_i g_i w_ij (x_i - y_j) / h^2 and
        sum_i g_i w_ij.

    Numerics:
        Two products per tile, temporaries O((n + m) d + one tile). A query with cotangent 0 takes
        no part, non-finite or not.
    """
    n, (m, d) = x.shape[0], y.shape
    idle = (cotangent == 0.0) | (lse == -jnp.inf)
    x = jnp.where(idle[:, None], 0.0, x)
    cotangent = jnp.where(idle, 0.0, cotangent)
    p, _ = _prepare(form, x, y, bandwidth, log_weights)
    # exp(logit + x_terms - lse) is then the softmax weight: at most 1, and 0 for idle rows.
    row_shift = jnp.where(idle, _floor(x.dtype), p.x_terms - lse)

    query_tile, center_tile = tile_sizes(n, m)
    (query_tile, num_x), (center_tile, num_y) = (
        _even_tile(n, query_tile),
        _even_tile(m, center_tile),
    )
    queries = (
        _tiled(form.operand(p.x), query_tile, num_x),
        _tiled(p.x, query_tile, num_x),
        _tiled(row_shift, query_tile, num_x, fill=_floor(x.dtype)),
        _tiled(cotangent, query_tile, num_x),
        _tiled(exclude, query_tile, num_x, fill=-1),
    )
    bias = _tiled(p.y_terms + _column_bias(p), center_tile, num_y, fill=_floor(x.dtype))
    col_zero = _like_all(
        jnp.zeros((center_tile,), x.dtype), p.x, p.y, bias, exclude, lse, cotangent
    )

    def center_columns(center):
        y_operand, y_tile, bias_tile, first_column = center

        def add_queries(carry, query):
            weighted, total = carry
            x_operand, x_tile, shift_tile, cotangent_tile, exclude_tile = query
            logits = form.product(x_operand, y_operand) + bias_tile + shift_tile[:, None]
            if exclude is not None:
                logits = _masked_columns(logits, exclude_tile, first_column)
            weights = jnp.exp(logits) * cotangent_tile[:, None]
            return (weighted + _dot(weights.T, x_tile), total + jnp.sum(weights, axis=0)), None

        init = (jnp.broadcast_to(col_zero[:, None], (center_tile, d)), col_zero)
        (weighted, total), _ = jax.lax.scan(add_queries, init, queries)
        return weighted - total[:, None] * y_tile, total

    centers = (
        _tiled(form.operand(p.y), center_tile, num_y),
        _tiled(p.y, center_tile, num_y),
        bias,
        jnp.arange(num_y, dtype=jnp.int32) * center_tile,
    )
    tiles = jax.lax.map(center_columns, centers) if num_y > 1 else _single(center_columns, centers)
    grad_y, grad_log_weights = (a.reshape(-1, *a.shape[2:])[:m] for a in tiles)
    return grad_y / bandwidth, grad_log_weights

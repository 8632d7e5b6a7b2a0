"""Streams logit tiles through an online log-sum-exp: forward sums and the center gradients.

Only one tile of logits exists at a time: an outer loop runs over tiles of one side and an inner one
over tiles of the other. Tiles are cut from the caller's arrays as they are needed, so that neither
side is ever copied whole; where the size is no multiple of the tile, the last tile overlaps the one
before it. Nothing here is meant to be differentiated (a loop would store every tile); vjp.py owns
the derivatives.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse import platforms
from avae_jax.kernels.pairwise_lse.exponential import cpu_exp, fuses_sums
from avae_jax.kernels.pairwise_lse.forms import Form
from avae_jax.kernels.pairwise_lse.precision import matmul
from avae_jax.kernels.pairwise_lse.stats import (
    Sums,
    empty_level,
    masked_level,
    merge_sums,
    renormalized,
)
from avae_jax.kernels.pairwise_lse.tile import Side, Tile, TileSums, make_centers, make_side
from avae_jax.kernels.pairwise_lse.tiles import is_number, tile_sizes
from avae_jax.kernels.pairwise_lse.varying import varying_zeros


class _Tiles(NamedTuple):
    """How one side is cut: `count` tiles of `size` rows, the last of which may overlap."""

    size: int
    count: int
    total: int

    def cut(self, a, i) -> Any:
        """Return tile i of an array `[total, ...]`, or None for None."""
        return _rows_from(a, self.start(i), self.size)

    def start(self, i):
        """Return the row tile i starts at."""
        return jnp.minimum(i * self.size, self.total - self.size)

    def is_new(self, i):
        """Return `[size]` bool: which rows of tile i no earlier tile holds; None if all always."""
        if self.size * self.count == self.total:
            return None
        return self.start(i) + jnp.arange(self.size, dtype=jnp.int32) >= i * self.size


def _rows_from(a, start, size: int) -> Any:
    """Return so many rows of an array from one on, or None for None."""
    if a is None or a.shape[0] == size:
        return a
    return jax.lax.dynamic_slice_in_dim(a, start, size)


def _cut_evenly(total: int, largest: int) -> _Tiles:
    """Cut into equal tiles of at most about `largest` rows; a symbolic number stays in one."""
    if not is_number(total):
        return _Tiles(total, 1, total)
    size = -(-total // -(-total // largest))
    if size < total:
        size = min(-(-size // 8) * 8, total)
    return _Tiles(size, -(-total // size), total)


def _loop(count: int, body, init):
    # A loop of length one still costs its copies.
    return body(0, init) if count == 1 else jax.lax.fori_loop(0, count, body, init)


def empty_sums(shape: tuple[int, int, int], like, *, mean: bool, moments: bool) -> Sums:
    """Return the sums `[k, n, d] = shape` over no center, varying over mapped axes like `like`."""
    k, n, d = shape
    zeros = varying_zeros((k, n), like)
    return Sums(
        top=zeros + masked_level(like.dtype),
        total=zeros,
        weighted=varying_zeros((k, n, d), like) if mean else None,
        first=zeros if moments else None,
        second=zeros if moments else None,
    )


# Coordinates of the centers that are copied at a time.
_SPAN_SIZE = 2**20

# Centers, evenly spread, whose log-sum-exp is the first level.
_SAMPLE = 256

# A first level is raised by so many times the mean difference of two halves of the sample, and by
# so many nats at most.
_RAISED_TIMES, _MOST_RAISED = 6.0, 35.0


def _knows_levels(form: Form, num_centers: int) -> bool:
    """Return whether tiles are summed at a level that is known before them.

    That saves the pass over a tile that finds its maximum, and then XLA on a CPU can make one loop
    of product, exponential and sum. On a GPU the branch that looks after the level would wait for
    the host.
    """
    is_many = is_number(num_centers) and num_centers >= 4 * _SAMPLE
    return form.seeks_levels and platforms.platform() == "cpu" and is_many


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A tile of queries, and the centers that stream past it.

    Attributes:
      tile_sums: what is summed.
      query: the queries.
      left_out: [queries] int32 row of the center each leaves out, or None.
      y: [m, d].
      log_weights: [m] or None.
      shift: [d].
      bandwidth: scalar, at which logits are computed.
      ratios: [k], the factors that bring them to the bandwidths asked for.
      tiles: how the centers are cut.
    """

    tile_sums: TileSums
    query: Side
    left_out: jax.Array | None
    y: jax.Array
    log_weights: jax.Array | None
    shift: jax.Array
    bandwidth: jax.Array
    ratios: jax.Array
    tiles: _Tiles

    def sums(self, nothing: Sums) -> Sums:
        """Return the sums over all centers, [k, ...], given those over none."""
        if not _knows_levels(self.tile_sums.form, self.tiles.total):
            return _loop(self.tiles.count, self.add_tile, nothing)
        spans = self.spans()
        add_span = functools.partial(self.add_span, spans)
        total, _ = _loop(spans.count, add_span, self.at_first_levels(nothing))
        return total

    def tile(self, tiles: _Tiles, j) -> Tile:
        """Return tile j of the centers beside the queries."""
        return self.cut(tiles.start(j), tiles.size, tiles.is_new(j))

    def cut(self, start, size: int, is_new) -> Tile:
        """Return a tile of the centers from a row on; those that are not new are masked."""
        y, log_weights = (_rows_from(a, start, size) for a in (self.y, self.log_weights))
        rows = start + jnp.arange(size, dtype=jnp.int32)
        return self.beside(y, log_weights, is_new, rows)

    def beside(self, y, log_weights, is_new, rows) -> Tile:
        """Return a tile of the queries and some centers."""
        form = self.tile_sums.form
        center, bias = make_centers(form, y, log_weights, is_new, self.shift, self.bandwidth)
        if not self.tile_sums.pure:
            bias += center.terms
        return Tile(self.query, center, bias, rows, self.left_out)

    def per_bandwidth(self, function: Callable, *trees):
        """Map (what brings logits to a bandwidth, its part of the trees) over the bandwidths."""
        if len(self.ratios) == 1:
            one = function(lambda logits: logits, *jax.tree.map(lambda a: a[0], trees))
            return jax.tree.map(lambda a: a[None], one)

        def at_ratio(args):
            ratio, *one = args
            return function(lambda logits: logits * ratio, *one)

        return jax.lax.map(at_ratio, (self.ratios, *trees))

    def add_tile(self, j, total: Sums) -> Sums:
        """Add tile j, at the level of its own maximum if that is higher."""
        return self.add_at_maximum(total, self.tile(self.tiles, j))

    def add_at_maximum(self, total: Sums, tile: Tile) -> Sums:
        """Add a tile as `add_tile` does."""
        logits = self.tile_sums.logits(tile, self.bandwidth)
        return self.per_bandwidth(
            lambda scaled, one: self.tile_sums.add(one, tile, scaled(logits)), total
        )

    def at_first_levels(self, nothing: Sums) -> tuple[Sums, jax.Array]:
        """Return what `add_span` carries before the first span.

        The levels are the log-sum-exp of a few centers, raised by some times the difference that
        two halves of them usually make; where one is more than the headroom, they are not expected
        to hold.
        """
        form = self.tile_sums.form
        step = self.tiles.total // _SAMPLE

        def half(first):
            rows = slice(first * step, step * _SAMPLE, 2 * step)
            weights = None if self.log_weights is None else self.log_weights[rows]
            index = jnp.arange(rows.start, rows.stop, rows.step, dtype=jnp.int32)
            tile = self.beside(self.y[rows], weights, None, index)
            return renormalized(self.add_at_maximum(nothing, tile))

        def compared(scaled, one, other):
            del scaled
            apart, level = jnp.abs(one.top - other.top), renormalized(merge_sums(one, other)).top
            raised = 0.0
            if form.raises_level:
                # Beyond this a sum that stays as it is would lose its digits to underflow; and what
                # a level adds to a logit is rounded, so no row's is raised by more than its logits
                # are large.
                raised = jnp.minimum(_RAISED_TIMES * jnp.nanmean(apart), _MOST_RAISED)
                own = level if self.tile_sums.pure else level + self.query.terms
                raised = jnp.minimum(raised, jnp.abs(own - math.log(_SAMPLE)))
            holds = ~jnp.any(apart > raised + form.headroom(level))
            return level + raised, holds

        levels, holds = self.per_bandwidth(compared, half(0), half(1))
        return nothing._replace(top=levels), holds

    def spans(self) -> _Tiles:
        """Return how the centers are cut that are summed at once at a known level.

        In tiles, where one is stored or may have to be taken alone for what it leaves out.
        """
        asked, d = self.tile_sums, self.y.shape[1]
        stored = asked.pure or asked.mean or d > asked.form.fused_dims or not asked.fuses
        if stored or self.left_out is not None:
            return self.tiles
        return _cut_evenly(self.tiles.total, max(self.tiles.size, _SPAN_SIZE // d))

    def add_span_at_maximum(self, spans: _Tiles, j, total: Sums) -> Sums:
        """Add span j tile by tile, each at the level of its own maximum if that is higher."""
        tiles = _cut_evenly(spans.size, self.tiles.size)
        start = spans.start(j)

        def add_tile(i, total):
            rows = start + tiles.start(i) + jnp.arange(tiles.size, dtype=jnp.int32)
            is_new = None
            if spans.is_new(j) is not None or tiles.is_new(i) is not None:
                is_new = (rows >= j * spans.size) & (rows >= start + i * tiles.size)
            tile = self.cut(start + tiles.start(i), tiles.size, is_new)
            return self.add_at_maximum(total, tile)

        return _loop(tiles.count, add_tile, total)

    def add_span(self, spans: _Tiles, j, carry):
        """Add span j of the centers to (sums, whether their levels are expected to hold) [k]."""
        span, tile_sums = self.tile(spans, j), self.tile_sums
        several = len(self.ratios) > 1
        # Several bandwidths share a stored product; one computes it where it is fused.
        stored = tile_sums.logits(span, self.bandwidth) if several else None
        complete = True
        if self.left_out is not None:
            ahead = self.left_out - spans.start(j)
            complete = ~jnp.any((ahead >= 0) & (ahead < spans.size))

        def fits(total, new):
            """Return whether sums are not too large for the level of those before."""
            growth = jnp.log(new.total)
            return ~jnp.any(growth > tile_sums.form.headroom(total.top + growth))

        def add(scaled, total, holds):
            def at_level():
                logits = tile_sums.logits(span, self.bandwidth) if stored is None else stored
                new = tile_sums.at(total.top, span, scaled(logits))
                return new, fits(total, new)

            def at_maximum():
                if several:
                    new = tile_sums.add(total, span, scaled(stored))
                else:
                    new = jax.tree.map(lambda a: a[None], total)
                    new = self.add_span_at_maximum(spans, j, new)
                    new = jax.tree.map(lambda a: a[0], new)
                new = renormalized(new)
                return new, ~jnp.any(new.top - total.top > tile_sums.form.headroom(new.top))

            # False, but varying over the same mapped axes.
            not_tried = total, holds & False
            new, is_good = jax.lax.cond(holds & complete, at_level, lambda: not_tried)
            return jax.lax.cond(is_good, lambda: (merge_sums(total, new), holds), at_maximum)

        return self.per_bandwidth(add, *carry)


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
      n * m * d multiplications per product; temporaries O(n d + one tile), and 4 MiB of centers
      where no tile is stored. Under `jax.vmap` a batch of queries is as more queries, a batch of
      anything else takes turns, as many at a time as have some ten million logits in their tiles.
    """

    def whole(x, y, bandwidths, log_weights, exclude, shift):
        return _sums(
            form, x, y, bandwidths, log_weights, exclude, shift,
            mean=mean, moments=moments, precision=precision,
        )  # fmt: skip

    def with_queries(size, in_batched, args):
        """Take a batch of queries as more queries, or return None for a batch of anything else."""
        of_x, *of_others, of_exclude, of_shift = in_batched
        if any(of_others) or of_shift:
            return None
        x, y, bandwidths, log_weights, exclude, shift = args
        if not of_x:
            x = jnp.broadcast_to(x, (size, *x.shape))
        if exclude is not None and not of_exclude:
            exclude = jnp.broadcast_to(exclude, (size, *exclude.shape))
        x, exclude = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (x, exclude))
        batched = sums(
            form, x, y, bandwidths, log_weights, exclude, shift,
            mean=mean, moments=moments, precision=precision,
        )  # fmt: skip
        return jax.tree.map(
            lambda a: jnp.moveaxis(a.reshape(a.shape[0], size, -1, *a.shape[2:]), 1, 0), batched
        )

    return _batched_in_turns(form, whole, with_queries)(
        x, y, bandwidths, log_weights, exclude, shift
    )


# Logits of the tiles of so many batch entries may lie in memory together, about.
_BATCH_LOGITS = 2**24


def _batched_in_turns(form: Form, whole: Callable, together: Callable | None = None) -> Callable:
    """Return a function of (x [n, d], y [m, d], ...) whose batches take turns under `jax.vmap`.

    Its tiles would be as many times as large, and nothing would be fused. It is traced for the
    platforms that it may run on.

    Args:
      form: how its logits are computed.
      whole: the function, of one batch entry.
      together: (size, in_batched, args) -> its results for all of the batch, or None where a batch
        of these arguments has to take turns. None: any batch has to.
    """

    def on_platform(*args):
        name = platforms.platform()

        @jax.custom_batching.custom_vmap
        def function(*args):
            with platforms.tracing_for(name):
                return whole(*args)

        @function.def_vmap
        def batch(size, in_batched, *args):
            with platforms.tracing_for(name):
                results = None if together is None else together(size, in_batched, args)
                if results is None:
                    results = _in_turns(form, function, whole, size, in_batched, args)
            return results, jax.tree.map(lambda a: True, results)

        return function(*args)

    return platforms.per_platform(on_platform)


def _in_turns(form: Form, function: Callable, whole: Callable, size: int, in_batched, args):
    """Return the results of a batch, entry after entry, or as many at a time as memory allows."""
    x, y = args[:2]
    num_queries, num_centers = x.shape[-2], y.shape[-2]
    tile = math.prod(tile_sizes(num_queries, num_centers, x.shape[-1]))
    at_once = 1 if _knows_levels(form, num_centers) else max(1, _BATCH_LOGITS // tile)
    axes = tuple(0 if is_batched else None for is_batched in in_batched)
    if at_once >= size:
        return jax.vmap(whole, axes, axis_size=size)(*args)

    def one(batched):
        merged = [
            b if is_batched else a
            for a, b, is_batched in zip(args, batched, in_batched, strict=True)
        ]
        # Together they are a batch again, which must not take turns once more.
        return (function if at_once == 1 else whole)(*merged)

    batched = [a if b else None for a, b in zip(args, in_batched, strict=True)]
    return jax.lax.map(one, batched, batch_size=None if at_once == 1 else at_once)


def _sums(
    form: Form, x, y, bandwidths, log_weights, exclude, shift, *, mean, moments, precision
) -> Sums:
    """Return the sums as `sums` does, but for batches."""
    (n, d), m, k = x.shape, y.shape[0], bandwidths.shape[0]
    query_size, center_size = tile_sizes(n, m, d, reread=k > 1)
    query_tiles, center_tiles = _cut_evenly(n, query_size), _cut_evenly(m, center_size)
    # Logits are computed at the smallest usable bandwidth, where rounding costs most, and rescaled
    # for the others: one that is 0 or NaN spoils its own rows only.
    usable = jnp.isfinite(bandwidths) & (bandwidths > 0)
    bandwidth = bandwidths[0] if k == 1 else jnp.min(jnp.where(usable, bandwidths, jnp.inf))
    ratios = jnp.square(bandwidth / bandwidths)
    fuses = _knows_levels(form, m) and fuses_sums(x.dtype)
    tile_sums = TileSums(form, precision, mean, moments, pure=moments or k > 1, fuses=fuses)

    def query_rows(i):
        query = make_side(form, query_tiles.cut(x, i), shift, bandwidth)
        rows = _Rows(
            tile_sums, query, query_tiles.cut(exclude, i),
            y, log_weights, shift, bandwidth, ratios, center_tiles,
        )  # fmt: skip
        shape = (k, query_tiles.size, d)
        total = rows.sums(empty_sums(shape, query.centered, mean=mean, moments=moments))
        empty = total.top <= empty_level(x.dtype)
        if not tile_sums.pure:
            total = total._replace(
                top=jnp.where(empty, total.top, total.top + query.terms[None, :])
            )
        if total.weighted is not None:
            total = total._replace(weighted=total.weighted * bandwidth)
        return total

    if query_tiles.count == 1:
        return query_rows(0)

    def write_tile(i, buffers):
        def write(buffer, a):
            return jax.lax.dynamic_update_slice_in_dim(buffer, a, query_tiles.start(i), axis=1)

        return jax.tree.map(write, buffers, query_rows(i))

    buffers = empty_sums((k, n, d), x, mean=mean, moments=moments)
    return jax.lax.fori_loop(0, query_tiles.count, write_tile, buffers)


class _CenterTiles(NamedTuple):
    """Tiles of logits with the queries down and the centers across, as the gradients want them.

    What is computed of a tile is the same, to the bit, in `center_sums` and `center_gradients`:
    weights that one normalizes for the other sum to 1 however much their logits are wrong.
    """

    form: Form
    x: jax.Array
    y: jax.Array
    bandwidth: jax.Array
    log_weights: jax.Array | None
    exclude: jax.Array | None
    shift: jax.Array
    precision: str
    query_tiles: _Tiles
    center_tiles: _Tiles

    def centers(self, j) -> tuple[Side, jax.Array, jax.Array]:
        """Return tile j of the centers, its bias [centers] and its rows [centers]."""
        center, bias = make_centers(
            self.form,
            self.center_tiles.cut(self.y, j),
            self.center_tiles.cut(self.log_weights, j),
            None,
            self.shift,
            self.bandwidth,
        )
        row = self.center_tiles.start(j) + jnp.arange(self.center_tiles.size, dtype=jnp.int32)
        return center, bias + center.terms, row

    def logits(self, i, center: Side, center_bias, row, idle) -> tuple[Side, jax.Array]:
        """Return tile i of the queries, and its logits without the queries' terms.

        The queries that are idle [queries] lie at the origin.
        """
        points, left_out = (self.query_tiles.cut(a, i) for a in (self.x, self.exclude))
        points = jnp.where(idle[:, None], self.shift[None, :], points)
        query = make_side(self.form, points, self.shift, self.bandwidth)
        logits = self.form.product(query.operand, center.operand, self.bandwidth, self.precision)
        logits += center_bias[None, :]
        if left_out is not None:
            floor = masked_level(logits.dtype)
            logits = jnp.where(left_out[:, None] == row[None, :], floor, logits)
        return query, logits


def _center_tiles(form, x, y, bandwidth, log_weights, exclude, shift, precision) -> _CenterTiles:
    (n, d), m = x.shape, y.shape[0]
    query_size, center_size = tile_sizes(n, m, d)
    tiles = _cut_evenly(n, query_size), _cut_evenly(m, center_size)
    return _CenterTiles(form, x, y, bandwidth, log_weights, exclude, shift, precision, *tiles)


def _one_bandwidth(function: Callable, bandwidths, *trees):
    """Map a function of one bandwidth and its part of the trees over the bandwidths [k]."""
    if len(bandwidths) == 1:
        one = function(bandwidths[0], *jax.tree.map(lambda a: a[0], trees))
        return jax.tree.map(lambda a: a[None], one)
    return jax.lax.map(lambda args: function(*args), (bandwidths, *trees))


def center_sums(
    form: Form, x, y, bandwidths, log_weights, exclude, shift, *, precision: str
) -> Sums:
    """Return the sums [k, n] that normalize the weights of `center_gradients`.

    Args:
      form: as in `center_gradients`, and so are the others.
      x: [n, d].
      y: [m, d].
      bandwidths: [k].
      log_weights: [m] or None.
      exclude: [n] int32 or None.
      shift: [d].
      precision: the accuracy class of the product.

    Returns:
      Sums, `top` and `total` [k, n], without the queries' terms.
    """

    def whole(x, y, bandwidths, log_weights, exclude, shift):
        def one(bandwidth):
            tiles = _center_tiles(form, x, y, bandwidth, log_weights, exclude, shift, precision)
            query_tiles = tiles.query_tiles
            idle = varying_zeros((query_tiles.size,), x) > 0.0

            def add_centers(j, total):
                beside = tiles.centers(j)
                is_new = tiles.center_tiles.is_new(j)

                def add_tile(i, total):
                    _, logits = tiles.logits(i, *beside, idle)
                    if is_new is not None:
                        logits = jnp.where(is_new[None, :], logits, masked_level(x.dtype))
                    top = jnp.max(logits, axis=1)
                    new = Sums(top, jnp.sum(cpu_exp(logits - top[:, None]), axis=1))
                    rows = jax.tree.map(lambda a: query_tiles.cut(a, i), total)
                    merged = merge_sums(rows, new)
                    first_time = query_tiles.is_new(i)
                    if first_time is not None:
                        merged = jax.tree.map(
                            lambda a, b: jnp.where(first_time, a, b), merged, rows
                        )
                    start = query_tiles.start(i)
                    return jax.tree.map(
                        lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, start, 0),
                        total,
                        merged,
                    )

                return _loop(query_tiles.count, add_tile, total)

            zeros = varying_zeros((x.shape[0],), x)
            nothing = Sums(zeros + masked_level(x.dtype), zeros)
            return _loop(tiles.center_tiles.count, add_centers, nothing)

        return _one_bandwidth(one, bandwidths)

    return _batched_in_turns(form, whole)(x, y, bandwidths, log_weights, exclude, shift)


def center_gradients(
    form: Form, x, y, bandwidths, log_weights, exclude, shift, level, cotangent, *, precision: str
) -> tuple[jax.Array, jax.Array]:
    """Stream queries past the centers: the gradients of sum_ki g_ki lse_ki in y and log weights.

    Args:
      form: how a logit tile is computed.
      x: [n, d] queries.
      y: [m, d] centers.
      bandwidths: [k].
      log_weights: [m] or None.
      exclude: [n] int32 or None.
      shift: [d].
      level: [k, n], the log-sum-exp over all centers without the queries' terms, nats.
      cotangent: [k, n], g.
      precision: the accuracy class of the products.

    Returns:
      (sum_ki g_ki w_kij (x_i - y_j) / h_k^2 [m, d], sum_ki g_ki w_kij [m]).

    Numerics:
      Two products per tile, temporaries O(m d + one tile). A query with cotangent 0 takes no part,
      non-finite or not.
    """

    def whole(x, y, bandwidths, log_weights, exclude, shift, level, cotangent):
        def one(bandwidth, level, cotangent):
            tiles = _center_tiles(form, x, y, bandwidth, log_weights, exclude, shift, precision)
            return _center_gradients(tiles, level, cotangent)

        gradients = _one_bandwidth(one, bandwidths, level, cotangent)
        return jax.tree.map(lambda a: jnp.sum(a, axis=0), gradients)

    return _batched_in_turns(form, whole)(
        x, y, bandwidths, log_weights, exclude, shift, level, cotangent
    )


def _center_gradients(tiles: _CenterTiles, level, cotangent) -> tuple[jax.Array, jax.Array]:
    """Return the gradients at one bandwidth, level and cotangent [n]."""
    query_tiles, center_tiles = tiles.query_tiles, tiles.center_tiles
    (m, d), y, bandwidth = tiles.y.shape, tiles.y, tiles.bandwidth

    def center_rows(j):
        center, center_bias, row = tiles.centers(j)

        def add_tile(i, carry):
            weighted, total = carry
            level_tile, g = query_tiles.cut(level, i), query_tiles.cut(cotangent, i)
            idle = g == 0.0
            is_new = query_tiles.is_new(i)
            if is_new is not None:
                idle |= ~is_new
            query, logits = tiles.logits(i, center, center_bias, row, idle)
            # At this level an idle query's weights are 0, where 0 times them could be NaN.
            level_tile = jnp.where(idle, -masked_level(logits.dtype), level_tile)
            weights = cpu_exp(logits - level_tile[:, None]) * jnp.where(idle, 0.0, g)[:, None]
            return (
                weighted + matmul(query.centered.T, weights, tiles.precision),
                total + jnp.sum(weights, axis=0),
            )

        init = tuple(
            varying_zeros(shape, center.centered)
            for shape in ((d, center_tiles.size), (center_tiles.size,))
        )
        weighted, total = _loop(query_tiles.count, add_tile, init)
        return (weighted.T - total[:, None] * center.centered) / bandwidth, total

    if center_tiles.count == 1:
        return center_rows(0)

    def write_tile(j, buffers):
        def write(buffer, a):
            return jax.lax.dynamic_update_slice_in_dim(buffer, a, center_tiles.start(j), axis=0)

        return jax.tree.map(write, buffers, center_rows(j))

    buffers = (varying_zeros((m, d), y), varying_zeros((m,), y))
    return jax.lax.fori_loop(0, center_tiles.count, write_tile, buffers)

"""The kernel over devices: where queries and centers lie, and what travels between devices.

Every function here runs once per device of a mapped axis (`jax.shard_map` or `jax.pmap`), on the
device's own rows, and names the axis in its collectives. Three ways to meet all centers:

- Every device has the same queries: each sums over its own centers, then the sums are added.
- Queries are sharded over the axis as well, and there are few of them: they are gathered, and the
  sums are added so that each device keeps those of its own queries.
- There are many: the centers travel once around the ring of devices.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.implementations import Implementation
from avae_jax.kernels.pairwise_lse.precision import logit_error
from avae_jax.kernels.pairwise_lse.stats import (
    Sums,
    merge_sums,
    merge_sums_over,
    scatter_sums_over,
)
from avae_jax.kernels.pairwise_lse.tiles import is_number
from avae_jax.kernels.pairwise_lse.varying import vary_over, varying_axes, varying_zeros

AxisName = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one call is computed; hashable, so that it can be a static argument.

    Attributes:
      implementation: computes on one device.
      precision: accuracy class of the products.
      axis_name: mapped axis, or axes, the centers are sharded over; None where each device has all.
      queries_sharded: whether the queries are sharded over the same axis.
    """

    implementation: Implementation
    precision: str
    axis_name: AxisName | None = None
    queries_sharded: bool = False

    @property
    def num_shards(self) -> int:
        """Return the number of devices the centers are spread over."""
        return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)


def mark_varying(layout: Layout, x, y, bandwidths, log_weights, exclude) -> tuple:
    """Mark the arguments as the custom VJP needs them under the replication check.

    The VJP returns gradients that vary as the arguments do. What it sums itself, it sums over the
    axis of the centers where the queries are the same on all of its devices; all else JAX sums.
    """
    args = (x, y, bandwidths, log_weights, exclude)
    axes = varying_axes(*args)
    tracked = frozenset()
    if layout.axis_name is not None:
        tracked = _tracked_axes(layout)
    if layout.queries_sharded or not tracked:
        axes |= tracked
        return tuple(vary_over(a, axes) for a in args)
    shared = axes - tracked
    return (
        vary_over(x, shared),
        vary_over(y, axes | tracked),
        vary_over(bandwidths, shared),
        vary_over(log_weights, axes | tracked),
        vary_over(exclude, shared),
    )


def _tracked_axes(layout: Layout) -> frozenset:
    """Return the axis of the centers where the replication check keeps track of it."""
    return varying_axes(jax.lax.axis_index(layout.axis_name))


def _all_varying(*args) -> tuple:
    axes = varying_axes(*args)
    return tuple(vary_over(a, axes) for a in args)


# Centers whose mean is the origin: blocks, evenly spread, of consecutive rows.
_BLOCKS, _BLOCK_ROWS = 64, 16


def _some_rows(y) -> jax.Array:
    """Return the rows of `_BLOCKS` blocks, or all where those are not far fewer, [rows, ...]."""
    m, *shape = y.shape
    if not is_number(m) or m < 4 * _BLOCKS * _BLOCK_ROWS:
        return y
    return y[: m - m % _BLOCKS].reshape(_BLOCKS, -1, *shape)[:, :_BLOCK_ROWS].reshape(-1, *shape)


def origin(layout: Layout, y, log_weights) -> jax.Array:
    """Return about the mean of the unmasked centers of all devices, `[d]`, to all but the last bit.

    Of some centers, unless weights may mask them: any point well among them does as an origin, and
    the mean of all would read them once more.
    """
    if log_weights is None:
        y = _some_rows(y)
    # Rows that are not finite spoil their own results only.
    y = jnp.where(jnp.isfinite(y), y, 0.0)
    count = jnp.asarray(y.shape[0], y.dtype)
    if log_weights is not None:
        kept = log_weights != -jnp.inf
        y, count = jnp.where(kept[:, None], y, 0.0), jnp.sum(kept).astype(y.dtype)
    total = jnp.sum(y, axis=0)
    if layout.axis_name is not None:
        total = jax.lax.psum(total, layout.axis_name)
        count = jax.lax.psum(vary_over(count, varying_axes(y)), layout.axis_name)
    # Computed again where it is subtracted, compilers round the quotient there and fuse it with the
    # subtraction here: queries and centers would be taken from origins an ulp apart, which far from
    # 0 is many times the error of a logit. What has to be cut to fewer bits cannot be fused.
    info = jnp.finfo(y.dtype)
    return jax.lax.reduce_precision(total / jnp.maximum(count, 1), info.nexp, info.nmant - 1)


def _uniform(function):
    """Return a scalar function of arrays, true or false, that is one for all of a batch.

    Under `jax.vmap` a branch that went by each entry's own would be taken both ways for all.
    """
    whole = jax.custom_batching.custom_vmap(function)

    @whole.def_vmap
    def batch(size, in_batched, *args):
        axes = tuple(0 if is_batched else None for is_batched in in_batched)

        def of_any(*args):
            return jnp.any(jax.vmap(function, axes, axis_size=size)(*args))

        return _uniform(of_any)(*args), False

    return whole


def _agreed(layout: Layout, is_true, *args):
    """Return whether a condition holds on any device of the axis of the centers."""
    if layout.axis_name is None:
        return is_true
    is_true = vary_over(is_true, varying_axes(*args) | _tracked_axes(layout))
    return jax.lax.pmax(is_true.astype(jnp.int32), layout.axis_name) > 0


def _squared_distances(y, log_weights, shift) -> jax.Array:
    """Return those of points from the origin [m], 0 where they are masked."""
    squares = jnp.sum(jnp.square(y - shift[None, :]), axis=1)
    return squares if log_weights is None else jnp.where(log_weights == -jnp.inf, 0.0, squares)


def by_scale(layout: Layout, run: Callable, x, y, bandwidths, log_weights, shift):
    """Run with the implementation, or with another one where the bandwidth is too narrow for it.

    It is too narrow where a logit may be wrong by a nat. That grows with the squares of the points'
    distances from the origin in bandwidths: of the centers a sample tells, of a query far outside
    of them, whose log-sum-exp is as large, no more than theirs counts.

    Args:
      layout: where things lie.
      run: layout -> arrays; traced for either.
      x: [n, d].
      y: [m, d].
      bandwidths: [k].
      log_weights: [m] or None.
      shift: [d].

    Returns:
      What `run` returns.
    """
    narrow = layout.implementation.narrow
    if narrow is None:
        return run(layout)

    @_uniform
    def is_narrow(x, y, bandwidths, log_weights, shift):
        y, log_weights = _some_rows(y), None if log_weights is None else _some_rows(log_weights)
        distances = _squared_distances(y, log_weights, shift)
        # What is not finite spoils its own rows, and tells nothing of the others.
        radius = jnp.max(distances, where=jnp.isfinite(distances), initial=0.0)
        own = _squared_distances(x, None, shift)
        farthest = jnp.max(own, where=jnp.isfinite(own), initial=0.0)
        scale = radius + jnp.minimum(farthest, 4.0 * radius)
        error = logit_error(layout.precision, x.dtype) * scale
        narrowest = jnp.min(bandwidths, where=bandwidths > 0.0, initial=jnp.inf)
        return error > 2.0 * jnp.square(narrowest)

    args = x, y, bandwidths, log_weights, shift
    is_true = _agreed(layout, is_narrow(*_all_varying(*args)), *args)
    exact = dataclasses.replace(layout, implementation=narrow)
    return jax.lax.cond(is_true, lambda: run(exact), lambda: run(layout))


def sums(
    layout: Layout, x, y, bandwidths, log_weights, exclude, shift, *, mean: bool, moments: bool
) -> Sums:
    """Return the sums of the device's queries over the centers of all devices.

    Args:
      layout: where things lie.
      x: [n, d], the device's queries.
      y: [m, d], the device's centers.
      bandwidths: [k].
      log_weights: [m] or None.
      exclude: [n] row among the centers of all devices, or None.
      shift: [d], the same on all devices.
      mean: as in `stream.sums`.
      moments: as in `stream.sums`.

    Returns:
      Sums, [k, ..., n].
    """

    def of_device(*args):
        return layout.implementation.sums(
            *args, mean=mean, moments=moments, precision=layout.precision
        )

    return _over_all_centers(
        layout, of_device, x, y, bandwidths, log_weights, exclude, shift, mean=mean, moments=moments
    )


def _over_all_centers(
    layout: Layout, of_device, x, y, bandwidths, log_weights, exclude, shift, *, mean, moments
) -> Sums:
    """Return what a function sums of the device's queries, over the centers of all devices."""
    axis_name, num_rows = layout.axis_name, y.shape[0]

    def over(x, y, log_weights, exclude, first_row):
        local = None if exclude is None else exclude - first_row
        return of_device(*_all_varying(x, y, bandwidths, log_weights, local, shift))

    if axis_name is None:
        return over(x, y, log_weights, exclude, 0)
    first_row = jax.lax.axis_index(axis_name) * num_rows
    if not layout.queries_sharded:
        return merge_sums_over(over(x, y, log_weights, exclude, first_row), axis_name)
    if _gathers(x, y):
        x, exclude = _gather((x, exclude), axis_name)
        return scatter_sums_over(over(x, y, log_weights, exclude, first_row), axis_name)

    def add(step, carry):
        (y, log_weights), total = carry
        # Sent on before the work, which does not wait for what arrives.
        arriving = _pass_on((y, log_weights), axis_name)
        owner = _owner(step, axis_name)
        new = over(x, y, log_weights, exclude, owner * num_rows)
        return arriving, merge_sums(total, new)

    x, y, log_weights, shift = _all_varying(x, y, log_weights, shift)
    shape = (bandwidths.shape[0], *x.shape)
    nothing = stream.empty_sums(shape, x, mean=mean, moments=moments)
    last = layout.num_shards - 1
    (y, log_weights), total = jax.lax.fori_loop(0, last, add, ((y, log_weights), nothing))
    owner = _owner(last, axis_name)
    return merge_sums(total, over(x, y, log_weights, exclude, owner * num_rows))


def center_gradients(
    layout: Layout, x, y, bandwidths, log_weights, exclude, shift, lse, cotangent
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of sum_ki g_ki lse_ki in the device's centers and log weights.

    The sum is over the queries of all devices of the layout's axis.

    Args:
      layout: where things lie.
      x: [n, d], the device's queries.
      y: [m, d], the device's centers.
      bandwidths: [k].
      log_weights: [m] or None.
      exclude: [n] row among the centers of all devices, or None.
      shift: [d].
      lse: [k, n].
      cotangent: [k, n], g.

    Returns:
      ([m, d], [m]).
    """
    axis_name, num_rows = layout.axis_name, y.shape[0]
    level, cotangent = _normalizers(
        layout, x, y, bandwidths, log_weights, exclude, shift, lse, cotangent
    )

    def of(x, y, log_weights, exclude, level, cotangent, first_row):
        local = None if exclude is None else exclude - first_row
        args = x, y, bandwidths, log_weights, local, shift, level, cotangent
        return stream.center_gradients(
            layout.implementation.form, *_all_varying(*args), precision=layout.precision
        )

    if axis_name is None:
        return of(x, y, log_weights, exclude, level, cotangent, 0)
    first_row = jax.lax.axis_index(axis_name) * num_rows
    if not layout.queries_sharded:
        return of(x, y, log_weights, exclude, level, cotangent, first_row)
    if _gathers(x, y):
        x, exclude = _gather((x, exclude), axis_name)
        level, cotangent = _gather((level, cotangent), axis_name, axis=1)
        return of(x, y, log_weights, exclude, level, cotangent, first_row)

    def with_own(step, y, log_weights, gradients):
        first_row = _owner(step, axis_name) * num_rows
        new = of(x, y, log_weights, exclude, level, cotangent, first_row)
        return jax.tree.map(jnp.add, gradients, new)

    def add(step, carry):
        y, log_weights, _ = carry
        # The sums travel with their centers.
        return _pass_on((y, log_weights, with_own(step, *carry)), axis_name)

    x, y, log_weights, level, cotangent = _all_varying(x, y, log_weights, level, cotangent)
    nothing = varying_zeros(y.shape, y), varying_zeros(y.shape[:1], y)
    last = layout.num_shards - 1
    carry = jax.lax.fori_loop(0, last, add, (y, log_weights, nothing))
    # One more step and they are home.
    return _pass_on(with_own(last, *carry), axis_name)


# The weights of a query may sum to 1 but for so much; beyond, they are summed once more.
_WEIGHTS_OFF = 1e-2


def _normalizers(
    layout: Layout, x, y, bandwidths, log_weights, exclude, shift, lse, cotangent
) -> tuple[jax.Array, jax.Array]:
    """Return the level and the cotangents [k, n] with which the weights of a query sum to 1.

    The log-sum-exp serves where its error is small. Where it is not (a narrow bandwidth, a query
    far away), the weights are divided by their own sum, which takes one product more.
    """
    form = layout.implementation.form

    def from_value():
        terms = jax.vmap(lambda h: form.point_terms((x - shift[None, :]) / h))(bandwidths)
        return lse - terms, cotangent

    def from_sums():
        sums = _over_all_centers(
            layout,
            functools.partial(stream.center_sums, form, precision=layout.precision),
            x, y, bandwidths, log_weights, exclude, shift,
            mean=False,
            moments=False,
        )  # fmt: skip
        return sums.top, cotangent / jnp.where(sums.total > 0.0, sums.total, 1.0)

    @_uniform
    def is_off(x, y, bandwidths, log_weights, shift, cotangent):
        used = jnp.any(cotangent != 0.0, axis=0)
        squares = jnp.where(used, _squared_distances(x, None, shift), 0.0)
        of_centers = _squared_distances(y, log_weights, shift)
        scale = 0.5 * (jnp.max(squares) + jnp.max(of_centers)) / jnp.square(jnp.min(bandwidths))
        return ~(logit_error(layout.precision, x.dtype) * scale <= _WEIGHTS_OFF)

    args = x, y, bandwidths, log_weights, shift, cotangent
    is_true = _agreed(layout, is_off(*_all_varying(*args)), *args)
    return jax.lax.cond(is_true, from_sums, from_value)


def _gathers(x, y) -> bool:
    """Return whether it moves less to gather the queries than to pass the centers around, roughly.

    Queries travel twice: there as points, back as sums. Forward and backward go the same way,
    whatever else is asked for.
    """
    return 2 * x.shape[0] <= y.shape[0]


def _gather(tree, axis_name: AxisName, axis: int = 0):
    return jax.tree.map(lambda a: jax.lax.all_gather(a, axis_name, axis=axis, tiled=True), tree)


def _pass_on(tree, axis_name: AxisName):
    """Send a tree to the next device of the ring."""
    size = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % size) for i in range(size)]
    return jax.tree.map(lambda a: jax.lax.ppermute(a, axis_name, ring), tree)


def _owner(step, axis_name: AxisName):
    """Return the device whose centers are here after so many steps around the ring."""
    return (jax.lax.axis_index(axis_name) - step) % jax.lax.axis_size(axis_name)

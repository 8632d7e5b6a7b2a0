"""The kernel over devices: where queries and centers lie, and what travels between devices.

Every function here runs once per device of a mapped axis (`jax.shard_map` or `jax.pmap`), on the
device's own rows, and names the axis in its collectives. Three ways to meet all centers:

- Every device has the same queries: each sums over its own centers, then the sums are added.
- Queries are sharded over the axis as well, and there are few of them: they are gathered, and the
  sums are added so that each device keeps those of its own queries.
- There are many: the centers travel once around the ring of devices.
"""

import dataclasses

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.implementations import Implementation
from avae_jax.kernels.pairwise_lse.stats import (
    Sums,
    merge_sums,
    merge_sums_over,
    scatter_sums_over,
)
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
        tracked = varying_axes(jax.lax.axis_index(layout.axis_name))
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


def _all_varying(*args) -> tuple:
    axes = varying_axes(*args)
    return tuple(vary_over(a, axes) for a in args)


# Centers whose mean is the origin: blocks, evenly spread, of consecutive rows.
_BLOCKS, _BLOCK_ROWS = 64, 16


def _some_rows(y) -> jax.Array:
    """Return the rows of `_BLOCKS` blocks, or all where those are not far fewer, [rows, d]."""
    m, d = y.shape
    if m < 4 * _BLOCKS * _BLOCK_ROWS:
        return y
    return y[: m - m % _BLOCKS].reshape(_BLOCKS, -1, d)[:, :_BLOCK_ROWS].reshape(-1, d)


def origin(layout: Layout, y, log_weights) -> jax.Array:
    """Return about the mean of the unmasked centers of all devices, `[d]`, to all but the last bit.

    Of some centers, unless weights may mask them: any point well among them does as an origin, and
    the mean of all would read them once more.
    """
    if log_weights is None:
        y = _some_rows(y)
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
    axis_name, num_rows = layout.axis_name, y.shape[0]

    def over(x, y, log_weights, exclude, first_row):
        local = None if exclude is None else exclude - first_row
        args = _all_varying(x, y, bandwidths, log_weights, local, shift)
        return layout.implementation.sums(
            *args, mean=mean, moments=moments, precision=layout.precision
        )

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

    def of(x, y, log_weights, exclude, lse, cotangent, first_row):
        local = None if exclude is None else exclude - first_row
        x, y, weights, local, origin, h, value, g = _all_varying(
            x, y, log_weights, local, shift, bandwidths, lse, cotangent
        )

        def one(h, value, g):
            return stream.center_gradients(
                layout.implementation.form, x, y, h, weights, local, origin, value, g,
                precision=layout.precision,
            )  # fmt: skip

        if len(h) == 1:
            return one(h[0], value[0], g[0])
        gradients = jax.lax.map(lambda args: one(*args), (h, value, g))
        return jax.tree.map(lambda a: jnp.sum(a, axis=0), gradients)

    if axis_name is None:
        return of(x, y, log_weights, exclude, lse, cotangent, 0)
    first_row = jax.lax.axis_index(axis_name) * num_rows
    if not layout.queries_sharded:
        return of(x, y, log_weights, exclude, lse, cotangent, first_row)
    if _gathers(x, y):
        x, exclude = _gather((x, exclude), axis_name)
        lse, cotangent = _gather((lse, cotangent), axis_name, axis=1)
        return of(x, y, log_weights, exclude, lse, cotangent, first_row)

    def with_own(step, y, log_weights, gradients):
        first_row = _owner(step, axis_name) * num_rows
        new = of(x, y, log_weights, exclude, lse, cotangent, first_row)
        return jax.tree.map(jnp.add, gradients, new)

    def add(step, carry):
        y, log_weights, _ = carry
        # The sums travel with their centers.
        return _pass_on((y, log_weights, with_own(step, *carry)), axis_name)

    x, y, log_weights, lse, cotangent = _all_varying(x, y, log_weights, lse, cotangent)
    nothing = varying_zeros(y.shape, y), varying_zeros(y.shape[:1], y)
    last = layout.num_shards - 1
    carry = jax.lax.fori_loop(0, last, add, (y, log_weights, nothing))
    # One more step and they are home.
    return _pass_on(with_own(last, *carry), axis_name)


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

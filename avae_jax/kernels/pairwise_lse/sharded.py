"""The kernel on global arrays, spread over the devices of a mesh or by pmap."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from avae_jax.kernels.pairwise_lse.api import (
    checked_bandwidth,
    checked_exclude,
    checked_log_weights,
    pairwise_lse,
    pairwise_lse_stats,
)
from avae_jax.kernels.pairwise_lse.layout import AxisName
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats


def sharded_pairwise_lse(
    x: ArrayLike,
    y: ArrayLike,
    *,
    mesh: Mesh,
    bandwidth: ArrayLike,
    query_axis: AxisName | None = None,
    center_axis: AxisName | None = None,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    """Compute `pairwise_lse` with queries, centers or both spread over a mesh.

    | query_axis | center_axis | what travels |
    |--|--|--|
    | an axis | None | nothing: each device streams all centers past its queries |
    | None | an axis | one sum of [n, d + 3] numbers over the axis |
    | one axis | another | the same, within the center axis |
    | an axis | the same | the queries and their sums, or the centers around a ring |

    Args:
      x: [n, d], as in `pairwise_lse`; n divisible by the size of `query_axis`.
      y: [m, d]; m divisible by the size of `center_axis`. Pad with rows of log weight -inf.
      mesh: the devices.
      bandwidth: scalar or [k].
      query_axis: mesh axis, or tuple of axes, the rows of x are split over; None for all of them on
        every device.
      center_axis: the same for y.
      log_weights: [m] or None.
      exclude: [n] rows of y, or None.
      implementation: as in `pairwise_lse`.
      precision: as in `pairwise_lse`.

    Returns:
      [n] or [k, n] nats, split over `query_axis`. Differentiable as `pairwise_lse` is.

    Raises:
      TypeError: mesh is no `jax.sharding.Mesh`.
      ValueError: an axis the mesh does not have, rows that cannot be split evenly, or what
        `pairwise_lse` raises.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from avae_jax.kernels.pairwise_lse import sharded_pairwise_lse
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> y = jnp.zeros((4 * jax.device_count(), 2))
      >>> lse = sharded_pairwise_lse(y, y, mesh=mesh, bandwidth=1.0, center_axis="data")
      >>> lse.shape == (4 * jax.device_count(),)
      True
    """
    op = _Op(pairwise_lse, implementation, precision)
    return _over_mesh(op, mesh, query_axis, center_axis, x, y, bandwidth, log_weights, exclude)


def sharded_pairwise_lse_stats(
    x: ArrayLike,
    y: ArrayLike,
    *,
    mesh: Mesh,
    bandwidth: ArrayLike,
    query_axis: AxisName | None = None,
    center_axis: AxisName | None = None,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    implementation: str | None = None,
    precision: str = "highest",
) -> PairwiseStats:
    """Compute `pairwise_lse_stats` with queries, centers or both spread over a mesh.

    Args:
      x: as in `sharded_pairwise_lse`, and so are all other arguments.
      y: [m, d].
      mesh: the devices.
      bandwidth: scalar or [k].
      query_axis: mesh axis, tuple of axes, or None.
      center_axis: mesh axis, tuple of axes, or None.
      log_weights: [m] or None.
      exclude: [n] or None.
      implementation: as in `pairwise_lse`.
      precision: as in `pairwise_lse`.

    Returns:
      PairwiseStats, its rows split over `query_axis`.

    Raises:
      TypeError: as `sharded_pairwise_lse`.
      ValueError: as `sharded_pairwise_lse`.
      NotImplementedError: a derivative is asked for.
    """
    op = _Op(pairwise_lse_stats, implementation, precision)
    return _over_mesh(op, mesh, query_axis, center_axis, x, y, bandwidth, log_weights, exclude)


def pmap_pairwise_lse(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: ArrayLike,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    """Compute `pairwise_lse` by `jax.pmap` over the local devices.

    An array with a leading axis of one entry per device is sharded, one without is given to all.
    New code is better off with `sharded_pairwise_lse`: JAX keeps pmap for programs that have it.

    Args:
      x: [devices, n, d] or [n, d].
      y: [devices, m, d] or [m, d].
      bandwidth: scalar or [k], the same on all devices.
      log_weights: [devices, m] or [m], as y; or None.
      exclude: [devices, n] or [n], as x: rows of y counted over all devices; or None.
      implementation: as in `pairwise_lse`.
      precision: as in `pairwise_lse`.

    Returns:
      [devices, n] nats if x is sharded, else [n]; [devices, k, n] or [k, n] for several bandwidths.
      Differentiable as `pairwise_lse` is.

    Raises:
      ValueError: neither x nor y is sharded, the leading axis is not the number of devices, or what
        `pairwise_lse` raises.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    for name, a in (("x", x), ("y", y)):
        if a.ndim not in (2, 3):
            raise ValueError(
                f"{name} must have shape [points, dimensions], or [devices, points, dimensions] "
                f"when sharded, got {a.shape}."
            )
        if a.ndim == 3 and a.shape[0] != jax.local_device_count():
            raise ValueError(
                f"{name} {a.shape} must have one leading entry for each of the "
                f"{jax.local_device_count()} local devices."
            )
    if x.ndim == y.ndim == 2:
        raise ValueError(
            f"x {x.shape} or y {y.shape} must have a leading axis of {jax.local_device_count()} "
            "devices; for one device use pairwise_lse."
        )
    bandwidth, log_weights, exclude = _checked(x, y, bandwidth, log_weights, exclude)
    mapped = _pmapped(x.ndim == 3, y.ndim == 3, implementation, precision)
    return mapped(x, y, bandwidth, log_weights, exclude)


def _checked(x, y, bandwidth, log_weights, exclude) -> tuple:
    """Check values and whole shapes here: inside of the mapped call there are neither."""
    return (
        checked_bandwidth(bandwidth),
        checked_log_weights(log_weights, y),
        checked_exclude(exclude, x, math.prod(y.shape[:-1])),
    )


_PMAP_AXIS = "pairwise_lse"


@functools.lru_cache(maxsize=64)
def _pmapped(x_sharded: bool, y_sharded: bool, implementation: str | None, precision: str):
    # Kept: pmap compiles again for every function object.
    def local(x, y, bandwidth, log_weights, exclude):
        if y_sharded and not x_sharded:
            # Of a result that is the same on all devices JAX gives each device its share of the
            # cotangent, but the centers of each act on the whole of it.
            size = jax.lax.axis_size(_PMAP_AXIS)
            scaled: Any = _scale_gradient((y, log_weights), float(size))
            y, log_weights = scaled
        return pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=exclude,
            axis_name=_PMAP_AXIS if y_sharded else None,
            queries_sharded=x_sharded and y_sharded,
            implementation=implementation,
            precision=precision,
        )

    of_x, of_y = (0 if x_sharded else None), (0 if y_sharded else None)
    return jax.pmap(
        local, axis_name=_PMAP_AXIS, in_axes=(of_x, of_y, None, of_y, of_x), out_axes=of_x
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(tree, factor: float) -> Any:
    return tree


_scale_gradient.defvjp(
    lambda tree, factor: (tree, None),
    lambda factor, _, gradient: (jax.tree.map(lambda g: factor * g, gradient),),
)


class _Op(NamedTuple):
    """A function of the kernel and how it is to be computed."""

    fn: Callable[..., Any]
    implementation: str | None
    precision: str


def _over_mesh(
    op: _Op, mesh: Mesh, query_axis, center_axis, x, y, bandwidth, log_weights, exclude
) -> Any:
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh must be a jax.sharding.Mesh, got {mesh!r}: make one by jax.make_mesh."
        )
    query_axes, center_axes = (
        _mesh_axes(name, axis, mesh)
        for name, axis in (("query_axis", query_axis), ("center_axis", center_axis))
    )
    if query_axes != center_axes and set(query_axes) & set(center_axes):
        raise ValueError(
            f"query_axis and center_axis must be the same or have no axis in common, got "
            f"{query_axis!r} and {center_axis!r}."
        )
    x, y = jnp.asarray(x), jnp.asarray(y)
    for name, a, axes in (("x", x, query_axes), ("y", y, center_axes)):
        if a.ndim != 2:
            raise ValueError(f"{name} must have shape [points, dimensions], got {a.shape}.")
        size = math.prod(mesh.shape[axis] for axis in axes)
        if a.shape[0] % size:
            raise ValueError(
                f"{name} {a.shape} cannot be split over the {size} devices of mesh axis "
                f"{', '.join(axes)!r}: give a multiple of {size} rows."
            )
    bandwidth, log_weights, exclude = _checked(x, y, bandwidth, log_weights, exclude)
    mapped = _shard_mapped(op, mesh, query_axes or None, center_axes or None, bandwidth.ndim)
    return mapped(x, y, bandwidth, log_weights, exclude)


def _mesh_axes(name: str, axis, mesh: Mesh) -> tuple[str, ...]:
    """Return a mesh axis, several or None as a tuple, or raise."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if (axis is not None and not axes) or any(one not in mesh.shape for one in axes):
        raise ValueError(
            f"{name} must be one of the mesh's axes {tuple(mesh.shape)}, a tuple of them, or None, "
            f"got {axis!r}."
        )
    return axes


@functools.lru_cache(maxsize=64)
def _shard_mapped(op: _Op, mesh: Mesh, query_axis, center_axis, bandwidth_rank: int) -> Any:
    def local(x, y, bandwidth, log_weights, exclude):
        return op.fn(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=exclude,
            axis_name=center_axis,
            queries_sharded=center_axis is not None and query_axis == center_axis,
            implementation=op.implementation,
            precision=op.precision,
        )

    queries, centers = PartitionSpec(query_axis), PartitionSpec(center_axis)
    rows = PartitionSpec(*[None] * bandwidth_rank, query_axis)
    in_specs = queries, centers, PartitionSpec(), centers, queries
    mapped = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=rows)
    if AxisType.Explicit not in mesh.axis_types:
        # Kept and jitted: called eagerly, it would be traced again every time.
        return jax.jit(mapped)

    def resharded(*args):
        # What is split in another way has to be told on a mesh with explicit axes.
        on_mesh = (
            None if a is None else jax.sharding.reshard(a, NamedSharding(mesh, spec))
            for a, spec in zip(args, in_specs, strict=True)
        )
        return mapped(*on_mesh)

    return jax.jit(resharded)

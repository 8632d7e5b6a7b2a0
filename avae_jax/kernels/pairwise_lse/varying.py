"""Along which mapped axes a value differs, and how to say so: what shard_map's check asks for."""

from typing import Any

import jax
import jax.numpy as jnp


def varying_axes(*args) -> frozenset:
    """Return the mapped axes along which any of some values, or None, is known to differ.

    It is always empty without the replication check of `jax.shard_map`, so also under `jax.pmap`.
    """
    return frozenset().union(*(_axes_of(a) for a in args if a is not None))


def _axes_of(a) -> frozenset:
    aval = jax.typeof(a)
    # The attribute was renamed in JAX 0.10.
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset(kind.varying if kind is not None else getattr(aval, "vma", ()))


def vary_over(a, axes: frozenset) -> Any:
    """Mark a value as differing along mapped axes; JAX sums its gradient over the new ones."""
    if a is None:
        return None
    missing = axes - varying_axes(a)
    return jax.lax.pcast(a, tuple(missing), to="varying") if missing else a


def varying_zeros(shape: tuple[int, ...], like) -> jax.Array:
    """Return zeros that differ along the mapped axes of `like`, as a loop's carry must at once."""
    return vary_over(jnp.zeros(shape, like.dtype), varying_axes(like))

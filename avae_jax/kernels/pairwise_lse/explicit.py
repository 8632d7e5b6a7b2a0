"""Arrays whose types hold how they are sharded: meshes with axes of type `AxisType.Explicit`.

In their types every operation must say how its result is sharded. The kernel leaves that to the
compiler, as on a mesh of `AxisType.Auto`, and says it of its results alone.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec


def spec_of(a) -> PartitionSpec:
    """Return along which explicit mesh axes an array is split, one entry per dimension."""
    spec = tuple(jax.typeof(a).sharding.spec)
    return PartitionSpec(*spec, *[None] * (a.ndim - len(spec)))


def with_auto_axes(function: Callable, args: tuple, specs: Any) -> Any:
    """Call a function of arrays without the explicit axes in their types.

    Args:
      function: arrays -> a tree of arrays.
      args: arrays and None.
      specs: how the result is split: the tree, with a spec per array.

    Returns:
      The function's value, of types with the axes where any argument's has them.

    Raises:
      ValueError: the arguments are split over different meshes.
    """
    of_args = [jax.typeof(a).sharding.mesh for a in args if a is not None]
    meshes = {mesh for mesh in of_args if mesh.explicit_axes}
    if not meshes:
        return function(*args)
    if len(meshes) > 1:
        raise ValueError(f"the arrays must lie on one mesh, got {sorted(map(str, meshes))}.")
    (mesh,) = meshes
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda spec: isinstance(spec, PartitionSpec),
    )
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=shardings)(*args)

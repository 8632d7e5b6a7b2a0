"""Arrays on meshes whose axes are in their types, which is what `jax.make_mesh` makes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from avae_jax.kernels.pairwise_lse import (
    pairwise_lse,
    pairwise_lse_stats,
    sharded_pairwise_lse,
    sharded_pairwise_lse_stats,
)

from .contract import (
    ARGNUMS,
    assert_gradients,
    assert_stats,
    assert_values,
    make_cotangent,
    make_problem,
)

# How queries and centers are split; None: an array as everybody has it.
SPLITS = {
    "queries": (P("a"), None),
    "centers": (None, P("a")),
    "both": (P("a"), P(("a", "b"))),
    "dimensions": (P(None, "a"), P("b", "a")),
}


@functools.cache
def mesh_of(kind):
    """Return a mesh of 4 x 2 devices with axes of one type."""
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind,) * 2)


def split(mesh, a, spec):
    """Return an array on the mesh, or as it is."""
    return jnp.asarray(a) if spec is None else jax.device_put(a, NamedSharding(mesh, spec))


@pytest.mark.parametrize("splits", SPLITS)
def test_values_and_gradients_of_explicit_arrays(splits):
    mesh, (of_x, of_y) = mesh_of(AxisType.Explicit), SPLITS[splits]
    # Dimensions of either form.
    problem = make_problem(16, 24, 4 if splits == "queries" else 12, weights=True, exclude=True)
    weights = split(mesh, problem.log_weights, None if of_y is None else P(of_y[0]))
    args = split(mesh, problem.x, of_x), split(mesh, problem.y, of_y), problem.bandwidth, weights
    options = {"exclude": problem.exclude}
    implementation = "difference" if splits == "queries" else "matrix"

    def value(x, y, h, w):
        return pairwise_lse(x, y, bandwidth=h, log_weights=w, **options)

    lse = value(*args)
    assert_values(problem, lse, implementation)
    rows = None if of_x is None else of_x[0]
    assert (lse.sharding.spec if of_x is not None else P(None)) == P(rows)
    stats = pairwise_lse_stats(args[0], args[1], bandwidth=args[2], log_weights=args[3], **options)
    assert_stats(problem, stats, implementation)

    cotangent = make_cotangent(problem)
    gradient = jax.grad(lambda *args: jnp.sum(cotangent * value(*args)), ARGNUMS)
    gradients = jax.jit(gradient)(*args)
    assert_gradients(problem, gradients, cotangent, implementation)
    for a, of_a in zip(args[:2], gradients, strict=False):
        if not isinstance(a, np.ndarray):
            assert jax.typeof(of_a).sharding.spec == jax.typeof(a).sharding.spec
    if splits == "both":
        with jax.set_mesh(mesh):
            assert_gradients(problem, gradient(*args), cotangent, implementation)


def test_several_tiles_of_explicit_arrays():
    mesh = mesh_of(AxisType.Explicit)
    problem = make_problem(1024, 4096, 3)
    x, y = split(mesh, problem.x, P("a")), split(mesh, problem.y, P("b"))
    lse = jax.jit(lambda x, y: pairwise_lse(x, y, bandwidth=problem.bandwidth))(x, y)
    assert_values(problem, lse, "difference")


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize(
    ("query_axis", "center_axis"),
    [(("a", "b"), None), ("a", "b"), (None, ("a", "b")), (("a", "b"), ("a", "b"))],
)
def test_sharded_calls_take_any_mesh_and_tuples_of_axes(kind, query_axis, center_axis):
    mesh = mesh_of(kind)
    problem = make_problem(16, 24, 3, weights=True)
    # Split in another way than asked for.
    x, y = split(mesh, problem.x, P("b")), split(mesh, problem.y, None)
    options = {
        "mesh": mesh, "bandwidth": problem.bandwidth, "log_weights": problem.log_weights,
        "query_axis": query_axis, "center_axis": center_axis,
    }  # fmt: skip
    assert_values(problem, sharded_pairwise_lse(x, y, **options), "difference")
    if kind == AxisType.Explicit and query_axis is None:
        assert_stats(problem, sharded_pairwise_lse_stats(x, y, **options), "difference")


def test_arrays_on_two_meshes_are_refused():
    one = jax.make_mesh((2,), ("a",), devices=jax.devices()[:2])
    other = jax.make_mesh((2,), ("b",), devices=jax.devices()[:2])
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="must lie on one mesh"):
        pairwise_lse(split(one, x, P("a")), split(other, x, P("b")), bandwidth=1.0)


def test_axes_that_overlap_in_part_are_refused():
    x = np.zeros((16, 3), np.float32)
    with pytest.raises(ValueError, match="the same or have no axis in common, got 'a' and"):
        sharded_pairwise_lse(
            x, x, mesh=mesh_of(AxisType.Auto), bandwidth=1.0, query_axis="a",
            center_axis=("a", "b"),
        )  # fmt: skip

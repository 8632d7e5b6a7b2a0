"""Queries and centers spread over eight devices: every layout, by every way to call it."""

import dataclasses
import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from avae_jax.kernels.pairwise_lse import (
    pairwise_lse,
    pairwise_lse_stats,
    pmap_pairwise_lse,
    sharded_pairwise_lse,
    sharded_pairwise_lse_stats,
)
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS, Implementation

from .contract import (
    ARGNUMS,
    assert_gradients,
    assert_stats,
    assert_values,
    make_cotangent,
    make_problem,
)

# What goes where does not depend on how well a program is compiled.
pytestmark = pytest.mark.usefixtures("quick_compiler")

NUM_DEVICES = 8


class Layout(NamedTuple):
    """Mesh shape, the axes x and y are split over, and sizes that lead to it."""

    mesh: dict[str, int]
    queries: str | tuple[str, ...] | None
    centers: str | tuple[str, ...] | None
    n: int
    m: int

    def make_mesh(self):
        types = (AxisType.Auto,) * len(self.mesh)
        return jax.make_mesh(tuple(self.mesh.values()), tuple(self.mesh), axis_types=types)

    @property
    def query_axes(self):
        return _as_tuple(self.queries)

    @property
    def center_axes(self):
        return _as_tuple(self.centers)


def _as_tuple(axes):
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


LINE, GRID = {"a": 8}, {"a": 4, "b": 2}
# Few queries on a device for its centers are gathered; for many the centers go around the ring.
LAYOUTS = {
    "queries": Layout(LINE, "a", None, 24, 40),
    "centers": Layout(LINE, None, "a", 21, 40),
    "one query": Layout(LINE, None, "a", 1, 8),
    "gather": Layout(LINE, "a", "a", 8, 40),
    "ring": Layout(LINE, "a", "a", 80, 32),
    "ring of one row": Layout(LINE, "a", "a", 8, 8),
    "grid": Layout(GRID, "a", "b", 24, 20),
    "gather on one axis of two": Layout(GRID, "a", "a", 8, 32),
    "ring on one axis of two": Layout(GRID, "a", "a", 60, 20),
    "centers over both axes": Layout(GRID, None, ("a", "b"), 7, 40),
    "gather over both axes": Layout(GRID, ("a", "b"), ("a", "b"), 8, 40),
    "ring over both axes": Layout(GRID, ("a", "b"), ("a", "b"), 80, 32),
}
ONE_AXIS_EACH = [k for k, v in LAYOUTS.items() if not isinstance(v.centers, tuple)]
ON_A_LINE = ["queries", "centers", "gather", "ring"]


def make_sharded_problem(layout, *, several=False, leave_one_out=False, plain=False):
    """Return a problem in which one device's centers are all masked, and hold NaN."""
    n, m = layout.n, layout.m
    if plain:
        bandwidth = np.array([0.5, 2.0], np.float32) if several else 0.5
        return make_problem(n, m, 3, offset=10.0)._replace(bandwidth=np.float32(bandwidth))
    problem = make_problem(n, m, 3, bandwidth=0.5, offset=10.0, weights=True, exclude=True)
    shards = int(np.prod([layout.mesh[axis] for axis in layout.center_axes], initial=1))
    if shards > 1:
        masked = slice(m // shards, 2 * (m // shards))
        problem.log_weights[masked] = -np.inf
        problem.y[masked] = np.nan
        problem.x[: min(n, m)] = problem.y[: min(n, m)]
        problem.x[np.isnan(problem.x)] = 10.0
    if leave_one_out:
        problem = problem._replace(
            exclude=np.where(np.arange(n) < m, np.arange(n), -1).astype(np.int32)
        )
    if several:
        problem = problem._replace(bandwidth=np.array([0.5, 2.0], np.float32))
    return problem


def call_locally(layout, implementation, x, y, bandwidth, log_weights, exclude, *, op=pairwise_lse):
    return op(
        x,
        y,
        bandwidth=bandwidth,
        log_weights=log_weights,
        exclude=exclude,
        axis_name=layout.centers,
        queries_sharded=layout.centers is not None and layout.queries == layout.centers,
        implementation=implementation,
    )


def local_step(layout, implementation, x, y, bandwidth, log_weights, exclude, cotangent):
    """Return the values and the gradients of this device's loss, taken on the device."""

    def loss(x, y, bandwidth, log_weights):
        lse = call_locally(layout, implementation, x, y, bandwidth, log_weights, exclude)
        return jnp.sum(cotangent * lse), lse

    step = jax.value_and_grad(loss, ARGNUMS, has_aux=True)
    (_, lse), gradients = step(x, y, bandwidth, log_weights)
    return lse, gradients


def value_and_gradients(loss):
    # jax 0.10.2 mixes up the meshes of two such calls with equal shapes if they are not jitted.
    return jax.jit(jax.value_and_grad(loss, ARGNUMS, has_aux=True))


def arg_specs(layout, bandwidth):
    """Return the specs of x, y, bandwidth, log weights, exclude and of the values."""
    queries, centers = P(layout.queries), P(layout.centers)
    values = P(*[None] * np.ndim(bandwidth), layout.queries)
    return (queries, centers, P(), centers, queries), values


@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_inside_and_outside_of_a_checked_shard_map(implementation, name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout, several="ring" in name or name == "grid")
    cotangent = make_cotangent(problem)
    specs, values = arg_specs(layout, problem.bandwidth)
    mapped = functools.partial(jax.shard_map, mesh=layout.make_mesh(), check_vma=True)
    inside = mapped(
        functools.partial(local_step, layout, implementation),
        in_specs=(*specs, values),
        out_specs=(values, specs[:4]),
    )
    value = mapped(
        functools.partial(call_locally, layout, implementation), in_specs=specs, out_specs=values
    )

    @jax.jit
    def both(*args):
        outside = jax.grad(lambda *a: jnp.sum(cotangent * value(*a, problem.exclude)), ARGNUMS)
        return inside(*args, problem.exclude, cotangent), outside(*args)

    (lse, gradients), outside = both(*problem.args)
    assert_values(problem, lse, implementation)
    assert_gradients(problem, gradients, cotangent, implementation)
    assert_gradients(problem, outside, cotangent, implementation)


def assemble(stacked, layout, axis, joined, summed):
    """Put one array together from those of all devices of the mesh.

    Args:
      stacked: [*mesh, ...], each device's own.
      layout: what the devices hold.
      axis: of a device's array, along which the shards of `joined` are parts.
      joined: mesh axes whose devices hold parts.
      summed: mesh axes whose devices hold terms of a sum; on all others they must be equal.
    """
    a = np.asarray(stacked)
    for position, name in reversed(list(enumerate(layout.mesh))):
        if name in joined:
            continue
        if name in summed:
            a = a.sum(axis=position, keepdims=True)
        else:
            assert np.array_equal(a, np.broadcast_to(a.take([0], position), a.shape), True)
            a = a.take([0], position)
    local = a.shape[len(layout.mesh) :]
    parts = a.reshape(-1, *local)
    return np.concatenate(list(parts), axis=axis) if joined else parts[0]


def assert_local_results(layout, problem, cotangent, lse, gradients):
    """Check every device's results, as they are without JAX's replication check.

    What the queries' devices each have a part of, and the op is not told of, is left to be summed:
    all of the bandwidth's gradient, and the centers' over axes that are not their own.
    """
    queries, centers = layout.query_axes, layout.center_axes
    others = [axis for axis in queries if axis not in centers]
    x, y, bandwidth, log_weights = gradients
    assembled = (
        assemble(x, layout, 0, queries, ()),
        assemble(y, layout, 0, centers, others),
        assemble(bandwidth, layout, 0, (), queries),
        assemble(log_weights, layout, 0, centers, others),
    )
    values = assemble(lse, layout, np.ndim(problem.bandwidth), queries, ())
    assert_values(problem, values, "difference")
    assert_gradients(problem, assembled, cotangent, "difference")


@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_inside_of_an_unchecked_shard_map(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout, several=name == "gather", leave_one_out=True)
    cotangent = make_cotangent(problem)
    specs, values = arg_specs(layout, problem.bandwidth)

    def local(*args):
        results = local_step(layout, None, *args)
        lead = (1,) * len(layout.mesh)
        return jax.tree.map(lambda a: a.reshape(lead + a.shape), results)

    mapped = jax.shard_map(
        local,
        mesh=layout.make_mesh(),
        in_specs=(*specs, values),
        out_specs=P(*layout.mesh),
        check_vma=False,
    )
    lse, gradients = jax.jit(mapped)(*problem.args, problem.exclude, cotangent)
    assert_local_results(layout, problem, cotangent, lse, gradients)


@pytest.mark.parametrize("name", ON_A_LINE)
def test_gradients_inside_of_a_pmap(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    cotangent = make_cotangent(problem)

    def split(a, axes):
        return a.reshape(NUM_DEVICES, -1, *a.shape[1:]) if axes else a

    of_x, of_y = (0 if axes else None for axes in (layout.query_axes, layout.center_axes))
    mapped = jax.pmap(
        functools.partial(local_step, layout, None),
        axis_name="a",
        in_axes=(of_x, of_y, None, of_y, of_x, of_x),
    )
    lse, gradients = mapped(
        split(problem.x, layout.queries),
        split(problem.y, layout.centers),
        problem.bandwidth,
        split(problem.log_weights, layout.centers),
        split(problem.exclude, layout.queries),
        split(cotangent, layout.queries),
    )
    assert_local_results(layout, problem, cotangent, lse, gradients)


def global_options(layout, problem, log_weights):
    """Return the keyword arguments of the mesh wrappers."""
    return {
        "mesh": layout.make_mesh(),
        "query_axis": layout.queries,
        "center_axis": layout.centers,
        "log_weights": log_weights,
        "exclude": problem.exclude,
    }


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("name", ONE_AXIS_EACH)
def test_on_a_mesh(name):
    layout = LAYOUTS[name]
    several = name in ("queries", "centers", "gather")
    problem = make_sharded_problem(layout, several=several, plain=True)
    cotangent = make_cotangent(problem)

    def loss(x, y, bandwidth, log_weights):
        options = global_options(layout, problem, log_weights)
        lse = sharded_pairwise_lse(x, y, bandwidth=bandwidth, **options)
        return jnp.sum(cotangent * lse), lse

    (_, lse), gradients = value_and_gradients(loss)(*problem.args)
    assert_values(problem, lse, "difference")
    assert_gradients(problem, gradients, cotangent, "difference")
    _, values = arg_specs(layout, problem.bandwidth)
    assert lse.sharding.is_equivalent_to(NamedSharding(layout.make_mesh(), values), lse.ndim)


@pytest.mark.parametrize("name", ONE_AXIS_EACH)
def test_statistics_on_a_mesh(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout, several=name in ("ring", "grid"), plain=name == "ring")
    stats = sharded_pairwise_lse_stats(
        problem.x,
        problem.y,
        bandwidth=problem.bandwidth,
        **global_options(layout, problem, problem.log_weights),
    )
    assert_stats(problem, stats, "difference")
    _, values = arg_specs(layout, problem.bandwidth)
    for a in stats:
        assert a.sharding.is_equivalent_to(NamedSharding(layout.make_mesh(), values), a.ndim)


@pytest.mark.parametrize("name", ["centers over both axes", "ring over both axes"])
def test_statistics_inside_of_a_shard_map(implementation, name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    specs, values = arg_specs(layout, problem.bandwidth)
    local = functools.partial(call_locally, layout, implementation, op=pairwise_lse_stats)
    mapped = jax.shard_map(local, mesh=layout.make_mesh(), in_specs=specs, out_specs=values)
    stats = jax.jit(mapped)(*problem.args, problem.exclude)
    assert_stats(problem, stats, implementation)


@pytest.mark.parametrize("name", ON_A_LINE)
def test_by_pmap(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    cotangent = make_cotangent(problem)

    def split(a, axes):
        return jnp.reshape(a, (NUM_DEVICES, -1, *a.shape[1:])) if axes else a

    def loss(x, y, bandwidth, log_weights):
        lse = pmap_pairwise_lse(
            split(x, layout.queries),
            split(y, layout.centers),
            bandwidth=bandwidth,
            log_weights=split(log_weights, layout.centers),
            exclude=split(problem.exclude, layout.queries),
        )
        assert lse.shape == (
            (NUM_DEVICES, layout.n // NUM_DEVICES) if layout.queries else (layout.n,)
        )
        lse = lse.reshape(-1)
        return jnp.sum(cotangent * lse), lse

    (_, lse), gradients = value_and_gradients(loss)(*problem.args)
    assert_values(problem, lse, "difference")
    assert_gradients(problem, gradients, cotangent, "difference")


@pytest.mark.parametrize("name", ON_A_LINE)
def test_a_non_finite_query_spoils_its_own_row_only(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    good = np.arange(layout.n) != 5
    kept = problem._replace(x=problem.x[good], exclude=problem.exclude[good])
    problem.x[5, 1] = np.nan
    cotangent = np.float32(good)

    def loss(x, y, bandwidth, log_weights):
        options = global_options(layout, problem, log_weights)
        lse = sharded_pairwise_lse(x, y, bandwidth=bandwidth, **options)
        return jnp.sum(cotangent * jnp.where(good, lse, 0.0)), lse

    (_, lse), (x, *shared) = value_and_gradients(loss)(*problem.args)
    assert np.isnan(lse[5])
    assert_values(kept, lse[good], "difference")
    assert_gradients(kept, (x[good], *shared), cotangent[good], "difference")


@pytest.mark.parametrize("name", ON_A_LINE)
def test_everything_excluded_on_all_devices(name):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    problem.log_weights[:] = -np.inf

    def loss(x, y, bandwidth, log_weights):
        options = global_options(layout, problem, log_weights)
        lse = sharded_pairwise_lse(x, y, bandwidth=bandwidth, **options)
        return jnp.sum(lse), lse

    (_, lse), gradients = value_and_gradients(loss)(*problem.args)
    np.testing.assert_array_equal(lse, -np.inf)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)


COLLECTIVE = re.compile(
    r'"?stablehlo\.(all_gather|all_reduce|all_to_all|reduce_scatter|collective_\w+)"?'
    r".*?: \(([^()]*)\) -> ",
    re.DOTALL,
)


def collectives(fn, *args):
    """Return what a program sends: [(collective, shapes of its operands)]."""
    text = jax.jit(fn).lower(*args).as_text()
    return [
        (kind, [tuple(map(int, re.findall(r"(\d+)x", operand))) for operand in operands.split(",")])
        for kind, operands in COLLECTIVE.findall(text)
    ]


def num_sent(found, kind):
    return sum(int(np.prod(shape)) for k, shapes in found if k == kind for shape in shapes)


EXPECTED = {
    "queries": set(),
    "centers": {"all_reduce"},
    "gather": {"all_gather", "reduce_scatter", "all_reduce"},
    "ring": {"collective_permute", "all_reduce"},
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("argnums", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_no_other_collectives_than_the_layout_needs(name, argnums):
    layout = LAYOUTS[name]
    n, m, d = layout.n, layout.m, 3
    problem = make_sharded_problem(layout)
    options = global_options(layout, problem, problem.log_weights)

    def value(x, y, bandwidth):
        return sharded_pairwise_lse(x, y, bandwidth=bandwidth, **options)

    fn = value
    if argnums:
        fn = jax.grad(lambda *args: jnp.sum(value(*args)), argnums)
    found = collectives(fn, *problem.args[:3])
    kinds = {kind for kind, _ in found}
    of_replicated = {"all_reduce"} if {1, 2} & set(argnums) and name == "queries" else set()
    assert kinds == EXPECTED[name] | of_replicated

    per_device = m // NUM_DEVICES
    for kind, shapes in found:
        # Centers are never gathered. Only their own device, or the next, sees more of them than d.
        if kind == "all_gather":
            assert all(shape[0] in (n // NUM_DEVICES, 1) for shape in shapes), shapes
        if kind != "collective_permute" and name != "queries":
            assert all(per_device not in shape for shape in shapes), (kind, shapes)
    passes = 2 if 1 in argnums else 1
    shift = passes * (d + 1)
    moved = n * (d + 3)
    # The branch that sums the weights once more, which the program names and seldom takes; and
    # whether any device takes it.
    again = passes - 1
    if name == "centers":
        assert num_sent(found, "all_reduce") <= moved + shift + again * (2 * n + 1)
    if name == "gather":
        assert num_sent(found, "reduce_scatter") <= moved + again * n
        gathered = n // NUM_DEVICES * ((d + 1) + (passes - 1) * (d + 3) + again * (d + 1))
        assert num_sent(found, "all_gather") <= gathered
        # The levels that the sums are relative to, and the shift; the bandwidth's gradient.
        assert num_sent(found, "all_reduce") <= n + shift + 1 + again * (n + 1)
    if name == "ring":
        assert num_sent(found, "all_reduce") <= shift + 1 + again
        # As the program names them, once a loop: rows and log weights; on the way back these and
        # their sums, and the sums home.
        rows = per_device * (d + 1) * (1 + 3 * (passes - 1) + again)
        assert num_sent(found, "collective_permute") <= rows


@pytest.mark.parametrize("name", ["queries", "centers", "gather", "ring", "grid"])
@pytest.mark.parametrize("argnums", [(), (0, 1)])
def test_each_device_does_its_share_of_the_work(name, argnums, monkeypatch):
    layout = LAYOUTS[name]
    problem = make_sharded_problem(layout)
    real = IMPLEMENTATIONS["difference"]
    logits = []

    def product(a, b, bandwidth, precision):
        tile = real.form.product(a, b, bandwidth, precision)

        def count(corner):
            logits.append(tile.size)
            return np.zeros_like(corner)

        # Of the tile and added to it, or the compiler would move or drop the call.
        corner = tile[0, 0]
        return tile + jax.pure_callback(count, jax.ShapeDtypeStruct((), tile.dtype), corner)

    form = dataclasses.replace(real.form, product=product)
    sums = functools.partial(real.sums.func, form)
    # Under a name of its own, as the wrapper keeps what it has traced for a name.
    counted = f"counted, {name}, {argnums}"
    monkeypatch.setitem(IMPLEMENTATIONS, counted, Implementation(sums, form))

    def value(x, y):
        options = global_options(layout, problem, problem.log_weights)
        return sharded_pairwise_lse(
            x, y, bandwidth=problem.bandwidth, implementation=counted, **options
        )

    fn = value
    if argnums:
        fn = jax.grad(lambda x, y: jnp.sum(value(x, y)), argnums)
    jax.block_until_ready(fn(problem.x, problem.y))
    # All devices run one program, so each has an eighth of what all have.
    passes = 2 if 1 in argnums else 1
    assert sum(logits) == passes * layout.n * layout.m


@pytest.mark.parametrize(
    ("sizes", "axes", "message"),
    [
        ((15, 16), ("a", None), r"x \(15, 3\) cannot be split over the 8 devices of mesh axis 'a'"),
        ((16, 15), (None, "a"), r"y \(15, 3\) cannot be split over the 8 devices of mesh axis 'a'"),
        ((16, 16), ("c", None), r"query_axis must be one of the mesh's axes \('a',\).*'c'"),
        ((16, 16), (None, "c"), r"center_axis must be one of the mesh's axes \('a',\).*'c'"),
        ((16, 0), (None, "a"), r"y must hold at least one center, got \(0, 3\)"),
    ],
)
@pytest.mark.parametrize("op", [sharded_pairwise_lse, sharded_pairwise_lse_stats])
def test_bad_shards_are_named(op, sizes, axes, message):
    x, y = (np.zeros((rows, 3), np.float32) for rows in sizes)
    mesh = Layout(LINE, None, None, 0, 0).make_mesh()
    with pytest.raises(ValueError, match=message):
        op(x, y, mesh=mesh, bandwidth=1.0, query_axis=axes[0], center_axis=axes[1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((16, 3), (16, 3), r"x \(16, 3\) or y \(16, 3\) must have a leading axis of 8 devices"),
        ((4, 2, 3), (16, 3), r"x \(4, 2, 3\) must have one leading entry for each of the 8"),
        ((16, 3), (4, 2, 3), r"y \(4, 2, 3\) must have one leading entry for each of the 8"),
        ((16,), (8, 2, 3), r"x must have shape .* got \(16,\)"),
        ((8, 2, 3), (8, 2, 4), r"same number of dimensions.*\(2, 3\).*\(2, 4\)"),
    ],
)
def test_bad_pmap_shapes_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        pmap_pairwise_lse(np.zeros(x, np.float32), np.zeros(y, np.float32), bandwidth=1.0)


def test_bad_arguments_inside_of_a_shard_map_are_named():
    layout = LAYOUTS["gather"]
    problem = make_sharded_problem(layout)
    specs, values = arg_specs(layout, problem.bandwidth)

    def run(**options):
        def local(x, y, bandwidth, log_weights, exclude):
            del exclude
            return pairwise_lse(x, y, bandwidth=bandwidth, log_weights=log_weights, **options)

        mapped = jax.shard_map(local, mesh=layout.make_mesh(), in_specs=specs, out_specs=values)
        return mapped(*problem.args, problem.exclude)

    with pytest.raises(ValueError, match=r"x \(1, 3\) differs between the devices of axis 'a'"):
        run(axis_name="a")
    with pytest.raises(ValueError, match=r"axis_name must name a mapped axis .*'rows'"):
        run(axis_name="rows", queries_sharded=True)
    # Rows of all devices are counted.
    limit = len(problem.y)
    with pytest.raises(ValueError, match=rf"exclude must hold indices in \[0, {limit}\)"):
        run(axis_name="a", queries_sharded=True, exclude=np.array([limit]))
    assert run(axis_name="a", queries_sharded=True, exclude=np.array([limit - 1])).shape == (8,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": -1.0}, r"bandwidth must be positive and finite, got -1.0"),
        ({"bandwidth": np.nan}, r"bandwidth must be positive and finite, got nan"),
        ({"exclude": np.full(16, 24)}, r"exclude must hold indices in \[0, 24\).* from 24 to 24"),
        ({"exclude": np.full(16, 2**32)}, r"exclude must hold indices in \[0, 24\)"),
        ({"exclude": np.zeros(15, int)}, r"exclude must have shape \(16,\).* got \(15,\)"),
        (
            {"log_weights": np.zeros(23, np.float32)},
            r"log_weights must have shape \(24,\).*\(23,\)",
        ),
    ],
)
def test_values_and_whole_shapes_are_checked_before_mapping(options, message):
    x, y = np.zeros((16, 3), np.float32), np.zeros((24, 3), np.float32)
    mesh = Layout(LINE, None, None, 0, 0).make_mesh()
    options = {"bandwidth": 1.0, **options}
    for op in (sharded_pairwise_lse, sharded_pairwise_lse_stats):
        with pytest.raises(ValueError, match=message):
            op(x, y, mesh=mesh, query_axis="a", center_axis="a", **options)
    if "log_weights" not in options:
        with pytest.raises(ValueError, match=message):
            pmap_pairwise_lse(x, y.reshape(8, 3, 3), **options)


def test_what_is_no_mesh_is_refused():
    x = np.zeros((16, 3), np.float32)
    for mesh in (None, jax.devices()):
        with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh, got"):
            sharded_pairwise_lse(x, x, mesh=mesh, bandwidth=1.0, query_axis="a")


@pytest.mark.parametrize("varying", ["bandwidth", "exclude"])
def test_what_the_devices_share_must_be_the_same(varying):
    x, y = np.zeros((2, 3), np.float32), np.zeros((16, 3), np.float32)
    bandwidth, exclude = np.ones(8, np.float32), np.zeros(16, np.int32)

    def local(x, y, bandwidth, exclude):
        given = {"bandwidth": bandwidth[0] if varying == "bandwidth" else 1.0}
        given |= {"exclude": exclude} if varying == "exclude" else {}
        return pairwise_lse(x, y, axis_name="a", **given)

    mesh = Layout(LINE, None, None, 0, 0).make_mesh()
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("a"), P("a"), P("a")), out_specs=P())
    with pytest.raises(ValueError, match=rf"{varying} .* differs between the devices of axis 'a'"):
        mapped(x, y, bandwidth, exclude)


@pytest.mark.parametrize("name", [3, (), ["a"], ("a", 1)])
def test_axis_names_are_strings(name):
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="axis_name must be a string or a tuple of strings, got"):
        pairwise_lse(x, x, bandwidth=1.0, axis_name=name)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_bad_traced_bandwidth_spoils_its_own_values_only(bad):
    x, y = (np.random.default_rng(k).normal(size=(9, 3)).astype(np.float32) for k in (0, 1))
    good = pairwise_lse(x, y, bandwidth=0.7)
    run = jax.jit(lambda h: pairwise_lse(x, y, bandwidth=h))
    for position in (0, 1):
        lse = run(np.insert(np.array([0.7], np.float32), position, bad))
        np.testing.assert_allclose(lse[1 - position], good, rtol=1e-6)
        assert not np.any(np.isfinite(lse[position]))

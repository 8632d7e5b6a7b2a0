"""Levels that are known before a tile: where they fail, values are those of float64 all the same.

Each problem has more centers than a level needs, in several tiles and spans.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.kernels.pairwise_lse import pairwise_lse, stream
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS, Implementation

from .contract import (
    Problem,
    assert_gradients,
    assert_stats,
    assert_values,
    call,
    call_gradients,
    call_stats,
    make_cotangent,
    make_problem,
)

# Which level is taken, and for whom, is the same however well a program is compiled.
pytestmark = pytest.mark.usefixtures("quick_compiler")

# Each at a dimension that it would be chosen for.
DIMS = {"difference": 3, "matrix": 9}
TILE = 8, 512
M = 1700


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Cut these small problems into several tiles, and two spans of two tiles each."""

    def tile_sizes(n, m, d, *, reread=False):
        return min(n, TILE[0]), min(m, TILE[1])

    monkeypatch.setattr(stream, "tile_sizes", tile_sizes)
    monkeypatch.setattr(stream, "_SPAN_SIZE", 9 * 2 * TILE[1])
    for name in DIMS:
        # A new object, so that no function that jit has kept is used.
        form = IMPLEMENTATIONS[name].form
        entry = Implementation(functools.partial(stream.sums, form), form)
        monkeypatch.setitem(IMPLEMENTATIONS, name, entry)


def check(problem, implementation, *, gradients=True):
    """Assert values, statistics and gradients of a problem against float64."""
    assert_values(problem, call(problem, implementation=implementation), implementation)
    if not gradients:
        return
    assert_stats(problem, call_stats(problem, implementation=implementation), implementation)
    cotangent = make_cotangent(problem)
    lse, found = call_gradients(problem, cotangent, implementation=implementation)
    assert_values(problem, lse, implementation)
    assert_gradients(problem, found, cotangent, implementation)


def far_and_near(n, d, *, bandwidth=0.5, late=True):
    """Return queries whose only near centers are ones that a level of few centers does not know.

    The far ones are 100 nats and more away, so that the sums outgrow any level taken from them.
    """
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, d)).astype(np.float32)
    m = M
    y = (20.0 + rng.normal(size=(m, d))).astype(np.float32)
    # Odd rows, which an even step from the first center never meets.
    rows = 2 * (np.arange(n) * (m // (2 * n) - 1)) + 1
    rows = rows + (m - rows[-1] - 2) if late else rows
    y[rows] = x + 0.1
    return Problem(x, y, np.float32(bandwidth))


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_sums_that_outgrow_their_level(implementation, d):
    for late in (False, True):
        check(far_and_near(20, d, late=late), implementation, gradients=late)


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_sums_at_several_bandwidths_of_which_some_outgrow_theirs(implementation, d):
    problem = far_and_near(20, d, bandwidth=np.array([0.3, 30.0, 3.0], np.float32))
    assert_values(problem, call(problem, implementation=implementation), implementation)


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_a_level_of_masked_centers_only(implementation, d):
    problem = make_problem(20, M, d)
    for kept in (slice(-50, None), slice(0, 50), slice(0, 0)):
        log_weights = np.full(len(problem.y), -np.inf, np.float32)
        log_weights[kept] = 0.0
        y = np.where(log_weights[:, None] == -np.inf, np.float32(np.nan), problem.y)
        masked = problem._replace(y=y, log_weights=log_weights)
        lse = call(masked, implementation=implementation)
        assert np.all(np.isneginf(lse)) == (kept == slice(0, 0))
        check(masked._replace(y=problem.y), implementation, gradients=kept != slice(0, 0))
        np.testing.assert_array_equal(
            lse, call(masked._replace(y=problem.y), implementation=implementation)
        )


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_a_level_leaves_out_what_its_query_does(implementation, d):
    # Each query is a center and leaves out just that: all that it is near to, or one of many, which
    # would not outgrow the level.
    for spread in (30.0, 1.0):
        points = spread * np.random.default_rng(0).normal(size=(M, d)).astype(np.float32)
        for rows in (np.arange(30), np.arange(0, M, M // 29)[:30]):
            problem = Problem(points[rows], points, np.float32(1.0), exclude=rows.astype(np.int32))
            check(problem, implementation)


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_queries_that_are_not_finite_spoil_their_own_rows(implementation, d):
    problem = make_problem(20, M, d)
    x = problem.x.copy()
    x[3], x[7, 2], x[11] = np.nan, np.inf, 1e20
    lse = np.asarray(call(problem._replace(x=x), implementation=implementation))
    assert np.all(np.isnan(lse[[3, 7]]))
    others = np.delete(np.arange(20), [3, 7, 11])
    rest = problem._replace(x=problem.x[others])
    assert_values(rest, jnp.asarray(lse[others]), implementation)


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_a_level_that_holds_is_used(implementation, d, monkeypatch):
    # Without the pass over a tile that finds its maximum: what asks for one is not called.
    problem = make_problem(20, M, d, bandwidth=1.0)
    passes = []
    real = stream._Rows.add_span_at_maximum

    def counted(self, spans, j, total):
        jax.debug.callback(lambda: passes.append(1))
        return real(self, spans, j, total)

    monkeypatch.setattr(stream._Rows, "add_span_at_maximum", counted)
    for bandwidth, needed in ((1.0, False), (1e-2, True)):
        passes.clear()
        changed = problem._replace(bandwidth=np.float32(bandwidth))
        lse = call(changed, implementation=implementation)
        jax.effects_barrier()
        assert_values(changed, lse, implementation)
        if jax.default_backend() == "cpu":
            assert bool(passes) == needed


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
@pytest.mark.parametrize(
    "batched", [("x",), ("x", "exclude"), ("y", "bandwidth", "log_weights")], ids=",".join
)
@pytest.mark.parametrize("m", [40, M])
def test_a_batch_equals_its_parts(implementation, d, batched, m):
    parts = [
        make_problem(6, m, d, seed=seed, bandwidth=0.4 + 0.2 * seed, weights=True, exclude=True)
        for seed in range(3)
    ]
    axes = tuple(0 if name in batched else None for name in Problem._fields)
    args = [
        np.stack([getattr(part, name) for part in parts])
        if name in batched
        else getattr(parts[0], name)
        for name in Problem._fields
    ]

    def loss(*args):
        lse = call(Problem(*args), implementation=implementation)
        return jnp.sum(lse), lse

    value_and_gradients = jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True)
    (_, lse), gradients = jax.jit(jax.vmap(value_and_gradients, axes))(*args)
    one = jax.jit(value_and_gradients)
    for i in range(len(parts)):
        part = Problem(*(a[i] if axis == 0 else a for a, axis in zip(args, axes, strict=True)))
        assert_values(part, lse[i], implementation)
        _, expected = one(*part)
        for found, wanted in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [0, 1])
def test_memory_of_a_batch_is_that_of_one_tile(batched):
    size, n, m, d = 8, 256, 10_000, 16
    shapes = [(n, d), (m, d)]
    shapes[batched] = (size, *shapes[batched])
    axes = [0 if side == batched else None for side in (0, 1)]

    def value(x, y):
        return pairwise_lse(x, y, bandwidth=0.8)

    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(jax.vmap(value, axes)).lower(*args).compile()
    # The results and the centers as they are centered; a tile a member would be ten times that.
    limit = 4 * size * n * (d + 8) + 4 * m * (d + 8) + 4 * 3 * TILE[0] * TILE[1]
    assert compiled.memory_analysis().temp_size_in_bytes <= limit


@pytest.mark.parametrize(("implementation", "d"), DIMS.items())
def test_one_far_query_costs_the_others_no_digits(implementation, d):
    # Its logits spread; those of the others are all alike, so that what a level adds to them does
    # not average out, and their class allows a few roundings of 1.
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = (1e-4 * rng.normal(size=(M, d))).astype(np.float32)
        x = (1e-2 * rng.normal(size=(4, d))).astype(np.float32)
        x[3] *= 1e8
        problem = Problem(x, y, np.float32(1.0))
        assert_values(problem, call(problem, implementation=implementation), implementation)

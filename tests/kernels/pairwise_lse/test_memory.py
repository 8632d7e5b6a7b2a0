"""Temporary memory of compiled calls: the results and a pair of tiles, not a matrix of logits."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from avae_jax.kernels.pairwise_lse import pairwise_lse, pairwise_lse_stats, sharded_pairwise_lse
from avae_jax.kernels.pairwise_lse.tiles import tile_sizes

# What LLVM makes of a loop changes none of its buffers.
pytestmark = pytest.mark.usefixtures("quick_compiler")

SIZES = [
    (1, 1_000_000, 64),
    (128, 100_000, 64),
    (1000, 1_000_000, 8),
    (4096, 16_384, 8),
    (16_384, 65_536, 64),
]
BYTES = 4  # of a float32
SPAN = 2**20  # coordinates


def temporary(fn, *shapes):
    """Return the bytes a compiled function takes besides its arguments and results."""
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def pair_of_tiles(n, m, d):
    """Return the bytes of a pair of tiles.

    That is two tiles of logits, say the logits and their weights, and the points of both sides as
    they are cut and as they are centered; centers may be cut in spans of many tiles, no logits of
    which are stored.
    """
    queries, centers = tile_sizes(n, m, d)
    span = max(centers, min(SPAN // d, m))
    return 2 * BYTES * (queries * centers + (queries + span) * d)


def allowance(rows, n, m, d):
    """Return twice the bytes of the sums for `rows` points and of one pair of tiles."""
    return 2 * (rows * (d + 8) * BYTES + pair_of_tiles(n, m, d))


def value_and_sum(implementation):
    def value(x, y, bandwidth):
        return pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation)

    return value, lambda *args: jnp.sum(value(*args))


@pytest.mark.parametrize("d", [1, 2, 8, 16, 64, 256, 1024])
def test_tiles_are_of_a_bounded_size(d):
    whole = pair_of_tiles(10**6, 10**9, d)
    assert whole <= 256 * 2**20
    # Few queries have wider tiles, whose centers must not be many times the logits.
    for n in (1, 8, 64, 512):
        assert pair_of_tiles(n, 10**9, d) <= 4 * whole


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_memory_is_linear_in_the_queries(implementation, n, m, d):
    value, total = value_and_sum(implementation)
    for fn in (value, jax.grad(total, (0, 2))):
        used = temporary(fn, (n, d), (m, d), ())
        assert used <= allowance(n, n, m, d), f"{used} bytes"
        assert used < m * d * BYTES or m < 10**6, "a copy of the centers"


@pytest.mark.parametrize(("n", "m", "d"), [SIZES[1], SIZES[4]])
def test_memory_of_the_centers_gradient_is_linear_in_the_centers(implementation, n, m, d):
    _, total = value_and_sum(implementation)
    used = temporary(jax.grad(total, 1), (n, d), (m, d), ())
    assert used <= allowance(m, n, m, d), f"{used} bytes"


def test_memory_of_the_statistics_is_linear_in_the_queries(implementation):
    n, m, d = SIZES[4]

    def stats(x, y, bandwidth):
        return pairwise_lse_stats(x, y, bandwidth=bandwidth, implementation=implementation)

    assert temporary(stats, (n, d), (m, d), ()) <= allowance(n, n, m, d)


def test_memory_of_several_bandwidths_is_one_pair_of_tiles(implementation):
    (n, m, d), k = SIZES[4], 16
    value, _ = value_and_sum(implementation)
    # Of each query, `top` and `total` of every bandwidth, and the point once.
    rows = 8 * k * n + 2 * n * d
    limit = 2 * (rows * BYTES + pair_of_tiles(n, m, d))
    assert temporary(value, (n, d), (m, d), (k,)) <= limit


@pytest.mark.parametrize("n", [65_536, 524_288])
def test_memory_of_a_device_is_its_share(n):
    # Few queries are gathered; for many the centers go around the ring.
    m, d, devices = 524_288, 64, 8
    mesh = jax.make_mesh((devices,), ("a",), axis_types=(AxisType.Auto,))

    def value(x, y):
        axes = {"query_axis": "a", "center_axis": "a"}
        return sharded_pairwise_lse(x, y, mesh=mesh, bandwidth=1.0, **axes)

    local = m // devices
    rows = n if 2 * n <= m else n // devices
    # The device's own centers and those that arrive.
    limit = allowance(rows, rows, local, d) + 2 * BYTES * local * d
    assert limit < m * d * BYTES
    for fn in (value, jax.grad(lambda x, y: jnp.sum(value(x, y)))):
        used = temporary(fn, (n, d), (m, d))
        assert used <= limit, f"{used} bytes"

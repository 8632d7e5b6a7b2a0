"""How far values, statistics and gradients may be from NumPy float64, per accuracy class."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.kernels.pairwise_lse import forms, merge_stats, stream, tile
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS, Implementation
from avae_jax.kernels.pairwise_lse.precision import PRECISIONS, matmul
from avae_jax.kernels.pairwise_lse.tiles import tile_sizes

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

FEW_QUERIES = 4


def edges_of_tiles(d):
    """Return sizes (n, m, d) around those at which another tile begins."""
    queries, centers = tile_sizes(10**6, 10**6, d)
    # A tile of few queries is wider.
    widest = tile_sizes(FEW_QUERIES, 10**9, d)[1]
    sizes = [(queries + k, centers + k, d) for k in (-1, 0, 1)]
    return [*sizes, (2 * queries + 1, 2 * centers - 1, d), (FEW_QUERIES, widest + 1, d)]


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 5), (2, 5, 5), *edges_of_tiles(2), *edges_of_tiles(9)]
)
def test_values_at_the_edges_of_tiles(implementation, n, m, d):
    problem = make_problem(n, m, d, bandwidth=0.4, weights=n % 2 == 1, exclude=n % 2 == 1)
    assert_values(problem, call(problem, implementation=implementation), implementation)


@pytest.mark.parametrize(("n", "m"), [(16, 32_767), (16, 32_768), (16, 32_769), (32_769, 16)])
def test_values_around_32768_rows(implementation, n, m):
    # jaxlib 0.10.2 miscompiles other programs on the CPU at exactly these sizes.
    problem = make_problem(n, m, 3, bandwidth=0.3)
    assert_values(problem, call(problem, implementation=implementation), implementation)


@pytest.mark.parametrize("d", [1, 2, 3, 8, 16, 21, 64, 127, 512, 1024])
def test_values_over_dimensions_offsets_and_bandwidths(implementation, d):
    cases = itertools.product((0.0, 10.0, 1e3), (1e-3, 0.1, 1.0, 10.0))
    if d > 127:
        cases = ((0.0, 0.1), (10.0, 1e-3), (1e3, 1.0), (1e3, 10.0))
    # More queries, more chances that roundings add up.
    n = max(30, d // 2)
    for offset, bandwidth in cases:
        problem = make_problem(n, 120, d, bandwidth=bandwidth, near=bandwidth, offset=offset)
        assert_values(problem, call(problem, implementation=implementation), implementation)


@pytest.mark.parametrize("d", [1, 3, 21, 127])
def test_statistics_and_gradients_over_dimensions_and_offsets(implementation, d):
    for offset in (0.0, 1e3):
        for bandwidth in (1e-2, 0.7, 10.0):
            problem = make_problem(
                24, 300, d, bandwidth=bandwidth, near=bandwidth, offset=offset, weights=True
            )
            stats = call_stats(problem, implementation=implementation)
            assert_stats(problem, stats, implementation)
            cotangent = make_cotangent(problem)
            _, gradients = call_gradients(problem, cotangent, implementation=implementation)
            assert_gradients(problem, gradients, cotangent, implementation)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 6), (3, 2, 6), edges_of_tiles(2)[2], edges_of_tiles(9)[4]]
)
def test_statistics_and_gradients_at_the_edges_of_tiles(implementation, n, m, d):
    problem = make_problem(n, m, d, offset=10.0, weights=True, exclude=m > 2)
    assert_stats(problem, call_stats(problem, implementation=implementation), implementation)
    cotangent = make_cotangent(problem)
    lse, gradients = call_gradients(problem, cotangent, implementation=implementation)
    assert_values(problem, lse, implementation)
    assert_gradients(problem, gradients, cotangent, implementation)


def test_far_queries(implementation):
    problem = make_problem(20, 300, 4)
    far = problem._replace(x=1e3 * problem.x)
    narrow = problem._replace(bandwidth=np.float32(1e-3))
    for changed in (far, narrow):
        lse = call(changed, implementation=implementation)
        assert np.min(lse) < -1e4
        assert_values(changed, lse, implementation)
        assert_stats(changed, call_stats(changed, implementation=implementation), implementation)
        cotangent = make_cotangent(changed)
        _, gradients = call_gradients(changed, cotangent, implementation=implementation)
        assert_gradients(changed, gradients, cotangent, implementation)


@pytest.mark.parametrize("run_length", [1, 16])
def test_the_origin_may_be_the_mean_of_some_centers(implementation, run_length):
    # Sorted, so that no few neighbors have the mean of all, and in two clusters by turns: after 16
    # rows each, the ones that are looked at are all of one cluster.
    rng = np.random.default_rng(2)
    m, d = 8192, 3
    y = rng.normal(size=(m, d))
    y[:, 0].sort()
    y[:, 1] = 0.1 * y[:, 1] + np.where(np.arange(m) // run_length % 2, 1.0, -1.0)
    x = y[:: m // 48] + 0.3 * rng.normal(size=(len(y[:: m // 48]), d))
    problem = Problem(*((1e4 + a).astype(np.float32) for a in (x, y)), np.float32(0.5))
    cotangent = make_cotangent(problem)
    lse, gradients = call_gradients(problem, cotangent, implementation=implementation)
    assert_values(problem, lse, implementation)
    assert_gradients(problem, gradients, cotangent, implementation)


def test_duplicated_points_agree_with_float64_and_add_log_two(implementation):
    problem = make_problem(30, 700, 6)
    twice = problem._replace(
        x=np.tile(problem.x, (2, 1)), y=np.tile(problem.y, (2, 1)), bandwidth=np.float32(0.3)
    )
    lse = call(twice, implementation=implementation)
    assert_values(twice, lse, implementation)
    once = call(twice._replace(y=problem.y), implementation=implementation)
    np.testing.assert_allclose(lse - once, np.log(2.0), atol=2e-5)
    # All centers in one place, every query on it.
    same = problem._replace(x=np.full_like(problem.x, 7.0), y=np.full_like(problem.y, 7.0))
    assert_values(same, call(same, implementation=implementation), implementation)
    assert_stats(same, call_stats(same, implementation=implementation), implementation)


def test_leave_one_out_agrees_with_float64(implementation):
    n = 2100
    points = make_problem(n, n, 4, bandwidth=0.3)
    problem = points._replace(x=points.y, exclude=np.arange(n, dtype=np.int32))
    assert_values(problem, call(problem, implementation=implementation), implementation)


def test_several_bandwidths_equal_one_at_a_time(implementation):
    d, bandwidths = 12, np.array([0.7, 0.05, 3.0], np.float32)
    n = tile_sizes(10**6, 10**6, d)[0] + 5
    problem = make_problem(n, 200, d, bandwidth=bandwidths, weights=True, exclude=True)
    lse = call(problem, implementation=implementation)
    assert_values(problem, lse, implementation)
    stats = call_stats(problem, implementation=implementation)
    assert_stats(problem, stats, implementation)
    cotangent = make_cotangent(problem)
    joint_lse, gradients = call_gradients(problem, cotangent, implementation=implementation)
    np.testing.assert_array_equal(joint_lse.shape, lse.shape)
    assert_values(problem, joint_lse, implementation)
    assert_gradients(problem, gradients, cotangent, implementation)
    # A list of one is a list.
    one = problem._replace(bandwidth=bandwidths[1:2])
    single = call(one, implementation=implementation)
    assert single.shape == (1, len(problem.x))
    scalar = call(one._replace(bandwidth=bandwidths[1]), implementation=implementation)
    np.testing.assert_array_equal(single[0], scalar)


def test_merged_statistics_agree_with_those_of_the_union(implementation):
    problem = make_problem(40, 300, 5, weights=True)
    problem.log_weights[:100] = -np.inf  # The first part is empty, and so is it with itself.
    parts = [
        call_stats(
            problem._replace(y=problem.y[rows], log_weights=problem.log_weights[rows]),
            implementation=implementation,
        )
        for rows in (slice(0, 100), slice(100, 200), slice(200, 300))
    ]
    for order in ((0, 1, 2), (2, 0, 1)):
        merged = functools.reduce(merge_stats, (parts[k] for k in order))
        assert_stats(problem, merged, implementation)
    empty = merge_stats(parts[0], parts[0])
    assert np.all(empty.lse == -np.inf)
    for a in empty[1:]:
        np.testing.assert_array_equal(a, 0.0)
    # With several bandwidths as well.
    several = problem._replace(bandwidth=np.array([0.5, 2.0], np.float32))
    halves = [
        call_stats(
            several._replace(y=several.y[rows], log_weights=several.log_weights[rows]),
            implementation=implementation,
        )
        for rows in (slice(0, 150), slice(150, 300))
    ]
    assert_stats(several, merge_stats(*halves), implementation)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="classes differ on accelerators")
def test_a_cpu_computes_all_classes_in_float32():
    problem = make_problem(30, 200, 20)
    results = [call_stats(problem, implementation="matrix", precision=p) for p in PRECISIONS]
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("precision", "num_products"), [("highest", 6), ("high", 3), ("fast", 1)])
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_multiply_in_bfloat16(platform, precision, num_products, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    points = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    text = jax.jit(lambda a, b: matmul(a, b, precision)).lower(points, points).as_text()
    assert "lhs_precision_type = bf16" in text
    assert f"num_primitive_operations = {num_products}," in text


def _bfloat16_matmul(a, b, precision):
    """Multiply as bfloat16 units with float32 sums do, in six, three or one product."""

    def parts(a):
        rest, split = a, []
        for _ in range(3):
            split.append(jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
            rest = rest - split[-1]
        return split

    highest_order = {"highest": 2, "high": 1, "fast": 0}[precision]
    a, b = parts(a), parts(b)
    orders = [(i, j) for i in range(3) for j in range(3) if i + j <= highest_order]
    return sum(
        jnp.matmul(a[i], b[j], precision=jax.lax.Precision.HIGHEST) for i, j in reversed(orders)
    )


@pytest.fixture
def bfloat16_products(monkeypatch):
    """Compute the streamed implementations' products as a GPU or TPU does.

    XLA's CPU takes the bfloat16 algorithms but computes all of them in float32. The forms are new
    objects: no function that jit has kept of the real ones is used, and none is left to them.
    """
    monkeypatch.setattr(tile, "matmul", _bfloat16_matmul)
    monkeypatch.setattr(forms, "matmul", _bfloat16_matmul)
    for name, real in (("matrix", forms.MATRIX), ("difference", forms.DIFFERENCE)):
        product = functools.partial(real.product)
        form = dataclasses.replace(real, product=product)
        entry = Implementation(functools.partial(stream.sums, form), form)
        monkeypatch.setitem(IMPLEMENTATIONS, name, entry)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="emulates what other devices have")
@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize(
    ("name", "precision"), [("difference", "fast"), *(("matrix", p) for p in PRECISIONS)]
)
def test_bfloat16_products_stay_within_their_class(name, precision):
    options = {"implementation": name, "precision": precision}
    for offset in (0.0, 1e3):
        for bandwidth in (0.1, 1.0, 10.0):
            problem = make_problem(
                24, 300, 21, bandwidth=bandwidth, near=bandwidth, offset=offset, weights=True
            )
            assert_values(problem, call(problem, **options), name, precision)
            assert_stats(problem, call_stats(problem, **options), name, precision)
            cotangent = make_cotangent(problem)
            _, gradients = call_gradients(problem, cotangent, **options)
            assert_gradients(problem, gradients, cotangent, name, precision)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="emulates what other devices have")
@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize(("precision", "better"), [("high", "highest"), ("fast", "high")])
def test_cheaper_classes_are_truly_cheaper(precision, better):
    # What the limits above would not notice: an emulation that computes float32 all the same.
    problem = make_problem(24, 300, 21, bandwidth=0.1, near=0.1)
    lse = call(problem, implementation="matrix", precision=precision)
    with pytest.raises(AssertionError, match="times the limit"):
        assert_values(problem, lse, "matrix", better)

"""The contract every implementation of the kernel keeps, checked against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from avae_jax.kernels.pairwise_lse import merge_stats, pairwise_lse, pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS
from avae_jax.kernels.pairwise_lse.reference import reference_gradients, reference_stats
from avae_jax.kernels.pairwise_lse.tiles import tile_sizes

QUERY_TILE, CENTER_TILE = tile_sizes(10**6, 10**6, 2)
UNIT = 2.0**-24  # roundoff of float32


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def implementation(request):
    return request.param


def make_problem(n, m, d, *, offset=0.0, seed=0, weights=False, exclude=False):
    """Returns float32 (x, y, options); every other query lies close to a center."""
    rng = np.random.default_rng(seed)
    y = (offset + rng.normal(size=(m, d))).astype(np.float32)
    x = (offset + rng.normal(size=(n, d))).astype(np.float32)
    near = np.arange(0, n, 2)
    x[near] = y[near % m] + (0.1 * rng.normal(size=(len(near), d))).astype(np.float32)
    options = {}
    if weights:
        options["log_weights"] = rng.normal(size=m).astype(np.float32)
        options["log_weights"][rng.random(m) < 0.2] = -np.inf
        options["log_weights"][0] = 0.0
    if exclude:
        options["exclude"] = rng.integers(-1, m, size=n).astype(np.int32)
        options["exclude"][near] = near % m
    return x, y, options


def tolerance(implementation, x, y, bandwidth, lse):
    """Accuracy class "highest": nats per query, the float32 sum over centers included."""
    if implementation == "direct":
        return 8 * UNIT * (4 + np.abs(lse))
    center = y.astype(np.float64).mean(axis=0)
    squared_radius = np.max(np.sum((y - center) ** 2, axis=1))
    size = (np.sum((x - center) ** 2, axis=1) + squared_radius) / (2 * bandwidth**2)
    return 16 * UNIT * (1 + size)


def assert_agrees(implementation, x, y, bandwidth, options):
    actual = pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation, **options)
    expected = reference_stats(x, y, bandwidth=bandwidth, **options).lse
    assert actual.dtype == jnp.float32
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
    finite = np.isfinite(expected)
    error = np.abs(np.asarray(actual, np.float64)[finite] - expected[finite])
    limit = tolerance(implementation, x[finite], y, bandwidth, expected[finite])
    assert np.all(error <= limit), f"{error.max()} nats, {np.max(error / limit)} of the limit"


@pytest.mark.parametrize("weights_and_exclude", [False, True])
@pytest.mark.parametrize(
    ("n", "m"),
    [
        (1, 1),
        (1, CENTER_TILE + 1),
        (2, 5),
        (QUERY_TILE - 1, CENTER_TILE - 1),
        (QUERY_TILE, CENTER_TILE),
        (QUERY_TILE + 1, CENTER_TILE + 1),
        (2 * QUERY_TILE + 1, 2 * CENTER_TILE - 1),
    ],
)
def test_values_at_the_edges_of_tiles(implementation, n, m, weights_and_exclude):
    x, y, options = make_problem(n, m, 5, weights=weights_and_exclude, exclude=weights_and_exclude)
    assert_agrees(implementation, x, y, 0.4, options)


@pytest.mark.parametrize(("n", "m"), [(16, 32_767), (16, 32_768), (16, 32_769), (32_769, 16)])
def test_values_around_32768_rows(implementation, n, m):
    # jaxlib 0.10.2 miscompiles other programs on the CPU at exactly these sizes.
    x, y, _ = make_problem(n, m, 3)
    assert_agrees(implementation, x, y, 0.3, {})


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3])
@pytest.mark.parametrize("d", [1, 2, 3, 8, 16, 21, 64, 127])
def test_values_over_dimensions_and_offsets(implementation, d, offset):
    x, y, _ = make_problem(40, 1100, d, offset=offset)
    for bandwidth in (0.2, 1.0, 10.0):
        assert_agrees(implementation, x, y, bandwidth, {})


def test_values_of_far_queries(implementation):
    x, y, _ = make_problem(20, 300, 4)
    assert_agrees(implementation, x * 1e3, y, 0.5, {})
    assert_agrees(implementation, x, y, 1e-3, {})


def test_value_of_one_center_is_its_logit(implementation):
    x, y = np.array([[3.0, 4.0]], np.float32), np.zeros((1, 2), np.float32)
    value = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    np.testing.assert_allclose(value, [-50.0], rtol=1e-6)


def test_duplicated_centers_add_log_two(implementation):
    x, y, _ = make_problem(30, 700, 6)
    once = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    twice = pairwise_lse(x, np.tile(y, (2, 1)), bandwidth=0.5, implementation=implementation)
    np.testing.assert_allclose(twice - once, np.log(2.0), atol=2e-5)


def test_order_of_centers_and_queries_does_not_matter(implementation):
    x, y, options = make_problem(30, 1500, 6, weights=True)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(x)), rng.permutation(len(y))
    straight = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation, **options)
    shuffled = pairwise_lse(
        x[rows],
        y[columns],
        bandwidth=0.5,
        log_weights=options["log_weights"][columns],
        implementation=implementation,
    )
    np.testing.assert_allclose(shuffled, straight[rows], rtol=1e-5, atol=2e-5)


def test_masked_centers_may_hold_anything(implementation):
    x, y, options = make_problem(30, 600, 6, weights=True)
    masked = options["log_weights"] == -np.inf
    kept = reference_stats(
        x, y[~masked], bandwidth=0.5, log_weights=options["log_weights"][~masked]
    )
    y[masked] = np.nan
    y[np.flatnonzero(masked)[0]] = np.inf
    stats = pairwise_lse_stats(x, y, bandwidth=0.5, implementation=implementation, **options)
    for actual, expected in zip(stats, kept, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    gradient = jax.grad(
        lambda y: jnp.sum(
            pairwise_lse(x, y, bandwidth=0.5, implementation=implementation, **options)
        )
    )(jnp.asarray(y))
    np.testing.assert_array_equal(gradient[masked], 0.0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    "options",
    [
        {"exclude": np.array([0, -1, 0], np.int32)},
        {"log_weights": np.array([-np.inf], np.float32)},
    ],
)
def test_nothing_included_is_minus_infinity_with_zero_gradients(implementation, options):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    y = np.ones((1, 2), np.float32)
    empty = np.array([True, "log_weights" in options, True])
    stats = pairwise_lse_stats(x, y, bandwidth=0.5, implementation=implementation, **options)
    np.testing.assert_array_equal(np.asarray(stats.lse) == -np.inf, empty)
    for a in stats[1:]:
        np.testing.assert_array_equal(np.asarray(a)[empty], 0.0)
        assert np.all(np.isfinite(a))

    log_weights = jnp.asarray(options.get("log_weights", np.zeros(1, np.float32)))

    # The value of an empty row reaches the loss, and its cotangent is not 0.
    def loss(x, y, bandwidth, log_weights):
        return jnp.sum(
            pairwise_lse(
                x,
                y,
                bandwidth=bandwidth,
                log_weights=log_weights,
                exclude=options.get("exclude"),
                implementation=implementation,
            )
        )

    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(
        jnp.asarray(x), jnp.asarray(y), 0.5, log_weights
    )
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(np.asarray(gradients[0])[empty], 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_query_spoils_its_own_row_only(implementation, bad):
    x, y, _ = make_problem(10, 50, 3)
    x[4, 1] = bad
    good = np.arange(10) != 4

    def value(x, y, bandwidth):
        return pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation)

    stats = pairwise_lse_stats(x, y, bandwidth=0.5, implementation=implementation)
    for a in (value(x, y, 0.5), *stats):
        assert not np.any(np.isfinite(np.asarray(a)[~good]))
        assert np.all(np.isfinite(np.asarray(a)[good]))
    gradient = jax.grad(lambda x: jnp.sum(value(x, y, 0.5)))(jnp.asarray(x))
    assert not np.any(np.isfinite(gradient[4]))
    assert np.all(np.isfinite(gradient[good]))
    # A row left out of the sum leaves the shared gradients alone.
    shared = jax.grad(lambda y, h: jnp.sum(value(x, y, h)[good]), argnums=(0, 1))
    for gradient in shared(jnp.asarray(y), 0.5):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(("n", "m", "d"), [(3, 2, 1), (70, 1300, 6), (QUERY_TILE + 1, 1300, 20)])
def test_gradients_agree_with_float64(implementation, n, m, d):
    x, y, options = make_problem(n, m, d, offset=10.0, weights=True, exclude=m > 2)
    g = np.random.default_rng(2).normal(size=n).astype(np.float32)
    bandwidth = 0.7
    exclude = options.get("exclude")

    def loss(x, y, bandwidth, log_weights):
        lse = pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=exclude,
            implementation=implementation,
        )
        return jnp.sum(g * lse), lse

    args = (x, y, jnp.float32(bandwidth), options["log_weights"])
    (_, value), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*args)
    expected = reference_gradients(x, y, g, bandwidth=bandwidth, **options)
    for actual, wanted in zip(gradients, expected, strict=True):
        scale = np.max(np.abs(wanted))
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=3e-5 * scale)
    np.testing.assert_allclose(value, loss(*args)[1], rtol=1e-6, atol=2e-5)


def test_each_gradient_alone_equals_the_joint_ones(implementation):
    x, y, options = make_problem(20, 90, 4, weights=True)

    def loss(x, y, bandwidth, log_weights):
        return jnp.sum(
            jnp.sin(
                pairwise_lse(
                    x,
                    y,
                    bandwidth=bandwidth,
                    log_weights=log_weights,
                    implementation=implementation,
                )
            )
        )

    args = (x, y, jnp.float32(0.6), options["log_weights"])
    joint = jax.grad(loss, argnums=(0, 1, 2, 3))(*args)
    for k in range(4):
        alone = jax.jit(jax.grad(loss, argnums=k))(*args)
        np.testing.assert_allclose(alone, joint[k], rtol=2e-4, atol=1e-5)


def test_one_traced_call_is_differentiated_in_any_arguments_in_any_order(implementation):
    # Residuals that differed in structure from one set of arguments to the next broke this.
    x, y, options = make_problem(8, 30, 3, weights=True)
    args = (x, y, jnp.float32(0.6), options["log_weights"])

    @jax.jit
    def loss(x, y, bandwidth, log_weights):
        lse = pairwise_lse(
            x, y, bandwidth=bandwidth, log_weights=log_weights, implementation=implementation
        )
        return jnp.sum(lse)

    expected = reference_gradients(x, y, np.ones(8), bandwidth=0.6, **options)
    for argnums in ((0,), (0, 2), (1,), (0, 1, 2, 3), (2,), (3,), (0,)):
        for wrap in (lambda f: f, jax.checkpoint):
            gradients = jax.grad(wrap(loss), argnums=argnums)(*args)
            for k, gradient in zip(argnums, gradients, strict=True):
                np.testing.assert_allclose(gradient, expected[k], rtol=1e-4, atol=1e-4)

    def through_scan(*args):
        def step(carry, _):
            return carry, loss(*carry)

        return jnp.sum(jax.lax.scan(step, args, length=2)[1])

    for k, gradient in enumerate(jax.grad(through_scan, argnums=(0, 1, 2, 3))(*args)):
        np.testing.assert_allclose(gradient, 2 * expected[k], rtol=1e-4, atol=2e-4)


def test_gradients_check_numerically_in_float64(implementation):
    with jax.enable_x64(True):
        x, y, options = make_problem(5, 12, 3, weights=True, exclude=True)
        args = [
            jnp.asarray(a, jnp.float64) for a in (x, y, 0.6, np.maximum(options["log_weights"], -3))
        ]

        def value(x, y, bandwidth, log_weights):
            return pairwise_lse(
                x,
                y,
                bandwidth=bandwidth,
                log_weights=log_weights,
                exclude=options["exclude"],
                implementation=implementation,
            )

        assert value(*args).dtype == jnp.float64
        check_grads(value, args, order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


def test_statistics_agree_with_float64(implementation):
    x, y, options = make_problem(70, 1300, 12, offset=10.0, weights=True, exclude=True)
    stats = pairwise_lse_stats(x, y, bandwidth=0.7, implementation=implementation, **options)
    expected = reference_stats(x, y, bandwidth=0.7, **options)
    np.testing.assert_allclose(stats.mean, expected.mean, atol=3e-5)
    np.testing.assert_allclose(stats.logit_mean, expected.logit_mean, rtol=3e-5)
    np.testing.assert_allclose(stats.logit_sq_mean, expected.logit_sq_mean, rtol=6e-5)


def test_merged_statistics_equal_those_of_the_union(implementation):
    x, y, options = make_problem(40, 500, 5, weights=True)
    weights = options["log_weights"]
    weights[:100] = -np.inf  # The first part is empty, and so is its merge with itself.
    parts = [
        pairwise_lse_stats(
            x, y[s], bandwidth=0.5, log_weights=weights[s], implementation=implementation
        )
        for s in (slice(0, 100), slice(100, 230), slice(230, 500))
    ]
    whole = reference_stats(x, y, bandwidth=0.5, log_weights=weights)
    for order in ((0, 1, 2), (2, 0, 1)):
        merged = parts[order[0]]
        for k in order[1:]:
            merged = merge_stats(merged, parts[k])
        for actual, expected in zip(merged, whole, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    empty = merge_stats(parts[0], parts[0])
    assert np.all(empty.lse == -np.inf)
    for a in empty[1:]:
        np.testing.assert_array_equal(a, 0.0)


def test_vmap_over_queries_and_bandwidths(implementation):
    x, y, _ = make_problem(24, 300, 3)
    bandwidths = np.array([0.3, 0.6, 1.2], np.float32)

    def total(x, bandwidth):
        lse = pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation)
        return jnp.sum(lse), lse

    batched = jax.vmap(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, lse), (grad_x, grad_h) = jax.jit(batched)(x.reshape(3, 8, 3), bandwidths)
    for k, bandwidth in enumerate(bandwidths):
        rows = x.reshape(3, 8, 3)[k]
        expected = reference_gradients(rows, y, np.ones(8), bandwidth=float(bandwidth))
        stats = reference_stats(rows, y, bandwidth=float(bandwidth))
        np.testing.assert_allclose(lse[k], stats.lse, rtol=1e-5, atol=3e-5)
        np.testing.assert_allclose(grad_x[k], expected.x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(grad_h[k], expected.bandwidth, rtol=1e-4)


@pytest.mark.parametrize("check_vma", [False, True])
def test_queries_sharded_over_eight_devices(implementation, check_vma):
    x, y, options = make_problem(64, 1100, 4, weights=True, exclude=True)
    mesh = jax.make_mesh((8,), ("queries",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("queries"), PartitionSpec()
    exclude = options["exclude"]

    def local(x, y, bandwidth, log_weights, exclude):
        return pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=exclude,
            implementation=implementation,
        )

    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, whole, whole, whole, rows),
        out_specs=rows,
        check_vma=check_vma,
    )
    g = np.random.default_rng(3).normal(size=len(x)).astype(np.float32)

    def loss(*args):
        lse = sharded(*args, exclude)
        return jnp.sum(g * lse), lse

    args = (x, y, jnp.float32(0.5), options["log_weights"])
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    (_, lse), gradients = step(*args)
    expected_lse = reference_stats(x, y, bandwidth=0.5, **options).lse
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=3e-5)
    expected = reference_gradients(x, y, g, bandwidth=0.5, **options)
    for actual, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=3e-5 * np.max(np.abs(wanted)))


@pytest.mark.parametrize("argnum", [None, 0, 1, 2])
def test_memory_is_a_tile_and_not_the_matrix(implementation, argnum):
    n, m, d = 4096, 16_384, 8

    def value(x, y, bandwidth):
        return jnp.sum(pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation))

    fn = value if argnum is None else jax.grad(value, argnums=argnum)
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, d), (m, d), ())]
    temporary = jax.jit(fn).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    tiles = 3 * QUERY_TILE * CENTER_TILE * 4
    assert temporary <= tiles + 6 * (n + m) * (d + 8) * 4
    assert temporary < n * m * 4 / 30


def test_second_call_compiles_nothing(implementation):
    x, y, _ = make_problem(20, 60, 3)
    pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.handle", lambda self, record: compiled.append(record))
        pairwise_lse(x, y, bandwidth=0.6, implementation=implementation)
    assert not [r for r in compiled if "ompil" in r.getMessage()]


def test_half_precision_inputs_are_upcast(implementation):
    x, y, _ = make_problem(10, 40, 4)
    x, y = x.astype(np.float16), y.astype(np.float16)
    value = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, reference_stats(x, y, bandwidth=0.5).lse, atol=1e-4)
    gradient = jax.grad(
        lambda x: jnp.sum(pairwise_lse(x, y, bandwidth=0.5, implementation=implementation))
    )(jnp.asarray(x))
    assert gradient.dtype == jnp.float16


def test_no_queries_give_empty_results(implementation):
    x, y = np.zeros((0, 3), np.float32), np.zeros((4, 3), np.float32)
    assert pairwise_lse(x, y, bandwidth=1.0, implementation=implementation).shape == (0,)
    stats = pairwise_lse_stats(x, y, bandwidth=1.0, implementation=implementation)
    assert [a.shape for a in stats] == [(0,), (0, 3), (0,), (0,)]


def test_second_derivatives_raise(implementation):
    x, y, _ = make_problem(4, 10, 3)

    def value(x):
        return jnp.sum(pairwise_lse(x, y, bandwidth=0.5, implementation=implementation))

    with pytest.raises(NotImplementedError, match="first derivatives"):
        jax.grad(lambda x: jnp.sum(jax.grad(value)(x) ** 2))(jnp.asarray(x))
    with pytest.raises(NotImplementedError, match="first derivatives"):
        jax.hessian(value)(jnp.asarray(x))

    def statistics(x):
        return jnp.sum(pairwise_lse_stats(x, y, bandwidth=0.5, implementation=implementation).mean)

    with pytest.raises(NotImplementedError, match="stop_gradient"):
        jax.grad(statistics)(jnp.asarray(x))
    stopped = jax.grad(lambda x: statistics(jax.lax.stop_gradient(x)) + value(x))
    np.testing.assert_array_equal(stopped(jnp.asarray(x)), jax.grad(value)(jnp.asarray(x)))


X, Y = np.zeros((3, 2), np.float32), np.zeros((5, 2), np.float32)


@pytest.mark.parametrize("fn", [pairwise_lse, pairwise_lse_stats])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[0]}, ValueError, r"x must have shape .* got \(2,\)"),
        ({"y": Y[None]}, ValueError, r"y must have shape .* got \(1, 5, 2\)"),
        ({"y": Y[:, :1]}, ValueError, r"same number of dimensions.*\(3, 2\).*\(5, 1\)"),
        ({"y": Y[:0]}, ValueError, r"y must hold at least one center, got \(0, 2\)"),
        ({"x": X[:, :0], "y": Y[:, :0]}, ValueError, r"at least one dimension"),
        ({"x": X.astype(int)}, TypeError, r"x must be a floating-point array, got int"),
        ({"y": Y.astype(bool)}, TypeError, r"y must be a floating-point array, got bool"),
        ({"bandwidth": 0.0}, ValueError, r"bandwidth must be positive and finite, got 0.0"),
        ({"bandwidth": -1}, ValueError, r"bandwidth must be positive and finite, got -1.0"),
        ({"bandwidth": np.nan}, ValueError, r"bandwidth must be positive and finite, got nan"),
        ({"bandwidth": np.inf}, ValueError, r"bandwidth must be positive and finite, got inf"),
        ({"bandwidth": np.ones((3, 1), np.float32)}, ValueError, r"bandwidth must be a scalar or"),
        ({"bandwidth": np.array([1.0, -2.0])}, ValueError, r"bandwidth must be positive .*-2"),
        ({"bandwidth": "wide"}, TypeError, r"bandwidth must be a number"),
        ({"bandwidth": True}, TypeError, r"bandwidth"),
        ({"log_weights": np.zeros(4, np.float32)}, ValueError, r"log_weights .*\(5,\).*\(4,\)"),
        ({"log_weights": np.zeros(5, int)}, TypeError, r"log_weights must be a floating"),
        ({"exclude": np.zeros(5, int)}, ValueError, r"exclude must have shape \(3,\)"),
        ({"exclude": np.zeros(3, np.float32)}, TypeError, r"exclude must be an integer array"),
        ({"exclude": np.array([0, 5, 1])}, ValueError, r"exclude .*\[0, 5\).* from 0 to 5"),
        ({"exclude": np.array([0, -2, 1])}, ValueError, r"exclude .* from -2 to 1"),
        ({"implementation": "cuda"}, ValueError, r"implementation must be one of .*'cuda'"),
        ({"precision": "best"}, ValueError, r"precision must be one of .*'highest'.*'best'"),
        ({"axis_name": "rows"}, ValueError, r"axis_name must name a mapped axis .*'rows'"),
        ({"queries_sharded": True}, ValueError, r"queries_sharded=True needs axis_name"),
    ],
)
def test_bad_arguments_are_named(fn, changes, error, message):
    options = {"x": X, "y": Y, "bandwidth": 1.0} | changes
    with pytest.raises(error, match=message):
        fn(options.pop("x"), options.pop("y"), **options)


def test_traced_arguments_are_not_read():
    def value(x, y, bandwidth, exclude):
        return pairwise_lse(x, y, bandwidth=bandwidth, exclude=exclude)

    lse = jax.jit(value)(X, Y, 2.0, np.zeros(3, np.int32))
    np.testing.assert_allclose(lse, np.log(4.0), rtol=1e-6)


def test_small_dimensions_take_the_direct_form():
    x, y, _ = make_problem(10, 40, 8, offset=100.0)
    chosen = pairwise_lse(x, y, bandwidth=0.2)
    direct = pairwise_lse(x, y, bandwidth=0.2, implementation="direct")
    matrix = pairwise_lse(x, y, bandwidth=0.2, implementation="xla")
    np.testing.assert_array_equal(chosen, direct)
    assert np.any(chosen != matrix)

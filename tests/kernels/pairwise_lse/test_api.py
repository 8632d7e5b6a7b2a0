"""What the kernel promises besides accuracy: masks, edges, derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.kernels.pairwise_lse import pairwise_lse, pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.reference import reference_gradients, reference_stats

from .contract import (
    ARGNUMS,
    assert_gradients,
    assert_stats,
    assert_values,
    call,
    call_gradients,
    call_stats,
    expected_gradients,
    make_cotangent,
    make_problem,
    run_here,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")


def test_the_contract_is_held_by_all_that_this_machine_runs():
    # On other machines the Pallas kernels run interpreted, in files of their own.
    names, backend = run_here(), jax.default_backend()
    assert {"matrix", "difference"} <= set(names)
    assert ("pallas_tpu" in names) == (backend == "tpu")
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    assert ("pallas_gpu" in names) == (backend == "gpu" and capability.startswith("9."))


def make_loss(problem, implementation, of_values=jnp.sum):
    """Return (x, y, bandwidth, log_weights) -> a number made of the values."""

    def loss(x, y, bandwidth, log_weights):
        lse = pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=problem.exclude,
            implementation=implementation,
        )
        return of_values(lse)

    return loss


def test_value_of_one_center_is_its_logit(implementation):
    x, y = np.array([[3.0, 4.0]], np.float32), np.zeros((1, 2), np.float32)
    value = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    np.testing.assert_allclose(value, [-50.0], rtol=1e-6)


def test_order_of_centers_and_queries_does_not_matter(implementation):
    problem = make_problem(30, 1500, 6, weights=True)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(30), rng.permutation(1500)
    shuffled = problem._replace(
        x=problem.x[rows], y=problem.y[columns], log_weights=problem.log_weights[columns]
    )
    straight = call(problem, implementation=implementation)
    np.testing.assert_allclose(
        call(shuffled, implementation=implementation), straight[rows], rtol=1e-5, atol=2e-5
    )


def test_masked_centers_may_hold_anything(implementation):
    problem = make_problem(30, 600, 6, weights=True)
    masked = problem.log_weights == -np.inf
    kept = problem._replace(y=problem.y[~masked], log_weights=problem.log_weights[~masked])
    problem.y[masked] = np.nan
    problem.y[np.flatnonzero(masked)[0]] = np.inf
    assert_stats(kept, call_stats(problem, implementation=implementation), implementation)
    cotangent = make_cotangent(problem)
    lse, (x, y, bandwidth, log_weights) = call_gradients(
        problem, cotangent, implementation=implementation
    )
    assert_values(kept, lse, implementation)
    of_kept = (x, y[~masked], bandwidth, log_weights[~masked])
    assert_gradients(kept, of_kept, cotangent, implementation)
    np.testing.assert_array_equal(y[masked], 0.0)
    np.testing.assert_array_equal(log_weights[masked], 0.0)


@pytest.mark.parametrize("bandwidth", [0.5, (0.5, 2.0)])
@pytest.mark.parametrize(
    "options",
    [
        {"exclude": np.array([0, -1, 0], np.int32)},
        {"log_weights": np.array([-np.inf], np.float32)},
    ],
)
def test_nothing_included_is_minus_infinity_with_zero_gradients(implementation, options, bandwidth):
    problem = make_problem(3, 1, 2)._replace(
        bandwidth=np.asarray(bandwidth, np.float32),
        log_weights=options.get("log_weights", np.zeros(1, np.float32)),
        exclude=options.get("exclude"),
    )
    empty = np.array([True, "log_weights" in options, True])
    stats = call_stats(problem, implementation=implementation)
    np.testing.assert_array_equal(
        stats.lse == -np.inf, np.broadcast_to(empty, np.shape(bandwidth) + (3,))
    )
    assert_stats(problem, stats, implementation)
    for a in stats[1:]:
        rows = np.moveaxis(np.asarray(a), np.ndim(bandwidth), 0)
        np.testing.assert_array_equal(rows[empty], 0.0)
    # The value of an empty row reaches the loss, and its cotangent is not 0.
    gradients = jax.grad(make_loss(problem, implementation), ARGNUMS)(*problem.args)
    np.testing.assert_array_equal(np.asarray(gradients[0])[empty], 0.0)
    assert_gradients(problem, gradients, np.ones_like(make_cotangent(problem)), implementation)
    # Nor need it be finite.
    of_square = make_loss(problem, implementation, lambda lse: jnp.sum(lse**2))
    gradients = jax.grad(of_square, ARGNUMS)(*problem.args)
    np.testing.assert_array_equal(np.asarray(gradients[0])[empty], 0.0)
    assert all(np.all(np.isfinite(a)) for a in gradients)


def test_non_finite_queries_spoil_their_own_rows_only(implementation):
    problem = make_problem(10, 50, 3, weights=True)
    bad = np.array([2, 4, 5])
    spoilt = problem._replace(x=problem.x.copy())
    spoilt.x[bad, 1] = [np.nan, np.inf, -np.inf]
    good = np.setdiff1d(np.arange(10), bad)
    kept = problem._replace(x=problem.x[good])

    stats = call_stats(spoilt, implementation=implementation)
    for a in (call(spoilt, implementation=implementation), *stats):
        assert not np.any(np.isfinite(np.asarray(a)[bad]))
    assert_values(kept, call(spoilt, implementation=implementation)[good], implementation)
    assert_stats(kept, type(stats)(*(a[good] for a in stats)), implementation)

    cotangent = np.ones(10, np.float32)
    _, gradients = call_gradients(spoilt, cotangent, implementation=implementation)
    assert not np.any(np.isfinite(gradients[0][bad]))
    # Rows left out of the loss leave the gradients that all rows share alone.
    cotangent[bad] = 0.0
    _, (x, *shared) = call_gradients(spoilt, cotangent, implementation=implementation)
    assert_gradients(kept, (x[good], *shared), cotangent[good], implementation)


def test_each_gradient_alone_equals_the_joint_ones(implementation):
    problem = make_problem(20, 90, 4, bandwidth=0.6, weights=True)
    loss = make_loss(problem, implementation, lambda lse: jnp.sum(jnp.sin(lse)))
    joint = jax.grad(loss, ARGNUMS)(*problem.args)
    for k in ARGNUMS:
        alone = jax.jit(jax.grad(loss, k))(*problem.args)
        np.testing.assert_allclose(alone, joint[k], rtol=2e-4, atol=1e-5)


def test_one_traced_call_is_differentiated_in_any_arguments_in_any_order(implementation):
    # Residuals that differed in structure from one set of arguments to the next broke this.
    problem = make_problem(8, 30, 3, bandwidth=0.6, weights=True)
    loss = jax.jit(make_loss(problem, implementation))
    expected = expected_gradients(problem, np.ones(8))
    both = (loss, jax.checkpoint(loss))
    for argnums in ((0,), (0, 2), (1,), (0, 1, 2, 3), (2,), (0,)):
        for fn in both if len(argnums) in (2, 4) else both[:1]:
            gradients = jax.grad(fn, argnums)(*problem.args)
            for k, gradient in zip(argnums, gradients, strict=True):
                np.testing.assert_allclose(gradient, expected[k], rtol=1e-4, atol=1e-4)

    def through_scan(*args):
        def step(carry, _):
            return carry, loss(*carry)

        return jnp.sum(jax.lax.scan(step, args, length=2)[1])

    for k, gradient in enumerate(jax.grad(through_scan, ARGNUMS)(*problem.args)):
        np.testing.assert_allclose(gradient, 2 * expected[k], rtol=1e-4, atol=2e-4)


@pytest.mark.usefixtures("full_compiler")
def test_gradients_check_numerically_in_float64(implementation):
    with jax.enable_x64(True):
        problem = make_problem(5, 12, 3, bandwidth=0.6, weights=True, exclude=True)
        args = [jnp.asarray(a, jnp.float64) for a in problem.args]
        args[3] = jnp.maximum(args[3], -3.0)
        value = make_loss(problem, implementation, lambda lse: lse)
        assert value(*args).dtype == jnp.float64
        check_grads(value, args, order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


def test_vmap_over_queries_and_bandwidths(implementation):
    problem = make_problem(24, 300, 3)
    x, y = problem.x.reshape(3, 8, 3), problem.y
    bandwidths = np.array([0.3, 0.6, 1.2], np.float32)

    def total(x, bandwidth):
        lse = pairwise_lse(x, y, bandwidth=bandwidth, implementation=implementation)
        return jnp.sum(lse), lse

    batched = jax.vmap(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, lse), (grad_x, grad_h) = jax.jit(batched)(x, bandwidths)
    for k, bandwidth in enumerate(bandwidths):
        expected = reference_gradients(x[k], y, np.ones(8), bandwidth=float(bandwidth))
        assert_values(problem._replace(x=x[k], bandwidth=bandwidth), lse[k], implementation)
        np.testing.assert_allclose(grad_x[k], expected.x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(grad_h[k], expected.bandwidth, rtol=1e-4)


def test_second_call_compiles_nothing(implementation, caplog):
    # The command line, which another test may have called, has JAX log errors only.
    caplog.set_level("WARNING", logger="jax")
    problem = make_problem(20, 60, 3)
    call(problem, implementation=implementation)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.handle", lambda self, record: compiled.append(record))
        call(problem._replace(bandwidth=np.float32(0.6)), implementation=implementation)
        quiet = [r for r in compiled if "ompil" in r.getMessage()]
        call(problem._replace(x=problem.x[:3]), implementation=implementation)
    assert not quiet
    assert [r for r in compiled if "ompil" in r.getMessage()]  # Another shape is noticed.


def test_half_precision_inputs_are_upcast(implementation):
    problem = make_problem(10, 40, 4)
    x, y = problem.x.astype(np.float16), problem.y.astype(np.float16)
    value = pairwise_lse(x, y, bandwidth=0.5, implementation=implementation)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, reference_stats(x, y, bandwidth=0.5).lse, atol=1e-4)
    gradient = jax.grad(
        lambda x: jnp.sum(pairwise_lse(x, y, bandwidth=0.5, implementation=implementation))
    )(jnp.asarray(x))
    assert gradient.dtype == jnp.float16


def test_no_queries_give_empty_results(implementation):
    x, y = np.zeros((0, 3), np.float32), np.zeros((4, 3), np.float32)
    for bandwidth, lead in ((1.0, ()), (np.ones(2, np.float32), (2,))):
        options = {"bandwidth": bandwidth, "implementation": implementation}
        assert pairwise_lse(x, y, **options).shape == (*lead, 0)
        stats = pairwise_lse_stats(x, y, **options)
        assert [a.shape for a in stats] == [(*lead, 0), (*lead, 0, 3), (*lead, 0), (*lead, 0)]


def test_second_derivatives_raise(implementation):
    problem = make_problem(4, 10, 3, weights=True)
    value = make_loss(problem, implementation)
    for k in ARGNUMS:
        slope = jax.grad(value, k)
        with pytest.raises(NotImplementedError, match="first derivatives"):
            jax.grad(lambda *args, slope=slope: jnp.sum(slope(*args) ** 2), k)(*problem.args)
    with pytest.raises(NotImplementedError, match="first derivatives"):
        jax.hessian(value)(*problem.args)
    with pytest.raises(NotImplementedError, match='implementation="dense"'):
        jax.jvp(lambda x: value(x, *problem.args[1:]), (problem.x,), (problem.x,))

    def statistics(x):
        return jnp.sum(call_stats(problem._replace(x=x), implementation=implementation).mean)

    with pytest.raises(NotImplementedError, match="stop_gradient"):
        jax.grad(statistics)(jnp.asarray(problem.x))
    stopped = jax.grad(lambda x, *rest: statistics(jax.lax.stop_gradient(x)) + value(x, *rest))
    np.testing.assert_array_equal(stopped(*problem.args), jax.grad(value)(*problem.args))


X, Y = np.zeros((3, 2), np.float32), np.zeros((5, 2), np.float32)


@pytest.mark.parametrize("fn", [pairwise_lse, pairwise_lse_stats])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[0, 0]}, ValueError, r"x must have shape .* got \(\)"),
        ({"y": Y[None]}, ValueError, r"y must have shape .* got \(1, 5, 2\)"),
        ({"y": Y[:, :1]}, ValueError, r"same number of dimensions.*\(3, 2\).*\(5, 1\)"),
        ({"y": Y[:0]}, ValueError, r"y must hold at least one center, got \(0, 2\)"),
        ({"x": X[:, :0], "y": Y[:, :0]}, ValueError, r"at least one dimension"),
        ({"x": X.astype(int)}, TypeError, r"x must be a floating-point array, got int"),
        ({"y": Y.astype(bool)}, TypeError, r"y must be a floating-point array, got bool"),
        ({"bandwidth": 0.0}, ValueError, r"bandwidth must be positive and finite, got 0"),
        ({"bandwidth": -1}, ValueError, r"bandwidth must be positive and finite, got -1"),
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
        ({"implementation": "xla"}, ValueError, r"one of .*'matrix'.* got 'xla': leave it out"),
        ({"precision": "best"}, ValueError, r"precision must be one of .*'highest'.*'best'"),
        ({"axis_name": ("rows", "columns")}, ValueError, r"axis_name must name a mapped .*columns"),
        ({"axis_name": "rows"}, ValueError, r"axis_name must name a mapped axis .*'rows'"),
        ({"queries_sharded": True}, ValueError, r"queries_sharded=True needs axis_name"),
    ],
)
def test_bad_arguments_are_named(fn, changes, error, message):
    options = {"x": X, "y": Y, "bandwidth": 1.0} | changes
    with pytest.raises(error, match=message):
        fn(options.pop("x"), options.pop("y"), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bandwidth": -1.0}, r"bandwidth must be positive and finite, got -1"),
        ({"bandwidth": np.float32(np.nan)}, r"bandwidth must be positive and finite, got nan"),
        ({"exclude": np.array([0, 5, 1])}, r"exclude .*\[0, 5\).* from 0 to 5"),
    ],
)
def test_concrete_arguments_are_checked_under_jit(changes, message):
    options = {"bandwidth": 1.0} | changes
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x: pairwise_lse(x, Y, **options))(X)


def test_traced_arguments_are_not_read():
    def value(x, y, bandwidth, exclude):
        return pairwise_lse(x, y, bandwidth=bandwidth, exclude=exclude)

    lse = jax.jit(value)(X, Y, 2.0, np.zeros(3, np.int32))
    np.testing.assert_allclose(lse, np.log(4.0), rtol=1e-6)


def test_small_dimensions_take_the_difference_form():
    problem = make_problem(10, 40, 8, bandwidth=0.2, offset=100.0)
    chosen = call(problem)
    np.testing.assert_array_equal(chosen, call(problem, implementation="difference"))
    assert np.any(chosen != call(problem, implementation="matrix"))


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("distance", [1e3, 1e4, 1e6, 1e8])
def test_weights_sum_to_one_however_far_the_query(implementation, distance):
    y = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    x = np.stack([np.full(16, distance), np.ones(16)]).astype(np.float32)

    def total(y, log_weights, x):
        lse = pairwise_lse(
            x, y, bandwidth=0.5, log_weights=log_weights, implementation=implementation
        )
        return jnp.sum(lse)

    gradient = jax.jit(jax.grad(total, (0, 1)))
    of_y, of_weights = gradient(y, np.zeros(500, np.float32), x)
    np.testing.assert_allclose(np.sum(of_weights), 2.0, rtol=1e-5)
    assert np.all(of_weights >= 0)
    assert np.all(np.isfinite(of_y))
    # The near query's share is as if it were alone.
    far, _ = gradient(y, np.zeros(500, np.float32), x[[0, 0]])
    expected = reference_gradients(x[1:], y, np.ones(1), bandwidth=0.5).y
    untouched = np.all(np.asarray(far) == 0, axis=1)
    np.testing.assert_allclose(of_y[untouched], expected[untouched], rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("full_compiler")
def test_gradients_in_narrow_kernels_are_normalized():
    # A logit is wrong by a nat here; the gradient was by 140% of itself.
    x, y = (np.random.default_rng(k).normal(size=(60, 128)).astype(np.float32) for k in (0, 1))
    problem = make_problem(60, 60, 128, bandwidth=0.003)._replace(x=x, y=y)
    _, gradients = call_gradients(problem, np.ones(60, np.float32), implementation="matrix")
    expected = expected_gradients(problem, np.ones(60)).y
    assert np.max(np.abs(gradients[1] - expected)) < 1e-5 * np.max(np.abs(expected))


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("num_dims", [16, 70])
def test_differences_are_taken_where_products_are_wrong_by_a_nat(num_dims):
    rng = np.random.default_rng(0)
    clusters = np.repeat([10.0, -10.0], 50)[:, None]
    points = (clusters + 1e-3 * rng.normal(size=(100, num_dims))).astype(np.float32)
    problem = make_problem(100, 100, num_dims, bandwidth=1e-3)
    problem = problem._replace(x=points, y=points, exclude=np.arange(100))
    assert_values(problem, call(problem), "difference")
    cotangent = make_cotangent(problem)
    lse, gradients = call_gradients(problem, cotangent)
    assert_values(problem, lse, "difference")
    assert_gradients(problem, gradients, cotangent, "difference")
    # What is not finite spoils its own rows, not the choice.
    spoilt = points.copy()
    spoilt[0] = np.nan
    run = jax.jit(lambda h: pairwise_lse(spoilt, points, bandwidth=h, exclude=problem.exclude))
    lse = run(np.array([1e-3, np.nan], np.float32))
    np.testing.assert_allclose(lse[0, 1:], call(problem)[1:], rtol=1e-5)
    # A batch goes one way: here the way of its entry that needs it.
    lse = jax.vmap(lambda h: pairwise_lse(points, points, bandwidth=h, exclude=problem.exclude))(
        np.array([1e-3, 20.0], np.float32)
    )
    assert_values(problem, lse[0], "difference")
    assert_values(problem._replace(bandwidth=np.float32(20.0)), lse[1], "matrix")


def test_a_far_query_does_not_slow_the_others_down():
    # Its own value is as large as the error that products make.
    problem = make_problem(20, 60, 16)
    problem.x[0] = 1e6
    lse, by_products = call(problem), call(problem, implementation="matrix")
    np.testing.assert_array_equal(lse, by_products)


def test_masked_centers_at_an_end_with_exclude_have_zero_gradients(implementation):
    problem = make_problem(20, 20, 12, exclude=True)
    weights = np.zeros(20, np.float32)
    weights[:2] = -np.inf
    problem = problem._replace(x=problem.y, log_weights=weights, exclude=np.arange(20))
    cotangent = np.ones(20, np.float32)
    _, gradients = call_gradients(problem, cotangent, implementation=implementation)
    assert_gradients(problem, gradients, cotangent, implementation)


@pytest.mark.parametrize("name", ["matrix", "difference", "dense"])
def test_an_infinite_weight_makes_its_rows_infinite(name):
    problem = make_problem(3, 6, 4, weights=True)
    problem.log_weights[2:4] = np.inf, 0.0
    exclude = np.array([-1, 2, 0])
    lse = call(problem._replace(exclude=exclude), implementation=name)
    np.testing.assert_array_equal(lse[jnp.array([0, 2])], np.inf)
    masked = problem._replace(log_weights=np.where(np.arange(6) == 2, -np.inf, problem.log_weights))
    np.testing.assert_allclose(lse[1], call(masked, implementation=name)[1], rtol=1e-6)
    cotangent = np.array([0.0, 1.0, 0.0], np.float32)
    if name != "dense":
        # A row that is not in the loss spoils nothing.
        _, gradients = call_gradients(
            problem._replace(exclude=exclude), cotangent, implementation=name
        )
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
        _, gradients = call_gradients(
            problem._replace(exclude=exclude), np.ones(3, np.float32), implementation=name
        )
        assert np.all(np.isnan(gradients[0][0]))
        assert np.all(np.isnan(gradients[1]))


@pytest.mark.parametrize(("num_dims", "name"), [(3, None), (12, None), (12, "dense")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_center_that_is_not_finite_spoils_the_rows_that_include_it(num_dims, name, value):
    problem = make_problem(4, 30, num_dims)
    problem.y[5, 1] = value
    problem = problem._replace(exclude=np.array([-1, 5, 0, 5]))
    clean = problem._replace(y=np.where(np.isfinite(problem.y), problem.y, 0.0))
    good = jnp.array([1, 3])
    lse = call(problem, implementation=name)
    assert np.all(np.isnan(lse[jnp.array([0, 2])]))
    np.testing.assert_allclose(lse[good], call(clean, implementation=name)[good], rtol=1e-4)
    _, gradients = call_gradients(problem, np.ones(4, np.float32), implementation=name)
    _, expected = call_gradients(clean, np.ones(4, np.float32), implementation=name)
    assert np.all(np.isnan(gradients[0][jnp.array([0, 2])]))
    np.testing.assert_allclose(gradients[0][good], expected[0][good], rtol=1e-4, atol=1e-4)
    # All the others change the rows that it spoils.
    assert np.all(np.isnan(np.delete(gradients[1], 5, axis=0)))


@pytest.mark.parametrize("bandwidth", [0.5, [0.5, 0.8]])
def test_queries_have_any_leading_axes(bandwidth):
    problem = make_problem(12, 20, 5, bandwidth=bandwidth, exclude=True)
    shaped = problem._replace(x=problem.x.reshape(2, 3, 2, 5))
    shaped = shaped._replace(exclude=problem.exclude.reshape(2, 3, 2))
    leading = np.shape(bandwidth)
    flat = call_stats(problem)
    np.testing.assert_array_equal(call(shaped), call(problem).reshape(*leading, 2, 3, 2))
    for a, b in zip(call_stats(shaped), flat, strict=True):
        assert a.shape == (*leading, 2, 3, 2, *b.shape[len(leading) + 1 :])
        np.testing.assert_array_equal(np.ravel(a), np.ravel(b))
    one = pairwise_lse(
        problem.x[0], problem.y, bandwidth=problem.bandwidth, exclude=problem.exclude[0]
    )
    np.testing.assert_allclose(one, call(problem)[..., 0], rtol=1e-5)
    gradient = jax.grad(lambda x: pairwise_lse(x, problem.y, bandwidth=0.5))(problem.x[0])
    assert gradient.shape == (5,)


def test_lists_are_taken_and_ranks_need_not_be_promoted():
    assert pairwise_lse([[0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], bandwidth=0.5).shape == (1,)
    with jax.numpy_rank_promotion("raise"):
        # Several centers, so that none of the shapes is found compiled.
        for d, m in ((3, 1031), (12, 1033)):
            problem = make_problem(5, m, d, weights=True, exclude=True)
            gradient = jax.grad(make_loss(problem, None), ARGNUMS)
            jax.eval_shape(gradient, *problem.args)
            jax.eval_shape(
                lambda p=problem: call_stats(p._replace(bandwidth=np.ones(2, np.float32)))
            )


def test_a_batch_of_centers_takes_turns():
    batch, n, m, d = 64, 512, 900, 12
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    y = jax.ShapeDtypeStruct((batch, m, d), jnp.float32)

    def gradient(x, y):
        return jax.grad(lambda y: jnp.sum(pairwise_lse(x, y, bandwidth=0.5)))(y)

    for function in (lambda x, y: pairwise_lse(x, y, bandwidth=0.5), gradient):
        compiled = jax.jit(jax.vmap(function, (None, 0))).lower(x, y).compile()
        # All tiles together would be 118 MB each.
        assert compiled.memory_analysis().temp_size_in_bytes < 2**28

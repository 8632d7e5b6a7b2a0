"""The implementation in plain JAX: values, and the derivatives that the others do not have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.density.kde import kde_log_density
from avae_jax.kernels.pairwise_lse import pairwise_lse, pairwise_lse_stats

from .contract import (
    assert_gradients,
    assert_stats,
    assert_values,
    call,
    call_gradients,
    call_stats,
    make_cotangent,
    make_problem,
)


@pytest.mark.parametrize("bandwidth", [0.6, [0.5, 0.9]])
def test_values_statistics_and_gradients_equal_float64(bandwidth):
    problem = make_problem(9, 40, 12, bandwidth=bandwidth, weights=True, exclude=True)
    assert_values(problem, call(problem, implementation="dense"), "matrix")
    assert_stats(problem, call_stats(problem, implementation="dense"), "matrix")
    cotangent = make_cotangent(problem)
    _, gradients = call_gradients(problem, cotangent, implementation="dense")
    assert_gradients(problem, gradients, cotangent, "matrix")


def test_rows_without_a_center_are_minus_infinity_with_zero_derivatives():
    x, y = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    y[1] = np.nan  # masked: it may hold anything
    weights = np.array([0.0, -np.inf, -np.inf, -np.inf], np.float32)

    def value(x, w):
        return pairwise_lse(
            x, y, bandwidth=1.0, log_weights=w, exclude=np.array([-1, 0]), implementation="dense"
        )

    np.testing.assert_allclose(value(x, weights), [-1.5, -np.inf], rtol=1e-6)
    for derivative in (jax.jacfwd, jax.jacrev):
        of_x, of_weights = jax.jit(derivative(value, (0, 1)))(x, weights)
        np.testing.assert_allclose(of_x[0, 0], -1.0, rtol=1e-6)
        np.testing.assert_array_equal(of_x[1], 0.0)
        np.testing.assert_array_equal(of_weights, [[1, 0, 0, 0], [0, 0, 0, 0]])


def test_derivatives_of_second_order_in_both_modes():
    with jax.enable_x64(True):
        problem = make_problem(3, 7, 3, bandwidth=0.6, weights=True, exclude=True)
        args = [jnp.asarray(a, jnp.float64) for a in problem.args]
        args[3] = jnp.maximum(args[3], -3.0)

        @jax.jit
        def value(x, y, bandwidth, log_weights):
            return pairwise_lse(
                x, y, bandwidth=bandwidth, log_weights=log_weights, exclude=problem.exclude,
                implementation="dense",
            )  # fmt: skip

        # Forward over reverse and reverse over forward: what the modes have not in common.
        for modes in (["fwd"], ["rev"]):
            check_grads(value, args, order=2, modes=modes, rtol=1e-5, atol=1e-5)


def test_the_hessian_of_a_density_is_the_spread_of_its_softmax():
    # d^2 lse / dx^2 = Cov_w(y) / h^4 - 1 / h^2, and through the density alike.
    rng = np.random.default_rng(0)
    z, centers, h = rng.normal(size=3), rng.normal(size=(20, 3)), 0.7
    logits = -np.sum((z - centers) ** 2, axis=1) / (2 * h**2)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    spread = centers - weights @ centers
    expected = (weights[:, None] * spread).T @ spread / h**4 - np.eye(3) / h**2

    @jax.jit
    def density(z):
        return kde_log_density(
            z[None], jnp.asarray(centers, jnp.float32), bandwidth=h, implementation="dense"
        )[0]

    z = jnp.asarray(z, jnp.float32)
    for hessian in (
        jax.hessian(density),
        jax.jacrev(jax.grad(density)),
        jax.jacfwd(jax.grad(density)),
    ):
        np.testing.assert_allclose(jax.jit(hessian)(z), expected, rtol=1e-4, atol=1e-4)
    # What Hutchinson's estimate of the trace takes, and what `linearize` returns.
    probe = jnp.array([1.0, -1.0, 1.0])
    _, product = jax.jvp(jax.grad(density), (z,), (probe,))
    np.testing.assert_allclose(product, expected @ np.asarray(probe), rtol=1e-4, atol=1e-4)
    _, along = jax.linearize(density, z)
    np.testing.assert_allclose(along(probe), jnp.dot(jax.grad(density)(z), probe), rtol=1e-5)


def test_statistics_can_be_differentiated():
    problem = make_problem(4, 9, 2)

    def mean(x):
        stats = pairwise_lse_stats(x, problem.y, bandwidth=0.5, implementation="dense")
        return jnp.sum(stats.mean)

    assert np.all(np.isfinite(jax.jit(jax.grad(mean))(problem.x)))


def test_centers_over_several_devices_are_refused():
    x = np.zeros((8, 2), np.float32)

    def local(y):
        return pairwise_lse(x, y, bandwidth=1.0, axis_name="a", implementation="dense")

    spec = jax.sharding.PartitionSpec("a")
    mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(NotImplementedError, match="'dense' needs all centers on every device"):
        mapped(x)

"""Diagonal Gaussians and their mixtures against SciPy in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import log_softmax, logsumexp

from avae_jax import gaussians

RNG = np.random.default_rng(0)
BATCH, K, LATENT = 7, 4, 3
Z, LOC, LOG_VAR, PRIOR_LOC, PRIOR_LOG_VAR = RNG.standard_normal((5, BATCH, LATENT))
LOG_WEIGHTS = RNG.standard_normal(K)
MEANS, LOG_VARS = RNG.standard_normal((2, K, LATENT))
ROW_LOG_WEIGHTS = RNG.standard_normal((BATCH, K))
ROW_MEANS, ROW_LOG_VARS = RNG.standard_normal((2, BATCH, K, LATENT))


def f32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def components64(z, loc, log_var):
    """Return `log N(z; loc_k, ...)`, `[batch, k]`."""
    return stats.norm.logpdf(z[:, None], loc, np.exp(log_var / 2)).sum(axis=-1)


def mixture64(z, log_weights, loc, log_var):
    return logsumexp(log_softmax(log_weights, axis=-1) + components64(z, loc, log_var), axis=-1)


def test_log_prob_equals_scipy():
    want = stats.norm.logpdf(Z, LOC, np.exp(LOG_VAR / 2)).sum(axis=1)
    np.testing.assert_allclose(gaussians.gaussian_log_prob(*f32(Z, LOC, LOG_VAR)), want, rtol=1e-5)
    want = stats.norm.logpdf(Z).sum(axis=1)
    np.testing.assert_allclose(gaussians.standard_normal_log_prob(*f32(Z)), want, rtol=1e-5)


@pytest.mark.parametrize(("distance", "log_var"), [(1e-10, -100.0), (1e15, 0.0), (1e25, 80.0)])
def test_log_prob_is_finite_at_the_edges(distance, log_var):
    def log_prob(z, log_var):
        return gaussians.gaussian_log_prob(z, 0.0, log_var)

    value, gradient = jax.jit(jax.value_and_grad(log_prob, argnums=(0, 1)))(
        jnp.array([distance]), jnp.array([log_var])
    )
    want = stats.norm.logpdf(distance, 0, np.exp(log_var / 2))
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [-distance * np.exp(-log_var)], rtol=1e-5)
    np.testing.assert_allclose(gradient[1], [(distance**2 * np.exp(-log_var) - 1) / 2], rtol=1e-5)


def test_kl_between_two_gaussians():
    scale, prior_scale = np.exp(LOG_VAR / 2), np.exp(PRIOR_LOG_VAR / 2)
    # Per dimension as in textbooks, with standard deviations.
    ratio = (scale**2 + (LOC - PRIOR_LOC) ** 2) / (2 * prior_scale**2)
    want = (np.log(prior_scale / scale) + ratio - 0.5).sum(axis=1)
    got = gaussians.gaussian_kl(*f32(LOC, LOG_VAR, PRIOR_LOC, PRIOR_LOG_VAR))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_kl_to_zeros_is_the_kl_to_the_standard_normal_to_the_last_bit():
    loc, log_var, zeros = f32(LOC, LOG_VAR, np.zeros(LATENT))
    np.testing.assert_array_equal(
        gaussians.gaussian_kl(loc, log_var, zeros, zeros), gaussians.gaussian_kl(loc, log_var)
    )


def test_kl_vanishes_where_the_two_meet():
    loc, log_var = f32(LOC, 5 * LOG_VAR)
    np.testing.assert_array_equal(gaussians.gaussian_kl(loc, log_var, loc, log_var), 0)


@pytest.mark.parametrize(
    "parameters",
    [(LOG_WEIGHTS, MEANS, LOG_VARS), (ROW_LOG_WEIGHTS, ROW_MEANS, ROW_LOG_VARS)],
    ids=["one", "per row"],
)
def test_mixture_equals_scipy(parameters):
    labels = np.array([-1, 0, 3, 2, -1, -5, 1])
    want = mixture64(Z, *parameters)
    got = gaussians.mixture_log_prob(*f32(Z, *parameters))
    np.testing.assert_allclose(got, want, rtol=1e-5)

    known = components64(Z, *parameters[1:])[np.arange(BATCH), np.maximum(labels, 0)]
    got = gaussians.mixture_log_prob(*f32(Z, *parameters), labels=jnp.asarray(labels))
    np.testing.assert_allclose(got, np.where(labels < 0, want, known), rtol=1e-5)


def test_mixture_is_unchanged_by_order_and_by_splitting_a_component():
    z, log_weights, loc, log_var = f32(Z, LOG_WEIGHTS, MEANS, LOG_VARS)
    whole = gaussians.mixture_log_prob(z, log_weights, loc, log_var)
    order = jnp.array([2, 0, 3, 1])
    shuffled = gaussians.mixture_log_prob(z, log_weights[order], loc[order], log_var[order])
    np.testing.assert_allclose(shuffled, whole, rtol=1e-5)
    twice = jnp.array([0, 0, 1, 2, 3])
    halved = log_weights[twice].at[:2].add(-math.log(2))
    np.testing.assert_allclose(
        gaussians.mixture_log_prob(z, halved, loc[twice], log_var[twice]), whole, rtol=1e-5
    )


def test_mixture_gradients():
    labels = jnp.array([-1, 0, 3, 2, -1, -1, 1])
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a) for a in (Z, LOG_WEIGHTS, MEANS, LOG_VARS)]
        check_grads(jax.jit(gaussians.mixture_log_prob), arguments, order=1)
        known = functools.partial(gaussians.mixture_log_prob, labels=labels)
        check_grads(jax.jit(known), arguments, order=1)


def test_mixture_is_finite_far_away_and_at_tiny_variances():
    z = jnp.array([[0.0, 0.0], [1e6, -1e6], [1.0, 1.0]])
    loc, log_var = jnp.array([[0.0, 0.0], [5.0, 5.0]]), jnp.array([[-20.0, -20.0], [0.0, 0.0]])

    def total(z, log_weights, loc, log_var):
        return gaussians.mixture_log_prob(z, log_weights, loc, log_var).sum()

    arguments = (z, jnp.array([0.0, -30.0]), loc, log_var)
    value, gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(*arguments)
    want = mixture64(*(np.asarray(a, np.float64) for a in arguments)).sum()
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradient)


def test_a_label_without_component_is_not_a_number():
    z, log_weights, loc, log_var = f32(Z, LOG_WEIGHTS, MEANS, LOG_VARS)
    labels = jnp.full(BATCH, -1).at[2].set(K)
    got = gaussians.mixture_log_prob(z, log_weights, loc, log_var, labels=labels)
    assert np.flatnonzero(np.isnan(got)).tolist() == [2]


def test_mixture_variance_is_second_moment_less_squared_mean():
    weights = np.exp(log_softmax(LOG_WEIGHTS))[:, None]
    second = (weights * (np.exp(LOG_VARS) + MEANS**2)).sum(axis=0)
    want = second - (weights * MEANS).sum(axis=0) ** 2
    np.testing.assert_allclose(
        gaussians.mixture_variance(*f32(LOG_WEIGHTS, MEANS, LOG_VARS)), want, rtol=1e-5
    )


@pytest.mark.parametrize("bounded", [-5.9, -2.0, 0.0, 5.9])
def test_the_inverse_of_the_bound(bounded):
    raw = gaussians.inverse_soft_bound(bounded, -6.0, 6.0)
    inner = 6.0 - np.logaddexp(0, 6.0 - raw)
    assert -6.0 + np.logaddexp(0, inner + 6.0) == pytest.approx(bounded, abs=1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_promoted_and_no_rank_is(dtype):
    rng = np.random.default_rng(1)
    z, loc, log_var = (jnp.asarray(rng.standard_normal((9, 128)), dtype) for _ in range(3))
    z64, loc64, log_var64 = (np.float64(a) for a in (z, loc, log_var))
    std = np.exp(log_var64 / 2)
    cases = {
        "standard": (gaussians.standard_normal_log_prob(z), stats.norm.logpdf(z64).sum(-1)),
        "log_prob": (
            gaussians.gaussian_log_prob(z, loc, log_var),
            stats.norm.logpdf(z64, loc64, std).sum(-1),
        ),
        "kl": (
            gaussians.gaussian_kl(loc, log_var),
            0.5 * (loc64**2 + std**2 - 1 - log_var64).sum(-1),
        ),
    }
    with jax.numpy_rank_promotion("raise"):
        weights = jnp.asarray(rng.standard_normal(4), dtype)
        value = gaussians.mixture_log_prob(z, weights, loc[:4], log_var[:4])
        # One Gaussian for all rows, as a prior has it.
        one = gaussians.gaussian_log_prob(z, loc[0], log_var[0])
    cases["mixture"] = value, mixture64(z64, np.float64(weights), loc64[:4], log_var64[:4])
    cases["one"] = one, stats.norm.logpdf(z64, loc64[0], std[0]).sum(-1)
    for name, (got, want) in cases.items():
        assert got.dtype == jnp.float32, name
        np.testing.assert_allclose(got, want, rtol=3e-6, err_msg=name)
    assert gaussians.sample_gaussian(jax.random.key(0), loc, log_var).dtype == jnp.float32

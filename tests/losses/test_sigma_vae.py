"""The sigma-VAE: the best noise scale of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR = RNG.standard_normal((2, 7, 5)).astype(np.float32)
SQUARES = (X.astype(np.float64) - X_RECON) ** 2


def test_the_noise_scale_is_the_best_one():
    def nll(log_scale):
        return -stats.norm.logpdf(np.sqrt(SQUARES), 0, np.exp(log_scale)).sum()

    best = np.exp(optimize.minimize_scalar(nll, bounds=(-5, 2), options={"xatol": 1e-9}).x)
    scale = av.losses.optimal_noise_scale(X, X_RECON)
    np.testing.assert_allclose(scale, best, rtol=1e-5)


def test_the_mean_is_the_logarithm_of_the_error():
    loss, terms = av.losses.sigma_vae(X, X_RECON, LOC, LOG_VAR)
    variance = SQUARES.mean()
    kl = np.asarray(av.losses.gaussian_kl(LOC, LOG_VAR), np.float64)
    want = 6 * np.log(2 * np.pi * np.e * variance) + kl.mean()
    np.testing.assert_allclose(np.asarray(loss, np.float64).mean(), want, rtol=1e-5)
    each = -stats.norm.logpdf(np.sqrt(SQUARES), 0, np.sqrt(variance)).sum(axis=(1, 2, 3)) + kl
    np.testing.assert_allclose(loss, each, rtol=1e-5)
    np.testing.assert_allclose(terms["noise_scale"], np.sqrt(variance), rtol=1e-6)


def test_the_gradient_is_that_through_the_noise_scale():
    """Where the scale is the best one the loss does not depend on it to first order."""

    def stopped(x_recon):
        return av.losses.sigma_vae(X, x_recon, LOC, LOG_VAR)[0].mean()

    def through(x_recon):
        return 6 * jnp.log(jnp.mean((X - x_recon) ** 2))

    got, want = (jax.grad(f)(jnp.asarray(X_RECON)) for f in (stopped, through))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    # By hand: 2 (x_recon - x) / (2 s^2) over the number of images.
    np.testing.assert_allclose(got, (X_RECON - X) / SQUARES.mean() / 7, rtol=1e-4, atol=1e-6)


def test_an_error_of_nothing_is_no_noise_of_nothing():
    loss = jax.value_and_grad(lambda a: av.losses.sigma_vae(X, a, LOC, LOG_VAR)[0].sum())
    value, gradient = loss(jnp.asarray(X))
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, np.zeros_like(X))
    for scale in (
        av.losses.optimal_noise_scale(X, X),
        av.losses.optimal_noise_scale(X, X_RECON, mask=np.zeros(7)),
    ):
        np.testing.assert_allclose(scale, np.exp(-6), rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (X[:, :2], None, "x_recon must have the shape of x"),
        (X, np.ones(3), "mask must have the batch of x, 7, got 3"),
    ],
)
def test_refused(x, mask, message):
    with pytest.raises(ValueError, match=message):
        av.losses.optimal_noise_scale(x, X_RECON, mask=mask)

"""Reconstruction, the Gaussian KL and their sum against NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import avae_jax as av

from .test_losses import LATENT, LOG_VAR, RNG, X_RECON, X, Z


def test_integer_images_do_not_wrap():
    black, white = np.zeros((1, 4), np.uint8), np.full((1, 4), 255, np.uint8)
    assert av.losses.reconstruction_loss(black, white).tolist() == [4 * 255**2]
    loss, _ = av.losses.elbo(black, white, Z[:1], Z[:1])
    assert loss[0] > 4 * 255**2 / 2
    with pytest.raises(
        TypeError, match="x must be .* with a Bernoulli likelihood, got uint8: give"
    ):
        av.losses.reconstruction_loss(white, np.zeros((1, 4)), likelihood="bernoulli")
    of_bool = av.losses.reconstruction_loss(white > 0, np.zeros((1, 4)), likelihood="bernoulli")
    np.testing.assert_allclose(of_bool, 4 * math.log(2), rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_reconstruction(likelihood):
    got = av.losses.reconstruction_loss(X, X_RECON, likelihood=likelihood)
    x, a = X.astype(np.float64), X_RECON.astype(np.float64)
    if likelihood == "gaussian":
        want = ((x - a) ** 2).sum(axis=(1, 2, 3))
    else:
        p = 1 / (1 + np.exp(-a))
        want = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_bernoulli_survives_huge_logits():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    x = jnp.array([[1.0, 0.0, 0.5]])

    def loss(a):
        return av.losses.reconstruction_loss(x, a, likelihood="bernoulli").sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0]], atol=1e-6)


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="likelihood must be one of .* got 'poisson'"):
        av.losses.reconstruction_loss(X, X, likelihood="poisson")


def test_gaussian_kl_against_monte_carlo_and_scipy():
    loc, log_var = Z.astype(np.float64), LOG_VAR.astype(np.float64)
    want = 0.5 * (loc**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
    np.testing.assert_allclose(av.losses.gaussian_kl(Z, LOG_VAR), want, rtol=1e-5)
    draws = RNG.standard_normal((200_000, LATENT)) * np.exp(log_var[0] / 2) + loc[0]
    ratio = (
        stats.norm.logpdf(draws, loc[0], np.exp(log_var[0] / 2)) - stats.norm.logpdf(draws)
    ).sum(axis=1)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - want[0]) < 5 * error


def test_gaussian_kl_near_the_prior():
    tiny = jnp.full((1, 3), 1e-3, jnp.float32)
    want = 0.5 * 3 * (1e-6 + math.expm1(1e-3) - 1e-3)
    # Rounding relative to the log-variance, 1e-3, not to 1.
    np.testing.assert_allclose(av.losses.gaussian_kl(tiny, tiny), [want], atol=5e-10, rtol=0)


def test_elbo_is_a_normalised_bound():
    loss, terms = av.losses.elbo(X, X_RECON, Z, LOG_VAR, noise_scale=0.7)
    want = -stats.norm.logpdf(X.astype(np.float64), X_RECON, 0.7).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["nll"], want, rtol=1e-5)
    np.testing.assert_allclose(loss, want + np.asarray(terms["kl"]), rtol=1e-5)


def test_beta_weighs_the_kl():
    once, terms = av.losses.beta_elbo(X, X_RECON, Z, LOG_VAR, beta=1.0)
    thrice, _ = av.losses.beta_elbo(X, X_RECON, Z, LOG_VAR, beta=3.0)
    np.testing.assert_allclose(thrice - once, 2 * terms["kl"], rtol=1e-4)


def test_elbo_refuses():
    with pytest.raises(ValueError, match="log_var must have the latent_dim of loc, 5, got 2"):
        av.losses.elbo(X, X_RECON, Z, LOG_VAR[:, :2])
    with pytest.raises(ValueError, match="noise_scale must be finite and positive, got 0"):
        av.losses.elbo(X, X_RECON, Z, LOG_VAR, noise_scale=0)

"""The importance-weighted bound on a model whose likelihood is known in closed form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp, softmax

import avae_jax as av
from avae_jax.gaussians import gaussian_log_prob, standard_normal_log_prob

RNG = np.random.default_rng(0)
BATCH, LATENT, PIXELS, NOISE = 3, 2, 4, 0.6
MATRIX = RNG.standard_normal((LATENT, PIXELS)).astype(np.float32)
X = RNG.standard_normal((BATCH, LATENT)) @ MATRIX + NOISE * RNG.standard_normal((BATCH, PIXELS))
X = X.astype(np.float32)
LOG_P_X = stats.multivariate_normal(
    np.zeros(PIXELS), MATRIX.T.astype(np.float64) @ MATRIX + NOISE**2 * np.eye(PIXELS)
).logpdf(X)

# A posterior near the exact one, and wider.
EXACT = np.linalg.inv(np.eye(LATENT) + MATRIX.astype(np.float64) @ MATRIX.T / NOISE**2)
LOC = (X @ MATRIX.T @ EXACT / NOISE**2 + 0.1).astype(np.float32)
LOG_VAR = np.broadcast_to(np.log(1.5 * np.diag(EXACT)), LOC.shape).astype(np.float32)


IWAE = jax.jit(av.losses.iwae)


def log_weights(z, matrix, loc, log_var):
    """Return `log p(x | z) + log p(z) - log q(z | x)`, `[batch, num_samples]`."""
    log_var_of_noise = jnp.log(jnp.float32(NOISE**2))
    log_p = gaussian_log_prob(X[:, None], z @ matrix, log_var_of_noise)
    log_q = gaussian_log_prob(z, loc[:, None], log_var[:, None])
    return log_p + standard_normal_log_prob(z) - log_q, ()


def draw(key, loc, log_var, num_samples):
    """Return draws of the posteriors, `[batch, num_samples, latent_dim]`."""
    noise = jax.random.normal(key, (BATCH, num_samples, LATENT))
    return loc[:, None] + jnp.exp(0.5 * log_var[:, None]) * noise


def test_it_equals_float64():
    w = 3 * RNG.standard_normal((5, 6))
    loss, terms = IWAE(np.float32(w - 1000))
    np.testing.assert_allclose(loss, 1000 - logsumexp(w, axis=1) + math.log(6), rtol=1e-6)
    shares = softmax(w, axis=1)
    np.testing.assert_allclose(terms["effective_samples"], 1 / (shares**2).sum(axis=1), rtol=1e-3)
    gradient = jax.jit(jax.grad(lambda w: av.losses.iwae(w)[0].sum()))(np.float32(w))
    np.testing.assert_allclose(gradient, -shares, rtol=1e-5, atol=1e-7)


def test_it_is_the_bound_and_not_the_weighted_mean():
    """sum w log w / sum w, which some report, is above it by log K less the entropy."""
    w = RNG.standard_normal((4, 50))
    loss, _ = IWAE(np.float32(w))
    shares = softmax(w, axis=1)
    entropy = -(shares * np.log(shares)).sum(axis=1)
    weighted_mean = (shares * w).sum(axis=1)
    np.testing.assert_allclose(-loss, weighted_mean - (math.log(50) - entropy), rtol=1e-4)
    assert np.all(weighted_mean > -np.asarray(loss) + 0.1)


def test_one_draw_is_the_elbo():
    z, w = weighed(jax.random.key(0), 1)
    z = np.asarray(z, np.float64)[:, 0]
    log_p = stats.norm.logpdf(X, z @ MATRIX, NOISE).sum(axis=1)
    kl = stats.norm.logpdf(z, LOC, np.exp(LOG_VAR / 2)) - stats.norm.logpdf(z)
    loss, terms = IWAE(w)
    np.testing.assert_allclose(loss, kl.sum(axis=1) - log_p, rtol=1e-5)
    np.testing.assert_allclose(terms["effective_samples"], 1, rtol=1e-6)


def test_many_draws_give_the_likelihood():
    k = 20_000
    w = np.asarray(weighed(jax.random.key(1), k)[1], np.float64)
    loss, _ = IWAE(np.float32(w))
    # The error of the logarithm of a mean.
    ratio = np.exp(w - LOG_P_X[:, None])
    error = ratio.std(axis=1) / math.sqrt(k)
    assert np.all(error < 0.02)
    assert np.all(np.abs(-np.asarray(loss) - LOG_P_X) < 5 * error)


@functools.partial(jax.jit, static_argnums=1)
def weighed(key, num_samples):
    """Return draws and their log-weights."""
    z = draw(key, LOC, LOG_VAR, num_samples)
    return z, log_weights(z, MATRIX, LOC, LOG_VAR)[0]


@functools.partial(jax.jit, static_argnums=(1, 2))
def gradients(key, kind, num_samples):
    """Return the loss's gradients in the decoder and in the encoder's outputs."""

    def loss(matrix, loc, log_var):
        z = draw(key, loc, log_var, num_samples)
        if kind == "plain":
            return av.losses.iwae(log_weights(z, matrix, loc, log_var)[0])[0].sum()
        fixed = jax.lax.stop_gradient((loc, log_var))
        w, _ = av.losses.doubly_reparameterized(log_weights, z, matrix, *fixed)
        return av.losses.iwae(w)[0].sum()

    return jax.grad(loss, argnums=(0, 1, 2))(MATRIX, LOC, LOG_VAR)


def test_the_doubly_reparameterized_gradient_equals_its_formula():
    """sum_k w~_k^2 d log w_k / d z_k, by hand in float64."""
    key, k = jax.random.key(2), 5
    z, w = (np.asarray(a, np.float64) for a in weighed(key, k))
    shares = softmax(w, axis=1)[..., None]
    residual = (X[:, None] - z @ MATRIX) / NOISE**2
    slope = residual @ MATRIX.T - z + (z - LOC[:, None]) / np.exp(LOG_VAR[:, None])
    path = -(shares**2) * slope
    of_decoder, of_loc, of_log_var = gradients(key, "dreg", k)
    np.testing.assert_allclose(of_loc, path.sum(axis=1), rtol=1e-3, atol=1e-4)
    spread = 0.5 * (z - LOC[:, None])
    np.testing.assert_allclose(of_log_var, (path * spread).sum(axis=1), rtol=1e-3, atol=1e-4)
    # The decoder's is that of the bound.
    want = -np.einsum("bk,bki,bkj->ij", shares[..., 0], z, residual)
    np.testing.assert_allclose(of_decoder, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradients(key, "plain", k)[0], want, rtol=1e-3, atol=1e-4)


def test_both_gradients_have_the_same_mean_and_one_less_variance():
    num_keys, k = 4_000, 8
    keys = jax.random.split(jax.random.key(3), num_keys)

    @functools.partial(jax.jit, static_argnums=0)
    def of_encoder(kind):
        found = jax.vmap(lambda key: gradients(key, kind, k)[1:])(keys)
        return jnp.concatenate([a.reshape(num_keys, -1) for a in found], axis=1)

    plain, doubly = (np.asarray(of_encoder(kind), np.float64) for kind in ("plain", "dreg"))
    difference = plain - doubly
    error = difference.std(axis=0) / math.sqrt(num_keys)
    assert np.all(np.abs(difference.mean(axis=0)) < 5 * error)
    assert np.all(doubly.var(axis=0) < 0.7 * plain.var(axis=0))


def test_refused():
    with pytest.raises(ValueError, match=r"log_weights must have .* give log_weights\[None\]"):
        jax.vmap(lambda w: av.losses.iwae(w)[0])(jnp.zeros((3, 4)))

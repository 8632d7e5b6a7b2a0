"""The generative encoding network's loss: its value, its gradient, and where codes rest."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import logsumexp

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
Z = (1.5 * RNG.standard_normal((7, 5))).astype(np.float32)
CENTERS = RNG.standard_normal((40, 5)).astype(np.float32)
H = 0.6


def densities(z):
    """Return log q, log p and their gradients, in float64 by hand."""
    z, c = z.astype(np.float64), CENTERS.astype(np.float64)
    logits = -np.square(z[:, None] - c).sum(-1) / (2 * H * H)
    log_q = logsumexp(logits, axis=1) - math.log(40) - 5 * math.log(H * math.sqrt(2 * math.pi))
    share = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    return log_q, stats.norm.logpdf(z).sum(axis=1), (share @ c - z) / H**2, -z


def test_it_is_the_encoder_s_part_of_the_jensen_shannon_divergence():
    loss, terms = av.losses.gens(X, X_RECON, Z, CENTERS, bandwidth=H, weight=3.0)
    log_q, log_p, _, _ = densities(Z)
    want = np.log(np.exp(log_q) / (np.exp(log_q) + np.exp(log_p)))
    np.testing.assert_allclose(terms["divergence"], want, rtol=1e-4, atol=1e-5)
    error = np.square(X.astype(np.float64) - X_RECON).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(loss, error + 3.0 * want, rtol=1e-5)


def test_the_gradient_is_the_kl_s_times_a_weight_below_one():
    gradient = jax.grad(
        lambda z: av.losses.gens(X, X, z, CENTERS, bandwidth=H, weight=1.0)[0].sum()
    )(jnp.asarray(Z))
    log_q, log_p, of_q, of_p = densities(Z)
    weight = 1 / (1 + np.exp(log_q - log_p))
    assert weight.min() < 0.6 < 0.9 < weight.max()
    np.testing.assert_allclose(gradient, weight[:, None] * (of_q - of_p), rtol=1e-4, atol=1e-5)


def test_the_centers_carry_no_gradient_and_far_codes_no_infinity():
    far = jnp.full((7, 5), 30.0)
    for tail in ({}, {"tail": "official", "max_cdf": 0.99}):

        def loss(z, c, tail=tail):
            return av.losses.gens(X, X, z, c, bandwidth=H, weight=1.0, **tail)[0].sum()

        value, (of_z, of_c) = jax.value_and_grad(loss, (0, 1))(far, jnp.asarray(CENTERS))
        assert np.isfinite(value)
        assert np.all(np.isfinite(of_z))
        assert not np.any(of_c)


def test_codes_of_the_claimed_width_are_where_the_forces_balance():
    """With densities in closed form: q = N(0, (s^2 + h^2) I) of codes N(0, s^2 I)."""
    n, d = 50_000, 4
    draws = jnp.asarray(np.random.default_rng(1).standard_normal((n, d)), jnp.float32)

    def outward(std):
        """Return the mean of z . gradient, the push along the codes, with its error."""
        wide = std**2 + H**2

        def divergence(z):
            log_q = -0.5 * jnp.square(z).sum(axis=1) / wide - 0.5 * d * jnp.log(wide)
            return jax.nn.log_sigmoid(log_q + 0.5 * jnp.square(z).sum(axis=1))

        z = std * draws
        push = -(z * jax.grad(lambda z: divergence(z).sum())(z)).sum(axis=1)
        return float(push.mean()), float(push.std()) / math.sqrt(n)

    claimed = math.sqrt(1 - H**2)
    assert abs(outward(claimed)[0]) < 1e-5
    for std, sign in ((0.8 * claimed, 1), (1.2 * claimed, -1)):
        push, error = outward(std)
        assert sign * push > 5 * error

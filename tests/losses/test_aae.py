"""The adversarial autoencoder's loss: its best critic, and which way it pulls."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads
from scipy import stats

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOGITS = RNG.standard_normal(7).astype(np.float32)
MEAN, STD, N = np.array([1.0, -0.5]), 0.7, 20_000


def best(z):
    """Return the best critic's logit between the prior N(0, I) and codes N(MEAN, STD^2 I)."""
    of_prior = -0.5 * jnp.square(z).sum(axis=1)
    of_codes = -0.5 * jnp.square((z - MEAN) / STD).sum(axis=1) - 2 * math.log(STD)
    return of_prior - of_codes


def draws():
    rng = np.random.default_rng(1)
    return rng.standard_normal((N, 2)), MEAN + STD * rng.standard_normal((N, 2))


def test_it_equals_float64():
    loss, terms = av.losses.aae(X, X_RECON, LOGITS, weight=6.4)
    adversarial = -np.log(1 / (1 + np.exp(-LOGITS.astype(np.float64))))
    error = np.square(X.astype(np.float64) - X_RECON).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["adversarial"], adversarial, rtol=1e-5)
    np.testing.assert_allclose(loss, error + 6.4 * adversarial, rtol=1e-5)


def test_the_best_critic_is_the_log_density_ratio_and_positive_on_the_prior():
    y, z = draws()
    log_p = stats.norm.logpdf(y).sum(axis=1)
    log_q = stats.norm.logpdf(y, MEAN, STD).sum(axis=1)
    np.testing.assert_allclose(best(y), log_p - log_q, rtol=1e-4, atol=1e-4)
    assert best(y).mean() > 0 > best(z).mean()

    def loss(scale, shift):
        return av.losses.critic_loss(scale * best(y) + shift, scale * best(z) + shift)[0]

    for argument in (0, 1):
        slope = jax.jacfwd(loss, argnums=argument)(jnp.float32(1), jnp.float32(0))
        assert abs(slope.mean()) < 5 * slope.std() / math.sqrt(N)
    assert loss(1.0, 0.0).mean() < math.log(2) - 0.05
    # It is log 2 less the Jensen-Shannon divergence.
    both = np.concatenate([y, z])
    densities = np.stack(
        [np.exp(stats.norm.logpdf(both, *at).sum(axis=1)) for at in ((0, 1), (MEAN, STD))]
    )
    own = densities[np.repeat([0, 1], N), np.arange(2 * N)] / densities.mean(axis=0)
    divergence = np.log(own)
    error = 5 * divergence.std() / math.sqrt(N)
    assert abs(float(loss(1.0, 0.0).mean()) - (math.log(2) - divergence.mean())) < error


def test_codes_are_pulled_to_the_prior():
    """With the best critic, by `sigmoid(-D) (grad log q - grad log p)`."""
    _, z = draws()
    z = z[:50]
    x = np.zeros((50, 1))
    pull = jax.grad(lambda z: av.losses.aae(x, x, best(z), weight=1.0)[0].sum())(jnp.asarray(z))
    share = 1 / (1 + np.exp(np.asarray(best(z), np.float64)))
    want = share[:, None] * (z - (z - MEAN) / STD**2)
    np.testing.assert_allclose(pull, want, rtol=1e-4, atol=1e-4)
    # Descending moves the mean of the codes towards that of the prior.
    assert np.all(np.asarray(pull).mean(axis=0) * MEAN > 0)


def test_gradients():
    with jax.enable_x64(True):
        x_recon, logits = jnp.asarray(X_RECON, jnp.float64), jnp.asarray(LOGITS, jnp.float64)
        loss = jax.jit(lambda x_recon, a: av.losses.aae(X, x_recon, a, weight=3.0)[0])
        check_grads(loss, (x_recon, logits), order=1)
    slope = jax.grad(lambda a: av.losses.aae(X, X, a, weight=1.0)[0].sum())(
        jnp.full(7, -1e30, jnp.float32)
    )
    np.testing.assert_allclose(slope, -1.0)

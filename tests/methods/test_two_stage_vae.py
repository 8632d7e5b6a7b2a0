"""The two-stage VAE: who learns what, and what the second stage's density is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from avae_jax.likelihoods import LearnedGaussian
from avae_jax.methods.two_stage_vae import SecondStage
from avae_jax.numerics import masked_mean
from avae_jax.posteriors import DiagonalGaussian


@pytest.fixture(scope="module")
def method(build):
    return build(method="two_stage_vae", second_width=8, second_layers=1)


def test_each_stage_learns_from_its_own_loss(method, make_batch):
    variables, batch = method.init(jax.random.key(0)), make_batch(method)

    @jax.jit
    def slopes(params):
        def loss(params, name):
            output = method.losses(
                {**variables, "params": params}, (), batch, jax.random.key(1), step=0, train=True
            )
            return masked_mean(output.losses[name], batch.mask)

        return {name: jax.grad(loss)(params, name) for name in method.players}

    found = slopes(variables["params"])
    for player, of in method.players.items():
        for part, slope in found[player].items():
            own = part in of.parts
            if part not in ("prior", "likelihood"):
                assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(slope)) == own, part


def test_a_prior_asked_for_again_compiles_nothing(method):
    """And has the density of the variables that it is asked for with."""
    one, other = (method.init(jax.random.key(seed)) for seed in (0, 1))
    z = jax.random.normal(jax.random.key(2), (4, method.latent_dim))
    first = method.prior(one).log_prob(z)
    assert method._compiled_bound._cache_size() == 1
    second = method.prior(other).log_prob(z)
    np.testing.assert_array_equal(method.prior(one).log_prob(z), first)
    assert method._compiled_bound._cache_size() == 1
    np.testing.assert_allclose(second, method.prior(other).bound(z), rtol=1e-5)
    assert np.all(np.abs(second - first) > 1e-3)


def linear(gamma, matrix):
    """Return a second stage with a linear decoder and its exact posterior; z is Gaussian."""
    d = len(matrix)
    # With orthogonal columns of lengths s the posterior has independent dimensions.
    precision = np.square(matrix).sum(axis=0) / gamma**2 + 1

    def encode(z):
        loc = z @ jnp.asarray(matrix / gamma**2 / precision, jnp.float32)
        log_var = jnp.broadcast_to(jnp.asarray(-np.log(precision), jnp.float32), loc.shape)
        return DiagonalGaussian(loc, log_var)

    def decode(u):
        return u @ jnp.asarray(matrix.T, jnp.float32)

    prior = SecondStage(d, encode, decode, LearnedGaussian.make(noise_scale=gamma))
    return prior, matrix @ matrix.T + gamma**2 * np.eye(d)


def test_the_density_is_exact_where_the_posterior_is():
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [2.0, 1.0, 0.3]
    prior, covariance = linear(0.4, matrix)
    z = np.asarray(prior.sample(jax.random.key(0), 20_000), np.float64)
    want = stats.multivariate_normal(np.zeros(3), covariance).logpdf(z[:50])
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(z[:50])), want, rtol=1e-4, atol=1e-4)
    # The draws have its moments, noise included.
    error = 5 * np.sqrt(2 / 20_000) * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert (np.abs(np.cov(z, rowvar=False) - covariance) < error).all()
    assert prior.std() == pytest.approx(np.sqrt(np.trace(covariance) / 3), rel=0.05)
    with pytest.raises(ValueError, match="z must have 3 columns"):
        prior.log_prob(jnp.zeros((2, 4)))


def test_with_another_posterior_it_is_a_bound():
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [2.0, 1.0, 0.3]
    prior, covariance = linear(0.4, matrix)
    exact = prior._encode

    def wide(z):
        posterior = exact(z)
        return DiagonalGaussian(posterior.loc, posterior.log_var + 3.0)

    prior = SecondStage(3, wide, prior._decode, prior.likelihood)
    z = np.asarray(prior.sample(jax.random.key(0), 2_000), np.float64)
    gap = np.asarray(prior.log_prob(jnp.asarray(z))) - stats.multivariate_normal(
        np.zeros(3), covariance
    ).logpdf(z)
    assert -0.6 < gap.mean() < -5 * gap.std() / np.sqrt(len(z))

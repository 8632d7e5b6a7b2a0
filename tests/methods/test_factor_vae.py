"""FactorVAE: what the critic is worth; `test_critic.py` says who learns what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.methods.factor_vae import FactorVAE


@pytest.fixture(scope="module")
def method(build):
    return build(method="factor_vae", gamma=5.0, critic_width=16, critic_layers=2, latent_dim=2)


def test_the_term_is_the_total_correlation_for_the_best_critic(method, make_batch, monkeypatch):
    """A critic that knows the log density ratio of a correlated Gaussian gives its closed TC."""
    rho = 0.8
    precision = np.linalg.inv([[1, rho], [rho, 1]]) - np.eye(2)

    def best(self, variables, name, z, *, train):
        if name != "critic":
            return original(self, variables, name, z, train=train)
        logits = -0.5 * jnp.einsum("ni,ij,nj->n", z, jnp.asarray(precision, z.dtype), z)
        return logits - 0.5 * np.log(1 - rho**2), variables

    original = type(method.networks).__call__
    batch = make_batch(method, np.ones(20_000))
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 20_000)

    def forward(self, variables, batch, key, *, train):
        zeros = jnp.zeros(len(draws))
        posterior = method.coder.posterior(jnp.zeros((len(draws), 4)))
        return zeros, zeros, {}, posterior, jnp.asarray(draws, jnp.float32), variables

    monkeypatch.setattr(type(method.networks), "__call__", best)
    monkeypatch.setattr(FactorVAE, "forward", forward)
    variables = method.init(jax.random.key(0))
    key = jax.random.key(1)
    output = jax.jit(lambda v: method.losses(v, (), batch, key, step=0, train=False))(variables)
    tc = np.asarray(output.terms["tc"], np.float64)
    want = -0.5 * np.log(1 - rho**2)
    assert abs(tc.mean() - want) < 5 * tc.std() / np.sqrt(len(tc))
    np.testing.assert_allclose(output.losses["model"], 5.0 * tc, rtol=1e-5, atol=1e-6)
    # It is better than one that knows nothing, and worse than one for which they are the same.
    assert 0.3 < float(output.losses["critic"]) < np.log(2)


def test_the_critic_sees_one_half_as_it_is_and_the_other_shuffled(method, make_batch, monkeypatch):
    """As if a second batch were drawn for it: no image is on both sides."""
    seen, original = [], type(method.networks).__call__

    def watched(self, variables, name, z, *, train):
        if name == "critic":
            seen.append(np.asarray(z))
        return original(self, variables, name, z, train=train)

    monkeypatch.setattr(type(method.networks), "__call__", watched)
    mask = np.ones(16)
    mask[13:] = 0
    variables, key = method.init(jax.random.key(0)), jax.random.key(1)
    output = method.losses(
        variables, (), make_batch(method, mask), key, step=0, train=False
    )  # fmt: skip
    every, real, shuffled = seen
    np.testing.assert_array_equal(real, every[0::2])
    other = every[1::2]
    assert not np.any(shuffled[:6] == real[:6])
    # Rows 1, 3, ..., 11 count: every column keeps its values, and rows do not stay together.
    np.testing.assert_array_equal(np.sort(shuffled[:6], axis=0), np.sort(other[:6], axis=0))
    place = np.argmax(shuffled[:6, None] == other[None, :6], axis=1)
    assert np.any(place[:, 0] != place[:, 1])
    # Each side weighs one half, and six pairs count.
    a, b = (
        np.asarray(original(method.networks, variables, "critic", z, train=False)[0], np.float64)
        for z in (real[:6], shuffled[:6])
    )
    want = 0.5 * (np.logaddexp(0, -a) + np.logaddexp(0, b)).mean()
    np.testing.assert_allclose(output.losses["critic"], want, rtol=1e-5)

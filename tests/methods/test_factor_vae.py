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
    output = method.losses(variables, (), batch, jax.random.key(1), step=0, train=False)
    tc = np.asarray(output.terms["tc"], np.float64)
    want = -0.5 * np.log(1 - rho**2)
    assert abs(tc.mean() - want) < 5 * tc.std() / np.sqrt(len(tc))
    np.testing.assert_allclose(output.losses["model"], 5.0 * tc, rtol=1e-5, atol=1e-6)
    # It is better than one that knows nothing, and worse than one for which they are the same.
    assert 0.3 < float(output.losses["critic"]) < np.log(2)

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from avae_jax.priors import DiagonalGaussianPrior

RNG = np.random.default_rng(0)


def test_log_prob_equals_scipy():
    loc, log_var = RNG.standard_normal((2, 4))
    z = RNG.standard_normal((7, 4))
    prior = DiagonalGaussianPrior(jnp.float32(loc), jnp.float32(log_var))
    want = stats.norm.logpdf(z, loc, np.exp(log_var / 2)).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob(jnp.float32(z)), want, rtol=1e-5)


def test_a_fit_is_the_mean_and_the_variance():
    z = RNG.standard_normal((50, 3)) * [1.0, 5.0, 0.1] + [0.0, 7.0, -2.0]
    prior = DiagonalGaussianPrior.make(3, jax.random.key(0)).fit(z, key=jax.random.key(0))
    np.testing.assert_allclose(prior.loc, z.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.exp(prior.log_var), z.var(axis=0), rtol=1e-5)


def test_a_dead_dimension_keeps_a_density():
    z = RNG.standard_normal((50, 2)) * [2.0, 0.0]
    prior = DiagonalGaussianPrior.make(2, jax.random.key(0)).fit(z, key=jax.random.key(0))
    np.testing.assert_allclose(np.exp(prior.log_var[1]), 1e-6 * z[:, 0].var(), rtol=1e-4)
    assert np.isfinite(prior.log_prob(jnp.float32(z))).all()


def test_an_isotropic_one_is_called_by_its_formula():
    zeros = jnp.zeros(3)
    assert DiagonalGaussianPrior(zeros, zeros).describe() == "N(0, I)"
    assert DiagonalGaussianPrior(zeros, zeros + 2 * np.log(0.8123)).describe() == "N(0, 0.81^2 I)"
    for loc, log_var in ((zeros + 1, zeros), (zeros, jnp.arange(3.0))):
        assert "its own mean" in DiagonalGaussianPrior(loc, log_var).describe()

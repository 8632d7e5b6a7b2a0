import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import avae_jax as av
from avae_jax.priors import StandardNormal

Z = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


def test_log_prob_equals_scipy():
    want = stats.norm.logpdf(Z.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(StandardNormal(5).log_prob(Z), want, rtol=1e-6)


def test_log_prob_has_the_bits_of_the_aggregate_loss():
    x = np.zeros((7, 2), np.float32)
    _, terms = av.losses.avae(x, x, Z, Z, bandwidth=0.5, beta=1.0)
    np.testing.assert_array_equal(StandardNormal(5).log_prob(Z), terms["log_p"])


def test_it_can_be_a_static_argument():
    log_prob = jax.jit(lambda z, prior: prior.log_prob(z), static_argnames="prior")
    log_prob(jnp.asarray(Z), prior=StandardNormal(5))
    log_prob(jnp.asarray(Z), prior=StandardNormal(5))
    assert log_prob._cache_size() == 1

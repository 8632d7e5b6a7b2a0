"""The ARD-VAE's loss against the KL between Gaussians by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR = RNG.standard_normal((2, 7, 5)).astype(np.float32)
PRIOR = RNG.standard_normal(5).astype(np.float32)


def test_it_equals_float64():
    loss, terms = av.losses.ard_vae(X, X_RECON, LOC, LOG_VAR, PRIOR, beta=2.5, noise_scale=0.7)
    loc, var, prior = LOC.astype(np.float64), np.exp(np.float64(LOG_VAR)), np.exp(np.float64(PRIOR))
    want = 0.5 * (np.log(prior / var) + (loc**2 + var) / prior - 1).sum(axis=1)
    np.testing.assert_allclose(terms["kl"], want, rtol=1e-5)
    _, of_bound = av.losses.elbo(X, X_RECON, LOC, LOG_VAR, noise_scale=0.7)
    np.testing.assert_array_equal(terms["nll"], of_bound["nll"])
    np.testing.assert_allclose(loss, np.asarray(terms["nll"]) + 2.5 * want, rtol=1e-5)
    # A prior of unit variances is the evidence lower bound.
    plain, _ = av.losses.ard_vae(X, X_RECON, LOC, LOG_VAR, 0 * PRIOR, beta=1.0)
    np.testing.assert_allclose(plain, av.losses.elbo(X, X_RECON, LOC, LOG_VAR)[0], rtol=1e-6)


def test_gradients():
    def loss(loc, log_var, prior):
        return av.losses.ard_vae(X, X_RECON, loc, log_var, prior, beta=1.5)[0]

    with jax.enable_x64(True):
        loc, log_var, prior = (jnp.asarray(a, jnp.float64) for a in (LOC, LOG_VAR, PRIOR))
        check_grads(jax.jit(lambda a, b: loss(a, b, prior)), (loc, log_var), order=1)
        assert not np.any(jax.grad(lambda p: loss(loc, log_var, p).sum())(prior))


def test_shapes_that_do_not_match():
    with pytest.raises(ValueError, match="prior_log_var must have the latent_dim of loc, 5, got 4"):
        av.losses.ard_vae(X, X, LOC, LOG_VAR, PRIOR[:4], beta=1.0)
    with pytest.raises(ValueError, match="log_var must have the latent_dim of loc, 5, got 4"):
        av.losses.ard_vae(X, X, LOC, LOG_VAR[:, :4], PRIOR, beta=1.0)

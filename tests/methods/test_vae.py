"""The VAE with priors that have parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from avae_jax.training.config import OptimizationConfig
from avae_jax.training.state import make_optimizer, make_state
from avae_jax.training.step import make_train_step


def one_pass(method, batch, key=7):
    variables = method.init(jax.random.key(0))
    output = method.losses(variables, (), batch, jax.random.key(key), step=0, train=False)
    return variables, output


def component_log_probs(prior, z):
    """Return log p(z | k) in float64, [n, k]."""
    loc, scale = (
        np.asarray(prior.loc, np.float64),
        np.exp(np.asarray(prior.log_var, np.float64) / 2),
    )
    return np.stack(
        [stats.norm.logpdf(z, m, s).sum(axis=1) for m, s in zip(loc, scale, strict=True)], 1
    )


@pytest.mark.parametrize("labelled", [False, True])
def test_the_kl_to_a_mixture_is_that_of_its_draw(labelled, build, make_batch):
    labels = np.arange(16) % 4
    labels[::5] = -1
    method = build(
        method="vae", prior="mixture", num_components=4, labelled=labelled, num_classes=4
    )
    batch = make_batch(method, labels=labels)
    variables, output = one_pass(method, batch)
    posterior, _ = method.encode(variables, batch.x, train=False)
    z = np.asarray(posterior.sample(jax.random.key(7)), np.float64)
    loc, scale = np.asarray(posterior.loc), np.exp(np.asarray(posterior.log_var) / 2)
    log_q = stats.norm.logpdf(z, loc, scale).sum(axis=1)
    prior = method.prior(variables)
    parts = component_log_probs(prior, z)
    log_p = logsumexp(parts, axis=1) - np.log(4)
    if labelled:
        log_p = np.where(labels >= 0, parts[np.arange(16), labels], log_p)
    np.testing.assert_allclose(output.terms["kl"], log_q - log_p, rtol=1e-4, atol=1e-3)


def test_the_kl_to_a_gaussian_is_exact(build, make_batch):
    method = build(method="vae", prior="gaussian")
    batch = make_batch(method)
    variables, output = one_pass(method, batch)
    posterior, _ = method.encode(variables, batch.x, train=False)
    # At its start the prior is N(0, I).
    variance = np.exp(np.asarray(posterior.log_var, np.float64))
    want = 0.5 * (np.square(posterior.loc) + variance - 1 - np.log(variance)).sum(axis=1)
    np.testing.assert_allclose(output.terms["kl"], want, rtol=1e-4)


def test_the_noise_scale_is_learnt(build, make_batch):
    """It starts where it is told to, and goes towards the error it leaves."""
    method = build(method="vae", likelihood="learned_gaussian", noise_scale=2.0)
    optimization = OptimizationConfig(learning_rate=3e-2, schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
    state, batch = make_state(method, optimizer, optimization), make_batch(method)
    assert float(method.likelihood(state.variables).scale) == pytest.approx(2.0, rel=1e-5)
    for _ in range(150):
        state, metrics = step(state, batch)
    error = float(metrics["reconstruction"].mean()) / batch.x[0].size
    assert float(method.likelihood(state.variables).scale) == pytest.approx(error**0.5, rel=0.1)


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_the_prior_is_learnt_with_the_networks(prior, build, make_batch):
    method = build(method="vae", prior=prior)
    optimization = OptimizationConfig(learning_rate=1e-2, schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
    first = state = make_state(method, optimizer, optimization)
    batch = make_batch(method)
    kls = []
    for _ in range(60):
        state, metrics = step(state, batch)
        kls.append(float(metrics["kl"].mean()))
    before, after = (jax.tree.leaves(s.variables["params"]["prior"]) for s in (first, state))
    assert all(np.any(np.abs(a - b) > 1e-2) for a, b in zip(after, before, strict=True))
    assert np.mean(kls[-10:]) < np.mean(kls[:10])
    draws = method.prior(state.variables).sample(jax.random.key(0), 7)
    assert draws.shape == (7, 3)
    assert bool(jnp.all(jnp.isfinite(draws)))

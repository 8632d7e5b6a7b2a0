"""The VAE with priors that have parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from avae_jax import losses
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


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("method", ["vae", "beta_vae", "factor_vae"])
def test_the_loss_is_that_of_the_library(method, likelihood, build, make_batch):
    """What a user imports is what is trained."""
    fields = {
        "beta_vae": {"beta": 4.0},
        "factor_vae": {"gamma": 3.0, "critic_width": 8, "critic_layers": 2},
    }.get(method, {})
    built = build(method=method, likelihood=likelihood, noise_scale=0.7, **fields)
    batch = make_batch(built)
    variables, output = one_pass(built, batch)
    posterior, _ = built.encode(variables, batch.x, train=False)
    key = jax.random.key(7)
    if method == "factor_vae":
        key, _ = jax.random.split(key)
    z = posterior.sample(key)
    x_recon, _ = built.decode(variables, z, train=False)
    options = {"likelihood": likelihood, "noise_scale": 0.7}
    arrays = batch.x, x_recon, posterior.loc, posterior.log_var
    if method == "factor_vae":
        logits, _ = built.networks(variables, "critic", z, train=False)
        want, terms = losses.factor_vae(*arrays, logits, gamma=3.0, **options)
    else:
        want, terms = losses.beta_elbo(*arrays, beta=fields.get("beta", 1.0), **options)
    np.testing.assert_allclose(output.losses["model"], want, rtol=1e-5)
    for name, term in terms.items():
        np.testing.assert_allclose(output.terms[name], term, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("labeled", [False, True])
def test_the_kl_to_a_mixture_is_that_of_its_draw(labeled, build, make_batch):
    labels = np.arange(16) % 4
    labels[::5] = -1
    method = build(method="vae", prior="mixture", num_components=4, labeled=labeled, num_classes=4)
    batch = make_batch(method, labels=labels)
    variables, output = one_pass(method, batch)
    posterior, _ = method.encode(variables, batch.x, train=False)
    z = np.asarray(posterior.sample(jax.random.key(7)), np.float64)
    loc, scale = np.asarray(posterior.loc), np.exp(np.asarray(posterior.log_var) / 2)
    log_q = stats.norm.logpdf(z, loc, scale).sum(axis=1)
    prior = method.prior(variables)
    parts = component_log_probs(prior, z)
    want = log_q - (logsumexp(parts, axis=1) - np.log(4))
    if labeled:
        # KL(q || p(z | y)) in closed form, and -log p(y) of four equal weights.
        mean, variance = (
            np.asarray(a, np.float64)[labels] for a in (prior.loc, np.exp(prior.log_var))
        )
        ratio = scale**2 / variance
        known = 0.5 * (ratio - 1 - np.log(ratio) + (loc - mean) ** 2 / variance).sum(axis=1)
        want = np.where(labels >= 0, known + np.log(4), want)
    np.testing.assert_allclose(output.terms["kl"], want, rtol=1e-4, atol=1e-3)


def test_the_weights_of_known_components_become_the_frequencies_of_the_classes(build, make_batch):
    """And a component that no class has is not sampled."""
    labels = np.array([0] * 12 + [1] * 4)
    method = build(method="vae", prior="mixture", num_components=3, labeled=True, num_classes=2)
    optimization = OptimizationConfig(learning_rate=5e-2, schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
    state, batch = make_state(method, optimizer, optimization), make_batch(method, labels=labels)
    for _ in range(300):
        state, _ = step(state, batch)
    weights = np.exp(jax.nn.log_softmax(method.prior(state.variables).log_weights))
    np.testing.assert_allclose(weights, [0.75, 0.25, 0.0], atol=0.02)


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

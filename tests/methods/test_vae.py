"""The VAE with priors that have parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from avae_jax import losses
from avae_jax.methods import METHODS
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
@pytest.mark.parametrize("method", ["vae", "beta_vae", "annealed_vae", "dip_vae", "factor_vae"])
def test_the_loss_is_that_of_the_library(method, likelihood, build, make_batch):
    """What a user imports is what is trained."""
    fields = {
        "beta_vae": {"beta": 4.0},
        "annealed_vae": {"gamma": 3.0, "capacity": 2.0, "capacity_steps": 5},
        "dip_vae": {"lambda_od": 3.0, "lambda_d": 2.0},
        "factor_vae": {"gamma": 3.0, "critic_width": 8, "critic_layers": 2},
    }.get(method, {})
    options: dict = {"likelihood": likelihood}
    if likelihood == "gaussian":
        options["noise_scale"] = 0.7
    built = build(method=method, **options, **fields)
    batch = make_batch(built)
    variables, output = one_pass(built, batch)
    posterior, _ = built.encode(variables, batch.x, train=False)
    key = jax.random.key(7)
    if method == "factor_vae":
        key, _ = jax.random.split(key)
    z = posterior.sample(key)
    x_recon, _ = built.decode(variables, z, train=False)
    arrays = batch.x, x_recon, posterior.loc, posterior.log_var
    if method == "factor_vae":
        logits, _ = built.networks(variables, "critic", z, train=False)
        want, terms = losses.factor_vae(*arrays, logits, gamma=3.0, **options)
    elif method == "annealed_vae":
        # At the first step nothing may be told.
        want, terms = losses.annealed_capacity(*arrays, gamma=3.0, capacity=0.0, **options)
    elif method == "dip_vae":
        want, terms = losses.dip_vae(*arrays, **fields, **options)
    else:
        want, terms = losses.beta_elbo(*arrays, beta=fields.get("beta", 1.0), **options)
    np.testing.assert_allclose(output.losses["model"], want, rtol=1e-5)
    for name, term in terms.items():
        np.testing.assert_allclose(output.terms[name], term, rtol=1e-5, atol=1e-6, err_msg=name)


WARMED = [
    name
    for name, options in METHODS.items()
    if "warmup_steps" in {field.name for field in dataclasses.fields(options)}
]


@pytest.mark.parametrize("name", WARMED)
def test_the_kl_is_warmed_up(name, build, make_batch):
    """Its weight rises linearly; the criterion has all of it from the first step on."""
    fields = {
        "beta_vae": {"beta": 4.0},
        "factor_vae": {"critic_width": 8, "critic_layers": 2},
    }.get(name, {})
    method, sudden = (build(method=name, warmup_steps=n, **fields) for n in (8, 0))
    batch, key = make_batch(method), jax.random.key(7)
    variables, memory = method.init(jax.random.key(0)), method.init_memory()

    @functools.partial(jax.jit, static_argnums=0)
    def loss(method, step):
        output = method.losses(variables, memory, batch, key, step=step, train=True)
        return output.losses["model"], output.terms

    full, terms = loss(sudden, jnp.int32(0))
    # Of the beta-TCVAE all parts of the KL are warmed up.
    pull = full - terms["nll"] if name == "beta_tcvae" else sudden.beta * terms["kl"]
    assert np.all(np.abs(pull) > 0.01)
    for step, share in ((0, 0.0), (2, 0.25), (8, 1.0), (100, 1.0)):
        value, _ = loss(method, jnp.int32(step))
        np.testing.assert_allclose(value, full - (1 - share) * pull, rtol=1e-5, atol=1e-4)
    means = {term: float(np.mean(values)) for term, values in terms.items()}
    assert method.criterion(means) == sudden.criterion(means)


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


class OneBatch:
    """Validates on one batch."""

    def __init__(self, method, batch):
        def losses(variables):
            key = jax.random.key(7)
            output = method.losses(variables, (), batch, key, step=0, train=False)
            return {**output.terms, "loss": output.losses["model"]}

        self.losses = jax.jit(losses)

    def validate(self, variables, memory):
        terms = jax.device_get(self.losses(variables))
        return {name: float(np.mean(term, dtype=np.float64)) for name, term in terms.items()}


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "vae"},
        {"method": "beta_vae", "beta": 3.0},
        {"method": "annealed_vae"},
        {"method": "sigma_vae"},
        {"method": "factor_vae", "critic_width": 8, "critic_layers": 2},
        {"method": "mvae"},
    ],
    ids=lambda fields: fields["method"],
)
def test_the_noise_scale_is_measured(fields, build, make_batch):
    """Its square is the mean squared error per pixel, and what was seen is said at that scale."""
    method = build(**fields)
    assert "likelihood" not in method.players["model"].parts
    variables, host = method.init(jax.random.key(0)), OneBatch(method, make_batch(method))
    for found in (
        method.start((), variables, host),
        method.after_epoch((), variables, host.validate(variables, ())),
    ):
        moved = {**variables, "params": {**variables["params"], **found.params}}
        scale = float(method.reported((), moved)["noise_scale"])
        again = host.validate(moved, ())
        assert scale**2 == pytest.approx(again["reconstruction"] / 16, rel=1e-5)
        assert again["nll"] == pytest.approx(8 * (np.log(2 * np.pi * scale**2) + 1), rel=1e-5)
        assert found.terms.keys() == again.keys()
        for name, term in again.items():
            assert found.terms[name] == pytest.approx(term, rel=1e-4, abs=1e-4), name
    # An error of nothing is no noise of nothing.
    perfect = method.after_epoch((), variables, dict.fromkeys(again, 0.0)).params["likelihood"]
    assert 0 < float(perfect.scale) < 0.003
    lost = method.after_epoch((), variables, dict.fromkeys(again, float("nan")))
    assert not lost.params


@pytest.mark.parametrize(
    ("fields", "moves"),
    [
        ({"noise_scale": 0.3}, False),
        ({"likelihood": "bernoulli"}, False),
        ({"likelihood": "learned_gaussian"}, True),
    ],
)
def test_a_noise_scale_that_is_given_or_learned_is_not_measured(fields, moves, build, make_batch):
    method = build(method="vae", **fields)
    variables, host = method.init(jax.random.key(0)), OneBatch(method, make_batch(method))
    terms = host.validate(variables, ())
    after = method.after_epoch((), variables, terms)
    assert not after.params
    assert after.terms == terms
    # What is learned starts where it would be measured.
    assert bool(method.start((), variables, host).params) == moves
    assert bool(method.reported((), variables)) == moves


@pytest.mark.parametrize("num_images", [5, 200])
@pytest.mark.parametrize(("method", "beta"), [("vae", 1.0), ("beta_vae", 4.0), ("mvae", 1.0)])
def test_a_noise_scale_that_must_collapse_is_named(method, beta, num_images, build):
    """That of probabilistic PCA: no eigenvalue of the covariance is above beta noise_scale^2."""
    x = np.random.default_rng(0).random((num_images, 4, 4, 1)) * np.linspace(0, 1, 4)[:, None]
    x = x.astype(np.float32)
    largest = np.sqrt(np.linalg.eigvalsh(np.cov(x.reshape(-1, 16), rowvar=False, ddof=0))[-1])
    fields = {"beta": beta} if method == "beta_vae" else {}
    for factor, collapses in ((0.99, False), (1.01, True)):
        scale = float(factor * largest / np.sqrt(beta))
        built = build(method=method, noise_scale=scale, **fields)
        said = built.introduce(x)
        assert len(said) == collapses
        found = built.describe(x)["noise per pixel"]
        assert found["data's largest standard deviation"] == pytest.approx(largest, rel=1e-5)
        assert ("must collapse" in found["forecast"]) == collapses
        if collapses:
            assert f"noise_scale={scale:g} must collapse: no direction of the data" in said[0]
    assert build(method=method, **fields).introduce(x) == []
    # Bytes are judged as the decoder sees them.
    assert build(method=method, noise_scale=0.9, **fields).introduce((255 * x).astype(np.uint8))


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

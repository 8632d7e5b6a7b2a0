"""The IWAE: its bound, its two gradients, and what it reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp, softmax

from avae_jax.methods import OptionsError
from avae_jax.posteriors import POSTERIORS, MixturePosterior


@pytest.fixture
def mixtures(monkeypatch):
    monkeypatch.setitem(POSTERIORS, "mixture", lambda: MixturePosterior(num_components=3))


def one_pass(method, batch, *, train=False):
    """Return the variables, and one pass compiled."""
    variables, key = method.init(jax.random.key(0)), jax.random.key(7)

    @jax.jit
    def run(params):
        output = method.losses(
            {**variables, "params": params}, (), batch, key, step=0, train=train
        )  # fmt: skip
        return output.losses["model"].mean(), (output.losses["model"], output.terms)

    return variables, run


def mixture_log_prob(z, log_weights, loc, log_var):
    """Return the log density in float64; a mixture per row, or one for all."""
    log_shares = log_weights - logsumexp(log_weights, axis=-1, keepdims=True)
    parts = stats.norm.logpdf(z[:, None], loc, np.exp(log_var / 2)).sum(axis=-1)
    return logsumexp(log_shares + parts, axis=-1)


@pytest.mark.parametrize(
    ("posterior", "prior", "num_samples"),
    [("gaussian", "standard_normal", 1), ("mixture", "mixture", 4)],
)
def test_the_loss_is_the_bound(posterior, prior, num_samples, mixtures, build, make_batch):
    """By hand from the draws; one draw is the ELBO of a VAE with the same noise, by its draw."""
    fields = {"posterior": posterior, "prior": prior, "noise_scale": 0.7, "num_components": 4}
    method = build(method="iwae", num_samples=num_samples, gradient="plain", **fields)
    batch = make_batch(method)
    variables, run = one_pass(method, batch)
    _, (loss, terms) = run(variables["params"])

    found, _ = method.encode(variables, batch.x, train=False)
    draws = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_samples, axis=0), found)
    z = draws.sample(jax.random.key(7))
    outputs, _ = method.decode(variables, z, train=False)
    x = np.repeat(np.asarray(batch.x, np.float64), num_samples, axis=0)
    z, *parameters = (np.asarray(a, np.float64) for a in (z, *jax.tree.leaves(draws)))
    nll = -stats.norm.logpdf(x, outputs, 0.7).sum(axis=(1, 2, 3))
    if posterior == "mixture":
        log_q = mixture_log_prob(z, *parameters)
        own = jax.tree.leaves(method.prior(variables))
        log_p = mixture_log_prob(z, *(np.asarray(leaf, np.float64) for leaf in own))
    else:
        log_q = stats.norm.logpdf(z, parameters[0], np.exp(parameters[1] / 2)).sum(axis=1)
        log_p = stats.norm.logpdf(z).sum(axis=1)
    log_w = (log_p - nll - log_q).reshape(16, num_samples)
    np.testing.assert_allclose(
        loss, np.log(num_samples) - logsumexp(log_w, axis=1), rtol=1e-4, atol=1e-3
    )

    # What is reported is weighted, and adds up.
    shares = softmax(log_w, axis=1)
    want = (shares * nll.reshape(16, num_samples)).sum(axis=1)
    np.testing.assert_allclose(terms["nll"], want, rtol=1e-4)
    np.testing.assert_allclose(terms["nll"] + terms["kl"], loss, rtol=1e-5)
    np.testing.assert_allclose(terms["effective_samples"], 1 / (shares**2).sum(axis=1), rtol=1e-2)
    means = {name: float(np.mean(term)) for name, term in terms.items()}
    assert method.criterion(means) == pytest.approx(float(np.mean(loss)), rel=1e-5)
    if num_samples == 1:
        vae = build(method="vae", noise_scale=0.7)
        same = vae.losses(variables, (), batch, jax.random.key(7), step=0, train=False)
        for name in ("nll", "reconstruction"):
            np.testing.assert_allclose(terms[name], same.terms[name], rtol=1e-5)


def test_the_gradients_differ_in_the_encoder_alone(build, make_batch):
    """In training too, where normalization makes the decoder's rows depend on each other."""
    fields = {"method": "iwae", "num_samples": 4, "noise_scale": 0.3, "norm": "batch"}
    gradients = {}
    for kind in ("plain", "dreg"):
        method = build(gradient=kind, **fields)
        variables, run = one_pass(method, make_batch(method), train=True)
        gradient = jax.jit(jax.value_and_grad(run, has_aux=True))
        (_, (loss, _)), gradients[kind] = gradient(variables["params"])
        gradients[kind]["loss"] = loss
    for part in ("decoder", "loss"):
        for mine, other in zip(
            *(jax.tree.leaves(gradients[kind][part]) for kind in ("plain", "dreg")), strict=True
        ):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    plain, doubly = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradients[kind]["encoder"])])
        for kind in ("plain", "dreg")
    )
    assert np.all(np.isfinite(doubly))
    assert 0.01 < np.linalg.norm(plain - doubly) / np.linalg.norm(plain)


def test_draws_that_are_not_reparameterized_need_the_plain_gradient(mixtures, build):
    build(method="iwae", posterior="mixture", gradient="plain")
    with pytest.raises(OptionsError, match="gradient=dreg: draws of posterior mixture .* plain"):
        build(method="iwae", posterior="mixture")


def test_a_noise_scale_that_is_measured_raises_the_bound(build, make_batch):
    """Its square is the weighted error; what is said of the new scale is a bound there."""
    method = build(method="iwae", num_samples=4)
    variables, run = one_pass(method, make_batch(method))

    def means(params):
        _, (loss, terms) = run(params)
        found = {name: float(np.mean(term, dtype=np.float32)) for name, term in terms.items()}
        return {**found, "loss": float(np.mean(loss))}

    before = means(variables["params"])
    found = method.after_epoch((), variables, before)
    scale = float(found.params["likelihood"].scale)
    assert scale**2 == pytest.approx(before["reconstruction"] / 16, rel=1e-5)
    after = means({**variables["params"], **found.params})
    assert after["loss"] <= found.terms["loss"] + 1e-4 < before["loss"]
    assert method.criterion(found.terms) == pytest.approx(found.terms["loss"], rel=1e-5)

"""Methods that match a batch of codes with a prior: what they descend, and what they say of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import losses
from avae_jax.methods import METHODS
from avae_jax.methods.matching import AnyPriorOptions, MatchingOptions

# What a critic says is no statistic of codes and draws alone: test_critic.py has that one.
MATCHING = [
    name
    for name, options in METHODS.items()
    if issubclass(options, MatchingOptions) and name != "aae"
]
FIELDS = {
    "sigreg": {"num_directions": 8},
    "sinkhorn_ae": {"num_iterations": 3},
    "swae": {"num_directions": 8},
}
KEY = jax.random.key(1)


def forward(method, batch):
    run = jax.jit(lambda v: method.losses(v, (), batch, KEY, step=jnp.int32(0), train=True))
    return run(method.init(KEY))


@pytest.mark.parametrize("name", MATCHING)
def test_it_descends_what_it_reports(name, build, make_batch):
    """In any prior it takes, which nobody moves."""
    priors = ["standard_normal"]
    if issubclass(METHODS[name], AnyPriorOptions):
        priors.append("mixture")
    for prior in priors:
        own = {} if prior == "standard_normal" else {"prior": prior}
        method = build(method=name, weight=7.0, **own, **FIELDS.get(name, {}))
        output = forward(method, make_batch(method))
        error = output.terms["reconstruction"]
        statistic = output.terms[method.statistic]
        assert statistic.shape == ()
        np.testing.assert_allclose(output.losses["model"], error + 7.0 * statistic, rtol=1e-5)
        assert "prior" not in {part for p in method.players.values() for part in p.parts}
        assert set(method.terms) == set(output.terms)


@pytest.mark.parametrize("name", MATCHING)
def test_the_null_is_what_batches_of_the_prior_show(name, build):
    """Below that of codes which are not."""
    method = build(method=name, **FIELDS.get(name, {}))
    (null,) = method.null().values()
    x = jnp.zeros((16, 1))
    prior = method.init_prior(KEY)
    wide = 3 * prior.sample(KEY, 16)
    _, terms = method.loss(x, x, wide, prior=prior, key=KEY, mask=jnp.ones(16))
    assert null < float(terms[method.statistic]) - 0.05
    if name in ("wae", "energy_ae"):
        assert abs(null) < 0.05


def test_every_kernel_of_the_wae_is_its_loss(build):
    z, x = jax.random.normal(KEY, (16, 3)), jnp.zeros((16, 1))
    for kernel, prior in (("imq", "mixture"), ("rbf", "mixture"), ("rbf_exact", "standard_normal")):
        method = build(method="wae", kernel=kernel, prior=prior)
        of_prior = method.init_prior(KEY)
        _, terms = method.loss(x, x, z, prior=of_prior, key=KEY, mask=jnp.ones(16))
        if kernel == "rbf_exact":
            want = losses.mmd_standard_normal(z)
        else:
            want = losses.mmd(z, of_prior.sample(KEY, 16), kernel=kernel)
        np.testing.assert_allclose(terms["mmd"], want, rtol=1e-5)


def test_the_wae_may_have_a_noisy_encoder(build):
    assert build(method="wae", posterior="gaussian").is_stochastic
    assert not build(method="wae").is_stochastic


@pytest.mark.parametrize(("alpha", "lambda_mmd"), [(1.0, 50.0), (0.25, 2.0), (-1.0, 2.0)])
def test_the_info_vae_trades_its_kl(alpha, lambda_mmd, build, make_batch):
    method = build(method="info_vae", alpha=alpha, lambda_mmd=lambda_mmd)
    output = forward(method, make_batch(method))
    terms = output.terms
    want = terms["nll"] + (1 - alpha) * terms["kl"] + (alpha + lambda_mmd - 1) * terms["mmd"]
    np.testing.assert_allclose(output.losses["model"], want, rtol=1e-5)
    means = {name: float(jnp.mean(value)) for name, value in terms.items()}
    np.testing.assert_allclose(method.criterion(means), float(jnp.mean(want)), rtol=1e-5)

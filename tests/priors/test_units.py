"""Codes in units of a prior: mean 0, covariance I, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.priors import DiagonalGaussianPrior, Mixture, PriorUnits, StandardNormal

D = 6
MIXTURE = Mixture.make(D, jax.random.key(1), num_components=4, spread=0.9)
PRIORS = {
    "standard": StandardNormal(D),
    "isotropic": DiagonalGaussianPrior(jnp.zeros(D), jnp.full(D, 2 * np.log(0.5))),
    "gaussian": DiagonalGaussianPrior(jnp.linspace(-2.0, 2.0, D), jnp.linspace(-2.0, 1.0, D)),
    "mixture": Mixture(MIXTURE.log_weights, 3.0 * MIXTURE.loc + 1.0, MIXTURE.log_var),
}


@pytest.mark.parametrize("name", PRIORS)
def test_draws_have_mean_0_and_covariance_1(name):
    units, n = PriorUnits.of(PRIORS[name], seed=0), 20_000
    z = np.asarray(PRIORS[name].sample(jax.random.key(0), n), np.float64)
    u = units.to(z)
    # Of these draws and of those the units are from: five standard errors of both.
    np.testing.assert_allclose(u.mean(axis=0), 0.0, atol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.cov(u.T), np.eye(D), atol=5 * np.sqrt(4 / n))
    np.testing.assert_allclose(units.back(u), z, rtol=1e-5, atol=1e-5)


def test_which_priors_are_known():
    found = {name: PriorUnits.of(prior, seed=0) for name, prior in PRIORS.items()}
    assert [name for name, units in found.items() if units.is_gaussian] == [*PRIORS][:3]
    assert [name for name, units in found.items() if units.is_isotropic] == [*PRIORS][:2]
    assert [name for name, units in found.items() if units.is_standard] == [*PRIORS][:1]
    assert [name for name, units in found.items() if units.stand_in(1)] == ["mixture"]


def test_a_sampler_draws_others_at_each_call_and_the_same_again():
    units = PriorUnits.of(PRIORS["mixture"], seed=0)
    draw, again, other = units.sampler(1), units.sampler(1), units.sampler(2)
    first, second = draw(5), draw(5)
    assert first.shape == (5, D)
    np.testing.assert_array_equal(again(5), first)
    np.testing.assert_array_equal(again(5), second)
    for drawn in (second, other(5)):
        assert not np.isclose(drawn, first).any()

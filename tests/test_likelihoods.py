"""Likelihoods against SciPy in float64, and what the losses make of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

import avae_jax as av
from avae_jax.likelihoods import LIKELIHOODS, LOG_SCALE_RANGE, Gaussian, LearnedGaussian

RNG = np.random.default_rng(0)
X = RNG.random((7, 4, 3, 1)).astype(np.float32)
OUTPUTS = RNG.standard_normal(X.shape).astype(np.float32)
EXAMPLES = {name: make() for name, make in LIKELIHOODS.items()}


def nll64(likelihood):
    """Return `-log p(x | outputs)` of every feature."""
    x, outputs = X.astype(np.float64), OUTPUTS.astype(np.float64)
    if likelihood.name == "bernoulli":
        p = 1 / (1 + np.exp(-outputs))
        return -(x * np.log(p) + (1 - x) * np.log1p(-p))
    scale = likelihood.scale if likelihood.name == "learned_gaussian" else likelihood.noise_scale
    return -stats.norm.logpdf(x, outputs, float(scale))


CASES = [
    *EXAMPLES.values(),
    LIKELIHOODS["gaussian"](noise_scale=0.3),
    LIKELIHOODS["learned_gaussian"](noise_scale=0.3),
]


@pytest.mark.parametrize("likelihood", CASES, ids=lambda likelihood: likelihood.name)
def test_nll_equals_scipy(likelihood):
    want = nll64(likelihood).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.nll(X, OUTPUTS), want, rtol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_contract(name):
    likelihood = EXAMPLES[name]
    assert likelihood.name == name
    nll = jax.jit(lambda likelihood, x, outputs: likelihood.nll(x, outputs))
    values = nll(likelihood, X, OUTPUTS)
    assert values.shape == (7,)
    assert values.dtype == jnp.float32
    assert likelihood.reconstruction(X, OUTPUTS).shape == (7,)
    # A row does not see the others.
    other = X.copy()
    other[1:] = 0
    np.testing.assert_allclose(nll(likelihood, other, OUTPUTS)[0], values[0], rtol=1e-6)
    for method in (likelihood.nll, likelihood.reconstruction):
        with pytest.raises(ValueError, match="must have the shape of x"):
            method(X, OUTPUTS[:, :2])


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_is_where_data_is_likeliest(name):
    likelihood = EXAMPLES[name]
    mean = likelihood.mean(jnp.asarray(OUTPUTS))
    assert mean.shape == OUTPUTS.shape
    # Logits are of data in [0, 1], whatever they are.
    assert likelihood.takes_logits == bool(np.all((mean >= 0) & (mean <= 1)))
    # The gradient in the outputs vanishes when the data is the mean.
    gradient = jax.grad(lambda outputs: likelihood.nll(mean, outputs).sum())(jnp.asarray(OUTPUTS))
    np.testing.assert_allclose(gradient, np.zeros_like(X), atol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients(name):
    with jax.enable_x64(True):
        x, outputs = jnp.asarray(X[:2], jnp.float64), jnp.asarray(OUTPUTS[:2], jnp.float64)
        likelihood = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) - 0.7, EXAMPLES[name])
        nll = jax.jit(lambda likelihood, outputs: likelihood.nll(x, outputs))
        check_grads(nll, (likelihood, outputs), order=1)


@pytest.mark.parametrize(
    ("name", "options"), [("gaussian", {"noise_scale": 0.7}), ("bernoulli", {})]
)
def test_the_losses_have_the_same_bits(name, options):
    likelihood = LIKELIHOODS[name](**options)
    code = np.zeros((7, 2), np.float32)
    _, terms = av.losses.beta_elbo(X, OUTPUTS, code, code, beta=2.0, likelihood=name, **options)
    np.testing.assert_array_equal(likelihood.nll(X, OUTPUTS), terms["nll"])
    np.testing.assert_array_equal(likelihood.reconstruction(X, OUTPUTS), terms["reconstruction"])


def test_only_a_learned_scale_is_a_parameter():
    leaves = {name: len(jax.tree.leaves(example)) for name, example in EXAMPLES.items()}
    assert {name for name, number in leaves.items() if number} == {"learned_gaussian"}


def test_a_scale_that_is_an_array_is_a_leaf():
    fixed, traced = LIKELIHOODS["gaussian"](noise_scale=0.3), Gaussian(jnp.float32(0.3))
    assert (len(jax.tree.leaves(fixed)), len(jax.tree.leaves(traced))) == (0, 1)
    nll = jax.jit(lambda likelihood: likelihood.nll(X, OUTPUTS).sum())
    np.testing.assert_allclose(nll(traced), nll(fixed), rtol=1e-6)
    # d nll / d scale = num_features / scale - error / scale^3.
    slope = jax.grad(nll)(traced).noise_scale
    error = np.square(X - OUTPUTS.astype(np.float64)).sum()
    np.testing.assert_allclose(slope, X.size / 0.3 - error / 0.3**3, rtol=1e-5)
    with pytest.raises(ValueError, match="noise_scale must be one number"):
        Gaussian(jnp.ones(2))


@pytest.mark.parametrize("noise_scale", [0.003, 0.1, 1.0, 400.0])
def test_a_learned_scale_starts_where_it_is_told(noise_scale):
    likelihood = LearnedGaussian.make(noise_scale=noise_scale)
    assert float(likelihood.scale) == pytest.approx(noise_scale, rel=1e-4)


def test_the_best_scale_is_the_root_mean_square_error():
    best = math.sqrt(((X - OUTPUTS).astype(np.float64) ** 2).mean())

    def slope(noise_scale):
        return jax.grad(lambda likelihood: likelihood.nll(X, OUTPUTS).mean())(
            LearnedGaussian.make(noise_scale=noise_scale)
        ).log_scale

    # The gradient is -num_features (1 - best^2 / scale^2), up to the bound's slope of nearly 1.
    assert abs(float(slope(best))) < 1e-3
    np.testing.assert_allclose(slope(2 * best), 12 * (1 - 1 / 4), rtol=1e-2)
    np.testing.assert_allclose(slope(best / 2), 12 * (1 - 4), rtol=1e-2)


@pytest.mark.parametrize("log_scale", [-1e6, -20.0, 20.0, 1e6])
def test_a_scale_that_ran_away_is_bounded(log_scale):
    likelihood = LearnedGaussian(jnp.float32(log_scale))
    low, high = LOG_SCALE_RANGE
    assert low - 1e-4 <= math.log(float(likelihood.scale)) <= high + 1e-4
    value, gradient = jax.value_and_grad(lambda likelihood: likelihood.nll(X, OUTPUTS).sum())(
        likelihood
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient.log_scale)


@pytest.mark.parametrize("below", [0.0, 2.0, 5.0])
def test_the_floor_of_a_learned_scale_is_soft(below):
    """`lo + softplus(x - lo)`: a scale that fell below it is pulled back (2006.13202)."""
    low = LOG_SCALE_RANGE[0]

    def log_scale(raw):
        return jnp.log(LearnedGaussian(raw).scale)

    value, slope = jax.value_and_grad(log_scale)(jnp.float32(low - below))
    np.testing.assert_allclose(value, low + math.log1p(math.exp(-below)), rtol=1e-5)
    np.testing.assert_allclose(slope, 1 / (1 + math.exp(below)), rtol=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "learned_gaussian"])
def test_a_scale_must_be_positive(name):
    with pytest.raises(ValueError, match="noise_scale must .* got 0"):
        LIKELIHOODS[name](noise_scale=0.0)

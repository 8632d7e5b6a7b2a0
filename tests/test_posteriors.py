import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.posteriors import (
    LOG_VAR_RANGE,
    POSTERIORS,
    MixturePosterior,
    sample_gaussian,
    split_gaussian,
)
from avae_jax.priors import PRIORS


def bounded_log_var(raw):
    return split_gaussian(jnp.stack([jnp.zeros_like(raw), raw], axis=-1))[1][..., 0]


def test_means_come_first_and_unchanged():
    head = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    loc, log_var = split_gaussian(head)
    np.testing.assert_array_equal(loc, head[:, :4])
    np.testing.assert_allclose(log_var, head[:, 4:], atol=1e-3)


def test_bound_equals_float64():
    raw = np.linspace(-60, 60, 241)
    low, high = LOG_VAR_RANGE
    bounded = high - np.logaddexp(0, high - raw)
    expected = low + np.logaddexp(0, bounded - low)
    result = bounded_log_var(raw.astype(np.float32))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    inside = (raw >= -10) & (raw <= 0)
    assert np.abs(result - raw)[inside].max() < 5e-5
    assert result.min() >= low
    assert result.max() <= high


@pytest.mark.parametrize("raw", [-1e30, 1e30, np.inf, -np.inf])
def test_bound_holds_for_extreme_values(raw):
    log_var = bounded_log_var(jnp.float32(raw))
    assert LOG_VAR_RANGE[0] <= log_var <= LOG_VAR_RANGE[1]
    assert np.isfinite(jax.grad(bounded_log_var)(jnp.float32(raw)))


def test_gradient_is_alive_outside_the_range():
    gradient = jax.vmap(jax.grad(bounded_log_var))(jnp.array([-40.0, -25.0, -5.0, 15.0, 40.0]))
    assert (gradient > 0).all()
    np.testing.assert_allclose(gradient[2], 1, atol=1e-5)
    with jax.enable_x64(True):
        check_grads(jax.jit(bounded_log_var), (jnp.array([-22.0, -5.0, 0.0, 9.0, 12.0]),), order=2)


def test_odd_head():
    with pytest.raises(ValueError, match=r"even last axis, got shape \(2, 5\)"):
        split_gaussian(np.zeros((2, 5)))


def test_samples_have_the_mean_and_variance():
    num_samples, k = 20_000, 5
    loc = np.array([-1.0, 0.0, 3.0], np.float32)
    log_var = np.array([-2.0, 0.0, 1.5], np.float32)
    samples = sample_gaussian(
        jax.random.key(0),
        np.broadcast_to(loc, (num_samples, 3)),
        np.broadcast_to(log_var, (num_samples, 3)),
    )
    samples = np.asarray(samples, np.float64)
    std = np.exp(log_var / 2)
    assert (np.abs(samples.mean(0) - loc) < k * std / np.sqrt(num_samples)).all()
    variance_error = std**2 * np.sqrt(2 / num_samples)
    assert (np.abs(samples.var(0) - std**2) < k * variance_error).all()
    correlation = np.corrcoef(samples.T)[np.triu_indices(3, 1)]
    assert (np.abs(correlation) < k / np.sqrt(num_samples)).all()


def test_sampling_is_reparameterised():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        loc, log_var = jnp.asarray(rng.normal(size=(2, 4, 3)))
        sample = jax.jit(functools.partial(sample_gaussian, jax.random.key(1)))
        check_grads(sample, (loc, log_var), order=1)


def test_shape_mismatch():
    with pytest.raises(
        ValueError, match=r"log_var must have the shape of loc, \(2, 3\), got \(3,\)"
    ):
        sample_gaussian(jax.random.key(0), jnp.zeros((2, 3)), jnp.zeros(3))


EXAMPLES = [make() for make in POSTERIORS.values()] + [MixturePosterior(num_components=3)]
STOCHASTIC = [posterior for posterior in EXAMPLES if posterior.stochastic]
K_SIGMA = 5


def by_name(posterior):
    return posterior.name


def make_head(posterior, batch, latent_dim, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, posterior.num_outputs(latent_dim)))


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_registered_under_its_name():
    assert all(make().name == name for name, make in POSTERIORS.items())


@pytest.mark.parametrize("posterior", EXAMPLES, ids=by_name)
def test_one_code_per_row(posterior):
    distribution = posterior(f32(make_head(posterior, 6, 4)))
    draws = [distribution.sample(jax.random.key(seed)) for seed in (0, 0, 1)]
    assert distribution.mean().shape == draws[0].shape == (6, 4)
    np.testing.assert_array_equal(draws[0], draws[1])
    # A head in half precision is promoted before it is read.
    half = jnp.asarray(make_head(posterior, 6, 4), jnp.bfloat16)
    with jax.numpy_rank_promotion("raise"):
        of_half = posterior(half)
        found = of_half.log_prob(of_half.mean()) if posterior.stochastic else of_half.mean()
    wide = posterior(half.astype(jnp.float32))
    want = wide.log_prob(wide.mean()) if posterior.stochastic else wide.mean()
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, want)
    # Every row of a stochastic posterior moves with the key, no row of another one.
    moves = np.any(np.asarray(draws[0] != draws[2]), axis=1)
    np.testing.assert_array_equal(moves, posterior.stochastic)


@pytest.mark.parametrize("posterior", EXAMPLES, ids=by_name)
def test_a_distribution_is_a_pytree(posterior):
    head = f32(make_head(posterior, 6, 4))
    distribution = jax.jit(posterior)(head)
    for got, want in zip(
        jax.tree.leaves(distribution), jax.tree.leaves(posterior(head)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    first = jax.tree.map(lambda leaf: leaf[:1], distribution)
    assert type(first) is type(distribution)
    np.testing.assert_array_equal(first.mean(), distribution.mean()[:1])
    gradient = jax.grad(lambda d: d.mean().sum())(distribution)
    assert type(gradient) is type(distribution)


@pytest.mark.parametrize("posterior", EXAMPLES, ids=by_name)
def test_rows_do_not_mix(posterior):
    head = make_head(posterior, 6, 4)
    other = head.copy()
    other[1:] += 1
    np.testing.assert_allclose(
        posterior(f32(head)).mean()[0], posterior(f32(other)).mean()[0], rtol=1e-6
    )
    assert not np.allclose(posterior(f32(head)).mean()[1], posterior(f32(other)).mean()[1])


@pytest.mark.parametrize("posterior", STOCHASTIC, ids=by_name)
def test_the_density_has_mass_one_and_the_moments_of_the_samples(posterior):
    head = make_head(posterior, 1, 1)
    grid = np.linspace(-20, 20, 8001)
    rows = posterior(f32(np.repeat(head, len(grid), axis=0)))
    density = np.exp(np.asarray(rows.log_prob(f32(grid[:, None])), np.float64))
    mass, mean, second, fourth = (
        np.trapezoid(density * grid**power, grid) for power in (0, 1, 2, 4)
    )
    assert mass == pytest.approx(1, abs=1e-5)
    assert float(rows.mean()[0, 0]) == pytest.approx(mean, abs=1e-4)

    n = 20_000
    z = np.asarray(posterior(f32(np.repeat(head, n, axis=0))).sample(jax.random.key(3)), float)
    assert abs(z.mean() - mean) < K_SIGMA * np.sqrt((second - mean**2) / n)
    assert abs((z**2).mean() - second) < K_SIGMA * np.sqrt((fourth - second**2) / n)


@pytest.mark.parametrize("posterior", STOCHASTIC, ids=by_name)
def test_gradients_reach_the_head(posterior):
    z = np.random.default_rng(1).normal(size=(3, 2))
    with jax.enable_x64(True):
        head = jnp.asarray(make_head(posterior, 3, 2))
        z = jnp.asarray(z)
        read = jax.jit(lambda h: (posterior(h).log_prob(z), posterior(h).mean()))
        check_grads(read, (head,), order=1)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("posterior", EXAMPLES, ids=by_name)
def test_a_closed_kl_is_what_samples_say(posterior, name):
    prior = PRIORS[name](2, jax.random.key(0))
    prior = jax.tree.map(lambda leaf: leaf + 0.3, prior)
    n = 20_000
    head = np.repeat(make_head(posterior, 1, 2), n, axis=0)
    distribution = posterior(f32(head))
    kl = distribution.kl(prior)
    if posterior.name != "gaussian" or not prior.is_gaussian:
        assert kl is None
        return
    z = distribution.sample(jax.random.key(1))
    ratio = np.asarray(distribution.log_prob(z) - prior.log_prob(z), np.float64)
    assert abs(ratio.mean() - float(kl[0])) < K_SIGMA * ratio.std() / np.sqrt(n)


def test_a_point_has_no_density():
    with pytest.raises(NotImplementedError, match="use posterior 'gaussian'"):
        POSTERIORS["deterministic"]()(jnp.zeros((2, 3))).log_prob(jnp.zeros((2, 3)))


def test_one_component_is_a_gaussian():
    head = f32(np.random.default_rng(0).normal(size=(5, 6)))
    z = f32(np.random.default_rng(1).normal(size=(5, 3)))
    want = POSTERIORS["gaussian"]()(head)
    got = MixturePosterior(num_components=1)(jnp.concatenate([jnp.ones((5, 1)), head], axis=1))
    np.testing.assert_allclose(got.mean(), want.mean(), rtol=1e-6)
    np.testing.assert_allclose(got.log_prob(z), want.log_prob(z), rtol=1e-5)


def test_components_of_a_mixture_keep_their_columns():
    # Two components in three dimensions: weights, then means by component, then log-variances.
    head = jnp.array(
        [[5.0, -5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]]
    )
    mixture = MixturePosterior(num_components=2)(head)
    np.testing.assert_array_equal(mixture.log_weights, [[5, -5]])
    np.testing.assert_array_equal(mixture.loc, [[[1, 2, 3], [4, 5, 6]]])
    np.testing.assert_allclose(mixture.log_var, [[[-1, -2, -3], [-4, -5, -6]]], atol=1e-3)


def test_a_mixture_is_reparameterised_within_its_component_only():
    posterior = MixturePosterior(num_components=3)
    mixture = posterior(f32(make_head(posterior, 50, 2)))
    gradient = jax.jit(jax.grad(lambda m: m.sample(jax.random.key(0)).sum()))(mixture)
    np.testing.assert_array_equal(gradient.log_weights, 0)
    np.testing.assert_array_equal(np.sort(gradient.loc, axis=1)[:, -1], 1)
    np.testing.assert_array_equal(gradient.loc.sum(axis=1), 1)
    assert np.unique(np.argmax(gradient.loc[..., 0], axis=1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("columns", [3, 8, 14])
def test_a_head_that_no_mixture_has(columns):
    with pytest.raises(ValueError, match=rf"3 \* \(1 \+ 2 \* latent_dim\).*\(2, {columns}\)"):
        MixturePosterior(num_components=3)(jnp.zeros((2, columns)))


def test_a_mixture_needs_components():
    with pytest.raises(ValueError, match="num_components must be .* got 0"):
        MixturePosterior(num_components=0)

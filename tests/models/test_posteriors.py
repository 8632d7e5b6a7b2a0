import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.models.posteriors import LOG_VAR_RANGE, sample_gaussian, split_gaussian


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
        check_grads(bounded_log_var, (jnp.array([-22.0, -5.0, 0.0, 9.0, 12.0]),), order=2)


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
        check_grads(lambda a, b: sample_gaussian(jax.random.key(1), a, b), (loc, log_var), order=1)


def test_shape_mismatch():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(3,\)"):
        sample_gaussian(jax.random.key(0), jnp.zeros((2, 3)), jnp.zeros(3))

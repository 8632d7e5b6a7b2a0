import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from avae_jax.density import log_tail_density


@pytest.mark.parametrize(
    ("latent_dim", "bandwidth", "max_cdf"),
    [(1, 1.0, 0.5), (8, 0.475, 1 - 1e-6), (64, 0.714, 1 - 1e-2), (128, 0.746, 1 - 1e-1)],
)
def test_is_the_kernel_at_the_quantile_radius(latent_dim, bandwidth, max_cdf):
    radius = bandwidth * np.sqrt(stats.chi2.ppf(max_cdf, latent_dim))
    point = np.zeros(latent_dim)
    point[0] = radius
    kernel = stats.multivariate_normal(np.zeros(latent_dim), bandwidth**2)
    value = log_tail_density(latent_dim, bandwidth=bandwidth, max_cdf=max_cdf)
    np.testing.assert_allclose(value, kernel.logpdf(point), rtol=1e-5)


def test_bandwidth_may_be_traced():
    slope = jax.jit(jax.grad(lambda h: log_tail_density(16, bandwidth=h, max_cdf=0.9)))(0.5)
    np.testing.assert_allclose(slope, -16 / 0.5, rtol=1e-6)


@pytest.mark.parametrize("latent_dim", [1, 2, 16, 128, 2048])
def test_a_traced_share_has_the_quantile_and_its_slope(latent_dim):
    shares = np.array([1e-3, 0.5, 0.9, 1 - 1e-3])

    def value(max_cdf):
        return log_tail_density(latent_dim, bandwidth=0.7, max_cdf=max_cdf)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value)))(shares)
    radii = stats.chi2.ppf(shares, latent_dim)
    np.testing.assert_allclose(values, [value(share) for share in shares], rtol=2e-5)
    np.testing.assert_allclose(slopes, -0.5 / stats.chi2.pdf(radii, latent_dim), rtol=1e-2)


@pytest.mark.parametrize("max_cdf", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_max_cdf_outside_is_an_error(max_cdf):
    with pytest.raises(ValueError, match="max_cdf must lie in"):
        log_tail_density(16, bandwidth=0.5, max_cdf=max_cdf)


def test_other_errors_name_the_argument():
    with pytest.raises(ValueError, match="latent_dim must be an integer of at least 1, got 0"):
        log_tail_density(0, bandwidth=0.5, max_cdf=0.9)
    with pytest.raises(TypeError, match="latent_dim must be an integer .* got 2.0"):
        log_tail_density(2.0, bandwidth=0.5, max_cdf=0.9)
    with pytest.raises(ValueError, match="bandwidth must be finite and positive, got -1"):
        log_tail_density(2, bandwidth=-1, max_cdf=0.9)


def test_a_bandwidth_in_half_precision_is_promoted():
    half = jnp.bfloat16(0.62)
    value = log_tail_density(128, bandwidth=half, max_cdf=0.9)
    want = log_tail_density(128, bandwidth=float(half), max_cdf=0.9)
    np.testing.assert_allclose(value, want, rtol=1e-6)

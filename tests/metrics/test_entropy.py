import numpy as np
import pytest
from scipy import special, stats

from avae_jax.metrics import whitened_entropy


def _dense(z, h_opt, max_cdf):
    """Compute the authors' estimator with one n x n float64 matrix."""
    n, d = z.shape
    eigenvalues, vectors = np.linalg.eigh(z.T @ z / n)
    white = z @ (vectors / np.sqrt(eigenvalues + 1e-4)) @ vectors.T
    h = h_opt / np.sqrt(1 + h_opt**2)
    d2 = np.sum((white[:, None] - white[None]) ** 2, axis=-1)
    np.fill_diagonal(d2, np.inf)
    log_q = special.logsumexp(-d2 / (2 * h**2), axis=1) - np.log(n - 1) - d * np.log(h)
    log_eps = -stats.chi2.ppf(max_cdf, d) / 2 - d * np.log(h)
    return -np.logaddexp(log_q, log_eps).mean(), np.mean(log_q < log_eps), -log_eps


@pytest.mark.parametrize("max_cdf", [1 - 5e-4, 0.5])
def test_equals_the_dense_form(max_cdf):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 0.5
    entropy, tail_share, cap = _dense(z, 0.8, max_cdf)
    result = whitened_entropy(z, h_opt=0.8, max_cdf=max_cdf, num_null=0)
    assert result["whitened_entropy"] == pytest.approx(entropy, abs=1e-4)
    assert result["tail_share"] == pytest.approx(tail_share, abs=1 / 300)
    assert result["whitened_entropy_cap"] == pytest.approx(cap, abs=1e-4)
    assert result["whitened_entropy"] <= result["whitened_entropy_cap"]


@pytest.mark.parametrize(
    ("d", "h_opt", "expected", "cap"),
    [(16, 0.72, 8.81, 12.06), (64, 1.02, 32.37, 32.38), (128, 1.12, 56.12, 56.12)],
)
def test_reproduces_the_published_values_for_normal_codes(d, h_opt, expected, cap):
    z = np.random.default_rng(1).standard_normal((10_000, d))
    result = whitened_entropy(z, h_opt=h_opt, num_null=2)
    assert result["whitened_entropy"] == pytest.approx(expected, abs=0.05)
    assert result["whitened_entropy_null"] == pytest.approx(expected, abs=0.05)
    assert result["whitened_entropy_cap"] == pytest.approx(cap, abs=0.01)


def test_codes_from_the_default_generator_are_not_their_own_null():
    z = np.random.default_rng(0).standard_normal((300, 4))
    result = whitened_entropy(z, h_opt=0.5, seed=0)
    assert result["whitened_entropy_null"] != result["whitened_entropy"]


def test_clusters_score_below_the_null():
    rng = np.random.default_rng(0)
    z = 4 * rng.standard_normal((10, 8))[rng.integers(10, size=1000)]
    result = whitened_entropy(z + 0.5 * rng.standard_normal(z.shape), h_opt=0.55)
    assert result["whitened_entropy"] < result["whitened_entropy_null"] - 1.0


def test_collapsed_axis_is_finite():
    z = np.random.default_rng(0).standard_normal((200, 4))
    z[:, 0] = 0.0
    assert np.isfinite(whitened_entropy(z, h_opt=0.5)["whitened_entropy"])


def test_bad_input_is_named():
    z = np.zeros((4, 2))
    with pytest.raises(ValueError, match="h_opt must be finite and positive"):
        whitened_entropy(z, h_opt=0.0)
    with pytest.raises(ValueError, match="max_cdf must lie in"):
        whitened_entropy(z, h_opt=1.0, max_cdf=1.0)
    with pytest.raises(ValueError, match="at least 2"):
        whitened_entropy(z[:1], h_opt=1.0)

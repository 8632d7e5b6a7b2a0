import numpy as np
import pytest
from scipy import stats

from avae_jax.metrics import code_moments


def _whitened(rng, n, d):
    """Draw codes whose sample mean is 0 and whose sample covariance is I, exactly."""
    z = rng.standard_normal((n, d))
    z -= z.mean(axis=0)
    return z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T


def test_moment_kl_matches_the_closed_form():
    rng = np.random.default_rng(0)
    n, d = 200, 5
    factor = rng.standard_normal((d, d)) + 2 * np.eye(d)
    mean = rng.standard_normal(d)
    z = _whitened(rng, n, d) @ factor.T + mean
    covariance = factor @ factor.T
    log_det = np.linalg.slogdet(covariance)[1]
    expected = 0.5 * (np.trace(covariance) + mean @ mean - d - log_det)
    moments = code_moments(z, scale=1.0)
    assert moments["moment_kl"] == pytest.approx(expected, rel=1e-9)
    assert moments["moment_kl_scaled"] == pytest.approx(expected, rel=1e-9)
    assert moments["mean_norm"] == pytest.approx(np.linalg.norm(mean))
    assert moments["std"] == pytest.approx(np.sqrt(np.trace(covariance) / d))
    eigenvalues = np.linalg.eigvalsh(covariance)
    for name, value in zip(
        ("eig_min", "eig_median", "eig_max"), eigenvalues[[0, d // 2, -1]], strict=True
    ):
        assert moments[name] == pytest.approx(value)
    share = eigenvalues / eigenvalues.sum()
    assert moments["effective_rank"] == pytest.approx(np.exp(stats.entropy(share)))


def test_scaled_codes_match_their_own_prior():
    z = 0.8 * _whitened(np.random.default_rng(0), 300, 7)
    moments = code_moments(z, scale=0.8)
    assert moments["moment_kl_scaled"] == pytest.approx(0.0, abs=1e-9)
    assert moments["moment_kl"] == pytest.approx(3.5 * (0.64 - 1 - np.log(0.64)))


@pytest.mark.parametrize(("n", "d"), [(3000, 16), (3000, 64), (400, 100)])
def test_null_values_are_what_prior_samples_give(n, d):
    rng = np.random.default_rng(0)
    trials = [code_moments(rng.standard_normal((n, d))) for _ in range(8)]
    for name in ("mean_norm", "std", "eig_median", "effective_rank"):
        null = trials[0][f"{name}_null"]
        assert np.mean([t[name] for t in trials]) == pytest.approx(null, rel=0.06), name
    for name in ("eig_min", "eig_max"):
        assert np.mean([t[name] for t in trials]) == pytest.approx(
            trials[0][f"{name}_null"], rel=0.15
        )
    # The leading order is 1 / n; the next one shows at d / n = 1/4.
    tolerance = 0.05 if d < n / 10 else 0.2
    mean = np.mean([t["moment_kl"] for t in trials])
    assert mean == pytest.approx(trials[0]["moment_kl_null"], rel=tolerance)


def test_singular_covariance_is_infinitely_far():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((50, 4))
    z[:, 2] = 1.5
    moments = code_moments(z)
    assert moments["moment_kl"] == np.inf
    assert moments["effective_rank"] < 3.01
    few = code_moments(rng.standard_normal((4, 9)))
    assert few["moment_kl"] == np.inf
    assert few["eig_median_null"] == 0.0
    constant = code_moments(np.ones((5, 3)))
    assert constant["effective_rank"] == 0.0
    assert constant["std"] == 0.0


def test_one_dimension():
    moments = code_moments(np.array([[1.0], [3.0]]))
    assert moments["std"] == pytest.approx(np.sqrt(2.0))
    assert moments["moment_kl"] == pytest.approx(0.5 * (2.0 + 4.0 - 1.0 - np.log(2.0)))


@pytest.mark.parametrize(
    ("z", "scale", "message"),
    [
        (np.zeros(3), None, "latent_dim"),
        (np.zeros((1, 3)), None, "at least 2"),
        (np.array([[0.0], [np.nan]]), None, "1 of 2 rows"),
        (np.zeros((3, 0)), None, "latent_dim >= 1"),
        (np.zeros((3, 2)), 0.0, "scale must be finite and positive"),
    ],
)
def test_bad_input_is_named(z, scale, message):
    with pytest.raises(ValueError, match=message):
        code_moments(z, scale=scale)

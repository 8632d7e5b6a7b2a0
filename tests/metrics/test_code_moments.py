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


@pytest.mark.parametrize(("n", "d"), [(359, 8), (60, 20), (15, 25)])
def test_null_values_are_what_prior_samples_give(n, d):
    rng = np.random.default_rng(0)
    count = 30
    trials = [code_moments(rng.standard_normal((n, d)), seed=1) for _ in range(count)]
    names = ["mean_norm", "std", "eig_min", "eig_median", "eig_max", "effective_rank", "moment_kl"]
    if n <= d:
        # Infinite, as it should be.
        assert trials[0]["moment_kl"] == trials[0][f"{names.pop()}_null"] == np.inf
        names.remove("eig_min")
    for name in names:
        null, std = (trials[0][f"{name}_null{end}"] for end in ("", "_std"))
        values = np.array([t[name] for t in trials])
        # The null's own mean, over 40 draws, errs too; so do both deviations.
        assert abs(values.mean() - null) < 5 * std * np.sqrt(1 / count + 1 / 40), name
        ratio_error = np.sqrt(1 / (2 * (count - 1)) + 1 / (2 * 39))
        assert abs(np.log(values.std(ddof=1) / std)) < 5 * ratio_error, name


def test_the_largest_eigenvalue_has_its_mean_as_null_and_not_the_edge_of_its_law():
    null = code_moments(np.random.default_rng(0).standard_normal((359, 8)))
    # Of 4,000 draws: 1.2528 and .0574. The edge is 1.321.
    assert abs(null["eig_max_null"] - 1.2528) < 5 * 0.0574 / np.sqrt(40)
    assert null["eig_max_null_std"] == pytest.approx(0.0574, rel=5 / np.sqrt(2 * 39))


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

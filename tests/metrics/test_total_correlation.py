import numpy as np
import pytest
from scipy import special

from avae_jax.metrics.total_correlation import (
    dimension_kl,
    dimension_kl_values,
    total_correlation,
)


def _spacings(x, m):
    """Compute the estimate of one dimension with a loop over the sorted Phi(x)."""
    u = np.concatenate([[0.0], np.sort(special.ndtr(x)), [1.0]])
    n = len(x)
    logs = [np.log(u[i + m] - u[i]) for i in range(n + 2 - m)]
    return special.digamma(m) - special.digamma(n + 1) - np.mean(logs)


@pytest.mark.parametrize(("n", "m"), [(2, 1), (27, 3), (1000, 10)])
def test_values_equal_a_loop(n, m):
    z = 0.5 + 0.7 * np.random.default_rng(0).standard_normal((n, 3))
    expected = [_spacings(z[:, j] / 0.8, m) for j in range(3)]
    np.testing.assert_allclose(dimension_kl_values(z, scale=0.8), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.7), (0.0, 1.3), (1.0, 1.0), (9.0, 0.1)])
def test_values_approach_the_divergence_of_gaussians(mean, std):
    z = mean + std * np.random.default_rng(0).standard_normal((10_000, 16))
    expected = 0.5 * (std**2 + mean**2 - 1) - np.log(std)
    values = dimension_kl_values(z)
    stderr = values.std(ddof=1) / 4
    # Smoothing costs under 4%.
    assert abs(values.mean() - expected) < 5 * stderr + 0.04 * expected


@pytest.mark.parametrize("n", [3, 50, 800])
def test_null_band_of_the_dimension_kl(n):
    rng = np.random.default_rng(0)
    runs = [dimension_kl(0.8 * rng.standard_normal((n, 6)), scale=0.8) for _ in range(60)]
    for name in ("dimension_kl_sum", "dimension_kl_max"):
        values = np.array([run[name] for run in runs])
        std = runs[0][name + "_null_std"]
        # 256 simulated dimensions bring an error of their own.
        tolerance = 5 * std * np.sqrt(1 / 60 + 6 / 256)
        assert abs(values.mean() - runs[0][name + "_null"]) < tolerance
        assert values.std(ddof=1) == pytest.approx(std, rel=0.6)


def test_sum_and_max_come_from_the_values():
    z = np.random.default_rng(0).uniform(-1, 1, size=(300, 4))
    values = dimension_kl_values(z)
    result = dimension_kl(z)
    assert result["dimension_kl_sum"] == pytest.approx(values.sum())
    assert result["dimension_kl_max"] == pytest.approx(values.max())


def test_constant_dimension_is_infinitely_far_from_the_prior():
    z = np.random.default_rng(0).standard_normal((100, 2))
    z[:, 1] = 0.3
    assert np.isfinite(dimension_kl_values(z)[0])
    assert np.isposinf(dimension_kl_values(z)[1])
    assert np.isposinf(dimension_kl(z)["dimension_kl_sum"])


@pytest.mark.parametrize(("n", "d"), [(30, 5), (200, 20), (25, 24)])
def test_gaussian_null_is_exact(n, d):
    rng = np.random.default_rng(0)
    runs = [total_correlation(rng.standard_normal((n, d)), num_null=1) for _ in range(100)]
    values = np.array([run["total_correlation_gaussian"] for run in runs])
    std = runs[0]["total_correlation_gaussian_null_std"]
    assert abs(values.mean() - runs[0]["total_correlation_gaussian_null"]) < 5 * std / 10
    assert abs(values.std(ddof=1) / std - 1) < 0.4


def test_gaussian_null_tends_to_the_quoted_rate():
    z = np.random.default_rng(0).standard_normal((10_000, 20))
    null = total_correlation(z, num_null=1)["total_correlation_gaussian_null"]
    assert null == pytest.approx(20 * 19 / 40_000, rel=0.01)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_correlated_gaussians(rho):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3000, 2)) @ np.linalg.cholesky([[1, rho], [rho, 1]]).T
    z = z * [5.0, 0.1] + 1.0
    exact = -0.5 * np.log(1 - rho**2)
    result = total_correlation(z)
    # d/d rho of the exact value times the standard error of rho.
    stderr = rho / np.sqrt(3000)
    assert abs(result["total_correlation_gaussian"] - exact) < 5 * stderr
    assert result["total_correlation_neighbors"] == pytest.approx(exact, abs=0.06)


def test_neighbours_see_what_correlations_do_not():
    z = np.random.default_rng(0).standard_normal((2000, 2))
    z[:, 1] = (z[:, 0] ** 2 - 1) / np.sqrt(2) + 0.5 * z[:, 1]
    result = total_correlation(z)
    assert result["total_correlation_gaussian"] < 0.01
    excess = result["total_correlation_neighbors"] - result["total_correlation_neighbors_null"]
    assert excess > 0.5
    assert excess > 10 * result["total_correlation_neighbors_null_std"]


def test_neighbour_null_covers_independent_codes():
    z = np.random.default_rng(5).standard_normal((1500, 16))
    result = total_correlation(z, num_null=8)
    excess = result["total_correlation_neighbors"] - result["total_correlation_neighbors_null"]
    # A t statistic with 7 degrees of freedom: 5.4 is the two-sided 0.1% point.
    assert abs(excess) < 5.4 * np.sqrt(9 / 8) * result["total_correlation_neighbors_null_std"]


def test_undefined_is_nan():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((50, 2)) * [1.0, 0.0] + 0.1
    for z in (np.ones((1, 2)), rng.standard_normal((4, 4)), flat):
        assert all(np.isnan(value) for value in total_correlation(z).values())
    assert all(np.isnan(value) for value in dimension_kl(np.ones((1, 2))).values())
    assert np.isnan(dimension_kl_values(np.ones((1, 2)))).all()
    wide = total_correlation(rng.standard_normal((100, 17)))
    assert np.isfinite(wide["total_correlation_gaussian"])
    assert np.isnan(wide["total_correlation_neighbors"])
    few = total_correlation(rng.standard_normal((5, 2)))
    assert np.isfinite(few["total_correlation_gaussian"])
    assert np.isnan(few["total_correlation_neighbors"])
    doubled = total_correlation(np.repeat(rng.standard_normal((20, 2)), 10, axis=0))
    assert np.isnan(doubled["total_correlation_neighbors"])


def test_one_dimension_has_no_dependence():
    result = total_correlation(np.random.default_rng(0).standard_normal((200, 1)))
    assert result["total_correlation_gaussian"] == 0.0
    assert result["total_correlation_gaussian_null"] == 0.0
    assert abs(result["total_correlation_neighbors"]) < 0.3


def test_bad_input_is_named():
    z = np.zeros((4, 2))
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        dimension_kl(z, scale=0.0)
    with pytest.raises(ValueError, match="num_neighbors must be an integer of at least .*, got 0"):
        total_correlation(z, num_neighbors=0)
    with pytest.raises(TypeError, match=r"num_null must be an integer .* got 1\.5"):
        total_correlation(z, num_null=1.5)  # type: ignore
    with pytest.raises(ValueError, match="z has 1 of 2 rows that are not finite"):
        total_correlation(np.array([[0.0], [np.nan]]))
    with pytest.raises(ValueError, match="z has 1 of 2 rows that are not finite"):
        dimension_kl_values(np.array([[0.0], [np.nan]]))

import numpy as np
import pytest

from avae_jax.metrics.mardia import mardia


def _moments(z):
    """Compute b1 from the third moment tensor and b2 from the inverse covariance."""
    n = len(z)
    centered = z - z.mean(axis=0)
    inverse = np.linalg.inv(centered.T @ centered / n)
    white = centered @ np.linalg.cholesky(inverse)
    third = np.einsum("ni,nj,nk->ijk", white, white, white, optimize=True) / n
    return np.sum(third**2), np.mean(np.einsum("ni,ij,nj->n", centered, inverse, centered) ** 2)


@pytest.mark.parametrize(("n", "d"), [(3, 1), (40, 6), (512, 3), (513, 3), (1500, 8)])
def test_equals_the_moment_tensors(n, d):
    rng = np.random.default_rng(n)
    z = rng.gamma(2.0, size=(n, d)) @ rng.standard_normal((d, d)) + 3.0
    skewness, kurtosis = _moments(z)
    result = mardia(z)
    assert result["mardia_skewness"] == pytest.approx(skewness, rel=1e-9)
    assert result["mardia_kurtosis"] == pytest.approx(kurtosis, rel=1e-9)


def test_affine_map_changes_nothing():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 4)) ** 3
    moved = z @ rng.standard_normal((4, 4)) + 10.0
    for name, value in mardia(z).items():
        assert mardia(moved)[name] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(("n", "d", "trials"), [(20, 3, 500), (200, 4, 500), (600, 16, 100)])
def test_null_is_the_mean_over_gaussian_codes(n, d, trials):
    rng = np.random.default_rng(0)
    runs = [mardia(rng.standard_normal((n, d))) for _ in range(trials)]
    for name in ("mardia_skewness", "mardia_kurtosis"):
        values = np.array([run[name] for run in runs])
        stderr = values.std(ddof=1) / np.sqrt(trials)
        assert abs(values.mean() - runs[0][name + "_null"]) < 5 * stderr
    # sd of a standard deviation is about 1 / sqrt(2 trials) for normal values.
    ratio = values.std(ddof=1) / runs[0]["mardia_kurtosis_null_std"]
    assert abs(ratio - 1) < 5 * np.sqrt(0.5 / trials) * 2
    # Leading order of the means: n b1 / 6 ~ d(d+1)(d+2)/6 and b2 ~ d(d+2).
    assert runs[0]["mardia_skewness_null"] == pytest.approx(d * (d + 1) * (d + 2) / n, rel=10 / n)
    assert runs[0]["mardia_kurtosis_null"] == pytest.approx(d * (d + 2), rel=3 / n)


def test_type_one_error_is_five_per_cent():
    rng = np.random.default_rng(0)
    runs = [mardia(rng.standard_normal((200, 3))) for _ in range(500)]
    skewness = np.mean([run["mardia_skewness_zscore"] > 1.6449 for run in runs])
    kurtosis = np.mean([abs(run["mardia_kurtosis_zscore"]) > 1.96 for run in runs])
    assert abs(skewness - 0.05) < 0.02
    assert abs(kurtosis - 0.05) < 0.02


def test_tails_and_clusters_show():
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(5, size=(2000, 128))
    assert mardia(heavy)["mardia_kurtosis_zscore"] > 20
    clusters = rng.standard_normal((10, 16))[rng.integers(10, size=2000)]
    result = mardia(clusters + 0.5 * rng.standard_normal((2000, 16)))
    assert result["mardia_skewness_zscore"] > 10
    assert result["mardia_kurtosis_zscore"] < -5


@pytest.mark.parametrize(
    "z",
    [
        np.ones((1, 2)),
        np.random.default_rng(0).standard_normal((4, 4)),
        np.full((50, 2), 0.1),
        np.random.default_rng(0).standard_normal((50, 1)) * np.ones((1, 2)),
    ],
    ids=["one", "few", "constant", "repeated"],
)
def test_undefined_is_nan(z):
    assert all(np.isnan(value) for value in mardia(z).values())


def test_kurtosis_score_is_nan_where_the_kurtosis_cannot_vary():
    result = mardia(np.random.default_rng(0).standard_normal((5, 4)))
    assert result["mardia_kurtosis"] == pytest.approx(result["mardia_kurtosis_null"])
    assert np.isnan(result["mardia_kurtosis_zscore"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="z has 1 of 3 rows that are not finite"):
        mardia(np.array([[0.0], [1.0], [np.nan]]))
    with pytest.raises(ValueError, match="at least 1"):
        mardia(np.zeros((0, 2)))

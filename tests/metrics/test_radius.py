import numpy as np
import pytest
from scipy import stats

from avae_jax.metrics import radial_ks


@pytest.mark.parametrize(("n", "d", "scale"), [(1, 3, 1.0), (50, 1, 0.7), (2000, 64, 0.9)])
def test_equals_scipy(n, d, scale):
    z = np.random.default_rng(0).standard_normal((n, d))
    expected = stats.kstest(np.sum((z / scale) ** 2, axis=1), stats.chi2(d).cdf).statistic
    assert radial_ks(z, scale=scale)["radial_ks"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [20, 1000])
def test_null_is_the_mean_over_prior_samples(n):
    rng = np.random.default_rng(0)
    trials = [radial_ks(0.8 * rng.standard_normal((n, 8)), scale=0.8) for _ in range(400)]
    values = [trial["radial_ks"] for trial in trials]
    stderr = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - trials[0]["radial_ks_null"]) < 5 * stderr
    # The error of a standard deviation from 400 trials is 1 / sqrt(2 * 399) of it.
    std = trials[0]["radial_ks_null_std"]
    assert np.std(values, ddof=1) == pytest.approx(std, rel=5 / np.sqrt(2 * 399))


def test_large_samples_approach_the_quoted_constant():
    z = np.random.default_rng(0).standard_normal((40_000, 2))
    assert radial_ks(z)["radial_ks_null"] == pytest.approx(0.8687 / 200, rel=1e-3)


def test_wrong_scale_shows():
    z = 0.9 * np.random.default_rng(0).standard_normal((2000, 64))
    assert radial_ks(z)["radial_ks"] > 0.4
    assert radial_ks(z, scale=0.9)["radial_ks"] < 0.04


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        radial_ks(np.zeros((3, 2)), scale=-1.0)
    with pytest.raises(ValueError, match="at least 1"):
        radial_ks(np.zeros((0, 2)))

import warnings

import numpy as np
import pytest

from avae_jax.metrics.henze_zirkler import henze_zirkler


def _pingouin(z):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pingouin = pytest.importorskip("pingouin")
        return pingouin.multivariate_normality(z)


@pytest.mark.parametrize(("n", "d"), [(20, 2), (511, 3), (513, 8), (700, 20)])
@pytest.mark.parametrize("power", [1, 3])
def test_equals_pingouin(n, d, power):
    rng = np.random.default_rng(n)
    z = rng.standard_normal((n, d)) ** power @ rng.standard_normal((d, d)) + 2.0
    expected = _pingouin(z)
    result = henze_zirkler(z)
    assert result["henze_zirkler"] == pytest.approx(expected.hz, rel=1e-8, abs=1e-8)
    # Its p-value is the upper tail of the same lognormal.
    from scipy.special import ndtr

    assert ndtr(-result["henze_zirkler_zscore"]) == pytest.approx(expected.pval, rel=1e-4, abs=1e-9)


def test_null_band_and_type_one_error():
    rng = np.random.default_rng(0)
    runs = [henze_zirkler(rng.standard_normal((100, 3))) for _ in range(500)]
    values = np.array([run["henze_zirkler"] for run in runs])
    stderr = values.std(ddof=1) / np.sqrt(500)
    # The null mean is that of large n: allow 1% beside the error of the simulation.
    mean = runs[0]["henze_zirkler_null"]
    assert abs(values.mean() - mean) < 5 * stderr + 0.01 * mean
    assert values.std(ddof=1) == pytest.approx(runs[0]["henze_zirkler_null_std"], rel=0.15)
    rejected = np.mean([run["henze_zirkler_zscore"] > 1.6449 for run in runs])
    assert abs(rejected - 0.05) < 0.02


def test_flag_tells_where_the_test_is_blind():
    rng = np.random.default_rng(0)
    for d, power in [(16, 1.0), (64, 0.0)]:
        centers = rng.standard_normal((10, d))
        z = centers[rng.integers(10, size=3000)] + 0.5 * rng.standard_normal((3000, d))
        result = henze_zirkler(z)
        assert result["henze_zirkler_has_power"] == power
        if power:
            assert result["henze_zirkler"] > 1.1 * result["henze_zirkler_null"]
        else:
            # Ten far clusters: the statistic is 1 to six digits all the same.
            assert result["henze_zirkler"] == pytest.approx(1.0, abs=1e-6)
            assert np.isnan(result["henze_zirkler_zscore"])


@pytest.mark.parametrize(
    "z", [np.ones((1, 2)), np.eye(4), np.full((50, 2), 0.1)], ids=["one", "few", "constant"]
)
def test_undefined_is_nan(z):
    result = henze_zirkler(z)
    assert result.pop("henze_zirkler_has_power") in (0.0, 1.0)
    assert all(np.isnan(value) for value in result.values())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="z has 1 of 3 rows that are not finite"):
        henze_zirkler(np.array([[0.0], [1.0], [np.nan]]))

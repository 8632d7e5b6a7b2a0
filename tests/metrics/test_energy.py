import math

import numpy as np
import pytest
from scipy import special
from scipy.spatial.distance import cdist

from avae_jax.metrics.energy import energy_distance


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 2), (1, 9, 3), (40, 40, 1), (511, 2049, 3), (700, 513, 16)]
)
def test_equals_the_dense_v_statistic(n, m, d):
    x, y = 0.9 * normal(0, n, d), normal(1, m, d) + 0.1
    expected = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert energy_distance(x, reference=y)["energy_distance"] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3, 16, 128, 1024])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_one_code_at_the_origin_has_the_chi_mean(d, scale):
    # E|y| is the chi mean and E|y - y'| is sqrt(2) times it.
    chi_mean = math.sqrt(2) * math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2))
    found = energy_distance(np.zeros((1, d)), scale=scale)
    expected = scale * chi_mean * (2 - math.sqrt(2))
    assert found["energy_distance"] == pytest.approx(expected, rel=1e-12)
    assert found["energy_distance_null"] == pytest.approx(scale * chi_mean * math.sqrt(2), 1e-12)
    assert math.isnan(found["energy_distance_null_std"])


@pytest.mark.parametrize("x", [0.0, 0.3, 2.0, 30.0, 1e6])
def test_one_dimension_equals_the_closed_form(x):
    density = math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    to_prior = x * math.erf(x / math.sqrt(2)) + 2 * density
    found = energy_distance(np.array([[x]]))["energy_distance"]
    assert found == pytest.approx(2 * to_prior - 2 / math.sqrt(math.pi), rel=1e-12)


@pytest.mark.parametrize("d", [3, 128])
def test_far_and_middling_codes_equal_monte_carlo(d):
    y = normal(1, 100_000, d)
    for length in (0.5 * math.sqrt(d), math.sqrt(d), 3 * math.sqrt(d)):
        z = np.zeros((1, d))
        z[0, 0] = length
        distance = np.linalg.norm(z - y, axis=1)
        apart = np.linalg.norm(y[::2] - y[1::2], axis=1)
        expected = 2 * distance.mean() - apart.mean()
        stderr = math.hypot(2 * distance.std() / 1e5**0.5, apart.std() / 5e4**0.5)
        assert abs(energy_distance(z)["energy_distance"] - expected) < 5 * stderr


def test_null_is_the_mean_over_prior_samples():
    n, d, trials = 40, 5, 200
    found = [energy_distance(0.7 * normal(i, n, d), scale=0.7) for i in range(trials)]
    values = np.array([f["energy_distance"] for f in found])
    spread = values.std(ddof=1)
    null = found[0]["energy_distance_null"]
    assert abs(values.mean() - null) < 5 * spread / math.sqrt(trials)
    error = math.sqrt(np.mean((values - values.mean()) ** 4) / spread**4 - 1) / (2 * trials**0.5)
    # The formula leaves out a term of relative order 1 / sqrt(n).
    tolerance = 5 * error + 0.05 + 0.5 / math.sqrt(n)
    assert abs(found[0]["energy_distance_null_std"] / spread - 1) < tolerance


def test_permutation_null_equals_permutations():
    n, m, trials = 30, 50, 300
    x, y = 0.8 * normal(0, n, 3), normal(1, m, 3) + 0.5
    found = energy_distance(x, reference=y)
    rng = np.random.default_rng(2)
    values = []
    for _ in range(trials):
        pooled = rng.permutation(np.concatenate([x, y]))
        values.append(energy_distance(pooled[:n], reference=pooled[n:])["energy_distance"])
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values) - found["energy_distance_null"]) < 5 * spread / math.sqrt(trials)
    assert found["energy_distance_null_std"] == pytest.approx(spread, rel=0.3)
    # The pair at hand is not one of them.
    assert found["energy_distance"] > np.max(values)


def test_standard_error_is_the_spread_away_from_the_null():
    found = [energy_distance(normal(i, 60, 3) + 1.0) for i in range(100)]
    spread = np.std([f["energy_distance"] for f in found], ddof=1)
    errors = [f["energy_distance_stderr"] for f in found]
    assert np.mean(errors) == pytest.approx(spread, rel=0.35)


def test_sensitivity():
    d, n = 16, 3000
    ideal = energy_distance(normal(0, n, d))
    band = 5 * ideal["energy_distance_null_std"]
    excess = {
        name: energy_distance(z)["energy_distance"] - ideal["energy_distance_null"]
        for name, z in {
            "ideal": normal(0, n, d),
            "smaller": 0.95 * normal(0, n, d),
            "collapsed": normal(0, n, d) * np.where(np.arange(d) < 2, 0.1, 1.0),
            "tailed": np.random.default_rng(0).standard_t(5, (n, d)),
        }.items()
    }
    assert abs(excess["ideal"]) < band
    assert band < excess["smaller"] < excess["collapsed"] < excess["tailed"]


def test_degenerate_samples():
    z = normal(0, 20, 3)
    assert energy_distance(z, reference=z)["energy_distance"] == pytest.approx(0, abs=1e-12)
    same = energy_distance(np.ones((9, 3)), reference=np.ones((4, 3)))
    assert same["energy_distance"] == same["energy_distance_null"] == 0.0
    # Constant codes are as far as their one value; fewer codes than dimensions are no matter.
    one = energy_distance(np.full((1, 3), 0.5))["energy_distance"]
    assert energy_distance(np.full((9, 3), 0.5))["energy_distance"] == pytest.approx(one, 1e-12)
    assert math.isfinite(energy_distance(normal(0, 5, 30))["energy_distance_stderr"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="z has 1 of 3 rows that are not finite"):
        energy_distance(np.array([[0.0], [np.nan], [1.0]]))
    with pytest.raises(ValueError, match="reference must have shape"):
        energy_distance(np.zeros((3, 2)), reference=np.zeros(3))
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        energy_distance(np.zeros((3, 2)), scale=0.0)

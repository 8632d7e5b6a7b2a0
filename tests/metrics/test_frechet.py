import numpy as np
import pytest

from avae_jax.metrics.frechet import (
    frechet_distance,
    frechet_distance_from_moments,
    frechet_infinity,
)


def moments(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def eigvals_formula(x, y):
    (m1, s1), (m2, s2) = moments(x), moments(y)
    overlap = np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).real.sum()
    return np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2.0 * overlap


def random_covariance(d, seed=0):
    root = np.random.default_rng(seed).standard_normal((d, 2 * d))
    return root @ root.T / d


def test_exact_moments_of_a_shifted_and_doubled_gaussian():
    d = 32
    covariance = random_covariance(d)
    distance = frechet_distance_from_moments(np.zeros(d), covariance, np.ones(d), 4.0 * covariance)
    assert distance == pytest.approx(d + np.trace(covariance), rel=1e-9)


def test_diagonal_gaussians_in_closed_form():
    a, b = np.array([0.1, 1.0, 3.0]), np.array([2.0, 0.0, 0.5])
    expected = np.sum((a - b) ** 2)
    zero = np.zeros(3)
    assert frechet_distance_from_moments(zero, np.diag(a**2), zero, np.diag(b**2)) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 16), (300, 200, 1), (20, 30, 40), (2, 2, 5)])
def test_equals_the_eigenvalue_formula_and_the_moments(n, m, d):
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((d, d))
    x, y = rng.standard_normal((n, d)) @ mix, rng.exponential(size=(m, d))
    distance = frechet_distance(x, y)["frechet_distance"]
    assert np.isfinite(distance)
    if d > 1:
        assert distance == pytest.approx(eigvals_formula(x, y), rel=1e-6)
    assert distance == pytest.approx(
        frechet_distance_from_moments(*moments(x), *moments(y)), rel=1e-6
    )


def test_is_zero_symmetric_and_invariant():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((100, 8)), 2.0 * rng.standard_normal((120, 8)) + 0.3
    distance = frechet_distance(x, y)["frechet_distance"]
    assert 0.0 <= frechet_distance(x, x)["frechet_distance"] < 1e-12
    assert frechet_distance(y, x)["frechet_distance"] == pytest.approx(distance, rel=1e-12)
    q, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    rotated = frechet_distance(x @ q + 5.0, y @ q + 5.0)["frechet_distance"]
    assert rotated == pytest.approx(distance, rel=1e-10)
    shuffled = frechet_distance(rng.permutation(x), y)["frechet_distance"]
    assert shuffled == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize(("n", "d", "theory"), [(359, 50, 3.85), (60, 24, 5.94), (20, 8, 2.7)])
def test_null_of_isotropic_features(n, d, theory):
    # By leading order with sample eigenvalues it would be 3.55, 4.60 and 1.99; by the rule
    # d (d + 5) / (2 n), for n much larger than d, 3.83, 5.80 and 2.60.
    rng = np.random.default_rng(3)
    count = 6 if n > 100 else 60
    trials = [frechet_distance(*rng.standard_normal((2, n, d)), seed=i) for i in range(count)]
    values, nulls, stds = (
        np.array([trial[f"frechet_distance{end}"] for trial in trials])
        for end in ("", "_null", "_null_std")
    )
    for found in (values, nulls):
        assert found.mean() == pytest.approx(theory, rel=0.04)
    # The relative error of a standard deviation from r trials is 1 / sqrt(2 (r - 1)).
    assert values.std(ddof=1) == pytest.approx(stds.mean(), rel=5 / np.sqrt(2 * (count - 1)))


def test_null_of_skewed_features_of_unequal_scale():
    rng = np.random.default_rng(4)
    scales = np.linspace(0.2, 3.0, 8)

    def draw(n):
        return rng.exponential(size=(n, 8)) * scales

    trials = [frechet_distance(draw(60), draw(180), seed=i) for i in range(150)]
    values = np.array([trial["frechet_distance"] for trial in trials])
    nulls = np.array([trial["frechet_distance_null"] for trial in trials])
    stderr = np.hypot(values.std(ddof=1), nulls.std(ddof=1)) / np.sqrt(150)
    assert abs(values.mean() - nulls.mean()) < 5 * stderr
    # The rule for isotropic Gaussian features, times the mean variance, does not hold here.
    isotropic = 8 * 13 / 4 * (1 / 60 + 1 / 180) * np.mean(scales**2)
    assert abs(values.mean() - isotropic) > 5 * stderr


def test_stderr_is_the_spread_over_samples():
    rng = np.random.default_rng(5)
    trials = [
        frechet_distance(
            1.5 * rng.standard_normal((400, 8)) + 0.2, rng.standard_normal((600, 8)), num_null=0
        )
        for _ in range(80)
    ]
    spread = np.std([trial["frechet_distance"] for trial in trials], ddof=1)
    stderr = np.mean([trial["frechet_distance_stderr"] for trial in trials])
    assert spread == pytest.approx(stderr, rel=5 / np.sqrt(2 * 79))


def test_infinity_recovers_the_exact_value():
    d, n = 16, 2000
    rng = np.random.default_rng(6)
    x, y = 1.1 * rng.standard_normal((n, d)) + 0.05, rng.standard_normal((n, d))
    exact = d * (0.05**2 + 0.1**2)
    result = frechet_infinity(x, y)
    assert abs(result["frechet_infinity"] - exact) < 2 * result["frechet_infinity_stderr"]
    # The plain distance does not: its bias is d (d + 5) / (2 n).
    assert frechet_distance(x, y)["frechet_distance"] > exact + 0.05


def test_infinity_is_unbiased_with_an_honest_error():
    rng = np.random.default_rng(7)
    trials = [
        frechet_infinity(*rng.standard_normal((2, 500, 8)), num_levels=4, seed=i) for i in range(60)
    ]
    values = np.array([trial["frechet_infinity"] for trial in trials])
    assert abs(values.mean()) < 5 * values.std(ddof=1) / np.sqrt(60)
    stderr = np.mean([trial["frechet_infinity_stderr"] for trial in trials])
    assert values.std(ddof=1) == pytest.approx(stderr, rel=5 / np.sqrt(2 * 59))
    assert all(trial["frechet_infinity_null"] == 0.0 for trial in trials)


def test_few_samples_and_constant_features():
    rng = np.random.default_rng(8)
    few = frechet_distance(rng.standard_normal((8, 8)), rng.standard_normal((90, 8)))
    assert np.isfinite(few["frechet_distance"])
    assert few["frechet_distance_null"] > 0.0
    assert np.isnan(few["frechet_distance_stderr"])
    assert np.isnan(frechet_infinity(*rng.standard_normal((2, 44, 8)))["frechet_infinity"])

    y = rng.standard_normal((90, 8))
    collapsed = frechet_distance(np.tile(y.mean(axis=0), (90, 1)), y)
    expected = np.trace(np.cov(y, rowvar=False))
    assert collapsed["frechet_distance"] == pytest.approx(expected, rel=1e-10)
    assert np.isfinite(collapsed["frechet_distance_stderr"])
    both = frechet_distance(np.ones((9, 2)), np.ones((9, 2)))
    assert all(value == 0.0 for value in both.values())
    # A dead feature, as after a ReLU.
    dead = frechet_distance(np.c_[y, np.zeros(90)], np.c_[2.0 * y, np.zeros(90)])
    alive = frechet_distance(y, 2.0 * y)
    for key, value in alive.items():
        assert dead[key] == pytest.approx(value, rel=1e-9)


def test_bad_input_is_named():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="features has 1 rows, at least 2"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="reference has 1 of 3 rows that are not finite"):
        frechet_distance(x, np.array([[0.0, 0.0], [np.nan, 0.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="features has 2 columns but reference has 3"):
        frechet_distance(x, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="num_levels must be an integer of at least 2"):
        frechet_infinity(x, x, num_levels=1)
    with pytest.raises(ValueError, match="reference_covariance must have shape"):
        frechet_distance_from_moments(np.zeros(2), np.eye(2), np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="covariance is not symmetric"):
        frechet_distance_from_moments(np.zeros(2), [[1.0, 1.0], [0.0, 1.0]], np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="has eigenvalue -1"):
        frechet_distance_from_moments(np.zeros(2), -np.eye(2), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="mean has 3 features"):
        frechet_distance_from_moments(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_features_have_no_errors_of_other_libraries(constant):
    sets = [np.random.default_rng(1).standard_normal((60, 4)) for _ in range(2)]
    sets[constant] = np.ones((60, 4))
    assert np.isfinite(frechet_infinity(*sets)["frechet_infinity"])

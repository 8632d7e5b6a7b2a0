import numpy as np
import pytest

from avae_jax.metrics.prd import prd, prd_curve, prd_from_histograms


def naive_curve(p, q, num_angles=1001):
    precision, recall = [], []
    for i in range(num_angles):
        angle = 1e-10 + i * (np.pi / 2 - 2e-10) / (num_angles - 1)
        slope = np.tan(angle)
        total = sum(min(b * slope, a) for a, b in zip(p, q, strict=True))
        precision.append(total)
        recall.append(total / slope)
    return np.array(precision), np.array(recall)


def f_beta(curve, beta):
    p, r = curve
    return np.max((1 + beta**2) * p * r / (beta**2 * p + r + 1e-10))


def test_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(20))
    precision, recall = naive_curve(p, q)
    curve = prd_from_histograms(p, q)
    np.testing.assert_allclose(curve.precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall, rtol=0, atol=1e-12)


def test_equal_distributions_reach_the_corner():
    p = np.array([0.2, 0.3, 0.5])
    curve = prd_from_histograms(p, p)
    assert curve.precision[500] == pytest.approx(1.0, abs=1e-9)
    assert curve.recall[500] == pytest.approx(1.0, abs=1e-9)
    assert f_beta(curve, 8) == pytest.approx(1.0, abs=1e-9)
    assert f_beta(curve, 1 / 8) == pytest.approx(1.0, abs=1e-9)


def test_disjoint_distributions_score_zero():
    curve = prd_from_histograms([1.0, 0.0], [0.0, 1.0])
    assert curve.precision.max() == 0.0
    assert curve.recall.max() == 0.0


def test_middle_of_the_curve_is_one_minus_total_variation():
    curve = prd_from_histograms([0.25, 0.25, 0.5], [0.5, 0.3, 0.2])
    assert curve.precision[500] == pytest.approx(0.7, abs=1e-12)
    assert curve.recall[500] == pytest.approx(0.7, abs=1e-12)


def test_one_of_two_modes_and_its_mirror():
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    curve, mirror = prd_from_histograms(p, q), prd_from_histograms(q, p)
    # Precision 1 at recall 1/2: F8 = 65 * 0.5 / (64 + 0.5), F1/8 = (65/64) * 0.5 / (1/64 + 0.5).
    assert f_beta(curve, 8) == pytest.approx(0.5039, abs=1e-4)
    assert f_beta(curve, 1 / 8) == pytest.approx(0.9848, abs=1e-4)
    np.testing.assert_allclose(mirror.precision, curve.recall[::-1], atol=1e-6)
    np.testing.assert_allclose(mirror.recall, curve.precision[::-1], atol=1e-6)


def two_modes(n, both, seed):
    rng = np.random.default_rng(seed)
    centers = 10.0 * rng.integers(0, 2, size=(n, 1)) if both else np.zeros((n, 1))
    return rng.standard_normal((n, 4)) + centers


def test_a_lost_mode_lowers_recall_and_swapping_swaps():
    samples, real = two_modes(500, False, 0), two_modes(500, True, 1)
    scores = prd(samples, real, num_clusters=5, num_runs=3)
    mirror = prd(real, samples, num_clusters=5, num_runs=3)
    assert scores["prd_f8"] < 0.6
    assert scores["prd_f1_8"] > 0.9
    assert mirror["prd_f8"] == pytest.approx(scores["prd_f1_8"], abs=0.03)
    assert mirror["prd_f1_8"] == pytest.approx(scores["prd_f8"], abs=0.03)


def test_null_is_the_score_of_equal_distributions():
    options = {"num_runs": 2, "num_null": 10}
    trials = [
        prd(*np.random.default_rng(i).standard_normal((2, 500, 4)), **options) for i in range(12)
    ]
    for name in ("prd_f8", "prd_f1_8"):
        values = np.array([trial[name] for trial in trials])
        nulls = np.array([trial[f"{name}_null"] for trial in trials])
        stderr = np.hypot(values.std(ddof=1), nulls.std(ddof=1)) / np.sqrt(12)
        assert abs(values.mean() - nulls.mean()) < 5 * stderr
        stated = np.mean([trial[f"{name}_null_std"] for trial in trials])
        assert 0.4 < values.std(ddof=1) / stated < 2.0
        assert 0.9 < values.mean() < 1.0


def test_scores_come_from_the_curve_and_repeat():
    x, y = two_modes(200, True, 2), two_modes(200, True, 3) + 0.5
    options = {"num_clusters": 6, "num_runs": 2, "num_angles": 101, "seed": 4}
    curve = prd_curve(x, y, **options)
    assert curve.precision.shape == curve.recall.shape == (101,)
    scores = prd(x, y, num_null=0, **options)
    assert scores == {
        "prd_f8": pytest.approx(f_beta(curve, 8), abs=1e-12),
        "prd_f1_8": pytest.approx(f_beta(curve, 1 / 8), abs=1e-12),
    }
    assert scores == prd(x, y, num_null=0, **options)


def test_degenerate_sets():
    ones = np.ones((12, 2))
    same = prd(ones, ones, num_clusters=3, num_runs=2)
    assert same["prd_f8"] == pytest.approx(1.0, abs=1e-9)
    assert same["prd_f8_null_std"] == pytest.approx(0.0, abs=1e-12)
    apart = prd(ones, -ones, num_clusters=2, num_runs=2)
    assert apart["prd_f8"] == apart["prd_f1_8"] == 0.0
    single = prd(ones[:1], -ones[:1], num_clusters=2, num_runs=1, num_null=1)
    assert single["prd_f8"] == 0.0
    assert np.isnan(single["prd_f8_null_std"])


def test_bad_input_is_named():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="as many rows of each"):
        prd(x, x[:2])
    with pytest.raises(ValueError, match="num_clusters must be an integer from 2 to 6, got 20"):
        prd(x, x)
    with pytest.raises(ValueError, match="num_runs must be an integer of at least 1"):
        prd(x, x, num_clusters=2, num_runs=0)
    with pytest.raises(ValueError, match="num_angles must be an integer of at least 3"):
        prd_curve(x, x, num_clusters=2, num_angles=2)
    with pytest.raises(ValueError, match="features has 3 of 3 rows that are not finite"):
        prd(x * np.nan, x, num_clusters=2)
    with pytest.raises(ValueError, match="q must be non-negative and sum to 1"):
        prd_from_histograms([1.0], [2.0])
    with pytest.raises(ValueError, match="p has 1 bins but q has 2"):
        prd_from_histograms([1.0], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"p must have shape \[num_bins\]"):
        prd_from_histograms([[1.0]], [1.0])

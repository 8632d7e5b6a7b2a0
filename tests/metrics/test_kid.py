import math
import tracemalloc

import numpy as np
import pytest

from avae_jax.metrics.kid import kid, polynomial_mmd


def naive_mmd(x, y):
    """Return the unbiased estimate by a double loop, pairs of a sample with itself left out."""
    d = x.shape[1]

    def mean_kernel(a, b, same):
        values = [
            (float(u @ v) / d + 1.0) ** 3
            for i, u in enumerate(a)
            for j, v in enumerate(b)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2.0 * mean_kernel(x, y, False)


def test_equals_a_naive_double_loop():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 8)), rng.standard_normal((50, 8)) + 0.3
    expected = naive_mmd(x, y)
    whole = kid(x, y, num_subsets=1, subset_size=50)
    assert whole["kid"] == pytest.approx(expected, abs=1e-10)
    assert math.isnan(whole["kid_std"])
    assert polynomial_mmd(x, y)["polynomial_mmd"] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (511, 512), (513, 40)])
def test_full_sets_of_any_size(n, m):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((n, 3)), rng.uniform(size=(m, 3))
    kxx, kyy, kxy = ((a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    np.fill_diagonal(kxx, 0.0)
    np.fill_diagonal(kyy, 0.0)
    expected = kxx.sum() / (n * (n - 1)) + kyy.sum() / (m * (m - 1)) - 2.0 * kxy.mean()
    assert polynomial_mmd(x, y)["polynomial_mmd"] == pytest.approx(expected, abs=1e-10)


def test_subsets_agree_with_the_full_set():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((1000, 8)), rng.standard_normal((1200, 8)) + 0.3
    result = kid(x, y, num_subsets=50, subset_size=200)
    full = polynomial_mmd(x, y)["polynomial_mmd"]
    assert abs(result["kid"] - full) < 5 * result["kid_std"] / np.sqrt(50)
    assert result == kid(x, y, num_subsets=50, subset_size=200)
    assert result != kid(x, y, num_subsets=50, subset_size=200, seed=1)


def test_null_is_zero_with_the_stated_spread():
    rng = np.random.default_rng(3)
    trials = [
        polynomial_mmd(rng.standard_normal((150, 8)), rng.standard_normal((300, 8)))
        for _ in range(200)
    ]
    values = np.array([trial["polynomial_mmd"] for trial in trials])
    assert abs(values.mean()) < 2 * values.std(ddof=1) / np.sqrt(200)
    stated = np.mean([trial["polynomial_mmd_null_std"] for trial in trials])
    # A quadratic form's fourth moment is larger than a Gaussian's.
    assert values.std(ddof=1) == pytest.approx(stated, rel=0.3)
    assert all(trial["polynomial_mmd_null"] == 0.0 for trial in trials)

    subsets = [
        kid(*rng.standard_normal((2, 100, 8)), num_subsets=5, subset_size=50)["kid"]
        for _ in range(200)
    ]
    assert abs(np.mean(subsets)) < 2 * np.std(subsets, ddof=1) / np.sqrt(200)


def test_stderr_is_the_spread_over_samples():
    rng = np.random.default_rng(4)
    trials = [
        polynomial_mmd(1.3 * rng.standard_normal((200, 4)) + 0.5, rng.standard_normal((300, 4)))
        for _ in range(100)
    ]
    spread = np.std([trial["polynomial_mmd"] for trial in trials], ddof=1)
    stderr = np.sqrt(np.mean([trial["polynomial_mmd_stderr"] ** 2 for trial in trials]))
    assert spread == pytest.approx(stderr, rel=5 / np.sqrt(2 * 99))


def test_memory_is_linear_in_the_samples():
    x = np.random.default_rng(5).standard_normal((4000, 4))
    tracemalloc.start()
    try:
        polynomial_mmd(x, x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 2


def test_constant_features():
    ones = np.ones((5, 2))
    assert polynomial_mmd(ones, ones) == dict.fromkeys(polynomial_mmd(ones, ones), 0.0)
    assert kid(ones, 2.0 * ones, subset_size=5)["kid"] == pytest.approx(8.0 + 125.0 - 54.0)


def test_bad_input_is_named():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="subset_size must be an integer from 2 to 3"):
        kid(x, x)
    with pytest.raises(ValueError, match="num_subsets must be an integer of at least 1"):
        kid(x, x, subset_size=2, num_subsets=0)
    with pytest.raises(ValueError, match="features has 1 rows"):
        polynomial_mmd(x[:1], x)
    with pytest.raises(ValueError, match="features has 2 columns but reference has 1"):
        kid(x, x[:, :1], subset_size=2)
    with pytest.raises(ValueError, match="not finite"):
        polynomial_mmd(x, x * np.nan)


def test_subsets_that_cannot_differ_have_no_spread():
    x, y = np.random.default_rng(0).standard_normal((2, 30, 4))
    assert math.isnan(kid(x, y, subset_size=30)["kid_std"])
    assert math.isnan(kid(x, y, subset_size=10, num_subsets=1)["kid_std"])
    assert kid(x, y, subset_size=10, num_subsets=5)["kid_std"] > 0

import numpy as np
import pytest
from scipy import stats

from avae_jax.metrics import clipped_density_coverage
from avae_jax.metrics.clipped import expected_coverage

NAMES = ("clipped_density", "clipped_coverage")


def dense(x, real, k):
    """The definition with whole distance matrices and the beta-binomial law of SciPy."""
    n, m = len(x), len(real)
    own = np.linalg.norm(real[:, None] - real[None], axis=-1)
    np.fill_diagonal(own, np.inf)
    radii = np.sort(own, axis=1)[:, k - 1]
    cut = np.minimum(radii, np.median(radii))
    to_x = np.linalg.norm(real[:, None] - x[None], axis=-1)
    score = np.minimum((to_x <= cut[:, None]).sum(axis=0) / k, 1).mean()
    best = np.minimum((own <= cut[:, None]).sum(axis=0) / k, 1).mean()
    covered = np.minimum((to_x < radii[:, None]).sum(axis=1), k).mean() / k
    f = [
        np.minimum(np.arange(M + 1), k) @ stats.betabinom.pmf(np.arange(M + 1), M, k, m - k) / k
        for M in range(n + 1)
    ]
    return min(score / best, 1.0), np.interp(covered, f, np.arange(n + 1) / n), np.array(f)


@pytest.mark.parametrize(("n", "m", "k"), [(50, 60, 5), (80, 40, 3), (4, 9, 2), (60, 257, 1)])
def test_equals_the_dense_form(n, m, k):
    rng = np.random.default_rng(k)
    x, real = 0.8 * rng.standard_normal((n, 3)) + 0.2, rng.standard_normal((m, 3))
    density, coverage, f = dense(x, real, k)
    np.testing.assert_allclose(expected_coverage(np.arange(n + 1), m, k), f, atol=1e-12)
    found = clipped_density_coverage(x, real, k=k, num_null=0)
    assert found["clipped_density"] == pytest.approx(density, abs=1e-12)
    assert found["clipped_coverage"] == pytest.approx(coverage, abs=1e-9)
    moved = clipped_density_coverage(x + 1e7, real + 1e7, k=k, num_null=0)
    for name in NAMES:
        assert moved[name] == pytest.approx(found[name], abs=1e-6)


def test_falls_in_proportion_to_the_bad_samples():
    rng = np.random.default_rng(0)
    real, good = rng.standard_normal((2, 600, 4))
    for share in (0.25, 0.5, 0.75):
        bad = np.arange(600) < share * 600
        samples = np.where(bad[:, None], 50.0 + 0.1 * good, good)
        found = clipped_density_coverage(samples, real, num_null=0)
        for name in NAMES:
            assert found[name] == pytest.approx(1 - share, abs=0.06), name


def test_one_outlier_of_the_real_data_moves_nothing():
    rng = np.random.default_rng(1)
    real, samples = rng.standard_normal((2, 300, 4))
    far = np.r_[real[:299], np.full((1, 4), 40.0)]
    samples[:100] += 15.0
    values = [clipped_density_coverage(samples, y, num_null=0) for y in (real, far)]
    for name in NAMES:
        assert values[0][name] == pytest.approx(values[1][name], abs=0.02)
    assert values[0]["clipped_density"] == pytest.approx(2 / 3, abs=0.08)


def test_null_is_the_mean_for_equal_laws():
    rng = np.random.default_rng(2)
    trials = [
        clipped_density_coverage(*rng.standard_normal((2, 80, 3)), num_null=5, seed=i)
        for i in range(40)
    ]
    for name in NAMES:
        values, nulls = (np.array([t[name + end] for t in trials]) for end in ("", "_null"))
        error = np.hypot(values.std(ddof=1), nulls.std(ddof=1)) / np.sqrt(40)
        assert abs(values.mean() - nulls.mean()) < 5 * error, name
        assert 0.8 < values.mean() < 1.0


def test_degenerate_sets_and_bad_input():
    x = np.random.default_rng(3).standard_normal((20, 2))
    collapsed = clipped_density_coverage(np.full((20, 2), 9.0), x, num_null=0)
    assert collapsed["clipped_coverage"] == collapsed["clipped_density"] == 0.0
    constant = clipped_density_coverage(x, np.ones((20, 2)), num_null=0)
    # All balls have radius 0: they hold the copies, and no sample.
    assert constant["clipped_coverage"] == constant["clipped_density"] == 0.0
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        clipped_density_coverage(x, x, k=0)
    with pytest.raises(ValueError, match="reference has 6 rows, at least 7"):
        clipped_density_coverage(x, x[:6])

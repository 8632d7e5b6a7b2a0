import math

import numpy as np
import pytest
from scipy import special, stats

from avae_jax.metrics.c2st import _auc, c2st


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_auc_and_its_variance():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 30, 70) + 5.0, rng.integers(0, 30, 90).astype(float)
    expected = roc_auc_score(np.arange(160) < 70, np.concatenate([a, b]))
    auc, variance = _auc(a, b)
    assert auc == pytest.approx(expected, abs=1e-12)
    wins = np.heaviside(a[:, None] - b[None], 0.5)
    by_hand = wins.mean(1).var(ddof=1) / 70 + wins.mean(0).var(ddof=1) / 90
    assert variance == pytest.approx(by_hand, rel=1e-12)


def test_a_shift_is_told_apart_as_well_as_can_be():
    found = c2st(normal(0, 3000, 4) + np.array([1.0, 0, 0, 0]))
    best = special.ndtr(1 / math.sqrt(2))
    assert abs(found["c2st_auc"] - best) < 5 * found["c2st_auc_stderr"] + 0.01
    assert found["c2st_auc"] < best + 5 * found["c2st_auc_stderr"]


def test_a_wrong_scale_shows_as_well_as_the_radius_can():
    # The likelihood ratio of two scales is a function of |z|^2: its AUC is the best there is.
    d, s = 16, 0.9
    z = s * normal(0, 3000, d)
    grid = (np.arange(20_000) + 0.5) / 20_000
    best = np.mean(stats.chi2.sf(s**2 * stats.chi2.ppf(grid, d), d))
    found = c2st(z)
    assert abs(found["c2st_auc"] - best) < 5 * found["c2st_auc_stderr"] + 0.02


def test_ideal_codes_lie_in_the_null():
    found = [c2st(normal(i, 400, 3), max_epochs=5, seed=i) for i in range(12)]
    values = [f["c2st_auc"] for f in found]
    std = found[0]["c2st_auc_null_std"]
    assert abs(np.mean(values) - 0.5) < 5 * std / math.sqrt(12)
    assert all(f["c2st_auc_null"] == 0.5 for f in found)
    # Three folds of 133 and 134 rows of either set; each pair of folds counts twice.
    rows = 400 / 3
    assert std == pytest.approx(math.sqrt(2 * (2 * rows + 1) / (12 * rows**2 * 3)), rel=1e-3)
    assert found[0]["c2st_auc_stderr"] == pytest.approx(std / math.sqrt(2), rel=0.2)


def test_folds_of_a_linear_score_are_correlated():
    # The bound on the null's variance: a score that is the difference of the training rows' means.
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000, 3, 40, 5)).mean(axis=3)
    gap = a - b
    scores = [np.sum(gap[:, k] * (gap.sum(axis=1) - gap[:, k]), axis=1) for k in range(3)]
    independent = sum(np.var(score) for score in scores)
    assert np.var(np.sum(scores, axis=0)) / independent == pytest.approx(2.0, rel=0.1)


def test_codes_from_the_default_generator_are_not_their_own_reference():
    found = c2st(normal(0, 2000, 32), max_epochs=5, seed=0)
    assert abs(found["c2st_auc"] - 0.5) < 5 * found["c2st_auc_null_std"]


def test_halves_of_a_real_data_set_are_alike():
    from sklearn.datasets import load_digits

    # One split of 900 has a deviation of .014; six bring .02 to 3.6 of them.
    values = []
    for seed in range(6):
        x = np.random.default_rng(seed).permutation(load_digits().data)
        values.append(c2st(x[:900], reference=x[900:], seed=seed)["c2st_auc"])
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)
    rotated = x[900:].reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
    assert c2st(x[:900], reference=rotated)["c2st_auc"] > 0.95


def test_sensitivity():
    d, n = 16, 3000
    collapsed = c2st(normal(0, n, d) * np.where(np.arange(d) < 2, 0.1, 1.0))["c2st_auc"]
    smaller = c2st(0.95 * normal(0, n, d))["c2st_auc"]
    tailed = np.random.default_rng(0).standard_t(5, (n, d)) / math.sqrt(5 / 3)
    std = c2st(normal(0, n, d), max_epochs=1)["c2st_auc_null_std"]
    assert collapsed > 0.9
    assert smaller > 0.5 + 5 * std
    assert c2st(tailed)["c2st_auc"] > 0.5 + 5 * std


def test_small_and_degenerate_samples():
    for found in (c2st(np.zeros((1, 3))), c2st(normal(0, 9, 3), reference=np.zeros((5, 3)))):
        assert all(math.isnan(value) for value in found.values())
    assert 0 <= c2st(normal(0, 6, 30))["c2st_auc"] <= 1
    assert c2st(np.ones((300, 3)))["c2st_auc"] > 0.95
    assert c2st(np.ones((30, 3)), reference=np.ones((30, 3)))["c2st_auc"] == 0.5


def test_bad_input_is_named():
    z = normal(0, 9, 3)
    with pytest.raises(ValueError, match="not finite"):
        c2st(np.full((9, 3), np.nan))
    with pytest.raises(ValueError, match="num_folds must be an integer of at least 2, got 1"):
        c2st(z, num_folds=1)
    with pytest.raises(ValueError, match="hidden must be an integer of at least 1, got 0"):
        c2st(z, hidden=0)
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        c2st(z, scale=-2.0)
    with pytest.raises(ValueError, match="reference has 2"):
        c2st(z, reference=np.zeros((9, 2)))

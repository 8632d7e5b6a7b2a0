import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from avae_jax.metrics.knn_kl import knn_kl


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(("n", "m", "k"), [(2, 1, 1), (30, 50, 5), (513, 511, 3), (40, 700, 20)])
def test_equals_a_tree_search(n, m, k):
    x, y = 0.8 * normal(0, n, 3), normal(1, m, 3)
    own = cKDTree(x).query(x, k + 1)[0][:, -1]
    other = cKDTree(y).query(x, [k])[0][:, -1]
    expected = 3 * np.mean(np.log(other / own)) + math.log(m / (n - 1))
    found = knn_kl(x, reference=y, k=k, num_null=0)["knn_kl"]
    assert found == pytest.approx(expected, abs=1e-10)


def test_float64_ranks_what_float32_cannot():
    # Neighbours whose squared distances differ by less than float32 resolves.
    x = normal(0, 300, 2) + 100.0
    y = normal(1, 300, 2) + 100.0
    near = knn_kl(x - 100.0, reference=y - 100.0, num_null=0)["knn_kl"]
    assert knn_kl(x, reference=y, num_null=0)["knn_kl"] == pytest.approx(near, abs=1e-9)


def test_low_dimension_is_close_to_the_true_divergence():
    n, d, s = 4000, 2, 0.7
    true = d / 2 * (s**2 - 1 - math.log(s**2))
    values = [knn_kl(s * normal(i, n, d), num_null=0, seed=i)["knn_kl"] for i in range(6)]
    assert abs(np.mean(values) - true) < 0.02 + 5 * np.std(values, ddof=1) / math.sqrt(6)


@pytest.mark.parametrize("with_reference", [False, True])
def test_ideal_codes_lie_in_the_null(with_reference):
    values, nulls = [], []
    for i in range(20):
        reference = 0.7 * normal(100 + i, 250, 4) if with_reference else None
        found = knn_kl(0.7 * normal(i, 300, 4), reference=reference, scale=0.7, seed=i)
        values.append(found["knn_kl"])
        nulls.append(found["knn_kl_null"])
    error = math.hypot(np.std(values, ddof=1), np.std(nulls, ddof=1)) / math.sqrt(20)
    assert abs(np.mean(values) - np.mean(nulls)) < 5 * error
    assert abs(np.mean(nulls)) < 5 * error + 0.02


def test_codes_from_the_default_generator_are_not_their_own_reference():
    # With the seed of the codes as the seed of the metric the reference must still be fresh.
    found = knn_kl(normal(0, 2000, 16), seed=0)
    assert abs(found["knn_kl"] - found["knn_kl_null"]) < 0.3


def test_sensitivity():
    n, d = 3000, 16
    ideal = knn_kl(normal(0, n, d))
    band = ideal["knn_kl_null"] + 5 * max(ideal["knn_kl_null_std"], 0.02)
    assert ideal["knn_kl"] < band
    smaller = knn_kl(0.95 * normal(0, n, d), num_null=0)["knn_kl"]
    collapsed = knn_kl(normal(0, n, d) * np.where(np.arange(d) < 2, 0.1, 1), num_null=0)["knn_kl"]
    # Of unit variance: tails that also widen the codes cancel in the ratio of distances.
    tailed = np.random.default_rng(0).standard_t(5, (n, d)) / math.sqrt(5 / 3)
    assert band < smaller < collapsed
    assert band < knn_kl(tailed, num_null=0)["knn_kl"] < collapsed


def test_small_and_degenerate_samples():
    for found in (
        knn_kl(np.zeros((1, 3))),
        knn_kl(normal(0, 5, 3), k=5),
        knn_kl(normal(0, 9, 3), reference=np.zeros((4, 3)), k=5),
    ):
        assert all(math.isnan(value) for value in found.values())
    assert math.isfinite(knn_kl(normal(0, 10, 30))["knn_kl"])
    assert knn_kl(np.ones((20, 3)))["knn_kl"] == math.inf
    # As many copies as k leave a neighbour at a distance.
    assert math.isfinite(knn_kl(np.repeat(normal(0, 20, 3), 5, axis=0), k=5)["knn_kl"])
    assert knn_kl(np.repeat(normal(0, 20, 3), 6, axis=0), k=5)["knn_kl"] == math.inf
    assert math.isnan(knn_kl(normal(0, 20, 3), num_null=1)["knn_kl_null_std"])


def test_bad_input_is_named():
    z = normal(0, 9, 3)
    with pytest.raises(ValueError, match="not finite"):
        knn_kl(np.full((9, 3), np.nan))
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        knn_kl(z, k=0)
    with pytest.raises(ValueError, match="num_null must be an integer of at least 0, got -1"):
        knn_kl(z, num_null=-1)
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        knn_kl(z, scale=math.nan)
    with pytest.raises(ValueError, match="reference has 2"):
        knn_kl(z, reference=np.zeros((9, 2)))

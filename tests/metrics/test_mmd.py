import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from avae_jax.metrics.mmd import cmmd, mmd


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


def kernel_matrix(x, y, kernel, g):
    square = cdist(x, y, "sqeuclidean")
    return np.exp(-square / (2 * g**2)) if kernel == "rbf" else g**2 / (g**2 + square)


def unbiased(kxx, kyy, kxy):
    n, m = kxy.shape
    return (
        (kxx.sum() - np.trace(kxx)) / (n * (n - 1))
        + (kyy.sum() - np.trace(kyy)) / (m * (m - 1))
        - 2 * kxy.mean()
    )


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 2), (511, 40), (512, 513), (60, 2049)])
def test_equals_the_dense_estimate(kernel, n, m):
    x, y = 0.8 * normal(0, n, 3), normal(1, m, 3) + 0.2
    expected = unbiased(*(kernel_matrix(*p, kernel, 1.7) for p in ((x, x), (y, y), (x, y))))
    found = mmd(x, reference=y, kernel=kernel, bandwidth=1.7)["mmd"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_default_bandwidth_is_the_root_mean_squared_distance():
    x, y = normal(0, 30, 4), 3 * normal(1, 40, 4)
    g = math.sqrt(cdist(y, y, "sqeuclidean").mean())
    assert mmd(x, reference=y) == pytest.approx(mmd(x, reference=y, bandwidth=g), abs=1e-12)
    assert mmd(x, scale=0.5) == pytest.approx(mmd(x, scale=0.5, bandwidth=math.sqrt(2)), abs=1e-12)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize(("d", "scale", "g"), [(1, 1.0, 0.3), (16, 0.7, None), (128, 1.0, None)])
def test_prior_terms_equal_monte_carlo(kernel, d, scale, g):
    z = np.concatenate([normal(0, 3, d), np.full((1, d), 0.4), np.zeros((1, d))])
    width = math.sqrt(2 * d) * scale if g is None else g
    y = scale * normal(1, 100_000, d)
    k = kernel_matrix(z, y, kernel, width)
    pairs = np.sum((y[::2] - y[1::2]) ** 2, axis=1)
    yy = np.exp(-pairs / (2 * width**2)) if kernel == "rbf" else width**2 / (width**2 + pairs)
    kzz = kernel_matrix(z, z, kernel, width)
    expected = (kzz.sum() - np.trace(kzz)) / 20 - 2 * k.mean() + yy.mean()
    stderr = math.hypot(2 * k.mean(axis=0).std() / math.sqrt(len(y)), yy.std() / math.sqrt(len(yy)))
    found = mmd(z, kernel=kernel, scale=scale, bandwidth=g)["mmd"]
    assert abs(found - expected) < 5 * stderr


def test_equals_the_closed_form_between_gaussians():
    # z from N(mu, s^2 I): all three terms are Gaussian integrals.
    n, d, s, g = 4000, 8, 1.3, 4.0
    mu = np.full(d, 0.4)
    z = mu + s * normal(0, n, d)

    def term(variance, shift2):
        ratio = (g**2 / (g**2 + variance)) ** (d / 2)
        return ratio * math.exp(-shift2 / (2 * (g**2 + variance)))

    expected = term(2 * s**2, 0) + term(2, 0) - 2 * term(1 + s**2, mu @ mu)
    for reference in (None, normal(1, n, d)):
        found = mmd(z, reference=reference, bandwidth=g)
        assert abs(found["mmd"] - expected) < 5 * found["mmd_stderr"]
        assert found["mmd_stderr"] < 0.06 * expected


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_null_is_centred_and_has_the_stated_spread(kernel):
    n, d, trials = 40, 5, 300
    found = [mmd(0.7 * normal(i, n, d), kernel=kernel, scale=0.7) for i in range(trials)]
    values = np.array([f["mmd"] for f in found])
    spread = values.std(ddof=1)
    assert abs(values.mean()) < 5 * spread / math.sqrt(trials)
    # The fourth moment gives the error of a variance.
    error = math.sqrt(np.mean((values - values.mean()) ** 4) / spread**4 - 1) / (2 * trials**0.5)
    assert abs(found[0]["mmd_null_std"] / spread - 1) < 5 * error + 0.05


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 4), (2, 5)])
def test_permutation_null_equals_all_permutations(n, m):
    x, y = normal(0, n, 2), 1.5 * normal(1, m, 2)
    pooled = np.concatenate([x, y])
    k = kernel_matrix(pooled, pooled, "rbf", 1.0)
    values = []
    for chosen in itertools.combinations(range(n + m), n):
        a, b = np.array(chosen), np.setdiff1d(np.arange(n + m), chosen)
        values.append(unbiased(k[np.ix_(a, a)], k[np.ix_(b, b)], k[np.ix_(a, b)]))
    found = mmd(x, reference=y, bandwidth=1.0)
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert found["mmd_null_std"] == pytest.approx(np.std(values), abs=1e-12)


def test_standard_error_is_the_spread_away_from_the_null():
    found = [mmd(normal(i, 60, 3) + 1.0) for i in range(200)]
    spread = np.std([f["mmd"] for f in found], ddof=1)
    assert np.mean([f["mmd_stderr"] for f in found]) == pytest.approx(spread, rel=0.25)


def test_sensitivity():
    d, n = 16, 3000
    ideal = mmd(normal(0, n, d), kernel="imq")
    assert abs(ideal["mmd"]) < 5 * ideal["mmd_null_std"]
    smaller = mmd(0.95 * normal(0, n, d), kernel="imq")["mmd"]
    collapsed = mmd(normal(0, n, d) * np.where(np.arange(d) < 2, 0.1, 1.0), kernel="imq")["mmd"]
    tailed = mmd(np.random.default_rng(0).standard_t(5, (n, d)), kernel="imq")["mmd"]
    assert 5 * ideal["mmd_null_std"] < smaller < collapsed < tailed


def test_memory_is_not_quadratic():
    z = normal(0, 6000, 4)
    tracemalloc.start()
    mmd(z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000**2 * 8 / 4


def test_small_and_degenerate_samples():
    assert all(math.isnan(value) for value in mmd(np.zeros((1, 3))).values())
    assert all(math.isnan(v) for v in mmd(normal(0, 5, 3), reference=np.ones((4, 3))).values())
    single = mmd(normal(0, 5, 3), reference=np.ones((1, 3)), bandwidth=1.0)
    assert all(math.isnan(value) for value in single.values())
    # Fewer codes than dimensions and constant codes are well defined.
    assert math.isfinite(mmd(normal(0, 5, 30))["mmd"])
    d, g2 = 3, 6.0
    expected = 1 - 2 * (g2 / (g2 + 1)) ** (d / 2) + (g2 / (g2 + 2)) ** (d / 2)
    assert mmd(np.zeros((10, d)))["mmd"] == pytest.approx(expected, abs=1e-12)
    z = normal(0, 20, 3)
    assert mmd(z, reference=z, bandwidth=2.0)["mmd"] < 0


def test_bad_input_is_named():
    z = normal(0, 5, 3)
    with pytest.raises(ValueError, match="not finite"):
        mmd(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="z has latent_dim 3 but reference has 2"):
        mmd(z, reference=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="kernel must be"):
        mmd(z, kernel="linear")
    with pytest.raises(ValueError, match="bandwidth must be finite and positive"):
        mmd(z, bandwidth=0.0)
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        mmd(z, scale=-1.0)


def test_cmmd_equals_the_mean_over_all_pairs_of_unit_rows():
    x, y = np.random.default_rng(0).standard_normal((2, 30, 5))
    y = y[:20] + 1.0
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))

    def k(p, q):
        return np.exp(-np.sum((p[:, None] - q[None]) ** 2, axis=-1) / 200.0)

    def whole(p, q):
        return 1000.0 * (k(p, p).mean() + k(q, q).mean() - 2.0 * k(p, q).mean())

    found = cmmd(4.0 * x, 0.1 * y)
    assert found["cmmd"] == pytest.approx(whole(a, b), rel=1e-9)
    pooled = np.concatenate([a, b])
    rng = np.random.default_rng(1)
    values = []
    for _ in range(1000):
        pooled = rng.permutation(pooled)
        values.append(whole(pooled[:30], pooled[30:]))
    assert abs(found["cmmd_null"] - np.mean(values)) < 5 * np.std(values) / np.sqrt(1000)
    assert found["cmmd_null_std"] == pytest.approx(np.std(values), rel=5 / np.sqrt(2000) + 0.05)
    # A row of zeros has no direction.
    assert all(np.isnan(value) for value in cmmd(x, 0.0 * y).values())

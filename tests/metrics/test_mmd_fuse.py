import itertools
import math

import numpy as np
import pytest
from scipy import special

from avae_jax.metrics.mmd_fuse import mmd_fuse


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


def dense(x, y):
    """The statistic from whole matrices."""
    w = np.r_[x, y]
    n, m, s = len(x), len(y), min(len(x), len(y))
    exponents = []
    for order in (1, 2):
        r = np.linalg.norm(w[:, None] - w[None], ord=order, axis=-1)
        off = r[np.triu_indices(n + m, 1)]
        low, high = np.quantile(off, (0.05, 0.95))
        for g in np.linspace(low / 2, 2 * high, 10):
            k = np.exp(-np.sqrt(2) * r / g) if order == 1 else np.exp(-(r**2) / (2 * g**2))
            np.fill_diagonal(k, 0.0)
            mmd = k[:n, :n].sum() / (n * (n - 1)) + k[n:, n:].sum() / (m * (m - 1))
            mmd -= 2 * k[:n, n:].mean()
            exponents.append((s * (s - 1)) ** 1.5 * mmd / np.sqrt(np.sum(k**2)))
    return special.logsumexp(exponents) - np.log(20)


@pytest.mark.parametrize(("n", "m", "d"), [(12, 9, 3), (2, 5, 1), (20, 20, 7)])
def test_equals_the_dense_form(n, m, d):
    x, y = 1.3 * normal(0, n, d), normal(1, m, d)
    found = mmd_fuse(x, reference=y, num_permutations=19)
    assert found["mmd_fuse"] == pytest.approx(dense(x, y), rel=1e-9)


def test_null_is_that_of_all_exchanges():
    x, y = normal(0, 4, 2), normal(1, 3, 2) + 1.0
    w = np.r_[x, y]
    values = []
    for chosen in itertools.combinations(range(7), 4):
        rest = [i for i in range(7) if i not in chosen]
        values.append(dense(w[list(chosen)], w[rest]))
    found = mmd_fuse(x, reference=y, num_permutations=4000)
    error = np.std(values) / math.sqrt(4000)
    assert abs(found["mmd_fuse_null"] - np.mean(values)) < 5 * error
    share = np.mean(np.array(values) >= dense(x, y) - 1e-9)
    assert found["mmd_fuse_p"] == pytest.approx(share, abs=5 * 0.5 / math.sqrt(4000))


def test_level_is_exact_and_power_is_there():
    def p(z, seed):
        return mmd_fuse(z, seed=seed, num_permutations=19)["mmd_fuse_p"]

    # Of 100 tests at a level of one half; the count has the deviation 5.
    ideal = [p(normal(100 + i, 20, 2), i) for i in range(100)]
    assert abs(np.sum(np.array(ideal) <= 0.5) - 50) <= 25
    sign = np.random.default_rng(3).choice([-1.0, 1.0], size=(150, 1))
    clusters = np.c_[0.95 * sign + 0.3 * normal(4, 150, 1), normal(5, 150, 1)]
    for z in (clusters, normal(6, 150, 2) * [2.0, 0.5], normal(7, 150, 2) + 0.7):
        assert p(z, 1) == 0.05
        assert p(0.5 * z, 1) == 0.05


def test_degenerate_sets_and_bad_input():
    assert all(math.isnan(v) for v in mmd_fuse(np.ones((3, 2)), reference=np.ones((4, 2))).values())
    same = mmd_fuse(normal(0, 9, 2), reference=normal(0, 9, 2))
    assert same["mmd_fuse_p"] > 0.5
    with pytest.raises(ValueError, match="z has 1 rows, at least 2"):
        mmd_fuse(normal(0, 1, 2))
    with pytest.raises(ValueError, match="num_permutations must be an integer of at least 19"):
        mmd_fuse(normal(0, 9, 2), num_permutations=5)
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        mmd_fuse(normal(0, 9, 2), scale=0.0)

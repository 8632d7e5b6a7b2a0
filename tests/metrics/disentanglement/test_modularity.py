import math

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import FactorGrid, modularity


def sample(sizes, n, seed=0):
    grid = FactorGrid(tuple(map(str, range(len(sizes)))), sizes)
    return grid.factors(grid.sample(np.random.default_rng(seed), n))


def test_equals_the_definition_on_known_information():
    # Code 0 is factor 0; code 1 is both factors; code 2 is constant, without information.
    factors = np.stack(np.meshgrid(np.arange(2), np.arange(4)), axis=-1).reshape(-1, 2)
    codes = np.stack([factors[:, 0], factors[:, 0] + 2 * factors[:, 1], 0 * factors[:, 0]], axis=1)
    # m_1 = (log 2, log 4): 1 - (log 2 / log 4)^2 = 3/4.
    expected = (1.0 + 0.75 + 0.0) / 3.0
    score = modularity(codes * 1.0, factors, num_bins=20)["modularity"]
    assert score == pytest.approx(expected, abs=1e-12)


def test_equals_a_naive_computation():
    metrics = pytest.importorskip("sklearn.metrics")
    factors = sample((3, 4, 5), 800)
    rng = np.random.default_rng(0)
    codes = factors @ rng.standard_normal((3, 4)) + rng.standard_normal((800, 4))
    scores = []
    for z in codes.T:
        bins = np.digitize(z, np.histogram(z, 20)[1][:-1])
        m = [metrics.mutual_info_score(factor, bins) for factor in factors.T]
        best = int(np.argmax(m))
        rest = sum(m[k] ** 2 for k in range(3) if k != best)
        scores.append(1 - rest / (m[best] ** 2 * 2))
    assert modularity(codes, factors)["modularity"] == pytest.approx(np.mean(scores), abs=1e-12)


def test_perfect_code_scores_one_and_repeats_do_not_matter():
    factors = sample((3, 6, 40, 32, 32), 10_000)
    assert modularity(factors * 1.0, factors)["modularity"] > 0.99
    twice = np.concatenate([factors, factors], axis=1) * 1.0
    assert modularity(twice, factors)["modularity"] > 0.99


def test_noise_scores_its_null_not_zero():
    factors = sample((3, 6, 10), 3000)
    codes = np.random.default_rng(3).standard_normal((3000, 8))
    scores = modularity(codes, factors, num_null=16)
    assert scores["modularity_null"] > 0.2
    gap = abs(scores["modularity"] - scores["modularity_null"])
    assert gap < 5 * scores["modularity_null_std"]


def test_constant_codes_score_zero():
    factors = sample((3, 4), 1000)
    assert modularity(np.full((1000, 3), 0.1), factors)["modularity"] == 0.0


def test_edges():
    factors = sample((3, 4), 5)
    codes = np.random.default_rng(0).standard_normal((5, 9))
    assert 0.0 <= modularity(codes, factors)["modularity"] <= 1.0
    assert math.isnan(modularity(codes, factors[:, :1])["modularity"])
    with pytest.raises(ValueError, match="one value only"):
        modularity(codes, 0 * factors)
    with pytest.raises(ValueError, match="not finite"):
        modularity(codes * np.nan, factors)
    with pytest.raises(ValueError, match="at least 2"):
        modularity(codes[:1], factors[:1])

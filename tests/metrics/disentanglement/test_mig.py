import math

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import FactorGrid, mig, mig_per_factor

DSPRITES = FactorGrid(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))


def sample(grid, n, seed=0):
    return grid.factors(grid.sample(np.random.default_rng(seed), n))


def naive_gaps(codes, factors, num_bins):
    """Return the gaps of the definition in plain loops, the bins by comparison with each edge."""
    n, d = codes.shape
    gaps = []
    for k in range(factors.shape[1]):
        values = factors[:, k].tolist()
        information = []
        for j in range(d):
            low, high = codes[:, j].min(), codes[:, j].max()
            edges = [low + (high - low) * i / num_bins for i in range(num_bins)]
            bins = [sum(edge <= z for edge in edges) for z in codes[:, j].tolist()]
            pairs = list(zip(bins, values, strict=True))
            total = 0.0
            for a, v in sorted(set(pairs)):
                joint = pairs.count((a, v)) / n
                total += joint * math.log(joint * n * n / bins.count(a) / values.count(v))
            information.append(total)
        shares = [values.count(v) / n for v in sorted(set(values))]
        entropy = -sum(p * math.log(p) for p in shares)
        first, second = sorted(information)[:-3:-1]
        gaps.append((first - second) / entropy)
    return gaps


@pytest.mark.parametrize("num_bins", [2, 7])
def test_equals_the_definition_in_loops(num_bins):
    rng = np.random.default_rng(0)
    factors = sample(FactorGrid(("a", "b"), (3, 5)), 300)
    codes = factors @ rng.standard_normal((2, 4)) + 0.3 * rng.standard_normal((300, 4))
    expected = naive_gaps(codes, factors, num_bins)
    np.testing.assert_allclose(
        mig_per_factor(codes, factors, num_bins=num_bins), expected, rtol=0, atol=1e-12
    )
    scores = mig(codes, factors, num_bins=num_bins)
    assert scores["mig"] == pytest.approx(np.mean(expected), abs=1e-12)
    # Integer codes put values on bin edges.
    expected = naive_gaps(factors.astype(float), factors, num_bins)
    assert scores["mig_ceiling"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_equals_sklearn_mutual_information():
    metrics = pytest.importorskip("sklearn.metrics")
    factors = sample(DSPRITES, 2000)
    codes = np.random.default_rng(1).standard_normal((2000, 3)) + factors[:, :3]
    gaps = []
    for factor in factors.T:
        information = []
        for z in codes.T:
            bins = np.digitize(z, np.histogram(z, 20)[1][:-1])
            information.append(metrics.mutual_info_score(factor, bins))
        first, second = sorted(information)[:-3:-1]
        gaps.append((first - second) / metrics.mutual_info_score(factor, factor))
    np.testing.assert_allclose(mig_per_factor(codes, factors), gaps, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_bins", "ceiling"), [(20, 0.895), (10, 0.786)])
def test_dsprites_ceiling(num_bins, ceiling):
    factors = sample(DSPRITES, 10_000)
    # Values in any affine scaling, as a network would give them.
    codes = factors * [1.0, -0.1, 2.0, 0.3, -5.0] + 7.0
    scores = mig(codes, factors, num_bins=num_bins)
    assert scores["mig"] == pytest.approx(ceiling, abs=0.01)
    assert scores["mig_ceiling"] == pytest.approx(ceiling, abs=0.01)


def test_perfect_code_with_few_values_scores_one():
    factors = sample(FactorGrid(("a", "b", "c"), (10, 8, 15)), 10_000)
    assert mig(factors.astype(float), factors, num_bins=20)["mig"] > 0.99


def test_noise_scores_its_null():
    factors = sample(DSPRITES, 10_000)
    scores = mig(np.random.default_rng(1).standard_normal((10_000, 10)), factors, num_null=16)
    assert scores["mig"] < 0.002
    assert abs(scores["mig"] - scores["mig_null"]) < 5 * scores["mig_null_std"]
    assert set(mig(factors[:, :2] * 1.0, factors, num_null=0)) == {"mig", "mig_ceiling"}


def test_constant_codes_have_no_information():
    factors = sample(DSPRITES, 1000)
    assert mig(np.full((1000, 3), 0.1), factors)["mig"] == 0.0
    few = sample(FactorGrid(("a", "b"), (3, 4)), 1000)
    with_constant = np.column_stack([np.full(1000, 0.1), few])
    without = mig(few * 1.0, few)["mig"]
    assert mig(with_constant, few)["mig"] >= without > 0.9


def test_codes_constant_up_to_round_off_count_as_constant():
    factors = sample(DSPRITES, 1000)
    codes = np.where(factors[:, :3] > 1, 1.0, np.nextafter(1.0, 2.0))
    assert mig(codes, factors)["mig"] == 0.0


def test_order_and_sign_of_codes_do_not_matter():
    factors = sample(DSPRITES, 2000)
    codes = factors + np.random.default_rng(0).standard_normal((2000, 5))
    score = mig(codes, factors)["mig"]
    assert mig(codes[:, ::-1], factors)["mig"] == pytest.approx(score, abs=1e-12)
    assert mig(-codes, factors)["mig"] == pytest.approx(score, abs=1e-12)
    order = np.random.default_rng(1).permutation(2000)
    assert mig(codes[order], factors[order])["mig"] == pytest.approx(score, abs=1e-12)


def test_fewer_samples_than_dimensions_and_single_codes():
    rng = np.random.default_rng(0)
    factors = np.asarray([[0, 1], [1, 0], [1, 1]])
    assert 0.0 <= mig(rng.standard_normal((3, 10)), factors)["mig"] <= 1.0
    scores = mig(rng.standard_normal((3, 1)), factors)
    assert math.isnan(scores["mig"])
    assert math.isnan(scores["mig_null"])


def test_bad_input_is_named():
    codes, factors = np.zeros((4, 2)), np.asarray([[0, 1], [1, 1], [0, 1], [1, 1]])
    with pytest.raises(ValueError, match="column 1 has one value only"):
        mig(codes, factors)
    with pytest.raises(ValueError, match=r"\[4, num_factors\]"):
        mig(codes, factors[:3])
    with pytest.raises(TypeError, match="must be integers, got float64"):
        mig(codes, factors * 1.0)
    with pytest.raises(ValueError, match="negative, got -1"):
        mig(codes, factors - 1)
    with pytest.raises(ValueError, match="codes has 4 of 4 rows that are not finite"):
        mig(codes * np.nan, factors)
    with pytest.raises(ValueError, match="codes has 1 rows, at least 2"):
        mig(codes[:1], factors[:1])
    with pytest.raises(ValueError, match="num_bins"):
        mig(codes, factors[:, :1], num_bins=1)
    with pytest.raises(ValueError, match="num_null"):
        mig(codes, factors[:, :1], num_null=-1)

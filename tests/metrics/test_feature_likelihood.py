import numpy as np
import pytest
from scipy import special

from avae_jax.metrics.feature_likelihood import feature_likelihood, fit_stand_ins


def dense_fit(centers, train):
    """Adam as Kingma and Ba (2015) have it, in float64 on whole matrices."""
    n, m, d = len(train), len(centers), train.shape[1]
    squares = np.sum((train[:, None] - centers[None]) ** 2, axis=-1)
    to_mean = 0.81 * np.sum((train - train.mean(axis=0)) ** 2, axis=1)
    parameters = np.r_[np.log((squares.min(axis=0) + 1e-3) / d), 0.0]
    scaled_squares = np.c_[squares, to_mean]
    first, second = np.zeros(m + 1), np.zeros(m + 1)
    for step in range(1, 51):
        scaled = scaled_squares * np.exp(-parameters)
        logits = -0.5 * scaled - 0.5 * d * parameters - np.r_[np.full(m, np.log(m)), 0.0]
        share = special.softmax(logits, axis=1)
        gradient = np.sum(share * 0.5 * (1 - scaled / d), axis=0) / n
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        parameters = parameters - 0.5 * rate
        parameters[:m] = np.clip(parameters[:m], -40.0, 20.0)
    return parameters[:m]


def dense_nll(x, centers, log_variances):
    d = x.shape[1]
    squares = np.sum((x[:, None] - centers[None]) ** 2, axis=-1)
    logits = -0.5 * squares * np.exp(-log_variances) - 0.5 * d * log_variances
    logits -= 0.5 * d * np.log(2 * np.pi) + np.log(len(centers))
    return -special.logsumexp(logits, axis=1) / d


def test_equals_the_dense_form():
    rng = np.random.default_rng(0)
    features, train, test = (
        scale * rng.standard_normal((n, 4)) + 3.0 for n, scale in ((30, 1.3), (300, 1.0), (50, 1.0))
    )
    found = feature_likelihood(features, train, test, num_null=1, seed=5)
    loc, scale = test.mean(axis=0), test.std(axis=0, ddof=1)
    x, a, b = ((v - loc) / scale for v in (features, train, test))
    fitted = dense_fit(x, a)
    order = np.random.default_rng(5).permutation(300)
    half, rest = a[order[:30]], a[order[30:]]
    perfect = dense_nll(b, half, dense_fit(half, rest))
    nll = dense_nll(b, x, fitted)
    paired = 100 * (nll - perfect)
    assert found["fld"] == pytest.approx(paired.mean(), rel=1e-3, abs=0.01)
    assert found["fld_stderr"] == pytest.approx(paired.std(ddof=1) / np.sqrt(50), rel=1e-3)
    gap = 100 * (dense_nll(a, x, fitted).mean() - nll.mean())
    assert found["fld_gap"] == pytest.approx(gap, rel=1e-3, abs=0.01)


def test_copies_bad_samples_and_lost_modes_are_far_from_zero():
    rng = np.random.default_rng(1)
    modes = 8.0 * rng.integers(0, 2, (900, 1))
    x = rng.standard_normal((900, 3)) + modes
    good, train, test = x[:300], x[300:600], x[600:]
    stand_ins = fit_stand_ins(train, test, num_centers=300, num_null=8)
    found = {
        name: feature_likelihood(samples, train, test, stand_ins=stand_ins)
        for name, samples in {
            "good": good,
            "copies": train,
            "near copies": train + 1e-4 * good,
            "noisy": good + rng.standard_normal(good.shape),
            "one mode": good[good[:, 0] < 4.0],
        }.items()
    }
    ideal = found["good"]
    spread = np.hypot(ideal["fld_null_std"], ideal["fld_stderr"])
    assert abs(ideal["fld"]) < 5 * spread
    for name in ("copies", "near copies", "noisy", "one mode"):
        assert found[name]["fld"] > 5 * spread, name
    for name in ("copies", "near copies"):
        assert found[name]["fld_gap"] < 10 * min(ideal["fld_gap"], ideal["fld_gap_null"]), name


def test_constant_features_count_for_nothing():
    rng = np.random.default_rng(2)
    sets = [rng.standard_normal((n, 3)) for n in (40, 60, 30)]
    found = feature_likelihood(*sets, num_null=1)
    dead = feature_likelihood(*(np.c_[x, np.full(len(x), 2.0)] for x in sets), num_null=1)
    assert dead == pytest.approx(found, nan_ok=True)
    again = feature_likelihood(
        *sets, stand_ins=fit_stand_ins(*sets[1:], num_centers=40, num_null=1)
    )
    assert again == pytest.approx(found, nan_ok=True)
    constant = feature_likelihood(*(np.ones((len(x), 2)) for x in sets))
    assert all(np.isnan(value) for value in constant.values())


def test_bad_input_is_named():
    x = np.random.default_rng(3).standard_normal((9, 2))
    with pytest.raises(ValueError, match="features has latent_dim 2 but train has 1"):
        feature_likelihood(x, x[:, :1], x)
    with pytest.raises(ValueError, match="train has 3 rows, at least 4"):
        feature_likelihood(x, x[:3], x)
    with pytest.raises(ValueError, match="num_null must be an integer of at least 1, got 0"):
        feature_likelihood(x, x, x, num_null=0)

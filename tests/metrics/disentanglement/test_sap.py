import math

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import FactorGrid, sap

GRID = FactorGrid(("a", "b"), (2, 3))


def split(grid=GRID, num_train=1000, num_test=500):
    rng = np.random.default_rng(0)
    points = grid.sample(rng, num_train), grid.sample(rng, num_test)
    return grid.factors(points[0]), grid.factors(points[1])


def svm_accuracy(z, v, z_test, v_test, c):
    """Return the test accuracy of the linear machines, their smooth loss minimised by BFGS."""
    optimize = pytest.importorskip("scipy.optimize")
    classes, counts = np.unique(v, return_counts=True)
    weights = v.size / (classes.size * counts)

    def fit(target, weight):
        def loss(wb):
            margin = np.maximum(0.0, 1.0 - target * (wb[0] * z + wb[1]))
            return 0.5 * wb @ wb + c * np.sum(weight * margin**2)

        def gradient(wb):
            margin = np.maximum(0.0, 1.0 - target * (wb[0] * z + wb[1]))
            slope = -2.0 * c * weight * target * margin
            return wb + [np.sum(slope * z), np.sum(slope)]

        return optimize.minimize(loss, np.zeros(2), jac=gradient, method="BFGS").x

    if classes.size == 2:
        w, b = fit(np.where(v == classes[1], 1.0, -1.0), np.where(v == classes[1], *weights[::-1]))
        predicted = classes[(w * z_test + b > 0).astype(int)]
    else:
        # The others of one against the rest keep weight 1.
        lines = [
            fit(np.where(v == k, 1.0, -1.0), np.where(v == k, weight, 1.0))
            for k, weight in zip(classes, weights, strict=True)
        ]
        predicted = classes[np.argmax([w * z_test + b for w, b in lines], axis=0)]
    return np.mean(predicted == v_test)


def test_equals_the_definition():
    train, test = split()
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((2, 3))
    codes = train @ mix + 0.5 * rng.standard_normal((1000, 3))
    codes_test = test @ mix + 0.5 * rng.standard_normal((500, 3))
    gaps, best = [], []
    for k in range(2):
        accuracy = sorted(
            svm_accuracy(codes[:, j], train[:, k], codes_test[:, j], test[:, k], 0.01)
            for j in range(3)
        )
        gaps.append(accuracy[-1] - accuracy[-2])
        best.append(accuracy[-1])
    scores = sap(codes, train, codes_test, test)
    # The two solvers stop at slightly different lines: two test codes of 500 may change sides.
    assert scores["sap"] == pytest.approx(np.mean(gaps), abs=0.004)
    assert scores["sap_accuracy"] == pytest.approx(np.mean(best), abs=0.004)
    assert scores["sap"] > 0.02


def test_continuous_equals_numpy_correlations():
    train, test = split()
    codes = train @ np.asarray([[1.0, 0.2, 0.0], [0.1, 2.0, 1.0]])
    codes = codes + np.random.default_rng(1).standard_normal((1000, 3))
    r2 = np.corrcoef(codes.T, train.T)[:3, 3:] ** 2
    ranked = np.sort(r2, axis=0)
    scores = sap(codes, train, codes[:500], test, continuous=True)
    assert scores["sap"] == pytest.approx(np.mean(ranked[-1] - ranked[-2]), abs=1e-12)


def test_perfect_code():
    grid = FactorGrid(("a", "b", "c"), (5, 8, 10))
    train, test = split(grid, 3000, 1500)
    scores = sap(3.0 - 2.0 * train, train, 3.0 - 2.0 * test, test, continuous=True)
    assert scores["sap"] > 0.99
    assert scores["sap_accuracy"] == pytest.approx(1.0)
    # Two values: the other code is right by chance.
    pair = FactorGrid(("a", "b"), (2, 2))
    train, test = split(pair, 3000, 1500)
    scores = sap(4.0 * train - 2.0, train, 4.0 * test - 2.0, test)
    assert scores["sap_accuracy"] == 1.0
    assert scores["sap"] == pytest.approx(0.5, abs=0.05)


def test_noise_scores_its_null():
    train, test = split()
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((1000, 3)), rng.standard_normal((500, 3))
    for continuous in (False, True):
        scores = sap(noise[0], train, noise[1], test, continuous=continuous, num_null=12)
        gap = abs(scores["sap"] - scores["sap_null"])
        assert gap < 5 * scores["sap_null_std"]
        assert scores["sap"] < 0.06


def test_constant_codes_have_no_gap():
    train, test = split()
    for continuous in (False, True):
        codes = np.full((1000, 3), 0.1), np.full((500, 3), 0.1)
        assert sap(codes[0], train, codes[1], test, continuous=continuous)["sap"] == 0.0


def test_edges():
    train, test = split()
    assert math.isnan(sap(train[:, :1] * 1.0, train, test[:, :1] * 1.0, test)["sap"])
    rng = np.random.default_rng(0)
    scores = sap(rng.standard_normal((8, 20)), train[:8], rng.standard_normal((500, 20)), test)
    assert 0.0 <= scores["sap"] <= 1.0
    with pytest.raises(ValueError, match="factors_train column 0 has one value only"):
        sap(train * 1.0, 0 * train, test * 1.0, test)
    with pytest.raises(ValueError, match="regularization must be finite and positive"):
        sap(train * 1.0, train, test * 1.0, test, regularization=0.0)
    with pytest.raises(ValueError, match="codes_train has 1000 of 1000 rows that are not finite"):
        sap(train * np.nan, train, test * 1.0, test)
    with pytest.raises(ValueError, match="codes_train has 1 rows"):
        sap(train[:1] * 1.0, train[:1], test * 1.0, test)

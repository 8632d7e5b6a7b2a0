import math

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import FactorGrid, dci, dci_from_importance

GRID = FactorGrid(("a", "b", "c"), (2, 3, 4))


def split(seed=0, num_train=400, num_test=200):
    rng = np.random.default_rng(seed)
    train, test = GRID.sample(rng, num_train), GRID.sample(rng, num_test)
    return GRID.factors(train), GRID.factors(test)


def forest(seed):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20, max_depth=6, random_state=seed)


@pytest.mark.parametrize("shape", [(5, 5), (6, 4), (4, 6)])
def test_uniform_importance_scores_zero(shape):
    scores = dci_from_importance(np.full(shape, 0.3))
    assert scores["dci_disentanglement"] == pytest.approx(0.0, abs=1e-12)
    assert scores["dci_completeness"] == pytest.approx(0.0, abs=1e-12)


def test_permutations_score_one():
    importance = np.eye(5)[[2, 0, 1, 4, 3]] * [1.0, 2.0, 3.0, 0.1, 5.0]
    assert dci_from_importance(np.eye(5)) == dci_from_importance(importance)
    assert dci_from_importance(np.eye(5))["dci_disentanglement"] == 1.0
    assert dci_from_importance(np.eye(5))["dci_completeness"] == 1.0


def test_equals_the_definition_in_loops():
    importance = np.random.default_rng(0).uniform(size=(4, 3)) ** 3
    importance[1] = 0.0
    d = c = 0.0
    for row in importance:
        p = [r / sum(row) for r in row if sum(row) > 0]
        d += sum(row) / importance.sum() * (1 + sum(x * math.log(x, 3) for x in p))
    for row in importance.T:
        p = [r / sum(row) for r in row if r > 0]
        c += sum(row) / importance.sum() * (1 + sum(x * math.log(x, 4) for x in p))
    # The code without importance adds its weight of zero.
    assert dci_from_importance(importance)["dci_disentanglement"] == pytest.approx(d, abs=1e-12)
    assert dci_from_importance(importance)["dci_completeness"] == pytest.approx(c, abs=1e-12)


def test_two_codes_of_one_factor_are_disentangled_but_not_complete():
    scores = dci_from_importance([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert scores["dci_disentanglement"] == pytest.approx(1.0)
    assert scores["dci_completeness"] == pytest.approx(0.5)


def test_edges_of_the_importance_matrix():
    assert dci_from_importance(np.zeros((3, 2)))["dci_disentanglement"] == 0.0
    assert math.isnan(dci_from_importance(np.ones((3, 1)))["dci_disentanglement"])
    assert math.isnan(dci_from_importance(np.ones((1, 3)))["dci_completeness"])
    for bad in (-np.eye(2), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="finite and not negative"):
            dci_from_importance(bad)
    with pytest.raises(ValueError, match=r"\[latent_dim, num_factors\]"):
        dci_from_importance(np.ones(3))


def test_perfect_code_scores_one_with_gradient_boosting():
    train, test = split(num_train=200)
    scores = dci(train * 1.0, train, test * 1.0, test)
    assert scores["dci_disentanglement"] > 0.99
    assert scores["dci_completeness"] > 0.99
    assert scores["dci_informativeness"] == scores["dci_informativeness_train"] == 1.0
    # The most frequent value is right in at most its share.
    modes = [np.bincount(column).argmax() for column in train.T]
    chance = np.mean([np.mean(test[:, k] == modes[k]) for k in range(3)])
    assert scores["dci_informativeness_chance"] == pytest.approx(chance)
    assert "dci_disentanglement_null" not in scores


def test_mixed_codes_and_noise_score_less():
    train, test = split()
    mix = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    scores = dci(train @ mix, train, test @ mix, test, make_classifier=forest, num_null=2)
    again = dci(train @ mix, train, test @ mix, test, make_classifier=forest, num_null=2)
    assert scores == again
    assert scores["dci_disentanglement"] < 0.5
    assert scores["dci_informativeness"] > 0.8
    assert scores["dci_disentanglement_null"] < 0.1
    chance = scores["dci_informativeness_chance"]
    assert scores["dci_informativeness_null"] == pytest.approx(chance, abs=0.1)
    assert scores["dci_informativeness_null_std"] > 0.0


def test_constant_codes_score_zero():
    train, test = split()
    scores = dci(np.ones(train.shape), train, np.ones(test.shape), test, make_classifier=forest)
    assert scores["dci_disentanglement"] == 0.0
    chance = scores["dci_informativeness_chance"]
    assert scores["dci_informativeness"] == pytest.approx(chance, abs=1e-12)


def test_fewer_samples_than_dimensions():
    train, test = split(num_train=8)
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((8, 20)), rng.standard_normal((200, 20))
    scores = dci(codes[0], train, codes[1], test, make_classifier=forest)
    assert 0.0 <= scores["dci_disentanglement"] <= 1.0


def test_bad_input_is_named():
    train, test = split()
    with pytest.raises(ValueError, match="codes_train has latent_dim 3 but codes_test has 2"):
        dci(train * 1.0, train, test[:, :2] * 1.0, test)
    with pytest.raises(ValueError, match="factors_train have 3 columns but factors_test 2"):
        dci(train * 1.0, train, test * 1.0, test[:, :2])
    with pytest.raises(ValueError, match="factors_train column 0 has one value only"):
        dci(train * 1.0, 0 * train, test * 1.0, test)
    with pytest.raises(ValueError, match="codes_test has 200 of 200 rows that are not finite"):
        dci(train * 1.0, train, test * np.nan, test)
    with pytest.raises(ValueError, match="codes_train has 1 rows"):
        dci(train[:1] * 1.0, train[:1], test * 1.0, test)
    with pytest.raises(ValueError, match="num_null"):
        dci(train * 1.0, train, test * 1.0, test, make_classifier=forest, num_null=-1)

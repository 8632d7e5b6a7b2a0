import numpy as np
import pytest

from avae_jax.metrics.disentanglement import FactorGrid, disentanglement_scores
from avae_jax.metrics.disentanglement.scores import _noise_lookup

GRID = FactorGrid(("a", "b", "c", "d"), (4, 8, 10, 4))
FACTORS = GRID.factors(np.arange(GRID.num_points))
PERFECT = (FACTORS - FACTORS.mean(axis=0)) / FACTORS.std(axis=0)
FAST = {"num_codes": 3000, "num_repeats": 20, "num_votes": 300, "num_samples": 128}
SCORES = ("factor_vae", "factor_vae_along", "mig_10", "mig_along_10", "mig_20", "mig_along_20")


def rotated():
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    return PERFECT @ q.T


def test_perfect_code_reaches_its_ceiling_and_not_its_null():
    scores = disentanglement_scores(PERFECT, GRID, with_sap=True, **FAST)
    for name in (*SCORES, "modularity"):
        assert scores[name] == pytest.approx(scores[f"{name}_ceiling"], abs=0.01)
        assert scores[f"{name}_ceiling"] > 0.95
        assert scores[f"{name}_null"] < 0.75
    # A linear machine does not see standardised and integer codes alike.
    assert scores["sap_ceiling"] > 0.2 > 0.05 > scores["sap_null"]
    assert all(type(value) is float for value in scores.values())


def test_only_the_rotated_scores_see_a_rotation():
    scores = disentanglement_scores(rotated(), GRID, **FAST)
    assert scores["mig_20"] < 0.5 * scores["mig_20_ceiling"]
    for name in ("factor_vae_along", "mig_along_10", "mig_along_20"):
        assert scores[name] == pytest.approx(scores[f"{name}_ceiling"], abs=0.02)
    assert scores["num_active"] == scores["num_active_along"] == 4.0


def test_the_model_is_encoded_once():
    seen = np.zeros(GRID.num_points, dtype=int)
    codes = rotated()

    def encode(indices):
        np.add.at(seen, np.unique(indices), 1)
        return codes[indices]

    scores = disentanglement_scores(encode, GRID, seed=3, **FAST)
    assert scores == disentanglement_scores(codes, GRID, seed=3, **FAST)
    assert scores != disentanglement_scores(codes, GRID, seed=4, **FAST)
    # One repeat per chunk: its padding.
    assert np.count_nonzero(seen > 1) <= 20


def test_dci_and_subsets_of_factors():
    def forest(seed):
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(20, max_depth=8, random_state=seed)

    options = FAST | {"num_bins": (10,), "factors": ("a", "c"), "num_test": 500}
    scores = disentanglement_scores(PERFECT, GRID, with_dci=True, make_classifier=forest, **options)
    assert scores["dci_disentanglement"] > 0.9 > scores["dci_disentanglement_null"]
    assert scores["dci_informativeness"] == pytest.approx(1.0, abs=0.02)
    assert scores["factor_vae_null_std"] == pytest.approx(np.sqrt(0.25 / 5000))
    assert "mig_20" not in scores
    assert "sap" not in scores


def test_constant_codes_score_zero():
    scores = disentanglement_scores(np.full((GRID.num_points, 3), 0.1), GRID, **FAST)
    for name in (*SCORES, "modularity"):
        assert scores[name] == 0.0
        assert scores[f"{name}_ceiling"] > 0.9


def test_noise_is_normal_and_independent_of_the_factors():
    grid = FactorGrid(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))
    points = np.arange(grid.num_points)
    noise = _noise_lookup(grid, 2, 0)(points).astype(np.float64)
    n = points.size
    # 65,536 rows are behind the points: k = 5 standard errors of their moments.
    assert np.abs(noise.mean(axis=0)).max() < 5 / np.sqrt(2**16)
    assert np.abs(noise.var(axis=0) - 1.0).max() < 5 * np.sqrt(2 / 2**16)
    values = grid.factors(points)
    for j in range(2):
        for k in range(5):
            assert abs(np.corrcoef(noise[:, j], values[:, k])[0, 1]) < 5 / np.sqrt(n)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="not finite"):
        disentanglement_scores(PERFECT * np.nan, GRID)
    with pytest.raises(ValueError, match="a has one value only"):
        disentanglement_scores(np.zeros((6, 2)), FactorGrid(("a", "b"), (1, 6)))
    with pytest.raises(ValueError, match="num_codes"):
        disentanglement_scores(PERFECT, GRID, num_codes=1)
    with pytest.raises(ValueError, match="num_bins"):
        disentanglement_scores(PERFECT, GRID, num_bins=(1,))

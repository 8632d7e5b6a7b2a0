import math

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import (
    CodeLookup,
    FactorGrid,
    factor_vae_score_along,
    find_directions,
    mig,
    mig_along,
)

# No value of these factors lies on an edge between 10 or 20 bins, where the round-off of a rotation
# would decide its bin.
GRID = FactorGrid(("a", "b", "c", "d", "e"), (4, 8, 10, 12, 4))
FACTORS = GRID.factors(np.arange(GRID.num_points))
PERFECT = (FACTORS - FACTORS.mean(axis=0)) / FACTORS.std(axis=0)


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def with_spare_axes(num_spare):
    # A spare axis as wide as the others: the least-variance direction stays the factor's.
    spare = np.random.default_rng(5).standard_normal((GRID.num_points, num_spare))
    return np.concatenate([PERFECT, spare], axis=1)


@pytest.mark.parametrize("num_spare", [0, 3])
def test_rotated_perfect_code_is_recovered(num_spare):
    q = rotation(5 + num_spare)
    codes = with_spare_axes(num_spare) @ q.T
    directions = find_directions(codes, GRID)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-12)
    cosines = np.abs(np.sum(directions * q.T[:5], axis=1))
    assert cosines.min() > 0.99
    assert factor_vae_score_along(codes, GRID, directions)["factor_vae_along"] == 1.0
    points = np.random.default_rng(1).integers(0, GRID.num_points, size=10_000)
    for num_bins in (10, 20):
        straight = mig(PERFECT[points], FACTORS[points], num_bins=num_bins)["mig"]
        rotated = mig(codes[points], FACTORS[points], num_bins=num_bins)["mig"]
        along = mig_along(codes[points], FACTORS[points], directions, num_bins=num_bins)
        assert along["mig_along"] == pytest.approx(straight, abs=0.02)
        assert along["mig_along_ceiling"] == pytest.approx(straight, abs=1e-12)
        assert rotated < 0.5 * straight


def test_the_direction_of_equal_entries_is_recovered():
    # Centring the rows of M_k, as principal component analysis of them does, loses this one.
    q = np.linalg.qr(np.column_stack([np.ones(5), rotation(5)[:, :4]]))[0]
    directions = find_directions(PERFECT @ q.T, GRID)
    assert abs(directions[0].sum()) / math.sqrt(5) > 1.0 - 1e-9


def test_rotating_the_codes_rotates_the_directions():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.standard_normal((5, 5)) + rng.standard_normal((GRID.num_points, 5))
    q = rotation(5, seed=3)
    options = {"num_repeats": 20, "num_samples": 64, "seed": 4}
    directions = find_directions(codes, GRID, **options)
    turned = find_directions(codes @ q.T, GRID, **options)
    np.testing.assert_allclose(np.abs(np.sum(directions @ q.T * turned, axis=1)), 1.0, atol=1e-6)
    votes = {"num_votes": 500, "num_samples": 64, "seed": 4}
    score = factor_vae_score_along(codes, GRID, directions, **votes)
    assert 0.2 < score["factor_vae_along"] < 1.0
    for name, value in factor_vae_score_along(codes @ q.T, GRID, turned, **votes).items():
        assert value == pytest.approx(score[name], abs=1e-6)


def test_equals_the_definition_for_each_vote():
    # Directions from a dense loop over the same draws.
    rng = np.random.default_rng(0)
    codes = PERFECT @ rng.standard_normal((5, 40)) + rng.standard_normal((GRID.num_points, 40))
    calls = []

    def encode(indices):
        calls.append(indices)
        return codes[indices]

    lookup = CodeLookup(encode, GRID, cache=False)
    directions = find_directions(lookup, GRID, num_repeats=4, num_samples=128)
    drawn = np.concatenate(calls[1:]).reshape(5, 4, 128)
    for k in range(5):
        m = np.zeros((40, 40))
        for points in drawn[k]:
            assert len(set(FACTORS[points, k])) == 1
            centered = codes[points] - codes[points].mean(axis=0)
            u = np.linalg.svd(centered, full_matrices=False)[2][-1]
            m += np.outer(u, u)
        top = np.linalg.svd(m)[2][0]
        assert abs(top @ directions[k]) == pytest.approx(1.0, abs=1e-9)


def test_noise_scores_its_null():
    codes = np.random.default_rng(0).standard_normal((GRID.num_points, 10))
    directions = find_directions(codes, GRID, num_samples=128)
    scores = factor_vae_score_along(codes, GRID, directions, num_samples=128)
    assert scores["factor_vae_along_null"] == 0.2
    # The noise is drawn once for the grid, so its own directions tell a little beyond chance.
    assert scores["factor_vae_along"] == pytest.approx(0.2, abs=0.06)


def test_collapsed_directions_are_left_out():
    q = rotation(7)
    collapsed = 1e-4 * np.random.default_rng(0).standard_normal((GRID.num_points, 2))
    noisy = PERFECT + 0.1 * np.random.default_rng(1).standard_normal(PERFECT.shape)
    codes = np.concatenate([noisy, collapsed], axis=1) @ q.T
    directions = find_directions(codes, GRID)
    assert np.abs(directions @ q[:, 5:]).max() < 1e-3
    scores = factor_vae_score_along(codes, GRID, directions)
    assert scores["factor_vae_along"] == 1.0
    assert scores["num_active_along"] == 5.0
    # As in the paper: every vote is the collapsed direction.
    options = {"min_std": 0.0, "num_votes": 200}
    kept = find_directions(codes, GRID, min_std=0.0, num_repeats=10)
    assert factor_vae_score_along(codes, GRID, kept, **options)["factor_vae_along"] < 0.5


@pytest.mark.parametrize("min_std", [0.0, 0.05])
def test_constant_codes_score_zero(min_std):
    codes = np.full((GRID.num_points, 3), 0.1)
    directions = find_directions(codes, GRID, min_std=min_std)
    assert not directions.any()
    scores = factor_vae_score_along(codes, GRID, directions, min_std=min_std)
    assert scores["factor_vae_along"] == 0.0
    assert mig_along(codes, FACTORS, directions)["mig_along"] == 0.0


def test_a_single_code_is_its_own_direction():
    codes = PERFECT[:, :1]
    directions = find_directions(codes, GRID, num_repeats=3)
    np.testing.assert_allclose(np.abs(directions), 1.0)
    assert math.isnan(mig_along(codes, FACTORS[:, :1], directions[:1])["mig_along"])


def test_bad_input_is_named():
    wide = np.random.default_rng(0).standard_normal((GRID.num_points, 16))
    with pytest.raises(ValueError, match="num_samples must exceed the 16 active"):
        find_directions(wide, GRID, num_samples=16)
    tiny = FactorGrid(("a", "b"), (4, 4))
    with pytest.raises(ValueError, match="grid has 4 points that share a factor's value"):
        find_directions(wide[:16], tiny)
    with pytest.raises(ValueError, match=r"directions must have shape \[5, 16\], got \(4, 16\)"):
        factor_vae_score_along(wide, GRID, np.eye(16)[:4])
    with pytest.raises(ValueError, match=r"directions must have shape \[2, 16\], got \(2, 3\)"):
        mig_along(wide, FACTORS, np.eye(3)[:2])
    with pytest.raises(ValueError, match="not finite"):
        mig_along(wide, FACTORS, np.full((2, 16), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        find_directions(wide * np.nan, GRID)
    with pytest.raises(ValueError, match="num_repeats"):
        find_directions(wide, GRID, num_repeats=0)
    with pytest.raises(ValueError, match="a has one value only"):
        find_directions(wide[:6], FactorGrid(("a", "b"), (1, 6)))

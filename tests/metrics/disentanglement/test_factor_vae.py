import numpy as np
import pytest

from avae_jax.metrics.disentanglement import CodeLookup, FactorGrid, factor_vae_score
from avae_jax.metrics.disentanglement.factor_vae import _votes

GRID = FactorGrid(("a", "b", "c", "d"), (3, 6, 10, 8))
FACTORS = GRID.factors(np.arange(GRID.num_points)).astype(np.float64)


def noise(d, seed=0):
    return np.random.default_rng(seed).standard_normal((GRID.num_points, d))


def test_equals_the_definition_in_loops():
    codes = FACTORS @ np.random.default_rng(1).standard_normal((4, 5)) + noise(5)
    codes[:, 2] *= 1e-3
    calls = []

    def encode(indices):
        calls.append(indices)
        return codes[indices]

    batch, num_train, num_eval = 16, 300, 200
    scores = factor_vae_score(
        CodeLookup(encode, GRID, cache=False),
        GRID,
        batch_size=batch,
        num_train=num_train,
        num_eval=num_eval,
        num_variance=500,
    )
    variance = codes[calls[0]].var(axis=0, ddof=1)
    active = [j for j in range(5) if np.sqrt(variance[j]) >= 0.05]
    votes = []
    for points in np.concatenate(calls[1:]).reshape(-1, batch):
        values = GRID.factors(points)
        (k,) = np.flatnonzero((values == values[0]).all(axis=0))
        ratios = [codes[points, j].var(ddof=1) / variance[j] for j in active]
        votes.append((active[int(np.argmin(ratios))], k))
    assert len(votes) == num_train + num_eval
    counts = np.zeros((5, 4))
    for j, k in votes[:num_train]:
        counts[j, k] += 1
    right = sum(counts[j].argmax() == k for j, k in votes[num_train:])
    assert scores["factor_vae"] == right / num_eval
    assert 0.3 < scores["factor_vae"] < 1.0
    assert scores["factor_vae_train"] == counts.max(axis=1).sum() / num_train
    assert scores["num_active"] == len(active) == 4


def test_perfect_code_scores_one():
    scores = factor_vae_score(FACTORS * [1.0, -3.0, 0.2, 5.0] + 2.0, GRID)
    assert scores["factor_vae"] == 1.0
    assert scores["factor_vae_stderr"] == 0.0
    float32 = (0.1 * FACTORS + 1e3).astype(np.float32)
    assert factor_vae_score(float32, GRID, min_std=0.0)["factor_vae"] == 1.0


def test_noise_scores_its_null():
    grid = FactorGrid(("a", "b", "c", "d", "e"), (3, 6, 10, 8, 8))
    codes = np.random.default_rng(0).standard_normal((grid.num_points, 10))
    scores = factor_vae_score(codes, grid)
    assert scores["factor_vae_null"] == 0.2
    assert scores["factor_vae"] == pytest.approx(0.2, abs=0.03)


def test_collapsed_codes_are_left_out():
    # Without pruning the tiny axis, tied to factor 0, would win each of its votes.
    codes = np.column_stack([1e-3 * FACTORS[:, 0], FACTORS[:, 1:]])
    pruned = factor_vae_score(codes, GRID)
    assert pruned["num_active"] == 3.0
    assert pruned["factor_vae"] < 0.9
    assert factor_vae_score(codes, GRID, min_std=0.0)["factor_vae"] == 1.0


@pytest.mark.parametrize("min_std", [0.0, 0.05])
def test_all_collapsed_scores_zero(min_std):
    scores = factor_vae_score(np.full((GRID.num_points, 3), 0.1), GRID, min_std=min_std)
    assert scores["factor_vae"] == 0.0
    assert scores["num_active"] == 0.0
    assert scores["factor_vae_null"] == 0.25


def test_scores_are_reproducible_and_use_the_named_factors():
    codes = FACTORS @ np.random.default_rng(1).standard_normal((4, 4))
    first = factor_vae_score(codes, GRID, seed=1)
    assert factor_vae_score(codes, GRID, seed=1) == first
    assert factor_vae_score(codes, GRID, seed=2) != first
    # Two of four factors are told by these codes.
    half = FACTORS[:, :2] + 0.0
    assert factor_vae_score(half, GRID, factors=("a", "b"))["factor_vae"] == 1.0
    assert factor_vae_score(half, GRID)["factor_vae"] < 0.7


def test_a_constant_factor_is_refused_since_it_caps_the_score():
    grid = FactorGrid(("colour", "shape", "scale", "orientation", "x", "y"), (1, 3, 6, 40, 32, 32))
    rng = np.random.default_rng(0)
    spare = rng.uniform(size=2**16)

    def encode(indices):
        hashed = spare[indices * 2_654_435_761 % 2**32 >> 16]
        return np.column_stack([grid.factors(indices)[:, 1:], hashed]).astype(np.float64)

    lookup = CodeLookup(encode, grid, cache=False)
    with pytest.raises(ValueError, match="colour has one value only"):
        factor_vae_score(lookup, grid)
    variance = lookup(grid.sample(rng, 10_000)).var(axis=0)
    fixed = rng.integers(0, 6, size=6000)
    voted = _votes(lookup, grid, fixed, variance, variance > 0, 64, rng)
    best = np.bincount(voted * 6 + fixed, minlength=36).reshape(6, 6).max(axis=1).sum() / 6000
    assert best == pytest.approx(0.86, abs=0.02)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="not finite"):
        factor_vae_score(FACTORS * np.nan, GRID)
    with pytest.raises(ValueError, match=r"\[1440, latent_dim\]"):
        factor_vae_score(FACTORS[:3], GRID)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 2, got 1"):
        factor_vae_score(FACTORS, GRID, batch_size=1)
    with pytest.raises(ValueError, match="num_eval"):
        factor_vae_score(FACTORS, GRID, num_eval=0)
    with pytest.raises(ValueError, match="min_std"):
        factor_vae_score(FACTORS, GRID, min_std=-1.0)
    other = FactorGrid(("a", "b"), (2, 720))
    with pytest.raises(ValueError, match="belongs to"):
        factor_vae_score(CodeLookup(FACTORS, GRID), other)

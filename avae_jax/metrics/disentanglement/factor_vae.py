"""The FactorVAE score of the axes of a code."""

from collections.abc import Sequence

import numpy as np

from avae_jax.checks import check_count, check_positive
from avae_jax.factors import FactorGrid
from avae_jax.metrics.disentanglement.grid import CodeLookup, as_lookup

# Values per block of gathered codes: 16 MB of float64.
_BLOCK = 2_000_000


def factor_vae_score(
    lookup,
    grid: FactorGrid,
    *,
    factors: Sequence[int | str] | None = None,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    num_variance: int = 10_000,
    min_std: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the FactorVAE score.

    A vote draws a factor k, then `batch_size` points that share its value, and names the code of
    the smallest variance over them, relative to its variance over the grid. The training votes map
    each code to the factor that most often leads to it; the score is the share of the other votes
    this map gets right (Kim and Mnih 2018; constants of Locatello et al. 2019).

    Args:
      lookup: a `CodeLookup`, or the codes of the full grid or a function as it takes.
      grid: the grid.
      factors: names or positions of the factors to vote on; None means all. The others vary freely.
      batch_size: points per vote, >= 2.
      num_train: votes that fit the map.
      num_eval: votes that are scored.
      num_variance: points behind the variance over the grid, >= 2.
      min_std: a code of a smaller standard deviation over the grid is collapsed and left out; 0
        keeps every code that is not constant.
      seed: of all draws.

    Returns:
      `factor_vae` in [0, 1], 0 if every code is collapsed; `factor_vae_stderr`, its standard error
      for a fixed map; `factor_vae_null`, 1 / number of factors, the expectation for noise codes,
      and its standard deviation `factor_vae_null_std`; `factor_vae_train`, the share right among
      the training votes; `num_active`, the number of codes that are not collapsed.

    Raises:
      ValueError: an unknown factor or one with a single value, codes of the wrong shape or not
        finite, or an option out of range.
      TypeError: a count that is no integer.

    Numerics:
      float64. Time O((num_train + num_eval) batch_size latent_dim), memory bounded by a block of
      votes. All draws come from the whole grid, training images included.

    Example:
      >>> grid = FactorGrid(("shape", "pos_x"), (3, 4))
      >>> codes = grid.factors(np.arange(grid.num_points))
      >>> factor_vae_score(codes, grid, num_train=100, num_eval=100)["factor_vae"]
      1.0

    References:
      Kim and Mnih, Disentangling by factorising, ICML 2018.
    """
    lookup = as_lookup(lookup, grid)
    positions = grid.positions(factors)
    batch_size = check_count("batch_size", batch_size, minimum=2)
    num_variance = check_count("num_variance", num_variance, minimum=2)
    num_train = check_count("num_train", num_train, minimum=1)
    num_eval = check_count("num_eval", num_eval, minimum=1)
    min_std = check_min_std(min_std)
    rng = np.random.default_rng([seed, 0])
    codes = lookup(grid.sample(rng, num_variance)).astype(np.float64)
    # As for the votes, differences keep the variance of a constant code exactly zero.
    variance = (codes - codes[:1]).var(axis=0, ddof=1)
    active = (np.sqrt(variance) >= min_std) & (variance > 0.0)
    scores = vote_null("factor_vae", len(positions), num_eval)
    scores["num_active"] = float(active.sum())
    if not active.any():
        return dict.fromkeys(("factor_vae", "factor_vae_stderr", "factor_vae_train"), 0.0) | scores
    counts = []
    for num_votes in (num_train, num_eval):
        drawn = rng.integers(0, len(positions), size=num_votes)
        voted = _votes(lookup, grid, positions[drawn], variance, active, batch_size, rng)
        pairs = voted * len(positions) + drawn
        cells = variance.size * len(positions)
        counts.append(np.bincount(pairs, minlength=cells).reshape(variance.size, -1))
    train, evaluation = counts
    chosen = train.argmax(axis=1)
    score = evaluation[np.arange(chosen.size), chosen].sum() / num_eval
    return {
        "factor_vae": float(score),
        "factor_vae_stderr": float(np.sqrt(score * (1.0 - score) / num_eval)),
        "factor_vae_train": float(train.max(axis=1).sum() / num_train),
        **scores,
    }


def check_min_std(min_std) -> float:
    """Check the least standard deviation of an active code.

    Args:
      min_std: a number >= 0.

    Returns:
      The number as a float.

    Raises:
      ValueError: negative or not finite.
    """
    return 0.0 if min_std == 0 else check_positive("min_std", min_std)


def vote_null(name: str, num_factors: int, num_votes: int) -> dict[str, float]:
    """Return the mean and standard deviation of the share of right votes for noise codes.

    Args:
      name: of the score.
      num_factors: factors to vote on; the vote on noise is independent of the one drawn.
      num_votes: votes that are scored.

    Returns:
      `{name}_null` and `{name}_null_std`.
    """
    p = 1.0 / num_factors
    return {f"{name}_null": p, f"{name}_null_std": float(np.sqrt(p * (1.0 - p) / num_votes))}


def _votes(
    lookup: CodeLookup,
    grid: FactorGrid,
    fixed: np.ndarray,
    variance: np.ndarray,
    active: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the code that each batch votes for, `[b]`, given the factor it shares, `[b]`."""
    # Collapsed codes are left out: infinity is never the least.
    weight = np.where(active, 1.0 / np.where(active, variance, 1.0), np.inf)
    block = max(1, _BLOCK // (batch_size * variance.size))
    voted = []
    for start in range(0, fixed.size, block):
        points = grid.sample_fixed(rng, fixed[start : start + block], batch_size)
        codes = lookup(points).astype(np.float64)
        # Differences from the first point keep the variance of a shared value exactly zero.
        codes -= codes[:, :1].copy()
        mean = codes.mean(axis=1)
        local = np.einsum("bld,bld->bd", codes, codes) / batch_size - np.square(mean)
        local = np.where(active, np.maximum(local, 0.0), 1.0)
        voted.append((local * weight).argmin(axis=1))
    return np.concatenate(voted)

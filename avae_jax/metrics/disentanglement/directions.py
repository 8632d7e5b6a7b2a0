"""Latent directions of least variance under a fixed factor, and scores along them."""

from collections.abc import Sequence

import numpy as np

from avae_jax.checks import check_count
from avae_jax.factors import FactorGrid
from avae_jax.metrics.checks import check_codes
from avae_jax.metrics.disentanglement.factor_vae import check_min_std, vote_null
from avae_jax.metrics.disentanglement.grid import CodeLookup, as_lookup
from avae_jax.metrics.disentanglement.mig import mig

# Values per block of gathered codes: 16 MB of float64.
_BLOCK = 2_000_000
# Above this dimension one eigenvector at a time is faster than all of them in a batch.
_BATCHED_DIM = 32


def find_directions(
    lookup,
    grid: FactorGrid,
    *,
    factors: Sequence[int | str] | None = None,
    num_repeats: int = 100,
    num_samples: int = 512,
    num_variance: int = 10_000,
    min_std: float = 0.05,
    seed: int = 0,
) -> np.ndarray:
    """Find for each factor the latent direction that varies least while the factor is fixed.

    For factor k, repeatedly: draw `num_samples` points that share its value and take u, the unit
    eigenvector of least variance of their codes. The direction is the top eigenvector of
    `M_k = mean u u^T` (arXiv 2501.15705). It suits a prior that is invariant to rotation, whose
    factors need not lie along the axes. The directions are fitted with the factors' labels, so
    score them on other draws, beside noise and beside other models' directions.

    We differ from the paper: M_k itself is decomposed, while centring its rows, as its code does,
    fails for a direction such as (1, .., 1) / sqrt(d); directions that are collapsed over the
    whole grid are left out, since they always vary least; 100 repeats of 512 points for each
    factor replace 10,000 of 10,000 for all. On a rotated perfect code these recover the rotation
    exactly. A spare latent direction that varies less than the factor's own hides it.

    Args:
      lookup: a `CodeLookup`, or the codes of the full grid or a function as it takes.
      grid: the grid.
      factors: names or positions of the factors; None means all. The others vary freely.
      num_repeats: least-variance directions behind each factor's.
      num_samples: points behind each of them; more than the directions that are not collapsed.
      num_variance: points behind the covariance over the grid, >= 2.
      min_std: a principal direction of a smaller standard deviation over the grid is collapsed;
        0, as in the paper, leaves out constant ones only.
      seed: of all draws; scoring with the same seed uses other draws.

    Returns:
      `[num_factors, latent_dim]` float64 unit rows of arbitrary sign, not orthogonal in general;
      zeros if every direction is collapsed.

    Raises:
      ValueError: an unknown factor or one with a single value; codes of the wrong shape or not
        finite; an option out of range; too few points, drawn or in the grid, for a covariance of
        full rank.
      TypeError: a count that is no integer.

    Numerics:
      float64. Time O(num_factors num_repeats (num_samples d^2 + d^3)), memory bounded by a block.

    Example:
      >>> grid = FactorGrid(("shape", "pos_x"), (3, 4))
      >>> codes = grid.factors(np.arange(grid.num_points))
      >>> abs(find_directions(codes, grid, num_repeats=5)).round(6)
      array([[1., 0.],
             [0., 1.]])
    """
    lookup = as_lookup(lookup, grid)
    positions = grid.positions(factors)
    num_repeats = check_count("num_repeats", num_repeats, minimum=1)
    num_samples = check_count("num_samples", num_samples, minimum=2)
    num_variance = check_count("num_variance", num_variance, minimum=2)
    rng = np.random.default_rng([seed, 1])
    basis = _active_basis(lookup, grid, num_variance, check_min_std(min_std), rng)
    if basis.shape[1] == 0:
        return np.zeros((len(positions), basis.shape[0]))
    _check_rank(grid, positions, num_samples, basis.shape[1])
    directions = []
    for k in positions:
        fixed = np.full(num_repeats, k)
        u = _least_directions(lookup, grid, fixed, basis, num_samples, rng)
        directions.append(np.linalg.eigh(u.T @ u / num_repeats)[1][:, -1])
    return np.asarray(directions) @ basis.T


def factor_vae_score_along(
    lookup,
    grid: FactorGrid,
    directions,
    *,
    factors: Sequence[int | str] | None = None,
    num_votes: int = 1_000,
    num_samples: int = 512,
    num_variance: int = 10_000,
    min_std: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """Score how well least-variance directions tell the fixed factor.

    A vote draws a factor k and `num_samples` points that share its value, and takes u, the
    direction of least variance of their codes. It names `argmax_k cos^2(u, u*_k)`, u*_k the rows
    of `directions`; the score is the share of right votes (arXiv 2501.15705, "PCA-FactorVAE").

    Args:
      lookup: a `CodeLookup`, or the codes of the full grid or a function as it takes.
      grid: the grid.
      directions: `[num_factors, latent_dim]` from `find_directions` with the same factors.
      factors: names or positions of the factors; None means all.
      num_votes: votes that are scored.
      num_samples: points per vote; more than the directions that are not collapsed.
      num_variance: as in `find_directions`.
      min_std: as in `find_directions`.
      seed: of all draws, which differ from those of `find_directions` at the same seed.

    Returns:
      `factor_vae_along` in [0, 1], 0 if every direction is collapsed; `factor_vae_along_stderr`,
      its standard error; `factor_vae_along_null`, 1 / number of factors, the expectation for noise
      codes, and `factor_vae_along_null_std`; `num_active_along`, the number of principal
      directions that are not collapsed.

    Raises:
      ValueError: as `find_directions`, or directions of the wrong shape or not finite.
      TypeError: as `find_directions`.

    Numerics:
      float64. Time O(num_votes (num_samples d^2 + d^3)), memory bounded by a block of votes.

    Example:
      >>> grid = FactorGrid(("shape", "pos_x"), (3, 4))
      >>> codes = grid.factors(np.arange(grid.num_points))
      >>> factor_vae_score_along(codes, grid, np.eye(2), num_votes=50)["factor_vae_along"]
      1.0
    """
    lookup = as_lookup(lookup, grid)
    positions = grid.positions(factors)
    num_votes = check_count("num_votes", num_votes, minimum=1)
    num_samples = check_count("num_samples", num_samples, minimum=2)
    num_variance = check_count("num_variance", num_variance, minimum=2)
    directions = _check_directions(directions, lookup.latent_dim, len(positions))
    rng = np.random.default_rng([seed, 2])
    basis = _active_basis(lookup, grid, num_variance, check_min_std(min_std), rng)
    score = 0.0
    if basis.shape[1] and directions.any():
        _check_rank(grid, positions, num_samples, basis.shape[1])
        drawn = rng.integers(0, len(positions), size=num_votes)
        u = _least_directions(lookup, grid, positions[drawn], basis, num_samples, rng)
        voted = np.square(u @ (directions @ basis).T).argmax(axis=1)
        score = float(np.mean(voted == drawn))
    return {
        "factor_vae_along": score,
        "factor_vae_along_stderr": float(np.sqrt(score * (1.0 - score) / num_votes)),
        **vote_null("factor_vae_along", len(positions), num_votes),
        "num_active_along": float(basis.shape[1]),
    }


def mig_along(codes, factors, directions, *, num_bins: int = 20) -> dict[str, float]:
    """Compute the mutual information gap of the codes' coordinates along directions.

    `mig` of `codes @ directions.T` (arXiv 2501.15705, "PCA-MIG", with 10 bins there). The
    directions are not made orthogonal. As few coordinates as factors compete for the second place,
    so the score tends to lie above the MIG of all axes.

    Args:
      codes: `[n, latent_dim]`, better not those that gave the directions.
      factors: `[n, num_factors]` integers >= 0.
      directions: `[num_directions, latent_dim]` from `find_directions`.
      num_bins: equal-width bins per coordinate.

    Returns:
      `mig_along` in [0, 1], NaN for a single direction, and `mig_along_ceiling`, the MIG of the
      factors themselves. There is no null here: noise codes have directions of their own, see
      `disentanglement_scores`.

    Raises:
      TypeError: factors or a count that are not integers.
      ValueError: wrong shapes, values that are not finite, a factor with one value only, or
        `num_bins` below 2.

    Example:
      >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> round(mig_along(factors, factors, np.eye(2))["mig_along"], 6)
      1.0
    """
    codes = check_codes(codes, name="codes", min_codes=2)
    directions = _check_directions(directions, codes.shape[1], None)
    scores = mig(codes @ directions.T, factors, num_bins=num_bins, num_null=0)
    return {"mig_along": scores["mig"], "mig_along_ceiling": scores["mig_ceiling"]}


def _check_directions(directions, latent_dim: int, num_directions: int | None) -> np.ndarray:
    directions = check_codes(directions, name="directions", min_codes=1)
    rows = directions.shape[0] if num_directions is None else num_directions
    if directions.shape != (rows, latent_dim):
        raise ValueError(
            f"directions must have shape [{rows}, {latent_dim}], got {directions.shape}: "
            "find them for the same factors and codes"
        )
    return directions


def _check_rank(grid: FactorGrid, positions: np.ndarray, num_samples: int, dim: int) -> None:
    if num_samples <= dim:
        raise ValueError(
            f"num_samples must exceed the {dim} active latent directions, got {num_samples}: "
            "with fewer points the direction of least variance is arbitrary"
        )
    fewest = min(grid.num_points // grid.sizes[k] for k in positions)
    if fewest <= dim:
        raise ValueError(
            f"grid has {fewest} points that share a factor's value, more than the {dim} active "
            "latent directions are needed: use a larger grid or fewer latent dimensions"
        )


def _active_basis(
    lookup: CodeLookup,
    grid: FactorGrid,
    num_variance: int,
    min_std: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `[latent_dim, num_active]`, an orthonormal basis of what is not collapsed."""
    codes = lookup(grid.sample(rng, num_variance)).astype(np.float64)
    # Differences from the first point keep the variance of a constant code exactly zero.
    codes -= codes[:1].copy()
    variance, vectors = np.linalg.eigh(np.atleast_2d(np.cov(codes, rowvar=False)))
    # Round-off leaves the zero eigenvalues of a singular matrix slightly off zero.
    floor = variance.size * np.finfo(np.float64).eps * max(variance[-1], 0.0)
    return vectors[:, variance > max(floor, min_std**2)]


def _least_directions(
    lookup: CodeLookup,
    grid: FactorGrid,
    fixed: np.ndarray,
    basis: np.ndarray,
    num_samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `[b, num_active]`, the least-variance direction of each batch in the basis."""
    # Both take a while to import.
    import threadpoolctl
    from scipy import linalg

    dim = basis.shape[1]
    block = max(1, _BLOCK // (num_samples * basis.shape[0]))
    least = []
    for start in range(0, fixed.size, block):
        points = grid.sample_fixed(rng, fixed[start : start + block], num_samples)
        codes = lookup(points).astype(np.float64)
        codes -= codes.mean(axis=1, keepdims=True)
        # The matrices are small: more BLAS threads cost time, on a busy machine up to tenfold.
        with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
            scatter = basis.T @ (codes.transpose(0, 2, 1) @ codes) @ basis
            if dim <= _BATCHED_DIM:
                least.append(np.linalg.eigh(scatter)[1][:, :, 0])
            else:
                least.extend(linalg.eigh(s, subset_by_index=[0, 0])[1].T for s in scatter)
    return np.concatenate(least)

"""Parts of the prior that the codes leave empty."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from avae_jax.checks import check_count, check_positive
from avae_jax.metrics.checks import check_codes, check_matching, prior_generator
from avae_jax.metrics.neighbors import nearest_distances

# Beyond this many dimensions all draws of the prior are about equally far from all codes.
_MAX_NEIGHBOR_DIM = 16
_FAR_QUANTILE = 0.99
# Codes and draws together in a simulation of a null standard deviation.
_NULL_SIZE = 1000
# Projected points held at a time: small enough to stay in the cache.
_POINTS = 2**16
# Codes a cell must expect for its chi-square term to behave.
_LEAST_EXPECTED = 5.0


Sampler = Callable[[int], np.ndarray]
"""Draws so many codes of a prior, `[num, latent_dim]`, others at each call."""


class HolePoints(NamedTuple):
    """Draws of the prior that codes leave alone, emptiest first.

    Attributes:
      points: `[num_points, latent_dim]` draws of the prior.
      distances: `[num_points]`, to the k-th nearest code.
      ratios: `[num_points]`, that distance over the one to the k-th nearest of as many draws of
        the prior: about 1 where the codes follow the prior.
    """

    points: np.ndarray
    distances: np.ndarray
    ratios: np.ndarray


class WorstPlane(NamedTuple):
    """The plane in which the codes differ most from the prior.

    Attributes:
      directions: `[2, latent_dim]`, orthonormal; the plane's axes.
      offsets: `[2]`, 0 except for a plane found in the codes themselves.
      spreads: `[2]`, the prior's scale except for such a plane. The plane's coordinates are
        `(directions @ z - offsets) / spreads`, N(0, I) under the prior.
      chi2: its chi-square over the cells.
      counts: `[num_rings, num_sectors]`, the codes in each cell, all of equal mass under the prior.
      expected: the codes each cell should hold.
      cell: ring and sector of the emptiest cell.
      cell_radius: its inner and outer radius in these coordinates.
      cell_angle: its first and last angle `atan2(second, first)`, in [-pi, pi].
    """

    directions: np.ndarray
    offsets: np.ndarray
    spreads: np.ndarray
    chi2: float
    counts: np.ndarray
    expected: float
    cell: tuple[int, int]
    cell_radius: tuple[float, float]
    cell_angle: tuple[float, float]


def prior_coverage(
    z,
    *,
    scale: float = 1.0,
    sample: Sampler | None = None,
    k: int = 5,
    num_draws: int | None = None,
    num_null: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Measure the share of prior draws that have a code in their neighbourhood.

    The coverage of Naeem et al. (2020) with draws of `N(0, scale^2 I)` as the real set and the
    codes as the fake one: the share of draws with a code strictly inside the ball that reaches to
    the k-th nearest other draw.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation of the prior.
      sample: draws so many codes of another prior, which `scale` multiplies; None is N(0, I).
      k: which neighbour sets the ball, >= 1.
      num_draws: number m of prior draws, above k; None for as many as there are codes.
      num_null: simulations behind the null's standard deviation, >= 2.
      seed: of the draws.

    Returns:
      `prior_coverage` in [0, 1], high is good; `prior_coverage_null`, its exact mean for codes that
      are draws of the prior, `1 - prod_{i=1..k} (m - i) / (m + n - i)` (.969 for k = 5, m = n);
      `prior_coverage_null_std`, from `num_null` smaller simulations scaled by the square root of
      their size (about 1.5 times the binomial value and more in high dimension, as neighbouring
      draws share codes). All NaN if the draws number k or fewer.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive, or a
        count too small.
      TypeError: a count that is no integer.

    Numerics:
      float64, time O(m (m + n) d), memory O((m + n) x block).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((300, 2))
      >>> prior_coverage(z)["prior_coverage"] > 0.9 > prior_coverage(0.1 * z)["prior_coverage"]
      True

    References:
      Naeem et al., Reliable fidelity and diversity metrics for generative models, ICML 2020.
    """
    z = check_codes(z)
    scale = check_positive("scale", scale)
    k = check_count("k", k, minimum=1)
    n, d = z.shape
    m = n if num_draws is None else check_count("num_draws", num_draws, minimum=1)
    num_null = check_count("num_null", num_null, minimum=2)
    if m <= k:
        keys = ("prior_coverage", "prior_coverage_null", "prior_coverage_null_std")
        return dict.fromkeys(keys, math.nan)

    draw = _drawer(z, sample)

    def cover(codes, draws):
        radius = nearest_distances(draws, draws, k=k, exclude_own=True)
        return float(np.mean(nearest_distances(draws, codes, k=1) < radius))

    i = np.arange(1, k + 1)
    return {
        "prior_coverage": cover(z, scale * draw(prior_generator(seed, stream=1), m)),
        "prior_coverage_null": float(1.0 - np.prod((m - i) / (m + n - i))),
        "prior_coverage_null_std": _null_std(cover, draw, n, m, k, seed, num_null),
    }


def far_prior_share(
    z,
    *,
    scale: float = 1.0,
    sample: Sampler | None = None,
    k: int = 5,
    num_draws: int | None = None,
    num_null: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Measure the share of prior draws that are unusually far from all codes.

    A draw is far if its distance to the k-th nearest code exceeds the 99% quantile of the distance
    to the k-th nearest of n other prior draws (over the same draws).

    Args:
      z: `[n, latent_dim]` codes, n >= k.
      scale: standard deviation of the prior `N(0, scale^2 I)`.
      sample: draws so many codes of another prior, which `scale` multiplies; None is N(0, I).
      k: which neighbour, >= 1.
      num_draws: number of prior draws; None for as many as there are codes.
      num_null: simulations behind the null's standard deviation, >= 2.
      seed: of the draws.

    Returns:
      `far_prior_share` in [0, 1], low is good; `far_prior_share_null`, .01 by construction;
      `far_prior_share_null_std`, from `num_null` smaller simulations scaled by the square root of
      their size; `far_prior_share_is_meaningful`, 1 up to 16 dimensions and 0 beyond, where all
      draws are about equally far from everything and only the overall scale shows. All but the flag
      are NaN if n < k.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive, or a
        count too small.
      TypeError: a count that is no integer.

    Numerics:
      float64, time O(m n d), memory O(n x block).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((300, 2))
      >>> far_prior_share(z)["far_prior_share"] < 0.1 < far_prior_share(0.1 * z)["far_prior_share"]
      True
    """
    z = check_codes(z)
    n, d = z.shape
    flag = {"far_prior_share_is_meaningful": float(d <= _MAX_NEIGHBOR_DIM)}
    k = check_count("k", k, minimum=1)
    num_null = check_count("num_null", num_null, minimum=2)
    if n < k:
        check_positive("scale", scale)
        keys = ("far_prior_share", "far_prior_share_null", "far_prior_share_null_std")
        return {**dict.fromkeys(keys, math.nan), **flag}

    def share(to_codes, to_prior):
        # This kind of quantile is exceeded by 1% of further draws on average, for small m too.
        return float(np.mean(to_codes > np.quantile(to_prior, _FAR_QUANTILE, method="weibull")))

    def null_share(codes, draws):
        others = draw(null_rng, len(codes))
        return share(nearest_distances(draws, codes, k=k), nearest_distances(draws, others, k=k))

    draw, null_rng = _drawer(z, sample), prior_generator(seed, stream=5)
    draws, to_codes, to_prior = _prior_distances(z, draw, scale, k, num_draws, seed)
    return {
        "far_prior_share": share(to_codes, to_prior),
        "far_prior_share_null": round(1.0 - _FAR_QUANTILE, 12),
        "far_prior_share_null_std": _null_std(null_share, draw, n, len(draws), k, seed, num_null),
        **flag,
    }


def hole_points(
    z,
    *,
    scale: float = 1.0,
    sample: Sampler | None = None,
    k: int = 5,
    num_points: int = 64,
    num_draws: int | None = None,
    seed: int = 0,
) -> HolePoints:
    """Pick the prior draws that the codes leave most alone, to decode and look at.

    Draws are ranked by their distance to the k-th nearest code over the distance to the k-th
    nearest of n prior draws: the plain distance would only pick draws from the prior's own tail.

    Args:
      z: `[n, latent_dim]` codes, n >= k.
      scale: standard deviation of the prior `N(0, scale^2 I)`.
      sample: draws so many codes of another prior, which `scale` multiplies; None is N(0, I).
      k: which neighbour, >= 1.
      num_points: how many draws to return; all of them if there are fewer.
      num_draws: number of prior draws to choose from; None for as many as there are codes.
      seed: of the draws.

    Returns:
      `HolePoints`, emptiest first.

    Raises:
      ValueError: wrong shape, fewer than k codes, values that are not finite, `scale` not positive,
        a count below 1.
      TypeError: a count that is no integer.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((300, 2))
      >>> hole_points(z[z[:, 0] < 0.0], num_points=5).points[:, 0] > 0.0
      array([ True,  True,  True,  True,  True])
    """
    z = check_codes(z, min_codes=check_count("k", k, minimum=1))
    num_points = check_count("num_points", num_points, minimum=1)
    draw = _drawer(z, sample)
    draws, to_codes, to_prior = _prior_distances(z, draw, scale, k, num_draws, seed)
    ratios = to_codes / to_prior
    order = np.argsort(-ratios, kind="stable")[:num_points]
    return HolePoints(draws[order], to_codes[order], ratios[order])


def plane_holes(
    z,
    *,
    scale: float = 1.0,
    num_rings: int = 6,
    num_sectors: int = 8,
    max_axis_pairs: int = 120,
    num_random_planes: int = 200,
    num_extreme_axes: int = 3,
    num_null: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Search two-dimensional projections of the codes for cells that are too empty or too full.

    A plane is cut into rings and sectors of equal mass under `N(0, scale^2 I)`, and
    `chi2 = sum_cells (count - expected)^2 / expected`. The planes are all pairs of axes (a random
    choice of `max_axis_pairs` if there are more), random planes, and the pairs among the principal
    axes of largest and smallest variance, and among the axes that are extreme in
    `E[|w|^2 w w^T]` for whitened codes w (Cardoso 1989), where a hole in few dimensions shows.

    A hole confined to 2 of many dimensions, which no global statistic sees, is found when a
    plane comes near it: on any pair of axes, along arbitrary directions only if it is large. Any
    other departure from the prior (scale, clusters) raises chi2 too; `plane_min_fill` tells a
    hole from those.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation of the prior.
      num_rings: rings per plane, >= 1.
      num_sectors: sectors per ring, >= 1; at least 2 cells in all.
      max_axis_pairs: cap on the pairs of axes, >= 0.
      num_random_planes: >= 0.
      num_extreme_axes: axes taken from either end of the two spectra, >= 0; at least one plane
        must result.
      num_null: repetitions on n draws of the prior, >= 2.
      seed: of the planes and of these draws.

    Returns:
      `plane_max_chi2` over the planes and `plane_min_fill`, the count of the emptiest cell of any
      plane over its expected count, each with `_null` and `_null_std` (same search, planes
      included, on n prior draws); `plane_share_above`, the share of searches (these and the codes'
      own) with a maximum at least as large, at least `1 / (num_null + 1)`;
      `plane_worst_index_of_fit`, the worst plane's chi2 over its degrees of freedom;
      `plane_num_planes`. All but the last are NaN if a cell expects fewer than 5 codes or if
      latent_dim is 1.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive, a count
        below its minimum, no cells to compare or no plane.
      TypeError: a count that is no integer.

    Numerics:
      Projections and cells in float32. Time O(n planes (d + rings)) per repetition, memory
      O(n x block).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((1000, 3))
      >>> result = plane_holes(np.abs(z), num_random_planes=10)
      >>> result["plane_min_fill"], round(result["plane_share_above"], 4)
      (0.0, 0.0476)

    References:
      Cardoso, Source separation using higher order moments, ICASSP 1989.
    """
    search = _Search(
        z, scale, num_rings, num_sectors, max_axis_pairs, num_random_planes, num_extreme_axes, seed
    )
    num_null = check_count("num_null", num_null, minimum=2)
    keys = ("plane_max_chi2", "plane_min_fill")
    if not search.is_defined:
        result = {key + s: math.nan for key in keys for s in ("", "_null", "_null_std")}
        result["plane_share_above"] = result["plane_worst_index_of_fit"] = math.nan
        return {**result, "plane_num_planes": float(search.num_planes)}
    n, d = search.z.shape
    rng = prior_generator(seed, stream=2)
    chi2, fill = _extremes(search.counts(search.z), n)
    null = np.array(
        [_extremes(search.counts(rng.standard_normal((n, d))), n) for _ in range(num_null)]
    )
    return {
        "plane_max_chi2": chi2,
        "plane_max_chi2_null": float(null[:, 0].mean()),
        "plane_max_chi2_null_std": float(null[:, 0].std(ddof=1)),
        "plane_min_fill": fill,
        "plane_min_fill_null": float(null[:, 1].mean()),
        "plane_min_fill_null_std": float(null[:, 1].std(ddof=1)),
        "plane_share_above": float((1 + np.sum(null[:, 0] >= chi2)) / (num_null + 1)),
        "plane_worst_index_of_fit": chi2 / (search.num_cells - 1),
        "plane_num_planes": float(search.num_planes),
    }


def worst_plane(
    z,
    *,
    scale: float = 1.0,
    num_rings: int = 6,
    num_sectors: int = 8,
    max_axis_pairs: int = 120,
    num_random_planes: int = 200,
    num_extreme_axes: int = 3,
    seed: int = 0,
) -> WorstPlane:
    """Return the plane with the largest chi-square of `plane_holes`, and its emptiest cell.

    Args:
      z: `[n, latent_dim]` codes, latent_dim >= 2, at least 5 per cell.
      scale: standard deviation of the prior.
      num_rings: as for `plane_holes`, like all that follow.
      num_sectors: see there.
      max_axis_pairs: see there.
      num_random_planes: see there.
      num_extreme_axes: see there.
      seed: of the planes.

    Returns:
      `WorstPlane`.

    Raises:
      ValueError: as for `plane_holes`, and where that is NaN: latent_dim 1 or too few codes.
      TypeError: a count that is no integer.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((1000, 3))
      >>> z[:, 2] *= 0.1
      >>> plane = worst_plane(z, num_random_planes=0, num_extreme_axes=0)
      >>> 2 in np.argmax(plane.directions, axis=1)
      True
    """
    search = _Search(
        z, scale, num_rings, num_sectors, max_axis_pairs, num_random_planes, num_extreme_axes, seed
    )
    if not search.is_defined:
        raise ValueError(
            f"z of shape {search.z.shape} is too small for {search.num_cells} cells: give at least "
            f"2 dimensions and {math.ceil(_LEAST_EXPECTED * search.num_cells)} codes"
        )
    expected = search.z.shape[0] / search.num_cells
    counts = search.counts(search.z)
    chi2 = np.sum(np.square(counts - expected), axis=1) / expected
    worst = int(np.argmax(chi2))
    ring, sector = divmod(int(np.argmin(counts[worst])), num_sectors)
    # r^2 / 2 is exponential under the prior.
    edges = np.append(np.sqrt(-2.0 * np.log1p(-np.arange(num_rings) / num_rings)), np.inf)
    angles = np.pi * (2.0 * np.arange(num_sectors + 1) / num_sectors - 1.0)
    directions, offsets, spreads = search.planes(search.z)
    return WorstPlane(
        directions=directions[worst],
        offsets=scale * offsets[worst],
        spreads=scale * spreads[worst],
        chi2=float(chi2[worst]),
        counts=counts[worst].reshape(num_rings, num_sectors),
        expected=expected,
        cell=(ring, sector),
        cell_radius=(float(edges[ring]), float(edges[ring + 1])),
        cell_angle=(float(angles[sector]), float(angles[sector + 1])),
    )


def _drawer(z: np.ndarray, sample: Sampler | None):
    """Return what draws so many codes of the prior, `(generator, num)`, that of unit scale."""
    if sample is None:
        return lambda rng, num: rng.standard_normal((num, z.shape[1]))
    return lambda rng, num: check_matching(z, sample(num), name="draws of sample")


def _null_std(statistic, draw, n: int, m: int, k: int, seed: int, num_null: int) -> float:
    """Return the standard deviation of `statistic(codes, draws)` when both come from the prior.

    It falls as the root of the sizes, so small repetitions stand for large ones.
    """
    shrink = min(1.0, _NULL_SIZE / (n + m))
    small_n, small_m = (min(size, max(round(shrink * size), 10 * k)) for size in (n, m))
    rng = prior_generator(seed, stream=4)
    values = [statistic(draw(rng, small_n), draw(rng, small_m)) for _ in range(num_null)]
    return float(np.std(values, ddof=1) * math.sqrt((1 / n + 1 / m) / (1 / small_n + 1 / small_m)))


def _prior_distances(z, draw, scale, k, num_draws, seed):
    """Return prior draws and their k-th neighbour distances to codes and to n other draws."""
    scale = check_positive("scale", scale)
    n = len(z)
    m = n if num_draws is None else check_count("num_draws", num_draws, minimum=1)
    rng = prior_generator(seed, stream=1)
    draws, others = scale * draw(rng, m), scale * draw(rng, n)
    return draws, nearest_distances(draws, z, k=k), nearest_distances(draws, others, k=k)


class _Search:
    """The planes and cells of one search; `z` holds the codes divided by the prior's scale."""

    def __init__(
        self, z, scale, num_rings, num_sectors, max_axis_pairs, num_random, num_extreme, seed
    ):
        self.z = check_codes(z) / check_positive("scale", scale)
        self.num_rings = check_count("num_rings", num_rings, minimum=1)
        self.num_sectors = check_count("num_sectors", num_sectors, minimum=1)
        max_axis_pairs = check_count("max_axis_pairs", max_axis_pairs, minimum=0)
        num_random = check_count("num_random_planes", num_random, minimum=0)
        num_extreme = check_count("num_extreme_axes", num_extreme, minimum=0)
        self.num_cells = self.num_rings * self.num_sectors
        if self.num_cells < 2:
            raise ValueError("num_rings and num_sectors make one cell: give at least two")
        n, d = self.z.shape
        rng = prior_generator(seed, stream=3)
        pairs = np.stack(np.triu_indices(d, 1), axis=1)
        if len(pairs) > max_axis_pairs:
            pairs = pairs[np.sort(rng.choice(len(pairs), max_axis_pairs, replace=False))]
        frames = np.zeros((len(pairs), 2, d))
        frames[np.arange(len(pairs))[:, None], np.arange(2), pairs] = 1.0
        self._fixed = frames
        if d > 1:
            random = np.linalg.qr(rng.standard_normal((num_random, d, 2)))[0]
            self._fixed = np.concatenate([frames, random.transpose(0, 2, 1)])
        ends = min(num_extreme, d // 2)
        picked = np.r_[:ends, d - ends : d]
        self._extreme = picked[np.stack(np.triu_indices(picked.size, 1), axis=1)]
        self.num_planes = len(self._fixed) + 2 * len(self._extreme)
        self.is_defined = d > 1 and n >= _LEAST_EXPECTED * self.num_cells
        if d > 1 and not self.num_planes:
            raise ValueError("no plane to search: raise max_axis_pairs or num_random_planes")

    def planes(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return directions `[planes, 2, latent_dim]`, offsets and spreads `[planes, 2]`."""
        fixed = np.zeros((len(self._fixed), 2))
        if not len(self._extreme):
            return self._fixed, fixed, fixed + 1.0
        n = z.shape[0]
        mean = z.mean(axis=0)
        centered = z - mean
        eigenvalues, principal = np.linalg.eigh(centered.T @ centered / n)
        # A collapsed direction stays small instead of blowing up.
        floor = 1e-6 * max(eigenvalues[-1], np.finfo(np.float64).tiny)
        white = centered @ (principal / np.sqrt(np.maximum(eigenvalues, floor)))
        weighted = white * np.sum(np.square(white), axis=1, keepdims=True)
        fourth = principal @ np.linalg.eigh(weighted.T @ white / n)[1]
        axes = np.concatenate([found.T[self._extreme] for found in (principal, fourth)])
        # The axes are chosen for their extreme variance or length: standardise, or chance alone
        # makes them the worst.
        spread = np.maximum(
            np.sqrt(np.sum((axes @ (centered.T @ centered / n)) * axes, axis=2)), 1e-6
        )
        return (
            np.concatenate([self._fixed, axes]),
            np.concatenate([fixed, axes @ mean]),
            np.concatenate([fixed + 1.0, spread.reshape(-1, 2)]),
        )

    def counts(self, z: np.ndarray) -> np.ndarray:
        """Count the codes in each cell, `[planes, rings * sectors]`."""
        directions, offsets, spreads = self.planes(z)
        counts = np.empty((len(directions), self.num_cells), dtype=np.int64)
        step = max(1, _POINTS // len(z))
        columns = z.T.astype(np.float32, order="C")
        rows = (directions / spreads[:, :, None]).astype(np.float32)
        shifts = (offsets / spreads).astype(np.float32)
        for start in range(0, len(directions), step):
            block = slice(start, start + step)
            xy = rows[block].reshape(-1, len(columns)) @ columns
            xy = xy.reshape(-1, 2, len(z)) - shifts[block, :, None]
            x, y = xy[:, 0], xy[:, 1]
            # Under the prior exp(-r^2 / 2) is uniform; round-off may reach the upper end.
            ring = np.exp(-0.5 * (x * x + y * y))
            ring = ((1.0 - ring) * np.float32(self.num_rings)).astype(np.int32)
            np.minimum(ring, self.num_rings - 1, out=ring)
            turn = np.arctan2(y, x) * np.float32(0.5 / np.pi) + np.float32(0.5)
            sector = (turn * np.float32(self.num_sectors)).astype(np.int32)
            np.minimum(sector, self.num_sectors - 1, out=sector)
            cell = ring * self.num_sectors + sector
            cell += self.num_cells * np.arange(len(cell), dtype=np.int32)[:, None]
            flat = np.bincount(cell.ravel(), minlength=len(cell) * self.num_cells)
            counts[block] = flat.reshape(len(cell), -1)
        return counts


def _extremes(counts: np.ndarray, n: int) -> tuple[float, float]:
    expected = n / counts.shape[1]
    chi2 = np.sum(np.square(counts - expected), axis=1) / expected
    return float(chi2.max()), float(counts.min() / expected)

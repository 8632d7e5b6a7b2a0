"""Parts of the prior that the codes leave empty."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from avae_jax.checks import check_count, check_positive
from avae_jax.metrics.checks import check_codes, check_matching, prior_generator
from avae_jax.metrics.neighbors import nearest_distances

# Beyond this many dimensions all draws of the prior are about equally far from all codes.
_MAX_NEIGHBOR_DIM = 16
_FAR_QUANTILE = 0.99
# Codes and draws together in a simulation of a null standard deviation.
_NULL_SIZE = 1000

# A region is empty that holds at most this share of the codes the prior would put there.
EMPTY_FILL = 0.25
# The part of an axis in which a region without codes is a hole and no light tail.
_INTERIOR = (0.1, 0.9)
# Codes that lie k apart along an axis have k - 1 between them.
_STEPS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 50)
# Cells along an axis of a plane, the pairs of axes searched with the fine ones, and the axes taken
# from either end of a spectrum.
_COARSE, _FINE, _MOST_PAIRS, _EXTREME_AXES = 12, 36, 60, 3
# Points along a cell that tell how much of it a disc covers.
_PARTS = 6


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


class EmptyRegion(NamedTuple):
    """The region of one kind that is emptiest for its size.

    Attributes:
      evidence: log-likelihood ratio of its count, nats; 0 where no region is empty.
      mass: its share of the prior.
      count: the codes in it.
      directions: `[k, latent_dim]` orthonormal, what it lies along: k is 1 for a slab, 2 for a disc
        and 0 for a ball.
    """

    evidence: float
    mass: float
    count: int
    directions: np.ndarray


def _evidence(count, mass, n: int):
    """Return the log-likelihood ratio of `count` of n codes where the prior has `mass`, nats."""
    count, mass = np.asarray(count, np.float64), np.asarray(mass, np.float64)
    rest = n - count
    found = special.xlogy(count, count / (n * mass)) + special.xlogy(
        rest, rest / (n * (1.0 - mass))
    )
    return np.where(count <= EMPTY_FILL * n * mass, found, 0.0)


def emptiest_slab(z: np.ndarray) -> EmptyRegion:
    """Find the emptiest slab across an axis: the codes' own gaps, and gaps with few codes in them.

    Args:
      z: `[n, latent_dim]` codes, N(0, I) under the prior.

    Returns:
      `EmptyRegion`, inside the middle 80% of an axis.
    """
    n, d = z.shape
    low, high = _INTERIOR
    v = np.clip(special.ndtr(z), low, high)
    v = np.sort(np.concatenate([np.full((1, d), low), v, np.full((1, d), high)]), axis=0)
    best = np.zeros(d)
    ends = np.full((2, d), low)
    for step in _STEPS:
        if step > n:
            break
        # Of gaps with as many codes in them the widest is the emptiest.
        width = v[step:] - v[:-step]
        at = np.argmax(width, axis=0)
        top = _evidence(step - 1, np.maximum(width[at, np.arange(d)], 1e-12), n)
        better = top > best
        best = np.maximum(best, top)
        ends[:, better] = np.stack([v[at, np.arange(d)], v[at + step, np.arange(d)]])[:, better]
    # Beside the slab there are as many codes as the axis has there: between two peaks are few.
    width = ends[1] - ends[0]
    count = np.sum((v > ends[0]) & (v < ends[1]), axis=0)
    reach = np.stack([ends[0] - 2.0 * width, ends[1] + 2.0 * width])
    near = np.sum((v > reach[0]) & (v < reach[1]) & (v > low) & (v < high), axis=0) - count
    room = np.minimum(reach[1], high) - np.maximum(reach[0], low) - width
    local = np.minimum(near / (n * np.maximum(room, 1e-12)), 1.0)
    evidence = np.where(room > width, _evidence(count, np.maximum(width * local, 1e-12), n), best)
    where = int(np.argmax(evidence))
    return EmptyRegion(
        float(evidence[where]), float(width[where]), int(count[where]), np.eye(d)[[where]]
    )


def emptiest_ball(z: np.ndarray) -> EmptyRegion:
    """Find the emptiest ball about the origin, of half the prior's mass at most.

    Args:
      z: `[n, latent_dim]` codes, N(0, I) under the prior.

    Returns:
      `EmptyRegion`; evidence 0 where the shell around it, of the same mass, lacks codes too, as
      where the radius varies less than the prior's.
    """
    n, d = z.shape
    v = np.sort(special.gammainc(0.5 * d, 0.5 * np.sum(np.square(z), axis=1)))
    inner = v[: np.searchsorted(v, 0.5) + 1]
    mass, count = np.clip(inner, 1e-12, 0.5), np.arange(len(inner))
    # A hole has an edge: the next shell of the same mass is full.
    beside = np.searchsorted(v, 2.0 * mass) - count
    evidence = np.where(beside >= 0.75 * n * mass, _evidence(count, mass, n), 0.0)
    at = int(np.argmax(evidence))
    return EmptyRegion(float(evidence[at]), float(mass[at]), int(count[at]), np.empty((0, d)))


def emptiest_disc(z: np.ndarray) -> EmptyRegion:
    """Find the emptiest disc of a plane: of pairs of axes, and of the codes' own axes.

    A plane is cut into cells by the ranks along its two axes; a disc is the cells whose centers it
    holds. Discs that reach beyond the middle of an axis are left out, so that light tails are no
    hole. Of more than 60 pairs of axes those are searched in which coarse cells differ most. The
    codes' own axes are the principal ones of largest and smallest variance, and those that are
    extreme in `E[|w|^2 w w^T]` for whitened codes w (Cardoso 1989). A disc along other directions
    is not looked for.

    Args:
      z: `[n, latent_dim]` codes, N(0, I) under the prior, latent_dim >= 2.

    Returns:
      `EmptyRegion`.

    References:
      Cardoso, Source separation using higher order moments, ICASSP 1989. Kulldorff, A spatial scan
      statistic, Communications in Statistics 26 (1997), for the evidence.
    """
    n, d = z.shape
    pairs = np.stack(np.triu_indices(d, 1), axis=1)
    if len(pairs) > _MOST_PAIRS:
        pairs = pairs[_least_even(z, pairs)]
    own = _own_axes(z)
    cells = _ranked_cells(z, _FINE)
    counts = np.empty((len(pairs) + len(own), _FINE, _FINE), np.float32)
    for row, (i, j) in enumerate(pairs):
        counts[row].flat = np.bincount(_FINE * cells[:, i] + cells[:, j], minlength=_FINE**2)
    if len(own):
        mine = _ranked_cells(z @ own.reshape(-1, d).T, _FINE)
        for row in range(len(own)):
            flat = _FINE * mine[:, 2 * row] + mine[:, 2 * row + 1]
            counts[len(pairs) + row].flat = np.bincount(flat, minlength=_FINE**2)
    edge = _edge(_FINE)
    inner = counts[:, edge:-edge, edge:-edge].reshape(len(counts), -1)
    discs, mass = _discs(_FINE)
    held = inner @ discs.T
    evidence = _evidence(held, mass, n)
    plane, disc = np.unravel_index(np.argmax(evidence), evidence.shape)
    directions = np.eye(d)[pairs[plane]] if plane < len(pairs) else own[plane - len(pairs)]
    return EmptyRegion(
        float(evidence[plane, disc]), float(mass[disc]), int(held[plane, disc]), directions
    )


@functools.cache
def smallest_disc(n: int, evidence: float) -> float:
    """Return the mass of the smallest disc without codes that reaches an evidence.

    The cells that lie in a disc hold less than it. Of three discs off the cells' own centers, at
    0.3 to 0.9 from the origin, the one that needs the most mass counts.

    Args:
      n: number of codes.
      evidence: as `emptiest_disc` returns it, nats.

    Returns:
      A share of the prior; NaN where not even half of it is enough.
    """
    discs, mass = _discs(_FINE)
    edge = _edge(_FINE)
    points = special.ndtri((np.arange(_FINE * _PARTS) + 0.5) / (_FINE * _PARTS))

    def reaches(center: tuple[float, float], radius: float) -> tuple[bool, float]:
        inside = np.hypot(points[:, None] - center[0], points - center[1]) < radius
        share = float(inside.mean())
        left = ~inside / np.sum(~inside)
        # Cells are made of ranks: a disc thins out its rows and columns.
        rows, columns = (
            np.eye(_FINE)[(_FINE * (np.cumsum(side) - 0.5 * side)).astype(int)]
            for side in (left.sum(axis=1), left.sum(axis=0))
        )
        cells = (rows.T @ left @ columns)[edge:-edge, edge:-edge]
        held = discs @ cells.ravel() * n
        return bool(np.max(_evidence(held, mass, n)) >= evidence), share

    largest = 0.0
    for center in ((0.25, -0.2), (-0.45, -0.35), (0.6, 0.65)):
        low, high = 0.0, 1.2
        for _ in range(12):
            radius = 0.5 * (low + high)
            low, high = (low, radius) if reaches(center, radius)[0] else (radius, high)
        is_enough, share = reaches(center, high)
        if not is_enough or share >= 0.5:
            return math.nan
        largest = max(largest, share)
    return largest


def _edge(num: int) -> int:
    return round(_INTERIOR[0] * num)


def _ranked_cells(z: np.ndarray, num: int) -> np.ndarray:
    """Return in which of `num` intervals, with as many codes each, each coordinate lies.

    What an axis has by itself, as two peaks or heavy tails, is no hole of a plane.
    """
    n, _ = z.shape
    cells = np.empty(z.shape, np.int64)
    np.put_along_axis(cells, np.argsort(z, axis=0), (num * np.arange(n) // n)[:, None], axis=0)
    return cells


@functools.cache
def _discs(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return discs of a plane as rows of inner cells, `[discs, cells]`, and their masses."""
    edge = _edge(num)
    at = special.ndtri((np.arange(edge, num - edge) + 0.5) / num)
    grid = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2)
    step = 2 if num > _COARSE else 1
    middles = grid.reshape(len(at), len(at), 2)[::step, ::step].reshape(-1, 2)
    distance = np.linalg.norm(middles[:, None] - grid, axis=-1)
    room = at[-1] - np.abs(middles).max(axis=1)
    rows = [
        (distance[room > radius - 0.15] < radius)
        for radius in (0.1, 0.16, 0.24, 0.33, 0.45, 0.6, 0.8)
    ]
    found = np.unique(np.concatenate(rows), axis=0)
    found = found[found.any(axis=1)].astype(np.float32)
    return found, found.sum(axis=1, dtype=np.float64) / num**2


def _least_even(z: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return which pairs of axes have the emptiest disc of coarse cells, whatever its fill."""
    n, d = z.shape
    columns = _ranked_cells(z, _COARSE) + _COARSE * np.arange(d)
    marks = np.zeros((n, d * _COARSE), np.float32)
    np.put_along_axis(marks, columns, 1.0, axis=1)
    counts = (marks.T @ marks).reshape(d, _COARSE, d, _COARSE)
    edge = _edge(_COARSE)
    counts = counts[pairs[:, 0], edge:-edge, pairs[:, 1], edge:-edge].reshape(len(pairs), -1)
    discs, mass = _discs(_COARSE)
    held, expected = counts @ discs.T, (n * mass).astype(np.float32)
    gap = np.maximum(expected - held, 0.0) ** 2 / expected
    return np.argsort(-gap.max(axis=1), kind="stable")[:_MOST_PAIRS]


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


def _own_axes(z: np.ndarray) -> np.ndarray:
    """Return planes of the codes' own axes, `[planes, 2, latent_dim]`."""
    n, d = z.shape
    ends = min(_EXTREME_AXES, d // 2) if d > 2 else 0
    if not ends:
        return np.empty((0, 2, d))
    picked = np.r_[:ends, d - ends : d]
    picked = picked[np.stack(np.triu_indices(picked.size, 1), axis=1)]
    centered = z - z.mean(axis=0)
    eigenvalues, principal = np.linalg.eigh(centered.T @ centered / n)
    white = centered @ (principal / np.sqrt(np.maximum(eigenvalues, 1e-6 * eigenvalues[-1])))
    weighted = white * np.sum(np.square(white), axis=1, keepdims=True)
    fourth = principal @ np.linalg.eigh(weighted.T @ white / n)[1]
    return np.concatenate([found.T[picked] for found in (principal, fourth)])

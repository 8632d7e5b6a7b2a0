"""How codes depart from a Gaussian prior: by place, width, dependence, tails, clusters and holes.

Each statistic stands against its own distribution over draws of the prior that went through the
same steps, fitted parameters included, and has a z-score there.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes, check_matching, prior_generator
from avae_jax.metrics.holes import (
    Sampler,
    emptiest_ball,
    emptiest_disc,
    emptiest_slab,
    smallest_disc,
)

# What departs by so many standard deviations of its null, in either direction, is no chance: over
# all statistics together less than one set of ideal codes in a hundred has one.
FOUND = 5.0

# A direction is collapsed below this share of the prior's variance, a fifth of its standard
# deviation: draws of the prior lie five times as far out as the codes.
COLLAPSED_SHARE = 0.04

# Effects too small to be taken out before the shape is looked at, as logarithm of a width and as
# correlation.
_LEAST_WIDTH, _LEAST_CORRELATION = 0.05, 0.05

# The share of the farthest codes that a robust width leaves out, and the share whose length is cut.
_TRIMMED, _CUT = 0.05, 0.1

# What is taken out of codes that are uneven or correlated.
WHITENED = "mean and covariance"

# Codes whose neighbours are looked for, so many codes for each step to a farther one, and codes to
# look among.
_QUERIES, _PER_NEIGHBOR, _MOST_AMONG = 512, 200, 2000

# Draws behind a null: where one costs little they may be many.
_CHEAP, _NUM_CHEAP, _NUM_NULL = 150_000, 64, 24


class Departures(NamedTuple):
    """What `departures` measured.

    Attributes:
      sections: numbers by section: "scale", "holes" and "shape".
      plane: `[2, latent_dim]` orthonormal, the plane of the emptiest disc; None where none was
        looked for.
    """

    sections: dict[str, dict[str, Any]]
    plane: np.ndarray | None


def departures(z, *, sample: Sampler | None = None, seed: int = 0) -> Departures:
    """Measure where codes depart from N(0, I), each number with a z-score.

    Place, width, evenness and correlation come first. What is found of them is taken out of the
    codes before their shape is looked at: nothing, mean and width, or mean and covariance; and so
    it is in the draws that they are compared with (Lilliefors 1967). Where the radius has another
    law than the prior's, holes and neighbors are looked for with each code moved along its ray to
    where the prior would have it. Directions without variance are left out.

    Args:
      z: `[n, latent_dim]` codes in units of the prior, n >= 2 latent_dim and n >= 20.
      sample: draws so many codes of a prior that is no Gaussian, in its own units: then only the
        mean and the covariance are measured, against its draws. None is N(0, I).
      seed: of the prior's draws.

    Returns:
      `Departures`. Beside a statistic `name` of the sections stand `name_null`, its mean over draws
      of the prior, and `name_zscore`, taken after a transform that makes the null about normal.
      A z-score beyond `FOUND` is no chance. What latent_dim does not have is left out.

    Raises:
      ValueError: wrong shape, too few codes, or values that are not finite.
      TypeError: `seed` is no integer.

    Numerics:
      float64, regions counted in float32. Time O(n d^2 + n log n d) plus the regions, memory
      O(n d). The null is simulated once a process for each n, latent_dim and seed.

    Example:
      >>> rng = np.random.default_rng(1)
      >>> z = rng.standard_normal((400, 2))
      >>> z[:, 1] += 0.6 * z[:, 0]
      >>> departures(z).sections["scale"]["largest_correlation_test_zscore"] > FOUND
      True

    References:
      Lilliefors, On the Kolmogorov-Smirnov test for normality with mean and variance unknown, JASA
      62 (1967).
    """
    z = check_codes(z, min_codes=20)
    n, d = z.shape
    if n < 2 * d:
        raise ValueError(f"z has {n} codes in {d} dimensions: give at least {2 * d}")
    check_count("seed", seed, minimum=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z, rowvar=False)))
    live = values >= COLLAPSED_SHARE
    basis = _live_axes(vectors[:, live])
    scale: dict[str, Any] = {
        "n": n,
        "dims": d,
        "live_dims": int(live.sum()),
        "collapsed_shift": float(np.linalg.norm(z.mean(axis=0) @ vectors[:, ~live])),
    }
    if not live.any():
        return Departures({"scale": scale, "holes": {}, "shape": {}}, None)
    x = z @ basis
    if sample is None:
        null = _null_moments(n, x.shape[1], seed)
    else:
        null = _draw_null(
            lambda: _moments(check_matching(z, sample(n), name="draws") @ basis), n, d
        )
    scale |= _scored(_moments(x), null)
    widths = _axis_widths(x) / null["cut_width"].mean() if x.shape[1] > 1 else [scale["width"]]
    scale |= {f"axis_width_{end}": float(f(widths)) for end, f in _ENDS.items()}
    if sample is not None:
        return Departures({"scale": scale, "holes": {}, "shape": {}}, None)
    form = _what_to_take_out(scale)
    w = _FORMS[form](x)
    shape: dict[str, Any] = {"n": n, "dims": x.shape[1], "taken_out": form}
    radius = _scored(_radius(w), _null_radius(n, x.shape[1], form, seed))
    spread = abs(radius["radius_spread_zscore"]) > FOUND
    shape |= radius
    ball = {name: shape.pop(name) for name in list(shape) if name.startswith("ball_")}
    if spread:
        shape["outlier_log_odds"] = _outlier_log_odds(np.sum(np.square(w), axis=1), x.shape[1])
    along = _as_the_prior_along_rays(w) if spread else w
    found, plane = _details(w, along)
    null = _null_details(n, x.shape[1], form == WHITENED, seed)
    scored = _scored(found, null)
    holes: dict[str, Any] = {"n": n, **ball}
    holes |= {name: scored.pop(name) for name in list(scored) if name.startswith(_HOLES)}
    if plane is not None:
        holes["smallest_share"] = smallest_disc(n, _limit(null["disc_evidence"]))
        plane = np.linalg.qr((plane @ basis.T).T)[0].T
    else:
        holes["smallest_share"] = -math.expm1(-_limit(null["slab_evidence"]) / n)
    shape |= scored
    shape["largest_valley"] = max(map(_valley, _standard(w).T))
    shape |= _scored_neighbors(along, x if form == WHITENED else None, seed)
    return Departures({"scale": scale, "holes": holes, "shape": shape}, plane)


# What `_details` measures of holes.
_HOLES = ("slab_", "disc_")


def _live_axes(live: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the directions in use that lies along axes where it can.

    Args:
      live: `[latent_dim, num_live]` orthonormal.
    """
    d, k = live.shape
    if d == k:
        return np.eye(d)
    kept = np.sort(np.argsort(-np.sum(np.square(live), axis=1), kind="stable")[:k])
    left, _, right = np.linalg.svd(live @ live[kept].T, full_matrices=False)
    return left @ right


# The mean and the covariance.


def _moments(x: np.ndarray) -> dict[str, float]:
    n, d = x.shape
    mean = x.mean(axis=0)
    centered = x - mean
    # A single code far out moves the mean.
    about_median = x - np.median(x, axis=0)
    covariance = centered.T @ centered / (n - 1)
    trace, square = float(np.trace(covariance)), float(np.sum(np.square(covariance)))
    # n |mean|^2 is a sum of chi-squares weighted by the eigenvalues, about one of them, whose cube
    # root is about normal (Wilson and Hilferty 1931).
    tail = 2.0 * square / (9.0 * trace**2)
    length2 = np.sort(np.sum(np.square(about_median), axis=1))
    kept = length2[: n - int(_TRIMMED * n)]
    found = {
        "shift_statistic": (math.cbrt(n * float(mean @ mean) / trace) - 1.0 + tail)
        / math.sqrt(tail),
        "largest_shift_statistic": float((np.abs(mean) / centered.std(axis=0)).max())
        * math.sqrt(n),
        "shift": float(np.linalg.norm(mean)),
        "width": math.sqrt(trace / d),
        "width_trimmed": math.sqrt(max(float(kept.mean()), 1e-12) / d),
    }
    if d > 1:
        cut = _cut(about_median)
        logs = 0.5 * np.log(np.mean(np.square(cut), axis=0))
        cut /= np.exp(logs)
        square = np.square(cut)
        # Standard errors from the codes' own fourth moments: heavy tails make a width uncertain.
        spread = np.maximum(np.var(square, axis=0), 1e-12)
        apart = (logs - np.median(logs)) / np.sqrt(spread / (4 * n))
        upper = np.triu_indices(d, 1)
        off = (cut.T @ cut / n)[upper]
        scores = off / np.sqrt((square.T @ square)[upper]) * n
        found |= {
            "cut_width": float(np.exp(logs.mean())),
            "unevenness_test": float(np.std(apart)),
            "largest_unevenness": float(np.abs(logs - np.median(logs)).max()),
            "largest_unevenness_test": float(np.abs(apart).max()),
            "correlation": float(np.sqrt(np.mean(np.square(off)))),
            "correlation_test": float(np.sqrt(np.mean(np.square(scores)))),
            "largest_correlation": float(np.abs(off).max()),
            "largest_correlation_test": float(np.abs(scores).max()),
        }
    return found


_ENDS = {"min": np.min, "median": np.median, "max": np.max}


def _axis_widths(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(_cut(x - np.median(x, axis=0))), axis=0))


def _cut(about_median: np.ndarray) -> np.ndarray:
    """Return codes whose length is cut, so that a few far out do not make the covariance.

    Their mean is taken off: that of skew axes is not the median, and would correlate them.
    """
    length = np.linalg.norm(about_median, axis=1)
    # Most codes may lie in one place.
    limit = max(float(np.quantile(length, 1.0 - _CUT)), 1e-6)
    cut = about_median * np.minimum(1.0, limit / np.maximum(length, 1e-300))[:, None]
    return cut - cut.mean(axis=0)


def _what_to_take_out(scale: Mapping[str, Any]) -> str:
    def found(*names: str) -> bool:
        return any(abs(scale.get(f"{name}_zscore", 0.0)) > FOUND for name in names)

    def beyond(name: str) -> float:
        return math.sqrt(max(scale.get(name, 0.0) ** 2 - scale.get(f"{name}_null", 0.0) ** 2, 0.0))

    uneven = found("unevenness_test", "largest_unevenness_test")
    dependent = found("correlation_test", "largest_correlation_test")
    if (uneven and beyond("largest_unevenness") > _LEAST_WIDTH) or (
        dependent and beyond("largest_correlation") > _LEAST_CORRELATION
    ):
        return WHITENED
    moved = found("shift_statistic", "largest_shift_statistic")
    off = found("width") and found("width_trimmed")
    return "mean and width" if moved or off else "nothing"


def _rescaled(x: np.ndarray) -> np.ndarray:
    centered = x - np.median(x, axis=0)
    length2 = np.sum(np.square(centered), axis=1)
    # The root mean square of codes with heavy tails is not their body's width.
    middle = 2.0 * special.gammaincinv(0.5 * x.shape[1], 0.5)
    return centered / math.sqrt(max(float(np.median(length2)), 1e-12) / middle)


def _whitened(x: np.ndarray) -> np.ndarray:
    centered = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False)))
    # The symmetric root keeps the axes, and what lies along them.
    return centered @ (vectors / np.sqrt(values)) @ vectors.T


_FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda x: x,
    "mean and width": _rescaled,
    WHITENED: _whitened,
}


# The radius.


def _radius(w: np.ndarray) -> dict[str, float]:
    d = w.shape[1]
    length2 = np.sum(np.square(w), axis=1)
    ball = emptiest_ball(w)
    return {
        # The relative variance of the squared length, 2 / latent_dim under the prior.
        "radius_spread": math.sqrt(0.5 * d * float(length2.var() / length2.mean() ** 2)),
        "ball_evidence": ball.evidence,
        "ball_share": ball.mass - ball.count / len(w),
        "ball_count": ball.count,
        "ball_mass": ball.mass,
    }


def _as_the_prior_along_rays(w: np.ndarray) -> np.ndarray:
    """Move each code along its ray to where draws of the prior of its rank lie."""
    n, d = w.shape
    length = np.linalg.norm(w, axis=1)
    rank = np.empty(n)
    rank[np.argsort(length, kind="stable")] = (np.arange(n) + 0.5) / n
    wanted = np.sqrt(2.0 * special.gammaincinv(0.5 * d, rank))
    return w * (wanted / np.maximum(length, 1e-300))[:, None]


def _outlier_log_odds(length2: np.ndarray, d: int) -> float:
    """Return how much likelier a few outliers are than heavy tails, nats, given the radii.

    The better of Gaussians of which a share is several times as wide, against the better of
    Student's t; either with a common width.
    """

    def chi2(x):
        return (0.5 * d - 1.0) * np.log(x) - 0.5 * x - 0.5 * d * math.log(2.0) - math.lgamma(d / 2)

    x = np.maximum(length2, 1e-12)
    outliers = tails = -np.inf
    for width in np.linspace(0.85, 1.1, 6):
        body = chi2(x / width**2) - 2.0 * math.log(width)
        for times in (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5):
            wide = chi2(x / (times * width) ** 2) - 2.0 * math.log(times * width)
            for share in (0.003, 0.01, 0.03):
                both = np.logaddexp(math.log1p(-share) + body, math.log(share) + wide)
                outliers = max(outliers, float(both.sum()))
    for freedom in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 40.0, 80.0, 160.0):
        constant = -special.betaln(0.5 * d, 0.5 * freedom)
        for width in np.linspace(0.6, 1.1, 11):
            f = x / (width**2 * freedom)
            log_prob = (0.5 * d - 1.0) * np.log(f) - 0.5 * (d + freedom) * np.log1p(f) + constant
            tails = max(tails, float(log_prob.sum()) - len(x) * math.log(width**2 * freedom))
    return outliers - tails


# Axes, pairs of axes, neighbours and planes.


def _details(w: np.ndarray, along: np.ndarray) -> tuple[dict[str, float], np.ndarray | None]:
    """Measure axes by codes, and planes and slabs by codes with the prior's radius."""
    n, d = w.shape
    standard = _standard(w)
    axes = _axis_kurtosis(standard)
    slab = emptiest_slab(along)
    # Moments over the standard errors that their axes give: heavy tails are no bend.
    moved = _standard(along)
    moved_square = np.square(moved) - 1.0
    third = moved_square.T @ moved / n
    # Axes of two values have no error at all.
    error = np.sqrt(np.mean(np.square(moved_square), axis=0) / n + 1e-24)[:, None]
    square = np.square(standard) - 1.0
    raw = square.T @ standard / n
    raw_error = np.sqrt(np.square(square).T @ np.square(standard) + 1e-24) / n
    skew = np.diag(third) / np.sqrt(np.mean(np.square(moved_square * moved), axis=0) / n + 1e-24)
    bends = ~np.eye(d, dtype=bool)
    found = {
        "axis_kurtosis": float(np.mean(axes)),
        "largest_axis_kurtosis": float(axes.max()),
        "least_axis_kurtosis": float(axes.min()),
        "other_axis_kurtosis": float((axes.sum() - axes.min()) / max(d - 1, 1)),
        "valley": _valley(standard[:, int(np.argmin(axes))]),
        "skewness": float(np.abs(np.diag(third)).max()),
        "skewness_test": float(np.abs(skew).max()),
        "slab_evidence": slab.evidence,
        "slab_share": slab.mass - slab.count / n,
        "slab_count": slab.count,
        "slab_mass": slab.mass,
    }
    if d < 2:
        return found, None
    fourth = np.abs(moved_square.T @ moved_square / n)[bends]
    own = _standard(standard @ _fourth_axes(standard))
    kurtosis = _axis_kurtosis(own)
    disc = emptiest_disc(along)
    found |= {
        "bend": float(np.abs(raw[bends]).max()),
        "bend_test": float(np.abs((raw / raw_error)[bends]).max()),
        "bend_along_test": float(np.abs((third / error)[bends]).max()),
        "fourth_moments": float(np.sqrt(np.mean(np.square(fourth)))),
        "largest_fourth_moment": float(fourth.max()),
        "least_own_kurtosis": float(kurtosis.min()),
        "own_valley": _valley(own[:, int(np.argmin(kurtosis))]),
        "disc_evidence": disc.evidence,
        "disc_share": disc.mass - disc.count / n,
        "disc_count": disc.count,
        "disc_mass": disc.mass,
    }
    return found, disc.directions


def _standard(w: np.ndarray) -> np.ndarray:
    return (w - w.mean(axis=0)) / w.std(axis=0)


def _axis_kurtosis(standard: np.ndarray) -> np.ndarray:
    return np.mean(np.square(np.square(standard)), axis=0)


def _fourth_axes(standard: np.ndarray) -> np.ndarray:
    """Return the axes of `E[|w|^2 w w^T]` (Cardoso 1989) in columns."""
    weighted = standard * np.sum(np.square(standard), axis=1, keepdims=True)
    return np.linalg.eigh(weighted.T @ standard / len(standard))[1]


def _valley(x: np.ndarray) -> float:
    """Return by how many standard deviations a histogram has a valley between two peaks."""
    counts, _ = np.histogram(x, bins=np.linspace(-1.8, 1.8, 13))
    held = counts[:-1] + counts[1:]
    at = np.arange(2, len(held) - 2)
    left, right = np.maximum.accumulate(held), np.maximum.accumulate(held[::-1])[::-1]
    peak = np.minimum(left[at - 2], right[at + 2])
    return float(np.max((peak - held[at]) / np.sqrt(np.maximum(peak + held[at], 1))))


def _neighbors(w: np.ndarray) -> dict[str, float]:
    """Return how near codes lie to each other, and to points midway between two of them.

    Where a density is log-concave, as a Gaussian's and a cube's, it is higher midway; between
    clusters it is lower.
    """
    rng = np.random.default_rng(len(w))
    w = w[rng.permutation(len(w))[:_MOST_AMONG]]
    n = len(w)
    picked = rng.permutation(n)[: min(_QUERIES, n)]
    other = rng.permutation(n)[: len(picked)]
    midway = 0.5 * (w[picked] + w[other])
    rows = np.arange(len(picked))
    # Of more codes a farther neighbour: its distance is surer.
    k, sides = n // _PER_NEIGHBOR, []
    for queries, left_out in ((w[picked], (picked,)), (midway, (picked, other))):
        distance = np.sum(np.square(queries), axis=1)[:, None] + np.sum(np.square(w), axis=1)
        distance -= 2.0 * queries @ w.T
        for columns in left_out:
            distance[rows, columns] = np.inf
        kth = np.partition(distance, k, axis=1)[:, k]
        sides.append(0.5 * np.log(np.maximum(kth, 1e-12)))
    return {
        "log_neighbor_distance": float(sides[0].mean()),
        "midway_log_ratio": float(np.mean(sides[1] - sides[0])),
    }


def _scored_neighbors(w: np.ndarray, x: np.ndarray | None, seed: int) -> dict[str, float]:
    """Score `_neighbors`: of codes that were whitened, with the covariance they had.

    Whitening by a covariance of few codes hides their clusters; the null is then of Gaussians with
    the codes' own covariance.
    """
    n, d = w.shape
    if x is None:
        return _scored(_neighbors(w), _null_neighbors(n, d, seed))
    rng = prior_generator(seed, stream=33)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    root = (vectors * np.sqrt(values)) @ vectors.T
    size = (min(n, _MOST_AMONG), d)
    null = _draw_null(lambda: _neighbors(rng.standard_normal(size) @ root), *size)
    return _scored(_neighbors(w @ root), null)


# The nulls.


_TRANSFORM: dict[str, Callable[[Any], Any]] = {
    "shift_statistic": np.asarray,
    "width": np.log,
    "width_trimmed": np.log,
    "largest_shift_statistic": np.asarray,
    "unevenness_test": np.asarray,
    "largest_unevenness_test": np.asarray,
    "correlation_test": np.asarray,
    "largest_correlation_test": np.asarray,
    "radius_spread": np.log,
    "ball_evidence": np.sqrt,
    "axis_kurtosis": np.log,
    "largest_axis_kurtosis": np.log,
    "least_axis_kurtosis": np.log,
    "least_own_kurtosis": np.log,
    "skewness_test": np.asarray,
    "bend_test": np.asarray,
    "bend_along_test": np.asarray,
    "slab_evidence": np.sqrt,
    "log_neighbor_distance": np.asarray,
    "midway_log_ratio": np.asarray,
    "fourth_moments": np.log,
    "largest_fourth_moment": np.log,
    "disc_evidence": np.sqrt,
}
"""What is scored, and after which transform its null is about normal."""


def _limit(null: np.ndarray) -> float:
    """Return the evidence from which on a region is found beyond a null."""
    root = np.sqrt(null)
    return float(root.mean() + FOUND * root.std(ddof=1)) ** 2


def _scored(found: dict[str, float], null: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Put null means and z-scores beside the statistics that have them."""
    result = dict(found)
    for name, draws in null.items():
        result[f"{name}_null"] = float(draws.mean())
        if name in _TRANSFORM:
            transform = _TRANSFORM[name]
            values = transform(draws)
            spread = max(float(values.std(ddof=1)), 1e-12)
            # Codes of one radius have a spread of 0, whose logarithm is none.
            own = max(found[name], 1e-12) if transform is np.log else found[name]
            result[f"{name}_zscore"] = float((transform(own) - values.mean()) / spread)
    return result


def _simulate(measure, n: int, d: int, seed: int, stream: int) -> dict[str, np.ndarray]:
    rng = prior_generator(seed, stream=stream)
    return _draw_null(lambda: measure(rng.standard_normal((n, d))), n, d)


def _draw_null(draw: Callable[[], dict[str, float]], n: int, d: int) -> dict[str, np.ndarray]:
    rows = [draw() for _ in range(_NUM_CHEAP if n * d <= _CHEAP else _NUM_NULL)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@functools.cache
def _null_moments(n: int, d: int, seed: int) -> dict[str, np.ndarray]:
    return _simulate(_moments, n, d, seed, 30)


@functools.cache
def _null_radius(n: int, d: int, form: str, seed: int) -> dict[str, np.ndarray]:
    return _simulate(lambda x: _radius(_FORMS[form](x)), n, d, seed, 31)


@functools.cache
def _null_details(n: int, d: int, is_whitened: bool, seed: int) -> dict[str, np.ndarray]:
    # Moments are of standardised axes and discs of ranks: a mean and a width change nothing.
    def measure(x: np.ndarray) -> dict[str, float]:
        w = _whitened(x) if is_whitened else x
        return _details(w, w)[0]

    return _simulate(measure, n, d, seed, 32)


@functools.cache
def _null_neighbors(n: int, d: int, seed: int) -> dict[str, np.ndarray]:
    return _simulate(_neighbors, n, d, seed, 34)

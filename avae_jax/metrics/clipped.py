"""Clipped density and clipped coverage: shares of good samples that outliers cannot move."""

import numpy as np
from scipy import special

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_features
from avae_jax.metrics.neighbors import nearest_neighbors, square_distances
from avae_jax.metrics.nulls import NUM_NULL, exchanges, with_null


def clipped_density_coverage(
    features, reference, *, k: int = 5, num_null: int = NUM_NULL, seed: int = 0
) -> dict[str, float]:
    """Measure fidelity and coverage as equivalent shares of good samples.

    After Salvy, Talbot and Thirion (2025). With `r_i` the distance of real point i to its k-th
    nearest real neighbor:

    - clipped density: ball i has the radius `min(r_i, median r)`. A sample scores
      `min(1, (balls it lies in) / k)`; the mean over the samples is divided by the same mean over
      the real points, each against the others' balls, and cut at 1.
    - clipped coverage: real point i scores `min(k, samples within r_i) / k`. The mean over the real
      points is turned into the number of good samples that would give it: M good samples give on
      average `f(M) = 1 - 1/k sum_{j<k} (k - j) C(M, j) B(j + k, M - j + m - k) / B(k, m - k)`,
      with m real points and B the beta function, and the score is `f^-1(mean) / n`, cut at 1.

    Different from the authors' code: f is inverted by interpolation and not at its next whole
    number, which moves the coverage by less than 1 / n.

    Args:
      features: `[n, num_features]` of the samples to judge, n > k.
      reference: `[m, num_features]` of real data, m > k + 1.
      k: which neighbor sets the radius, >= 1.
      num_null: random exchanges of rows behind the nulls, >= 0; 0 leaves them NaN.
      seed: of the exchanges.

    Returns:
      `clipped_density` and `clipped_coverage` in [0, 1], with `_null` and `_null_std`: their mean
      and standard deviation over the exchanges, a little below 1 because of the cut. Where more
      than half of the real points have k copies all balls have radius 0, and hold copies alone.

    Raises:
      ValueError: wrong shapes, too few rows, values that are not finite, k < 1, num_null < 0.
      TypeError: a count that is no integer.

    Numerics:
      float64, time O(num_null (n + m) m d), memory O((n + m) block).

    Example:
      >>> x = np.random.default_rng(0).standard_normal((200, 2))
      >>> half = clipped_density_coverage(np.r_[x[:50], x[:50] + 9.0], x[100:], num_null=0)
      >>> {name: round(value, 1) for name, value in half.items() if "null" not in name}
      {'clipped_density': 0.5, 'clipped_coverage': 0.5}

    References:
      Salvy, Talbot and Thirion, Enhanced generative model evaluation with clipped density and
      coverage, arXiv 2507.01761.
    """
    k = check_count("k", k, minimum=1)
    features, reference = check_features(features, reference, min_rows=k + 2)
    num_null = check_count("num_null", num_null, minimum=0)
    names = ("clipped_density", "clipped_coverage")
    values = _scores(features, reference, k)
    pairs = exchanges(features, reference, num_null, np.random.default_rng(seed))
    null = [_scores(x, y, k) for x, y in pairs]
    result: dict[str, float] = {}
    for i, name in enumerate(names):
        result |= with_null(name, values[i], [draw[i] for draw in null])
    return result


def expected_coverage(num_good: np.ndarray, num_real: int, k: int) -> np.ndarray:
    """Return what good samples score before the calibration.

    Of samples of the real law the number within the k-th of `m - 1` real neighbors is
    beta-binomial: the ball's mass follows `Beta(k, m - k)`.

    Args:
      num_good: `[...]` numbers M of samples, >= 0.
      num_real: m > k.
      k: which neighbor.

    Returns:
      f(M), as `clipped_density_coverage` has it.
    """
    total = np.asarray(num_good, np.float64)
    missing = np.zeros_like(total)
    for j in range(k):
        # Log of the binomial coefficient; the count j exceeds no total.
        some = np.maximum(total, j)
        log_choose = -special.betaln(some - j + 1.0, j + 1.0) - np.log(some + 1.0)
        log_ratio = special.betaln(j + k, some - j + num_real - k)
        log_ratio -= special.betaln(k, num_real - k)
        missing += np.where(total >= j, (k - j) * np.exp(log_choose + log_ratio), 0.0)
    return 1.0 - missing / k


def _scores(x: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    n, m = len(x), len(real)
    center = real[np.argmin(np.sum(np.square(real - real.mean(axis=0)), axis=1))]
    x, real = x - center, real - center
    distances, neighbors = nearest_neighbors(real, real, k=k, exclude_own=True)
    radii = distances[:, -1]
    clipped = np.minimum(radii, np.median(radii))
    own_balls = np.bincount(neighbors[distances <= clipped[:, None]], minlength=m)
    balls = np.zeros(n)
    covered = 0.0
    for rows, squares in square_distances(real, x):
        balls += (squares <= clipped[rows, None] ** 2).sum(axis=0)
        inside = (squares < radii[rows, None] ** 2).sum(axis=1)
        covered += float(np.minimum(inside, k).sum())
    best = np.minimum(own_balls / k, 1.0).mean()
    density = min(float(np.minimum(balls / k, 1.0).mean() / best), 1.0)
    good = np.arange(n + 1)
    coverage = np.interp(covered / (k * m), expected_coverage(good, m, k), good / n)
    return density, float(coverage)

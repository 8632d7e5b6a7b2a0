"""Fréchet distance between feature sets, its null and its value at infinite sample size."""

import math

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes, check_features
from avae_jax.metrics.nulls import NUM_NULL, exchanges, with_null


def frechet_distance(
    features, reference, *, num_null: int = NUM_NULL, seed: int = 0
) -> dict[str, float]:
    """Measure the Fréchet distance between Gaussians fitted to two feature sets.

    `FD = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^(1/2) S2 S1^(1/2))^(1/2))`, covariances divided by n - 1
    (Heusel et al. 2017, eq. 6; on Inception features it is the FID, on those of DINOv2 the
    FD-DINOv2 of Stein et al. 2023, arXiv 2306.04675). Only numbers on the same
    features and the same number of samples compare.

    The estimate is biased upwards by O(1/n), the more the worse the features' kurtosis: by
    `d (d + 5) / (2 n)` for isotropic Gaussian features and n = m. The null is a permutation null:
    FD of the pooled rows, dealt out to both sets at random. (To second order it is
    `(1/n + 1/m) (tr S + 1/2 sum_ij (E[y_i^2 y_j^2] - [i = j] l_i^2) / (l_i + l_j))` with l, y the
    eigenvalues and coordinates of the covariance S; with sample eigenvalues in place of the true
    ones that is 8% low at n = 7 d and 23% at 2.5 d.) Use `frechet_infinity` to compare models
    across sample sizes, and real train against real test features for the floor.

    Args:
      features: `[n, num_features]` of the samples to judge, n >= 2.
      reference: `[m, num_features]` of real data, m >= 2.
      num_null: random exchanges of rows behind the null, >= 0; 0 leaves it NaN.
      seed: of the exchanges.

    Returns:
      `frechet_distance` >= 0, in squared units of the features; `frechet_distance_null` and
      `frechet_distance_null_std`, its mean and standard deviation over the exchanges (NaN below one
      and two of them); `frechet_distance_stderr`, the sampling error of the estimate about its own
      mean (delta method; not the bias), NaN unless n and m exceed num_features.

    Raises:
      ValueError: wrong shapes, fewer than two rows, values that are not finite, num_null < 0.
      TypeError: num_null is no integer.

    Numerics:
      float64. With `S = R'R` from a QR decomposition the last term is the nuclear norm of `R1 R2'`,
      so nothing becomes imaginary and singular covariances (n <= num_features) are exact. Time
      O(num_null ((n + m) d^2 + d^3)).

    Example:
      >>> x = np.random.default_rng(0).standard_normal((50, 3))
      >>> round(frechet_distance(x + 2.0, x)["frechet_distance"], 6)
      12.0

    References:
      Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017. Dowson and Landau,
      The Fréchet distance between multivariate normal distributions, 1982.
    """
    features, reference = check_features(features, reference)
    num_null = check_count("num_null", num_null, minimum=0)
    n, d = features.shape
    m = reference.shape[0]
    roots = _root(features), _root(reference)
    stderr = math.nan
    if min(n, m) > d:
        noise = _null_std(reference, n, m)
        linear = _linear_variance(features, reference, *roots)
        stderr = math.sqrt(max(linear - noise**2, noise**2))
    pairs = exchanges(features, reference, num_null, np.random.default_rng(seed))
    null = [_distance(x, y, _root(x), _root(y)) for x, y in pairs]
    distance = _distance(features, reference, *roots)
    return {
        **with_null("frechet_distance", distance, null),
        "frechet_distance_stderr": stderr,
    }


def frechet_distance_from_moments(mean, covariance, reference_mean, reference_covariance) -> float:
    """Compute the Fréchet distance between two Gaussians from their moments.

    The formula of `frechet_distance`, for statistics that were stored or are known exactly.

    Args:
      mean: `[d]` of the samples.
      covariance: `[d, d]`, symmetric positive semi-definite.
      reference_mean: `[d]` of the real data.
      reference_covariance: `[d, d]`, symmetric positive semi-definite.

    Returns:
      The distance, >= 0.

    Raises:
      ValueError: shapes disagree, values are not finite, or a covariance is not symmetric positive
        semi-definite.

    Numerics:
      float64. Eigenvalues within round-off of zero (below `d eps` of the largest) count as zero.

    Example:
      >>> frechet_distance_from_moments(np.zeros(2), np.eye(2), np.ones(2), 4.0 * np.eye(2))
      4.0
    """
    mean = check_codes(np.atleast_2d(mean), name="mean")[0]
    reference_mean = check_codes(np.atleast_2d(reference_mean), name="reference_mean")[0]
    if mean.shape != reference_mean.shape:
        raise ValueError(
            f"mean has {mean.size} features but reference_mean has {reference_mean.size}: "
            "they must come from one feature extractor"
        )
    root = _covariance_root(covariance, mean.size, "covariance")
    reference_root = _covariance_root(reference_covariance, mean.size, "reference_covariance")
    return _from_roots(mean - reference_mean, root, reference_root)


def frechet_infinity(
    features, reference, *, num_levels: int = 5, seed: int = 0
) -> dict[str, float]:
    """Extrapolate the Fréchet distance to infinitely many samples.

    A line in 1/n is fitted to FD at sizes n, n/2, ..., n/num_levels and read at 1/n = 0 (Chong and
    Forsyth 2020). Different from theirs: both sets shrink together, so the reference's bias goes
    too; at size n/k FD is averaged over k disjoint parts; the line is the weighted least squares
    fit for that design, `FD_inf = FD_1 + w sum_k (FD_1 - FD_k)`, `w = 2 / (L (L - 1))`.

    Args:
      features: `[n, num_features]` of the samples to judge.
      reference: `[m, num_features]` of real data.
      num_levels: number of sizes L, >= 2.
      seed: of the random parts.

    Returns:
      `frechet_infinity`, unbiased to O(1/n^2) and so below 0 about half of the time for a perfect
      sampler; `frechet_infinity_null`, 0; `frechet_infinity_stderr`, its standard error. The first
      and last are NaN unless n and m exceed `num_levels * num_features`.

    Raises:
      ValueError: wrong shapes, fewer than two rows, values that are not finite, num_levels < 2.
      TypeError: num_levels is no integer.

    Numerics:
      float64; `num_levels (num_levels + 1) / 2` distances. The remaining bias is below the
      standard error for n >= 10 num_levels num_features.

    Example:
      >>> x = np.random.default_rng(0).standard_normal((200, 2))
      >>> round(frechet_infinity(x + 2.0, x)["frechet_infinity"])
      8

    References:
      Chong and Forsyth, Effectively unbiased FID and Inception score, CVPR 2020.
    """
    features, reference = check_features(features, reference)
    num_levels = check_count("num_levels", num_levels, minimum=2)
    n, d = features.shape
    m = reference.shape[0]
    if min(n, m) // num_levels <= d:
        nan = float("nan")
        return {
            "frechet_infinity": nan,
            "frechet_infinity_null": 0.0,
            "frechet_infinity_stderr": nan,
        }
    rng = np.random.default_rng(seed)
    moments, reference_moments = _moments(features), _moments(reference)
    whole = frechet_distance_from_moments(*moments, *reference_moments)
    weight = 2.0 / (num_levels * (num_levels - 1))
    estimate = whole
    for level in range(2, num_levels + 1):
        parts = np.array_split(rng.permutation(n), level)
        reference_parts = np.array_split(rng.permutation(m), level)
        pairs = zip(parts, reference_parts, strict=True)
        for i, j in pairs:
            part = frechet_distance_from_moments(*_moments(features[i]), *_moments(reference[j]))
            estimate += weight * (whole - part) / level
    # The parts average to the whole in first order; in second order a pair of samples shares a
    # part at level k with probability 1/k, which inflates the variance by 1 + sum_k w^2 (k - 1).
    noise = _null_std(reference, n, m)
    roots = [
        _covariance_root(covariance, d, "covariance")
        for _, covariance in (moments, reference_moments)
    ]
    linear = max(_linear_variance(features, reference, *roots) - 2.0 * noise**2, 0.0)
    return {
        "frechet_infinity": float(estimate),
        "frechet_infinity_null": 0.0,
        "frechet_infinity_stderr": math.sqrt(linear + noise**2 * (1.0 + weight)),
    }


def _root(x: np.ndarray) -> np.ndarray:
    """Return R with `R'R` the covariance of x."""
    return np.asarray(np.linalg.qr((x - x.mean(axis=0)) / math.sqrt(x.shape[0] - 1), mode="r"))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(axis=0)
    centered = x - mean
    return mean, centered.T @ centered / (x.shape[0] - 1)


def _distance(x: np.ndarray, y: np.ndarray, x_root: np.ndarray, y_root: np.ndarray) -> float:
    return _from_roots(x.mean(axis=0) - y.mean(axis=0), x_root, y_root)


def _from_roots(shift: np.ndarray, root: np.ndarray, reference_root: np.ndarray) -> float:
    if root.shape[0] == 0 or reference_root.shape[0] == 0:
        overlap = 0.0
    else:
        overlap = np.linalg.svd(root @ reference_root.T, compute_uv=False).sum()
    spread = np.sum(np.square(root)) + np.sum(np.square(reference_root)) - 2.0 * overlap
    return float(shift @ shift + max(spread, 0.0))


def _covariance_root(covariance, d: int, name: str) -> np.ndarray:
    covariance = check_codes(np.atleast_2d(covariance), name=name)
    if covariance.shape != (d, d):
        raise ValueError(f"{name} must have shape {(d, d)}, got {covariance.shape}")
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * largest:
        raise ValueError(f"{name} is not symmetric: pass a covariance, not its root")
    eigenvalues, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    if eigenvalues[0] < -1e-6 * largest:
        raise ValueError(
            f"{name} has eigenvalue {eigenvalues[0]:.3g}: a covariance has none below 0"
        )
    kept = eigenvalues > d * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    return np.sqrt(eigenvalues[kept])[:, None] * vectors[:, kept].T


def _null_std(reference: np.ndarray, n: int, m: int) -> float:
    """Return the leading standard deviation of FD between draws of one distribution.

    To second order `FD = |dm|^2 + 1/2 sum_ij dS_ij^2 / (l_i + l_j)` in the eigenbasis of S; dm and
    dS are sums over samples with variances l_i and `E[y_i^2 y_j^2] - [i = j] l_i^2` per sample.
    """
    centered = reference - reference.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(centered.T @ centered / (m - 1))
    eigenvalues = np.maximum(eigenvalues, 0.0)
    squares = np.square(centered @ vectors)
    variances = squares.T @ squares / m - np.diag(np.square(eigenvalues))
    sums = eigenvalues[:, None] + eigenvalues
    safe = np.where(sums > 1e-14 * eigenvalues[-1], sums, np.inf)
    terms = np.maximum(variances, 0.0) / safe
    # The terms i < j and j < i are one and the same variable: hence 2 (2 a)^2 / 2 = 4 a^2 each.
    halves = 0.5 * terms
    variance = 2.0 * np.sum(np.square(eigenvalues)) + 4.0 * np.sum(np.square(halves))
    variance -= 2.0 * np.sum(np.square(np.diag(halves)))
    return float((1.0 / n + 1.0 / m) * np.sqrt(variance))


def _linear_variance(features, reference, root, reference_root) -> float:
    """Return the delta-method variance of FD, from its derivative by each sample.

    The derivative is `2 (m1 - m2)'x + x'(I - T)x` with x centred and T the optimal map from its
    Gaussian to the other one. Where the true derivative is zero (equal distributions) the noise in
    m and T makes this twice the variance of the second-order term, which the callers subtract.
    """
    shift = features.mean(axis=0) - reference.mean(axis=0)
    left, values, right = np.linalg.svd(root @ reference_root.T, full_matrices=False)
    kept = values > values.size * np.finfo(np.float64).eps * max(values, default=0.0)
    scale = np.sqrt(values[kept])[:, None]
    # T = R2' V D^-1 V' R2 for R1 R2' = U D V'.
    half_maps = (right[kept] @ reference_root / scale, left[:, kept].T @ root / scale)
    variance = 0.0
    for x, sign, half_map in ((features, 2.0, half_maps[0]), (reference, -2.0, half_maps[1])):
        x = x - x.mean(axis=0)
        moved = np.sum(np.square(x @ half_map.T), axis=1)
        derivative = sign * (x @ shift) + np.sum(np.square(x), axis=1) - moved
        variance += float(derivative.var(ddof=1)) / x.shape[0]
    return variance

"""Kernel distance between feature sets: KID on subsets, and the same MMD on the full sets."""

import math

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_features

# Rows of the Gram matrix held at once by the full-set estimate.
_BLOCK = 512


def kid(
    features, reference, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Measure the kernel distance between two feature sets on random subsets.

    The mean over subsets of the unbiased squared MMD with `k(x, y) = (x'y / d + 1)^3`
    (Binkowski et al. 2018, eq. 4; on Inception features it is the KID). Unlike the Fréchet distance
    it has no bias, so numbers at different sample sizes compare. For the floor compare real train
    with real test features.

    Args:
      features: `[n, num_features]` of the samples to judge.
      reference: `[m, num_features]` of real data.
      num_subsets: subsets drawn from each set, without replacement within a subset.
      subset_size: rows of each subset, between 2 and min(n, m).
      seed: of the subsets.

    Returns:
      `kid`, negative about half of the time for a perfect sampler; `kid_null`, 0; `kid_std`, the
      standard deviation over the subsets (divided by num_subsets), NaN where they cannot
      differ. The subsets overlap: `kid_std /
      sqrt(num_subsets)` is not a standard error; `polynomial_mmd` has one.

    Raises:
      ValueError: wrong shapes, values that are not finite, subset_size outside [2, min(n, m)], or
        num_subsets < 1.
      TypeError: a count that is no integer.

    Numerics:
      float64, time O(num_subsets subset_size^2 d), memory O(subset_size^2).

    Example:
      >>> x = np.array([[1.0], [-1.0]])
      >>> kid(2.0 * x, x, num_subsets=1, subset_size=2)["kid"]
      -53.0

    References:
      Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    features, reference = check_features(features, reference)
    n, m = features.shape[0], reference.shape[0]
    subset_size = check_count("subset_size", subset_size, minimum=2, maximum=min(n, m))
    num_subsets = check_count("num_subsets", num_subsets, minimum=1)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_subsets):
        x = features[rng.choice(n, subset_size, replace=False)]
        y = reference[rng.choice(m, subset_size, replace=False)]
        within = _off_diagonal_mean(_kernel(x, x)) + _off_diagonal_mean(_kernel(y, y))
        values.append(within - 2.0 * _kernel(x, y).mean())
    # One subset has no spread, and subsets of all rows are one and the same.
    varied = num_subsets > 1 and (subset_size < n or subset_size < m)
    spread = float(np.std(values)) if varied else math.nan
    return {"kid": float(np.mean(values)), "kid_null": 0.0, "kid_std": spread}


def polynomial_mmd(features, reference) -> dict[str, float]:
    """Measure the unbiased squared MMD of two whole feature sets, with its standard error.

    The estimator and kernel of `kid` on all rows at once: every pair is used, so its sampling error
    is the smallest the data allow.

    Args:
      features: `[n, num_features]` of the samples to judge, n >= 2.
      reference: `[m, num_features]` of real data, m >= 2.

    Returns:
      `polynomial_mmd`; `polynomial_mmd_null`, 0, and `polynomial_mmd_null_std`, the leading
      standard deviation between draws of one distribution,
      `E[kc^2]^(1/2) (2/(n(n-1)) + 2/(m(m-1)) + 4/(nm))^(1/2)` with kc the kernel between the two
      sets after double centring; `polynomial_mmd_stderr`, the standard error at these sets (the
      U-statistic's linear variance less its own noise, and the null's if that is larger).

    Raises:
      ValueError: wrong shapes, fewer than two rows, or values that are not finite.

    Numerics:
      float64, time O((n + m)^2 d), memory O((n + m) block).

    Example:
      >>> x = np.array([[1.0], [-1.0]])
      >>> polynomial_mmd(2.0 * x, x)["polynomial_mmd"]
      -53.0

    References:
      Gretton et al., A kernel two-sample test, JMLR 13 (2012), lemma 6 and theorem 12.
    """
    features, reference = check_features(features, reference)
    n, m = features.shape[0], reference.shape[0]
    within_x, _, _ = _gram_sums(features, features)
    within_y, _, _ = _gram_sums(reference, reference)
    within_x -= _diagonal(features)
    within_y -= _diagonal(reference)
    rows, columns, squares = _gram_sums(features, reference)
    cross = rows.sum() / (n * m)
    mmd = within_x.sum() / (n * (n - 1)) + within_y.sum() / (m * (m - 1)) - 2.0 * cross

    centered = squares / (n * m) - np.mean(np.square(rows / m)) - np.mean(np.square(columns / n))
    centered = max(centered + cross**2, 0.0)
    null_variance = centered * (2.0 / (n * (n - 1)) + 2.0 / (m * (m - 1)) + 4.0 / (n * m))
    linear = 4.0 * np.var(within_x / (n - 1) - rows / m, ddof=1) / n
    linear += 4.0 * np.var(within_y / (m - 1) - columns / n, ddof=1) / m
    return {
        "polynomial_mmd": float(mmd),
        "polynomial_mmd_null": 0.0,
        "polynomial_mmd_null_std": math.sqrt(null_variance),
        "polynomial_mmd_stderr": math.sqrt(max(linear - null_variance, null_variance)),
    }


def _cube(inner: np.ndarray, d: int) -> np.ndarray:
    inner /= d
    inner += 1.0
    # Two products are far faster than a power.
    return inner * inner * inner


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _cube(x @ y.T, x.shape[1])


def _diagonal(x: np.ndarray) -> np.ndarray:
    return _cube(np.sum(np.square(x), axis=1), x.shape[1])


def _off_diagonal_mean(gram: np.ndarray) -> float:
    size = gram.shape[0]
    return float((gram.sum() - np.trace(gram)) / (size * (size - 1)))


def _gram_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the row sums, the column sums and the sum of squares of the Gram matrix."""
    rows = np.empty(x.shape[0])
    columns = np.zeros(y.shape[0])
    squares = 0.0
    for start in range(0, x.shape[0], _BLOCK):
        gram = _kernel(x[start : start + _BLOCK], y)
        rows[start : start + _BLOCK] = gram.sum(axis=1)
        columns += gram.sum(axis=0)
        squares += float(np.vdot(gram, gram))
    return rows, columns, squares

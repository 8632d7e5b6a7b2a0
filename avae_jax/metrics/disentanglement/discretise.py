"""Binned codes, their mutual information with factors, and the checks of sampled factors."""

from collections.abc import Callable

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes, check_matching, prior_generator


def check_factors(
    factors, num_codes: int, *, name: str = "factors", allow_constant: bool = False
) -> np.ndarray:
    """Check sampled factor values.

    Args:
      factors: `[num_codes, num_factors]` non-negative integers.
      num_codes: the rows that the codes have.
      name: what to call the argument in an error.
      allow_constant: whether a factor may have one value only.

    Returns:
      `[num_codes, num_factors]` int64.

    Raises:
      TypeError: not integers.
      ValueError: wrong shape, negative values, or a factor with one value only
        unless allowed.
    """
    factors = np.asarray(factors)
    if not np.issubdtype(factors.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {factors.dtype}: pass value indices")
    if factors.ndim != 2 or factors.shape[1] == 0 or factors.shape[0] != num_codes:
        raise ValueError(
            f"{name} must have shape [{num_codes}, num_factors], one row per code, got "
            f"{factors.shape}"
        )
    factors = factors.astype(np.int64)
    if factors.size and factors.min() < 0:
        raise ValueError(f"{name} must not be negative, got {factors.min()}")
    constant = np.flatnonzero((factors == factors[:1]).all(axis=0))
    if constant.size and not allow_constant:
        raise ValueError(
            f"{name} column {constant[0]} has one value only and cannot be scored: leave it out"
        )
    return factors


def discretise(codes: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin each code between its own extremes, `num_bins` of equal width.

    The edges are those of `np.histogram`; a bin holds its left edge, the last both. A code
    that is constant up to round-off falls into one bin.

    Args:
      codes: `[n, latent_dim]` finite float64.
      num_bins: bins per code.

    Returns:
      `[n, latent_dim]` int64 in [0, num_bins).
    """
    bins = np.empty(codes.shape, dtype=np.int64)
    for j, column in enumerate(codes.T):
        low, high = column.min(), column.max()
        # Between so few floats there is no room for the edges.
        if high - low <= num_bins * np.spacing(max(abs(low), abs(high))):
            bins[:, j] = 0
            continue
        edges = np.histogram_bin_edges(column, num_bins)
        bins[:, j] = np.searchsorted(edges[:-1], column, side="right") - 1
    return bins


def mutual_information(bins: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Compute the plug-in mutual information of each binned code with each factor.

    The estimate is biased upwards, by about `(bins - 1)(values - 1) / (2 n)` when independent.

    Args:
      bins: `[n, latent_dim]` non-negative integers.
      factors: `[n, num_factors]` non-negative integers.

    Returns:
      `[latent_dim, num_factors]` float64 in nats, >= 0.

    Numerics:
      Time O(n latent_dim num_factors).
    """
    information = np.empty((bins.shape[1], factors.shape[1]))
    for j, column in enumerate(bins.T):
        rows = int(column.max()) + 1
        for k, factor in enumerate(factors.T):
            columns = int(factor.max()) + 1
            joint = np.bincount(column * columns + factor, minlength=rows * columns)
            p = joint.reshape(rows, columns) / bins.shape[0]
            outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
            seen = p > 0
            information[j, k] = np.sum(p[seen] * np.log(p[seen] / outer[seen]))
    return np.maximum(information, 0.0)


def entropies(factors: np.ndarray) -> np.ndarray:
    """Compute the plug-in entropy of each factor.

    Args:
      factors: `[n, num_factors]` non-negative integers.

    Returns:
      `[num_factors]` float64 in nats.
    """
    values = []
    for factor in factors.T:
        p = np.bincount(factor) / factor.size
        values.append(-np.sum(p[p > 0] * np.log(p[p > 0])))
    return np.asarray(values)


def noise_null(
    estimate: Callable[[np.random.Generator], dict[str, float]],
    *,
    num_null: int,
    seed: int,
) -> dict[str, float]:
    """Repeat an estimate on noise codes.

    Args:
      estimate: from a source of randomness to the scores of a fresh noise code.
      num_null: repetitions; 0 for none.
      seed: of the noise.

    Returns:
      For each score its mean, `{name}_null`, for `num_null >= 1`, and its standard deviation,
      `{name}_null_std`, for `num_null >= 2`.

    Raises:
      ValueError: `num_null` negative.
      TypeError: `num_null` is no integer.
    """
    num_null = check_count("num_null", num_null, minimum=0)
    rng = prior_generator(seed)
    repeats = [estimate(rng) for _ in range(num_null)]
    null = {}
    for name in repeats[0] if repeats else ():
        values = [scores[name] for scores in repeats]
        null[f"{name}_null"] = float(np.mean(values))
        if num_null >= 2:
            null[f"{name}_null_std"] = float(np.std(values, ddof=1))
    return null


def check_split(
    codes_train, factors_train, codes_test, factors_test
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Check training and test codes with their factors.

    Args:
      codes_train: `[n, latent_dim]`, n >= 2.
      factors_train: `[n, num_factors]` integers >= 0.
      codes_test: `[m, latent_dim]`.
      factors_test: `[m, num_factors]` integers >= 0.

    Returns:
      The four arrays, codes as float64 and factors as int64.

    Raises:
      TypeError: factors that are not integers.
      ValueError: wrong or disagreeing shapes, codes that are not finite, or a factor with one
        value only among the training codes.
    """
    codes_train = check_codes(codes_train, name="codes_train", min_codes=2)
    codes_test = check_matching(codes_train, codes_test, name="codes_test", z_name="codes_train")
    factors_train = check_factors(factors_train, codes_train.shape[0], name="factors_train")
    factors_test = check_factors(
        factors_test, codes_test.shape[0], name="factors_test", allow_constant=True
    )
    if factors_train.shape[1] != factors_test.shape[1]:
        raise ValueError(
            f"factors_train have {factors_train.shape[1]} columns but factors_test "
            f"{factors_test.shape[1]}: they must agree"
        )
    return codes_train, factors_train, codes_test, factors_test

"""Dependence between the dimensions of the codes, and the divergence of each from the prior."""

import math

import numpy as np
from scipy import special

from avae_jax.checks import check_count, check_positive
from avae_jax.metrics.checks import check_codes, prior_generator
from avae_jax.metrics.mardia import whiten
from avae_jax.metrics.neighbors import nearest_distances
from avae_jax.metrics.nulls import NUM_NULL, with_null

# Beyond this many dimensions neighbours are too far away for an entropy estimate.
_MAX_NEIGHBOR_DIM = 16
# Draws of one dimension from the prior behind the null of the largest dimension-wise KL.
_NULL_DIMENSIONS = 256


def dimension_kl_values(z, *, scale: float = 1.0) -> np.ndarray:
    """Estimate `KL(q(z_j) || N(0, scale^2))` of each dimension from its spacings.

    With `u = Phi(z_j / scale)`, sorted, `u_(0) = 0`, `u_(n+1) = 1` and m the integer nearest to
    n^(1/3),

        kl_j = psi(m) - psi(n + 1) - mean_{i=0..n+1-m} log(u_(i+m) - u_(i)),

    the negative m-spacing entropy of u (Vasicek 1976) with the exact mean under the prior taken
    off. Draws from the prior give 0 on average for every n, hence single values can be negative.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation of the prior `N(0, scale^2 I)`.

    Returns:
      `[latent_dim]` float64, nats. Infinite for a dimension in which more than m codes agree
      (a constant one, for instance); NaN for a single code.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive.

    Numerics:
      float64; log Phi is used throughout, so codes far in the tails lose no digits. Smoothing over
      m codes biases the estimate towards 0. Time O(n d log n).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((1000, 2))
      >>> dimension_kl_values(z * np.array([1.0, 0.1])).round(1)
      array([0. , 1.8])

    References:
      Vasicek, A test for normality based on sample entropy, JRSS B 38 (1976). Cressie, On the
      logarithms of high-order spacings, Biometrika 63 (1976).
    """
    z = check_codes(z)
    scale = check_positive("scale", scale)
    n, d = z.shape
    if n == 1:
        return np.full(d, math.nan)
    values = [_spacing_kl(z[:, j] / scale) for j in range(d)]
    return np.array(values)


def dimension_kl(z, *, scale: float = 1.0, seed: int = 0) -> dict[str, float]:
    """Sum the divergences of the single dimensions from the prior.

    `sum_j KL(q(z_j) || N(0, scale^2))` is what the prior divergence leaves once the total
    correlation is taken off: `KL(q || p) = TC(q) + sum_j KL(q_j || p_j)` for a factorised prior.
    `dimension_kl_values` gives the terms and their formula.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation of the prior `N(0, scale^2 I)`.
      seed: of the prior draws behind the null band.

    Returns:
      `dimension_kl_sum` and `dimension_kl_max` over the dimensions in nats, each with `_null` (0
      for the sum, exactly) and `_null_std` for n draws from the prior. Infinite if a dimension is
      constant; all NaN for a single code.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive.

    Numerics:
      As `dimension_kl_values`; the null band comes from 256 simulated dimensions.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((1000, 2))
      >>> round(dimension_kl(0.1 * z)["dimension_kl_sum"], 1)
      3.6
    """
    values = dimension_kl_values(z, scale=scale)
    n, d = np.shape(z)
    keys = ("dimension_kl_sum", "dimension_kl_max")
    if n == 1:
        return {key + s: math.nan for key in keys for s in ("", "_null", "_null_std")}
    rng = prior_generator(seed)
    null = np.sort([_spacing_kl(rng.standard_normal(n)) for _ in range(_NULL_DIMENSIONS)])
    # Law of the maximum of d draws from the simulated values.
    weights = np.diff((np.arange(null.size + 1) / null.size) ** d)
    max_null = float(weights @ null)
    return {
        "dimension_kl_sum": float(values.sum()),
        "dimension_kl_sum_null": 0.0,
        "dimension_kl_sum_null_std": float(null.std(ddof=1) * math.sqrt(d)),
        "dimension_kl_max": float(values.max()),
        "dimension_kl_max_null": max_null,
        "dimension_kl_max_null_std": math.sqrt(float(weights @ np.square(null - max_null))),
    }


def total_correlation(
    z, *, num_neighbors: int = 5, num_null: int = NUM_NULL, seed: int = 0
) -> dict[str, float]:
    """Estimate the total correlation of the codes, the dependence between their dimensions.

    `TC = KL(q(z) || prod_j q(z_j))`. Two estimates:

    - Gaussian, from the correlation matrix R: `TC = -1/2 log det R`. Sees linear dependence only.
    - neighbours, for latent_dim <= 16: `TC = TC_gaussian + J(z) - sum_j J(z_j)` with J the
      divergence from the Gaussian of the same moments (Comon 1994), J(z) by the entropy estimate
      of Kozachenko and Leonenko on whitened codes and J(z_j) from spacings
      (`dimension_kl_values`). Sees any dependence; biased, and low where the dependence is
      strong, so compare it with its null.

    Args:
      z: `[n, latent_dim]` codes, n > latent_dim.
      num_neighbors: k of the entropy estimate, >= 1.
      num_null: repetitions on n draws of N(0, I) behind the neighbour estimate's null, >= 1.
      seed: of these draws.

    Returns:
      `total_correlation_gaussian` in nats with the exact `_null` and `_null_std` for independent
      Gaussian dimensions, about `d (d - 1) / (4 n)`; `total_correlation_neighbors` with `_null` and
      `_null_std` (NaN for `num_null = 1`). All are NaN if n <= latent_dim or if the covariance is
      singular; the neighbour estimate is NaN beyond 16 dimensions, for
      n <= num_neighbors, or where so many codes coincide that an entropy is infinite.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, a count below 1.
      TypeError: a count that is no integer.

    Numerics:
      float64. Gaussian: time O(n d^2). Neighbours: time O(n^2 d) per repetition, memory
      O(n x block).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((1000, 2))
      >>> z[:, 1] += z[:, 0]
      >>> round(total_correlation(z)["total_correlation_gaussian"], 1)
      0.3

    References:
      Watanabe, Information theoretical analysis of multivariate correlation (1960). Comon,
      Independent component analysis, Signal Processing 36 (1994). Kozachenko and Leonenko,
      Sample estimate of the entropy of a random vector (1987).
    """
    z = check_codes(z)
    num_neighbors = check_count("num_neighbors", num_neighbors, minimum=1)
    num_null = check_count("num_null", num_null, minimum=1)
    n, d = z.shape
    nan = math.nan
    result = {
        f"total_correlation_{kind}{s}": nan
        for kind in ("gaussian", "neighbors")
        for s in ("", "_null", "_null_std")
    }
    white = whiten(z)
    if white is None:
        return result
    # 1 - R_j^2 of dimension j on the j - 1 before it is Beta((n - j)/2, (j - 1)/2), independently.
    half = 0.5 * (n - np.arange(2, d + 1))
    half_n = 0.5 * (n - 1)
    gaussian = _gaussian_tc(z)
    result["total_correlation_gaussian"] = gaussian
    result["total_correlation_gaussian_null"] = 0.5 * float(
        np.sum(special.digamma(half_n) - special.digamma(half))
    )
    result["total_correlation_gaussian_null_std"] = 0.5 * math.sqrt(
        np.sum(special.polygamma(1, half) - special.polygamma(1, half_n))
    )
    if d <= _MAX_NEIGHBOR_DIM and n > num_neighbors:
        rng = prior_generator(seed)
        draws = (rng.standard_normal((n, d)) for _ in range(num_null))
        null = [_neighbor_tc(draw, whiten(draw), num_neighbors) for draw in draws]
        value = _neighbor_tc(z, white, num_neighbors)
        result |= with_null("total_correlation_neighbors", value, null)
    return result


def _spacing_kl(x: np.ndarray) -> float:
    n = x.size
    m = max(1, round(n ** (1.0 / 3.0)))
    x = np.concatenate([[-np.inf], np.sort(x), [np.inf]])
    low, high = x[:-m], x[m:]
    # Phi(high) - Phi(low) = Phi(-low) - Phi(-high): stay in the tail where Phi keeps its digits.
    flip = low + high > 0.0
    log_low = special.log_ndtr(np.where(flip, -high, low))
    log_high = special.log_ndtr(np.where(flip, -low, high))
    with np.errstate(divide="ignore"):
        log_spacing = log_high + np.log(-np.expm1(log_low - log_high))
    return float(special.digamma(m) - special.digamma(n + 1) - log_spacing.mean())


def _gaussian_tc(z: np.ndarray) -> float:
    if z.shape[1] == 1:
        return 0.0
    correlation = np.corrcoef(z, rowvar=False)
    return max(-0.5 * float(np.linalg.slogdet(correlation)[1]), 0.0)


def _neighbor_tc(z: np.ndarray, white: np.ndarray | None, k: int) -> float:
    if white is None:
        return math.nan
    n, d = white.shape
    standard = (z - z.mean(axis=0)) / z.std(axis=0)
    marginal = sum(_spacing_kl(standard[:, j]) for j in range(d))
    radius = nearest_distances(white, white, k=k, exclude_own=True)
    if not np.all(radius > 0.0):
        return math.nan
    log_ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1.0)
    entropy = special.digamma(n) - special.digamma(k) + log_ball + d * np.log(radius).mean()
    joint = 0.5 * d * math.log(2.0 * math.pi * math.e) - entropy
    value = _gaussian_tc(z) + float(joint) - marginal
    return value if math.isfinite(value) else math.nan

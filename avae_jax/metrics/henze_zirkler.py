"""The Henze-Zirkler test of multivariate normality."""

import math

import numpy as np

from avae_jax.metrics.checks import check_codes
from avae_jax.metrics.mardia import whiten
from avae_jax.metrics.neighbors import square_distances

# Kernel mass a code gets from all others, in units of its own, below which the test is blind.
_LEAST_MASS = 1e-4


def henze_zirkler(z) -> dict[str, float]:
    """Compare the characteristic function of the codes with a Gaussian's.

    With `w_i` the codes after removal of their mean and whitening by their own covariance
    (divided by n) and `b = 2^(-1/2) ((2 d + 1) n / 4)^(1 / (d + 4))`,

        HZ = 1/n sum_ij exp(-b^2 |w_i - w_j|^2 / 2)
             - 2 (1 + b^2)^(-d/2) sum_i exp(-b^2 |w_i|^2 / (2 (1 + b^2))) + n (1 + 2 b^2)^(-d/2)

    (Henze and Zirkler 1990). It is unchanged by an invertible affine map of the codes.

    In high dimension only the terms i = j count: HZ is then about 1 whatever the codes are. The
    flag `henze_zirkler_has_power` says so. At 3000 codes a mixture of ten clusters shows at
    d = 16 and no longer at d = 64.

    Args:
      z: `[n, latent_dim]` codes, n > latent_dim.

    Returns:
      `henze_zirkler`; `henze_zirkler_null` and `henze_zirkler_null_std`, its mean and standard
      deviation for n draws of any Gaussian (large n; at n = 100, d = 16 the deviation is 40% too
      large); `henze_zirkler_zscore`, the statistic under
      their lognormal approximation, about N(0, 1) for Gaussian codes (large is bad), NaN where
      the test is blind; `henze_zirkler_has_power`, 1 where the kernel mass that other codes give
      to a code, `n (1 + 2 b^2)^(-d/2)` on average, is at least 1e-4 of its own, else 0.
      All but the flag are NaN if n <= latent_dim or if the covariance is singular.

    Raises:
      ValueError: wrong shape, no codes, or values that are not finite.

    Numerics:
      float64, time O(n^2 d), memory O(n d + n x block).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((300, 2))
      >>> [henze_zirkler(x)["henze_zirkler_zscore"] > 5.0 for x in (z, z**3)]
      [False, True]

    References:
      Henze and Zirkler, A class of invariant consistent tests for multivariate normality,
      Communications in Statistics 19 (1990).
    """
    z = check_codes(z, min_codes=1)
    n, d = z.shape
    b2 = 0.5 * (0.25 * (2 * d + 1) * n) ** (2.0 / (d + 4))
    mass = n * (1.0 + 2.0 * b2) ** (-0.5 * d)
    has_power = float(mass >= _LEAST_MASS)
    w = whiten(z)
    if w is None:
        nan = dict.fromkeys(
            ("henze_zirkler" + s for s in ("", "_null", "_null_std", "_zscore")), math.nan
        )
        return {**nan, "henze_zirkler_has_power": has_power}

    squares = np.sum(np.square(w), axis=1)
    to_origin = np.exp(-0.5 * b2 / (1.0 + b2) * squares).sum()
    statistic = _kernel_sum(w, b2) / n - 2.0 * (1.0 + b2) ** (-0.5 * d) * to_origin + mass
    mean, variance = _null_moments(d, b2)
    log_variance = math.log1p(variance / mean**2)
    zscore = math.nan
    if has_power and statistic > 0.0:
        zscore = (math.log(statistic / mean) + 0.5 * log_variance) / math.sqrt(log_variance)
    return {
        "henze_zirkler": float(statistic),
        "henze_zirkler_null": mean,
        "henze_zirkler_null_std": math.sqrt(variance),
        "henze_zirkler_zscore": zscore,
        "henze_zirkler_has_power": has_power,
    }


def _kernel_sum(w: np.ndarray, b2: float) -> float:
    total = 0.0
    for rows, square in square_distances(w, w, upper=True):
        square *= -0.5 * b2
        kernel = np.exp(square, out=square).sum(axis=0)
        size = rows.stop - rows.start
        total += kernel[:size].sum() + 2.0 * kernel[size:].sum()
    return float(total)


def _null_moments(d: int, b2: float) -> tuple[float, float]:
    """Return mean and variance of the statistic under normality."""
    a = 1.0 + 2.0 * b2
    c = (1.0 + b2) * (1.0 + 3.0 * b2)
    mean = 1.0 - a ** (-0.5 * d) * (1.0 + d * b2 / a + d * (d + 2) * b2**2 / (2.0 * a**2))
    variance = (
        2.0 * (1.0 + 4.0 * b2) ** (-0.5 * d)
        + 2.0 * a**-d * (1.0 + 2.0 * d * b2**2 / a**2 + 0.75 * d * (d + 2) * b2**4 / a**4)
        - 4.0 * c ** (-0.5 * d) * (1.0 + 1.5 * d * b2**2 / c + 0.5 * d * (d + 2) * b2**4 / c**2)
    )
    return mean, max(variance, 0.0)

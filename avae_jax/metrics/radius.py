"""Kolmogorov-Smirnov distance of the codes' radius from the prior's."""

import numpy as np
from scipy import special

from avae_jax.checks import check_positive
from avae_jax.metrics.checks import check_codes

# Mean, sqrt(pi/2) log 2 = 0.8687, and standard deviation, 0.2603, of the Kolmogorov distribution.
_KOLMOGOROV_MEAN = np.sqrt(np.pi / 2.0) * np.log(2.0)
_KOLMOGOROV_STD = np.sqrt(np.pi**2 / 12.0 - _KOLMOGOROV_MEAN**2)


def radial_ks(z, *, scale: float = 1.0) -> dict[str, float]:
    """Measure how far `|z|^2 / scale^2` is from a chi-square with latent_dim degrees of freedom.

    `D = sup_r |F_n(r) - F_chi2(r)|`. In high dimension the radius concentrates, so D sees a wrong
    scale of a few per cent that pictures of two coordinates do not show.

    Args:
      z: `[n, latent_dim]` codes.
      scale: standard deviation of the prior `N(0, scale^2 I)`.

    Returns:
      `radial_ks` in [0, 1]; `radial_ks_null` and `radial_ks_null_std`, its mean and standard
      deviation for n draws from that prior, `0.8687` and `0.2603` over
      `sqrt(n) + 0.12 + 0.11 / sqrt(n)`.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `scale` not positive.

    Example:
      >>> round(radial_ks(np.zeros((100, 8)))["radial_ks"], 4)
      1.0

    References:
      Stephens, Use of the Kolmogorov-Smirnov, Cramer-Von Mises and related statistics without
      extensive tables, JRSS B 32 (1970), for the correction at small n.
    """
    z = check_codes(z)
    scale = check_positive("scale", scale)
    n, d = z.shape
    # chi2.cdf(r2, d) as an incomplete gamma function: scipy.stats takes a second to import.
    cdf = special.gammainc(0.5 * d, 0.5 * np.sort(np.sum(np.square(z / scale), axis=1)))
    steps = np.arange(n + 1) / n
    distance = max(float(np.max(steps[1:] - cdf)), float(np.max(cdf - steps[:-1])))
    root = np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)
    return {
        "radial_ks": distance,
        "radial_ks_null": float(_KOLMOGOROV_MEAN / root),
        "radial_ks_null_std": float(_KOLMOGOROV_STD / root),
    }

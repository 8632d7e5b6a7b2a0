"""First and second moments of the codes against the prior's."""

import numpy as np
from scipy import special

from avae_jax.checks import check_positive
from avae_jax.metrics.checks import check_codes


def code_moments(z, *, scale: float | None = None) -> dict[str, float]:
    """Compare the mean and covariance of the codes with those of the prior.

    With `m` the mean and `S` the covariance of the codes (divided by n - 1),
    `moment_kl = KL(N(m, S) || N(0, I)) = (tr S + |m|^2 - d - log det S) / 2`. It is blind to
    anything beyond the second moment and sharp on scale and on collapsed directions.

    Args:
      z: `[n, latent_dim]` codes, n >= 2.
      scale: standard deviation of a second prior `N(0, scale^2 I)` to compare with, for instance
        the claimed `sqrt(1 - h^2)`; None leaves it out.

    Returns:
      `mean_norm` |m|, `std` the root of the mean variance over dimensions, `eig_min`, `eig_median`,
      `eig_max` of S, `effective_rank` the exponential of the entropy of S's normalised eigenvalues,
      `moment_kl` in nats, and `moment_kl_scaled` against `N(0, scale^2 I)` when `scale` is given.
      Each has a `_null`, its leading-order expectation for n draws from N(0, I) (for the scaled
      moment KL, from N(0, scale^2 I)): `sqrt(d/n)`, 1, `(1 -+ sqrt(d/n))^2` (Marchenko-Pastur
      edges), for the median `1 - d/(3n)` (within .01 of the law's median for d < n; 0 for d >= 2n,
      left out between), `min(d, n) exp(-min(d, n) / (2 max(d, n)))`; exact for the moment
      KL, about `d (d + 3) / (4 n)`.

    Raises:
      ValueError: wrong shape, fewer than two codes, values that are not finite, or `scale` not
        positive.

    Numerics:
      float64. A singular S (a constant dimension, or n <= d) gives a moment KL of infinity.

    Example:
      >>> z = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> round(code_moments(z)["std"], 4)
      0.8165

    References:
      Roy and Vetterli, The effective rank, EUSIPCO 2007. Page, Average entropy of a subsystem,
      PRL 71 (1993), for its null. Marchenko and Pastur (1967) for the edges.
    """
    z = check_codes(z, min_codes=2)
    n, d = z.shape
    mean = z.mean(axis=0)
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    trace = float(eigenvalues.sum())
    aspect = d / n
    moments = {
        "mean_norm": float(np.linalg.norm(mean)),
        "mean_norm_null": float(np.sqrt(aspect)),
        "std": float(np.sqrt(trace / d)),
        "std_null": 1.0,
        "eig_min": float(eigenvalues[0]),
        "eig_min_null": float(max(1.0 - np.sqrt(aspect), 0.0) ** 2),
        "eig_median": float(np.median(eigenvalues)),
        "eig_max": float(eigenvalues[-1]),
        "eig_max_null": float((1.0 + np.sqrt(aspect)) ** 2),
        "effective_rank": _effective_rank(eigenvalues),
        "effective_rank_null": float(min(d, n) * np.exp(-min(d, n) / (2.0 * max(d, n)))),
        "moment_kl": _moment_kl(mean, eigenvalues, n, 1.0),
        "moment_kl_null": _moment_kl_null(n, d),
    }
    if not 1.0 <= aspect < 2.0:
        moments["eig_median_null"] = 1.0 - aspect / 3.0 if aspect < 1.0 else 0.0
    if scale is not None:
        scale = check_positive("scale", scale)
        moments["moment_kl_scaled"] = _moment_kl(mean, eigenvalues, n, scale)
        moments["moment_kl_scaled_null"] = moments["moment_kl_null"]
    return moments


def _effective_rank(eigenvalues: np.ndarray) -> float:
    total = eigenvalues.sum()
    if total <= 0.0:
        return 0.0
    share = eigenvalues[eigenvalues > 0.0] / total
    return float(np.exp(-np.sum(share * np.log(share))))


def _moment_kl_null(n: int, d: int) -> float:
    """Return the mean of the moment KL over n draws of the prior, by the Wishart's log det."""
    if n <= d:
        return float("inf")
    log_det = np.sum(special.digamma(0.5 * (n - np.arange(1, d + 1)))) + d * np.log(2.0 / (n - 1))
    return float(0.5 * (d / n - log_det))


def _moment_kl(mean: np.ndarray, eigenvalues: np.ndarray, n: int, scale: float) -> float:
    d = eigenvalues.size
    # Round-off leaves the zero eigenvalues of a singular matrix slightly off zero.
    floor = d * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    if n <= d or eigenvalues[0] <= floor:
        return float("inf")
    scaled = eigenvalues / scale**2
    return float(0.5 * (np.sum(scaled - 1.0 - np.log(scaled)) + mean @ mean / scale**2))

"""First and second moments of the codes against the prior's."""

import math

import numpy as np
from scipy import special

from avae_jax.checks import check_positive
from avae_jax.metrics.checks import check_codes, prior_generator
from avae_jax.metrics.nulls import with_null

# Simulated sets of moments: the standard deviation of a null is then known to a ninth.
_NUM_DRAWS = 40


def code_moments(z, *, scale: float | None = None, seed: int = 0) -> dict[str, float]:
    """Compare the mean and covariance of the codes with those of the prior.

    With `m` the mean and `S` the covariance of the codes (divided by n - 1),
    `moment_kl = KL(N(m, S) || N(0, I)) = (tr S + |m|^2 - d - log det S) / 2`. It is blind to
    anything beyond the second moment and sharp on scale and on collapsed directions.

    Args:
      z: `[n, latent_dim]` codes, n >= 2.
      scale: standard deviation of a second prior `N(0, scale^2 I)` to compare with, for instance
        the claimed `sqrt(1 - h^2)`; None leaves it out.
      seed: of the simulated moments.

    Returns:
      `mean_norm` |m|, `std` the root of the mean variance over dimensions, `eig_min`, `eig_median`,
      `eig_max` of S, `effective_rank` the exponential of the entropy of S's normalised eigenvalues,
      `moment_kl` in nats, and `moment_kl_scaled` against `N(0, scale^2 I)` when `scale` is given.
      Each has a `_null` and a `_null_std`, its mean and standard deviation for n draws from N(0, I)
      (for the scaled moment KL, from N(0, scale^2 I)): exact for `mean_norm` and `std`, and for the
      mean of the moment KL, about `d (d + 3) / (4 n)`; over 40 simulated sets of moments for the
      rest. (The edges `(1 -+ sqrt(d/n))^2` of Marchenko and Pastur lie outside the extreme
      eigenvalues: 1.321 for 1.253 at n = 359, d = 8.)

    Raises:
      ValueError: wrong shape, fewer than two codes, values that are not finite, or `scale` not
        positive.

    Numerics:
      float64. A singular S (a constant dimension, or n <= d) gives a moment KL of infinity. The
      simulated moments come from Bartlett's decomposition: time O(n d^2 + d^3), without draws of
      the codes.

    Example:
      >>> z = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> round(code_moments(z)["std"], 4)
      0.8165

    References:
      Roy and Vetterli, The effective rank, EUSIPCO 2007. Bartlett, On the theory of statistical
      regression, Proc. R. Soc. Edinburgh 53 (1933).
    """
    z = check_codes(z, min_codes=2)
    n, d = z.shape
    scale = None if scale is None else check_positive("scale", scale)
    mean_norm = float(np.linalg.norm(z.mean(axis=0)))
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.cov(z, rowvar=False)))
    values = _moments(mean_norm, np.maximum(eigenvalues, 0.0), n, scale)

    rng = prior_generator(seed)
    null_eigenvalues = prior_eigenvalues(n, d, num_draws=_NUM_DRAWS, rng=rng)
    null_norms = np.sqrt(rng.chisquare(d, size=_NUM_DRAWS) / n)
    null = [_moments(*draw, n, 1.0) for draw in zip(null_norms, null_eigenvalues, strict=True)]
    moments: dict[str, float] = {}
    for name, value in values.items():
        moments |= with_null(name, value, [draw[name] for draw in null])
    for name, degrees, size in (("mean_norm", d, math.sqrt(d / n)), ("std", (n - 1) * d, 1.0)):
        mean, std = _chi(degrees)
        moments |= {f"{name}_null": size * mean, f"{name}_null_std": size * std}
    for name in ("moment_kl", "moment_kl_scaled"):
        if name in moments:
            moments[f"{name}_null"] = _moment_kl_null(n, d)
    return moments


def prior_eigenvalues(n: int, d: int, *, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Simulate the eigenvalues of the covariance of n draws from N(0, I).

    `(n - 1) S` follows Wishart's law, and is `A A'` for a triangular A with square roots of
    chi-squares on its diagonal and normal values below it (Bartlett 1933).

    Args:
      n: number of codes, >= 2.
      d: latent_dim.
      num_draws: how many covariances.
      rng: of the draws.

    Returns:
      `[num_draws, d]` float64, each row ascending; zeros where n <= d.
    """
    # For n - 1 < d the eigenvalues that are not zero are those of the other product, A' A.
    size, degrees = min(d, n - 1), max(d, n - 1)
    eigenvalues = np.zeros((num_draws, d))
    for row in eigenvalues:
        root = np.tril(rng.standard_normal((size, size)), -1)
        np.fill_diagonal(root, np.sqrt(rng.chisquare(degrees - np.arange(size))))
        row[d - size :] = np.maximum(np.linalg.eigvalsh(root @ root.T / (n - 1)), 0.0)
    return eigenvalues


def _chi(degrees: int) -> tuple[float, float]:
    """Return mean and standard deviation of the root of a chi-square over its degrees."""
    log_mean = special.gammaln(0.5 * (degrees + 1)) - special.gammaln(0.5 * degrees)
    mean = math.exp(log_mean + 0.5 * math.log(2.0 / degrees))
    # 1 - mean^2 would lose its digits.
    variance = 1.0 - mean**2 if degrees < 10_000 else 0.5 / degrees
    return mean, math.sqrt(variance)


def _moments(mean_norm: float, eigenvalues: np.ndarray, n: int, scale) -> dict[str, float]:
    moments = {
        "mean_norm": mean_norm,
        "std": float(np.sqrt(eigenvalues.mean())),
        "eig_min": float(eigenvalues[0]),
        "eig_median": float(np.median(eigenvalues)),
        "eig_max": float(eigenvalues[-1]),
        "effective_rank": _effective_rank(eigenvalues),
        "moment_kl": moment_kl(mean_norm, eigenvalues, n),
    }
    if scale is not None:
        moments["moment_kl_scaled"] = moment_kl(mean_norm, eigenvalues, n, scale)
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


def moment_kl(mean_norm: float, eigenvalues: np.ndarray, n: int, scale: float = 1.0) -> float:
    """Return the moment KL of codes whose moments are known, nats; `code_moments` says what it is.

    Args:
      mean_norm: length of the codes' mean.
      eigenvalues: `[latent_dim]` of their covariance, ascending.
      n: number of codes.
      scale: standard deviation > 0 of the prior in every dimension.
    """
    d = eigenvalues.size
    # Round-off leaves the zero eigenvalues of a singular matrix slightly off zero.
    floor = d * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    if n <= d or eigenvalues[0] <= floor:
        return float("inf")
    scaled = eigenvalues / scale**2
    return float(0.5 * (np.sum(scaled - 1.0 - np.log(scaled)) + mean_norm**2 / scale**2))

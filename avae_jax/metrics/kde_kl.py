"""KL divergence from the aggregate posterior to the prior, estimated through a KDE."""

from collections.abc import Callable

import numpy as np

from avae_jax.checks import check_positive
from avae_jax.density import kde_log_density
from avae_jax.metrics.checks import check_codes, check_matching


def kde_kl(
    z, centers, *, bandwidth, exclude=None, log_prob: Callable | None = None
) -> dict[str, float]:
    """Estimate `KL(q(z) || p(z))` with a kernel density estimate of q.

    `kl = mean_i [ log q_h(z_i) - log p(z_i) ]`, `q_h(z) = 1/m sum_j N(z; c_j, h^2 I)`
    (arXiv 2311.07693). There is no tail floor: this is the divergence, not the training objective.

    The estimate is biased and its value at the optimum is not 0: compare it with `null_kl` of
    `find_bandwidth` for the same latent_dim and number of centers (-7.23 at 128 and 10,000).

    Args:
      z: `[n, latent_dim]` codes.
      centers: `[m, latent_dim]` codes of other images, or the same array with `exclude`.
      bandwidth: h, the kernel's standard deviation, > 0.
      exclude: int32 `[n]`, the center each code must not see (its own), -1 for none; None if z and
        centers are disjoint.
      log_prob: maps float32 codes `[n, latent_dim]` to log p `[n]` in nats; None is N(0, I).

    Returns:
      `kl` in nats and `stderr`, its standard error over the codes (NaN for a single code). The
      centers are held fixed: their own sampling error is not in it.

    Raises:
      ValueError: wrong shapes, values that are not finite, bandwidth not positive.

    Numerics:
      log q comes from the streamed float32 kernel, time O(n m d), memory O(n x block); log p of
      N(0, I) and the mean are float64.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((200, 2))
      >>> round(kde_kl(z, z, bandwidth=0.5)["kl"], 1)
      0.1
    """
    z = check_codes(z)
    centers = check_matching(z, centers, name="centers")
    bandwidth = check_positive("bandwidth", bandwidth)
    log_q = kde_log_density(
        z.astype(np.float32), centers.astype(np.float32), bandwidth=bandwidth, exclude=exclude
    )
    if log_prob is None:
        log_p = -0.5 * np.sum(np.square(z), axis=1) - 0.5 * z.shape[1] * np.log(2.0 * np.pi)
    else:
        log_p = np.asarray(log_prob(z.astype(np.float32)), np.float64)
    log_ratio = np.asarray(log_q, dtype=np.float64) - log_p
    n = z.shape[0]
    stderr = float(log_ratio.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {"kl": float(log_ratio.mean()), "stderr": stderr}

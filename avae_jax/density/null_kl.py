"""The value a perfect code would show as its KL divergence."""

import math

import numpy as np

from avae_jax.checks import check_count, check_positive_unless_traced
from avae_jax.density.normal_draws import (
    check_not_traced,
    draw_queries_and_centers,
    row_stats,
)
from avae_jax.density.tail import log_tail_density

# Sets of centers that the mean is over, fewer where one holds so many that it hardly varies.
_MOST_SETS, _ENOUGH_CENTERS = 10, 20_000


def null_kl(
    latent_dim: int,
    num_centers: int,
    *,
    bandwidth: float,
    scale: float,
    max_cdf: float | None = None,
    seed: int = 0,
    num_queries: int = 2000,
) -> float:
    r"""Return the KL estimate that codes drawn from N(0, scale^2 I) show against N(0, I).

    ``mean_i[ log q(z_i) - log p(z_i) ]`` with `p = N(0, I)` and `q` the kernel density of
    `num_centers` other draws of the same codes. A finite sample of centers makes it
    negative, the more so the more dimensions there are: the KL of a trained encoder means something
    only beside this value. At the corrected bandwidth and `scale = sqrt(1 - bandwidth^2)` the codes
    are those the AVAE aims at.

    Args:
      latent_dim: dimension of the codes, at least 1.
      num_centers: number of centers, at least 1.
      bandwidth: the kernel's standard deviation, in units of the codes.
      scale: standard deviation of the codes, > 0.
      max_cdf: places the floor of the "official" tail under q (`log_tail_density`), for comparison
        with a KL that has it; None for no floor.
      seed: at least 0; the same seed gives the same value.
      num_queries: number of codes the mean is over, at least 1; they are shared out among up to
        ten sets of centers.

    Returns:
      The mean, in nats.

    Raises:
      TypeError: a count that is not an integer, or a call inside `jax.jit`.
      ValueError: a count below its minimum, or a bandwidth or scale that is not positive.

    Numerics:
      Time `O(num_queries num_centers latent_dim)`, memory `O(num_centers latent_dim)`.

    Example:
      >>> round(null_kl(16, 1000, bandwidth=0.62, scale=0.78), 1)
      -0.4
    """
    check_not_traced("null_kl")
    latent_dim = check_count("latent_dim", latent_dim, minimum=1)
    num_centers = check_count("num_centers", num_centers, minimum=1)
    num_queries = check_count("num_queries", num_queries, minimum=1)
    seed = check_count("seed", seed, minimum=0)
    check_positive_unless_traced("bandwidth", bandwidth)
    check_positive_unless_traced("scale", scale)
    log_eps = None
    if max_cdf is not None:
        log_eps = float(log_tail_density(latent_dim, bandwidth=bandwidth, max_cdf=max_cdf))

    # Which centers are drawn counts for more than which codes, the more so the fewer there are.
    num_sets = min(_MOST_SETS, -(-_ENOUGH_CENTERS // num_centers), num_queries)
    means = []
    for queries_of_set in np.diff(np.linspace(0, num_queries, num_sets + 1).astype(int)):
        queries, slabs = draw_queries_and_centers(
            latent_dim, num_centers, num_queries=int(queries_of_set), seed=seed, trial=len(means)
        )
        # Scaling codes and bandwidth alike leaves the logits as they are: no draw needs scaling.
        lse = row_stats(queries, slabs, bandwidth=bandwidth / scale).lse
        means.append(
            mean_kl_from_lse(
                lse, queries, num_centers, bandwidth=bandwidth, scale=scale, log_eps=log_eps
            )
        )
    return float(np.mean(means))


def mean_kl_from_lse(
    lse,
    queries,
    num_centers: int,
    *,
    bandwidth: float,
    scale: float,
    log_eps: float | None = None,
) -> float:
    """Return the mean of `log q - log p` at codes `scale * queries`, `p = N(0, I)`.

    Args:
      lse: `[n]`, log-sum-exp of the codes' logits over all centers.
      queries: `[n, latent_dim]`, the codes before scaling.
      num_centers: number of centers.
      bandwidth: the kernel's standard deviation, in units of the scaled codes.
      scale: the codes' standard deviation.
      log_eps: normalized log density added to q, None for none.

    Returns:
      The mean in nats, summed in float64.
    """
    queries = np.asarray(queries, np.float64)
    log_q = np.asarray(lse, np.float64) - math.log(num_centers)
    normalizer = 0.5 * queries.shape[1] * math.log(2 * math.pi)
    log_q -= queries.shape[1] * math.log(bandwidth) + normalizer
    if log_eps is not None:
        log_q = np.logaddexp(log_q, log_eps)
    log_p = -0.5 * scale**2 * np.square(queries).sum(axis=1) - normalizer
    return float(np.mean(log_q - log_p))

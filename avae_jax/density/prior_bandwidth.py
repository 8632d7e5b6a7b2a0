"""The bandwidth at which a kernel density of a prior's draws fits the prior best."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_count, check_positive
from avae_jax.density.bandwidth import jackknife_stderr, maximize_log_density
from avae_jax.density.kde import kde_log_density
from avae_jax.density.normal_draws import check_not_traced, make_slabs, row_stats
from avae_jax.density.tail import log_tail_density


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PriorBandwidth:
    """A bandwidth for codes that are to be distributed as a prior is; a pytree of its numbers.

    Attributes:
      bandwidth: argmax over h of the mean log density of draws, in units of the codes.
      stderr: its standard error over the draws of queries and of centers.
      null_kl: KL estimate that draws of the prior show against the prior smoothed by the kernel,
        nats: what a trained encoder's is to be compared with.
      num_iterations: passes over the data.
    """

    bandwidth: float
    stderr: float
    null_kl: float
    num_iterations: int


def find_prior_bandwidth(
    prior: Any, num_centers: int, *, seed: int = 0, num_queries: int = 2000
) -> PriorBandwidth:
    r"""Find the bandwidth for codes that are to be distributed as a prior is.

    ``h = argmax_h E_{z ~ p} log q_h(z)`` with `q_h` the kernel density of `num_centers` draws of
    the prior `p`. For `N(0, I)` it is the `h_opt` of `find_bandwidth`, up to the draws. Codes whose
    density at that bandwidth is compared with the prior smoothed alike, `p * N(0, h^2 I)`, are
    distributed as `p` itself: no correction of the bandwidth is needed.

    Args:
      prior: has `latent_dim`, `sample(key, num_samples)`, `smoothed(std)` and `log_prob(z)`.
      num_centers: number of centers m, at least 2.
      seed: at least 0; the same arguments give the same value.
      num_queries: draws the expectation is taken over, at least 2.

    Returns:
      The bandwidth and what comes with it.

    Raises:
      TypeError: a count that is not an integer, or a call inside `jax.jit`.
      ValueError: a count below its minimum.
      RuntimeError: no convergence.

    Numerics:
      Time `O(num_queries num_centers latent_dim)` per pass, about ten of them.
    """
    check_not_traced("find_prior_bandwidth")
    num_centers = check_count("num_centers", num_centers, minimum=2)
    queries, centers = _draws(prior, num_centers, seed, num_queries)
    taken = 0

    def fill(rows):
        nonlocal taken
        rows[:] = centers[taken : taken + len(rows)]
        taken += len(rows)

    slabs = make_slabs(prior.latent_dim, num_centers, fill)
    optimum = maximize_log_density(
        lambda h: row_stats(queries, slabs, bandwidth=h), prior.latent_dim
    )
    return PriorBandwidth(
        bandwidth=optimum.bandwidth,
        stderr=jackknife_stderr(queries, slabs, optimum, num_centers),
        null_kl=_mean_kl(prior, queries, centers, optimum.bandwidth, None),
        num_iterations=optimum.num_iterations,
    )


def prior_null_kl(
    prior: Any,
    num_centers: int,
    *,
    bandwidth: float,
    max_cdf: float | None = None,
    seed: int = 0,
    num_queries: int = 2000,
) -> float:
    """Return the KL estimate that draws of a prior show against the prior smoothed by the kernel.

    Args:
      prior: as `find_prior_bandwidth` takes it.
      num_centers: number of centers, at least 1.
      bandwidth: the kernel's standard deviation, > 0.
      max_cdf: places the floor of the "official" tail under the density; None for no floor.
      seed: at least 0; the draws are those of `find_prior_bandwidth`.
      num_queries: number of codes the mean is over, at least 2.

    Returns:
      The mean, nats.
    """
    check_not_traced("prior_null_kl")
    num_centers = check_count("num_centers", num_centers, minimum=1)
    check_positive("bandwidth", bandwidth)
    queries, centers = _draws(prior, num_centers, seed, num_queries)
    return _mean_kl(prior, queries, centers, bandwidth, max_cdf)


def _draws(prior, num_centers: int, seed: int, num_queries: int) -> tuple[jax.Array, np.ndarray]:
    """Draw queries and centers."""
    num_queries = check_count("num_queries", num_queries, minimum=2)
    seed = check_count("seed", seed, minimum=0)
    of_queries, of_centers = jax.random.split(jax.random.key(seed))
    queries = prior.sample(of_queries, num_queries)
    return queries, np.asarray(prior.sample(of_centers, num_centers), np.float32)


def _mean_kl(prior, queries, centers, bandwidth: float, max_cdf: float | None) -> float:
    log_q = kde_log_density(queries, centers, bandwidth=bandwidth)
    if max_cdf is not None:
        log_eps = log_tail_density(prior.latent_dim, bandwidth=bandwidth, max_cdf=max_cdf)
        log_q = jnp.logaddexp(log_q, log_eps)
    log_p = prior.smoothed(bandwidth).log_prob(queries)
    return float(np.mean(np.asarray(log_q - log_p, np.float64)))

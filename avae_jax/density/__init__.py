"""Gaussian kernel densities of codes: log density, bandwidth, tail, and what they do to codes.

Each file knows the ones below it only::

    kernel_density   KDE, the density as an object
    prior_bandwidth  the bandwidth for codes of any prior ...
    bandwidth        ... and of N(0, I)
    null_kl          the KL that perfect codes show
    code_scale       the scale at which the loss's forces balance
    tail             the floor under the density
    normal_draws     draws of N(0, I), on all devices
    mixture          the log density of Gaussians that differ, by `kernels.mixture_lse`
    kde              the log density, by `kernels.pairwise_lse`
"""

from avae_jax.density.bandwidth import Bandwidth, find_bandwidth
from avae_jax.density.code_scale import CodeScale, expected_code_scale
from avae_jax.density.kde import kde_log_density
from avae_jax.density.kernel_density import KDE
from avae_jax.density.mixture import marginal_log_densities, mixture_log_density
from avae_jax.density.null_kl import null_kl
from avae_jax.density.prior_bandwidth import (
    PriorBandwidth,
    find_prior_bandwidth,
    prior_null_kl,
)
from avae_jax.density.tail import log_tail_density

__all__ = [
    "KDE",
    "Bandwidth",
    "CodeScale",
    "PriorBandwidth",
    "expected_code_scale",
    "find_bandwidth",
    "find_prior_bandwidth",
    "kde_log_density",
    "log_tail_density",
    "marginal_log_densities",
    "mixture_log_density",
    "null_kl",
    "prior_null_kl",
]

"""Autoencoders whose aggregate posterior matches the prior, and the kernel that makes it cheap.

The losses, priors, posteriors and likelihoods, the kernel density estimate and the pairwise
log-sum-exp are plain JAX: importing this package loads neither Flax nor Orbax nor any data set
library. `train`, `compare` and `load_run`, which need them, are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING

from avae_jax import likelihoods, losses, posteriors, priors
from avae_jax.density import (
    KDE,
    Bandwidth,
    CodeScale,
    expected_code_scale,
    find_bandwidth,
    kde_log_density,
    marginal_log_densities,
    mixture_log_density,
)
from avae_jax.kernels.pairwise_lse import (
    PairwiseStats,
    merge_stats,
    pairwise_lse,
    pairwise_lse_stats,
    pmap_pairwise_lse,
    sharded_pairwise_lse,
    sharded_pairwise_lse_stats,
)
from avae_jax.version import __version__

if TYPE_CHECKING:
    from avae_jax.comparison.api import compare
    from avae_jax.training.api import train
    from avae_jax.training.run import load_run

_LAZY = {
    "compare": "avae_jax.comparison.api",
    "load_run": "avae_jax.training.run",
    "train": "avae_jax.training.api",
}

__all__ = [
    "KDE",
    "Bandwidth",
    "CodeScale",
    "PairwiseStats",
    "__version__",
    "compare",
    "expected_code_scale",
    "find_bandwidth",
    "kde_log_density",
    "likelihoods",
    "load_run",
    "losses",
    "marginal_log_densities",
    "merge_stats",
    "mixture_log_density",
    "pairwise_lse",
    "pairwise_lse_stats",
    "pmap_pairwise_lse",
    "posteriors",
    "priors",
    "sharded_pairwise_lse",
    "sharded_pairwise_lse_stats",
    "train",
]


def __dir__() -> list[str]:
    """List the public names, those that are imported on first use with them."""
    return __all__


def __getattr__(name: str):
    """Import what needs the trainer on first use, so that the losses come without it."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'avae_jax' has no attribute {name!r}")

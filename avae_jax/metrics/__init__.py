"""Metrics: arrays in, a dict of Python floats out, each beside its null or floor value.

A key `name_null` (or `null`) holds what the same estimator gives, at the same number of
codes, on draws from the prior: the value to compare with, never zero by assumption.
"""

from avae_jax.metrics.code_moments import code_moments
from avae_jax.metrics.entropy import whitened_entropy
from avae_jax.metrics.kde_kl import kde_kl
from avae_jax.metrics.radius import radial_ks
from avae_jax.metrics.reconstruction import reconstruction_error

__all__ = [
    "code_moments",
    "kde_kl",
    "radial_ks",
    "reconstruction_error",
    "whitened_entropy",
]

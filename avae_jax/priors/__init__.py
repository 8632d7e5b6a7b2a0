"""Priors of the codes, one per file: pytrees whose leaves are their parameters.

A new prior is one file and one line of `PRIORS`.
"""

from collections.abc import Callable
from typing import Any

import jax

from avae_jax.priors.diagonal_gaussian import DiagonalGaussianPrior
from avae_jax.priors.full_gaussian import FullGaussian
from avae_jax.priors.mixture import Mixture
from avae_jax.priors.prior import BasePrior, Prior
from avae_jax.priors.standard_normal import StandardNormal
from avae_jax.priors.units import PriorUnits, is_standard
from avae_jax.registries import make

PRIORS: dict[str, Callable[..., Prior]] = {
    "standard_normal": StandardNormal.make,
    "gaussian": DiagonalGaussianPrior.make,
    "mixture": Mixture.make,
}
"""Priors by name, made from `(latent_dim, key)` and what options they have defaults for."""


def make_prior(name: str, latent_dim: int, key: jax.Array, **options: Any) -> Prior:
    """Make a prior with its initial parameters.

    Args:
      name: a name in `PRIORS`.
      latent_dim: columns of a code, >= 1.
      key: JAX random key.
      **options: such as `num_components`; a prior is given those that it takes.

    Raises:
      ValueError: an unknown name, or options out of their range.

    Example:
      >>> make_prior("standard_normal", 2, jax.random.key(0), num_components=3).describe()
      'N(0, I)'
    """
    return make(PRIORS, "prior", name, latent_dim, key, **options)


__all__ = [
    "PRIORS",
    "BasePrior",
    "DiagonalGaussianPrior",
    "FullGaussian",
    "Mixture",
    "Prior",
    "PriorUnits",
    "StandardNormal",
    "is_standard",
    "make_prior",
]

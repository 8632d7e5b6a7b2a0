"""Priors of the codes, one per file: pytrees whose leaves are their parameters.

A new prior is one file and one line of `PRIORS`.
"""

from collections.abc import Callable

from avae_jax.priors.diagonal_gaussian import DiagonalGaussianPrior
from avae_jax.priors.full_gaussian import FullGaussian
from avae_jax.priors.mixture import Mixture
from avae_jax.priors.prior import BasePrior, Prior
from avae_jax.priors.standard_normal import StandardNormal
from avae_jax.priors.units import PriorUnits

PRIORS: dict[str, Callable[..., Prior]] = {
    "standard_normal": StandardNormal.make,
    "gaussian": DiagonalGaussianPrior.make,
    "mixture": Mixture.make,
}
"""Priors by name, made from `(latent_dim, key, **options)`."""

__all__ = [
    "PRIORS",
    "BasePrior",
    "DiagonalGaussianPrior",
    "FullGaussian",
    "Mixture",
    "Prior",
    "PriorUnits",
    "StandardNormal",
]

"""The standard normal prior."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from avae_jax.checks import check_count
from avae_jax.gaussians import standard_normal_log_prob
from avae_jax.priors.diagonal_gaussian import DiagonalGaussianPrior
from avae_jax.priors.prior import BasePrior, check_width


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StandardNormal(BasePrior):
    """The prior N(0, I), without parameters.

    Attributes:
      latent_dim: columns of a code, >= 1.

    Raises:
      TypeError: `latent_dim` is no integer.
      ValueError: `latent_dim` is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(StandardNormal(2).log_prob(jnp.zeros((1, 2)))[0]), 4)  # -log(2 pi)
      -1.8379
    """

    latent_dim: int = dataclasses.field(metadata={"static": True})

    is_gaussian: ClassVar[bool] = True

    def __post_init__(self):
        check_count("latent_dim", self.latent_dim, minimum=1)

    @classmethod
    def make(cls, latent_dim: int, key: jax.Array) -> "StandardNormal":
        """Return the prior of some dimension; the key is not used."""
        del key
        return cls(latent_dim)

    @property
    def loc(self) -> jax.Array:
        """Return the mean, zeros `[latent_dim]`."""
        return jnp.zeros(self.latent_dim)

    @property
    def log_var(self) -> jax.Array:
        """Return the log-variance, zeros `[latent_dim]`."""
        return jnp.zeros(self.latent_dim)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density of codes `[batch, latent_dim]`: `[batch]`, nats, normalized.

        Raises:
          ValueError: `z` has another width than `latent_dim`.
        """
        check_width(z, self.latent_dim)
        return standard_normal_log_prob(z)

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw codes, `[num_samples, latent_dim]`."""
        return jax.random.normal(key, (num_samples, self.latent_dim))

    def smoothed(self, std: float) -> DiagonalGaussianPrior:
        """Return N(0, (1 + std^2) I)."""
        return DiagonalGaussianPrior(self.loc, jnp.full(self.latent_dim, math.log1p(std**2)))

    def describe(self) -> str:
        """Return "N(0, I)"."""
        return "N(0, I)"

    def std(self) -> float:
        """Return 1."""
        return 1.0

"""A Gaussian prior with independent dimensions."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_count
from avae_jax.gaussians import gaussian_log_prob, sample_gaussian
from avae_jax.priors.prior import BasePrior, check_codes_to_fit, check_width

MIN_VARIANCE_SHARE = 1e-6
"""A fitted variance is at least this share of the largest one: a dead dimension is no point."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalGaussianPrior(BasePrior):
    """The prior `N(loc, diag exp(log_var))`, learned or fitted.

    Attributes:
      loc: mean, `[latent_dim]`.
      log_var: log-variance, `[latent_dim]`.

    Example:
      >>> import jax
      >>> prior = DiagonalGaussianPrior.make(2, jax.random.key(0))
      >>> round(float(prior.log_prob(jnp.zeros((1, 2)))[0]), 4)  # -log(2 pi)
      -1.8379
    """

    loc: jax.Array
    log_var: jax.Array

    is_gaussian: ClassVar[bool] = True

    @classmethod
    def make(cls, latent_dim: int, key: jax.Array) -> "DiagonalGaussianPrior":
        """Return the prior that starts at N(0, I); the key is not used.

        Raises:
          TypeError: `latent_dim` is no integer.
          ValueError: `latent_dim` is below 1.
        """
        del key
        latent_dim = check_count("latent_dim", latent_dim, minimum=1)
        return cls(jnp.zeros(latent_dim), jnp.zeros(latent_dim))

    @classmethod
    def isotropic(cls, latent_dim: int, std: float) -> "DiagonalGaussianPrior":
        """Return `N(0, std^2 I)`, std > 0."""
        zeros = jnp.zeros(latent_dim)
        return cls(zeros, zeros + 2 * math.log(std))

    @property
    def latent_dim(self) -> int:
        """Return the number of columns of a code."""
        return self.loc.shape[-1]

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density of codes `[batch, latent_dim]`: `[batch]`, nats, normalized.

        Raises:
          ValueError: `z` has another width than `latent_dim`.
        """
        check_width(z, self.latent_dim)
        return gaussian_log_prob(z, self.loc, self.log_var)

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw codes `[num_samples, latent_dim]`, differentiable in both parameters."""
        shape = (num_samples, self.latent_dim)
        loc, log_var = jnp.broadcast_to(self.loc, shape), jnp.broadcast_to(self.log_var, shape)
        return sample_gaussian(key, loc, log_var)

    def fit(self, z: Any, *, key: jax.Array) -> "DiagonalGaussianPrior":
        """Return the Gaussian of highest likelihood: the codes' mean and variance per dimension.

        Args:
          z: codes, `[n, latent_dim]`, n >= 2.
          key: not used.

        Returns:
          A prior in this one's dtype. No variance is below `MIN_VARIANCE_SHARE` of the largest.

        Raises:
          ValueError: `z` is not of that shape, not finite, or all rows are equal.
        """
        del key
        z = check_codes_to_fit(z, self.latent_dim, minimum=2)
        variance = z.var(axis=0)
        log_var = np.log(np.maximum(variance, MIN_VARIANCE_SHARE * variance.max()))
        dtype = self.loc.dtype
        return DiagonalGaussianPrior(
            jnp.asarray(z.mean(axis=0), dtype), jnp.asarray(log_var, dtype)
        )

    def smoothed(self, std: float) -> "DiagonalGaussianPrior":
        """Return the distribution of a draw plus noise `N(0, std^2 I)`."""
        log_var = jnp.logaddexp(self.log_var, 2 * math.log(std))
        return dataclasses.replace(self, log_var=log_var)

    def describe(self) -> str:
        """Return what it is called in a caption, "N(0, 0.81^2 I)" where it is isotropic."""
        loc, log_var = np.asarray(self.loc), np.asarray(self.log_var)
        if not loc.any() and np.ptp(log_var) == 0.0:
            std = math.exp(0.5 * float(log_var[0]))
            return "N(0, I)" if std == 1.0 else f"N(0, {std:.2g}^2 I)"
        return "a Gaussian with its own mean and variance per dimension"

    def std(self) -> float:
        """Return the standard deviation, the root mean square over the dimensions."""
        return float(jnp.sqrt(jnp.exp(self.log_var).mean()))

"""A Gaussian with a full covariance, fitted to codes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.gaussians import standard_normal_log_prob
from avae_jax.numerics import promoted
from avae_jax.priors.diagonal_gaussian import MIN_VARIANCE_SHARE
from avae_jax.priors.prior import BasePrior, check_codes_to_fit, check_width


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FullGaussian(BasePrior):
    """The prior `N(loc, root root^T)`.

    Attributes:
      loc: mean, `[latent_dim]`.
      root: a root of the covariance, `[latent_dim, latent_dim]`, invertible.

    Example:
      >>> prior = FullGaussian.of_moments(np.zeros(2), 4 * np.eye(2))
      >>> prior.std()
      2.0
    """

    loc: jax.Array
    root: jax.Array

    @classmethod
    def of_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> "FullGaussian":
        """Return the Gaussian with a mean `[latent_dim]` and a covariance `[latent_dim] * 2`.

        No variance, in any direction, is below `MIN_VARIANCE_SHARE` of the largest.
        """
        values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
        values = np.maximum(values, MIN_VARIANCE_SHARE * values.max())
        return cls(
            jnp.asarray(mean, jnp.float32), jnp.asarray(vectors * np.sqrt(values), jnp.float32)
        )

    @property
    def latent_dim(self) -> int:
        """Return the number of columns of a code."""
        return self.loc.shape[-1]

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density of codes, as `Prior.log_prob` says."""
        check_width(z, self.latent_dim)
        (z,) = promoted(z=z)
        white = jnp.linalg.solve(self.root, (z - self.loc[None]).T).T
        return standard_normal_log_prob(white) - jnp.linalg.slogdet(self.root)[1]

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw codes, `[num_samples, latent_dim]`."""
        noise = jax.random.normal(key, (num_samples, self.latent_dim))
        return self.loc[None] + noise @ self.root.T

    def fit(self, z: Any, *, key: jax.Array) -> "FullGaussian":
        """Return the Gaussian with the codes' mean and covariance, as `Prior.fit` says; n >= 2."""
        del key
        z = check_codes_to_fit(z, self.latent_dim, minimum=2)
        return FullGaussian.of_moments(z.mean(axis=0), np.atleast_2d(np.cov(z, rowvar=False)))

    def smoothed(self, std: float) -> "FullGaussian":
        """Return the distribution of a draw plus noise `N(0, std^2 I)`."""
        covariance = self.root @ self.root.T + std**2 * jnp.eye(self.latent_dim)
        return FullGaussian(self.loc, jnp.linalg.cholesky(covariance))

    def describe(self) -> str:
        """Return what it is called in a caption."""
        return "a Gaussian with its own mean and covariance"

    def std(self) -> float:
        """Return the standard deviation, the root mean square over the dimensions."""
        return float(jnp.sqrt(jnp.square(self.root).sum() / self.latent_dim))

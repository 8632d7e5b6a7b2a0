"""Codes in units of the prior: where a distance from it is a number of its standard deviations."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from avae_jax.priors.prior import Prior

# Draws that the moments of a prior without a closed form are taken from.
_NUM_DRAWS = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class PriorUnits:
    """The linear map after which a prior has mean 0 and covariance I.

    Attributes:
      prior: what codes are drawn from to sample.
      loc: `[latent_dim]`, its mean.
      root: `[latent_dim, latent_dim]`, symmetric, the root of its covariance.
      seed: of all draws.
    """

    prior: Prior
    loc: np.ndarray
    root: np.ndarray
    seed: int

    @classmethod
    def of(cls, prior: Any, *, seed: int) -> "PriorUnits":
        """Return the units of a `Prior`: exact for a Gaussian, else from 20,000 draws."""
        if prior.is_gaussian:
            std = np.exp(0.5 * np.asarray(prior.log_var, np.float64))
            return cls(prior, np.asarray(prior.loc, np.float64), np.diag(std), seed)
        z = np.asarray(prior.sample(jax.random.key(seed), _NUM_DRAWS), np.float64)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z, rowvar=False)))
        values = np.maximum(values, 1e-6 * values[-1])
        return cls(prior, z.mean(axis=0), (vectors * np.sqrt(values)) @ vectors.T, seed)

    @property
    def is_gaussian(self) -> bool:
        """Whether the prior is N(0, I) in these units."""
        return self.prior.is_gaussian

    @property
    def is_isotropic(self) -> bool:
        """Whether the prior is N(0, s^2 I): these units differ from the codes' own by s alone."""
        if not self.is_gaussian or self.loc.any():
            return False
        return bool(np.ptp(np.diag(self.root)) == 0.0)

    @property
    def is_standard(self) -> bool:
        """Whether the prior is N(0, I)."""
        return is_standard(self.prior)

    def to(self, z) -> np.ndarray:
        """Return codes `[n, latent_dim]` in these units, float64."""
        return (np.asarray(z, np.float64) - self.loc) @ np.linalg.inv(self.root)

    def back(self, z: np.ndarray) -> np.ndarray:
        """Return codes `[n, latent_dim]` in their own units, float32."""
        return (z @ self.root + self.loc).astype(np.float32)

    def stand_in(self, stream: int) -> Callable[[int], np.ndarray] | None:
        """Return the sampler for estimators that know a Gaussian alone; None where it is one."""
        return None if self.is_gaussian else self.sampler(stream)

    def sampler(self, stream: int) -> Callable[[int], np.ndarray]:
        """Return a function that draws so many codes, in these units; other ones at each call.

        Args:
          stream: those of two streams are independent.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), stream)
        calls = itertools.count()
        return lambda n: self.to(self.prior.sample(jax.random.fold_in(key, next(calls)), n))


def is_standard(prior: Any) -> bool:
    """Return whether a `Prior` is N(0, I)."""
    return prior.is_gaussian and not np.any(prior.loc) and not np.any(prior.log_var)

"""The protocol of a prior, and what most priors share."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np


class Prior(Protocol):
    """A distribution of codes; a registered pytree whose leaves are its parameters.

    So a prior stands in `params` like a network, and `jax.grad` of its `log_prob` is a prior that
    holds the gradient.
    """

    is_gaussian: ClassVar[bool]
    """Whether it is one Gaussian with independent dimensions. Such a prior has `loc` and `log_var`,
    both `[latent_dim]`, and the `kl` of a Gaussian posterior to it has a closed form."""

    @property
    def latent_dim(self) -> int:
        """Return the number of columns of a code."""
        ...

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density of codes `[batch, latent_dim]`: `[batch]`, nats, normalized.

        Raises:
          ValueError: `z` has another width than `latent_dim`.
        """
        ...

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw codes, `[num_samples, latent_dim]`."""
        ...

    def given(self, encode: Callable[[jax.Array], Any]) -> "Prior":
        """Return the prior that an encoder completes.

        A prior made of encoded pseudo-inputs needs the encoder before it has a density.

        Args:
          encode: from a batch of data to a `Distribution` of codes.

        Returns:
          The prior with a density; most return themselves.
        """
        ...

    def fit(self, z: Any, *, key: jax.Array) -> "Prior":
        """Return this kind of prior fitted to codes, on the host; one that cannot, itself.

        Args:
          z: codes, `[n, latent_dim]`.
          key: JAX random key, for what the fit draws.

        Returns:
          A prior of the same structure.

        Raises:
          ValueError: `z` is not of that shape, not finite, or too few or too uniform for a fit.
        """
        ...

    def describe(self) -> str:
        """Return one plain phrase for a caption, such as "N(0, I)"."""
        ...

    def smoothed(self, std: float) -> "Prior":
        """Return the distribution of a draw plus noise `N(0, std^2 I)`.

        Raises:
          NotImplementedError: it has no closed form.
        """
        ...

    def std(self) -> float:
        """Return the standard deviation of a code, the root mean square over the dimensions."""
        ...


class BasePrior:
    """What a prior does where nothing else is said."""

    is_gaussian: ClassVar[bool] = False

    def given(self, encode: Callable[[jax.Array], Any]) -> Self:
        """Return the prior itself: it needs no encoder."""
        del encode
        return self

    def fit(self, z: Any, *, key: jax.Array) -> Self:
        """Return the prior itself: nothing is fitted."""
        del z, key
        return self

    def smoothed(self, std: float) -> Prior:
        """Refuse: no closed form is known.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError(
            f"prior must have a closed form of its smoothed density, got {type(self).__name__} "
            f"and std={std}: use a Gaussian or a mixture of Gaussians"
        )


def check_width(z: jax.Array, latent_dim: int) -> None:
    """Raise where codes have another width than the prior.

    Args:
      z: codes, `[batch, latent_dim]`.
      latent_dim: the prior's.

    Raises:
      ValueError: the last axis of `z` differs from `latent_dim`.
    """
    shape = np.shape(z)
    if shape[-1:] != (latent_dim,):
        raise ValueError(
            f"z must have {latent_dim} columns as the prior has, got shape {shape}: "
            "make the prior with the latent_dim of the codes"
        )


def check_codes_to_fit(z: Any, latent_dim: int, *, minimum: int) -> np.ndarray:
    """Return codes as float64 on the host, where a prior can be fitted to them.

    Args:
      z: codes, `[n, latent_dim]`.
      latent_dim: the prior's.
      minimum: the fewest codes the fit can work with.

    Returns:
      `[n, latent_dim]` NumPy float64.

    Raises:
      ValueError: another shape, fewer rows than `minimum`, values that are not finite, or codes
        that are all equal.
    """
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or z.shape[1] != latent_dim or len(z) < minimum:
        raise ValueError(
            f"z must have shape [n, {latent_dim}] with n >= {minimum}, got {z.shape}: "
            "give one row per code, and enough of them"
        )
    if not np.isfinite(z).all():
        bad = int(np.count_nonzero(~np.isfinite(z).all(axis=1)))
        raise ValueError(f"z must be finite, got {bad} rows that are not: find out why")
    if not np.ptp(z, axis=0).any():
        raise ValueError(
            f"z must hold codes that differ, got {len(z)} equal ones: the codes have collapsed"
        )
    return z

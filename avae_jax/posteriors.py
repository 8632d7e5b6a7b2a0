"""What an encoder's output means: posteriors read it as a distribution of codes.

A `Posterior` turns the encoder's output, the head, into a `Distribution` of codes, one per row.
Distributions are pytrees: they pass through `jax.jit`, `jax.grad` and `jax.vmap` as they are. A
head in half precision is promoted: codes, densities and divergences are float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from avae_jax.checks import check_count
from avae_jax.gaussians import (
    gaussian_kl,
    gaussian_log_prob,
    mixture_log_prob,
    mixture_sample,
    sample_gaussian,
    soft_bound,
)
from avae_jax.numerics import promoted
from avae_jax.registries import make

LOG_VAR_RANGE = (-20.0, 10.0)
"""Bounds of the log-variance: standard deviations between 4.5e-5 and 148."""


class Distribution(Protocol):
    """A batch of distributions of codes, one per row; a registered pytree."""

    def mean(self) -> jax.Array:
        """Return the means, `[batch, latent_dim]`."""
        ...

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one code per row, `[batch, latent_dim]`, differentiable where the class says so."""
        ...

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density `[batch]`, nats, of one code per row, `[batch, latent_dim]`."""
        ...

    def kl(self, prior: Any) -> jax.Array | None:
        """Return the KL divergence to a prior `[batch]`, nats, in closed form; None: there is none.

        Without a closed form one sample `z` estimates it, `log_prob(z) - prior.log_prob(z)`.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Dirac:
    """All mass on one code per row: what a deterministic encoder gives.

    Attributes:
      z: codes, `[batch, latent_dim]`.
    """

    z: jax.Array

    def mean(self) -> jax.Array:
        """Return the codes."""
        return self.z

    def sample(self, key: jax.Array) -> jax.Array:
        """Return the codes; the key is not used."""
        del key
        return self.z

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Refuse: a point mass has no density.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError(
            "posterior must have a density for log_prob, got a deterministic one: "
            "use posterior 'gaussian'"
        )

    def kl(self, prior: Any) -> None:
        """Return None: the divergence of a point mass from a density is infinite."""
        del prior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """One Gaussian with independent dimensions per row.

    Attributes:
      loc: means, `[batch, latent_dim]`.
      log_var: log-variances, `[batch, latent_dim]`.
    """

    loc: jax.Array
    log_var: jax.Array

    def mean(self) -> jax.Array:
        """Return the means."""
        return self.loc

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one code per row by reparameterization, differentiable in both attributes."""
        return sample_gaussian(key, self.loc, self.log_var)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density `[batch]`, nats, of one code per row, `[batch, latent_dim]`."""
        return gaussian_log_prob(z, self.loc, self.log_var)

    def kl(self, prior: Any) -> jax.Array | None:
        """Return the KL divergence `[batch]`, nats, to a Gaussian prior; None for any other."""
        if not prior.is_gaussian:
            return None
        return gaussian_kl(self.loc, self.log_var, prior.loc, prior.log_var)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class MixtureOfGaussians:
    """One mixture of diagonal Gaussians per row.

    Attributes:
      log_weights: `[batch, k]`, need not be normalized.
      loc: means, `[batch, k, latent_dim]`.
      log_var: log-variances, `[batch, k, latent_dim]`.
    """

    log_weights: jax.Array
    loc: jax.Array
    log_var: jax.Array

    def mean(self) -> jax.Array:
        """Return the means of the mixtures, `[batch, latent_dim]`."""
        return jnp.sum(jax.nn.softmax(self.log_weights, axis=-1)[..., None] * self.loc, axis=-2)

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one code per row, of a component that is drawn first.

        The draw is reparameterized within its component only: the gradient reaches that
        component's `loc` and `log_var`, and `log_weights` get none. A loss that must be unbiased in
        the weights sums over the components instead.
        """
        return mixture_sample(key, self.log_weights, self.loc, self.log_var)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log density `[batch]`, nats, of one code per row, `[batch, latent_dim]`."""
        return mixture_log_prob(z, self.log_weights, self.loc, self.log_var)

    def kl(self, prior: Any) -> None:
        """Return None: there is no closed form."""
        del prior


class Posterior(Protocol):
    """How an encoder's output is read as a distribution of codes."""

    name: ClassVar[str]
    stochastic: ClassVar[bool]
    """Whether two samples of one row differ."""

    def num_outputs(self, latent_dim: int) -> int:
        """Return how many numbers per example the encoder must give."""
        ...

    def __call__(self, head: jax.Array) -> Distribution:
        """Return the distributions that the encoder's output, `[batch, num_outputs]`, stands for.

        Raises:
          ValueError: `head` has a last axis that no `latent_dim` has.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Deterministic:
    """The encoder's output is the code.

    Example:
      >>> import jax.numpy as jnp
      >>> Deterministic()(jnp.ones((2, 3))).mean().shape
      (2, 3)
    """

    name: ClassVar[str] = "deterministic"
    stochastic: ClassVar[bool] = False

    def num_outputs(self, latent_dim: int) -> int:
        """Return `latent_dim`."""
        return latent_dim

    def __call__(self, head: jax.Array) -> Dirac:
        """Return the codes `[batch, latent_dim]` as point masses."""
        return Dirac(*promoted(head=head))


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """The encoder's output is the mean and the log-variance of a diagonal Gaussian.

    `split_gaussian` says how the log-variance is bounded.

    Example:
      >>> import jax.numpy as jnp
      >>> Gaussian()(jnp.ones((2, 6))).mean().shape
      (2, 3)
    """

    name: ClassVar[str] = "gaussian"
    stochastic: ClassVar[bool] = True

    def num_outputs(self, latent_dim: int) -> int:
        """Return `2 * latent_dim`."""
        return 2 * latent_dim

    def __call__(self, head: jax.Array) -> DiagonalGaussian:
        """Return the Gaussians of `[batch, 2 * latent_dim]` outputs, means first.

        Raises:
          ValueError: the last axis of `head` is odd.
        """
        return DiagonalGaussian(*split_gaussian(head))


@dataclasses.dataclass(frozen=True)
class MixturePosterior:
    """The encoder's output is a mixture of `num_components` diagonal Gaussians.

    Per row: `num_components` log-weights, then the means of all components, then their
    log-variances, bounded as `split_gaussian` bounds them.

    Attributes:
      num_components: components per row, >= 1.

    Raises:
      TypeError: `num_components` is no integer.
      ValueError: `num_components` is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> posterior = MixturePosterior(num_components=4)
      >>> posterior.num_outputs(3)
      28
      >>> posterior(jnp.ones((2, 28))).loc.shape
      (2, 4, 3)
    """

    num_components: int

    name: ClassVar[str] = "mixture"
    stochastic: ClassVar[bool] = True

    def __post_init__(self):
        check_count("num_components", self.num_components, minimum=1)

    def num_outputs(self, latent_dim: int) -> int:
        """Return `num_components * (1 + 2 * latent_dim)`."""
        return self.num_components * (1 + 2 * latent_dim)

    def __call__(self, head: jax.Array) -> MixtureOfGaussians:
        """Return the mixtures of `[batch, num_components * (1 + 2 * latent_dim)]` outputs.

        Raises:
          ValueError: `head` has a last axis that no `latent_dim` has.
        """
        (head,) = promoted(head=head)
        latent_dim, rest = divmod(head.shape[-1] - self.num_components, 2 * self.num_components)
        if latent_dim < 1 or rest:
            raise ValueError(
                f"head must have {self.num_components} * (1 + 2 * latent_dim) columns, got shape "
                f"{head.shape}: give the encoder num_outputs=posterior.num_outputs(latent_dim)"
            )
        log_weights, gaussians = jnp.split(head, [self.num_components], axis=-1)
        loc, log_var = split_gaussian(gaussians)
        shape = (*head.shape[:-1], self.num_components, latent_dim)
        return MixtureOfGaussians(log_weights, loc.reshape(shape), log_var.reshape(shape))


POSTERIORS: dict[str, Callable[[], Posterior]] = {
    posterior.name: posterior for posterior in (Deterministic, Gaussian)
}
"""Posteriors that need no options, by name: `POSTERIORS["gaussian"]()`."""


def make_posterior(name: str) -> Posterior:
    """Make a posterior by name.

    Raises:
      ValueError: no posterior in `POSTERIORS` has that name.

    Example:
      >>> make_posterior("gaussian").num_outputs(3)
      6
    """
    return make(POSTERIORS, "posterior", name)


def split_gaussian(head: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split an encoder's output into the mean and the log-variance of a Gaussian.

    The raw log-variance `r` is bounded smoothly: `a = hi - softplus(hi - r)`, then
    `log_var = lo + softplus(a - lo)` with `lo, hi = LOG_VAR_RANGE`.

    Args:
      head: `[batch, 2 * latent_dim]`: means first, then raw log-variances.

    Returns:
      `(loc, log_var)`, each `[batch, latent_dim]`, float32, or float64 if `head` is.

    Raises:
      ValueError: if the last axis of `head` is odd.

    Numerics:
      Between -10 and 0 the bound moves a value by less than 5e-5. Outside the range the gradient
      decays like `exp(-distance)` instead of being exactly 0, so that a log-variance that left the
      range can return; a hard clip would leave it there.

    Example:
      >>> loc, log_var = split_gaussian(jnp.array([[0.5, -1.0, -3.0, 1e6]]))
      >>> print(loc.tolist(), log_var.astype(int).tolist())
      [[0.5, -1.0]] [[-3, 10]]
    """
    (head,) = promoted(head=head)
    if head.shape[-1] % 2:
        raise ValueError(
            f"head must hold means and log-variances, an even last axis, got shape {head.shape}: "
            "give the encoder num_outputs=2*latent_dim"
        )
    loc, raw = jnp.split(head, 2, axis=-1)
    return loc, soft_bound(raw, *LOG_VAR_RANGE)

"""What a decoder's output means: likelihoods read it as a distribution of data.

Likelihoods are pytrees whose leaves are their parameters: one with a learned scale can stand in
`params` beside the networks; those with none have no leaves. Half precision and integers are
promoted: what they return is float32, or float64 where an argument is.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.checks import (
    check_axes,
    check_between,
    check_positive,
    check_positive_unless_traced,
    check_same_shape,
)
from avae_jax.gaussians import inverse_soft_bound, soft_bound
from avae_jax.numerics import promoted
from avae_jax.registries import make

LOG_SCALE_RANGE = (-6.0, 6.0)
"""Bounds of a learned log-scale: standard deviations between 0.0025, less than one gray level of
8-bit images in [0, 1], and 403."""


class Likelihood(Protocol):
    """The distribution of data given a decoder's output; a registered pytree."""

    name: ClassVar[str]
    takes_logits: ClassVar[bool]
    """Whether the decoder ends in logits of data in [0, 1], and not in the data's own range."""

    def nll(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return `-log p(x | outputs)`, summed over the features, normalized.

        Args:
          x: data, `[batch, ...]`.
          outputs: the decoder's output, shaped like `x`.

        Returns:
          `[batch]`, nats.

        Raises:
          ValueError: the shapes differ.
        """
        ...

    def reconstruction(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return the part of the likelihood that depends on `x`, in plain units, `[batch]`.

        Args:
          x: data, `[batch, ...]`.
          outputs: the decoder's output, shaped like `x`.

        Returns:
          `[batch]`: the squared error in squared units of x, or the cross-entropy in nats.

        Raises:
          ValueError: the shapes differ.
        """
        ...

    def mean(self, outputs: jax.Array) -> jax.Array:
        """Return the mean of the data, shaped like `outputs`: what a reconstruction shows."""
        ...


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians around the decoder's output, with one standard deviation.

    Attributes:
      noise_scale: standard deviation > 0, in units of x. A number is fixed, a part of the structure
        of the pytree. An array, `[]`, is its leaf: it may be traced and learned, and only the
        caller sees to it that it stays positive (`LearnedGaussian` does that by itself).

    Raises:
      ValueError: `noise_scale` is a number that is not positive and finite, or not `[]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((1, 8))
      >>> round(float(Gaussian().nll(x, x)[0]), 4)  # 4 log(2 pi)
      7.3515
    """

    noise_scale: float | jax.Array = 1.0

    name: ClassVar[str] = "gaussian"
    takes_logits: ClassVar[bool] = False

    def __post_init__(self):
        if isinstance(self.noise_scale, jax.Array):
            check_axes(noise_scale=("", self.noise_scale))
        else:
            check_positive("noise_scale", self.noise_scale)

    def tree_flatten_with_keys(self):
        """Return an array as a leaf, a number as a part of the structure."""
        if isinstance(self.noise_scale, jax.Array):
            return ((jax.tree_util.GetAttrKey("noise_scale"), self.noise_scale),), None
        return (), float(self.noise_scale)

    @classmethod
    def tree_unflatten(cls, structure, leaves):
        """Return the likelihood; leaves may be anything, as JAX passes through what it maps."""
        likelihood = object.__new__(cls)
        object.__setattr__(likelihood, "noise_scale", *leaves, *[structure][len(leaves) :])
        return likelihood

    def nll(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return `-log N(x; outputs, noise_scale^2 I)`, `[batch]`, nats."""
        if isinstance(self.noise_scale, jax.Array):
            x, outputs, scale = promoted(x=x, outputs=outputs, noise_scale=self.noise_scale)
            return _gaussian_nll(x, outputs, scale, jnp.log(scale))
        return _gaussian_nll(x, outputs, self.noise_scale, math.log(self.noise_scale))

    def reconstruction(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return the squared error summed over the features, `[batch]`."""
        return squared_error(x, outputs)

    def mean(self, outputs: jax.Array) -> jax.Array:
        """Return the outputs."""
        return outputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LearnedGaussian:
    """Independent Gaussians around the decoder's output, with one learned standard deviation.

    The best scale is the root of the mean squared error per feature (Rybkin, Daniilidis and Levine
    2021). Gradient descent on `log_scale` goes there, and the loss weighs reconstruction against
    the KL divergence accordingly.

    Attributes:
      log_scale: `[]`, the logarithm of the standard deviation before it is bounded smoothly to
        `LOG_SCALE_RANGE`; `scale` is what results.

    Example:
      >>> round(float(LearnedGaussian.make(noise_scale=0.1).scale), 4)
      0.1

    References:
      Rybkin, Daniilidis and Levine, 2021, [Simple and Effective VAE Training with Calibrated
      Decoders](https://arxiv.org/abs/2006.13202).
    """

    log_scale: jax.Array

    name: ClassVar[str] = "learned_gaussian"
    takes_logits: ClassVar[bool] = False

    @classmethod
    def make(cls, *, noise_scale: float = 1.0) -> "LearnedGaussian":
        """Return the likelihood that starts at a standard deviation.

        Args:
          noise_scale: the first standard deviation, in units of x, within `LOG_SCALE_RANGE`.

        Returns:
          The likelihood, `scale == noise_scale` up to rounding.

        Raises:
          TypeError: `noise_scale` is no number.
          ValueError: `noise_scale` is outside the range.
        """
        low, high = LOG_SCALE_RANGE
        check_between("noise_scale", noise_scale, math.exp(low), math.exp(high))
        return cls(jnp.float32(inverse_soft_bound(math.log(noise_scale), low, high)))

    @property
    def scale(self) -> jax.Array:
        """Return the standard deviation, `[]`, in units of x."""
        return jnp.exp(self._log_scale())

    def _log_scale(self) -> jax.Array:
        (log_scale,) = promoted(log_scale=self.log_scale)
        return soft_bound(log_scale, *LOG_SCALE_RANGE)

    def nll(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return `-log N(x; outputs, scale^2 I)`, `[batch]`, nats."""
        log_scale = self._log_scale()
        return _gaussian_nll(x, outputs, jnp.exp(log_scale), log_scale)

    def reconstruction(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return the squared error summed over the features, `[batch]`."""
        return squared_error(x, outputs)

    def mean(self, outputs: jax.Array) -> jax.Array:
        """Return the outputs."""
        return outputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli variables whose logits are the decoder's output; x in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.ones((1, 4))
      >>> round(float(Bernoulli().nll(x, jnp.zeros((1, 4)))[0]), 4)  # 4 log 2
      2.7726
    """

    name: ClassVar[str] = "bernoulli"
    takes_logits: ClassVar[bool] = True

    def nll(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return the cross-entropy, `[batch]`, nats; between 0 and 1 it is not normalized in x."""
        return cross_entropy(x, outputs)

    def reconstruction(self, x: jax.Array, outputs: jax.Array) -> jax.Array:
        """Return the cross-entropy, `[batch]`, nats."""
        return cross_entropy(x, outputs)

    def mean(self, outputs: jax.Array) -> jax.Array:
        """Return the probabilities, `sigmoid(outputs)`."""
        return jax.nn.sigmoid(outputs)


LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "gaussian": Gaussian,
    "learned_gaussian": LearnedGaussian.make,
    "bernoulli": Bernoulli,
}
"""Likelihoods by name, made with their options: `LIKELIHOODS["gaussian"](noise_scale=0.5)`."""


def make_likelihood(name: str, *, noise_scale: float | jax.Array = 1.0) -> Likelihood:
    """Make a likelihood by name.

    Args:
      name: a name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0, for likelihoods that have one; a number, or an array
        where the likelihood takes one.

    Raises:
      ValueError: an unknown name, or a `noise_scale` that is a number and not positive and finite.

    Example:
      >>> make_likelihood("gaussian", noise_scale=0.5)
      Gaussian(noise_scale=0.5)
    """
    check_positive_unless_traced("noise_scale", noise_scale)
    return make(LIKELIHOODS, "likelihood", name, noise_scale=noise_scale)


def squared_error(x: jax.Array, outputs: jax.Array) -> jax.Array:
    """Return `sum((x - outputs)**2)` over the features.

    Args:
      x: data, `[batch, ...]`, at least two axes. Integers are taken by value.
      outputs: shaped like `x`.

    Returns:
      `[batch]`, squared units of x, float32 (float64 if an argument is).

    Raises:
      ValueError: the shapes differ (nothing is broadcast), or there is one axis only.
    """
    check_same_shape(x=x, outputs=outputs)
    check_axes(x=("batch ...", x))
    x, outputs = promoted(x=x, outputs=outputs)
    return _sum_features(jnp.square(x - outputs))


def cross_entropy(x: jax.Array, logits: jax.Array) -> jax.Array:
    """Return `-log p(x | logits)` of independent Bernoulli variables, for x in [0, 1].

    Args:
      x: data in [0, 1], `[batch, ...]`, at least two axes; bool, or floating point.
      logits: shaped like `x`.

    Returns:
      `[batch]`, nats, float32 (float64 if an argument is).

    Raises:
      TypeError: `x` holds integers, which may span 0..1 or 0..255.
      ValueError: the shapes differ (nothing is broadcast), or there is one axis only.

    Numerics:
      The cross-entropy of a logit `a` is `softplus(a) - a x`: finite, with the gradient
      `sigmoid(a) - x`, for logits of any size.
    """
    check_same_shape(x=x, logits=logits)
    check_axes(x=("batch ...", x))
    dtype = jnp.asarray(x).dtype
    if jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"x must be of a floating type or bool with a Bernoulli likelihood, got {dtype}: give "
            "x / 255 where it spans 0..255, x.astype('float32') where it holds 0 and 1"
        )
    x, logits = promoted(x=x, logits=logits)
    return _sum_features(jax.nn.softplus(logits) - logits * x)


def _sum_features(per_feature: jax.Array) -> jax.Array:
    return per_feature.reshape(per_feature.shape[0], -1).sum(axis=1)


def _gaussian_nll(
    x: jax.Array, outputs: jax.Array, scale: ArrayLike, log_scale: ArrayLike
) -> jax.Array:
    constant = math.prod(np.shape(x)[1:]) * (0.5 * math.log(2 * math.pi) + log_scale)
    return squared_error(x, outputs) / (2 * scale**2) + constant

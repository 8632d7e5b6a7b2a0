"""The constant that the authors of the AVAE add to the density of codes."""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import gammaincc
from jax.typing import ArrayLike
from scipy import special

from avae_jax.checks import check_between, check_choice, check_count, check_positive_unless_traced
from avae_jax.numerics import promoted

Tail = Literal["none", "official"]
"""What is done where the density of codes vanishes: nothing, or what the authors' code does."""


def check_tail(tail: Tail, max_cdf: float | jax.Array | None) -> None:
    """Refuse an unknown tail policy, and a `max_cdf` that it lacks or does not use.

    Args:
      tail: "none" or "official".
      max_cdf: probability that places eps, with `tail="official"` only.

    Raises:
      ValueError: `tail` is unknown, or `max_cdf` is missing or useless.
    """
    check_choice("tail", tail, get_args(Tail))
    if tail == "none" and max_cdf is not None:
        raise ValueError(f"max_cdf must be None with tail='none', got {max_cdf}: leave it out")
    if tail == "official" and max_cdf is None:
        raise ValueError(
            "max_cdf must be a probability with tail='official', got None: give one, for example "
            "1 - 1e-4"
        )


def log_tail_density(
    latent_dim: int, *, bandwidth: ArrayLike, max_cdf: float | jax.Array
) -> jax.Array:
    r"""Return log eps, the density below which the "official" tail policy stops the push.

    ``log eps = -chi2.ppf(max_cdf, l)/2 - l log h - l/2 log 2 pi``: the density of one Gaussian
    kernel at the radius that holds the share `max_cdf` of its mass. The policy trains on
    `log(q + eps)` in place of `log q`, so the gradient of the density is multiplied by
    `q / (q + eps)`: farther than that radius from every center `q < eps`, more than half of the
    push is gone, and soon the prior's pull is all that is left.

    `eps` is part of the objective, not a guard against log 0. In many dimensions a code's density
    is set by its nearest center alone, whose push `(z - c)/h^2` with h < 1 exceeds the prior's pull
    `-z`; without `eps` free codes then move outward at every scale (at 10,000 centers from about
    20 dimensions on: `avae_jax.expected_code_scale`). It is from the authors' code; the paper does
    not mention it. Their `eps` and densities lack the factor `(2 pi)^(-l/2)`, ours have it; it
    cancels in `q/(q + eps)`.

    Args:
      latent_dim: dimension l of the codes, at least 1.
      bandwidth: the kernel's standard deviation h > 0, in units of z; a number or a scalar array.
      max_cdf: probability in (0, 1). The authors set it by hand: 1 - 1e-6 (l = 8), 1 - 1e-4 (16),
        1 - 1e-2 (64), 1 - 1e-1 (128). A traced one is not checked, and has the digits of its type:
        in float32 1 - 1e-6 is up to 3% off in 1e-6, and eps as much.

    Returns:
      A scalar, nats, comparable with `avae_jax.kde_log_density`; differentiable in both.

    Raises:
      TypeError: `latent_dim` is not an integer.
      ValueError: `latent_dim` below 1, a bandwidth that is not positive, or `max_cdf` outside
        (0, 1).

    Example:
      In two dimensions the quantile is `-2 log(1 - max_cdf)`, so eps is `(1 - max_cdf)/(2 pi h^2)`:

      >>> print(log_tail_density(2, bandwidth=1.0, max_cdf=0.9).round(4))
      -4.1405

    References:
      Saha, Joshi and Whitaker, 2023, [Aggregate Variational Autoencoders](
      https://arxiv.org/abs/2311.07693), and its code, `trainer.get_epsilon`.
    """
    latent_dim = check_count("latent_dim", latent_dim, minimum=1)
    check_positive_unless_traced("bandwidth", bandwidth)
    if isinstance(max_cdf, Tracer):
        radius_squared = _traced_quantile(latent_dim, *promoted(max_cdf=max_cdf))
    else:
        max_cdf = check_between("max_cdf", max_cdf, 0.0, 1.0)
        # The inverse survival function: 1 - max_cdf keeps its digits where max_cdf is close to 1.
        radius_squared = float(special.chdtri(latent_dim, 1.0 - max_cdf))
    (bandwidth,) = promoted(bandwidth=bandwidth)
    return -0.5 * radius_squared - latent_dim * (jnp.log(bandwidth) + 0.5 * math.log(2.0 * math.pi))


def _traced_quantile(latent_dim: int, cdf: jax.Array) -> jax.Array:
    """Return the quantile of the chi-square distribution, which JAX has no inverse for."""
    half = 0.5 * latent_dim
    share = jax.lax.stop_gradient(1.0 - cdf)
    # Laurent and Massart 2000, lemma 1: beyond it lies less than exp(-rest) = share.
    rest = -jnp.log(share)
    widest = latent_dim + 2.0 * jnp.sqrt(latent_dim * rest) + 2.0 * rest

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        beyond = gammaincc(half, 0.5 * middle) > share
        return jnp.where(beyond, middle, low), jnp.where(beyond, high, middle)

    num_bits = jnp.finfo(cdf.dtype).nmant + 8
    low, high = jax.lax.fori_loop(0, num_bits, halve, (jnp.zeros_like(widest), widest))
    found = 0.5 * (low + high)
    # The derivative of the inverse is one over the density.
    log_density = (half - 1.0) * jnp.log(found) - 0.5 * found - half * math.log(2.0)
    return found + (cdf - jax.lax.stop_gradient(cdf)) * jnp.exp(math.lgamma(half) - log_density)

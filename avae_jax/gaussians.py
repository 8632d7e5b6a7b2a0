"""Diagonal Gaussians and their mixtures, shared by posteriors, priors and losses.

Half precision is promoted: densities, divergences and samples are float32, or float64 where an
argument is.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_same_shape
from avae_jax.numerics import logsumexp, promoted, with_one_rank

_LOG_2_PI = math.log(2 * math.pi)


def standard_normal_log_prob(z: jax.Array) -> jax.Array:
    """Return `log N(z; 0, I)`.

    Args:
      z: `[..., latent_dim]`.

    Returns:
      `[...]`, nats, normalized.
    """
    (z,) = promoted(z=z)
    return -0.5 * (jnp.square(z).sum(axis=-1) + z.shape[-1] * _LOG_2_PI)


def gaussian_log_prob(z: jax.Array, loc: ArrayLike, log_var: ArrayLike) -> jax.Array:
    """Return `log N(z; loc, diag exp(log_var))`.

    Args:
      z: `[..., latent_dim]`.
      loc: means, broadcast against `z`.
      log_var: log-variances, broadcast against `z`.

    Returns:
      `[...]`, nats, normalized.

    Numerics:
      The deviation is divided by the standard deviation before it is squared: what counts is their
      ratio, up to 1e19 in float32, however large or small both are.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(gaussian_log_prob(jnp.ones(2), 1.0, 0.0)), 4)  # -log(2 pi)
      -1.8379
    """
    z, loc, log_var = with_one_rank(*promoted(z=z, loc=loc, log_var=log_var))
    scaled = (z - loc) * jnp.exp(-0.5 * log_var)
    return -0.5 * jnp.sum(jnp.square(scaled) + log_var + _LOG_2_PI, axis=-1)


def gaussian_kl(
    loc: jax.Array,
    log_var: jax.Array,
    prior_loc: ArrayLike = 0.0,
    prior_log_var: ArrayLike = 0.0,
) -> jax.Array:
    """Return `KL(N(loc, diag exp(log_var)) || N(prior_loc, diag exp(prior_log_var)))`.

    With `d = log_var - prior_log_var`, `1/2 sum((loc - prior_loc)^2 exp(-prior_log_var) + exp(d) -
    1 - d)` (Kingma and Welling 2014, appendix B, for the prior N(0, I)).

    Args:
      loc: means, `[..., latent_dim]`.
      log_var: log-variances, `[..., latent_dim]`.
      prior_loc: means of the second Gaussian, broadcast against `loc`.
      prior_log_var: its log-variances, broadcast against `log_var`.

    Returns:
      `[...]`, nats, >= 0.

    Numerics:
      Written with `expm1`: the rounding error is proportional to |d| and vanishes where the two
      variances meet, where `exp(d) - 1 - d` would keep a whole unit of it.

    Example:
      >>> import jax.numpy as jnp
      >>> gaussian_kl(jnp.ones((1, 4)), jnp.zeros((1, 4))).tolist()
      [2.0]
    """
    loc, log_var, prior_loc, prior_log_var = with_one_rank(
        *promoted(loc=loc, log_var=log_var, prior_loc=prior_loc, prior_log_var=prior_log_var)
    )
    distance = jnp.square((loc - prior_loc) * jnp.exp(-0.5 * prior_log_var))
    difference = log_var - prior_log_var
    return 0.5 * jnp.sum(distance + jnp.expm1(difference) - difference, axis=-1)


def sample_gaussian(key: jax.Array, loc: jax.Array, log_var: jax.Array) -> jax.Array:
    """Draw one sample from each Gaussian by reparameterization, `loc + exp(log_var / 2) * noise`.

    Args:
      key: JAX random key.
      loc: means `[batch, latent_dim]`.
      log_var: log-variances `[batch, latent_dim]`.

    Returns:
      Samples `[batch, latent_dim]`, differentiable in `loc` and `log_var`.

    Raises:
      ValueError: if the two shapes differ.
    """
    check_same_shape(loc=loc, log_var=log_var)
    loc, log_var = promoted(loc=loc, log_var=log_var)
    return loc + jnp.exp(0.5 * log_var) * jax.random.normal(key, loc.shape, loc.dtype)


def mixture_log_prob(
    z: jax.Array,
    log_weights: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Return the log density of a mixture of diagonal Gaussians.

    `log sum_k w_k N(z; loc_k, diag exp(log_var_k))`, with `w = softmax(log_weights)`. The sum over
    the components comes after the one over the dimensions: summing per dimension would give a
    product of one-dimensional mixtures, with `k ** latent_dim` modes.

    Args:
      z: `[batch, latent_dim]`.
      log_weights: `[k]`, or `[batch, k]` with one mixture per row; need not be normalized.
      loc: means, `[k, latent_dim]` or `[batch, k, latent_dim]`.
      log_var: log-variances, shaped like `loc`.
      labels: `[batch]` int, the component each row is known to come from, negative where that is
        unknown. A known row gets `log N(z; loc_y, diag exp(log_var_y))`, the density given its
        component, without `log w_y`. None where no component is known.

    Returns:
      `[batch]`, nats, normalized.

    Numerics:
      Time and memory `O(batch k latent_dim)`. A label of `k` or more gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> loc = jnp.array([[-50.0], [50.0]])
      >>> z = jnp.array([[50.0], [50.0]])
      >>> labels = jnp.array([-1, 1])
      >>> log_prob = mixture_log_prob(z, jnp.zeros(2), loc, jnp.zeros((2, 1)), labels=labels)
      >>> [round(float(value), 4) for value in log_prob]  # the first lacks log 2
      [-1.6121, -0.9189]
    """
    z, log_weights, loc, log_var = promoted(z=z, log_weights=log_weights, loc=loc, log_var=log_var)
    per_component = gaussian_log_prob(z[..., None, :], loc, log_var)
    log_shares, joint = with_one_rank(jax.nn.log_softmax(log_weights, axis=-1), per_component)
    log_prob = logsumexp(log_shares + joint, axis=-1)
    if labels is None:
        return log_prob
    own = jnp.take_along_axis(per_component, labels[:, None], axis=-1, mode="fill")[:, 0]
    return jnp.where(labels < 0, log_prob, own)


def mixture_sample(
    key: jax.Array,
    log_weights: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    num_samples: int | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Draw from a mixture of diagonal Gaussians: a component, then a point of it.

    Args:
      key: JAX random key.
      log_weights: `[k]`, or `[batch, k]` with one mixture per row; need not be normalized.
      loc: means, `[k, latent_dim]` or `[batch, k, latent_dim]`.
      log_var: log-variances, shaped like `loc`.
      num_samples: how many to draw from one mixture; None draws one per row.
      labels: `[num_samples]` int, components to draw from, negative for any; `k` or more gives
        NaN. None for any.

    Returns:
      `[num_samples, latent_dim]` or `[batch, latent_dim]`. Differentiable in `loc` and `log_var`
      of the component drawn; the choice of the component is discrete and carries no gradient to
      `log_weights`.
    """
    key_component, key_noise = jax.random.split(key)
    shape = None if num_samples is None else (num_samples,)
    component = jax.random.categorical(key_component, log_weights, axis=-1, shape=shape)
    if labels is not None:
        component = jnp.where(labels < 0, component, labels)

    def own(parameter: jax.Array) -> jax.Array:
        if parameter.ndim == 2:
            return jnp.take(parameter, component, axis=0, mode="fill")
        index = component[:, None, None]
        return jnp.take_along_axis(parameter, index, axis=1, mode="fill")[:, 0]

    return sample_gaussian(key_noise, own(loc), own(log_var))


def mixture_variance(log_weights: jax.Array, loc: jax.Array, log_var: jax.Array) -> jax.Array:
    """Return the variance of a mixture per dimension: within components plus between them.

    Args:
      log_weights: `[..., k]`, need not be normalized.
      loc: means, `[..., k, latent_dim]`.
      log_var: log-variances, shaped like `loc`.

    Returns:
      `[..., latent_dim]`.
    """
    log_weights, loc, log_var = promoted(log_weights=log_weights, loc=loc, log_var=log_var)
    weights = jax.nn.softmax(log_weights, axis=-1)[..., None]
    mean = jnp.sum(weights * loc, axis=-2, keepdims=True)
    return jnp.sum(weights * (jnp.exp(log_var) + jnp.square(loc - mean)), axis=-2)


def soft_bound(raw: jax.Array, low: float, high: float) -> jax.Array:
    """Bound a value smoothly: `a = high - softplus(high - raw)`, then `low + softplus(a - low)`.

    Args:
      raw: any shape and value, infinities too.
      low: lower bound.
      high: upper bound, some units above `low`.

    Returns:
      Shaped like `raw`, within `[low, high]` up to `exp(low - high)`.

    Numerics:
      Inside the range a value moves by `exp(low - raw)` up and `exp(raw - high)` down. Outside it
      the gradient decays like `exp(-distance)` instead of being exactly 0, so that a value that
      left the range can return; a hard clip would leave it there.
    """
    bounded = high - jax.nn.softplus(high - raw)
    return low + jax.nn.softplus(bounded - low)


def inverse_soft_bound(bounded: float, low: float, high: float) -> float:
    """Return the number that `soft_bound` takes to `bounded`, which lies inside `(low, high)`."""

    def inverse_softplus(y: float) -> float:
        return y + math.log(-math.expm1(-y))

    middle = low + inverse_softplus(bounded - low)
    return high - inverse_softplus(high - middle)

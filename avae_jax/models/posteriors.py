"""Arithmetic of a diagonal Gaussian posterior head."""

import jax
import jax.numpy as jnp

LOG_VAR_RANGE = (-20.0, 10.0)
"""Bounds of the log-variance: standard deviations between 4.5e-5 and 148."""


def split_gaussian(head: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split an encoder's output into the mean and the log-variance of a Gaussian.

    The raw log-variance `r` is bounded smoothly: `a = hi - softplus(hi - r)`, then
    `log_var = lo + softplus(a - lo)` with `lo, hi = LOG_VAR_RANGE`.

    Args:
      head: `[batch, 2 * latent_dim]`: means first, then raw log-variances.

    Returns:
      `(loc, log_var)`, each `[batch, latent_dim]`, the dtype of `head`.

    Raises:
      ValueError: if the last axis of `head` is odd.

    Numerics:
      Between -10 and 0 the bound moves a value by less than 5e-5. Outside the range the gradient
      decays like `exp(-distance)` instead of being exactly 0, so that a log-variance that left the
      range finds back; a hard clip would leave it there.

    Example:
      >>> loc, log_var = split_gaussian(jnp.array([[0.5, -1.0, -3.0, 1e6]]))
      >>> print(loc.tolist(), log_var.astype(int).tolist())
      [[0.5, -1.0]] [[-3, 10]]
    """
    if head.shape[-1] % 2:
        raise ValueError(
            f"head must hold means and log-variances, an even last axis, got shape {head.shape}: "
            "give the encoder num_outputs=2*latent_dim"
        )
    loc, raw = jnp.split(head, 2, axis=-1)
    low, high = LOG_VAR_RANGE
    bounded = high - jax.nn.softplus(high - raw)
    return loc, low + jax.nn.softplus(bounded - low)


def sample_gaussian(key: jax.Array, loc: jax.Array, log_var: jax.Array) -> jax.Array:
    """Draw one sample from each Gaussian by reparameterisation, `loc + exp(log_var / 2) * noise`.

    Args:
      key: JAX random key.
      loc: means `[batch, latent_dim]`.
      log_var: log-variances `[batch, latent_dim]`.

    Returns:
      Samples `[batch, latent_dim]`, differentiable in `loc` and `log_var`.

    Raises:
      ValueError: if the two shapes differ.
    """
    if loc.shape != log_var.shape:
        raise ValueError(
            f"loc and log_var must have the same shape, got {loc.shape} and {log_var.shape}"
        )
    return loc + jnp.exp(0.5 * log_var) * jax.random.normal(key, loc.shape, loc.dtype)

"""Masked means, log-sum-exp and log-mean-exp, safe where everything is masked."""

import jax
import jax.numpy as jnp


def logsumexp(a: jax.Array, *, axis: int | tuple[int, ...] | None = -1, where=None) -> jax.Array:
    """Compute log(sum(exp(a))) over the entries that `where` keeps.

    Args:
      a: floating array, nats. Entries equal to -inf count as masked.
      axis: axis or axes to reduce; None reduces all of them.
      where: bool, broadcastable to `a`; True keeps an entry. None keeps all.

    Returns:
      `a` reduced over `axis`, in nats, of `a`'s dtype; -inf where nothing is kept.

    Numerics:
      The largest kept entry is subtracted first. Masked entries, whatever they hold (NaN
      included), change neither the value nor the gradient, and a reduction that keeps nothing
      has gradient 0, where `jax.scipy.special.logsumexp` has NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from avae_jax.numerics import logsumexp
      >>> float(logsumexp(jnp.zeros(4), where=jnp.array([True, True, False, False]))).__round__(4)
      0.6931
    """
    a = jnp.asarray(a)
    kept = a != -jnp.inf
    if where is not None:
        kept &= where
    top = jnp.max(jnp.where(kept, a, -jnp.inf), axis=axis, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    # The inner `where` keeps masked values out of exp, whose gradient would otherwise meet 0 * inf.
    terms = jnp.where(kept, jnp.exp(jnp.where(kept, a, top) - top), 0.0)
    total = jnp.sum(terms, axis=axis, keepdims=True)
    empty = total == 0.0
    value = jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1.0, total)) + top)
    return jnp.squeeze(value, axis=axis)


def logmeanexp(a: jax.Array, *, axis: int | tuple[int, ...] | None = -1, where=None) -> jax.Array:
    """Compute log(mean(exp(a))) over the entries that `where` keeps.

    Args:
      a: floating array, nats. An entry of -inf adds nothing to the sum but is counted.
      axis: axis or axes to reduce; None reduces all of them.
      where: bool, broadcastable to `a`; True keeps and counts an entry. None keeps all.

    Returns:
      `a` reduced over `axis`, in nats, of `a`'s dtype; -inf where nothing is kept.

    Numerics:
      As `logsumexp`: gradient 0, not NaN, where nothing is kept.

    Example:
      >>> import jax.numpy as jnp
      >>> from avae_jax.numerics import logmeanexp
      >>> float(logmeanexp(jnp.zeros(4)))
      0.0
    """
    a = jnp.asarray(a)
    counted = jnp.ones(a.shape, bool) if where is None else jnp.broadcast_to(where, a.shape)
    count = jnp.sum(counted, axis=axis).astype(a.dtype)
    return logsumexp(a, axis=axis, where=where) - jnp.log(jnp.maximum(count, 1.0))


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean of values over the rows that count, `[]`.

    Args:
      values: `[batch]`, whatever the others hold; or `[]`, which is returned as it is.
      mask: `[batch]`, 1 on rows that count, else 0.

    Returns:
      The mean; 0 where no row counts.
    """
    if not values.ndim:
        return values
    return jnp.sum(jnp.where(mask > 0, values, 0)) / jnp.maximum(jnp.sum(mask), 1)

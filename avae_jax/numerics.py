"""Masked means, log-sum-exp and log-mean-exp, safe where everything is masked; one promotion.

And functions as arguments of what is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial


def promoted(**arrays: Any) -> tuple[Any, ...]:
    """Return arrays of one floating type in which sums over many dimensions keep their digits.

    Half precision has 8 or 11 bits, and unsigned integers wrap below 0: a sum of squares of either
    is off by whole nats. Everything is computed in single precision at least.

    Args:
      **arrays: by the names of the arguments; integers and bools are taken by value. None is
        passed on.

    Returns:
      As many, in their order: float32, or float64 where one of them is and JAX's x64 mode is on.

    Raises:
      TypeError: an array of complex numbers.

    Example:
      >>> x, z = promoted(x=jnp.uint8(200), z=jnp.zeros(2, jnp.bfloat16))
      >>> x.dtype, z.dtype, float(x)
      (dtype('float32'), dtype('float32'), 200.0)
    """
    given = {name: jnp.asarray(a) for name, a in arrays.items() if a is not None}
    for name, a in given.items():
        if jnp.issubdtype(a.dtype, jnp.complexfloating):
            raise TypeError(f"{name} must hold real numbers, got {a.dtype}: give its parts")
    if not given:
        return (None,) * len(arrays)
    dtype = jnp.promote_types(jnp.result_type(*given.values()), jnp.float32)
    return tuple(given[name].astype(dtype) if name in given else None for name in arrays)


def as_argument(function: Callable) -> Partial:
    """Return a function as a pytree, which a compiled function takes as an argument.

    The arrays of a `Partial` are arguments then, and not constants of the program: other weights
    need no other program.

    Args:
      function: any, or a `jax.tree_util.Partial` of one, which is returned as it is.

    Example:
      >>> weights = jnp.array([2.0])
      >>> apply = jax.jit(lambda f, x: f(x))
      >>> float(apply(as_argument(Partial(lambda w, x: (w * x).sum(), weights)), jnp.ones(1)))
      2.0
    """
    return function if isinstance(function, Partial) else Partial(function)


def with_one_rank(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Return arrays with leading axes of size 1, as many axes each as the one that has most.

    What NumPy does by itself JAX refuses under `jax_numpy_rank_promotion="raise"`.
    """
    ndim = max(a.ndim for a in arrays)
    return tuple(a.reshape((1,) * (ndim - a.ndim) + a.shape) for a in arrays)


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


def kept_rows(mask: Any, num_rows: int) -> jax.Array:
    """Return which rows of a batch count, `[num_rows]` bool.

    Args:
      mask: `[num_rows]`, 0 or False on rows that only fill the batch up; None: every row counts.
      num_rows: of the batch.

    Example:
      >>> kept_rows([1.0, 0.0], 2).tolist(), kept_rows(None, 2).tolist()
      ([True, False], [True, True])
    """
    return jnp.ones(num_rows, bool) if mask is None else jnp.asarray(mask) != 0


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
